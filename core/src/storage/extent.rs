//! Where the log holds a group's entries. The log and its recovery keep the same book, by the same
//! rules.

use alloc::vec::Vec;

use crate::ids::{LogIndex, ReplicaId, SegmentId, Term};
use crate::raft::message::Entry;
use crate::storage::record::GroupCheckpoint;

/// What the log holds of one group, but for the entries themselves.
///
/// Entries always end at `last`; while a log is replayed whose first segments were discarded, they
/// may begin later than behind the cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Extent {
    /// This member's replica of the group.
    pub replica: ReplicaId,
    /// The last index that is cut off...
    pub cut_index: LogIndex,
    /// ... and its term.
    pub cut_term: Term,
    /// The last index; `cut_index` when no entry is held.
    pub last_index: LogIndex,
    /// Where each term begins: first index, term. The last one reaches to `last_index`.
    pub terms: Vec<(LogIndex, Term)>,
    /// The segments that hold entries, oldest first, with the first index that each holds.
    pub spans: Vec<(SegmentId, LogIndex)>,
}

impl Extent {
    /// What the oldest checkpoint that is left says: where its entries stood may be forgotten by
    /// now.
    pub(super) fn of_checkpoint(says: &GroupCheckpoint) -> Self {
        Self {
            cut_index: says.cut_index,
            cut_term: says.cut_term,
            last_index: says.last_index,
            ..Self::new(says.replica)
        }
    }

    /// A group of which the log holds nothing.
    pub(super) fn new(replica: ReplicaId) -> Self {
        Self {
            replica,
            cut_index: LogIndex(0),
            cut_term: Term(0),
            last_index: LogIndex(0),
            terms: Vec::new(),
            spans: Vec::new(),
        }
    }

    /// The term of an entry that is held, or of the last one cut off.
    pub(super) fn term_at(&self, index: LogIndex) -> Option<Term> {
        if index == self.cut_index {
            return Some(self.cut_term);
        }
        if index < self.cut_index || index > self.last_index {
            return None;
        }
        let begun = self.terms.partition_point(|(first, _)| *first <= index);
        Some(self.terms.get(begun.checked_sub(1)?)?.1)
    }

    /// Entries were written to a segment: they replace everything from the first one's index on.
    /// What is cut off stays cut off.
    pub(super) fn on_entries(
        &mut self,
        segment: SegmentId,
        entries: &[Entry],
    ) -> Result<Change, &'static str> {
        let first = entries.first().ok_or("no entries in a record of entries")?;
        let contiguous =
            entries.windows(2).all(|pair| pair[0].index.0.checked_add(1) == Some(pair[1].index.0));
        if !contiguous || first.index == LogIndex(0) {
            return Err("entries do not follow one another");
        }
        if first.index.prev() > self.last_index {
            return Err("entries begin behind the end of their log");
        }
        let cut = self.cut_index;
        let Some(first) = entries.iter().find(|entry| entry.index > cut) else {
            return Ok(Change::default());
        };
        let from = first.index;
        self.terms.retain(|(first, _)| *first < from);
        let change = self.forget_from(from);
        for entry in entries.iter().filter(|entry| entry.index >= from) {
            if self.terms.last().is_none_or(|(_, term)| *term != entry.term) {
                self.terms.push((entry.index, entry.term));
            }
            self.last_index = entry.index;
        }
        if self.spans.last().is_none_or(|(last, _)| *last != segment) {
            self.spans.push((segment, from));
        }
        Ok(change)
    }

    /// Everything up to `index` is no longer needed. What follows stays if the log has that entry,
    /// or had it in a segment that is gone by now (see [`Change::ambiguous`]).
    pub(super) fn on_cut(&mut self, index: LogIndex, term: Term) -> Result<Change, &'static str> {
        if index < self.cut_index {
            return Ok(Change::default());
        }
        if index == self.cut_index {
            let same = term == self.cut_term;
            return same.then(Change::default).ok_or("one index was cut with two terms");
        }
        let oldest = self.spans.first().map(|(segment, _)| *segment);
        let void = index > self.last_index || self.term_at(index).is_some_and(|held| held != term);
        let behind = index < self.last_index;
        (self.cut_index, self.cut_term) = (index, term);
        if void || !behind {
            self.terms.clear();
            self.spans.clear();
            self.last_index = index;
            return Ok(Change { freed: oldest, ambiguous: void && behind });
        }
        let next = LogIndex(index.0.saturating_add(1));
        let begun = self.terms.partition_point(|(first, _)| *first <= next);
        self.terms.drain(..begun.saturating_sub(1));
        if let Some((first, _)) = self.terms.first_mut() {
            *first = next.max(*first);
        }
        let begun = self.spans.partition_point(|(_, first)| *first <= next);
        let freed = self.spans.drain(..begun.saturating_sub(1)).next();
        Ok(Change { freed: freed.map(|(segment, _)| segment), ambiguous: false })
    }

    /// A checkpoint says where the log of this same replica ends. Entries that it does not count
    /// are void.
    pub(super) fn on_checkpoint(&mut self, says: &GroupCheckpoint) -> Result<Change, &'static str> {
        if says.last_index < says.cut_index {
            return Err("a checkpoint cuts off more than its log holds");
        }
        let cut = self.on_cut(says.cut_index, says.cut_term)?;
        if says.cut_index != self.cut_index {
            return Err("a checkpoint gives entries back that were cut off");
        }
        if says.last_index > self.last_index {
            return Err("a checkpoint counts entries that were never written");
        }
        let from = LogIndex(says.last_index.0.saturating_add(1));
        self.terms.retain(|(first, _)| *first < from);
        let end = self.forget_from(from);
        self.last_index = says.last_index;
        Ok(Change { freed: cut.freed.into_iter().chain(end.freed).min(), ambiguous: cut.ambiguous })
    }

    /// Drops the spans that hold nothing before an index but what is cut off.
    fn forget_from(&mut self, index: LogIndex) -> Change {
        let kept = match index.prev() == self.cut_index {
            true => 0,
            false => self.spans.partition_point(|(_, first)| *first < index),
        };
        let freed = self.spans.drain(kept..).next();
        Change { freed: freed.map(|(segment, _)| segment), ambiguous: false }
    }
}

/// What a record did to the spans of its group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Change {
    /// The oldest segment that is no longer needed by this group, once the record is durable.
    pub(super) freed: Option<SegmentId>,
    /// A cut made entries void that it does not cover. Without the entry at the cut a replay could
    /// not know that, and keeps them; a later checkpoint or the entries that follow the cut tell it
    /// better. So what was freed must stay until a later segment has opened.
    pub(super) ambiguous: bool,
}
