//! The store on disk, and the thread that works on a store.

use std::fs::{self, File};
use std::io::{self, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable,
};
use ring_core::ids::len_u64;
use ring_core::io::Input;
use ring_core::shard::Worker;
use ring_core::store::{Store, StoreDone, StoreError, StoreTask, View, WriteBatch};

use crate::mailbox::{Closed, Mailbox, Taken};
use crate::shared::{Item, Shared, panic_text};

/// Works until the mailbox is closed and empty, or the store has failed. Nothing is done once the
/// node is sealed.
pub(crate) fn run<S: Store>(
    mut worker: Worker<S>,
    place: &Path,
    tasks: &Mailbox<StoreTask>,
    shared: &Shared,
) {
    let worked = catch_unwind(AssertUnwindSafe(|| {
        let mut taken = Vec::new();
        while tasks.take(&mut taken, None) != Taken::Closed {
            if shared.is_sealed() {
                return;
            }
            let mut done = Vec::new();
            worker.run(taken.drain(..), &mut done);
            let mut failed = false;
            for done in &mut done {
                if let StoreDone::Failed { problem } = done {
                    *problem = format!("{}: {problem}", place.display());
                    tracing::error!(problem, "the store failed");
                    failed = true;
                }
            }
            if !done.is_empty() {
                // The node may have ended meanwhile.
                let _: Result<(), Closed> = shared.put(Item::Store(done), 0);
            }
            if failed {
                return;
            }
        }
    }));
    if let Err(panic) = worked {
        let problem = format!("a defect of libring: {}", panic_text(&*panic));
        tracing::error!(problem, "the store failed");
        shared.tell(Input::Store(StoreDone::Failed { problem }));
    }
}

/// An ordered store in a directory.
///
/// What it is told to do without, because the member's own log does it or because an idle member
/// must stay small: its journal is neither compressed nor written out before `sync`; tables are not
/// compressed; one thread flushes and compacts; 4 MiB of cached blocks, memtables of 16 MiB, 256
/// open files, the smallest journal that it allows.
pub(crate) struct FjallStore {
    database: Database,
    keys: Keyspace,
    place: Place,
}

impl FjallStore {
    /// Opens a store, or makes one.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let place = Place(path.into());
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(FILES))
            .worker_threads(1)
            .manual_journal_persist(true)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(|e| place.problem(&e))?;
        let keys = database.keyspace("keys", options).map_err(|e| place.problem(&e))?;
        Ok(Self { database, keys, place })
    }

    /// Makes an empty store, durably.
    pub(crate) fn make(path: &Path) -> Result<(), StoreError> {
        Self::open(path)?.sync()
    }
}

impl View for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.keys.get(key).map_err(|e| self.place.problem(&e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from < to {
            show(self.keys.range(from..to), reverse, visit).map_err(|e| self.place.problem(&e))
        } else {
            Ok(())
        }
    }
}

impl Store for FjallStore {
    type Snapshot = FjallSnapshot;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut writes = self.database.batch();
        // All writes of a batch get one number in the store, which orders only different keys then:
        // of the writes of one key the last is kept.
        let mut changes = batch.writes;
        changes.sort_by(|a, b| a.0.cmp(&b.0));
        let mut changes = changes.into_iter().peekable();
        while let Some((key, value)) = changes.next() {
            if changes.peek().is_some_and(|next| next.0 == key) {
                continue;
            }
            match value {
                Some(value) => writes.insert(&self.keys, &*key, &*value),
                None => writes.remove(&self.keys, &*key),
            }
        }
        writes.commit().map_err(|e| self.place.problem(&e))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| self.place.problem(&e))
    }

    fn snapshot(&self) -> FjallSnapshot {
        FjallSnapshot {
            snapshot: self.database.snapshot(),
            keys: self.keys.clone(),
            place: self.place.clone(),
        }
    }
}

/// A state of the store that later writes do not change.
pub(crate) struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    keys: Keyspace,
    place: Place,
}

impl View for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.snapshot.get(&self.keys, key).map_err(|e| self.place.problem(&e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from < to {
            let range = self.snapshot.range(&self.keys, from..to);
            show(range, reverse, visit).map_err(|e| self.place.problem(&e))
        } else {
            Ok(())
        }
    }
}

fn show(
    mut range: impl DoubleEndedIterator<Item = Guard>,
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), fjall::Error> {
    while let Some(guard) = if reverse { range.next_back() } else { range.next() } {
        let (key, value) = guard.into_inner()?;
        if !visit(&key, &value) {
            break;
        }
    }
    Ok(())
}

fn options() -> KeyspaceCreateOptions {
    let bloom = FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(10.0));
    KeyspaceCreateOptions::default()
        .manual_journal_persist(true)
        .max_memtable_size(MEMTABLE_BYTES)
        .data_block_compression_policy(CompressionPolicy::disabled())
        .index_block_compression_policy(CompressionPolicy::disabled())
        .filter_policy(FilterPolicy::all(bloom))
}

/// Where a store is, to look there when something goes wrong.
#[derive(Clone)]
struct Place(Arc<Path>);

impl Place {
    /// What the store says went wrong.
    fn problem(&self, error: &fjall::Error) -> StoreError {
        StoreError(if let fjall::Error::Io(io) = error {
            io.to_string()
        } else if let fjall::Error::Poisoned = error {
            self.why_poisoned()
        } else {
            format!("{error:?}")
        })
    }

    /// The store stops at its first failure, and so do we, with what it says. Only that of its own
    /// thread, which flushes and compacts, it keeps to itself: the disk is asked once more for what
    /// it refused.
    fn why_poisoned(&self) -> String {
        match self.try_disk() {
            Err(e) => format!("cannot flush: {e}"),
            Ok(()) => {
                "flushing or compacting failed; the disk has room and takes writes now".into()
            }
        }
    }

    /// Writes as much as a flush does, beside the store.
    fn try_disk(&self) -> io::Result<()> {
        let path = self.0.with_extension("probe");
        let written = File::create(&path).and_then(|mut file| {
            let zeros = vec![0; 1 << 20];
            let mut left = MEMTABLE_BYTES;
            while left > 0 {
                file.write_all(&zeros)?;
                left = left.saturating_sub(len_u64(zeros.len()));
            }
            file.sync_all()
        });
        // What cannot be removed now is written over by the next one.
        let _: io::Result<()> = fs::remove_file(&path);
        written
    }
}

const CACHE_BYTES: u64 = 4 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 64 << 20;
const FILES: usize = 256;

#[cfg(test)]
mod tests;
