//! How a cluster begins: the record that all its members share.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterId, GroupId, MemberId, ReplicaId, len_u64};
use crate::raft::message::{Membership, Replica};
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

    /// The first membership of a group: each shard begins one member further round the list, so that replicas
    /// and preferred leaders are spread as evenly as numbers allow. The first voter is the preferred leader.
    #[must_use]
    pub fn membership(&self, group: GroupId) -> Membership {
        let mut voters: Vec<Replica> = self.replicas(group).collect();
        voters.sort_unstable();
        Membership { voters, outgoing: Vec::new(), learners: Vec::new() }
    }

    /// The member that should lead a group while it lives.
    #[must_use]
    pub fn preferred_leader(&self, group: GroupId) -> Option<MemberId> {
        self.replicas(group).next().map(|replica| replica.member)
    }

    fn replicas(&self, group: GroupId) -> impl Iterator<Item = Replica> + '_ {
        let members = len_u64(self.members.len());
        let count = u64::from(self.replication).min(members);
        let shard = u64::from(group.0);
        (0..count).filter_map(move |k| {
            let place = usize::try_from((shard + k) % members).ok()?;
            let member = self.members.get(place)?.id;
            Some(Replica { id: ReplicaId(shard * u64::from(self.replication) + k + 1), member })
        })
    }
}
