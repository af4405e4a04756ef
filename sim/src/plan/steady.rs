//! Plans in which the members stay who they are: machines, limits, clocks, network and workload.

use std::time::Duration;

use ring_core::config::{Limits, Timers};
use ring_core::ids::{len_u64, len_usize};
use ring_core::rng::Rng;

use super::faults::{Theme, faults};
use super::{MS, Plan, Workload, pick};
use crate::world::Pace;

/// Seconds of faults: mostly a minute; in some runs long enough for sessions to be forgotten meanwhile.
const CHAOS: [u64; 12] = [20, 20, 60, 60, 60, 60, 60, 60, 60, 60, 60, 180];

/// The plan of a seed.
pub(super) fn plan(seed: u64) -> Plan {
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
    let mut limits = limits(theme, &mut root.fork(2));
    remember(&mut limits, &mut root.fork(53));
    pace_transfers(&mut limits, &mut root.fork(54));
    let machines = members + clients;
    let clocks = (0..machines).map(|_| clock(&mut rng)).collect();
    let latency =
        *pick(&mut rng, &[(50, 300), (100, 1_000), (500, 5_000), (1_000, 10_000), (5_000, 30_000)]);
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
    let mut plan = Plan {
        seed,
        members,
        spares: 0,
        birth: None,
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
    plan.workload.rate = plan.workload.rate.min(keeps_up(&plan));
    let Limits { calls, reads, .. } = plan.limits;
    if calls.min(reads) < WATCHED_CALLS || tells(&plan) < 4 * plan.workload.rate {
        // A watch is a call that waits: a few would take the place of all others. And who is told less in a second than
        // happens in one is never told all.
        plan.workload.watchers = 0;
    }
    plan.faults = faults(&plan, theme, &mut root.fork(5));
    plan
}

/// So many operations a second leave a replica that joins room to catch up, in a group that takes them one by one: what
/// a follower is sent in a round trip bounds what it can take in.
fn keeps_up(plan: &Plan) -> u64 {
    let Limits { append_entries, append_bytes, appends_in_flight, .. } = plan.limits;
    let entries = append_entries.min((append_bytes / ENTRY_BYTES).max(1));
    let round_trip = 2 * crate::net::nanos(plan.latency.1) + 2 * plan.pace.sync;
    let in_flight = len_u64(entries.saturating_mul(appends_in_flight));
    let second = 1_000_000_000;
    (in_flight.saturating_mul(second) / round_trip / 4).max(5)
}

/// So many changes a second a watch is told of that fetches page after page, and pauses now and then.
fn tells(plan: &Plan) -> u64 {
    let Limits { scan_keys, scan_bytes, .. } = plan.limits;
    let page =
        scan_keys.min((scan_bytes / (ENTRY_BYTES + len_usize(plan.workload.padding))).max(1));
    let round_trip = 2 * crate::net::nanos(plan.latency.1);
    len_u64(page).saturating_mul(1_000_000_000) / (round_trip + crate::watch::PAUSES)
}

/// A caller that may have fewer calls under way, or a member that holds fewer of them, has nobody watch.
const WATCHED_CALLS: usize = 16;
/// What an entry of a small command takes.
const ENTRY_BYTES: usize = 64;

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

/// How many changes those who watch may be behind.
fn remember(limits: &mut Limits, rng: &mut Rng) {
    if rng.chance(1, 2) {
        limits.history_bytes = *pick(rng, &[300, 2 << 10, 16 << 10]);
    }
    if rng.chance(1, 3) {
        limits.history_time = Duration::from_secs(*pick(rng, &[1, 5, 20]));
    }
}

/// Snapshots that take a while.
fn pace_transfers(limits: &mut Limits, rng: &mut Rng) {
    if rng.chance(1, 3) {
        limits.transfer_bytes = *pick(rng, &[16 << 10, 64 << 10, 1 << 20]);
    }
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

pub(super) fn clock(rng: &mut Rng) -> (i64, i64) {
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
        // Of dice of their own, as all that came later: plans stay what they were but for this.
        watchers: *pick(&mut rng.fork(51), &[0, 2, 3, 5]),
    }
}
