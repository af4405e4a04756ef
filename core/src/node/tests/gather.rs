//! Members that found a cluster with whom they find.

use super::*;
use crate::gathering::Step;
use crate::wire::message::Gather;

/// Members that expect three, at places from 0 on, were told to join those at `join`, and are all started.
fn expecting(count: usize, join: &[usize]) -> Cluster {
    let mut cluster = Cluster::start(0);
    for place in 0..count {
        let member = cluster.expects(place, join, Recovered::default());
        cluster.members.push(member);
    }
    cluster
}

impl Cluster {
    fn expects(&mut self, place: usize, join: &[usize], log: Recovered) -> Member {
        let config = Config {
            name: alloc::format!("m{place}"),
            address: alloc::format!("m{place}"),
            join: join.iter().map(|place| alloc::format!("m{place}")).collect(),
            expect: Some(3),
            shards: 4,
            gossip: Some(datagram_address(place)),
            ..Config::default()
        };
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        self.next_request += 1;
        let seed = self.next_request * 1000;
        let node = Node::new(config, Restored { log, store }, seed, self.now).unwrap();
        Member::new(node, worker)
    }

    /// A member is started again on what its log says; its connections break.
    fn expects_again(&mut self, place: usize, join: &[usize], log: Recovered) {
        self.break_links(|_, _| true);
        self.members[place] = self.expects(place, join, log);
    }

    fn cluster_of(&self, place: usize) -> Option<(crate::ids::ClusterId, usize)> {
        let genesis = self.members[place].node.view().genesis();
        genesis.map(|genesis| (genesis.cluster, genesis.members.len()))
    }

    /// The genesis that a member holds, or is to.
    fn held(&self, place: usize) -> Option<Genesis> {
        let gathering = self.members[place].node.gathering.as_ref();
        gathering.and_then(Gathering::written).cloned()
    }

    /// What the log of a member says to its next start, as long as it has no cluster.
    fn unborn_log_of(&self, place: usize) -> Recovered {
        let node = &self.members[place].node;
        assert!(node.genesis.is_none());
        let held = self.held(place);
        let (birth, boot, earlier) = (node.birth, node.boot, node.earlier.clone());
        Recovered { birth, genesis: held, boot, earlier, ..Recovered::default() }
    }

    #[track_caller]
    fn assert_one_cluster(&mut self, of: usize) {
        let cluster = self.cluster_of(0);
        assert_eq!(cluster.map(|(_, founders)| founders), Some(3));
        for place in 0..of {
            assert_eq!(self.cluster_of(place), cluster, "member {place}");
            assert_eq!(self.members[place].halt, None);
        }
        self.call(0, put("k", "v")).unwrap();
        for place in 0..of {
            let value = self.call(place, get("k")).unwrap();
            assert!(matches!(&value, Reply::Value(Some((value, _))) if value == "v"), "{value:?}");
        }
    }
}

impl Cluster {
    /// One turn of every member, and all are woken after this time.
    fn step(&mut self, time: Duration) {
        self.turn();
        self.now.instant = self.now.instant + time;
        for member in &mut self.members {
            member.node.handle(self.now, Input::Wakeup);
        }
    }

    /// Turn by turn, until something is so.
    #[track_caller]
    fn until(&mut self, is: impl Fn(&Self) -> bool) {
        for _ in 0..1000 {
            if is(self) {
                return;
            }
            self.step(Duration::from_millis(5));
        }
        panic!("it never comes to that");
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn three_find_each_other_and_found_one_cluster() {
    for join in [&[0, 1, 2][..], &[0], &[1, 2]] {
        let mut cluster = expecting(3, join);
        cluster.run(SECOND * 5);
        cluster.assert_one_cluster(3);
        let told = cluster.members[1].events.iter().any(|event| {
            matches!(event, Event::Gathering { found, expect: 3, missing: None } if found.len() == 3)
        });
        assert!(told, "whom it found");
    }
}

/// A proposer that comes back on a copy of its directory does not know what it has proposed, and may have founded: who
/// holds that does not hear it, also after a restart.
#[test]
fn a_proposer_on_a_copy_voids_nothing() {
    for restarts in [false, true] {
        let mut cluster = expecting(3, &[0, 1, 2]);
        // What each writes from the moment when it may dial.
        cluster.until(|cluster| {
            cluster.members.iter().all(|member| member.node.log.stored() > LogSeq(0))
        });
        for member in &mut cluster.members {
            member.disk_stalls = true;
        }
        let holder = |cluster: &Cluster| (0..3).find(|&place| cluster.held(place).is_some());
        cluster.until(|cluster| holder(cluster).is_some());
        let proposer = holder(&cluster).expect("just seen");
        cluster.members[proposer].disk_stalls = false;
        let other = (proposer + 1) % 3;
        cluster.until(|cluster| cluster.held(other).is_some());
        cluster.step(Duration::ZERO);
        let genesis = cluster.held(other).expect("just seen");
        assert_eq!(genesis.proposer(), cluster.members[proposer].node.me);
        let node = &cluster.members[proposer].node;
        let (start, copy) = (node.boot, Recovered { birth: node.birth, ..Recovered::default() });
        if restarts {
            let mut log = cluster.unborn_log_of(other);
            let records = cluster.members[other].appended.iter().flat_map(|batch| &batch.records);
            log.peers = records
                .filter_map(|record| match record {
                    Record::PeerBoot { member, boot } => Some((*member, *boot)),
                    _ => None,
                })
                .collect();
            assert_eq!(log.peers.get(&genesis.proposer()), Some(&start));
            cluster.expects_again(other, &[0, 1, 2], log);
        }
        for member in &mut cluster.members {
            member.disk_stalls = false;
        }
        cluster.expects_again(proposer, &[0, 1, 2], copy);
        cluster.run(SECOND * 5);
        let halt = &cluster.members[proposer].halt;
        assert!(matches!(halt, Some(Halt::RolledBack { .. })), "{halt:?}");
        assert_eq!(cluster.held(other).as_ref(), Some(&genesis));
    }
}

/// Who is named by a genesis and is not connected when that is held is known by its next word: what came under its name
/// before, from a copy of its directory, does not count.
#[test]
fn a_start_of_who_is_gone_is_not_held_against_it() {
    let mut cluster = expecting(3, &[0, 1, 2]);
    cluster.until(|cluster| cluster.held(0).is_some());
    let genesis = cluster.held(0).expect("just seen");
    let ids: Vec<MemberId> = cluster.members.iter().map(|member| member.node.me).collect();
    let (now, node) = (cluster.now.instant, &mut cluster.members[0].node);
    let conn = node.links.conn_of(ids[1]).expect("they are connected");
    node.on_disconnected(now, conn);
    let stray = Boot(7 << 32);
    node.boots.extend([(ids[1], stray), (ids[2], stray)]);
    node.on_gathering_step(now, Step::Hold(genesis));
    let seen = node.links.boot_of(node.links.conn_of(ids[2]).expect("they are connected"));
    assert_eq!((node.boots.get(&ids[1]), node.boots.get(&ids[2])), (None, Some(&seen)));
}

/// What a founder has not made durable it tells no client, and tells it then.
#[test]
fn a_client_hears_of_a_cluster_when_its_member_has_it_durably() {
    let mut cluster = expecting(3, &[0, 1, 2]);
    cluster.until(|cluster| cluster.held(0).is_some());
    cluster.until(|cluster| cluster.members[0].appended.is_empty());
    cluster.members[0].disk_stalls = true;
    let client = cluster.client("m0", Config::default());
    cluster.run(SECOND * 5);
    assert!(cluster.cluster_of(0).is_some(), "it is to be durable");
    assert_eq!(cluster.cluster_of(client), None);
    cluster.members[0].disk_stalls = false;
    cluster.run(SECOND * 10);
    assert_eq!(cluster.cluster_of(client), cluster.cluster_of(0));
}

/// What a member that joins has not made durable it tells nobody who looks for a cluster.
#[test]
fn a_cluster_is_told_on_by_whom_it_is_durable_with() {
    let mut cluster = expecting(3, &[0, 1, 2]);
    cluster.run(SECOND * 5);
    let joiner = cluster.join("m3");
    // It dials when its birth is durable.
    cluster.until(|cluster| cluster.net.dials.contains_key("nobody"));
    cluster.until(|cluster| cluster.members[joiner].appended.is_empty());
    cluster.members[joiner].disk_stalls = true;
    let seeker = cluster.expects(4, &[joiner], Recovered::default());
    cluster.members.push(seeker);
    let client = cluster.client("m3", Config::default());
    cluster.run(SECOND * 5);
    assert!(cluster.cluster_of(joiner).is_some(), "it is to be durable");
    assert_eq!((cluster.cluster_of(4), cluster.cluster_of(client)), (None, None));
    cluster.members[joiner].disk_stalls = false;
    cluster.run(SECOND * 10);
    for place in [4, client] {
        assert_eq!(cluster.cluster_of(place), cluster.cluster_of(0));
    }
}

/// Who comes later joins, and so does one whose disk was lost; a second set joins as a whole.
#[test]
fn who_comes_later_joins() {
    let mut cluster = expecting(2, &[0, 1, 2]);
    cluster.run(SECOND * 60);
    assert_eq!((cluster.cluster_of(0), cluster.cluster_of(1)), (None, None), "one is missing");
    let third = cluster.expects(2, &[0, 1, 2], Recovered::default());
    cluster.members.push(third);
    cluster.run(SECOND * 5);
    cluster.assert_one_cluster(3);

    for place in 3..6 {
        let member = cluster.expects(place, &[0, 1, 2], Recovered::default());
        cluster.members.push(member);
    }
    cluster.run(SECOND * 20);
    cluster.assert_one_cluster(6);

    cluster.expects_again(1, &[0, 1, 2], Recovered::default());
    cluster.run(SECOND * 30);
    cluster.assert_one_cluster(6);
    let table = cluster.members[0].node.view().directory().unwrap().clone();
    let me = cluster.members[1].node.view().me();
    assert_eq!(table.member(me).map(|member| member.name.as_str()), Some("m1"));
    assert_eq!(table.members.len(), 6, "in the place of the one that is gone");
}

/// All lose their power at every moment of the creation, and go on from what is durable.
#[test]
fn a_crash_at_any_moment_delays_it() {
    for turns in (0..36).step_by(3) {
        let mut cluster = expecting(3, &[0, 1, 2]);
        // From deadline to deadline until all are connected; then turn by turn.
        cluster.run(Duration::from_millis(60));
        for _ in 0..turns {
            cluster.step(Duration::from_millis(20));
        }
        if (0..3).all(|place| cluster.cluster_of(place).is_none()) {
            for place in 0..3 {
                let log = cluster.unborn_log_of(place);
                cluster.expects_again(place, &[0, 1, 2], log);
            }
        }
        cluster.run(SECOND * 30);
        cluster.assert_one_cluster(3);
    }
}

/// The founders start again as what they were, also without being told whom they expected.
#[test]
fn founders_start_again() {
    let mut cluster = expecting(3, &[0, 1, 2]);
    cluster.run(SECOND * 5);
    let before = cluster.members[1].node.view().me();
    let log = cluster.log_of(1);
    cluster.expects_again(1, &[], log.clone());
    cluster.run(SECOND * 5);
    assert_eq!(cluster.members[1].node.view().me(), before);
    assert_eq!(cluster.cluster_of(1), cluster.cluster_of(0));
    assert!(cluster.members.iter().all(|member| member.halt.is_none()));

    let config = Config { members: alloc::vec![("m1".into(), "m1".into())], ..Config::default() };
    let config = Config { name: "m1".into(), shards: 4, ..config };
    let restored = Restored { log, store: Vec::new() };
    let refused = Node::new(config, restored, 1, cluster.now).unwrap_err();
    assert!(matches!(&refused, StartError::Config(e) if e.field == "members"), "{refused}");
}

/// Two that expect different clusters halt, and say why; one that only joins waits.
#[test]
fn all_must_expect_the_same() {
    let mut cluster = expecting(3, &[0, 1, 2]);
    for (place, expect) in [(1, Some(4)), (2, None)] {
        let mut config = cluster.members[place].node.config.clone();
        config.expect = expect;
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        let restored = Restored { log: Recovered::default(), store };
        let node = Node::new(config, restored, 7, cluster.now).unwrap();
        cluster.members[place] = Member::new(node, worker);
    }
    cluster.run(SECOND * 10);
    let halts: Vec<Option<Halt>> = cluster.members.iter().map(|m| m.halt.clone()).collect();
    assert!(halts[..2].contains(&Some(Halt::Agreement)), "{halts:?}");
    assert_eq!(halts[2], None);
    assert!((0..3).all(|place| cluster.cluster_of(place).is_none()));
}

#[test]
fn expectations_that_cannot_be_met_are_refused() {
    let good = Config { expect: Some(2), address: "m0".into(), ..Config::default() };
    let far: Vec<String> = ["m0", "m1", "m2"].map(String::from).into();
    let named = alloc::vec![("one".to_string(), "m0".to_string())];
    let wrong = [
        ("expect", Config { expect: Some(0), ..good.clone() }),
        ("expect", Config { expect: Some(256), ..good.clone() }),
        ("expect", Config { members: named, ..good.clone() }),
        ("address", Config { address: String::new(), ..good.clone() }),
        ("join", Config { join: far, ..good.clone() }),
    ];
    let now = Now { instant: Instant(1), wall_ms: 0 };
    assert!(Node::new(good, Restored::default(), 1, now).is_ok());
    for (field, config) in wrong {
        let error = Node::new(config, Restored::default(), 1, now).unwrap_err();
        assert!(matches!(&error, StartError::Config(e) if e.field == field), "{field}: {error}");
    }
}

/// What no member can say is dropped, and what concerns nobody is not answered.
#[test]
fn introductions_are_bounded() {
    let mut cluster = expecting(2, &[0, 1]);
    cluster.run(SECOND * 2);
    let from = cluster.members[1].node.view().me();
    let node = &mut cluster.members[0].node;
    let conn = node.links.conn_of(from).unwrap();
    let before = node.gathered.introduced.len();
    for address in ["x\n".to_string(), "x".repeat(256)] {
        let others = alloc::vec![(MemberId(9), address)];
        let message = Message::Gather(Box::new(Gather { others, ..Gather::default() }));
        node.handle(cluster.now, Input::Message { conn, message });
    }
    assert_eq!((node.gathered.introduced.len(), node.peer_faults), (before, 2));
    let others = (0..2000).map(|k| (MemberId(k), alloc::format!("x{k}"))).collect();
    let message = Message::Gather(Box::new(Gather { others, ..Gather::default() }));
    node.handle(cluster.now, Input::Message { conn, message });
    assert_eq!(node.gathered.introduced.len(), crate::wire::bounded::MEMBERS_MAX);
}
