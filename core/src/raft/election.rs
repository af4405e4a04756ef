//! Elections: pre-vote (section 9.6), vote (3.4, 3.6.1), leadership transfer (3.10).

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

use super::message::{Body, EntryBody, Replica};
use super::{Effects, Leader, Raft, State};
use crate::ids::{LogIndex, ReplicaId, Term};
use crate::time::Instant;

impl Raft {
    pub(super) fn on_election_timeout(&mut self, now: Instant, fx: &mut Effects) {
        self.reset_election_deadline(now);
        // Who is no voter never stands: a learner, or a replica that was removed.
        if self.as_candidate().is_none() {
            return;
        }
        self.become_pre_candidate(now, fx);
    }

    /// This replica, if it may stand: as a voter of the membership in force, or of an earlier one as long as it does not
    /// know a later one to be committed. It may be the only one that has that later one, and then nobody else can be elected: the
    /// rest need its vote, and its log is ahead of theirs (dissertation 4.2.2, figure 4.6). Whom it asks, and whose votes
    /// count, says the membership in force.
    fn as_candidate(&self) -> Option<Replica> {
        let mut memberships = self.log.memberships_since(self.commit);
        memberships.find_map(|membership| {
            membership.all_voters().find(|voter| voter.id == self.id).copied()
        })
    }

    /// A replica that should lead stands a little before the others would, when nobody leads yet. Where somebody
    /// does, pre-vote makes it harmless.
    pub fn stand_early(&mut self, now: Instant) {
        let (low, high) = (self.settings.election_min / 4, self.settings.election_min / 2);
        self.deadline = now + self.rng.duration(low, high);
    }

    /// Asks the others whether they would vote, and changes nothing: neither term nor vote.
    fn become_pre_candidate(&mut self, now: Instant, fx: &mut Effects) {
        if self.leader.take().is_some() {
            fx.leader_changed = true;
        }
        self.heard = None;
        let grants = BTreeSet::from([self.id]);
        if self.membership().has_quorum(|id| grants.contains(&id)) {
            self.become_candidate(now, false, fx);
            return;
        }
        self.state = State::PreCandidate { grants };
        let body =
            Body::PreVote { last_index: self.log.last_index(), last_term: self.log.last_term() };
        for voter in self.other_voters() {
            fx.sends.push(self.message(voter, self.term.next(), body.clone()));
        }
    }

    /// Stands for election. The requests leave, and the own vote counts, when the vote is durable.
    pub(super) fn become_candidate(&mut self, now: Instant, transfer: bool, fx: &mut Effects) {
        assert!(!self.is_leader(), "a leader does not stand");
        self.reset_election_deadline(now);
        if self.leader.take().is_some() {
            fx.leader_changed = true;
        }
        self.heard = None;
        self.term = self.term.next();
        self.vote = Some(self.id);
        self.record_vote(fx);
        self.state = State::Candidate { grants: BTreeSet::new() };
        let body = Body::Vote {
            last_index: self.log.last_index(),
            last_term: self.log.last_term(),
            transfer,
        };
        for voter in self.other_voters() {
            self.promise(voter, body.clone(), fx);
        }
    }

    pub(super) fn on_pre_vote(
        &mut self,
        now: Instant,
        sender: Replica,
        asked: Term,
        (last_index, last_term): (LogIndex, Term),
        fx: &mut Effects,
    ) {
        let granted = asked > self.term
            && !self.hears_leader(now)
            && self.log.is_up_to_date(last_index, last_term);
        let term = if granted { asked } else { self.term };
        fx.sends.push(self.message(sender, term, Body::PreVoteAnswer { granted }));
    }

    pub(super) fn on_pre_vote_answer(
        &mut self,
        now: Instant,
        sender: Replica,
        asked: Term,
        granted: bool,
        fx: &mut Effects,
    ) {
        // A grant of another attempt says nothing about this one.
        if !granted || asked != self.term.next() {
            return;
        }
        let State::PreCandidate { grants } = &mut self.state else {
            return;
        };
        grants.insert(sender.id);
        let grants = grants.clone();
        if self.membership().has_quorum(|id| grants.contains(&id)) {
            self.become_candidate(now, false, fx);
        }
    }

    /// A replica votes when it is asked, also one that takes itself for a learner: its candidate may know of a
    /// promotion that it does not, and could otherwise wait for ever. What a learner says is never *counted*.
    pub(super) fn on_vote(
        &mut self,
        now: Instant,
        sender: Replica,
        last_index: LogIndex,
        last_term: Term,
        fx: &mut Effects,
    ) {
        let free = self.vote.is_none() && self.leader.is_none();
        let granted = (self.vote == Some(sender.id) || free)
            && matches!(self.state, State::Follower | State::PreCandidate { .. })
            && self.log.is_up_to_date(last_index, last_term);
        if !granted {
            self.send(sender, Body::VoteAnswer { granted: false }, fx);
            return;
        }
        if self.vote.is_none() {
            self.vote = Some(sender.id);
            self.record_vote(fx);
        }
        self.state = State::Follower;
        self.reset_election_deadline(now);
        self.promise(sender, Body::VoteAnswer { granted: true }, fx);
    }

    pub(super) fn on_vote_answer(
        &mut self,
        now: Instant,
        sender: Replica,
        granted: bool,
        fx: &mut Effects,
    ) {
        if granted {
            self.count_vote(now, sender.id, fx);
        }
    }

    pub(super) fn on_own_vote_stored(&mut self, now: Instant, term: Term, fx: &mut Effects) {
        if term == self.term && self.vote == Some(self.id) {
            self.count_vote(now, self.id, fx);
        }
    }

    fn count_vote(&mut self, now: Instant, from: ReplicaId, fx: &mut Effects) {
        let State::Candidate { grants } = &mut self.state else {
            return;
        };
        grants.insert(from);
        let grants = grants.clone();
        // The own vote is among them: without it this replica could vote for another after a crash.
        if !grants.contains(&self.id) || !self.membership().has_quorum(|id| grants.contains(&id)) {
            return;
        }
        // What was installed meanwhile may say that its removal is committed.
        match self.as_candidate() {
            Some(this) => self.become_leader(now, this, fx),
            None => self.become_follower(now, self.term, None, fx),
        }
    }

    fn become_leader(&mut self, now: Instant, this: Replica, fx: &mut Effects) {
        self.state = State::Leader(Leader {
            progress: BTreeMap::new(),
            term_start: self.log.last_index().next(),
            round: 0,
            reads_waiting: Vec::new(),
            reads_asked: VecDeque::new(),
            transfer: None,
        });
        self.receiving = None;
        self.leader = Some(this);
        self.heard = None;
        fx.leader_changed = true;
        self.rebuild_progress(now, fx);
        // Nothing of earlier terms is committed, read or changed before this entry is (3.6.2, 6.4).
        self.append_own(EntryBody::Noop, fx);
        self.schedule_quorum_check(now);
        self.beat(fx);
    }

    /// The leader hands over: the target must be a voter; it is told once it has the whole log.
    ///
    /// # Errors
    /// This replica does not lead, is handing over already, or the target is not another voter.
    pub fn transfer(
        &mut self,
        now: Instant,
        to: ReplicaId,
        fx: &mut Effects,
    ) -> Result<(), super::ProposeRefused> {
        use super::ProposeRefused as Refused;
        let voter = self.membership().voters.iter().any(|voter| voter.id == to) && to != self.id;
        let until = now + self.settings.election_max;
        let State::Leader(leader) = &mut self.state else {
            return Err(Refused::NotLeader);
        };
        if leader.transfer.is_some() {
            return Err(Refused::Transferring);
        }
        if !voter {
            return Err(Refused::BadMembership);
        }
        leader.transfer = Some(super::Transfer { to, until, told: false });
        self.drive_transfer(fx);
        Ok(())
    }

    /// True when this leader's follower has everything that is committed: it could take over at once.
    #[must_use]
    pub fn could_hand_over(&self, to: ReplicaId) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        leader.transfer.is_none()
            && !self.membership().is_joint()
            && self.commit >= leader.term_start
            && self.membership().voters.iter().any(|voter| voter.id == to)
            && self.holds(to, self.commit)
    }

    /// True when this replica leads and the other has, as far as is known, its log up to this index.
    #[must_use]
    pub fn holds(&self, replica: ReplicaId, upto: LogIndex) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        leader.progress.get(&replica).is_some_and(|progress| progress.matched >= upto)
    }

    /// True when this replica leads, and the other is itself or was heard of within the time in which a leader must
    /// hear of a majority.
    #[must_use]
    pub fn hears(&self, now: Instant, replica: ReplicaId) -> bool {
        let State::Leader(leader) = &self.state else { return false };
        let progress = leader.progress.get(&replica);
        let heard = progress.map(|progress| now.since(progress.heard));
        replica == self.id() || heard.is_some_and(|since| since < self.settings.election_max)
    }

    /// Tells the target of a transfer to stand as soon as it has everything.
    pub(super) fn drive_transfer(&mut self, fx: &mut Effects) {
        let last = self.log.last_index();
        let State::Leader(leader) = &mut self.state else {
            return;
        };
        let Some(transfer) = &mut leader.transfer else {
            return;
        };
        let Some(progress) = leader.progress.get(&transfer.to) else {
            return;
        };
        if !transfer.told && progress.matched == last {
            transfer.told = true;
            let to = progress.replica;
            self.send(to, Body::TimeoutNow, fx);
        }
    }

    pub(super) fn on_timeout_now(&mut self, now: Instant, sender: Replica, fx: &mut Effects) {
        let from_leader = self.leader.is_some_and(|leader| leader.id == sender.id);
        if from_leader && !self.is_leader() && self.is_voter() {
            self.become_candidate(now, true, fx);
        }
    }

    fn other_voters(&self) -> Vec<Replica> {
        let mut voters: Vec<Replica> = self.membership().all_voters().copied().collect();
        voters.sort_unstable();
        voters.dedup();
        voters.retain(|voter| voter.id != self.id);
        voters
    }
}
