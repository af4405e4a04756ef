//! What a seed turns into: machines, limits, clocks, network, workload, and every fault with its moment.
//!
//! A plan stays inside the fault budget of the design and goes up to it: any number of crashes, power cuts, pauses
//! and partitions, also of all members at once, but for a part of the time only; disks are lost only for a minority
//! of each group's replicas.

use std::fmt;
use std::time::Duration;

use ring_core::config::{Limits, Timers};
use ring_core::genesis::{Founder, Genesis};
use ring_core::ids::{ClusterId, GroupId, MemberId, len_u64, len_usize};
use ring_core::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::net::Link;
use crate::world::{Pace, machine_of};

mod churn;
mod outages;

pub use churn::{Change, Name};

use outages::Outages;

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

/// Seconds of faults: mostly a minute; in some runs long enough for sessions to be forgotten meanwhile.
const CHAOS: [u64; 12] = [20, 20, 60, 60, 60, 60, 60, 60, 60, 60, 60, 180];

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
        let root = Rng::new(seed);
        let mut rng = root.fork(1);
        let mut members = if rng.chance(1, 2) { 3 } else { 5 };
        let clients = len_usize(rng.below(3));
        let mut replication = if members == 5 && rng.chance(1, 2) { 5 } else { 3 };
        let shards = u32::try_from(1 + rng.below(8)).expect("at most 8");
        let timers = timers(&mut rng);
        let theme = Theme::draw(&mut root.fork(9));
        if matches!(theme, Theme::Restarts) {
            // Members that have to ask others.
            (members, replication) = (5, 3);
        }
        let limits = limits(theme, &mut root.fork(2));
        let machines = members + clients;
        let clocks = (0..machines).map(|_| clock(&mut rng)).collect();
        let latency = *pick(
            &mut rng,
            &[(50, 300), (100, 1_000), (500, 5_000), (1_000, 10_000), (5_000, 30_000)],
        );
        let mut pace = pace(&mut root.fork(3));
        if matches!(theme, Theme::Restarts) {
            // Who returns is let in long before its questions of the life before are answered.
            (pace.sync, pace.store) = (100_000, 2 * MS);
        }
        // What a leader may have on its way to one peer, over all shards, must fit its queue, as the defaults do: a
        // queue that overflows costs the connection.
        let flight = 3 * limits.append_bytes + limits.chunk_bytes;
        let least = flight * len_usize(u64::from(shards)) + (256 << 10);
        pace.queue_bytes = pace.queue_bytes.max(least);
        let mut plan = Self {
            seed,
            members,
            spares: 0,
            clients,
            shards,
            replication,
            timers,
            limits,
            pace,
            latency: (Duration::from_micros(latency.0), Duration::from_micros(latency.1)),
            wild: rng.chance(1, 3),
            clocks,
            workload: workload(&mut root.fork(4)),
            chaos: Duration::from_secs(*pick(&mut root.fork(6), &CHAOS)),
            faults: Vec::new(),
        };
        plan.faults = faults(&plan, theme, &mut root.fork(5));
        plan
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

fn timers(rng: &mut Rng) -> Timers {
    let mut timers = Timers::default();
    if rng.chance(1, 3) {
        timers.election_min = Duration::from_millis(250);
        timers.election_max = Duration::from_millis(600);
        timers.heartbeat = Duration::from_millis(50);
        timers.retry = Duration::from_millis(200);
    }
    if rng.chance(1, 3) {
        timers.session_ttl = Duration::from_secs(5);
    }
    if rng.chance(1, 3) {
        timers.cursor_ttl = Duration::from_secs(1);
    }
    timers
}

/// Limits that are reached within a minute, each on its own or all at once; in some runs those that people use.
fn limits(theme: Theme, rng: &mut Rng) -> Limits {
    let mut limits = Limits::default();
    let all = rng.chance(1, 5) || matches!(theme, Theme::Snapshots);
    if !all && !matches!(theme, Theme::Resets) && rng.chance(1, 5) {
        return limits;
    }
    if matches!(theme, Theme::Resets) {
        // Much is on its way, and little is kept of what was sent.
        limits.log_bytes = *pick(rng, &[12 << 10, 16 << 10]);
        limits.segment_bytes = 3 << 10;
        limits.log_tail_bytes = *pick(rng, &[0, 1 << 10]);
        limits.chunk_bytes = *pick(rng, &[4 << 10, 32 << 10]);
        return limits;
    }
    log_limits(rng, all, &mut limits);
    let draws = |rng: &mut Rng, of: u64| all || rng.chance(1, of);
    if draws(rng, 2) {
        limits.chunk_bytes = *pick(rng, &[256, 1 << 10, 4 << 10, 32 << 10]);
    }
    if draws(rng, 3) {
        limits.append_entries = *pick(rng, &[1, 3, 16]);
    }
    if draws(rng, 3) {
        limits.appends_in_flight = *pick(rng, &[1, 1, 2, 8]);
    }
    if draws(rng, 3) {
        limits.append_bytes = *pick(rng, &[64, 512, 2 << 10, 64 << 10]);
    }
    if draws(rng, 3) {
        limits.scan_keys = *pick(rng, &[1, 2, 5]);
    }
    if draws(rng, 6) {
        limits.scan_bytes = *pick(rng, &[16, 256, 4 << 10]);
    }
    if rng.chance(1, 4) {
        limits.session_window = *pick(rng, &[1, 2, 8]);
    }
    if rng.chance(1, 4) {
        limits.cursors = *pick(rng, &[1, 2, 8]);
    }
    if rng.chance(1, 4) {
        limits.proposal_bytes = *pick(rng, &[256, 4 << 10, 64 << 10]);
    }
    if rng.chance(1, 8) {
        limits.reads = *pick(rng, &[1, 4, 16]);
    }
    if rng.chance(1, 8) {
        limits.calls = *pick(rng, &[2, 8, 32]);
    }
    if rng.chance(1, 8) {
        limits.calls_bytes = *pick(rng, &[1 << 10, 16 << 10]);
    }
    limits
}

/// What makes the log's files turn over, be cut, and leave followers behind.
fn log_limits(rng: &mut Rng, all: bool, limits: &mut Limits) {
    if all || rng.chance(1, 2) {
        // Larger than a checkpoint with its directory: a segment of less holds nothing else.
        limits.segment_bytes = *pick(rng, &[3 << 10, 4 << 10, 16 << 10, 64 << 10]);
    }
    if all || rng.chance(1, 2) {
        limits.log_bytes = *pick(rng, &[12 << 10, 16 << 10, 64 << 10, 256 << 10]);
        limits.segment_bytes = limits.segment_bytes.min(limits.log_bytes / 4);
    }
    if all || rng.chance(1, 2) {
        limits.log_tail_bytes = *pick(rng, &[0, 1 << 10, 8 << 10, 64 << 10]);
    }
}

fn pace(rng: &mut Rng) -> Pace {
    Pace {
        sync: *pick(rng, &[100_000, MS, 4 * MS, 10 * MS]),
        store: *pick(rng, &[20_000, 200_000, 2 * MS]),
        turn_inputs: *pick(rng, &[1, 8, 64]),
        queue_bytes: *pick(rng, &[256 << 10, 4 << 20, 64 << 20]),
        window_bytes: *pick(rng, &[4 << 10, 64 << 10, 1 << 20]),
        promise_sample: 300,
        // Of dice of their own: plans stay what they were but for this.
        requests: *pick(&mut rng.fork(41), &[0, 30 * MS, 300 * MS]),
    }
}

fn clock(rng: &mut Rng) -> (i64, i64) {
    let signed = |rng: &mut Rng, bound: u64| {
        let drawn = i64::try_from(rng.below(2 * bound + 1)).expect("small bounds");
        drawn - i64::try_from(bound).expect("small bounds")
    };
    let drift = match rng.below(3) {
        0 => 0,
        1 => signed(rng, 200),
        _ => signed(rng, 10_000),
    };
    (drift, signed(rng, 3_600_000))
}

fn workload(rng: &mut Rng) -> Workload {
    let mixes = [
        [4, 6, 1, 2, 2, 2, 2],
        [8, 3, 1, 1, 1, 1, 1],
        [2, 2, 2, 6, 6, 1, 1],
        [2, 4, 1, 1, 1, 6, 6],
    ];
    Workload {
        clients: 8,
        rate: 100,
        partitions: 1 + rng.below(6),
        keys: 1 + rng.below(6),
        padding: *pick(rng, &[0, 0, 64, 2048]),
        timeout: *pick(
            rng,
            &[Duration::from_secs(2), Duration::from_secs(5), Duration::from_secs(10)],
        ),
        mix: *pick(rng, &mixes),
        local: *pick(rng, &[0, 10, 30]),
        readers: *pick(rng, &[0, 0, 2, 4]),
    }
}

/// Kinds of fault that a run may have; each run draws a handful, so that some runs are about one thing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
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

const KINDS: [Kind; 22] = [
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
enum Theme {
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
    fn draw(rng: &mut Rng) -> Self {
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

fn faults(plan: &Plan, theme: Theme, rng: &mut Rng) -> Vec<Scheduled> {
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

fn a_group(plan: &Plan, rng: &mut Rng) -> GroupId {
    GroupId(u32::try_from(1 + rng.below(u64::from(plan.shards))).expect("at most 8"))
}

fn draw(plan: &Plan, kind: Kind, rng: &mut Rng) -> Fault {
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

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let w = &self.workload;
        writeln!(
            f,
            "seed {}: {} members, {} more may join, {} client nodes, {} shards x {}; links {}, {:?} to {:?}; sync {:?}, store {:?}",
            self.seed,
            self.members,
            self.spares,
            self.clients,
            self.shards,
            self.replication,
            if self.wild { "wild" } else { "tame" },
            self.latency.0,
            self.latency.1,
            Duration::from_nanos(self.pace.sync),
            Duration::from_nanos(self.pace.store),
        )?;
        writeln!(
            f,
            "  turns of {}, window {} B, queue {} B; {} clients ({} only read), {} ops/s on {} partitions x {} keys, padding {}, \
             mix {:?}, stale {} %, time-out {:?}",
            self.pace.turn_inputs,
            self.pace.window_bytes,
            self.pace.queue_bytes,
            w.clients,
            w.readers,
            w.rate,
            w.partitions,
            w.keys,
            w.padding,
            w.mix,
            w.local,
            w.timeout
        )?;
        let l = &self.limits;
        writeln!(
            f,
            "  limits: segment {} log {} tail {} chunk {} append {}/{} flight {} window {} page {}/{} \
             cursors {} proposals {} reads {} calls {}/{}; drift {:?}",
            l.segment_bytes,
            l.log_bytes,
            l.log_tail_bytes,
            l.chunk_bytes,
            l.append_entries,
            l.append_bytes,
            l.appends_in_flight,
            l.session_window,
            l.scan_keys,
            l.scan_bytes,
            l.cursors,
            l.proposal_bytes,
            l.reads,
            l.calls,
            l.calls_bytes,
            self.clocks.iter().map(|c| c.0).collect::<Vec<_>>()
        )?;
        write!(f, "  {} faults:", self.faults.len())?;
        for (n, scheduled) in self.faults.iter().enumerate() {
            let line = if n % 4 == 0 { "\n    " } else { "; " };
            write!(f, "{line}{scheduled}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Scheduled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s {}", Duration::from_nanos(self.at).as_secs_f64(), self.fault)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Machine(m) => write!(f, "n{}", m + 1),
            Self::Leader(group) => write!(f, "leader of {group}"),
            Self::Sender => write!(f, "sender of a snapshot"),
            Self::Receiver => write!(f, "receiver of a snapshot"),
            Self::Candidate => write!(f, "candidate"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |t: &Nanos| format!("{:.2} s", Duration::from_nanos(*t).as_secs_f64());
        match self {
            Self::Crash(who, long) => write!(f, "crash {who} for {}", s(long)),
            Self::PowerCut(who, long) => write!(f, "power cut {who} for {}", s(long)),
            Self::Relapse(who, long, again) => {
                write!(f, "power cut {who} for {}, again {} after", s(long), s(again))
            }
            Self::Blackout(long) => write!(f, "power cut of all for {}", s(long)),
            Self::Pause(who, long) => write!(f, "pause {who} for {}", s(long)),
            Self::Split(side, long) => {
                let side: Vec<String> = side.iter().map(|m| format!("n{}", m + 1)).collect();
                write!(f, "split off [{}] for {}", side.join(" "), s(long))
            }
            Self::OneWay(from, to, long) => {
                write!(f, "n{} does not reach n{} for {}", from + 1, to + 1, s(long))
            }
            Self::Isolate(who, long) => write!(f, "isolate {who} for {}", s(long)),
            Self::Island(who, with, long) => {
                let with: String = with.iter().map(|m| format!(" n{}", m + 1)).collect();
                write!(f, "isolate [{who}{with}] for {}", s(long))
            }
            Self::Storm(link, long) => write!(f, "all links {link} for {}", s(long)),
            Self::BadLink(m, link, long) => write!(f, "links of n{} {link} for {}", m + 1, s(long)),
            Self::Reset(a, b) => write!(f, "reset n{} n{}", a + 1, b + 1),
            Self::Slow(who, times, long) => {
                write!(f, "disk of {who} {times}x slow for {}", s(long))
            }
            Self::SyncFails(who) => write!(f, "log sync fails at {who}"),
            Self::WriteFails(who) => write!(f, "log write fails at {who}"),
            Self::Full(who, long) => write!(f, "disk of {who} full for {}", s(long)),
            Self::StoreWriteFails(who) => write!(f, "store write fails at {who}"),
            Self::StoreSyncFails(who) => write!(f, "store sync fails at {who}"),
            Self::Unreadable(who, long) => write!(f, "disk of {who} unreadable for {}", s(long)),
            Self::Jump(m, ms) => write!(f, "wall clock of n{} jumps {ms} ms", m + 1),
            Self::Reshape(group, voters, learners, long) => {
                let names = |members: &[usize]| {
                    let names: Vec<String> =
                        members.iter().map(|m| format!("n{}", m + 1)).collect();
                    names.join(" ")
                };
                let (voters, learners) = (names(voters), names(learners));
                write!(f, "{group} has voters [{voters}], learners [{learners}] for {}", s(long))
            }
            Self::Lose(m, loss) => write!(f, "disk of n{} {loss:?}", m + 1),
            Self::Churn(change) => change.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
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
