//! Majorities: of one set of voters, or of two in a joint configuration (section 4.3).

use alloc::vec::Vec;

use super::message::{Membership, Replica};
use crate::ids::{LogIndex, ReplicaId};

impl Membership {
    /// True when the replicas for which `holds` answers true decide: a majority of the voters and, in a joint
    /// configuration, a majority of the outgoing voters too. Learners never count.
    #[must_use]
    pub fn has_quorum(&self, holds: impl Fn(ReplicaId) -> bool) -> bool {
        let majority = |voters: &[Replica]| {
            voters.iter().filter(|voter| holds(voter.id)).count() > voters.len() / 2
        };
        majority(&self.voters) && (self.outgoing.is_empty() || majority(&self.outgoing))
    }

    /// The greatest index that a quorum has reached.
    #[must_use]
    pub fn quorum_index(&self, reached: impl Fn(ReplicaId) -> LogIndex) -> LogIndex {
        let majority = |voters: &[Replica]| {
            let mut indexes: Vec<LogIndex> = voters.iter().map(|voter| reached(voter.id)).collect();
            indexes.sort_unstable();
            // Of n sorted ascending, everything from (n - 1) / 2 on is a majority.
            indexes.get((indexes.len().saturating_sub(1)) / 2).copied().unwrap_or_default()
        };
        let index = majority(&self.voters);
        if self.outgoing.is_empty() { index } else { index.min(majority(&self.outgoing)) }
    }

    /// Everyone who votes; who stays in a joint configuration twice.
    pub(super) fn all_voters(&self) -> impl Iterator<Item = &Replica> {
        self.voters.iter().chain(&self.outgoing)
    }

    /// Everyone who receives the log, each once, sorted by id.
    #[must_use]
    pub fn replicas(&self) -> Vec<Replica> {
        let all = self.all_voters().chain(&self.learners);
        let mut replicas: Vec<Replica> = all.copied().collect();
        replicas.sort_unstable();
        replicas.dedup();
        replicas
    }

    /// The replica that lives on a member, if one does.
    #[must_use]
    pub fn on_member(&self, member: crate::ids::MemberId) -> Option<Replica> {
        let mut all = self.all_voters().chain(&self.learners);
        all.find(|replica| replica.member == member).copied()
    }

    /// True while the change from the outgoing to the new voters is not finished.
    #[must_use]
    pub fn is_joint(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// True when ids are sorted, none stands twice, and there is a voter.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let sorted = |replicas: &[Replica]| replicas.is_sorted_by(|a, b| a.id < b.id);
        let apart = |learner: &Replica| self.voters.iter().all(|voter| voter.id != learner.id);
        !self.voters.is_empty()
            && sorted(&self.voters)
            && sorted(&self.outgoing)
            && sorted(&self.learners)
            && self.learners.iter().all(apart)
    }
}

#[cfg(test)]
mod tests {
    use alloc::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;
    use crate::ids::MemberId;

    fn replicas(ids: &[u64]) -> Vec<Replica> {
        ids.iter().map(|&id| Replica { id: ReplicaId(id), member: MemberId(id) }).collect()
    }

    /// The definition, by counting: an index is reached by a quorum if a majority of each set has it.
    fn slow_quorum_index(membership: &Membership, reached: &BTreeMap<u64, u64>) -> u64 {
        let has = |voters: &[Replica], index: u64| {
            let mut count = 0;
            for voter in voters {
                if reached[&voter.id.0] >= index {
                    count += 1;
                }
            }
            count * 2 > voters.len()
        };
        let mut best = 0;
        for index in 0..=20 {
            let joint = membership.outgoing.is_empty() || has(&membership.outgoing, index);
            if has(&membership.voters, index) && joint {
                best = index;
            }
        }
        best
    }

    proptest! {
        #[test]
        fn quorum_index_is_what_counting_says(
            voters in proptest::sample::subsequence((0..7).collect::<Vec<u64>>(), 1..=7),
            outgoing in proptest::sample::subsequence((0..7).collect::<Vec<u64>>(), 0..=7),
            reached in proptest::collection::vec(0..20u64, 7),
        ) {
            let reached: BTreeMap<u64, u64> = (0..7).zip(reached).collect();
            let membership = Membership {
                voters: replicas(&voters),
                outgoing: replicas(&outgoing),
                learners: Vec::new(),
                order: 0,
            };
            let index = membership.quorum_index(|id| LogIndex(reached[&id.0]));
            prop_assert_eq!(index.0, slow_quorum_index(&membership, &reached));
            prop_assert!(membership.has_quorum(|id| reached[&id.0] >= index.0));
            prop_assert!(!membership.has_quorum(|id| reached[&id.0] > index.0));
        }
    }

    #[test]
    fn learners_never_count() {
        let membership = Membership {
            voters: replicas(&[1]),
            outgoing: Vec::new(),
            learners: replicas(&[2, 3]),
            order: 0,
        };
        assert!(!membership.has_quorum(|id| id != ReplicaId(1)));
        assert!(membership.has_quorum(|id| id == ReplicaId(1)));
    }
}
