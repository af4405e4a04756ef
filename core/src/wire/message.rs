//! What members say to each other. Every type is flat (no recursion), every count is bounded when decoded.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::directory::{ChangeRefused, Table};
use crate::genesis::Genesis;
use crate::ids::{Boot, ClusterId, GroupId, LogIndex, MemberId, ReplicaId, Seq, SessionId, Term};
use crate::membership::{State, SyncMessage, TAGS_MAX};
use crate::raft;
use crate::request::message::{Part, StreamOf};
use crate::shard::command::{Answer, ItemOutcome, Query};
use crate::wire::bounded::{self, COMMANDS_MAX, GROUPS_MAX, MEMBERS_MAX};

/// One message between two connected nodes. Variants are only added, at the end. What is large and rare is boxed: a
/// message is moved some times on its way, and many wait in queues.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Message {
    /// First message on a connection, from the side that dialled.
    Hello(Box<Hello>),
    /// The answer when the two may talk.
    Welcome(Box<Welcome>),
    /// The answer when they may not; the connection is closed after it.
    Refuse(Refusal),
    /// Between founders until the cluster exists.
    Founding(Founding),
    /// One group's protocol.
    Raft(raft::message::Message),
    /// All beats for one member in one frame.
    Beats(
        #[serde(deserialize_with = "bounded::list::<GROUPS_MAX, _, _>")]
        Vec<BeatOf<raft::message::Beat>>,
    ),
    /// Their answers.
    BeatAnswers(
        #[serde(deserialize_with = "bounded::list::<GROUPS_MAX, _, _>")]
        Vec<BeatOf<raft::message::BeatAnswer>>,
    ),
    /// Open a session of a group, to its leader.
    Open {
        /// The group.
        group: GroupId,
        /// The opener's number of the attempt.
        nonce: u64,
    },
    /// A session is open.
    Opened {
        /// The group.
        group: GroupId,
        /// As in `Open`.
        nonce: u64,
        /// The new session.
        session: SessionId,
    },
    /// Commands of one session, to the group's leader, in order of their seqs.
    Propose {
        /// The group.
        group: GroupId,
        /// The session.
        session: SessionId,
        /// Everything before this is answered.
        first: Seq,
        /// Encoded [`crate::shard::command::Command`]s.
        #[serde(deserialize_with = "bounded::list::<COMMANDS_MAX, _, _>")]
        commands: Vec<(Seq, Bytes)>,
    },
    /// What became of them.
    Proposed {
        /// The group.
        group: GroupId,
        /// The session.
        session: SessionId,
        /// For each command that was applied or refused.
        #[serde(deserialize_with = "bounded::list::<COMMANDS_MAX, _, _>")]
        outcomes: Vec<(Seq, ItemOutcome)>,
    },
    /// The asked member does not lead the group, or ceased to: whatever was sent to it for this group and is not
    /// answered must be sent again.
    NotLeader {
        /// The group.
        group: GroupId,
        /// Who leads, as far as the asked member knows.
        hint: Option<MemberId>,
    },
    /// The leader has no room for more commands of this group now: send again later.
    Busy {
        /// The group.
        group: GroupId,
    },
    /// A question to a replica of a group.
    Ask {
        /// The asker's number of the question.
        call: u64,
        /// The group.
        group: GroupId,
        /// The question.
        query: Query,
        /// False: answer from what is applied now, however old; with `LocalAnswer`, if it is about a value or a range.
        linearizable: bool,
    },
    /// Its answer.
    Answer {
        /// As in `Ask`.
        call: u64,
        /// What was found; an error if the asked member cannot answer (ask another).
        result: Result<Answer, AskError>,
    },
    /// How are you? To any member, from anyone connected.
    AskStatus {
        /// The asker's number of the question.
        call: u64,
        /// Whether it is told to leave the cluster, too.
        leave: Leave,
    },
    /// The answer.
    Status {
        /// As in `AskStatus`.
        call: u64,
        /// What the member says of itself.
        status: Box<MemberStatus>,
    },
    /// Are you there? Answered with `Pong`.
    Ping,
    /// I am.
    Pong,
    /// The directory, as its sender knows it. Whoever has an older one takes it.
    Table(Table),
    /// The version of the directory that its sender has: who has a later one sends it, who has an older one asks
    /// likewise.
    TableVersion(u64),
    /// A member asks the directory's leader to be registered as it says.
    Register {
        /// Where it listens.
        address: String,
        /// Its weight.
        weight: u16,
    },
    /// A member asks the directory's leader to be let go.
    Leave {
        /// Also where that needs members to be given up that are away.
        force: bool,
    },
    /// A group's leader tells the directory's that the membership of an order is committed.
    Settled {
        /// The group.
        group: GroupId,
        /// The order.
        order: u64,
    },
    /// The directory's leader cannot do what a member asked for.
    ChangeRefused(ChangeRefused),
    /// Two members compare whom they hold for alive.
    Sync(SyncMessage),
    /// A part of the talk about requests.
    Request {
        /// The weight of all parts that were sent before it on this connection.
        at: u64,
        /// The part.
        part: Part,
    },
    /// The sender has taken the parts of the talk about requests up to this place.
    RequestsTaken {
        /// Weight since the connection's beginning.
        upto: u64,
    },
    /// The sender has sent the parts up to this place, and waits for word that they were taken. Answered with
    /// `RequestsTaken`.
    RequestsSent {
        /// Weight since the connection's beginning.
        upto: u64,
    },
    /// The reader of a stream allows so many bytes.
    StreamCredit {
        /// The stream, as the reader calls it.
        of: StreamOf,
        /// Bytes since the stream's beginning.
        upto: u64,
    },
    /// Between members that look for others to found a cluster with; one that belongs to a cluster answers with it.
    Gather(Box<Gather>),
    /// Answer to an `Ask` that was not linearizable, about a value or a range.
    LocalAnswer {
        /// As in `Ask`.
        call: u64,
        /// What was found.
        answer: Answer,
        /// Nanoseconds: every write that was acknowledged longer ago is in it; none: that is not known.
        age: Option<u64>,
    },
}

const _: () = assert!(size_of::<Message>() <= 128, "what is rarer than these can be boxed");

/// Who dials and whom it takes the other side for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Hello {
    /// The lowest version of the protocol that it speaks...
    pub version_min: u16,
    /// ... and the highest.
    pub version_max: u16,
    /// Who it is.
    pub who: Identity,
}

/// The other side's introduction.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Welcome {
    /// The version that both will speak: the highest that both know.
    pub version: u16,
    /// Who it is.
    pub who: Identity,
    /// For a client: the cluster's members and shards; none while the cluster is being founded.
    pub genesis: Option<Genesis>,
}

/// What a node says of itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Identity {
    /// Name of its cluster.
    pub cluster_name: String,
    /// The cluster, if it belongs to one already.
    pub cluster: Option<ClusterId>,
    /// Its id.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// Its start counter; 0 for clients.
    pub boot: Boot,
    /// What its directory drew at the starts before, the latest last; so that a peer can look for the one it has seen.
    #[serde(deserialize_with = "bounded::list::<{ Boot::EARLIER_MAX }, _, _>")]
    pub earlier: Vec<u32>,
    /// The number its directory drew at its making.
    pub birth: u64,
    /// Hash of what all founders must agree on: members, or how many are expected, shards, replication. 0 for clients and
    /// for members that join.
    pub agreement: u64,
    /// How it places slots and shards: [`crate::ring::parameters`].
    pub ring: u64,
}

/// Why a connection is refused. The text says it to people; the kind decides what is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// No common protocol version.
    Version {
        /// The refusing side's lowest...
        min: u16,
        /// ... and highest.
        max: u16,
    },
    /// Another cluster's name.
    ClusterName {
        /// The refusing side's.
        expected: String,
    },
    /// The same name, another cluster.
    Cluster {
        /// The refusing side's.
        expected: ClusterId,
    },
    /// The two were configured with different members, shards or replication.
    Agreement,
    /// The caller's directory is older than what the refusing side has seen of it.
    RolledBack {
        /// The boot counter seen.
        seen: Boot,
    },
    /// The caller's directory is new, but the refusing side knows the member from an older one: it was wiped.
    Wiped,
    /// The caller is not a member that the refusing side knows.
    Stranger,
    /// No room for more clients, or for more members that are not registered yet.
    Full,
    /// Both sides have the same id, and are not the same start of it: one runs on a copy of the other's directory.
    Twin,
    /// The other side introduced itself as somebody whom its certificate does not name.
    Certificate,
    /// The two would place keys and shards on different members.
    Ring,
    /// Both sides are this very node: it dialled an address of its own.
    Itself,
}

/// What a founder knows of the founding.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Founding {
    /// Every founder whose birth is known: id and number.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub births: Vec<(MemberId, u64)>,
    /// The cluster id of the genesis that this founder has written down, if it has.
    pub holds: Option<ClusterId>,
    /// Whether this founder knows the cluster to exist.
    pub founded: bool,
}

/// What a member says while it looks for others to found a cluster with: see `expect` of [`Config`](crate::Config).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Gather {
    /// Where the sender is reached.
    pub address: String,
    /// Whom it found at the addresses that it was told to join...
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub told: Vec<MemberId>,
    /// ... and whether that is all of them.
    pub is_complete: bool,
    /// Others that it is connected to, and where they are reached; only what it has not said before.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub others: Vec<(MemberId, String)>,
    /// The genesis that it holds, durably.
    pub holds: Option<ClusterId>,
    /// The genesis that it proposes to the receiver.
    pub proposal: Option<Genesis>,
    /// The genesis that the receiver holds, if the sender will never found that cluster.
    pub void: Option<ClusterId>,
    /// The cluster that the sender belongs to.
    pub cluster: Option<Genesis>,
}

/// A beat or its answer, addressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BeatOf<T> {
    /// The group.
    pub group: GroupId,
    /// The sending replica.
    pub from: ReplicaId,
    /// The replica meant.
    pub to: ReplicaId,
    /// The sender's term.
    pub term: Term,
    /// The beat.
    pub beat: T,
}

/// Why a member did not answer a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum AskError {
    /// It has no replica of the group.
    NotReplica,
    /// No leader could be reached to make the read linearizable.
    NoLeader,
    /// Too many reads wait.
    Busy,
}

/// Whether a member is told to leave the cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Leave {
    /// It is not.
    #[default]
    No,
    /// What it holds moves elsewhere, then it may be closed. Refused when too many others are away.
    Drained,
    /// Those who are away are given up, if they are in the way of that.
    Forced,
}

/// What a member says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct MemberStatus {
    /// Its id.
    pub member: MemberId,
    /// Its name.
    pub name: String,
    /// Its start counter.
    pub boot: Boot,
    /// Nanoseconds since it was started.
    pub uptime: u64,
    /// Members that it is connected to.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub connected: Vec<MemberId>,
    /// Clients connected to it.
    pub clients: u64,
    /// Bytes of its log's files.
    pub log_bytes: u64,
    /// Every replica it has.
    #[serde(deserialize_with = "bounded::list::<GROUPS_MAX, _, _>")]
    pub groups: Vec<GroupStatus>,
    /// What it thinks of the other registered members.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub members: Vec<(MemberId, State)>,
    /// The application's own data about this one.
    #[serde(deserialize_with = "bounded::list::<TAGS_MAX, _, _>")]
    pub tags: Vec<(String, String)>,
    /// Why the directory did not let it leave the last time that it asked; none: it did not ask, waits, or goes.
    pub stays: Option<ChangeRefused>,
}

/// What a member says of one of its replicas.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupStatus {
    /// The group.
    pub group: GroupId,
    /// The replica.
    pub replica: ReplicaId,
    /// Its term.
    pub term: Term,
    /// What it is now.
    pub role: Role,
    /// The leader it knows.
    pub leader: Option<MemberId>,
    /// Last index of its log.
    pub last: LogIndex,
    /// Its commit index.
    pub commit: LogIndex,
    /// The last index that its store has applied.
    pub applied: LogIndex,
}

/// What a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Role {
    /// It follows a leader, or waits for one.
    Follower,
    /// It asks whether it would be elected.
    PreCandidate,
    /// It stands for election.
    Candidate,
    /// It leads.
    Leader,
    /// It receives the log and does not vote.
    Learner,
}

/// The protocol's lowest version spoken by this library.
pub const VERSION_MIN: u16 = 1;
/// The highest.
pub const VERSION_MAX: u16 = 1;
