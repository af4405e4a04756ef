//! States that a run may pass through and rarely does. A swarm that never reaches one of them says nothing about it:
//! the table of how many seeds did is what tells whether the plans are wild enough.
//!
//! Everything is told from what passes between a node and its world; core has no hook for it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use ring_core::directory::ChangeRefused;
use ring_core::ids::{GroupId, LogIndex, MemberId, Seq, SessionId, SnapshotId, Term};
use ring_core::io::{Event, Failure, Halt};
use ring_core::raft::message::{Body, Entry, EntryBody, Membership, Message as RaftMessage};
use ring_core::shard::command::{Answer, Item, ItemOutcome, Payload, Query};
use ring_core::storage::Recovered;
use ring_core::storage::record::{Batch, Record};
use ring_core::store::{StoreDone, StoreState, StoreTask};
use ring_core::wire::Message;
use ring_core::wire::message::AskError;

macro_rules! rare {
    ($($name:ident: $words:literal,)*) => {
        /// A state that runs should reach.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Rare {
            $(#[doc = $words] $name,)*
        }

        impl Rare {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// What it is.
            #[must_use]
            pub fn words(self) -> &'static str {
                match self {
                    $(Self::$name => $words,)*
                }
            }
        }
    };
}

rare! {
    SnapshotSent: "snapshot: sending begun",
    SnapshotChunks: "snapshot: more than one chunk",
    SnapshotRepeated: "snapshot: a chunk sent again",
    SnapshotRestarted: "snapshot: the receiver had lost its part",
    SnapshotReplaced: "snapshot: another one begun before the end",
    SnapshotInstalled: "snapshot: installed",
    SnapshotInSplit: "snapshot: installed while a link was blocked",
    SnapshotRefused: "snapshot: refused by the store",
    InstallInterrupted: "snapshot: receiver died in the middle",
    SenderInterrupted: "snapshot: sender died in the middle",
    PreVoteRefused: "election: pre-vote refused",
    VoteRefused: "election: vote refused",
    VoteSplit: "election: two candidates in one term",
    CheckQuorum: "election: leader stepped down without a quorum",
    TwoLeaders: "election: a leader elected while an older one leads",
    TransferBegun: "election: leadership handed over",
    TransferLost: "election: an heir did not stand, another was told",
    AppendRejected: "log: append rejected",
    Truncated: "log: entries replaced on a follower",
    OldTermCommitted: "log: entry of an old term committed in a new one",
    SegmentFull: "log: segment closed because it was full",
    SegmentDeleted: "log: segments deleted",
    LogCut: "log: cut",
    Rewritten: "log: entries of an idle group written once more",
    TornTail: "recovery: torn or unfinished batch at the end",
    RecoveryInterrupted: "recovery: died before it was up",
    UnfoundedDeath: "recovery: died before the cluster was founded",
    StoreBehindLog: "recovery: store behind the log, entries applied again",
    Unrecoverable: "recovery: directory given up",
    LogSyncFailed: "halt: log sync failed",
    LogWriteFailed: "halt: log write failed",
    DiskFull: "halt: disk full",
    StoreFailed: "halt: store failed",
    WipedNoticed: "halt: wiped disk noticed",
    RollbackNoticed: "halt: rolled-back disk noticed",
    PeerRefused: "link: peer refused",
    PeerFault: "link: message that the protocol forbids",
    Duplicate: "session: command proposed again after it was applied",
    Gap: "session: gap answered",
    Expired: "session: unknown to its group",
    Forgotten: "session: reply forgotten",
    SessionReopened: "session: opened again by the same member",
    FollowerRead: "read: a follower asked its leader",
    ReadNoLeader: "read: no leader",
    ReadBusy: "read: too many wait",
    ProposeBusy: "call: leader had no room",
    CallRefused: "call: refused at once",
    OutcomeUnknown: "call: outcome unknown",
    ScanPages: "scan: second page",
    CursorLost: "scan: cursor lost",
    ScanInterrupted: "scan: interrupted",
    JointEntered: "membership: joint configuration",
    JointFinished: "membership: joint configuration left",
    JointInherited: "membership: elected with a joint configuration",
    LearnerAdded: "membership: voter made a learner",
    ChangeTruncated: "membership: change given up with its leader",
    LeaderRemoved: "membership: leader removed itself",
    RemovedStands: "membership: removed replica stood for election",
    GenesisReleased: "birth: a genesis given up",
    FounderForgot: "birth: a founder lost its disk before the cluster existed",
    MemberLeft: "churn: a member has left",
    MemberBuried: "churn: a member lost for good",
    MemberRenewed: "churn: a member lost its disk and joins again",
    MemberRevived: "churn: a member that had left comes back on its directory",
    MemberRestored: "churn: a member that had left comes back on a copy of its directory",
    RestoredRefused: "churn: ... and is refused",
    ChangeRefused: "churn: what a member asked for refused",
    LeaveRefused: "churn: a leave refused that would have left no majority",
    LeaveForced: "churn: a leave by force",
    ReplicaMade: "churn: a replica made on a member that had none",
    ReplicaDropped: "churn: a replica dropped",
    ReplicaRemade: "churn: a replica made where there had been one",
    OrderFollowed: "churn: the voters changed as ordered",
    MovingHeadless: "churn: the directory's leader changed while a move was under way",
    MemberLost: "churn: a member given up because it was away",
    MemberReturned: "churn: a member that had been given up returned",
    OrderSuperseded: "churn: an order superseded before it was settled",
    Replaced: "churn: a replica of a member that is away replaced by another",
}

/// How often a run (or many) reached each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reached(BTreeMap<Rare, u64>);

/// Of many runs, how many reached each, and how often all together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    runs: u64,
    rows: BTreeMap<Rare, (u64, u64)>,
}

impl Reached {
    /// How often it was reached.
    #[must_use]
    pub fn count(&self, rare: Rare) -> u64 {
        self.0.get(&rare).copied().unwrap_or(0)
    }

    fn add(&mut self, rare: Rare) {
        *self.0.entry(rare).or_insert(0) += 1;
    }

    fn add_if(&mut self, rare: Rare, reached: bool) {
        if reached {
            self.add(rare);
        }
    }
}

impl Table {
    /// Adds a run.
    pub fn add(&mut self, reached: &Reached) {
        self.runs += 1;
        for (rare, count) in &reached.0 {
            let row = self.rows.entry(*rare).or_default();
            row.0 += 1;
            row.1 += count;
        }
    }

    /// What no run reached.
    pub fn missed(&self) -> impl Iterator<Item = Rare> + '_ {
        Rare::ALL.iter().copied().filter(|rare| !self.rows.contains_key(rare))
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "reached in … of {} seeds (and how often in all of them):", self.runs)?;
        for rare in Rare::ALL {
            let (runs, times) = self.rows.get(rare).copied().unwrap_or_default();
            let mark = if runs == 0 { "!" } else { " " };
            writeln!(f, "{mark} {runs:>6} {times:>9}  {}", rare.words())?;
        }
        Ok(())
    }
}

mod churn;

/// Looks at what passes between the nodes and their worlds.
#[derive(Debug, Default)]
pub(crate) struct Lookout {
    pub(crate) reached: Reached,
    members: Vec<Seen>,
    churn: churn::Churn,
    /// Who stood for election.
    candidates: BTreeMap<(GroupId, Term), usize>,
    applied: BTreeSet<(GroupId, SessionId, Seq)>,
    /// The last membership that was committed, of groups that had another than the first.
    shapes: BTreeMap<GroupId, Membership>,
}

/// What was seen of one member.
#[derive(Debug, Default)]
struct Seen {
    /// Of the present process.
    alive: Life,
    /// The last session that it opened, by the number of the attempt.
    openings: BTreeMap<GroupId, u64>,
}

#[derive(Debug, Default)]
struct Life {
    batches: u64,
    stands: bool,
    known_to: BTreeSet<usize>,
    leads: BTreeMap<GroupId, Term>,
    receiving: BTreeMap<GroupId, SnapshotId>,
    sending: BTreeMap<SnapshotId, u64>,
    heirs: BTreeMap<GroupId, Term>,
    /// Groups whose last membership in this member's log is joint, and those in which it has no vote.
    joint: BTreeMap<GroupId, LogIndex>,
    outside: BTreeSet<GroupId>,
}

impl Lookout {
    pub(crate) fn new(members: usize) -> Self {
        Self { members: (0..members).map(|_| Seen::default()).collect(), ..Self::default() }
    }

    pub(crate) fn reach(&mut self, rare: Rare) {
        self.reached.add(rare);
    }

    /// A member that sends a snapshot.
    pub(crate) fn sender(&self) -> Option<usize> {
        self.members.iter().position(|seen| !seen.alive.sending.is_empty())
    }

    /// A member that receives a snapshot.
    pub(crate) fn receiver(&self) -> Option<usize> {
        self.members.iter().position(|seen| !seen.alive.receiving.is_empty())
    }

    /// A member that votes for itself with the last batch of its log.
    pub(crate) fn candidate(&self) -> Option<usize> {
        self.members.iter().position(|seen| seen.alive.stands)
    }

    /// How many others have spoken with a member's present process, and will know it again.
    pub(crate) fn known_to(&self, member: usize) -> usize {
        self.members[member].alive.known_to.len()
    }

    /// What a member that was started found.
    pub(crate) fn on_boot(&mut self, me: usize, log: &Recovered, store: &[StoreState], torn: bool) {
        self.members[me].alive = Life::default();
        self.reached.add_if(Rare::TornTail, torn);
        let behind = store.iter().any(|state| {
            log.groups.get(&state.group).is_some_and(|group| state.index < group.commit)
        });
        self.reached.add_if(Rare::StoreBehindLog, behind);
    }

    /// A process ends, whichever way.
    pub(crate) fn on_death(&mut self, me: usize, starting: bool, founded: bool) {
        let Some(seen) = self.members.get_mut(me) else { return };
        let life = std::mem::take(&mut seen.alive);
        self.reached.add_if(Rare::RecoveryInterrupted, starting);
        self.reached.add_if(Rare::UnfoundedDeath, !founded);
        self.reached.add_if(Rare::InstallInterrupted, !life.receiving.is_empty());
        self.reached.add_if(Rare::SenderInterrupted, !life.sending.is_empty());
    }

    /// A message goes out.
    pub(crate) fn on_send(&mut self, me: usize, message: &Message) {
        let reached = &mut self.reached;
        match message {
            Message::Raft(raft) => self.on_send_raft(me, raft),
            Message::Open { group, nonce } => {
                if let Some(seen) = self.members.get_mut(me) {
                    let before = seen.openings.insert(*group, *nonce);
                    let again = before.is_some_and(|before| before != *nonce);
                    reached.add_if(Rare::SessionReopened, again);
                }
            }
            Message::Proposed { outcomes, .. } => {
                for (_, outcome) in outcomes {
                    match outcome {
                        ItemOutcome::Gap { .. } => reached.add(Rare::Gap),
                        ItemOutcome::Expired => reached.add(Rare::Expired),
                        ItemOutcome::Forgotten => reached.add(Rare::Forgotten),
                        ItemOutcome::Opened(_) | ItemOutcome::Done(_) => {}
                    }
                }
            }
            Message::Busy { .. } => reached.add(Rare::ProposeBusy),
            Message::Answer { result: Err(AskError::Busy), .. } => reached.add(Rare::ReadBusy),
            Message::Answer { result: Err(AskError::NoLeader), .. } => {
                reached.add(Rare::ReadNoLeader);
            }
            Message::Answer { .. }
            | Message::LocalAnswer { .. }
            | Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refuse(_)
            | Message::Founding(_)
            | Message::Gather(_)
            | Message::Beats(_)
            | Message::BeatAnswers(_)
            | Message::Opened { .. }
            | Message::Propose { .. }
            | Message::NotLeader { .. }
            | Message::Ask { .. }
            | Message::AskStatus { .. }
            | Message::Status { .. }
            | Message::Table(_)
            | Message::TableVersion(_)
            | Message::Register { .. }
            | Message::Leave { .. }
            | Message::Settled { .. }
            | Message::ChangeRefused(_)
            | Message::Sync(_)
            | Message::Request { .. }
            | Message::RequestsTaken { .. }
            | Message::RequestsSent { .. }
            | Message::StreamCredit { .. }
            | Message::Ping
            | Message::Pong => {}
        }
    }

    fn on_send_raft(&mut self, me: usize, message: &RaftMessage) {
        let RaftMessage { group, term, ref body, .. } = *message;
        let life = &mut self.members[me].alive;
        let reached = &mut self.reached;
        match body {
            Body::PreVote { .. } => {
                let shape = self.shapes.get(&group);
                let id = self.churn.id_of(me);
                let removed = shape.is_some_and(|shape| !has_vote(shape, id));
                reached.add_if(Rare::RemovedStands, removed);
            }
            Body::PreVoteAnswer { granted } => reached.add_if(Rare::PreVoteRefused, !granted),
            Body::VoteAnswer { granted } => reached.add_if(Rare::VoteRefused, !granted),
            Body::Vote { .. } => {
                let other = *self.candidates.entry((group, term)).or_insert(me);
                reached.add_if(Rare::VoteSplit, other != me);
            }
            Body::Rejected { .. } => reached.add(Rare::AppendRejected),
            Body::Snapshot { id, chunk, last, .. } => {
                let before = life.sending.insert(*id, *chunk);
                reached.add_if(Rare::SnapshotSent, before.is_none());
                reached.add_if(Rare::SnapshotChunks, *chunk == 1 && before == Some(0));
                reached.add_if(Rare::SnapshotRepeated, before == Some(*chunk));
                if *last {
                    life.sending.remove(id);
                }
            }
            Body::SnapshotNext { chunk: 0, .. } => reached.add(Rare::SnapshotRestarted),
            Body::TimeoutNow => {
                reached.add(Rare::TransferBegun);
                let before = life.heirs.insert(group, term);
                reached.add_if(Rare::TransferLost, before == Some(term));
            }
            Body::ReadIndex { .. } => reached.add(Rare::FollowerRead),
            Body::SnapshotNext { .. }
            | Body::Append { .. }
            | Body::Accepted { .. }
            | Body::Beat(_)
            | Body::BeatAnswer(_)
            | Body::ReadIndexAnswer { .. } => {}
        }
    }

    /// A batch goes to the log; `replaced` tells the term of what stood in a group's log at an index.
    pub(crate) fn on_append(
        &mut self,
        me: usize,
        batch: &Batch,
        replaced: impl Fn(GroupId, LogIndex) -> Option<Term>,
    ) {
        let life = &mut self.members[me].alive;
        life.batches += 1;
        life.stands = batch.records.iter().any(|record| {
            matches!(record, Record::Vote { replica, vote, .. } if *vote == Some(*replica))
        });
        let releases = |record: &Record| matches!(record, Record::Released);
        self.reached.add_if(Rare::GenesisReleased, batch.records.iter().any(releases));
        self.reached.add_if(Rare::SegmentFull, batch.opens.is_some() && life.batches > 1);
        for record in &batch.records {
            match record {
                Record::Entries { group, entries, .. } => {
                    let first = &entries[0];
                    let before = replaced(*group, first.index);
                    self.reached.add_if(Rare::Rewritten, before == Some(first.term));
                    let truncated = before.is_some_and(|term| term != first.term);
                    self.reached.add_if(Rare::Truncated, truncated);
                    self.on_memberships(me, *group, entries);
                }
                Record::Cut { .. } => self.reached.add(Rare::LogCut),
                Record::Replica { group, .. } => self.on_made(me, *group),
                Record::Dropped { .. } => self.reached.add(Rare::ReplicaDropped),
                Record::Birth { .. }
                | Record::Genesis(_)
                | Record::Founded
                | Record::Released
                | Record::Boot(_)
                | Record::PeerBoot { .. }
                | Record::Table(_)
                | Record::Vote { .. }
                | Record::Checkpoint(_) => {}
            }
        }
    }

    fn on_memberships(&mut self, me: usize, group: GroupId, entries: &[Entry]) {
        let life = &mut self.members[me].alive;
        // A joint configuration that is overwritten is over.
        if life.joint.get(&group).is_some_and(|at| entries[0].index <= *at) {
            life.joint.remove(&group);
            self.reached.add(Rare::ChangeTruncated);
        }
        for entry in entries {
            let EntryBody::Membership(membership) = &entry.body else { continue };
            if has_vote(membership, self.churn.id_of(me)) {
                life.outside.remove(&group);
            } else {
                life.outside.insert(group);
            }
            let id = self.churn.id_of(me);
            let learns = membership.learners.iter().any(|r| r.member == id);
            self.reached.add_if(Rare::LearnerAdded, learns);
            if membership.is_joint() {
                life.joint.insert(group, entry.index);
                self.reached.add(Rare::JointEntered);
            } else {
                let before = life.joint.remove(&group);
                self.reached.add_if(Rare::JointFinished, before.is_some());
            }
        }
    }

    /// A task goes to the store; `news` when an entry at or beyond this index was applied nowhere yet.
    pub(crate) fn on_task(&mut self, me: usize, task: &StoreTask, news: LogIndex) {
        let life = &mut self.members[me].alive;
        match task {
            StoreTask::Apply { group, entries, .. } => {
                let leads = life.leads.get(group).copied();
                for entry in entries.iter().filter(|entry| entry.index >= news) {
                    let old = leads.is_some_and(|term| entry.term < term);
                    self.reached.add_if(Rare::OldTermCommitted, old);
                    self.on_first_applied(*group, entry);
                }
            }
            StoreTask::Install { group, id, last, .. } => {
                let before = life.receiving.insert(*group, *id);
                let replaced = before.is_some_and(|before| before != *id);
                self.reached.add_if(Rare::SnapshotReplaced, replaced);
                if *last {
                    life.receiving.remove(group);
                }
            }
            StoreTask::CloseSnapshot { id } => {
                life.sending.remove(id);
            }
            StoreTask::Read { query, .. } => {
                self.reached.add_if(Rare::ScanPages, matches!(query, Query::ScanNext { .. }));
            }
            StoreTask::Create { .. }
            | StoreTask::Drop { .. }
            | StoreTask::CloseCursor { .. }
            | StoreTask::CloseWatch { .. }
            | StoreTask::Persist
            | StoreTask::Load { .. } => {}
        }
    }

    fn on_first_applied(&mut self, group: GroupId, entry: &Entry) {
        if let EntryBody::Membership(membership) = &entry.body {
            let before = self.shapes.insert(group, (**membership).clone());
            let order = before.map_or(0, |before| before.order);
            self.reached.add_if(Rare::OrderFollowed, membership.order > order);
        }
        let EntryBody::Data(data) = &entry.body else { return };
        let Ok(payload) = postcard::from_bytes::<Payload<&[u8]>>(data) else { return };
        for item in payload.items {
            if let Item::Command { session, seq, .. } = item {
                let fresh = self.applied.insert((group, session, seq));
                self.reached.add_if(Rare::Duplicate, !fresh);
            }
        }
    }

    /// A store has done something; `split` tells whether some link of the network is blocked.
    pub(crate) fn on_done(&mut self, done: &StoreDone, split: impl Fn() -> bool) {
        match done {
            StoreDone::Installed { .. } => {
                self.reached.add(Rare::SnapshotInstalled);
                self.reached.add_if(Rare::SnapshotInSplit, split());
            }
            StoreDone::InstallRefused { .. } => self.reached.add(Rare::SnapshotRefused),
            StoreDone::Read { answer: Answer::NoCursor, .. } => {
                self.reached.add(Rare::CursorLost);
            }
            StoreDone::Dropped { .. }
            | StoreDone::Read { .. }
            | StoreDone::Applied { .. }
            | StoreDone::Persisted { .. }
            | StoreDone::Loaded { .. }
            | StoreDone::Staged { .. }
            | StoreDone::Failed { .. } => {}
        }
    }

    /// A call has failed.
    pub(crate) fn on_failure(&mut self, failure: &Failure) {
        match failure {
            Failure::OutcomeUnknown => self.reached.add(Rare::OutcomeUnknown),
            Failure::Interrupted => self.reached.add(Rare::ScanInterrupted),
            Failure::Deadline | Failure::Malformed | Failure::Closed { .. } => {}
        }
    }

    /// A node tells something.
    pub(crate) fn on_event(&mut self, me: usize, event: &Event) {
        match event {
            Event::LeaderChanged { group, term, leader } => {
                self.on_leader_changed(me, *group, *term, *leader);
            }
            Event::PeerRefused { .. } => self.reached.add(Rare::PeerRefused),
            Event::PeerFault { .. } => self.reached.add(Rare::PeerFault),
            Event::PeerConnected { member, .. }
                if !member.is_client() && me < self.members.len() =>
            {
                if let Some(machine) = self.churn.machine_of(*member) {
                    self.members[machine].alive.known_to.insert(me);
                }
            }
            Event::ChangeRefused { reason } => {
                self.reached.add(Rare::ChangeRefused);
                let is_kept = *reason == ChangeRefused::NoMajority;
                self.reached.add_if(Rare::LeaveRefused, is_kept);
            }
            Event::Left => self.reached.add(Rare::MemberLeft),
            Event::Up { .. }
            | Event::Gathering { .. }
            | Event::PeerReconnecting { .. }
            | Event::PeerFailed { .. }
            | Event::Ready
            | Event::NotReady
            | Event::Halted { .. }
            | Event::DirectoryChanged { .. }
            | Event::RingChanged { .. }
            | Event::Ring(_)
            | Event::Member { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDisconnected { .. } => {}
        }
    }

    fn on_leader_changed(
        &mut self,
        me: usize,
        group: GroupId,
        term: Term,
        leader: Option<MemberId>,
    ) {
        let Some(seen) = self.members.get_mut(me) else { return };
        let life = &mut seen.alive;
        if leader == Some(self.churn.id_of(me)) {
            let moving = self.churn.on_lead(group);
            self.reached.add_if(Rare::MovingHeadless, moving);
            life.leads.insert(group, term);
            self.reached.add_if(Rare::JointInherited, life.joint.contains_key(&group));
            let others = self.members.iter().enumerate().filter(|(other, _)| *other != me);
            let two = others.filter(|(_, other)| other.alive.leads.contains_key(&group)).count();
            self.reached.add_if(Rare::TwoLeaders, two > 0);
            return;
        }
        let led = life.leads.remove(&group);
        if led == Some(term) && leader.is_none() {
            let outside = life.outside.contains(&group);
            let why = if outside { Rare::LeaderRemoved } else { Rare::CheckQuorum };
            self.reached.add(why);
        }
    }

    /// A member stops for good.
    pub(crate) fn on_halt(&mut self, halt: &Halt) {
        let rare = match halt {
            Halt::Log { problem } if problem.contains("no space") => Rare::DiskFull,
            Halt::Log { problem } if problem.contains("sync") => Rare::LogSyncFailed,
            Halt::Log { .. } => Rare::LogWriteFailed,
            Halt::Store { .. } => Rare::StoreFailed,
            Halt::Wiped => Rare::WipedNoticed,
            Halt::RolledBack { .. } => Rare::RollbackNoticed,
            Halt::OtherCluster { .. }
            | Halt::Agreement
            | Halt::Contradiction { .. }
            | Halt::Defect { .. } => return,
        };
        self.reached.add(rare);
    }
}

fn has_vote(membership: &Membership, member: MemberId) -> bool {
    let mut voters = membership.voters.iter().chain(&membership.outgoing);
    voters.any(|voter| voter.member == member)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What no run reached stands out, and runs are counted apart from times.
    #[test]
    fn the_table_counts_runs_and_times() {
        let mut reached = Reached::default();
        reached.add(Rare::Gap);
        reached.add(Rare::Gap);
        let mut table = Table::default();
        table.add(&reached);
        table.add(&Reached::default());

        let text = table.to_string();
        assert!(text.contains("of 2 seeds"), "{text}");
        let line = text.lines().find(|line| line.ends_with(Rare::Gap.words()));
        let words: Vec<&str> = line.expect("every state has a line").split_whitespace().collect();
        assert_eq!(words[..2], ["1", "2"], "{text}");
        assert_eq!(table.missed().count(), Rare::ALL.len() - 1);
    }
}
