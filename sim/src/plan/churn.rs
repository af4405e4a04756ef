//! Plans in which members come and go: few found the cluster, others join it, leave, are replaced, and lose their
//! disks and come back as new members.
//!
//! Who holds what at a given moment is not known before the run. So whether a disk may be lost, or a member go, is
//! looked up at that moment, and a change that would exceed the budget has nobody to hit.

use std::fmt;
use std::time::Duration;

use ring_core::ids::{GroupId, len_u64, len_usize};
use ring_core::rng::Rng;
use serde::{Deserialize, Serialize};

use super::faults::{KINDS, Kind, a_group, draw};
use super::steady::clock;
use super::{Birth, Fault, MS, Plan, SECOND, Scheduled, Who, birth, pick};
use crate::clock::Nanos;

/// Who is a member changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// A machine that is no member gets an empty disk, starts, and joins through these machines.
    Join(usize, Name, Vec<usize>),
    /// A member asks to go, if so many others are there to stay.
    Leave(Who, usize),
    /// A member asks to go, and is killed after so long and started again, knowing nothing of it.
    LeaveAndDie(Who, Nanos),
    /// A member is lost with its disk.
    Bury(Who),
    /// A member's disk is emptied; after so long it joins again, through these machines.
    Renew(Who, Nanos, Name, Vec<usize>),
    /// A machine whose member has left starts again on the directory that it left.
    Revive(usize),
    /// No word of the directory reaches a machine, whatever else does.
    Uninform(usize, Nanos),
    /// A member asks to go when some are lost, if a majority of every group is there; after so long it goes by force, and gives
    /// up who is away.
    Abandon(Who, Nanos),
    /// A member's directory is copied, unless one of its groups is so small that the copy alone could decide.
    Copy(usize),
    /// A machine whose member has left starts on the copy of before; one of a run.
    Restore(usize),
    /// A machine that is to found the cluster loses its disk before there is one, and begins anew after so long.
    Forget(usize, Nanos),
}

/// What a machine that joins calls itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Name {
    /// The machine's name.
    Own,
    /// A name that nobody had.
    Other,
}

/// What a run is about.
#[derive(Clone, Copy)]
enum Theme {
    Any,
    /// Who is there grows.
    Growth,
    /// Few stay.
    Exodus,
    /// Disks are lost and members replaced.
    Losses,
    /// Whoever gives the orders goes away.
    Headless,
    /// Somebody goes by an old directory, and leaders change.
    Uninformed,
}

/// Names the dice for how the founders find each other: plans stay what they were but for this.
const BIRTHS: u64 = 36;
/// Most machines that may be members.
const MACHINES_MAX: u64 = 8;

/// The plan of a seed.
pub(super) fn plan(seed: u64) -> Plan {
    let mut rng = Rng::new(seed).fork(21);
    let mut plan = Plan::steady(seed);
    plan.members = *pick(&mut rng, &[1, 1, 3, 3, 3, 5]);
    plan.spares = 1 + len_usize(rng.below(MACHINES_MAX - len_u64(plan.members)).min(4));
    plan.replication = *pick(&mut rng, &[3, 3, 3, 5, 2]);
    plan.shards = plan.shards.min(u32::try_from(1 + rng.below(5)).expect("at most 5"));
    plan.limits.moves = *pick(&mut rng, &[1, 1, 2, 8]);
    plan.timers.replace_after = Duration::from_secs(3 + rng.below(8));
    let is_about_old_tables = Rng::new(seed).fork(22).chance(1, 6);
    if is_about_old_tables {
        // Few groups, and orders for them one after the other.
        plan.shards = plan.shards.min(2);
        plan.limits.moves = 8;
    }
    let machines = plan.members + plan.spares + plan.clients;
    plan.clocks = (0..machines).map(|_| clock(&mut rng)).collect();
    plan.chaos = Duration::from_secs(*pick(&mut rng, &[30, 60, 60, 90]));
    let theme = match rng.below(8) {
        _ if is_about_old_tables => Theme::Uninformed,
        0 => Theme::Growth,
        1 => Theme::Exodus,
        2 => Theme::Losses,
        3 => Theme::Headless,
        _ => Theme::Any,
    };
    plan.faults = faults(&plan, theme, &mut rng);
    plan.faults.extend(returns(&plan, &mut Rng::new(seed).fork(23)));
    if is_about_old_tables {
        plan.faults.extend(old_tables(&plan, &mut Rng::new(seed).fork(24)));
    }
    let mut rng = Rng::new(seed).fork(BIRTHS);
    if rng.chance(1, 4) {
        gather(&mut plan, &mut rng);
    }
    plan.faults.extend(restores(&plan, &mut Rng::new(seed).fork(67)));
    let mut rng = Rng::new(seed).fork(125);
    if rng.chance(1, 4) {
        abandon(&mut plan, &mut rng);
    }
    plan.faults.sort_by_key(|fault| fault.at);
    plan
}

/// The founders find each other, and some of it goes wrong.
fn gather(plan: &mut Plan, rng: &mut Rng) {
    // Any number of them; where few are expected two sets are there.
    let machines = plan.members + plan.spares;
    plan.members = match rng.below(3) {
        0 => 1 + len_usize(rng.below(2)).min(machines - 2),
        _ => plan.members + len_usize(rng.below(len_u64(plan.spares)).min(2)),
    };
    plan.spares = machines - plan.members;
    plan.birth = Some(Birth::draw(plan, rng));
    plan.faults.extend(birth::faults(plan, rng));
}

/// Those who have left come back, each on its old directory.
fn returns(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let machines = len_u64(plan.members + plan.spares);
    let end = crate::net::nanos(plan.chaos);
    let count = if rng.chance(1, 2) { 0 } else { machines };
    let returns = (0..count).map(|_| {
        let change = Change::Revive(len_usize(rng.below(machines)));
        Scheduled { at: end / 4 + rng.below(end - end / 4), fault: Fault::Churn(change) }
    });
    returns.collect()
}

/// Directories are copied, and one of them is put back when its member has left and is forgotten.
fn restores(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let machines = len_u64(plan.members + plan.spares);
    let end = crate::net::nanos(plan.chaos);
    if !rng.chance(1, 3) {
        return Vec::new();
    }
    let mut faults = Vec::new();
    let mut at = |at: Nanos, fault: Fault| faults.push(Scheduled { at, fault });
    for _ in 0..2 {
        let machine = len_usize(rng.below(machines));
        let who = Who::Machine(machine);
        for _ in 0..5 {
            at(end / 6 + rng.below(end / 6), Fault::Churn(Change::Copy(machine)));
        }
        if rng.chance(1, 2) {
            // Its peers see a start that the copy does not know.
            at(end / 3 + rng.below(end / 8), Fault::Crash(who, 50 * MS));
        }
        at(end / 2, Fault::Churn(Change::Leave(who, 2)));
        for _ in 0..8 {
            at(end / 2 + rng.below(end / 2), Fault::Churn(Change::Restore(machine)));
        }
    }
    faults
}

/// As many are lost as a majority of all bears, nobody is given up yet, and another one wants to go.
fn abandon(plan: &mut Plan, rng: &mut Rng) {
    let lost = match plan.members {
        3 => 1,
        5 => 2,
        _ => return,
    };
    plan.replication = u32::try_from(plan.members).expect("few members");
    plan.timers.replace_after = Duration::from_secs(8 + rng.below(5));
    let at = 5 * SECOND + rng.below(5 * SECOND);
    let until = at + 12 * SECOND;
    // Until then the members are who they were.
    plan.faults.retain(|scheduled| {
        let is_birth = matches!(scheduled.fault, Fault::Churn(Change::Forget(..)));
        scheduled.at >= until || is_birth || !matches!(scheduled.fault, Fault::Churn(_))
    });
    let first = len_usize(rng.below(len_u64(plan.members)));
    let member = |n: usize| Who::Machine((first + n) % plan.members);
    let buried = (0..lost).map(|n| (at, Change::Bury(member(n))));
    let goes = (at + rng.below(SECOND), Change::Abandon(member(lost), SECOND + rng.below(SECOND)));
    let changes = buried.chain([goes]);
    let changes = changes.map(|(at, change)| Scheduled { at, fault: Fault::Churn(change) });
    let changes: Vec<Scheduled> = changes.collect();
    plan.faults.extend(changes);
}

/// One after the other hears nothing of the directory, while leaders change all the time: who is elected may know an
/// order that its group has left behind.
fn old_tables(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let machines = len_u64(plan.members + plan.spares);
    let end = crate::net::nanos(plan.chaos);
    let mut faults = Vec::new();
    let mut at = 4 * SECOND;
    while at < end {
        let long = 3 * SECOND + rng.below(12 * SECOND);
        let change = Change::Uninform(len_usize(rng.below(machines)), long);
        faults.push(Scheduled { at, fault: Fault::Churn(change) });
        at += long / 2;
    }
    let mut at = 4 * SECOND;
    while at < end {
        let who = Who::Leader(a_group(plan, rng));
        let fault = match rng.chance(1, 2) {
            true => Fault::Crash(who, 50 * MS + rng.below(SECOND)),
            false => Fault::Pause(who, SECOND + rng.below(SECOND)),
        };
        faults.push(Scheduled { at, fault });
        at += SECOND + rng.below(3 * SECOND);
    }
    faults
}

fn faults(plan: &Plan, theme: Theme, rng: &mut Rng) -> Vec<Scheduled> {
    let mut faults = joins(plan, rng);
    let end = crate::net::nanos(plan.chaos);
    // Quick ones follow each other before the cluster has come to rest.
    let gap = *pick(rng, &[2 * SECOND, 5 * SECOND, 10 * SECOND]);
    let mut at = 3 * SECOND + rng.below(5 * SECOND);
    while at < end {
        faults.push(Scheduled { at, fault: Fault::Churn(change(plan, theme, rng)) });
        at += rng.below(2 * gap) + 10 * MS;
    }
    let mut at = 2 * SECOND;
    let gap = *pick(rng, &[2 * SECOND, 4 * SECOND, 8 * SECOND, 60 * SECOND]);
    let kinds: Vec<Kind> = KINDS
        .iter()
        .copied()
        .filter(|kind| !matches!(kind, Kind::Reshape | Kind::Island) && rng.chance(1, 3))
        .collect();
    while !kinds.is_empty() || matches!(theme, Theme::Headless) {
        at += rng.below(2 * gap) + 10 * MS;
        if at >= end {
            break;
        }
        faults.push(Scheduled { at, fault: disturbance(plan, theme, &kinds, rng) });
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

/// The machines beyond the founders come one by one, or all at once.
fn joins(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let at_once = rng.chance(1, 3);
    let end = crate::net::nanos(plan.chaos);
    let first = rng.below(10 * SECOND);
    let spares = plan.members..plan.members + plan.spares;
    let joins = spares.map(|machine| {
        let at = if at_once { first + rng.below(SECOND) } else { rng.below(end / 2) };
        let change = Change::Join(machine, Name::Own, through(plan, rng));
        Scheduled { at, fault: Fault::Churn(change) }
    });
    joins.collect()
}

/// The addresses that a machine joins through: those of all that may be members in some order, its own among them,
/// and one behind which there is nobody.
fn through(plan: &Plan, rng: &mut Rng) -> Vec<usize> {
    let machines = plan.members + plan.spares;
    let mut all: Vec<usize> = (0..machines).collect();
    if rng.chance(1, 2) {
        all.push(machines + plan.clients + 7);
    }
    for place in (1..all.len()).rev() {
        all.swap(place, len_usize(rng.below(len_u64(place) + 1)));
    }
    all
}

fn anyone(plan: &Plan, rng: &mut Rng) -> Who {
    match rng.below(5) {
        0 => Who::Leader(GroupId::DIRECTORY),
        1 => Who::Leader(a_group(plan, rng)),
        _ => Who::Machine(len_usize(rng.below(len_u64(plan.members + plan.spares)))),
    }
}

fn change(plan: &Plan, theme: Theme, rng: &mut Rng) -> Change {
    let name = if rng.chance(1, 3) { Name::Other } else { Name::Own };
    // Joining, leaving, leaving and dying, buried, renewed.
    let weights = match theme {
        Theme::Any | Theme::Headless => [3, 3, 1, 1, 3],
        Theme::Uninformed => [4, 4, 0, 0, 2],
        Theme::Growth => [6, 1, 0, 0, 1],
        Theme::Exodus => [1, 6, 2, 1, 0],
        Theme::Losses => [1, 0, 1, 2, 6],
    };
    let mut dice = rng.below(weights.iter().sum());
    let kind = weights.iter().position(|weight| {
        let hit = dice < *weight;
        dice = dice.saturating_sub(*weight);
        hit
    });
    let who = anyone(plan, rng);
    match kind {
        Some(0) => {
            let machine = len_usize(rng.below(len_u64(plan.members + plan.spares)));
            Change::Join(machine, name, through(plan, rng))
        }
        Some(1) => Change::Leave(who, 1 + len_usize(rng.below(3))),
        Some(2) => Change::LeaveAndDie(who, rng.below(3 * SECOND)),
        Some(3) => Change::Bury(who),
        Some(_) | None => {
            let long = 50 * MS + rng.below(12 * SECOND);
            Change::Renew(who, long, name, through(plan, rng))
        }
    }
}

/// Something else goes wrong meanwhile: any fault, or one of whoever gives the orders, or an absence that is long
/// enough for a member to be given up.
fn disturbance(plan: &Plan, theme: Theme, kinds: &[Kind], rng: &mut Rng) -> Fault {
    let directory = Who::Leader(GroupId::DIRECTORY);
    if matches!(theme, Theme::Headless) || kinds.is_empty() || rng.chance(1, 5) {
        let long = 50 * MS + rng.below(3 * SECOND);
        return match rng.below(4) {
            0 => Fault::Crash(directory, long),
            1 => Fault::PowerCut(directory, long),
            2 => Fault::Pause(directory, long),
            _ => Fault::Isolate(directory, long),
        };
    }
    if rng.chance(1, 5) {
        let after = crate::net::nanos(plan.timers.replace_after);
        let (who, long) = (anyone(plan, rng), after + rng.below(4 * after));
        return match rng.below(3) {
            0 => Fault::Crash(who, long),
            1 => Fault::PowerCut(who, long),
            _ => Fault::Isolate(who, long),
        };
    }
    // Whoever may be a member is as good as a founder to these.
    let all = Plan { members: plan.members + plan.spares, ..plan.clone() };
    draw(&all, *pick(rng, kinds), rng)
}

impl Change {
    /// Whom it hits, if that is looked up.
    pub(crate) fn who(&mut self) -> Option<&mut Who> {
        match self {
            Self::Leave(who, _)
            | Self::LeaveAndDie(who, _)
            | Self::Bury(who)
            | Self::Abandon(who, _)
            | Self::Renew(who, ..) => Some(who),
            Self::Join(..)
            | Self::Revive(_)
            | Self::Uninform(..)
            | Self::Copy(_)
            | Self::Restore(_)
            | Self::Forget(..) => None,
        }
    }

    /// The machines through which one joins, if one does.
    pub(crate) fn through(&mut self) -> Option<&mut Vec<usize>> {
        match self {
            Self::Join(_, _, through) | Self::Renew(_, _, _, through) => Some(through),
            Self::Leave(..)
            | Self::LeaveAndDie(..)
            | Self::Bury(_)
            | Self::Revive(_)
            | Self::Uninform(..)
            | Self::Abandon(..)
            | Self::Copy(_)
            | Self::Restore(_)
            | Self::Forget(..) => None,
        }
    }

    /// Who joins does so under the machine's name.
    pub(crate) fn use_own_name(&mut self) {
        if let Self::Join(_, name, _) | Self::Renew(_, _, name, _) = self {
            *name = Name::Own;
        }
    }

    /// How long it lasts.
    pub(crate) fn long(&mut self) -> Option<&mut Nanos> {
        match self {
            Self::LeaveAndDie(_, long)
            | Self::Renew(_, long, ..)
            | Self::Uninform(_, long)
            | Self::Abandon(_, long)
            | Self::Forget(_, long) => Some(long),
            Self::Join(..)
            | Self::Leave(..)
            | Self::Bury(_)
            | Self::Revive(_)
            | Self::Copy(_)
            | Self::Restore(_) => None,
        }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |t: &Nanos| format!("{:.2} s", Duration::from_nanos(*t).as_secs_f64());
        match self {
            Self::Join(machine, name, _) => write!(f, "n{} joins under {name}", machine + 1),
            Self::Leave(who, least) => write!(f, "{who} leaves if {least} others stay"),
            Self::LeaveAndDie(who, after) => write!(f, "{who} leaves, dies after {}", s(after)),
            Self::Bury(who) => write!(f, "{who} is lost"),
            Self::Renew(who, long, name, _) => {
                write!(f, "disk of {who} emptied, joins after {} under {name}", s(long))
            }
            Self::Revive(machine) => write!(f, "n{} comes back", machine + 1),
            Self::Uninform(machine, long) => {
                write!(f, "n{} hears of no directory for {}", machine + 1, s(long))
            }
            Self::Abandon(who, long) => {
                write!(f, "{who} leaves the lost, by force after {}", s(long))
            }
            Self::Copy(machine) => write!(f, "directory of n{} copied", machine + 1),
            Self::Restore(machine) => write!(f, "n{} comes back on its copy", machine + 1),
            Self::Forget(machine, long) => {
                write!(f, "disk of n{} emptied before the birth for {}", machine + 1, s(long))
            }
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Own => "its name",
            Self::Other => "another name",
        })
    }
}
