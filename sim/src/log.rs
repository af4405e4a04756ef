//! The log's files as one process writes them: group commit on the simulated disk.
//!
//! One round at a time: everything that waits is written and then synced together. A segment is synced whole before
//! the next one is made, and a new file's name is synced with its first batch, before `Stored` is said.

use std::collections::VecDeque;

use bytes::Bytes;
use ring_core::ids::{LogSeq, SegmentId, len_u64};
use ring_core::rng::Rng;
use ring_core::storage::record::Batch;
use ring_core::storage::{
    Recovered, RecoveryError, SegmentSource, encode_batch, parse_segment_name, recover,
    segment_name,
};

use crate::disk::{Disk, DiskError, Mark};
use crate::lock;
use crate::world::{Due, SimWorld};

/// What waits for the disk, and what is on its way to it.
#[derive(Default)]
pub(crate) struct LogWriter {
    queue: VecDeque<Batch>,
    busy: bool,
    failed: bool,
}

/// A step of a round.
pub(crate) enum LogEvent {
    /// The batches that wait are written.
    Write,
    /// The sync ends.
    Synced {
        /// The file.
        name: String,
        /// Whether the directory is synced too.
        new: bool,
        mark: Mark,
        upto: LogSeq,
    },
}

/// What the node is to be told.
pub(crate) enum LogAnswer {
    Nothing,
    Stored(LogSeq),
    Failed(DiskError),
}

impl LogWriter {
    pub(crate) fn append(&mut self, batch: Batch) {
        self.queue.push_back(batch);
    }

    /// Removes the files of all segments before this one.
    pub(crate) fn discard(disk: &mut Disk, below: SegmentId) {
        let old: Vec<String> = disk
            .names()
            .filter(|name| parse_segment_name(name).is_some_and(|id| id < below))
            .map(str::to_owned)
            .collect();
        for name in old {
            disk.remove(&name).expect("it was just listed");
        }
    }

    /// Writes what waits, up to the end of a segment.
    fn write(&mut self, disk: &mut Disk) -> Result<Option<LogEvent>, DiskError> {
        let mut round: Option<(SegmentId, LogSeq, bool)> = None;
        while let Some(batch) = self.queue.front() {
            let new = batch.opens.is_some();
            if new && round.is_some() {
                break;
            }
            let batch = self.queue.pop_front().expect("there is a first one");
            let name = segment_name(batch.segment);
            if new {
                disk.create(&name)?;
            }
            let mut bytes = Vec::new();
            encode_batch(&batch, &mut bytes);
            assert_eq!(len_u64(bytes.len()), batch.len, "core foresaw the length");
            disk.write(&name, batch.offset, Bytes::from(bytes))?;
            let was_new = round.is_some_and(|(_, _, new)| new);
            round = Some((batch.segment, batch.seq, new || was_new));
        }
        Ok(round.map(|(segment, upto, new)| LogEvent::Synced {
            name: segment_name(segment),
            new,
            mark: disk.mark(),
            upto,
        }))
    }
}

impl SimWorld {
    /// Begins a round if none is under way and something waits.
    pub(crate) fn start_log(&mut self) {
        if self.log.busy || self.log.failed || self.log.queue.is_empty() {
            return;
        }
        self.log.busy = true;
        let wait = match self.rng.chance(1, 8) {
            true => self.latency(self.sim.pace.sync / 4),
            false => 0,
        };
        self.at(self.now + wait, Due::Log(LogEvent::Write));
    }

    /// A step of a round is due.
    pub(crate) fn on_log(&mut self, event: LogEvent) -> LogAnswer {
        let sim = std::sync::Arc::clone(&self.sim);
        let disk = &mut *lock(&sim.machines[self.me].disk);
        let result = match event {
            LogEvent::Write => match self.log.write(disk) {
                Ok(Some(synced)) => {
                    let wait = self.latency(self.sim.pace.sync);
                    self.at(self.now + wait, Due::Log(synced));
                    return LogAnswer::Nothing;
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            },
            LogEvent::Synced { name, new, mark, upto } => {
                sync(disk, &name, new, mark, &mut self.rng).map(|()| Some(upto))
            }
        };
        self.log.busy = false;
        match result {
            Ok(None) => LogAnswer::Nothing,
            Ok(Some(upto)) => {
                sim.oracle(|oracle| oracle.on_stored(self.me, upto));
                LogAnswer::Stored(upto)
            }
            Err(error) => {
                self.log.failed = true;
                LogAnswer::Failed(error)
            }
        }
    }

    /// Now and then recovers a copy of the disk, as a power cut at this moment would leave it.
    pub(crate) fn sample_promise(&mut self) {
        let every = self.sim.pace.promise_sample;
        if every == 0 || !self.rng.chance(1, every) {
            return;
        }
        let mut copy = lock(&self.sim.machines[self.me].disk).clone();
        *copy.faults() = crate::disk::DiskFaults::default();
        copy.power_cut(&mut self.rng);
        let found = recover_disk(&copy);
        self.sim.oracle(|oracle| match found {
            Ok(log) => oracle.on_recovered(self.me, &log),
            Err(error) => oracle.fail(
                "RECOVER",
                format!("{}: after a power cut now: {error}", crate::world::member_id(self.me)),
            ),
        });
    }
}

fn sync(
    disk: &mut Disk,
    name: &str,
    new: bool,
    mark: Mark,
    rng: &mut Rng,
) -> Result<(), DiskError> {
    disk.sync_file(name, mark, rng)?;
    if new {
        disk.sync_dir(mark, rng)?;
    }
    Ok(())
}

/// What the log on a disk says.
pub(crate) fn recover_disk(disk: &Disk) -> Result<Recovered, RecoveryError> {
    recover(&mut Source(disk))
}

/// Makes everything durable that recovery has read: what only the cache holds must not be built on.
pub(crate) fn settle_disk(disk: &mut Disk, rng: &mut Rng) -> Result<(), DiskError> {
    let mark = disk.mark();
    let names: Vec<String> = disk.names().map(str::to_owned).collect();
    for name in names {
        disk.sync_file(&name, mark, rng)?;
    }
    disk.sync_dir(mark, rng)
}

struct Source<'a>(&'a Disk);

impl SegmentSource for Source<'_> {
    fn segments(&self) -> Vec<SegmentId> {
        self.0.names().filter_map(parse_segment_name).collect()
    }

    fn read(&mut self, segment: SegmentId) -> Result<Bytes, String> {
        let content = self.0.read(&segment_name(segment));
        content.map(Bytes::from).map_err(|e| e.to_string())
    }
}
