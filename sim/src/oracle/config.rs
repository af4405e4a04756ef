//! Memberships, and majorities counted anew: core's own count is among what is to be checked.

use std::collections::BTreeSet;

use ring_core::ids::{GroupId, LogIndex, ReplicaId, Term, len_u64};
use ring_core::raft::message::{Entry, EntryBody, Membership, Replica};

use super::{Oracle, name};

impl Oracle {
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
}

/// Whether these replicas decide: more than half of the voters and, in a joint configuration, of the outgoing ones.
pub(super) fn decides(shape: &Membership, holds: impl Fn(ReplicaId) -> bool) -> bool {
    let majority = |voters: &[Replica]| {
        let holders = voters.iter().filter(|voter| holds(voter.id)).count();
        holders * 2 > voters.len()
    };
    majority(&shape.voters) && (shape.outgoing.is_empty() || majority(&shape.outgoing))
}

/// Whether some replicas decide in one membership while the others decide in the other.
pub(super) fn may_part(one: &Membership, other: &Membership) -> bool {
    let shapes = [one, other];
    let voters = shapes.iter().flat_map(|shape| shape.voters.iter().chain(&shape.outgoing));
    let voters: BTreeSet<ReplicaId> = voters.map(|voter| voter.id).collect();
    let voters: Vec<ReplicaId> = voters.into_iter().collect();
    (0..1_u64 << voters.len()).any(|side| {
        let here = |id: ReplicaId| {
            let place = voters.iter().position(|voter| *voter == id);
            place.is_some_and(|place| side >> len_u64(place) & 1 == 1)
        };
        decides(one, here) && decides(other, |id| !here(id))
    })
}

#[cfg(test)]
mod tests {
    use ring_core::ids::MemberId;

    use super::*;

    fn shape(voters: &[u64], outgoing: &[u64]) -> Membership {
        let replicas = |ids: &[u64]| {
            let replica = |id: &u64| Replica { id: ReplicaId(*id), member: MemberId(*id) };
            ids.iter().map(replica).collect()
        };
        Membership {
            voters: replicas(voters),
            outgoing: replicas(outgoing),
            learners: Vec::new(),
            order: 0,
        }
    }

    #[test]
    fn a_step_through_a_joint_configuration_never_parts_and_a_direct_one_may() {
        let (old, new) = (shape(&[1, 2, 3], &[]), shape(&[1], &[]));
        let joint = shape(&[1], &[1, 2, 3]);
        assert!(may_part(&old, &new));
        assert!(!may_part(&old, &joint) && !may_part(&joint, &new));
        assert!(!may_part(&old, &shape(&[1, 2], &[])), "one voter less: majorities meet");
        assert!(may_part(&shape(&[1, 2], &[]), &shape(&[3, 4], &[])));
    }

    #[test]
    fn a_joint_configuration_decides_with_both_majorities_only() {
        let joint = shape(&[1, 4, 5], &[1, 2, 3]);
        let by = |ids: &'static [u64]| decides(&joint, |id| ids.contains(&id.0));
        assert!(by(&[1, 2, 4]));
        assert!(!by(&[1, 4, 5]) && !by(&[1, 2, 3]));
    }
}
