//! A member without input and output of its own: the host carries bytes, time and log batches; the
//! replicated state is in memory, worked on at once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use libring::{
    Action, Error, Event as NodeEvent, Failure, Halt, MemberId, MemberState, Refused, Registered,
    Reply,
};
use ring_core::ids::{ConnId, LogSeq, RequestId, SegmentId};
use ring_core::io::{Call, Dial};
use ring_core::shard::Worker;
use ring_core::storage::codec::encode_batch;
use ring_core::storage::record::Batch;
use ring_core::store::{MemoryStore, StoreTask};
use ring_core::time::{Instant, Now};
use ring_core::wire::{Decoder, Encoder, Message};
use ring_core::{Config, Input, Node, Outbox, Restored, World, carry_out};

use crate::fault::{Fault, code_of_refused};
use crate::handle::told;
use crate::op::{self, Listed, Op, There, What};
use crate::queue::Event;
use crate::scan::{Paging, failed};
use crate::status;
use crate::types::{
    RING_EV_DONE, RING_FX_CONNECT, RING_FX_DISCARD, RING_FX_DISCONNECT, RING_FX_EVENT,
    RING_FX_HALT, RING_FX_SEND, RING_FX_STORE, RING_IN_BYTES, RING_IN_CONNECT_FAILED,
    RING_IN_CONNECTED, RING_IN_DISCONNECTED, RING_IN_STORE_FAILED, RING_IN_STORED, RING_IN_WAKEUP,
};

/// A member and what it asks for.
pub(crate) struct Machine {
    node: Node,
    /// None: a client.
    worker: Option<Worker<MemoryStore>>,
    now: Instant,
    outbox: Outbox,
    desk: Desk,
    /// Something was told since the last turn.
    dirty: bool,
    ops: BTreeMap<RequestId, Pending>,
    last_request: u64,
}

/// Something that the host is asked to do.
#[derive(Default)]
pub(crate) struct Effect {
    pub(crate) kind: u32,
    pub(crate) peer: u64,
    pub(crate) token: u64,
    pub(crate) data: Bytes,
    pub(crate) event: Option<Event>,
}

/// An operation under way.
struct Pending {
    tag: u64,
    /// The operation's id: that of its first call.
    id: u64,
    scan: Option<ScanOf>,
}

struct ScanOf {
    pages: Paging,
    partition: String,
    timeout: Duration,
}

/// Writes down what the node asks of its world.
#[derive(Default)]
struct Desk {
    conns: BTreeMap<ConnId, Conn>,
    dials: BTreeSet<u64>,
    effects: VecDeque<Effect>,
    tasks: Vec<StoreTask>,
    next: Vec<Input>,
    replies: Vec<(RequestId, Result<Reply, Error>)>,
    /// The last batch that the host was asked to store.
    appended: LogSeq,
    halt: Option<Halt>,
    digest: Fnv,
}

struct Conn {
    encoder: Encoder,
    decoder: Decoder,
}

impl Machine {
    pub(crate) fn new(config: Config, seed: u64, now: u64) -> Result<Self, Fault> {
        let now = Instant(now);
        let client = config.client;
        let made = Worker::new(MemoryStore::new(), &config.limits);
        let (worker, _) = made.map_err(|e| Fault::new(status::RING_IO, e.to_string()))?;
        let started = Node::new(config, Restored::default(), seed, clocks(now));
        let node = started.map_err(|e| Fault::invalid(e.to_string()))?;
        Ok(Self {
            node,
            worker: Some(worker).filter(|_| !client),
            now,
            outbox: Outbox::new(),
            desk: Desk::default(),
            dirty: true,
            ops: BTreeMap::new(),
            last_request: 0,
        })
    }

    /// Tells the member something.
    pub(crate) fn input(
        &mut self,
        now: u64,
        kind: u32,
        peer: u64,
        token: u64,
        data: &[u8],
    ) -> Result<(), Fault> {
        self.advance(now);
        let conn = ConnId(peer);
        match kind {
            RING_IN_WAKEUP => self.handle(Input::Wakeup),
            RING_IN_CONNECTED => return self.connected(conn, token),
            RING_IN_CONNECT_FAILED => {
                let dial = self.desk.take_dial(token)?;
                self.handle(Input::ConnectFailed { dial });
            }
            RING_IN_BYTES => self.bytes(conn, data),
            RING_IN_DISCONNECTED => {
                // Unknown: the member has closed it itself.
                if self.desk.conns.remove(&conn).is_some() {
                    self.handle(Input::Disconnected { conn });
                }
            }
            RING_IN_STORED => {
                if LogSeq(token) > self.desk.appended {
                    return Err(Fault::invalid("token: no such RING_FX_STORE"));
                }
                self.handle(Input::Stored { upto: LogSeq(token) });
            }
            RING_IN_STORE_FAILED => {
                let problem = String::from_utf8_lossy(data).into_owned();
                self.handle(Input::LogFailed { problem });
            }
            unknown => return Err(Fault::invalid(format!("input {unknown}: not known"))),
        }
        Ok(())
    }

    /// Begins an operation; says its id.
    pub(crate) fn submit(&mut self, now: u64, op: Op<'_>) -> Result<u64, Fault> {
        self.advance(now);
        let timeout = op.timeout.unwrap_or(TIMEOUT);
        let (action, scan) = match op.what {
            What::Call(action) => (action, None),
            What::Status(member) => {
                let member: MemberId = member.unwrap_or_else(|| self.node.view().me());
                (Action::Status { member }, None)
            }
            What::Leave { member, force } => {
                let me = self.node.view().me();
                (Action::Leave { member: member.unwrap_or(me), force }, None)
            }
            What::Join(address) => {
                self.node.join(clocks(self.now), &[address]).map_err(refused)?;
                self.dirty = true;
                self.desk.event(Event { tag: op.tag, kind: RING_EV_DONE, ..Event::default() });
                return Ok(0);
            }
            What::Ask(question) => {
                let ring = Arc::clone(self.node.ring().placement());
                let view = self.node.view();
                let connected: BTreeSet<MemberId> = view.connected().collect();
                let listed = |m: Registered| {
                    let Registered { id, name, address, birth: _, weight, standing } = m;
                    let peer = view.peer(id);
                    let own = (id == view.me()).then_some(MemberState::Alive);
                    let state = own.or(peer.map(|peer| peer.state));
                    let tags = peer.map_or_else(Vec::new, |peer| peer.tags.clone());
                    let connected = own.is_some() || connected.contains(&id);
                    Listed { id, name, address, weight, standing, state, tags, connected }
                };
                let there = || {
                    let members = view.registered().into_iter().map(listed).collect();
                    let clients = connected.iter().copied().filter(|id| id.is_client()).collect();
                    There { members, clients }
                };
                let answer = op::answered(op.tag, &question, view.me(), &ring, there);
                self.dirty = true;
                self.desk.event(answer);
                return Ok(0);
            }
            What::Request(_)
            | What::Respond(_)
            | What::Handle(_)
            | What::Serve
            | What::Track(..) => {
                let text =
                    "a sans-IO member neither asks nor handles nor tracks: open a node for that";
                return Err(Fault::new(status::RING_UNSUPPORTED, text));
            }
            What::Metrics => {
                let text = "a sans-IO member keeps no metrics: RING_OP_STATUS, or open a node";
                return Err(Fault::new(status::RING_UNSUPPORTED, text));
            }
            What::Pages(pages) => {
                let partition = op.partition.to_owned();
                (pages.ask(), Some(ScanOf { pages, partition, timeout }))
            }
            #[cfg(feature = "test-ops")]
            What::Echo(_) | What::PanicThere => {
                return Err(Fault::invalid("this test needs a node"));
            }
            #[cfg(feature = "test-ops")]
            #[expect(clippy::panic, reason = "that is what it is for")]
            What::PanicHere => panic!("asked for, in a call"),
        };
        let request = self.call(op.partition, action, timeout).map_err(refused)?;
        self.ops.insert(request, Pending { tag: op.tag, id: request.0, scan });
        Ok(request.0)
    }

    /// When RING_IN_WAKEUP is due.
    pub(crate) fn deadline(&self) -> Option<u64> {
        if self.dirty {
            return Some(self.now.0);
        }
        self.node.wakeup().map(|wakeup| wakeup.at.0)
    }

    /// The next thing to do.
    pub(crate) fn next(&mut self) -> Option<Effect> {
        while self.desk.effects.is_empty() && self.dirty {
            self.turn();
        }
        self.desk.effects.pop_front()
    }

    /// A hash over the whole state and all that was ever asked for.
    pub(crate) fn digest(&self) -> u64 {
        let mut hash = self.desk.digest.clone();
        self.node.hash(&mut hash);
        hash.finish()
    }

    fn advance(&mut self, now: u64) {
        self.now = self.now.max(Instant(now)); // a monotonic clock does not go back
    }

    fn handle(&mut self, input: Input) {
        self.node.handle(clocks(self.now), input);
        self.dirty = true;
    }

    fn call(
        &mut self,
        partition: &str,
        action: Action,
        timeout: Duration,
    ) -> Result<RequestId, Refused> {
        let request = RequestId(self.last_request + 1);
        let call = Call { deadline: self.now + timeout, partition: partition.to_owned(), action };
        self.node.submit(clocks(self.now), request, call)?;
        self.last_request = request.0;
        self.dirty = true;
        Ok(request)
    }

    fn connected(&mut self, conn: ConnId, token: u64) -> Result<(), Fault> {
        if conn.0 == 0 || self.desk.conns.contains_key(&conn) {
            return Err(Fault::invalid("peer: 0, or a connection of this number stands"));
        }
        let dial = match token {
            0 => None,
            token => Some(self.desk.take_dial(token)?),
        };
        let decoder = if dial.is_some() { Decoder::dialled() } else { Decoder::accepted() };
        self.desk.conns.insert(conn, Conn { encoder: Encoder::new(), decoder });
        self.handle(Input::Connected { conn, dial });
        Ok(())
    }

    fn bytes(&mut self, conn: ConnId, data: &[u8]) {
        // What comes on a connection that the member has closed is lost, as on a socket.
        if let Some(known) = self.desk.conns.get_mut(&conn) {
            known.decoder.feed(data);
        }
        while let Some(known) = self.desk.conns.get_mut(&conn) {
            match known.decoder.next() {
                Ok(Some(message)) => {
                    if matches!(message, Message::Welcome(_)) {
                        known.decoder.authenticated();
                    }
                    self.handle(Input::Message { conn, message });
                }
                Ok(None) => return,
                Err(_) => {
                    self.desk.drop_conn(conn);
                    self.handle(Input::Disconnected { conn });
                }
            }
        }
    }

    fn turn(&mut self) {
        self.dirty = false;
        let now = clocks(self.now);
        for input in std::mem::take(&mut self.desk.next) {
            self.node.handle(now, input);
        }
        self.node.flush(now, &mut self.outbox);
        carry_out(&mut self.outbox, &mut self.desk);
        if cfg!(debug_assertions) {
            self.node.check();
        }
        let conns: Vec<ConnId> = self.desk.conns.keys().copied().collect();
        for conn in conns {
            self.desk.send_frames(conn);
        }
        if let Some(worker) = &mut self.worker {
            let mut done = Vec::new();
            worker.run(self.desk.tasks.drain(..), &mut done);
            self.desk.next.extend(done.into_iter().map(Input::Store));
        }
        self.dirty |= !self.desk.next.is_empty();
        for (request, result) in std::mem::take(&mut self.desk.replies) {
            self.on_reply(request, result);
        }
        if let Some(halt) = self.desk.halt.take() {
            let data = Bytes::from(halt.to_string());
            self.desk.effect(Effect { kind: RING_FX_HALT, data, ..Effect::default() });
        }
    }

    fn on_reply(&mut self, request: RequestId, result: Result<Reply, Error>) {
        // Unknown: a scan's snapshot was let go of.
        let Some(Pending { tag, id, scan }) = self.ops.remove(&request) else { return };
        let Some(mut scan) = scan else {
            self.desk.event(op::done(tag, id, result));
            return;
        };
        let mut events = Vec::new();
        let more = scan.pages.on_answer(tag, id, result, &mut events);
        for event in events {
            self.desk.event(event);
        }
        if more {
            let partition = scan.partition.clone();
            match self.call(&partition, scan.pages.ask(), scan.timeout) {
                Ok(next) => {
                    self.ops.insert(next, Pending { tag, id, scan: Some(scan) });
                }
                Err(refused) => {
                    let done = failed(tag, id, &Error::Refused(refused).into());
                    self.desk.event(scan.pages.ended(done));
                }
            }
        } else if let Some(close) = scan.pages.close() {
            // Nobody waits for it: if it fails the snapshot goes when it has idled for long enough.
            let _: Result<RequestId, Refused> = self.call(&scan.partition, close, scan.timeout);
        }
    }
}

impl Desk {
    fn take_dial(&mut self, token: u64) -> Result<Dial, Fault> {
        if !self.dials.remove(&token) {
            return Err(Fault::invalid("token: no such RING_FX_CONNECT, or it was answered"));
        }
        Ok(Dial(token - 1))
    }

    fn effect(&mut self, effect: Effect) {
        let Effect { kind, peer, token, data, event } = &effect;
        (kind, peer, token).hash(&mut self.digest);
        self.digest.write(data);
        if let Some(event) = event {
            (event.tag, event.id, event.kind, event.status, event.a, event.b)
                .hash(&mut self.digest);
            self.digest.write(&event.data);
        }
        self.effects.push_back(effect);
    }

    fn event(&mut self, event: Event) {
        self.effect(Effect { kind: RING_FX_EVENT, event: Some(event), ..Effect::default() });
    }

    fn send_frames(&mut self, conn: ConnId) {
        let Some(known) = self.conns.get_mut(&conn) else { return };
        let mut frames = Vec::new();
        while known.encoder.frame(&mut frames) {}
        if !frames.is_empty() {
            let data = Bytes::from(frames);
            self.effect(Effect { kind: RING_FX_SEND, peer: conn.0, data, ..Effect::default() });
        }
    }

    /// Closes a connection, after what was sent on it.
    fn drop_conn(&mut self, conn: ConnId) {
        self.send_frames(conn);
        if self.conns.remove(&conn).is_some() {
            let kind = RING_FX_DISCONNECT;
            self.effect(Effect { kind, peer: conn.0, ..Effect::default() });
        }
    }
}

impl World for Desk {
    fn connect(&mut self, dial: Dial, address: String) {
        let token = dial.0 + 1; // 0 is none
        self.dials.insert(token);
        let data = Bytes::from(address);
        self.effect(Effect { kind: RING_FX_CONNECT, token, data, ..Effect::default() });
    }

    fn disconnect(&mut self, conn: ConnId) {
        self.drop_conn(conn);
    }

    fn send(&mut self, conn: ConnId, message: Message) {
        let Some(known) = self.conns.get_mut(&conn) else { return };
        if matches!(message, Message::Welcome(_)) {
            known.decoder.authenticated();
        }
        if known.encoder.push(&message).is_err() {
            // What is lost in the middle of a connection could not be made good.
            self.drop_conn(conn);
            self.next.push(Input::Disconnected { conn });
        }
    }

    fn datagram(&mut self, _to: SocketAddr, _bytes: Vec<u8>) {
        // Only a member that was given an address for datagrams sends any, and none is given here.
    }

    fn append(&mut self, batch: Batch) {
        let mut bytes = Vec::new();
        encode_batch(&batch, &mut bytes);
        self.appended = batch.seq;
        self.effect(Effect {
            kind: RING_FX_STORE,
            peer: batch.segment.0,
            token: batch.seq.0,
            data: bytes.into(),
            ..Effect::default()
        });
    }

    fn discard(&mut self, below: SegmentId) {
        self.effect(Effect { kind: RING_FX_DISCARD, token: below.0, ..Effect::default() });
    }

    fn store(&mut self, task: StoreTask) {
        self.tasks.push(task);
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, Failure>) {
        self.replies.push((request, result.map_err(Error::Failed)));
    }

    /// It asks nothing, and serves nothing: core answers who asks it that there is no route.
    fn request(&mut self, _effect: ring_core::request::Effect) {}

    fn event(&mut self, event: NodeEvent) {
        if let Some(event) = told(&event) {
            self.event(event);
        }
    }

    fn halt(&mut self, reason: Halt) {
        self.halt.get_or_insert(reason);
    }
}

fn refused(refused: Refused) -> Fault {
    Fault::new(code_of_refused(&refused), refused.to_string())
}

/// FNV-1a, 64 bits: the same for the same bytes, everywhere.
#[derive(Clone)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// The host's one clock; only topics, which are not here yet, would look at the other.
fn clocks(instant: Instant) -> Now {
    Now { instant, wall_ms: instant.0 / 1_000_000 }
}

/// How long an operation may take that does not say.
const TIMEOUT: Duration = Duration::from_secs(10);
