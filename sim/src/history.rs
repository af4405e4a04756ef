//! What the clients saw: events in the order in which one recorder saw them, kept typed in memory,
//! written as and read from JSON lines ([`History::write`], [`History::read`]).
//!
//! `ok` means that it happened, `fail` that it certainly did not and never will, `info` that nobody
//! knows: it may take effect now, later or never. A process does one thing at a time, and after an
//! `info` its number is retired.
//!
//! Beside the common fields of the format, events of the workload `kv` carry what the store says
//! about revisions, which makes the checkers sharper and which other tools may skip:
//!
//! | field of `ok` | with | meaning |
//! |---|---|---|
//! | `rev` | put, get, del, cas, scan | revision of the change, of the value found, of the snapshot |
//! | `revs` | scan | revision of each item |
//! | `existed` | del | whether the key was there |
//! | `more` | scan | the answer ended before the range did |
//!
//! `get_local` and `scan_local` are reads that may be stale. Keys are `partition/key`; batches and
//! scans stay in one partition. `old` and `new` of a cas, and the new value of a cas_rev, may be
//! null for "no such key".

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Map, Value as Json};

mod json;

pub use json::ReadError;

/// A whole run as its clients saw it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    /// The fields of the `meta` line: seed, build, options, and what checkers need.
    pub meta: Map<String, Json>,
    /// In the recorder's order; `index` rises strictly.
    pub events: Vec<Event>,
}

impl History {
    /// The operations: each invoke with its completion, in order of invocation. What is still open
    /// counts as `info`.
    #[must_use]
    pub fn operations(&self) -> Vec<Operation<'_>> {
        let mut operations = Vec::with_capacity(self.events.len() / 2);
        let mut open: BTreeMap<ProcessId, usize> = BTreeMap::new();
        for event in &self.events {
            let What::Client { process, node, phase } = &event.what else {
                continue;
            };
            if let Phase::Invoke(op) = phase {
                open.insert(*process, operations.len());
                operations.push(Operation {
                    process: *process,
                    node: *node,
                    invoked: event.index,
                    completed: None,
                    op,
                    outcome: Outcome::Info,
                });
                continue;
            }
            let Some(at) = open.remove(process) else {
                continue;
            };
            operations[at].completed = Some(event.index);
            operations[at].outcome = match phase {
                Phase::Ok(done) => Outcome::Ok(done),
                Phase::Fail { .. } => Outcome::Fail,
                Phase::Info { .. } | Phase::Invoke(_) => Outcome::Info,
            };
        }
        operations
    }
}

/// Records one run. Clones record into the same history.
#[derive(Clone, Debug, Default)]
pub struct Recorder {
    inner: Arc<Mutex<Inner>>,
}

impl Recorder {
    /// An empty history with this `meta` line (the recorder adds `v`).
    #[must_use]
    pub fn new(mut meta: Map<String, Json>) -> Self {
        meta.insert("v".to_owned(), Json::from(1));
        let recorder = Self::default();
        recorder.lock().history.meta = meta;
        recorder
    }

    /// A number for a new logical client.
    #[must_use]
    pub fn process(&self) -> ProcessId {
        let mut inner = self.lock();
        let next = ProcessId(u64::try_from(inner.processes.len()).expect("usize has 64 bits"));
        inner.processes.push(ProcessState::Idle);
        next
    }

    /// A client is about to ask. Asserts that the process has nothing open and is not retired.
    pub fn invoke(&self, time: u64, process: ProcessId, node: Option<u64>, op: Op) {
        let mut inner = self.lock();
        inner.step(process, ProcessState::Idle, ProcessState::Busy(node));
        inner.counts.invoked += 1;
        inner.push_client(time, process, node, Phase::Invoke(op));
    }

    /// It happened.
    pub fn ok(&self, time: u64, process: ProcessId, done: Done) {
        self.complete(time, process, Phase::Ok(done));
    }

    /// It certainly did not happen and never will.
    pub fn fail(&self, time: u64, process: ProcessId, error: impl Into<String>) {
        let error = error.into();
        self.complete(time, process, Phase::Fail { error });
    }

    /// Nobody knows. The process is retired: the client goes on under a new number.
    pub fn info(&self, time: u64, process: ProcessId, error: impl Into<String>) {
        let error = error.into();
        self.complete(time, process, Phase::Info { error });
    }

    /// Something was done to the cluster.
    pub fn fault(&self, time: u64, name: impl Into<String>, fields: Map<String, Json>) {
        let what = What::Fault { name: name.into(), fields };
        self.lock().push(time, what);
    }

    /// How many operations were begun, and how they ended so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.lock().counts
    }

    /// A copy of what was recorded so far.
    #[must_use]
    pub fn history(&self) -> History {
        self.lock().history.clone()
    }

    fn complete(&self, time: u64, process: ProcessId, phase: Phase) {
        let mut inner = self.lock();
        let (next, count) = match &phase {
            Phase::Ok(_) => (ProcessState::Idle, &mut inner.counts.ok),
            Phase::Fail { .. } => (ProcessState::Idle, &mut inner.counts.fail),
            Phase::Info { .. } => (ProcessState::Retired, &mut inner.counts.info),
            Phase::Invoke(_) => panic!("an invoke completes nothing"),
        };
        *count += 1;
        let node = inner.state(process).node();
        inner.step(process, ProcessState::Busy(node), next);
        inner.push_client(time, process, node, phase);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A client that panicked while recording has failed the run; its history is still wanted
        // for the report.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug, Default)]
struct Inner {
    history: History,
    processes: Vec<ProcessState>,
    counts: Counts,
}

impl Inner {
    fn state(&self, process: ProcessId) -> ProcessState {
        let at = usize::try_from(process.0).expect("usize has 64 bits");
        *self.processes.get(at).expect("process numbers come from the recorder")
    }

    fn step(&mut self, process: ProcessId, from: ProcessState, to: ProcessState) {
        let state = self.state(process);
        assert!(
            state == from,
            "process {process} is {state:?}, not {from:?}: one operation at a time, none after an info"
        );
        self.processes[usize::try_from(process.0).expect("usize has 64 bits")] = to;
    }

    fn push_client(&mut self, time: u64, process: ProcessId, node: Option<u64>, phase: Phase) {
        let what = What::Client { process, node, phase };
        self.push(time, what);
    }

    fn push(&mut self, time: u64, what: What) {
        let index = u64::try_from(self.history.events.len()).expect("usize has 64 bits");
        self.history.events.push(Event { index, time, what });
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProcessState {
    Idle,
    Busy(Option<u64>),
    Retired,
}

impl ProcessState {
    fn node(self) -> Option<u64> {
        match self {
            Self::Busy(node) => node,
            Self::Idle | Self::Retired => None,
        }
    }
}

/// A logical client: one operation at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProcessId(pub u64);

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// How the operations of a run ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Begun.
    pub invoked: u64,
    /// Happened.
    pub ok: u64,
    /// Did not happen.
    pub fail: u64,
    /// Unknown.
    pub info: u64,
}

impl Counts {
    /// Begun and not ended.
    #[must_use]
    pub fn open(&self) -> u64 {
        self.invoked - self.ok - self.fail - self.info
    }
}

/// One line of a history.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// The recorder's order.
    pub index: u64,
    /// Nanoseconds of true time.
    pub time: u64,
    /// What happened.
    pub what: What,
}

/// What an event says.
#[derive(Clone, Debug, PartialEq)]
pub enum What {
    /// A client asked or was answered.
    Client {
        /// The client.
        process: ProcessId,
        /// The node that was asked.
        node: Option<u64>,
        /// Which of the two, and what.
        phase: Phase,
    },
    /// Something was done to the cluster.
    Fault {
        /// Its kind: crash, partition, disk, clock, ...
        name: String,
        /// More about it.
        fields: Map<String, Json>,
    },
}

/// Part of an operation.
#[derive(Clone, Debug, PartialEq)]
pub enum Phase {
    /// Begun.
    Invoke(Op),
    /// Happened.
    Ok(Done),
    /// Certainly did not happen and never will.
    Fail {
        /// A word for reports.
        error: String,
    },
    /// Unknown.
    Info {
        /// A word for reports.
        error: String,
    },
}

/// What a client asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Op {
    /// Set a key.
    Put {
        /// The key.
        key: Key,
        /// Its value, unique in the run.
        value: Value,
    },
    /// Read a key.
    Get {
        /// The key.
        key: Key,
        /// It may be stale.
        local: bool,
    },
    /// Remove a key.
    Delete {
        /// The key.
        key: Key,
    },
    /// Set or remove a key if it has this value.
    Cas {
        /// The key.
        key: Key,
        /// What it must be; none: absent.
        old: Option<Value>,
        /// What it becomes; none: removed.
        new: Option<Value>,
    },
    /// Set or remove a key if it last changed at this revision.
    CasRev {
        /// The key.
        key: Key,
        /// The revision; 0: the key must be absent.
        revision: u64,
        /// What it becomes; none: removed.
        new: Option<Value>,
    },
    /// Several changes of one partition at once; later ones win.
    Batch {
        /// Keys with their new value; none: removed.
        changes: Vec<(Key, Option<Value>)>,
    },
    /// Read a range of one partition.
    Scan {
        /// First key (inclusive); with an empty name after the `/`: the beginning of the partition.
        from: Key,
        /// End (exclusive); none: the end of the partition.
        to: Option<Key>,
        /// Most items wanted.
        limit: u64,
        /// Begin at the end.
        reverse: bool,
        /// It may be stale.
        local: bool,
    },
    /// An operation of another workload, kept as it stands in the file.
    Other {
        /// Workload.
        w: String,
        /// Operation.
        f: String,
        /// Key.
        key: Json,
        /// Argument.
        value: Json,
    },
}

/// What a client was answered. Revisions are none when the store did not say.
#[derive(Clone, Debug, PartialEq)]
pub enum Done {
    /// Put or batch.
    Written {
        /// Revision of the change.
        revision: Option<u64>,
    },
    /// Delete.
    Deleted {
        /// Whether the key was there.
        existed: Option<bool>,
        /// Revision of the change.
        revision: Option<u64>,
    },
    /// Compare-and-set, by value or revision.
    Compared {
        /// Whether it took place.
        swapped: bool,
        /// The key's revision now; 0: absent.
        revision: Option<u64>,
    },
    /// Get.
    Value(Option<(Value, Option<u64>)>),
    /// Scan.
    Page {
        /// In the order asked for.
        items: Vec<(Key, Value, Option<u64>)>,
        /// It ended before the range did.
        more: bool,
        /// Revision of the snapshot.
        revision: Option<u64>,
    },
    /// An answer of another workload, kept as it stands in the file.
    Other(Json),
}

/// A key with its partition, as `partition/key`. Without a `/` the partition has the empty name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

impl Key {
    /// A key of a partition (whose name has no `/`).
    #[must_use]
    pub fn new(partition: &str, name: &str) -> Self {
        assert!(!partition.contains('/'), "{partition:?} must not hold a /");
        Self(format!("{partition}/{name}").into())
    }

    /// A key as it stands in a history.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self(text.into())
    }

    /// As it stands in a history.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The partition's name.
    #[must_use]
    pub fn partition(&self) -> &str {
        self.0.split_once('/').map_or("", |(partition, _)| partition)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value: the simulator writes numbers; anything else found in the store is shown as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// What the simulator writes.
    Number(u64),
    /// Anything else.
    Text(Arc<str>),
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{text:?}"),
        }
    }
}

/// An operation from end to end.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Operation<'h> {
    /// Who.
    pub process: ProcessId,
    /// The node that was asked.
    pub node: Option<u64>,
    /// Index of the invoke.
    pub invoked: u64,
    /// Index of the completion; none: still open at the end of the history.
    pub completed: Option<u64>,
    /// What was asked.
    pub op: &'h Op,
    /// What became of it.
    pub outcome: Outcome<'h>,
}

/// What became of an operation.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Outcome<'h> {
    /// Happened.
    Ok(&'h Done),
    /// Did not happen and never will.
    Fail,
    /// Unknown.
    Info,
}

impl fmt::Display for Operation<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.invoked)?;
        match self.completed {
            Some(at) => write!(f, "..#{at}")?,
            None => f.write_str("..")?,
        }
        write!(f, " process {}: {}", self.process, self.op)?;
        match self.outcome {
            Outcome::Ok(done) => write!(f, " -> {done}"),
            Outcome::Fail => f.write_str(" -> fail"),
            Outcome::Info => f.write_str(" -> info (unknown)"),
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Put { key, value } => write!(f, "put {key} = {value}"),
            Self::Get { key, local } => write!(f, "get{} {key}", local_word(*local)),
            Self::Delete { key } => write!(f, "del {key}"),
            Self::Cas { key, old, new } => {
                write!(f, "cas {key} {} to {}", Shown(old), Shown(new))
            }
            Self::CasRev { key, revision, new } => {
                write!(f, "cas {key} at v{revision} to {}", Shown(new))
            }
            Self::Batch { changes } => {
                f.write_str("batch")?;
                for (key, value) in changes {
                    write!(f, " {key} = {}", Shown(value))?;
                }
                Ok(())
            }
            Self::Scan { from, to, limit, reverse, local } => {
                write!(f, "scan{} {from} to ", local_word(*local))?;
                match to {
                    Some(to) => write!(f, "{to}")?,
                    None => f.write_str("the end")?,
                }
                let direction = if *reverse { ", backwards" } else { "" };
                write!(f, ", limit {limit}{direction}")
            }
            Self::Other { w, f: name, .. } => write!(f, "{w} {name}"),
        }
    }
}

impl fmt::Display for Done {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |f: &mut fmt::Formatter<'_>, revision: &Option<u64>| match revision {
            Some(revision) => write!(f, " at v{revision}"),
            None => Ok(()),
        };
        match self {
            Self::Written { revision } => {
                f.write_str("done")?;
                at(f, revision)
            }
            Self::Deleted { existed, revision } => {
                f.write_str(match existed {
                    Some(true) => "removed",
                    Some(false) => "was not there",
                    None => "done",
                })?;
                at(f, revision)
            }
            Self::Compared { swapped, revision } => {
                write!(f, "{swapped}")?;
                at(f, revision)
            }
            Self::Value(None) => f.write_str("absent"),
            Self::Value(Some((value, revision))) => {
                write!(f, "{value}")?;
                at(f, revision)
            }
            Self::Page { items, more, revision } => {
                f.write_str("[")?;
                for (key, value, revision) in items {
                    write!(f, " {key} = {value}")?;
                    at(f, revision)?;
                }
                f.write_str(if *more { " ...]" } else { " ]" })?;
                at(f, revision)
            }
            Self::Other(value) => write!(f, "{value}"),
        }
    }
}

struct Shown<'a>(&'a Option<Value>);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(value) => write!(f, "{value}"),
            None => f.write_str("absent"),
        }
    }
}

fn local_word(local: bool) -> &'static str {
    if local { " (local)" } else { "" }
}

#[cfg(test)]
mod tests;
