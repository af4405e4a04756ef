//! Finding a cluster and becoming a client of it.

use std::path::PathBuf;
use std::time::Duration;

use libring::{Node, OpenError, Options};

use crate::args::Common;
use crate::dev_state::{self, Found};
use crate::serve::read_keys;
use crate::stop::{Code, Stop};

/// Where to find which cluster.
#[derive(Debug)]
struct Target {
    addresses: Vec<String>,
    cluster: String,
    /// The directory of this client's keys.
    keys: Option<PathBuf>,
    /// The state file of `ring dev`, when the addresses are from there.
    dev: Option<PathBuf>,
}

/// A client of the cluster that the command line names, or of the running `ring dev`. Calls have
/// `deadline`, and so has finding the cluster.
pub(crate) async fn connect(common: &Common, deadline: Duration) -> Result<Node, Stop> {
    let target = Target::of(common)?;
    let options = Options {
        name: String::from("ring"),
        cluster: target.cluster.clone(),
        client: true,
        join: target.addresses.clone(),
        keys: target.keys.as_deref().map(read_keys).transpose()?,
        deadline,
        ..Options::default()
    };
    let probe = unreachable(&target.addresses);
    tokio::select! {
        opened = Node::open(options) => opened.map_err(|error| target.stop(&error)),
        problem = probe => Err(target.not_running(&problem)),
    }
}

impl Target {
    fn of(common: &Common) -> Result<Self, Stop> {
        let named = common.cluster.clone();
        if !common.connect.is_empty() {
            return Ok(Self {
                addresses: common.connect.clone(),
                cluster: named.unwrap_or_else(|| Options::default().cluster),
                keys: common.keys.clone(),
                dev: None,
            });
        }
        let way_out = "start one with `ring dev`, or name one with --connect ADDR or RING_CONNECT";
        let none = |why: String| Stop::new(Code::Unreachable, format!("{why}: {way_out}"));
        let path = dev_state::path().ok_or_else(|| none(String::from("no cluster is named")))?;
        match dev_state::find(&path) {
            Found::Running(state) => Ok(Self {
                addresses: state.addresses,
                cluster: named.unwrap_or(state.cluster),
                keys: common.keys.clone().or(state.keys),
                dev: Some(path),
            }),
            Found::Nothing => Err(none(String::from("no cluster is named and no `ring dev` runs"))),
            Found::Stale(state) => Err(none(format!(
                "no cluster is named, and the `ring dev` of {} (process {}) was killed",
                path.display(),
                state.pid
            ))),
            Found::Unreadable(why) => Err(none(format!(
                "no cluster is named, and {} is unreadable ({why})",
                path.display()
            ))),
        }
    }

    fn stop(&self, error: &OpenError) -> Stop {
        Stop::open(&format!("cluster \"{}\"", self.cluster), error)
    }

    fn not_running(&self, problem: &str) -> Stop {
        let from = match &self.dev {
            Some(path) => format!(" (from {}): is its `ring dev` stuck?", path.display()),
            None => String::from(": is it running, and are the addresses right?"),
        };
        Stop::new(
            Code::Unreachable,
            format!("no member of cluster \"{}\" can be reached: {problem}{from}", self.cluster),
        )
    }
}

/// Resolves, with why, when nothing listens at any of the addresses; never, when something does. So
/// that a cluster that is not there is noticed at once, while one that is slow has its time.
async fn unreachable(addresses: &[String]) -> String {
    let mut problems = Vec::new();
    for address in addresses {
        match tokio::net::TcpStream::connect(address.as_str()).await {
            Ok(_) => return std::future::pending().await,
            Err(e) => problems.push(format!("{address}: {e}")),
        }
    }
    problems.join(", ")
}
