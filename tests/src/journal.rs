//! What clients saw, as an independent record: a history of one JSON object a line, and what it
//! adds up to.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use libring::{Error, Revision};
use serde_json::{Map, Value, json};

use crate::{PATIENCE, lock};

/// The record of one run. Shared by all clients of the run.
#[derive(Debug)]
pub struct Journal {
    start: Instant,
    inner: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    file: BufWriter<File>,
    index: u64,
    processes: u64,
    tally: Tally,
    /// By partition: since when a write is waited for, and when one that began later was
    /// acknowledged.
    awaited: BTreeMap<String, (Instant, Option<Instant>)>,
}

/// What became of all puts so far.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// Acknowledged, in the order of their acknowledgement.
    pub acknowledged: Vec<Put>,
    /// At which revision of its partition each of them was.
    pub revisions: Vec<Revision>,
    /// May have happened.
    pub unknown: u64,
    /// Certainly did not happen: partition and key.
    pub failed: BTreeSet<(String, String)>,
}

/// A put of a key that no other put of the run names.
#[derive(Clone, PartialEq, Eq)]
pub struct Put {
    /// The partition.
    pub partition: String,
    /// The key.
    pub key: String,
    /// The value, unique in the run.
    pub value: String,
}

/// One logical client: one operation at a time.
#[derive(Debug)]
pub struct Process(u64);

impl Journal {
    /// Begins a history in a file. `meta` is what one needs to run it again.
    ///
    /// # Panics
    /// When the file cannot be written.
    #[must_use]
    pub fn create(path: &Path, meta: Value) -> Self {
        let file = File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let mut file = BufWriter::new(file);
        let mut line = json!({ "type": "meta", "v": 1, "w": "kv" });
        line["run"] = meta;
        writeln!(file, "{line}").expect("the history can be written");
        Self {
            start: Instant::now(),
            inner: Mutex::new(Inner {
                file,
                index: 0,
                processes: 0,
                tally: Tally::default(),
                awaited: BTreeMap::new(),
            }),
            changed: Condvar::new(),
        }
    }

    /// A new logical client.
    #[must_use]
    pub fn process(&self) -> Process {
        let mut inner = self.lock();
        inner.processes += 1;
        Process(inner.processes)
    }

    /// A put is about to be sent.
    pub fn invoke_put(&self, process: &Process, put: &Put) {
        let value = json!(put.value);
        self.event("invoke", |line| put.describe(process, value, line));
    }

    /// How it ended. Gives the client to go on with: one that does not know how its operation ended
    /// is never used again.
    #[must_use]
    pub fn end_put(
        &self,
        process: Process,
        put: Put,
        began: Instant,
        result: &Result<Revision, Error>,
    ) -> Process {
        let (kind, unknown) = match result {
            Ok(_) => ("ok", false),
            Err(e) if e.is_outcome_unknown() => ("info", true),
            Err(_) => ("fail", false),
        };
        let value = json!(put.value);
        self.event(kind, |line| {
            put.describe(&process, value, line);
            if let Err(e) = result {
                line.insert("error".into(), json!(e.to_string()));
            }
        });
        let mut inner = self.lock();
        match result {
            Ok(revision) => {
                if let Some((since, first)) = inner.awaited.get_mut(&put.partition)
                    && began >= *since
                {
                    first.get_or_insert_with(Instant::now);
                }
                inner.tally.acknowledged.push(put);
                inner.tally.revisions.push(*revision);
            }
            Err(_) if unknown => inner.tally.unknown += 1,
            Err(_) => {
                inner.tally.failed.insert((put.partition, put.key));
            }
        }
        drop(inner);
        self.changed.notify_all();
        if unknown { self.process() } else { process }
    }

    /// A get has answered.
    pub fn got(&self, process: &Process, put: &Put, found: Option<&str>) {
        for (kind, value) in [("invoke", Value::Null), ("ok", json!(found))] {
            self.event(kind, |line| {
                put.describe(process, value, line);
                line.insert("f".into(), json!("get"));
            });
        }
    }

    /// Something was done to the cluster.
    pub fn fault(&self, fault: &str, member: &str) {
        self.event("fault", |line| {
            line.insert("fault".into(), json!(fault));
            line.insert("member".into(), json!(member));
        });
    }

    /// What became of all puts so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.lock().tally.clone()
    }

    /// Waits until so many more puts are acknowledged.
    ///
    /// # Panics
    /// When [`PATIENCE`] ends first.
    pub fn wait_acknowledged(&self, more: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.lock();
        let wanted = inner.tally.acknowledged.len() + more;
        while inner.tally.acknowledged.len() < wanted {
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| {
                panic!("{more} more puts are not acknowledged within {PATIENCE:?}")
            });
            let woken = self.changed.wait_timeout(inner, left);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Number of acknowledged puts so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        self.lock().tally.acknowledged.len()
    }

    /// From now on, looks in these partitions for an acknowledged put that began later than now.
    pub fn await_puts(&self, partitions: &[String]) -> Instant {
        let now = Instant::now();
        self.lock().awaited = partitions.iter().map(|name| (name.clone(), (now, None))).collect();
        now
    }

    /// Waits until there was one in each of them; gives how long that took.
    ///
    /// # Panics
    /// When [`PATIENCE`] ends first.
    #[must_use]
    pub fn wait_puts(&self) -> Duration {
        let deadline = Instant::now() + PATIENCE;
        let mut inner = self.lock();
        loop {
            let took = inner
                .awaited
                .values()
                .map(|(since, first)| first.map(|first| first - *since))
                .try_fold(Duration::ZERO, |longest, took| Some(longest.max(took?)));
            if let Some(took) = took {
                return took;
            }
            let left = deadline.checked_duration_since(Instant::now());
            let left = left.unwrap_or_else(|| {
                let missing = inner.awaited.iter().filter(|(_, (_, first))| first.is_none());
                let missing: Vec<&String> = missing.map(|(name, _)| name).collect();
                panic!("no put is acknowledged in {missing:?} for {PATIENCE:?}")
            });
            let woken = self.changed.wait_timeout(inner, left);
            inner = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Writes out what is buffered.
    ///
    /// # Panics
    /// When the file cannot be written.
    pub fn flush(&self) {
        self.lock().file.flush().expect("the history can be written");
    }

    fn event(&self, kind: &str, describe: impl FnOnce(&mut Map<String, Value>)) {
        let mut inner = self.lock();
        let time = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let mut line = Map::new();
        line.insert("type".into(), json!(kind));
        line.insert("index".into(), json!(inner.index));
        line.insert("time".into(), json!(time));
        describe(&mut line);
        inner.index += 1;
        writeln!(inner.file, "{}", Value::from(line)).expect("the history can be written");
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.inner)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // The history of a test that failed is what one wants to read.
        drop(self.lock().file.flush());
    }
}

impl Tally {
    /// Compares what was promised with everything that is there.
    ///
    /// # Panics
    /// When a write that was acknowledged is not there, or one that certainly did not happen is.
    pub fn judge(&self, found: &BTreeMap<(String, String), String>) {
        for put in &self.acknowledged {
            let key = (put.partition.clone(), put.key.clone());
            assert_eq!(found.get(&key), Some(&put.value), "{put:?} was acknowledged");
        }
        for key in &self.failed {
            assert_eq!(found.get(key), None, "{key:?} certainly did not happen");
        }
    }
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Values can be long; their beginnings tell them apart.
        let begin: String = self.value.chars().take(40).collect();
        write!(f, "put {}/{} = {begin:?}", self.partition, self.key)
    }
}

impl Put {
    fn describe(&self, process: &Process, value: Value, line: &mut Map<String, Value>) {
        line.insert("process".into(), json!(process.0));
        line.insert("w".into(), json!("kv"));
        line.insert("f".into(), json!("put"));
        line.insert("key".into(), json!(format!("{}/{}", self.partition, self.key)));
        line.insert("value".into(), value);
    }
}
