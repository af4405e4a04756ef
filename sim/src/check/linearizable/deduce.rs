//! What follows from the operations of one partition before any search: which writes must have
//! taken effect, until when, at which revision. Everything found here holds in every legal order,
//! so that a contradiction is a violation, and the search that follows has little left to choose.

use std::collections::{BTreeMap, HashMap};

use super::tasks::{ABSENT, Names, Task, UNSEEN, Want};

/// Written by an operation without a known outcome, and seen by nobody.
const SOME_VALUE: u32 = u32::MAX;

/// Operations that cannot all be true.
#[derive(Debug)]
pub(super) struct Conflict {
    /// What is wrong.
    pub(super) what: String,
    /// The tasks' operations.
    pub(super) operations: Vec<usize>,
}

/// Sharpens the tasks in place and drops those that no answer could depend on.
pub(super) fn deduce(tasks: &mut Vec<Task>, names: &Names) -> Result<(), Conflict> {
    let mut deduction = Deduction::new(tasks, names);
    deduction.know_values()?;
    deduction.pair_values_with_revisions()?;
    deduction.own_revisions()?;
    deduction.resolve_revisions()?;
    deduction.settle_wants()?;
    deduction.spread();
    drop_useless(tasks);
    Ok(())
}

struct Deduction<'a> {
    tasks: &'a mut Vec<Task>,
    names: &'a Names,
    writers: HashMap<(usize, u32), Writer>,
    owners: BTreeMap<u64, usize>,
}

#[derive(Clone, Copy)]
enum Writer {
    One(usize),
    Many,
}

impl<'a> Deduction<'a> {
    fn new(tasks: &'a mut Vec<Task>, names: &'a Names) -> Self {
        let mut writers = HashMap::new();
        for (at, task) in tasks.iter().enumerate() {
            for &(key, value) in &task.writes {
                if value == ABSENT {
                    continue;
                }
                let writer = writers.entry((key, value));
                writer.and_modify(|w| *w = Writer::Many).or_insert(Writer::One(at));
            }
        }
        Self { tasks, names, writers, owners: BTreeMap::new() }
    }

    fn only_writer(&self, key: usize, value: u32) -> Option<usize> {
        match self.writers.get(&(key, value)) {
            Some(Writer::One(at)) => Some(*at),
            Some(Writer::Many) | None => None,
        }
    }

    /// Every value that was seen was written, or may have been.
    fn know_values(&self) -> Result<(), Conflict> {
        for (at, task) in self.tasks.iter().enumerate() {
            for &(key, want) in &task.wants {
                let Want::Is(value) = want else {
                    continue;
                };
                if task.mandatory && value != ABSENT && !self.writers.contains_key(&(key, value)) {
                    let what = format!(
                        "{} had the value {}, which nobody can have written",
                        self.names.key(key),
                        self.names.value(value)
                    );
                    return Err(self.conflict(what, &[at]));
                }
            }
        }
        Ok(())
    }

    /// Who saw a value together with its revision tells the revision of the write.
    fn pair_values_with_revisions(&mut self) -> Result<(), Conflict> {
        for at in 0..self.tasks.len() {
            if !self.tasks[at].mandatory {
                continue;
            }
            for want in 0..self.tasks[at].wants.len() {
                let (key, Want::Revision(revision)) = self.tasks[at].wants[want] else {
                    continue;
                };
                if let Some(value) = seen_value(&self.tasks[at], key)
                    && let Some(writer) = self.only_writer(key, value)
                {
                    self.anchor(writer, revision, at)?;
                }
            }
        }
        Ok(())
    }

    fn anchor(&mut self, writer: usize, revision: u64, seen_by: usize) -> Result<(), Conflict> {
        let task = &mut self.tasks[writer];
        if task.revision != UNSEEN && task.revision != revision {
            let what =
                format!("a write at revision {} was seen at revision {revision}", task.revision);
            return Err(self.conflict(what, &[writer, seen_by]));
        }
        task.revision = revision;
        Ok(())
    }

    /// No two writes of a partition share a revision.
    fn own_revisions(&mut self) -> Result<(), Conflict> {
        for at in 0..self.tasks.len() {
            self.own(at)?;
        }
        Ok(())
    }

    fn own(&mut self, at: usize) -> Result<(), Conflict> {
        let revision = self.tasks[at].revision;
        if revision == UNSEEN {
            return Ok(());
        }
        match self.owners.insert(revision, at) {
            Some(other) if other != at => {
                let what = format!("two writes at revision {revision}");
                Err(self.conflict(what, &[other, at]))
            }
            _ => Ok(()),
        }
    }

    /// A revision that was seen without its value, and that no write is known to have had: if just
    /// one write can have had it, that one did. Repeated until nothing new is learnt.
    fn resolve_revisions(&mut self) -> Result<(), Conflict> {
        let mut seen = Vec::new();
        for (at, task) in self.tasks.iter().enumerate() {
            for &(key, want) in &task.wants {
                if let Want::Revision(revision) = want
                    && task.mandatory
                {
                    seen.push((at, key, revision));
                }
            }
        }
        loop {
            let mut learnt = false;
            for &(at, key, revision) in &seen {
                if let Some(&owner) = self.owners.get(&revision) {
                    if value_written(&self.tasks[owner], key).is_none_or(|v| v == ABSENT) {
                        let what = format!(
                            "{} was seen at revision {revision}, which is that of another change",
                            self.names.key(key)
                        );
                        return Err(self.conflict(what, &[owner, at]));
                    }
                    continue;
                }
                let mut candidates = (0..self.tasks.len()).filter(|&writer| {
                    let task = &self.tasks[writer];
                    writer != at
                        && task.revision == UNSEEN
                        && task.invoked < self.tasks[at].deadline
                        && value_written(task, key).is_some_and(|v| v != ABSENT)
                });
                match (candidates.next(), candidates.next()) {
                    (None, _) => {
                        let what = format!(
                            "{} was seen at revision {revision}, which no write can have had",
                            self.names.key(key)
                        );
                        return Err(self.conflict(what, &[at]));
                    }
                    (Some(writer), None) => {
                        self.tasks[writer].revision = revision;
                        self.own(writer)?;
                        learnt = true;
                    }
                    (Some(_), Some(_)) => {}
                }
            }
            if !learnt {
                return Ok(());
            }
        }
    }

    /// Revisions that are still nobody's become [`Want::Unseen`]; wants that others imply are
    /// dropped.
    fn settle_wants(&mut self) -> Result<(), Conflict> {
        for at in 0..self.tasks.len() {
            let mut wants = core::mem::take(&mut self.tasks[at].wants);
            for (key, want) in &mut wants {
                let Want::Revision(revision) = *want else {
                    continue;
                };
                let owner = self.owners.get(&revision);
                *want = match owner.and_then(|&owner| value_written(&self.tasks[owner], *key)) {
                    Some(value) if self.only_writer(*key, value).is_some() => Want::Is(value),
                    Some(_) => *want,
                    None => Want::Unseen,
                };
            }
            let contradiction = wants.iter().any(|&(key, want)| {
                wants.iter().any(|&(other, seen)| {
                    other == key && self.implied(key, seen, want) == Some(false)
                })
            });
            if contradiction && self.tasks[at].mandatory {
                let what = "an answer contradicts itself".to_owned();
                return Err(self.conflict(what, &[at]));
            }
            let all = wants.clone();
            let mut kept = 0;
            wants.retain(|&(key, want)| {
                kept += 1;
                let twice = all[..kept - 1].contains(&(key, want));
                let implied = all.iter().any(|&(other, seen)| {
                    other == key && seen != want && self.implied(key, seen, want) == Some(true)
                });
                !twice && !implied
            });
            self.tasks[at].wants = wants;
        }
        Ok(())
    }

    /// Whether a key of which `seen` is true can be as `want` says: always, never, or perhaps
    /// (none).
    fn implied(&self, key: usize, seen: Want, want: Want) -> Option<bool> {
        let Want::Is(value) = seen else {
            return None;
        };
        match want {
            Want::Is(other) => (other != value).then_some(false),
            Want::IsNot(other) => Some(other != value),
            Want::Present => Some(value != ABSENT),
            Want::Unseen => (value == ABSENT).then_some(false),
            Want::Revision(_) => (value == ABSENT).then_some(false),
            Want::NotRevision(revision) => {
                if value == ABSENT {
                    return Some(true);
                }
                let writer = self.only_writer(key, value)?;
                let known = self.tasks[writer].revision;
                (known != UNSEEN).then_some(known != revision)
            }
        }
    }

    /// Who must have happened makes the writes that it saw happen before its own deadline.
    fn spread(&mut self) {
        let mut todo: Vec<usize> =
            (0..self.tasks.len()).filter(|&at| self.tasks[at].mandatory).collect();
        for &owner in self.owners.values() {
            if !self.tasks[owner].mandatory {
                self.tasks[owner].mandatory = true;
                todo.push(owner);
            }
        }
        while let Some(at) = todo.pop() {
            let deadline = self.tasks[at].deadline;
            for want in 0..self.tasks[at].wants.len() {
                let (key, want) = self.tasks[at].wants[want];
                let writer = match want {
                    Want::Is(ABSENT) => continue,
                    Want::Is(value) => match self.only_writer(key, value) {
                        Some(writer) => writer,
                        None => continue,
                    },
                    Want::Revision(revision) => match self.owners.get(&revision) {
                        Some(owner) => *owner,
                        None => continue,
                    },
                    Want::IsNot(_) | Want::Present | Want::NotRevision(_) | Want::Unseen => {
                        continue;
                    }
                };
                let task = &mut self.tasks[writer];
                if writer != at && (!task.mandatory || task.deadline > deadline) {
                    task.mandatory = true;
                    task.deadline = task.deadline.min(deadline);
                    todo.push(writer);
                }
            }
        }
    }

    fn conflict(&self, what: String, tasks: &[usize]) -> Conflict {
        Conflict { what, operations: tasks.iter().map(|&at| self.tasks[at].operation).collect() }
    }
}

/// A write without a known outcome matters only if somebody saw what could be its effect. Values
/// that nobody saw are all alike.
fn drop_useless(tasks: &mut Vec<Task>) {
    let mut seen: HashMap<usize, Seen> = HashMap::new();
    let mut wanted: HashMap<(usize, u32), ()> = HashMap::new();
    for task in tasks.iter() {
        for &(key, want) in &task.wants {
            let seen = seen.entry(key).or_default();
            match want {
                Want::Is(ABSENT) => seen.absent = true,
                Want::Is(value) => {
                    wanted.insert((key, value), ());
                }
                Want::IsNot(value) => {
                    wanted.insert((key, value), ());
                    seen.some = true;
                    seen.absent |= value != ABSENT;
                }
                Want::NotRevision(_) => {
                    seen.some = true;
                    seen.absent = true;
                }
                Want::Present | Want::Unseen => seen.some = true,
                Want::Revision(_) => {}
            }
        }
    }
    tasks.retain_mut(|task| {
        if task.mandatory {
            return true;
        }
        for (key, value) in &mut task.writes {
            if *value != ABSENT && !wanted.contains_key(&(*key, *value)) {
                *value = SOME_VALUE;
            }
        }
        task.writes.iter().any(|&(key, value)| {
            let seen = seen.get(&key).copied().unwrap_or_default();
            match value {
                ABSENT => seen.absent,
                SOME_VALUE => seen.some,
                _ => true,
            }
        })
    });
}

#[derive(Clone, Copy, Default)]
struct Seen {
    /// Somebody found the key absent, or may have.
    absent: bool,
    /// Somebody found a value without telling which.
    some: bool,
}

fn seen_value(task: &Task, key: usize) -> Option<u32> {
    task.wants.iter().find_map(|&(other, want)| match want {
        Want::Is(value) => Some(value).filter(|&value| other == key && value != ABSENT),
        Want::IsNot(_)
        | Want::Present
        | Want::Revision(_)
        | Want::NotRevision(_)
        | Want::Unseen => None,
    })
}

fn value_written(task: &Task, key: usize) -> Option<u32> {
    let found = task.writes.binary_search_by_key(&key, |&(other, _)| other);
    found.ok().map(|at| task.writes[at].1)
}
