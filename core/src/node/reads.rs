//! What was asked of this member and is not answered.

use alloc::collections::BTreeMap;
use alloc::collections::btree_map::Iter;

use crate::ids::{CursorId, GroupId, LogIndex, MemberId, ReadId};
use crate::shard::command::Query;
use crate::time::Instant;

/// A read asked of this member and not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PendingRead {
    pub(super) asker: MemberId,
    pub(super) call: u64,
    pub(super) group: GroupId,
    pub(super) since: Instant,
    /// The scan that it begins or continues.
    pub(super) cursor: Option<CursorId>,
    /// It asks for changes.
    pub(super) is_watch: bool,
    /// Whether the store lets it wait for a change.
    pub(super) waits: bool,
    /// Whether it is a read of what this replica has.
    pub(super) is_local: bool,
    /// Of such a read: everything that was acknowledged before this moment was handed to the store before it.
    pub(super) known: Option<Instant>,
    pub(super) stage: ReadStage,
}

impl PendingRead {
    /// True when it was asked of a group and the store has not been asked yet.
    pub(super) fn is_waiting_for(&self, group: GroupId) -> bool {
        self.group == group && self.stage != ReadStage::Stored
    }
}

/// How far a read has come.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum ReadStage {
    /// The leader has yet to tell which index to wait for.
    Asked(Query),
    /// A local read: whether the replica is fresh is asked first, for a moment.
    Confirming(Query),
    /// The index is yet to be handed to the store.
    Waiting(LogIndex),
    /// The store has it, and will answer.
    Stored,
}

/// All of them. Those that wait for changes take no room from the others: they wait for seconds, and there are as many
/// as somebody watches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Reads {
    all: BTreeMap<ReadId, PendingRead>,
    watches: usize,
}

impl Reads {
    /// Whether there is room for one more, of so many that watch and as many that do not.
    pub(super) fn has_room(&self, is_watch: bool, most: usize) -> bool {
        let taken = if is_watch { self.watches } else { self.all.len() - self.watches };
        taken < most
    }

    pub(super) fn insert(&mut self, id: ReadId, read: PendingRead) {
        self.watches += usize::from(read.is_watch);
        let before = self.all.insert(id, read);
        assert!(before.is_none(), "an id is given once");
    }

    pub(super) fn remove(&mut self, id: ReadId) -> Option<PendingRead> {
        let read = self.all.remove(&id)?;
        self.watches -= usize::from(read.is_watch);
        Some(read)
    }

    pub(super) fn get(&self, id: ReadId) -> Option<&PendingRead> {
        self.all.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: ReadId) -> Option<&mut PendingRead> {
        self.all.get_mut(&id)
    }

    pub(super) fn iter(&self) -> Iter<'_, ReadId, PendingRead> {
        self.all.iter()
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&ReadId, &mut PendingRead)> {
        self.all.iter_mut()
    }
}
