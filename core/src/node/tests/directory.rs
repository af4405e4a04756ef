//! Members that come, go, and are replaced.

use super::*;
use crate::directory::{Change, ChangeRefused, Registration, Standing, Table};
use crate::raft::message::Membership;

impl Cluster {
    /// A member that joins through the first one.
    fn join(&mut self, name: &str) -> usize {
        let place = self.members.len();
        let member = self.joiner(place, name, 1_000);
        self.members.push(member);
        place
    }

    /// A member that joins from an empty disk, to be reached at this place.
    fn joiner(&self, place: usize, name: &str, seed: u64) -> Member {
        let config = Config {
            name: name.to_string(),
            join: alloc::vec!["nobody".to_string(), "m0".to_string()],
            address: alloc::format!("m{place}"),
            ..settings()
        };
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        let restored = Restored { log: Recovered::default(), store };
        let seed = crate::ids::len_u64(place) + seed;
        Member::new(Node::new(config, restored, seed, self.now).unwrap(), worker)
    }

    /// Whoever was at this place is gone with its disk, and another one is there.
    fn replace(&mut self, place: usize, member: Member) {
        for (conn, (to, _)) in core::mem::take(&mut self.net.ends) {
            for (other, member) in self.members.iter_mut().enumerate() {
                if other != to {
                    member.inputs.push_back(Input::Disconnected { conn });
                }
            }
        }
        self.members[place] = member;
    }

    fn alone() -> Self {
        let mut cluster = Self::start(1);
        let config = Config { name: "m0".to_string(), address: "m0".to_string(), ..settings() };
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
    cluster.members[2].node.leave();
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
    cluster.members[0].node.leave();
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
    let members = alloc::vec![("x".to_string(), "m1".to_string())];
    let config = Config { name: "client".to_string(), client: true, members, ..settings() };
    let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
    let restored = Restored { log: Recovered::default(), store };
    let node = Node::new(config, restored, 77, cluster.now).unwrap();
    cluster.members.push(Member::new(node, worker));
    cluster.run(Duration::from_secs(5));

    let wiped = cluster.joiner(1, "m1", 2_000);
    let id = wiped.node.view().me();
    cluster.replace(1, wiped);
    cluster.run(Duration::from_secs(20));
    assert!(cluster.is_at_rest());
    assert!(cluster.members[3].node.links.conn_of(id).is_some());
    cluster.assert_voters(&[0, 1, 2]);
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
    cluster.members[2].node.leave();
    cluster.run(Duration::from_secs(60));
    assert!(cluster.members[2].events.contains(&Event::Left));
    cluster.net.isolated.insert(2);
    cluster.assert_reads(0, "v");
    cluster.call(0, put("k", "w")).unwrap();

    cluster.net.isolated.remove(&1);
    cluster.run(Duration::from_secs(30));
    assert!(cluster.is_at_rest());
    for group in &GROUPS[1..] {
        assert_eq!(cluster.voters(*group), cluster.ids(&[0, 1]), "{group}");
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
        cluster.members[gone].node.leave();
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

/// A director that was deposed and leads again must not take the answer to what it wrote before for the answer to
/// what it writes now: the table that it would go by was never written.
#[test]
fn an_answer_belongs_to_its_question() {
    let mut cluster = Cluster::start(4);
    cluster.run(Duration::from_secs(30));
    let leader = cluster.leaders(GroupId::DIRECTORY)[0];
    let others: Vec<usize> = (0..4).filter(|&member| member != leader).collect();
    for &other in &others {
        cluster.members[other].disk_stalls = true;
    }
    let leaves = |cluster: &mut Cluster, who: usize| {
        let change = Change::Leave(cluster.id(who));
        let node = &mut cluster.members[leader].node;
        node.director.ask(change);
        node.directory_due = true;
        cluster.settle();
    };
    leaves(&mut cluster, others[0]);
    cluster.members[leader].node.director.on_lead(None);
    cluster.run(Duration::from_millis(150));
    leaves(&mut cluster, others[1]);
    for &other in &others {
        cluster.members[other].disk_stalls = false;
        let last = cluster.members[other].appended.last().map(|batch| batch.seq);
        let stored = last.map(|upto| Input::Stored { upto });
        cluster.members[other].inputs.extend(stored);
        cluster.members[other].appended.clear();
    }
    cluster.run(Duration::from_secs(10));
    let first = cluster.id(others[0]);
    let shows_first = |event: &Event| match event {
        Event::DirectoryChanged { table } => {
            table.member(first).is_some_and(|listed| listed.standing == Standing::Leaving)
        }
        _ => false,
    };
    let seen = cluster.members[leader].events.iter().any(shows_first);
    assert!(seen, "what was written first was read, not replaced by what was not written");
}

/// A member that was registered and lost the genesis in a crash hears of the directory before it hears of the
/// cluster.
#[test]
fn a_table_before_the_genesis_is_put_off() {
    let mut cluster = Cluster::alone();
    let place = cluster.join("m1");
    cluster.net.isolated.insert(place);
    cluster.run(Duration::from_secs(1));
    let id = cluster.id(place);
    let mut table = Table::of_genesis(cluster.members[0].node.view().genesis().unwrap());
    let registration = Registration {
        id,
        name: "m1".to_string(),
        address: "m1".to_string(),
        birth: cluster.members[place].node.birth,
        weight: 1,
    };
    table = table.with(&Change::Register(registration), 10, |_| true).unwrap().unwrap();
    let now = cluster.now.instant;
    cluster.members[place].node.on_peer_message(now, MemberId(1), Message::Table(table));
    cluster.net.isolated.clear();
    cluster.run(Duration::from_secs(10));
    assert!(cluster.members[place].events.iter().any(|event| matches!(event, Event::Up { .. })));
    assert_eq!(cluster.table(place), cluster.table(0));
}

/// What a member says of itself is bounded, and no name can stand for a member that has lost its own.
#[test]
fn names_and_addresses_are_bounded() {
    let mut cluster = Cluster::alone();
    let well = cluster.join("m1");
    let bad = cluster.join("\u{0}1");
    cluster.run(Duration::from_secs(10));
    assert!(cluster.table(0).member(cluster.id(well)).is_some());
    assert_eq!(cluster.table(0).member(cluster.id(bad)), None);
    let (now, id) = (cluster.now.instant, cluster.id(well));
    let address = "a".repeat(10 << 20);
    let message = Message::Register { address, weight: 1 };
    cluster.members[0].node.on_peer_message(now, id, message);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.table(0).member(id).unwrap().address, "m1");
    assert!(cluster.members[0].node.view().peer_faults() > 0);
}

/// Of a member that is not registered yet the latest start counts: it is what it will be judged by.
#[test]
fn the_latest_start_of_a_guest_counts() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    let guest = cluster.join("m1");
    cluster.run(Duration::from_secs(5));
    let node = &cluster.members[guest].node;
    let log = Recovered { birth: node.birth, boot: node.boot, ..Recovered::default() };
    cluster.rejoin(guest, "m1", log);
    cluster.run(Duration::from_secs(5));
    let (id, boot) = (cluster.id(guest), cluster.members[guest].node.boot);
    assert_eq!(boot.count(), 2);
    assert_eq!(cluster.members[0].node.boots.get(&id), Some(&boot));
}

/// Members on ever new directories that are never registered are forgotten when they go.
#[test]
fn guests_are_forgotten() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.run(Duration::from_secs(5));
    let guest = cluster.join("m1");
    for _ in 0..5 {
        cluster.rejoin(guest, "m1", Recovered::default());
        cluster.run(Duration::from_secs(10));
    }
    let node = &cluster.members[0].node;
    assert!(node.guests.len() <= 2, "{:?}", node.guests);
    assert!(node.boots.len() <= 3, "{:?}", node.boots);
}

impl Cluster {
    /// A member that joins is started again on this log; its connections break.
    fn rejoin(&mut self, place: usize, name: &str, log: Recovered) {
        let config = Config {
            name: name.to_string(),
            join: alloc::vec!["nobody".to_string(), "m0".to_string()],
            address: alloc::format!("m{place}"),
            ..settings()
        };
        let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
        self.next_request += 1;
        let node = Node::new(config, Restored { log, store }, self.next_request, self.now).unwrap();
        let ends = core::mem::take(&mut self.net.ends);
        for (&conn, &(to, there)) in &ends {
            let from = ends[&there].0;
            if to == place || from == place {
                if from != place {
                    self.members[from].inputs.push_back(Input::Disconnected { conn });
                }
            } else {
                self.net.ends.insert(conn, (to, there));
            }
        }
        self.members[place] = Member::new(node, worker);
    }
}
