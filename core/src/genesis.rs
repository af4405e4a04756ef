//! How a cluster begins: the record that all its members share.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::directory::directory_voters;
use crate::ids::{ClusterId, GroupId, MemberId, ReplicaId, len_u64};
use crate::raft::message::{Membership, Replica};
use crate::ring::ShardPlacement;
use crate::wire::bounded::{self, MEMBERS_MAX};

/// What the founders of a cluster agreed on. Never changes afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Genesis {
    /// The cluster, drawn by all founders together.
    pub cluster: ClusterId,
    /// Its name.
    pub name: String,
    /// The founders, sorted by id.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub members: Vec<Founder>,
    /// Number of shards.
    pub shards: u32,
    /// Replicas of each shard, at most.
    pub replication: u32,
}

/// One founder of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Founder {
    /// Its id: its place in the list of founders sorted by name, counted from 1.
    pub id: MemberId,
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// The number it drew when its directory was made: another directory is another birth.
    pub birth: u64,
}

impl Genesis {
    /// The shard groups: 1 to S.
    pub fn groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        (1..=self.shards).map(GroupId)
    }

    /// The first membership of a group: a shard's replicas are where the placement of the founders puts them. The
    /// directory is with the first members, the second of two as a learner.
    #[must_use]
    pub fn membership(&self, group: GroupId) -> Membership {
        let mut voters = self.replicas(group);
        let learners = match group {
            GroupId::DIRECTORY => voters.split_off(directory_voters(self.members.len())),
            _ => Vec::new(),
        };
        voters.sort_unstable();
        Membership { voters, outgoing: Vec::new(), learners, order: 0 }
    }

    /// The member that should lead a group while it lives.
    #[must_use]
    pub fn preferred_leader(&self, group: GroupId) -> Option<MemberId> {
        self.replicas(group).first().map(|replica| replica.member)
    }

    /// The first replica id that the genesis gives to nobody.
    #[must_use]
    pub fn next_replica(&self) -> ReplicaId {
        let shards = (u64::from(self.shards) + 1) * u64::from(self.replication);
        ReplicaId(shards.max(len_u64(self.members.len())) + 1)
    }

    /// A group's first replicas, the preferred leader's first.
    fn replicas(&self, group: GroupId) -> Vec<Replica> {
        let ids = self.members.iter().map(|founder| founder.id);
        let members: Vec<MemberId> = match group {
            // With two members the second learns.
            GroupId::DIRECTORY if self.members.len() == 2 => ids.collect(),
            GroupId::DIRECTORY => ids.take(directory_voters(self.members.len())).collect(),
            _ => {
                let set = ids.map(|id| (id, 1));
                ShardPlacement::new(set, self.shards, self.replication).replicas(group).to_vec()
            }
        };
        let first = u64::from(group.0) * u64::from(self.replication) + 1;
        (first..).map(ReplicaId).zip(members).map(|(id, member)| Replica { id, member }).collect()
    }
}
