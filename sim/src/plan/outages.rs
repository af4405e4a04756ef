//! How long a plan keeps groups from working.
//!
//! A group works while one of its voters runs and is connected, both ways, to a majority of them. Any number of
//! members may be down or cut off at once; but a run in which hardly anything can happen says little, so only a part
//! of its time may pass without such majorities. Whom a fault hits is mostly not known before the run (the leader of
//! a group, who sends a snapshot): it is taken for the worst, another voter each time.

use ring_core::ids::{GroupId, len_u64, len_usize};

use super::{Fault, Plan, Scheduled, Who, genesis};
use crate::clock::Nanos;
use crate::world::machine_of;

/// Of the faults' time, over all groups, at most this part (in hundredths) may pass without a connected majority.
pub(super) const STALLED_MAX: u64 = 35;

/// When a fault ends its group still has to elect somebody.
const ELECTION: Nanos = 1_000_000_000;
/// Who halts because of its disk is started again after about this.
const PATROL: Nanos = 1_500_000_000;

/// What a plan's faults take away, and when.
pub(super) struct Outages {
    members: usize,
    /// The voters of each group.
    groups: Vec<Vec<usize>>,
    end: Nanos,
    list: Vec<Outage>,
    /// Time without a connected majority, summed over all groups.
    stalled: u64,
}

struct Outage {
    from: Nanos,
    until: Nanos,
    takes: Takes,
}

enum Takes {
    /// A member; none: it is not known which.
    One(Option<usize>),
    All,
    /// These and the others cannot talk.
    Split(Vec<usize>),
    OneWay(usize, usize),
    /// A group may have no other voters than these.
    Shape(GroupId, Vec<usize>),
}

impl Outages {
    /// Of a plan without faults.
    pub(super) fn new(plan: &Plan) -> Self {
        let genesis = genesis(plan);
        let layout = genesis.layout();
        let groups = genesis.groups().map(|group| {
            let voters = layout.membership(group).voters;
            voters.iter().map(|replica| machine_of(replica.member)).collect()
        });
        Self {
            members: plan.members,
            groups: groups.collect(),
            end: crate::net::nanos(plan.chaos),
            list: Vec::new(),
            stalled: 0,
        }
    }

    /// Adds a fault, unless groups would be without a majority for too long; false then.
    pub(super) fn admit(&mut self, scheduled: &Scheduled) -> bool {
        let more = self.outages_of(scheduled);
        let (Some(from), Some(until)) =
            (more.iter().map(|o| o.from).min(), more.iter().map(|o| o.until).max())
        else {
            return true;
        };
        let before = self.stalled_within(from, until);
        let kept = self.list.len();
        self.list.extend(more);
        let stalled = self.stalled + self.stalled_within(from, until) - before;
        if stalled * 100 > self.end * len_u64(self.groups.len()) * STALLED_MAX {
            self.list.truncate(kept);
            return false;
        }
        self.stalled = stalled;
        true
    }

    /// Part of the faults' time without a connected majority, over all groups, in hundredths.
    #[cfg(test)]
    pub(super) fn share(&self) -> u64 {
        self.stalled * 100 / (self.end * len_u64(self.groups.len()))
    }

    fn outages_of(&self, scheduled: &Scheduled) -> Vec<Outage> {
        let one = |who: Who, long| (known(who), long);
        let ones: Vec<(Takes, Nanos)> = match &scheduled.fault {
            Fault::Crash(who, long)
            | Fault::PowerCut(who, long)
            | Fault::Pause(who, long)
            | Fault::Isolate(who, long)
            | Fault::Unreadable(who, long) => vec![one(*who, *long)],
            Fault::Relapse(who, long, again) => vec![one(*who, 2 * long + again)],
            Fault::Full(who, long) => vec![one(*who, long + PATROL)],
            Fault::SyncFails(who)
            | Fault::WriteFails(who)
            | Fault::StoreWriteFails(who)
            | Fault::StoreSyncFails(who) => vec![one(*who, PATROL)],
            Fault::Island(who, with, long) => {
                let with = with.iter().filter(|m| **m < self.members);
                let with = with.map(|m| (Takes::One(Some(*m)), *long));
                with.chain([one(*who, *long)]).collect()
            }
            Fault::Blackout(long) => vec![(Takes::All, *long)],
            Fault::Split(side, long) => vec![(Takes::Split(side.clone()), *long)],
            Fault::OneWay(from, to, long) => vec![(Takes::OneWay(*from, *to), *long)],
            Fault::Reshape(group, voters, _, long) => {
                vec![(Takes::Shape(*group, voters.clone()), *long)]
            }
            Fault::Lose(member, _) => vec![(Takes::One(Some(*member)), self.end)],
            Fault::Storm(..)
            | Fault::BadLink(..)
            | Fault::Reset(..)
            | Fault::Slow(..)
            | Fault::Churn(_)
            | Fault::Jump(..) => Vec::new(),
        };
        let from = scheduled.at.min(self.end);
        let outage = |(takes, long): (Takes, Nanos)| {
            let until = (from + long + ELECTION).min(self.end);
            Outage { from, until, takes }
        };
        ones.into_iter().map(outage).collect()
    }

    /// Time without a connected majority between two moments, summed over all groups.
    fn stalled_within(&self, from: Nanos, until: Nanos) -> u64 {
        let active = |o: &&Outage| o.from < until && o.until > from;
        let near: Vec<&Outage> = self.list.iter().filter(active).collect();
        let edges = near.iter().flat_map(|o| [o.from, o.until]);
        let mut edges: Vec<Nanos> = edges.chain([from, until]).collect();
        edges.retain(|edge| (from..=until).contains(edge));
        edges.sort_unstable();
        edges.dedup();
        let mut stalled = 0;
        for pair in edges.windows(2) {
            let lasts = |o: &&&Outage| o.from <= pair[0] && o.until >= pair[1];
            let now: Vec<&Outage> = near.iter().filter(lasts).copied().collect();
            let stuck = (0..self.groups.len()).filter(|group| !self.works(*group, &now));
            stalled += (pair[1] - pair[0]) * len_u64(stuck.count());
        }
        stalled
    }

    /// Whether a group has, whomever the faults hit, a voter that is connected to a majority; in each of the shapes
    /// that it may have.
    fn works(&self, group: usize, now: &[&Outage]) -> bool {
        let shapes = now.iter().filter_map(|o| match &o.takes {
            Takes::Shape(id, voters) if len_usize(id.0.into()) == group + 1 => Some(voters),
            Takes::One(_) | Takes::All | Takes::Split(_) | Takes::OneWay(..) | Takes::Shape(..) => {
                None
            }
        });
        let unknown = now.iter().filter(|o| matches!(o.takes, Takes::One(None))).count();
        let down = |m: usize| now.iter().any(|o| o.takes.has(m));
        let linked = |a: usize, b: usize| !now.iter().any(|o| o.takes.parts(a, b));
        shapes.chain([&self.groups[group]]).all(|voters| {
            let up: Vec<usize> = voters.iter().copied().filter(|m| !down(*m)).collect();
            up.iter().any(|centre| {
                let reached = up.iter().filter(|m| linked(*centre, **m)).count();
                reached.saturating_sub(unknown) * 2 > voters.len()
            })
        })
    }
}

impl Takes {
    /// A member for certain.
    fn has(&self, member: usize) -> bool {
        match self {
            Self::One(one) => *one == Some(member),
            Self::All => true,
            Self::Split(_) | Self::OneWay(..) | Self::Shape(..) => false,
        }
    }

    /// Whether two members cannot talk, in one direction at least.
    fn parts(&self, a: usize, b: usize) -> bool {
        match self {
            Self::Split(side) => side.contains(&a) != side.contains(&b),
            Self::OneWay(from, to) => (*from, *to) == (a, b) || (*from, *to) == (b, a),
            Self::One(_) | Self::All | Self::Shape(..) => false,
        }
    }
}

fn known(who: Who) -> Takes {
    match who {
        Who::Machine(member) => Takes::One(Some(member)),
        Who::Leader(_)
        | Who::Sender
        | Who::Receiver
        | Who::Candidate
        | Who::Proposer
        | Who::Founder => Takes::One(None),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    /// Three members, one group, a hundred seconds.
    fn outages(faults: &[(u64, Fault)]) -> (Outages, usize) {
        let mut plan = Plan::steady(0);
        (plan.members, plan.shards, plan.replication) = (3, 1, 3);
        plan.chaos = Duration::from_secs(100);
        let mut outages = Outages::new(&plan);
        let admitted = faults.iter().filter(|(at, fault)| {
            let scheduled = Scheduled { at: at * SECOND, fault: fault.clone() };
            outages.admit(&scheduled)
        });
        let admitted = admitted.count();
        (outages, admitted)
    }

    #[test]
    fn one_of_three_may_be_missing_for_ever() {
        let (outages, admitted) =
            outages(&[(0, Fault::Isolate(Who::Leader(GroupId(1)), 99 * SECOND))]);
        assert_eq!((outages.share(), admitted), (0, 1));
    }

    #[test]
    fn two_of_three_stall_their_group_while_both_are_missing() {
        let faults = [
            (10, Fault::Pause(Who::Machine(0), 19 * SECOND)),
            (20, Fault::Crash(Who::Leader(GroupId(1)), 19 * SECOND)),
        ];
        assert_eq!(outages(&faults).0.share(), 10);
        let parted =
            [(10, Fault::Split(vec![1], 9 * SECOND)), (10, Fault::OneWay(0, 2, 4 * SECOND))];
        assert_eq!(outages(&parted).0.share(), 5);
        let shaped = [
            (10, Fault::Reshape(GroupId(1), vec![2], vec![], 29 * SECOND)),
            (10, Fault::Isolate(Who::Machine(2), 9 * SECOND)),
        ];
        assert_eq!(outages(&shaped).0.share(), 10);
    }

    #[test]
    fn what_would_stall_for_too_long_is_not_admitted() {
        let blackout = |at| (at, Fault::Blackout(19 * SECOND));
        let (outages, admitted) = outages(&[blackout(0), blackout(30), blackout(60)]);
        assert_eq!((outages.share(), admitted), (20, 1));
    }
}
