//! The ordered store of one member: in memory, with exactly the durability that core's contract promises.
//!
//! Batches since the last sync can be undone from the end: a power cut keeps a drawn prefix of them that ends with a
//! whole one. A crash of the process does the same, since `write` need not have reached the system. A sync that the worker does not wait for is
//! done some time after it has begun; until then a cut may undo what it covers.

use std::collections::{BTreeMap, VecDeque};
use std::mem;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use ring_core::ids::{len_u64, len_usize};
use ring_core::rng::Rng;
use ring_core::store::{Store, StoreError, SyncNumber, View, WriteBatch};

use crate::lock;

type Map = BTreeMap<Bytes, Bytes>;

/// A handle to a member's store; its content outlives the process that holds handles.
#[derive(Clone, Debug, Default)]
pub struct SimStore {
    content: Arc<Mutex<Content>>,
}

/// A view that later writes do not change.
#[derive(Clone, Debug)]
pub struct SimSnapshot {
    map: Arc<Map>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    map: Arc<Map>,
    /// The batches since the last sync, oldest first.
    unsynced: Vec<Undo>,
    /// Batches written so far: draws when a whole one is wanted.
    written: u64,
    syncing: VecDeque<Syncing>,
    /// Syncs begun, and the last of them that is done.
    begun: SyncNumber,
    done: SyncNumber,
    write_fails: bool,
    sync_fails: bool,
    reads_fail: bool,
    syncs: u64,
}

/// What undoes a batch.
#[derive(Clone, Debug)]
struct Undo {
    /// What the batch replaced.
    replaced: Vec<(Bytes, Option<Bytes>)>,
    /// Whether it was a whole one.
    whole: bool,
}

/// A sync under way.
#[derive(Clone, Debug)]
struct Syncing {
    number: SyncNumber,
    /// How many of the batches in `unsynced` it covers.
    batches: usize,
    /// It is not done before it was asked for so many times more.
    asks: u64,
}

impl SimStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The process or the machine died: of the batches since the last sync some prefix survives that ends with a
    /// whole one.
    pub fn cut(&self, rng: &mut Rng) {
        let content = &mut *lock(&self.content);
        let batches = content.unsynced.iter().zip(1..);
        let mut ends = vec![0];
        ends.extend(batches.filter(|(batch, _)| batch.whole).map(|(_, end)| end));
        let last = ends.len() - 1;
        let kept = match rng.below(4) {
            0 => 0,
            1 => last,
            _ => len_usize(rng.below(len_u64(last) + 1)),
        };
        content.undo_after(ends[kept]);
        content.unsynced.clear();
        content.syncing.clear();
        content.mend();
    }

    /// A handle for a new process. What the last one wrote after its last whole batch was in its memory only.
    #[must_use]
    pub fn open(&self) -> Self {
        lock(&self.content).drop_loose();
        self.clone()
    }

    /// Everything is gone.
    pub fn wipe(&self) {
        *lock(&self.content) = Content::default();
    }

    /// A copy, for a disk that is rolled back to it later.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self { content: Arc::new(Mutex::new(lock(&self.content).clone())) }
    }

    /// Puts an earlier state in place of this one, durable and whole.
    pub fn roll_back(&self, earlier: &Self) {
        let mut content = lock(&earlier.content).clone();
        content.drop_loose();
        content.unsynced.clear();
        content.syncing.clear();
        content.mend();
        *lock(&self.content) = content;
    }

    /// The next write fails.
    pub fn fail_next_write(&self) {
        lock(&self.content).write_fails = true;
    }

    /// The next sync fails.
    pub fn fail_next_sync(&self) {
        lock(&self.content).sync_fails = true;
    }

    /// Reads fail, until the store is cut.
    pub fn fail_reads(&self) {
        lock(&self.content).reads_fail = true;
    }

    /// Whatever was to fail does not.
    pub fn mend(&self) {
        lock(&self.content).mend();
    }

    /// How many syncs have succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        lock(&self.content).syncs
    }

    fn readable(&self) -> Result<Arc<Map>, StoreError> {
        let content = lock(&self.content);
        if content.reads_fail {
            return Err(StoreError(String::from("read failed: I/O error")));
        }
        Ok(Arc::clone(&content.map))
    }
}

impl Content {
    /// Undoes all batches but the first `kept`.
    fn undo_after(&mut self, kept: usize) {
        let map = Arc::make_mut(&mut self.map);
        for batch in self.unsynced.drain(kept..).rev() {
            for (key, old) in batch.replaced.into_iter().rev() {
                match old {
                    Some(value) => map.insert(key, value),
                    None => map.remove(&key),
                };
            }
        }
    }

    /// Undoes what follows the last whole batch.
    fn drop_loose(&mut self) {
        let end = self.unsynced.iter().rposition(|batch| batch.whole).map_or(0, |last| last + 1);
        self.undo_after(end);
    }

    /// A sync covers whole states only.
    fn expect_whole(&self) {
        let whole = self.unsynced.last().is_none_or(|batch| batch.whole);
        assert!(whole, "a sync follows a whole batch");
    }

    fn mend(&mut self) {
        self.write_fails = false;
        self.sync_fails = false;
        self.reads_fail = false;
    }
}

impl View for SimStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let content = lock(&self.content);
        if content.reads_fail {
            return Err(StoreError(String::from("read failed: I/O error")));
        }
        Ok(content.map.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let map = self.readable()?;
        scan(&map, from, to, reverse, visit);
        Ok(())
    }
}

impl View for SimSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.map.get(key).cloned())
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        scan(&self.map, from, to, reverse, visit);
        Ok(())
    }
}

impl Store for SimStore {
    type Snapshot = SimSnapshot;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        let content = &mut *lock(&self.content);
        if mem::take(&mut content.write_fails) {
            return Err(StoreError(String::from("write failed: I/O error")));
        }
        let map = Arc::make_mut(&mut content.map);
        let replaced = batch
            .writes
            .into_iter()
            .map(|(key, value)| match value {
                Some(value) => {
                    let old = map.insert(key.clone(), value);
                    (key, old)
                }
                None => {
                    let old = map.remove(&key);
                    (key, old)
                }
            })
            .collect();
        content.unsynced.push(Undo { replaced, whole: batch.whole });
        content.written += 1;
        Ok(())
    }

    /// Now and then: what is written meanwhile is lost together.
    fn wants_whole(&self) -> bool {
        Rng::new(lock(&self.content).written).chance(1, 4)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let content = &mut *lock(&self.content);
        if mem::take(&mut content.sync_fails) {
            return Err(StoreError(String::from("sync failed: I/O error")));
        }
        content.expect_whole();
        content.unsynced.clear();
        content.syncing.clear();
        content.done = content.begun;
        content.syncs += 1;
        Ok(())
    }

    fn start_sync(&mut self) -> Result<SyncNumber, StoreError> {
        let content = &mut *lock(&self.content);
        content.expect_whole();
        content.begun.0 += 1;
        let number = content.begun;
        let asks = Rng::new(number.0).below(4);
        let batches = content.unsynced.len();
        content.syncing.push_back(Syncing { number, batches, asks });
        Ok(number)
    }

    fn synced(&mut self) -> Result<SyncNumber, StoreError> {
        let content = &mut *lock(&self.content);
        let Some(first) = content.syncing.front_mut() else {
            return Ok(content.done);
        };
        if first.asks > 0 {
            first.asks -= 1;
            return Ok(content.done);
        }
        if mem::take(&mut content.sync_fails) {
            return Err(StoreError(String::from("sync failed: I/O error")));
        }
        let batches = first.batches;
        content.done = first.number;
        content.syncing.pop_front();
        content.unsynced.drain(..batches);
        for later in &mut content.syncing {
            later.batches -= batches;
        }
        content.syncs += 1;
        Ok(content.done)
    }

    fn snapshot(&self) -> SimSnapshot {
        SimSnapshot { map: Arc::clone(&lock(&self.content).map) }
    }
}

fn scan(
    map: &Map,
    from: &[u8],
    to: &[u8],
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) {
    if from >= to {
        return;
    }
    let mut range =
        map.range::<[u8], _>((std::ops::Bound::Included(from), std::ops::Bound::Excluded(to)));
    if reverse {
        let _ = range.rev().all(|(key, value)| visit(key, value));
    } else {
        let _ = range.all(|(key, value)| visit(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(writes: &[(&'static str, Option<&'static str>)]) -> WriteBatch {
        let bytes = |s: &'static str| Bytes::from_static(s.as_bytes());
        WriteBatch {
            writes: writes.iter().map(|(k, v)| (bytes(k), v.map(bytes))).collect(),
            whole: true,
        }
    }

    fn all(view: &impl View) -> Vec<(Vec<u8>, Vec<u8>)> {
        let mut found = Vec::new();
        view.scan(b"", b"~", false, &mut |k, v| {
            found.push((k.to_vec(), v.to_vec()));
            true
        })
        .unwrap();
        found
    }

    /// A cut leaves the state after some number of batches, never fewer than were synced, and every such number.
    #[test]
    fn a_cut_leaves_a_prefix_that_holds_the_last_sync() {
        let writes: [&[(&str, Option<&str>)]; 5] = [
            &[("a", Some("1")), ("b", Some("1"))],
            &[("a", None), ("c", Some("2"))],
            &[("b", Some("3")), ("b", None)],
            &[("a", Some("4")), ("a", Some("5"))],
            &[("c", None)],
        ];
        let mut states = Vec::new();
        let mut store = SimStore::new();
        for writes in writes {
            store.write(batch(writes)).unwrap();
            states.push(all(&store));
        }

        let mut seen = [0; 5];
        for seed in 0..100 {
            let mut store = SimStore::new();
            for (n, writes) in writes.iter().enumerate() {
                store.write(batch(writes)).unwrap();
                if n == 1 {
                    store.sync().unwrap();
                }
            }
            store.cut(&mut Rng::new(seed));
            let left = all(&store);
            let n = states.iter().position(|s| *s == left).unwrap();
            seen[n] += 1;
        }
        assert_eq!(seen[0], 0, "the second batch was synced");
        assert!(seen[1..].iter().all(|n| *n > 3), "{seen:?}");
    }

    /// A sync that was begun covers what was written before it, and only once it is done.
    #[test]
    fn a_sync_under_way_promises_nothing_yet() {
        let keys = ["a", "b", "c", "d", "e", "f"];
        let mut lost = 0;
        for seed in 0..40 {
            let mut store = SimStore::new();
            let mut under_way = keys.into_iter().filter_map(|key| {
                store.write(batch(&[(key, Some("1"))])).unwrap();
                let number = store.start_sync().unwrap();
                (store.synced().unwrap() < number).then_some((key, number))
            });
            let (key, number) = under_way.next().expect("not every sync is done at once");
            let mut early = store.copy();
            early.cut(&mut Rng::new(seed));
            lost += u32::from(early.get(key.as_bytes()).unwrap().is_none());
            early.synced().unwrap();

            store.write(batch(&[("later", Some("1"))])).unwrap();
            while store.synced().unwrap() < number {}
            store.cut(&mut Rng::new(seed));
            assert_eq!(store.get(key.as_bytes()).unwrap().unwrap(), "1");
        }
        assert!(lost > 3, "a cut may come before the sync is done");
    }

    #[test]
    fn a_snapshot_stays_as_it_was() {
        let mut store = SimStore::new();
        store.write(batch(&[("a", Some("1"))])).unwrap();
        let snapshot = store.snapshot();
        store.write(batch(&[("a", Some("2")), ("b", Some("2"))])).unwrap();
        assert_eq!(snapshot.get(b"a").unwrap().unwrap(), "1");
        assert_eq!(snapshot.get(b"b").unwrap(), None);
        assert_eq!(store.get(b"a").unwrap().unwrap(), "2");
    }

    #[test]
    fn scans_stop_and_turn_round() {
        let mut store = SimStore::new();
        let writes = [("a", Some("1")), ("b", Some("2")), ("c", Some("3"))];
        store.write(batch(&writes)).unwrap();
        let mut seen = Vec::new();
        store
            .scan(b"a", b"c", true, &mut |k, _| {
                seen.push(k.to_vec());
                true
            })
            .unwrap();
        assert_eq!(seen, [b"b".to_vec(), b"a".to_vec()]);
        let mut first = Vec::new();
        store
            .scan(b"b", b"z", false, &mut |k, _| {
                first.push(k.to_vec());
                false
            })
            .unwrap();
        assert_eq!(first, [b"b".to_vec()]);
        store.scan(b"z", b"a", false, &mut |_, _| panic!("empty range")).unwrap();
    }

    #[test]
    fn faults_show_once_and_change_nothing() {
        let mut store = SimStore::new();
        store.fail_next_write();
        assert!(store.write(batch(&[("a", Some("1"))])).is_err());
        assert!(all(&store).is_empty());
        store.write(batch(&[("a", Some("1"))])).unwrap();
        store.fail_next_sync();
        assert!(store.sync().is_err());
        store.fail_reads();
        assert!(store.get(b"a").is_err());
        store.cut(&mut Rng::new(1));
        assert!(store.get(b"a").is_ok());
    }

    #[test]
    fn a_copy_can_be_brought_back() {
        let mut store = SimStore::new();
        store.write(batch(&[("a", Some("1"))])).unwrap();
        let earlier = store.copy();
        store.write(batch(&[("a", Some("2"))])).unwrap();
        store.roll_back(&earlier);
        store.cut(&mut Rng::new(0));
        assert_eq!(store.get(b"a").unwrap().unwrap(), "1");
        store.wipe();
        assert!(all(&store).is_empty());
    }
}
