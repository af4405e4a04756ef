//! A whole cluster in the hands of a test: faults as verbs, clients as methods, waiting with a limit.

use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use madsim::net::NetSim;
use madsim::runtime::Handle;
use ring_core::config::Config;
use ring_core::ids::{GroupId, MemberId, len_u64};
use ring_core::io::{Action, Reply};
use ring_core::rng::Rng;
use ring_core::wire::message::{MemberStatus, Role};

use crate::call::{Ask, Ended};
use crate::client::Client;
use crate::clock::{Clock, Nanos, WALL_START_MS};
use crate::history::{Done, History, Key, Op, Recorder, Value};
use crate::inbox::Delivery;
use crate::lock;
use crate::log::recover_disk;
use crate::member;
use crate::net::{self, Link, nanos};
use crate::oracle::Violation;
use crate::plan::{Plan, founders, genesis};
use crate::world::{Machine, Sim, member_id};

mod churn;

/// A cluster and everything that can be done to it. Machines are counted from 1 here, as members are.
pub struct Cluster {
    pub(crate) sim: Arc<Sim>,
    pub(crate) recorder: Recorder,
    pub(crate) rng: Rng,
    plan: Plan,
    handle: Handle,
    weather: Vec<(u64, Weather)>,
    /// Groups whose membership was changed: what each is to have.
    shapes: BTreeMap<GroupId, (Vec<MemberId>, Vec<MemberId>)>,
    fronts: u64,
    /// Every founder has known at some time that the cluster exists.
    founded_once: bool,
}

/// What is wrong with some links, until it is called off.
#[derive(Clone, Debug)]
enum Weather {
    Blocked(Vec<(usize, usize)>),
    Bad(Vec<(usize, usize)>, Link),
}

/// One machine's node, for a client to ask.
pub struct On<'a> {
    cluster: &'a mut Cluster,
    machine: usize,
}

/// Something was not reached in time: what, and how things stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck(pub String);

/// So many seconds.
#[must_use]
pub fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// How long a cluster may take to agree again after everything is well.
const SETTLE_MAX: Duration = Duration::from_secs(60);

impl Cluster {
    /// So many members with the default limits, each with a replica of every shard, started and founded; the seed
    /// comes from madsim.
    ///
    /// # Panics
    /// They do not found a cluster in time.
    pub async fn start(members: usize) -> Self {
        Self::start_with(members, |_| {}).await
    }

    /// The same with another plan.
    ///
    /// # Panics
    /// They do not found a cluster in time.
    pub async fn start_with(members: usize, change: impl FnOnce(&mut Plan)) -> Self {
        let seed = Handle::current().seed();
        let mut plan = Plan::steady(seed).calm();
        plan.members = members;
        plan.spares = 0;
        plan.replication = u32::try_from(members).expect("a test has few members");
        plan.clients = 0;
        plan.wild = false;
        plan.limits = ring_core::config::Limits::default();
        plan.timers = ring_core::config::Timers::default();
        plan.clocks.resize(members, (0, 0));
        change(&mut plan);
        let mut cluster = Self::new(plan, Recorder::default(), false);
        cluster.boot_all();
        let founded = cluster.founded(secs(30)).await;
        founded.unwrap_or_else(|stuck| panic!("{}\n{}", stuck.0, cluster.last_events()));
        cluster
    }

    /// The machines of a plan, none of them started.
    #[must_use]
    pub fn new(plan: Plan, recorder: Recorder, aloud: bool) -> Self {
        let rng = Rng::new(plan.seed).fork(7);
        let latency = plan.latency.0..plan.latency.1;
        NetSim::current().update_config(|config| config.send_latency = latency);
        let count = plan.members + plan.spares + plan.clients;
        let machines = (0..count).map(|m| machine(&plan, m)).collect();
        let pace = plan.pace.clone();
        let sim = Sim::new(machines, plan.members + plan.spares, pace, plan.seed, aloud);
        sim.net.set_latency(plan.latency);
        if plan.wild {
            sim.net.change_all(|_, _, link| link.wild = true);
            sim.oracle(|oracle| oracle.expect_losses());
        }
        if plan.birth.is_some() {
            sim.oracle(|oracle| oracle.expect_founders(plan.members));
        }
        let handle = Handle::current();
        for (m, machine) in sim.machines.iter().enumerate() {
            let node =
                handle.create_node().name(format!("n{}", m + 1)).ip(net::address(m).ip()).build();
            machine.node.set(node.id()).expect("each machine is made once");
        }
        Self {
            sim,
            recorder,
            rng,
            plan,
            handle,
            weather: Vec::new(),
            shapes: BTreeMap::new(),
            fronts: 0,
            founded_once: false,
        }
    }

    /// Starts every machine that does not run.
    pub fn boot_all(&mut self) {
        for m in 0..self.sim.machines.len() {
            self.boot(m);
        }
    }

    /// Starts a machine (counted from 1).
    pub fn restart(&mut self, member: usize) {
        self.boot(member - 1);
    }

    /// Kills a process; its system lives.
    pub fn crash(&mut self, member: usize) {
        self.kill(member - 1, false);
    }

    /// Takes a machine's power away.
    pub fn power_cut(&mut self, member: usize) {
        self.kill(member - 1, true);
    }

    /// Stops a process between two turns.
    pub fn pause(&mut self, member: usize) {
        self.sim.machines[member - 1].inbox.pause();
    }

    /// Lets it go on.
    pub fn resume(&mut self, member: usize) {
        self.sim.machines[member - 1].inbox.resume();
    }

    /// These two sides cannot talk any more.
    pub fn split(
        &mut self,
        left: impl IntoIterator<Item = usize>,
        right: impl IntoIterator<Item = usize>,
    ) {
        let left: Vec<usize> = left.into_iter().map(|m| m - 1).collect();
        let right: Vec<usize> = right.into_iter().map(|m| m - 1).collect();
        self.block(&left, &right);
    }

    /// All links are well again.
    pub fn heal(&mut self) {
        self.weather.clear();
        self.sim.net.heal();
        for machine in 0..self.sim.machines.len() {
            self.sim.net.half_open(machine, 0);
        }
    }

    /// Lets time pass.
    ///
    /// # Panics
    /// A rule was broken.
    pub async fn run(&mut self, long: Duration) {
        let until = self.sim.now() + nanos(long);
        if let Err(violation) = self.pass(until).await {
            panic!("{violation}\n{}", self.last_events());
        }
    }

    /// Waits until every group has a leader and all its replicas have applied the same.
    ///
    /// # Panics
    /// That takes too long, or a rule was broken.
    pub async fn settle(&mut self) {
        if let Err(stuck) = self.settled(SETTLE_MAX).await {
            panic!("{}\n{}", stuck.0, self.last_events());
        }
        self.run(Duration::ZERO).await;
    }

    /// Waits until a condition holds, asked now and then.
    ///
    /// # Panics
    /// It does not hold within `long`, or a rule was broken.
    pub async fn until(&mut self, long: Duration, mut holds: impl FnMut(&Sim) -> bool) {
        let end = self.sim.now() + nanos(long);
        while !holds(&self.sim) {
            assert!(self.sim.now() < end, "not reached in {long:?}\n{}", self.last_events());
            self.run(POLL).await;
        }
    }

    /// A client of a machine's node (counted from 1).
    pub fn on(&mut self, machine: usize) -> On<'_> {
        On { machine: machine - 1, cluster: self }
    }

    /// What the clients saw so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.recorder.history()
    }

    /// The last events of each machine.
    #[must_use]
    pub fn last_events(&self) -> String {
        self.sim.trace(|trace| trace.last())
    }

    /// What was drawn for it.
    pub(crate) fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What all machines share.
    #[must_use]
    pub fn sim(&self) -> &Arc<Sim> {
        &self.sim
    }

    /// The leader of the highest term that is known of a group, counted from 1.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<usize> {
        self.sim.oracle(|oracle| oracle.machine_of(oracle.leader(group)?)).map(|m| m + 1)
    }

    /// Starts machine `m`, counted from 0, if it does not run.
    pub(crate) fn boot(&mut self, m: usize) {
        let machine = &self.sim.machines[m];
        let node = *machine.node.get().expect("set when it was made");
        {
            let mut state = lock(&machine.state);
            if machine.inbox.is_up() || state.starting || state.idle {
                return;
            }
            state.halted = None;
            state.unrecoverable = None;
        }
        if lock(&machine.disk).deceives() {
            self.kill(m, true);
        }
        lock(&self.sim.machines[m].state).starting = true;
        self.handle.restart(node);
        let seed = self.rng.next();
        let sim = Arc::clone(&self.sim);
        let node = self.handle.get_node(node).expect("it was just restarted");
        node.spawn(member::run(sim, m, seed));
    }

    /// Ends the process on machine `m`, counted from 0; with `power`, its cache is lost too. After a failed sync it
    /// always is: nobody starts a member again on a system that shows what is not on its disk.
    pub(crate) fn kill(&mut self, m: usize, power: bool) {
        self.note_departure(m);
        let sim = &self.sim;
        let machine = &sim.machines[m];
        let power = power || lock(&machine.disk).deceives();
        let state = machine.state();
        if machine.inbox.is_up() || state.starting {
            let starting = !machine.inbox.is_up();
            sim.lookout(|lookout| lookout.on_death(m, starting, state.founded));
        }
        machine.inbox.close();
        sim.oracle(|oracle| {
            oracle.on_streams_lost(m, sim.now());
            oracle.on_links_lost(m);
        });
        lock(&machine.state).starting = false;
        self.handle.kill(*machine.node.get().expect("set when it was made"));
        sim.say(m, String::from(if power { "power cut" } else { "crash" }));
        let disk = &mut *lock(&machine.disk);
        if power {
            disk.power_cut(&mut self.rng);
            let blind = self.rng.chance(1, 2);
            let late = if blind { self.rng.below(8_000_000_000) } else { 0 };
            sim.net.half_open(m, sim.now() + late);
        } else {
            disk.crash(&mut self.rng);
        }
        machine.store.cut(&mut self.rng);
        if m >= sim.members || machine.state().lost {
            return;
        }
        let mut copy = disk.clone();
        *copy.faults() = crate::disk::DiskFaults::default();
        match recover_disk(&copy) {
            Ok(log) => sim.oracle(|oracle| oracle.on_recovered(m, &log)),
            Err(error) => {
                let problem = format!("{} after a crash: {error}", member_id(m));
                sim.oracle(|oracle| oracle.fail("RECOVER", problem));
            }
        }
    }

    /// Blocks all links between two sides; the number calls it off.
    pub(crate) fn block(&mut self, left: &[usize], right: &[usize]) -> u64 {
        let pairs = left.iter().flat_map(|a| right.iter().map(move |b| (*a, *b)));
        let both = pairs.flat_map(|(a, b)| [(a, b), (b, a)]).collect();
        self.add_weather(Weather::Blocked(both))
    }

    /// Blocks one direction; the number calls it off.
    pub(crate) fn block_one_way(&mut self, from: usize, to: usize) -> u64 {
        self.add_weather(Weather::Blocked(vec![(from, to)]))
    }

    /// Makes links bad, all of them or those of one machine; the number calls it off.
    pub(crate) fn worsen(&mut self, machine: Option<usize>, link: Link) -> u64 {
        let count = self.sim.machines.len();
        let pairs = (0..count).flat_map(|a| (0..count).map(move |b| (a, b)));
        let of_machine = |(a, b): &(usize, usize)| machine.is_none_or(|m| m == *a || m == *b);
        self.add_weather(Weather::Bad(pairs.filter(of_machine).collect(), link))
    }

    /// Calls off what `block`, `block_one_way` or `worsen` did.
    pub(crate) fn clear(&mut self, number: u64) {
        self.weather.retain(|(n, _)| *n != number);
        self.apply_weather();
    }

    /// From now on the group is to have these voters and learners, counted from 0.
    pub(crate) fn shape(&mut self, group: GroupId, voters: &[usize], learners: &[usize]) {
        let ids = |machines: &[usize]| machines.iter().map(|m| member_id(*m)).collect();
        self.shapes.insert(group, (ids(voters), ids(learners)));
        self.ask_for_shapes();
    }

    /// If the group was changed, it is to have all its voters again.
    pub(crate) fn regrow(&mut self, group: GroupId) {
        // From the plan: the members themselves may not have founded anything yet.
        let voters = genesis(&self.plan).membership(group).voters;
        if let Some(shape) = self.shapes.get_mut(&group) {
            *shape = (voters.iter().map(|replica| replica.member).collect(), Vec::new());
            self.ask_for_shapes();
        }
    }

    /// Asks each leader for what its group is to have; it refuses what it cannot do yet, or has done.
    pub(crate) fn ask_for_shapes(&self) {
        for (group, (voters, learners)) in &self.shapes {
            let Some(leader) = self.leader(*group) else { continue };
            self.sim.machines[leader - 1].inbox.push(Delivery::Reshape {
                group: *group,
                voters: voters.clone(),
                learners: learners.clone(),
            });
        }
    }

    fn add_weather(&mut self, weather: Weather) -> u64 {
        self.fronts += 1;
        self.weather.push((self.fronts, weather));
        self.apply_weather();
        self.fronts
    }

    fn apply_weather(&self) {
        self.sim.net.change_all(|from, to, link| {
            let mut now = Link { wild: link.wild, ..Link::default() };
            for (_, weather) in &self.weather {
                match weather {
                    Weather::Blocked(pairs) => now.blocked |= pairs.contains(&(from, to)),
                    Weather::Bad(pairs, bad) if pairs.contains(&(from, to)) => {
                        now = Link { blocked: now.blocked, wild: link.wild, ..*bad };
                    }
                    Weather::Bad(..) => {}
                }
            }
            *link = now;
        });
    }

    /// Lets time pass until `until`, or until a rule is broken.
    pub(crate) async fn pass(&self, until: Nanos) -> Result<(), Violation> {
        let wait = Duration::from_nanos(until.saturating_sub(self.sim.now()));
        let mut timer = pin!(self.sim.time.sleep(wait));
        let mut armed = false;
        poll_fn(|cx| {
            if let Some(violation) = self.sim.violation(Some(cx.waker())) {
                return Poll::Ready(Err(violation));
            }
            if wait.is_zero() || timer.is_elapsed() {
                return Poll::Ready(Ok(()));
            }
            if !armed {
                armed = true;
                let _ = timer.as_mut().poll(cx);
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until every member knows that the cluster exists.
    pub(crate) async fn founded(&mut self, long: Duration) -> Result<(), Stuck> {
        let end = self.sim.now() + nanos(long);
        while !self.is_founded() {
            let missing: Vec<String> = (0..self.plan.begin())
                .filter(|m| !self.sim.machines[*m].state().founded)
                .map(|m| format!("n{}", m + 1))
                .collect();
            let missing = missing.join(", ");
            self.poll(end, || format!("not founded in {long:?}: {missing} do not know")).await?;
        }
        Ok(())
    }

    /// Lets a moment pass, if it is not yet the end; then says what did not come.
    async fn poll(&self, end: Nanos, why: impl FnOnce() -> String) -> Result<(), Stuck> {
        if self.sim.now() > end {
            return Err(Stuck(why()));
        }
        self.pass(self.sim.now() + nanos(POLL)).await.map_err(broken)
    }

    /// Waits until every group has a leader, all its replicas on living members have applied the same, and all living
    /// members are connected with each other.
    pub(crate) async fn settled(&mut self, long: Duration) -> Result<(), Stuck> {
        let end = self.sim.now() + nanos(long);
        loop {
            let problem = match self.statuses().await {
                Ok(statuses) if self.plan.churns() => {
                    self.unrest(&statuses).or_else(|| apart(&statuses))
                }
                Ok(statuses) => self.disagreement(&statuses).or_else(|| apart(&statuses)),
                Err(silent) => Some(silent),
            };
            let Some(problem) = problem else {
                return Ok(());
            };
            self.ask_for_shapes();
            self.close_who_left();
            self.tell_the_stranded();
            self.poll(end, || format!("not settled in {long:?}: {problem}")).await?;
        }
    }

    /// Waits until every member that runs holds exactly those for alive that run, and all have the same view.
    pub(crate) async fn agreed(&mut self, long: Duration) -> Result<(), Stuck> {
        let end = self.sim.now() + nanos(long);
        loop {
            let runs = |m: &usize| self.sim.machines[*m].inbox.is_up();
            let there: Vec<usize> = (0..self.sim.members).filter(runs).collect();
            let Some(problem) = self.sim.oracle(|oracle| oracle.views(&there)) else {
                return Ok(());
            };
            self.close_who_left();
            self.poll(end, || format!("views differ after {long:?}: {problem}")).await?;
        }
    }

    /// Waits until no connection stands still for a packet that was lost, and none is taken for open whose other end is
    /// gone: a request for once that goes there is lost, and rightly so.
    pub(crate) async fn noticed(&mut self, long: Duration) -> Result<(), Stuck> {
        let end = self.sim.now() + nanos(long);
        while self.sim.net.is_unwell() {
            self.poll(end, || format!("a connection does not recover or end in {long:?}")).await?;
        }
        Ok(())
    }

    /// What every member that may be up says of itself.
    async fn statuses(&self) -> Result<Vec<MemberStatus>, String> {
        let mut statuses = Vec::new();
        for (m, machine) in self.sim.machines[..self.sim.members].iter().enumerate() {
            if machine.state().idle {
                continue;
            }
            let member = self.sim.oracle(|oracle| oracle.id_of(m));
            let ask = Ask {
                timeout: secs(1),
                partition: String::new(),
                action: Action::Status { member },
            };
            let ended = machine.inbox.call(ask).await;
            let Ended::Answered(Ok(Reply::Status(status))) = ended else {
                // A member whose disk was lost has noticed and is down; rot that hit nothing that counts harms nobody.
                if machine.state().lost {
                    continue;
                }
                return Err(format!("n{} does not say how it is: {ended:?}", m + 1));
            };
            statuses.push(*status);
        }
        Ok(statuses)
    }

    fn disagreement(&self, statuses: &[MemberStatus]) -> Option<String> {
        for group in (1..=self.plan.shards).map(GroupId) {
            let replicas = statuses.iter().flat_map(|s| &s.groups);
            let replicas: Vec<_> = replicas.filter(|r| r.group == group).collect();
            let leaders = replicas.iter().filter(|r| r.role == Role::Leader).count();
            let Some(first) = replicas.first() else {
                return Some(format!("{group} has no replica"));
            };
            let equal = replicas.iter().all(|r| {
                (r.applied, r.commit, r.last, r.term)
                    == (first.last, first.last, first.last, first.term)
            });
            if leaders != 1 || !equal {
                return Some(format!("{group}: {leaders} leaders; {replicas:?}"));
            }
        }
        None
    }
}

/// Two members that are up and have no connection.
fn apart(statuses: &[MemberStatus]) -> Option<String> {
    statuses.iter().find_map(|one| {
        let missed = |other: &&MemberStatus| {
            other.member != one.member && !one.connected.contains(&other.member)
        };
        let other = statuses.iter().find(missed)?;
        Some(format!("{} has no connection with {}", one.member, other.member))
    })
}

impl On<'_> {
    /// Sets a key; none: not done, or unknown.
    pub async fn put(&mut self, partition: &str, key: &str, value: u64) -> Option<Done> {
        let key = Key::new(partition, key);
        let value = Value::from(value);
        self.perform(Op::Put { key, value }).await
    }

    /// Reads a key; none: no answer.
    pub async fn get(&mut self, partition: &str, key: &str) -> Option<Option<Value>> {
        let key = Key::new(partition, key);
        let done = self.perform(Op::Get { key, local: false }).await?;
        let Done::Value(found) = done else {
            panic!("a get was answered by {done}");
        };
        Some(found.map(|(value, _)| value))
    }

    /// Removes a key; none: not done, or unknown.
    pub async fn delete(&mut self, partition: &str, key: &str) -> Option<Done> {
        let key = Key::new(partition, key);
        self.perform(Op::Delete { key }).await
    }

    /// Any operation; none: not done, or unknown.
    pub async fn perform(&mut self, op: Op) -> Option<Done> {
        let cluster = &mut *self.cluster;
        let rng = cluster.rng.fork(1);
        let (sim, recorder) = (Arc::clone(&cluster.sim), cluster.recorder.clone());
        let workload = &cluster.plan.workload;
        Client::new(sim, recorder, rng, self.machine, workload).perform(&op).await
    }
}

/// How often a condition is looked at.
const POLL: Duration = Duration::from_millis(100);

fn broken(violation: Violation) -> Stuck {
    Stuck(format!("a rule was broken: {violation}"))
}

fn machine(plan: &Plan, m: usize) -> Machine {
    let (drift, wall) = plan.clocks[m];
    let start = Rng::new(plan.seed).fork(len_u64(m) + 100).below(1 << 40);
    let clock = Clock::new(start, drift, WALL_START_MS.saturating_add_signed(wall));
    let members = plan.members + plan.spares;
    let client = m >= members;
    let config = Config {
        cluster: String::from("sim"),
        name: format!("n{}", m + 1),
        client,
        members: founders(if client { members } else { plan.members }),
        shards: plan.shards,
        replication: plan.replication,
        timers: plan.timers.clone(),
        limits: plan.limits.clone(),
        // One plan in eight has members that go by their links alone.
        gossip: (!client && !plan.seed.is_multiple_of(8)).then(|| net::address(m)),
        watch_ring: false,
        ..Config::default()
    };
    let config = gathering(plan, m, config);
    let machine = Machine::new(config, clock);
    lock(&machine.state).idle = !client && m >= plan.begin();
    machine
}

/// The same for a machine that is to find its founders.
fn gathering(plan: &Plan, m: usize, mut config: Config) -> Config {
    let Some(told) = plan.birth.as_ref().and_then(|birth| birth.told.get(m)) else {
        return config;
    };
    config.members.clear();
    config.expect = u16::try_from(plan.members).ok();
    config.join = told.iter().map(|m| net::address(*m).to_string()).collect();
    config.address = net::address(m).to_string();
    config
}
