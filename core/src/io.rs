//! The contract between core and a world, on one screen.
//!
//! A *turn*: the world calls [`Node::handle`] and [`Node::submit`] as often as it has inputs, then [`Node::flush`]
//! once, which fills an [`Outbox`], and [`carry_out`] hands each output to the world. Everything that several inputs
//! of a turn share (a log batch, an append, a round of beats) is made once. Nothing is pending after `flush`.
//!
//! [`Node::handle`]: crate::Node::handle
//! [`Node::submit`]: crate::Node::submit
//! [`Node::flush`]: crate::Node::flush

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use bytes::Bytes;

use crate::directory::{ChangeRefused, Table};
use crate::genesis::Genesis;
use crate::ids::{
    Boot, ClusterId, ConnId, CursorId, GroupId, LogSeq, MemberId, RequestId, Revision, SegmentId,
    Term,
};
use crate::membership::State;
use crate::request::Effect;
use crate::ring::{Placement, RingEvent};
use crate::shard::command::{Change, Changed, Expect, Page, PartitionInfo};
use crate::storage::record::Batch;
use crate::store::{StoreDone, StoreTask};
use crate::time::Instant;
use crate::wire::message::{MemberStatus, Message, Refusal};

/// Everything that the world can tell a node.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// A connection can carry messages. `dial` is that of the `Connect` that asked for it; none: it was accepted.
    Connected {
        /// The world's number of the connection.
        conn: ConnId,
        /// The dial it answers.
        dial: Option<Dial>,
    },
    /// A dial failed.
    ConnectFailed {
        /// The dial.
        dial: Dial,
    },
    /// A whole, valid message arrived. Messages of one connection keep their order.
    Message {
        /// The connection.
        conn: ConnId,
        /// The message.
        message: Message,
    },
    /// A connection is gone; nothing more arrives on it.
    Disconnected {
        /// The connection.
        conn: ConnId,
    },
    /// A datagram arrived. It may be late, repeated or anybody's; the world has dropped what was changed on the way.
    Datagram {
        /// Where it came from: an answer goes there.
        from: SocketAddr,
        /// What was in it.
        bytes: Vec<u8>,
    },
    /// The deadline that `wakeup` named has come.
    Wakeup,
    /// All batches up to this one are durable.
    Stored {
        /// The last durable batch.
        upto: LogSeq,
    },
    /// A write or sync of the log failed. The node halts.
    LogFailed {
        /// What happened, in the world's words.
        problem: String,
    },
    /// The store thread has finished a task.
    Store(StoreDone),
}

/// Everything that a node can ask of the world, in the order in which it must be carried out.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Open a connection to an address. Answered with `Connected` or `ConnectFailed`.
    Connect {
        /// Names the attempt.
        dial: Dial,
        /// Where to.
        address: String,
    },
    /// Close a connection, after what was sent on it. Not answered.
    Disconnect {
        /// The connection.
        conn: ConnId,
    },
    /// Send a message; dropped silently if the connection is gone. A connection whose queue is full is closed.
    Send {
        /// The connection.
        conn: ConnId,
        /// The message.
        message: Message,
    },
    /// Send a datagram. It may be lost, also on purpose when too many wait. Not answered.
    Datagram {
        /// Where to.
        to: SocketAddr,
        /// What is in it.
        bytes: Vec<u8>,
    },
    /// Write a batch to the log. Batches are written in this order; one sync may cover many. Answered with `Stored`.
    Append(Batch),
    /// Delete every segment before this one.
    Discard {
        /// The first segment to keep.
        below: SegmentId,
    },
    /// A task for the store thread.
    Store(StoreTask),
    /// An application's call has ended.
    Reply {
        /// The call.
        request: RequestId,
        /// How.
        result: Result<Reply, Failure>,
    },
    /// What becomes of requests, of this node's and of those that it handles.
    Request(Effect),
    /// Something that the application or an operator wants to know.
    Event(Event),
    /// Stop this member for good: it must not go on with what its disk holds.
    Halt(Halt),
}

/// A world carries outputs out. Every output has its method, so that a new one breaks each world when it compiles.
pub trait World {
    /// See [`Output::Connect`].
    fn connect(&mut self, dial: Dial, address: String);
    /// See [`Output::Disconnect`].
    fn disconnect(&mut self, conn: ConnId);
    /// See [`Output::Send`].
    fn send(&mut self, conn: ConnId, message: Message);
    /// See [`Output::Datagram`].
    fn datagram(&mut self, to: SocketAddr, bytes: Vec<u8>);
    /// See [`Output::Append`].
    fn append(&mut self, batch: Batch);
    /// See [`Output::Discard`].
    fn discard(&mut self, below: SegmentId);
    /// See [`Output::Store`].
    fn store(&mut self, task: StoreTask);
    /// See [`Output::Reply`].
    fn reply(&mut self, request: RequestId, result: Result<Reply, Failure>);
    /// See [`Output::Request`].
    fn request(&mut self, effect: Effect);
    /// See [`Output::Event`].
    fn event(&mut self, event: Event);
    /// See [`Output::Halt`].
    fn halt(&mut self, reason: Halt);
}

/// What one turn asks of the world. Kept by the world and used again, so that a turn allocates nothing for it.
#[derive(Debug, Default)]
pub struct Outbox {
    pub(crate) outputs: Vec<Output>,
}

impl Outbox {
    /// An empty outbox.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// What is in it, for tests and oracles.
    #[must_use]
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }
}

/// Carries an outbox out and empties it. The only loop that does so, for every world.
pub fn carry_out(outbox: &mut Outbox, world: &mut impl World) {
    for output in outbox.outputs.drain(..) {
        match output {
            Output::Connect { dial, address } => world.connect(dial, address),
            Output::Disconnect { conn } => world.disconnect(conn),
            Output::Send { conn, message } => world.send(conn, message),
            Output::Datagram { to, bytes } => world.datagram(to, bytes),
            Output::Append(batch) => world.append(batch),
            Output::Discard { below } => world.discard(below),
            Output::Store(task) => world.store(task),
            Output::Reply { request, result } => world.reply(request, result),
            Output::Request(effect) => world.request(effect),
            Output::Event(event) => world.event(event),
            Output::Halt(reason) => world.halt(reason),
        }
    }
}

/// Names an attempt to connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Dial(pub u64);

/// The next deadline and what it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wakeup {
    /// When `Input::Wakeup` is due.
    pub at: Instant,
    /// What is due then.
    pub timer: Timer,
}

/// What a node waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A group's election time-out or its leader's duties.
    Raft(GroupId),
    /// The round of beats to all peers.
    Beat,
    /// A dial that failed is due again, or a handshake took too long.
    Link,
    /// A call's deadline or its next try.
    Call,
    /// A request's deadline or its next try.
    Request,
    /// A snapshot's next chunk may be sent.
    Transfer,
    /// An idle scan.
    Cursor,
    /// The failure detector: a probe, a suspicion, a comparison.
    Membership,
}

/// An application's call. Names are UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// When the caller wants an answer at the latest.
    pub deadline: Instant,
    /// The partition.
    pub partition: String,
    /// What to do with it.
    pub action: Action,
}

/// What a call does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Set a key. Answered with `Reply::Written`.
    Put {
        /// The key.
        key: Bytes,
        /// Its value.
        value: Bytes,
    },
    /// Remove a key. Answered with `Reply::Deleted`.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// Set or remove a key if it is as expected. Answered with `Reply::Compared`.
    CompareAndSet {
        /// The key.
        key: Bytes,
        /// What it must be.
        expect: Expect<Bytes>,
        /// The new value; none removes.
        value: Option<Bytes>,
    },
    /// Several changes at once. Answered with `Reply::Written`.
    Batch {
        /// The changes.
        changes: Vec<Change<Bytes>>,
    },
    /// The value of a key. Answered with `Reply::Value`, or with `Reply::Local`.
    Get {
        /// The key.
        key: Bytes,
        /// How fresh.
        consistency: Consistency,
    },
    /// A range of keys. Answered with `Reply::Page`; a page with `more` is continued by `ScanNext`.
    Scan {
        /// First key (inclusive).
        from: Bytes,
        /// End (exclusive); none: to the end.
        to: Option<Bytes>,
        /// Backwards.
        reverse: bool,
        /// Most keys on the page.
        limit: u32,
        /// How fresh.
        consistency: Consistency,
    },
    /// The next page of a scan of this partition, from the same snapshot. Answered with `Reply::Page`.
    ScanNext {
        /// As the page before said.
        cursor: CursorId,
        /// Most keys on the page.
        limit: u32,
    },
    /// A scan is not continued. Answered with an empty `Reply::Page`.
    ScanClose {
        /// As the page before said.
        cursor: CursorId,
    },
    /// What changes in a range of keys after a revision. Answered with `Reply::Changes` as soon as there is something,
    /// or with an empty one after some seconds without, or with `Reply::Compacted`.
    Watch {
        /// First key (inclusive).
        from: Bytes,
        /// End (exclusive); none: to the end.
        to: Option<Bytes>,
        /// As the last answer said; none: at once, with nothing but the present revision.
        after: Option<Revision>,
        /// Most changes in one answer.
        limit: u32,
    },
    /// Numbers about the partition. Answered with `Reply::Info`.
    Info,
    /// What a member says of itself (the call's partition is ignored). Answered with `Reply::Status`.
    Status {
        /// The member; it may be this one.
        member: MemberId,
    },
    /// Tells a member to leave the cluster (the call's partition is ignored): what it holds moves elsewhere, then it tells
    /// its world [`Event::Left`]. Answered with `Reply::Status` as soon as it knows.
    Leave {
        /// The member; it may be this one.
        member: MemberId,
        /// Also where that needs members to be given up that are away: without, such a leave is refused.
        force: bool,
    },
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Consistency {
    /// It sees every write that was acknowledged before the read began.
    #[default]
    Linearizable,
    /// It may be stale: what the replica asked has applied.
    Local,
}

/// A call that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Put or batch.
    Written {
        /// The revision of the change.
        revision: Revision,
    },
    /// Delete.
    Deleted {
        /// Whether the key existed.
        existed: bool,
        /// The revision of the change.
        revision: Revision,
    },
    /// Compare-and-set.
    Compared {
        /// Whether it took place.
        swapped: bool,
        /// The key's revision now; 0: no such key.
        revision: Revision,
    },
    /// Get.
    Value(Option<(Bytes, Revision)>),
    /// Get of what a replica has.
    Local {
        /// The value and its revision; none: no such key.
        found: Option<(Bytes, Revision)>,
        /// How stale it can be: every write that was acknowledged longer than this ago is seen. None: the replica does
        /// not know, because it has not reached its leader since it was started.
        age: Option<Duration>,
    },
    /// Scan.
    Page {
        /// The keys.
        page: Page,
        /// How to go on, if there is more.
        cursor: Option<CursorId>,
        /// On the first page of what a replica has: how stale the scan can be, as of `Local`.
        age: Option<Duration>,
    },
    /// Watch: changes in the order in which they were committed; a revision is told as a whole.
    Changes {
        /// The changes.
        changes: Vec<Changed>,
        /// Everything up to this revision is told.
        upto: Revision,
    },
    /// Watch: some of the changes are forgotten. Read the data, and watch after what was read.
    Compacted {
        /// The first revision that is not.
        first: Revision,
    },
    /// Info.
    Info {
        /// The numbers.
        info: PartitionInfo,
        /// The members that hold replicas.
        replicas: Vec<MemberId>,
        /// The leader, as far as known.
        leader: Option<MemberId>,
    },
    /// Status.
    Status(Box<MemberStatus>),
}

/// A call that was accepted and not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The deadline came first. It certainly did not happen and never will.
    Deadline,
    /// The answer was lost, or did not come before the deadline: it may have happened, or may still.
    OutcomeUnknown,
    /// The scan's snapshot is gone (its replica died, or it idled too long): go on with a new scan from the last
    /// key seen.
    Interrupted,
    /// The shard refused it as malformed: another version of libring, or a damaged message.
    Malformed,
    /// The node halted or was closed. It may have happened only if `maybe`.
    Closed {
        /// True if the call was a write that had been sent.
        maybe: bool,
    },
}

/// A call that was not accepted: nothing happened, nothing changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// A limit of this node is reached; try again when calls have ended.
    Full {
        /// Which limit.
        what: &'static str,
        /// Its value.
        limit: u64,
    },
    /// Something is longer than allowed.
    TooLarge {
        /// What.
        what: &'static str,
        /// How long it is.
        len: u64,
        /// How long it may be.
        limit: u64,
    },
    /// Something is not valid.
    Invalid {
        /// What, and why.
        what: &'static str,
    },
    /// The node has halted.
    Halted,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full { what, limit } => {
                write!(f, "{what} is full (limit {limit}): wait for calls to end and try again")
            }
            Self::TooLarge { what, len, limit } => {
                write!(f, "{what} is {len} long, the limit is {limit}")
            }
            Self::Invalid { what } => write!(f, "invalid: {what}"),
            Self::Halted => write!(f, "this member has halted; its log says why"),
        }
    }
}

impl core::error::Error for Refused {}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Deadline => "the deadline came first; it did not happen",
            Self::OutcomeUnknown => "no answer: it may or may not have happened",
            Self::Interrupted => "the scan's snapshot is gone: scan again from the last key seen",
            Self::Malformed => "the shard refused the command as malformed",
            Self::Closed { maybe: true } => "the node closed: it may or may not have happened",
            Self::Closed { maybe: false } => "the node closed; it did not happen",
        })
    }
}

impl core::error::Error for Failure {}

/// What the application or an operator wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The cluster exists and this node is part of it.
    Up {
        /// The cluster.
        genesis: Genesis,
    },
    /// This member looks for others to found the cluster with.
    Gathering {
        /// Who was found, by name, this member included.
        found: Vec<String>,
        /// How many are expected.
        expect: u16,
        /// All agreed, and this one, who is not connected, knows whether the cluster exists.
        missing: Option<String>,
    },
    /// A peer can be talked to.
    PeerConnected {
        /// The peer.
        member: MemberId,
        /// Where it is reached, if that is known; a client is not.
        address: Option<String>,
    },
    /// The connection to a peer is lost; whichever side knows where dials again.
    PeerDisconnected {
        /// The peer.
        member: MemberId,
        /// Where it was reached, if that is known.
        address: Option<String>,
    },
    /// A peer whose connection is lost is dialled again, for the first time since.
    PeerReconnecting {
        /// The peer.
        member: MemberId,
        /// Where.
        address: String,
    },
    /// Nobody answers at an address. It is dialled on; only the first failure of a row is told.
    PeerFailed {
        /// Who is expected there, if that is known.
        member: Option<MemberId>,
        /// Where.
        address: String,
    },
    /// More than half of the registered members are connected to this node, itself counted: what needs a majority can
    /// be done.
    Ready,
    /// They are not any more: what needs a majority waits.
    NotReady,
    /// This member has halted. The last event.
    Halted {
        /// Why, and what to do.
        reason: Halt,
    },
    /// A connection was refused: wrong cluster, wrong version, wiped or rolled-back peer.
    PeerRefused {
        /// The peer, as it called itself; none when it did not get to say.
        member: Option<MemberId>,
        /// Where it was dialled, or is known to listen; none when neither is known, as of a client.
        address: Option<String>,
        /// Why.
        reason: Refusal,
        /// True when this node refused, false when the peer did.
        by_us: bool,
    },
    /// A group of which this member has a replica has another leader, or none.
    LeaderChanged {
        /// The group.
        group: GroupId,
        /// Its term.
        term: Term,
        /// The leader, if known.
        leader: Option<MemberId>,
    },
    /// The directory is another: who is registered, or who is to hold what.
    DirectoryChanged {
        /// What it says now.
        table: Box<Table>,
    },
    /// Other members are alive than before: who owns which keys now.
    RingChanged {
        /// The new placement, which others may keep to look keys up.
        placement: Arc<Placement>,
    },
    /// What that means for this member.
    Ring(RingEvent),
    /// The directory's leader cannot do what this member asked for.
    ChangeRefused {
        /// Why.
        reason: ChangeRefused,
    },
    /// This member asked to be let go, and holds nothing any more: it may be closed for good.
    Left,
    /// What this node thinks of another registered member has changed.
    Member {
        /// The member, as it is thought of now.
        peer: Box<Peer>,
        /// What is different.
        change: MemberChange,
    },
    /// A peer sent something that the protocol forbids; it was dropped and counted.
    PeerFault {
        /// The peer, if the connection had one.
        member: Option<MemberId>,
        /// The other end's address, where the world noticed and not core.
        address: Option<String>,
        /// What.
        what: &'static str,
    },
}

/// A registered member, as another node sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Its id.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// What is thought of it. Where no gossip tells of it, alive is who is connected.
    pub state: State,
    /// The application's own data, as the member said it; empty where nothing was heard.
    pub tags: Vec<(String, String)>,
}

/// What is different about a member. It joins and then fails or leaves, in turns; what happened between two turns of the
/// node is not told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MemberChange {
    /// It is there: for the first time, or again.
    Joined,
    /// It does not answer somebody. It still owns its slots.
    Suspect,
    /// It was a suspect, and has answered.
    Recovered,
    /// It is dead: it did not answer in time. Also the first that is told of a member that is registered and away.
    Failed,
    /// It left, or the directory let it go.
    Left,
    /// It was started again, unnoticed, or says something else of itself.
    Updated,
}

/// Why a member must stop. Its text says what to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Halt {
    /// The log could not be written or synced; what is durable is unknown until it is read again.
    Log {
        /// What happened.
        problem: String,
    },
    /// The store failed.
    Store {
        /// What happened.
        problem: String,
    },
    /// A peer has seen a later state of this directory.
    RolledBack {
        /// The start counter that the peer has seen.
        seen: Boot,
    },
    /// A peer knows this member from another directory: this one is empty, the old one is lost.
    Wiped,
    /// A peer with this cluster's name belongs to another cluster.
    OtherCluster {
        /// The peer's cluster.
        theirs: ClusterId,
    },
    /// The founders were not configured alike.
    Agreement,
    /// What is durable contradicts the protocol.
    Contradiction {
        /// What was found.
        what: String,
    },
    /// The library found a defect of its own; what is durable is as it was.
    Defect {
        /// What was found.
        what: String,
    },
}

impl fmt::Display for Halt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Log { problem } => {
                write!(f, "the log failed: {problem}; mend the disk and start this member again")
            }
            Self::Store { problem } => {
                write!(f, "the store failed: {problem}; mend the disk and start this member again")
            }
            Self::RolledBack { seen } => write!(
                f,
                "this data directory is older than what a peer has seen of it (start {}): a backup was \
                 restored or a disk rolled back, and promises made since are lost; bring back the newer \
                 directory, or replace this member by a new one on an empty directory",
                seen.count()
            ),
            Self::Wiped => write!(
                f,
                "this data directory is new, but the cluster knows this member from another one: bring the \
                 old directory back, or replace this member by a new one"
            ),
            Self::OtherCluster { theirs } => write!(
                f,
                "a peer has this cluster's name but belongs to another cluster ({theirs}): two clusters \
                 cannot merge; correct the list of members, or empty the directory that is wrong"
            ),
            Self::Agreement => write!(
                f,
                "a peer was configured with other members, shards or replication: give all members the same"
            ),
            Self::Contradiction { what } => write!(
                f,
                "durable data contradicts the protocol: {what}; keep a copy of the directory and report this"
            ),
            Self::Defect { what } => write!(
                f,
                "a defect of libring: {what}; nothing was written since: report this, and start this member again"
            ),
        }
    }
}

impl core::error::Error for Halt {}
