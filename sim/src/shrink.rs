//! Makes a failing plan smaller: fewer faults, machines, clients and operations, a shorter run, usual knobs.
//!
//! Faults are taken away by halves, then quarters, down to single ones (Zeller and Hildebrandt's `ddmin`); numbers
//! are halved; knobs are set to what people use. Whatever leaves the failure as it was is kept, and all of it is tried
//! again until nothing helps any more. Each attempt is a whole run, and runs are deterministic, so the result is.

use std::time::Duration;

use ring_core::config::{Limits, Timers};
use ring_core::ids::{GroupId, len_u64};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use crate::clock::Nanos;
use crate::net::nanos;
use crate::plan::{Birth, Change, Fault, Plan, Scheduled, Who};

/// What came of shrinking.
#[derive(Clone, Debug, PartialEq)]
pub struct Shrunk {
    /// The smallest plan found.
    pub plan: Plan,
    /// Plans that were tried.
    pub tries: usize,
}

/// A plan on its way to a smaller one.
struct Search<F> {
    plan: Plan,
    fails: F,
    tries: usize,
    tries_max: usize,
}

/// A gap between two faults is not made shorter than half of this.
const GAP_MIN: Nanos = 1_000_000_000;

/// The smallest plan that `fails` still says yes to, found from a plan that it says yes to, in at most so many tries.
pub fn shrink(plan: &Plan, tries_max: usize, fails: impl FnMut(&Plan) -> bool) -> Shrunk {
    let mut search = Search { plan: plan.clone(), fails, tries: 0, tries_max };
    loop {
        let before = search.plan.clone();
        search.fewer_faults();
        search.shorter();
        search.fewer_machines();
        search.less_work();
        search.usual_knobs();
        search.milder_faults();
        if search.plan == before || search.tries >= tries_max {
            return Shrunk { plan: search.plan, tries: search.tries };
        }
    }
}

impl<F: FnMut(&Plan) -> bool> Search<F> {
    /// Keeps a change if the plan fails with it as before.
    fn attempt(&mut self, change: impl FnOnce(&mut Plan)) -> bool {
        let mut plan = self.plan.clone();
        change(&mut plan);
        if plan == self.plan || self.tries >= self.tries_max || !plan.is_within_budget() {
            return false;
        }
        self.tries += 1;
        let kept = (self.fails)(&plan);
        if kept {
            self.plan = plan;
        }
        kept
    }

    /// Halves a number down to `least`, as long as that is kept.
    fn halve(&mut self, least: u64, number: impl Fn(&mut Plan) -> &mut u64) {
        if self.attempt(|plan| *number(plan) = least.min(*number(plan))) {
            return;
        }
        while self.attempt(|plan| {
            let number = number(plan);
            *number = (*number / 2).max(least).min(*number);
        }) {}
    }

    fn fewer_faults(&mut self) {
        let mut size = self.plan.faults.len();
        while size > 0 {
            let mut at = 0;
            while at < self.plan.faults.len() {
                let end = (at + size).min(self.plan.faults.len());
                if !self.attempt(|plan| drop(plan.faults.drain(at..end))) {
                    at = end;
                }
            }
            size /= 2;
        }
    }

    fn shorter(&mut self) {
        let last = self.plan.faults.iter().map(|fault| fault.at).max().unwrap_or(0);
        let end = Duration::from_nanos(last) + Duration::from_secs(1);
        self.attempt(|plan| plan.chaos = plan.chaos.min(end));
        while self.attempt(|plan| {
            plan.chaos /= 2;
            let end = nanos(plan.chaos);
            plan.faults.retain(|fault| fault.at < end);
        }) {}
        // The quiet time before the first fault, as far as it is not needed.
        while self.attempt(|plan| {
            let quiet = plan.faults.iter().map(|fault| fault.at).min().unwrap_or(0) / 2;
            plan.faults.iter_mut().for_each(|fault| fault.at -= quiet);
            plan.chaos -= Duration::from_nanos(quiet).min(plan.chaos / 2);
        }) {}
        // ... and that between two of them.
        for n in 1..self.plan.faults.len() {
            while self.attempt(|plan| {
                let gap = plan.faults[n].at.saturating_sub(plan.faults[n - 1].at);
                let less = if gap > GAP_MIN { gap / 2 } else { 0 };
                plan.faults[n..].iter_mut().for_each(|fault| fault.at -= less);
            }) {}
        }
    }

    fn fewer_machines(&mut self) {
        while self.plan.clients > 0 && self.attempt(|plan| set_machines(plan, |p| p.clients -= 1)) {
        }
        while self.plan.spares > 0 && self.attempt(|plan| set_machines(plan, |p| p.spares -= 1)) {}
        for members in 1..self.plan.members {
            if self.attempt(|plan| set_machines(plan, |p| p.members = members)) {
                break;
            }
        }
        for replication in 1..self.plan.replication {
            if self.attempt(|plan| plan.replication = replication) {
                break;
            }
        }
        while self.plan.shards > 1 && self.attempt(|plan| set_shards(plan, plan.shards / 2)) {}
    }

    fn less_work(&mut self) {
        while self.plan.workload.clients > 1 && self.attempt(|plan| plan.workload.clients /= 2) {}
        self.halve(1, |plan| &mut plan.workload.rate);
        self.halve(1, |plan| &mut plan.workload.partitions);
        self.halve(1, |plan| &mut plan.workload.keys);
        self.halve(0, |plan| &mut plan.workload.padding);
        self.halve(0, |plan| &mut plan.workload.local);
        self.attempt(|plan| plan.workload.readers = 0);
        for kind in 0..self.plan.workload.mix.len() {
            self.attempt(|plan| {
                let mut mix = plan.workload.mix;
                mix[kind] = 0;
                if mix.iter().any(|weight| *weight > 0) {
                    plan.workload.mix = mix;
                }
            });
        }
    }

    fn usual_knobs(&mut self) {
        self.usual(&Limits::default(), |plan| &mut plan.limits);
        self.usual(&Timers::default(), |plan| &mut plan.timers);
        self.attempt(|plan| {
            let simple = plan.birth.as_ref().map(|birth| Birth::star(birth.told.len()));
            plan.birth = simple;
        });
        self.attempt(|plan| plan.wild = false);
        self.attempt(|plan| plan.clocks.fill((0, 0)));
        let latency = (Duration::from_micros(100), Duration::from_micros(1_000));
        self.attempt(|plan| plan.latency = latency);
        self.attempt(|plan| plan.pace.turn_inputs = 64);
        self.attempt(|plan| plan.pace.queue_bytes = plan.pace.queue_bytes.max(64 << 20));
        self.attempt(|plan| plan.pace.window_bytes = plan.pace.window_bytes.max(1 << 20));
    }

    /// Sets whatever differs from the usual to that: all at once, or one by one.
    fn usual<T: Serialize + DeserializeOwned + Clone>(
        &mut self,
        usual: &T,
        of: impl Fn(&mut Plan) -> &mut T,
    ) {
        if self.attempt(|plan| *of(plan) = usual.clone()) {
            return;
        }
        let Ok(Json::Object(usual)) = serde_json::to_value(usual) else { return };
        for (field, value) in usual {
            self.attempt(|plan| {
                let knobs = of(plan);
                let Ok(mut json) = serde_json::to_value(&*knobs) else { return };
                json[&field] = value;
                if let Ok(changed) = serde_json::from_value(json) {
                    *knobs = changed;
                }
            });
        }
    }

    fn milder_faults(&mut self) {
        for n in 0..self.plan.faults.len() {
            while self.attempt(|plan| plan.faults[n].fault.halve()) {}
            self.attempt(|plan| {
                if let Fault::Churn(change) = &mut plan.faults[n].fault {
                    change.use_own_name();
                }
            });
            // Whom a machine joins through, one by one.
            let mut place = 0;
            while place < self.plan.faults[n].fault.through().map_or(0, |through| through.len()) {
                let is_kept = self.attempt(|plan| {
                    plan.faults[n].fault.through().map(|through| through.remove(place));
                });
                place += usize::from(!is_kept);
            }
        }
    }
}

/// Changes how many machines there are: faults of others hit those that are left.
fn set_machines(plan: &mut Plan, change: impl FnOnce(&mut Plan)) {
    change(plan);
    let members = plan.members + plan.spares;
    let machines = members + plan.clients;
    plan.clocks.truncate(machines);
    plan.birth = plan.birth.take().map(|birth| Birth::star(birth.told.len().min(members)));
    plan.replication =
        plan.replication.min(u32::try_from(members).expect("a plan has few members"));
    let faults = std::mem::take(&mut plan.faults).into_iter();
    plan.faults = faults
        .filter_map(|Scheduled { at, fault }| {
            Some(Scheduled { at, fault: fault.among(members, machines)? })
        })
        .collect();
}

/// Changes how many shards there are: faults of others hit those that are left.
fn set_shards(plan: &mut Plan, shards: u32) {
    plan.shards = shards;
    let is_gone = |fault: &Fault| matches!(fault, Fault::Reshape(group, ..) if group.0 > shards);
    plan.faults.retain(|scheduled| !is_gone(&scheduled.fault));
    for scheduled in &mut plan.faults {
        if let Some(Who::Leader(group)) = scheduled.fault.who() {
            *group = GroupId(group.0.saturating_sub(1) % shards + 1).min(*group);
        }
    }
}

impl Fault {
    /// Half as long.
    fn halve(&mut self) {
        const LEAST: Nanos = 20_000_000;
        if let Some(long) = self.long()
            && *long > LEAST
        {
            *long = (*long / 2).max(LEAST);
        }
    }

    /// How long it lasts.
    fn long(&mut self) -> Option<&mut Nanos> {
        match self {
            Self::Crash(_, long)
            | Self::PowerCut(_, long)
            | Self::Relapse(_, long, _)
            | Self::Blackout(long)
            | Self::Pause(_, long)
            | Self::Split(_, long)
            | Self::OneWay(_, _, long)
            | Self::Isolate(_, long)
            | Self::Island(_, _, long)
            | Self::Storm(_, long)
            | Self::BadLink(_, _, long)
            | Self::Slow(_, _, long)
            | Self::Full(_, long)
            | Self::Reshape(_, _, _, long)
            | Self::Unreadable(_, long) => Some(long),
            Self::Churn(change) => change.long(),
            Self::Reset(..)
            | Self::SyncFails(_)
            | Self::WriteFails(_)
            | Self::StoreWriteFails(_)
            | Self::StoreSyncFails(_)
            | Self::Jump(..)
            | Self::Lose(..) => None,
        }
    }

    /// The machines through which one joins, if one does.
    fn through(&mut self) -> Option<&mut Vec<usize>> {
        if let Self::Churn(change) = self { change.through() } else { None }
    }

    /// Whom it hits, if that is looked up.
    fn who(&mut self) -> Option<&mut Who> {
        match self {
            Self::Crash(who, _)
            | Self::PowerCut(who, _)
            | Self::Relapse(who, _, _)
            | Self::Pause(who, _)
            | Self::Isolate(who, _)
            | Self::Island(who, _, _)
            | Self::Slow(who, _, _)
            | Self::SyncFails(who)
            | Self::WriteFails(who)
            | Self::Full(who, _)
            | Self::StoreWriteFails(who)
            | Self::StoreSyncFails(who)
            | Self::Unreadable(who, _) => Some(who),
            Self::Churn(change) => change.who(),
            Self::Blackout(_)
            | Self::Split(..)
            | Self::OneWay(..)
            | Self::Storm(..)
            | Self::BadLink(..)
            | Self::Reset(..)
            | Self::Jump(..)
            | Self::Reshape(..)
            | Self::Lose(..) => None,
        }
    }

    /// The same with fewer machines; none: it makes no sense with those.
    fn among(mut self, members: usize, machines: usize) -> Option<Self> {
        if let Some(Who::Machine(machine)) = self.who() {
            *machine %= members;
        }
        match &mut self {
            Self::Split(side, _) => {
                side.retain(|machine| *machine < machines);
                (!side.is_empty()).then_some(self)
            }
            Self::Island(_, with, _) => {
                with.retain(|machine| *machine < machines);
                Some(self)
            }
            Self::OneWay(a, b, _) | Self::Reset(a, b) => {
                (*a, *b) = (*a % machines, *b % machines);
                (*a != *b).then_some(self)
            }
            Self::BadLink(machine, _, _) | Self::Jump(machine, _) => {
                *machine %= machines;
                Some(self)
            }
            Self::Reshape(_, voters, learners, _) => {
                let all = voters.iter().chain(learners.iter());
                all.max().is_none_or(|most| *most < members).then_some(self)
            }
            Self::Lose(member, _)
            | Self::Churn(
                Change::Join(member, ..)
                | Change::Revive(member)
                | Change::Uninform(member, _)
                | Change::Copy(member)
                | Change::Restore(member)
                | Change::Forget(member, _),
            ) => (*member < members).then_some(self),
            Self::Crash(..)
            | Self::PowerCut(..)
            | Self::Relapse(..)
            | Self::Blackout(_)
            | Self::Pause(..)
            | Self::Isolate(..)
            | Self::Churn(_)
            | Self::Storm(..)
            | Self::Slow(..)
            | Self::SyncFails(_)
            | Self::WriteFails(_)
            | Self::Full(..)
            | Self::StoreWriteFails(_)
            | Self::StoreSyncFails(_)
            | Self::Unreadable(..) => Some(self),
        }
    }
}

/// A plan's size in one number, for reports: faults, machines, operations and seconds.
#[must_use]
pub fn size(plan: &Plan) -> u64 {
    let machines = len_u64(plan.members + plan.spares + plan.clients);
    len_u64(plan.faults.len()) + machines + plan.workload.rate + plan.chaos.as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Name;
    use crate::swarm::{Class, Failure, Options, run_plan};

    fn cut_and_split(plan: &Plan) -> bool {
        let has = |wanted: fn(&Fault) -> bool| plan.faults.iter().any(|f| wanted(&f.fault));
        has(|fault| matches!(fault, Fault::PowerCut(..)))
            && has(|fault| matches!(fault, Fault::Split(..)))
    }

    /// A defect that needs a power cut and a split is shown by those two faults and nothing else.
    #[test]
    fn what_does_not_matter_goes() {
        let plan =
            (0..).map(Plan::steady).find(|plan| plan.faults.len() > 30 && cut_and_split(plan));
        let plan = plan.expect("some seed has both");

        let shrunk = shrink(&plan, 2_000, cut_and_split);
        let small = &shrunk.plan;
        assert!(cut_and_split(small), "{small}");
        assert_eq!(small.faults.len(), 2, "{small}");
        assert_eq!((small.clients, small.shards, small.workload.rate), (0, 1, 1), "{small}");
        assert_eq!((&small.limits, &small.timers), (&Limits::default(), &Timers::default()));
        // It cannot be shorter than until its last fault.
        let last = small.faults.last().map_or(0, |scheduled| scheduled.at);
        let chaos = Duration::from_nanos(2 * last).max(Duration::from_secs(3));
        assert!(small.chaos <= chaos && shrunk.tries < 500, "{} tries: {small}", shrunk.tries);
        assert_eq!(shrink(&plan, 2_000, cut_and_split), shrunk, "it is deterministic");
    }

    /// Of members that come and go those stay who matter; machines, names and addresses that do not matter go.
    #[test]
    fn plans_in_which_members_come_and_go_get_smaller() {
        let renewed = |f: &Scheduled| {
            let Fault::Churn(Change::Renew(_, _, name, through)) = &f.fault else { return None };
            Some((*name, through.clone()))
        };
        let fails = |plan: &Plan| {
            let leaves = |f: &Scheduled| matches!(f.fault, Fault::Churn(Change::Leave(..)));
            let mut renewed = plan.faults.iter().filter_map(renewed);
            plan.faults.iter().any(leaves) && renewed.any(|(_, through)| through.contains(&0))
        };
        let plan = (0..).map(Plan::churning).find(|plan| plan.faults.len() > 20 && fails(plan));
        let plan = plan.expect("some seed has both");

        let small = shrink(&plan, 2_000, fails).plan;
        assert_eq!(small.faults.len(), 2, "{small}");
        assert_eq!((small.members, small.spares, small.shards), (1, 0, 1), "{small}");
        assert!(small.churns(), "it is judged as before");
        let renewed = small.faults.iter().find_map(renewed);
        assert_eq!(renewed, Some((Name::Own, vec![0])), "{small}");
    }

    /// A knob and a fault that only fail together both stay, and a number stops where it still fails.
    #[test]
    fn what_matters_stays() {
        let fails = |plan: &Plan| {
            plan.limits.segment_bytes < Limits::default().segment_bytes
                && plan.workload.rate >= 20
                && plan.faults.iter().any(|f| matches!(f.fault, Fault::Blackout(_)))
        };
        let plan = (0..).map(Plan::steady).find(fails).expect("some seed has both");
        let small = shrink(&plan, 2_000, fails).plan;
        assert_eq!(small.faults.len(), 1);
        assert!((20..40).contains(&small.workload.rate), "{small}");
        let usual = Limits { segment_bytes: small.limits.segment_bytes, ..Limits::default() };
        assert_eq!(small.limits, usual);
    }

    /// The whole way: real runs, a real failure of its own class, and the text of the result fails alike.
    #[test]
    fn a_real_failure_stays_what_it_was() {
        let mut plan = Plan::steady(5);
        plan.chaos = Duration::from_secs(8);
        plan.faults.retain(|fault| fault.at < nanos(plan.chaos));
        plan.limits.session_window = 0; // not valid: every process refuses it
        let found = run_plan(&plan, &Options::default()).failure.expect("it panics");
        assert_eq!(found.class, Class::Crash);
        let alike = |plan: &Plan| {
            let failure = run_plan(plan, &Options::default()).failure;
            failure.is_some_and(|failure: Failure| failure.is_like(&found))
        };

        let small = shrink(&plan, 500, alike).plan;
        assert!(small.faults.is_empty() && size(&small) < size(&plan), "{small}");
        assert!(alike(&Plan::parse(&small.to_text()).expect("it is a plan's text")));
    }
}
