//! What the directory says: one value, replaced as a whole by compare-and-set on its revision.

use alloc::collections::BTreeSet;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::genesis::Genesis;
use crate::ids::{GroupId, MemberId, ReplicaId, len_u64};
use crate::raft::message::{Membership, Replica};
use crate::wire::bounded::{self, GROUPS_MAX, MEMBERS_MAX};

/// Version of the stored form.
const FORMAT: u8 = 1;

/// The registered members and who is to hold a replica of which group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Table {
    /// Rises by one with each change; a node never takes a lower one than it has.
    pub version: u64,
    /// The id that the next new replica gets. Ids below it are never given again.
    pub next_replica: ReplicaId,
    /// Everyone who is registered, sorted by id.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub members: Vec<Registered>,
    /// Every group, sorted by id, the directory's own first.
    #[serde(deserialize_with = "bounded::list::<GROUPS_MAX, _, _>")]
    pub groups: Vec<Assignment>,
}

/// A registered member.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Registered {
    /// Its id.
    pub id: MemberId,
    /// Its name; no two members have the same.
    pub name: String,
    /// Where it listens.
    pub address: String,
    /// The number that its directory drew at its making.
    pub birth: u64,
    /// Its share of the shards, beside the others'.
    pub weight: u16,
    /// Whether it is to hold replicas.
    pub standing: Standing,
}

/// Whether a member is to hold replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Standing {
    /// It is.
    Active,
    /// It asked to go: what it holds moves elsewhere, with its help.
    Leaving,
    /// It has been away for too long: what it holds moves elsewhere, as far as there is room elsewhere.
    Lost,
}

/// Who is to hold a group's replicas: an order to the group's leader.
///
/// A replica that is neither in `voters` nor in `learners` nor in `retiring` is in no membership of the group that is
/// or can come into force: its member may drop it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Assignment {
    /// The group.
    pub group: GroupId,
    /// The version of the table that gave this order; 0 for the genesis. A group follows an order once, and none that
    /// is not later than the one it followed last (see [`Membership::order`]).
    pub order: u64,
    /// The voters asked for, the preferred leader first.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub voters: Vec<Replica>,
    /// The learners asked for.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub learners: Vec<Replica>,
    /// Replicas of earlier orders that may still take part until this order is settled.
    #[serde(deserialize_with = "bounded::list::<MEMBERS_MAX, _, _>")]
    pub retiring: Vec<Replica>,
    /// Whether the group's leader has said that the membership asked for is committed.
    pub settled: bool,
}

impl Assignment {
    /// The replicas asked for.
    pub fn target(&self) -> impl Iterator<Item = Replica> + '_ {
        self.voters.iter().chain(&self.learners).copied()
    }

    /// Every replica that may take part.
    pub fn replicas(&self) -> impl Iterator<Item = Replica> + '_ {
        self.target().chain(self.retiring.iter().copied())
    }

    /// The replica asked for on a member.
    #[must_use]
    pub fn on_member(&self, member: MemberId) -> Option<Replica> {
        self.target().find(|replica| replica.member == member)
    }

    /// The member that should lead while it can.
    #[must_use]
    pub fn preferred_leader(&self) -> Option<MemberId> {
        self.voters.first().map(|replica| replica.member)
    }
}

impl Registered {
    /// The founders of a cluster, as its first table has them.
    pub fn founders(genesis: &Genesis) -> impl Iterator<Item = Self> + '_ {
        genesis.members.iter().map(|founder| Self {
            id: founder.id,
            name: founder.name.clone(),
            address: founder.address.clone(),
            birth: founder.birth,
            weight: 1,
            standing: Standing::Active,
        })
    }
}

impl Table {
    /// The first table of a cluster: what its founders agreed on.
    #[must_use]
    pub fn of_genesis(genesis: &Genesis) -> Self {
        let layout = genesis.layout();
        let groups = genesis.all_groups().map(|group| {
            let voters = layout.voters(group);
            let Membership { learners, .. } = layout.membership(group);
            Assignment { group, order: 0, voters, learners, retiring: Vec::new(), settled: true }
        });
        Self {
            version: 1,
            next_replica: genesis.next_replica(),
            members: Registered::founders(genesis).collect(),
            groups: groups.collect(),
        }
    }

    /// A group's assignment.
    #[must_use]
    pub fn group(&self, group: GroupId) -> Option<&Assignment> {
        let place = self.groups.binary_search_by_key(&group, |assignment| assignment.group);
        place.ok().map(|place| &self.groups[place])
    }

    /// A registered member.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<&Registered> {
        let place = self.members.binary_search_by_key(&id, |member| member.id);
        place.ok().map(|place| &self.members[place])
    }

    /// Members that are to hold replicas, with their weights, sorted by id.
    pub fn active(&self) -> impl Iterator<Item = (MemberId, u16)> + '_ {
        let active = self.members.iter().filter(|member| member.standing == Standing::Active);
        active.map(|member| (member.id, member.weight))
    }

    /// True when a replica on this member may take part in a group, now or later.
    #[must_use]
    pub fn holds_any(&self, member: MemberId) -> bool {
        self.groups.iter().any(|group| group.replicas().any(|replica| replica.member == member))
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![FORMAT];
        bytes.extend(postcard::to_allocvec(self).expect("memory is the only limit"));
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let Some((&FORMAT, body)) = bytes.split_first() else {
            return Err("the directory is of a version that this library does not know");
        };
        match postcard::take_from_bytes::<Self>(body) {
            Ok((table, [])) if table.is_sound() => Ok(table),
            Ok(_) | Err(_) => Err("the directory is damaged"),
        }
    }

    /// True when everything is sorted and named once, every group has a voter, every replica is on a registered member,
    /// and none has an id that may be given again.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let names: BTreeSet<&str> = self.members.iter().map(|m| m.name.as_str()).collect();
        let sound = |assignment: &Assignment| {
            let ids: BTreeSet<ReplicaId> = assignment.replicas().map(|r| r.id).collect();
            let members: BTreeSet<MemberId> = assignment.replicas().map(|r| r.member).collect();
            !assignment.voters.is_empty()
                && ids.len() == assignment.replicas().count()
                && members.len() == assignment.replicas().count()
                && members.iter().all(|&member| self.member(member).is_some())
                && ids.last().is_none_or(|&last| last < self.next_replica)
                && assignment.order <= self.version
                && (!assignment.settled || assignment.retiring.is_empty())
        };
        self.members.is_sorted_by(|a, b| a.id < b.id)
            && names.len() == self.members.len()
            && self.groups.is_sorted_by(|a, b| a.group < b.group)
            && self.groups.iter().all(sound)
    }

    /// True when it can be the directory of the cluster that begins like this: it names each of its groups, and no
    /// others; its founders are those; and it gives away no replica id that they have had.
    #[must_use]
    pub fn is_of(&self, genesis: &Genesis) -> bool {
        let is_one_of_them = |member: &Registered| match genesis.founder(member.id) {
            Some(founder) => founder.birth == member.birth,
            None => !member.id.is_founder(),
        };
        self.groups.iter().map(|assignment| assignment.group).eq(genesis.all_groups())
            && self.members.iter().all(is_one_of_them)
            && self.next_replica >= genesis.next_replica()
    }

    /// Groups whose order is not settled.
    #[must_use]
    pub fn moving(&self) -> u64 {
        len_u64(self.groups.iter().filter(|group| !group.settled).count())
    }
}
