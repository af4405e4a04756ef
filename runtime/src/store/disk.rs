//! The store and its snapshots.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bytes::Bytes;
use ring_core::store::{Store, StoreError, SyncNumber, View, WriteBatch};

use crate::logger::Logger;

use super::flusher::{Flusher, Wake};
use super::levels::Levels;
use super::tables::{Recent, Tables};

/// An ordered store in a directory.
///
/// Invariants:
/// 1. A map is frozen after a whole batch, and maps are written out in order, each in one piece: what is in the
///    tables is what some number of batches left, the last of them a whole one.
/// 2. What is in a map hides what is in an older one, and in the tables.
pub(crate) struct DiskStore {
    recent: Recent,
    /// About what `recent` holds in memory...
    held: usize,
    /// ... and what it would hold if what was written over were gone. A write shares its memory with others of its
    /// time, which all keep it.
    live: usize,
    /// It is thinned or frozen when it holds so much.
    room: usize,
    /// Whether the last batch was a whole one.
    whole: bool,
    flusher: Arc<Flusher>,
    threads: Vec<JoinHandle<()>>,
}

impl DiskStore {
    /// Makes an empty store, durably.
    pub(crate) fn make(path: &Path) -> Result<(), StoreError> {
        Tables::make(path)
    }

    /// Opens a store. `wake` is called, on another thread, when [`Store::synced`] should be asked.
    pub(crate) fn open(path: &Path, wake: Wake, logger: &Logger) -> Result<Self, StoreError> {
        let flusher = Arc::new(Flusher::new(Tables::open(path)?, wake));
        let mut store = Self {
            recent: Recent::new(),
            held: 0,
            live: 0,
            room: RECENT_BYTES,
            whole: true,
            flusher,
            threads: Vec::new(),
        };
        let began = store.begin("ring-flush", logger, Flusher::flush_all);
        let began = began.and_then(|()| store.begin("ring-merge", logger, Flusher::merge_all));
        began.map_err(|e| StoreError(format!("cannot start a thread: {e}")))?;
        Ok(store)
    }

    /// Freezes its writes when they take so much memory.
    #[cfg(test)]
    pub(super) fn set_room(&mut self, bytes: usize) {
        self.room = bytes;
    }

    fn begin(&mut self, name: &str, logger: &Logger, work: fn(&Flusher)) -> io::Result<()> {
        let (flusher, logger) = (Arc::clone(&self.flusher), logger.clone());
        let thread = std::thread::Builder::new().name(name.into());
        self.threads.push(thread.spawn(move || logger.run(|| work(&flusher)))?);
        Ok(())
    }

    /// Gives back the memory of what was written over, by copying the rest: keys that are written again and again
    /// need not go to the disk each time.
    fn thin(&mut self) {
        let mut recent = Recent::new();
        for (key, value) in self.recent.iter() {
            let value = value.as_ref().map(|value| Bytes::copy_from_slice(value));
            recent.insert(Bytes::copy_from_slice(key), value);
        }
        self.recent = recent;
        self.held = self.live;
    }

    /// Freezes the recent writes, if there are any; the number of the last map that was.
    fn freeze(&mut self, most: usize) -> Result<SyncNumber, StoreError> {
        assert!(self.whole, "recent writes are frozen after a whole batch");
        if self.recent.is_empty() {
            return Ok(self.flusher.frozen());
        }
        (self.held, self.live) = (0, 0);
        self.flusher.freeze(std::mem::take(&mut self.recent), most)
    }
}

impl View for DiskStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.recent.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.flusher.levels().get(key),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.flusher.levels().scan(&self.recent, from, to, reverse, visit)
    }
}

impl Store for DiskStore {
    type Snapshot = DiskSnapshot;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        for (key, value) in batch.writes {
            let (key_len, len) = (key.len(), value.as_ref().map_or(0, Bytes::len));
            match self.recent.insert(key, value) {
                Some(before) => self.live -= before.map_or(0, |before| before.len()),
                None => {
                    self.live += key_len + ENTRY_BYTES;
                    self.held += ENTRY_BYTES;
                }
            }
            self.live += len;
            self.held += key_len + len;
        }
        self.whole = batch.whole;
        if self.held >= self.room {
            if self.live <= self.room / 2 {
                self.thin();
            } else if self.whole {
                self.freeze(FROZEN_MAX)?;
            }
        }
        Ok(())
    }

    fn wants_whole(&self) -> bool {
        self.held >= self.room
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let number = self.start_sync()?;
        self.flusher.wait(number)
    }

    fn start_sync(&mut self) -> Result<SyncNumber, StoreError> {
        // One more than writes may freeze, so that a sync begins without waiting for another.
        self.freeze(FROZEN_MAX + 1)
    }

    fn synced(&mut self) -> Result<SyncNumber, StoreError> {
        self.flusher.flushed()
    }

    fn snapshot(&self) -> DiskSnapshot {
        DiskSnapshot { recent: self.recent.clone(), levels: self.flusher.levels() }
    }
}

/// What is not yet in tables is lost: the member's log has it.
impl Drop for DiskStore {
    fn drop(&mut self) {
        self.flusher.stop();
        for thread in self.threads.drain(..) {
            // It catches its panics itself.
            let _: std::thread::Result<()> = thread.join();
        }
    }
}

/// A state of the store that later writes do not change.
pub(crate) struct DiskSnapshot {
    recent: Recent,
    levels: Arc<Levels>,
}

impl View for DiskSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.recent.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.levels.get(key),
        }
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.levels.scan(&self.recent, from, to, reverse, visit)
    }
}

/// Recent writes are thinned or frozen when they hold so much memory.
const RECENT_BYTES: usize = 16 << 20;
/// What an entry takes beside its key and its value.
const ENTRY_BYTES: usize = 112;
/// Writers wait while so many frozen maps wait to be written out.
const FROZEN_MAX: usize = 2;
