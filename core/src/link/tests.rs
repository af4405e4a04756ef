//! Whom to dial.

use super::*;
use alloc::string::ToString;

const A_MINUTE: Duration = Duration::from_secs(60);

fn me() -> Identity {
    Identity {
        cluster_name: "c".to_string(),
        cluster: Some(ClusterId(1)),
        member: MemberId::joiner(1),
        name: "m".to_string(),
        boot: Boot(1),
        earlier: Vec::new(),
        birth: 1,
        agreement: 0,
        ring: crate::ring::parameters(),
    }
}

fn dials(links: &mut Links, now: Instant) -> Vec<Dial> {
    let mut out = Vec::new();
    links.drive(now, &mut out);
    let dials = out.into_iter().filter_map(|output| match output {
        Output::Connect { dial, .. } => Some(dial),
        _ => None,
    });
    dials.collect()
}

/// Dials, and finds this node itself there.
fn dial_itself(links: &mut Links, now: Instant, conn: ConnId) {
    let dial = dials(links, now).pop().expect("it is due");
    links.on_connected(now, conn, Some(dial), &me(), &mut Vec::new());
    links.on_dialled_itself(conn);
    links.drop_conn(now, conn);
}

/// The own address is dialled again when it is another member's, and never given up for that one.
#[test]
fn an_own_address_may_be_anothers_later() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let mut now = Instant(0);
    links.add_target(now, None, "a".to_string());
    dial_itself(&mut links, now, ConnId(1));
    now = now + A_MINUTE;
    assert_eq!(dials(&mut links, now), []);
    assert_eq!(links.deadline(), None);

    links.add_target(now, Some(MemberId(3)), "a".to_string());
    dial_itself(&mut links, now, ConnId(2));
    now = now + A_MINUTE;
    assert_eq!(dials(&mut links, now).len(), 1);
}

/// A member that was forgotten, and is registered again under its id, is dialled again, where it is by then, and once.
#[test]
fn a_member_that_was_forgotten_is_dialled_when_it_is_back() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (member, mut now) = (MemberId::joiner(3), Instant(0));
    links.add_target(now, Some(member), "a".to_string());
    let dial = dials(&mut links, now).pop().expect("it is due");
    links.readdress(now, member, None);
    assert_eq!(links.on_connect_failed(now, dial), None, "nobody waits for it");
    now = now + A_MINUTE;
    assert_eq!(dials(&mut links, now), []);

    for _ in 0..2 {
        links.add_target(now, Some(member), "b".to_string());
    }
    let mut out = Vec::new();
    links.drive(now, &mut out);
    let is_there =
        |output: &Output| matches!(output, Output::Connect { address, .. } if address == "b");
    assert!(out.len() == 1 && out.iter().all(is_there), "{out:?}");
}

/// So is one that was connected all the while.
#[test]
fn a_member_that_was_forgotten_and_stayed_connected_is_dialled_when_its_link_is_lost() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (member, mut now) = (MemberId::joiner(3), Instant(0));
    links.add_target(now, Some(member), "a".to_string());
    let dial = dials(&mut links, now).pop().expect("it is due");
    links.on_connected(now, ConnId(1), Some(dial), &me(), &mut Vec::new());
    links.identify(ConnId(1), member);
    links.hold(ConnId(1), (member, Boot(1)), LogSeq(0), None);
    assert_eq!(links.set_up(MemberId::joiner(1), ConnId(1), member), None);

    links.readdress(now, member, None);
    links.add_target(now, Some(member), "a".to_string());
    now = now + A_MINUTE;
    assert_eq!(dials(&mut links, now), [], "it is connected");
    links.drop_conn(now, ConnId(1));
    now = now + A_MINUTE;
    assert_eq!(dials(&mut links, now).len(), 1);
}

/// Two members were at one address, one after the other: the one that is connected is not dialled for the other's sake.
#[test]
fn who_is_connected_is_not_dialled_for_the_sake_of_another() {
    let (gone, here) = (MemberId::joiner(3), MemberId::joiner(4));
    let up = |links: &mut Links, now: Instant, conn: ConnId| {
        links.on_connected(now, conn, None, &me(), &mut Vec::new());
        links.hold(conn, (here, Boot(1)), LogSeq(0), None);
        assert_eq!(links.set_up(MemberId::joiner(1), conn, here), None);
        links.settle_at(here, "a");
    };
    for knows_both in [false, true] {
        let mut links = Links::new(Timers::default(), 8, 8);
        let mut now = Instant(0);
        links.add_target(now, Some(gone), "a".to_string());
        if knows_both {
            links.add_target(now, Some(here), "b".to_string());
            links.readdress(now, here, Some(&"a".to_string()));
        }
        up(&mut links, now, ConnId(1));
        for _ in 0..3 {
            now = now + A_MINUTE;
            links.add_target(now, Some(here), "a".to_string());
            links.add_target(now, Some(gone), "a".to_string());
            assert_eq!(dials(&mut links, now), []);
        }
        // When it is lost somebody is dialled there again, once.
        links.drop_conn(now, ConnId(1));
        now = now + A_MINUTE;
        assert_eq!(dials(&mut links, now).len(), 1);
    }
}
