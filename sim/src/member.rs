//! One process: a node and its loop, from its start to its death.
//!
//! The loop gathers what waits (deliveries, calls, finished work of the disk and the store, the deadline that the
//! node named), lets the node handle all of it, and carries out what it asks for. It lives on a madsim node of its
//! own, so that a crash can end it between any two turns.

use std::cmp::Reverse;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use madsim::net::Endpoint;
use madsim::runtime::Handle;
use ring_core::ids::{ConnId, GroupId, LogIndex, RequestId};
use ring_core::io::{Call, Halt};
use ring_core::membership::Incarnation;
use ring_core::node::StartError;
use ring_core::rng::Rng;
use ring_core::shard::Worker;
use ring_core::storage::segment_name;
use ring_core::store::{StoreDone, StoreTask};
use ring_core::wire::Message;
use ring_core::{Input, Node, Outbox, Restored, carry_out};

use crate::call::Ended;
use crate::clock::Nanos;
use crate::inbox::{Delivery, Look, Submission};
use crate::lock;
use crate::log::{LogAnswer, recover_disk, settle_disk};
use crate::net;
use crate::oracle::GoesBy;
use crate::rare::Rare;
use crate::requests::{Chore, Traffic};
use crate::store::SimStore;
use crate::trace::{Brief, What};
use crate::world::{Due, Sim, SimWorld, Timed, member_id};

/// A node in its world.
struct Process {
    node: Node,
    worker: Option<Worker<SimStore>>,
    world: SimWorld,
    outbox: Outbox,
    /// True time of the node's next deadline.
    wake_at: Nanos,
    /// The earliest moment for which a timer is armed.
    armed: Nanos,
    requests: u64,
    traffic: Traffic,
    /// Since when it leads a group of which it can reach another replica.
    leads_since: Option<Nanos>,
    /// What the failure detector had counted when its view was looked at last, and which members were alive.
    viewed: Option<Viewed>,
    scratch: Scratch,
}

/// Datagrams received and sent, the version of the view, the own incarnation; the version of the members alive.
type Viewed = (Option<(u64, u64, u64, Incarnation)>, u64);

/// Buffers used again in each turn.
#[derive(Default)]
struct Scratch {
    deliveries: Vec<Delivery>,
    late: Vec<(Nanos, Delivery)>,
    calls: Vec<Submission>,
    messages: Vec<Message>,
    inputs: Vec<Input>,
}

/// Runs a process on machine `me` until it halts or is killed.
pub(crate) async fn run(sim: Arc<Sim>, me: usize, seed: u64) {
    let mut rng = Rng::new(seed);
    let Some((restored, worker)) = boot(&sim, me, &mut rng).await else {
        lock(&sim.machines[me].state).starting = false;
        return;
    };
    let endpoint = Endpoint::bind(net::address(me)).await;
    let endpoint = endpoint.expect("a machine's port is free when its process is dead");
    sim.machines[me].inbox.open();
    madsim::task::spawn(net::accept(Arc::clone(&sim), me, endpoint.clone()));
    let halt = match Process::new(&sim, me, endpoint, restored, worker, rng) {
        Ok(process) => process.live().await,
        Err(halt) => {
            sim.say(me, format!("cannot start: {halt}"));
            halt
        }
    };
    {
        let mut state = lock(&sim.machines[me].state);
        state.halted = Some(halt);
        state.starting = false;
    }
    sim.machines[me].inbox.close();
    sim.oracle(|oracle| {
        oracle.on_streams_lost(me, sim.now());
        oracle.on_links_lost(me);
    });
    if let Some(node) = sim.machines[me].node.get() {
        Handle::current().kill(*node); // whatever else the process had begun
    }
}

/// Reads what is durable. None: the directory cannot be used; the machine's state says why.
async fn boot(
    sim: &Arc<Sim>,
    me: usize,
    rng: &mut Rng,
) -> Option<(Restored, Option<Worker<SimStore>>)> {
    let machine = &sim.machines[me];
    let reading = rng.duration(Duration::from_millis(1), Duration::from_millis(40));
    sim.time.sleep(reading).await;
    if machine.config.client {
        return Some((Restored::default(), None));
    }
    let found = recover_disk(&lock(&machine.disk));
    let log = match found {
        Ok(log) => log,
        Err(error) => {
            let excused = machine.state().lost || lock(&machine.disk).faults().reads_fail;
            if !excused {
                let problem = format!("{}: {error}", member_id(me));
                sim.oracle(|oracle| oracle.fail("RECOVER", problem));
            }
            give_up(sim, me, error.to_string());
            return None;
        }
    };
    sim.time.sleep(reading).await;
    if let Err(error) = settle_disk(&mut lock(&machine.disk), rng) {
        give_up(sim, me, error.to_string());
        return None;
    }
    match Worker::new(machine.store.open(), &machine.config.limits) {
        Ok((worker, store)) => {
            let torn = log.tail.last.is_some_and(|last| {
                let len = lock(&machine.disk).len(&segment_name(last));
                len.is_some_and(|len| len > log.tail.last_len)
            });
            sim.lookout(|lookout| lookout.on_boot(me, &log, &store, torn));
            sim.oracle(|oracle| oracle.on_boot(me, &log, &store));
            sim.say(me, format!("starts: boot {} seen, next {}", log.boot, log.tail.next_seq));
            Some((Restored { log, store }, Some(worker)))
        }
        Err(error) => {
            give_up(sim, me, error.to_string());
            None
        }
    }
}

fn give_up(sim: &Sim, me: usize, problem: String) {
    sim.say(me, format!("cannot start: {problem}"));
    sim.lookout(|lookout| lookout.reach(Rare::Unrecoverable));
    lock(&sim.machines[me].state).unrecoverable = Some(problem);
}

impl Process {
    fn new(
        sim: &Arc<Sim>,
        me: usize,
        endpoint: Endpoint,
        restored: Restored,
        worker: Option<Worker<SimStore>>,
        mut rng: Rng,
    ) -> Result<Self, Halt> {
        let machine = &sim.machines[me];
        let now = lock(&machine.clock).now(sim.now());
        let mut node = match Node::new(machine.config(me), restored, rng.next(), now) {
            Ok(node) => node,
            Err(StartError::Config(error)) => panic!("the plan draws valid limits: {error}"),
            Err(StartError::Halt(halt)) => return Err(halt),
        };
        if me < sim.members {
            let id = node.view().me();
            sim.oracle(|oracle| {
                oracle.on_started(me, id);
                oracle.on_view_begun(me);
            });
            sim.lookout(|lookout| lookout.on_started(me, id));
        }
        let mut traffic = Traffic::new(rng.fork(41), sim.pace.is_wide());
        let mut world = SimWorld::new(Arc::clone(sim), me, endpoint, rng);
        if sim.pace.requests > 0 {
            node.serve_requests();
            traffic.begin(sim.pace.requests);
        }
        for (wait, chore) in traffic.chores() {
            world.at(sim.now() + net::nanos(wait), Due::Chore(chore));
        }
        Ok(Self {
            node,
            worker,
            world,
            traffic,
            outbox: Outbox::new(),
            wake_at: Nanos::MAX,
            armed: Nanos::MAX,
            requests: 0,
            leads_since: None,
            viewed: None,
            scratch: Scratch::default(),
        })
    }

    /// Turn after turn, until the node halts.
    async fn live(mut self) -> Halt {
        self.turn();
        loop {
            if let Some(halt) = self.world.halted.take() {
                return halt;
            }
            poll_fn(|cx| self.poll_ready(cx)).await;
            self.turn();
        }
    }

    /// Ready when there is something to do now.
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let sim = &self.world.sim;
        match sim.machines[self.world.me].inbox.look(cx.waker()) {
            Look::Something => return Poll::Ready(()),
            Look::Paused => return Poll::Pending,
            Look::Empty => {}
        }
        let first = self.world.due.peek().map_or(Nanos::MAX, |Reverse(t)| t.at);
        let next = first.min(self.wake_at);
        let now = sim.now();
        if next <= now {
            return Poll::Ready(());
        }
        if self.armed <= now {
            self.armed = Nanos::MAX;
        }
        if next < self.armed {
            self.armed = next;
            net::arm(&sim.time, next, cx);
        }
        Poll::Pending
    }

    /// One turn: all that waits goes in, what the node asks for goes out.
    fn turn(&mut self) {
        self.world.now = self.world.sim.now();
        let now = lock(&self.machine().clock).now(self.world.now);
        self.gather();
        let mut inputs = std::mem::take(&mut self.scratch.inputs);
        if self.wake_at <= self.world.now {
            inputs.push(Input::Wakeup);
        }
        self.trace_inputs(&inputs);
        for input in inputs.drain(..) {
            if let Input::Store(done) = &input {
                let sim = &self.world.sim;
                sim.oracle(|oracle| oracle.on_done(self.world.me, done));
                sim.lookout(|lookout| lookout.on_done(done, || sim.net.is_split()));
            }
            let end = self.end_behind_snapshot(&input);
            self.traffic.judge_early(&mut self.node);
            if let Input::Message { conn, message } = &input {
                self.traffic.on_message(&mut self.node, *conn, message);
            }
            self.node.handle(now, input);
            self.watch_end(end);
        }
        self.scratch.inputs = inputs;
        self.traffic.judge_early(&mut self.node);
        self.submit(now);
        self.node.flush(now, &mut self.outbox);
        self.node.check();
        carry_out(&mut self.outbox, &mut self.world);
        self.world.end_turn();
        self.on_effects(now);
        self.watch_memberships();
        self.watch_view();
        self.watch_beats();
        self.wake_at = self.node.wakeup().map_or(Nanos::MAX, |wakeup| {
            let at = lock(&self.machine().clock).true_time(wakeup.at);
            at.max(self.world.now + 1)
        });
    }

    /// What core said of requests.
    fn on_effects(&mut self, now: ring_core::time::Now) {
        let sim = Arc::clone(&self.world.sim);
        for effect in std::mem::take(&mut self.world.effects) {
            self.traffic.on_effect(&sim, self.world.me, &self.node, effect);
        }
        self.plan_chores();
        // Who halts has said nothing more, and its world ends what was open.
        if self.world.halted.is_none() {
            self.traffic.check(&sim, self.world.me, &self.node, now.instant);
        }
    }

    fn plan_chores(&mut self) {
        for (wait, chore) in self.traffic.chores() {
            self.world.at(self.world.now + net::nanos(wait), Due::Chore(chore));
        }
    }

    fn on_chore(&mut self, chore: Chore) {
        let sim = Arc::clone(&self.world.sim);
        let now = lock(&self.machine().clock).now(self.world.now);
        self.traffic.carry_out(&sim, self.world.me, &mut self.node, now, chore);
        self.plan_chores();
    }

    /// The end of a log that holds the last entry of a snapshot which its store has installed.
    fn end_behind_snapshot(&self, input: &Input) -> Option<(GroupId, LogIndex)> {
        let Input::Store(StoreDone::Installed { state, .. }) = input else { return None };
        let log = self.node.view().group(state.group)?.raft().log();
        let holds = log.term_at(state.index) == Some(state.term);
        holds.then(|| (state.group, log.last_index()))
    }

    /// What follows a snapshot in such a log was accepted and may be committed: it stays (Raft, section 7).
    fn watch_end(&self, end: Option<(GroupId, LogIndex)>) {
        let Some((group, end)) = end else { return };
        let log = self.node.view().group(group).map(|group| group.raft().log().last_index());
        if let Some(last) = log.filter(|last| *last < end) {
            let me = member_id(self.world.me);
            let problem = format!("{me}: {group}: a snapshot cuts the log from {end} to {last}");
            self.world.sim.oracle(|oracle| oracle.fail("MATCH", problem));
        }
    }

    /// Each replica goes by the last membership that its log holds, and the groups by what the directory asks for.
    fn watch_memberships(&self) {
        let (view, me) = (self.node.view(), self.world.me);
        if view.is_halted() {
            return;
        }
        let table = view.directory().filter(|_| me < self.world.sim.members);
        if let Some(table) = table {
            self.world.sim.lookout(|lookout| lookout.on_table(table));
        }
        self.world.sim.oracle(|oracle| {
            if let Some(table) = table {
                oracle.on_table(me, table);
            }
            // Until it is durable that the cluster exists, what this process has made of it may never have been.
            let exists = self.world.sim.machines[me].state().founded;
            for (group, replica) in view.touched().filter(|_| exists) {
                let raft = replica.raft();
                let log = raft.log();
                let range = (log.cut_index(), log.membership_index(), log.last_index());
                oracle.on_goes_by(me, group, range, log.membership());
                let committed = raft.committed_membership().map(|_| log.membership_index());
                let leads = raft.is_leader().then(|| raft.term());
                let present = log.membership();
                oracle.on_replica(me, GoesBy { group, leads, present, committed });
            }
        });
    }

    /// What the node thinks of the others, after each turn that may have changed it.
    fn watch_view(&mut self) {
        let (view, me) = (self.node.view(), self.world.me);
        if view.is_halted() || me >= self.world.sim.members {
            return;
        }
        let counters = view.gossip().map(|gossip| {
            let counters = gossip.counters();
            (counters.received, counters.sent, gossip.version(), gossip.incarnation())
        });
        let mark = (counters, view.alive_version());
        if self.viewed == Some(mark) {
            return;
        }
        self.viewed = Some(mark);
        let alive = view.alive().collect();
        self.world.sim.oracle(|oracle| oracle.on_view(me, view.me(), alive, view.gossip()));
    }

    /// A leader shows itself with each tick, whatever its disk, its store and its other groups do.
    fn watch_beats(&mut self) {
        let (now, linked) = (self.world.now, &self.world.linked);
        let view = self.node.view();
        let leads = view.groups().any(|(_, group)| {
            let raft = group.raft();
            raft.is_leader() && raft.membership().voters.iter().any(|v| linked.contains(&v.member))
        });
        if !leads || view.is_halted() {
            self.leads_since = None;
            return;
        }
        let since = *self.leads_since.get_or_insert(now);
        let silent = now - since.max(self.world.beats_at);
        if silent > BEATS_LOST_MAX * net::nanos(self.machine().config.timers.heartbeat) {
            let me = member_id(self.world.me);
            let problem = format!("{me}: leads and has been silent for {silent} ns");
            self.world.sim.oracle(|oracle| oracle.fail("BEAT", problem));
        }
    }

    fn machine(&self) -> &crate::world::Machine {
        &self.world.sim.machines[self.world.me]
    }

    /// Turns what waits into inputs, in the order in which it came.
    fn gather(&mut self) {
        let most = match self.world.sim.pace.turn_inputs {
            most if self.world.rng.chance(1, 4) => most,
            most => most.min(4),
        };
        let sim = Arc::clone(&self.world.sim);
        let mut deliveries = std::mem::take(&mut self.scratch.deliveries);
        let mut late = std::mem::take(&mut self.scratch.late);
        let inbox = &sim.machines[self.world.me].inbox;
        inbox.take(most, &mut deliveries, &mut late, &mut self.scratch.calls);
        for (at, delivery) in late.drain(..) {
            self.world.at(at, Due::Delivery(delivery));
        }
        let now = self.world.now;
        while let Some(Reverse(first)) = self.world.due.peek()
            && first.at <= now
        {
            let Some(Reverse(Timed { due, .. })) = self.world.due.pop() else {
                break;
            };
            self.on_due(due);
        }
        for delivery in deliveries.drain(..) {
            self.on_delivery(delivery);
        }
        self.scratch.deliveries = deliveries;
        self.scratch.late = late;
    }

    fn on_due(&mut self, due: Due) {
        match due {
            Due::Log(event) => match self.world.on_log(event) {
                LogAnswer::Nothing => {}
                LogAnswer::Stored(upto) => self.scratch.inputs.push(Input::Stored { upto }),
                LogAnswer::Failed(error) => {
                    self.world.sim.say(self.world.me, format!("log failed: {error}"));
                    let problem = error.to_string();
                    self.scratch.inputs.push(Input::LogFailed { problem });
                }
            },
            Due::StoreRun(tasks) => self.run_store(tasks),
            Due::StoreDone(done) => {
                self.world.store_busy = false;
                self.scratch.inputs.extend(done.into_iter().map(Input::Store));
            }
            Due::Delivery(delivery) => self.on_delivery(delivery),
            Due::Pump(conn) => self.world.pump(conn),
            Due::Chore(chore) => self.on_chore(chore),
        }
    }

    fn run_store(&mut self, tasks: Vec<StoreTask>) {
        let worker = self.worker.as_mut().expect("only members have tasks");
        let mut done: Vec<StoreDone> = Vec::new();
        worker.run(tasks, &mut done);
        self.world.syncing = worker.is_syncing();
        let wait = match self.world.rng.chance(1, 2) {
            true => 0,
            false => self.world.latency(self.world.sim.pace.store),
        };
        self.world.at(self.world.now + wait, Due::StoreDone(done));
    }

    fn on_delivery(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Connected { conn, dial, wire } => {
                self.world.connected(conn, wire);
                self.scratch.inputs.push(Input::Connected { conn, dial });
            }
            Delivery::DialFailed { dial } => {
                self.scratch.inputs.push(Input::ConnectFailed { dial });
            }
            Delivery::Parcel { conn, parcel } => {
                if !self.world.conns.contains_key(&conn) {
                    return;
                }
                let mut messages = std::mem::take(&mut self.scratch.messages);
                let whole = self.world.receive(conn, &parcel, &mut messages);
                if lock(&self.machine().state).uninformed {
                    messages.retain(|message| {
                        !matches!(message, Message::Table(_) | Message::TableVersion(_))
                    });
                }
                self.note_received(conn, &messages);
                let inputs = messages.drain(..).map(|message| Input::Message { conn, message });
                self.scratch.inputs.extend(inputs);
                self.scratch.messages = messages;
                if !whole {
                    self.on_broken(conn);
                }
            }
            Delivery::Broken { conn } => self.on_broken(conn),
            Delivery::Datagram { from, bytes } => {
                self.scratch.inputs.push(Input::Datagram { from, bytes });
            }
            Delivery::Reshape { group, voters, learners } => {
                let now = lock(&self.machine().clock).now(self.world.now);
                let changed = self.node.change_membership(now, group, &voters, &learners);
                self.world.sim.trace(|trace| trace.mix(u64::from(changed.is_ok()) << 59));
                if changed.is_ok() {
                    let words = format!("{group} is to have {voters:?}, learners {learners:?}");
                    self.world.sim.say(self.world.me, words);
                }
            }
            Delivery::Leave { force } => {
                let how = if force { " by force" } else { "" };
                self.world.sim.say(self.world.me, format!("is to leave{how}"));
                self.node.leave(force);
            }
            Delivery::Join { addresses } => {
                let now = lock(&self.machine().clock).now(self.world.now);
                self.node.join(now, &addresses).expect("addresses of members");
            }
            Delivery::Reset { peer } => {
                for conn in self.world.reset(peer) {
                    self.scratch.inputs.push(Input::Disconnected { conn });
                }
            }
        }
    }

    fn on_broken(&mut self, conn: ConnId) {
        if self.world.conns.remove(&conn).is_some() {
            self.scratch.inputs.push(Input::Disconnected { conn });
        }
    }

    fn note_received(&self, conn: ConnId, messages: &[Message]) {
        let (me, now) = (self.world.me, self.world.now);
        self.world.sim.trace(|trace| {
            for message in messages {
                trace.line(me, now, What::Received(conn, Brief::of(message)));
            }
        });
    }

    fn submit(&mut self, now: ring_core::time::Now) {
        let mut calls = std::mem::take(&mut self.scratch.calls);
        for Submission { ask, mut promise } in calls.drain(..) {
            self.requests += 1;
            let request = RequestId(self.requests);
            let call = Call {
                deadline: now.instant + ask.timeout,
                partition: ask.partition,
                action: ask.action,
            };
            match self.node.submit(now, request, call) {
                Ok(()) => {
                    promise.taken();
                    self.world.promises.insert(request, promise);
                }
                Err(refused) => {
                    self.world.sim.lookout(|lookout| lookout.reach(Rare::CallRefused));
                    promise.end(Ended::Refused(refused));
                }
            }
        }
        self.scratch.calls = calls;
    }

    fn trace_inputs(&self, inputs: &[Input]) {
        let (me, now) = (self.world.me, self.world.now);
        self.world.sim.trace(|trace| {
            trace.mix(now);
            trace.mix(ring_core::ids::len_u64(me));
            for input in inputs {
                trace.mix(match input {
                    Input::Connected { conn, .. } => conn.0 ^ 1 << 60,
                    Input::ConnectFailed { dial } => dial.0 ^ 2 << 60,
                    Input::Message { conn, .. } => conn.0 ^ 3 << 60,
                    Input::Disconnected { conn } => conn.0 ^ 4 << 60,
                    Input::Datagram { bytes, .. } => ring_core::ids::len_u64(bytes.len()) ^ 9 << 60,
                    Input::Wakeup => 5 << 60,
                    Input::Stored { upto } => upto.0 ^ 6 << 60,
                    Input::LogFailed { .. } => 7 << 60,
                    Input::Store(done) => trace_done(done) ^ 8 << 60,
                });
            }
        });
    }
}

fn trace_done(done: &StoreDone) -> u64 {
    match done {
        StoreDone::Applied { index, digest, .. } => digest ^ index.0,
        StoreDone::Read { read, .. } => read.0,
        StoreDone::Persisted { groups } => ring_core::ids::len_u64(groups.len()),
        StoreDone::Loaded { chunk, .. } => *chunk,
        StoreDone::Staged { next, .. } => *next,
        StoreDone::Installed { state, .. } => state.digest,
        StoreDone::InstallRefused { .. } => 1,
        StoreDone::Failed { .. } => 2,
        StoreDone::Dropped { group } => u64::from(group.0),
    }
}

/// So many ticks without a sign of life of a leader are a defect, and not the drift of its clock.
const BEATS_LOST_MAX: u64 = 3;

/// True when a member that stopped for this reason may be started again on the same directory.
#[must_use]
pub fn may_start_again(halt: &Halt) -> bool {
    match halt {
        Halt::Log { .. } | Halt::Store { .. } => true,
        Halt::RolledBack { .. }
        | Halt::Wiped
        | Halt::OtherCluster { .. }
        | Halt::Agreement
        | Halt::Contradiction { .. }
        | Halt::Defect { .. } => false,
    }
}
