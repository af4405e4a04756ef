//! How fast this member sends snapshots to replicas elsewhere.
//!
//! They take processor, disk and connections from the calls under way, on this member and on the one that catches up. So they
//! share one budget a member ([`Limits::transfer_bytes`](crate::config::Limits::transfer_bytes)), and one chunk at a time
//! takes from it. It is meant for a member that is called; where nobody has called for a while each byte counts for an eighth, so
//! that a cluster at rest moves its data soon. First come the chunks of the snapshot that began first: that one ends soonest,
//! and the log behind it can be cut again. All at once would all take long, and each log grow meanwhile.
//!
//! Some wait for nothing, and nothing is counted for them:
//!
//! 1. Snapshots whose log fills half of what may be kept: a snapshot whose log is cut before it has arrived is in vain, and a
//!    budget that is too small for the load would repeat it for ever.
//! 2. Snapshots for a voter: its group may be able to commit nothing until it has arrived.
//!
//! The log itself is not paced. What a learner lacks when its snapshot has arrived is kept for it
//! ([`Raft::needed_index`](crate::raft::Raft::needed_index)) and follows as fast as it takes it: were it to wait, it could
//! fall behind the cut again.
//!
//! The store is asked for one chunk at a time, so no call waits there behind more than one.
//!
//! Limits: each sender keeps to its own budget, and the one that receives asks each as fast as its store goes; as many may
//! send to it at once as groups change their members at once ([`Limits::moves`](crate::config::Limits::moves)).

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::Node;
use crate::budget::Budget;
use crate::ids::{GroupId, SnapshotId};
use crate::io::Output;
use crate::store::StoreTask;
use crate::time::Instant;

/// The snapshots that this member sends. Lost chunks that are sent again are not counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Transfers {
    /// Snapshots that the store has open, each with its group and when it began, counted.
    open: BTreeMap<SnapshotId, (GroupId, u64)>,
    begun: u64,
    /// Snapshots that wait for a place among them.
    waiting: VecDeque<(SnapshotId, GroupId)>,
    /// Chunks to be read: at most one a snapshot.
    chunks: BTreeMap<SnapshotId, u64>,
    /// The store reads one; whether it is counted. It answers each, whatever becomes of the snapshot.
    reading: Option<bool>,
    budget: Budget,
    /// When a call last came to a group that this member leads.
    called: Instant,
}

/// A member is at rest when nobody has called it for so long.
const CALLED: Duration = Duration::from_millis(100);
/// So many times the rate is sent then.
const AT_REST: usize = 8;
/// Most snapshots sent at once. The store keeps sixteen open: one more, and each would push another out.
const SENDING_MAX: usize = 8;

impl Transfers {
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            open: BTreeMap::new(),
            begun: 0,
            waiting: VecDeque::new(),
            chunks: BTreeMap::new(),
            reading: None,
            budget: Budget::new(bytes_per_second),
            called: Instant(0),
        }
    }

    /// A caller wants something of this member.
    pub(super) fn on_call(&mut self, now: Instant) {
        self.called = now;
    }

    fn spend(&mut self, now: Instant, bytes: usize) {
        let is_called = now.since(self.called) < CALLED;
        let counted = if is_called { bytes } else { bytes.div_ceil(AT_REST) };
        self.budget.spend(now, counted);
    }

    /// The group of a snapshot that is being sent.
    pub(super) fn group_of(&self, snapshot: SnapshotId) -> Option<GroupId> {
        self.open.get(&snapshot).map(|&(group, _)| group)
    }

    /// A chunk is to be sent. The first one waits for a place.
    pub(super) fn want_chunk(&mut self, group: GroupId, snapshot: SnapshotId, chunk: u64) {
        if self.open.contains_key(&snapshot) {
            self.chunks.insert(snapshot, chunk);
        } else {
            self.waiting.push_back((snapshot, group));
            self.open_waiting();
        }
    }

    /// A snapshot is no longer sent. True if the store has it open.
    pub(super) fn end(&mut self, snapshot: SnapshotId) -> bool {
        self.waiting.retain(|&(waiting, _)| waiting != snapshot);
        let was_open = self.open.remove(&snapshot).is_some();
        self.chunks.remove(&snapshot);
        self.open_waiting();
        was_open
    }

    /// A group's replica is gone: its snapshots that the store has open.
    pub(super) fn end_group(&mut self, group: GroupId) -> Vec<SnapshotId> {
        self.waiting.retain(|&(_, waiting)| waiting != group);
        let gone = self.open.extract_if(.., |_, (of, _)| *of == group);
        let gone: Vec<SnapshotId> = gone.map(|(snapshot, _)| snapshot).collect();
        for snapshot in &gone {
            self.chunks.remove(snapshot);
        }
        self.open_waiting();
        gone
    }

    fn open_waiting(&mut self) {
        while self.open.len() < SENDING_MAX
            && let Some((snapshot, group)) = self.waiting.pop_front()
        {
            self.begun += 1;
            self.open.insert(snapshot, (group, self.begun));
            self.chunks.insert(snapshot, 0);
        }
    }

    /// The store has read a chunk.
    pub(super) fn on_loaded(&mut self, now: Instant, bytes: usize) {
        if self.reading.take() == Some(true) {
            self.spend(now, bytes);
        }
    }

    /// The chunk that is to be read now.
    fn next_chunk(
        &mut self,
        now: Instant,
        is_pressing: impl Fn(GroupId) -> bool,
    ) -> Option<(SnapshotId, GroupId, u64)> {
        if self.reading.is_some() {
            return None;
        }
        let is_free = self.budget.is_free(now);
        let found = self.chunks.iter().filter_map(|(&snapshot, &chunk)| {
            let (group, begun) = *self.open.get(&snapshot)?;
            let is_pressing = is_pressing(group);
            (is_free || is_pressing).then_some((!is_pressing, begun, snapshot, group, chunk))
        });
        let (is_counted, _, snapshot, group, chunk) = found.min()?;
        self.chunks.remove(&snapshot);
        self.reading = Some(is_counted);
        Some((snapshot, group, chunk))
    }

    /// When something that waits may go; none while nothing waits, or only for the store.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let waits = !self.chunks.is_empty() && self.reading.is_none();
        waits.then(|| self.budget.free_at())
    }
}

impl Node {
    /// The store is asked for the next chunk, if it is time.
    pub(super) fn load_next_chunk(&mut self, now: Instant) {
        let kept_max = self.log_memory_max() / 2;
        let groups = &self.groups;
        let is_pressing = |id| {
            groups.get(&id).is_some_and(|group| {
                group.raft.sends_to_voter() || group.raft.log().bytes() > kept_max
            })
        };
        if let Some((id, group, chunk)) = self.transfers.next_chunk(now, is_pressing) {
            self.outputs.0.push(Output::Store(StoreTask::Load { group, id, chunk }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn nobody(_: GroupId) -> bool {
        false
    }

    /// One chunk is read at a time, and the next when what was sent is paid for.
    #[test]
    fn a_chunk_waits_for_the_store_and_for_the_budget() {
        let mut transfers = Transfers::new(1000);
        let now = Instant(SECOND);
        transfers.on_call(now);
        transfers.want_chunk(GroupId(1), SnapshotId(7), 0);
        transfers.want_chunk(GroupId(2), SnapshotId(3), 0);
        assert!(transfers.deadline().is_some_and(|at| at <= now));

        assert_eq!(transfers.next_chunk(now, nobody), Some((SnapshotId(7), GroupId(1), 0)));
        assert_eq!(transfers.next_chunk(now, nobody), None, "the store reads one");
        assert_eq!(transfers.deadline(), None);
        transfers.on_loaded(now, 520);
        let paid = now + Duration::from_millis(500);
        assert_eq!(transfers.next_chunk(now, nobody), None);
        assert_eq!(transfers.deadline(), Some(paid), "20 ms were saved up");
        transfers.want_chunk(GroupId(1), SnapshotId(7), 1);
        assert_eq!(transfers.next_chunk(paid, nobody), Some((SnapshotId(7), GroupId(1), 1)));
    }

    /// The snapshot that began first comes first, unless the log of another one presses; that one waits for nothing.
    #[test]
    fn a_snapshot_that_its_log_outruns_does_not_wait() {
        let mut transfers = Transfers::new(1000);
        let now = Instant(SECOND);
        transfers.want_chunk(GroupId(1), SnapshotId(7), 0);
        transfers.want_chunk(GroupId(2), SnapshotId(3), 0);
        let second = |group| group == GroupId(2);
        assert_eq!(transfers.next_chunk(now, second), Some((SnapshotId(3), GroupId(2), 0)));
        transfers.on_loaded(now, 1_000_000);
        transfers.want_chunk(GroupId(2), SnapshotId(3), 1);
        assert_eq!(transfers.next_chunk(now, second), Some((SnapshotId(3), GroupId(2), 1)));
        transfers.on_loaded(now, 1_000_000);
        assert_eq!(
            transfers.next_chunk(now, second),
            Some((SnapshotId(7), GroupId(1), 0)),
            "nothing was counted for the other"
        );
        transfers.on_loaded(now, 1_000_000);
        transfers.want_chunk(GroupId(1), SnapshotId(7), 1);
        assert_eq!(transfers.next_chunk(now, second), None, "it has time");
        transfers.want_chunk(GroupId(2), SnapshotId(3), 2);
        assert_eq!(transfers.next_chunk(now, second), Some((SnapshotId(3), GroupId(2), 2)));
    }

    /// Eight times the rate while nobody calls; from the next call on no more than that.
    #[test]
    fn a_member_at_rest_sends_faster() {
        let mut transfers = Transfers::new(1000);
        let now = Instant(SECOND);
        for (called, millis) in [(None, 80), (Some(now), 980), (Some(now - CALLED), 80)] {
            transfers.budget = Budget::new(1000);
            if let Some(called) = called {
                transfers.on_call(called);
            }
            transfers.want_chunk(GroupId(1), SnapshotId(7), 0);
            assert!(transfers.next_chunk(now, nobody).is_some());
            transfers.on_loaded(now, if millis == 80 { 800 } else { 1000 });
            transfers.want_chunk(GroupId(1), SnapshotId(7), 1);
            assert_eq!(transfers.deadline(), Some(now + Duration::from_millis(millis)));
        }
    }

    /// A ninth snapshot begins when one of eight has ended; what has ended is not read.
    #[test]
    fn few_snapshots_are_open_at_once() {
        let mut transfers = Transfers::new(u64::MAX);
        for number in 1..=9 {
            transfers.want_chunk(GroupId(1), SnapshotId(number), 0);
        }
        assert_eq!(transfers.group_of(SnapshotId(9)), None);
        assert!(transfers.end(SnapshotId(1)) && !transfers.end(SnapshotId(1)));
        assert_eq!(transfers.group_of(SnapshotId(9)), Some(GroupId(1)));
        let mut read = Vec::new();
        while let Some((snapshot, _, 0)) = transfers.next_chunk(Instant(0), nobody) {
            read.push(snapshot.0);
            transfers.on_loaded(Instant(0), 1);
        }
        assert_eq!(read, [2, 3, 4, 5, 6, 7, 8, 9]);
        assert_eq!(transfers.end_group(GroupId(1)).len(), 8);
        assert_eq!(transfers.group_of(SnapshotId(9)), None);
    }
}
