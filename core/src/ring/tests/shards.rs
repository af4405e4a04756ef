use super::*;

fn place(set: &Set, shards: u32, replicas: u32) -> ShardPlacement {
    ShardPlacement::new(set.iter().copied(), shards, replicas)
}

fn leads(placement: &ShardPlacement, member: MemberId) -> u64 {
    u64::try_from(placement.iter().filter(|(_, line)| line[0] == member).count()).unwrap()
}

fn holds(placement: &ShardPlacement, member: MemberId) -> u64 {
    u64::try_from(placement.iter().filter(|(_, line)| line.contains(&member)).count()).unwrap()
}

/// How many replicas have to be copied to get from one placement to the other.
fn copied(from: &ShardPlacement, to: &ShardPlacement) -> usize {
    let pairs = from.iter().zip(to.iter());
    pairs.map(|((_, a), (_, b))| b.iter().filter(|member| !a.contains(member)).count()).sum()
}

#[test]
fn few_members_lead_evenly() {
    let mut rng = Rng::new(1);
    for count in 1..=10 {
        for _ in 0..20 {
            let set = drawn(count, &mut rng);
            let placement = place(&set, 64, 3);
            for (member, _) in &set {
                let leads = leads(&placement, *member);
                assert!((64 / count..=64_u64.div_ceil(count)).contains(&leads), "{count}: {leads}");
            }
        }
    }
}

#[test]
fn those_behind_one_leader_are_many() {
    let mut rng = Rng::new(1);
    for (count, most) in [(2, 32), (3, 11), (4, 6), (5, 5), (10, 2)] {
        for _ in 0..20 {
            let set = drawn(count, &mut rng);
            let placement = place(&set, 64, 3);
            for (leader, _) in &set {
                let mut behind: BTreeMap<MemberId, u32> = BTreeMap::new();
                for (_, line) in placement.iter().filter(|(_, line)| line[0] == *leader) {
                    *behind.entry(line[1]).or_default() += 1;
                }
                let worst = behind.values().max();
                assert!(worst <= Some(&most), "{count} members, behind {leader}: {behind:?}");
            }
        }
    }
}

#[test]
fn a_join_or_leave_copies_little_more_than_it_must() {
    for (count, most) in [(4, 1.15), (5, 1.15), (10, 1.5), (100, 2.5)] {
        let mut rng = Rng::new(count);
        let (mut copies, mut least) = ([0, 0], [0.0, 0.0]);
        for _ in 0..20 {
            let set = drawn(count, &mut rng);
            let (with, without) = (place(&set, 64, 3), place(&set[1..].to_vec(), 64, 3));
            let held = holds(&with, set[0].0) as f64;
            copies = [copies[0] + copied(&without, &with), copies[1] + copied(&with, &without)];
            least = [least[0] + 192.0 / set.len() as f64, least[1] + held];
        }
        for (copies, least) in copies.into_iter().zip(least) {
            let ratio = copies as f64 / least;
            assert!(ratio < most, "{count} members: {ratio}");
        }
    }
}

#[test]
fn nobody_holds_what_nobody_can() {
    let placement = place(&vec![(MemberId(1), 0), (MemberId::client(1), 9)], 4, 3);
    assert_eq!(placement.iter().len(), 4);
    assert_eq!(placement.leader(GroupId(1)), None);
    let placement = place(&equal(1), 4, 3);
    assert_eq!(placement.replicas(GroupId(4)), [MemberId(1)]);
    assert_eq!(placement.replicas(GroupId(5)), []);
    assert_eq!(placement.replicas(GroupId::DIRECTORY), []);
    assert_eq!(place(&equal(3), 0, 3).iter().len(), 0);
    assert_eq!(place(&equal(3), 2, 0).replicas(GroupId(1)), []);
}

/// More shards and members than anyone runs, within the time of a test.
#[test]
fn many_shards_on_many_members() {
    let mut rng = Rng::new(1);
    let set = drawn(200, &mut rng);
    let placement = place(&set, 1024, 3);
    for (member, _) in &set {
        let (leads, holds) = (leads(&placement, *member), holds(&placement, *member));
        assert!((13..=16).contains(&holds), "{holds} of 15.36");
        assert!((5..=6).contains(&leads), "{leads} of 5.12");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn replicas_are_as_many_as_asked_for_and_bounded(
        set in sets(20), shards in 1..100_u32, replicas in 1..6_u32, seed: u64,
    ) {
        let placement = place(&set, shards, replicas);
        prop_assert_eq!(&placement, &place(&shuffled(&set, seed), shards, replicas));
        let members: BTreeMap<MemberId, u64> =
            set.iter().filter(|m| m.1 > 0).map(|&(id, weight)| (id, u64::from(weight))).collect();
        let count = members.len().min(usize::try_from(replicas).unwrap());
        for (_, line) in placement.iter() {
            let distinct: BTreeSet<_> = line.iter().collect();
            prop_assert!(line.len() == count && distinct.len() == count);
            prop_assert!(line.iter().all(|member| members.contains_key(member)));
        }
        // The shares of those that need not hold every shard, by asking again and again who must.
        let all = u64::from(shards);
        let mut light = members.clone();
        let mut left = all * u64::try_from(count).unwrap();
        loop {
            let weight: u64 = light.values().sum();
            let heavy = light.iter().filter(|(_, w)| left * **w >= all * weight);
            let heavy: Vec<_> = heavy.map(|(member, _)| *member).collect();
            if heavy.is_empty() {
                for (member, w) in &light {
                    let holds = holds(&placement, *member);
                    let share = left * w;
                    prop_assert!(holds >= share * 9 / (weight * 10), "{holds}");
                    let bounded = holds * weight * 10 <= share * 11;
                    prop_assert!(bounded || holds == share.div_ceil(weight), "{holds}");
                }
                break;
            }
            for member in heavy {
                prop_assert!(holds(&placement, member) >= all * 9 / 10);
                light.remove(&member);
                left -= all;
            }
        }
    }

    #[test]
    fn where_all_hold_all_everyone_leads_its_share(set in sets(5), shards in 1..100_u32) {
        let placement = place(&set, shards, 5);
        let total: u64 = set.iter().map(|m| u64::from(m.1)).sum();
        for (member, weight) in set.iter().filter(|m| m.1 > 0) {
            let share = u64::from(shards) * u64::from(*weight);
            let leads = leads(&placement, *member);
            prop_assert!((share / total..=share.div_ceil(total)).contains(&leads), "{leads}");
        }
    }
}
