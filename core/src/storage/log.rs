//! The log of a running member: decides where each batch stands and which segments may go.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use crate::ids::{GroupId, LogSeq, ReplicaId, SegmentId};
use crate::storage::Tail;
use crate::storage::codec::{BATCH_BYTES_MAX, batch_len, record_len};
use crate::storage::extent::{Change, Extent};
use crate::storage::record::{Batch, Checkpoint, Opening, Record};

/// The member's log. It neither writes nor encodes: it hands out batches, and learns when they are
/// durable.
///
/// 1. Seqs of sealed batches rise by one; offsets in a segment leave no gap and no overlap.
/// 2. Nothing is ever placed in a segment that recovery found: the first batch opens a new one.
/// 3. A segment is discarded only when the opening of a later one is durable, and so is every
///    record that made its entries needless.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Log {
    segment_bytes: u64,
    next_seq: LogSeq,
    next_segment: SegmentId,
    stored: LogSeq,
    /// The last segment that counts, and how many of its bytes do.
    last: Option<(SegmentId, u64)>,
    /// Whether `last` was opened by this log, and may be written to.
    open: bool,
    staged: Vec<Record>,
    staged_bytes: u64,
    staged_opening: Option<Opening>,
    /// Every segment not discarded yet, with its length.
    segments: BTreeMap<SegmentId, u64>,
    bytes: u64,
    groups: BTreeMap<GroupId, Extent>,
    /// Batches that are not durable yet, with the oldest segment that each makes needless.
    freeing: VecDeque<(LogSeq, SegmentId)>,
    /// Segments with ambiguous cuts, with the oldest segment that each needs until a later one has
    /// opened.
    cutting: BTreeMap<SegmentId, SegmentId>,
    /// Segments whose opening is not durable yet.
    openings: VecDeque<(LogSeq, SegmentId)>,
    /// The last segment whose opening is durable.
    opened: Option<SegmentId>,
}

impl Log {
    /// A log that goes on behind what recovery found, or an empty one. A segment is full when it is
    /// longer than `segment_bytes`.
    ///
    /// What recovery found counts as stored. But what a killed process wrote may be readable
    /// without being durable; it is surely durable only when the first batch of this run is stored,
    /// for which the world syncs the segment before. So a member says nothing to anyone before
    /// that.
    #[must_use]
    pub fn new(tail: &Tail, segment_bytes: u64) -> Self {
        let next_seq = tail.next_seq.max(LogSeq(1));
        Self {
            segment_bytes,
            next_seq,
            next_segment: tail.next_segment.max(SegmentId(1)),
            stored: next_seq.prev(),
            last: tail.last.map(|segment| (segment, tail.last_len)),
            open: false,
            staged: Vec::new(),
            staged_bytes: 0,
            staged_opening: None,
            segments: tail.segments.iter().copied().collect(),
            bytes: tail.segments.iter().map(|(_, len)| len).sum(),
            groups: tail.extents.clone(),
            freeing: VecDeque::new(),
            cutting: BTreeMap::new(),
            openings: VecDeque::new(),
            opened: None,
        }
    }

    /// Stages a record in the batch being made; returns the number that batch will have.
    ///
    /// # Panics
    /// When no segment was opened yet, or the record contradicts the ones before it (a gap between
    /// entries, one index cut with two terms): written, it would make the log unreadable.
    pub fn push(&mut self, record: Record) -> LogSeq {
        let opening = matches!(record, Record::Checkpoint(_));
        assert!(!opening, "a checkpoint only opens a segment");
        let segment = self.writable();
        let (group, change) = match &record {
            Record::Birth { .. }
            | Record::Genesis(_)
            | Record::Founded
            | Record::Released
            | Record::Boot(_)
            | Record::PeerBoot { .. }
            | Record::Table(_)
            | Record::Checkpoint(_) => (None, Ok(Change::default())),
            Record::Vote { group, replica, .. } | Record::Replica { group, replica } => {
                self.extent(*group, *replica);
                (Some(*group), Ok(Change::default()))
            }
            Record::Entries { group, replica, entries } => {
                let extent = self.extent(*group, *replica);
                (Some(*group), extent.on_entries(segment, entries))
            }
            Record::Cut { group, replica, index, term, .. } => {
                let extent = self.extent(*group, *replica);
                (Some(*group), extent.on_cut(*index, *term))
            }
            Record::Dropped { group } => {
                if let Some(gone) = self.groups.remove(group) {
                    self.free_all(segment, &gone);
                }
                (Some(*group), Ok(Change::default()))
            }
        };
        match change {
            Ok(change) => self.free(segment, change),
            Err(what) => panic!("{what}: {group:?}"),
        }
        self.stage(record)
    }

    /// The number of the batch being made.
    #[must_use]
    pub fn next_seq(&self) -> LogSeq {
        self.next_seq
    }

    /// Whether the next batch should open a segment: the present one is full (or there is none),
    /// and nothing is staged yet.
    #[must_use]
    pub fn wants_segment(&self) -> bool {
        let full = self.last.is_none_or(|(_, len)| len >= self.segment_bytes);
        self.staged.is_empty() && (full || !self.open)
    }

    /// Lets the batch being made open a new segment; it begins with the checkpoint.
    ///
    /// # Panics
    /// When a record is staged already, or the checkpoint's last index of a group is not that of
    /// the records pushed so far: recovery would take the difference for loss.
    pub fn open_segment(&mut self, checkpoint: Checkpoint) {
        assert!(self.staged.is_empty(), "only a fresh batch opens a segment");
        let (previous, previous_len) = self.last.unzip();
        self.staged_opening = Some(Opening { previous, previous_len: previous_len.unwrap_or(0) });
        let segment = self.next_segment;
        self.next_segment = segment.next();
        self.last = Some((segment, 0));
        self.open = true;
        self.segments.insert(segment, 0);

        let mut before = core::mem::take(&mut self.groups);
        for says in &checkpoint.groups {
            let group = says.group;
            let mut extent = match before.remove(&group) {
                Some(extent) if extent.replica == says.replica => extent,
                Some(other) => {
                    self.free_all(segment, &other);
                    Extent::new(says.replica)
                }
                None => Extent::new(says.replica),
            };
            match extent.on_cut(says.cut_index, says.cut_term) {
                // The checkpoint itself tells where the log ends: not ambiguous.
                Ok(change) => self.free(segment, Change { ambiguous: false, ..change }),
                Err(what) => panic!("{what}: {group}"),
            }
            assert_eq!(
                (extent.cut_index, extent.last_index),
                (says.cut_index, says.last_index),
                "{group}: what the log holds and what its checkpoint says"
            );
            self.groups.insert(group, extent);
        }
        for gone in before.values() {
            self.free_all(segment, gone);
        }
        self.stage(Record::Checkpoint(checkpoint));
    }

    /// The batch being made, if a record was staged in it; another one is begun.
    pub fn seal(&mut self) -> Option<Batch> {
        if self.staged.is_empty() {
            return None;
        }
        let (segment, offset) = self.last.expect("records are staged in an open segment");
        let seq = self.next_seq;
        let len = batch_len(self.staged_bytes);
        let opens = self.staged_opening.take();
        let durable = match opens {
            Some(_) => {
                self.openings.push_back((seq, segment));
                seq.prev()
            }
            None => self.stored,
        };
        self.next_seq = seq.next();
        self.last = Some((segment, offset + len));
        self.segments.insert(segment, offset + len);
        self.bytes += len;
        self.staged_bytes = 0;
        Some(Batch {
            seq,
            segment,
            offset,
            len,
            durable,
            opens,
            records: core::mem::take(&mut self.staged),
        })
    }

    /// All batches up to this one are durable.
    ///
    /// # Panics
    /// When there is no such batch yet.
    pub fn on_stored(&mut self, upto: LogSeq) {
        assert!(upto < self.next_seq, "{upto} was stored before it was made");
        self.stored = self.stored.max(upto);
        while self.freeing.front().is_some_and(|(seq, _)| *seq <= upto) {
            self.freeing.pop_front();
        }
        while let Some((_, segment)) = self.openings.pop_front_if(|(seq, _)| *seq <= upto) {
            self.opened = Some(segment);
            self.cutting = self.cutting.split_off(&segment);
        }
    }

    /// The last batch that is known to be durable.
    #[must_use]
    pub fn stored(&self) -> LogSeq {
        self.stored
    }

    /// `Some(below)` when segments may newly be deleted: all below that one. Each is named once.
    pub fn discardable(&mut self) -> Option<SegmentId> {
        let opened = self.opened?;
        let (oldest, _) = self.segments.first_key_value()?;
        if *oldest >= opened {
            return None;
        }
        let needed = self.groups.values().filter_map(|extent| extent.spans.first());
        let below = needed
            .map(|(segment, _)| *segment)
            .chain(self.freeing.iter().map(|(_, segment)| *segment))
            .chain(self.cutting.values().copied())
            .fold(opened, SegmentId::min);
        let kept = self.segments.split_off(&below);
        let gone = core::mem::replace(&mut self.segments, kept);
        self.bytes -= gone.values().sum::<u64>();
        (!gone.is_empty()).then_some(below)
    }

    /// Bytes in all segments that count and are not discarded.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Groups that have entries which are needed in segments older than the present one: what keeps
    /// the log long.
    pub fn pinning(&self) -> impl Iterator<Item = GroupId> {
        let present = self.last.filter(|_| self.open).map(|(segment, _)| segment);
        self.groups.iter().filter_map(move |(group, extent)| {
            let (oldest, _) = extent.spans.first()?;
            present.is_none_or(|present| *oldest < present).then_some(*group)
        })
    }

    fn writable(&self) -> SegmentId {
        let segment = self.last.filter(|_| self.open).map(|(segment, _)| segment);
        segment.expect("the first batch of a run opens a segment")
    }

    fn stage(&mut self, record: Record) -> LogSeq {
        self.staged_bytes += record_len(&record);
        assert!(
            batch_len(self.staged_bytes) <= BATCH_BYTES_MAX,
            "a batch grew past {BATCH_BYTES_MAX} bytes"
        );
        self.staged.push(record);
        self.next_seq
    }

    /// The group's extent; a replica that is new to the log begins anew.
    fn extent(&mut self, group: GroupId, replica: ReplicaId) -> &mut Extent {
        let other = self.groups.get(&group).filter(|extent| extent.replica != replica);
        if let Some(other) = other.cloned() {
            self.free_all(self.writable(), &other);
            self.groups.remove(&group);
        }
        self.groups.entry(group).or_insert_with(|| Extent::new(replica))
    }

    fn free_all(&mut self, segment: SegmentId, extent: &Extent) {
        let freed = extent.spans.first().map(|(segment, _)| *segment);
        let ambiguous = false;
        self.free(segment, Change { freed, ambiguous });
    }

    /// Keeps what the batch being made frees until that batch is durable, or longer.
    fn free(&mut self, segment: SegmentId, change: Change) {
        let Some(freed) = change.freed else { return };
        if change.ambiguous {
            let oldest = self.cutting.entry(segment).or_insert(freed);
            *oldest = freed.min(*oldest);
        }
        match self.freeing.back_mut() {
            Some((seq, oldest)) if *seq == self.next_seq => *oldest = freed.min(*oldest),
            Some(_) | None => self.freeing.push_back((self.next_seq, freed)),
        }
    }
}

#[cfg(test)]
mod tests;
