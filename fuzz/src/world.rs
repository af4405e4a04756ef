//! One member with an honest disk and an honest store, among peers that the fuzzer plays.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use ring_core::config::{Config, Limits};
use ring_core::ids::{Boot, ConnId, LogSeq, MemberId, RequestId, SegmentId};
use ring_core::io::{Dial, Event, Failure, Halt, Reply};
use ring_core::node::{Node, Restored};
use ring_core::request::{Effect, Fault, Half, HandleId, Request, Response, StreamId};
use ring_core::shard::Worker;
use ring_core::storage::record::Batch;
use ring_core::storage::{encode_batch, recover};
use ring_core::store::{MemoryStore, StoreDone, StoreTask};
use ring_core::time::Now;
use ring_core::wire::message::{Founding, Hello, Identity, Message, Welcome};
use ring_core::{Input, Outbox, World, carry_out};

mod talk;

pub use talk::{Talk, stream_bytes};

/// The member under test is `b`: it is dialled by `a` and dials `c`.
pub const ME: MemberId = MemberId(2);

/// The member, what its disk and store hold, and what it is waiting for.
pub struct Lone {
    /// The member.
    pub node: Node,
    /// Its clocks.
    pub now: Now,
    /// Connections that it believes in, with the peer that shook hands as far as the harness knows.
    pub conns: Vec<(ConnId, Option<MemberId>)>,
    /// Its dials that nobody has answered.
    pub dials: Vec<Dial>,
    /// What it has sent since this was last looked at.
    pub sent: Vec<(ConnId, Message)>,
    /// What it said of itself when it dialled.
    pub identity: Option<Identity>,
    /// Why it has halted.
    pub halt: Option<Halt>,
    /// Its requests and streams.
    pub talk: Talk,
    worker: Worker<MemoryStore>,
    tasks: VecDeque<StoreTask>,
    done: VecDeque<StoreDone>,
    segments: BTreeMap<SegmentId, Vec<u8>>,
    /// Written and not said to be stored.
    written: VecDeque<LogSeq>,
    outbox: Outbox,
    next_conn: u64,
    next_request: u64,
    starts: u64,
    /// How often each peer has been started.
    boots: BTreeMap<MemberId, u64>,
}

impl Lone {
    /// A member on an empty directory, as soon as it may speak.
    #[must_use]
    pub fn new() -> Self {
        let limits = config().limits;
        let (worker, store) = Worker::new(MemoryStore::new(), &limits).expect("an empty store");
        let restored = Restored { store, ..Restored::default() };
        let mut lone = Self {
            node: Node::new(config(), restored, 1, Now::default()).expect("a sound start"),
            now: Now::default(),
            conns: Vec::new(),
            dials: Vec::new(),
            sent: Vec::new(),
            identity: None,
            halt: None,
            talk: Talk::default(),
            worker,
            tasks: VecDeque::new(),
            done: VecDeque::new(),
            segments: BTreeMap::new(),
            written: VecDeque::new(),
            outbox: Outbox::new(),
            next_conn: 1,
            next_request: 1,
            starts: 1,
            boots: BTreeMap::new(),
        };
        lone.node.serve_requests();
        lone.flush();
        lone.store(usize::MAX);
        lone
    }

    /// A member of a founded cluster, connected to both others. Founded once, and copied from then on.
    #[must_use]
    pub fn founded() -> Self {
        thread_local!(static FOUNDED: Lone = Lone::found());
        FOUNDED.with(Self::fork)
    }

    fn fork(&self) -> Self {
        let limits = config().limits;
        let (worker, states) = Worker::new(self.worker.store().clone(), &limits).expect("sound");
        assert_eq!(states, self.worker.states(), "nothing is under way in the store");
        Self {
            node: self.node.clone(),
            now: self.now,
            conns: self.conns.clone(),
            dials: self.dials.clone(),
            sent: self.sent.clone(),
            identity: self.identity.clone(),
            halt: self.halt.clone(),
            talk: self.talk.clone(),
            worker,
            tasks: self.tasks.clone(),
            done: self.done.clone(),
            segments: self.segments.clone(),
            written: self.written.clone(),
            outbox: Outbox::new(),
            next_conn: self.next_conn,
            next_request: self.next_request,
            starts: self.starts,
            boots: self.boots.clone(),
        }
    }

    fn found() -> Self {
        let mut lone = Self::new();
        lone.meet();
        for _ in 0..3 {
            lone.pass(Duration::from_millis(100));
            lone.store(usize::MAX);
            lone.agree();
            lone.store(usize::MAX);
            lone.run(usize::MAX);
        }
        assert!(lone.node.view().groups().count() > 0, "the cluster is founded");
        lone.sent.clear();
        // Made once, and not in every play that asks for it.
        lone.node.ring();
        lone.flush();
        lone
    }

    /// An input and the end of the turn.
    pub fn input(&mut self, input: Input) {
        self.node.handle(self.now, input);
        self.flush();
    }

    /// Time passes, and what is due is done.
    pub fn pass(&mut self, time: Duration) {
        self.now.instant = self.now.instant + time;
        self.now.wall_ms += u64::try_from(time.as_millis()).unwrap_or(0);
        self.input(Input::Wakeup);
    }

    /// The disk says that so many of the batches that it was given are stored.
    pub fn store(&mut self, count: usize) {
        let count = count.min(self.written.len());
        let upto = self.written.drain(..count).next_back();
        if let Some(upto) = upto {
            self.input(Input::Stored { upto });
        }
    }

    /// The store carries out so many of its tasks.
    pub fn run(&mut self, count: usize) {
        let count = count.min(self.tasks.len());
        let mut done = Vec::new();
        self.worker.run(self.tasks.drain(..count), &mut done);
        self.done.extend(done);
        while let Some(done) = self.done.pop_front() {
            self.input(Input::Store(done));
        }
    }

    /// A call of the application.
    pub fn submit(&mut self, call: ring_core::io::Call) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        // A refusal is an answer.
        let _ = self.node.submit(self.now, request, call);
        self.flush();
    }

    /// A request of the application.
    pub fn request(&mut self, what: Request) {
        let request = RequestId(self.next_request);
        self.next_request += 1;
        let streams = what.streams.len();
        if self.node.request(self.now, request, what).is_ok() {
            self.talk.on_asked(request, streams);
        }
        self.flush();
    }

    /// The application gives a request up, answered or not.
    pub fn cancel(&mut self, request: RequestId) {
        self.node.cancel_request(request);
        self.flush();
    }

    /// The application answers a request that was handed to it.
    pub fn respond(&mut self, handle: HandleId, result: Result<Response, Fault>) {
        let streams = result.as_ref().map_or(0, |response| response.streams.len());
        let is_response = self.node.respond(handle, result);
        self.talk.on_responded(handle, is_response.then_some(streams));
        self.flush();
    }

    /// The application writes so many bytes to a stream. More than it may is refused.
    pub fn write(&mut self, stream: StreamId, len: usize, last: bool) {
        let data = stream_bytes(self.talk.written(stream), len);
        let is_accepted = self.node.stream_write(stream, data, last).is_ok();
        self.talk.on_written(stream, len, is_accepted);
        self.flush();
    }

    /// The application has done with so many bytes of a stream, at most what has come.
    pub fn taken(&mut self, stream: StreamId, bytes: u64) {
        let bytes = self.talk.take(stream, bytes);
        self.node.stream_taken(stream, bytes);
        self.flush();
    }

    /// The application gives a direction of a stream up.
    pub fn give_up(&mut self, stream: StreamId, half: Half) {
        self.node.stream_give_up(stream, half);
        self.talk.on_given_up(stream, half);
        self.flush();
    }

    /// A connection that somebody dialled.
    pub fn accept(&mut self) -> ConnId {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.push((conn, None));
        self.input(Input::Connected { conn, dial: None });
        conn
    }

    /// The oldest dial succeeds.
    pub fn answer_dial(&mut self) -> Option<ConnId> {
        let dial = (!self.dials.is_empty()).then(|| self.dials.remove(0))?;
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.push((conn, None));
        self.input(Input::Connected { conn, dial: Some(dial) });
        Some(conn)
    }

    /// A connection breaks.
    pub fn drop_conn(&mut self, place: usize) {
        let (conn, _) = self.conns.remove(place);
        self.input(Input::Disconnected { conn });
    }

    /// Both peers shake hands, honestly, on new connections.
    pub fn meet(&mut self) {
        self.pass(Duration::from_secs(1));
        if let Some(conn) = self.answer_dial()
            && let Some(who) = self.introduce(MemberId(3), "c")
        {
            let welcome = Welcome { version: 1, who, genesis: None };
            self.say(conn, MemberId(3), Message::Welcome(Box::new(welcome)));
        }
        let conn = self.accept();
        if let Some(who) = self.introduce(MemberId(1), "a") {
            let hello = Hello { version_min: 1, version_max: 1, who };
            self.say(conn, MemberId(1), Message::Hello(Box::new(hello)));
        }
        self.store(usize::MAX);
    }

    /// Power fails with nothing unsaid lost, and the member is started again.
    pub fn restart(&mut self) {
        if self.halt.is_some() {
            return;
        }
        let limits = config().limits;
        let store = self.worker.store().clone();
        let (worker, store) = Worker::new(store, &limits).expect("what the store holds is sound");
        let mut segments: BTreeMap<SegmentId, Bytes> = self
            .segments
            .iter()
            .map(|(&segment, bytes)| (segment, Bytes::copy_from_slice(bytes)))
            .collect();
        let log = recover(&mut segments).expect("what this member wrote can be recovered");
        self.starts += 1;
        let restored = Restored { log, store };
        let node = Node::new(config(), restored, self.starts, self.now);
        self.node = node.expect("what this member made durable makes sense");
        self.node.serve_requests();
        self.talk.on_restart();
        self.worker = worker;
        self.tasks.clear();
        self.done.clear();
        self.written.clear();
        self.conns.clear();
        self.dials.clear();
        self.flush();
        self.store(usize::MAX);
    }

    /// What its disk holds.
    pub fn segments(&self) -> impl Iterator<Item = (SegmentId, &Vec<u8>)> {
        self.segments.iter().map(|(&segment, bytes)| (segment, bytes))
    }

    /// What an honest peer says of itself, in a new start.
    pub fn introduce(&mut self, member: MemberId, name: &str) -> Option<Identity> {
        let me = self.identity.clone()?;
        let starts = self.boots.entry(member).or_default();
        *starts += 1;
        let (boot, birth) = (Boot(*starts << 32 | 5), 100 + member.0);
        Some(Identity { member, name: String::from(name), boot, birth, ..me })
    }

    fn say(&mut self, conn: ConnId, member: MemberId, message: Message) {
        for known in &mut self.conns {
            if known.0 == conn {
                known.1 = Some(member);
            }
        }
        self.input(Input::Message { conn, message });
    }

    /// Both peers say of the founding what the member itself says, and that they know all births.
    fn agree(&mut self) {
        let Some(birth) = self.identity.as_ref().map(|me| me.birth) else { return };
        let said = self.sent.iter().rev().find_map(|(_, message)| match message {
            Message::Founding(said) => Some(said.clone()),
            _ => None,
        });
        let Some(said) = said else { return };
        let births = vec![(MemberId(1), 101), (ME, birth), (MemberId(3), 103)];
        let said = Founding { births, ..said };
        for (conn, _) in self.conns.clone() {
            self.input(Input::Message { conn, message: Message::Founding(said.clone()) });
        }
    }

    fn flush(&mut self) {
        self.node.flush(self.now, &mut self.outbox);
        self.node.check();
        let mut outbox = std::mem::take(&mut self.outbox);
        let outputs = outbox.outputs().len();
        assert!(outputs < OUTPUTS_MAX, "{outputs} outputs in one turn");
        carry_out(&mut outbox, self);
        self.outbox = outbox;
    }
}

impl Default for Lone {
    fn default() -> Self {
        Self::new()
    }
}

impl World for Lone {
    fn connect(&mut self, dial: Dial, _address: String) {
        self.dials.push(dial);
    }
    fn disconnect(&mut self, conn: ConnId) {
        self.conns.retain(|known| known.0 != conn);
    }
    fn send(&mut self, conn: ConnId, message: Message) {
        if let Message::Hello(hello) = &message {
            self.identity = Some(hello.who.clone());
        }
        if self.sent.len() > 1000 {
            self.sent.clear();
        }
        self.sent.push((conn, message));
    }
    fn datagram(&mut self, _to: SocketAddr, _bytes: Vec<u8>) {}
    fn append(&mut self, batch: Batch) {
        encode_batch(&batch, self.segments.entry(batch.segment).or_default());
        self.written.push_back(batch.seq);
    }
    fn discard(&mut self, below: SegmentId) {
        self.segments.retain(|&segment, _| segment >= below);
    }
    fn store(&mut self, task: StoreTask) {
        self.tasks.push_back(task);
    }
    fn reply(&mut self, _request: RequestId, _result: Result<Reply, Failure>) {}
    fn request(&mut self, effect: Effect) {
        self.talk.on_effect(effect, HANDLERS);
    }
    fn event(&mut self, _event: Event) {}
    fn halt(&mut self, reason: Halt) {
        assert!(!matches!(reason, Halt::Log { .. }), "the disk is honest");
        self.halt = Some(reason);
    }
}

/// No input is worth more outputs: groups, peers and reads are few.
const OUTPUTS_MAX: usize = 10_000;
/// See [`limits`].
const HANDLERS: usize = 4;

/// The configuration of the member under test: small limits, so that they are reached.
#[must_use]
pub fn config() -> Config {
    let named = |name: &str| (String::from(name), String::from(name));
    Config {
        cluster: String::from("fuzz"),
        name: String::from("b"),
        members: vec![named("a"), named("b"), named("c")],
        shards: 2,
        limits: limits(),
        // A placement takes milliseconds, and is not what is tried here.
        watch_ring: false,
        ..Config::default()
    }
}

/// See [`config`].
#[must_use]
pub fn limits() -> Limits {
    Limits {
        append_bytes: 1 << 10,
        append_entries: 8,
        appends_in_flight: 4,
        proposal_bytes: 4 << 10,
        log_tail_bytes: 256,
        segment_bytes: 2 << 10,
        log_bytes: 8 << 10,
        chunk_bytes: 256,
        cursors: 4,
        reads: 16,
        strangers: 4,
        clients: 4,
        calls: 64,
        session_window: 8,
        requests: 8,
        handlers: HANDLERS,
        streams: 16,
        body_bytes: 4 << 10,
        ..Limits::default()
    }
}
