//! What a group's leader does about an order, and what a member does about its replicas. Pure questions about a table.

use alloc::vec::Vec;

use super::table::{Assignment, Table};
use crate::ids::{GroupId, MemberId, ReplicaId};
use crate::raft::message::{Membership, Replica};

/// The next change of a group's membership on the way to what an order asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing to do: the order was followed before, or is not newer than what was followed.
    Done,
    /// New replicas must catch up first.
    Wait,
    /// The new replicas become learners; the voters stay.
    Learn(Membership),
    /// All of them have caught up: the voters change, through a joint configuration.
    Switch(Membership),
}

impl Assignment {
    /// What the group's leader does next, given the membership in force and who is there and has caught up with the log
    /// (the leader itself is).
    ///
    /// An order is followed only if it is newer than the one that the membership in force came from: a leader with an
    /// old table cannot bring replicas back that others have gone on without and that may be gone. That order is part
    /// of the membership, so whoever leads knows of every order that was ever followed.
    #[must_use]
    pub fn next_step(&self, present: &Membership, is_ready: impl Fn(ReplicaId) -> bool) -> Step {
        if self.order <= present.order {
            return Step::Done;
        }
        if present.is_joint() {
            return Step::Wait;
        }
        let is_voter = |replica: &Replica| present.voters.contains(replica);
        // Voters that are new to the group; learners may be behind for ever and hold nothing up.
        let new: Vec<Replica> = self.voters.iter().copied().filter(|r| !is_voter(r)).collect();
        let mut learners: Vec<Replica> =
            self.learners.iter().copied().filter(|r| !is_voter(r)).chain(new.clone()).collect();
        learners.sort_unstable();
        if !new.iter().all(|replica| present.learners.contains(replica)) {
            return Step::Learn(Membership {
                voters: present.voters.clone(),
                outgoing: Vec::new(),
                learners,
                order: present.order,
            });
        }
        if !new.iter().all(|replica| is_ready(replica.id)) {
            return Step::Wait;
        }
        // Voters that are away would hold up a group that goes on without those who leave it: nothing could be decided
        // any more, nor the change be taken back.
        let ready = self.voters.iter().filter(|replica| is_ready(replica.id)).count();
        if ready * 2 <= self.voters.len() {
            return Step::Wait;
        }
        let sorted = |replicas: &[Replica]| {
            let mut replicas = replicas.to_vec();
            replicas.sort_unstable();
            replicas
        };
        Step::Switch(Membership {
            voters: sorted(&self.voters),
            outgoing: Vec::new(),
            learners: sorted(&self.learners),
            order: self.order,
        })
    }

    /// True when a membership that is in force and committed is what this order asks for.
    #[must_use]
    pub fn is_settled_by(&self, committed: &Membership) -> bool {
        !self.settled && committed.order == self.order && !committed.is_joint()
    }
}

/// What a member does about one group when it has learned of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// It keeps what it has, or has nothing.
    Keep,
    /// Its replica takes part in nothing any more, now or later: it is dropped.
    Drop,
    /// It makes an empty replica of this id, after it has dropped an older one if it has one.
    Make(ReplicaId),
}

impl Table {
    /// True for a replica that takes part in nothing any more, now or later: its id was given before this table was
    /// written, which does not name it. A member that was started on an old copy of its directory may still speak for
    /// it, and has forgotten what it promised since (TRAPS R22).
    #[must_use]
    pub fn is_void(&self, group: GroupId, replica: Replica) -> bool {
        let names = |assignment: &Assignment| assignment.replicas().any(|named| named == replica);
        replica.id < self.next_replica && !self.group(group).is_some_and(names)
    }

    /// What a member that has the replica `held` of a group is to do.
    #[must_use]
    pub fn duty(&self, group: GroupId, me: MemberId, held: Option<ReplicaId>) -> Duty {
        let Some(assignment) = self.group(group) else { return Duty::Keep };
        if held.is_some_and(|held| assignment.replicas().any(|r| (r.id, r.member) == (held, me))) {
            return Duty::Keep;
        }
        match (assignment.on_member(me), held) {
            (Some(replica), _) => Duty::Make(replica.id),
            (None, Some(_)) => Duty::Drop,
            (None, None) => Duty::Keep,
        }
    }
}
