//! The last changes of a group, for those who watch it.
//!
//! Kept in memory by every replica, beside what the entries do to the data and no part of it: replicas that have applied
//! the same entries may remember more or less of them. Whoever wants changes from before is told where the memory
//! begins, and reads the data anew.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::command::{Changed, Watch};
use crate::config::Limits;
use crate::ids::{Revision, len_usize};

/// What a group remembers.
#[derive(Clone, Debug)]
pub(super) struct History {
    changes: VecDeque<Past>,
    bytes: usize,
    /// Every change from this revision on is here.
    first: Revision,
}

/// One change.
#[derive(Clone, Debug)]
struct Past {
    revision: Revision,
    /// Shard time.
    stamp: u64,
    /// The partition's name, the key and the value, one after the other.
    text: Bytes,
    name_end: u32,
    /// None: the value's place is empty, as the key was removed.
    key_end: u32,
    is_removal: bool,
}

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    bytes: usize,
    time: Duration,
    page: usize,
    page_bytes: usize,
}

impl Memory {
    pub(super) fn new(limits: &Limits) -> Self {
        Self {
            bytes: limits.history_bytes,
            time: limits.history_time,
            page: limits.scan_keys,
            page_bytes: limits.scan_bytes,
        }
    }
}

impl Past {
    fn of(&self, watch: &Watch) -> Option<Changed> {
        let (name_end, key_end) = (len_usize(self.name_end.into()), len_usize(self.key_end.into()));
        let key = &self.text[name_end..key_end];
        let is_meant = self.text[..name_end] == watch.partition[..]
            && *key >= watch.from[..]
            && watch.to.as_ref().is_none_or(|to| *key < to[..]);
        is_meant.then(|| Changed {
            revision: self.revision,
            key: self.text.slice(name_end..key_end),
            value: (!self.is_removal).then(|| self.text.slice(key_end..)),
        })
    }

    fn bytes(&self) -> usize {
        self.text.len() + size_of::<Self>()
    }
}

impl History {
    /// Nothing is known of what happened up to this revision.
    pub(super) fn after(revision: Revision) -> Self {
        Self { changes: VecDeque::new(), bytes: 0, first: revision.next() }
    }

    /// A change, the latest so far.
    pub(super) fn push(
        &mut self,
        (revision, stamp): (Revision, u64),
        partition: &[u8],
        key: &[u8],
        value: Option<&[u8]>,
    ) {
        let text = [partition, key, value.unwrap_or_default()].concat();
        let end = |len: usize| u32::try_from(len).expect("names and keys are short");
        let past = Past {
            revision,
            stamp,
            text: Bytes::from(text),
            name_end: end(partition.len()),
            key_end: end(partition.len() + key.len()),
            is_removal: value.is_none(),
        };
        self.bytes += past.bytes();
        self.changes.push_back(past);
    }

    /// Forgets what is too much or too old. A revision is forgotten as a whole.
    pub(super) fn forget(&mut self, memory: &Memory, stamp: u64) {
        let time = u64::try_from(memory.time.as_nanos()).unwrap_or(u64::MAX);
        while let Some(oldest) = self.changes.front() {
            let is_old = stamp.saturating_sub(oldest.stamp) > time;
            let is_part = oldest.revision < self.first;
            if self.bytes <= memory.bytes && !is_old && !is_part {
                return;
            }
            self.first = oldest.revision.next();
            self.bytes -= oldest.bytes();
            self.changes.pop_front();
        }
    }

    /// What a watcher has yet to see, and up to which revision that is everything.
    ///
    /// # Errors
    /// Some of it is forgotten: the first revision that is not.
    pub(super) fn since(
        &self,
        watch: &Watch,
        after: Revision,
        now: Revision,
        memory: &Memory,
    ) -> Result<(Vec<Changed>, Revision), Revision> {
        if after.next() < self.first {
            return Err(self.first);
        }
        let limit = memory.page.min(len_usize(watch.limit.max(1).into())).max(1);
        let mut page: Vec<Changed> = Vec::new();
        let mut bytes = 0;
        let begin = self.changes.partition_point(|past| past.revision <= after);
        for past in self.changes.range(begin..) {
            let Some(changed) = past.of(watch) else { continue };
            let is_full = page.len() >= limit || bytes >= memory.page_bytes;
            // One revision stays on one page.
            if let Some(last) = page.last().map(|last| last.revision)
                && is_full
                && last != changed.revision
            {
                return Ok((page, last));
            }
            bytes += changed.key.len() + changed.value.as_ref().map_or(0, Bytes::len);
            page.push(changed);
        }
        Ok((page, now.max(after)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn memory() -> Memory {
        Memory { bytes: 1 << 20, time: Duration::from_secs(10), page: 3, page_bytes: 1 << 10 }
    }

    fn watch(partition: &'static str, from: &'static str, to: Option<&'static str>) -> Watch {
        Watch {
            partition: Bytes::from(partition),
            from: Bytes::from(from),
            to: to.map(Bytes::from),
            after: None,
            limit: 100,
            wait: false,
        }
    }

    /// Revisions 1 to 6: keys a to f, the third in another partition, the fifth a removal.
    fn history() -> History {
        let mut history = History::after(Revision(0));
        for (revision, key) in (1..).zip([b"a", b"b", b"c", b"d", b"e", b"f"]) {
            let partition: &[u8] = if revision == 3 { b"q" } else { b"p" };
            let value = (revision != 5).then_some(&b"value"[..]);
            history.push((Revision(revision), revision * 1_000_000_000), partition, key, value);
        }
        history
    }

    fn seen(history: &History, watch: &Watch, after: u64) -> Result<(Vec<u64>, u64), u64> {
        let found = history.since(watch, Revision(after), Revision(6), &memory());
        let numbers = |(page, upto): (Vec<Changed>, Revision)| {
            (page.iter().map(|changed| changed.revision.0).collect(), upto.0)
        };
        found.map(numbers).map_err(|first| first.0)
    }

    #[test]
    fn a_watcher_sees_its_range_in_order_and_page_by_page() {
        let history = history();
        let all = watch("p", "", None);
        assert_eq!(seen(&history, &all, 0), Ok((alloc::vec![1, 2, 4], 4)));
        assert_eq!(seen(&history, &all, 4), Ok((alloc::vec![5, 6], 6)));
        assert_eq!(seen(&history, &all, 6), Ok((alloc::vec![], 6)));
        assert_eq!(seen(&history, &watch("p", "b", Some("e")), 0), Ok((alloc::vec![2, 4], 6)));
        assert_eq!(seen(&history, &watch("q", "", None), 0), Ok((alloc::vec![3], 6)));
        assert_eq!(seen(&history, &watch("r", "", None), 0), Ok((alloc::vec![], 6)));
        let (page, _) = history.since(&all, Revision(4), Revision(6), &memory()).unwrap();
        assert_eq!((&page[0].key[..], &page[0].value), (&b"e"[..], &None));
        assert_eq!(page[1].value.as_deref(), Some(&b"value"[..]));
    }

    #[test]
    fn one_revision_stays_on_one_page_and_is_forgotten_as_one() {
        let mut history = History::after(Revision(6));
        for key in 0..9 {
            history.push((Revision(7), 0), b"p", &[key], Some(b"v"));
        }
        history.push((Revision(8), 0), b"p", b"k", Some(b"v"));
        let all = watch("p", "", None);
        let (page, upto) = history.since(&all, Revision(6), Revision(8), &memory()).unwrap();
        assert_eq!((page.len(), upto), (9, Revision(7)));
        let few = Memory { bytes: history.bytes - 1, ..memory() };
        history.forget(&few, 0);
        assert_eq!(history.changes.len(), 1, "all of revision 7 is gone");
        assert_eq!(history.since(&all, Revision(6), Revision(8), &memory()), Err(Revision(8)));
        assert_eq!(history.since(&all, Revision(7), Revision(8), &memory()).unwrap().0.len(), 1);
    }

    #[test]
    fn what_is_too_old_is_forgotten() {
        let mut history = history();
        history.forget(&memory(), 12_500_000_000);
        assert_eq!(seen(&history, &watch("p", "", None), 1), Err(3));
        assert_eq!(seen(&history, &watch("p", "", None), 2), Ok((alloc::vec![4, 5, 6], 6)));
        history.forget(&memory(), u64::MAX);
        assert_eq!((history.bytes, history.first), (0, Revision(7)));
        assert_eq!(seen(&history, &watch("p", "", None), 6), Ok((alloc::vec![], 6)));
    }
}
