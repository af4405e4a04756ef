//! Who is alive: what the members think of each other, and what they tell the application.

use alloc::boxed::Box;

use super::*;
use crate::io::{MemberChange, Peer};
use crate::membership::{self, Effects as Gossiped, Incarnation, Membership, Profile, State};

impl Cluster {
    fn alive(&self, member: usize) -> Vec<MemberId> {
        self.members[member].node.view().alive().collect()
    }

    fn state(&self, member: usize, of: MemberId) -> Option<State> {
        self.members[member].node.view().peer(of).map(|peer| peer.state)
    }

    fn me(&self, member: usize) -> MemberId {
        self.members[member].node.view().me()
    }

    /// What the application of a member was told of another since it was asked last.
    fn told(&mut self, member: usize, of: MemberId) -> Vec<MemberChange> {
        let mut told = Vec::new();
        self.members[member].events.retain(|event| match event {
            Event::Member { peer, change } if peer.id == of => {
                told.push(*change);
                false
            }
            _ => true,
        });
        told
    }

    fn incarnation(&self, member: usize, of: MemberId) -> Incarnation {
        let view = self.members[member].node.view();
        view.gossip().unwrap().thought(of).expect("known by then").0
    }

    /// The members with these names, founded; those of which `gossips` is false have no address for datagrams.
    fn some_gossip(gossips: &[bool]) -> Self {
        let mut cluster = Self::start(gossips.len());
        let names: Vec<String> = (0..gossips.len()).map(|i| alloc::format!("m{i}")).collect();
        for (place, gossips) in gossips.iter().enumerate() {
            let mut config = config(&names, &names[place]);
            if !gossips {
                config.gossip = None;
            }
            let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
            let restored = Restored { log: Recovered::default(), store };
            let seed = crate::ids::len_u64(place) + 100;
            let node = Node::new(config, restored, seed, cluster.now).unwrap();
            cluster.members[place] = Member::new(node, worker);
        }
        cluster
    }
}

const ALL: [MemberId; 3] = [MemberId(1), MemberId(2), MemberId(3)];
const SECOND: Duration = Duration::from_secs(1);

/// Nobody is told anybody's address for datagrams: the links are enough to find each other.
#[test]
fn members_find_each_other_over_their_links() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 5);
    for (member, me) in ALL.into_iter().enumerate() {
        assert_eq!(cluster.alive(member), ALL);
        let view = cluster.members[member].node.view();
        let gossip = view.gossip().unwrap();
        assert_eq!(gossip.present_len(), 3, "and by gossip, not only by their links");
        assert_eq!(gossip.digest(), cluster.members[0].node.view().gossip().unwrap().digest());
        for other in ALL.into_iter().filter(|other| *other != me) {
            assert_eq!(cluster.told(member, other)[0], MemberChange::Joined);
        }
    }
    cluster.run(SECOND * 60);
    for member in 0..3 {
        for other in ALL {
            assert_eq!(cluster.told(member, other), [], "and nobody is suspected");
        }
    }
}

/// A member that is cut off is a suspect, which is still alive, then dead; when it is back it is alive again, for all.
#[test]
fn a_member_that_is_cut_off_fails_and_returns() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 10);
    for member in 0..3 {
        cluster.members[member].events.clear();
    }
    let version = cluster.members[0].node.view().alive_version();
    cluster.net.isolated.insert(2);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.told(0, MemberId(3)), [MemberChange::Suspect]);
    assert_eq!(cluster.alive(0), ALL, "a suspect keeps its slots");
    assert_eq!(cluster.members[0].node.view().alive_version(), version);

    cluster.run(SECOND * 40);
    for member in [0, 1] {
        assert_eq!(cluster.alive(member), ALL[..2]);
        assert_eq!(cluster.state(member, MemberId(3)), Some(State::Dead));
        assert_eq!(cluster.told(member, MemberId(3)).last(), Some(&MemberChange::Failed));
        let other = MemberId(2 - crate::ids::len_u64(member));
        assert_eq!(cluster.told(member, other), []);
    }
    assert_eq!(cluster.alive(2), [MemberId(3)]);
    assert!(cluster.members[0].node.view().alive_version() > version);

    cluster.net.isolated.clear();
    cluster.run(SECOND * 20);
    for member in 0..3 {
        assert_eq!(cluster.alive(member), ALL);
    }
    assert_eq!(cluster.told(0, MemberId(3)).first(), Some(&MemberChange::Joined));
    assert_eq!(cluster.state(0, MemberId(3)), Some(State::Alive));
}

/// A member that was started again outranks all that was said of it before, though nothing of the failure detector was
/// ever written down.
#[test]
fn a_restart_begins_a_greater_life() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 5);
    cluster.net.isolated.insert(2);
    cluster.run(SECOND * 40);
    assert_eq!(cluster.state(0, MemberId(3)), Some(State::Dead));
    let buried = cluster.incarnation(0, MemberId(3));

    let log = cluster.log_of(2);
    cluster.net.isolated.clear();
    cluster.restart(2, log);
    cluster.run(SECOND * 5);
    assert!(cluster.incarnation(2, MemberId(3)) > buried);
    for member in 0..3 {
        assert_eq!(cluster.alive(member), ALL);
    }
}

/// The start counter is durable before the first datagram leaves, so its life is never used twice.
#[test]
fn nothing_is_gossiped_before_the_start_is_durable() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 5);
    let log = cluster.log_of(2);
    cluster.restart(2, log);
    cluster.members[2].disk_stalls = true;
    cluster.run(SECOND * 5);
    assert_eq!(cluster.members[2].node.view().gossip(), None);
    let upto = cluster.members[2].appended.last().unwrap().seq;
    cluster.members[2].disk_stalls = false;
    cluster.members[2].inputs.push_back(Input::Stored { upto });
    cluster.run(SECOND);
    let gossip = cluster.members[2].node.view().gossip().unwrap();
    assert_eq!(gossip.incarnation().0 >> 40, 2, "the second start");
}

/// Who joins counts from when it is registered. Who leaves says so: the others need not find out.
#[test]
fn who_joins_and_leaves_is_told() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 20);
    let place = cluster.join("m3");
    cluster.run(SECOND * 20);
    let id = cluster.me(place);
    assert_eq!(cluster.alive(0), [ALL[0], ALL[1], ALL[2], id]);
    assert_eq!(cluster.alive(place), cluster.alive(0));
    assert_eq!(cluster.told(0, id), [MemberChange::Joined]);

    cluster.members[place].node.leave(false);
    cluster.run(SECOND * 20);
    assert!(cluster.members[place].events.contains(&Event::Left));
    for member in 0..3 {
        assert_eq!(cluster.alive(member), ALL);
        assert_eq!(cluster.told(member, id).last(), Some(&MemberChange::Left));
        let gossip = cluster.members[member].node.view().gossip().unwrap();
        assert_eq!(gossip.state(id), Some(State::Left), "it said so itself");
    }
}

/// Who is stopped in good order is not waited for; when it is started again it is there at once.
#[test]
fn who_stops_in_good_order_says_so() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 10);
    let id = cluster.me(2);
    cluster.told(0, id);
    let now = cluster.now;
    cluster.members[2].node.stop(now);
    cluster.turn();
    cluster.net.isolated.insert(2);
    cluster.run(SECOND);
    for member in [0, 1] {
        assert_eq!(cluster.told(member, id).last(), Some(&MemberChange::Left));
        assert_eq!(cluster.alive(member), ALL[..2]);
    }
    let log = cluster.log_of(2);
    cluster.restart(2, log);
    cluster.net.isolated.clear();
    cluster.run(SECOND * 5);
    assert_eq!(cluster.told(0, id), [MemberChange::Joined]);
    assert_eq!(cluster.alive(0), ALL);
}

/// Everybody can gossip who knows the cluster's id. Who is not registered owns nothing, and nobody is told of it.
#[test]
fn a_stranger_that_gossips_does_not_count() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 5);
    let genesis = cluster.members[0].node.view().genesis().unwrap().clone();
    let (own, theirs) = (datagram_address(900), datagram_address(0));
    let (id, now) = (MemberId::joiner(77), cluster.now.instant);
    let profile = Profile {
        name: "stranger".to_string(),
        datagram: own,
        stream: own,
        weight: 1,
        tags: Vec::new(),
    };
    let config = membership::Config::new(genesis.cluster);
    let restored = Incarnation::default();
    let mut stranger = Membership::new(config, id, profile, restored, Rng::new(5), now).unwrap();
    stranger.on_persisted(now, stranger.incarnation());
    stranger.join(now, &[theirs]);
    let node = &mut cluster.members[0].node;
    for _ in 0..5 {
        let mut effects = Gossiped::default();
        stranger.flush(&mut effects);
        for (_, bytes) in effects.datagrams {
            node.handle(cluster.now, Input::Datagram { from: own, bytes });
        }
        let mut out = Outbox::new();
        node.flush(cluster.now, &mut out);
        for output in out.outputs() {
            if let Output::Datagram { to, bytes } = output
                && *to == own
            {
                stranger.on_datagram(now, theirs, bytes);
            }
            assert!(!matches!(output, Output::Event(Event::Member { .. })), "{output:?}");
        }
    }
    assert_eq!(node.view().gossip().unwrap().state(id), Some(State::Alive), "it got so far");
    assert_eq!(cluster.alive(0), ALL);
    assert_eq!(cluster.state(0, id), None);
}

/// A member that was let go and does not know gossips on, and counts no more.
#[test]
fn a_former_member_does_not_count() {
    let mut cluster = Cluster::start(4);
    cluster.run(SECOND * 30);
    let gone = cluster.me(3);
    // Nobody can connect to it any more, but its datagrams pass.
    cluster.net.unlinked.insert(3);
    cluster.run(SECOND * 400);
    assert_eq!(cluster.members[0].node.view().directory().unwrap().member(gone), None);
    let gossip = cluster.members[0].node.view().gossip().unwrap();
    assert_eq!(gossip.state(gone), Some(State::Alive), "it answers every probe");
    assert_eq!(cluster.alive(0), ALL);
    assert_eq!(cluster.told(0, gone).last(), Some(&MemberChange::Left));
}

/// Links that are lost while datagrams pass say nothing about who is alive.
#[test]
fn gossip_outlives_links() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 10);
    let events = cluster.told(0, MemberId(3));
    assert_eq!(events, [MemberChange::Joined]);
    cluster.net.unlinked.insert(2);
    cluster.run(SECOND * 60);
    assert_eq!(cluster.alive(0), ALL);
    assert_eq!(cluster.told(0, MemberId(3)), []);
}

/// Where datagrams are not let through, links say who answers: nobody is suspected, and who is silent on both fails.
#[test]
fn links_vouch_where_datagrams_do_not_pass() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 10);
    for member in 0..3 {
        cluster.members[member].events.clear();
    }
    cluster.net.no_datagrams = true;
    cluster.run(SECOND * 120);
    for member in 0..3 {
        assert_eq!(cluster.alive(member), ALL);
        for other in ALL {
            assert_eq!(cluster.told(member, other), []);
        }
    }
    // Away for a moment: it hears of the suspicion when it is back, and refutes.
    cluster.net.isolated.insert(2);
    cluster.run(SECOND * 4);
    cluster.net.isolated.clear();
    cluster.run(SECOND * 60);
    let told = cluster.told(0, MemberId(3));
    assert_eq!(told, [MemberChange::Suspect, MemberChange::Recovered]);
    assert!(!cluster.told(1, MemberId(3)).contains(&MemberChange::Failed));

    cluster.net.isolated.insert(2);
    cluster.run(SECOND * 40);
    assert_eq!(cluster.alive(0), ALL[..2]);
    assert_eq!(cluster.told(0, MemberId(3)), [MemberChange::Suspect, MemberChange::Failed]);
    assert_eq!(cluster.told(0, MemberId(2)), []);
}

/// Where a member does not gossip its link says whether it is alive; others go by gossip.
#[test]
fn links_tell_of_members_that_do_not_gossip() {
    let mut cluster = Cluster::some_gossip(&[true, true, false]);
    cluster.run(SECOND * 10);
    for member in 0..3 {
        assert_eq!(cluster.alive(member), ALL);
    }
    assert_eq!(cluster.members[2].node.view().gossip(), None);
    cluster.net.isolated.insert(2);
    cluster.run(SECOND * 10);
    assert_eq!(cluster.alive(0), ALL[..2]);
    assert_eq!(cluster.told(0, MemberId(3)), [MemberChange::Joined, MemberChange::Failed]);
    assert_eq!(cluster.alive(2), ALL[2..]);
    cluster.net.isolated.clear();
    cluster.run(SECOND * 10);
    assert_eq!(cluster.alive(0), ALL);
    assert_eq!(cluster.alive(2), ALL);
    assert_eq!(cluster.told(0, MemberId(3)), [MemberChange::Joined]);
}

/// A member that is known by its link alone is not dead when that is lost for a moment: it has as long as a suspect.
#[test]
fn a_link_that_comes_back_was_no_death() {
    let mut cluster = Cluster::some_gossip(&[true, true, false]);
    cluster.run(SECOND * 10);
    cluster.told(0, MemberId(3));
    let version = cluster.members[0].node.alive.version();
    let link = |cluster: &Cluster| cluster.members[0].node.links.conn_of(MemberId(3));
    let first = link(&cluster);
    assert!(first.is_some(), "they are connected");
    cluster.break_links(|one, other| (one, other) == (0, 2));
    cluster.run(SECOND * 4);
    assert!(link(&cluster).is_some() && link(&cluster) != first, "it was lost, and is back");
    assert_eq!((cluster.alive(0), cluster.told(0, MemberId(3))), (ALL.to_vec(), Vec::new()));
    assert_eq!(cluster.members[0].node.alive.version(), version, "no slot has moved");

    cluster.net.isolated.insert(2);
    while link(&cluster).is_some() {
        cluster.run(Duration::from_millis(10));
    }
    cluster.run(SECOND * 5 - Duration::from_millis(20));
    assert_eq!(cluster.told(0, MemberId(3)), []);
    cluster.run(Duration::from_millis(20));
    assert_eq!(cluster.told(0, MemberId(3)), [MemberChange::Failed]);
}

/// What a member says of itself reaches the others, and a change of it does, with the next start.
#[test]
fn tags_reach_the_others() {
    let mut cluster = Cluster::start(3);
    cluster.run(SECOND * 5);
    let log = cluster.log_of(2);
    let mut config = cluster.members[2].node.config.clone();
    config.tags = alloc::vec![("zone".to_string(), "b".to_string())];
    cluster.told(0, MemberId(3));
    cluster.restart(2, log.clone());
    let store = Vec::new();
    let node = Node::new(config.clone(), Restored { log, store }, 9, cluster.now).unwrap();
    cluster.members[2].node = node;
    cluster.run(SECOND * 5);
    let expected =
        Peer { id: MemberId(3), name: "m2".to_string(), state: State::Alive, tags: config.tags };
    assert_eq!(cluster.members[0].node.view().peer(MemberId(3)), Some(&expected));
    let told = Event::Member { peer: Box::new(expected), change: MemberChange::Updated };
    assert!(cluster.members[0].events.contains(&told), "{:?}", cluster.members[0].events);
}

/// Tags that nobody could be sent are refused before anything happens.
#[test]
fn tags_are_bounded() {
    let refused = |tags: &[(&str, &str)]| {
        let tags = tags.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
        let config = Config { tags, ..Config::default() };
        let now = Now { instant: Instant(0), wall_ms: 0 };
        match Node::new(config, Restored::default(), 1, now) {
            Err(StartError::Config(error)) => Some(error.field),
            Err(StartError::Halt(halt)) => panic!("{halt}"),
            Ok(_) => None,
        }
    };
    assert_eq!(refused(&[("a", "1"), ("b", "2")]), None);
    assert_eq!(refused(&[("b", "1"), ("a", "2")]), Some("tags"));
    assert_eq!(refused(&[("a", "1"), ("a", "2")]), Some("tags"));
    assert_eq!(refused(&[("a", &"x".repeat(500))]), Some("tags"));

    let gossip = Some("0.0.0.0:7000".parse().unwrap());
    let config = Config { gossip, ..Config::default() };
    let now = Now { instant: Instant(0), wall_ms: 0 };
    let error = Node::new(config, Restored::default(), 1, now).unwrap_err();
    assert!(matches!(error, StartError::Config(error) if error.field == "gossip"));
}

/// The same seeds and inputs give the same members, to the last bit.
#[test]
fn gossip_is_deterministic() {
    let run = || {
        let mut cluster = Cluster::start(3);
        cluster.run(SECOND * 10);
        cluster.net.isolated.insert(1);
        cluster.run(SECOND * 20);
        cluster.members.into_iter().map(|member| member.node).collect::<Vec<Node>>()
    };
    assert!(run() == run());
}

/// Of what comes in a comparison from a client nothing is taken in.
#[test]
fn a_client_compares_nothing() {
    let mut cluster = Cluster::start(1);
    cluster.run(SECOND * 2);
    let node = &mut cluster.members[0].node;
    let before = node.view().gossip().cloned();
    let message = Message::Sync(membership::SyncMessage::Digest { hash: 1 });
    node.on_peer_message(cluster.now.instant, MemberId::client(1), message);
    assert_eq!(node.view().peer_faults(), 1);
    assert_eq!(node.view().gossip().cloned(), before);
}
