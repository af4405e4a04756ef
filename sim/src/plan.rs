//! What a seed turns into: machines, limits, clocks, network, workload, and every fault with its moment.
//!
//! A plan stays inside the fault budget of the design and goes up to it: any number of crashes, power cuts, pauses
//! and partitions, also of all members at once, but for a part of the time only; disks are lost only for a minority
//! of each group's replicas.

use std::time::Duration;

use ring_core::config::{Limits, Timers};
use ring_core::genesis::{Founder, Genesis};
use ring_core::ids::{ClusterId, GroupId, MemberId, len_u64, len_usize};
use ring_core::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::net::Link;
use crate::world::Pace;

mod birth;
mod churn;
mod faults;
mod outages;
mod show;
mod steady;

pub use birth::Birth;
pub use churn::{Change, Name};

/// Everything about a run that its seed decides.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// The seed.
    pub seed: u64,
    /// Members that found the cluster.
    pub members: usize,
    /// Further machines that may become members.
    #[serde(default)]
    pub spares: usize,
    /// How the founders find each other. None: each is given the list of them.
    #[serde(default)]
    pub birth: Option<Birth>,
    /// Further machines, each with a client node.
    pub clients: usize,
    /// Shards.
    pub shards: u32,
    /// Replicas of each.
    pub replication: u32,
    /// Timers of every node.
    pub timers: Timers,
    /// Limits of every node.
    pub limits: Limits,
    /// How quick machines are.
    pub pace: Pace,
    /// A message takes between these.
    pub latency: (Duration, Duration),
    /// Links lose, repeat and reorder frames inside connections.
    pub wild: bool,
    /// Drift of each machine's clock, in millionths, and how far its wall clock is off, in milliseconds.
    pub clocks: Vec<(i64, i64)>,
    /// What the clients do.
    pub workload: Workload,
    /// How long the faults last.
    pub chaos: Duration,
    /// What happens, in order of time.
    pub faults: Vec<Scheduled>,
}

/// What the clients do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workload {
    /// Logical clients.
    pub clients: usize,
    /// Operations of all of them a second, about.
    pub rate: u64,
    /// Partitions.
    pub partitions: u64,
    /// Keys of each at a time.
    pub keys: u64,
    /// Longest padding of a value, in bytes.
    pub padding: u64,
    /// How long a call may take.
    pub timeout: Duration,
    /// Weights of get, put, delete, cas, cas by revision, batch, scan.
    pub mix: [u64; 7],
    /// Of 100 reads so many may be stale.
    pub local: u64,
    /// So many of the clients only read, and nothing stale: a write that nobody answers would stop them.
    #[serde(default)]
    pub readers: usize,
    /// Logical clients that watch.
    #[serde(default)]
    pub watchers: usize,
}

/// A fault and its moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    /// True time.
    pub at: Nanos,
    /// What happens.
    pub fault: Fault,
}

/// Whom a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Who {
    /// This machine.
    Machine(usize),
    /// Whoever leads the group then.
    Leader(GroupId),
    /// Whoever sends a snapshot; waited for.
    Sender,
    /// Whoever receives a snapshot; waited for.
    Receiver,
    /// Whoever stands for election; waited for.
    Candidate,
    /// Whoever has proposed a cluster and not decided over it; waited for.
    Proposer,
    /// Whoever holds a cluster that another decides over; waited for.
    Founder,
}

/// Something that goes wrong, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Fault {
    /// A process dies; the system lives.
    Crash(Who, Nanos),
    /// A machine loses its power.
    PowerCut(Who, Nanos),
    /// A machine loses its power, and again the second time after it was given back: while it recovers, if that
    /// is short.
    Relapse(Who, Nanos, Nanos),
    /// All members lose their power.
    Blackout(Nanos),
    /// A process stops and goes on later.
    Pause(Who, Nanos),
    /// These machines and the others cannot talk.
    Split(Vec<usize>, Nanos),
    /// What the first sends does not reach the second.
    OneWay(usize, usize, Nanos),
    /// A machine cannot talk to anyone.
    Isolate(Who, Nanos),
    /// A machine and these cannot talk to the others.
    Island(Who, Vec<usize>, Nanos),
    /// All links do this.
    Storm(Link, Nanos),
    /// Links to and from a machine do this.
    BadLink(usize, Link, Nanos),
    /// Connections between two machines break.
    Reset(usize, usize),
    /// Disk and store of a machine take so many times longer.
    Slow(Who, u64, Nanos),
    /// The next sync of the log fails.
    SyncFails(Who),
    /// The next write of the log fails.
    WriteFails(Who),
    /// There is no room on the disk.
    Full(Who, Nanos),
    /// The store's next write fails.
    StoreWriteFails(Who),
    /// The store's next sync fails.
    StoreSyncFails(Who),
    /// A process dies, and its disk cannot be read for a while.
    Unreadable(Who, Nanos),
    /// A wall clock jumps by so many milliseconds.
    Jump(usize, i64),
    /// A group gets these members as voters and learners, if it has replicas on them, and later all again.
    Reshape(GroupId, Vec<usize>, Vec<usize>, Nanos),
    /// A member's disk is lost; it may be started on what is left, and must notice.
    Lose(usize, Loss),
    /// Who is a member changes.
    Churn(Change),
}

/// How a disk is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Loss {
    /// It is empty.
    Wiped,
    /// A bit of what was synced before the last batch has flipped.
    Rotten,
    /// A batch was written over another one.
    Misdirected,
    /// It is gone for good.
    Gone,
    /// It is as it was some seconds before.
    RolledBack,
}

const SECOND: Nanos = 1_000_000_000;
const MS: Nanos = 1_000_000;

impl Plan {
    /// The plan of a seed: in one of three members come and go.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        match Rng::new(seed).fork(31).chance(1, 3) {
            true => Self::churning(seed),
            false => Self::steady(seed),
        }
    }

    /// A plan in which members come and go.
    #[must_use]
    pub fn churning(seed: u64) -> Self {
        churn::plan(seed)
    }

    /// A plan in which the members stay who they are.
    #[must_use]
    pub fn steady(seed: u64) -> Self {
        steady::plan(seed)
    }

    /// The same without any fault.
    #[must_use]
    pub fn calm(mut self) -> Self {
        self.faults.clear();
        self
    }

    /// A plan from its text.
    ///
    /// # Errors
    /// The text is not that of a plan.
    pub fn parse(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(text)
    }

    /// Its text, for a file.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string_pretty(self).expect("a plan has only plain data")
    }

    /// True when nobody loses more disks than the design bears.
    #[must_use]
    pub fn is_within_budget(&self) -> bool {
        let lost = self.faults.iter().filter_map(|scheduled| match scheduled.fault {
            Fault::Lose(member, _) => Some(member),
            Fault::Crash(..)
            | Fault::PowerCut(..)
            | Fault::Relapse(..)
            | Fault::Blackout(_)
            | Fault::Pause(..)
            | Fault::Split(..)
            | Fault::OneWay(..)
            | Fault::Isolate(..)
            | Fault::Island(..)
            | Fault::Storm(..)
            | Fault::BadLink(..)
            | Fault::Reset(..)
            | Fault::Slow(..)
            | Fault::SyncFails(_)
            | Fault::WriteFails(_)
            | Fault::Full(..)
            | Fault::StoreWriteFails(_)
            | Fault::StoreSyncFails(_)
            | Fault::Unreadable(..)
            | Fault::Reshape(..)
            | Fault::Churn(_)
            | Fault::Jump(..) => None,
        });
        let lost: Vec<usize> = lost.collect();
        let reshapes = self.faults.iter().any(|f| matches!(f.fault, Fault::Reshape(..)));
        (lost.is_empty() || !reshapes) && within_budget(self, &lost)
    }

    /// True when members may come and go: where everything is in the end is then for the directory to say.
    #[must_use]
    pub fn churns(&self) -> bool {
        self.spares > 0 || self.faults.iter().any(|f| matches!(f.fault, Fault::Churn(_)))
    }

    /// How many machines begin as members, or to become some.
    #[must_use]
    pub fn begin(&self) -> usize {
        self.birth.as_ref().map_or(self.members, |birth| birth.told.len())
    }

    /// Names and addresses of the members, as they are configured.
    #[must_use]
    pub fn founders(&self) -> Vec<(String, String)> {
        founders(self.members)
    }
}

impl Workload {
    /// What one of the clients does.
    #[must_use]
    pub fn of(&self, client: usize) -> Self {
        if client >= self.readers {
            return self.clone();
        }
        Self { mix: [4, 0, 0, 0, 0, 0, 1], local: 0, ..self.clone() }
    }
}

/// Names and addresses of so many members.
#[must_use]
pub fn founders(members: usize) -> Vec<(String, String)> {
    (0..members).map(|m| (format!("n{}", m + 1), crate::net::address(m).to_string())).collect()
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[len_usize(rng.below(len_u64(from.len())))]
}

/// Whether every group keeps a majority of its replicas without these members.
fn within_budget(plan: &Plan, lost: &[usize]) -> bool {
    let genesis = genesis(plan);
    let layout = genesis.layout();
    genesis.groups().all(|group| {
        let voters = layout.membership(group).voters;
        let is_lost = |m: MemberId| lost.iter().any(|l| len_u64(*l) + 1 == m.0);
        let gone = voters.iter().filter(|v| is_lost(v.member)).count();
        gone * 2 < voters.len()
    })
}

/// What the members of a plan will agree on, but for what they draw.
pub(crate) fn genesis(plan: &Plan) -> Genesis {
    let founders = plan.founders().into_iter().enumerate();
    Genesis {
        cluster: ClusterId(1),
        name: String::new(),
        members: founders
            .map(|(m, (name, address))| Founder {
                id: MemberId(len_u64(m) + 1),
                name,
                address,
                birth: 1,
            })
            .collect(),
        shards: plan.shards,
        replication: plan.replication,
    }
}

#[cfg(test)]
mod tests {
    use super::outages::Outages;
    use super::*;

    #[test]
    fn a_seed_has_one_plan_and_another_seed_another() {
        assert_eq!(Plan::of(7), Plan::of(7));
        assert_ne!(Plan::of(7).to_string(), Plan::of(8).to_string());
    }

    #[test]
    fn a_plan_is_read_as_it_was_written() {
        for seed in 0..50 {
            let plan = Plan::of(seed);
            assert_eq!(Plan::parse(&plan.to_text()).unwrap(), plan);
        }
    }

    #[test]
    fn plans_stay_within_the_budget_and_go_up_to_it() {
        let mut most = 0;
        for seed in 0..2_000 {
            let plan = Plan::steady(seed);
            assert!(plan.is_within_budget(), "{plan}");
            let is_loss = |f: &&Scheduled| matches!(f.fault, Fault::Lose(..));
            let lost = plan.faults.iter().filter(is_loss).count();
            let end = crate::net::nanos(plan.chaos);
            assert!(plan.faults.iter().all(|f| f.at <= end), "{plan}");
            most = most.max(lost);
        }
        assert!(most >= 2, "five replicas bear two lost disks");
    }

    /// Whatever is drawn, groups have a majority for most of the time; and plans go up to that bound.
    #[test]
    fn plans_leave_groups_a_majority_for_most_of_the_time() {
        let mut near = 0;
        for seed in 0..3_000 {
            let plan = Plan::steady(seed);
            let mut outages = Outages::new(&plan);
            assert!(plan.faults.iter().all(|fault| outages.admit(fault)), "{plan}");
            assert!(outages.share() <= outages::STALLED_MAX, "{plan}");
            near += u64::from(outages.share() + 5 >= outages::STALLED_MAX);
        }
        assert!(near >= 100, "{near} plans of 3000 are near the bound");
    }
}
