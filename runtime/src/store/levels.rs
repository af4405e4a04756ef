//! What a reader goes through, newest first: recent writes, frozen maps, tables.

use std::cmp::Ordering;
use std::sync::Arc;

use bytes::Bytes;
use lsm_tree::SeqNo;
use ring_core::store::{Range, StoreError};

use super::tables::{Recent, Tables};

/// Everything below the recent writes, as it was at one moment.
pub(super) struct Levels {
    /// Oldest first.
    pub(super) frozen: Vec<Arc<Recent>>,
    tables: Arc<Tables>,
    /// Pinned as long as this lives.
    point: SeqNo,
}

impl Levels {
    /// These maps, and the tables as they are.
    pub(super) fn new(frozen: Vec<Arc<Recent>>, tables: Arc<Tables>) -> Self {
        let point = tables.pin();
        Self { frozen, tables, point }
    }

    /// The value of a key.
    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        for map in self.frozen.iter().rev() {
            if let Some(value) = map.get(key) {
                return Ok(value.clone());
            }
        }
        self.tables.get(self.point, key)
    }

    /// See [`ring_core::store::View::scan`].
    pub(super) fn scan(
        &self,
        recent: &Recent,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from >= to {
            return Ok(());
        }
        let newest_first = std::iter::once(recent).chain(self.frozen.iter().rev().map(Arc::as_ref));
        let mut memory = Memory::new(newest_first.map(|map| map.range(from, to, reverse)), reverse);
        let mut tables = self.tables.scan(self.point, from, to, reverse);
        let mut stored = tables.next().transpose()?;
        loop {
            let order = match (memory.first(), &stored) {
                (None, None) => return Ok(()),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (Some((key, _)), Some((stored, _))) if reverse => stored.cmp(key),
                (Some((key, _)), Some((stored, _))) => key.cmp(stored),
            };
            let more = match (memory.first(), &stored) {
                (_, Some((key, value))) if order.is_gt() => visit(key, value),
                (Some((key, Some(value))), _) => visit(key, value),
                (Some((_, None)) | None, _) => true, // removed
            };
            if !more {
                return Ok(());
            }
            if order.is_ge() {
                stored = tables.next().transpose()?;
            }
            if order.is_le() {
                memory.turn();
            }
        }
    }
}

impl Drop for Levels {
    fn drop(&mut self) {
        self.tables.unpin(self.point);
    }
}

/// Ranges of maps, newest first, read as one.
struct Memory<'a> {
    ranges: Vec<Range<'a, Option<Bytes>>>,
    /// The next pair of each.
    heads: Vec<Option<Pair<'a>>>,
    /// The range that has the next pair of all, the newest if several have its key.
    first: Option<usize>,
    reverse: bool,
}

type Pair<'a> = (&'a Bytes, &'a Option<Bytes>);

impl<'a> Memory<'a> {
    fn new(ranges: impl Iterator<Item = Range<'a, Option<Bytes>>>, reverse: bool) -> Self {
        let mut ranges: Vec<_> = ranges.collect();
        let heads = ranges.iter_mut().map(Iterator::next).collect();
        let mut memory = Self { ranges, heads, first: None, reverse };
        memory.find_first();
        memory
    }

    fn first(&self) -> Option<Pair<'a>> {
        self.first.and_then(|place| self.heads[place])
    }

    /// Goes on to the next key.
    fn turn(&mut self) {
        let Some((passed, _)) = self.first() else {
            return;
        };
        for (head, range) in self.heads.iter_mut().zip(&mut self.ranges) {
            if head.is_some_and(|(key, _)| key == passed) {
                *head = range.next();
            }
        }
        self.find_first();
    }

    fn find_first(&mut self) {
        self.first = None;
        for (place, head) in self.heads.iter().enumerate() {
            let Some((key, _)) = head else {
                continue;
            };
            let is_before = self.first().is_none_or(|(first, _)| match self.reverse {
                true => *key > first,
                false => *key < first,
            });
            if is_before {
                self.first = Some(place);
            }
        }
    }
}
