//! The member's own log: one write-ahead log, shared by all its groups.

pub mod record;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::genesis::Genesis;
use crate::ids::{Boot, GroupId, LogIndex, LogSeq, MemberId, ReplicaId, SegmentId, Term};
use crate::raft::message::{Entry, Membership};

/// Everything that a log directory says, after recovery.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Recovered {
    /// The directory's number; 0 in an empty directory.
    pub birth: u64,
    /// The founders' agreement, once there is one.
    pub genesis: Option<Genesis>,
    /// Whether the cluster is known to exist.
    pub founded: bool,
    /// The counter of the last start; 0 in an empty directory.
    pub boot: Boot,
    /// The highest boot counters seen of peers.
    pub peers: BTreeMap<MemberId, Boot>,
    /// Every group of which the log speaks.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Where the log goes on.
    pub tail: Tail,
}

/// One group's durable state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredGroup {
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
    /// The log behind the cut: contiguous from `cut_index + 1`.
    pub entries: Vec<Entry>,
}

/// Where a recovered log goes on: always in a new segment, so that nothing is ever written behind a torn tail.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Tail {
    /// The number of the next batch; 1 in an empty directory (0 counts as 1).
    pub next_seq: LogSeq,
    /// The segment to open next: above every file that exists (0 counts as 1).
    pub next_segment: SegmentId,
    /// The last segment that counts.
    pub last: Option<SegmentId>,
    /// How many of its bytes count.
    pub last_len: u64,
    /// Every segment that counts with its length, and files that do not count (length 0).
    pub segments: Vec<(SegmentId, u64)>,
    /// By group: the segments that hold its entries, with the first index that each holds.
    pub spans: BTreeMap<GroupId, Vec<(SegmentId, LogIndex)>>,
}
