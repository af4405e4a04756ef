//! Histories for the tests of checkers: written by hand with [`Script`], drawn with [`random`].

use std::collections::BTreeMap;

use serde_json::Map;

use crate::history::{Done, History, Key, Op, ProcessId, Recorder, Value};

pub(super) mod random;

/// A history written by hand, about keys of the partition `p`. Time is the number of the event.
pub(super) struct Script {
    recorder: Recorder,
    processes: BTreeMap<u64, ProcessId>,
    time: u64,
}

/// An operation that is still open.
pub(super) struct Open {
    process: u64,
    op: Op,
}

impl Script {
    pub(super) fn new() -> Self {
        Self { recorder: Recorder::new(Map::new()), processes: BTreeMap::new(), time: 0 }
    }

    pub(super) fn history(&self) -> History {
        self.recorder.history()
    }

    pub(super) fn invoke(&mut self, process: u64, op: Op) -> Open {
        let (time, id) = self.step(process);
        self.recorder.invoke(time, id, None, op.clone());
        Open { process, op }
    }

    pub(super) fn complete(&mut self, open: Open, answer: impl Answer) {
        let (time, id) = self.step(open.process);
        self.recorder.ok(time, id, answer.done(&open.op));
    }

    pub(super) fn lose(&mut self, open: Open) {
        let (time, id) = self.step(open.process);
        self.recorder.info(time, id, "lost");
        self.processes.remove(&open.process);
    }

    pub(super) fn refuse(&mut self, open: Open) {
        let (time, id) = self.step(open.process);
        self.recorder.fail(time, id, "refused");
    }

    pub(super) fn ok(&mut self, process: u64, op: Op, answer: impl Answer) {
        let open = self.invoke(process, op);
        self.complete(open, answer);
    }

    pub(super) fn fail(&mut self, process: u64, op: Op) {
        let open = self.invoke(process, op);
        self.refuse(open);
    }

    pub(super) fn info(&mut self, process: u64, op: Op) {
        let open = self.invoke(process, op);
        self.lose(open);
    }

    fn step(&mut self, process: u64) -> (u64, ProcessId) {
        self.time += 1;
        let recorder = &self.recorder;
        let id = self.processes.entry(process);
        (self.time, *id.or_insert_with(|| recorder.process()))
    }
}

/// Short words for answers: a number is a revision, a pair of numbers a value and its revision.
pub(super) trait Answer {
    fn done(self, op: &Op) -> Done;
}

impl Answer for Done {
    fn done(self, _: &Op) -> Done {
        self
    }
}

impl Answer for i32 {
    fn done(self, _: &Op) -> Done {
        Done::Written { revision: Some(number(self)) }
    }
}

impl Answer for () {
    fn done(self, op: &Op) -> Done {
        if matches!(op, Op::Delete { .. }) {
            return Done::Deleted { existed: None, revision: None };
        }
        Done::Written { revision: None }
    }
}

impl Answer for u64 {
    fn done(self, _: &Op) -> Done {
        Done::Value(Some((Value::from(self), None)))
    }
}

impl Answer for (i32, i32) {
    fn done(self, _: &Op) -> Done {
        let (value, revision) = self;
        Done::Value(Some((Value::from(number(value)), Some(number(revision)))))
    }
}

impl Answer for bool {
    fn done(self, op: &Op) -> Done {
        answered(op, self, None)
    }
}

impl Answer for (bool, i32) {
    fn done(self, op: &Op) -> Done {
        answered(op, self.0, Some(number(self.1)))
    }
}

fn answered(op: &Op, yes: bool, revision: Option<u64>) -> Done {
    if matches!(op, Op::Delete { .. }) {
        return Done::Deleted { existed: Some(yes), revision };
    }
    Done::Compared { swapped: yes, revision }
}

fn number(small: i32) -> u64 {
    u64::try_from(small).expect("tests write no negative numbers")
}

pub(super) fn key(name: &str) -> Key {
    Key::new("p", name)
}

pub(super) fn put(name: &str, value: u64) -> Op {
    Op::Put { key: key(name), value: Value::from(value) }
}

pub(super) fn get(name: &str) -> Op {
    Op::Get { key: key(name), local: false }
}

pub(super) fn get_local(name: &str) -> Op {
    Op::Get { key: key(name), local: true }
}

pub(super) fn del(name: &str) -> Op {
    Op::Delete { key: key(name) }
}

pub(super) fn cas(name: &str, old: Option<u64>, new: Option<u64>) -> Op {
    Op::Cas { key: key(name), old: old.map(Value::from), new: new.map(Value::from) }
}

pub(super) fn cas_rev(name: &str, revision: u64, new: u64) -> Op {
    Op::CasRev { key: key(name), revision, new: Some(Value::from(new)) }
}

/// Zero removes.
pub(super) fn batch(changes: &[(&str, u64)]) -> Op {
    let change = |&(name, value): &(&str, u64)| {
        let value = (value > 0).then(|| Value::from(value));
        (key(name), value)
    };
    Op::Batch { changes: changes.iter().map(change).collect() }
}

/// The whole partition.
pub(super) fn scan() -> Op {
    Op::Scan { from: key(""), to: None, limit: 1000, reverse: false, local: false }
}

pub(super) fn absent() -> Done {
    Done::Value(None)
}

/// A whole answer of a scan: names, values and revisions; the snapshot's revision.
pub(super) fn page(items: &[(&str, u64, u64)], revision: u64) -> Done {
    let item = |&(name, value, revision): &(&str, u64, u64)| {
        (key(name), Value::from(value), Some(revision))
    };
    Done::Page { items: items.iter().map(item).collect(), more: false, revision: Some(revision) }
}
