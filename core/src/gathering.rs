//! How members that were told only how many they are find each other and create a cluster once, together.
//!
//! Each member knows a number of founders and the addresses that it was told to join; its id follows from its
//! directory's birth, as that of any member that joins. Whoever finds a cluster joins it. Those who find none make one
//! by two-phase commit among exactly as many as were expected:
//!
//! 1. Connected members tell each other where they are reached, whom they found at the addresses that they were told to
//!    join, and what they hold. A set of them is *closed* when it holds everyone whom one of it was told to join.
//! 2. A member that is the lowest id of a closed set of as many as expected, all of whom hold nothing, draws a genesis
//!    that names them, writes it down and proposes it. The lowest id of a genesis is its *proposer*.
//! 3. A founder that holds nothing writes the genesis down, and then says that it *holds* it.
//! 4. The proposer that has heard from all others that they hold it writes down that the cluster exists, and then says
//!    so. Whoever holds the genesis and hears that takes part.
//! 5. Until then the proposer may give its genesis up (somebody was lost, or holds another one): it writes that down and
//!    then answers everyone who holds it that it is *void*. A founder lets go of what it holds only when its proposer
//!    has said that. What is drawn for a genesis makes it another one each time, so what is void stays void.
//!
//! What it promises:
//!
//! 1. **Nobody is in two clusters, and no two clusters share a founder.** A cluster exists only by its proposer's word,
//!    which it gives once all hold the genesis (4); who holds it lets it go only on its proposer's word that it is void
//!    (5), and a proposer never says both, whatever crashes: each follows from what it holds durably.
//! 2. **Nothing is founded while one of the expected is missing**: all of them hold the genesis first.
//! 3. **A second set founds no second cluster** where the addresses lead from one to the other: a founding set is
//!    closed, so both would share whom they were told to join; and who finds a cluster joins it. Two sets of
//!    which neither was told of the other are two clusters of one name, which nobody can prevent.
//!
//! What is lost is said again with each tick; nothing is waited for with a time-out. A founder whose directory is
//! emptied after it said that it holds the genesis comes back as another member: before the cluster exists the proposer
//! gives the genesis up, afterwards the new member joins. Only if the *proposer's* directory is lost in between do
//! the others not know whether the cluster exists, and hold on: they say whom they wait for, and their directories,
//! which have promised nothing else yet, are to be emptied. A founder that comes back on a *copy* of its directory may have
//! forgotten what it holds, or that it has founded: whoever holds a genesis remembers durably in which starts those whom
//! it names were seen, and refuses one that lacks them.
//!
//! # Limits
//!
//! - What keeps a second cluster away is who was told to be joined. If their directories are all lost, and nobody else
//!   of the cluster is running, a new set does not know of it: tell all members the same list of all founders.
//! - An address should lead to one member. Where it leads to any of several (a name with many addresses) closed sets
//!   need not share anybody, and rule 3 rests on all of them finding each other before one set is complete.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use crate::genesis::{Founder, Genesis};
use crate::ids::{ClusterId, MemberId};
use crate::link::cluster_id;
use crate::rng::Rng;
use crate::wire::message::Gather;

/// What all that are to found the cluster together must have been told alike.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Terms {
    /// Name of the cluster.
    pub(crate) cluster: String,
    /// How many found it.
    pub(crate) founders: usize,
    pub(crate) shards: u32,
    pub(crate) replication: u32,
}

/// One member's part in the creation, until it belongs to a cluster.
///
/// Invariants: 1. One write is under way at a time, and nothing is decided meanwhile. 2. What it says that it holds is
/// durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Gathering {
    terms: Terms,
    /// This member, as a genesis names it.
    own: Founder,
    /// Who was found at each address that this member was told to join.
    told: BTreeMap<String, Option<MemberId>>,
    /// Who is connected.
    peers: BTreeMap<MemberId, Peer>,
    /// The genesis that is durable here.
    held: Option<Genesis>,
    writing: Option<Writing>,
    /// Rises when somebody's address becomes known.
    introductions: u64,
    /// Ticks until this member proposes again.
    pause: u64,
    /// How many of its proposals have come to nothing.
    failures: u32,
    rng: Rng,
}

/// What is being made durable.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Writing {
    Hold(Genesis),
    Release,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Peer {
    name: String,
    birth: u64,
    said: Option<Said>,
    /// The introductions that it was told.
    introduced: u64,
}

/// What a peer that gathers, too, has said last.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Said {
    address: String,
    /// None: it has yet to find some of them.
    told: Option<BTreeSet<MemberId>>,
    holds: Option<ClusterId>,
}

/// What the gathering asks of the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing.
    Wait,
    /// Write this genesis down, then say `on_stored`.
    Hold(Genesis),
    /// Write down that no genesis is held, then say `on_stored`.
    Release,
    /// The cluster exists: write down its genesis and that in one, and take part. Nobody is told before it is durable.
    Found(Genesis),
}

/// How far the gathering has come, for the operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Progress {
    /// Who was found, by name, this member included.
    pub(crate) found: Vec<String>,
    /// Who decides over the genesis that is held here and is not connected.
    pub(crate) missing: Option<String>,
}

impl Gathering {
    /// `held` is a genesis that was written down before this start.
    pub(crate) fn new(
        terms: Terms,
        own: Founder,
        join: &[String],
        held: Option<Genesis>,
        rng: Rng,
    ) -> Self {
        let at = |address: &String| (*address == own.address).then_some(own.id);
        Self {
            told: join.iter().map(|address| (address.clone(), at(address))).collect(),
            terms,
            own,
            peers: BTreeMap::new(),
            held,
            writing: None,
            introductions: 1,
            pause: 0,
            failures: 0,
            rng,
        }
    }

    /// This member answered at an address that was dialled, or another one did.
    pub(crate) fn on_found_at(&mut self, address: &str, who: MemberId) {
        if let Some(found) = self.told.get_mut(address) {
            *found = Some(who);
        }
    }

    pub(crate) fn on_connected(&mut self, member: MemberId, name: String, birth: u64) {
        self.peers.insert(member, Peer { name, birth, said: None, introduced: 0 });
    }

    pub(crate) fn on_lost(&mut self, member: MemberId) {
        self.peers.remove(&member);
    }

    /// What to say to a member that is connected.
    pub(crate) fn say(&mut self, to: MemberId) -> Option<Gather> {
        let me = self.own.id;
        let told = self.all_told();
        let held = self.held.as_ref();
        let holds = held.map(|genesis| genesis.cluster);
        let peer = self.peers.get(&to)?;
        let theirs = peer.said.as_ref().and_then(|said| said.holds);
        let is_proposal = |genesis: &&Genesis| {
            genesis.proposer() == me && genesis.founder(to).is_some() && theirs != holds
        };
        let proposal = held.filter(is_proposal).cloned();
        let void = theirs.filter(|&theirs| !self.may_decide(theirs));
        let mut others = Vec::new();
        if peer.introduced < self.introductions {
            let reached = |(&id, peer): (&MemberId, &Peer)| {
                peer.said.as_ref().map(|said| (id, said.address.clone()))
            };
            others.extend(self.peers.iter().filter(|(id, _)| **id != to).filter_map(reached));
        }
        self.peers.get_mut(&to)?.introduced = self.introductions;
        Some(Gather {
            address: self.own.address.clone(),
            is_complete: told.is_some(),
            told: told.into_iter().flatten().collect(),
            others,
            holds,
            proposal,
            void,
            cluster: None,
        })
    }

    /// What a member that gathers, too, says.
    pub(crate) fn on_said(&mut self, from: MemberId, said: Gather) -> Step {
        let Some(peer) = self.peers.get_mut(&from) else { return Step::Wait };
        if let Some(genesis) = said.cluster {
            return self.on_cluster(from, genesis);
        }
        let address = peer.said.as_ref().map(|said| &said.address);
        if address != Some(&said.address) {
            self.introductions += 1;
        }
        peer.said = Some(Said {
            address: said.address,
            told: said.is_complete.then(|| said.told.into_iter().collect()),
            holds: said.holds,
        });
        if self.writing.is_some() {
            return Step::Wait;
        }
        match (&self.held, said.proposal) {
            (Some(held), _) if held.proposer() == from && said.void == Some(held.cluster) => {
                self.release()
            }
            (None, Some(proposal)) if self.accepts(from, &proposal) => self.hold(proposal),
            (_, _) => Step::Wait,
        }
    }

    /// A member belongs to this cluster.
    pub(crate) fn on_cluster(&mut self, from: MemberId, genesis: Genesis) -> Step {
        if self.writing.is_some()
            || genesis.name != self.terms.cluster
            || genesis.members.is_empty()
        {
            return Step::Wait;
        }
        let may_leave = |held: &Genesis| {
            // What this member proposed and has not founded it may give up, and what its proposer has left is void.
            held.cluster == genesis.cluster || [self.own.id, from].contains(&held.proposer())
        };
        if self.held.as_ref().is_none_or(may_leave) { Step::Found(genesis) } else { Step::Wait }
    }

    /// With each tick: a proposal is made, founded or given up.
    pub(crate) fn drive(&mut self) -> Step {
        if self.writing.is_some() {
            return Step::Wait;
        }
        self.pause = self.pause.saturating_sub(1);
        match &self.held {
            Some(held) if held.proposer() != self.own.id => Step::Wait,
            Some(held) if !self.stands(held) => {
                // Another proposer that meets the same resistance waits for another time.
                self.failures = (self.failures + 1).min(PAUSE_DOUBLINGS_MAX);
                self.pause = 1 + self.rng.below(4 << self.failures);
                self.release()
            }
            Some(held) if self.is_held_by_all(held) => Step::Found(held.clone()),
            Some(_) => Step::Wait,
            None if self.pause > 0 => Step::Wait,
            None => match self.choose() {
                Some(chosen) if chosen.first() == Some(&self.own.id) => {
                    let genesis = self.draw(&chosen);
                    self.hold(genesis)
                }
                Some(_) | None => Step::Wait,
            },
        }
    }

    /// What was asked for last is durable.
    pub(crate) fn on_stored(&mut self) {
        match self.writing.take() {
            Some(Writing::Hold(genesis)) => self.held = Some(genesis),
            Some(Writing::Release) => self.held = None,
            None => {}
        }
    }

    /// The genesis that is held when everything that was asked for is durable.
    pub(crate) fn written(&self) -> Option<&Genesis> {
        match &self.writing {
            Some(Writing::Hold(genesis)) => Some(genesis),
            Some(Writing::Release) => None,
            None => self.held.as_ref(),
        }
    }

    pub(crate) fn progress(&self) -> Progress {
        let gathers = self.peers.values().filter(|peer| peer.said.is_some());
        let mut found: Vec<String> = gathers.map(|peer| peer.name.clone()).collect();
        found.push(self.own.name.clone());
        found.sort_unstable();
        let proposer = self.held.as_ref().map(|held| &held.members[0]);
        let missing = proposer.filter(|proposer| {
            proposer.id != self.own.id && !self.peers.contains_key(&proposer.id)
        });
        Progress { found, missing: missing.map(|proposer| proposer.name.clone()) }
    }

    fn hold(&mut self, genesis: Genesis) -> Step {
        self.writing = Some(Writing::Hold(genesis.clone()));
        Step::Hold(genesis)
    }

    fn release(&mut self) -> Step {
        self.writing = Some(Writing::Release);
        Step::Release
    }

    /// Whether this member may still found this cluster: it holds the genesis, or will.
    fn may_decide(&self, cluster: ClusterId) -> bool {
        let written = self.written();
        [self.held.as_ref(), written].into_iter().flatten().any(|g| g.cluster == cluster)
    }

    /// Whom this member was told to join; none: it has yet to find some of them.
    fn all_told(&self) -> Option<BTreeSet<MemberId>> {
        self.told.values().copied().collect()
    }

    /// A proposal that this member can take part in.
    fn accepts(&self, from: MemberId, proposal: &Genesis) -> bool {
        let told = self.all_told();
        self.fits(proposal)
            && proposal.proposer() == from
            && told.is_some_and(|told| told.iter().all(|&id| proposal.founder(id).is_some()))
    }

    /// As many as expected, this one as it is among them, each once, on the terms that this member was given.
    fn fits(&self, genesis: &Genesis) -> bool {
        let names: BTreeSet<&str> = genesis.members.iter().map(|f| f.name.as_str()).collect();
        let terms = Terms {
            cluster: genesis.name.clone(),
            founders: genesis.members.len(),
            shards: genesis.shards,
            replication: genesis.replication,
        };
        terms == self.terms
            && names.len() == genesis.members.len()
            && genesis.members.is_sorted_by(|a, b| a.id < b.id)
            && genesis.members.iter().all(|f| f.id == MemberId::joiner(f.birth))
            && genesis.founder(self.own.id) == Some(&self.own)
    }

    /// Whether an own proposal may still be held by all: all are there, hold nothing else, and are a closed set.
    fn stands(&self, held: &Genesis) -> bool {
        let is_closed =
            |told: &BTreeSet<MemberId>| told.iter().all(|&id| held.founder(id).is_some());
        let is_there = |founder: &Founder| {
            let Some(peer) = self.peers.get(&founder.id) else { return false };
            let Some(said) = &peer.said else { return false };
            said.holds.is_none_or(|holds| holds == held.cluster)
                && said.told.as_ref().is_some_and(is_closed)
                && (&peer.name, &said.address) == (&founder.name, &founder.address)
        };
        self.fits(held)
            && self.all_told().is_some_and(|told| is_closed(&told))
            && held.members.iter().all(|f| f.id == self.own.id || is_there(f))
    }

    fn is_held_by_all(&self, held: &Genesis) -> bool {
        let holds = |id: MemberId| {
            let said = self.peers.get(&id).and_then(|peer| peer.said.as_ref());
            said.is_some_and(|said| said.holds == Some(held.cluster))
        };
        held.members.iter().all(|f| f.id == self.own.id || holds(f.id))
    }

    /// A closed set of as many as expected, of those who hold nothing: the lowest ids first, each with whom it was told
    /// to join. The same for all who know the same.
    fn choose(&self) -> Option<BTreeSet<MemberId>> {
        let own_told = self.all_told()?;
        let mut free: BTreeMap<MemberId, (&str, &BTreeSet<MemberId>)> =
            BTreeMap::from([(self.own.id, (self.own.name.as_str(), &own_told))]);
        for (&id, peer) in &self.peers {
            if let Some(Said { told: Some(told), holds: None, .. }) = &peer.said
                && id == MemberId::joiner(peer.birth)
            {
                free.insert(id, (&peer.name, told));
            }
        }
        let mut chosen = BTreeSet::new();
        for &first in free.keys() {
            let mut next = chosen.clone();
            let mut open = vec![first];
            while let Some(id) = open.pop() {
                if next.insert(id) {
                    open.extend(free.get(&id).into_iter().flat_map(|(_, told)| told.iter()));
                }
            }
            let names: BTreeSet<Option<&str>> =
                next.iter().map(|id| free.get(id).map(|(name, _)| *name)).collect();
            // Somebody who is not free has no name here; of two with one name one must go first.
            if next.len() <= self.terms.founders
                && names.len() == next.len()
                && !names.contains(&None)
            {
                chosen = next;
            }
        }
        (chosen.len() == self.terms.founders).then_some(chosen)
    }

    /// A genesis of these members, unlike any that was drawn before.
    fn draw(&mut self, chosen: &BTreeSet<MemberId>) -> Genesis {
        let founder = |&id: &MemberId| {
            let Some(peer) = self.peers.get(&id) else { return self.own.clone() };
            let said = peer.said.as_ref();
            let address = said.map(|said| said.address.clone()).unwrap_or_default();
            Founder { id, name: peer.name.clone(), address, birth: peer.birth }
        };
        let members: Vec<Founder> = chosen.iter().map(founder).collect();
        let drawn = [(MemberId::default(), self.rng.next())];
        let births = members.iter().map(|founder| (founder.id, founder.birth)).chain(drawn);
        Genesis {
            cluster: cluster_id(&self.terms.cluster, births),
            name: self.terms.cluster.clone(),
            members,
            shards: self.terms.shards,
            replication: self.terms.replication,
        }
    }
}

/// A member waits for up to 4 ticks before it proposes again, doubled so often.
const PAUSE_DOUBLINGS_MAX: u32 = 4;

#[cfg(test)]
mod tests;
