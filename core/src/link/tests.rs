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

/// Who is dialled next, and where.
fn connects(links: &mut Links, now: Instant) -> Vec<(Dial, String)> {
    let mut out = Vec::new();
    links.drive(now, &mut out);
    let connects = out.into_iter().filter_map(|output| match output {
        Output::Connect { dial, address } => Some((dial, address)),
        _ => None,
    });
    connects.collect()
}

fn dials(links: &mut Links, now: Instant) -> Vec<Dial> {
    connects(links, now).into_iter().map(|(dial, _)| dial).collect()
}

fn dialled(links: &mut Links, now: Instant) -> Vec<String> {
    connects(links, now).into_iter().map(|(_, address)| address).collect()
}

/// A dial is answered by this member, and the link is up. Returns the connection that was given up for it.
fn answered(
    links: &mut Links,
    now: Instant,
    (dial, conn): (Dial, u64),
    who: MemberId,
) -> Option<ConnId> {
    let conn = ConnId(conn);
    links.on_connected(now, conn, Some(dial), &me(), &mut Vec::new());
    links.identify(now, conn, who);
    links.hold(conn, (who, Boot(1)), LogSeq(0), None);
    let surplus = links.set_up(MemberId::joiner(1), conn, who);
    if let Some(surplus) = surplus {
        links.drop_conn(now, surplus);
    }
    surplus
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
    assert_eq!(answered(&mut links, now, (dial, 1), member), None);

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

/// A member was found at another name first. Where the directory has it it is dialled after each loss, and the name only
/// when nobody is there for a while.
#[test]
fn a_member_is_dialled_where_the_directory_has_it_and_then_at_its_seed() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (member, mut now) = (MemberId::joiner(3), Instant(0));
    links.add_target(now, None, "seed".to_string());
    links.add_target(now, Some(member), "a".to_string());
    let [seed, named] = dials(&mut links, now)[..] else { panic!("both are due") };
    answered(&mut links, now, (named, 1), member);
    answered(&mut links, now, (seed, 2), member);
    for conn in [2, 3] {
        links.drop_conn(now, ConnId(conn));
        now = now + A_MINUTE;
        let [dial] = dials(&mut links, now)[..] else { panic!("one of them") };
        answered(&mut links, now, (dial, conn + 1), member);
    }
    links.drop_conn(now, ConnId(4));
    for _ in 0..FRUITLESS {
        now = now + A_MINUTE;
        let [(dial, address)] = &connects(&mut links, now)[..] else { panic!("one of them") };
        assert_eq!(address, "a", "where the directory has it");
        links.on_connect_failed(now, *dial);
    }
    now = now + A_MINUTE;
    let mut addresses = dialled(&mut links, now);
    addresses.sort_unstable();
    assert_eq!(addresses, ["a", "seed"]);
}

/// One name leads to each of several members. Whoever is found there keeps none of them from being dialled.
#[test]
fn a_name_that_leads_to_several_takes_nobody_from_another() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (one, two, mut now) = (MemberId::joiner(3), MemberId::joiner(4), Instant(0));
    links.add_target(now, None, "ring".to_string());
    let ring = dials(&mut links, now)[0];
    answered(&mut links, now, (ring, 1), one);
    links.add_target(now, Some(one), "a".to_string());
    links.add_target(now, Some(two), "b".to_string());
    let b = dials(&mut links, now)[0];
    answered(&mut links, now, (b, 2), two);
    for (conn, address) in [(1, "a"), (2, "b")] {
        links.drop_conn(now, ConnId(conn));
        now = now + A_MINUTE;
        assert_eq!(dialled(&mut links, now), [address], "and {} is connected", 3 - conn);
        let dial = Dial(links.next_dial - 1);
        answered(&mut links, now, (dial, conn + 2), if conn == 1 { one } else { two });
    }
}

/// The directory does not know where a member is: it is dialled where it was found.
#[test]
fn an_address_that_is_not_known_takes_the_place_of_none() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (member, mut now) = (MemberId::joiner(3), Instant(0));
    links.add_target(now, None, "a".to_string());
    let dial = dials(&mut links, now)[0];
    answered(&mut links, now, (dial, 1), member);
    for address in ["b", ""] {
        links.readdress(now, member, Some(&address.to_string()));
    }
    links.drop_conn(now, ConnId(1));
    now = now + A_MINUTE;
    assert_eq!(dialled(&mut links, now), ["a"]);
    links.add_target(now, Some(member), "a".to_string());
    links.readdress(now, member, Some(&String::new()));
    now = now + A_MINUTE;
    assert_eq!(dialled(&mut links, now), [""; 0], "it is being dialled there");
}

/// Another member answers where one was, and has an address of its own: it is left alone, however many tables come, until it
/// has moved or is lost.
#[test]
fn who_answers_for_another_is_left_alone() {
    for moves in [false, true] {
        let mut links = Links::new(Timers::default(), 8, 8);
        let (gone, here, mut now) = (MemberId::joiner(3), MemberId::joiner(4), Instant(0));
        links.add_target(now, Some(gone), "a".to_string());
        links.add_target(now, Some(here), "b".to_string());
        let [a, b] = dials(&mut links, now)[..] else { panic!("both") };
        answered(&mut links, now, (b, 1), here);
        answered(&mut links, now, (a, 2), here);
        for _ in 0..3 {
            for (member, address) in [(gone, "a"), (here, "b")] {
                links.readdress(now, member, Some(&address.to_string()));
                links.add_target(now, Some(member), address.to_string());
            }
            now = now + A_MINUTE;
            assert_eq!(dials(&mut links, now), []);
        }
        if moves {
            links.readdress(now, here, Some(&"c".to_string()));
            now = now + A_MINUTE;
            assert_eq!(dialled(&mut links, now), ["a"]);
        } else {
            links.drop_conn(now, ConnId(2));
            now = now + A_MINUTE;
            assert_eq!(dialled(&mut links, now), ["a", "b"]);
        }
        assert_eq!(links.targets(), 2);
    }
}

/// A member moves while it is dialled where it was: what answers there late is not it.
#[test]
fn a_dial_under_way_does_not_outlive_its_address() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (member, now) = (MemberId::joiner(3), Instant(0));
    links.add_target(now, Some(member), "a".to_string());
    let late = dials(&mut links, now)[0];
    links.readdress(now, member, Some(&"b".to_string()));
    assert_eq!(dialled(&mut links, now), ["b"]);
    let mut out = Vec::new();
    links.on_connected(now, ConnId(1), Some(late), &me(), &mut out);
    assert!(matches!(out[..], [Output::Disconnect { conn: ConnId(1) }]), "{out:?}");
}

/// A member is forgotten while the link to it seems up, and another one has its address.
#[test]
fn who_takes_an_address_over_is_dialled_when_the_last_one_is_forgotten() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (last, next, mut now) = (MemberId::joiner(3), MemberId::joiner(4), Instant(0));
    links.add_target(now, Some(last), "a".to_string());
    let dial = dials(&mut links, now)[0];
    answered(&mut links, now, (dial, 1), last);
    links.add_target(now, Some(next), "a".to_string());
    now = now + A_MINUTE;
    assert_eq!(dials(&mut links, now), [], "who is there is connected");
    links.readdress(now, last, None);
    now = now + A_MINUTE;
    assert_eq!(dialled(&mut links, now), ["a"]);
}

/// Two seeds lead to one member, which has moved: the one where it was, as the directory still says, keeps nobody from the other.
/// The same if somebody accepts there and says nothing.
#[test]
fn a_seed_that_leads_nowhere_keeps_nobody_from_another() {
    for answers in [false, true] {
        let mut links = Links::new(Timers::default(), 8, 8);
        let (member, mut now) = (MemberId::joiner(3), Instant(0));
        links.add_target(now, None, "a".to_string());
        links.add_target(now, None, "name".to_string());
        let [first, second] = dials(&mut links, now)[..] else { panic!("both are due") };
        answered(&mut links, now, (first, 1), member);
        answered(&mut links, now, (second, 2), member);
        links.add_target(now, Some(member), "a".to_string());
        links.drop_conn(now, ConnId(2));
        let mut conn = 3;
        for _ in 0..FRUITLESS {
            now = now + A_MINUTE;
            for dial in dials(&mut links, now) {
                conn += 1;
                if answers {
                    links.on_connected(now, ConnId(conn), Some(dial), &me(), &mut Vec::new());
                    links.drop_conn(now, ConnId(conn));
                } else {
                    links.on_connect_failed(now, dial);
                }
            }
        }
        now = now + A_MINUTE;
        let mut addresses = dialled(&mut links, now);
        addresses.sort_unstable();
        assert_eq!(addresses, ["a", "name"], "somebody accepts: {answers}");
    }
}

/// A member moves, and another one takes its place, while this node shakes hands there: the handshake says nothing of where
/// the first one is now.
#[test]
fn a_handshake_under_way_does_not_outlive_its_address() {
    let mut links = Links::new(Timers::default(), 8, 8);
    let (moved, here, mut now) = (MemberId::joiner(3), MemberId::joiner(4), Instant(0));
    links.add_target(now, Some(moved), "a".to_string());
    let dial = dials(&mut links, now)[0];
    links.on_connected(now, ConnId(1), Some(dial), &me(), &mut Vec::new());
    links.readdress(now, moved, Some(&"b".to_string()));
    links.identify(now, ConnId(1), here);
    links.hold(ConnId(1), (here, Boot(1)), LogSeq(0), None);
    assert_eq!(links.set_up(MemberId::joiner(1), ConnId(1), here), None);
    now = now + A_MINUTE;
    assert_eq!(dialled(&mut links, now), ["b"]);
}
