//! The log thread: it writes what core appends and says what is durable.
//!
//! Everything that waits is written together and made durable by one sync (group commit): while one
//! sync runs, the next batches gather. A batch that opens a segment waits until the segment before
//! it is durable.
//!
//! After a write or sync that failed nothing is known about what is durable, and a sync that
//! "succeeds" later proves nothing: the system may have thrown the data away. So the log is never
//! touched again.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use ring_core::ids::{LogSeq, SegmentId, len_u64};
use ring_core::io::Input;
use ring_core::storage;
use ring_core::storage::record::Batch;

use crate::directory::{segment_ids, sync_directory};
use crate::mailbox::{Closed, Mailbox, Taken};
use crate::shared::{Item, Shared, panic_text};

/// What the log thread is asked to do.
#[derive(Debug)]
pub(crate) enum LogTask {
    Append(Batch),
    Discard { below: SegmentId },
}

/// Works until the mailbox is closed and empty, or the log has failed. Nothing is written once the
/// node is sealed.
pub(crate) fn run(mut writer: Writer<impl Disk>, tasks: &Mailbox<LogTask>, shared: &Shared) {
    let worked = catch_unwind(AssertUnwindSafe(|| {
        let mut taken = Vec::new();
        while tasks.take(&mut taken, None) != Taken::Closed {
            if shared.is_sealed() {
                break;
            }
            if let Some(upto) = writer.work_off(&mut taken)? {
                // The node may have ended meanwhile.
                let _: Result<(), Closed> = shared.put_here(Item::Stored { upto }, 0);
            }
        }
        Ok(())
    }));
    let problem = match worked {
        Ok(Ok(())) => return,
        Ok(Err(problem)) => problem,
        Err(panic) => format!("a defect of libring: {}", panic_text(&*panic)),
    };
    tracing::error!(problem, "the log failed");
    shared.tell(Input::LogFailed { problem });
}

/// What the log needs of a disk.
pub(crate) trait Disk {
    /// An open segment.
    type File;
    /// Makes a new, empty segment.
    fn create(&mut self, segment: SegmentId) -> io::Result<Self::File>;
    /// Writes at the end.
    fn write(&mut self, file: &mut Self::File, bytes: &[u8]) -> io::Result<()>;
    /// Makes a segment's bytes durable.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;
    /// Makes durable which segments there are.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes every segment before this one, oldest first.
    fn remove(&mut self, below: SegmentId) -> io::Result<()>;
    /// Names a segment, or the place of all, for messages.
    fn show(&self, segment: Option<SegmentId>) -> String;
}

/// Writes batches exactly where core decided.
#[derive(Debug)]
pub(crate) struct Writer<D: Disk> {
    disk: D,
    open: Option<Segment<D::File>>,
    /// Encoded and not yet written; always of the open segment.
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Segment<F> {
    id: SegmentId,
    file: F,
    /// Bytes in it, those in the buffer included.
    len: u64,
    /// Whether some of them are not durable.
    dirty: bool,
}

impl<D: Disk> Writer<D> {
    pub(crate) fn new(disk: D) -> Self {
        Self { disk, open: None, buffer: Vec::new() }
    }

    /// Carries out tasks, in order. Answers with the last batch, which is durable now.
    fn work_off(&mut self, tasks: &mut Vec<LogTask>) -> Result<Option<LogSeq>, String> {
        let mut last = None;
        for task in tasks.drain(..) {
            match task {
                LogTask::Append(batch) => {
                    last = Some(batch.seq);
                    self.append(&batch)?;
                }
                LogTask::Discard { below } => {
                    self.settle(false)?;
                    let removed = self.disk.remove(below).and_then(|()| self.disk.sync_names());
                    removed.map_err(|e| self.problem("remove old segments in", None, &e))?;
                }
            }
        }
        if last.is_some() {
            self.settle(false)?;
        }
        if self.buffer.capacity() > BUFFER_KEPT {
            self.buffer = Vec::new();
        }
        Ok(last)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), String> {
        if batch.opens.is_some() {
            self.settle(false)?;
            let file = self.disk.create(batch.segment);
            let file = file.map_err(|e| self.problem("create", Some(batch.segment), &e))?;
            tracing::debug!(segment = batch.segment.0, "log segment opened");
            self.open = Some(Segment { id: batch.segment, file, len: 0, dirty: false });
        }
        let segment = self.open.as_mut().expect("a run's first batch opens a segment");
        assert_eq!(segment.id, batch.segment, "batches come in the order of their segments");
        assert_eq!(segment.len, batch.offset, "batches stand one behind the other");
        let before = self.buffer.len();
        storage::encode_batch(batch, &mut self.buffer);
        let len = len_u64(self.buffer.len() - before);
        assert_eq!(len, batch.len, "core knows how long its batches are");
        segment.len += len;
        segment.dirty = true;
        if batch.opens.is_some() {
            self.settle(true)?;
        } else if self.buffer.len() > BUFFER_MOST {
            self.write()?;
        }
        Ok(())
    }

    /// Writes what is encoded and syncs the open segment; also its name when it is new.
    fn settle(&mut self, new: bool) -> Result<(), String> {
        self.write()?;
        let Some(segment) = self.open.as_mut().filter(|segment| segment.dirty) else {
            return Ok(());
        };
        let id = segment.id;
        segment.dirty = false;
        let synced = self.disk.sync(&mut segment.file);
        synced.map_err(|e| self.problem("sync", Some(id), &e))?;
        if new {
            let synced = self.disk.sync_names();
            synced.map_err(|e| self.problem("sync", None, &e))?;
        }
        Ok(())
    }

    fn write(&mut self) -> Result<(), String> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let segment = self.open.as_mut().expect("what is encoded belongs to a segment");
        let id = segment.id;
        let written = self.disk.write(&mut segment.file, &self.buffer);
        written.map_err(|e| self.problem("write", Some(id), &e))?;
        self.buffer.clear();
        Ok(())
    }

    fn problem(&self, attempt: &str, segment: Option<SegmentId>, error: &io::Error) -> String {
        let full = [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded];
        let hint = if full.contains(&error.kind()) {
            format!(" (free some space in {} first)", self.disk.show(None))
        } else {
            String::new()
        };
        format!("cannot {attempt} {}: {error}{hint}", self.disk.show(segment))
    }
}

/// Segments as files of a directory.
#[derive(Debug)]
pub(crate) struct Files {
    dir: PathBuf,
}

impl Files {
    pub(crate) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// Makes durable what was just read: a killed process leaves bytes that every reader sees and a
    /// power cut takes away. Only the last segment can hold such bytes.
    pub(crate) fn sync_last(&self, last: Option<SegmentId>) -> io::Result<()> {
        if let Some(last) = last {
            OpenOptions::new().write(true).open(self.path(last))?.sync_all()?;
        }
        sync_directory(&self.dir)
    }

    fn path(&self, segment: SegmentId) -> PathBuf {
        self.dir.join(storage::segment_name(segment))
    }
}

impl Disk for Files {
    type File = File;

    fn create(&mut self, segment: SegmentId) -> io::Result<File> {
        OpenOptions::new().create_new(true).append(true).open(self.path(segment))
    }

    fn write(&mut self, file: &mut File, bytes: &[u8]) -> io::Result<()> {
        file.write_all(bytes)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        sync_directory(&self.dir)
    }

    fn remove(&mut self, below: SegmentId) -> io::Result<()> {
        // Oldest first: after a crash in between there is no hole.
        for id in segment_ids(&self.dir)?.into_iter().filter(|id| *id < below) {
            fs::remove_file(self.path(id))?;
            tracing::debug!(segment = id.0, "log segment removed");
        }
        Ok(())
    }

    fn show(&self, segment: Option<SegmentId>) -> String {
        match segment {
            Some(segment) => self.path(segment).display().to_string(),
            None => self.dir.display().to_string(),
        }
    }
}

/// More encoded bytes than this are written before the rest is encoded.
const BUFFER_MOST: usize = 4 << 20;
/// A buffer that grew past this is given back.
const BUFFER_KEPT: usize = 256 << 10;

#[cfg(test)]
mod tests;
