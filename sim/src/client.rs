//! Logical clients: each asks one thing at a time and records what it saw.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::{Revision, len_u64, len_usize};
use ring_core::io::{Action, Consistency, Failure, Reply};
use ring_core::rng::Rng;
use ring_core::shard::command::{Change, Expect, Page};

use crate::call::{Ask, Ended};
use crate::clock::Nanos;
use crate::history::{Done, Key, Op, ProcessId, Recorder, Value};
use crate::lock;
use crate::plan::Workload;
use crate::world::Sim;

/// A logical client of one machine's node.
pub struct Client {
    sim: Arc<Sim>,
    recorder: Recorder,
    process: ProcessId,
    rng: Rng,
    /// The machine whose node it asks while that is up.
    home: usize,
    timeout: Duration,
    padding: u64,
}

/// The keys that all clients work on. A key is retired after about a hundred writes, so that the history of each
/// stays short enough to be judged.
#[derive(Debug)]
pub struct Keys {
    partitions: u64,
    slots: Vec<Slot>,
    next_value: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot {
    generation: u64,
    writes: u64,
    /// What a client saw or wrote last.
    seen: Option<(Value, u64)>,
}

/// A key is retired after so many writes.
const WRITES_MAX: u64 = 100;

impl Keys {
    /// So many partitions with so many keys each.
    #[must_use]
    pub fn new(partitions: u64, keys: u64) -> Self {
        Self {
            partitions,
            slots: vec![Slot::default(); len_usize(partitions * keys)],
            next_value: 1,
        }
    }

    /// Every key that was ever written, and every partition.
    #[must_use]
    pub fn all(&self) -> (Vec<Key>, Vec<String>) {
        let mut keys = Vec::new();
        for (place, slot) in self.slots.iter().enumerate() {
            for generation in 0..=slot.generation {
                keys.push(self.key(place, generation));
            }
        }
        let partitions = (0..self.partitions).map(partition_name).collect();
        (keys, partitions)
    }

    fn key(&self, place: usize, generation: u64) -> Key {
        let (partition, slot) =
            (len_u64(place) % self.partitions, len_u64(place) / self.partitions);
        Key::new(&partition_name(partition), &format!("k{slot}.{generation}"))
    }

    fn read(&self, rng: &mut Rng) -> Key {
        let place = len_usize(rng.below(len_u64(self.slots.len())));
        let generation = self.slots[place].generation;
        self.key(place, generation.saturating_sub(u64::from(rng.chance(1, 20))))
    }

    fn write(&mut self, place: usize) -> Key {
        let slot = &mut self.slots[place];
        slot.writes += 1;
        if slot.writes > WRITES_MAX {
            *slot = Slot { generation: slot.generation + 1, writes: 1, seen: None };
        }
        let generation = slot.generation;
        self.key(place, generation)
    }

    fn value(&mut self) -> Value {
        self.next_value += 1;
        Value::Number(self.next_value)
    }

    /// Draws an operation.
    fn draw(&mut self, workload: &Workload, rng: &mut Rng) -> Op {
        let place = len_usize(rng.below(len_u64(self.slots.len())));
        let local = rng.chance(workload.local, 100);
        let mut dice = rng.below(workload.mix.iter().sum());
        let kind = workload.mix.iter().position(|weight| {
            let hit = dice < *weight;
            dice = dice.saturating_sub(*weight);
            hit
        });
        match kind {
            Some(0) | None => Op::Get { key: self.read(rng), local },
            Some(1) => Op::Put { key: self.write(place), value: self.value() },
            Some(2) => Op::Delete { key: self.write(place) },
            Some(3) => {
                let key = self.write(place);
                let seen = self.slots[place].seen.clone();
                Op::Cas {
                    key,
                    old: seen.map(|(value, _)| value),
                    new: (!rng.chance(1, 8)).then(|| self.value()),
                }
            }
            Some(4) => {
                let key = self.write(place);
                let seen = self.slots[place].seen.as_ref();
                Op::CasRev {
                    key,
                    revision: seen.map_or(0, |(_, revision)| *revision),
                    new: (!rng.chance(1, 8)).then(|| self.value()),
                }
            }
            Some(5) => self.draw_batch(place, rng),
            Some(_) => self.draw_scan(place, local, rng),
        }
    }

    fn draw_batch(&mut self, place: usize, rng: &mut Rng) -> Op {
        let partition = place % len_usize(self.partitions);
        let mut changes = Vec::new();
        for place in (partition..self.slots.len()).step_by(len_usize(self.partitions)) {
            if rng.chance(1, 2) || (changes.is_empty() && place + 1 >= self.slots.len()) {
                let value = (!rng.chance(1, 6)).then(|| self.value());
                changes.push((self.write(place), value));
            }
        }
        if changes.is_empty() {
            let value = self.value();
            changes.push((self.write(place), Some(value)));
        }
        Op::Batch { changes }
    }

    fn draw_scan(&mut self, place: usize, local: bool, rng: &mut Rng) -> Op {
        let partition = partition_name(len_u64(place) % self.partitions);
        let bound = |rng: &mut Rng| Key::new(&partition, &format!("k{}", rng.below(4)));
        let from = match rng.chance(1, 2) {
            true => Key::new(&partition, ""),
            false => bound(rng),
        };
        let to = rng.chance(1, 3).then(|| bound(rng));
        Op::Scan { from, to, limit: 1 + rng.below(12), reverse: rng.chance(1, 3), local }
    }

    /// Remembers what an answer said, for later comparisons.
    fn learn(&mut self, op: &Op, done: &Done) {
        let (key, seen) = match (op, done) {
            (Op::Get { key, .. }, Done::Value(found)) => {
                let found = found.as_ref();
                (key, found.and_then(|(value, revision)| Some((value.clone(), (*revision)?))))
            }
            (Op::Put { key, value }, Done::Written { revision: Some(r) }) => {
                (key, Some((value.clone(), *r)))
            }
            _ => return,
        };
        for place in 0..self.slots.len() {
            let slot = &self.slots[place];
            if self.key(place, slot.generation) == *key {
                self.slots[place].seen = seen;
                return;
            }
        }
    }
}

pub(crate) fn partition_name(partition: u64) -> String {
    format!("p{partition}")
}

impl Client {
    /// A client that asks the node of machine `home`.
    #[must_use]
    pub fn new(
        sim: Arc<Sim>,
        recorder: Recorder,
        rng: Rng,
        home: usize,
        workload: &Workload,
    ) -> Self {
        Self {
            process: recorder.process(),
            sim,
            recorder,
            rng,
            home,
            timeout: workload.timeout,
            padding: workload.padding,
        }
    }

    /// Asks one thing after the other, until `until`.
    pub async fn work(mut self, keys: Arc<Mutex<Keys>>, workload: Workload, until: Nanos) {
        let pause = 2_000_000_000 * len_u64(workload.clients) / workload.rate.max(1);
        while self.sim.now() < until {
            let wait = self.rng.below(pause);
            self.sim.time.sleep(Duration::from_nanos(wait)).await;
            let op = lock(&keys).draw(&workload, &mut self.rng);
            if let Some(done) = self.perform(&op).await {
                lock(&keys).learn(&op, &done);
            }
        }
    }

    /// Does one operation and records it. None: it did not happen, or nobody knows.
    pub async fn perform(&mut self, op: &Op) -> Option<Done> {
        let machine = self.host();
        let node = Some(len_u64(machine) + 1);
        self.recorder.invoke(self.sim.now(), self.process, node, op.clone());
        self.sim.oracle(|oracle| oracle.on_writing(op));
        let (partition, action) = action_of(op, self.padding);
        let ended = self.ask(machine, partition, action).await;
        let done = match ended {
            Ended::Answered(Ok(reply)) => Ok(self.complete(machine, op, reply).await),
            ended @ (Ended::Answered(Err(_)) | Ended::Refused(_) | Ended::Lost { .. }) => {
                Err(ended)
            }
        };
        let now = self.sim.now();
        match done {
            Ok(done) => {
                self.sim.oracle(|oracle| oracle.on_done_for_watches(op, &done));
                self.recorder.ok(now, self.process, done.clone());
                Some(done)
            }
            Err(ended) if is_read(op) || ended.certainly_not() => {
                self.recorder.fail(now, self.process, word(&ended));
                None
            }
            Err(ended) => {
                self.recorder.info(now, self.process, word(&ended));
                self.process = self.recorder.process();
                None
            }
        }
    }

    async fn ask(&self, machine: usize, partition: String, action: Action) -> Ended {
        let ask = Ask { timeout: self.timeout, partition, action };
        self.sim.machines[machine].inbox.call(ask).await
    }

    /// The machine to ask: home, or now and then, when that is down, another.
    fn host(&mut self) -> usize {
        let machines = len_u64(self.sim.machines.len());
        if self.sim.machines[self.home].inbox.is_up() || self.rng.chance(1, 4) {
            return self.home;
        }
        len_usize(self.rng.below(machines))
    }

    /// Turns a reply into what is recorded; fetches the rest of a scan.
    async fn complete(&mut self, machine: usize, op: &Op, reply: Reply) -> Done {
        match reply {
            Reply::Written { revision } => Done::Written { revision: Some(revision.0) },
            Reply::Deleted { existed, revision } => {
                Done::Deleted { existed: Some(existed), revision: Some(revision.0) }
            }
            Reply::Compared { swapped, revision } => {
                Done::Compared { swapped, revision: Some(revision.0) }
            }
            Reply::Value(found) | Reply::Local { found, .. } => {
                Done::Value(found.map(|(value, revision)| (parse(&value), Some(revision.0))))
            }
            Reply::Page { page, cursor, .. } => self.rest_of_scan(machine, op, page, cursor).await,
            Reply::Info { .. }
            | Reply::Status(_)
            | Reply::Changes { .. }
            | Reply::Compacted { .. } => panic!("{op} was answered by {reply:?}"),
        }
    }

    async fn rest_of_scan(
        &mut self,
        machine: usize,
        op: &Op,
        first: Page,
        mut cursor: Option<ring_core::ids::CursorId>,
    ) -> Done {
        let Op::Scan { from, limit, .. } = op else {
            panic!("{op} was answered with a page");
        };
        let limit = len_usize(*limit);
        let revision = first.revision;
        let mut more = first.more;
        let mut items = first.items;
        while let Some(open) = cursor {
            let missing = limit.saturating_sub(items.len());
            let partition = from.partition().to_owned();
            if missing == 0 || self.rng.chance(1, 16) {
                let _ = self.ask(machine, partition, Action::ScanClose { cursor: open }).await;
                break;
            }
            let next = Action::ScanNext {
                cursor: open,
                limit: u32::try_from(missing).expect("scans are short"),
            };
            match self.ask(machine, partition, next).await {
                Ended::Answered(Ok(Reply::Page { page, cursor: then, .. })) => {
                    assert_eq!(page.revision, revision, "one scan, one snapshot");
                    items.extend(page.items);
                    more = page.more;
                    cursor = then;
                }
                Ended::Answered(Ok(other)) => panic!("{op} was answered by {other:?}"),
                Ended::Answered(Err(_)) | Ended::Refused(_) | Ended::Lost { .. } => break,
            }
        }
        let partition = from.partition();
        let item = |(key, value, revision): (Bytes, Bytes, Revision)| {
            let name = String::from_utf8_lossy(&key).into_owned();
            (Key::new(partition, &name), parse(&value), Some(revision.0))
        };
        Done::Page {
            items: items.into_iter().map(item).collect(),
            more,
            revision: Some(revision.0),
        }
    }
}

fn is_read(op: &Op) -> bool {
    matches!(op, Op::Get { .. } | Op::Scan { .. })
}

fn word(ended: &Ended) -> String {
    match ended {
        Ended::Answered(Ok(_)) => String::from("answered"),
        Ended::Answered(Err(failure)) => match failure {
            Failure::Deadline => String::from("deadline"),
            Failure::OutcomeUnknown => String::from("unknown"),
            Failure::Interrupted => String::from("interrupted"),
            Failure::Malformed => String::from("malformed"),
            Failure::Closed { .. } => String::from("closed"),
        },
        Ended::Refused(refused) => format!("refused: {refused}"),
        Ended::Lost { taken: true } => String::from("lost"),
        Ended::Lost { taken: false } => String::from("down"),
    }
}

/// A value as it stands in the store: its number, then padding.
fn encode(value: &Value, padding: u64) -> Bytes {
    let text = match value {
        Value::Number(number) => {
            let pad = len_usize(number.wrapping_mul(0x9e37_79b9) % (padding + 1));
            format!("{number}{:.<pad$}", "")
        }
        Value::Text(text) => text.to_string(),
    };
    Bytes::from(text)
}

pub(crate) fn parse(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    let digits = text.trim_end_matches('.');
    match digits.parse() {
        Ok(number) => Value::Number(number),
        Err(_) => Value::from(&*text),
    }
}

pub(crate) fn name_of(key: &Key) -> Bytes {
    let name = key.text().split_once('/').map_or("", |(_, name)| name);
    Bytes::copy_from_slice(name.as_bytes())
}

/// The call that an operation is.
fn action_of(op: &Op, padding: u64) -> (String, Action) {
    let value = |value: &Value| encode(value, padding);
    let consistency = |local: bool| match local {
        true => Consistency::Local,
        false => Consistency::Linearizable,
    };
    match op {
        Op::Put { key, value: v } => {
            (key.partition().to_owned(), Action::Put { key: name_of(key), value: value(v) })
        }
        Op::Get { key, local } => (
            key.partition().to_owned(),
            Action::Get { key: name_of(key), consistency: consistency(*local) },
        ),
        Op::Delete { key } => (key.partition().to_owned(), Action::Delete { key: name_of(key) }),
        Op::Cas { key, old, new } => (
            key.partition().to_owned(),
            Action::CompareAndSet {
                key: name_of(key),
                expect: Expect::Value(old.as_ref().map(value)),
                value: new.as_ref().map(value),
            },
        ),
        Op::CasRev { key, revision, new } => (
            key.partition().to_owned(),
            Action::CompareAndSet {
                key: name_of(key),
                expect: Expect::Revision(Revision(*revision)),
                value: new.as_ref().map(value),
            },
        ),
        Op::Batch { changes } => {
            let (first, _) = changes.first().expect("a batch changes something");
            let change = |(key, v): &(Key, Option<Value>)| Change {
                key: name_of(key),
                value: v.as_ref().map(value),
            };
            (
                first.partition().to_owned(),
                Action::Batch { changes: changes.iter().map(change).collect() },
            )
        }
        Op::Scan { from, to, limit, reverse, local } => (
            from.partition().to_owned(),
            Action::Scan {
                from: name_of(from),
                to: to.as_ref().map(name_of),
                reverse: *reverse,
                limit: u32::try_from(*limit).expect("scans are short"),
                consistency: consistency(*local),
            },
        ),
        Op::Other { w, f, .. } => panic!("{w} {f} is no call of this workload"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_padding() {
        for number in [0, 1, 77, 123_456_789] {
            for padding in [0, 64, 2048] {
                let bytes = encode(&Value::Number(number), padding);
                assert_eq!(parse(&bytes), Value::Number(number));
            }
        }
        assert_eq!(parse(b"abc"), Value::from("abc"));
    }

    #[test]
    fn keys_are_retired_and_remembered() {
        let mut keys = Keys::new(2, 1);
        let first = keys.write(0);
        for _ in 1..WRITES_MAX {
            assert_eq!(keys.write(0), first);
        }
        assert_ne!(keys.write(0), first);
        let (all, partitions) = keys.all();
        assert_eq!(all.len(), 3);
        assert!(all.contains(&first));
        assert_eq!(partitions, ["p0", "p1"]);
    }
}
