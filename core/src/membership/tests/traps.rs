//! Bugs that other failure detectors had, each with the schedule that shows it.

use super::rules::{Bench, alive, datagram, dead, left, life, read, suspect};
use super::*;
use crate::membership::wire::{Body, SyncMessage, Update};

/// G1: Alive@1, Dead@1, Dead@10, then a late Alive@2 must not bring it back.
#[test]
fn g1_later_evidence_raises_the_incarnation_of_the_dead() {
    let mut bench = Bench::among(&[2]);
    let at = |statement: u64| Incarnation(life(1).0 + statement);
    bench.hear(2, &[alive(9, at(1)), dead(9, at(1)), dead(9, at(10))]);
    bench.flush();
    bench.hear(2, &[alive(9, at(2)), alive(9, at(10))]);
    assert_eq!((bench.state(9), bench.incarnation(9)), (Some(State::Dead), at(10)));
    assert_eq!(bench.events(), []);
    bench.hear(2, &[alive(9, at(11))]);
    assert_eq!(bench.state(9), Some(State::Alive), "it refuted");
}

/// G1, for every state and every later evidence.
#[test]
fn g1_later_evidence_always_raises() {
    let one = life(1);
    let later = life(1).next();
    let evidence = |at| [alive(9, at), suspect(9, at, &[2]), dead(9, at), left(9, at)];
    for first in evidence(one) {
        for second in evidence(later) {
            let mut bench = Bench::among(&[2]);
            bench.hear(2, &[first.clone(), second.clone()]);
            assert_eq!(bench.incarnation(9), later, "{first:?}, {second:?}");
            bench.hear(2, &evidence(one));
            assert_eq!(bench.incarnation(9), later, "{first:?}, {second:?}");
        }
    }
}

/// G2: the first thing that a restarted member says outranks all that was said of its earlier life, however
/// often it had refuted there, also when what it had said was never stored.
#[test]
fn g2_a_restart_outranks_everything_said_before() {
    let mut restored = Incarnation::default();
    for start in 0..50 {
        let (config, now) = (Config::new(CLUSTER), Instant(0));
        let rng = Rng::new(start);
        let mut machine =
            Membership::new(config, MemberId(1), profile(1), restored, rng, now).unwrap();
        let mut effects = Effects::default();
        machine.flush(&mut effects);
        assert!(machine.incarnation() > Incarnation(restored.0 + 10_000));
        restored = effects.persist[0];
        machine.on_persisted(now, restored);
    }
}

/// G3: an accusation against an unknown member is passed on, and who told it is asked.
#[test]
fn g3_an_accusation_against_a_stranger_is_passed_on_and_asked_about() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(2, &[suspect(9, life(1), &[2])]);
    let said = bench.said();
    let [(to, _, body, _)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((*to, *body), (address(2), Body::Pull { member: MemberId(9) }));

    bench.receive(3, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
    let said = bench.said();
    assert!(said[0].3.contains(&suspect(9, life(1), &[2])), "{said:?}");
    assert_eq!(bench.machine.present_len(), 3, "a name is no member");

    bench.hear(2, &[alive(9, life(1)), suspect(9, life(1), &[2])]);
    assert_eq!((bench.state(9), bench.machine.present_len()), (Some(State::Suspect), 4));
    let events = bench.events();
    assert!(
        matches!(&events[..], [Event::Joined(one), Event::Suspected(two)] if one == two),
        "{events:?}"
    );
}

/// G3, the other side.
#[test]
fn g3_who_is_asked_about_a_member_tells_what_it_knows() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(3, &[suspect(2, life(1), &[3])]);
    bench.machine.news = News::default();
    bench.flush();
    bench.receive(3, life(1), Body::Pull { member: MemberId(2) }, &[]);
    let said = bench.said();
    let [(to, _, body, updates)] = &said[..] else { panic!("{said:?}") };
    assert_eq!((*to, *body), (address(3), Body::Gossip));
    assert_eq!(*updates, [alive(2, life(1)), suspect(2, life(1), &[3])]);
    bench.receive(3, life(1), Body::Pull { member: MemberId(99) }, &[]);
    assert_eq!(bench.said().len(), 0);
}

/// G4: death is told, and who is dead is not added again, neither by a datagram nor by a comparison.
#[test]
fn g4_a_ghost_is_not_added_again() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(2, &[suspect(3, life(1), &[2, 1])]);
    bench.pass(secs(6));
    bench.flush();
    bench.receive(2, life(1), Body::Ping { to: MemberId(1).into() }, &[]);
    let said = bench.said();
    assert!(said[0].3.contains(&dead(3, life(1))), "{said:?}");

    for _ in 0..30 {
        bench.hear(2, &[alive(3, life(1)), suspect(3, life(1), &[2])]);
        let updates = alloc::vec![alive(3, life(1))];
        let records = SyncMessage::Records { updates, wanted: Vec::new() };
        bench.machine.on_sync(bench.now, MemberId(2), records);
        bench.pass(secs(60));
    }
    assert_eq!(bench.state(3), Some(State::Dead));
    assert!(!bench.events().iter().any(|event| matches!(event, Event::Joined(_))));
}

/// G5: who has a member's address now does not answer for it.
#[test]
fn g5_a_ping_for_the_former_owner_of_the_address_is_not_answered() {
    let mut bench = Bench::among(&[2]);
    bench.receive(2, life(1), Body::Ping { to: MemberId(7).into() }, &[]);
    assert_eq!((bench.said().len(), bench.machine.counters().misdirected), (0, 1));
    // Nor is one from a stranger.
    bench.receive(3, life(1), Body::Ping { to: MemberId(7).into() }, &[]);
    assert_eq!((bench.said().len(), bench.machine.counters().misdirected), (0, 2));
}

/// G5: what an earlier life of a member sent does not count, and an answer of another member is none.
#[test]
fn g5_an_earlier_life_does_not_count() {
    let mut bench = Bench::among(&[2]);
    bench.hear(2, &[alive(2, life(2)), alive(3, life(1))]);
    bench.flush();
    bench.receive(2, life(1), Body::Gossip, &[dead(3, life(1))]);
    assert_eq!(bench.state(3), Some(State::Alive));
    assert_eq!((bench.machine.counters().stale, bench.said().len()), (1, 0));

    // If it is the member itself, put back to an earlier state, it is told.
    bench.receive(2, life(1), Body::Join, &[alive(2, life(1))]);
    let said = bench.said();
    assert!(said[0].3.contains(&alive(2, life(2))), "{said:?}");
}

/// G6: it was this member that did not run.
#[test]
fn g6_a_stopped_member_gives_no_verdict_when_it_wakes() {
    let mut bench = Bench::among(&[2, 3, 4, 5]);
    bench.hear(2, &[suspect(5, life(1), &[2])]);
    let (target, ping) = bench.until_ping();
    bench.now = bench.now + secs(100);
    bench.machine.on_wakeup(bench.now);
    let events = bench.events();
    assert!(matches!(events[..], [Event::Stalled { lateness }] if lateness > secs(99)));
    assert!(bench.state(target.0).unwrap().is_present());
    assert_eq!(bench.state(5), Some(State::Suspect), "its time did not run");
    assert_eq!(bench.machine.health(), 1);

    // What waited in the socket is read now.
    bench.hear(5, &[alive(5, life(1).next())]);
    bench.receive(target.0, life(1), Body::Ack { echo: ping }, &[]);
    assert_eq!(bench.state(5), Some(State::Alive));
}

/// G6: a suspicion that was nearly over when the process stopped waits for what is in the socket.
#[test]
fn g6_a_suspicion_does_not_end_right_after_a_pause() {
    let mut bench = Bench::among(&[2, 3]);
    bench.hear(2, &[suspect(3, life(1), &[2, 1])]);
    let end = bench.machine.table.next_end().unwrap().0;
    while bench.machine.deadline().unwrap() < end {
        bench.wake();
    }
    bench.now = bench.now + secs(50);
    bench.machine.on_wakeup(bench.now);
    assert_eq!(bench.state(3), Some(State::Suspect));
    bench.pass(secs(2));
    assert_eq!(bench.state(3), Some(State::Dead), "but it ends");
}

/// G8: nothing of another cluster counts, whatever address it comes from.
#[test]
fn g8_another_cluster_changes_nothing() {
    let mut bench = Bench::among(&[2]);
    let before = bench.machine.digest();
    let other = ClusterId(78);
    for (seq, body) in
        [Body::Join, Body::Gossip, Body::Ping { to: MemberId(1).into() }].iter().enumerate()
    {
        let seq = u64::try_from(seq).unwrap() + 5000;
        let bytes = datagram(other, 2, life(1), seq, *body, &[dead(2, life(1)), alive(9, life(1))]);
        bench.machine.on_datagram(bench.now, address(2), &bytes);
    }
    assert_eq!((bench.machine.digest(), bench.machine.counters().other_cluster), (before, 3));
    let datagrams = bench.flush().datagrams;
    let [(to, bytes)] = &datagrams[..] else { panic!("only who wants to join is answered") };
    let (header, body, updates) = read(bytes);
    assert_eq!((*to, header.cluster, body), (address(2), CLUSTER, Body::Foreign));
    assert_eq!(updates, [], "and learns nothing");
}

/// G10: nobody can send to a wildcard or to port 0.
#[test]
fn g10_a_wildcard_is_no_address() {
    for wrong in ["0.0.0.0:7000", "[::]:7000", "10.0.0.1:0", "224.0.0.1:7000", "255.255.255.255:1"]
    {
        for stream in [false, true] {
            let mut one = profile(1);
            let field = if stream { &mut one.stream } else { &mut one.datagram };
            *field = wrong.parse().unwrap();
            let made = Membership::new(
                Config::new(CLUSTER),
                MemberId(1),
                one,
                Incarnation::default(),
                Rng::new(1),
                Instant(0),
            );
            let Err(InvalidMembership::Profile(error)) = made else { panic!("{wrong}") };
            assert!(matches!(error, ProfileError::Address { .. }), "{error}");
        }
    }
    // A peer that says so is not believed.
    let mut bench = Bench::among(&[2]);
    let nowhere = Profile { datagram: "0.0.0.0:1".parse().unwrap(), ..profile(9) };
    let (member, incarnation) = (MemberId(9), life(1));
    bench.hear(2, &[Update::Alive { member, incarnation, profile: nowhere }]);
    assert_eq!((bench.state(9), bench.machine.counters().malformed), (None, 1));
}

/// X10: a datagram counts once.
#[test]
fn x10_a_repeated_datagram_changes_nothing() {
    let mut bench = Bench::among(&[2, 3]);
    let news = [suspect(3, life(1), &[2])];
    let bytes = datagram(CLUSTER, 2, life(1), 5000, Body::Ping { to: MemberId(1).into() }, &news);
    bench.machine.on_datagram(bench.now, address(2), &bytes);
    bench.hear(3, &[alive(3, life(1).next())]);
    bench.flush();
    let before = bench.machine.clone();
    for hour in 0..10_000 {
        bench.machine.on_datagram(bench.now, address(hour), &bytes);
    }
    assert_eq!(bench.flush(), Effects::default(), "not even an answer");
    assert_eq!(bench.machine.counters().replayed, 10_000);
    assert_eq!(bench.machine.table, before.table);
}

/// X10: what was recorded before a restart of this member does not count after it, although it knows nothing any
/// more of what it had seen; nor does what a member sent whom all have forgotten.
#[test]
fn x10_what_was_recorded_before_a_restart_changes_nothing() {
    let mut recorded = Vec::new();
    for seq in 0..50 {
        let news = [alive(9, life(1)), dead(3, life(7)), alive(2, life(1))];
        let seen = 1001 + seq;
        for body in [
            Body::Join,
            Body::Gossip,
            Body::Ping { to: MemberId(1).into() },
            Body::Ack { echo: seq },
            Body::AckProve { echo: seq },
            Body::PingFor { target: MemberId(3) },
            Body::Relayed { echo: seq },
            Body::Nack { echo: seq },
            Body::Pull { member: MemberId(3) },
        ] {
            recorded.push(datagram(CLUSTER, 2, life(1), seen, body, &news));
        }
    }
    // Sender 2 is unknown, then known from others.
    for known in [false, true] {
        let mut bench = Bench::among(&[3]);
        if known {
            bench.hear(3, &[alive(2, life(1))]);
        }
        bench.flush();
        let before = (bench.machine.digest(), bench.machine.version());
        for bytes in &recorded {
            bench.machine.on_datagram(bench.now, address(66), bytes);
        }
        let effects = bench.flush();
        assert_eq!((bench.machine.digest(), bench.machine.version()), before);
        assert_eq!((effects.events, effects.syncs), (Vec::new(), Vec::new()));
        assert_eq!((bench.state(9), bench.state(3)), (None, Some(State::Alive)));
        let (sent, received): (usize, usize) = (
            effects.datagrams.iter().map(|(_, bytes)| bytes.len()).sum(),
            recorded.iter().map(Vec::len).sum(),
        );
        assert!(sent <= received, "nobody gets more than was sent in his name");
    }
}

/// X10: an answer proves something only to the question that was asked of that member.
#[test]
fn x10_a_proof_fits_its_question() {
    let mut bench = Bench::new();
    bench.receive(2, life(1), Body::Join, &[alive(2, life(1))]);
    let echo = bench.said()[0].1.seq;
    bench.receive(3, life(1), Body::Ack { echo }, &[alive(3, life(1))]);
    bench.receive(2, life(1), Body::Ack { echo: echo + 1 }, &[alive(2, life(1))]);
    assert_eq!((bench.state(2), bench.state(3)), (None, None));
    bench.receive(2, life(1), Body::Ack { echo }, &[alive(2, life(1))]);
    assert_eq!(bench.state(2), Some(State::Alive));
    bench.receive(3, life(1), Body::Ack { echo }, &[alive(3, life(1))]);
    assert_eq!(bench.state(3), None, "a question is answered once");
}

/// X1, X3: a length that is claimed reserves nothing.
#[test]
fn x1_a_claimed_length_is_refused() {
    let mut bench = Bench::among(&[2]);
    let mut bytes = datagram(CLUSTER, 2, life(1), 9000, Body::Gossip, &[]);
    // A suspicion with 2^32 - 1 accusers.
    bytes.extend_from_slice(&[1, 9, 0, 0, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
    bench.machine.on_datagram(bench.now, address(2), &bytes);
    assert_eq!((bench.state(9), bench.machine.counters().malformed), (None, 1));

    let claims = [2, 0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2];
    assert!(postcard::from_bytes::<SyncMessage>(&claims).is_err());
    let too_many_buckets: Vec<u8> = [1, 65].into_iter().chain([0; 65]).collect();
    assert!(postcard::from_bytes::<SyncMessage>(&too_many_buckets).is_err());
}

/// X3: what a datagram becomes in memory is a small multiple of its length.
#[test]
fn x3_a_datagram_holds_few_updates() {
    let shortest = dead(1, life(1));
    let updates = alloc::vec![shortest; 5_000];
    let bytes = datagram(CLUSTER, 2, life(1), 1, Body::Gossip, &updates[..132]);
    assert!(bytes.len() <= 1360);
    let memory = 132 * size_of::<Update>();
    assert!(memory < 16 * 1360, "{memory}");
    let mut bench = Bench::among(&[2]);
    let long = datagram(CLUSTER, 2, life(1), 1, Body::Gossip, &updates);
    bench.machine.on_datagram(bench.now, address(2), &long);
    assert_eq!(bench.machine.counters().malformed, 1, "longer than any datagram that is sent");
}
