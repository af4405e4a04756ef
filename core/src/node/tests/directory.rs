//! Members that come, go, and are replaced.

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
        let change = Change::Leave { member: cluster.id(who), force: false };
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
    table = table.with(&Change::Register(registration), 10, |_, _| false).unwrap().unwrap();
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
    let bad = cluster.join("m2");
    // No configuration allows it: another program's member may call itself so.
    cluster.members[bad].node.config.name = "\u{0}1".to_string();
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

/// Who has left and comes back on a copy of its directory is refused by those who have seen a start that the copy lacks,
/// also after a restart of theirs; on the directory that it left it is let in.
#[test]
fn a_former_member_does_not_come_back_on_a_copy() {
    for is_rolled_back in [true, false] {
        let mut cluster = Cluster::alone();
        let second = cluster.join("m1");
        cluster.run(Duration::from_secs(5));
        let id = cluster.id(second);
        let log_of = |node: &Node, boot: Boot, earlier: &[u32]| Recovered {
            birth: node.birth,
            genesis: node.genesis.clone(),
            founded: true,
            boot,
            earlier: earlier.to_vec(),
            ..Recovered::default()
        };
        let copy = log_of(&cluster.members[second].node, cluster.members[second].node.boot, &[]);
        cluster.rejoin(second, "m1", copy.clone());
        cluster.run(Duration::from_secs(5));
        let node = &cluster.members[second].node;
        let left = log_of(node, node.boot, &node.earlier);
        cluster.members[second].node.leave(false);
        cluster.run(Duration::from_secs(20));
        assert!(cluster.table(0).member(id).is_none(), "it has left");

        cluster.rejoin(second, "m1", if is_rolled_back { copy } else { left });
        cluster.run(Duration::from_secs(20));
        let halt = cluster.members[second].halt.clone();
        assert_eq!(matches!(halt, Some(Halt::RolledBack { .. })), is_rolled_back, "{halt:?}");
        assert_eq!(cluster.table(0).member(id).is_none(), is_rolled_back);
    }
}

/// A table is taken from who is registered in it or was before, and only if it can be this cluster's.
#[test]
fn a_table_is_believed_from_members() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    let guest = cluster.join("m1");
    cluster.run(Duration::from_secs(10));
    let (now, me, guest) = (cluster.now.instant, cluster.id(1), cluster.id(guest));
    let node = &mut cluster.members[1].node;
    let table = node.table.clone().unwrap();
    assert_eq!(table.member(guest), None);
    let later = |by: u64| Table { version: table.version + by, ..table.clone() };
    let mut tells = |from: MemberId, table: &Table| {
        let faults = node.peer_faults;
        node.on_peer_message(now, from, Message::Table(table.clone()));
        let is_taken = node.table.as_ref() == Some(table);
        assert_ne!(is_taken, node.peer_faults > faults, "taken, or counted as a fault");
        is_taken
    };

    assert!(!tells(guest, &later(1)), "a member that is in neither table");
    assert!(tells(MemberId(1), &later(1)), "a founder");
    let listed = later(1).with(
        &Change::Register(Registration {
            id: guest,
            name: "m2".to_string(),
            address: "m2".to_string(),
            birth: 1,
            weight: 1,
        }),
        10,
        |_, _| false,
    );
    let listed = listed.unwrap().unwrap();
    assert!(tells(guest, &listed), "a member that this table registers");
    let without = Table { version: listed.version + 1, ..table.clone() };
    assert!(tells(guest, &without), "a member that was registered until now");
    assert!(!tells(guest, &later(9)));

    let lacks_a_group = Table { groups: table.groups[1..].to_vec(), ..later(10) };
    assert!(!tells(MemberId(1), &lacks_a_group));
    let mut has_another = later(10);
    has_another.groups.push(has_another.groups[1].clone());
    has_another.groups[5].group = GroupId(9);
    assert!(!tells(MemberId(1), &has_another));
    let mut other_founder = later(10);
    other_founder.members[0].birth ^= 1;
    assert!(!tells(MemberId(1), &other_founder));
    let used = crate::ids::ReplicaId(1);
    assert!(!tells(MemberId(1), &Table { next_replica: used, ..later(10) }));
    assert!(table.member(me).is_some());
}

/// Who asks a member that does not lead the directory hears which table it has, not all of the table.
#[test]
fn who_asks_the_wrong_one_hears_of_the_version() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.join("m2");
    cluster.run(Duration::from_secs(20));
    let leader = cluster.leaders(GroupId::DIRECTORY)[0];
    let (asked, asks) = ((leader + 1) % 3, (leader + 2) % 3);
    let (now, from) = (cluster.now, cluster.id(asks));
    let node = &mut cluster.members[asked].node;
    node.on_peer_message(now.instant, from, Message::Leave { force: false });
    let mut out = Outbox::new();
    node.flush(now, &mut out);
    let (conn, version) = (node.links.conn_of(from).unwrap(), node.table_version());
    let told = Output::Send { conn, message: Message::TableVersion(version) };
    assert!(out.outputs().contains(&told));
    let is_table =
        |output: &&Output| matches!(output, Output::Send { message: Message::Table(_), .. });
    assert_eq!(out.outputs().iter().filter(is_table).count(), 0);
}

/// Tables that come in one turn are one record, and what follows from them stands behind it.
#[test]
fn a_batch_holds_one_table() {
    let mut cluster = Cluster::start(3);
    cluster.run(Duration::from_secs(10));
    let node = &mut cluster.members[0].node;
    let (me, group) = (node.me, GroupId(1));
    let mut table = node.table.clone().unwrap();
    // The replica of this member is replaced, twice.
    let mut moves = |by: u64| {
        table.version += by;
        let assignment = &mut table.groups[1];
        let place = assignment.voters.iter().position(|voter| voter.member == me).unwrap();
        assignment.voters[place].id = table.next_replica;
        assignment.order = table.version;
        table.next_replica = table.next_replica.next();
        table.clone()
    };
    let now = cluster.now;
    for table in [moves(1), moves(1)] {
        node.on_peer_message(now.instant, MemberId(2), Message::Table(table));
    }
    node.on_dropped(now.instant, group);
    let mut out = Outbox::new();
    node.flush(now, &mut out);
    let batch = out.outputs().iter().find_map(|output| match output {
        Output::Append(batch) => Some(batch),
        _ => None,
    });
    let records: Vec<&Record> = batch.unwrap().records.iter().collect();
    let tables: Vec<&Record> =
        records.iter().copied().filter(|record| matches!(record, Record::Table(_))).collect();
    assert_eq!(tables, [&Record::Table(Box::new(table.clone()))]);
    let at = |wanted: &Record| records.iter().position(|record| *record == wanted).unwrap();
    let dropped = at(&Record::Dropped { group });
    let made = at(&Record::Replica { group, replica: table.groups[1].on_member(me).unwrap().id });
    assert!(at(tables[0]) < dropped && dropped < made);
}

/// A snapshot that waited for others to be sent begins when those end with their group.
#[test]
fn a_dropped_replica_makes_room_for_other_snapshots() {
    use crate::ids::SnapshotId;

    let mut cluster = Cluster::alone();
    let node = &mut cluster.members[0].node;
    for number in 0..8 {
        node.transfers.want_chunk(GroupId(1), SnapshotId(number), 0);
    }
    node.transfers.want_chunk(GroupId(1), SnapshotId(98), 0);
    node.transfers.want_chunk(GroupId(2), SnapshotId(99), 0);
    node.drop_replica(GroupId(1));
    for number in 0..8 {
        let task = StoreTask::CloseSnapshot { id: SnapshotId(number) };
        assert!(node.outputs.0.contains(&Output::Store(task)));
    }
    node.load_next_chunk(Instant(0));
    let task = StoreTask::Load { group: GroupId(2), id: SnapshotId(99), chunk: 0 };
    assert_eq!(node.outputs.0.last(), Some(&Output::Store(task)));
    assert_eq!(node.transfers.deadline(), None, "nothing else waits");
}

/// A member that joins through a list with its own address finds out and dials that no more.
#[test]
fn an_own_address_is_not_dialled_for_ever() {
    let mut cluster = Cluster::alone();
    let place = cluster.join("m1");
    cluster.run(Duration::from_secs(20));
    assert!(cluster.table(0).member(cluster.id(place)).is_some());
    let dials = cluster.net.dials["m1"];
    cluster.run(Duration::from_secs(60));
    assert_eq!(cluster.net.dials["m1"], dials);
    assert!(cluster.net.dials["nobody"] > 20, "an address where nobody is may be somebody's later");
}

/// There is no room for ever more members that nobody registers; members and clients are not kept out by them.
#[test]
fn guests_are_bounded() {
    use crate::wire::message::Refusal;

    let mut config = settings();
    config.limits.strangers = 2;
    let mut cluster = Cluster::alone_with(config);
    cluster.join("m1");
    cluster.run(Duration::from_secs(10));
    for _ in 0..4 {
        cluster.join("m1");
        cluster.run(Duration::from_secs(3));
    }
    let connected = |cluster: &Cluster, place: usize| {
        cluster.members[0].node.links.conn_of(cluster.id(place)).is_some()
    };
    let let_in: Vec<bool> = (2..6).map(|guest| connected(&cluster, guest)).collect();
    assert_eq!(let_in, [true, true, false, false]);
    let is_refused = |event: &Event| {
        matches!(event, Event::PeerRefused { reason: Refusal::Full, by_us: false, .. })
    };
    assert!(cluster.members[5].events.iter().any(is_refused));
    assert!(connected(&cluster, 1));

    // One of them goes: there is room for another one.
    cluster.net.isolated.insert(2);
    cluster.run(Duration::from_secs(20));
    assert_eq!((2..6).filter(|&guest| connected(&cluster, guest)).count(), 2);
}

/// TRAPS R22: a replica that was removed and comes back with what it knew before gets no vote and deposes nobody, and a
/// new one is listened to before the table is there that names it.
#[test]
fn a_removed_replica_is_not_listened_to() {
    use crate::ids::ReplicaId;
    use crate::raft::message::{Body, Message as RaftMessage, Replica};

    let mut cluster = Cluster::alone();
    for name in ["m1", "m2", "m3"] {
        cluster.join(name);
    }
    cluster.run(Duration::from_secs(30));
    let group = GROUPS.into_iter().skip(1).find(|group| {
        let voters = cluster.voters(*group);
        voters.contains(&cluster.id(1)) && voters.contains(&cluster.id(0))
    });
    let group = group.expect("two of four members share one of four groups");
    let was = cluster.membership(group).on_member(cluster.id(1)).unwrap();
    cluster.members[1].node.leave(false);
    cluster.run(Duration::from_secs(30));
    assert!(cluster.members[1].events.contains(&Event::Left));

    let (now, node) = (cluster.now.instant, &mut cluster.members[0].node);
    let to = node.groups[&group].raft.id();
    let term = node.groups[&group].raft.term();
    let mut stands = |from: Replica, term| {
        // Nobody has heard of the leader for long: nothing else keeps it from a vote.
        let later = now + Duration::from_secs(60);
        let (last_index, last_term) = (crate::ids::LogIndex(1 << 40), term);
        let body = Body::Vote { last_index, last_term, transfer: true };
        let message = RaftMessage { group, from: from.id, to, term, body };
        node.on_peer_message(later, from.member, Message::Raft(message));
        node.groups[&group].raft.term() == term
    };
    assert!(!stands(was, term.next()));
    let next = Replica { id: ReplicaId(1 << 40), member: MemberId::joiner(7) };
    assert!(stands(next, term.next()));
}

/// A member that is forgotten while it is connected asks to be registered again over the link that it has.
#[test]
fn what_a_registered_member_called_itself_is_known_when_it_is_forgotten() {
    let mut cluster = Cluster::alone();
    cluster.join("m1");
    cluster.run(Duration::from_secs(5));
    let id = cluster.id(1);
    let node = &mut cluster.members[0].node;
    assert!(node.table.as_ref().is_some_and(|table| table.member(id).is_some()));
    node.table.as_mut().unwrap().members.retain(|member| member.id != id);
    let registration = node.registration(id, "m1".to_string(), 1).expect("it is known");
    assert_eq!((registration.id, &*registration.name), (id, "m1"));
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
        let config = joining(place, name);
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
