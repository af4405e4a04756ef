//! The member's own log: one write-ahead log, shared by all its groups.
//!
//! | module | what it is |
//! |---|---|
//! | [`record`] | what the log says |
//! | [`codec`] | how a batch of records looks on disk |
//! | [`extent`] | which segments hold what of a group |
//! | [`log`] | the log of a running member: where batches stand, which segments may go |
//! | [`recovery`] | what a directory says after a crash, and whether it can be trusted |
//! | [`mod@inspect`] | the same for people |
//!
//! The log is a chain of *segments*, one file each. A segment consists of *batches*, each written
//! whole; its first batch *opens* it: it names the segment before, how many of its bytes count, and
//! begins with a checkpoint of everything but the entries. So older segments are needed for entries
//! only, and are deleted when no group needs theirs.
//!
//! # What a crash leaves
//!
//! A batch is *durable* when it was synced; each batch says how far the log before it was known
//! durable when it was made. Of what was not synced any part may be missing, in any order.
//! Therefore, walking along the chain:
//!
//! 1. Before the end that the next segment's opening names, everything was durable (the world syncs
//!    a segment before it creates the next): a bad byte there is damage.
//! 2. In the last segment of the chain the first bad batch is where the crash was, unless a batch
//!    found behind it knew it to be durable: then it is damage too.
//! 3. A file whose opening is bad, and nothing in which knew that opening to be durable, never
//!    counted. Nor do bytes behind the end that the next segment names.
//! 4. Recovery writes nothing, so it can be broken off and repeated. The member goes on in a new
//!    file with an id above all that exist: nothing is ever written behind a torn tail, where a
//!    stale batch could follow it.
//! 5. Deleted files may come back, in any choice: what is older than a hole in the chain does not
//!    count. Whether the hole was a deletion is seen at the end, when each group's entries must be
//!    complete.
//!
//! # Limits
//!
//! - Rot of batches that no later batch knew to be durable cannot be told from a torn tail. These
//!   are the last batch and what was in flight with it. If the only opening left rots, the
//!   directory looks empty; peers notice that.
//! - After a failed sync the kernel may show bytes that are not on the disk. The member halts; when
//!   it is started again on the same running system, recovery believes what it reads.
//! - A value that holds a forged batch made for exactly the place where it will stand, within a
//!   torn tail, could make recovery refuse that tail. Whoever can foresee a member's offsets can
//!   only stop that member from starting.

pub mod codec;
pub mod extent;
pub mod inspect;
pub mod log;
pub mod record;
pub mod recovery;
mod replay;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use crate::directory::Table;
use crate::genesis::Genesis;
use crate::ids::{Boot, GroupId, LogIndex, LogSeq, MemberId, ReplicaId, SegmentId, Term};
use crate::raft::message::{Entry, Membership};

pub use codec::{BatchError, Flaw, decode_batch, encode_batch};
pub use extent::Extent;
pub use inspect::{Report, inspect};
pub use log::Log;
pub use recovery::{RecoveryError, SegmentSource, parse_segment_name, recover, segment_name};

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
    /// What was drawn at the starts before that, the latest last.
    pub earlier: Vec<u32>,
    /// The starts in which peers were let in last.
    pub peers: BTreeMap<MemberId, Boot>,
    /// The newest directory that was taken.
    pub table: Option<Box<Table>>,
    /// Every group of which the log speaks.
    pub groups: BTreeMap<GroupId, RecoveredGroup>,
    /// Where the log goes on.
    pub tail: Tail,
}

impl Recovered {
    /// What was drawn at every start that is remembered, the last one included: what the next start calls earlier.
    #[must_use]
    pub fn starts(&self) -> Vec<u32> {
        let last = (self.boot != Boot::default()).then(|| self.boot.drawn());
        let all = self.earlier.len() + usize::from(last.is_some());
        let forgotten = all.saturating_sub(Boot::EARLIER_MAX);
        self.earlier.iter().copied().chain(last).skip(forgotten).collect()
    }
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

/// Where a recovered log goes on: always in a new segment, so that nothing is ever written behind a
/// torn tail.
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
    /// By group: what the log holds of it and in which segments.
    pub extents: BTreeMap<GroupId, Extent>,
}
