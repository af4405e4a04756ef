//! `bench ring`: the hash ring: how long a lookup takes, how even the load is, how much a join or a leave moves, and
//! how long a placement takes to make.
//!
//! Members of equal weight with drawn ids. Lookups go through names of 16 bytes, one after another, that are in the
//! processor's cache as the placement is. Times are processor time of this process.
//!
//! What it does not show: lookups of a placement that has fallen out of the cache, unequal weights.

use std::hint::black_box;

use ring_core::ids::MemberId;
use ring_core::ring::{Placement, SLOTS, ShardPlacement};
use ring_core::rng::Rng;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde_json::{Value, json};

use crate::report::{Columns, Section, float, median, range, show};

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: Vec<u64>,
    /// Sets of members drawn for each number of members.
    pub(crate) draws: u64,
    /// Times that all names are looked up in one set.
    pub(crate) rounds: usize,
    pub(crate) shards: u32,
    pub(crate) replicas: u32,
}

type Set = Vec<(MemberId, u16)>;

/// One set of members, the set with one more, and the set with one less.
struct Draw {
    set: Set,
    joined: Set,
    left: Set,
    leaver: MemberId,
}

/// What is measured of one draw, by name.
type Figures = Vec<(&'static str, f64)>;

/// Measures.
pub(crate) fn run(plan: &Plan) -> Section {
    let mut slots = Columns::new(&[
        "members",
        "owner(key) ns",
        "busiest / share",
        "join moves / least",
        "leave moves / least",
        "next takes over %",
        "rebuild ms",
    ]);
    let mut shards = Columns::new(&[
        "members",
        "leads",
        "share",
        "holds",
        "share",
        "join moves / least",
        "leave moves / least",
        "rebuild ms",
    ]);
    let mut figures = Vec::new();
    for &members in &plan.members {
        let draws: Vec<Draw> = (0..plan.draws).map(|draw| Draw::new(members, draw)).collect();
        let of_slots: Vec<Figures> = draws.iter().map(|draw| measure_slots(plan, draw)).collect();
        let of_shards: Vec<Figures> = draws.iter().map(|draw| measure_shards(plan, draw)).collect();
        slots.rows.push(vec![
            members.to_string(),
            show(median(column(&of_slots, "lookup_ns"))),
            show(range(column(&of_slots, "busiest")).1),
            show(mean(&of_slots, "join")),
            show(mean(&of_slots, "leave")),
            show(mean(&of_slots, "next_takes_over_percent")),
            show(median(column(&of_slots, "rebuild_ms"))),
        ]);
        let spread = |least: &str, most: &str| {
            let (least, _) = range(column(&of_shards, least));
            format!("{least} to {}", range(column(&of_shards, most)).1)
        };
        let held = plan.replicas.min(u32::try_from(members).unwrap_or(u32::MAX));
        shards.rows.push(vec![
            members.to_string(),
            spread("leads_least", "leads_most"),
            show(f64::from(plan.shards) / float(members)),
            spread("holds_least", "holds_most"),
            show(f64::from(plan.shards * held) / float(members)),
            show(mean(&of_shards, "join")),
            show(mean(&of_shards, "leave")),
            show(median(column(&of_shards, "rebuild_ms"))),
        ]);
        for (draw, (slots, shards)) in of_slots.iter().zip(&of_shards).enumerate() {
            figures.push(json!({
                "members": members, "draw": draw, "slots": object(slots), "shards": object(shards),
            }));
        }
    }
    Section {
        name: String::from("ring"),
        title: String::from("who owns a slot, who holds a shard"),
        about: about(plan),
        tables: vec![slots, shards],
        notes: Vec::new(),
        figures: figures.into(),
    }
}

fn about(plan: &Plan) -> Vec<String> {
    let Plan { draws, shards, replicas, .. } = plan;
    vec![
        format!(
            "{SLOTS} slots; {draws} sets of members of equal weight. Lookups and rebuilds: \
             medians; the busiest of all sets; moves: means, over the share of the one that joins, \
             and over what the one that leaves has owned."
        ),
        String::from("`next takes over`: slots of the one that leaves that go to their next."),
        format!(
            "Then {shards} shards with {replicas} replicas: the least and the most that a member \
             leads and holds in any set; replicas moved over the share of the one that joins, and \
             over what the one that leaves has held, as far as others can take it."
        ),
    ]
}

impl Draw {
    fn new(members: u64, draw: u64) -> Self {
        let mut rng = Rng::new(members).fork(draw);
        let joined: Set = (0..=members).map(|_| (MemberId(rng.next() >> 1), 1)).collect();
        let set: Set = joined.iter().skip(1).copied().collect();
        let left = set.iter().skip(1).copied().collect();
        Self { leaver: set[0].0, set, joined, left }
    }
}

fn measure_slots(plan: &Plan, draw: &Draw) -> Figures {
    let began = cpu_time();
    let placement = Placement::new(draw.set.iter().copied());
    let rebuild = seconds_since(began);
    let joined = Placement::new(draw.joined.iter().copied());
    let left = Placement::new(draw.left.iter().copied());
    let count =
        |matches: &dyn Fn(u16) -> bool| float_of((0..=u16::MAX).filter(|&slot| matches(slot)));
    let moved = |other: &Placement| count(&|slot| placement.owner(slot) != other.owner(slot));
    let owned = |slot| placement.owner(slot) == Some(draw.leaver);
    let passed = count(&|slot| owned(slot) && left.owner(slot) == placement.next(slot, &[]));
    let most = draw.set.iter().map(|(member, _)| placement.load(*member)).max().unwrap_or(0);
    let share = f64::from(SLOTS) / float_of(draw.set.iter());
    vec![
        ("lookup_ns", lookup(plan, &placement)),
        ("busiest", f64::from(most) / share),
        ("join", moved(&joined) / (f64::from(SLOTS) / float_of(draw.joined.iter()))),
        ("leave", moved(&left) / count(&owned)),
        ("next_takes_over_percent", passed / count(&owned) * 100.0),
        ("rebuild_ms", rebuild * 1e3),
    ]
}

fn cpu_time() -> Timespec {
    clock_gettime(ClockId::ProcessCPUTime)
}

fn seconds_since(began: Timespec) -> f64 {
    let used = cpu_time() - began;
    float(used.tv_sec.unsigned_abs()) + float(used.tv_nsec.unsigned_abs()) / 1e9
}

/// Nanoseconds a lookup.
fn lookup(plan: &Plan, placement: &Placement) -> f64 {
    let mut rng = Rng::new(1);
    let names: Vec<[u8; NAME_BYTES]> = (0..NAMES)
        .map(|_| (u128::from(rng.next()) << 64 | u128::from(rng.next())).to_le_bytes())
        .collect();
    let nanos = (0..plan.rounds).map(|_| {
        let began = cpu_time();
        for name in &names {
            black_box(placement.owner_of(black_box(name)));
        }
        seconds_since(began) * 1e9 / float_of(names.iter())
    });
    median(nanos)
}

fn measure_shards(plan: &Plan, draw: &Draw) -> Figures {
    let place = |set: &Set| ShardPlacement::new(set.iter().copied(), plan.shards, plan.replicas);
    let began = cpu_time();
    let placement = place(&draw.set);
    let rebuild = seconds_since(began);
    let leads = draw.set.iter().map(|(member, _)| {
        float_of(placement.iter().filter(|(_, replicas)| replicas.first() == Some(member)))
    });
    let held = |placement: &ShardPlacement, member: MemberId| {
        float_of(placement.iter().filter(|(_, replicas)| replicas.contains(&member)))
    };
    let holds = draw.set.iter().map(|(member, _)| held(&placement, *member));
    let (leads_least, leads_most) = range(leads);
    let (holds_least, holds_most) = range(holds);
    // What is new somewhere has to be copied there.
    let copied = |other: &ShardPlacement| -> f64 {
        let of = |((_, before), (_, after)): ((_, &[MemberId]), (_, &[MemberId]))| {
            float_of(after.iter().filter(|member| !before.contains(member)))
        };
        placement.iter().zip(other.iter()).map(of).sum()
    };
    let replicas = |set: &Set| f64::from(plan.replicas).min(float_of(set.iter()));
    let share = f64::from(plan.shards) * replicas(&draw.joined) / float_of(draw.joined.iter());
    // Where there are too few others nothing moves.
    let least = held(&placement, draw.leaver)
        - f64::from(plan.shards) * (replicas(&draw.set) - replicas(&draw.left));
    vec![
        ("leads_least", leads_least),
        ("leads_most", leads_most),
        ("holds_least", holds_least),
        ("holds_most", holds_most),
        ("join", copied(&place(&draw.joined)) / share),
        ("leave", copied(&place(&draw.left)) / least),
        ("rebuild_ms", rebuild * 1e3),
    ]
}

fn column<'a>(figures: &'a [Figures], name: &'a str) -> impl Iterator<Item = f64> + 'a {
    figures.iter().flatten().filter(move |(key, _)| *key == name).map(|(_, figure)| *figure)
}

/// Of those that are numbers: a draw in which nothing had to move says nothing.
fn mean(figures: &[Figures], name: &str) -> f64 {
    let known: Vec<f64> = column(figures, name).filter(|figure| figure.is_finite()).collect();
    known.iter().sum::<f64>() / float_of(known.iter())
}

fn object(figures: &Figures) -> Value {
    figures.iter().map(|(key, figure)| (String::from(*key), json!(figure))).collect()
}

fn float_of<T>(counted: impl Iterator<Item = T>) -> f64 {
    float(u64::try_from(counted.count()).expect("a count"))
}

const NAMES: usize = 16_384;
const NAME_BYTES: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leave_undoes_a_join() {
        let plan = Plan { members: vec![3], draws: 2, rounds: 1, shards: 64, replicas: 3 };
        let draw = Draw::new(3, 1);
        assert_eq!((draw.set.len(), draw.joined.len(), draw.left.len()), (3, 4, 2));
        assert_ne!(draw.set, Draw::new(3, 2).set);
        let figures = vec![measure_slots(&plan, &draw)];
        assert!((1.0..1.1).contains(&mean(&figures, "busiest")), "{figures:?}");
        assert!((0.9..1.15).contains(&mean(&figures, "join")), "{figures:?}");
        assert!((1.0..1.15).contains(&mean(&figures, "leave")), "{figures:?}");
        let section = run(&plan);
        assert!(section.tables.iter().all(|table| table.rows.len() == 1));
    }
}
