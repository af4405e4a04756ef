//! The store on disk, and the thread that works on a store.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use bytes::Bytes;
use fjall::config::{BloomConstructionPolicy, CompressionPolicy, FilterPolicy, FilterPolicyEntry};
use fjall::{
    CompressionType, Database, Guard, Keyspace, KeyspaceCreateOptions, PersistMode, Readable,
};
use ring_core::io::Input;
use ring_core::shard::Worker;
use ring_core::store::{Store, StoreDone, StoreError, StoreTask, View, WriteBatch};

use crate::mailbox::{Closed, Mailbox, Taken};
use crate::shared::{Item, Shared, panic_text};

/// Works until the mailbox is closed and empty, or the store has failed. Nothing is done once the node is sealed.
pub(crate) fn run<S: Store>(mut worker: Worker<S>, tasks: &Mailbox<StoreTask>, shared: &Shared) {
    let worked = catch_unwind(AssertUnwindSafe(|| {
        let mut taken = Vec::new();
        while tasks.take(&mut taken, None) != Taken::Closed {
            if shared.is_sealed() {
                return;
            }
            let mut done = Vec::new();
            worker.run(taken.drain(..), &mut done);
            let failed = done.iter().any(|done| matches!(done, StoreDone::Failed { .. }));
            if !done.is_empty() {
                // The node may have ended meanwhile.
                let _: Result<(), Closed> = shared.put(Item::Store(done), 0);
            }
            if failed {
                tracing::error!("the store failed");
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
/// What it is told to do without, because the member's own log does it or because an idle member must stay small:
/// its journal is neither compressed nor written out before `sync`; tables are not compressed; one thread flushes
/// and compacts; 4 MiB of cached blocks, memtables of 16 MiB, 256 open files, the smallest journal that it allows.
pub(crate) struct FjallStore {
    database: Database,
    keys: Keyspace,
}

impl FjallStore {
    /// Opens a store, or makes one.
    pub(crate) fn open(path: &Path) -> Result<Self, StoreError> {
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_cached_files(Some(FILES))
            .worker_threads(1)
            .manual_journal_persist(true)
            .journal_compression(CompressionType::None)
            .max_journaling_size(JOURNAL_BYTES)
            .open()
            .map_err(|e| problem(&e))?;
        let keys = database.keyspace("keys", options).map_err(|e| problem(&e))?;
        Ok(Self { database, keys })
    }
}

impl FjallStore {
    /// Makes an empty store, durably.
    pub(crate) fn make(path: &Path) -> Result<(), StoreError> {
        Self::open(path)?.sync()
    }
}

impl View for FjallStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.keys.get(key).map_err(|e| problem(&e))?;
        Ok(found.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        if from < to { show(self.keys.range(from..to), reverse, visit) } else { Ok(()) }
    }
}

impl Store for FjallStore {
    type Snapshot = FjallSnapshot;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut writes = self.database.batch();
        // All writes of a batch get one number in the store, which orders only different keys then: of the writes
        // of one key the last is kept.
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
        writes.commit().map_err(|e| problem(&e))
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.database.persist(PersistMode::SyncAll).map_err(|e| problem(&e))
    }

    fn snapshot(&self) -> FjallSnapshot {
        FjallSnapshot { snapshot: self.database.snapshot(), keys: self.keys.clone() }
    }
}

/// A state of the store that later writes do not change.
pub(crate) struct FjallSnapshot {
    snapshot: fjall::Snapshot,
    keys: Keyspace,
}

impl View for FjallSnapshot {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let found = self.snapshot.get(&self.keys, key).map_err(|e| problem(&e))?;
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
            show(self.snapshot.range(&self.keys, from..to), reverse, visit)
        } else {
            Ok(())
        }
    }
}

fn show(
    mut range: impl DoubleEndedIterator<Item = Guard>,
    reverse: bool,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), StoreError> {
    while let Some(guard) = if reverse { range.next_back() } else { range.next() } {
        let (key, value) = guard.into_inner().map_err(|e| problem(&e))?;
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

/// What the store says went wrong, without its name.
fn problem(error: &fjall::Error) -> StoreError {
    StoreError(if let fjall::Error::Io(io) = error {
        io.to_string()
    } else if let fjall::Error::Poisoned = error {
        "a write or sync failed before".to_owned()
    } else {
        format!("{error:?}")
    })
}

const CACHE_BYTES: u64 = 4 << 20;
const MEMTABLE_BYTES: u64 = 16 << 20;
const JOURNAL_BYTES: u64 = 64 << 20;
const FILES: usize = 256;

#[cfg(test)]
mod tests;
