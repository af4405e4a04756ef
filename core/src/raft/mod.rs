//! One replica of one Raft group.
//!
//! After Ongaro, *Consensus: Bridging Theory and Practice* (2014); the sections cited are its. Pre-vote (9.6),
//! check-quorum (6.2), leadership transfer (3.10), learners (4.2.1), joint consensus as the only change algorithm
//! (4.3), pipelined appends (10.2.2) that leave while the leader's own disk still writes (10.2.1), snapshots in
//! chunks (5), ReadIndex reads in batches, from any replica (6.4).
//!
//! | file | owns |
//! |---|---|
//! | `mod.rs` | the replica's state, terms, the dispatch of messages |
//! | `election.rs` | pre-vote, vote, transfer |
//! | `replication.rs` | appends, commit, beats, check-quorum, membership changes |
//! | `read.rs` | ReadIndex |
//! | `snapshot.rs` | sending and receiving a snapshot |
//! | `log.rs` | the entries behind the cut and the memberships they set |
//! | `quorum.rs` | majorities of one or two voter sets |
//!
//! What becomes durable when: everything a replica promises (a vote, a term, an accepted entry) is first a
//! [`Record`] in [`Effects::records`]; the messages that rest on it are in [`Effects::promises`], which the node
//! holds back until every record that this replica has made so far is stored. [`Raft::on_stored`] then lets the
//! replica count its own vote and its own copy of an entry, never before.
//!
//! Limits: no lease reads; a read costs a round of beats.

mod election;
pub mod log;
pub mod message;
pub mod quorum;
mod read;
mod replication;
mod snapshot;
#[cfg(test)]
mod tests;

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use crate::ids::{GroupId, LogIndex, LogSeq, MemberId, ReplicaId, SnapshotId, Term};
use crate::rng::Rng;
use crate::storage::record::Record;
use crate::store::StoreState;
use crate::time::Instant;
use crate::wire::message::Role;
use log::Log;
use message::{Body, Entry, EntryBody, Membership, Message, Replica};
use snapshot::{Installing, Receiving, Sending};

/// What a replica may wait for and hold, taken from the node's configuration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Shortest election time-out.
    pub election_min: Duration,
    /// Longest election time-out.
    pub election_max: Duration,
    /// Most bytes of entries in one append.
    pub append_bytes: usize,
    /// Most entries in one append.
    pub append_entries: usize,
    /// Most appends on their way to one follower.
    pub appends_in_flight: usize,
    /// A follower whose log has grown past this takes no more until its store has applied what is committed.
    pub log_bytes_max: usize,
}

/// What was durable about a replica when its member was started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Current term.
    pub term: Term,
    /// Vote in that term.
    pub vote: Option<ReplicaId>,
    /// An index known to be committed.
    pub commit: LogIndex,
    /// The last index cut off the log...
    pub cut_index: LogIndex,
    /// ... and its term.
    pub cut_term: Term,
    /// The membership in force there.
    pub membership: Membership,
    /// The entries behind the cut.
    pub entries: Vec<Entry>,
}

/// One replica of a group, as a state machine.
///
/// Invariants, checked by [`Raft::check`]:
/// 1. `log.cut_index <= handed <= commit <= log.last_index`.
/// 2. `log.stored <= log.last_index`.
/// 3. A leader's log ends with an entry of its own term, and it voted for itself in that term.
/// 4. `matched < next` for every follower; `matched` never passes the leader's last index.
/// 5. Entries are contiguous and their terms never fall.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    group: GroupId,
    id: ReplicaId,
    settings: Settings,
    rng: Rng,
    term: Term,
    vote: Option<ReplicaId>,
    log: Log,
    commit: LogIndex,
    /// The last entry given to the store thread.
    handed: LogIndex,
    state: State,
    leader: Option<Replica>,
    /// When the present leader was last heard; none while nobody leads.
    heard: Option<Instant>,
    /// Election time-out of a follower or candidate; the next quorum check of a leader.
    deadline: Instant,
    /// Records whose durability this replica waits for; without a seq until the node has staged them.
    unstored: VecDeque<(Option<LogSeq>, Waiting)>,
    receiving: Option<Receiving>,
    installing: Installing,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Follower,
    PreCandidate { grants: BTreeSet<ReplicaId> },
    Candidate { grants: BTreeSet<ReplicaId> },
    Leader(Leader),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Leader {
    progress: BTreeMap<ReplicaId, Progress>,
    /// The index of the no-op that opened this term.
    term_start: LogIndex,
    /// Number of the last round of beats.
    round: u64,
    /// Reads that wait for a round to begin.
    reads_waiting: Vec<ReadFrom>,
    /// Reads whose round is under way, in order.
    reads_asked: VecDeque<ReadRound>,
    transfer: Option<Transfer>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Transfer {
    to: ReplicaId,
    until: Instant,
    /// Whether the target was told to stand.
    told: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct ReadRound {
    round: u64,
    index: LogIndex,
    reads: Vec<ReadFrom>,
}

/// Who asked for a read index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum ReadFrom {
    Here(u64),
    Replica(Replica, u64),
}

/// What a leader knows of one other replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Progress {
    replica: Replica,
    /// The greatest index known to be durable there.
    matched: LogIndex,
    /// The next index to send.
    next: LogIndex,
    mode: Mode,
    /// When anything of this term last came from it.
    heard: Instant,
    /// The last round of beats that it answered.
    round: u64,
    /// The round that was current when an append or a chunk was last sent to it.
    sent_round: u64,
    /// The round of the last tick.
    tick_round: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Mode {
    /// One append at a time, to find where the logs agree.
    Probe { sent: bool },
    /// Many at a time; the last index and the bytes of each append that is on its way.
    Replicate { flight: VecDeque<(LogIndex, usize)> },
    /// It is so far behind that the log no longer reaches back to it.
    Snapshot(Sending),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Waiting {
    Vote(Term),
    Entries {
        last: LogIndex,
        term: Term,
    },
    /// An installed snapshot's cut.
    Cut,
}

/// What one or more steps of a replica ask of its node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Effects {
    /// To be made durable, in order.
    pub records: Vec<Record>,
    /// To be sent now.
    pub sends: Vec<(MemberId, Message)>,
    /// To be sent when every record that this replica has made so far is durable.
    pub promises: Vec<(MemberId, Message)>,
    /// Reads of this member that may be answered once the index is applied; none: ask again, elsewhere.
    pub reads: Vec<(u64, Option<LogIndex>)>,
    /// Chunks to be read from the store.
    pub loads: Vec<(SnapshotId, u64)>,
    /// Snapshots that are no longer read.
    pub unloads: Vec<SnapshotId>,
    /// Chunks to be written to the store.
    pub installs: Vec<Install>,
    /// The leader (or the lack of one) is another than before.
    pub leader_changed: bool,
    /// A peer's message broke the protocol: what it did.
    pub faults: Vec<&'static str>,
}

/// A chunk of a snapshot for the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// Names the snapshot.
    pub id: SnapshotId,
    /// Number of the chunk.
    pub chunk: u64,
    /// Its bytes.
    pub data: bytes::Bytes,
    /// True on the last.
    pub last: bool,
}

/// A proposal or change that was not taken; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposeRefused {
    /// This replica does not lead.
    NotLeader,
    /// Leadership is being handed over.
    Transferring,
    /// A membership change needs an entry of this term to be committed first.
    NoCommitInTerm,
    /// Another membership change is not finished.
    ChangePending,
    /// The asked-for membership has no voter, or a replica twice, or is the present one.
    BadMembership,
}

impl Raft {
    /// A replica rebuilt from what was durable: its log, and where its store stands.
    ///
    /// The store may be ahead of the log: entries are applied when a quorum has them, which may be before this
    /// member has stored them, and a snapshot is installed before the log says so. Then the store is right.
    ///
    /// # Panics
    /// When the store stands before the log's cut; the node has refused such a directory.
    #[must_use]
    pub fn new(
        (group, id): (GroupId, ReplicaId),
        settings: Settings,
        durable: Durable,
        store: &StoreState,
        rng: Rng,
        now: Instant,
        fx: &mut Effects,
    ) -> Self {
        let Durable { term, vote, commit, cut_index, cut_term, membership, entries } = durable;
        let mut log = Log::new(cut_index, cut_term, membership, entries);
        let applied = store.index;
        assert!(log.cut_index() <= applied, "the store holds what is cut off the log");
        let ahead = log.term_at(applied) != Some(store.term);
        if ahead {
            log.reset(applied, store.term, store.membership.clone());
        }
        let commit = commit.max(applied).min(log.last_index());
        let mut raft = Self {
            group,
            id,
            settings,
            rng,
            // A store ahead of the log may know of a later term than the log does.
            term: term.max(log.last_term()),
            vote: if term < log.last_term() { None } else { vote },
            log,
            commit,
            handed: applied,
            state: State::Follower,
            leader: None,
            heard: None,
            deadline: now,
            unstored: VecDeque::new(),
            receiving: None,
            installing: Installing::default(),
        };
        raft.reset_election_deadline(now);
        if raft.term > term {
            raft.record_vote(fx);
        }
        if ahead {
            fx.records.push(raft.cut_record());
            raft.unstored.push_back((None, Waiting::Cut));
        }
        raft
    }

    /// A message from another replica of the group.
    pub fn on_message(&mut self, now: Instant, from: MemberId, message: Message, fx: &mut Effects) {
        if message.group != self.group || message.to != self.id || message.from == self.id {
            fx.faults.push("a raft message for another replica");
            return;
        }
        if message.term.0 >> NUMBER_BITS != 0 || message.body.greatest_index().0 >> NUMBER_BITS != 0
        {
            fx.faults.push("a term or an index beyond all use");
            return;
        }
        let sender = Replica { id: message.from, member: from };
        if message.term > self.term {
            if !self.follow_higher_term(now, sender, &message, fx) {
                return;
            }
        } else if message.term < self.term {
            self.answer_lower_term(sender, &message, fx);
            return;
        }
        let of_leader =
            matches!(message.body, Body::Append { .. } | Body::Beat(_) | Body::Snapshot { .. });
        if of_leader && !self.accept_leader(now, sender, fx) {
            return;
        }
        self.dispatch(now, sender, message, fx);
    }

    fn dispatch(&mut self, now: Instant, sender: Replica, message: Message, fx: &mut Effects) {
        match message.body {
            Body::PreVote { last_index, last_term } => {
                self.on_pre_vote(now, sender, message.term, (last_index, last_term), fx);
            }
            Body::PreVoteAnswer { granted } => {
                self.on_pre_vote_answer(now, sender, message.term, granted, fx);
            }
            Body::Vote { last_index, last_term, .. } => {
                self.on_vote(now, sender, last_index, last_term, fx);
            }
            Body::VoteAnswer { granted } => self.on_vote_answer(now, sender, granted, fx),
            Body::Append { prev_index, prev_term, commit, entries } => {
                self.on_append(sender, prev_index, prev_term, commit, entries, fx);
            }
            Body::Accepted { index } => self.on_accepted(now, sender, index, fx),
            Body::Rejected { prev_index, hint_index, hint_term } => {
                self.on_rejected(now, sender, prev_index, (hint_index, hint_term), fx);
            }
            Body::Beat(beat) => self.on_beat(sender, beat, fx),
            Body::BeatAnswer(answer) => self.on_beat_answer(now, sender, answer, fx),
            Body::Snapshot { id, index, chunk, data, last, .. } => {
                self.on_snapshot(sender, index, Install { id, chunk, data, last }, fx);
            }
            Body::SnapshotNext { id, chunk } => self.on_snapshot_next(now, sender, id, chunk, fx),
            Body::TimeoutNow => self.on_timeout_now(now, sender, fx),
            Body::ReadIndex { read } => self.on_read_index(sender, read, fx),
            Body::ReadIndexAnswer { read, index } => fx.reads.push((read, index)),
        }
    }

    /// The deadline has come.
    pub fn on_wakeup(&mut self, now: Instant, fx: &mut Effects) {
        if now < self.deadline {
            return;
        }
        if matches!(self.state, State::Leader(_)) {
            self.on_quorum_check_timeout(now, fx);
        } else {
            self.on_election_timeout(now, fx);
        }
    }

    /// The node has staged the records of the last effects in this batch.
    pub fn on_recorded(&mut self, seq: LogSeq) {
        for (staged, _) in self.unstored.iter_mut().rev() {
            if staged.is_some() {
                break;
            }
            *staged = Some(seq);
        }
    }

    /// All batches up to this one are durable.
    pub fn on_stored(&mut self, now: Instant, upto: LogSeq, fx: &mut Effects) {
        let mut advanced = false;
        while let Some(&(Some(seq), waiting)) = self.unstored.front() {
            if seq > upto {
                break;
            }
            self.unstored.pop_front();
            match waiting {
                Waiting::Vote(term) => self.on_own_vote_stored(now, term, fx),
                Waiting::Entries { last, term } => advanced |= self.log.on_stored(last, term),
                Waiting::Cut => {}
            }
        }
        if advanced && matches!(self.state, State::Leader(_)) {
            self.advance_commit(now, fx);
        }
    }

    /// Counts the log's batches from `by` later on: what waits for batch `n` waits for `n - by`. An exhaustive
    /// search calls it where its disk numbers only what it has not stored, so that equal states are equal.
    ///
    /// # Panics
    /// When this replica waits for one of the first `by` batches.
    pub fn renumber_batches(&mut self, by: u64) {
        for (seq, _) in &mut self.unstored {
            if let Some(seq) = seq {
                seq.0 = seq.0.checked_sub(by).expect("what is stored is not waited for");
            }
        }
    }

    /// Committed entries that the store has not been given yet, at most about `bytes`; none while a snapshot is
    /// about to replace what they would be applied to.
    pub fn take_committed(&mut self, bytes: usize) -> Vec<Entry> {
        if self.installing.is_closing() || self.handed >= self.commit {
            return Vec::new();
        }
        let entries = self.log.slice(self.handed.next(), self.commit, usize::MAX, bytes);
        if let Some(last) = entries.last() {
            self.handed = last.index;
        }
        entries
    }

    /// Drops the log up to `index`, which the store holds durably. Before the present cut it does nothing.
    pub fn cut(&mut self, index: LogIndex, fx: &mut Effects) {
        assert!(index <= self.handed, "only what the store has is cut");
        if index < self.log.cut_index() {
            return;
        }
        self.log.cut(index);
        fx.records.push(self.cut_record());
        self.unstored.push_back((None, Waiting::Cut));
    }

    /// Writes the entries behind `index` once more; the cut at `index` that follows lets the log's old segments go.
    pub fn rewrite(&mut self, index: LogIndex, fx: &mut Effects) {
        let from = index.max(self.log.cut_index()).next();
        let entries = self.log.slice(from, self.log.last_index(), usize::MAX, usize::MAX);
        if !entries.is_empty() {
            self.record_entries(entries, fx);
        }
    }

    /// When [`Raft::on_wakeup`] is due.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// This replica's id.
    #[must_use]
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// The current term.
    #[must_use]
    pub fn term(&self) -> Term {
        self.term
    }

    /// The vote of the current term.
    #[must_use]
    pub fn vote(&self) -> Option<ReplicaId> {
        self.vote
    }

    /// The commit index.
    #[must_use]
    pub fn commit(&self) -> LogIndex {
        self.commit
    }

    /// The last entry given to the store thread.
    #[must_use]
    pub fn handed(&self) -> LogIndex {
        self.handed
    }

    /// The log behind the cut.
    #[must_use]
    pub fn log(&self) -> &Log {
        &self.log
    }

    /// The membership in force: the last one in the log, committed or not (section 4.1).
    #[must_use]
    pub fn membership(&self) -> &Membership {
        self.log.membership()
    }

    /// The membership in force, if its entry is committed.
    #[must_use]
    pub fn committed_membership(&self) -> Option<&Membership> {
        (self.log.membership_index() <= self.commit).then(|| self.log.membership())
    }

    /// Who leads, as far as known.
    #[must_use]
    pub fn leader(&self) -> Option<Replica> {
        self.leader
    }

    /// True while this replica leads.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.state, State::Leader(_))
    }

    /// What this replica is.
    #[must_use]
    pub fn role(&self) -> Role {
        match self.state {
            State::Leader(_) => Role::Leader,
            State::Candidate { .. } => Role::Candidate,
            State::PreCandidate { .. } => Role::PreCandidate,
            State::Follower if self.is_voter() => Role::Follower,
            State::Follower => Role::Learner,
        }
    }

    /// Asserts the invariants of the type.
    pub fn check(&self) {
        assert!(self.log.cut_index() <= self.handed, "1: cut <= handed");
        assert!(self.handed <= self.commit, "1: handed <= commit");
        assert!(self.commit <= self.log.last_index(), "1: commit <= last");
        assert!(self.log.stored() <= self.log.last_index(), "2: stored <= last");
        if let State::Leader(leader) = &self.state {
            assert_eq!(self.log.last_term(), self.term, "3: a leader's log ends in its term");
            assert_eq!(self.vote, Some(self.id), "3: a leader voted for itself");
            for progress in leader.progress.values() {
                assert!(progress.matched < progress.next, "4: matched < next");
                assert!(progress.matched <= self.log.last_index(), "4: matched <= last");
            }
        }
        self.log.check();
    }

    /// True when this replica votes in the membership in force.
    fn is_voter(&self) -> bool {
        self.membership().all_voters().any(|voter| voter.id == self.id)
    }

    fn message(&self, to: Replica, term: Term, body: Body) -> (MemberId, Message) {
        (to.member, Message { group: self.group, from: self.id, to: to.id, term, body })
    }

    fn send(&self, to: Replica, body: Body, fx: &mut Effects) {
        fx.sends.push(self.message(to, self.term, body));
    }

    fn promise(&self, to: Replica, body: Body, fx: &mut Effects) {
        fx.promises.push(self.message(to, self.term, body));
    }

    /// A message of a higher term: false when it must not be looked at further.
    fn follow_higher_term(
        &mut self,
        now: Instant,
        sender: Replica,
        message: &Message,
        fx: &mut Effects,
    ) -> bool {
        match message.body {
            // A question about a term, or the answer to one, changes no term (section 9.6).
            Body::PreVote { .. } | Body::PreVoteAnswer { granted: true } => true,
            // Who hears a leader does not let others depose it (section 4.2.3), unless the leader asked for it.
            Body::Vote { transfer: false, .. } if self.hears_leader(now) => false,
            Body::Append { .. } | Body::Beat(_) | Body::Snapshot { .. } => {
                self.become_follower(now, message.term, Some(sender), fx);
                true
            }
            Body::PreVoteAnswer { granted: false }
            | Body::Vote { .. }
            | Body::VoteAnswer { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::BeatAnswer(_)
            | Body::SnapshotNext { .. }
            | Body::TimeoutNow
            | Body::ReadIndex { .. }
            | Body::ReadIndexAnswer { .. } => {
                self.become_follower(now, message.term, None, fx);
                true
            }
        }
    }

    /// A message of a lower term is void; but its sender may not know that its term is over. Without the answer
    /// a leader could go on in vain while a replica of a higher term ignores it and pre-vote keeps that replica
    /// from being elected (etcd's trap with check-quorum).
    fn answer_lower_term(&mut self, sender: Replica, message: &Message, fx: &mut Effects) {
        match message.body {
            Body::Append { .. } | Body::Snapshot { .. } | Body::Beat(_) => {
                let last_index = self.log.last_index();
                let round = 0;
                self.send(sender, Body::BeatAnswer(message::BeatAnswer { round, last_index }), fx);
            }
            Body::PreVote { .. } => {
                self.send(sender, Body::PreVoteAnswer { granted: false }, fx);
            }
            Body::Vote { .. } => self.send(sender, Body::VoteAnswer { granted: false }, fx),
            Body::ReadIndex { read } => {
                self.send(sender, Body::ReadIndexAnswer { read, index: None }, fx);
            }
            // An answer to a read that this replica asked of the leader of an earlier term: the index was right
            // when it was given, and that was after the read was asked for.
            Body::ReadIndexAnswer { read, index } => fx.reads.push((read, index)),
            Body::PreVoteAnswer { .. }
            | Body::VoteAnswer { .. }
            | Body::Accepted { .. }
            | Body::Rejected { .. }
            | Body::BeatAnswer(_)
            | Body::SnapshotNext { .. }
            | Body::TimeoutNow => {}
        }
    }

    /// Bows to the leader of the current term. False when the sender cannot be that.
    fn accept_leader(&mut self, now: Instant, sender: Replica, fx: &mut Effects) -> bool {
        if self.is_leader() || self.leader.is_some_and(|leader| leader.id != sender.id) {
            fx.faults.push("two leaders in one term");
            return false;
        }
        if !matches!(self.state, State::Follower) || self.leader.is_none() {
            self.become_follower(now, self.term, Some(sender), fx);
        }
        self.heard = Some(now);
        self.reset_election_deadline(now);
        true
    }

    fn become_follower(
        &mut self,
        now: Instant,
        term: Term,
        leader: Option<Replica>,
        fx: &mut Effects,
    ) {
        assert!(term >= self.term, "terms never fall");
        self.abandon_leadership(fx);
        self.state = State::Follower;
        if term > self.term {
            self.term = term;
            self.vote = None;
            self.record_vote(fx);
        }
        if self.leader != leader {
            self.leader = leader;
            fx.leader_changed = true;
        }
        self.heard = leader.map(|_| now);
        self.reset_election_deadline(now);
    }

    /// Ends what only a leader has under way.
    fn abandon_leadership(&mut self, fx: &mut Effects) {
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let waiting = leader.reads_waiting.drain(..);
        let asked = leader.reads_asked.drain(..).flat_map(|round| round.reads);
        for read in waiting.chain(asked) {
            match read {
                ReadFrom::Here(read) => fx.reads.push((read, None)),
                // The asker's own retry finds the next leader.
                ReadFrom::Replica(..) => {}
            }
        }
        for progress in leader.progress.values() {
            if let Mode::Snapshot(sending) = &progress.mode {
                fx.unloads.push(sending.id);
            }
        }
    }

    fn record_vote(&mut self, fx: &mut Effects) {
        fx.records.push(Record::Vote {
            group: self.group,
            replica: self.id,
            term: self.term,
            vote: self.vote,
        });
        self.unstored.push_back((None, Waiting::Vote(self.term)));
    }

    fn cut_record(&self) -> Record {
        Record::Cut {
            group: self.group,
            replica: self.id,
            index: self.log.cut_index(),
            term: self.log.cut_term(),
            membership: self.log.cut_membership().clone(),
        }
    }

    fn hears_leader(&self, now: Instant) -> bool {
        self.is_leader()
            || self.heard.is_some_and(|heard| now.since(heard) < self.settings.election_min)
    }

    fn reset_election_deadline(&mut self, now: Instant) {
        self.deadline =
            now + self.rng.duration(self.settings.election_min, self.settings.election_max);
    }

    /// Where the store stands after it installed a snapshot; see `snapshot.rs`.
    fn adopt(&mut self, state: &StoreState, fx: &mut Effects) {
        self.log.reset(state.index, state.term, state.membership.clone());
        self.commit = self.commit.max(state.index);
        self.handed = state.index;
        fx.records.push(self.cut_record());
        self.unstored.push_back((None, Waiting::Cut));
    }
}

/// Terms and indexes from peers have at most this many bits, so that counting on from them never overflows.
const NUMBER_BITS: u32 = 62;

/// Appends an entry to a replica's own log.
impl Raft {
    fn append_own(&mut self, body: EntryBody, fx: &mut Effects) -> LogIndex {
        let entry = Entry { index: self.log.last_index().next(), term: self.term, body };
        let index = entry.index;
        self.log.push(entry.clone());
        // What is proposed in one turn becomes one record.
        if let Some(Record::Entries { group, replica, entries }) = fx.records.last_mut()
            && (*group, *replica) == (self.group, self.id)
            && entries.last().is_some_and(|last| last.index == index.prev())
        {
            entries.push(entry);
            self.await_entries(index, self.term);
        } else {
            self.record_entries(alloc::vec![entry], fx);
        }
        index
    }

    fn record_entries(&mut self, entries: Vec<Entry>, fx: &mut Effects) {
        let last = entries.last().expect("a record has entries");
        self.await_entries(last.index, last.term);
        fx.records.push(Record::Entries { group: self.group, replica: self.id, entries });
    }

    fn await_entries(&mut self, last: LogIndex, term: Term) {
        // Entries of one term never replace each other: who waits for the later one waits for both.
        if let Some((None, Waiting::Entries { last: before, term: same })) =
            self.unstored.back_mut()
            && *same == term
            && *before < last
        {
            *before = last;
        } else {
            self.unstored.push_back((None, Waiting::Entries { last, term }));
        }
    }
}
