//! Sees all members at once and fails the run when two of them contradict each other, or one its own promises.
//!
//! | check | what must hold |
//! |---|---|
//! | ELECT | one leader for each group and term; who votes for a candidate has no log that is newer than the candidate's (section 3.6.1) |
//! | MATCH | equal index and term: equal entry, and equal term of the entry before; a replica's log ends where what it wrote ends; a snapshot takes nothing from a log that holds its last entry (asked by the process) |
//! | LEDGER | what is applied at an index is the same everywhere; no leader is without it, nobody overwrites it |
//! | COMMIT | what is applied is durable on a majority of the group's voters; and a majority stored, while in some term, an entry of that very term at its index or behind it |
//! | PROMISE | what a vote or an acceptance says is durable on its sender |
//! | READ | a leader that is asked which index a read must wait for names none before what was applied anywhere when it was asked |
//! | CONFIG | each membership shares a voter of every majority with the one before it in its log; a replica goes by the last membership that its log holds |
//! | HASH | equal applied index: equal digest of the state |
//! | ONCE | entries are handed out and applied one after the other, each once, from where the store stood |
//! | ORDER, TABLE, R22 | what the directory asks for and what the groups do about it fit together: see `oracle/directory.rs` |
//! | BEAT | who leads shows itself tick by tick, whatever its disk does (asked by the process) |
//! | RECOVER | what a log says after a crash is what was written, up to some batch, and never less than was durable; nothing is cut off a log that its store does not hold durably, and no state is forgotten before the log says durably that its replica is gone |
//! | REQUEST | what is to be handled once is, an answer is of its request, and every request ends by its deadline: see `oracle/requests.rs` |
//! | MEMBER | incarnations of members never fall and nobody makes one up; nobody who lives is dead when all is well: see `oracle/member.rs` |
//!
//! It keeps a mirror of each log: what was appended, and how far it is durable.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;

use ring_core::genesis::Genesis;
use ring_core::ids::{GroupId, LogIndex, LogSeq, MemberId, ReplicaId, Term, len_u64, len_usize};
use ring_core::raft::message::{
    Body, Entry, EntryBody, Membership, Message as RaftMessage, Replica,
};
use ring_core::storage::Recovered;
use ring_core::storage::record::Batch;
use ring_core::store::{StoreDone, StoreState, StoreTask};
use ring_core::wire::Message;

use crate::trace::Hash64;

mod config;
mod directory;
mod member;
mod mirror;
mod requests;

use config::{decides, may_part};
use directory::Directory;
pub use directory::GoesBy;
use member::Views;
use mirror::{Fact, LogMirror, facts_of};
pub use requests::Asked;
use requests::Requests;

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The check, as in the table.
    pub check: &'static str,
    /// Who, where, what.
    pub problem: String,
}

/// What the oracle knows. Members are numbered as the machines that they live on.
#[derive(Debug, Default)]
pub struct Oracle {
    genesis: Option<Genesis>,
    groups: BTreeMap<GroupId, GroupFacts>,
    members: Vec<MemberFacts>,
    directory: Directory,
    views: Views,
    requests: Requests,
    /// Logs of replicas that are no more, as they were last durable: what they said before still counts.
    buried: BTreeMap<(GroupId, ReplicaId), LogMirror>,
    violation: Option<Violation>,
    promises: u64,
    messages: u64,
}

#[derive(Debug, Default)]
struct GroupFacts {
    leaders: BTreeMap<Term, MemberId>,
    /// What was applied, from index 1 on.
    ledger: Vec<(Term, u64)>,
    /// By index: digest of the state and who said it first.
    digests: BTreeMap<LogIndex, (u64, usize)>,
    /// By index and term: hash of the entry and term of the one before.
    entries: BTreeMap<(LogIndex, Term), (u64, Term)>,
    /// By index and term: the memberships that any log holds or held; at 0 that of the genesis.
    shapes: BTreeMap<(LogIndex, Term), Membership>,
    /// By term and replica: the last index of that term which the replica has stored while in that term. A leader
    /// commits by counting these, and nothing else.
    stored: BTreeMap<Term, BTreeMap<(usize, Option<ReplicaId>), LogIndex>>,
    /// By term and candidate: with which last entry it stood.
    candidates: BTreeMap<(Term, ReplicaId), (Term, LogIndex)>,
    /// By asker and number: what was applied when a read index was asked for.
    asked: BTreeMap<(ReplicaId, u64), LogIndex>,
}

#[derive(Debug, Default)]
struct MemberFacts {
    /// Its id, once a process of it has started; a founder's follows from its place.
    id: Option<MemberId>,
    durable: BTreeMap<GroupId, LogMirror>,
    written: BTreeMap<GroupId, LogMirror>,
    votes: BTreeMap<(GroupId, Term), ReplicaId>,
    queue: VecDeque<(LogSeq, Vec<Fact>)>,
    durable_upto: LogSeq,
    progress: BTreeMap<GroupId, Progress>,
    /// Groups whose state the store is to forget: what it did before concerns nobody.
    dropping: BTreeSet<GroupId>,
    /// Its disk is gone: what it promised stays known, and it must not promise anything again.
    lost: bool,
}

#[derive(Debug, Default)]
struct Progress {
    handed: LogIndex,
    done: LogIndex,
    waiting: VecDeque<LogIndex>,
    persisted: LogIndex,
}

impl Oracle {
    /// Watches so many members.
    #[must_use]
    pub fn new(members: usize) -> Self {
        Self { members: (0..members).map(|_| MemberFacts::default()).collect(), ..Self::default() }
    }

    /// The first rule that was broken.
    #[must_use]
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// The leader of the highest term known of a group.
    #[must_use]
    pub fn leader(&self, group: GroupId) -> Option<MemberId> {
        let (_, leader) = self.groups.get(&group)?.leaders.last_key_value()?;
        Some(*leader)
    }

    /// The last index that anyone has applied.
    #[must_use]
    pub fn applied(&self, group: GroupId) -> LogIndex {
        LogIndex(self.groups.get(&group).map_or(0, |g| len_u64(g.ledger.len())))
    }

    /// The term of what a member has written at an index of a group's log, if its log holds it.
    #[must_use]
    pub fn written(&self, member: usize, group: GroupId, index: LogIndex) -> Option<Term> {
        self.members[member].written.get(&group)?.term_at(index)
    }

    /// How many promises were looked at.
    #[must_use]
    pub fn promises(&self) -> u64 {
        self.promises
    }

    /// How many messages members sent.
    #[must_use]
    pub fn messages(&self) -> u64 {
        self.messages
    }

    /// The cluster's founding record, once any member knows it.
    #[must_use]
    pub fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// A rule was broken that something else checks.
    pub fn fail(&mut self, check: &'static str, problem: String) {
        self.violation.get_or_insert(Violation { check, problem });
    }

    /// A member says that the cluster exists.
    pub fn on_up(&mut self, member: usize, genesis: &Genesis) {
        if let Some(known) = &self.genesis {
            if known != genesis {
                let problem = format!("{} has another genesis: {genesis:?}", name(member));
                self.fail("ELECT", problem);
            }
            return;
        }
        let layout = genesis.layout();
        for group in genesis.all_groups() {
            let facts = self.groups.entry(group).or_default();
            facts.shapes.insert((LogIndex(0), Term(0)), layout.membership(group));
        }
        self.genesis = Some(genesis.clone());
    }

    /// A member's disk is gone. It must not take part in any group again.
    pub fn on_lost(&mut self, member: usize) {
        self.members[member].lost = true;
    }

    /// A member was started: what it found must be what was written, up to some batch.
    pub fn on_boot(&mut self, member: usize, log: &Recovered, store: &[StoreState]) {
        if self.members[member].lost {
            return;
        }
        self.on_recovered(member, log);
        // What is found was durable before it could be said so.
        self.on_stored(member, LogSeq(log.tail.next_seq.0.max(1) - 1));
        let facts = &mut self.members[member];
        facts.dropping.clear();
        facts.durable_upto = LogSeq(log.tail.next_seq.0.max(1) - 1);
        facts.queue.clear();
        facts.written.clear();
        for (group, found) in &log.groups {
            facts.written.insert(*group, LogMirror::of(found));
            if let Some(vote) = found.vote {
                facts.votes.insert((*group, found.term), vote);
            }
        }
        facts.durable = facts.written.clone();
        for (group, mirror) in &facts.durable {
            if mirror.term_at(mirror.last()) == Some(mirror.term) {
                let group = self.groups.entry(*group).or_default();
                group.on_stored(member, mirror.replica, mirror.term, mirror.last());
            }
        }
        let known = facts.progress.iter_mut();
        let absent = known.filter(|(group, _)| store.iter().all(|s| s.group != **group));
        let mut forgotten = None;
        for (group, progress) in absent {
            if progress.persisted > LogIndex(0) {
                forgotten = Some((*group, progress.persisted));
            }
            *progress = Progress::default();
        }
        if let Some((group, index)) = forgotten {
            let problem = format!("{}: the store forgot {group}, synced at {index}", name(member));
            self.fail("ONCE", problem);
        }
        for state in store {
            self.on_store_found(member, state);
        }
    }

    /// A log directory, or a copy of one as a power cut would leave it, says this. It changes nothing.
    pub fn on_recovered(&mut self, member: usize, log: &Recovered) {
        let facts = &self.members[member];
        if facts.lost {
            return;
        }
        let upto = LogSeq(log.tail.next_seq.0.max(1) - 1);
        if upto < facts.durable_upto {
            let problem = format!(
                "{}: recovery ends at batch {upto}, but {} is durable",
                name(member),
                facts.durable_upto
            );
            return self.fail("RECOVER", problem);
        }
        let mut expected = facts.durable.clone();
        for (seq, batch) in &facts.queue {
            if *seq <= upto {
                batch.iter().for_each(|fact| fact.apply(&mut expected));
            }
        }
        for (group, mirror) in &expected {
            let problem = match log.groups.get(group) {
                None => Some(String::from("is missing")),
                Some(found) => mirror.differs_from(&LogMirror::of(found)),
            };
            if let Some(problem) = problem {
                let problem = format!("{}: recovered {group} {problem}", name(member));
                return self.fail("RECOVER", problem);
            }
        }
    }

    fn on_store_found(&mut self, member: usize, state: &StoreState) {
        let applied = self.applied(state.group);
        let progress = self.members[member].progress.entry(state.group).or_default();
        let problem = if state.index < progress.persisted {
            Some(format!("had synced {} and holds {}", progress.persisted, state.index))
        } else if state.index > applied {
            Some(format!("holds {}, nobody applied beyond {applied}", state.index))
        } else {
            None
        };
        *progress = Progress {
            handed: state.index,
            done: state.index,
            persisted: state.index,
            ..Progress::default()
        };
        if let Some(problem) = problem {
            let problem = format!("{}: the store of {} {problem}", name(member), state.group);
            return self.fail("ONCE", problem);
        }
        self.on_digest(member, state.group, state.index, state.digest);
    }

    /// A batch goes to the log.
    pub fn on_append(&mut self, member: usize, batch: &Batch) {
        if self.members[member].lost {
            return;
        }
        let facts = facts_of(batch);
        for fact in &facts {
            let mirror = self.members[member].written.get(&fact.group());
            if let Err(problem) = fact.fits(mirror) {
                let problem = format!("{}: batch {}: {problem}", name(member), batch.seq);
                return self.fail("MATCH", problem);
            }
            if let Err(problem) = self.directory.on_fact(fact, mirror) {
                return self.fail("ORDER", format!("{}: {problem}", name(member)));
            }
            if let Fact::Entries { group, entries, .. } = fact {
                let before = mirror.and_then(|m| m.term_at(entries[0].index.prev()));
                let replaced = entries.iter().map(|e| mirror.and_then(|m| m.term_at(e.index)));
                let replaced: Vec<Option<Term>> = replaced.collect();
                if let Err((check, problem)) = self.on_entries(*group, before, &replaced, entries) {
                    return self.fail(check, format!("{}: {problem}", name(member)));
                }
            }
            if let Fact::Cut { group, index, .. } = fact {
                let progress = self.members[member].progress.get(group);
                let persisted = progress.map_or(LogIndex(0), |progress| progress.persisted);
                if *index > persisted {
                    let problem = format!(
                        "{}: cuts {group} at {index}; its store is durable up to {persisted}",
                        name(member)
                    );
                    return self.fail("RECOVER", problem);
                }
            }
            fact.apply(&mut self.members[member].written);
        }
        self.members[member].queue.push_back((batch.seq, facts));
    }

    fn on_entries(
        &mut self,
        group: GroupId,
        before: Option<Term>,
        replaced: &[Option<Term>],
        entries: &[mirror::EntryFact],
    ) -> Result<(), (&'static str, String)> {
        let facts = self.groups.entry(group).or_default();
        let mut previous = before.unwrap_or_default();
        for (entry, replaced) in entries.iter().zip(replaced) {
            let (index, term) = (entry.index, entry.term);
            let known = facts.entries.entry((index, term)).or_insert((entry.hash, previous));
            if *known != (entry.hash, previous) {
                let problem =
                    format!("{group} {index} {term} stands in two logs with other content");
                return Err(("MATCH", problem));
            }
            let applied = index.0.checked_sub(1).and_then(|i| facts.ledger.get(len_usize(i)));
            // A leader of the past may well append here what never commits; but nobody gives up what was committed.
            if let Some((applied, _)) = applied
                && *applied != term
                && *replaced == Some(*applied)
            {
                let problem = format!("{group} {index}: {term} replaces the applied {applied}");
                return Err(("LEDGER", problem));
            }
            previous = term;
        }
        Ok(())
    }

    /// All batches up to this one are durable.
    pub fn on_stored(&mut self, member: usize, upto: LogSeq) {
        let facts = &mut self.members[member];
        if facts.lost {
            return;
        }
        while let Some((seq, _)) = facts.queue.front()
            && *seq <= upto
        {
            let (_, batch) = facts.queue.pop_front().expect("there is a first one");
            for fact in batch {
                if let Some((group, term, vote)) = fact.vote() {
                    facts.votes.insert((group, term), vote);
                }
                // The next replica on this member is another voter.
                if let Fact::Dropped { group } = fact {
                    facts.votes.retain(|(voted, _), _| *voted != group);
                    let mirror = facts.durable.get(&group);
                    if let Some((replica, mirror)) = mirror.and_then(|m| Some((m.replica?, m))) {
                        self.buried.insert((group, replica), mirror.clone());
                        self.directory.on_gone(group, replica);
                    }
                }
                if let Fact::Made { group, replica } = fact {
                    self.directory.on_made(group, replica);
                }
                fact.apply(&mut facts.durable);
                if let Fact::Entries { group, entries } = &fact
                    && let Some(last) = entries.last()
                    && let Some(mirror) = facts.durable.get(group)
                    && mirror.term == last.term
                {
                    let group = self.groups.entry(*group).or_default();
                    group.on_stored(member, mirror.replica, last.term, last.index);
                }
            }
        }
        facts.durable_upto = facts.durable_upto.max(upto);
    }

    /// A message goes out. True when it makes a promise.
    pub fn on_send(&mut self, member: usize, message: &Message) -> bool {
        self.messages += 1;
        match message {
            Message::Raft(raft) => self.on_send_raft(member, raft),
            Message::Beats(beats) => {
                for beat in beats {
                    self.on_leads(member, beat.group, beat.term);
                }
                false
            }
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refuse(_)
            | Message::Founding(_)
            | Message::BeatAnswers(_)
            | Message::Open { .. }
            | Message::Opened { .. }
            | Message::Propose { .. }
            | Message::Proposed { .. }
            | Message::NotLeader { .. }
            | Message::Busy { .. }
            | Message::Ask { .. }
            | Message::Answer { .. }
            | Message::AskStatus { .. }
            | Message::Status { .. }
            | Message::Table(_)
            | Message::TableVersion(_)
            | Message::Register { .. }
            | Message::Leave
            | Message::Settled { .. }
            | Message::ChangeRefused(_)
            | Message::Sync(_)
            | Message::Request { .. }
            | Message::RequestsTaken { .. }
            | Message::RequestsSent { .. }
            | Message::StreamCredit { .. }
            | Message::Ping
            | Message::Pong => false,
        }
    }

    fn on_send_raft(&mut self, member: usize, message: &RaftMessage) -> bool {
        let RaftMessage { group, from, to, term, ref body } = *message;
        let is_promise = matches!(
            body,
            Body::Vote { .. } | Body::VoteAnswer { granted: true } | Body::Accepted { .. }
        );
        if is_promise {
            self.on_promise_of(member, group, from);
        }
        match body {
            Body::Append { .. } | Body::Beat(_) | Body::Snapshot { .. } | Body::TimeoutNow => {
                self.on_leads(member, group, term);
                false
            }
            Body::Vote { last_index, last_term, .. } => {
                let candidates = &mut self.groups.entry(group).or_default().candidates;
                candidates.insert((term, from), (*last_term, *last_index));
                self.on_vote(member, group, term, from)
            }
            Body::VoteAnswer { granted: true } => {
                self.on_granted(member, group, term, to);
                self.on_vote(member, group, term, to)
            }
            Body::Accepted { index } => self.on_accepted(member, group, term, *index),
            Body::ReadIndex { read } => {
                let applied = self.applied(group);
                self.groups.entry(group).or_default().asked.insert((from, *read), applied);
                false
            }
            Body::ReadIndexAnswer { read, index: Some(index) } => {
                self.on_read_index(member, group, (to, *read), *index);
                false
            }
            Body::PreVote { .. }
            | Body::PreVoteAnswer { .. }
            | Body::VoteAnswer { granted: false }
            | Body::Rejected { .. }
            | Body::BeatAnswer(_)
            | Body::SnapshotNext { .. }
            | Body::ReadIndexAnswer { index: None, .. } => false,
        }
    }

    fn on_read_index(
        &mut self,
        member: usize,
        group: GroupId,
        read: (ReplicaId, u64),
        index: LogIndex,
    ) {
        let Some(least) = self.groups.entry(group).or_default().asked.remove(&read) else {
            return;
        };
        if index < least {
            let problem = format!(
                "{}: {group}: lets a read of {} wait for {index}; {least} was applied when it was asked",
                name(member),
                read.0
            );
            self.fail("READ", problem);
        }
    }

    /// A voter whose log is newer than the candidate's could be the only one that holds what is committed.
    fn on_granted(&mut self, member: usize, group: GroupId, term: Term, candidate: ReplicaId) {
        let stood = self.groups.get(&group).and_then(|g| g.candidates.get(&(term, candidate)));
        let mirror = self.members[member].written.get(&group);
        let (Some(&stood), Some(mirror)) = (stood, mirror) else {
            return;
        };
        // A slow disk may let the grant go only when its voter follows a later leader, which has given it more.
        if mirror.term > term {
            return;
        }
        let last = mirror.last();
        let Some(last_term) = mirror.term_at(last) else {
            return;
        };
        // What is of the term itself came from the candidate, which has been elected meanwhile.
        if last_term < term && (last_term, last) > stood {
            let problem = format!(
                "{} votes in {group} {term} for {candidate}, whose log ends at {} {}; its own at {last} {last_term}",
                name(member),
                stood.1,
                stood.0
            );
            self.fail("ELECT", problem);
        }
    }

    fn on_vote(&mut self, member: usize, group: GroupId, term: Term, vote: ReplicaId) -> bool {
        self.promises += 1;
        if self.members[member].lost {
            let problem = format!("{}: votes in {group} {term} on an empty disk", name(member));
            self.fail("PROMISE", problem);
            return false;
        }
        let stored = self.members[member].votes.get(&(group, term));
        if stored != Some(&vote) {
            let problem = format!(
                "{}: says that it votes for {vote} in {group} {term}; durable: {stored:?}",
                name(member)
            );
            self.fail("PROMISE", problem);
        }
        true
    }

    fn on_accepted(&mut self, member: usize, group: GroupId, term: Term, index: LogIndex) -> bool {
        self.promises += 1;
        if self.members[member].lost {
            let problem = format!("{}: accepts {group} {index} on an empty disk", name(member));
            self.fail("PROMISE", problem);
            return false;
        }
        let Some(mirror) = self.members[member].durable.get(&group) else {
            let problem = format!("{}: accepts {group} {index} and stored nothing", name(member));
            self.fail("PROMISE", problem);
            return true;
        };
        if mirror.term != term {
            if mirror.term < term {
                let problem = format!(
                    "{}: accepts {group} {index} in {term}; its durable term is {}",
                    name(member),
                    mirror.term
                );
                self.fail("PROMISE", problem);
            }
            return true;
        }
        let mine = mirror.term_at(index);
        let covered = index <= mirror.cut || mine.is_some();
        let leader = self.groups.get(&group).and_then(|g| g.leaders.get(&term));
        let theirs = leader.and_then(|leader| {
            let facts = &self.members[self.machine_of(*leader)?];
            facts.written.get(&group).filter(|m| m.term == term)?.term_at(index)
        });
        let equal = mine.is_none() || theirs.is_none() || mine == theirs;
        if !covered || !equal {
            let problem = format!(
                "{}: accepts {group} {index} in {term}; durable: last {}, there {mine:?}; leader: {theirs:?}",
                name(member),
                mirror.last(),
            );
            self.fail("PROMISE", problem);
        }
        true
    }

    /// A member acts as leader, or says who leads.
    pub fn on_leader(&mut self, group: GroupId, term: Term, leader: MemberId) {
        let known = *self.groups.entry(group).or_default().leaders.entry(term).or_insert(leader);
        if known != leader {
            let problem = format!("{group} {term} is led by {known} and by {leader}");
            self.fail("ELECT", problem);
        }
    }

    fn on_leads(&mut self, member: usize, group: GroupId, term: Term) {
        let leader = self.id_of(member);
        let facts = self.groups.entry(group).or_default();
        if facts.leaders.get(&term) == Some(&leader) {
            return;
        }
        let last = LogIndex(len_u64(facts.ledger.len()));
        let committed = facts.ledger.last().copied();
        self.on_leader(group, term, leader);
        let Some((last_term, _)) = committed else {
            return;
        };
        let mirror = self.members[member].written.get(&group);
        let holds = mirror.is_some_and(|m| last <= m.cut || m.term_at(last) == Some(last_term));
        if last_term <= term && !holds {
            let problem = format!("{leader} leads {group} in {term} without {last} {last_term}");
            self.fail("LEDGER", problem);
        }
    }

    /// A task goes to the store.
    pub fn on_task(&mut self, member: usize, task: &StoreTask) {
        if self.members[member].lost {
            return;
        }
        match task {
            StoreTask::Apply { group, entries, .. } => self.on_apply(member, *group, entries),
            // What was handed to a state that is forgotten is owed to nobody.
            StoreTask::Drop { group } => {
                let facts = &mut self.members[member];
                facts.progress.remove(group);
                facts.dropping.insert(*group);
                if facts.durable.contains_key(group) {
                    let problem = format!(
                        "{}: its store is to forget {group}, of which its log durably has a replica",
                        name(member)
                    );
                    self.fail("RECOVER", problem);
                }
            }
            StoreTask::Create { .. }
            | StoreTask::Read { .. }
            | StoreTask::CloseCursor { .. }
            | StoreTask::CloseWatch { .. }
            | StoreTask::Persist
            | StoreTask::Load { .. }
            | StoreTask::CloseSnapshot { .. }
            | StoreTask::Install { .. } => {}
        }
    }

    fn on_apply(&mut self, member: usize, group: GroupId, entries: &[Entry]) {
        let progress = self.members[member].progress.entry(group).or_default();
        let mut expected = progress.handed.next();
        for entry in entries {
            if entry.index != expected {
                let problem = format!(
                    "{}: {group}: {} is handed out, {expected} was due",
                    name(member),
                    entry.index
                );
                return self.fail("ONCE", problem);
            }
            expected = expected.next();
        }
        progress.handed = expected.prev();
        progress.waiting.push_back(progress.handed);
        for entry in entries {
            self.on_committed(member, group, entry);
        }
    }

    fn on_committed(&mut self, member: usize, group: GroupId, entry: &Entry) {
        let hash = entry_hash(entry);
        let facts = self.groups.entry(group).or_default();
        let at = len_usize(entry.index.0 - 1);
        match facts.ledger.get(at) {
            Some(known) if *known == (entry.term, hash) => {}
            Some((term, _)) => {
                let problem = format!(
                    "{}: applies {} {} of {group}; others applied {term}{}",
                    name(member),
                    entry.index,
                    entry.term,
                    if *term == entry.term { " with other content" } else { "" }
                );
                self.fail("LEDGER", problem);
            }
            None if at == facts.ledger.len() => {
                facts.ledger.push((entry.term, hash));
                if let Err(problem) = self.directory.on_applied(group, entry) {
                    return self.fail("ORDER", format!("{}: {problem}", name(member)));
                }
                self.on_first_applied(member, group, entry);
            }
            None => {
                let problem = format!("{}: {group}: a gap before {}", name(member), entry.index);
                self.fail("LEDGER", problem);
            }
        }
    }

    fn on_first_applied(&mut self, member: usize, group: GroupId, entry: &Entry) {
        let facts = &self.groups[&group];
        let holds = |replica: &Replica| {
            let mirror = self.mirror_of(group, replica);
            mirror
                .is_some_and(|m| entry.index <= m.cut || m.term_at(entry.index) == Some(entry.term))
        };
        // Its leader counted by the last membership in its log: the one in force there, or one that came after.
        let from = facts.in_force(entry.index);
        let has_quorum = |holds: &dyn Fn(&Replica) -> bool| {
            facts.shapes.range(from..).any(|(_, shape)| {
                let replicas = || shape.voters.iter().chain(&shape.outgoing);
                decides(shape, |id| replicas().any(|r| r.id == id && holds(r)))
            })
        };
        if !has_quorum(&holds) {
            let shapes = facts.shapes.range(from..);
            let all = shapes.flat_map(|(_, s)| s.voters.iter().chain(&s.outgoing));
            let holders: BTreeSet<&Replica> = all.filter(|replica| holds(replica)).collect();
            let problem = format!(
                "{}: applies {group} {} {}, durable on {:?} only, with {:?}",
                name(member),
                entry.index,
                entry.term,
                holders,
                facts.shapes.range(from..).collect::<Vec<_>>()
            );
            return self.fail("COMMIT", problem);
        }
        let reached = |stored: &BTreeMap<(usize, Option<ReplicaId>), LogIndex>| {
            has_quorum(&|replica| {
                let machine = self.machine_ever_of(replica.member);
                let by = |id| machine.and_then(|machine| stored.get(&(machine, id)));
                let index = by(Some(replica.id)).or_else(|| by(None));
                index.is_some_and(|index| *index >= entry.index)
            })
        };
        if !facts.stored.range(entry.term..).any(|(_, stored)| reached(stored)) {
            let problem = format!(
                "{}: applies {group} {} {}; no leader had a majority for an entry of its own term there",
                name(member),
                entry.index,
                entry.term
            );
            self.fail("COMMIT", problem);
        }
    }

    /// A membership stands in a member's log, as of the batch that was appended last.
    pub fn on_shape(&mut self, member: usize, group: GroupId, entry: &Entry) {
        let EntryBody::Membership(shape) = &entry.body else {
            return;
        };
        let facts = self.groups.entry(group).or_default();
        let order = facts.shapes.values().map(|shape| shape.order).max();
        let known = facts.shapes.insert((entry.index, entry.term), (**shape).clone());
        if known.is_none() {
            self.on_ordered(member, group, entry, order.unwrap_or_default());
        }
        let facts = &self.groups[&group];
        let mirror = self.members[member].written.get(&group);
        // A lost disk is not mirrored; what its own batch replaces again never counted.
        let Some(mirror) = mirror.filter(|m| m.term_at(entry.index) == Some(entry.term)) else {
            return;
        };
        let at_cut = facts.in_force(mirror.cut);
        let earlier = facts.shapes.range(..(entry.index, Term(0)));
        let before = earlier.rev().find(|((at, term), _)| {
            (*at, *term) == at_cut || (*at > mirror.cut && mirror.term_at(*at) == Some(*term))
        });
        if let Some((at, before)) = before
            && may_part(before, shape)
        {
            let problem = format!(
                "{}: {group} {}: {shape:?} follows {before:?} of {at:?}; either could decide without the other",
                name(member),
                entry.index
            );
            self.fail("CONFIG", problem);
        }
    }

    /// A replica goes by this membership, which it has at `index`; its log ends at `last` and is cut at `cut`. What
    /// it goes by must be what it wrote.
    pub fn on_goes_by(
        &mut self,
        member: usize,
        group: GroupId,
        (cut, index, last): (LogIndex, LogIndex, LogIndex),
        shape: &Membership,
    ) {
        if self.members[member].lost {
            return;
        }
        let mirror = self.members[member].written.get(&group);
        if let Some(mirror) = mirror
            && mirror.last() != last
        {
            let problem = format!(
                "{}: {group}: goes by a log that ends at {last}; what it wrote ends at {}",
                name(member),
                mirror.last()
            );
            return self.fail("MATCH", problem);
        }
        let Some(facts) = self.groups.get(&group) else {
            return;
        };
        let at = match mirror.map(|mirror| mirror.term_at(index)) {
            Some(Some(term)) if index > cut => (index, term),
            Some(_) | None if index == cut => facts.in_force(cut),
            Some(_) | None => (index, Term(0)),
        };
        if (cut..=last).contains(&index) && facts.shapes.get(&at).is_none_or(|known| known == shape)
        {
            return;
        }
        let problem = format!(
            "{}: {group}: goes by {shape:?} of {index}; its log is {cut}..{last}, and there it says {:?}",
            name(member),
            facts.shapes.get(&at)
        );
        self.fail("CONFIG", problem);
    }

    /// The store has done something.
    pub fn on_done(&mut self, member: usize, done: &StoreDone) {
        if self.members[member].lost {
            return;
        }
        let dropping = self.members[member].dropping.clone();
        let of_group = |group| dropping.contains(group);
        match done {
            StoreDone::Dropped { group } => {
                self.members[member].dropping.remove(group);
            }
            StoreDone::Applied { group, .. } if of_group(group) => {}
            StoreDone::Installed { state, .. } if of_group(&state.group) => {}
            StoreDone::Applied { group, index, digest, .. } => {
                let progress = self.members[member].progress.entry(*group).or_default();
                let due = progress.waiting.pop_front();
                let rises = *index > progress.done;
                progress.done = *index;
                if due != Some(*index) || !rises {
                    let problem =
                        format!("{}: {group}: applied {index}, due {due:?}", name(member));
                    return self.fail("ONCE", problem);
                }
                self.on_digest(member, *group, *index, *digest);
            }
            StoreDone::Persisted { groups } => {
                for state in groups.iter().filter(|state| !of_group(&state.group)) {
                    let progress = self.members[member].progress.entry(state.group).or_default();
                    progress.persisted = progress.persisted.max(state.index);
                }
            }
            StoreDone::Installed { state, .. } => {
                let progress = self.members[member].progress.entry(state.group).or_default();
                if state.index < progress.done {
                    let problem = format!(
                        "{}: {}: a snapshot at {} replaces {}, which is applied",
                        name(member),
                        state.group,
                        state.index,
                        progress.done
                    );
                    return self.fail("ONCE", problem);
                }
                *progress = Progress {
                    handed: state.index,
                    done: state.index,
                    persisted: state.index,
                    ..Progress::default()
                };
                self.on_digest(member, state.group, state.index, state.digest);
            }
            StoreDone::Read { .. }
            | StoreDone::Loaded { .. }
            | StoreDone::Staged { .. }
            | StoreDone::InstallRefused { .. }
            | StoreDone::Failed { .. } => {}
        }
    }

    fn on_digest(&mut self, member: usize, group: GroupId, index: LogIndex, digest: u64) {
        let facts = self.groups.entry(group).or_default();
        let (known, first) = *facts.digests.entry(index).or_insert((digest, member));
        if known != digest {
            let problem = format!(
                "{group} {index}: the states of {} and {} differ",
                name(member),
                name(first)
            );
            self.fail("HASH", problem);
        }
    }
}

impl GroupFacts {
    /// Where the membership stands that is in force at an index of what was applied.
    fn in_force(&self, index: LogIndex) -> (LogIndex, Term) {
        let applied = |at: LogIndex, term: Term| {
            let known = at.0.checked_sub(1).and_then(|i| self.ledger.get(len_usize(i)));
            at <= index && known.is_none_or(|(known, _)| *known == term)
        };
        let found = self.shapes.keys().rev().find(|(at, term)| applied(*at, *term));
        found.copied().unwrap_or_default()
    }

    fn on_stored(
        &mut self,
        member: usize,
        replica: Option<ReplicaId>,
        term: Term,
        index: LogIndex,
    ) {
        let stored = self.stored.entry(term).or_default().entry((member, replica)).or_default();
        *stored = index.max(*stored);
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.problem)
    }
}

fn name(member: usize) -> String {
    MemberId(len_u64(member) + 1).to_string()
}

/// A hash of what an entry says.
fn entry_hash(entry: &Entry) -> u64 {
    let mut hash = Hash64::default();
    hash.mix(entry.term.0);
    match &entry.body {
        EntryBody::Noop => hash.mix(1),
        EntryBody::Membership(membership) => {
            hash.mix(2);
            hash.mix(membership.order);
            for list in [&membership.voters, &membership.outgoing, &membership.learners] {
                hash.mix(len_u64(list.len()));
                for replica in list {
                    hash.mix(replica.id.0);
                    hash.mix(replica.member.0);
                }
            }
        }
        EntryBody::Data(data) => {
            hash.mix(3);
            hash.mix_bytes(data);
        }
    }
    hash.value()
}

#[cfg(test)]
mod tests;
