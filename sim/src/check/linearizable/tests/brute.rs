//! The obvious checker: tries every order of the operations, for histories of a handful.

use std::collections::BTreeMap;

use crate::history::{Done, History, Key, Op, Operation, Outcome, Value};

/// Whether some order explains a history of one partition.
pub(super) fn is_legal(history: &History) -> bool {
    let operations = history.operations();
    let mut order = Vec::new();
    extend(&operations, &mut order)
}

/// Puts one more operation after `order`, in every way.
fn extend(operations: &[Operation<'_>], order: &mut Vec<usize>) -> bool {
    if !plausible(operations, order) {
        return false;
    }
    let open = |at: usize| matches!(operations[at].outcome, Outcome::Ok(_)) && !order.contains(&at);
    let open: Vec<usize> = (0..operations.len()).filter(|&at| open(at)).collect();
    if open.is_empty() {
        return true;
    }
    for next in 0..operations.len() {
        let too_late =
            open.iter().any(|&at| operations[at].completed.expect("ok") < operations[next].invoked);
        if order.contains(&next) || too_late || operations[next].outcome == Outcome::Fail {
            continue;
        }
        order.push(next);
        if extend(operations, order) {
            return true;
        }
        order.pop();
    }
    false
}

/// A run of the model along an order.
#[derive(Default)]
struct Run {
    /// Each key's value and which change set it.
    state: BTreeMap<Key, (Value, usize)>,
    /// The revisions of the changes, as far as anybody saw them.
    changes: Vec<Option<u64>>,
    /// Change, and a revision that it did not have.
    not: Vec<(usize, u64)>,
    /// Number of changes in a snapshot, and its revision.
    snapshots: Vec<(usize, u64)>,
    wrong: bool,
}

fn plausible(operations: &[Operation<'_>], order: &[usize]) -> bool {
    let mut run = Run::default();
    for &at in order {
        let done = match operations[at].outcome {
            Outcome::Ok(done) => Some(done),
            Outcome::Fail | Outcome::Info => None,
        };
        run.step(operations[at].op, done);
    }
    run.is_right()
}

impl Run {
    fn is_right(&self) -> bool {
        let known: Vec<u64> = self.changes.iter().copied().flatten().collect();
        let rises = known.windows(2).all(|pair| pair[0] < pair[1]);
        let not = self.not.iter().all(|&(change, r)| self.changes[change] != Some(r));
        let snapshots = self.snapshots.iter().all(|&(count, revision)| {
            let (before, after) = self.changes.split_at(count);
            before.iter().flatten().all(|&r| r <= revision)
                && after.iter().flatten().all(|&r| r > revision)
        });
        !self.wrong && rises && not && snapshots
    }

    fn expect(&mut self, right: bool) {
        self.wrong |= !right;
    }

    fn change(&mut self, revision: Option<u64>) -> usize {
        self.changes.push(revision.filter(|&revision| revision > 0));
        self.changes.len() - 1
    }

    fn set(&mut self, key: &Key, value: Option<&Value>, change: usize) {
        match value {
            Some(value) => self.state.insert(key.clone(), (value.clone(), change)),
            None => self.state.remove(key),
        };
    }

    /// Somebody saw the key at this revision; 0: absent.
    fn saw(&mut self, key: &Key, revision: u64) {
        match self.state.get(key) {
            None => self.expect(revision == 0),
            Some(&(_, change)) => {
                let known = *self.changes[change].get_or_insert(revision);
                self.expect(revision > 0 && known == revision);
            }
        }
    }

    fn step(&mut self, op: &Op, done: Option<&Done>) {
        match (op, done) {
            (Op::Put { key, value }, done) => {
                let change = self.change(written(done));
                self.set(key, Some(value), change);
            }
            (Op::Batch { changes }, done) => {
                let change = self.change(written(done));
                for (key, value) in changes {
                    self.set(key, value.as_ref(), change);
                }
            }
            (Op::Delete { key }, done) => {
                let there = self.state.contains_key(key);
                let mut own = None;
                if let Some(Done::Deleted { existed, revision }) = done {
                    self.expect(existed.is_none_or(|existed| existed == there));
                    own = revision.filter(|_| existed.is_some());
                }
                if there {
                    let change = self.change(own);
                    self.set(key, None, change);
                }
            }
            (Op::Cas { key, old, new }, done) => {
                let swaps = self.state.get(key).map(|(value, _)| value) == old.as_ref();
                self.compare(key, new.as_ref(), swaps, done);
            }
            (Op::CasRev { key, revision, new }, done) => {
                let swapped = match done {
                    Some(Done::Compared { swapped, .. }) => *swapped,
                    _ => true,
                };
                if swapped {
                    self.saw(key, *revision);
                } else if let Some(&(_, change)) = self.state.get(key) {
                    self.not.push((change, *revision));
                } else {
                    self.expect(*revision != 0);
                }
                self.compare(key, new.as_ref(), swapped, done);
            }
            (Op::Get { key, .. }, Some(Done::Value(found))) => self.found(key, found.as_ref()),
            (Op::Scan { from, to, reverse, .. }, Some(Done::Page { items, more, revision })) => {
                let inside = |key: &&Key| *key >= from && to.as_ref().is_none_or(|to| *key < to);
                let mut keys: Vec<&Key> = self.state.keys().filter(inside).collect();
                if *reverse {
                    keys.reverse();
                }
                if *more {
                    keys.truncate(items.len());
                }
                let right = keys.iter().copied().eq(items.iter().map(|(key, _, _)| key));
                self.expect(right);
                for (key, value, revision) in items {
                    self.found(key, Some(&(value.clone(), *revision)));
                }
                let count = self.changes.len();
                self.snapshots.extend(revision.map(|revision| (count, revision)));
            }
            (Op::Get { .. } | Op::Scan { .. } | Op::Other { .. }, _) => {}
        }
    }

    fn compare(&mut self, key: &Key, new: Option<&Value>, swaps: bool, done: Option<&Done>) {
        let (told, revision) = match done {
            Some(Done::Compared { swapped, revision }) => (*swapped, *revision),
            _ => (swaps, None),
        };
        self.expect(told == swaps);
        if swaps {
            let change = self.change(revision);
            self.set(key, new, change);
        } else if let Some(revision) = revision {
            self.saw(key, revision);
        }
    }

    fn found(&mut self, key: &Key, found: Option<&(Value, Option<u64>)>) {
        let value = self.state.get(key).map(|(value, _)| value);
        let right = value == found.map(|(value, _)| value);
        self.expect(right);
        if let (true, Some((_, Some(revision)))) = (right, found) {
            self.saw(key, *revision);
        }
    }
}

fn written(done: Option<&Done>) -> Option<u64> {
    match done {
        Some(Done::Written { revision }) => *revision,
        _ => None,
    }
}
