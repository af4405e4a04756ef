use super::super::placement::{Member, members};
use super::super::ranking::{Distance, Ranking};
use super::*;

fn owners(placement: &Placement) -> Vec<Option<MemberId>> {
    (0..=u16::MAX).map(|slot| placement.owner(slot)).collect()
}

fn moved(a: &Placement, b: &Placement) -> usize {
    owners(a).iter().zip(owners(b)).filter(|(a, b)| **a != *b).count()
}

/// The obvious twin of the matching: all pairs, the nearest first, then each slot's order by its definition.
struct Twin {
    owners: Vec<Option<usize>>,
    /// The furthest slot of a full member.
    closed_at: Vec<Distance>,
    members: Vec<Member>,
}

impl Twin {
    fn of(members: Vec<Member>) -> Self {
        let mut pairs = Vec::new();
        for (place, member) in members.iter().enumerate() {
            let distance = |slot| member.ranking.distance_of(slot, u16::try_from(place).unwrap());
            pairs.extend((0..=u16::MAX).map(|slot| (distance(slot), slot, place)));
        }
        pairs.sort_unstable();
        let mut owners = vec![None; 65_536];
        let mut loads = vec![0; members.len()];
        let mut closed_at = vec![Distance::NONE; members.len()];
        for (distance, slot, place) in pairs {
            let owner = &mut owners[usize::from(slot)];
            if owner.is_none() && loads[place] < members[place].bound {
                *owner = Some(place);
                loads[place] += 1;
                if loads[place] == members[place].bound {
                    closed_at[place] = distance;
                }
            }
        }
        Self { owners, closed_at, members }
    }

    fn order(&self, slot: u16) -> Vec<MemberId> {
        let mut order: Vec<usize> = (0..self.members.len()).collect();
        order.sort_by_key(|&place| {
            let ranking = &self.members[place].ranking;
            let distance = ranking.distance_of(slot, u16::try_from(place).unwrap());
            let owner = self.owners[usize::from(slot)] == Some(place);
            (!owner, distance > self.closed_at[place], distance)
        });
        order.into_iter().map(|place| self.members[place].id).collect()
    }
}

fn assert_same(placement: &Placement, twin: &Twin) {
    for slot in 0..=u16::MAX {
        let owner = twin.owners[usize::from(slot)].map(|place| twin.members[place].id);
        assert_eq!(placement.owner(slot), owner, "slot {slot}");
    }
    for slot in (0..=u16::MAX).step_by(7) {
        let order = twin.order(slot);
        assert_eq!(placement.owners(slot, 2), order[..order.len().min(2)], "slot {slot}");
        assert_eq!(placement.next(slot, &[]), order.get(1).copied(), "slot {slot}");
        if slot % 5 == 0 {
            assert_eq!(placement.owners(slot, usize::MAX), order, "slot {slot}");
            let skip = &order[..order.len().min(3)];
            assert_eq!(placement.next(slot, skip), order.get(3).copied(), "slot {slot}");
        }
    }
}

#[test]
fn a_ranking_is_a_permutation_and_is_walked_both_ways() {
    for id in [0, 1, 2, 3, u64::MAX >> 1] {
        let ranking = Ranking::new(MemberId(id), 1);
        let slots: BTreeSet<u16> = (0..=u16::MAX).map(|rank| ranking.slot(rank)).collect();
        assert_eq!(slots.len(), 65_536);
        assert!((0..=u16::MAX).all(|rank| ranking.rank(ranking.slot(rank)) == rank));
    }
}

#[test]
fn distances_rise_with_the_rank_whatever_the_weight() {
    for weight in [1, 2, 3, 1000, u16::MAX] {
        let ranking = Ranking::new(MemberId(5), weight);
        let distance = |rank| ranking.distance(rank, ranking.slot(rank), 7);
        let distances: Vec<_> = (0..=u16::MAX).map(distance).collect();
        // Also without the member's place, which is the same in all.
        assert!(distances.is_sorted_by(|a, b| a.0 >> 16 < b.0 >> 16), "weight {weight}");
        assert!(distances.iter().all(|distance| distance.member() == 7));
    }
}

#[test]
fn loads_follow_the_weights() {
    let placement = place(&(1..=3).map(|id| (MemberId(id), u16::try_from(id).unwrap())).collect());
    for (id, share) in [(1, 10_923), (2, 21_845), (3, 32_768)] {
        let load = i64::from(placement.load(MemberId(id)));
        assert!((load - share).abs() < share / 20, "m{id} has {load} of {share}");
    }
}

#[test]
fn nobody_owns_what_nobody_can() {
    let client = MemberId::client(1);
    for set in [vec![], vec![(MemberId(1), 0)], vec![(client, 10)]] {
        let placement = place(&set);
        assert_eq!(placement.members().len(), 0);
        assert_eq!(placement.owner_of(b"a"), None);
        assert_eq!(placement.owners(3, 2), []);
        assert_eq!(placement.owners(3, 9), []);
        assert_eq!(placement.next(3, &[]), None);
        assert_eq!(placement, place(&vec![]));
    }
    let placement = place(&vec![(MemberId(1), 0), (MemberId(2), 7), (client, 9)]);
    assert_eq!(placement.slots(MemberId(2)), everything());
    assert_eq!(placement.owners(3, 9), [MemberId(2)]);
    assert_eq!(placement.next(3, &[]), None);
    assert_eq!((placement.load(MemberId(1)), placement.bound(client)), (0, 0));
}

#[test]
fn more_members_than_can_be_placed_are_left_out() {
    let placed = members(equal(70_000).into_iter().rev(), SLOTS);
    assert_eq!(placed.len(), MEMBERS_PLACED_MAX);
    assert_eq!(placed.last().map(|member| member.id), Some(MemberId(65_535)));
}

/// H8: members that are equally far from every slot. The lower id comes first, in whatever order they joined.
#[test]
fn equal_distances_go_to_the_lower_id() {
    let mut twins = members(equal(2), SLOTS);
    twins[1].ranking = twins[0].ranking.clone();
    twins[1].bound = twins[0].bound;
    let bound = twins[0].bound;
    let ranking = twins[0].ranking.clone();
    let placement = Placement::of(twins.clone());
    for rank in 0..=u16::MAX {
        let owner = MemberId(if u32::from(rank) < bound { 1 } else { 2 });
        assert_eq!(placement.owner(ranking.slot(rank)), Some(owner), "rank {rank}");
    }
    assert_same(&placement, &Twin::of(twins));
}

/// H7: the placement is that of the set that is left, down to the last member and none.
#[test]
fn a_leave_of_the_last_but_one_is_a_new_placement() {
    let (two, one, none) = (place(&equal(2)), place(&equal(1)), place(&vec![]));
    assert_ne!(two, one);
    assert_ne!(one, none);
    assert!(two.load(MemberId(1)) < 40_000 && two.load(MemberId(2)) < 40_000);
    assert!(owners(&one).iter().all(|owner| *owner == Some(MemberId(1))));
    assert!(owners(&none).iter().all(Option::is_none));
}

#[test]
fn a_join_or_leave_moves_little_more_than_it_must() {
    for (count, most) in [(3, 1.15), (10, 1.15), (100, 1.15), (1000, 2.5)] {
        let mut rng = Rng::new(count);
        let (mut moves, mut least, mut passed) = ([0, 0], [0, 0], 0);
        for _ in 0..20 {
            let set = drawn(count, &mut rng);
            let (with, without) = (place(&set), place(&set[1..].to_vec()));
            let leaver = set[0].0;
            let load = usize::try_from(with.load(leaver)).unwrap();
            // To and fro is the same pair of sets: what a join moves is what the leave moves.
            let count = moved(&with, &without);
            moves = [moves[0] + count, moves[1] + count];
            least = [least[0] + 65_536 / set.len(), least[1] + load];
            let to_next = |slot: &u16| {
                with.owner(*slot) == Some(leaver) && without.owner(*slot) == with.next(*slot, &[])
            };
            passed += (0..=u16::MAX).filter(to_next).count();
        }
        for (moves, least) in moves.into_iter().zip(least) {
            let ratio = moves as f64 / least as f64;
            assert!(ratio < most, "{count} members: {ratio}");
        }
        let passed = passed as f64 / least[1] as f64;
        assert!(passed > 0.98, "{count} members: {passed} of the slots go to their next");
    }
}

#[test]
fn a_thousand_members_are_balanced() {
    let mut rng = Rng::new(1);
    let placement = place(&drawn(1000, &mut rng));
    let loads: Vec<u32> = placement.members().map(|(id, _)| placement.load(id)).collect();
    assert_eq!(loads.iter().sum::<u32>(), SLOTS);
    assert_eq!(loads.iter().max(), Some(&72), "1.10 times 65.536");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_placement_is_the_greedy_matching(set in sets(6)) {
        assert_same(&place(&set), &Twin::of(members(set, SLOTS)));
    }

    #[test]
    fn a_placement_is_a_function_of_the_set(set in sets(12), seed: u64) {
        let (one, other) = (place(&set), place(&shuffled(&set, seed)));
        prop_assert_eq!(&one, &other);
        prop_assert_eq!(owners(&one), owners(&other));
        for slot in (0..=u16::MAX).step_by(997) {
            prop_assert_eq!(one.owners(slot, 20), other.owners(slot, 20));
        }
    }

    #[test]
    fn nobody_owns_more_than_a_tenth_above_its_share(set in sets(20)) {
        let placement = place(&set);
        let total: u64 = placement.members().map(|(_, weight)| u64::from(weight)).sum();
        let mut loads = 0;
        for (member, weight) in placement.members() {
            let load = u64::from(placement.load(member));
            let share = 65_536 * u64::from(weight);
            prop_assert!(load * total * 10 <= share * 11 || load == share.div_ceil(total));
            let slots = placement.slots(member).into_iter();
            let slots: u64 = slots.map(|range| u64::from(range.end - range.start)).sum();
            prop_assert_eq!(slots, load);
            loads += load;
        }
        prop_assert_eq!(loads, if total == 0 { 0 } else { 65_536 });
    }

    #[test]
    fn the_order_of_a_slot_names_everyone_once(set in sets(20), slot: u16) {
        let placement = place(&set);
        let order = placement.owners(slot, usize::MAX);
        let all: BTreeSet<MemberId> = order.iter().copied().collect();
        prop_assert_eq!(all.len(), order.len());
        prop_assert_eq!(order.len(), placement.members().len());
        for count in 0..=order.len() {
            prop_assert_eq!(&placement.owners(slot, count), &order[..count]);
            let rest = order.get(count.max(1)).copied();
            prop_assert_eq!(placement.next(slot, &order[..count]), rest);
        }
    }
}

/// A placement knows its set, however it is told, and no other.
#[test]
fn a_placement_knows_its_set() {
    let set = [(MemberId(1), 1), (MemberId(2), 3)];
    let placement = Placement::new(set);
    assert!(placement.is_of(set));
    assert!(placement.is_of([
        (MemberId(2), 1),
        (MemberId(3), 0),
        (MemberId(2), 3),
        (MemberId(1), 1)
    ]));
    assert!(!placement.is_of([(MemberId(1), 1), (MemberId(2), 2)]));
    assert!(!placement.is_of([(MemberId(1), 1)]));
    assert!(!placement.is_of([(MemberId(1), 1), (MemberId(2), 3), (MemberId(3), 1)]));
}
