//! A bounded number of things kept for others: the one that nobody has asked for longest gives way.

use alloc::collections::BTreeMap;

/// At most `max` values, by key.
#[derive(Clone, Debug)]
pub(super) struct Kept<K, V> {
    max: usize,
    /// Counts uses.
    clock: u64,
    /// With the number of its last use.
    items: BTreeMap<K, (u64, V)>,
}

impl<K: Ord + Copy, V> Kept<K, V> {
    pub(super) fn new(max: usize) -> Self {
        Self { max, clock: 0, items: BTreeMap::new() }
    }

    /// Keeps a value, in place of another under the same key.
    pub(super) fn insert(&mut self, key: K, value: V) {
        self.items.remove(&key);
        while !self.items.is_empty() && self.items.len() >= self.max {
            let oldest = self.items.iter().min_by_key(|(_, (used, _))| *used);
            let (key, _) = oldest.expect("it is not empty");
            let key = *key;
            self.items.remove(&key);
        }
        self.clock += 1;
        self.items.insert(key, (self.clock, value));
    }

    pub(super) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (used, value) = self.items.get_mut(&key)?;
        self.clock += 1;
        *used = self.clock;
        Some(value)
    }

    /// Takes a value out if it is as wanted.
    pub(super) fn take_if(&mut self, key: K, is_wanted: impl Fn(&V) -> bool) -> Option<V> {
        let (_, value) = self.items.get(&key)?;
        if !is_wanted(value) {
            return None;
        }
        self.items.remove(&key).map(|(_, value)| value)
    }

    pub(super) fn remove(&mut self, key: K) {
        self.items.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_unused_for_longest_gives_way() {
        let mut kept = Kept::new(2);
        kept.insert(1, "a");
        kept.insert(2, "b");
        kept.get_mut(1);
        kept.insert(3, "c");

        assert_eq!(kept.get_mut(2), None);
        assert_eq!(kept.get_mut(1), Some(&mut "a"));
        assert_eq!(kept.get_mut(3), Some(&mut "c"));
        kept.insert(3, "d");
        assert_eq!(kept.get_mut(1), Some(&mut "a"), "replacing makes nobody leave");
    }
}
