//! Members that come, go, and are replaced.

mod tables;

use super::*;
use crate::directory::{Change, ChangeRefused, Registration, Standing, Table};
use crate::raft::message::Membership;

impl Cluster {
    /// A member that joins through the first one.
    pub(super) fn join(&mut self, name: &str) -> usize {
        let place = self.members.len();
        let member = self.joiner(place, name, 1_000);
        self.members.push(member);
        place
    }

    /// A member that joins from an empty disk, to be reached at this place.
    fn joiner(&self, place: usize, name: &str, seed: u64) -> Member {
        let config = joining(place, name);
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        let restored = Restored { log: Recovered::default(), store };
        let seed = crate::ids::len_u64(place) + seed;
        Member::new(Node::new(config, restored, seed, self.now).unwrap(), worker)
    }

    /// Whoever was at this place is gone with its disk, and another one is there.
    fn replace(&mut self, place: usize, member: Member) {
        self.break_links(|_, _| true);
        self.members[place] = member;
    }

    fn alone() -> Self {
        Self::alone_with(settings())
    }

    fn alone_with(config: Config) -> Self {
        let mut cluster = Self::start(1);
        let gossip = Some(datagram_address(0));
        let (name, address) = ("m0".to_string(), "m0".to_string());
        let config = Config { name, address, gossip, ..config };
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        let restored = Restored { log: Recovered::default(), store };
        let node = Node::new(config, restored, 1, cluster.now).unwrap();
        cluster.members[0] = Member::new(node, worker);
        cluster.run(Duration::from_secs(2));
        cluster
    }

    fn id(&self, member: usize) -> MemberId {
        self.members[member].node.view().me()
    }

    fn table(&self, member: usize) -> &Table {
        self.members[member].node.view().directory().expect("known by then")
    }

    /// The membership of a group as its leader has it, all of it committed.
    fn membership(&self, group: GroupId) -> Membership {
        let leader = *self.leaders(group).last().expect("a leader");
        let view = self.members[leader].node.view();
        let raft = view.group(group).unwrap().raft();
        raft.committed_membership().expect("no change is under way").clone()
    }

    fn voters(&self, group: GroupId) -> BTreeSet<MemberId> {
        self.membership(group).voters.iter().map(|voter| voter.member).collect()
    }

    fn ids(&self, members: &[usize]) -> BTreeSet<MemberId> {
        members.iter().map(|&member| self.id(member)).collect()
    }

    /// Every group's voters, the directory's too, are on these members.
    #[track_caller]
    fn assert_voters(&self, members: &[usize]) {
        for group in GROUPS {
            assert_eq!(self.voters(group), self.ids(members), "{group}");
        }
    }

    /// The member reads this value of the key.
    #[track_caller]
    fn assert_reads(&mut self, member: usize, expected: &str) {
        let value = self.call(member, get("k")).unwrap();
        assert!(matches!(&value, Reply::Value(Some((value, _))) if value == expected), "{value:?}");
    }

    /// Everything is where the table wants it, and the table wants nothing else.
    fn is_at_rest(&self) -> bool {
        let newest =
            (0..self.members.len()).filter_map(|m| self.members[m].node.view().directory());
        newest.max_by_key(|table| table.version).is_some_and(|table| table.moving() == 0)
    }
}

fn settings() -> Config {
    let mut config = Config { shards: 4, ..Config::default() };
    config.timers.replace_after = Duration::from_secs(20);
    config
}

/// Of a member that joins, at this place, through its own address, nobody's, and the first member's.
fn joining(place: usize, name: &str) -> Config {
    let address = alloc::format!("m{place}");
    let join = alloc::vec![address.clone(), "nobody".to_string(), "m0".to_string()];
    let gossip = Some(datagram_address(place));
    Config { name: name.to_string(), join, address, gossip, ..settings() }
}

const GROUPS: [GroupId; 5] = [GroupId(0), GroupId(1), GroupId(2), GroupId(3), GroupId(4)];

/// From one to three to five: every group follows, and what was written stays.
#[test]
fn a_cluster_grows() {
    let mut cluster = Cluster::alone();
    cluster.call(0, put("k", "v")).unwrap();
    let second = cluster.join("m1");
    cluster.run(Duration::from_secs(10));
    for group in &GROUPS[1..] {
        assert_eq!(cluster.voters(*group), cluster.ids(&[0, second]), "{group}");
    }
    let directory = cluster.membership(GroupId::DIRECTORY);
    assert_eq!((directory.voters.len(), directory.learners.len()), (1, 1), "two do not vote");

    let third = cluster.join("m2");
    cluster.run(Duration::from_secs(10));
    cluster.assert_voters(&[0, second, third]);
    assert!(cluster.is_at_rest());
    for member in [0, second, third] {
        cluster.assert_reads(member, "v");
    }

    cluster.join("m3");
    cluster.join("m4");
    cluster.run(Duration::from_secs(30));
    assert!(cluster.is_at_rest());
    assert_eq!(cluster.membership(GroupId::DIRECTORY).voters.len(), 5);
    for group in &GROUPS[1..] {
        assert_eq!(cluster.voters(*group).len(), 3, "{group}");
        let leader = cluster.leaders(*group);
        let preferred = cluster.table(0).group(*group).unwrap().preferred_leader();
        assert_eq!(Some(cluster.id(leader[0])), preferred, "{group}");
    }
    // Who holds nothing of a group any more has forgotten it.
    for member in 0..5 {
        let id = cluster.id(member);
        for (group, _) in cluster.members[member].node.view().groups() {
            assert!(cluster.table(0).group(group).unwrap().on_member(id).is_some(), "{group}");
        }
    }
    cluster.assert_reads(4, "v");
}

/// A member that asks to go is drained first: nothing is lost, and it learns when it may be closed.
#[test]
fn a_member_leaves() {
    let mut cluster = Cluster::alone();
    for name in ["m1", "m2", "m3"] {
        cluster.join(name);
    }
    cluster.run(Duration::from_secs(30));
    cluster.call(1, put("k", "v")).unwrap();
    let gone = cluster.id(2);
    cluster.members[2].node.leave(false);
    cluster.run(Duration::from_secs(30));
    assert!(cluster.members[2].events.contains(&Event::Left));
    assert_eq!(cluster.members[2].node.view().groups().count(), 0);
    cluster.assert_voters(&[0, 1, 3]);
    assert_eq!(cluster.table(0).member(gone), None);
    cluster.net.isolated.insert(2);
    cluster.assert_reads(3, "v");
}

/// The only member that holds the data is not let go.
#[test]
fn the_last_member_stays() {
    let mut cluster = Cluster::alone();
    cluster.members[0].node.leave(false);
    cluster.run(Duration::from_secs(5));
    let refused = Event::ChangeRefused { reason: ChangeRefused::LastMember };
    assert!(cluster.members[0].events.contains(&refused));
    cluster.call(0, put("k", "v")).unwrap();
}

/// What a member held that is away for too long moves to another, if there is one; when it comes back it drops what
/// it had and gets replicas under new names.
#[test]
fn a_member_that_is_away_is_replaced_and_may_return() {
    let mut cluster = Cluster::alone();
    for name in ["m1", "m2", "m3"] {
        cluster.join(name);
    }
    cluster.run(Duration::from_secs(30));
    let before: BTreeMap<GroupId, Membership> =
        GROUPS.iter().map(|&group| (group, cluster.membership(group))).collect();
    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(60));
    cluster.assert_voters(&[0, 2, 3]);
    cluster.call(2, put("k", "new")).unwrap();

    cluster.net.isolated.remove(&1);
    cluster.run(Duration::from_secs(60));
    assert!(cluster.is_at_rest());
    let id = cluster.id(1);
    assert_eq!(cluster.table(0).member(id).unwrap().standing, Standing::Active);
    let mut held = 0;
    for group in GROUPS {
        let now = cluster.membership(group);
        if let (Some(old), Some(new)) = (before[&group].on_member(id), now.on_member(id)) {
            assert_ne!(old.id, new.id, "{group}: a name is never used twice");
            held += 1;
        }
    }
    assert!(held > 0);
    cluster.assert_reads(1, "new");
}

/// Without a substitute a member that is away keeps its vote: two of three are worth no less than two of two.
#[test]
fn a_member_that_is_away_without_a_substitute_stays() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(30));
    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(60));
    cluster.assert_voters(&[0, 1, 2]);
    cluster.call(0, put("k", "v")).unwrap();
    cluster.net.isolated.clear();
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.table(1).member(cluster.id(1)).unwrap().standing, Standing::Active);
    cluster.assert_reads(1, "v");
}

/// A second member of the same name is not let in while the first is there; when that is gone for good it takes
/// the name and what the other held.
#[test]
fn a_name_has_one_member() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(30));
    let twin = cluster.join("m1");
    cluster.run(Duration::from_secs(10));
    let refused = Event::ChangeRefused { reason: ChangeRefused::NameTaken };
    assert!(cluster.members[twin].events.contains(&refused));
    assert_eq!(cluster.members[twin].node.view().groups().count(), 0);

    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(60));
    cluster.assert_voters(&[0, 2, twin]);
    assert_eq!(cluster.table(0).members.len(), 3);
}

/// A member whose disk is lost comes back under its name, where it was, as another one; a client that knew the first
/// finds the second.
#[test]
fn a_client_follows_a_member_to_its_new_directory() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(20));
    cluster.client("m1", settings());
    cluster.run(Duration::from_secs(5));

    let wiped = cluster.joiner(1, "m1", 2_000);
    let id = wiped.node.view().me();
    cluster.replace(1, wiped);
    cluster.run(Duration::from_secs(20));
    assert!(cluster.is_at_rest());
    assert!(cluster.members[3].node.links.conn_of(id).is_some());
    cluster.assert_voters(&[0, 1, 2]);
}

/// A member has left before it was registered, and is registered after all, since what it asked for before was under way: it
/// takes nothing on, and goes again.
#[test]
fn who_is_registered_after_it_left_goes_again() {
    let mut cluster = Cluster::alone();
    cluster.members[0].disk_stalls = true;
    let late = cluster.join("m1");
    cluster.run(Duration::from_secs(3));
    cluster.net.isolated.insert(late);
    cluster.members[late].node.leave(false);
    cluster.run(Duration::from_millis(200));
    let left = |cluster: &Cluster| {
        cluster.members[late].events.iter().filter(|event| **event == Event::Left).count()
    };
    assert_eq!(left(&cluster), 1);

    cluster.net.isolated.clear();
    cluster.members[0].disk_stalls = false;
    let id = cluster.id(late);
    let mut was_registered = false;
    for _ in 0..100 {
        cluster.run(Duration::from_millis(10));
        was_registered |= cluster.table(0).member(id).is_some();
        assert!(cluster.members[late].node.groups.is_empty());
    }
    cluster.run(Duration::from_secs(5));
    assert!(was_registered, "what it had asked for");
    assert_eq!(cluster.table(0).member(id), None);
    assert_eq!(left(&cluster), 1);
    cluster.assert_voters(&[0]);
}

/// A member that is told to go before it was ever registered has nothing to leave: it learns so, and asks for nothing any
/// more.
#[test]
fn a_member_that_was_never_registered_leaves() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.run(Duration::from_secs(10));
    let twin = cluster.join("m1");
    cluster.run(Duration::from_secs(2));
    let has_left = |cluster: &Cluster| cluster.members[twin].events.contains(&Event::Left);
    assert!(!has_left(&cluster));
    cluster.members[twin].node.leave(false);
    cluster.run(Duration::from_millis(200));
    assert!(has_left(&cluster));

    // Its name is free meanwhile, and it is not registered after all.
    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(40));
    assert_eq!(cluster.table(0).member(cluster.id(twin)), None);
    let left = cluster.members[twin].events.iter().filter(|event| **event == Event::Left);
    assert_eq!(left.count(), 1);
}

/// A member that has asked to be registered, and is told to go before it hears of it, takes back what it asked for.
#[test]
fn a_request_to_be_registered_is_taken_back() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(20));
    let id = cluster.id(2);
    let last = cluster.join("m3");
    let joins = |cluster: &Cluster| cluster.members[last].node.table.is_some();
    while !joins(&cluster) {
        cluster.run(Duration::from_millis(10));
    }
    // The directory's leader writes it down only when another disk has it.
    let leader = cluster.leaders(GroupId::DIRECTORY)[0];
    for member in (0..3).filter(|&member| member != leader) {
        cluster.members[member].disk_stalls = true;
    }
    cluster.run(Duration::from_millis(150));
    cluster.members[last].node.leave(false);
    cluster.run(Duration::from_millis(150));
    assert!(cluster.members[last].events.contains(&Event::Left));
    for member in 0..3 {
        cluster.members[member].disk_stalls = false;
        let upto = cluster.members[member].appended.last().map(|batch| batch.seq);
        let stored = upto.map(|upto| Input::Stored { upto });
        cluster.members[member].inputs.extend(stored);
        cluster.members[member].appended.clear();
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.table(0).member(cluster.id(last)), None);
    assert!(cluster.table(0).member(id).is_some());
    assert!(cluster.is_at_rest());
}

impl Cluster {
    /// The third has left while the second was away: the first goes on alone with what was written, and the two are
    /// whole again when the second is back.
    fn assert_the_third_has_left(&mut self) {
        assert!(self.members[2].events.contains(&Event::Left));
        self.net.isolated.insert(2);
        self.assert_reads(0, "v");
        self.call(0, put("k", "w")).unwrap();

        self.net.isolated.remove(&1);
        self.run(Duration::from_secs(30));
        assert!(self.is_at_rest());
        for group in &GROUPS[1..] {
            assert_eq!(self.voters(*group), self.ids(&[0, 1]), "{group}");
        }
    }
}

/// With one member away for good another may still go: what is left must be able to decide without the one that is
/// away.
#[test]
fn a_member_leaves_while_another_is_away() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(30));
    cluster.call(1, put("k", "v")).unwrap();
    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(60));
    cluster.members[2].node.leave(false);
    cluster.run(Duration::from_secs(60));
    cluster.assert_the_third_has_left();
}

/// While a member is away no other may go whose vote the two that stay would need: it is told so, and stays. By force
/// it may: who is away is given up, and comes back as any other that was.
#[test]
fn a_leave_that_would_lose_the_majority_is_refused() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(30));
    cluster.net.isolated.insert(1);
    cluster.run(Duration::from_secs(5));
    cluster.members[2].node.leave(false);
    cluster.run(Duration::from_secs(1));
    let refused = Event::ChangeRefused { reason: ChangeRefused::NoMajority };
    assert!(cluster.members[2].events.contains(&refused));
    let status = cluster.members[2].node.view().status(cluster.now.instant);
    assert_eq!(status.stays, Some(ChangeRefused::NoMajority));
    cluster.call(2, put("k", "v")).unwrap();
    cluster.assert_voters(&[0, 1, 2]);

    cluster.members[2].node.leave(true);
    cluster.run(Duration::from_secs(5));
    cluster.assert_the_third_has_left();
    cluster.assert_reads(1, "w");
}

/// A member that joins while the cluster is split is registered at once by the side that can decide, and by the other
/// one not before the split is over. It never makes another cluster.
#[test]
fn a_member_joins_during_a_split() {
    for aside in [BTreeSet::from([0, 3]), BTreeSet::from([2])] {
        let mut cluster = Cluster::alone();
        cluster.join("m1");
        cluster.join("m2");
        cluster.run(Duration::from_secs(30));
        cluster.net.aside = aside.clone();
        cluster.run(Duration::from_secs(6));
        cluster.call(1, put("k", "v")).unwrap();

        let last = cluster.join("m3"); // through the first one
        let id = cluster.id(last);
        cluster.run(Duration::from_secs(10));
        let can_decide = !aside.contains(&last);
        assert_eq!(cluster.table(1).member(id).is_some(), can_decide);
        let smaller = *aside.first().unwrap();
        assert_eq!(cluster.table(smaller).member(id), None);

        cluster.net.aside.clear();
        cluster.run(Duration::from_secs(60));
        assert!(cluster.is_at_rest());
        for member in 0..4 {
            assert!(cluster.table(member).member(id).is_some(), "m{member}");
            assert_eq!(cluster.members[member].halt, None);
            let genesis = cluster.members[member].node.view().genesis();
            assert_eq!(genesis, cluster.members[0].node.view().genesis());
        }
        cluster.assert_reads(last, "v");
    }
}

/// A founder that was away for so long that it was given up and forgotten comes back like any other member, whichever
/// side dials.
#[test]
fn a_founder_that_was_replaced_returns() {
    for gone in [0, 3] {
        let mut cluster = Cluster::start(4);
        cluster.run(Duration::from_secs(30));
        cluster.net.isolated.insert(gone);
        cluster.run(Duration::from_secs(400));
        let id = cluster.id(gone);
        let somebody = (gone + 1) % 4;
        assert_eq!(cluster.table(somebody).member(id), None, "everything has moved elsewhere");

        cluster.net.isolated.clear();
        cluster.run(Duration::from_secs(60));
        let listed = cluster.table(somebody).member(id).expect("it is one of the cluster's again");
        assert_eq!(listed.standing, Standing::Active);
        assert!(cluster.is_at_rest());
        assert_eq!(cluster.table(gone), cluster.table(somebody));
        let value = cluster.call(gone, put("k", "v"));
        assert!(value.is_ok(), "{value:?}");
    }
}

/// The word that a founder has left may be lost with its connection.
#[test]
fn a_founder_that_left_hears_of_it_later() {
    for gone in [0, 3] {
        let mut cluster = Cluster::start(4);
        cluster.run(Duration::from_secs(30));
        cluster.members[gone].node.leave(false);
        let has_left = |cluster: &Cluster| cluster.members[gone].events.contains(&Event::Left);
        let (id, other) = (cluster.id(gone), (gone + 1) % 4);
        // Cut off when the last order is given that takes something from it.
        while cluster.table(other).groups.iter().any(|group| group.on_member(id).is_some()) {
            assert!(!has_left(&cluster));
            if !cluster.turn() {
                let next = cluster.members.iter().filter_map(|m| m.node.wakeup()).map(|w| w.at);
                cluster.now.instant = next.min().unwrap().max(cluster.now.instant);
            }
        }
        cluster.net.isolated.insert(gone);
        cluster.run(Duration::from_secs(400));
        assert_eq!(cluster.table(other).member(id), None);
        assert!(!has_left(&cluster));
        cluster.net.isolated.clear();
        cluster.run(Duration::from_secs(20));
        assert!(has_left(&cluster));
    }
}
