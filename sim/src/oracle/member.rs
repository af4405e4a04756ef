//! MEMBER: what members think of each other.
//!
//! 1. Nobody goes back: what a process thinks of a member's incarnation never falls, and each start of a member begins
//!    above all that it ever said.
//! 2. Nobody is made up: nobody knows a greater incarnation of a member than that member has said.
//! 3. When all is well nobody who lives is dead to anyone.
//!
//! That views are equal when all is well is asked at the end: [`Oracle::views`].

use std::collections::{BTreeMap, BTreeSet};

use ring_core::ids::MemberId;
use ring_core::membership::{Incarnation, Membership, State};

use super::{Oracle, name};
use crate::clock::Nanos;

/// What members think of each other, as their processes showed it.
#[derive(Debug, Default)]
pub(super) struct Views {
    /// By id: the greatest incarnation that it has said, over all its starts.
    said: BTreeMap<MemberId, Incarnation>,
    /// By machine: what its present process knows.
    known: BTreeMap<usize, Known>,
    /// All is well from now on.
    quiet: bool,
}

#[derive(Debug, Default)]
struct Known {
    incarnations: BTreeMap<MemberId, Incarnation>,
    digest: Option<u64>,
    alive: BTreeSet<MemberId>,
    /// Somebody is suspected.
    suspects: bool,
}

impl Oracle {
    /// What the node on a machine thinks, after a turn.
    pub fn on_view(
        &mut self,
        machine: usize,
        me: MemberId,
        alive: BTreeSet<MemberId>,
        gossip: Option<&Membership>,
    ) {
        let known = self.views.known.entry(machine).or_default();
        known.alive = alive;
        let Some(gossip) = gossip else { return };
        let is_first = known.digest.is_none();
        known.digest = Some(gossip.digest());
        known.suspects = gossip.known().any(|(_, _, state)| state == State::Suspect);
        let own = gossip.incarnation();
        let said = self.views.said.entry(me).or_default();
        if self.members[machine].lost || self.members[machine].restored {
            // What was put back says again what was said before, until a peer refuses it.
            *said = own.max(*said);
            return;
        }
        let goes_back = if is_first { own <= *said } else { own < *said };
        if goes_back {
            let problem = format!("{}: {me} is in {own:?}, and was in {said:?}", name(machine));
            return self.fail("MEMBER", problem);
        }
        *said = own;
        let problem = gossip.known().find_map(|(id, incarnation, state)| {
            let said = self.views.said.get(&id).copied().unwrap_or_default();
            if incarnation > said && self.machine_ever_of(id).is_some() {
                return Some(format!("{id} is {state:?} in {incarnation:?} and said {said:?}"));
            }
            let known = self.views.known.get_mut(&machine)?;
            let before = known.incarnations.insert(id, incarnation)?;
            let goes_back = before > incarnation;
            goes_back.then(|| format!("goes back to {incarnation:?} of {id} from {before:?}"))
        });
        if let Some(problem) = problem {
            self.fail("MEMBER", format!("{}: {problem}", name(machine)));
        }
    }

    /// A node begins on a machine: it knows nothing.
    pub fn on_view_begun(&mut self, machine: usize) {
        self.views.known.remove(&machine);
    }

    /// A member is dead to the node on a machine, and runs.
    pub fn on_false_death(&mut self, machine: usize, id: MemberId) {
        if self.views.quiet {
            self.fail("MEMBER", format!("{}: {id} is dead, and lives", name(machine)));
        }
    }

    /// Everything is well from now on: nobody has a reason to take somebody who runs for dead.
    pub fn be_quiet(&mut self, now: Nanos) {
        self.views.quiet = true;
        self.be_quiet_about_requests(now);
    }

    /// True when everything is well.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.views.quiet
    }

    /// What is different in what these machines think, all of which run: each must hold exactly these members for
    /// alive, and all must have the same view.
    #[must_use]
    pub fn views(&self, machines: &[usize]) -> Option<String> {
        let ids: BTreeSet<MemberId> = machines.iter().map(|m| self.id_of(*m)).collect();
        let mut digests = BTreeSet::new();
        for machine in machines {
            let Some(known) = self.views.known.get(machine) else {
                return Some(format!("{} has shown no view", name(*machine)));
            };
            if known.alive != ids {
                let alive = &known.alive;
                return Some(format!("to {} {alive:?} are alive; {ids:?} are", name(*machine)));
            }
            // What began under faults must be over: its end is nothing that happened when all was well.
            if known.suspects {
                return Some(format!("{} suspects somebody", name(*machine)));
            }
            digests.extend(known.digest);
        }
        (digests.len() > 1).then(|| String::from("views of incarnations differ"))
    }
}
