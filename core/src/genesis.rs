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
    /// Its id: its place in the list of founders sorted by name, counted from 1; where the founders found each other, that
    /// of a member that joins.
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

    /// Every group: the directory, then the shards.
    pub fn all_groups(&self) -> impl Iterator<Item = GroupId> + use<> {
        core::iter::once(GroupId::DIRECTORY).chain(self.groups())
    }

    /// Where every group begins. Who asks about many groups asks this once: it places all shards.
    #[must_use]
    pub fn layout(&self) -> Layout<'_> {
        let set = self.members.iter().map(|founder| (founder.id, 1));
        Layout { genesis: self, shards: ShardPlacement::new(set, self.shards, self.replication) }
    }

    /// The first membership of a group: see [`Layout::membership`].
    #[must_use]
    pub fn membership(&self, group: GroupId) -> Membership {
        self.layout().membership(group)
    }

    /// The member that should lead a group while it lives.
    #[must_use]
    pub fn preferred_leader(&self, group: GroupId) -> Option<MemberId> {
        self.layout().preferred_leader(group)
    }

    /// Who decided that the cluster exists, where the founders found each other: see `expect` of
    /// [`Config`](crate::Config).
    #[must_use]
    pub fn proposer(&self) -> MemberId {
        self.members.first().map_or_else(MemberId::default, |founder| founder.id)
    }

    /// One of the founders.
    #[must_use]
    pub fn founder(&self, id: MemberId) -> Option<&Founder> {
        self.members.iter().find(|founder| founder.id == id)
    }

    /// The first replica id that the genesis gives to nobody.
    #[must_use]
    pub fn next_replica(&self) -> ReplicaId {
        let shards = (u64::from(self.shards) + 1) * u64::from(self.replication);
        ReplicaId(shards.max(len_u64(self.members.len())) + 1)
    }
}

/// Where the genesis puts the first replicas of every group.
#[derive(Clone, Debug)]
pub struct Layout<'a> {
    genesis: &'a Genesis,
    shards: ShardPlacement,
}

impl Layout<'_> {
    /// The first membership of a group: a shard's replicas are where the placement of the founders puts them. The
    /// directory is with the first members, the second of two as a learner.
    #[must_use]
    pub fn membership(&self, group: GroupId) -> Membership {
        let mut voters = self.replicas(group);
        let learners = match group {
            GroupId::DIRECTORY => voters.split_off(directory_voters(self.genesis.members.len())),
            _ => Vec::new(),
        };
        voters.sort_unstable();
        Membership { voters, outgoing: Vec::new(), learners, order: 0 }
    }

    /// The voters of a group's first membership, the preferred leader first.
    #[must_use]
    pub fn voters(&self, group: GroupId) -> Vec<Replica> {
        let mut voters = self.membership(group).voters;
        let preferred = self.preferred_leader(group);
        if let Some(place) = voters.iter().position(|voter| Some(voter.member) == preferred) {
            voters.swap(0, place);
        }
        voters
    }

    /// The member that should lead a group while it lives.
    #[must_use]
    pub fn preferred_leader(&self, group: GroupId) -> Option<MemberId> {
        self.replicas(group).first().map(|replica| replica.member)
    }

    /// A group's first replicas, the preferred leader's first.
    fn replicas(&self, group: GroupId) -> Vec<Replica> {
        let founders = &self.genesis.members;
        let ids = founders.iter().map(|founder| founder.id);
        let members: Vec<MemberId> = match group {
            // With two members the second learns.
            GroupId::DIRECTORY if founders.len() == 2 => ids.collect(),
            GroupId::DIRECTORY => ids.take(directory_voters(founders.len())).collect(),
            _ => self.shards.replicas(group).to_vec(),
        };
        let first = u64::from(group.0) * u64::from(self.genesis.replication) + 1;
        (first..).map(ReplicaId).zip(members).map(|(id, member)| Replica { id, member }).collect()
    }
}
