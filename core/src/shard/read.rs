//! Questions to a partition, and the snapshots of scans that go on.

use alloc::vec::Vec;

use bytes::Bytes;

use super::apply::damaged;
use super::command::{Answer, Page, PartitionInfo, Query, Scan, Watch};
use super::history::Memory;
use super::kept::Kept;
use super::key;
use super::pending::Pending;
use super::state::State;
use crate::config::Limits;
use crate::ids::{CursorId, GroupId, Revision, len_u64, len_usize};
use crate::store::{Store, StoreError, View};

/// Answers questions; keeps the snapshots of scans that go on.
pub(super) struct Reader<S: Store> {
    cursors: Kept<CursorId, Cursor<S::Snapshot>>,
    page_keys: u32,
    page_bytes: usize,
    /// How much the groups remember for those who watch.
    pub(super) memory: Memory,
}

/// A scan between two pages.
struct Cursor<V> {
    group: GroupId,
    snapshot: V,
    rest: Range,
    revision: Revision,
    /// Number of the page that may be asked for.
    page: u32,
}

/// What of a scan is still to be shown.
struct Range {
    from: Vec<u8>,
    to: Vec<u8>,
    reverse: bool,
    /// How many bytes stand before the partition's own keys.
    strip: usize,
}

impl<S: Store> Reader<S> {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            cursors: Kept::new(limits.cursors),
            page_keys: u32::try_from(limits.scan_keys).unwrap_or(u32::MAX),
            page_bytes: limits.scan_bytes,
            memory: Memory::new(limits),
        }
    }

    /// Answers a question. Only a `Get` sees what is still `pending`; for the others nothing of the
    /// group may be.
    pub(super) fn answer(
        &mut self,
        state: &State,
        store: &S,
        pending: &mut Pending,
        query: &Query,
    ) -> Result<Answer, StoreError> {
        match query {
            Query::Get { partition, key } => get(state, store, pending, partition, key),
            Query::Scan(scan) => self.scan(state, store, scan),
            Query::ScanNext { cursor, page, revision, limit } => {
                self.scan_next(state, *cursor, (*page, *revision), *limit)
            }
            Query::ScanClose { cursor } => {
                self.close(*cursor);
                Ok(Answer::Page(Page { revision: state.meta.revision, ..Page::default() }))
            }
            Query::Info { partition } => info(state, store, partition),
            Query::Watch(watch) => Ok(self.watch(state, watch, watch.after)),
        }
    }

    /// What changed after a revision; without one only which revision it is.
    pub(super) fn watch(&self, state: &State, watch: &Watch, after: Option<Revision>) -> Answer {
        let now = state.meta.revision;
        match state.history.since(watch, after.unwrap_or(now), now, &self.memory) {
            Ok((changes, upto)) => Answer::Changes { changes, upto },
            Err(first) => Answer::Compacted { first },
        }
    }

    pub(super) fn close(&mut self, cursor: CursorId) {
        self.cursors.remove(cursor);
    }

    fn scan(&mut self, state: &State, store: &S, scan: &Scan) -> Result<Answer, StoreError> {
        let revision = state.meta.revision;
        let Some(partition) = key::data(&state.prefix, &scan.partition, &[]) else {
            return Ok(Answer::Page(Page { revision, ..Page::default() }));
        };
        let bound = |key: &[u8]| [&partition[..], key].concat();
        let range = Range {
            from: bound(&scan.from),
            to: match &scan.to {
                Some(to) => bound(to),
                None => key::after(&partition),
            },
            reverse: scan.reverse,
            strip: partition.len(),
        };
        let (items, rest) = self.page(store, range, scan.limit)?;
        let more = rest.is_some();
        if let Some(rest) = rest {
            let snapshot = store.snapshot(); // nothing was written since the page was read
            let group = state.meta.group;
            let cursor = Cursor { group, snapshot, rest, revision, page: 1 };
            self.cursors.insert(scan.cursor, cursor);
        }
        Ok(Answer::Page(Page { items, more, revision }))
    }

    fn scan_next(
        &mut self,
        state: &State,
        id: CursorId,
        (number, shown): (u32, Revision),
        limit: u32,
    ) -> Result<Answer, StoreError> {
        // A question that was repeated on its way must not skip a page: its number gives it away.
        let is_wanted = |cursor: &Cursor<S::Snapshot>| {
            cursor.group == state.meta.group && cursor.page == number && cursor.revision == shown
        };
        let Some(cursor) = self.cursors.take_if(id, is_wanted) else {
            return Ok(Answer::NoCursor);
        };
        let Cursor { group, snapshot, rest, revision, page } = cursor;
        let (items, rest) = self.page(&snapshot, rest, limit)?;
        let more = rest.is_some();
        if let Some(rest) = rest {
            let cursor = Cursor { group, snapshot, rest, revision, page: page + 1 };
            self.cursors.insert(id, cursor);
        }
        Ok(Answer::Page(Page { items, more, revision }))
    }

    /// One page of a range, at least one key of it; what is left of the range, if anything.
    fn page(
        &self,
        view: &impl View,
        mut range: Range,
        limit: u32,
    ) -> Result<(Vec<Item>, Option<Range>), StoreError> {
        let limit = len_usize(limit.clamp(1, self.page_keys.max(1)).into());
        let mut items: Vec<Item> = Vec::new();
        let mut bytes = 0;
        let mut stopped_at = None;
        let mut problem = None;
        view.scan(&range.from, &range.to, range.reverse, &mut |full, stored| {
            let Some((revision, value)) = key::split_value(stored) else {
                problem = Some(damaged(full));
                return false;
            };
            let key = &full[range.strip..];
            bytes += key.len() + value.len();
            if items.len() == limit || (bytes > self.page_bytes && !items.is_empty()) {
                stopped_at = Some(full.to_vec());
                return false;
            }
            let copy = Bytes::copy_from_slice;
            items.push((copy(key), copy(value), revision));
            true
        })?;
        if let Some(problem) = problem {
            return Err(problem);
        }
        let rest = stopped_at.map(|mut key| {
            if range.reverse {
                key.push(0); // the end is exclusive: this is the least key behind the one meant
                range.to = key;
            } else {
                range.from = key;
            }
            range
        });
        Ok((items, rest))
    }
}

fn get(
    state: &State,
    store: &impl View,
    pending: &mut Pending,
    partition: &[u8],
    key: &[u8],
) -> Result<Answer, StoreError> {
    let Some(full) = key::data(&state.prefix, partition, key) else {
        return Ok(Answer::Value(None));
    };
    let Some(stored) = pending.get(store, &full)? else {
        return Ok(Answer::Value(None));
    };
    let (revision, _) = key::split_value(&stored).ok_or_else(|| damaged(&full))?;
    Ok(Answer::Value(Some((stored.slice(key::REVISION..), revision))))
}

fn info(state: &State, store: &impl View, partition: &[u8]) -> Result<Answer, StoreError> {
    let mut info = PartitionInfo {
        keys: 0,
        bytes: 0,
        revision: state.meta.revision,
        applied: state.meta.index,
        applied_term: state.meta.term,
        group: state.meta.group,
    };
    if let Some(from) = key::data(&state.prefix, partition, &[]) {
        store.scan(&from, &key::after(&from), false, &mut |full, stored| {
            info.keys += 1;
            let value = stored.len().saturating_sub(key::REVISION);
            info.bytes += len_u64(full.len() - from.len() + value);
            true
        })?;
    }
    Ok(Answer::Info(info))
}

type Item = (Bytes, Bytes, Revision);
