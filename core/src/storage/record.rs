//! What the member's own log holds. The format of every record is frozen: golden-byte tests beside
//! the codec.

use alloc::boxed::Box;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::directory::Table;
use crate::genesis::Genesis;
use crate::ids::{Boot, GroupId, LogIndex, LogSeq, MemberId, ReplicaId, SegmentId, Term};
use crate::raft::message::{Entry, Membership};

/// One fact that must survive. Variants are only added, at the end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Record {
    /// The number this directory drew when it was made.
    Birth {
        /// The number.
        birth: u64,
    },
    /// The founders' agreement, written before this member says that it has it.
    Genesis(Genesis),
    /// Every founder has said that it holds the genesis: the cluster exists.
    Founded,
    /// This member was started once more.
    Boot(Boot),
    /// A peer was seen with this boot counter; a lower one is refused from now on.
    PeerBoot {
        /// The peer.
        member: MemberId,
        /// Its counter.
        boot: Boot,
    },
    /// Term and vote of a replica (Raft section 3.4).
    Vote {
        /// The group.
        group: GroupId,
        /// This member's replica of it.
        replica: ReplicaId,
        /// Its current term.
        term: Term,
        /// Whom it voted for in that term.
        vote: Option<ReplicaId>,
    },
    /// Entries of a group's log. They replace whatever stood at the first one's index and after it.
    Entries {
        /// The group.
        group: GroupId,
        /// This member's replica of it.
        replica: ReplicaId,
        /// Contiguous, at least one.
        entries: Vec<Entry>,
    },
    /// The store holds this group's state up to `index` durably: the log up to there is not needed.
    /// When the log has no entry (`index`, `term`) what follows is void too (a snapshot was
    /// installed over it).
    Cut {
        /// The group.
        group: GroupId,
        /// This member's replica of it.
        replica: ReplicaId,
        /// The last index that the store holds...
        index: LogIndex,
        /// ... and its term.
        term: Term,
        /// The membership in force at `index`.
        membership: Membership,
    },
    /// Everything but the entries behind the cuts; the first record of each segment.
    Checkpoint(Checkpoint),
    /// An empty replica was made.
    Replica {
        /// The group.
        group: GroupId,
        /// This member's replica of it.
        replica: ReplicaId,
    },
    /// The newest directory that this member has taken.
    Table(Box<Table>),
    /// This member's replica of a group takes part in nothing any more: what was written of it counts no longer.
    Dropped {
        /// The group.
        group: GroupId,
    },
    /// The genesis that was written down last is void: its proposer has given it up before anyone took part.
    Released,
}

impl Record {
    /// The group that it is about, if it is about one.
    #[must_use]
    pub fn group(&self) -> Option<GroupId> {
        match self {
            Self::Vote { group, .. }
            | Self::Entries { group, .. }
            | Self::Cut { group, .. }
            | Self::Replica { group, .. }
            | Self::Dropped { group } => Some(*group),
            Self::Birth { .. }
            | Self::Genesis(_)
            | Self::Founded
            | Self::Released
            | Self::Boot(_)
            | Self::PeerBoot { .. }
            | Self::Table(_)
            | Self::Checkpoint(_) => None,
        }
    }
}

/// A whole member but for its entries. Replaces all facts that were written before it, entries
/// beyond the cuts excepted.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The directory's number.
    pub birth: u64,
    /// The founders' agreement, once there is one.
    pub genesis: Option<Genesis>,
    /// Whether the cluster is known to exist.
    pub founded: bool,
    /// This start's counter.
    pub boot: Boot,
    /// What was drawn at the starts before, the latest last; at most [`Boot::EARLIER_MAX`].
    pub earlier: Vec<u32>,
    /// The starts in which peers were let in last, sorted by member.
    pub peers: Vec<(MemberId, Boot)>,
    /// The newest directory that this member has taken.
    pub table: Option<Box<Table>>,
    /// Every group this member has a replica of, sorted by group.
    pub groups: Vec<GroupCheckpoint>,
}

/// One group in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct GroupCheckpoint {
    /// The group.
    pub group: GroupId,
    /// This member's replica of it.
    pub replica: ReplicaId,
    /// Its current term.
    pub term: Term,
    /// Whom it voted for in that term.
    pub vote: Option<ReplicaId>,
    /// An index known to be committed.
    pub commit: LogIndex,
    /// The last index that is cut off the log...
    pub cut_index: LogIndex,
    /// ... and its term.
    pub cut_term: Term,
    /// The membership in force at `cut_index`.
    pub membership: Membership,
    /// The last index of the log; what recovery finds must reach it.
    pub last_index: LogIndex,
}

/// Records that become durable together. Core has decided where it stands; the world encodes it
/// with [`crate::storage::encode_batch`], which also says what the world owes it, and writes it
/// exactly there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Its number; rises by one.
    pub seq: LogSeq,
    /// The segment it belongs to.
    pub segment: SegmentId,
    /// Where in the segment it begins, in bytes.
    pub offset: u64,
    /// How many bytes it takes when encoded.
    pub len: u64,
    /// All batches up to this one were known to be durable when this one was made; on a segment's
    /// first batch all before it, because the world syncs the segment before first.
    pub durable: LogSeq,
    /// `Some` on the first batch of a segment: the world syncs the file before and the directory,
    /// then creates this one (and syncs the directory again before it calls the batch stored).
    pub opens: Option<Opening>,
    /// What it says; a segment's first batch begins with a checkpoint.
    pub records: Vec<Record>,
}

/// What the first batch of a segment says about the segment before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Opening {
    /// The segment before, if there was one.
    pub previous: Option<SegmentId>,
    /// How many of its bytes count; what stands behind them was torn and is void.
    pub previous_len: u64,
}
