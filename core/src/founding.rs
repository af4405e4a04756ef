//! How the founders create a cluster once, together.
//!
//! 1. Each directory draws a *birth* when it is made, durable before its member speaks.
//! 2. A founder that knows every founder's birth writes down the genesis: the cluster's id is a hash over all
//!    births. Only when it is durable does the founder say that it *holds* it.
//! 3. A founder that has heard from every founder that it holds the same genesis knows the cluster to exist, writes
//!    that down and takes part.
//!
//! So no member takes part before *every* member's birth is durable with every member, and a member whose disk was
//! wiped afterwards, even before another one took part for the first time, meets peers that know another birth of
//! it and is refused. Nothing is waited for with a time-out: what a founder knows it repeats with each tick.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;

use crate::genesis::{Founder, Genesis};
use crate::ids::{ClusterId, MemberId};
use crate::link::cluster_id;
use crate::wire::message::Founding as Said;

/// One founder's part in the creation.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Founding {
    me: MemberId,
    births: BTreeMap<MemberId, u64>,
    genesis: Option<Genesis>,
    /// Who has said that it holds our genesis.
    holders: BTreeSet<MemberId>,
    /// Whether the genesis is durable here.
    held: bool,
    founded: bool,
}

/// What a step of the founding asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Wait,
    /// Write this down, then say `on_held`.
    Hold(Genesis),
    /// The cluster exists: write that down and take part.
    Founded,
    /// A founder holds another genesis: one of the directories was wiped in the middle of the creation.
    Split(ClusterId),
}

impl Founding {
    pub(crate) fn new(me: MemberId, birth: u64, genesis: Option<Genesis>, founded: bool) -> Self {
        Self {
            me,
            births: BTreeMap::from([(me, birth)]),
            held: genesis.is_some(),
            holders: BTreeSet::new(),
            genesis,
            founded,
        }
    }

    pub(crate) fn is_founded(&self) -> bool {
        self.founded
    }

    pub(crate) fn genesis(&self) -> Option<&Genesis> {
        self.genesis.as_ref()
    }

    /// What this founder tells the others.
    pub(crate) fn say(&self) -> Said {
        let held = self.genesis.as_ref().filter(|_| self.held);
        Said {
            births: self.births.iter().map(|(&member, &birth)| (member, birth)).collect(),
            holds: held.map(|genesis| genesis.cluster),
            founded: self.founded,
        }
    }

    /// A founder's birth became known: by its own handshake, so it cannot be an older one.
    pub(crate) fn on_birth(&mut self, member: MemberId, birth: u64) {
        if self.genesis.is_none() {
            self.births.insert(member, birth);
        }
    }

    /// Writes the genesis down once every birth is known.
    pub(crate) fn advance(
        &mut self,
        name: &str,
        members: &BTreeMap<MemberId, (String, String)>,
        shards: u32,
        replication: u32,
    ) -> Step {
        if self.founded {
            return Step::Wait;
        }
        if self.genesis.is_none() && self.births.len() == members.len() {
            let founders = members.iter().map(|(&id, (name, address))| Founder {
                id,
                name: name.clone(),
                address: address.clone(),
                birth: self.births[&id],
            });
            let genesis = Genesis {
                cluster: cluster_id(name, self.births.iter().map(|(&m, &b)| (m, b))),
                name: String::from(name),
                members: founders.collect(),
                shards,
                replication,
            };
            self.genesis = Some(genesis.clone());
            return Step::Hold(genesis);
        }
        if self.held && self.holders.len() + 1 == members.len() {
            self.founded = true;
            return Step::Founded;
        }
        Step::Wait
    }

    /// This member joins a cluster that exists.
    pub(crate) fn join(&mut self, genesis: Genesis) {
        self.genesis = Some(genesis);
        self.held = true;
        self.founded = true;
    }

    /// Our genesis is durable.
    pub(crate) fn on_held(&mut self) {
        self.held = true;
    }

    /// What another founder says.
    pub(crate) fn on_said(&mut self, from: MemberId, said: &Said) -> Step {
        let Some(theirs) = said.holds else { return Step::Wait };
        let Some(genesis) = &self.genesis else { return Step::Wait };
        if theirs != genesis.cluster {
            return Step::Split(theirs);
        }
        if from != self.me {
            self.holders.insert(from);
        }
        if said.founded && self.held && !self.founded {
            self.founded = true;
            return Step::Founded;
        }
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;

    fn members() -> BTreeMap<MemberId, (String, String)> {
        [(1, "a"), (2, "b")].map(|(id, n)| (MemberId(id), (n.to_string(), n.to_string()))).into()
    }

    #[test]
    fn takes_part_only_when_every_founder_holds_the_genesis() {
        let mut a = Founding::new(MemberId(1), 11, None, false);
        assert_eq!(a.advance("c", &members(), 1, 2), Step::Wait, "b's birth is not known");

        a.on_birth(MemberId(2), 22);
        let Step::Hold(genesis) = a.advance("c", &members(), 1, 2) else { panic!("must hold") };
        assert_eq!(genesis.members[1].birth, 22);
        assert_eq!(a.say().holds, None, "not durable yet");
        a.on_held();
        assert_eq!(a.say().holds, Some(genesis.cluster));
        assert_eq!(a.advance("c", &members(), 1, 2), Step::Wait, "b has not said that it holds it");

        let b = Said { births: Vec::new(), holds: Some(genesis.cluster), founded: false };
        assert_eq!(a.on_said(MemberId(2), &b), Step::Wait);
        assert_eq!(a.advance("c", &members(), 1, 2), Step::Founded);
    }

    #[test]
    fn a_birth_that_changes_after_the_agreement_splits() {
        let mut a = Founding::new(MemberId(1), 11, None, false);
        a.on_birth(MemberId(2), 22);
        assert!(matches!(a.advance("c", &members(), 1, 2), Step::Hold(_)));
        let other = ClusterId(5);
        let b = Said { births: Vec::new(), holds: Some(other), founded: false };
        assert_eq!(a.on_said(MemberId(2), &b), Step::Split(other));
    }

    use alloc::vec::Vec;
}
