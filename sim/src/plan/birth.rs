//! Clusters whose founders are told only how many they are, and what happens to them before the cluster exists.
//!
//! Whom each is told to join leads to one machine in the end: sets of which neither was told of the other found two
//! clusters, which nobody can prevent. More machines may begin than are expected; they join what the others found.

use ring_core::ids::{len_u64, len_usize};
use ring_core::rng::Rng;
use serde::{Deserialize, Serialize};

use super::faults::{KINDS, Kind, draw};
use super::{Change, Fault, MS, Plan, SECOND, Scheduled, Who, pick};

/// How the founders find each other.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Birth {
    /// The machines that begin, and whom each is told to join; the plan's `members` are expected of them.
    pub told: Vec<Vec<usize>>,
}

impl Birth {
    /// So many machines that are all told to join the first.
    #[must_use]
    pub fn star(machines: usize) -> Self {
        Self { told: vec![vec![0]; machines] }
    }

    /// As many machines as are expected, or some more, of which each is told something else; everything leads to one.
    pub(super) fn draw(plan: &Plan, rng: &mut Rng) -> Self {
        let more = match rng.below(3) {
            0 => 0,
            1 => len_usize(rng.below(len_u64(plan.spares) + 1)),
            _ => plan.spares,
        };
        let machines = plan.members + more;
        // Those who are told of must all be among the founders.
        let mut core: Vec<usize> = (0..machines).collect();
        for place in (1..core.len()).rev() {
            core.swap(place, len_usize(rng.below(len_u64(place) + 1)));
        }
        core.truncate(1 + len_usize(rng.below(len_u64(plan.members))));
        let kind = rng.below(4);
        let mut told = |machine: usize| {
            let place = core.iter().position(|one| *one == machine);
            match (kind, place) {
                // Everyone has the same list.
                (0, _) => core.clone(),
                // Each leads to the one before it.
                (1, Some(place)) => vec![core[place.saturating_sub(1)]],
                (2, _) => vec![core[0]],
                // The one to whom everything leads need not be told anything.
                (_, Some(0)) => Vec::new(),
                (_, place) => {
                    let mut some = core.clone();
                    some.truncate(place.unwrap_or(core.len()).max(1));
                    some.retain(|one| *one == core[0] || rng.chance(1, 2));
                    some
                }
            }
        };
        Self { told: (0..machines).map(&mut told).collect() }
    }
}

/// What goes wrong while they find each other: quick faults one after the other, above all of those who decide.
pub(super) fn faults(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let Some(birth) = &plan.birth else { return Vec::new() };
    let machines = birth.told.len();
    // To these everyone who begins is as good as a member.
    let clients = plan.members + plan.spares + plan.clients - machines;
    let all = Plan { members: machines, clients, ..plan.clone() };
    let others: Vec<Kind> = KINDS
        .iter()
        .copied()
        .filter(|kind| {
            let is_later = matches!(
                kind,
                Kind::Reshape | Kind::Island | Kind::Snapshot | Kind::Candidate | Kind::Store
            );
            !is_later && rng.chance(1, 4)
        })
        .collect();
    let end = *pick(rng, &[0, 2 * SECOND, 5 * SECOND, 10 * SECOND]);
    let gap = *pick(rng, &[40 * MS, 150 * MS, 500 * MS]);
    let forgets = rng.chance(1, 3);
    let mut faults = Vec::new();
    let mut at = 20 * MS;
    while at < end {
        let fault = match rng.below(4) {
            0 if !others.is_empty() => draw(&all, *pick(rng, &others), rng),
            1 if forgets => {
                let machine = len_usize(rng.below(len_u64(machines)));
                Fault::Churn(Change::Forget(machine, 10 * MS + rng.below(SECOND)))
            }
            _ => one(machines, rng),
        };
        faults.push(Scheduled { at, fault });
        at += rng.below(2 * gap) + MS;
    }
    faults
}

/// A fault of one of them.
fn one(machines: usize, rng: &mut Rng) -> Fault {
    let who = match rng.below(4) {
        0 => Who::Proposer,
        1 => Who::Founder,
        _ => Who::Machine(len_usize(rng.below(len_u64(machines)))),
    };
    let long = match rng.below(3) {
        0 => 5 * MS + rng.below(50 * MS),
        1 => 50 * MS + rng.below(500 * MS),
        _ => SECOND / 2 + rng.below(3 * SECOND),
    };
    match rng.below(6) {
        0 => Fault::Crash(who, long),
        1 => Fault::PowerCut(who, long),
        2 => Fault::Relapse(who, long, rng.below(200 * MS)),
        3 => Fault::Pause(who, long),
        4 => Fault::Isolate(who, long),
        _ => Fault::Slow(who, 2 + rng.below(60), long),
    }
}
