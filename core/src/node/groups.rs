//! The replicas of this member: their effects, reads, snapshots, and the cutting of their logs.

use alloc::format;
use alloc::vec::Vec;
use core::mem;

use super::Node;
use super::reads::{PendingRead, ReadStage};
use crate::genesis::{Genesis, Layout};
use crate::group::Group;
use crate::ids::{CursorId, GroupId, LogIndex, LogSeq, MemberId, ReadId, ReplicaId, SnapshotId};
use crate::io::{Event, Halt, Output};
use crate::raft::message::{Body, Membership, Message as RaftMessage};
use crate::raft::{Durable, Effects, ProposeRefused, Raft, Settings};
use crate::shard::command::{ItemOutcome, Query, WATCH_WAIT};
use crate::storage::Recovered;
use crate::storage::record::Record;
use crate::store::{StoreState, StoreTask};
use crate::time::{Instant, Now};
use crate::wire::message::{AskError, BeatOf, Message};

/// Most apply tasks of one group that the store has not answered.
const APPLYING_MAX: usize = 8;
/// Bytes of entries in one apply task, about.
const APPLY_BYTES: usize = 1 << 20;
/// More promises than this for one batch are looked through for repetitions.
const HELD_MAX: usize = 256;
/// Most leaderships that are handed to their preferred members in one go.
const HAND_OVERS: usize = 4;

impl Node {
    /// The cluster exists: this member's replicas begin.
    pub(super) fn found_groups(&mut self, now: Instant) {
        let genesis = self.genesis.clone().expect("a founded node has a genesis");
        let layout = genesis.layout();
        for id in genesis.all_groups() {
            let membership = layout.membership(id);
            if let Some(replica) = membership.on_member(self.me) {
                // In the batch that says that the cluster exists: a replica that the log does not name was dropped.
                self.records.push(Record::Replica { group: id, replica: replica.id });
                self.add_new_group(now, id, replica.id, &layout);
            }
        }
        self.keep_links(now);
    }

    /// This member's replicas as they were.
    pub(super) fn restore_groups(
        &mut self,
        now: Instant,
        mut recovered: Recovered,
    ) -> Result<(), Halt> {
        let genesis = self.genesis.clone().expect("a founded node has a genesis");
        let layout = genesis.layout();
        for (id, log) in mem::take(&mut recovered.groups) {
            // Before its first cut a group's membership is that of the genesis.
            let membership = match log.cut_index {
                LogIndex(0) => layout.membership(id),
                _ => log.membership,
            };
            let durable = Durable {
                term: log.term,
                vote: log.vote,
                commit: log.commit,
                cut_index: log.cut_index,
                cut_term: log.cut_term,
                membership,
                entries: log.entries,
            };
            self.add_group(now, id, log.replica, &layout, durable)?;
        }
        // What the store still has of a replica that was dropped before the crash.
        let orphans: Vec<GroupId> =
            self.store.keys().copied().filter(|id| !self.groups.contains_key(id)).collect();
        for group in orphans {
            self.store.remove(&group);
            self.dropping.insert(group);
            self.outputs.0.push(Output::Store(StoreTask::Drop { group }));
        }
        Ok(())
    }

    /// An empty replica, made just now.
    pub(super) fn add_new_group(
        &mut self,
        now: Instant,
        id: GroupId,
        replica: ReplicaId,
        layout: &Layout<'_>,
    ) {
        let durable = Durable {
            term: crate::ids::Term(0),
            vote: None,
            commit: LogIndex(0),
            cut_index: LogIndex(0),
            cut_term: crate::ids::Term(0),
            membership: layout.membership(id),
            entries: Vec::new(),
        };
        let added = self.add_group(now, id, replica, layout, durable);
        added.expect("an empty log is never cut behind what the store holds");
    }

    fn add_group(
        &mut self,
        now: Instant,
        id: GroupId,
        replica: ReplicaId,
        layout: &Layout<'_>,
        durable: Durable,
    ) -> Result<(), Halt> {
        let store = match self.store.get(&id) {
            Some(state) => state.clone(),
            None => {
                let membership = layout.membership(id);
                let task = StoreTask::Create { group: id, membership: membership.clone() };
                self.outputs.0.push(Output::Store(task));
                empty_state(id, membership)
            }
        };
        if store.index < durable.cut_index {
            return Err(Halt::Contradiction {
                what: format!(
                    "the log of {id} is cut at {}, but the store holds only {}: the store was lost or \
                     rolled back",
                    durable.cut_index, store.index
                ),
            });
        }
        let limits = &self.config.limits;
        let settings = Settings {
            election_min: self.config.timers.election_min,
            election_max: self.config.timers.election_max,
            append_bytes: limits.append_bytes,
            append_entries: limits.append_entries,
            appends_in_flight: limits.appends_in_flight,
            log_bytes_max: usize::try_from(limits.log_bytes).unwrap_or(usize::MAX),
        };
        let rng = self.rng.fork(u64::from(id.0) + 16);
        let mut fx = Effects::default();
        let mut raft = Raft::new((id, replica), settings, durable, &store, rng, now, &mut fx);
        if self.preferred_leader(id, Some(layout)) == Some(self.me) {
            raft.stand_early(now);
        }
        let group = Group::new(raft, LogSeq(0), store.index, store.stamp, store.digest);
        self.deadlines.insert((group.raft.deadline(), id));
        self.groups.insert(id, group);
        self.dirty.insert(id);
        self.absorb(now, id, fx);
        Ok(())
    }

    /// A step of one group: whatever it asks for is taken up.
    pub(super) fn with_group(
        &mut self,
        now: Instant,
        id: GroupId,
        step: impl FnOnce(&mut Group, &mut Effects),
    ) {
        let Some(group) = self.groups.get_mut(&id) else {
            // Before the cluster is founded here others may have begun.
            if self.founding.is_founded() && !self.dropping.contains(&id) && self.table.is_none() {
                self.peer_fault(None, "a message for a group that this member has no replica of");
            }
            return;
        };
        let mut fx = Effects::default();
        let before = group.raft.deadline();
        step(group, &mut fx);
        let after = group.raft.deadline();
        if before != after {
            self.deadlines.remove(&(before, id));
            self.deadlines.insert((after, id));
        }
        self.dirty.insert(id);
        self.absorb(now, id, fx);
    }

    fn absorb(&mut self, now: Instant, id: GroupId, fx: Effects) {
        let group = self.groups.get_mut(&id).expect("effects come from a group");
        if !fx.records.is_empty() {
            let seq = self.log.next_seq();
            group.last_record = seq;
            group.raft.on_recorded(seq);
            self.unstored.entry(seq).or_default().insert(id);
            self.records.extend(fx.records);
        }
        if !fx.promises.is_empty() {
            // Every record that this replica has made so far comes first.
            let seq = group.last_record;
            if seq <= self.log.stored() {
                for (to, message) in fx.promises {
                    self.send_raft(to, message);
                }
            } else {
                let held = self.held.entry(seq).or_default();
                for (to, message) in fx.promises {
                    let promise = (to, Message::Raft(message));
                    // While a disk stands still its leader repeats itself; what would only be said twice is not
                    // gathered without end.
                    if held.len() < HELD_MAX || !held.contains(&promise) {
                        held.push(promise);
                    }
                }
            }
        }
        if fx.leader_changed {
            self.on_leader_changed(now, id);
        }
        for (to, message) in fx.sends {
            self.send_raft(to, message);
        }
        for (read, index) in fx.reads {
            self.on_read_index(id, ReadId(read), index);
        }
        for (snapshot, chunk) in fx.loads {
            self.transfers.want_chunk(id, snapshot, chunk);
        }
        for snapshot in fx.unloads {
            if self.transfers.end(snapshot) {
                self.outputs.0.push(Output::Store(StoreTask::CloseSnapshot { id: snapshot }));
            }
        }
        for install in fx.installs {
            let task = StoreTask::Install {
                group: id,
                id: install.id,
                chunk: install.chunk,
                data: install.data,
                last: install.last,
            };
            self.outputs.0.push(Output::Store(task));
        }
        for what in fx.faults {
            self.peer_fault(None, what);
        }
    }

    /// Beats of all groups for one member travel together.
    fn send_raft(&mut self, to: MemberId, message: RaftMessage) {
        let (group, from, replica, term) = (message.group, message.from, message.to, message.term);
        if let Body::Beat(beat) = message.body {
            let beat = BeatOf { group, from, to: replica, term, beat };
            self.beats.entry(to).or_default().push(beat);
        } else if let Body::BeatAnswer(beat) = message.body {
            let beat = BeatOf { group, from, to: replica, term, beat };
            self.beat_answers.entry(to).or_default().push(beat);
        } else {
            self.send(to, Message::Raft(message));
        }
    }

    fn on_leader_changed(&mut self, now: Instant, id: GroupId) {
        let group = self.groups.get_mut(&id).expect("a group's own event");
        let leader = group.raft.leader().map(|leader| leader.member);
        let term = group.raft.term();
        if group.raft.is_leader() {
            group.on_lead(now);
        } else {
            let hint = leader.filter(|&member| member != self.me);
            for member in group.drop_waiters() {
                self.send(member, Message::NotLeader { group: id, hint });
            }
        }
        if let Some(leader) = leader {
            self.router.on_leader(id, leader);
            self.on_leader_for_requests(now, id);
        }
        self.event(Event::LeaderChanged { group: id, term, leader });
    }

    /// The end of a turn for one group.
    pub(super) fn drive_group(&mut self, now: Instant, id: GroupId) {
        let append_bytes = self.config.limits.append_bytes;
        self.with_group(now, id, |group, fx| {
            if group.raft.is_leader() {
                group.propose_staged(now, append_bytes, fx);
            }
            group.raft.flush(fx);
        });
        self.dirty.remove(&id);
        self.touched.insert(id);
        let group = self.groups.get_mut(&id).expect("driven just now");
        while group.applying < APPLYING_MAX {
            let entries = group.raft.take_committed(APPLY_BYTES);
            let Some(last) = entries.last() else { break };
            let answers = group.wants_outcomes(last.index);
            group.applying += 1;
            let task = StoreTask::Apply { group: id, entries, answers };
            self.outputs.0.push(Output::Store(task));
        }
        for (read, query) in group.take_readable() {
            if let Some(pending) = self.reads.get_mut(read) {
                pending.stage = ReadStage::Stored;
                pending.since = now;
            }
            self.outputs.0.push(Output::Store(StoreTask::Read { read, group: id, query }));
        }
        self.note_freshness(now, id);
        let group = self.groups.get_mut(&id).expect("driven just now");
        let bytes = group.raft.log().bytes();
        let counted = mem::replace(&mut group.counted_bytes, bytes);
        self.persist.memory_bytes = self.persist.memory_bytes - counted + bytes;
        let waiting = group.waiting_bytes();
        let counted = mem::replace(&mut group.counted_waiting, waiting);
        self.proposals_bytes = self.proposals_bytes - counted + waiting;
    }

    pub(super) fn on_applied(
        &mut self,
        id: GroupId,
        index: LogIndex,
        outcomes: Vec<Vec<ItemOutcome>>,
        (digest, stamp): (u64, u64),
    ) {
        let Some(group) = self.groups.get_mut(&id) else { return };
        let mut answers = Vec::new();
        group.digest = digest;
        group.stamp = group.stamp.max(stamp);
        group.on_applied(id, index, outcomes, &mut answers);
        self.dirty.insert(id);
        for (member, message) in answers {
            self.send(member, message);
        }
    }

    /// A question of a caller, here or elsewhere.
    pub(super) fn on_ask(
        &mut self,
        now: Instant,
        asker: MemberId,
        call: u64,
        id: GroupId,
        query: Query,
        linearizable: bool,
    ) {
        let is_watch = matches!(query, Query::Watch(_));
        let refuse = if !self.groups.contains_key(&id) {
            Some(AskError::NotReplica)
        } else if !self.reads.has_room(is_watch, self.config.limits.reads) {
            Some(AskError::Busy)
        } else {
            None
        };
        if let Some(error) = refuse {
            self.send(asker, Message::Answer { call, result: Err(error) });
            return;
        }
        let read = self.next_read;
        self.next_read = read.next();
        let continues = matches!(query, Query::ScanNext { .. } | Query::ScanClose { .. });
        let cursor = match &query {
            Query::Scan(scan) => Some(scan.cursor),
            Query::ScanNext { cursor, .. } | Query::ScanClose { cursor } => Some(*cursor),
            Query::Get { .. } | Query::Info { .. } | Query::Watch(_) => None,
        };
        if let Some(cursor) = cursor {
            self.cursors.insert(cursor, now + self.config.timers.cursor_ttl);
        }
        let waits = matches!(&query, Query::Watch(watch) if watch.wait);
        let is_local = !linearizable && matches!(query, Query::Get { .. } | Query::Scan(_));
        let (group, since, stage, known) = (id, now, ReadStage::Stored, None);
        let mut pending = PendingRead {
            asker,
            call,
            group,
            since,
            cursor,
            is_watch,
            waits,
            is_local,
            known,
            stage,
        };
        if is_local {
            self.read_local(now, read, pending, query);
        } else if linearizable && !continues {
            pending.stage = ReadStage::Asked(query);
            self.reads.insert(read, pending);
            self.with_group(now, id, |group, fx| group.raft.read_index(read.0, fx));
        } else {
            self.reads.insert(read, pending);
            self.outputs.0.push(Output::Store(StoreTask::Read { read, group: id, query }));
        }
    }

    /// The leader has told which index a read must wait for.
    fn on_read_index(&mut self, group: GroupId, read: ReadId, index: Option<LogIndex>) {
        if self.on_confirmed(group, read, index) {
            return;
        }
        let Some(pending) = self.reads.get_mut(read) else { return };
        // A repeated answer: the read is on its way.
        if !matches!(pending.stage, ReadStage::Asked(_)) {
            return;
        }
        let Some(index) = index else {
            let pending = self.reads.remove(read).expect("looked at just now");
            let result = Err(AskError::NoLeader);
            self.send(pending.asker, Message::Answer { call: pending.call, result });
            return;
        };
        let id = pending.group;
        let asked = mem::replace(&mut pending.stage, ReadStage::Waiting(index));
        let ReadStage::Asked(query) = asked else { return };
        let group = self.groups.get_mut(&id).expect("asked of a group");
        group.wait_to_read(index, read, query);
        self.dirty.insert(id);
    }

    /// Reads whose leader fell silent: the asker tries elsewhere.
    pub(super) fn give_up_old_reads(&mut self, now: Instant) {
        let patience = self.config.timers.election_max * 4;
        let old: Vec<ReadId> = self
            .reads
            .iter()
            // What is with the store is answered, and counts against the limit until then.
            .filter(|(_, read)| read.stage != ReadStage::Stored)
            .filter(|(_, read)| now.since(read.since) > patience)
            .map(|(&id, _)| id)
            .collect();
        for id in old {
            let read = self.reads.remove(id).expect("just listed");
            if let ReadStage::Waiting(index) = read.stage
                && let Some(group) = self.groups.get_mut(&read.group)
            {
                group.forget_read(index, id);
            }
            let result = Err(AskError::NoLeader);
            self.send(read.asker, Message::Answer { call: read.call, result });
        }
        // Its asker asks again, of a replica that shows anew that it is not behind.
        let waiting = self.reads.iter_mut().filter(|(_, read)| {
            read.waits && read.stage == ReadStage::Stored && now.since(read.since) >= WATCH_WAIT
        });
        for (&id, read) in waiting {
            read.waits = false;
            let task = StoreTask::CloseWatch { read: id, group: read.group };
            self.outputs.0.push(Output::Store(task));
        }
    }

    /// Scans that nobody continues: their snapshots would keep old versions of the store's data alive.
    pub(super) fn close_idle_cursors(&mut self, now: Instant) {
        let idle: Vec<CursorId> =
            self.cursors.iter().filter(|&(_, &until)| until <= now).map(|(&id, _)| id).collect();
        for cursor in idle {
            self.cursors.remove(&cursor);
            self.outputs.0.push(Output::Store(StoreTask::CloseCursor { cursor }));
        }
    }

    /// For the group that sends a snapshot.
    pub(super) fn on_group_of_snapshot(
        &mut self,
        now: Instant,
        id: SnapshotId,
        step: impl FnOnce(&mut Raft, &mut Effects),
    ) {
        match self.transfers.group_of(id) {
            Some(group) => self.with_group(now, group, |group, fx| step(&mut group.raft, fx)),
            None => self.outputs.0.push(Output::Store(StoreTask::CloseSnapshot { id })),
        }
    }

    pub(super) fn on_installed(&mut self, now: Instant, state: &StoreState) {
        self.with_group(now, state.group, |group, fx| {
            group.applied = state.index;
            group.stamp = group.stamp.max(state.stamp);
            group.digest = state.digest;
            group.persisted = group.persisted.max(state.index);
            group.raft.on_installed(state, fx);
        });
    }

    /// Asks the store to sync when the log has grown enough to be cut.
    pub(super) fn maybe_persist(&mut self) {
        let log_bytes = self.log.bytes();
        self.persist.log_bytes = self.persist.log_bytes.min(log_bytes);
        let memory_max = self.log_memory_max();
        let limits = &self.config.limits;
        let grown = log_bytes > limits.log_bytes
            && log_bytes >= self.persist.log_bytes.saturating_add(limits.segment_bytes);
        let memory = self.persist.memory_bytes;
        let held = memory > memory_max && memory >= self.persist.memory_mark + memory_max / 4;
        if self.persist.under_way || !(grown || held) {
            return;
        }
        self.persist.under_way = true;
        self.outputs.0.push(Output::Store(StoreTask::Persist));
    }

    /// Bytes of entries in memory at which the logs are cut.
    pub(super) fn log_memory_max(&self) -> usize {
        usize::try_from(self.config.limits.log_bytes / 4).unwrap_or(usize::MAX)
    }

    /// The store is durable up to these indexes: the logs can be cut.
    pub(super) fn on_persisted(&mut self, now: Instant, states: &[StoreState]) {
        self.persist.under_way = false;
        let tail_bytes = self.config.limits.log_tail_bytes;
        let memory_max = self.log_memory_max();
        let too_long = self.log.bytes() > self.config.limits.log_bytes;
        let pinning: Vec<GroupId> =
            if too_long { self.log.pinning().collect() } else { Vec::new() };
        for state in states {
            let id = state.group;
            if !self.groups.contains_key(&id) {
                continue;
            }
            let pins = pinning.contains(&id);
            self.with_group(now, id, |group, fx| {
                group.persisted = group.persisted.max(state.index);
                let mut target = group.cut_target(if pins { 0 } else { tail_bytes });
                // Who is being brought up needs what it lacks, as long as that can be held.
                if let Some(floor) = group.raft.needed_index(now)
                    && group.raft.log().bytes() < memory_max
                {
                    target = target.min(floor.max(group.raft.log().cut_index()));
                }
                let cuts = target > group.raft.log().cut_index();
                if pins {
                    // What cannot be cut moves to the log's end, so that an idle group pins nothing.
                    group.raft.rewrite(target, fx);
                }
                if cuts || pins {
                    group.raft.cut(target, fx);
                }
            });
        }
        let counted: usize = self.groups.values().map(|group| group.raft.log().bytes()).sum();
        self.persist.memory_mark = counted;
        self.persist.settling = true;
    }

    /// Leaderships go to the members that the placement prefers, a few at a time, only where the heir could take
    /// over at once.
    pub(super) fn hand_over(&mut self, now: Instant) {
        let mut heirs = Vec::new();
        let first = self.genesis.as_ref().filter(|_| self.table.is_none()).map(Genesis::layout);
        for (&id, group) in &self.groups {
            let preferred = self.preferred_leader(id, first.as_ref());
            let preferred = preferred.filter(|&member| member != self.me);
            let Some(member) = preferred.filter(|_| group.raft.is_leader()) else { continue };
            let Some(replica) = group.raft.membership().on_member(member) else { continue };
            if self.links.conn_of(member).is_some() && group.raft.could_hand_over(replica.id) {
                heirs.push((id, replica.id));
            }
            if heirs.len() == HAND_OVERS {
                break;
            }
        }
        for (id, heir) in heirs {
            self.with_group(now, id, |group, fx| {
                let handed = group.raft.transfer(now, heir, fx);
                handed.expect("asked just before whether it could");
            });
        }
    }

    /// The member that should lead a group while it lives: what the directory says, or else how the group begins.
    fn preferred_leader(&self, id: GroupId, first: Option<&Layout<'_>>) -> Option<MemberId> {
        match self.table.as_ref().and_then(|table| table.group(id)) {
            Some(assignment) => assignment.preferred_leader(),
            None => first?.preferred_leader(id),
        }
    }

    /// Begins to change who takes part in a group that this member leads: among the replicas that the genesis
    /// named, with the ids they have had from then on. For the directory to come, and for tests; no call of an
    /// application leads here.
    ///
    /// # Errors
    /// See [`ProposeRefused`]: a member without a replica of the group is [`ProposeRefused::BadMembership`]. Nothing
    /// changed.
    pub fn change_membership(
        &mut self,
        now: Now,
        id: GroupId,
        voters: &[MemberId],
        learners: &[MemberId],
    ) -> Result<(), ProposeRefused> {
        let Some(genesis) = &self.genesis else { return Err(ProposeRefused::NotLeader) };
        if self.halted || self.awake_at.is_some() || !self.groups.contains_key(&id) {
            return Err(ProposeRefused::NotLeader);
        }
        let first = genesis.membership(id);
        let replicas = |members: &[MemberId]| {
            let found = members.iter().map(|&member| first.on_member(member));
            found.collect::<Option<Vec<_>>>().ok_or(ProposeRefused::BadMembership)
        };
        let (voters, learners) = (replicas(voters)?, replicas(learners)?);
        let mut result = Ok(());
        self.with_group(now.instant, id, |group, fx| {
            let order = group.raft.membership().order;
            let changed = group.raft.change_membership(now.instant, voters, learners, order, fx);
            result = changed.map(|_| ());
        });
        result
    }

    /// Every group that this member has a replica of.
    pub(super) fn group_ids(&self) -> Vec<GroupId> {
        self.groups.keys().copied().collect()
    }
}

fn empty_state(group: GroupId, membership: Membership) -> StoreState {
    StoreState {
        group,
        index: LogIndex(0),
        term: crate::ids::Term(0),
        membership,
        stamp: 0,
        digest: 0,
        epoch: crate::ids::Epoch(0),
    }
}
