//! Histories that are legal by construction: operations that overlap at random take effect one by
//! one on a model, each at some moment while it runs; unknown ones at any later moment, or never.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Map;

use crate::history::{Done, History, Key, Op, ProcessId, Recorder, Value};

/// What to draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) operations: u64,
    pub(crate) processes: u64,
    pub(crate) partitions: u64,
    pub(crate) keys: u64,
    /// A new key takes the place of one that was written so often.
    pub(crate) writes_per_key: u64,
    pub(crate) info_permille: u64,
    pub(crate) fail_permille: u64,
    /// The answers tell revisions.
    pub(crate) revisions: bool,
    /// Batches and scans as well.
    pub(crate) several: bool,
    /// Compare-and-set by revision as well.
    pub(crate) by_revision: bool,
    /// Every key is read at the end.
    pub(crate) final_reads: bool,
}

impl Shape {
    pub(crate) fn small() -> Self {
        Self {
            operations: 40,
            processes: 4,
            partitions: 1,
            keys: 2,
            writes_per_key: 100,
            info_permille: 150,
            fail_permille: 50,
            revisions: true,
            several: true,
            by_revision: false,
            final_reads: false,
        }
    }

    pub(crate) fn full() -> Self {
        Self {
            operations: 6000,
            processes: 12,
            partitions: 4,
            keys: 10,
            writes_per_key: 100,
            info_permille: 150,
            fail_permille: 50,
            revisions: true,
            several: true,
            by_revision: true,
            final_reads: true,
        }
    }
}

pub(crate) fn history(seed: u64, shape: Shape) -> History {
    Run::new(seed, shape).run()
}

/// SplitMix64.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % end
    }

    fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }

    fn pick(&mut self, len: usize) -> usize {
        let len = u64::try_from(len).expect("usize has 64 bits");
        usize::try_from(self.below(len)).expect("below a usize")
    }
}

struct Run {
    shape: Shape,
    dice: Dice,
    recorder: Recorder,
    idle: Vec<ProcessId>,
    flying: Vec<Flying>,
    /// Unknown ones that have not taken effect.
    limbo: Vec<Op>,
    state: BTreeMap<Key, (Value, u64)>,
    revision: u64,
    values: u64,
    writes: BTreeMap<(u64, u64), (u64, u64)>,
    keys: BTreeSet<Key>,
    time: u64,
}

struct Flying {
    process: ProcessId,
    op: Op,
    done: Option<Done>,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Ok,
    Fail,
    Info,
}

impl Run {
    fn new(seed: u64, shape: Shape) -> Self {
        let recorder = Recorder::new(Map::new());
        Self {
            shape,
            dice: Dice(seed),
            idle: (0..shape.processes).map(|_| recorder.process()).collect(),
            recorder,
            flying: Vec::new(),
            limbo: Vec::new(),
            state: BTreeMap::new(),
            revision: 0,
            values: 0,
            writes: BTreeMap::new(),
            keys: BTreeSet::new(),
            time: 0,
        }
    }

    fn run(mut self) -> History {
        let mut left = self.shape.operations;
        while left > 0 || !self.flying.is_empty() {
            self.time += 1;
            match self.dice.below(3) {
                0 if left > 0 && !self.idle.is_empty() => {
                    left -= 1;
                    self.begin();
                }
                1 => self.take_effect(),
                _ => self.end(),
            }
        }
        if self.shape.final_reads {
            self.read_all();
        }
        self.recorder.history()
    }

    fn read_all(&mut self) {
        let process = self.recorder.process();
        for key in core::mem::take(&mut self.keys) {
            let op = Op::Get { key, local: false };
            self.recorder.invoke(self.time, process, None, op.clone());
            let done = self.apply(&op);
            self.recorder.ok(self.time, process, done);
        }
    }

    fn begin(&mut self) {
        let at = self.dice.pick(self.idle.len());
        let process = self.idle.swap_remove(at);
        let op = self.draw();
        let fate = if self.dice.chance(self.shape.info_permille) {
            Fate::Info
        } else if self.dice.chance(self.shape.fail_permille) {
            Fate::Fail
        } else {
            Fate::Ok
        };
        self.recorder.invoke(self.time, process, None, op.clone());
        self.flying.push(Flying { process, op, done: None, fate });
    }

    fn take_effect(&mut self) {
        if !self.limbo.is_empty() && self.dice.chance(100) {
            let at = self.dice.pick(self.limbo.len());
            let op = self.limbo.swap_remove(at);
            self.apply(&op);
            return;
        }
        if self.flying.is_empty() {
            return;
        }
        let at = self.dice.pick(self.flying.len());
        if self.flying[at].done.is_none() && self.flying[at].fate != Fate::Fail {
            let op = self.flying[at].op.clone();
            self.flying[at].done = Some(self.apply(&op));
        }
    }

    fn end(&mut self) {
        if self.flying.is_empty() {
            return;
        }
        let at = self.dice.pick(self.flying.len());
        if self.flying[at].fate == Fate::Ok && self.flying[at].done.is_none() {
            return;
        }
        let Flying { process, op, done, fate } = self.flying.swap_remove(at);
        match (fate, done) {
            (Fate::Ok, Some(done)) => {
                self.recorder.ok(self.time, process, done);
                self.idle.push(process);
            }
            (Fate::Info, done) => {
                self.recorder.info(self.time, process, "lost");
                if done.is_none() {
                    self.limbo.push(op);
                }
                self.idle.push(self.recorder.process());
            }
            (Fate::Fail | Fate::Ok, _) => {
                self.recorder.fail(self.time, process, "refused");
                self.idle.push(process);
            }
        }
    }

    fn draw(&mut self) -> Op {
        let partition = self.dice.below(self.shape.partitions);
        let key = self.draw_key(partition);
        match self.dice.below(if self.shape.several { 12 } else { 10 }) {
            0..=2 => Op::Put { key, value: self.draw_value() },
            3..=5 => Op::Get { key, local: false },
            6 => Op::Delete { key },
            7 | 8 => {
                let old = self.state.get(&key).map(|(value, _)| value.clone());
                let new = (!self.dice.chance(200)).then(|| self.draw_value());
                Op::Cas { key, old, new }
            }
            9 if self.shape.by_revision => {
                let now = self.state.get(&key).map_or(0, |(_, revision)| *revision);
                let new = (!self.dice.chance(200)).then(|| self.draw_value());
                Op::CasRev { key, revision: now, new }
            }
            10 => {
                let mut changes = Vec::new();
                for _ in 0..=self.dice.below(3) {
                    let key = self.draw_key(partition);
                    let value = (!self.dice.chance(300)).then(|| self.draw_value());
                    changes.push((key, value));
                }
                Op::Batch { changes }
            }
            11 => {
                let prefix = format!("p{partition}");
                let to = self.draw_key(partition);
                Op::Scan {
                    from: Key::new(&prefix, ""),
                    to: self.dice.chance(300).then_some(to),
                    limit: 1 + self.dice.below(20),
                    reverse: self.dice.chance(300),
                    local: false,
                }
            }
            _ => Op::Get { key, local: false },
        }
    }

    fn draw_key(&mut self, partition: u64) -> Key {
        let slot = self.dice.below(self.shape.keys);
        let (writes, generation) = self.writes.entry((partition, slot)).or_default();
        *writes += 1;
        if *writes > self.shape.writes_per_key * 2 {
            (*writes, *generation) = (0, *generation + 1);
        }
        let key = Key::new(&format!("p{partition}"), &format!("k{slot}-{generation}"));
        self.keys.insert(key.clone());
        key
    }

    fn draw_value(&mut self) -> Value {
        self.values += 1;
        Value::from(self.values)
    }

    fn told(&self, revision: u64) -> Option<u64> {
        self.shape.revisions.then_some(revision)
    }

    fn change(&mut self, key: &Key, value: Option<&Value>) {
        match value {
            Some(value) => {
                let cell = (value.clone(), self.revision);
                self.state.insert(key.clone(), cell);
            }
            None => {
                self.state.remove(key);
            }
        }
    }

    fn rise(&mut self) -> Option<u64> {
        self.revision += 1 + self.dice.below(2);
        self.told(self.revision)
    }

    fn apply(&mut self, op: &Op) -> Done {
        match op {
            Op::Put { key, value } => {
                let revision = self.rise();
                self.change(key, Some(value));
                Done::Written { revision }
            }
            Op::Delete { key } => {
                let existed = self.state.contains_key(key);
                let revision = if existed { self.rise() } else { self.told(self.revision) };
                self.change(key, None);
                Done::Deleted { existed: Some(existed), revision }
            }
            Op::Get { key, .. } => {
                let found = self.state.get(key).cloned();
                Done::Value(found.map(|(value, revision)| (value, self.told(revision))))
            }
            Op::Cas { key, old, new } => {
                let found = self.state.get(key).map(|(value, _)| value);
                self.compare(key, found == old.as_ref(), new.as_ref())
            }
            Op::CasRev { key, revision, new } => {
                let found = self.state.get(key).map_or(0, |(_, revision)| *revision);
                self.compare(key, found == *revision, new.as_ref())
            }
            Op::Batch { changes } => {
                let revision = self.rise();
                for (key, value) in changes {
                    self.change(key, value.as_ref());
                }
                Done::Written { revision }
            }
            Op::Scan { .. } => self.scan(op),
            Op::Other { .. } => panic!("not drawn"),
        }
    }

    fn compare(&mut self, key: &Key, swaps: bool, new: Option<&Value>) -> Done {
        if swaps {
            self.rise();
            self.change(key, new);
        }
        let now = self.state.get(key).map_or(0, |(_, revision)| *revision);
        Done::Compared { swapped: swaps, revision: self.told(now) }
    }

    fn scan(&self, op: &Op) -> Done {
        let Op::Scan { from, to, limit, reverse, .. } = op else {
            panic!("a scan");
        };
        let inside = |key: &Key| {
            key.partition() == from.partition()
                && key >= from
                && to.as_ref().is_none_or(|to| key < to)
        };
        let mut items: Vec<_> = self
            .state
            .iter()
            .filter(|(key, _)| inside(key))
            .map(|(key, (value, revision))| (key.clone(), value.clone(), self.told(*revision)))
            .collect();
        if *reverse {
            items.reverse();
        }
        let limit = usize::try_from(*limit).expect("small");
        let more = items.len() > limit;
        items.truncate(limit);
        Done::Page { items, more, revision: self.told(self.revision) }
    }
}
