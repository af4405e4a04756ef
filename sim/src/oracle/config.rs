//! Majorities, counted anew: core's own count is among what is to be checked.

use std::collections::BTreeSet;

use ring_core::ids::{ReplicaId, len_u64};
use ring_core::raft::message::{Membership, Replica};

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
