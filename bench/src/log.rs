//! `bench log`: appending to the log durably, through libring's log thread, beside a bare loop of write and
//! `fdatasync`.
//!
//! So many writers each append one entry and wait until it is durable, again and again. As in a node, the entries of
//! all that wait make one batch, which the log thread encodes, writes and syncs. The bare loop writes as many
//! bytes from a ready buffer and syncs, in this thread: what it reaches is what the disk allows. A third loop does
//! the same into a file whose blocks were written before: what a log could gain that recycles its files.
//!
//! What it does not show: the core thread's work, the store, segments that end (each costs two more syncs in 64 MiB).

use std::fs::{File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use libring::bench::LogThread;
use ring_core::ids::{GroupId, LogIndex, ReplicaId, Term};
use ring_core::raft::message::{Entry, EntryBody};
use ring_core::storage::record::{Batch, Checkpoint, Record};
use ring_core::storage::{Log, Tail};
use serde_json::json;

use crate::process::Directory;
use crate::report::{Columns, Section, float, median, show};

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) writers: Vec<u64>,
    /// Bytes of an entry's data.
    pub(crate) bytes: usize,
    pub(crate) window: Duration,
    pub(crate) rounds: usize,
    /// Where data directories are made.
    pub(crate) data: PathBuf,
}

/// One measurement of one round.
#[derive(Clone, Copy, Debug)]
struct Measured {
    /// Entries made durable a second.
    per_second: f64,
    /// Microseconds from append to durable.
    p50: f64,
    p99: f64,
}

/// Measures, in turns.
pub(crate) fn run(plan: &Plan) -> Result<Section, String> {
    let mut table = Columns::new(&[
        "writers",
        "appends/s",
        "p50 ms",
        "p99 ms",
        "bare loop",
        "p50 ms",
        "p99 ms",
        "ratio",
        "written before",
    ]);
    let mut figures = Vec::new();
    for &writers in &plan.writers {
        let mut rounds: Vec<[Measured; 3]> = Vec::new();
        for _ in 0..plan.rounds {
            let problem = |e: io::Error| format!("the bare loop failed: {e}");
            let (ours, len) = through_the_log(plan, writers)?;
            let bare = bare(plan, writers, len, false).map_err(problem)?;
            rounds.push([ours, bare, self::bare(plan, writers, len, true).map_err(problem)?]);
        }
        let of = |figure: fn(&[Measured; 3]) -> f64| show(median(rounds.iter().map(figure)));
        table.rows.push(vec![
            writers.to_string(),
            of(|m| m[0].per_second),
            of(|m| m[0].p50 / 1e3),
            of(|m| m[0].p99 / 1e3),
            of(|m| m[1].per_second),
            of(|m| m[1].p50 / 1e3),
            of(|m| m[1].p99 / 1e3),
            of(|m| m[0].per_second / m[1].per_second),
            of(|m| m[2].per_second),
        ]);
        figures.extend(rounds.iter().enumerate().map(|(round, [ours, bare, before])| {
            json!({
                "writers": writers, "round": round, "per_second": ours.per_second,
                "p50_us": ours.p50, "p99_us": ours.p99, "bare_per_second": bare.per_second,
                "bare_p50_us": bare.p50, "bare_p99_us": bare.p99,
                "written_before_per_second": before.per_second,
            })
        }));
    }
    Ok(Section {
        name: String::from("log"),
        title: String::from("durable appends through the log thread, beside write and fdatasync"),
        about: vec![
            format!(
                "Entries of {} bytes; all that wait share one batch and one sync. The bare loop \
                 writes the same bytes; `written before`: into blocks that exist already.",
                plan.bytes
            ),
            format!(
                "Medians of {} rounds of {} s in turn; the ratio is the median of the rounds' \
                 ratios.",
                plan.rounds,
                plan.window.as_secs_f64()
            ),
        ],
        tables: vec![table],
        notes: Vec::new(),
        figures: figures.into(),
    })
}

/// Also says how many bytes a batch took.
fn through_the_log(plan: &Plan, writers: u64) -> Result<(Measured, usize), String> {
    let dir = Directory::new(&plan.data, "log")?;
    let mut thread = LogThread::start(dir.path());
    let mut entries = Entries::new(plan.bytes);
    let mut append = || -> Result<usize, String> {
        let batch = entries.batch(writers);
        let len = usize::try_from(batch.len).unwrap_or(0);
        let seq = batch.seq;
        thread.append(batch);
        while thread.stored()? < seq {}
        Ok(len)
    };
    let mut len = 0;
    let measured = loop_for(plan.window, writers, || {
        len = append()?;
        Ok(())
    });
    measured.map(|measured| (measured, len))
}

/// The same bytes, without anything around them.
fn bare(plan: &Plan, writers: u64, len: usize, written_before: bool) -> io::Result<Measured> {
    let dir = Directory::new(&plan.data, "bare").map_err(io::Error::other)?;
    let mut file = create(&dir.path().join("log"), written_before)?;
    let bytes = vec![7; len];
    let mut at = 0;
    let measured = loop_for(plan.window, writers, || {
        if written_before && at + len > WRITTEN_BEFORE {
            file.seek(SeekFrom::Start(0)).map_err(|e| e.to_string())?;
            at = 0;
        }
        at += len;
        file.write_all(&bytes).and_then(|()| file.sync_data()).map_err(|e| e.to_string())
    });
    measured.map_err(io::Error::other)
}

fn create(path: &Path, written_before: bool) -> io::Result<File> {
    let mut file = OpenOptions::new().create_new(true).write(true).open(path)?;
    if written_before {
        let zeros = vec![0; 1 << 20];
        for _ in 0..WRITTEN_BEFORE >> 20 {
            file.write_all(&zeros)?;
        }
        file.sync_all()?;
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(file)
}

/// Every turn makes one entry of each writer durable.
fn loop_for(
    window: Duration,
    writers: u64,
    mut turn: impl FnMut() -> Result<(), String>,
) -> Result<Measured, String> {
    for _ in 0..WARMUP_TURNS {
        turn()?;
    }
    let mut micros = Vec::new();
    let begin = Instant::now();
    while begin.elapsed() < window {
        let began = Instant::now();
        turn()?;
        micros.push(began.elapsed().as_secs_f64() * 1e6);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let turns = float(u64::try_from(micros.len()).unwrap_or(0));
    micros.sort_by(f64::total_cmp);
    let at = |percent: usize| micros.get(micros.len() * percent / 100).copied().unwrap_or(0.0);
    Ok(Measured { per_second: turns * float(writers) / seconds, p50: at(50), p99: at(99) })
}

/// Makes batches as a node with 64 groups would.
struct Entries {
    log: Log,
    data: Bytes,
    /// The last index of each group.
    last: Vec<u64>,
}

impl Entries {
    fn new(bytes: usize) -> Self {
        let mut log = Log::new(&Tail::default(), u64::MAX);
        log.open_segment(Checkpoint::default());
        Self { log, data: Bytes::from(vec![7; bytes]), last: vec![0; GROUPS] }
    }

    fn batch(&mut self, writers: u64) -> Batch {
        let groups = u64::try_from(GROUPS).expect("few").min(writers);
        for (group, last) in (1..).zip(&mut self.last).take(usize::try_from(groups).expect("few")) {
            let count = writers / groups + u64::from(u64::from(group) <= writers % groups);
            let entries = (1..=count).map(|k| Entry {
                index: LogIndex(*last + k),
                term: Term(1),
                body: EntryBody::Data(self.data.clone()),
            });
            let entries = entries.collect();
            *last += count;
            let (group, replica) = (GroupId(group), ReplicaId(1));
            self.log.push(Record::Entries { group, replica, entries });
        }
        self.log.seal().expect("records were pushed")
    }
}

const GROUPS: usize = 64;
const WARMUP_TURNS: usize = 20;
const WRITTEN_BEFORE: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_writer_has_an_entry_in_a_batch() {
        let mut entries = Entries::new(10);
        for writers in [1, 64, 100, 256] {
            let batch = entries.batch(writers);
            let count = |record: &Record| match record {
                Record::Entries { entries, .. } => entries.len(),
                Record::Birth { .. }
                | Record::Genesis(_)
                | Record::Founded
                | Record::Released
                | Record::Boot(_)
                | Record::PeerBoot { .. }
                | Record::Table(_)
                | Record::Vote { .. }
                | Record::Cut { .. }
                | Record::Replica { .. }
                | Record::Dropped { .. }
                | Record::Checkpoint(_) => 0,
            };
            let total: usize = batch.records.iter().map(count).sum();
            assert_eq!(u64::try_from(total), Ok(writers));
        }
    }
}
