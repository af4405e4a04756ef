//! Requests: a caller's bytes to the owner of a key, to a member or to a partition's leader, the handler's answer back, and
//! streams of bytes both ways beside them.
//!
//! The talk goes over the connections between nodes; a request to this node takes the same steps without one. What each
//! step promises, and what a fault does to it:
//!
//! 1. *A request ends exactly once*, at its deadline at the latest: the caller's table holds it from `request` until the
//!    one [`Effect::Answered`]. Nothing durable is needed: a caller that crashes has nobody to answer.
//! 2. *Sent once on one connection.* A part carries the place that it has in all that was sent on its connection
//!    (`lanes.rs`), and the receiver takes no place twice and none backwards. A connection that repeats or reorders
//!    messages therefore handles nothing twice, and one that loses them loses only what was lost.
//! 3. *Handled, or certainly not.* Who was asked says [`Fault::NotOwner`], [`Fault::NoRoute`], [`Fault::Busy`] or
//!    [`Fault::TooLarge`] before the handler is told, so that those mean "certainly not". A connection that is lost after a
//!    request was put on it means "perhaps": the request then ends with [`Failure::OutcomeUnknown`] unless a later attempt
//!    is answered. A request that never left this node did certainly not run.
//! 4. *Only a [`Kind::Retried`] request without streams is sent again after a "perhaps"*: to the next in line, with the
//!    same number and a higher attempt, which its handler sees. It may be handled twice, by two members or, after a
//!    connection was cut, by one. After a "certainly not" every kind goes elsewhere.
//! 5. *An answer counts only from the attempt that is under way*: an earlier one's connection is gone, or it has answered
//!    "certainly not"; nothing can come from it any more that this caller would take.
//! 6. *Who handles checks that it is the owner*, by its own ring: the first in line that the caller has not passed over.
//!    The caller passes over those whose connection it lost, and those to which it gets none for 500 ms. While two rings
//!    differ both may handle requests for a key: the ring is not a lock (partitions are).
//! 7. *A stream loses no byte and repeats none*: data carries its offset, and a gap ends the stream with an error. A stream
//!    whose request is refused has not begun: its first bytes wait for the credit that says the request is handled.
//! 8. *Memory is bounded*: requests and bytes of the application, handlers and bytes in them, 4 MiB and a message on a
//!    connection that its other end has not taken ([`WINDOW`]), and [`STREAM_WINDOW`] for each stream that is not read. So
//!    requests never fill a connection's queue, on which the cluster's own messages travel too.
//!
//! | file | owns |
//! |---|---|
//! | `mod.rs` | the machine: what comes in, what goes out |
//! | `caller.rs` | requests of this node: whom to ask, again and elsewhere, deadlines |
//! | `server.rs` | requests that this node handles: who may, how many, until when |
//! | `streams.rs` | the open streams of both: credit, ends |
//! | `lanes.rs` | what goes over each connection, and its window |
//! | `message.rs` | the format |
//!
//! # Limits
//!
//! - What a handler answered is not remembered: a retry whose first answer was lost is handled again.
//! - A member that is alive is passed over by a caller that has lost its connection to it.
//! - Streams have no deadline. One that is open and idle stays as long as its connection and both of its ends.
//! - On a connection that loses messages (no transport does that core is promised) a lost credit stops its stream until
//!   either end gives it up.

mod caller;
mod lanes;
pub mod message;
mod server;
mod streams;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::string::String;
use alloc::vec::{Drain, Vec};
use core::fmt;

use bytes::Bytes;

use crate::config::Limits;
use crate::ids::{Boot, ConnId, MemberId, RequestId, len_u64};
use crate::io::Refused;
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::Message;
use caller::Callers;
use lanes::Lanes;
pub use message::{Fault, HEADERS_MAX, Kind, Large, Response, STREAMS_MAX, Target, Way};
use message::{Part, StreamOf};
use server::Server;
use streams::Streams;

/// What may be on a connection without being taken by its other end, in weight; one part more may pass it.
pub const WINDOW: u64 = 4 << 20;
/// So many parts at most.
const WINDOW_PARTS: u64 = WINDOW / message::WEIGHT_MIN;
/// So many answers to what the other end said, and one for each handler, wait for a connection's window. Who keeps the
/// protocol never has more: what lets it send on comes to it after the answers before, and those it takes.
const REPLIES_MAX: u64 = 4 * WINDOW_PARTS;
/// What a stream's writer may be ahead of its reader, in bytes.
pub const STREAM_WINDOW: u64 = 512 << 10;
/// Most bytes of one write to a stream.
pub const STREAM_CHUNK_MAX: usize = 256 << 10;
/// Longest route, and name of a header or a stream.
pub const NAME_BYTES_MAX: usize = 255;
/// Longest text of a handler's error; more is cut off.
pub const TEXT_BYTES_MAX: usize = 4 << 10;

/// Whom this node can reach, and who is responsible for what, as the machine sees it.
pub(crate) trait Reach {
    /// The way to a node; none when there is no connection.
    fn via(&self, member: MemberId) -> Option<Via>;
    /// True for a node to which there was a connection before.
    fn was_reached(&self, member: MemberId) -> bool;
    /// The first `count` members in line for a key.
    fn owners(&self, key: &[u8], count: usize) -> Vec<MemberId>;
    /// Who may lead a partition's shard: the leader as far as known, then the other replicas.
    fn leaders(&self, partition: &[u8]) -> Vec<MemberId>;
    /// Who leads a partition's shard, by this node's replica of it.
    fn leader_here(&self, partition: &[u8]) -> Option<MemberId>;
    /// Which start of a node speaks on a connection.
    fn boot(&self, conn: ConnId) -> Boot;
}

/// A way to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Via {
    /// To this node itself.
    Local,
    /// A connection.
    Conn(ConnId),
}

/// A request of the application.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Request {
    /// Who is to handle it.
    pub target: Target,
    /// Whether it is answered, and sent again.
    pub kind: Kind,
    /// What is asked for: 1 to [`NAME_BYTES_MAX`] bytes of UTF-8.
    pub route: String,
    /// Names and values: at most [`HEADERS_MAX`], and `headers_bytes` of [`Limits`] in all.
    pub headers: Vec<(String, Bytes)>,
    /// The body: at most `body_bytes` of [`Limits`].
    pub body: Bytes,
    /// Streams to open, by name: at most [`STREAMS_MAX`]. With any, the request is never sent again once it may be handled.
    pub streams: Vec<(String, Way)>,
    /// When the caller wants an answer at the latest. Streams that are open then go on.
    pub deadline: Instant,
}

/// A request as its handler sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Handle {
    /// Names it in this run of this node.
    pub handle: HandleId,
    /// Names the request, the same in each of its attempts.
    pub id: RequestName,
    /// How often it was sent, this time included: also to a member that was not the one, or had no room. So more than 1
    /// does not say that it may have been handled before; 1 says that it was not.
    pub attempt: u32,
    /// Who was asked for.
    pub target: Target,
    /// True if nobody waits for an answer.
    pub one_way: bool,
    /// What is asked for.
    pub route: String,
    /// Names and values.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    /// Its streams, in the order of their index.
    pub streams: Vec<(String, Way)>,
    /// When the caller gives up.
    pub deadline: Instant,
}

/// A request, in the whole cluster and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestName {
    /// Who asks.
    pub caller: MemberId,
    /// The start of it that asks; 0 for a client, whose id is its start's own.
    pub boot: Boot,
    /// The caller's number of it.
    pub number: u64,
}

impl fmt::Display for RequestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.caller, self.boot, self.number)
    }
}

/// A request that this node handles, numbered by core.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HandleId(pub u64);

/// Which end of a request's streams this node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Side {
    /// The caller's.
    Caller(RequestId),
    /// The handler's.
    Handler(HandleId),
}

/// One end of a stream on this node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    /// Whose.
    pub side: Side,
    /// The request's streams from 0, then those of its response.
    pub index: u16,
}

/// A direction of a stream, as its end on this node sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Half {
    /// It comes here.
    Read,
    /// It goes from here.
    Write,
}

/// Why a direction of a stream ended before its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Broken {
    /// The other end gave it up.
    GivenUp,
    /// The request it belongs to failed, was cancelled, or was not answered in time.
    Request,
    /// The connection to the other end is lost.
    Lost,
    /// This node has ended.
    Closed,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::GivenUp => "the other end gave the stream up",
            Self::Request => "the stream's request failed or was cancelled",
            Self::Lost => "the connection to the stream's other end is lost",
            Self::Closed => "the node has ended",
        })
    }
}

impl core::error::Error for Broken {}

/// What the machine tells its world.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Handle this. Answered with `Node::respond`, unless nobody waits for it.
    Handle(alloc::boxed::Box<Handle>),
    /// Nobody waits for this answer any more. After [`Gone::Late`] it is forgotten; after [`Gone::Caller`] it holds its place
    /// until it is answered or late.
    Gone {
        /// The request.
        handle: HandleId,
        /// Why.
        why: Gone,
    },
    /// A request has ended. Its streams may be open.
    Answered {
        /// The request.
        request: RequestId,
        /// How.
        result: Result<Response, Failure>,
    },
    /// Bytes of a stream, in order. The reader says with `Node::stream_taken` when it has done with them.
    Data {
        /// The stream.
        stream: StreamId,
        /// The bytes.
        data: Bytes,
        /// None follow: this direction has ended well.
        last: bool,
    },
    /// A stream's writer may have written so many bytes in all.
    Credit {
        /// The stream.
        stream: StreamId,
        /// Bytes since its beginning. Never falls.
        upto: u64,
    },
    /// A direction of a stream has ended before its time.
    Broken {
        /// The stream.
        stream: StreamId,
        /// The direction.
        half: Half,
        /// Why.
        why: Broken,
    },
}

/// Why nobody waits for a handler's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Gone {
    /// The caller has cancelled it, or the connection to the caller is lost.
    Caller,
    /// The caller's deadline has passed.
    Late,
}

/// A request that was accepted and not answered with a response.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Failure {
    /// The handler says so.
    Handler {
        /// Its code.
        code: u32,
        /// Its text, cut off at [`TEXT_BYTES_MAX`].
        text: String,
    },
    /// Whoever was asked handles no such route. It was certainly not handled.
    NoRoute,
    /// It is larger than whoever was asked allows. It was certainly not handled.
    TooLarge {
        /// What of it.
        what: Large,
        /// The limit there.
        limit: u64,
    },
    /// The deadline came first. It was certainly not handled, and never will be.
    Deadline {
        /// What it waited for last.
        waited: Waited,
    },
    /// It was sent, and the answer was lost or did not come in time: it may have been handled, or may still be.
    OutcomeUnknown,
    /// The caller gave it up.
    Cancelled {
        /// True if it may have been handled.
        maybe: bool,
    },
    /// The node halted or was closed.
    Closed {
        /// True if it may have been handled.
        maybe: bool,
    },
}

/// What a request that was never handled waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Waited {
    /// No member is responsible for its target, as far as this node knows.
    Owner,
    /// There was no connection to any that is.
    Connection,
    /// Whoever was asked is not responsible by its own ring, or does not lead.
    Agreement,
    /// Whoever was asked had too many requests.
    Room,
    /// The connection carries more than the other end takes.
    Window,
}

impl Failure {
    /// True when it may have been handled, or may still be.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        match self {
            Self::OutcomeUnknown
            | Self::Cancelled { maybe: true }
            | Self::Closed { maybe: true } => true,
            Self::Handler { .. }
            | Self::NoRoute
            | Self::TooLarge { .. }
            | Self::Deadline { .. }
            | Self::Cancelled { maybe: false }
            | Self::Closed { maybe: false } => false,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Handler { code, text } => write!(f, "the handler answered error {code}: {text}"),
            Self::NoRoute => f.write_str("nobody handles this route on the member that was asked"),
            Self::TooLarge { what, limit } => {
                write!(f, "the {} is longer than the other side's limit of {limit}", what.what())
            }
            Self::Deadline { waited } => write!(
                f,
                "the deadline came first; it was not handled: {}",
                match waited {
                    Waited::Owner => "no member is known to be responsible",
                    Waited::Connection => "no member that is responsible could be reached",
                    Waited::Agreement => "the members do not agree yet who is responsible",
                    Waited::Room => "the responsible member is too busy",
                    Waited::Window => "the responsible member does not take what was sent before",
                }
            ),
            Self::OutcomeUnknown => f.write_str("no answer: it may or may not have been handled"),
            Self::Cancelled { maybe: true } => {
                f.write_str("given up: it may or may not have been handled")
            }
            Self::Cancelled { maybe: false } => f.write_str("given up; it was not handled"),
            Self::Closed { maybe: true } => {
                f.write_str("the node closed: it may or may not have been handled")
            }
            Self::Closed { maybe: false } => f.write_str("the node closed; it was not handled"),
        }
    }
}

impl core::error::Error for Failure {}

/// All requests of a node, asked and handled.
///
/// Invariants, checked by [`Requests::check`]:
/// 1. Counts of bytes are the sums over what is held.
/// 2. Each request of this node that is not answered has one deadline and is due, queued or sent.
/// 3. Each stream belongs to a request that is held.
/// 4. A connection has parts waiting only while its window is full.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Requests {
    me: MemberId,
    boot: Boot,
    limits: RequestLimits,
    callers: Callers,
    server: Server,
    streams: Streams,
    lanes: Lanes,
    /// What waits for others may find them now.
    has_changed: bool,
    /// This node's talk with itself.
    local: VecDeque<Part>,
    effects: Vec<Effect>,
    sends: Vec<(ConnId, Message)>,
}

/// The limits that the machine looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RequestLimits {
    key: usize,
    headers: usize,
    body: usize,
    requests: usize,
    requests_bytes: usize,
    handlers: usize,
    handlers_bytes: usize,
    streams: usize,
}

impl Requests {
    pub(crate) fn new(me: MemberId, boot: Boot, limits: &Limits, rng: Rng) -> Self {
        Self {
            me,
            boot,
            limits: RequestLimits {
                key: limits.key_bytes,
                headers: limits.headers_bytes,
                body: limits.body_bytes,
                requests: limits.requests,
                requests_bytes: limits.requests_bytes,
                handlers: limits.handlers,
                handlers_bytes: limits.handlers_bytes,
                streams: limits.streams,
            },
            callers: Callers::new(rng),
            server: Server::default(),
            streams: Streams::default(),
            lanes: Lanes::default(),
            has_changed: false,
            local: VecDeque::new(),
            effects: Vec::new(),
            sends: Vec::new(),
        }
    }

    /// From now on requests are handed to the world; until then they are answered with [`Fault::NoRoute`].
    pub(crate) fn serve(&mut self) {
        self.server.is_serving = true;
    }

    /// Takes a part that came. Says what is wrong with it, if anything is; it is dropped then.
    pub(crate) fn on_part(
        &mut self,
        now: Instant,
        from: MemberId,
        conn: ConnId,
        (at, part): (u64, Part),
        reach: &impl Reach,
    ) -> Result<(), &'static str> {
        if !self.lanes.take(conn, at, part.weight()) {
            return Ok(()); // repeated, or overtaken by a later one
        }
        self.take(now, from, Via::Conn(conn), part, reach)
    }

    fn take(
        &mut self,
        now: Instant,
        from: MemberId,
        via: Via,
        part: Part,
        reach: &impl Reach,
    ) -> Result<(), &'static str> {
        match part {
            Part::Ask(ask) => self.on_ask(now, from, via, *ask, reach),
            Part::Answer { number, result } => {
                self.on_answer(now, via, RequestId(number), result.map(|response| *response));
                Ok(())
            }
            Part::Cancel { number } => {
                self.on_cancel(via, number);
                Ok(())
            }
            Part::Data { of, offset, data, last } => self.on_data(via, of, offset, data, last),
            Part::Abort { of } => {
                self.on_given_up(via, of, Half::Read);
                Ok(())
            }
            Part::Stop { of } => {
                self.on_given_up(via, of, Half::Write);
                Ok(())
            }
        }
    }

    /// The other end of a connection has taken everything up to this place.
    pub(crate) fn on_taken(&mut self, conn: ConnId, upto: u64) {
        self.lanes.on_taken(conn, upto);
    }

    /// The other end of a connection has sent everything up to this place, and waits for word that it was taken.
    pub(crate) fn on_sent(&mut self, conn: ConnId, upto: u64) {
        self.lanes.on_sent(conn, upto);
    }

    /// A connection is gone, with everything on it.
    pub(crate) fn on_conn_lost(&mut self, now: Instant, conn: ConnId) {
        let via = Via::Conn(conn);
        let freed = self.lanes.drop_conn(conn);
        self.server.release(freed);
        self.on_callee_lost(now, via);
        self.on_caller_lost(via);
    }

    /// There is a new connection, or another ring or leader: whatever waits for one tries again at once.
    pub(crate) fn on_change(&mut self) {
        self.has_changed = true;
    }

    /// These partitions have a leader that is known since now: what waits for one tries again at once.
    pub(crate) fn on_leader(&mut self, now: Instant, leads: impl Fn(&[u8]) -> bool) {
        self.callers.wake_partitions(now, leads);
    }

    /// Does what is due. What there is to send and to tell then: [`Requests::sends`], [`Requests::effects`].
    pub(crate) fn drive(&mut self, now: Instant, reach: &impl Reach) {
        self.expire(now);
        if core::mem::take(&mut self.has_changed) {
            self.callers.wake(now);
        }
        self.try_due(now, reach);
        while let Some(part) = self.local.pop_front() {
            let taken = self.take(now, self.me, Via::Local, part, reach);
            taken.expect("what this node says to itself keeps the protocol");
            self.try_due(now, reach);
        }
        self.flush_lanes(now);
    }

    /// Ends what is overdue.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(request) = self.callers.overdue(now) {
            self.on_deadline(request);
        }
        while let Some(handle) = self.server.overdue(now) {
            self.on_late(handle);
        }
    }

    /// True when `drive` will ask who owns a key.
    pub(crate) fn wants_ring(&self, now: Instant) -> bool {
        let asks =
            |part: &Part| matches!(part, Part::Ask(ask) if matches!(ask.target, Target::Key(_)));
        let until = if self.has_changed { Instant(u64::MAX) } else { now };
        self.local.iter().any(asks) || self.callers.wants_ring(until)
    }

    /// What is to be sent, in order.
    pub(crate) fn sends(&mut self) -> Drain<'_, (ConnId, Message)> {
        self.sends.drain(..)
    }

    /// What is to be told, in order.
    pub(crate) fn effects(&mut self) -> Drain<'_, Effect> {
        self.effects.drain(..)
    }

    /// A connection whose other end does not keep the protocol, and how. It is to be dropped.
    pub(crate) fn stuck(&self) -> Option<(ConnId, &'static str)> {
        self.lanes.stuck()
    }

    /// When `drive` has something to do again. It has just been called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let asked = self.callers.deadline();
        [asked, self.server.deadline(), self.lanes.deadline()].into_iter().flatten().min()
    }

    /// When `expire` has something to do again.
    pub(crate) fn expires(&self) -> Option<Instant> {
        [self.callers.expires(), self.server.deadline()].into_iter().flatten().min()
    }

    /// The node has halted: everything ends.
    pub(crate) fn close(&mut self) {
        let sides: Vec<Side> = self.streams.sides();
        for side in sides {
            self.streams.break_all(side, Broken::Closed, &mut self.effects);
        }
        self.callers.close(&mut self.effects);
        self.server = Server::default();
        self.lanes = Lanes::default();
        self.local.clear();
        self.sends.clear();
    }

    /// Requests of this node that are not answered.
    pub(crate) fn asked(&self) -> usize {
        self.callers.waiting()
    }

    /// Requests that this node handles.
    pub(crate) fn handled(&self) -> usize {
        self.server.len()
    }

    pub(crate) fn check(&self) {
        self.callers.check();
        self.server.check(self.lanes.answers_bytes());
        self.lanes.check();
        for side in self.streams.sides() {
            let is_held = match side {
                Side::Caller(request) => self.callers.has(request),
                Side::Handler(handle) => self.server.has(handle),
            };
            assert!(is_held, "3: a stream belongs to a request");
        }
    }

    /// Sends a part on its way, or lets it wait for its connection's window.
    fn send(&mut self, via: Via, part: Part) {
        match via {
            Via::Local => self.local.push_back(part),
            Via::Conn(conn) => self.lanes.push(conn, part),
        }
    }

    /// Answers something that the other end said; `bytes` count as held by a handler until that is sent.
    fn reply(&mut self, via: Via, part: Part, bytes: usize) {
        match via {
            Via::Local => self.local.push_back(part),
            Via::Conn(conn) => {
                self.server.hold(bytes);
                let most = len_u64(self.limits.handlers) + REPLIES_MAX;
                self.lanes.reply(conn, part, bytes, most);
            }
        }
    }

    /// Sends what the windows allow.
    fn flush_lanes(&mut self, now: Instant) {
        while let Some((conn, waiting)) = self.lanes.next() {
            match waiting {
                lanes::Waiting::Part(part) => self.put(conn, part),
                lanes::Waiting::Reply(part, bytes) => {
                    self.server.release(bytes);
                    self.put(conn, part);
                }
                lanes::Waiting::Ask(request) => {
                    if let Some(ask) = self.leave(now, conn, request) {
                        self.put(conn, ask);
                    }
                }
            }
        }
        self.lanes.report(now, &mut self.sends);
    }

    fn put(&mut self, conn: ConnId, part: Part) {
        let at = self.lanes.advance(conn, part.weight());
        self.sends.push((conn, Message::Request { at, part }));
    }

    /// How both ends of a connection call a stream, and the way there; none when it has no other end any more.
    fn address(&self, stream: StreamId) -> Option<(Via, StreamOf)> {
        let index = stream.index;
        match stream.side {
            Side::Caller(request) => {
                let via = self.callers.via(request)?;
                Some((via, StreamOf { by_caller: true, number: request.0, index }))
            }
            Side::Handler(handle) => {
                let (via, number) = self.server.caller(handle)?;
                Some((via, StreamOf { by_caller: false, number, index }))
            }
        }
    }

    /// The end on this node of a stream that the other end speaks of.
    fn stream_of(&self, via: Via, of: StreamOf) -> Option<StreamId> {
        let side = if of.by_caller {
            Side::Handler(self.server.find(via, of.number)?)
        } else {
            let request = RequestId(of.number);
            self.callers.via(request).filter(|&way| way == via)?;
            Side::Caller(request)
        };
        Some(StreamId { side, index: of.index })
    }

    /// Forgets an answered request that has no open streams.
    fn forget_if_done(&mut self, side: Side) {
        if self.streams.is_open(side) {
            return;
        }
        match side {
            Side::Caller(request) => self.callers.forget_answered(request),
            Side::Handler(handle) => self.server.forget_answered(handle),
        }
    }
}

/// Checks what a request and a response have in common.
fn check_parts(
    limits: &RequestLimits,
    headers: &[(String, Bytes)],
    body: &Bytes,
    streams: &[(String, Way)],
) -> Result<(), TooLarge> {
    let within = |what, len: usize, limit: usize| {
        if len > limit { Err(TooLarge { what, len, limit }) } else { Ok(()) }
    };
    within(Large::Body, body.len(), limits.body)?;
    within(Large::Headers, headers.len(), HEADERS_MAX)?;
    within(Large::Headers, message::headers_bytes(headers), limits.headers)?;
    within(Large::Streams, streams.len(), STREAMS_MAX)?;
    let names = headers.iter().map(|(name, _)| name).chain(streams.iter().map(|(name, _)| name));
    for name in names {
        within(Large::Name, name.len(), NAME_BYTES_MAX)?;
    }
    Ok(())
}

/// Something is longer than allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct TooLarge {
    what: Large,
    len: usize,
    limit: usize,
}

impl From<TooLarge> for Refused {
    fn from(large: TooLarge) -> Self {
        Self::TooLarge {
            what: large.what.what(),
            len: len_u64(large.len),
            limit: len_u64(large.limit),
        }
    }
}

impl From<TooLarge> for Fault {
    fn from(large: TooLarge) -> Self {
        Self::TooLarge { what: large.what, limit: len_u64(large.limit) }
    }
}
