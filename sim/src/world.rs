//! The simulated world: what all machines share, and how one process carries out what its node asks for.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::mem;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::Waker;

use madsim::net::Endpoint;
use madsim::task::NodeId;
use madsim::time::TimeHandle;
use ring_core::World;
use ring_core::config::Config;
use ring_core::ids::{ConnId, LogIndex, MemberId, RequestId, SegmentId};
use ring_core::io::{Dial, Event, Failure, Halt, MemberChange, Reply};
use ring_core::request::Effect;
use ring_core::rng::Rng;
use ring_core::storage::record::{Batch, Record};
use ring_core::store::{StoreDone, StoreTask};
use ring_core::wire::{Assembler, Decoder, Encoder, Message};
use serde::{Deserialize, Serialize};

use crate::call::{Ended, Promise};
use crate::clock::{Clock, Nanos};
use crate::disk::Disk;
use crate::inbox::{Delivery, Inbox};
use crate::lock;
use crate::log::{LogEvent, LogWriter};
use crate::net::{self, Net, Parcel, Wire};
use crate::oracle::{Oracle, Violation};
use crate::rare::{Lookout, Rare};
use crate::requests::{self, Chore};
use crate::store::SimStore;
use crate::trace::{Brief, Trace, What};

/// Everything that a run's machines share.
pub struct Sim {
    /// True time.
    pub time: TimeHandle,
    /// How quick the machines are.
    pub pace: Pace,
    /// Founders first, in order of their ids; then those that may join; then machines with clients only.
    pub machines: Vec<Machine>,
    /// How many of the machines are members, or may become some.
    pub members: usize,
    /// The network.
    pub net: Net,
    watch: Mutex<Watch>,
}

/// One machine: what outlives the process on it.
pub struct Machine {
    /// What its process is configured with, unless it joins.
    pub config: Config,
    /// How its process joins a cluster, if that is what it does.
    pub joins: Mutex<Option<Joins>>,
    /// Calls and deliveries that wait.
    pub inbox: Inbox,
    /// Its directory.
    pub disk: Mutex<Disk>,
    /// Its store.
    pub store: SimStore,
    /// Its clocks.
    pub clock: Mutex<Clock>,
    /// What its process is like at the moment.
    pub state: Mutex<MachineState>,
    /// madsim's name of it.
    pub(crate) node: OnceLock<NodeId>,
}

/// How a process joins a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joins {
    /// Its name.
    pub name: String,
    /// Addresses, of which some may be wrong.
    pub through: Vec<String>,
}

/// What is known of a machine's process.
#[derive(Clone, Debug, Default)]
pub struct MachineState {
    /// A process is being started on it, or runs.
    pub starting: bool,
    /// Its node knows the cluster.
    pub founded: bool,
    /// Why its node stopped for good.
    pub halted: Option<Halt>,
    /// Its log could not be recovered.
    pub unrecoverable: Option<String>,
    /// Its disk was damaged beyond the plan's repair: it may stay down.
    pub lost: bool,
    /// Its disk is lost and nothing is left to start it on.
    pub gone: bool,
    /// It was started on an earlier copy of the directory that its member has left: it may be refused.
    pub restored: bool,
    /// It has not been told to join anything, or has left for good.
    pub idle: bool,
    /// Its node has been told that it may be closed for good.
    pub left: bool,
    /// Its node was asked to go.
    pub leaving: bool,
    /// No word of the directory reaches it.
    pub uninformed: bool,
    /// Disk and store take so many times longer.
    pub slow: u64,
}

/// How quick machines are; drawn by the plan. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// A sync of the log takes about this long.
    pub sync: Nanos,
    /// A round of store tasks takes about this long.
    pub store: Nanos,
    /// Most inputs that a process takes in one turn.
    pub turn_inputs: usize,
    /// A connection with more bytes than this on its way or queued is closed.
    pub queue_bytes: usize,
    /// Bytes on their way at once on a connection.
    pub window_bytes: usize,
    /// One in so many promises is checked by recovering a copy of the disk; 0: none.
    pub promise_sample: u64,
    /// Each node asks others about this often; 0: never.
    #[serde(default)]
    pub requests: Nanos,
}

impl Pace {
    /// True when connections carry large bodies and streams beside everything else.
    pub(crate) fn is_wide(&self) -> bool {
        self.queue_bytes >= WIDE_QUEUE && self.window_bytes >= WIDE_WINDOW
    }
}

/// Requests have a window of 4 MiB on each connection; a queue of less is closed when it is used.
const WIDE_QUEUE: usize = 4 << 20;
/// Less would carry no large body in the time that a caller has.
const WIDE_WINDOW: usize = 64 << 10;

/// What watches the run.
struct Watch {
    oracle: Oracle,
    trace: Trace,
    lookout: Lookout,
    supervisor: Option<Waker>,
}

impl Sim {
    /// A world of these machines, the first `members` of which are members.
    #[must_use]
    pub fn new(
        machines: Vec<Machine>,
        members: usize,
        pace: Pace,
        seed: u64,
        aloud: bool,
    ) -> Arc<Self> {
        let count = machines.len();
        Arc::new(Self {
            time: TimeHandle::current(),
            pace,
            machines,
            members,
            net: Net::new(count, seed),
            watch: Mutex::new(Watch {
                oracle: Oracle::new(members),
                trace: Trace::new(count, aloud),
                lookout: Lookout::new(members),
                supervisor: None,
            }),
        })
    }

    /// True time.
    #[must_use]
    pub fn now(&self) -> Nanos {
        net::nanos(self.time.elapsed())
    }

    /// Asks or tells the oracle.
    pub fn oracle<T>(&self, ask: impl FnOnce(&mut Oracle) -> T) -> T {
        let mut watch = lock(&self.watch);
        let answer = ask(&mut watch.oracle);
        if watch.oracle.violation().is_some()
            && let Some(waker) = watch.supervisor.take()
        {
            waker.wake();
        }
        answer
    }

    /// The first rule that was broken, if any; else `waker` is told when one is.
    pub fn violation(&self, waker: Option<&Waker>) -> Option<Violation> {
        let mut watch = lock(&self.watch);
        let violation = watch.oracle.violation().cloned();
        if violation.is_none()
            && let Some(waker) = waker
        {
            watch.supervisor = Some(waker.clone());
        }
        violation
    }

    /// Adds to the trace.
    pub fn trace<T>(&self, add: impl FnOnce(&mut Trace) -> T) -> T {
        add(&mut lock(&self.watch).trace)
    }

    /// Tells the lookout.
    pub(crate) fn lookout<T>(&self, tell: impl FnOnce(&mut Lookout) -> T) -> T {
        tell(&mut lock(&self.watch).lookout)
    }

    /// A batch goes to a member's log.
    fn on_append(&self, me: usize, batch: &Batch) {
        {
            let Watch { oracle, lookout, .. } = &mut *lock(&self.watch);
            lookout.on_append(me, batch, |group, index| oracle.written(me, group, index));
        }
        self.oracle(|oracle| {
            oracle.on_append(me, batch);
            for record in &batch.records {
                if let Record::Entries { group, entries, .. } = record {
                    entries.iter().for_each(|entry| oracle.on_shape(me, *group, entry));
                }
            }
        });
    }

    /// A task goes to a member's store.
    fn on_task(&self, me: usize, task: &StoreTask) {
        {
            let Watch { oracle, lookout, .. } = &mut *lock(&self.watch);
            let news = match task {
                StoreTask::Apply { group, .. } => oracle.applied(*group).next(),
                StoreTask::Create { .. }
                | StoreTask::Drop { .. }
                | StoreTask::Read { .. }
                | StoreTask::CloseCursor { .. }
                | StoreTask::CloseWatch { .. }
                | StoreTask::Persist
                | StoreTask::Load { .. }
                | StoreTask::CloseSnapshot { .. }
                | StoreTask::Install { .. } => LogIndex(0),
            };
            lookout.on_task(me, task, news);
        }
        self.oracle(|oracle| oracle.on_task(me, task));
    }

    /// Keeps a line about a machine.
    pub fn say(&self, machine: usize, words: String) {
        let now = self.now();
        self.trace(|trace| trace.line(machine, now, What::Said(words)));
    }
}

impl Machine {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(config: Config, clock: Clock) -> Self {
        Self {
            config,
            joins: Mutex::new(None),
            inbox: Inbox::default(),
            disk: Mutex::new(Disk::new()),
            store: SimStore::new(),
            clock: Mutex::new(clock),
            state: Mutex::new(MachineState { slow: 1, ..MachineState::default() }),
            node: OnceLock::new(),
        }
    }

    /// What a process that starts on it now is configured with.
    #[must_use]
    pub fn config(&self, machine: usize) -> Config {
        let mut config = self.config.clone();
        if let Some(joins) = &*lock(&self.joins) {
            config.name.clone_from(&joins.name);
            config.gossip = Some(net::address(machine));
            config.join.clone_from(&joins.through);
            config.address = net::address(machine).to_string();
            config.members.clear();
            config.expect = None;
        }
        config
    }

    /// A copy of its state.
    #[must_use]
    pub fn state(&self) -> MachineState {
        lock(&self.state).clone()
    }
}

impl MachineState {
    /// True when it must not be started again: its disk is gone, or it has seen that what is left cannot be used.
    #[must_use]
    pub fn down_for_good(&self) -> bool {
        let noticed = self.halted.is_some() || self.unrecoverable.is_some();
        self.gone || self.idle || (self.lost && noticed)
    }
}

/// What is due in a process at some moment.
pub(crate) enum Due {
    Log(LogEvent),
    /// The store thread begins with these.
    StoreRun(Vec<StoreTask>),
    /// The store thread has answered.
    StoreDone(Vec<StoreDone>),
    Delivery(Delivery),
    /// A connection with a backlog may have room again.
    Pump(ConnId),
    /// It does something about its requests.
    Chore(Chore),
}

/// Carries out what one node asks for. The process around it is [`crate::member`].
pub(crate) struct SimWorld {
    pub(crate) sim: Arc<Sim>,
    pub(crate) me: usize,
    pub(crate) now: Nanos,
    pub(crate) rng: Rng,
    pub(crate) endpoint: Endpoint,
    pub(crate) conns: BTreeMap<ConnId, Conn>,
    /// Connections on which something was sent in this turn.
    to_ship: Vec<ConnId>,
    pub(crate) due: BinaryHeap<Reverse<Timed>>,
    dues: u64,
    pub(crate) log: LogWriter,
    pub(crate) tasks: Vec<StoreTask>,
    pub(crate) store_busy: bool,
    /// The store has a sync under way, which the store thread will hear of.
    pub(crate) syncing: bool,
    pub(crate) promises: BTreeMap<RequestId, Promise>,
    /// What core said of requests in this turn.
    pub(crate) effects: Vec<Effect>,
    pub(crate) halted: Option<Halt>,
    /// Members to which the node has a link.
    pub(crate) linked: BTreeSet<MemberId>,
    /// When a leader of this process last showed itself.
    pub(crate) beats_at: Nanos,
}

/// One connection of a process.
pub(crate) struct Conn {
    wire: Wire,
    encoder: Encoder,
    decoding: Decoding,
    flight: Arc<AtomicUsize>,
    /// Something waits for room on the wire.
    backlog: bool,
    staged: bool,
}

enum Decoding {
    Stream(Box<Decoder>),
    Frames(Assembler),
}

/// Something due, in the order of time and then of asking.
pub(crate) struct Timed {
    pub(crate) at: Nanos,
    number: u64,
    pub(crate) due: Due,
}

/// What somebody sends again arrives after this.
const REPLAY_LATE: Nanos = 200_000;
/// How often a connection with a backlog looks for room.
const PUMP_EVERY: Nanos = 2_000_000;

impl SimWorld {
    pub(crate) fn new(sim: Arc<Sim>, me: usize, endpoint: Endpoint, rng: Rng) -> Self {
        Self {
            now: sim.now(),
            sim,
            me,
            rng,
            endpoint,
            conns: BTreeMap::new(),
            to_ship: Vec::new(),
            due: BinaryHeap::new(),
            dues: 0,
            log: LogWriter::default(),
            tasks: Vec::new(),
            store_busy: false,
            syncing: false,
            promises: BTreeMap::new(),
            effects: Vec::new(),
            halted: None,
            linked: BTreeSet::new(),
            beats_at: 0,
        }
    }

    pub(crate) fn at(&mut self, at: Nanos, due: Due) {
        self.dues += 1;
        let number = self.dues;
        self.due.push(Reverse(Timed { at, number, due }));
    }

    /// A time of about `usual`, sometimes much longer; longer still on a slow machine.
    pub(crate) fn latency(&mut self, usual: Nanos) -> Nanos {
        let slow = lock(&self.sim.machines[self.me].state).slow;
        let usual = usual * slow;
        let drawn = usual / 2 + self.rng.below(usual.max(1));
        if self.rng.chance(1, 100) { drawn + self.rng.below(usual * 20) } else { drawn }
    }

    /// Ends a turn: what was sent in it goes on its way, the log and the store thread begin what they were given.
    pub(crate) fn end_turn(&mut self) {
        for conn in mem::take(&mut self.to_ship) {
            self.pump(conn);
        }
        self.start_log();
        if !self.store_busy && (self.syncing || !self.tasks.is_empty()) {
            self.store_busy = true;
            let tasks = mem::take(&mut self.tasks);
            let wait = match self.rng.chance(1, 2) {
                true => 0,
                false => self.latency(self.sim.pace.store),
            };
            self.at(self.now + wait, Due::StoreRun(tasks));
        }
    }

    /// Puts as much on the wire as there is room for.
    pub(crate) fn pump(&mut self, id: ConnId) {
        let now = self.now;
        let window = self.sim.pace.window_bytes;
        let Some(conn) = self.conns.get_mut(&id) else {
            return;
        };
        conn.staged = false;
        let mut parcel =
            Parcel { bytes: Vec::new(), ends: Vec::new(), flight: Arc::clone(&conn.flight) };
        let on_its_way = conn.flight.load(Ordering::Relaxed);
        while on_its_way + parcel.bytes.len() < window && conn.encoder.frame(&mut parcel.bytes) {
            parcel.ends.push(parcel.bytes.len());
        }
        conn.backlog = !conn.encoder.is_empty();
        let backlog = conn.backlog;
        if !parcel.bytes.is_empty() {
            conn.flight.fetch_add(parcel.bytes.len(), Ordering::Relaxed);
            self.sim.trace(|trace| {
                trace.mix(now ^ id.0.rotate_left(32));
                trace.mix_bytes(&parcel.bytes);
            });
            if !conn.wire.ship(parcel) {
                conn.encoder = Encoder::new(); // the other end is gone; its notice is on the way
                return;
            }
        }
        if backlog {
            self.at(now + PUMP_EVERY, Due::Pump(id));
        }
    }

    pub(crate) fn connected(&mut self, id: ConnId, wire: Wire) {
        let decoding = match (wire.wild, wire.dialled) {
            (true, _) => Decoding::Frames(Assembler::new()),
            (false, true) => Decoding::Stream(Box::new(Decoder::dialled())),
            (false, false) => Decoding::Stream(Box::new(Decoder::accepted())),
        };
        let conn = Conn {
            wire,
            encoder: Encoder::new(),
            decoding,
            flight: Arc::default(),
            backlog: false,
            staged: false,
        };
        self.conns.insert(id, conn);
    }

    /// Decodes what came; `false`: the connection is broken by it (or was gone) and must be given up.
    pub(crate) fn receive(&mut self, id: ConnId, parcel: &Parcel, out: &mut Vec<Message>) -> bool {
        parcel.flight.fetch_sub(parcel.bytes.len(), Ordering::Relaxed);
        let Some(conn) = self.conns.get_mut(&id) else {
            return true;
        };
        match &mut conn.decoding {
            Decoding::Frames(assembler) => {
                let mut start = 0;
                for end in &parcel.ends {
                    // A damaged frame is dropped, as a datagram would be.
                    let _ =
                        ring_core::wire::decode_frame(&parcel.bytes[start..*end], assembler, out);
                    start = *end;
                }
                true
            }
            Decoding::Stream(decoder) => decode_stream(decoder, parcel, &mut self.rng, out),
        }
    }

    /// Closes every connection to a machine; answers which they were.
    pub(crate) fn reset(&mut self, peer: usize) -> Vec<ConnId> {
        let of_peer = |(id, conn): (&ConnId, &Conn)| (conn.wire.peer == peer).then_some(*id);
        let ids: Vec<ConnId> = self.conns.iter().filter_map(of_peer).collect();
        self.conns.retain(|_, conn| conn.wire.peer != peer);
        ids
    }

    fn is_member(&self) -> bool {
        self.me < self.sim.members
    }

    fn stage(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.get_mut(&id)
            && !conn.staged
            && !conn.backlog
        {
            conn.staged = true;
            self.to_ship.push(id);
        }
    }
}

fn decode_stream(
    decoder: &mut Decoder,
    parcel: &Parcel,
    rng: &mut Rng,
    out: &mut Vec<Message>,
) -> bool {
    // Bytes of a stream arrive in pieces of any size.
    let whole = parcel.bytes.len();
    let cut = match rng.below(4) {
        0 => ring_core::ids::len_usize(rng.below(ring_core::ids::len_u64(whole))),
        _ => whole,
    };
    for piece in [&parcel.bytes[..cut], &parcel.bytes[cut..]] {
        decoder.feed(piece);
        loop {
            match decoder.next() {
                Ok(Some(message)) => {
                    if matches!(message, Message::Welcome(_)) {
                        decoder.authenticated();
                    }
                    out.push(message);
                }
                Ok(None) => break,
                Err(_) => return false,
            }
        }
    }
    true
}

impl World for SimWorld {
    fn connect(&mut self, dial: Dial, address: String) {
        let address = address.parse().ok();
        let sim = Arc::clone(&self.sim);
        let endpoint = self.endpoint.clone();
        madsim::task::spawn(net::dial(sim, self.me, endpoint, dial, address));
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.pump(conn);
        self.conns.remove(&conn);
    }

    fn send(&mut self, conn: ConnId, message: Message) {
        let (me, now) = (self.me, self.now);
        if matches!(message, Message::Beats(_)) {
            self.beats_at = now;
        }
        if let Some((number, attempt)) = requests::sent(&message) {
            self.sim.oracle(|oracle| oracle.on_request_sent(number, attempt));
        }
        let promise = self.is_member() && self.sim.oracle(|oracle| oracle.on_send(me, &message));
        self.sim.lookout(|lookout| lookout.on_send(me, &message));
        if promise {
            self.sample_promise();
        }
        self.sim.trace(|trace| trace.line(me, now, What::Sent(conn, Brief::of(&message))));
        let Some(open) = self.conns.get_mut(&conn) else {
            return;
        };
        if matches!(message, Message::Welcome(_))
            && let Decoding::Stream(decoder) = &mut open.decoding
        {
            decoder.authenticated();
        }
        let queued = open.encoder.queued_bytes() + open.flight.load(Ordering::Relaxed);
        if queued > self.sim.pace.queue_bytes {
            self.conns.remove(&conn);
            self.at(now, Due::Delivery(Delivery::Broken { conn }));
            return;
        }
        open.encoder.push(&message).expect("the limits keep messages below the wire's bound");
        if open.wire.wild {
            self.pump(conn);
        } else {
            self.stage(conn);
        }
    }

    fn datagram(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        let now = self.now;
        self.sim.trace(|trace| {
            trace.mix(now ^ u64::from(to.port()));
            trace.mix_bytes(&bytes);
        });
        let Some(peer) = net::machine_of(to).filter(|peer| *peer < self.sim.machines.len()) else {
            return;
        };
        let from = net::address(self.me);
        for late in self.sim.net.datagram(self.me, peer) {
            self.sim.machines[peer].inbox.push_datagram(now + late, from, bytes.clone());
        }
        if let Some((to, (from, bytes))) = self.sim.net.recorded(peer, &(from, bytes)) {
            self.sim.machines[to].inbox.push_datagram(now + REPLAY_LATE, from, bytes);
        }
    }

    fn append(&mut self, batch: Batch) {
        assert!(self.is_member(), "a client stores nothing");
        self.sim.on_append(self.me, &batch);
        self.sim.trace(|trace| trace.mix(batch.seq.0 ^ batch.len.rotate_left(40)));
        self.log.append(batch);
    }

    fn discard(&mut self, below: SegmentId) {
        let machine = &self.sim.machines[self.me];
        LogWriter::discard(&mut lock(&machine.disk), below);
        self.sim.lookout(|lookout| lookout.reach(Rare::SegmentDeleted));
        self.sim.trace(|trace| trace.mix(below.0));
    }

    fn store(&mut self, task: StoreTask) {
        assert!(self.is_member(), "a client stores nothing");
        self.sim.on_task(self.me, &task);
        self.tasks.push(task);
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, Failure>) {
        self.sim.trace(|trace| trace.mix(request.0 ^ u64::from(result.is_ok()) << 63));
        if let Err(failure) = &result {
            self.sim.lookout(|lookout| lookout.on_failure(failure));
        }
        let promise = self.promises.remove(&request);
        let promise = promise.expect("a call is answered once");
        promise.end(Ended::Answered(result));
    }

    fn request(&mut self, effect: Effect) {
        self.effects.push(effect);
    }

    fn event(&mut self, event: Event) {
        let me = self.me;
        self.sim.lookout(|lookout| lookout.on_event(me, &event));
        match &event {
            Event::Up { genesis } => {
                lock(&self.sim.machines[me].state).founded = true;
                self.sim.oracle(|oracle| oracle.on_up(me, genesis));
            }
            Event::LeaderChanged { group, term, leader: Some(leader) } => {
                self.sim.oracle(|oracle| oracle.on_leader(*group, *term, *leader))
            }
            Event::PeerConnected { member, .. } => {
                self.linked.insert(*member);
                self.sim.oracle(|oracle| oracle.on_link(me, *member, true));
            }
            Event::PeerDisconnected { member, .. } => {
                self.linked.remove(member);
                self.sim.oracle(|oracle| oracle.on_link(me, *member, false));
            }
            Event::Left => {
                lock(&self.sim.machines[me].state).left = true;
                self.sim.oracle(|oracle| oracle.on_left(me));
            }
            Event::Member { peer, change: MemberChange::Failed } => {
                let sim = &self.sim;
                // Who goes by links alone has lost a link, no more.
                let gossips = |m: usize| sim.machines[m].config.gossip.is_some();
                let machine = sim.oracle(|oracle| oracle.machine_of(peer.id));
                let lives = |m: usize| gossips(m) && sim.machines[m].inbox.is_up();
                if gossips(me) && machine.is_some_and(lives) {
                    sim.oracle(|oracle| oracle.on_false_death(me, peer.id));
                }
            }
            Event::Member { .. }
            | Event::LeaderChanged { leader: None, .. }
            | Event::Gathering { .. }
            | Event::PeerReconnecting { .. }
            | Event::PeerFailed { .. }
            | Event::Ready
            | Event::NotReady
            | Event::Halted { .. }
            | Event::DirectoryChanged { .. }
            | Event::RingChanged { .. }
            | Event::Ring(_)
            | Event::ChangeRefused { .. }
            | Event::PeerRefused { .. }
            | Event::PeerFault { .. } => {}
        }
        self.sim.say(me, format!("{event:?}"));
    }

    fn halt(&mut self, reason: Halt) {
        self.sim.say(self.me, format!("halts: {reason}"));
        self.sim.lookout(|lookout| lookout.on_halt(&reason));
        self.halted = Some(reason);
    }
}

impl PartialEq for Timed {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl Eq for Timed {}

impl PartialOrd for Timed {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Timed {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

/// The member that a machine is.
#[must_use]
pub fn member_id(machine: usize) -> MemberId {
    MemberId(ring_core::ids::len_u64(machine) + 1)
}

/// The machine that a member is.
#[must_use]
pub fn machine_of(member: MemberId) -> usize {
    ring_core::ids::len_usize(member.0 - 1)
}
