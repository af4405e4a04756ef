//! `bench cluster`: what a cluster of three processes on one machine does for one client process, and what
//! etcd and redis do under the same load.
//!
//! Every system is started fresh for each round, with its data on the same file system, filled with the same keys,
//! and then called by so many callers, each of which makes one call after another. Callers share one process and
//! one connection a server, so that a system can coalesce what it writes. Only one system runs at a time; the rounds
//! take turns, because the machine's speed changes: figures of one run compare, figures of two runs do not.
//!
//! What it does not show: a network (everything is on loopback), servers with processors of their own
//! (servers and client share the cores, so that processor time a call decides), large values, a data set beyond
//! memory, failures. redis is one server without replicas: a bound for what one disk allows, not a peer in safety.
//! Its reads are plain reads of that server. etcd has one Raft group: `libring` is one partition, which lives in
//! one group too; `libring, spread` is 64 partitions, whose leaders all three members share.

#[cfg(feature = "peers")]
mod etcd;
pub(crate) mod load;
#[cfg(feature = "peers")]
mod redis;
pub(crate) mod ring;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::json;

use self::load::{Call, Client, Load, Outcome};
use crate::process::{Directory, Server, own_cpu};
use crate::report::{Columns, Section, float, median, range, show};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum System {
    /// One partition.
    Ring,
    /// Keys spread over 64 partitions.
    Spread,
    Etcd,
    Redis,
}

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) systems: Vec<System>,
    pub(crate) calls: Vec<Call>,
    pub(crate) callers: Vec<usize>,
    pub(crate) rounds: usize,
    pub(crate) window: Duration,
    pub(crate) value_bytes: usize,
    pub(crate) keys: u64,
    /// Where data directories are made.
    pub(crate) data: PathBuf,
}

/// The processes of one system.
#[derive(Debug)]
pub(crate) struct Servers {
    pub(crate) servers: Vec<Server>,
    pub(crate) addresses: Vec<String>,
}

/// Which measurement: what was called by how many.
type Place = (&'static str, usize);

/// What one system did in one round, and what went wrong.
type Round = (Vec<(Place, Measured)>, Vec<String>);

/// One measurement of one round.
#[derive(Debug)]
struct Measured {
    round: usize,
    per_second: f64,
    p50: u32,
    p99: u32,
    /// Processor time of each server and of the client, in µs a call.
    servers: Vec<f64>,
    client: f64,
    errors: u64,
}

/// Measures, round by round.
pub(crate) fn run(plan: &Plan) -> Result<Section, String> {
    let mut notes = Vec::new();
    let systems = available(&plan.systems, &mut notes);
    let ring = ring::build()?;
    let mut results: BTreeMap<(Place, System), Vec<Measured>> = BTreeMap::new();
    for round in 0..plan.rounds {
        // Each system comes first once.
        for k in 0..systems.len() {
            let system = systems[(round + k) % systems.len()];
            let (measured, problems) = run_round(plan, system, &ring, round)
                .map_err(|e| format!("{}: {e}", system.name()))?;
            for (place, measured) in measured {
                results.entry((place, system)).or_default().push(measured);
            }
            notes.extend(problems);
        }
    }
    Ok(section(plan, &results, notes))
}

impl System {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ring => "libring",
            Self::Spread => "libring, spread",
            Self::Etcd => "etcd",
            Self::Redis => "redis",
        }
    }

    /// Why it cannot be measured here.
    fn missing(self) -> Option<String> {
        let program = match self {
            Self::Ring | Self::Spread => return None,
            Self::Etcd => "etcd",
            Self::Redis => "redis-server",
        };
        if !cfg!(feature = "peers") {
            return Some(format!("{program}: this was built without --features peers"));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&path).any(|dir| dir.join(program).exists());
        (!found).then(|| format!("{program} is not installed: run bench/peers.sh"))
    }
}

/// The systems that can be measured; the notes say what is left out.
pub(crate) fn available(systems: &[System], notes: &mut Vec<String>) -> Vec<System> {
    let mut found = Vec::new();
    for system in systems {
        match system.missing() {
            None => found.push(*system),
            Some(why) => notes.push(format!("Left out: {why}")),
        }
    }
    found
}

/// Everything of one system, in one round, in a runtime of its own.
fn run_round(plan: &Plan, system: System, ring: &Path, round: usize) -> Result<Round, String> {
    let dir = Directory::new(&plan.data, system.name())?;
    with_client(system, ring, dir.path(), Measure { plan, round }).map(|(_, measured)| measured)
}

/// Something to do with a client of any system.
pub(crate) trait Use {
    type Output;
    fn call(
        self,
        client: &impl Client,
        servers: &Servers,
    ) -> impl Future<Output = Result<Self::Output, String>>;
}

/// Starts a system and uses it through a client, which is closed then; the servers go on.
pub(crate) fn with_client<U: Use>(
    system: System,
    ring: &Path,
    dir: &Path,
    task: U,
) -> Result<(Servers, U::Output), String> {
    let runtime = tokio::runtime::Runtime::new().map_err(|e| format!("no runtime: {e}"))?;
    runtime.block_on(async {
        match system {
            System::Ring | System::Spread => {
                let partitions = if system == System::Ring { 1 } else { 64 };
                let mut servers = ring::start(ring, dir)?;
                let addresses = servers.addresses.clone();
                let client =
                    connect(&mut servers, || ring::Ring::connect(&addresses, partitions)).await?;
                let output = task.call(&client, &servers).await?;
                client.close().await?;
                Ok((servers, output))
            }
            #[cfg(feature = "peers")]
            System::Etcd => {
                let mut servers = etcd::start(dir)?;
                let addresses = servers.addresses.clone();
                let client = connect(&mut servers, || etcd::Etcd::connect(&addresses)).await?;
                let output = task.call(&client, &servers).await?;
                Ok((servers, output))
            }
            #[cfg(feature = "peers")]
            System::Redis => {
                let mut servers = redis::start(dir)?;
                let addresses = servers.addresses.clone();
                let client = connect(&mut servers, || redis::Redis::connect(&addresses)).await?;
                let output = task.call(&client, &servers).await?;
                Ok((servers, output))
            }
            #[cfg(not(feature = "peers"))]
            System::Etcd | System::Redis => unreachable!("left out by `available`"),
        }
    })
}

/// Tries until the servers answer a write.
async fn connect<C: Client, F: Future<Output = Result<C, String>>>(
    servers: &mut Servers,
    open: impl Fn() -> F,
) -> Result<C, String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        for server in &mut servers.servers {
            server.check()?;
        }
        let opened = match open().await {
            Ok(client) => client.put(0, Bytes::from_static(b"first")).await.map(|()| client),
            Err(problem) => Err(problem),
        };
        match opened {
            Ok(client) => return Ok(client),
            Err(problem) if Instant::now() >= give_up => return Err(problem),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

/// Everything of one round.
struct Measure<'a> {
    plan: &'a Plan,
    round: usize,
}

impl Use for Measure<'_> {
    type Output = Round;

    async fn call(self, client: &impl Client, servers: &Servers) -> Result<Self::Output, String> {
        let Self { plan, round } = self;
        plan.load(Call::Put, FILLERS).fill(client).await?;
        let (mut all, mut problems) = (Vec::new(), Vec::new());
        for &call in &plan.calls {
            for &callers in &plan.callers {
                let mut times: Vec<Vec<Duration>> = Vec::new();
                let look = || {
                    let mut used: Vec<Duration> = servers.servers.iter().map(Server::cpu).collect();
                    used.push(own_cpu());
                    times.push(used);
                };
                let outcome = plan.load(call, callers).run(client, look).await;
                if let Some(error) = &outcome.error {
                    problems.push(format!(
                        "round {}, {} by {callers}: {} errors, one of them: {error}",
                        round + 1,
                        call.name(),
                        outcome.errors
                    ));
                }
                all.push(((call.name(), callers), Measured::new(round, plan, &outcome, &times)));
            }
        }
        Ok((all, problems))
    }
}

impl Plan {
    fn load(&self, call: Call, callers: usize) -> Load {
        Load {
            call,
            callers,
            keys: self.keys,
            value_bytes: self.value_bytes,
            warmup: WARMUP,
            window: self.window,
        }
    }
}

impl Measured {
    fn new(round: usize, plan: &Plan, outcome: &Outcome, times: &[Vec<Duration>]) -> Self {
        let done = float(outcome.done);
        let [before, after] = times else { unreachable!("a window has two edges") };
        let mut used: Vec<f64> = after
            .iter()
            .zip(before)
            .map(|(after, before)| after.saturating_sub(*before).as_secs_f64() * 1e6 / done)
            .collect();
        let client = used.pop().expect("the client is always there");
        Self {
            round,
            per_second: done / plan.window.as_secs_f64(),
            p50: outcome.permille(500),
            p99: outcome.permille(990),
            servers: used,
            client,
            errors: outcome.errors,
        }
    }

    fn of_servers(&self) -> f64 {
        self.servers.iter().sum()
    }
}

fn section(
    plan: &Plan,
    results: &BTreeMap<(Place, System), Vec<Measured>>,
    notes: Vec<String>,
) -> Section {
    let mut rates = Columns::new(&[
        "call",
        "callers",
        "system",
        "calls/s",
        "least",
        "most",
        "p50 ms",
        "p99 ms",
        "CPU µs/call",
        "servers",
        "client",
        "errors",
    ]);
    let mut ratios =
        Columns::new(&["call", "callers", "libring beside", "calls/s", "p50", "p99", "CPU/call"]);
    let mut figures = Vec::new();
    for (((call, callers), system), rounds) in results {
        let of = |figure: fn(&Measured) -> f64| median(rounds.iter().map(figure));
        let (least, most) = range(rounds.iter().map(|m| m.per_second));
        let errors: u64 = rounds.iter().map(|m| m.errors).sum();
        rates.rows.push(vec![
            String::from(*call),
            callers.to_string(),
            String::from(system.name()),
            show(of(|m| m.per_second)),
            show(least),
            show(most),
            show(of(|m| f64::from(m.p50) / 1e3)),
            show(of(|m| f64::from(m.p99) / 1e3)),
            show(of(|m| m.of_servers() + m.client)),
            show(of(Measured::of_servers)),
            show(of(|m| m.client)),
            errors.to_string(),
        ]);
        figures.extend(rounds.iter().map(|m| {
            json!({
                "call": call, "callers": callers, "system": system.name(), "round": m.round,
                "per_second": m.per_second, "p50_us": m.p50, "p99_us": m.p99, "errors": m.errors,
                "cpu_us_per_call": { "servers": m.servers, "client": m.client },
            })
        }));
        if let Some(ours) = results.get(&((call, *callers), System::Ring))
            && !matches!(*system, System::Ring | System::Spread)
        {
            ratios.rows.push(ratio_row(call, *callers, *system, ours, rounds));
        }
    }
    Section {
        name: String::from("cluster"),
        title: String::from("three processes on one machine, beside etcd and redis"),
        about: vec![
            format!(
                "One client process, one connection a server, {} keys of 20 bytes, values of {} \
                 bytes, everything synced before it is answered.",
                plan.keys, plan.value_bytes
            ),
            format!(
                "Medians of {} rounds of {} s in turn. redis is one server with `appendfsync \
                 always`. Ratios are of the same round.",
                plan.rounds,
                plan.window.as_secs_f64()
            ),
        ],
        tables: vec![rates, ratios],
        notes,
        figures: figures.into(),
    }
}

/// How we compare, as the median of the rounds' ratios.
fn ratio_row(
    call: &str,
    callers: usize,
    peer: System,
    ours: &[Measured],
    theirs: &[Measured],
) -> Vec<String> {
    let ratio = |figure: fn(&Measured) -> f64| {
        let of_round = ours.iter().zip(theirs).map(|(ours, theirs)| figure(ours) / figure(theirs));
        format!("{:.2}", median(of_round))
    };
    vec![
        String::from(call),
        callers.to_string(),
        String::from(peer.name()),
        ratio(|m| m.per_second),
        ratio(|m| f64::from(m.p50)),
        ratio(|m| f64::from(m.p99)),
        ratio(|m| m.of_servers() + m.client),
    ]
}

/// A key of 20 bytes.
pub(crate) fn key_name(key: u64) -> Bytes {
    Bytes::from(format!("bench-key-{key:010}"))
}

/// How many callers write every key before it is measured.
const FILLERS: usize = 256;
const WARMUP: Duration = Duration::from_millis(500);
/// How long a system may take to come up.
const PATIENCE: Duration = Duration::from_secs(60);
