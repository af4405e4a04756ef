//! `bench move`: what a cluster under load does while replicas move, and after its leaders die.
//!
//! Three members as processes, 64 shards, filled with values of 16 KiB spread over 64 partitions. Callers of one client
//! process write small values to all partitions, one call after another each. Then a fourth member joins: a quarter
//! of all replicas moves to it, while the load goes on. It is done when the directory says that nothing moves and the
//! new member has applied, in each group that it holds, what was committed when that was first so. The bytes that moved are
//! those of the filled values in the shards that it holds. The load is watched once more when that is over: four members
//! on the same cores are what the time of the move is to be compared with, beside three. Beside each rate stands the
//! processor time that it took, of the three members, of the new one, and of the load's own process.
//!
//! Then, again and again, the member that leads most is killed (SIGKILL), and in each of the partitions that it led one
//! write begins at once: how long after the kill it ends. The member is started again and has caught up before the
//! next kill.
//!
//! What it does not show: a network (all members share loopback, the disk and the cores, so that a move costs the
//! load more than between machines), deletes of what has moved away.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use libring::{GroupId, LogIndex, MemberId, Node, Options, Role, Timers};
use parking_lot::Mutex;
use ring_core::rng::Rng;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::{self, Servers};
use crate::process::{Directory, Server, free_ports, own_cpu};
use crate::report::{Columns, Section, float, median, range, show};

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Filled values that the new member is to get, about.
    pub(crate) moved_bytes: u64,
    pub(crate) callers: usize,
    /// How long the load is watched before the join.
    pub(crate) window: Duration,
    pub(crate) kills: usize,
    pub(crate) data: PathBuf,
}

/// Measures.
pub(crate) fn run(plan: &Plan) -> Result<Section, String> {
    let ring = cluster::ring::build()?;
    let dir = Directory::new(&plan.data, "move")?;
    let runtime = Runtime::new().map_err(|e| e.to_string())?;
    let mut servers = cluster::ring::start(&ring, dir.path())?;
    let (moved, outages) = runtime.block_on(async {
        let client = connect(&mut servers).await?;
        let held = fill(&client, plan).await?;
        let moved = join(plan, &ring, dir.path(), &mut servers, &client, &held).await?;
        let outages = kills(plan, &ring, dir.path(), &mut servers, &client).await?;
        client.close().await.map_err(|e| e.to_string())?;
        Ok::<_, String>((moved, outages))
    })?;
    Ok(section(plan, &moved, &outages))
}

/// What the join of a fourth member did.
#[derive(Debug)]
struct Moved {
    seconds: f64,
    bytes: u64,
    replicas: usize,
    before: Rates,
    meanwhile: Rates,
    after: Rates,
}

/// What the load did in some time.
#[derive(Debug)]
struct Rates {
    per_second: f64,
    /// In the slowest whole second.
    least: f64,
    p50_micros: f64,
    p99_micros: f64,
    errors: u64,
    /// Well ended ones of each whole second.
    seconds: Vec<f64>,
    /// Cores that were busy with it.
    cores: Cores,
}

/// Processor time of the processes, first in all, then as a share of the time that has passed.
#[derive(Clone, Copy, Debug)]
struct Cores {
    /// The three members.
    three: f64,
    /// The fourth.
    new: f64,
    /// This process, with the load.
    load: f64,
}

impl Cores {
    fn used(servers: &Servers) -> Self {
        let cpu = |server: &Server| server.cpu().as_secs_f64();
        let three = servers.servers.iter().take(3).map(cpu).sum();
        let new = servers.servers.get(3).map_or(0.0, cpu);
        Self { three, new, load: own_cpu().as_secs_f64() }
    }

    fn since(self, before: Self, seconds: f64) -> Self {
        Self {
            three: (self.three - before.three) / seconds,
            new: (self.new - before.new) / seconds,
            load: (self.load - before.load) / seconds,
        }
    }
}

/// A moment, and what was used until then.
type Mark = (Instant, Cores);

fn mark(servers: &Servers) -> Mark {
    (Instant::now(), Cores::used(servers))
}

/// Writes of the load that ended: when, after how long, and whether well.
type Ended = Vec<(Instant, Duration, bool)>;

/// Callers that write until it is dropped.
struct Load {
    callers: JoinSet<()>,
    ended: Arc<Mutex<Ended>>,
    error: Arc<Mutex<Option<String>>>,
}

impl Load {
    fn start(client: &Node, callers: usize) -> Self {
        let (ended, error) =
            (Arc::<Mutex<Ended>>::default(), Arc::<Mutex<Option<String>>>::default());
        let mut set = JoinSet::new();
        for caller in 0..callers {
            let (client, ended, error) = (client.clone(), Arc::clone(&ended), Arc::clone(&error));
            let mut dice = Rng::new(u64::try_from(caller).unwrap_or(0));
            set.spawn(async move {
                loop {
                    let partition = client.partition(&partition(dice.below(PARTITIONS)));
                    let key = Bytes::from(format!("load-{:06}", dice.below(LOAD_KEYS)));
                    let value = Bytes::from(vec![b'x'; LOAD_BYTES]);
                    let began = Instant::now();
                    let put = partition.put(key, value).await;
                    let now = Instant::now();
                    ended.lock().push((now, now - began, put.is_ok()));
                    if let Err(problem) = put {
                        error.lock().get_or_insert(problem.to_string());
                    }
                }
            });
        }
        Self { callers: set, ended, error }
    }

    /// What ended in this time.
    fn rates(&self, (from, used_before): Mark, (to, used): Mark) -> Result<Rates, String> {
        let ended = self.ended.lock();
        let within = ended.iter().filter(|(at, _, _)| (from..to).contains(at));
        let mut micros = Vec::new();
        let mut seconds: BTreeMap<u64, u64> = (0..(to - from).as_secs()).map(|s| (s, 0)).collect();
        let mut errors = 0;
        for (at, took, is_well) in within {
            if *is_well {
                micros.push(took.as_secs_f64() * 1e6);
                seconds.entry((*at - from).as_secs()).and_modify(|count| *count += 1);
            } else {
                errors += 1;
            }
        }
        micros.sort_by(f64::total_cmp);
        let Some(last) = micros.len().checked_sub(1) else {
            let why = self.error.lock().clone();
            return Err(format!("no write of the load ended well: {why:?}"));
        };
        let place = |permille: usize| micros[(micros.len() * permille / 1000).min(last)];
        let count = float(u64::try_from(micros.len()).unwrap_or(u64::MAX));
        let seconds: Vec<f64> = seconds.into_values().map(float).collect();
        let passed = (to - from).as_secs_f64();
        Ok(Rates {
            per_second: count / passed,
            least: range(seconds.iter().copied()).0,
            seconds,
            cores: used.since(used_before, passed),
            p50_micros: place(500),
            p99_micros: place(990),
            errors,
        })
    }

    async fn stop(mut self) {
        self.callers.shutdown().await;
    }
}

async fn connect(servers: &mut Servers) -> Result<Node, String> {
    let give_up = Instant::now() + PATIENCE;
    loop {
        for server in &mut servers.servers {
            server.check()?;
        }
        let options = Options {
            name: String::from("bench"),
            client: true,
            join: servers.addresses.clone(),
            deadline: Duration::from_secs(30),
            ..Options::default()
        };
        let problem = match Node::open(options).await {
            Ok(client) => match client.partition("up").put("k", "v").await {
                Ok(_) => return Ok(client),
                Err(problem) => problem.to_string(),
            },
            Err(problem) => problem.to_string(),
        };
        if Instant::now() >= give_up {
            return Err(problem);
        }
        sleep(PAUSE).await;
    }
}

/// Fills all partitions evenly; how many bytes each shard got.
async fn fill(client: &Node, plan: &Plan) -> Result<BTreeMap<GroupId, u64>, String> {
    let mut shards = BTreeMap::new();
    // Three of four replicas of each value stay where they are... and all of a member's are a quarter of all.
    let each = plan.moved_bytes * 4 / 3 / PARTITIONS;
    let mut fillers = JoinSet::new();
    for number in 0..PARTITIONS {
        let partition = client.partition(&partition(number));
        let info = partition.info().await.map_err(|e| e.to_string())?;
        *shards.entry(info.shard).or_insert(0) += each;
        fillers.spawn(async move {
            let mut dice = Rng::new(number);
            for key in 0..each.div_ceil(FILL_BYTES) {
                let mut value = vec![0; usize::try_from(FILL_BYTES).unwrap_or(0)];
                value
                    .chunks_mut(8)
                    .for_each(|part| part.copy_from_slice(&dice.next().to_le_bytes()));
                let put = partition.put(format!("fill-{key:08}"), value).await;
                put.map_err(|e| e.to_string())?;
            }
            Ok::<_, String>(())
        });
    }
    while let Some(filled) = fillers.join_next().await {
        filled.map_err(|e| e.to_string()).flatten()?;
    }
    Ok(shards)
}

/// A fourth member joins under load.
async fn join(
    plan: &Plan,
    ring: &Path,
    dir: &Path,
    servers: &mut Servers,
    client: &Node,
    held: &BTreeMap<GroupId, u64>,
) -> Result<Moved, String> {
    let load = Load::start(client, plan.callers);
    sleep(plan.window / 4).await;
    let before = mark(servers);
    sleep(plan.window).await;
    let joined = mark(servers);
    let address = format!("127.0.0.1:{}", free_ports(1)?[0]);
    let data = dir.join(NEW).display().to_string();
    let first = servers.addresses[0].clone();
    let mut words = vec![ring.display().to_string(), String::from("serve")];
    words.extend(["--log", "warn", "--name", NEW, "--data", &data].map(String::from));
    words.extend(["--listen", &address, "--join", &first].map(String::from));
    servers.servers.push(Server::spawn("ring-d", &words, dir)?);
    servers.addresses.push(address);

    let give_up = Instant::now() + MOVE_PATIENCE;
    let (member, shards) = loop {
        for server in &mut servers.servers {
            server.check()?;
        }
        if let Some(found) = arrived(client).await {
            break found;
        }
        if Instant::now() > give_up {
            return Err(String::from("the new member does not get its replicas"));
        }
        sleep(PAUSE).await;
    };
    caught_up(client, member).await?;
    let done = mark(servers);
    sleep(plan.window / 4).await;
    let settled = mark(servers);
    sleep(plan.window).await;
    let after = mark(servers);
    let moved = Moved {
        seconds: (done.0 - joined.0).as_secs_f64(),
        bytes: shards.iter().filter_map(|shard| held.get(shard)).sum(),
        replicas: shards.len(),
        before: load.rates(before, joined)?,
        meanwhile: load.rates(joined, done)?,
        after: load.rates(settled, after)?,
    };
    load.stop().await;
    Ok(moved)
}

/// The new member and the groups that it holds, once nothing moves any more.
async fn arrived(client: &Node) -> Option<(MemberId, BTreeSet<GroupId>)> {
    let table = client.directory()?;
    let new = table.members.iter().find(|member| member.name == NEW)?.id;
    let is_there = |group: &&libring::Assignment| group.on_member(new).is_some();
    let groups: BTreeSet<GroupId> =
        table.groups.iter().filter(is_there).map(|group| group.group).collect();
    // It has just been registered if it holds nothing.
    let is_settled = table.moving() == 0 && groups.iter().any(|group| *group != GroupId::DIRECTORY);
    is_settled.then_some((new, groups))
}

/// Waits until a member has applied, in each of its groups, what was committed when this was asked.
async fn caught_up(client: &Node, member: MemberId) -> Result<(), String> {
    let mut wanted: BTreeMap<GroupId, LogIndex> = BTreeMap::new();
    for other in client.members() {
        // One that has just died says nothing.
        let Ok(status) = client.status(other.id).await else { continue };
        for replica in status.groups {
            let commit = wanted.entry(replica.group).or_default();
            *commit = replica.commit.max(*commit);
        }
    }
    let give_up = Instant::now() + MOVE_PATIENCE;
    loop {
        let behind = match client.status(member).await {
            Ok(status) => status.groups.iter().any(|replica| {
                let commit = wanted.get(&replica.group);
                commit.is_some_and(|commit| replica.applied < *commit)
            }),
            Err(_) => true,
        };
        if !behind {
            return Ok(());
        }
        if Instant::now() > give_up {
            return Err(format!("{member} does not catch up"));
        }
        sleep(PAUSE).await;
    }
}

/// Kills leaders; seconds from each kill until a write to each of the partitions that it led has ended well.
async fn kills(
    plan: &Plan,
    ring: &Path,
    dir: &Path,
    servers: &mut Servers,
    client: &Node,
) -> Result<Vec<f64>, String> {
    let mut shards = BTreeMap::new();
    for number in 0..PARTITIONS {
        let info = client.partition(&partition(number)).info().await;
        shards.insert(number, info.map_err(|e| e.to_string())?.shard);
    }
    let mut outages = Vec::new();
    for _ in 0..plan.kills {
        let (place, member, led) = busiest(client).await?;
        let partitions: Vec<u64> = shards
            .iter()
            .filter(|(_, shard)| led.contains(shard))
            .map(|(&number, _)| number)
            .collect();
        // Dropping it kills it.
        drop(servers.servers.remove(place));
        let killed = Instant::now();
        let mut writes = JoinSet::new();
        for number in partitions {
            let partition = client.partition(&partition(number));
            writes.spawn(async move {
                let put = partition.put("after", "kill").await;
                put.map(|_| killed.elapsed().as_secs_f64()).map_err(|e| e.to_string())
            });
        }
        while let Some(write) = writes.join_next().await {
            outages.push(write.map_err(|e| e.to_string()).flatten()?);
        }
        let server = restart(ring, dir, place, &servers.addresses)?;
        servers.servers.insert(place, server);
        caught_up(client, member).await?;
    }
    Ok(outages)
}

/// Which server leads most groups, as which member, and which.
async fn busiest(client: &Node) -> Result<(usize, MemberId, BTreeSet<GroupId>), String> {
    let give_up = Instant::now() + MOVE_PATIENCE;
    loop {
        let mut found = Vec::new();
        let members = client.members();
        for member in &members {
            let Ok(status) = client.status(member.id).await else { continue };
            let led = status.groups.iter().filter(|replica| replica.role == Role::Leader);
            let led: BTreeSet<GroupId> = led.map(|replica| replica.group).collect();
            let place = NAMES.iter().position(|name| *name == member.name);
            found.push((place.ok_or("a member of another name")?, member.id, led));
        }
        let all: usize = found.iter().map(|(_, _, led)| led.len()).sum();
        let busiest = found.into_iter().max_by_key(|(_, _, led)| led.len());
        // All groups and the directory have a leader.
        if let Some(busiest) = busiest.filter(|_| all > 64) {
            return Ok(busiest);
        }
        if Instant::now() > give_up {
            return Err(format!("only {all} groups have a leader"));
        }
        sleep(PAUSE).await;
    }
}

/// Starts a killed member again, on its directory.
fn restart(ring: &Path, dir: &Path, place: usize, addresses: &[String]) -> Result<Server, String> {
    let name = NAMES[place];
    let data = dir.join(name).display().to_string();
    let mut words = vec![ring.display().to_string(), String::from("serve")];
    words.extend(["--log", "warn", "--name", name, "--data", &data].map(String::from));
    if name == NEW {
        words.extend(["--listen", &addresses[place], "--join", &addresses[0]].map(String::from));
    } else {
        for (name, address) in NAMES.iter().zip(addresses).filter(|(name, _)| **name != NEW) {
            words.extend([String::from("--member"), format!("{name}={address}")]);
        }
    }
    Server::spawn(&format!("ring-{name}-again"), &words, dir)
}

fn section(plan: &Plan, moved: &Moved, outages: &[f64]) -> Section {
    let Moved { seconds, bytes, replicas, before, meanwhile, after } = moved;
    let mib = float(bytes >> 20);
    let mut load = Columns::new(&[
        "load",
        "writes/s",
        "slowest second",
        "p50 µs",
        "p99 µs",
        "errors",
        "of before",
        "of after",
        "cores: three",
        "new",
        "load",
    ]);
    let phases = [("before", before), ("while replicas move", meanwhile), ("after", after)];
    for (name, rates) in phases {
        let mut row = vec![String::from(name)];
        let Rates { per_second, least, p50_micros, p99_micros, errors, cores, .. } = rates;
        row.extend([*per_second, *least, *p50_micros, *p99_micros].map(show));
        row.push(errors.to_string());
        row.extend([before, after].map(|other| show(per_second / other.per_second)));
        row.extend([cores.three, cores.new, cores.load].map(show));
        load.rows.push(row);
    }
    let mut join = Columns::new(&["replicas", "MiB", "seconds", "MiB/s"]);
    join.rows.push(vec![replicas.to_string(), show(mib), show(*seconds), show(mib / seconds)]);
    let mut sorted = outages.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().saturating_sub(1);
    let place = |permille: usize| sorted.get((sorted.len() * permille / 1000).min(last)).copied();
    let figure = |figure: Option<f64>| show(figure.unwrap_or(f64::NAN) * 1e3);
    let limit = 2.0 * Timers::default().election_max.as_secs_f64();
    let mut killed =
        Columns::new(&["kills", "partitions", "p50 ms", "p99 ms", "most ms", "goal ms"]);
    killed.rows.push(vec![
        plan.kills.to_string(),
        outages.len().to_string(),
        figure(Some(median(sorted.iter().copied()))),
        figure(place(990)),
        figure(sorted.last().copied()),
        show(limit * 1e3),
    ]);
    let rates = |rates: &Rates| {
        json!({ "per_second": rates.per_second, "slowest_second": rates.least, "errors": rates.errors,
            "p50_micros": rates.p50_micros, "p99_micros": rates.p99_micros, "seconds": rates.seconds,
            "cores": { "three": rates.cores.three, "new": rates.cores.new, "load": rates.cores.load } })
    };
    Section {
        name: String::from("move"),
        title: String::from("a member joins under load, and leaders die"),
        about: vec![
            format!(
                "Three members, then four; 64 shards; {} callers that write {LOAD_BYTES} bytes. First the join of the \
                 fourth.",
                plan.callers
            ),
            String::from(
                "Then from the SIGKILL of the member that leads most to the end of a write to each partition that it led.",
            ),
        ],
        tables: vec![load, join, killed],
        notes: Vec::new(),
        figures: json!({
            "before": rates(before), "meanwhile": rates(meanwhile), "after": rates(after), "seconds": seconds,
            "bytes": bytes, "replicas": replicas, "outages": outages,
        }),
    }
}

fn partition(number: u64) -> String {
    format!("bench-{number}")
}

/// Names of the members, in the order of their servers.
const NAMES: [&str; 4] = ["a", "b", "c", NEW];
/// The one that joins.
const NEW: &str = "d";
const PARTITIONS: u64 = 64;
const FILL_BYTES: u64 = 16 << 10;
const LOAD_BYTES: usize = 64;
const LOAD_KEYS: u64 = 10_000;
const PAUSE: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_secs(60);
const MOVE_PATIENCE: Duration = Duration::from_secs(600);
