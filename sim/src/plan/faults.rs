//! Faults and their moments, as dice draw them for a plan.

use ring_core::ids::{GroupId, len_u64, len_usize};
use ring_core::rng::Rng;

use super::outages::Outages;
use super::{Fault, Loss, MS, Plan, SECOND, Scheduled, Who, genesis, pick, within_budget};
use crate::clock::Nanos;
use crate::net::Link;
use crate::world::machine_of;

/// What happens to disks: mostly what only a member itself can notice.
const LOSSES: [Loss; 7] = [
    Loss::Wiped,
    Loss::Rotten,
    Loss::Rotten,
    Loss::Misdirected,
    Loss::Misdirected,
    Loss::Gone,
    Loss::RolledBack,
];

/// Kinds of fault that a run may have; each run draws a handful, so that some runs are about one thing.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Crash,
    PowerCut,
    Relapse,
    Snapshot,
    Candidate,
    Blackout,
    Pause,
    Split,
    OneWay,
    Isolate,
    Island,
    Storm,
    BadLink,
    Reset,
    Slow,
    SyncFails,
    WriteFails,
    Full,
    Store,
    Unreadable,
    Jump,
    Reshape,
    /// A process dies and is back at once: only where a run is about that.
    Blink,
    /// Disk and store take much longer than with `Slow`: only where a run is about that.
    Crawl,
}

pub(super) const KINDS: [Kind; 22] = [
    Kind::Crash,
    Kind::PowerCut,
    Kind::Relapse,
    Kind::Snapshot,
    Kind::Candidate,
    Kind::Blackout,
    Kind::Pause,
    Kind::Split,
    Kind::OneWay,
    Kind::Isolate,
    Kind::Island,
    Kind::Storm,
    Kind::BadLink,
    Kind::Reset,
    Kind::Slow,
    Kind::SyncFails,
    Kind::WriteFails,
    Kind::Full,
    Kind::Store,
    Kind::Unreadable,
    Kind::Jump,
    Kind::Reshape,
];

/// What a run is about.
#[derive(Clone, Copy)]
pub(super) enum Theme {
    /// Whatever was drawn.
    Any,
    /// Followers that lag behind short logs, and what interrupts the snapshots that they get.
    Snapshots,
    /// Leaders that are deposed and do not know it.
    Deposed,
    /// Changes of membership whose leader goes away.
    Changes,
    /// Members that are back before the slow stores of others have answered them.
    Restarts,
    /// Connections that break while a slow disk has not yet confirmed what came over them, and leaders that cut their logs
    /// meanwhile: a snapshot ends inside of the log that it comes to.
    Resets,
}

impl Theme {
    pub(super) fn draw(rng: &mut Rng) -> Self {
        match rng.below(12) {
            0 | 1 => Self::Snapshots,
            2 => Self::Deposed,
            3 => Self::Changes,
            4 => Self::Restarts,
            5 => Self::Resets,
            _ => Self::Any,
        }
    }

    fn kinds(self, rng: &mut Rng) -> Vec<Kind> {
        match self {
            Self::Any => KINDS.iter().copied().filter(|_| rng.chance(1, 3)).collect(),
            Self::Snapshots => {
                vec![Kind::Slow, Kind::Slow, Kind::BadLink, Kind::Isolate, Kind::Snapshot]
            }
            Self::Deposed => vec![Kind::Island, Kind::Pause],
            Self::Changes => vec![Kind::Reshape, Kind::Reshape, Kind::Island, Kind::Crash],
            Self::Restarts => vec![Kind::Blink, Kind::Blink, Kind::Crawl],
            Self::Resets => vec![Kind::Crawl, Kind::Slow, Kind::Reset, Kind::Reset, Kind::Reset],
        }
    }
}

pub(super) fn faults(plan: &Plan, theme: Theme, rng: &mut Rng) -> Vec<Scheduled> {
    let kinds = theme.kinds(rng);
    let mut outages = Outages::new(plan);
    let mut faults = Vec::new();
    // What a smaller group holds may be on a minority of its replicas.
    if !kinds.contains(&Kind::Reshape) {
        lose_disks(plan, rng, &mut faults);
    }
    faults.retain(|fault| outages.admit(fault));
    let end = crate::net::nanos(plan.chaos);
    // Some clusters are founded in peace, others by members that die meanwhile.
    let mut at = if rng.chance(1, 2) { 0 } else { 5 * SECOND };
    let mut more = if rng.chance(1, 6) { births(plan, rng) } else { Vec::new() };
    let mut gap = *pick(rng, &[SECOND / 2, SECOND, 3 * SECOND, 8 * SECOND]);
    if matches!(theme, Theme::Resets) {
        gap = SECOND / 8;
    }
    while !kinds.is_empty() {
        at += rng.below(2 * gap) + 10 * MS;
        if at >= end {
            break;
        }
        let kind = *pick(rng, &kinds);
        more.push(Scheduled { at, fault: draw(plan, kind, rng) });
    }
    if rng.chance(1, 3) {
        more.extend(finale(plan, rng));
    }
    faults.extend(more.into_iter().filter(|fault| outages.admit(fault)));
    faults.sort_by_key(|f| f.at);
    faults
}

/// Members die while the cluster is founded.
fn births(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let deaths = (0..1 + rng.below(6)).map(|_| {
        let who = Who::Machine(len_usize(rng.below(len_u64(plan.members))));
        let long = 10 * MS + rng.below(SECOND);
        let fault = match rng.chance(1, 2) {
            true => Fault::PowerCut(who, long),
            false => Fault::Relapse(who, long, rng.below(300 * MS)),
        };
        Scheduled { at: 20 * MS + rng.below(SECOND / 2), fault }
    });
    deaths.collect()
}

/// A candidate dies between its vote for itself and the votes of others.
fn stop_candidate(rng: &mut Rng) -> Fault {
    let long = 50 * MS + rng.below(500 * MS);
    match rng.chance(1, 3) {
        true => Fault::PowerCut(Who::Candidate, long),
        false => Fault::Crash(Who::Candidate, long),
    }
}

/// All faults end at once, and it is in the middle of elections: nothing that comes later helps those who are stuck.
fn finale(plan: &Plan, rng: &mut Rng) -> Vec<Scheduled> {
    let end = crate::net::nanos(plan.chaos);
    let (least, most) = (plan.timers.election_min, plan.timers.election_max * 2);
    let mut faults = Vec::new();
    if rng.chance(1, 2) {
        // Who is deposed gets its groups back later, one by one: heirs stand without having asked anybody.
        let who = Who::Machine(len_usize(rng.below(len_u64(plan.members))));
        faults.push(Scheduled { at: end - 9 * SECOND, fault: Fault::Isolate(who, 2 * SECOND) });
        let before = rng.below(6 * SECOND);
        faults.push(Scheduled { at: end - before, fault: stop_candidate(rng) });
        return faults;
    }
    for _ in 0..1 + rng.below(3) {
        let before = crate::net::nanos(rng.duration(least, most));
        let who = Who::Leader(a_group(plan, rng));
        let fault = match rng.below(4) {
            0 => Fault::Pause(who, SECOND),
            1 => Fault::Island(who, Vec::new(), SECOND),
            _ => Fault::Isolate(who, SECOND),
        };
        faults.push(Scheduled { at: end - before, fault });
    }
    faults
}

pub(super) fn a_group(plan: &Plan, rng: &mut Rng) -> GroupId {
    GroupId(u32::try_from(1 + rng.below(u64::from(plan.shards))).expect("at most 8"))
}

pub(super) fn draw(plan: &Plan, kind: Kind, rng: &mut Rng) -> Fault {
    let machines = len_u64(plan.members + plan.clients);
    let members = len_u64(plan.members);
    let who = if rng.chance(1, 2) {
        Who::Leader(a_group(plan, rng))
    } else {
        Who::Machine(len_usize(rng.below(members)))
    };
    let any = len_usize(rng.below(machines));
    let other = len_usize((len_u64(any) + 1 + rng.below(machines - 1)) % machines);
    let long = match rng.below(3) {
        // Longer than groups remember an idle session.
        2 if crate::net::nanos(plan.chaos) > 120 * SECOND && rng.chance(1, 4) => {
            65 * SECOND + rng.below(20 * SECOND)
        }
        0 => 50 * MS + rng.below(500 * MS),
        1 => SECOND / 2 + rng.below(4 * SECOND),
        _ => 4 * SECOND + rng.below(12 * SECOND),
    };
    match kind {
        Kind::Crash => Fault::Crash(who, long),
        Kind::PowerCut => Fault::PowerCut(who, long),
        Kind::Relapse => Fault::Relapse(who, long, rng.below(150 * MS)),
        Kind::Snapshot => {
            let who = if rng.chance(1, 3) { Who::Sender } else { Who::Receiver };
            match rng.below(3) {
                0 => Fault::Crash(who, long),
                1 => Fault::PowerCut(who, long),
                _ => Fault::Isolate(who, long),
            }
        }
        Kind::Candidate => stop_candidate(rng),
        Kind::Blackout => Fault::Blackout(long / 4),
        Kind::Pause => Fault::Pause(who, long / 2),
        Kind::Split => {
            let side = (0..plan.members + plan.clients).filter(|_| rng.chance(1, 2));
            Fault::Split(side.collect(), long)
        }
        Kind::OneWay => Fault::OneWay(any, other, long),
        Kind::Isolate => Fault::Isolate(who, long),
        Kind::Island => {
            let mut with: Vec<usize> =
                (plan.members..plan.members + plan.clients).filter(|_| rng.chance(2, 3)).collect();
            if plan.members == 5 && rng.chance(1, 3) {
                with.push(len_usize(rng.below(members)));
            }
            Fault::Island(Who::Leader(a_group(plan, rng)), with, long)
        }
        Kind::Storm => Fault::Storm(bad_link(plan, rng), long),
        Kind::BadLink => Fault::BadLink(any, bad_link(plan, rng), long),
        Kind::Reset => Fault::Reset(any, other),
        Kind::Slow => Fault::Slow(who, 2 + rng.below(60), long),
        Kind::SyncFails => Fault::SyncFails(who),
        Kind::WriteFails => Fault::WriteFails(who),
        Kind::Full => Fault::Full(who, long),
        Kind::Store if rng.chance(1, 2) => Fault::StoreWriteFails(who),
        Kind::Store => Fault::StoreSyncFails(who),
        Kind::Unreadable => Fault::Unreadable(who, long),
        Kind::Jump => {
            let far = *pick(rng, &[1_000, 60_000, 86_400_000]);
            let ms = i64::try_from(rng.below(2 * far)).expect("small") - far.cast_signed();
            Fault::Jump(any, ms)
        }
        Kind::Reshape => reshape(plan, long, rng),
        Kind::Blink => {
            let who = Who::Machine(len_usize(rng.below(members)));
            Fault::Crash(who, MS + rng.below(20 * MS))
        }
        Kind::Crawl => Fault::Slow(who, 50 + rng.below(300), SECOND + rng.below(4 * SECOND)),
    }
}

/// Some of a group's replicas stay voters, at least one; of the others some become learners.
fn reshape(plan: &Plan, long: Nanos, rng: &mut Rng) -> Fault {
    let group = a_group(plan, rng);
    let members = genesis(plan).membership(group).voters;
    let members: Vec<usize> = members.iter().map(|r| machine_of(r.member)).collect();
    let one = *pick(rng, &members);
    let (mut voters, mut learners) = (Vec::new(), Vec::new());
    for member in members {
        if member == one || rng.chance(1, 2) {
            voters.push(member);
        } else if rng.chance(1, 2) {
            learners.push(member);
        }
    }
    Fault::Reshape(group, voters, learners, long)
}

fn bad_link(plan: &Plan, rng: &mut Rng) -> Link {
    let chance = |rng: &mut Rng| match rng.below(3) {
        0 => 0,
        1 => rng.below(200),
        _ => rng.below(3_000),
    };
    Link {
        blocked: false,
        wild: plan.wild,
        loss: chance(rng),
        duplication: chance(rng),
        reordering: chance(rng),
        corruption: if rng.chance(1, 4) { rng.below(300) } else { 0 },
        delay_max: *pick(rng, &[0, 0, 20 * MS, 300 * MS]),
    }
}

/// Loses as many disks as the budget allows, in some of the runs: never half of any group's replicas.
fn lose_disks(plan: &Plan, rng: &mut Rng, faults: &mut Vec<Scheduled>) {
    if rng.chance(1, 2) {
        return;
    }
    let mut lost: Vec<usize> = Vec::new();
    let mut order: Vec<usize> = (0..plan.members).collect();
    for place in (1..order.len()).rev() {
        order.swap(place, len_usize(rng.below(len_u64(place) + 1)));
    }
    for member in order {
        let mut more = lost.clone();
        more.push(member);
        if !within_budget(plan, &more) || rng.chance(1, 4) {
            continue;
        }
        lost = more;
        let at = 10 * SECOND + rng.below(crate::net::nanos(plan.chaos) - 15 * SECOND);
        let loss = *pick(rng, &LOSSES);
        if loss == Loss::Rotten && rng.fork(len_u64(member)).chance(1, 2) {
            // A start closes the file before. Cut off, the member writes nothing new that would contradict its loss.
            let who = Who::Machine(member);
            let alone = Fault::Isolate(who, 2 * SECOND);
            faults.push(Scheduled { at: at - 1_600 * MS, fault: alone });
            faults.push(Scheduled { at: at - 1_200 * MS, fault: Fault::Crash(who, 20 * MS) });
        }
        faults.push(Scheduled { at, fault: Fault::Lose(member, loss) });
    }
}
