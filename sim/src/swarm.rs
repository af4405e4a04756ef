//! One seed, one run, one verdict.
//!
//! A run has two phases. Under faults nothing false may happen; after everything is well again all must finish in
//! bounded time: every operation ends, every group has a leader, all replicas have applied the same. Then
//! everything is read once more, and checkers judge what the clients saw.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use madsim::runtime::{Handle, Runtime};
use madsim::task::NodeId;
use ring_core::ids::{len_u64, len_usize};
use ring_core::rng::Rng;
use serde_json::{Map, Value as Json};

use crate::chaos::Chaos;
use crate::check::{Checker, Durable, Linearizable, LocalReads, Outcomes, Sessions, Verdict};
use crate::client::{Client, Keys};
use crate::cluster::{Cluster, Stuck};
use crate::history::{Counts, History, Key, Op, Recorder};
use crate::lock;
use crate::net::nanos;
use crate::oracle::{RequestCounts, Violation};
use crate::panics;
use crate::plan::Plan;
use crate::rare::Reached;
use crate::shrink::{Shrunk, shrink};
use crate::watch::Watcher;
use crate::world::Sim;

/// How to run a seed.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Print every event as it happens.
    pub aloud: bool,
    /// No faults.
    pub calm: bool,
    /// Which plans the seeds stand for.
    pub suite: Suite,
    /// How long the faults last, instead of what the plan says.
    pub chaos: Option<Duration>,
}

/// Which plan a seed stands for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Suite {
    /// [`Plan::of`].
    #[default]
    Mixed,
    /// [`Plan::steady`].
    Steady,
    /// [`Plan::churning`].
    Churn,
}

/// What came of a seed.
#[derive(Clone, Debug)]
pub struct Report {
    /// What was to happen.
    pub plan: Plan,
    /// What went wrong, if anything did.
    pub failure: Option<Failure>,
    /// Hash over everything that happened; equal whenever the seed is run again.
    pub trace_hash: u64,
    /// How long the run was, in simulated time.
    pub simulated: Duration,
    /// Operations and their ends.
    pub counts: Counts,
    /// Faults carried out, and those that had nobody to hit.
    pub faults: (u64, u64),
    /// Entries applied by all groups, each counted once.
    pub applied: u64,
    /// Rare states that were reached.
    pub reached: Reached,
    /// Messages that members sent.
    pub messages: u64,
    /// Requests between the nodes.
    pub requests: RequestCounts,
    /// Directions of streams, and those read to their end.
    pub streams: (u64, u64),
    /// Watches, what they told, and how often changes were forgotten.
    pub watches: (u64, u64, u64),
    /// Checkers that could not judge the history, and why.
    pub unjudged: Vec<String>,
    /// What the clients saw.
    pub history: History,
    /// The last events of each machine; empty when all went well.
    pub last_events: String,
}

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Which kind of wrong.
    pub class: Class,
    /// By which check, and what it says.
    pub problem: String,
}

/// The kinds of wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An assertion failed.
    Crash,
    /// Something false happened.
    Safety,
    /// Something did not happen in time.
    Liveness,
    /// Two replicas' states differ.
    Divergence,
}

/// What a run leaves behind even when it panics.
#[derive(Default)]
struct Remains {
    sim: Option<Arc<Sim>>,
    /// Where the clients run.
    crowd: Option<NodeId>,
    recorder: Recorder,
    faults: (u64, u64),
}

/// After the faults every call must have ended by then, beyond its own time-out...
const CALLS_MAX: Duration = Duration::from_secs(30);
/// ... and the cluster have agreed by then.
const SETTLE_MAX: Duration = Duration::from_secs(60);
/// How long the members may take to see each other alike after that. Who was unwell for long has become as patient as it
/// can be: nine periods to a probe, and half a minute for a suspect whom nobody else suspects.
const AGREE_MAX: Duration = Duration::from_secs(150);
/// Whoever watches knows everything by then: it may have to ask members that are gone, and pauses now and then.
const WATCHED_MAX: Duration = Duration::from_secs(30);
/// How long nobody who lives may be taken for dead then, at least.
const QUIET: Duration = Duration::from_secs(5);

/// Runs a seed from its plan to its verdict. Must not be called inside a simulation.
#[must_use]
pub fn run_seed(seed: u64, options: &Options) -> Report {
    run_plan(&options.plan_of(seed), options)
}

impl Options {
    /// The plan of a seed as it is to be run.
    #[must_use]
    pub fn plan_of(&self, seed: u64) -> Plan {
        let plan = match self.suite {
            Suite::Mixed => Plan::of(seed),
            Suite::Steady => Plan::steady(seed),
            Suite::Churn => Plan::churning(seed),
        };
        self.applied_to(plan)
    }

    /// The plan as it is to be run.
    #[must_use]
    pub fn applied_to(&self, mut plan: Plan) -> Plan {
        if self.calm {
            plan = plan.calm();
        }
        if let Some(chaos) = self.chaos {
            plan.chaos = chaos;
            plan.faults.retain(|fault| fault.at < nanos(chaos));
        }
        plan
    }
}

/// Makes a failing plan smaller, as [`shrink()`] does; `each` is told of every plan that was tried and what failed.
/// None: the plan does not fail. A run that never ends counts as one that does not fail.
pub fn shrink_plan(
    plan: &Plan,
    tries_max: usize,
    mut each: impl FnMut(&Plan, Option<&Failure>),
) -> Option<(Failure, Shrunk)> {
    let found = run_bounded(plan).failure?;
    let shrunk = shrink(plan, tries_max, |plan| {
        let failure = run_bounded(plan).failure;
        each(plan, failure.as_ref());
        failure.is_some_and(|failure| failure.is_like(&found))
    });
    Some((found, shrunk))
}

/// Runs a plan on a thread of its own, which is left behind if it never ends.
fn run_bounded(plan: &Plan) -> Report {
    let (sender, receiver) = mpsc::channel();
    let mine = plan.clone();
    std::thread::spawn(move || {
        // Nobody listens any more when it took too long.
        let _ = sender.send(run_plan(&mine, &Options::default()));
    });
    receiver.recv_timeout(HUNG_AFTER).unwrap_or_else(|_| Report::hung(plan.clone()))
}

/// Runs a plan.
#[must_use]
pub fn run_plan(plan: &Plan, options: &Options) -> Report {
    run_world(plan, options).0
}

/// Runs a plan; also hands out what all its machines shared, which nothing holds any more.
fn run_world(plan: &Plan, options: &Options) -> (Report, Weak<Sim>) {
    let remains =
        Arc::new(Mutex::new(Remains { recorder: Recorder::new(meta(plan)), ..Remains::default() }));
    let runtime = Runtime::with_seed_and_config(plan.seed, madsim::Config::default());
    let result = panics::catch(AssertUnwindSafe(|| {
        runtime.block_on(live(plan.clone(), options.clone(), Arc::clone(&remains)))
    }));
    let buried = panics::catch(AssertUnwindSafe(|| bury(&runtime, &remains)));
    buried.expect("what is killed does nothing any more");
    let remains = lock(&remains);
    // What a check has noticed before an assertion failed in the same turn says more than that.
    let noticed = || remains.sim.as_ref().and_then(|sim| sim.violation(None));
    let mut failure = match result {
        Ok(Ok(())) => None,
        Ok(Err(failure)) => Some(failure),
        Err(panic) => match noticed() {
            Some(violation) => Some(broken(violation)),
            None => Some(Failure { class: Class::Crash, problem: panic }),
        },
    };
    let history = remains.recorder.history();
    let counts = remains.recorder.counts();
    let mut unjudged = Vec::new();
    if failure.is_none() {
        failure = judge(&history, &mut unjudged);
    }
    let sim = remains.sim.as_ref();
    let applied = sim.map_or(0, |sim| {
        let groups = (1..=plan.shards).map(ring_core::ids::GroupId);
        sim.oracle(|oracle| groups.map(|group| oracle.applied(group).0).sum())
    });
    let report = Report {
        plan: plan.clone(),
        trace_hash: sim.map_or(0, |sim| sim.trace(|trace| trace.hash())),
        simulated: sim.map_or(Duration::ZERO, |sim| Duration::from_nanos(sim.now())),
        counts,
        faults: remains.faults,
        applied,
        reached: sim
            .map_or_else(Reached::default, |sim| sim.lookout(|lookout| lookout.reached.clone())),
        messages: sim.map_or(0, |sim| sim.oracle(|oracle| oracle.messages())),
        requests: sim.map_or_else(Default::default, |sim| sim.oracle(|oracle| oracle.requests())),
        streams: sim.map_or_else(Default::default, |sim| sim.oracle(|oracle| oracle.streams())),
        watches: sim.map_or_else(Default::default, |sim| sim.oracle(|oracle| oracle.watches())),
        last_events: match (&failure, sim) {
            (Some(_), Some(sim)) => sim.trace(|trace| trace.last()),
            _ => String::new(),
        },
        failure,
        unjudged,
        history,
    };
    (report, sim.map_or_else(Weak::new, Arc::downgrade))
}

/// Ends every task of a run. A task that waits lives as long as what may wake it, and that is often something it
/// holds itself (its inbox, its connections, the time): without this nothing of a run would ever be freed.
fn bury(runtime: &Runtime, remains: &Mutex<Remains>) {
    let mut nodes: Vec<NodeId> = Vec::new();
    {
        let remains = lock(remains);
        let machines = remains.sim.iter().flat_map(|sim| &sim.machines);
        nodes.extend(machines.filter_map(|machine| machine.node.get()));
        nodes.extend(remains.crowd);
    }
    runtime.block_on(async move {
        let handle = Handle::current();
        for node in nodes {
            handle.kill(node);
        }
        // The killed tasks are dropped when their turn comes, before any time passes.
        madsim::time::sleep(Duration::from_millis(1)).await;
    });
}

/// The `meta` line of a run's history.
fn meta(plan: &Plan) -> Map<String, Json> {
    let mut meta = Map::new();
    meta.insert(String::from("seed"), Json::from(plan.seed));
    meta.insert(String::from("build"), Json::from(env!("CARGO_PKG_VERSION")));
    meta.insert(String::from("w"), Json::from("kv"));
    meta.insert(String::from("plan"), Json::from(plan.to_string()));
    meta
}

/// The whole run, inside the simulation.
async fn live(plan: Plan, options: Options, remains: Arc<Mutex<Remains>>) -> Result<(), Failure> {
    let recorder = lock(&remains).recorder.clone();
    let mut cluster = Cluster::new(plan.clone(), recorder, options.aloud);
    lock(&remains).sim = Some(Arc::clone(&cluster.sim));
    cluster.boot_all();

    let end = cluster.sim.now() + nanos(plan.chaos);
    let keys = Arc::new(Mutex::new(Keys::new(plan.workload.partitions, plan.workload.keys)));
    let crowd = Handle::current().create_node().name("clients").build();
    lock(&remains).crowd = Some(crowd.id());
    let clients: Vec<_> = clients(&cluster, &plan)
        .enumerate()
        .map(|(n, client)| {
            let work = client.work(Arc::clone(&keys), plan.workload.of(n), end);
            crowd.spawn(work)
        })
        .collect();
    for watcher in watchers(&cluster, &plan) {
        crowd.spawn(watcher.work());
    }
    let mut chaos = Chaos::new(&plan);
    let passed = chaos.run(&mut cluster, end).await;
    lock(&remains).faults = (chaos.done, chaos.skipped);
    passed.map_err(broken)?;

    chaos.end(&mut cluster);
    cluster.founded(SETTLE_MAX).await.map_err(stuck)?;
    ended(&cluster, plan.workload.timeout + CALLS_MAX).await?;
    for client in clients {
        client.await.expect("a client that panics ends the run");
    }
    cluster.settled(SETTLE_MAX).await.map_err(stuck)?;
    cluster.agreed(AGREE_MAX).await.map_err(stuck)?;
    cluster.noticed(SETTLE_MAX).await.map_err(stuck)?;
    cluster.sim.oracle(|oracle| oracle.be_quiet(cluster.sim.now()));
    read_everything(&mut cluster, &plan, &keys).await?;
    watched(&cluster).await?;
    cluster.pass(cluster.sim.now() + nanos(QUIET)).await.map_err(broken)?;
    let now = cluster.sim.now();
    cluster.sim.oracle(|oracle| {
        oracle.on_requests_over(now);
        oracle.on_streams_over(now);
    });
    cluster.settled(SETTLE_MAX).await.map_err(stuck)?;
    cluster.sim.violation(None).map_or(Ok(()), |violation| Err(broken(violation)))
}

fn clients<'a>(cluster: &'a Cluster, plan: &'a Plan) -> impl Iterator<Item = Client> + 'a {
    let mut rng = Rng::new(plan.seed).fork(8);
    (0..plan.workload.clients).map(move |n| {
        let machines = len_u64(cluster.sim.machines.len());
        let home = len_usize(rng.below(machines));
        let (sim, recorder) = (Arc::clone(&cluster.sim), cluster.recorder.clone());
        Client::new(sim, recorder, rng.fork(len_u64(n)), home, &plan.workload)
    })
}

fn watchers<'a>(cluster: &'a Cluster, plan: &'a Plan) -> impl Iterator<Item = Watcher> + 'a {
    let mut rng = Rng::new(plan.seed).fork(52);
    (0..plan.workload.watchers).map(move |n| {
        let home = len_usize(rng.below(len_u64(cluster.sim.machines.len())));
        let sim = Arc::clone(&cluster.sim);
        Watcher::new(sim, rng.fork(len_u64(n)), home, &plan.workload)
    })
}

/// Waits until every watcher has been told of everything.
async fn watched(cluster: &Cluster) -> Result<(), Failure> {
    let end = cluster.sim.now() + nanos(WATCHED_MAX);
    while let Some(problem) = cluster.sim.oracle(|oracle| oracle.watch_behind()) {
        if cluster.sim.now() > end {
            return Err(stuck(Stuck(format!("not told within {WATCHED_MAX:?}: {problem}"))));
        }
        cluster.pass(cluster.sim.now() + 100_000_000).await.map_err(broken)?;
    }
    Ok(())
}

/// Waits until no operation is open any more.
async fn ended(cluster: &Cluster, long: Duration) -> Result<(), Failure> {
    let end = cluster.sim.now() + nanos(long);
    loop {
        let open = cluster.recorder.counts().open();
        if open == 0 {
            return Ok(());
        }
        if cluster.sim.now() > end {
            let problem = format!("{open} calls have not ended {long:?} after the faults");
            return Err(stuck(Stuck(problem)));
        }
        let next = cluster.sim.now() + 100_000_000;
        cluster.pass(next).await.map_err(broken)?;
    }
}

/// Reads every key that was ever written, and every partition as a whole.
async fn read_everything(
    cluster: &mut Cluster,
    plan: &Plan,
    keys: &Mutex<Keys>,
) -> Result<(), Failure> {
    let (keys, partitions) = lock(keys).all();
    let mut ops: Vec<Op> = keys.into_iter().map(|key| Op::Get { key, local: false }).collect();
    ops.extend(partitions.iter().map(|partition| Op::Scan {
        from: Key::new(partition, ""),
        to: None,
        limit: 1_000,
        reverse: false,
        local: false,
    }));
    let mut workload = plan.workload.clone();
    workload.timeout = Duration::from_secs(30);
    let (sim, recorder) = (Arc::clone(&cluster.sim), cluster.recorder.clone());
    let mut home = 0;
    while sim.machines[home].state().lost || sim.machines[home].state().idle {
        home += 1;
    }
    let rng = cluster.rng.fork(9);
    let mut client = Client::new(sim, recorder, rng, home, &workload);
    for op in ops {
        if client.perform(&op).await.is_none() {
            return Err(stuck(Stuck(format!("the last {op} was not answered"))));
        }
    }
    Ok(())
}

/// Lets every checker judge the history.
fn judge(history: &History, unjudged: &mut Vec<String>) -> Option<Failure> {
    let checkers: [&dyn Checker; 5] =
        [&Linearizable::default(), &Sessions, &LocalReads, &Durable, &Outcomes::default()];
    for checker in checkers {
        match checker.check(history) {
            Verdict::Ok => {}
            Verdict::Unknown { why } => unjudged.push(format!("{}: {why}", checker.name())),
            Verdict::Violation(violation) => {
                return Some(Failure {
                    class: Class::Safety,
                    problem: format!("{}: {violation}", checker.name()),
                });
            }
        }
    }
    None
}

fn broken(violation: Violation) -> Failure {
    let class = match violation.check {
        "HASH" => Class::Divergence,
        _ => Class::Safety,
    };
    Failure { class, problem: violation.to_string() }
}

fn stuck(stuck: Stuck) -> Failure {
    Failure { class: Class::Liveness, problem: stuck.0 }
}

/// Runs many seeds on so many threads and hands each report out as it comes, until `each` answers false. A run in
/// which real time passes and simulated time does not is given up as a failure; its thread is left behind.
pub fn run_many(
    seeds: Range<u64>,
    jobs: usize,
    options: &Options,
    mut each: impl FnMut(Report) -> bool,
) {
    let next = Arc::new(AtomicU64::new(seeds.start));
    let (sender, receiver) = mpsc::channel();
    for _ in 0..jobs.max(1) {
        let (next, sender, options) = (Arc::clone(&next), sender.clone(), options.clone());
        std::thread::spawn(move || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || sender.send(News::Begun(seed)).is_err() {
                    return;
                }
                if sender.send(News::Ended(Box::new(run_seed(seed, &options)))).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    let mut running: BTreeMap<u64, Instant> = BTreeMap::new();
    loop {
        match receiver.recv_timeout(Duration::from_secs(1)) {
            Ok(News::Begun(seed)) => {
                running.insert(seed, Instant::now());
            }
            Ok(News::Ended(report)) => {
                running.remove(&report.plan.seed);
                if !each(*report) {
                    return;
                }
            }
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
        }
        let hung = running.iter().find(|(_, begun)| begun.elapsed() > HUNG_AFTER);
        if let Some(seed) = hung.map(|(seed, _)| *seed) {
            running.remove(&seed);
            if !each(Report::hung(options.plan_of(seed))) || running.is_empty() {
                return;
            }
        }
    }
}

/// What a thread says.
enum News {
    Begun(u64),
    Ended(Box<Report>),
}

/// A run takes about a second; one that takes this long never ends.
const HUNG_AFTER: Duration = Duration::from_secs(120);

impl Report {
    fn hung(plan: Plan) -> Self {
        let problem = String::from("the run goes on for ever; see where with --aloud");
        Self {
            plan,
            failure: Some(Failure { class: Class::Liveness, problem }),
            trace_hash: 0,
            simulated: Duration::ZERO,
            counts: Counts::default(),
            faults: (0, 0),
            applied: 0,
            reached: Reached::default(),
            messages: 0,
            requests: RequestCounts::default(),
            streams: (0, 0),
            watches: (0, 0, 0),
            unjudged: Vec::new(),
            history: History::default(),
            last_events: String::new(),
        }
    }

    /// True when nothing went wrong.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.failure.is_none()
    }
}

impl Failure {
    /// True when the same check found the same kind of wrong, whatever the numbers are.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        (self.class, self.check()) == (other.class, other.check())
    }

    /// What found it: the check's name, the place of a panic, the beginning of what did not happen; no numbers but
    /// those of a place.
    fn check(&self) -> String {
        let first = self.problem.lines().next().unwrap_or_default();
        match self.class {
            Class::Crash => first.to_owned(),
            Class::Safety | Class::Liveness | Class::Divergence => {
                let name = first.split(':').next().unwrap_or_default();
                name.chars().filter(|c| !c.is_ascii_digit()).collect()
            }
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let class = match self.class {
            Class::Crash => "crash",
            Class::Safety => "safety",
            Class::Liveness => "liveness",
            Class::Divergence => "divergence",
        };
        write!(f, "{class}: {}", self.problem)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { invoked, ok, fail, info } = self.counts;
        match &self.failure {
            None => write!(f, "seed {}: passed", self.plan.seed)?,
            Some(failure) => {
                writeln!(f, "seed {} FAILED: {failure}", self.plan.seed)?;
                writeln!(f, "{}", self.plan)?;
                writeln!(f, "{}", self.last_events)?;
                let seed = self.plan.seed;
                let replay = "replay: cargo run --release -p sim --bin swarm -- --seed";
                if self.plan == Plan::of(seed) {
                    writeln!(f, "{replay} {seed}")?;
                } else if self.plan == Plan::churning(seed) {
                    writeln!(f, "{replay} {seed} --churn")?;
                } else if self.plan == Plan::steady(seed) {
                    writeln!(f, "{replay} {seed} --steady")?;
                }
                write!(f, "seed {seed}")?;
            }
        }
        write!(
            f,
            "; {:.1} s simulated, {invoked} operations ({ok} ok, {fail} failed, {info} unknown), {} faults \
             ({} without a target), {} entries, trace {:016x}",
            self.simulated.as_secs_f64(),
            self.faults.0,
            self.faults.1,
            self.applied,
            self.trace_hash
        )?;
        for why in &self.unjudged {
            write!(f, "\n  not judged: {why}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Fault, Loss, Scheduled};

    /// However a run ends, nothing of it is left: thousands of them fit one process.
    #[test]
    fn a_run_leaves_nothing_behind() {
        let passing = Plan { chaos: Duration::from_secs(5), ..Plan::steady(1).calm() };
        let mut panicking = passing.clone();
        panicking.limits.append_entries = 0;
        let mut stuck = passing.clone();
        stuck.faults = (0..stuck.members)
            .map(|m| Scheduled { at: 4_000_000_000, fault: Fault::Lose(m, Loss::Gone) })
            .collect();

        let ends = [None, Some(Class::Crash), Some(Class::Liveness)];
        for (plan, end) in [passing, panicking, stuck].iter().zip(ends) {
            let (report, world) = run_world(plan, &Options::default());
            assert_eq!(report.failure.as_ref().map(|failure| failure.class), end, "{report}");
            assert!(world.upgrade().is_none(), "{end:?}");
        }
    }
}
