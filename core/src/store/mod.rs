//! The store: an ordered map with atomic batches and consistent snapshots, which the world brings. Core never
//! touches it from its own thread: it hands out [`StoreTask`]s, and the world runs them, in order, on its store
//! thread through [`crate::shard::Worker`].

mod map;
mod memory;

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::ids::{CursorId, Epoch, GroupId, LogIndex, ReadId, SnapshotId, Term};
use crate::raft::message::{Entry, Membership};
use crate::shard::command::{Answer, ItemOutcome, Query};

pub use map::{Map, Range};
pub use memory::MemoryStore;

/// Reading side of a store or of a snapshot of it.
pub trait View {
    /// The value of a key.
    ///
    /// # Errors
    /// The disk could not be read, or what it holds is damaged.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Shows every key in `from..to` (from inclusive, to exclusive) in order, or in reverse order, until `visit`
    /// answers false.
    ///
    /// # Errors
    /// The disk could not be read, or what it holds is damaged.
    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;
}

/// An ordered map of byte strings. Keys are not empty.
///
/// Its contract: `write` is atomic; batches become durable in the order in which they were written; after a crash or
/// a power cut some prefix of them survives that ends with a [whole](WriteBatch::whole) batch, at least up to the
/// last `sync` that returned without an error. `write` itself need not reach the disk: the member's log holds
/// everything that no `sync` has covered.
pub trait Store: View {
    /// A view that later writes do not change.
    type Snapshot: View;

    /// Applies all writes of a batch, or none.
    ///
    /// # Errors
    /// The batch was not applied. The member stops using the store.
    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError>;

    /// Whether the next batch should be a whole one: what has been written since the last one waits in memory, and is
    /// enough. A store that says so before every batch is one that can stop after any.
    fn wants_whole(&self) -> bool {
        true
    }

    /// Makes everything written so far durable. The last batch was a whole one.
    ///
    /// # Errors
    /// Nothing is known about what is durable. The member stops using the store.
    fn sync(&mut self) -> Result<(), StoreError>;

    /// Begins to make everything written so far durable. Where that takes time, a store does it beside its other
    /// work and says in [`Store::synced`] when it is done; what is written meanwhile is no part of it. Without
    /// more than this a store syncs at once.
    ///
    /// # Errors
    /// As `sync`.
    fn start_sync(&mut self) -> Result<SyncNumber, StoreError> {
        self.sync()?;
        Ok(SyncNumber(0))
    }

    /// The last sync that is done: it and all before it. Cheap; asked after each round of tasks.
    ///
    /// # Errors
    /// As `sync`, also when something failed beside a sync.
    fn synced(&mut self) -> Result<SyncNumber, StoreError> {
        Ok(SyncNumber(0))
    }

    /// The present state, kept apart from later writes.
    fn snapshot(&self) -> Self::Snapshot;
}

/// Counts the syncs that a store has begun. Numbers never fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SyncNumber(pub u64);

/// Writes that happen together. A later one on a key wins over an earlier one. The bytes of many writes may share
/// one buffer: a store that keeps some of them for long copies them.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct WriteBatch {
    /// Keys with their new values; none removes.
    pub writes: Vec<(Bytes, Option<Bytes>)>,
    /// Whether the state after this batch makes sense by itself: the store may be found so after a crash. After any
    /// other batch it never is, since what the groups' data belongs to is not written yet.
    pub whole: bool,
}

/// The store failed: what happened and where, in the world's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreError(pub String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "store: {}", self.0)
    }
}

impl core::error::Error for StoreError {}

/// What core asks of the store thread. Tasks are carried out strictly in the order in which they were handed out:
/// a read that follows an apply sees it.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreTask {
    /// Makes an empty state for a group of which the store has none yet. Not answered.
    Create {
        /// The group.
        group: GroupId,
        /// Its first membership.
        membership: Membership,
    },
    /// Forgets a group's state, for ever; snapshots of it that are being sent or received too. Answered with
    /// [`StoreDone::Dropped`], also when there is none.
    Drop {
        /// The group.
        group: GroupId,
    },
    /// Applies committed entries: contiguous, each once. Answered with [`StoreDone::Applied`].
    Apply {
        /// The group.
        group: GroupId,
        /// The entries.
        entries: Vec<Entry>,
        /// Whether the outcomes are wanted (this member leads the group).
        answers: bool,
    },
    /// Asks a question. Answered with [`StoreDone::Read`].
    Read {
        /// Names the question.
        read: ReadId,
        /// The group.
        group: GroupId,
        /// The question.
        query: Query,
    },
    /// Forgets a scan's snapshot. Not answered.
    CloseCursor {
        /// The cursor.
        cursor: CursorId,
    },
    /// A question that waits for a change is answered now, with what there is: nothing. Answered with
    /// [`StoreDone::Read`], unless it was before.
    CloseWatch {
        /// The question.
        read: ReadId,
        /// The group it was asked of.
        group: GroupId,
    },
    /// Makes everything applied so far durable. Answered with [`StoreDone::Persisted`], perhaps long after tasks
    /// that came later.
    Persist,
    /// Reads a chunk of a group's state; chunk 0 opens the snapshot `id` (and forgets any other of this id), the
    /// next one after the last answered moves on, the last answered may be asked for again. Answered with
    /// [`StoreDone::Loaded`]; a chunk that the snapshot cannot give (it is closed, gave way to others, or is at
    /// another place) is answered with chunk 0 of a new one.
    Load {
        /// The group.
        group: GroupId,
        /// Names the snapshot.
        id: SnapshotId,
        /// Number of the chunk, from 0.
        chunk: u64,
    },
    /// Forgets a snapshot opened by `Load`. Not answered.
    CloseSnapshot {
        /// The snapshot.
        id: SnapshotId,
    },
    /// Writes a chunk of a received snapshot under a new epoch; chunk 0 begins anew and drops what an earlier,
    /// unfinished installation wrote. The last chunk makes it current together with its applied index; once all of that
    /// is durable, which may be long after tasks that came later, it is answered with [`StoreDone::Installed`] (as is a
    /// chunk of it that comes again after that). Until then nothing is applied to the group, and what is read of it is
    /// what it was. Other chunks are answered with [`StoreDone::Staged`].
    Install {
        /// The group.
        group: GroupId,
        /// Names the snapshot.
        id: SnapshotId,
        /// Number of the chunk, from 0.
        chunk: u64,
        /// As `Loaded` gave it on the sender.
        data: Bytes,
        /// True on the last chunk.
        last: bool,
    },
}

/// What the store thread answers.
#[derive(Clone, Debug, PartialEq)]
pub enum StoreDone {
    /// A group's state is forgotten; nothing that was asked for before concerns the group any more.
    Dropped {
        /// The group.
        group: GroupId,
    },
    /// Entries were applied.
    Applied {
        /// The group.
        group: GroupId,
        /// The last index applied.
        index: LogIndex,
        /// For each entry of the task in order, the outcomes of its items; empty when not asked for.
        outcomes: Vec<Vec<ItemOutcome>>,
        /// Hash over the group's whole history; equal on all replicas that have applied the same index.
        digest: u64,
        /// The shard time of the last entry.
        stamp: u64,
    },
    /// A question was answered.
    Read {
        /// The question.
        read: ReadId,
        /// The answer.
        answer: Answer,
    },
    /// The store is durable up to these applied indexes.
    Persisted {
        /// Every group with its applied index and the term and membership there.
        groups: Vec<StoreState>,
    },
    /// A chunk of a snapshot was read.
    Loaded {
        /// The snapshot.
        id: SnapshotId,
        /// Number of the chunk.
        chunk: u64,
        /// Its bytes.
        data: Bytes,
        /// True on the last chunk.
        last: bool,
        /// Where the snapshot stands.
        state: Box<StoreState>,
    },
    /// A chunk of a snapshot was written aside; or `chunk` was not the one expected, and `next` is.
    Staged {
        /// The group.
        group: GroupId,
        /// The snapshot.
        id: SnapshotId,
        /// The chunk wanted next.
        next: u64,
    },
    /// A snapshot was installed, durably.
    Installed {
        /// Where the group stands now.
        state: Box<StoreState>,
        /// The snapshot.
        id: SnapshotId,
    },
    /// A snapshot's bytes made no sense, or it is not newer than what is here; nothing changed, and the next chunk
    /// wanted is 0.
    InstallRefused {
        /// The group.
        group: GroupId,
        /// The snapshot.
        id: SnapshotId,
        /// What was wrong.
        problem: String,
    },
    /// The store failed, or an entry cannot be applied by this version; nothing more is done after this.
    Failed {
        /// What happened.
        problem: String,
    },
}

/// Where one group's state in the store stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoreState {
    /// The group.
    pub group: GroupId,
    /// The last index applied...
    pub index: LogIndex,
    /// ... and its term.
    pub term: Term,
    /// The membership in force at `index`.
    pub membership: Membership,
    /// Shard time of the last entry that had one.
    pub stamp: u64,
    /// Hash over the group's history.
    pub digest: u64,
    /// The epoch its keys are under.
    pub epoch: Epoch,
}
