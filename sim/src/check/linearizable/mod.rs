//! Is there one order of all operations that explains every answer and respects real time?
//!
//! Linearizability is local (Herlihy and Wing, 1990, theorem 1), so partitions are judged one by
//! one, and within a partition, keys that no batch or scan ties together. [`deduce`] finds what
//! must hold in every order, above all which unknown writes took effect and the order of revisions;
//! [`search`] looks for an order. A violation is then reduced: to the shortest prefix that is
//! already wrong (prefixes of legal histories are legal), to one or two keys, and to few operations
//! (a history stays legal when reads are left out and answers of writes forgotten).
//!
//! # What an order must explain
//! Values, absence, results of compare-and-set, scans as one snapshot, batches as one change; and
//! revisions: each change of a partition has its own, they rise along the order, a value is always
//! seen at the revision of its write, a scan's snapshot lies between two changes.
//!
//! # Limits
//! - Effort is bounded ([`Linearizable::budget`]); past it keys are judged one by one and in pairs,
//!   and if these are fine the verdict is [`Verdict::Unknown`].
//! - Numbers between revisions are not counted: an unknown write finds room between revisions 4 and
//!   5. When two unknown writes may be the one whose revision a failed compare-and-set saw, any of
//!   them will do, at any place.
//! - What shards tie together (partitions of one shard share revisions) is not judged.

use std::collections::BTreeMap;

use super::{Checker, Verdict, Violation};
use crate::history::{History, Key, Op, Operation, Outcome};
use deduce::{Conflict, deduce};
use search::{Found, Stuck, search};
use tasks::{Belief, Names, Task, UNSEEN};

mod deduce;
mod search;
mod tasks;

/// The checker of linearizability.
#[derive(Clone, Copy, Debug)]
pub struct Linearizable {
    /// Most steps (writes placed) of one search.
    pub budget: u64,
}

impl Default for Linearizable {
    fn default() -> Self {
        Self { budget: 200_000 }
    }
}

impl Checker for Linearizable {
    fn name(&self) -> &'static str {
        "linearizable"
    }

    fn check(&self, history: &History) -> Verdict {
        let mut unknown = Vec::new();
        for (partition, operations) in partitions(history) {
            match self.judge_operations(&operations) {
                Verdict::Ok => {}
                Verdict::Unknown { why } => unknown.push(format!("partition {partition:?}: {why}")),
                verdict @ Verdict::Violation(_) => return verdict,
            }
        }
        if unknown.is_empty() {
            return Verdict::Ok;
        }
        Verdict::Unknown { why: unknown.join("; ") }
    }
}

impl Linearizable {
    /// Judges operations of one partition.
    pub(super) fn judge_operations(&self, operations: &[Operation<'_>]) -> Verdict {
        let mut case = Case { operations, names: Names::of(operations), budget: self.budget };
        let mut beliefs = vec![Belief::Whole; operations.len()];
        match case.judge(&beliefs, None) {
            Judged::Legal => Verdict::Ok,
            Judged::Exhausted => Verdict::Unknown {
                why: format!(
                    "{} operations are not judged within {} steps",
                    operations.len(),
                    self.budget
                ),
            },
            Judged::Broken(broken) => {
                let broken = case.reduce(&mut beliefs, broken);
                let involved = broken.operations.iter().map(|&at| &operations[at]);
                Verdict::Violation(Violation::new(broken.what, involved))
            }
        }
    }
}

/// The linearizable operations of the workload `kv`, by partition.
pub(super) fn partitions(history: &History) -> BTreeMap<String, Vec<Operation<'_>>> {
    let mut partitions: BTreeMap<String, Vec<Operation<'_>>> = BTreeMap::new();
    for operation in history.operations() {
        let Some(key) = home(operation.op) else {
            continue;
        };
        match partitions.get_mut(key.partition()) {
            Some(operations) => operations.push(operation),
            None => {
                partitions.insert(key.partition().to_owned(), vec![operation]);
            }
        }
    }
    partitions
}

/// A key of the partition that an operation concerns; none if it is not to be linearizable.
fn home(op: &Op) -> Option<&Key> {
    match op {
        Op::Get { local: true, .. } | Op::Scan { local: true, .. } | Op::Other { .. } => None,
        Op::Put { key, .. }
        | Op::Get { key, .. }
        | Op::Delete { key }
        | Op::Cas { key, .. }
        | Op::CasRev { key, .. }
        | Op::Scan { from: key, .. } => Some(key),
        Op::Batch { changes } => changes.first().map(|(key, _)| key),
    }
}

struct Case<'a, 'h> {
    operations: &'a [Operation<'h>],
    names: Names,
    budget: u64,
}

enum Judged {
    Legal,
    Exhausted,
    Broken(Broken),
}

struct Broken {
    what: String,
    /// Indices into the case's operations.
    operations: Vec<usize>,
    /// The keys that were looked at.
    keys: Vec<usize>,
    /// No search was needed: these operations contradict each other.
    plain: bool,
}

impl Case<'_, '_> {
    /// Judges what is believed of the operations, on some keys or (none) on all.
    fn judge(&mut self, beliefs: &[Belief], focus: Option<&[usize]>) -> Judged {
        let mut tasks = Vec::with_capacity(self.operations.len());
        for (at, operation) in self.operations.iter().enumerate() {
            tasks.extend(self.names.task(at, operation, beliefs[at]));
        }
        if let Err(Conflict { what, operations }) = deduce(&mut tasks, &self.names) {
            return Judged::Broken(Broken { what, operations, keys: Vec::new(), plain: true });
        }
        if let Some(keys) = focus {
            return self.judge_keys(&tasks, keys, self.budget);
        }
        let mut judged = Judged::Legal;
        for keys in components(&tasks, self.names.len()) {
            match self.judge_keys(&tasks, &keys, self.budget) {
                Judged::Legal => {}
                broken @ Judged::Broken(_) => return broken,
                Judged::Exhausted => match self.judge_parts(&tasks, &keys) {
                    broken @ Judged::Broken(_) => return broken,
                    Judged::Legal | Judged::Exhausted => judged = Judged::Exhausted,
                },
            }
        }
        judged
    }

    fn judge_keys(&self, tasks: &[Task], keys: &[usize], budget: u64) -> Judged {
        let part = project(tasks, keys, self.names.len());
        match search(&part, keys.len(), budget) {
            Found::Order => Judged::Legal,
            Found::Exhausted => Judged::Exhausted,
            Found::Stuck(stuck) => {
                let involved = part.iter().filter(|task| task.mandatory);
                Judged::Broken(Broken {
                    what: self.explain(&part, keys, &stuck),
                    operations: involved.map(|task| task.operation).collect(),
                    keys: keys.to_vec(),
                    plain: false,
                })
            }
        }
    }

    /// Too much together: keys alone, then in pairs. What is wrong there is wrong.
    fn judge_parts(&self, tasks: &[Task], keys: &[usize]) -> Judged {
        if keys.len() < 2 {
            return Judged::Exhausted;
        }
        let mut parts: Vec<Vec<usize>> = keys.iter().map(|&key| vec![key]).collect();
        for (at, &one) in keys.iter().enumerate() {
            let others = keys[at + 1..].iter();
            parts.extend(others.map(|&other| vec![one, other]));
        }
        parts.truncate(PARTS_MAX);
        for part in parts {
            let judged = self.judge_keys(tasks, &part, self.budget / 10);
            if matches!(judged, Judged::Broken(_)) {
                return judged;
            }
        }
        Judged::Exhausted
    }

    fn explain(&self, part: &[Task], keys: &[usize], stuck: &Stuck) -> String {
        let Some(task) = stuck.blocked else {
            return "no order of these operations is legal".to_owned();
        };
        let mut what = format!(
            "no order of these operations is legal; the furthest one stops before \"{}\"",
            self.operations[part[task].operation]
        );
        for &(key, value) in &stuck.state {
            let key = self.names.key(keys[key]);
            what.push_str(&format!(", with {key} = {}", self.names.value(value)));
        }
        what
    }

    /// Looks for a smaller history that is wrong as well.
    fn reduce(&mut self, beliefs: &mut Vec<Belief>, mut broken: Broken) -> Broken {
        if broken.plain {
            return broken;
        }
        self.budget = self.budget.div_ceil(10);
        self.shorten(beliefs, &mut broken);
        if broken.plain {
            return broken;
        }
        let focus = self.narrow(beliefs, &mut broken);
        let mut tries = 0;
        let mut chunk = beliefs.len().div_ceil(2);
        while chunk > 0 && tries < TRIES_MAX && !broken.plain {
            for from in (0..beliefs.len()).step_by(chunk).rev() {
                let weaker = self.weaken(beliefs, from, chunk);
                if weaker == *beliefs || tries == TRIES_MAX {
                    continue;
                }
                tries += 1;
                if let Judged::Broken(smaller) = self.judge(&weaker, Some(&focus)) {
                    *beliefs = weaker;
                    broken = smaller;
                    if broken.plain {
                        break;
                    }
                }
            }
            chunk /= 2;
        }
        if tries < TRIES_MAX && !broken.plain {
            // What is still believed is needed, if only for what it says about the others.
            for (at, operation) in self.operations.iter().enumerate() {
                let answered = matches!(operation.outcome, Outcome::Ok(_));
                if answered && beliefs[at] == Belief::Whole {
                    broken.operations.push(at);
                }
            }
        }
        broken
    }

    /// The shortest prefix that is wrong.
    fn shorten(&mut self, beliefs: &mut Vec<Belief>, broken: &mut Broken) {
        let mut ends: Vec<u64> = self.operations.iter().filter_map(|o| o.completed).collect();
        ends.sort_unstable();
        let (mut low, mut high) = (0, ends.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let cut = self.prefix(ends[middle]);
            match self.judge(&cut, None) {
                Judged::Broken(shorter) => {
                    *beliefs = cut;
                    *broken = shorter;
                    high = middle;
                }
                Judged::Legal | Judged::Exhausted => low = middle + 1,
            }
        }
    }

    fn prefix(&self, end: u64) -> Vec<Belief> {
        let believed = |operation: &Operation<'_>| {
            if operation.invoked > end {
                Belief::Nothing
            } else if operation.completed.is_none_or(|at| at > end) {
                Belief::Unanswered
            } else {
                Belief::Whole
            }
        };
        self.operations.iter().map(believed).collect()
    }

    /// One key, or two, on which it is wrong already.
    fn narrow(&mut self, beliefs: &[Belief], broken: &mut Broken) -> Vec<usize> {
        let keys = broken.keys.clone();
        let mut parts: Vec<Vec<usize>> = keys.iter().map(|&key| vec![key]).collect();
        for (at, &one) in keys.iter().enumerate() {
            parts.extend(keys[at + 1..].iter().map(|&other| vec![one, other]));
        }
        parts.truncate(PARTS_MAX);
        for part in parts {
            if let Judged::Broken(smaller) = self.judge(beliefs, Some(&part)) {
                *broken = smaller;
                return part;
            }
        }
        keys
    }

    fn weaken(&self, beliefs: &[Belief], from: usize, len: usize) -> Vec<Belief> {
        let mut weaker = beliefs.to_vec();
        let to = (from + len).min(weaker.len());
        for (at, belief) in weaker.iter_mut().enumerate().take(to).skip(from) {
            let is_read = matches!(self.operations[at].op, Op::Get { .. } | Op::Scan { .. });
            let answered = matches!(self.operations[at].outcome, Outcome::Ok(_));
            *belief = match (*belief, is_read) {
                (Belief::Whole, false) if answered => Belief::Unanswered,
                (Belief::Whole | Belief::Unanswered, true) => Belief::Nothing,
                (same, _) => same,
            };
        }
        weaker
    }
}

/// Groups of keys that some task ties together. Revisions tie all keys that have them: they rise
/// along the order.
fn components(tasks: &[Task], keys: usize) -> Vec<Vec<usize>> {
    let mut parent: Vec<usize> = (0..keys).collect();
    fn root(parent: &mut [usize], mut key: usize) -> usize {
        while parent[key] != key {
            parent[key] = parent[parent[key]];
            key = parent[key];
        }
        key
    }
    let mut with_revisions = None;
    for task in tasks {
        let Some(first) = touched(task).next() else {
            continue;
        };
        let has_revision = task.revision != UNSEEN || task.snapshot.is_some();
        let common = has_revision.then(|| *with_revisions.get_or_insert(first));
        let first = root(&mut parent, first);
        for key in touched(task).chain(common) {
            let other = root(&mut parent, key);
            parent[other] = first;
        }
    }
    let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for key in 0..keys {
        groups.entry(root(&mut parent, key)).or_default().push(key);
    }
    groups.into_values().collect()
}

fn touched(task: &Task) -> impl Iterator<Item = usize> {
    let wants = task.wants.iter().map(|&(key, _)| key);
    wants.chain(task.writes.iter().map(|&(key, _)| key))
}

/// The tasks as far as they concern some keys, which are numbered anew.
fn project(tasks: &[Task], keys: &[usize], all: usize) -> Vec<Task> {
    let mut renamed = vec![None; all];
    for (new, &key) in keys.iter().enumerate() {
        renamed[key] = Some(new);
    }
    let concerned = tasks
        .iter()
        .filter(|task| task.snapshot.is_some() || touched(task).any(|key| renamed[key].is_some()));
    let part = concerned.map(|task| {
        let wants = task.wants.iter();
        let writes = task.writes.iter();
        let mut part = Task {
            wants: wants.filter_map(|&(key, want)| Some((renamed[key]?, want))).collect(),
            writes: writes.filter_map(|&(key, value)| Some((renamed[key]?, value))).collect(),
            ..*task
        };
        part.writes.sort_unstable();
        part
    });
    part.collect()
}

/// Most parts of a partition that are tried one by one.
const PARTS_MAX: usize = 300;
/// Most attempts to make a violation smaller.
const TRIES_MAX: usize = 400;

#[cfg(test)]
mod tests;
