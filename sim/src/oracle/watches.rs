//! Watches: what they tell is exactly what was committed (check WATCH).
//!
//! A *known change* is one that a client was told of, that somebody read, or that some watch has told: a key had this
//! value at this revision. What a watch has *covered* are the revisions between the one it asked after and the one that
//! it was told everything up to.
//!
//! 1. Who begins to watch begins behind everything that was known when it asked.
//! 2. Each answer goes on where the last one ended: its changes lie behind what was covered, rise, each key once in a
//!    revision, and lie in the watch's range.
//! 3. Equal revision and key: equal value, for all who watch, read and write; and somebody wrote that value to that key.
//! 4. Every known change in the range at a covered revision was told: nothing is left out.
//! 5. Who is told that changes are forgotten had asked for such; when all is well nobody who has seen everything is.
//! 6. When all is well every watch covers everything that is known, in bounded time (asked by the run).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use super::Oracle;
use crate::history::{Done, Key, Op, Value};

/// A watch of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WatchId(usize);

/// All watches of a run, and what is known of what they watch.
#[derive(Debug, Default)]
pub(super) struct Watches {
    all: Vec<Watch>,
    /// By partition, revision and key.
    known: BTreeMap<String, BTreeMap<(u64, Key), Option<Value>>>,
    /// What clients have tried to write.
    written: BTreeSet<(Key, Value)>,
    told: u64,
    compacted: u64,
}

#[derive(Debug)]
struct Watch {
    from: Key,
    to: Option<Key>,
    covered: Vec<RangeInclusive<u64>>,
    told: BTreeSet<(u64, Key)>,
    /// It has covered everything up to there since it began anew.
    upto: Option<u64>,
    /// There was nothing more to tell then, and all was well.
    well: bool,
}

impl Watch {
    fn is_for(&self, key: &Key) -> bool {
        key.partition() == self.from.partition()
            && *key >= self.from
            && self.to.as_ref().is_none_or(|to| key < to)
    }

    fn has_covered(&self, revision: u64) -> bool {
        self.covered.iter().any(|range| range.contains(&revision))
    }
}

impl Oracle {
    /// Somebody begins to watch a range.
    pub fn on_watch_begun(&mut self, from: Key, to: Option<Key>) -> WatchId {
        let watch =
            Watch { from, to, covered: Vec::new(), told: BTreeSet::new(), upto: None, well: false };
        self.watches.all.push(watch);
        WatchId(self.watches.all.len() - 1)
    }

    /// The last revision at which something is known to have changed in the partition of a watch.
    #[must_use]
    pub fn known_to_watch(&self, watch: WatchId) -> u64 {
        let known = self.watches.known.get(self.watches.all[watch.0].from.partition());
        let last = known.and_then(|known| known.last_key_value());
        last.map_or(0, |((revision, _), _)| *revision)
    }

    /// A watch begins (anew) behind this revision; that much was known when it asked.
    pub fn on_watch_set(&mut self, watch: WatchId, after: u64, known: u64) {
        let facts = &mut self.watches.all[watch.0];
        facts.upto = Some(after);
        if after < known {
            let problem = format!("{} begins at {after}, and {known} was known", facts.name());
            self.fail("WATCH", problem);
        }
    }

    /// A client is about to do something.
    pub fn on_writing(&mut self, op: &Op) {
        let written = &mut self.watches.written;
        match op {
            Op::Put { key, value } => {
                written.insert((key.clone(), value.clone()));
            }
            Op::Cas { key, new, .. } | Op::CasRev { key, new, .. } => {
                written.extend(new.clone().map(|value| (key.clone(), value)));
            }
            Op::Batch { changes } => {
                let changes = changes.iter();
                written.extend(changes.filter_map(|(key, new)| Some((key.clone(), new.clone()?))));
            }
            Op::Get { .. } | Op::Delete { .. } | Op::Scan { .. } | Op::Other { .. } => {}
        }
    }

    /// A client was answered.
    pub fn on_done_for_watches(&mut self, op: &Op, done: &Done) {
        match (op, done) {
            (Op::Put { key, value }, Done::Written { revision: Some(revision) }) => {
                self.learn(*revision, key, Some(value));
            }
            (Op::Batch { changes }, Done::Written { revision: Some(revision) }) => {
                for (key, value) in changes {
                    if let Some(value) = value {
                        self.learn(*revision, key, Some(value));
                    }
                }
            }
            (
                Op::Delete { key },
                Done::Deleted { existed: Some(true), revision: Some(revision) },
            ) => self.learn(*revision, key, None),
            (
                Op::Cas { key, new: Some(new), .. } | Op::CasRev { key, new: Some(new), .. },
                Done::Compared { swapped: true, revision: Some(revision) },
            ) => self.learn(*revision, key, Some(new)),
            (Op::Get { key, .. }, Done::Value(Some((value, Some(revision))))) => {
                self.learn(*revision, key, Some(value));
            }
            (Op::Scan { .. }, Done::Page { items, .. }) => {
                for (key, value, revision) in items {
                    if let Some(revision) = revision {
                        self.learn(*revision, key, Some(value));
                    }
                }
            }
            _ => {}
        }
    }

    /// A key had this value, or none, from this revision on.
    fn learn(&mut self, revision: u64, key: &Key, value: Option<&Value>) {
        let place = (revision, key.clone());
        let known = self.watches.known.entry(key.partition().to_owned()).or_default();
        if let Some(before) = known.get(&place) {
            if before.as_ref() != value {
                let problem = format!("{key} is {before:?} and {value:?} at {revision}");
                self.fail("WATCH", problem);
            }
            return;
        }
        known.insert(place.clone(), value.cloned());
        let mut all = self.watches.all.iter();
        let left_out = all.find(|watch| {
            watch.is_for(key) && watch.has_covered(revision) && !watch.told.contains(&place)
        });
        if let Some(watch) = left_out {
            let problem = format!("{key} at {revision} was not told to {}", watch.name());
            self.fail("WATCH", problem);
        }
    }

    /// A watch that had covered everything up to `after` is told of these changes, and that they are all up to `upto`.
    pub fn on_watched(
        &mut self,
        watch: WatchId,
        after: u64,
        changes: &[(u64, Key, Option<Value>)],
        upto: u64,
    ) {
        let quiet = self.is_quiet();
        let facts = &mut self.watches.all[watch.0];
        let mut least = after + 1;
        let mut problem = (facts.upto != Some(after) || upto < after)
            .then(|| format!("goes on after {after}, up to {upto}; it was at {:?}", facts.upto));
        for (revision, key, _) in changes {
            let is_told = !facts.told.insert((*revision, key.clone()));
            if is_told || *revision < least || *revision > upto || !facts.is_for(key) {
                let words = format!("is told {key} at {revision} after {after}, up to {upto}");
                problem.get_or_insert(words);
            }
            least = *revision;
        }
        facts.upto = Some(upto);
        facts.well = quiet && changes.is_empty();
        if upto > after {
            match facts.covered.last_mut().filter(|range| *range.end() == after) {
                Some(range) => *range = *range.start()..=upto,
                None => facts.covered.push(after + 1..=upto),
            }
        }
        self.watches.told += ring_core::ids::len_u64(changes.len());
        let facts = &self.watches.all[watch.0];
        let missing = self.watches.known.get(facts.from.partition()).and_then(|known| {
            let new = (after + 1, facts.from.clone())..;
            let mut new = known.range(new).take_while(|((revision, _), _)| *revision <= upto);
            new.find(|(place, _)| facts.is_for(&place.1) && !facts.told.contains(place))
        });
        if let Some(((revision, key), value)) = missing {
            problem.get_or_insert(format!("is not told {key} = {value:?} at {revision}"));
        }
        if let Some(problem) = problem {
            let problem = format!("{} {problem}", facts.name());
            self.fail("WATCH", problem);
        }
        for (revision, key, value) in changes {
            let made_up = value.as_ref().filter(|value| {
                let written = (key.clone(), (*value).clone());
                !self.watches.written.contains(&written)
            });
            if let Some(value) = made_up {
                let problem = format!("{key} = {value:?} at {revision} was written by nobody");
                self.fail("WATCH", problem);
            }
            self.learn(*revision, key, value.as_ref());
        }
    }

    /// A watch that had covered everything up to `after` is told that changes before `first` are forgotten.
    pub fn on_watch_compacted(&mut self, watch: WatchId, after: u64, first: u64) {
        let quiet = self.is_quiet();
        let facts = &mut self.watches.all[watch.0];
        let saw_all = quiet && facts.well;
        facts.upto = None;
        self.watches.compacted += 1;
        if first <= after + 1 || saw_all {
            let name = self.watches.all[watch.0].name();
            let problem = format!("{name} is at {after}, and is told that {first} is the first");
            self.fail("WATCH", problem);
        }
    }

    /// A watch that has not covered what is known of its range.
    #[must_use]
    pub fn watch_behind(&self) -> Option<String> {
        self.watches.all.iter().find_map(|watch| {
            let known = self.watches.known.get(watch.from.partition())?;
            let mut known = known.keys().rev();
            let (last, key) = known.find(|(_, key)| watch.is_for(key))?;
            let is_behind = watch.upto.is_none_or(|upto| upto < *last);
            is_behind.then(|| {
                format!("{} is at {:?}, and {key} changed at {last}", watch.name(), watch.upto)
            })
        })
    }

    /// Watches, what they told, and how often changes were forgotten.
    #[must_use]
    pub fn watches(&self) -> (u64, u64, u64) {
        let count = ring_core::ids::len_u64(self.watches.all.len());
        (count, self.watches.told, self.watches.compacted)
    }
}

impl Watch {
    fn name(&self) -> String {
        let to = self.to.as_ref().map_or("", Key::text);
        format!("the watch of {}..{to}", self.from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new("p", name)
    }

    fn put(revision: u64, name: &str, value: u64) -> (u64, Key, Option<Value>) {
        (revision, key(name), Some(Value::Number(value)))
    }

    /// A watch of a to d after revision 2, and 1, 2, 3 written to a, b, e at 3, 4, 5.
    fn watched() -> (Oracle, WatchId) {
        let mut oracle = Oracle::default();
        let watch = oracle.on_watch_begun(key("a"), Some(key("d")));
        oracle.on_watch_set(watch, 2, 0);
        for (number, name) in (1..).zip(["a", "b", "e"]) {
            let op = Op::Put { key: key(name), value: Value::Number(number) };
            oracle.on_writing(&op);
            oracle.on_done_for_watches(&op, &Done::Written { revision: Some(number + 2) });
        }
        (oracle, watch)
    }

    #[test]
    fn a_true_watch_passes() {
        let (mut oracle, watch) = watched();
        assert!(oracle.watch_behind().is_some());
        oracle.on_watched(watch, 2, &[put(3, "a", 1)], 3);
        oracle.on_watched(watch, 3, &[put(4, "b", 2)], 5);
        oracle.on_watched(watch, 5, &[], 5);
        assert_eq!(oracle.watch_behind(), None);
        oracle.on_watch_compacted(watch, 5, 9);
        oracle.on_watch_set(watch, 8, 5);
        oracle.on_watched(watch, 8, &[], 9);
        assert_eq!(oracle.violation(), None);
        assert_eq!(oracle.watches(), (1, 2, 1));
    }

    #[test]
    fn each_lie_is_noticed() {
        let lies: [fn(&mut Oracle, WatchId); 11] = [
            // It begins before what is known.
            |oracle, watch| {
                let known = oracle.known_to_watch(watch);
                oracle.on_watch_set(watch, 4, known);
            },
            // One is left out, known before or learnt later.
            |oracle, watch| oracle.on_watched(watch, 2, &[put(4, "b", 2)], 4),
            |oracle, watch| {
                oracle.on_watched(watch, 2, &[put(3, "a", 1), put(4, "b", 2)], 9);
                let done = Done::Value(Some((Value::Number(7), Some(8))));
                oracle.on_done_for_watches(&Op::Get { key: key("c"), local: false }, &done);
            },
            // Told twice, out of order, from before, from beyond, from outside.
            |oracle, watch| {
                oracle.on_watched(watch, 2, &[put(3, "a", 1), put(3, "a", 1), put(4, "b", 2)], 4);
            },
            |oracle, watch| oracle.on_watched(watch, 2, &[put(4, "b", 2), put(3, "a", 1)], 4),
            |oracle, watch| {
                oracle.on_watch_set(watch, 3, 3);
                oracle.on_watched(watch, 3, &[put(3, "a", 1), put(4, "b", 2)], 4);
            },
            |oracle, watch| oracle.on_watched(watch, 2, &[put(3, "a", 1), put(4, "b", 2)], 3),
            |oracle, watch| {
                oracle.on_watched(watch, 2, &[put(3, "a", 1), put(4, "b", 2), put(5, "e", 3)], 5);
            },
            // Another value, one that nobody wrote, a gap between two answers.
            |oracle, watch| oracle.on_watched(watch, 2, &[put(3, "a", 2), put(4, "b", 2)], 4),
            |oracle, watch| {
                oracle.on_watched(watch, 2, &[put(3, "a", 1), put(4, "b", 2), put(5, "c", 9)], 5);
            },
            |oracle, watch| oracle.on_watch_compacted(watch, 2, 3),
        ];
        for (number, lie) in lies.iter().enumerate() {
            let (mut oracle, watch) = watched();
            lie(&mut oracle, watch);
            assert!(oracle.violation().is_some(), "lie {number}");
        }
    }
}
