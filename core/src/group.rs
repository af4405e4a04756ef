//! One replica of a shard on its member: the Raft replica, what its leader gathers for the next entry, who waits
//! for what, and where the store stands.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::mem;
use core::time::Duration;

use bytes::Bytes;

use crate::ids::{
    GroupId, LogIndex, LogSeq, MemberId, ReadId, ReplicaId, Seq, SessionId, Term, len_u64,
};
use crate::node::Freshness;
use crate::raft::message::EntryBody;
use crate::raft::{Effects, ProposeRefused, Raft};
use crate::shard::command::{Item, ItemOutcome, Payload, Query};
use crate::time::Instant;
use crate::wire::message::{GroupStatus, Message};

/// A shard's replica with everything around it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Group {
    pub(crate) raft: Raft,
    /// The last batch that holds a record of this replica: its promises wait for it.
    pub(crate) last_record: LogSeq,
    /// The last index that the store has applied.
    pub(crate) applied: LogIndex,
    /// Apply tasks that the store has not answered.
    pub(crate) applying: usize,
    /// Greatest shard time in the store.
    pub(crate) stamp: u64,
    /// Hash over the applied history, as the store says.
    pub(crate) digest: u64,
    /// The last index that the store holds durably.
    pub(crate) persisted: LogIndex,
    /// Bytes of the log in memory when the node last counted them.
    pub(crate) counted_bytes: usize,
    /// Bytes of waiting proposals when the node last counted them.
    pub(crate) counted_waiting: usize,
    staged: Vec<Staged>,
    staged_bytes: usize,
    proposed: VecDeque<Proposed>,
    proposed_bytes: usize,
    /// Commands in `staged` and `proposed`, so that a repeated one is not proposed twice at once.
    in_flight: BTreeSet<(SessionId, Seq)>,
    /// Shard time at the moment when this replica became leader, and that moment.
    clock: (u64, Instant),
    /// Since when the store has been handed all that was acknowledged before.
    pub(crate) freshness: Freshness,
    /// Local reads that wait for that to be newer.
    pub(crate) confirming: BTreeSet<ReadId>,
    /// Reads that wait for an index to be handed to the store.
    reads: BTreeMap<(LogIndex, ReadId), Query>,
    trail: Option<Trail>,
}

/// What was committed some time ago, as the leader of one term knew it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Trail {
    term: Term,
    /// Noted at `since`.
    newer: LogIndex,
    since: Instant,
    /// Noted a span or more before that.
    older: Option<LogIndex>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Staged {
    waiter: Waiter,
    item: Item<Bytes>,
    bytes: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Proposed {
    index: LogIndex,
    waiters: Vec<Waiter>,
    bytes: usize,
}

/// Who waits for the outcome of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Waiter {
    member: MemberId,
    what: Awaited,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Awaited {
    Open { nonce: u64 },
    Command { session: SessionId, seq: Seq },
}

/// Bytes that an item takes beyond its command.
const ITEM_OVERHEAD: usize = 32;

impl Group {
    pub(crate) fn new(
        raft: Raft,
        last_record: LogSeq,
        applied: LogIndex,
        stamp: u64,
        digest: u64,
    ) -> Self {
        Self {
            raft,
            last_record,
            applied,
            applying: 0,
            stamp,
            digest,
            persisted: applied,
            counted_bytes: 0,
            counted_waiting: 0,
            staged: Vec::new(),
            staged_bytes: 0,
            proposed: VecDeque::new(),
            proposed_bytes: 0,
            in_flight: BTreeSet::new(),
            clock: (0, Instant(0)),
            freshness: Freshness::default(),
            confirming: BTreeSet::new(),
            reads: BTreeMap::new(),
            trail: None,
        }
    }

    /// A leader notes what is committed, so that it can say later what was. With each tick.
    pub(crate) fn note_commit(&mut self, now: Instant, span: Duration) {
        if !self.raft.is_leader() {
            self.trail = None;
            return;
        }
        let (term, newer) = (self.raft.term(), self.raft.commit());
        match &mut self.trail {
            Some(trail) if trail.term == term => {
                if now.since(trail.since) >= span {
                    *trail = Trail { term, newer, since: now, older: Some(trail.newer) };
                }
            }
            _ => self.trail = Some(Trail { term, newer, since: now, older: None }),
        }
    }

    /// True when this replica leads and the other has all that is committed. Or all up to the membership in force, and
    /// all that was committed one to two spans ago ([`note_commit`](Self::note_commit)): under a steady load no follower
    /// ever has the last entry at the moment of the question, it is a round trip behind. One that is behind by a span
    /// makes that good in about a span (Ongaro's dissertation 4.2.1, whose rounds measure the same).
    pub(crate) fn has_caught_up(&self, replica: ReplicaId) -> bool {
        let older = self.trail.filter(|trail| trail.term == self.raft.term());
        let older = older.and_then(|trail| trail.older);
        let near = older.map(|older| older.max(self.raft.log().membership_index()));
        let commit = self.raft.commit();
        self.raft.holds(replica, near.map_or(commit, |near| near.min(commit)))
    }

    /// Gathers the opening of a session. False when there is no room.
    pub(crate) fn stage_open(&mut self, member: MemberId, nonce: u64, bytes_max: usize) -> bool {
        let waiter = Waiter { member, what: Awaited::Open { nonce } };
        if self.staged.iter().any(|staged| staged.waiter == waiter) {
            return true;
        }
        self.stage(waiter, Item::Open { member, nonce }, ITEM_OVERHEAD, bytes_max)
    }

    /// Gathers a command. False when there is no room.
    pub(crate) fn stage_command(
        &mut self,
        member: MemberId,
        session: SessionId,
        first: Seq,
        (seq, command): (Seq, Bytes),
        bytes_max: usize,
    ) -> bool {
        // It is on its way already: its outcome answers this one too.
        if self.in_flight.contains(&(session, seq)) {
            return true;
        }
        let bytes = command.len() + ITEM_OVERHEAD;
        let waiter = Waiter { member, what: Awaited::Command { session, seq } };
        let staged =
            self.stage(waiter, Item::Command { session, seq, first, command }, bytes, bytes_max);
        if staged {
            self.in_flight.insert((session, seq));
        }
        staged
    }

    fn stage(&mut self, waiter: Waiter, item: Item<Bytes>, bytes: usize, bytes_max: usize) -> bool {
        if self.staged_bytes + self.proposed_bytes + bytes > bytes_max && self.is_busy() {
            return false;
        }
        self.staged_bytes += bytes;
        self.staged.push(Staged { waiter, item, bytes });
        true
    }

    /// Bytes of proposals that are gathered or not applied yet.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.staged_bytes + self.proposed_bytes
    }

    fn is_busy(&self) -> bool {
        !self.staged.is_empty() || !self.proposed.is_empty()
    }

    /// Proposes what was gathered: one entry for all of it, or a few of about `entry_bytes`.
    pub(crate) fn propose_staged(&mut self, now: Instant, entry_bytes: usize, fx: &mut Effects) {
        while !self.staged.is_empty() {
            let mut bytes = 0;
            let fits = |staged: &Staged| {
                bytes += staged.bytes;
                bytes <= entry_bytes
            };
            let count = self.staged.iter().map(fits).take_while(|&fits| fits).count().max(1);
            let rest = self.staged.split_off(count);
            let batch = mem::replace(&mut self.staged, rest);
            let mut waiters = Vec::with_capacity(batch.len());
            let mut items = Vec::with_capacity(batch.len());
            let mut bytes = 0;
            for staged in &batch {
                waiters.push(staged.waiter);
                items.push(staged.item.clone());
                bytes += staged.bytes;
            }
            let payload = Payload { version: 1, stamp: self.stamp_now(now), items };
            let data = postcard::to_allocvec(&payload).expect("memory is the only limit");
            match self.raft.propose(Bytes::from(data), fx) {
                Ok(index) => {
                    self.staged_bytes -= bytes;
                    self.proposed_bytes += bytes;
                    self.proposed.push_back(Proposed { index, waiters, bytes });
                }
                // While leadership is handed over they wait: success drops them with `NotLeader`.
                Err(
                    ProposeRefused::Transferring
                    | ProposeRefused::NotLeader
                    | ProposeRefused::NoCommitInTerm
                    | ProposeRefused::ChangePending
                    | ProposeRefused::BadMembership,
                ) => {
                    self.staged.splice(0..0, batch);
                    return;
                }
            }
        }
    }

    /// Shard time now: what the log says, and the time that this leader has led since.
    fn stamp_now(&self, now: Instant) -> u64 {
        let led = u64::try_from(now.since(self.clock.1).as_nanos()).unwrap_or(u64::MAX);
        self.clock.0.saturating_add(led)
    }

    /// This replica leads from now on: shard time goes on from the greatest stamp in its log.
    pub(crate) fn on_lead(&mut self, now: Instant) {
        let log = self.raft.log();
        let mut stamp = self.stamp;
        let mut index = log.last_index();
        while index > log.cut_index() {
            if let Some(EntryBody::Data(data)) = log.entry(index).map(|entry| &entry.body) {
                // Stamps never fall along a log, so the last one is the greatest.
                stamp = stamp.max(stamp_of(data).unwrap_or(0));
                break;
            }
            index = index.prev();
        }
        self.clock = (stamp, now);
    }

    /// Everyone who waits for an outcome must ask the next leader. Returns them, each once.
    pub(crate) fn drop_waiters(&mut self) -> BTreeSet<MemberId> {
        let staged = self.staged.drain(..).map(|staged| staged.waiter.member);
        let proposed =
            self.proposed.drain(..).flat_map(|proposed| proposed.waiters).map(|w| w.member);
        let members = staged.chain(proposed).collect();
        self.staged_bytes = 0;
        self.proposed_bytes = 0;
        self.in_flight.clear();
        members
    }

    /// Whether the outcomes of entries up to `index` are wanted.
    pub(crate) fn wants_outcomes(&self, index: LogIndex) -> bool {
        self.proposed.front().is_some_and(|proposed| proposed.index <= index)
    }

    /// The store has applied entries. Appends the answers for those who wait.
    pub(crate) fn on_applied(
        &mut self,
        id: GroupId,
        index: LogIndex,
        outcomes: Vec<Vec<ItemOutcome>>,
        answers: &mut Vec<(MemberId, Message)>,
    ) {
        assert!(index > self.applied, "the applied index rises");
        self.applied = index;
        self.applying -= 1;
        let mut sessions: BTreeMap<(MemberId, SessionId), Vec<(Seq, ItemOutcome)>> =
            BTreeMap::new();
        let mut entry = LogIndex(index.0 - len_u64(outcomes.len()));
        for outcomes in outcomes {
            entry = entry.next();
            if self.proposed.front().is_none_or(|proposed| proposed.index != entry) {
                continue;
            }
            let proposed = self.proposed.pop_front().expect("looked at just now");
            self.proposed_bytes -= proposed.bytes;
            assert_eq!(proposed.waiters.len(), outcomes.len(), "an outcome for each item");
            for (waiter, outcome) in proposed.waiters.into_iter().zip(outcomes) {
                match (waiter.what, outcome) {
                    (Awaited::Open { nonce }, ItemOutcome::Opened(session)) => {
                        answers
                            .push((waiter.member, Message::Opened { group: id, nonce, session }));
                    }
                    (Awaited::Open { .. }, _) => {}
                    (Awaited::Command { session, seq }, outcome) => {
                        self.in_flight.remove(&(session, seq));
                        sessions.entry((waiter.member, session)).or_default().push((seq, outcome));
                    }
                }
            }
        }
        for ((member, session), outcomes) in sessions {
            answers.push((member, Message::Proposed { group: id, session, outcomes }));
        }
    }

    /// A read that may be answered once `index` is with the store.
    pub(crate) fn wait_to_read(&mut self, index: LogIndex, read: ReadId, query: Query) {
        self.reads.insert((index, read), query);
    }

    /// Reads whose index is with the store: tasks keep their order, so they will see it.
    pub(crate) fn take_readable(&mut self) -> Vec<(ReadId, Query)> {
        let mut readable = Vec::new();
        while let Some(first) = self.reads.first_entry() {
            if first.key().0 > self.raft.handed() {
                break;
            }
            let ((_, read), query) = first.remove_entry();
            readable.push((read, query));
        }
        readable
    }

    /// A read that waits and is given up by the node.
    pub(crate) fn forget_read(&mut self, index: LogIndex, read: ReadId) {
        self.reads.remove(&(index, read));
    }

    /// Up to where the log may be cut: what the store holds, less a tail for followers that lag.
    pub(crate) fn cut_target(&self, tail_bytes: usize) -> LogIndex {
        let log = self.raft.log();
        let mut index = self.persisted.min(self.raft.handed());
        let mut bytes = 0;
        while index > log.cut_index() {
            let Some(entry) = log.entry(index) else { break };
            bytes += entry.body.size() + ITEM_OVERHEAD;
            if bytes > tail_bytes {
                break;
            }
            index = index.prev();
        }
        index
    }

    pub(crate) fn status(&self, group: GroupId) -> GroupStatus {
        GroupStatus {
            group,
            replica: self.raft.id(),
            term: self.raft.term(),
            role: self.raft.role(),
            leader: self.raft.leader().map(|leader| leader.member),
            last: self.raft.log().last_index(),
            commit: self.raft.commit(),
            applied: self.applied,
        }
    }

    pub(crate) fn check(&self) {
        self.raft.check();
        assert!(self.applied <= self.raft.handed(), "applied <= handed");
        let staged: usize = self.staged.iter().map(|staged| staged.bytes).sum();
        let proposed: usize = self.proposed.iter().map(|proposed| proposed.bytes).sum();
        assert_eq!((staged, proposed), (self.staged_bytes, self.proposed_bytes), "bytes add up");
        assert!(self.raft.is_leader() || !self.is_busy(), "only a leader has waiters");
    }
}

/// Shard time of an entry, without decoding its items.
fn stamp_of(data: &[u8]) -> Option<u64> {
    postcard::take_from_bytes::<(u8, u64)>(data).ok().map(|((_, stamp), _)| stamp)
}
