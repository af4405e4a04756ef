//! The ring of a whole cluster: who owns a key when members come and go.

use super::*;
use crate::io::Event;
use crate::node::Awaited;
use crate::ring::{RingEvent, TrackError};

/// Long enough for a member that does not answer to be dead, and for one that is back to be alive to all.
const LOST: Duration = Duration::from_secs(45);

fn owners(cluster: &mut Cluster, keys: &[String]) -> Vec<Vec<Option<MemberId>>> {
    let of = |member: &mut Member| {
        let ring = member.node.ring();
        keys.iter().map(|key| ring.owner(key.as_bytes())).collect()
    };
    cluster.members.iter_mut().map(of).collect()
}

fn keys() -> Vec<String> {
    (0..200).map(|n| alloc::format!("key {n}")).collect()
}

fn me(cluster: &Cluster, member: usize) -> MemberId {
    cluster.members[member].node.view().me()
}

fn ring_events(cluster: &mut Cluster, member: usize) -> Vec<RingEvent> {
    let events = core::mem::take(&mut cluster.members[member].events);
    events
        .into_iter()
        .filter_map(|event| if let Event::Ring(event) = event { Some(event) } else { None })
        .collect()
}

#[test]
fn all_members_give_the_same_answers_and_each_owns_some() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let answers = owners(&mut cluster, &keys());
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    for member in 0..3 {
        assert!(answers[0].contains(&Some(me(&cluster, member))));
    }
}

#[test]
fn who_is_up_knows_the_ring_already() {
    let mut cluster = Cluster::start(1);
    cluster.run(Duration::from_secs(1));
    let up = |event: &Event| matches!(event, Event::Up { .. });
    let ring = |event: &Event| matches!(event, Event::RingChanged { .. });
    let events = &cluster.members[0].events;
    assert!(events.iter().position(ring).unwrap() < events.iter().position(up).unwrap());
}

/// What one loses the others say they take, and it all comes back.
#[test]
fn keys_of_a_lost_member_go_to_others_and_come_back() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let before = owners(&mut cluster, &keys());
    let lost = me(&cluster, 2);
    ring_events(&mut cluster, 0);
    cluster.net.isolated.insert(2);
    cluster.run(LOST);
    let after = owners(&mut cluster, &keys());
    assert_eq!(after[0], after[1]);
    for (old, new) in before[0].iter().zip(&after[0]) {
        assert!(if *old == Some(lost) { *new != Some(lost) } else { new == old });
    }
    let steals = ring_events(&mut cluster, 0);
    assert!(matches!(&steals[..], [RingEvent::Steal { from, .. }] if *from == Some(lost)));
    cluster.net.isolated.clear();
    cluster.run(LOST);
    assert_eq!(owners(&mut cluster, &keys()), before);
    let moves = ring_events(&mut cluster, 0);
    assert!(matches!(&moves[..], [RingEvent::Move { to, .. }] if *to == Some(lost)));
}

#[test]
fn a_tracked_key_tells_once_when_it_leaves_and_one_awaited_when_it_comes() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(3));
    let (first, last) = (me(&cluster, 0), me(&cluster, 2));
    let of_last = |cluster: &mut Cluster, key: &String| {
        let ring = cluster.members[0].node.ring();
        ring.owner(key.as_bytes()) == Some(last) && ring.next(key.as_bytes(), &[]) == Some(first)
    };
    let key = keys().into_iter().find(|key| of_last(&mut cluster, key)).unwrap();
    let node = &mut cluster.members[0].node;
    assert_eq!(node.track(key.as_bytes(), Awaited::Leaving), Err(TrackError::NotMine(Some(last))));
    let coming = node.track(key.as_bytes(), Awaited::Coming).unwrap();
    let leaving = cluster.members[2].node.track(key.as_bytes(), Awaited::LeavingOrNext).unwrap();
    cluster.settle();
    let told = ring_events(&mut cluster, 2);
    let next = RingEvent::NextChanged { track: leaving, new: first, old: None };
    assert!(told.contains(&next), "{told:?}");
    ring_events(&mut cluster, 0);

    // The others lose it, and it loses the others: its own keys stay its own.
    cluster.net.isolated.insert(2);
    cluster.run(LOST);
    assert!(ring_events(&mut cluster, 0).contains(&RingEvent::Came { track: coming }));
    let told = ring_events(&mut cluster, 2);
    assert!(!told.iter().any(|event| matches!(event, RingEvent::Left { .. })), "{told:?}");

    // Now the first owner says what becomes of it.
    let again = cluster.members[0].node.track(key.as_bytes(), Awaited::Leaving).unwrap();
    cluster.net.isolated.clear();
    cluster.run(LOST);
    let left = RingEvent::Left { track: again, to: Some(last) };
    assert_eq!(ring_events(&mut cluster, 0).iter().filter(|event| **event == left).count(), 1);
    assert!(!cluster.members[0].node.untrack(again), "it has told, and is over");
}
