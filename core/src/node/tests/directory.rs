//! Members that come, go, and are replaced.

use super::*;
use crate::directory::{ChangeRefused, Standing, Table};
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
    for group in GROUPS {
        assert_eq!(cluster.voters(group), cluster.ids(&[0, second, third]), "{group}");
    }
    assert!(cluster.is_at_rest());
    for member in [0, second, third] {
        let value = cluster.call(member, get("k")).unwrap();
        assert!(matches!(value, Reply::Value(Some((value, _))) if value == "v"));
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
    let value = cluster.call(4, get("k")).unwrap();
    assert!(matches!(value, Reply::Value(Some((value, _))) if value == "v"));
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
    for group in GROUPS {
        assert_eq!(cluster.voters(group), cluster.ids(&[0, 1, 3]), "{group}");
    }
    assert_eq!(cluster.table(0).member(gone), None);
    cluster.net.isolated.insert(2);
    let value = cluster.call(3, get("k")).unwrap();
    assert!(matches!(value, Reply::Value(Some((value, _))) if value == "v"));
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
    for group in GROUPS {
        assert_eq!(cluster.voters(group), cluster.ids(&[0, 2, 3]), "{group}");
    }
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
    let value = cluster.call(1, get("k")).unwrap();
    assert!(matches!(value, Reply::Value(Some((value, _))) if value == "new"));
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
    for group in GROUPS {
        assert_eq!(cluster.voters(group), cluster.ids(&[0, 1, 2]), "{group}");
    }
    cluster.call(0, put("k", "v")).unwrap();
    cluster.net.isolated.clear();
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.table(1).member(cluster.id(1)).unwrap().standing, Standing::Active);
    let value = cluster.call(1, get("k")).unwrap();
    assert!(matches!(value, Reply::Value(Some((value, _))) if value == "v"));
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
    for group in GROUPS {
        assert_eq!(cluster.voters(group), cluster.ids(&[0, 2, twin]), "{group}");
    }
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
    for group in GROUPS {
        assert_eq!(cluster.voters(group), cluster.ids(&[0, 1, 2]), "{group}");
    }
}
