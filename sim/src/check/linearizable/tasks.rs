//! Operations of one partition as the search sees them: what a key must be when an operation takes
//! effect, and what it is then.

use std::collections::HashMap;

use crate::history::{Done, Key, Op, Operation, Outcome, Value};

/// Absent, as a value.
pub(super) const ABSENT: u32 = 0;
/// A revision that nobody saw.
pub(super) const UNSEEN: u64 = 0;
/// The end of time: an operation without an answer.
pub(super) const NEVER: u64 = u64::MAX;

/// One operation.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// Where the operation stands in the list of operations.
    pub(super) operation: usize,
    /// Cannot take effect before this event...
    pub(super) invoked: u64,
    /// ... nor after this one.
    pub(super) deadline: u64,
    /// It did take effect.
    pub(super) mandatory: bool,
    /// What must be so just before.
    pub(super) wants: Vec<(usize, Want)>,
    /// What becomes so; sorted by key, each key once.
    pub(super) writes: Vec<(usize, u32)>,
    /// The revision of the change, once known.
    pub(super) revision: u64,
    /// A scan's snapshot holds all changes up to this revision and none above.
    pub(super) snapshot: Option<u64>,
}

/// What an operation saw of one key, or needs of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Want {
    /// This value (or [`ABSENT`]).
    Is(u32),
    /// Any other value, or absence.
    IsNot(u32),
    /// Some value.
    Present,
    /// The value that this revision wrote.
    Revision(u64),
    /// Not the value that this revision wrote.
    NotRevision(u64),
    /// A value whose revision no operation is known to have had.
    Unseen,
}

/// How much of an operation to believe; less than all of it never makes a good history bad.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Belief {
    /// As recorded.
    Whole,
    /// As if its answer had been lost.
    Unanswered,
    /// As if it had never been asked (reads, and what was asked after the end of a prefix).
    Nothing,
}

/// Names of a partition's keys and values.
#[derive(Debug, Default)]
pub(super) struct Names {
    keys: HashMap<Key, usize>,
    sorted: Vec<(Key, usize)>,
    values: HashMap<Value, u32>,
}

impl Names {
    /// Numbers every key that the operations name.
    pub(super) fn of(operations: &[Operation<'_>]) -> Self {
        let mut names = Self::default();
        for operation in operations {
            each_key(operation, |key| {
                let next = names.keys.len();
                let number = *names.keys.entry(key.clone()).or_insert(next);
                if number == next {
                    names.sorted.push((key.clone(), number));
                }
            });
        }
        names.sorted.sort();
        names
    }

    pub(super) fn len(&self) -> usize {
        self.sorted.len()
    }

    pub(super) fn key(&self, number: usize) -> String {
        let named = self.sorted.iter().find(|(_, at)| *at == number);
        named.map_or_else(String::new, |(key, _)| key.to_string())
    }

    pub(super) fn value(&self, number: u32) -> String {
        if number == ABSENT {
            return "absent".to_owned();
        }
        let all = self.values.iter();
        let mut named = all.filter(|(_, at)| **at == number);
        named.next().map_or_else(String::new, |(v, _)| v.to_string())
    }

    fn number(&self, key: &Key) -> usize {
        self.keys[key]
    }

    fn intern(&mut self, value: &Value) -> u32 {
        let next = u32::try_from(self.values.len() + 1).expect("a run has fewer values");
        *self.values.entry(value.clone()).or_insert(next)
    }

    fn intern_option(&mut self, value: Option<&Value>) -> u32 {
        value.map_or(ABSENT, |value| self.intern(value))
    }

    /// The task of an operation; none when it says nothing.
    pub(super) fn task(
        &mut self,
        at: usize,
        operation: &Operation<'_>,
        belief: Belief,
    ) -> Option<Task> {
        let done = match (operation.outcome, belief) {
            (Outcome::Fail, _) | (_, Belief::Nothing) => return None,
            (Outcome::Ok(done), Belief::Whole) => Some(done),
            (Outcome::Ok(_) | Outcome::Info, _) => None,
        };
        let mut task = Task {
            operation: at,
            invoked: operation.invoked,
            deadline: match done {
                Some(_) => operation.completed.unwrap_or(NEVER),
                None => NEVER,
            },
            mandatory: done.is_some(),
            wants: Vec::new(),
            writes: Vec::new(),
            revision: UNSEEN,
            snapshot: None,
        };
        match operation.op {
            Op::Put { key, value } => {
                task.writes.push((self.number(key), self.intern(value)));
                task.revision = revision_of(done);
            }
            Op::Batch { changes } => {
                for (key, value) in changes {
                    let key = self.number(key);
                    task.writes.retain(|(other, _)| *other != key);
                    let value = self.intern_option(value.as_ref());
                    task.writes.push((key, value));
                }
                task.writes.sort_unstable();
                task.revision = revision_of(done);
            }
            Op::Delete { key } => self.delete(&mut task, key, done),
            Op::Cas { key, old, new } => {
                let old = self.intern_option(old.as_ref());
                let wants = (Want::Is(old), Want::IsNot(old));
                self.compare(&mut task, key, wants, new.as_ref(), done);
            }
            Op::CasRev { key, revision, new } => {
                let wants = match *revision {
                    0 => (Want::Is(ABSENT), Want::Present),
                    r => (Want::Revision(r), Want::NotRevision(r)),
                };
                self.compare(&mut task, key, wants, new.as_ref(), done);
            }
            Op::Get { key, .. } => {
                let Some(Done::Value(found)) = done else {
                    return None;
                };
                let key = self.number(key);
                let (value, revision) = match found {
                    Some((value, revision)) => (self.intern(value), *revision),
                    None => (ABSENT, None),
                };
                see(&mut task, key, value, revision);
            }
            Op::Scan { .. } => self.scan(&mut task, operation.op, done?),
            Op::Other { .. } => return None,
        }
        Some(task)
    }

    fn delete(&self, task: &mut Task, key: &Key, done: Option<&Done>) {
        let key = self.number(key);
        let Some(Done::Deleted { existed, revision }) = done else {
            task.writes.push((key, ABSENT));
            return;
        };
        match existed {
            // Nothing changed: the revision is that of some change before.
            Some(false) => task.wants.push((key, Want::Is(ABSENT))),
            Some(true) => {
                task.wants.push((key, Want::Present));
                task.writes.push((key, ABSENT));
                task.revision = revision.unwrap_or(UNSEEN);
            }
            None => task.writes.push((key, ABSENT)),
        }
    }

    fn compare(
        &mut self,
        task: &mut Task,
        key: &Key,
        (same, other): (Want, Want),
        new: Option<&Value>,
        done: Option<&Done>,
    ) {
        let key = self.number(key);
        let new = self.intern_option(new);
        let (swapped, revision) = match done {
            Some(Done::Compared { swapped, revision }) => (*swapped, *revision),
            _ => (true, None),
        };
        if swapped {
            task.wants.push((key, same));
            task.writes.push((key, new));
            task.revision = revision.unwrap_or(UNSEEN);
            return;
        }
        task.wants.push((key, other));
        match revision {
            Some(0) => task.wants.push((key, Want::Is(ABSENT))),
            Some(revision) => task.wants.push((key, Want::Revision(revision))),
            None => {}
        }
    }

    fn scan(&mut self, task: &mut Task, op: &Op, done: &Done) {
        let (Op::Scan { from, to, reverse, .. }, Done::Page { items, more, revision }) = (op, done)
        else {
            return;
        };
        let mut found: HashMap<usize, (u32, Option<u64>)> = HashMap::new();
        for (key, value, revision) in items {
            let seen = (self.intern(value), *revision);
            found.insert(self.number(key), seen);
        }
        task.snapshot = *revision;
        // What the answer speaks of: the range, up to the last item if more was to come.
        let last = items.last().map(|(key, _, _)| key);
        let covered = |key: &Key| {
            let seen_part = match (more, last) {
                (false, _) => true,
                (true, None) => false,
                (true, Some(last)) => (*reverse && key >= last) || (!*reverse && key <= last),
            };
            seen_part && key >= from && to.as_ref().is_none_or(|to| key < to)
        };
        for (key, number) in &self.sorted {
            let seen = found.get(number).copied();
            if seen.is_none() && !covered(key) {
                continue;
            }
            let (value, revision) = seen.unwrap_or((ABSENT, None));
            see(task, *number, value, revision);
        }
    }
}

fn see(task: &mut Task, key: usize, value: u32, revision: Option<u64>) {
    task.wants.push((key, Want::Is(value)));
    task.wants.extend(revision.map(|revision| match revision {
        // No value has revision 0: it says that the key is absent.
        0 => (key, Want::Is(ABSENT)),
        revision => (key, Want::Revision(revision)),
    }));
}

fn revision_of(done: Option<&Done>) -> u64 {
    match done {
        Some(Done::Written { revision }) => revision.unwrap_or(UNSEEN),
        _ => UNSEEN,
    }
}

fn each_key(operation: &Operation<'_>, mut see: impl FnMut(&Key)) {
    match operation.op {
        Op::Put { key, .. }
        | Op::Get { key, .. }
        | Op::Delete { key }
        | Op::Cas { key, .. }
        | Op::CasRev { key, .. } => see(key),
        Op::Batch { changes } => changes.iter().for_each(|(key, _)| see(key)),
        Op::Scan { .. } => {
            if let Outcome::Ok(Done::Page { items, .. }) = operation.outcome {
                items.iter().for_each(|(key, _, _)| see(key));
            }
        }
        Op::Other { .. } => {}
    }
}
