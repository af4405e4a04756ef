use super::*;

const ME: MemberId = MemberId(1);

fn view(me: MemberId, set: &Set) -> RingView {
    let mut view = RingView::new(me, 100_000);
    view.set_members(set.iter().copied());
    view
}

/// A name that the placement gives to `owner`, with `next` behind it.
fn name_of(set: &Set, owner: u64, next: Option<u64>) -> Vec<u8> {
    let placement = place(set);
    let wanted = |name: &Vec<u8>| {
        placement.owner_of(name) == Some(MemberId(owner))
            && placement.next(slot_of(name), &[]) == next.map(MemberId)
    };
    (0_u64..).map(|n| n.to_le_bytes().to_vec()).find(wanted).unwrap()
}

fn tracks(events: Vec<RingEvent>) -> Vec<RingEvent> {
    let slots =
        |event: &RingEvent| matches!(event, RingEvent::Move { .. } | RingEvent::Steal { .. });
    events.into_iter().filter(|event| !slots(event)).collect()
}

type Moves = BTreeSet<(MemberId, Option<MemberId>, u32)>;
type Steals = BTreeSet<(Option<MemberId>, MemberId, u32)>;

/// Slot by slot: who gave it to whom, as the two say it.
fn told(me: MemberId, events: &[RingEvent]) -> (Moves, Steals) {
    let (mut moves, mut steals) = (BTreeSet::new(), BTreeSet::new());
    let each = |slots: &[Range<u32>]| slots.iter().cloned().flatten().collect::<Vec<_>>();
    for event in events {
        match event {
            RingEvent::Move { to, slots } => {
                moves.extend(each(slots).into_iter().map(|slot| (me, *to, slot)));
            }
            RingEvent::Steal { from, slots } => {
                steals.extend(each(slots).into_iter().map(|slot| (*from, me, slot)));
            }
            other => panic!("{other:?}"),
        }
    }
    (moves, steals)
}

#[test]
fn the_first_members_and_the_last_ones_are_told_of() {
    let mut view = RingView::new(ME, 1);
    assert_eq!((view.owner(b"a"), view.is_mine(b"a")), (None, false));
    assert_eq!((view.owners(b"a", 2), view.next(b"a", &[])), (vec![], None));

    let all = everything();
    let stolen = RingEvent::Steal { from: None, slots: all.clone() };
    assert_eq!(view.set_members([(ME, 1)]), [stolen]);
    assert!(view.is_mine(b"a"));
    assert_eq!(view.set_members([(ME, 5)]), []);

    let moved = RingEvent::Move { to: None, slots: all.clone() };
    assert_eq!(view.set_members([]), [moved]);
    assert_eq!(view.owner(b"a"), None);

    view.set_members([(ME, 1)]);
    let moved = RingEvent::Move { to: Some(MemberId(2)), slots: all };
    assert_eq!(view.set_members([(ME, 0), (MemberId(2), 1)]), [moved]);
}

/// H7: of two members one leaves; the other steals exactly what that one had.
#[test]
fn the_last_member_steals_what_the_last_but_one_had() {
    let mut view = view(ME, &equal(2));
    let slots = view.placement().slots(MemberId(2));
    assert!(!slots.is_empty());
    let stolen = RingEvent::Steal { from: Some(MemberId(2)), slots };
    assert_eq!(view.set_members([(ME, 1)]), [stolen]);
    assert_eq!(view.owners(b"a", 3), [ME]);
}

#[test]
fn ranges_are_merged_and_end_exclusive() {
    let placement = place(&equal(3));
    for (id, _) in equal(3) {
        let slots = placement.slots(id);
        assert!(slots.is_sorted_by(|a, b| a.end < b.start), "merged");
        for slot in 0..=u16::MAX {
            let inside = slots.iter().any(|range| range.contains(&u32::from(slot)));
            assert_eq!(inside, placement.owner(slot) == Some(id), "slot {slot}");
        }
    }
}

#[test]
fn a_track_tells_once() {
    let two = equal(2);
    let three = equal(3);
    let (before, after) = (place(&two), place(&three));
    let wanted = |name: &Vec<u8>| {
        before.owner_of(name) == Some(ME) && after.owner_of(name) == Some(MemberId(3))
    };
    let name = (0_u64..).map(|n| n.to_le_bytes().to_vec()).find(wanted).unwrap();
    let mut view = view(ME, &two);
    let (first, second) = (view.track(&name).unwrap(), view.track(&name).unwrap());
    let cancelled = view.track(&name).unwrap();
    assert!(view.cancel(cancelled) && !view.cancel(cancelled));

    let left = |track| RingEvent::Left { track, to: Some(MemberId(3)) };
    assert_eq!(tracks(view.set_members(three.clone())), [left(first), left(second)]);
    assert_eq!(view.track(&name), Err(TrackError::NotMine(Some(MemberId(3)))));

    let back = view.replica(&name).unwrap();
    assert_eq!(tracks(view.set_members(two.clone())), [RingEvent::Came { track: back }]);
    assert_eq!(view.replica(&name), Err(TrackError::Mine));
    assert_eq!(tracks(view.set_members(three)), []);
    assert_eq!(view.tracked(), 0);
}

#[test]
fn a_replica_is_told_of_at_once_and_whenever_it_is_another() {
    let three = equal(3);
    let name = name_of(&three, 1, Some(2));
    let next = |track, new, old: Option<u64>| RingEvent::NextChanged {
        track,
        new: MemberId(new),
        old: old.map(MemberId),
    };
    let mut view = view(ME, &three);
    let (track, event) = view.track_with_replica(&name).unwrap();
    assert_eq!(event, Some(next(track, 2, None)));
    assert_eq!(view.next(&name, &[]), Some(MemberId(2)));

    let without = |id| equal(3).into_iter().filter(move |member| member.0 != MemberId(id));
    assert_eq!(tracks(view.set_members(without(2))), [next(track, 3, Some(2))]);
    assert_eq!(tracks(view.set_members(three.clone())), [next(track, 2, Some(3))]);
    assert_eq!(tracks(view.set_members(without(3))), []);
    // Alone there is no next; the one that comes then has no one before it.
    assert_eq!(tracks(view.set_members([(ME, 1)])), []);
    assert_eq!(tracks(view.set_members(without(3))), [next(track, 2, None)]);

    let to = Some(MemberId(2));
    assert_eq!(tracks(view.set_members(without(1))), [RingEvent::Left { track, to }]);
}

#[test]
fn a_replica_alone_hears_of_the_first_other() {
    let mut view = view(ME, &equal(1));
    let name = name_of(&equal(2), 1, Some(2));
    let (track, event) = view.track_with_replica(&name).unwrap();
    assert_eq!(event, None);
    let changed = RingEvent::NextChanged { track, new: MemberId(2), old: None };
    assert_eq!(tracks(view.set_members(equal(2))), [changed]);
}

#[test]
fn tracks_are_bounded() {
    let mut view = RingView::new(ME, 2);
    assert_eq!(view.track(b"a"), Err(TrackError::NotMine(None)));
    let waits = view.replica(b"a").unwrap();
    view.replica(b"a").unwrap();
    assert_eq!(view.replica(b"a"), Err(TrackError::Full));
    view.cancel(waits);
    view.replica(b"a").unwrap();
    assert_eq!(tracks(view.set_members(equal(1))).len(), 2);
    assert_eq!(view.tracked(), 0);
}

#[test]
fn close_ends_every_track() {
    let mut view = view(ME, &equal(2));
    let mine = view.track(&name_of(&equal(2), 1, Some(2))).unwrap();
    let (replicated, _) = view.track_with_replica(&name_of(&equal(2), 1, Some(2))).unwrap();
    view.replica(&name_of(&equal(2), 2, Some(1))).unwrap();
    let left = |track| RingEvent::Left { track, to: None };
    assert_eq!(view.close(), [left(mine), left(replicated)]);
    assert_eq!(view.close(), []);
    assert_eq!(tracks(view.set_members(equal(3))), []);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// What a member says it loses to another, that one says it steals from it, and the other way round.
    #[test]
    fn members_agree_on_what_moves(old in sets(6), new in sets(6)) {
        let everyone: BTreeSet<MemberId> = old.iter().chain(&new).map(|m| m.0).collect();
        let (mut moves, mut steals) = (BTreeSet::new(), BTreeSet::new());
        for me in everyone {
            let mut view = view(me, &old);
            let events = view.set_members(new.iter().copied());
            let mut shuffled_view = self::view(me, &shuffled(&old, 1));
            prop_assert_eq!(&events, &shuffled_view.set_members(shuffled(&new, 2)));
            let (moved, stolen) = told(me, &events);
            moves.extend(moved);
            steals.extend(stolen);
        }
        let (before, now) = (place(&old), place(&new));
        for slot in 0..=u16::MAX {
            let (from, to, slot) = (before.owner(slot), now.owner(slot), u32::from(slot));
            let differs = from != to;
            if let Some(from) = from {
                prop_assert_eq!(moves.contains(&(from, to, slot)), differs);
            }
            if let Some(to) = to {
                prop_assert_eq!(steals.contains(&(from, to, slot)), differs);
            }
        }
        let slots = |m: &(MemberId, Option<MemberId>, u32)| m.1.map(|to| (m.0, to, m.2));
        let moves: BTreeSet<_> = moves.iter().filter_map(slots).collect();
        let slots = |s: &(Option<MemberId>, MemberId, u32)| s.0.map(|from| (from, s.1, s.2));
        prop_assert_eq!(moves, steals.iter().filter_map(slots).collect::<BTreeSet<_>>());
    }

    /// Every track tells when and only when it has to, through any changes.
    #[test]
    fn tracks_follow_the_owner(history in prop::collection::vec(sets(5), 1..6), seed: u64) {
        let mut view = RingView::new(ME, 1000);
        let mut rng = Rng::new(seed);
        // Name, whether it is tracked with its replica, or else waited for.
        let mut expected: BTreeMap<TrackId, (Vec<u8>, bool, Option<MemberId>)> = BTreeMap::new();
        for set in history {
            let mut due = Vec::new();
            let placement = place(&set);
            expected.retain(|&track, (name, replica, next)| {
                let owner = placement.owner_of(name);
                let waits = next.is_none() && !*replica;
                if waits && owner == Some(ME) {
                    due.push(RingEvent::Came { track });
                    return false;
                }
                if *replica && owner != Some(ME) {
                    due.push(RingEvent::Left { track, to: owner });
                    return false;
                }
                if *replica {
                    let old = *next;
                    *next = placement.next(slot_of(name), &[]);
                    if let Some(new) = next.filter(|_| *next != old) {
                        due.push(RingEvent::NextChanged { track, new, old });
                    }
                }
                true
            });
            prop_assert_eq!(tracks(view.set_members(set)), due);
            for _ in 0..20 {
                let name = rng.next().to_le_bytes().to_vec();
                if view.is_mine(&name) {
                    let (track, event) = view.track_with_replica(&name).unwrap();
                    let next = view.next(&name, &[]);
                    prop_assert_eq!(event.is_some(), next.is_some());
                    expected.insert(track, (name, true, next));
                } else {
                    expected.insert(view.replica(&name).unwrap(), (name, false, None));
                }
            }
        }
        prop_assert_eq!(view.tracked(), expected.len());
    }
}
