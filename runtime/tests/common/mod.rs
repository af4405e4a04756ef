//! What the tests of whole nodes share.
#![expect(clippy::unwrap_used, reason = "tests")]
#![allow(dead_code, reason = "each test file uses its part")]

pub(crate) mod keys;
#[allow(unreachable_pub, reason = "the package of whole programs uses it, too")]
#[path = "../../../tests/src/ports.rs"]
mod ports;
pub(crate) mod proxy;
pub(crate) mod split;
pub(crate) mod tap;

use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use ports::Ports;
use proxy::Proxy;

use libring::{Data, Node, Options, Timers};

/// Addresses that nobody else is given while this process lives.
pub(crate) fn free_addresses(count: usize) -> Vec<String> {
    static RESERVED: Mutex<Vec<Ports>> = Mutex::new(Vec::new());
    let ports = Ports::reserve(count.try_into().unwrap());
    let addresses = (0..count).map(|k| ports.address(k)).collect();
    RESERVED.lock().unwrap().push(ports);
    addresses
}

/// Options of a cluster's members, `n1` to `n<count>`, each in its directory under `dir`; in memory
/// without one.
pub(crate) fn members(count: usize, dir: Option<&Path>) -> Vec<Options> {
    let addresses = free_addresses(count);
    let name = |n: usize| format!("n{}", n + 1);
    let members: Vec<_> = addresses.iter().enumerate().map(|(n, a)| (name(n), a.clone())).collect();
    let options = |n: usize| Options {
        name: name(n),
        members: members.clone(),
        data: dir.map_or(Data::Memory, |dir| Data::Dir(dir.join(name(n)))),
        ..quick()
    };
    (0..count).map(options).collect()
}

/// Puts a proxy before each member, in their order; the others know it by the proxy's address, and so does the directory:
/// they would else dial past the proxy once they know better.
pub(crate) async fn behind_proxies(members: &mut [Options]) -> Vec<Proxy> {
    let reals = free_addresses(members.len());
    let mut proxies = Vec::new();
    for (options, real) in members.iter_mut().zip(reals) {
        let own = options.members.iter().find(|(name, _)| *name == options.name).unwrap();
        proxies.push(Proxy::new(&own.1, real.clone()).await);
        options.advertise = Some(own.1.clone());
        options.listen = Some(real);
    }
    proxies
}

/// A client of such a cluster.
pub(crate) fn client(members: &[Options]) -> Options {
    let join = members[0].members.iter().map(|(_, address)| address.clone()).collect();
    Options { client: true, join, name: "client".into(), ..quick() }
}

/// A member alone in a directory.
pub(crate) fn alone(dir: &Path) -> Options {
    Options { data: Data::Dir(dir.to_path_buf()), ..quick() }
}

/// Fewer shards and shorter timers than people need: tests would only wait.
pub(crate) fn quick() -> Options {
    Options {
        shards: 4,
        timers: Timers {
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            heartbeat: Duration::from_millis(40),
            handshake: Duration::from_secs(1),
            ..Timers::default()
        },
        ..Options::default()
    }
}

/// Opens all members at once: none is up before all have met.
pub(crate) async fn open_all(options: &[Options]) -> Vec<Node> {
    let opening: Vec<_> = options.iter().cloned().map(|o| tokio::spawn(Node::open(o))).collect();
    let mut nodes = Vec::new();
    for node in opening {
        let up = tokio::time::timeout(Duration::from_secs(30), node).await;
        nodes.push(up.expect("up in time").unwrap().unwrap());
    }
    nodes
}
