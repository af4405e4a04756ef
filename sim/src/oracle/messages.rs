//! What members say to each other, and above all what they promise.

use ring_core::ids::{GroupId, LogIndex, MemberId, ReplicaId, Term, len_u64};
use ring_core::raft::message::{Body, Message as RaftMessage};
use ring_core::wire::Message;

use super::{Oracle, name};

impl Oracle {
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
            Message::Gather(said) => {
                self.on_gather(member, said);
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
            | Message::LocalAnswer { .. }
            | Message::Answer { .. }
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
}
