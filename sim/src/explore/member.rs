//! One replica with its disk and its store: everything that a step of it depends on, and nothing else.
//!
//! A step does what `ring_core::node` does with a replica in one turn: the input, the flush, the records into one
//! batch, the promises held back until the batch of the replica's latest record is stored, committed entries to
//! the store.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::{Epoch, GroupId, LogIndex, LogSeq, MemberId, ReplicaId, Term};
use ring_core::raft::message::{Body, Entry, EntryBody, Membership, Message, Replica};
use ring_core::raft::{Durable, Effects, Raft, Settings};
use ring_core::rng::Rng;
use ring_core::storage::record::Record;
use ring_core::store::StoreState;
use ring_core::time::Instant;

/// One replica of the group and what survives its crashes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Member {
    raft: Raft,
    append_entries: usize,
    disk: Disk,
    /// Batches that the disk has been given and not stored, oldest first; the first has the number 1.
    unstored: VecDeque<Vec<Record>>,
    /// Promises, and the number of the batch that each waits for.
    held: Vec<(u64, Message)>,
    /// Where the store stood when it was last synced and after each entry since: after a power cut it stands at one
    /// of these.
    applied: Vec<StoreState>,
}

/// What the records on a disk add up to: the slow twin of recovery.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Disk {
    pub(super) term: Term,
    pub(super) vote: Option<ReplicaId>,
    pub(super) log: Held,
}

/// A log behind its cut.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Held {
    pub(super) cut_index: LogIndex,
    pub(super) cut_term: Term,
    membership: Membership,
    pub(super) entries: Vec<Entry>,
}

/// What can happen to a replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Input {
    /// A message arrives.
    Deliver(Message),
    /// Its deadline comes: an election time-out, or a leader's quorum check that fails.
    Timeout,
    /// A leader's tick.
    Beat,
    /// The disk has stored the oldest batch that it has not said so of.
    Stored,
    /// Power cut and restart: so many unstored batches had reached the disk after all, and so many entries the
    /// store since it was last synced.
    Crash { stored: usize, applied: usize },
    /// An entry with this number is proposed.
    Propose(u8),
    /// The index for a linearizable read with this number is asked for.
    Read(u8),
    /// Leadership is to go to this replica.
    Transfer(ReplicaId),
}

/// What a step does to the rest of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Sent {
    pub(super) messages: Vec<Message>,
    /// Reads that may be answered at this index.
    pub(super) reads: Vec<(u64, LogIndex)>,
}

/// Where a replica begins.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// Its term; it has not voted in it.
    pub term: u64,
    /// The terms of the entries in its log, none of them known to be committed.
    pub log: Vec<u64>,
}

const GROUP: GroupId = GroupId(1);
/// The clock of every replica always shows this: with time-outs of no length every deadline has come whenever the
/// search says so, and no state differs from another by the time alone.
const NOW: Instant = Instant(0);

impl Member {
    /// A replica that was just started on its disk.
    pub(super) fn new(
        id: ReplicaId,
        start: &Start,
        membership: &Membership,
        append_entries: usize,
    ) -> Self {
        let entry = |(index, &term)| {
            let data = Bytes::copy_from_slice(&u64::to_be_bytes(term));
            let body = EntryBody::Data(data);
            Entry { index: LogIndex(index), term: Term(term), body }
        };
        let log = Held {
            cut_index: LogIndex(0),
            cut_term: Term(0),
            membership: membership.clone(),
            entries: (1..).zip(&start.log).map(entry).collect(),
        };
        let disk = Disk { term: Term(start.term), vote: None, log };
        let store = StoreState {
            group: GROUP,
            index: LogIndex(0),
            term: Term(0),
            membership: membership.clone(),
            stamp: 0,
            digest: 0,
            epoch: Epoch(0),
        };
        let mut fx = Effects::default();
        let raft = restart((id, append_entries), &disk, &store, &mut fx);
        assert_eq!(fx, Effects::default(), "the store is not ahead of the log");
        let (unstored, held) = (VecDeque::new(), Vec::new());
        Self { append_entries, raft, disk, unstored, held, applied: vec![store] }
    }

    /// The replica after an input, and what it does to others. None when the input is not possible.
    ///
    /// # Errors
    /// What the step broke.
    pub(super) fn step(&self, input: &Input) -> Result<Option<(Self, Sent)>, String> {
        let mut next = self.clone();
        match catch_unwind(AssertUnwindSafe(|| next.apply(input))) {
            Ok(Ok(Some(sent))) => Ok(Some((next, sent))),
            Ok(Ok(None)) => Ok(None),
            Ok(Err(broken)) => Err(broken),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().map(String::as_str);
                let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
                Err(format!("an assertion failed: {}", text.unwrap_or("without a word")))
            }
        }
    }

    fn apply(&mut self, input: &Input) -> Result<Option<Sent>, String> {
        let mut fx = Effects::default();
        let mut sent = Sent::default();
        let before = (self.raft.term(), self.raft.commit());
        match input {
            Input::Deliver(message) => {
                self.raft.on_message(NOW, MemberId(message.from.0), message.clone(), &mut fx);
            }
            Input::Timeout => self.raft.on_wakeup(NOW, &mut fx),
            Input::Beat => self.raft.on_beat_due(NOW, &mut fx),
            Input::Stored => {
                let Some(records) = self.unstored.pop_front() else { return Ok(None) };
                self.disk.replay(records);
                self.release(&mut sent)?;
                self.raft.on_stored(NOW, LogSeq(1), &mut fx);
                self.raft.renumber_batches(1);
            }
            Input::Crash { stored, applied } => self.crash(*stored, *applied, &mut fx),
            Input::Propose(number) => {
                let data = Bytes::copy_from_slice(&[*number]);
                if self.raft.propose(data, &mut fx).is_err() {
                    return Ok(None);
                }
            }
            Input::Read(number) => self.raft.read_index(u64::from(*number), &mut fx),
            Input::Transfer(to) => {
                if self.raft.transfer(NOW, *to, &mut fx).is_err() {
                    return Ok(None);
                }
            }
        }
        self.raft.flush(&mut fx);
        self.absorb(fx, &mut sent)?;
        self.hand_over()?;
        self.raft.check();
        let crashed = matches!(input, Input::Crash { .. });
        if !crashed && (self.raft.term() < before.0 || self.raft.commit() < before.1) {
            return Err(String::from("a term or a commit index fell"));
        }
        Ok(Some(sent))
    }

    /// As `Node::absorb`.
    fn absorb(&mut self, fx: Effects, sent: &mut Sent) -> Result<(), String> {
        if !fx.records.is_empty() {
            self.unstored.push_back(fx.records);
            self.raft.on_recorded(LogSeq(count(self.unstored.len())));
        }
        for (_, promise) in fx.promises {
            if self.unstored.is_empty() {
                self.check_promise(&promise)?;
                sent.messages.push(promise);
            } else {
                self.held.push((count(self.unstored.len()), promise));
            }
        }
        for (_, message) in fx.sends {
            self.check_promise(&message)?;
            sent.messages.push(message);
        }
        let answered = |(read, index): (u64, Option<LogIndex>)| index.map(|index| (read, index));
        sent.reads.extend(fx.reads.into_iter().filter_map(answered));
        if !fx.faults.is_empty() {
            return Err(format!("{} accuses an honest peer: {:?}", self.raft.id(), fx.faults));
        }
        assert!(fx.loads.is_empty() && fx.installs.is_empty(), "no log here is ever cut");
        Ok(())
    }

    /// The oldest batch is stored: promises that waited for it leave.
    fn release(&mut self, sent: &mut Sent) -> Result<(), String> {
        for (batch, promise) in std::mem::take(&mut self.held) {
            if batch > 1 {
                self.held.push((batch - 1, promise));
            } else {
                self.check_promise(&promise)?;
                sent.messages.push(promise);
            }
        }
        Ok(())
    }

    /// ONCE: what is applied follows what was applied.
    fn hand_over(&mut self) -> Result<(), String> {
        for entry in self.raft.take_committed(usize::MAX) {
            let mut store = self.store().clone();
            if entry.index != store.index.next() || entry.term < store.term {
                return Err(format!("ONCE: {entry:?} is applied after {}", store.index));
            }
            if let EntryBody::Membership(membership) = entry.body {
                store.membership = *membership;
            }
            (store.index, store.term) = (entry.index, entry.term);
            self.applied.push(store);
        }
        Ok(())
    }

    fn store(&self) -> &StoreState {
        self.applied.last().expect("it stands somewhere")
    }

    fn crash(&mut self, stored: usize, applied: usize, fx: &mut Effects) {
        for records in self.unstored.drain(..).take(stored) {
            self.disk.replay(records);
        }
        self.held.clear();
        self.applied.truncate(1 + applied);
        self.raft = restart((self.id(), self.append_entries), &self.disk, self.store(), fx);
    }

    /// PROMISE: what leaves now would be true if this member's power failed now. Every message is looked at,
    /// whichever way it leaves: a promise among those that need not wait is a defect.
    fn check_promise(&self, message: &Message) -> Result<(), String> {
        let Disk { term, vote, log } = &self.disk;
        if *term > message.term {
            return Ok(()); // What it promised ended with its term, and that this ended is durable.
        }
        let kept = match &message.body {
            Body::VoteAnswer { granted: true } => *vote == Some(message.to),
            Body::Vote { .. } => *vote == Some(message.from),
            Body::Accepted { index } => {
                log.last_index() >= *index
                    && (self.raft.term() > message.term || self.agrees_with_disk(*index))
            }
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::VoteAnswer { granted: false }
            | Body::Append { .. }
            | Body::Rejected { .. }
            | Body::Beat(_)
            | Body::BeatAnswer(_)
            | Body::Snapshot { .. }
            | Body::SnapshotNext { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. } => return Ok(()),
        };
        let kept = kept && *term == message.term;
        if kept {
            Ok(())
        } else {
            Err(format!("PROMISE: {message:?} on a disk with {:?}", self.disk))
        }
    }

    /// Whether disk and memory hold the same entries up to `index`.
    fn agrees_with_disk(&self, index: LogIndex) -> bool {
        let on_disk = |entry: &&Entry| entry.index <= index && entry.index > self.cut_index();
        let mut entries = self.disk.log.entries.iter().filter(on_disk);
        entries.all(|entry| self.raft.log().entry(entry.index) == Some(entry))
    }

    fn cut_index(&self) -> LogIndex {
        self.raft.log().cut_index()
    }

    pub(super) fn id(&self) -> ReplicaId {
        self.raft.id()
    }

    pub(super) fn term(&self) -> Term {
        self.raft.term()
    }

    pub(super) fn commit(&self) -> LogIndex {
        self.raft.commit()
    }

    pub(super) fn leads(&self) -> bool {
        self.raft.is_leader()
    }

    pub(super) fn disk(&self) -> &Disk {
        &self.disk
    }

    /// The log in memory.
    pub(super) fn log(&self) -> Held {
        let log = self.raft.log();
        let entries = log.slice(log.cut_index().next(), log.last_index(), usize::MAX, usize::MAX);
        Held {
            cut_index: log.cut_index(),
            cut_term: log.cut_term(),
            membership: log.cut_membership().clone(),
            entries,
        }
    }

    pub(super) fn unstored(&self) -> usize {
        self.unstored.len()
    }

    /// Entries that a power cut can take from the store.
    pub(super) fn unsynced(&self) -> usize {
        self.applied.len() - 1
    }
}

impl Disk {
    fn replay(&mut self, records: Vec<Record>) {
        for record in records {
            match record {
                Record::Vote { term, vote, .. } => (self.term, self.vote) = (term, vote),
                Record::Entries { entries, .. } => self.log.on_entries(entries),
                Record::Cut { index, term, membership, .. } => {
                    self.log.on_cut(index, term, membership);
                }
                Record::Birth { .. }
                | Record::Genesis(_)
                | Record::Founded
                | Record::Released
                | Record::Boot(_)
                | Record::PeerBoot { .. }
                | Record::Table(_)
                | Record::Replica { .. }
                | Record::Dropped { .. }
                | Record::Checkpoint(_) => unreachable!("a replica records nothing of its member"),
            }
        }
    }
}

impl Held {
    pub(super) fn last_index(&self) -> LogIndex {
        self.entries.last().map_or(self.cut_index, |entry| entry.index)
    }

    /// The entry at an index behind the cut.
    pub(super) fn entry(&self, index: LogIndex) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.index == index)
    }

    /// Entries replace whatever stood at the first one's index and after it.
    fn on_entries(&mut self, entries: Vec<Entry>) {
        let first = entries.first().expect("a record has entries").index;
        self.entries.retain(|entry| entry.index < first);
        self.entries.extend(entries);
    }

    /// Without the entry (`index`, `term`) what follows it is void too.
    fn on_cut(&mut self, index: LogIndex, term: Term, membership: Membership) {
        if self.entry(index).is_some_and(|entry| entry.term == term) {
            self.entries.retain(|entry| entry.index > index);
        } else if index != self.cut_index {
            self.entries.clear();
        }
        (self.cut_index, self.cut_term, self.membership) = (index, term, membership);
    }
}

fn restart(
    (id, append_entries): (ReplicaId, usize),
    disk: &Disk,
    store: &StoreState,
    fx: &mut Effects,
) -> Raft {
    let durable = Durable {
        term: disk.term,
        vote: disk.vote,
        commit: disk.log.cut_index,
        cut_index: disk.log.cut_index,
        cut_term: disk.log.cut_term,
        membership: disk.log.membership.clone(),
        entries: disk.log.entries.clone(),
    };
    Raft::new((GROUP, id), settings(append_entries), durable, store, Rng::new(0), NOW, fx)
}

fn settings(append_entries: usize) -> Settings {
    Settings {
        election_min: Duration::ZERO,
        election_max: Duration::ZERO,
        append_bytes: 1 << 20,
        append_entries,
        appends_in_flight: 4,
        log_bytes_max: 1 << 30,
    }
}

/// Voters with the ids 1 to `voters`, each on the member of the same number.
pub(super) fn membership(voters: usize) -> Membership {
    let replica = |id| Replica { id: ReplicaId(id), member: MemberId(id) };
    let voters = (1..=count(voters)).map(replica).collect();
    Membership { voters, ..Membership::default() }
}

fn count(len: usize) -> u64 {
    u64::try_from(len).expect("usize has at most 64 bits")
}
