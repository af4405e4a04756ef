//! A store that lives in memory: for members without a directory, and for tests.

use bytes::Bytes;

use super::{Map, Store, StoreError, View, WriteBatch};

/// An ordered map in memory. Nothing fails and nothing is durable: `sync` has nothing to do.
///
/// A snapshot shares the map; later writes copy what they change of it.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    map: Map<Bytes>,
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// How many keys it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// True when it holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.map.is_empty()
    }
}

impl View for MemoryStore {
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
        for (key, value) in self.map.range(from, to, reverse) {
            if !visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    type Snapshot = Self;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        let copy = |bytes: Bytes| Bytes::copy_from_slice(&bytes); // what it was written with may go
        for (key, value) in batch.writes {
            match value {
                Some(value) => self.map.insert(copy(key), copy(value)),
                None => self.map.remove(&key),
            };
        }
        Ok(())
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn snapshot(&self) -> Self {
        self.clone()
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    fn batch(writes: &[(&'static str, Option<&'static str>)]) -> WriteBatch {
        let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
        WriteBatch {
            writes: writes.iter().map(|(key, value)| (bytes(key), value.map(bytes))).collect(),
            whole: true,
        }
    }

    fn keys(view: &impl View, from: &str, to: &str, reverse: bool) -> Vec<Bytes> {
        let mut keys = Vec::new();
        view.scan(from.as_bytes(), to.as_bytes(), reverse, &mut |key, _| {
            keys.push(Bytes::copy_from_slice(key));
            true
        })
        .expect("memory does not fail");
        keys
    }

    #[test]
    fn later_writes_of_a_batch_win() {
        let mut store = MemoryStore::new();
        store
            .write(batch(&[("a", Some("1")), ("a", Some("2")), ("b", Some("3")), ("b", None)]))
            .expect("memory does not fail");

        assert_eq!(store.get(b"a"), Ok(Some(Bytes::from_static(b"2"))));
        assert_eq!(store.get(b"b"), Ok(None));
        assert_eq!(store.len(), 1);
    }

    #[test]
    fn a_range_is_half_open_both_ways_and_may_be_empty_or_upside_down() {
        let mut store = MemoryStore::new();
        store
            .write(batch(&[("a", Some("")), ("b", Some("")), ("c", Some(""))]))
            .expect("memory does not fail");

        assert_eq!(keys(&store, "a", "c", false), vec!["a", "b"]);
        assert_eq!(keys(&store, "a", "c", true), vec!["b", "a"]);
        assert_eq!(keys(&store, "b", "b", false), Vec::<Bytes>::new());
        assert_eq!(keys(&store, "c", "a", true), Vec::<Bytes>::new());
    }

    #[test]
    fn a_snapshot_does_not_see_later_writes() {
        let mut store = MemoryStore::new();
        store.write(batch(&[("a", Some("1"))])).expect("memory does not fail");
        let snapshot = store.snapshot();
        store.write(batch(&[("a", None), ("b", Some("2"))])).expect("memory does not fail");

        assert_eq!(keys(&snapshot, "a", "z", false), vec!["a"]);
        assert_eq!(keys(&store, "a", "z", false), vec!["b"]);
    }
}
