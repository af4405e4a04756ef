//! The store thread's machine: carries out [`StoreTask`]s in order.
//!
//! Invariants:
//! 1. What is in memory of a group is what the store holds once the pending writes are written, with
//!    the sessions and metas of the touched groups.
//! 2. Nothing is answered before what it tells of is written ([`Worker::flush`]).
//! 3. Sessions and applied index change with every entry, so they stay in memory and go to the store
//!    only when it wants a whole batch or must have one (a sync, a snapshot): a batch is whole when no
//!    group is touched after it. Since a crash leaves the store as it was after a whole batch, it leaves
//!    all of an apply or nothing.
//! 4. `Persisted` tells of what was applied when its sync began, not of what was applied meanwhile.
//! 5. No key is ever written under an epoch that was in use before; the pointer's `next` is written
//!    in the batch that first uses it.
//! 6. The pointer to a complete snapshot is written after its keys, so it is never durable without them; it is read and
//!    answered for when a sync has covered both. The sync goes on beside the other groups' work: a member that moves in
//!    serves the first groups while others still arrive. One sync covers all that are complete when it begins.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use bytes::Bytes;

use super::apply::{self, Stop};
use super::command::{Answer, Query, Watch};
use super::key::{self, Pointer};
use super::pending::Pending;
use super::read::Reader;
use super::state::State;
use super::transfer::{self, Receiving, Sender};
use crate::config::Limits;
use crate::ids::{Epoch, GroupId, ReadId, Revision, SnapshotId};
use crate::raft::message::Membership;
use crate::store::{Store, StoreDone, StoreError, StoreState, StoreTask, SyncNumber, WriteBatch};

/// Carries out store tasks on a store. Lives on the world's store thread.
pub struct Worker<S: Store> {
    store: S,
    groups: BTreeMap<GroupId, Group>,
    /// Applied and not yet written.
    pending: Pending,
    /// Groups whose sessions and meta the store does not have as they are here.
    touched: Vec<GroupId>,
    /// Answers that wait for it.
    answers: Vec<StoreDone>,
    /// Syncs under way, each with where the groups stood when it began.
    syncing: VecDeque<(SyncNumber, Vec<StoreState>)>,
    /// Complete snapshots that are not current yet, at most one a group.
    closing: Vec<Closing>,
    reader: Reader<S>,
    /// Questions that wait for a change, each with the revision up to which there was none.
    watchers: BTreeMap<GroupId, BTreeMap<ReadId, (Watch, Revision)>>,
    sender: Sender<S>,
    /// Ranges of keys that no longer count.
    garbage: VecDeque<(Vec<u8>, Vec<u8>)>,
    failed: bool,
}

/// One group of the store.
#[derive(Default)]
struct Group {
    pointer: Pointer,
    state: Option<State>,
    receiving: Option<Receiving>,
    /// The last snapshot installed since the start, with the hash of its chunks.
    installed: Option<(SnapshotId, u64)>,
}

/// A complete snapshot on its way to be its group's state: all of it is written, with the pointer that names its epoch, and
/// not durable yet. The old state is read until then.
struct Closing {
    group: GroupId,
    receiving: Receiving,
    /// The epoch that the pointer named before.
    before: Epoch,
    /// What makes it durable; none: not begun.
    sync: Option<SyncNumber>,
}

impl<S: Store> Worker<S> {
    /// Reads the groups that the store holds, and says where each stands, durably: what a process wrote that
    /// was killed can be read and may still be lost in a power cut, so the store is synced first. Of `limits`
    /// it takes those of scans, cursors and snapshot chunks.
    ///
    /// # Errors
    /// The store could not be read or synced, or what it holds is damaged.
    pub fn new(mut store: S, limits: &Limits) -> Result<(Self, Vec<StoreState>), StoreError> {
        store.sync()?;
        let mut pointers = Vec::new();
        let (from, to) = key::pointers();
        store.scan(&from, &to, false, &mut |key, value| {
            pointers.push((key::pointer_group(key), Pointer::decode(value)));
            true
        })?;
        let mut groups = BTreeMap::new();
        let mut garbage = VecDeque::new();
        for pointer in pointers {
            let (Some(group), Some(pointer)) = pointer else {
                let problem = "the record that says which state of a group counts is damaged";
                return Err(StoreError(String::from(problem)));
            };
            let Pointer { current, next } = pointer;
            // An installation that a crash or a later one cut short left its keys under epochs of
            // their own.
            let start = |epoch: Epoch| key::epoch(group, epoch).to_vec();
            garbage.push_back((start(Epoch(0)), start(current)));
            garbage.push_back((start(current.next()), start(next)));
            let state = match current {
                Epoch(0) => None,
                current => Some(State::load(&store, group, current)?),
            };
            groups.insert(group, Group { pointer, state, receiving: None, installed: None });
        }
        let worker = Self {
            store,
            groups,
            pending: Pending::default(),
            touched: Vec::new(),
            answers: Vec::new(),
            syncing: VecDeque::new(),
            closing: Vec::new(),
            reader: Reader::new(limits),
            watchers: BTreeMap::new(),
            sender: Sender::new(limits.chunk_bytes),
            garbage,
            failed: false,
        };
        let states = worker.states();
        Ok((worker, states))
    }

    /// Where each group stands, sorted by group.
    #[must_use]
    pub fn states(&self) -> Vec<StoreState> {
        let states = self.groups.values().filter_map(|group| group.state.as_ref());
        states.map(State::store_state).collect()
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.store
    }

    /// Carries out tasks in order and adds the answers to `done`, in the same order. All of it is
    /// written when this returns; only `Persist` and the end of an `Install` make it durable. After
    /// `Failed` nothing is done, ever.
    ///
    /// Called without tasks, when the store says that a sync is done or that something went wrong
    /// beside its work, it answers what waited for that.
    ///
    /// Panics when a task cannot be right: entries out of order, a group that the store does not
    /// have.
    pub fn run(&mut self, tasks: impl IntoIterator<Item = StoreTask>, done: &mut Vec<StoreDone>) {
        for task in tasks {
            if !self.failed
                && let Err(stop) = self.carry_out(task, done)
            {
                self.fail(stop, done);
            }
        }
        if !self.failed
            && let Err(stop) =
                self.flush(done).and_then(|()| self.settle(done)).and_then(|()| self.tidy())
        {
            self.fail(stop, done);
        }
    }

    /// True while a `Persist` or a complete snapshot waits for its sync.
    #[must_use]
    pub fn is_syncing(&self) -> bool {
        !self.syncing.is_empty() || !self.closing.is_empty()
    }

    /// Waits for the syncs under way and answers the tasks that asked for them.
    pub fn finish(&mut self, done: &mut Vec<StoreDone>) {
        if self.failed || !self.is_syncing() {
            return;
        }
        let synced = self.flush_whole(done).and_then(|()| Ok(self.store.sync()?));
        if let Err(stop) = synced.and_then(|()| self.settle(done)) {
            self.fail(stop, done);
        }
    }

    fn carry_out(&mut self, task: StoreTask, done: &mut Vec<StoreDone>) -> Result<(), Stop> {
        let answer = match task {
            StoreTask::Create { group, membership } => {
                self.create(group, membership);
                return Ok(());
            }
            StoreTask::Apply { group, entries, answers } => {
                let closes = self.closing.iter().any(|closing| closing.group == group);
                assert!(!closes, "nothing is applied to a state that is being replaced");
                let state = state_of(&mut self.groups, group);
                let (store, pending) = (&self.store, &mut self.pending);
                let outcomes = apply::apply(state, store, pending, &entries, answers)?;
                let answer = StoreDone::Applied {
                    group,
                    index: state.meta.index,
                    outcomes,
                    digest: state.meta.digest,
                    stamp: state.meta.stamp,
                };
                state.history.forget(&self.reader.memory, state.meta.stamp);
                if state.touch() {
                    self.touched.push(group);
                }
                self.answers.push(answer);
                self.tell_watchers(group);
                if self.pending.bytes() >= BATCH_BYTES || self.pending.writes().len() >= BATCH_KEYS
                {
                    self.flush(done)?;
                }
                return Ok(());
            }
            StoreTask::Read { read, group, query } => return self.read(read, group, &query, done),
            StoreTask::CloseWatch { read, group } => {
                self.close_watch(read, group);
                return Ok(());
            }
            StoreTask::CloseCursor { cursor } => {
                self.reader.close(cursor);
                return Ok(());
            }
            StoreTask::Persist => {
                self.flush_whole(done)?;
                let number = self.store.start_sync()?;
                self.syncing.push_back((number, self.states()));
                return self.settle(done);
            }
            StoreTask::Load { group, id, chunk } => {
                // A snapshot begins with all that the group has; the other groups' sessions need not be written for it.
                if !self.sender.has(id, group, chunk) {
                    if let Some(place) = self.touched.iter().position(|&touched| touched == group) {
                        self.touched.swap_remove(place);
                        state_of(&mut self.groups, group).write(&mut self.pending);
                    }
                    self.flush(done)?;
                }
                let state = state_of(&mut self.groups, group);
                self.sender.load(state, &self.store, id, chunk)?
            }
            StoreTask::CloseSnapshot { id } => {
                self.sender.close(id);
                return Ok(());
            }
            StoreTask::Drop { group } => {
                self.flush_whole(done)?;
                self.drop_group(group)?
            }
            StoreTask::Install { group, id, chunk, data, last } => {
                // What comes after a complete one is judged by what that makes of the group.
                while self.closing.iter().any(|closing| closing.group == group) {
                    self.flush_whole(done)?;
                    self.store.sync()?;
                    self.settle(done)?;
                }
                self.flush(done)?;
                let answer = self.install(group, id, chunk, &data, last)?;
                done.extend(answer);
                return Ok(());
            }
        };
        done.push(answer);
        Ok(())
    }

    fn create(&mut self, group: GroupId, membership: Membership) {
        let slot = self.groups.entry(group).or_default();
        if slot.state.is_some() {
            return;
        }
        let epoch = slot.pointer.next;
        slot.pointer = Pointer { current: epoch, next: epoch.next() };
        let pointer = Bytes::copy_from_slice(&slot.pointer.encode());
        self.pending.push(key::pointer(group).to_vec(), Some(pointer));
        let mut state = State::new(group, epoch, membership);
        state.touch();
        self.touched.push(group);
        slot.state = Some(state);
    }

    /// The pointer stays and says that no epoch counts: an epoch that was in use is never used again.
    fn drop_group(&mut self, group: GroupId) -> Result<StoreDone, Stop> {
        let waiting: Vec<ReadId> =
            self.watchers.get(&group).into_iter().flatten().map(|(&read, _)| read).collect();
        for read in waiting {
            self.close_watch(read, group);
        }
        let Some(slot) = self.groups.get_mut(&group) else {
            return Ok(StoreDone::Dropped { group });
        };
        let receiving = slot.receiving.take().map(|receiving| receiving.epoch);
        let closing = self.closing.iter().position(|closing| closing.group == group);
        let closing = closing.map(|place| self.closing.swap_remove(place));
        let closed = closing.map(|closing| closing.before);
        let current = core::mem::replace(&mut slot.pointer.current, Epoch(0));
        slot.state = None;
        slot.installed = None;
        // What a sync under way will have made durable of it says nothing about a state that comes after.
        for (_, states) in &mut self.syncing {
            states.retain(|state| state.group != group);
        }
        push_pointer(&mut self.pending, group, slot.pointer);
        self.store.write(self.pending.take(true))?; // nothing is touched
        let epochs = [receiving, closed, Some(current)].into_iter().flatten();
        let epochs = epochs.filter(|&epoch| epoch != Epoch(0));
        self.garbage.extend(epochs.map(|epoch| epoch_range(group, epoch)));
        Ok(StoreDone::Dropped { group })
    }

    fn read(
        &mut self,
        read: ReadId,
        group: GroupId,
        query: &Query,
        done: &mut Vec<StoreDone>,
    ) -> Result<(), Stop> {
        // A get sees through the pending writes, so that one between two puts does not part them.
        if !matches!(query, Query::Get { .. }) {
            self.flush(done)?;
        }
        let state = state_of(&mut self.groups, group);
        let answer = self.reader.answer(state, &self.store, &mut self.pending, query)?;
        if let Query::Watch(watch) = query
            && watch.wait
            && watch.after.is_some()
            && let Answer::Changes { changes, upto } = &answer
            && changes.is_empty()
        {
            let waiting = self.watchers.entry(group).or_default();
            waiting.insert(read, (Watch::clone(watch), *upto));
            return Ok(());
        }
        self.answers.push(StoreDone::Read { read, answer });
        Ok(())
    }

    /// Answers those who waited for what a group has just done.
    fn tell_watchers(&mut self, group: GroupId) {
        let Some(waiting) = self.watchers.get_mut(&group) else { return };
        let Some(state) = self.groups.get(&group).and_then(|group| group.state.as_ref()) else {
            return;
        };
        let (reader, answers) = (&self.reader, &mut self.answers);
        waiting.retain(|&read, (watch, seen)| {
            let answer = reader.watch(state, watch, Some(*seen));
            if let Answer::Changes { changes, upto } = &answer
                && changes.is_empty()
            {
                *seen = *upto;
                return true;
            }
            answers.push(StoreDone::Read { read, answer });
            false
        });
        if waiting.is_empty() {
            self.watchers.remove(&group);
        }
    }

    /// Whoever waits for a change has waited for long enough.
    fn close_watch(&mut self, read: ReadId, group: GroupId) {
        let Some(waiting) = self.watchers.get_mut(&group) else { return };
        if let Some((_, upto)) = waiting.remove(&read) {
            let answer = Answer::Changes { changes: Vec::new(), upto };
            self.answers.push(StoreDone::Read { read, answer });
        }
        if waiting.is_empty() {
            self.watchers.remove(&group);
        }
    }

    /// Writes what is pending, then answers what waited for it.
    fn flush(&mut self, done: &mut Vec<StoreDone>) -> Result<(), Stop> {
        if self.store.wants_whole() {
            return self.flush_whole(done);
        }
        self.write_pending()?;
        done.append(&mut self.answers);
        Ok(())
    }

    /// The same, and the store has everything then.
    fn flush_whole(&mut self, done: &mut Vec<StoreDone>) -> Result<(), Stop> {
        for group in self.touched.drain(..) {
            state_of(&mut self.groups, group).write(&mut self.pending);
        }
        self.write_pending()?;
        done.append(&mut self.answers);
        Ok(())
    }

    fn write_pending(&mut self) -> Result<(), StoreError> {
        if self.pending.writes().is_empty() {
            return Ok(());
        }
        let whole = self.touched.is_empty();
        self.store.write(self.pending.take(whole))
    }

    /// Answers the syncs that are done, and goes on with what waited for them.
    fn settle(&mut self, done: &mut Vec<StoreDone>) -> Result<(), Stop> {
        loop {
            let synced = self.store.synced()?;
            while let Some((_, groups)) = self.syncing.pop_front_if(|(number, _)| *number <= synced)
            {
                done.push(StoreDone::Persisted { groups });
            }
            let is_done = |closing: &mut Closing| closing.sync.is_some_and(|sync| sync <= synced);
            let ready: Vec<Closing> = self.closing.extract_if(.., is_done).collect();
            for closing in &ready {
                self.close(closing, done)?;
            }
            // One sync for all that have come while the last one went on.
            let waits = self.closing.iter().any(|closing| closing.sync.is_none());
            if !waits || self.closing.iter().any(|closing| closing.sync.is_some()) {
                return Ok(());
            }
            self.flush_whole(done)?;
            let sync = self.store.start_sync()?;
            for closing in &mut self.closing {
                closing.sync = Some(sync);
            }
        }
    }

    /// A complete snapshot is durable: from now on it is its group's state.
    fn close(&mut self, closing: &Closing, done: &mut Vec<StoreDone>) -> Result<(), Stop> {
        let Closing { group, receiving, before, .. } = closing;
        let (group, id) = (*group, receiving.id);
        let state = State::load(&self.store, group, receiving.epoch)?;
        done.push(StoreDone::Installed { state: Box::new(state.store_state()), id });
        let slot = self.groups.get_mut(&group).expect("a dropped group closes nothing");
        slot.state = Some(state);
        slot.installed = Some((id, receiving.hash()));
        self.tell_watchers(group);
        if *before != Epoch(0) {
            self.garbage.push_back(epoch_range(group, *before));
        }
        self.flush(done)
    }

    fn install(
        &mut self,
        group: GroupId,
        id: SnapshotId,
        chunk: u64,
        data: &[u8],
        last: bool,
    ) -> Result<Option<StoreDone>, Stop> {
        let slot = self.groups.entry(group).or_default();
        if let (Some(state), Some((installed, hash))) = (&slot.state, slot.installed)
            && slot.receiving.is_none()
            && installed == id
            && (chunk != 0 || hash == transfer::first_hash(data))
        {
            // Sent again before the sender knew that it was installed.
            let state = Box::new(state.store_state());
            return Ok(Some(StoreDone::Installed { state, id }));
        }
        let wanted = match &slot.receiving {
            Some(receiving) if chunk == 0 && !last && receiving.is_repeated(id, data) => 1,
            Some(receiving) if chunk != 0 && receiving.id == id => receiving.next,
            Some(_) | None => 0,
        };
        if chunk != wanted {
            let next = wanted;
            return Ok(Some(StoreDone::Staged { group, id, next }));
        }
        let before = slot.receiving.take();
        let epoch_before = before.as_ref().map(|receiving| receiving.epoch);
        let result = match before {
            Some(mut receiving) if chunk != 0 => {
                let result = receiving.accept(data, &mut self.pending);
                result.map(|()| receiving)
            }
            Some(_) | None => {
                Receiving::begin(group, id, slot.pointer.next, data, &mut self.pending)
            }
        };
        let applied = slot.state.as_ref().map(|state| state.meta.index);
        let result = result.and_then(|receiving| {
            receiving.check_newer(applied)?;
            Ok(receiving)
        });
        if let Some(epoch) = epoch_before
            && result.as_ref().map(|receiving| receiving.epoch) != Ok(epoch)
        {
            self.garbage.push_back(epoch_range(group, epoch)); // refused, or begun anew
        }
        let receiving = match result {
            Ok(receiving) => receiving,
            Err(problem) => {
                drop(self.pending.take(false));
                return Ok(Some(StoreDone::InstallRefused { group, id, problem }));
            }
        };
        if chunk == 0 {
            slot.pointer.next = receiving.epoch.next();
            push_pointer(&mut self.pending, group, slot.pointer);
        }
        let before = slot.pointer.current;
        if last {
            slot.pointer.current = receiving.epoch;
            push_pointer(&mut self.pending, group, slot.pointer);
        }
        self.store.write(self.pending.take(self.touched.is_empty()))?;
        if last {
            self.closing.push(Closing { group, receiving, before, sync: None });
            return Ok(None);
        }
        let next = receiving.next;
        slot.receiving = Some(receiving);
        Ok(Some(StoreDone::Staged { group, id, next }))
    }

    /// Drops some of the keys that no longer count. In small steps: a dropped epoch may be large,
    /// and other groups wait for this thread.
    fn tidy(&mut self) -> Result<(), Stop> {
        let mut batch = WriteBatch { writes: Vec::new(), whole: self.touched.is_empty() };
        let mut bytes = 0;
        while let Some((from, to)) = self.garbage.front_mut() {
            self.store.scan(from, to, false, &mut |key, value| {
                batch.writes.push((Bytes::copy_from_slice(key), None));
                bytes += value.len();
                batch.writes.len() < TIDY_KEYS && bytes < TIDY_BYTES
            })?;
            if batch.writes.len() >= TIDY_KEYS || bytes >= TIDY_BYTES {
                // The next step does not go through the removed keys once more.
                let (last, _) = batch.writes.last().expect("some were removed");
                *from = [last, &[0][..]].concat();
                break;
            }
            self.garbage.pop_front();
        }
        if !batch.writes.is_empty() {
            self.store.write(batch)?;
        }
        Ok(())
    }

    fn fail(&mut self, Stop(problem): Stop, done: &mut Vec<StoreDone>) {
        self.failed = true;
        self.syncing.clear();
        self.closing.clear();
        done.push(StoreDone::Failed { problem });
    }
}

fn state_of(groups: &mut BTreeMap<GroupId, Group>, group: GroupId) -> &mut State {
    groups
        .get_mut(&group)
        .and_then(|group| group.state.as_mut())
        .expect("core asks only for groups that it has created or installed")
}

fn push_pointer(pending: &mut Pending, group: GroupId, pointer: Pointer) {
    let value = Bytes::copy_from_slice(&pointer.encode());
    pending.push(key::pointer(group).to_vec(), Some(value));
}

fn epoch_range(group: GroupId, epoch: Epoch) -> (Vec<u8>, Vec<u8>) {
    let prefix = key::epoch(group, epoch);
    (prefix.to_vec(), key::after(&prefix))
}

/// Applied entries are written together until they reach this many bytes...
const BATCH_BYTES: usize = 4 << 20;
/// ... or this many keys.
const BATCH_KEYS: usize = 16_384;
/// Most keys dropped at once...
const TIDY_KEYS: usize = 256;
/// ... until they had so many bytes of values, which a store may have to read for that.
const TIDY_BYTES: usize = 256 << 10;
