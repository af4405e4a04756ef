//! What is believed of tables and of those who are not registered, and what is remembered of them.

use super::*;
use crate::wire::message::Refusal;

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
        let copy = cluster.log_of(second);
        cluster.rejoin(second, "m1", copy.clone());
        cluster.run(Duration::from_secs(5));
        let left = cluster.log_of(second);
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

/// A founder's start that a member saw before it knew the cluster is remembered like any other: on a copy that lacks it
/// the founder is refused.
#[test]
fn a_newcomer_remembers_the_start_of_who_let_it_in() {
    let mut cluster = Cluster::alone();
    let founder = &cluster.members[0].node;
    let (id, boot, config) = (founder.me, founder.boot, founder.config.clone());
    let copy = Recovered { boot: Boot(0), ..cluster.log_of(0) };
    let newcomer = cluster.join("m1");
    while cluster.members[newcomer].node.log.stored() == LogSeq(0) {
        cluster.turn();
    }
    cluster.members[newcomer].disk_stalls = true;
    cluster.run(Duration::from_secs(1));
    let records = cluster.members[newcomer].appended.iter().flat_map(|batch| &batch.records);
    let at = |wanted: Record| records.clone().position(|record| *record == wanted);
    let (start, belongs) = (at(Record::PeerBoot { member: id, boot }), at(Record::Founded));
    assert!(start.is_some() && start < belongs, "{start:?}, {belongs:?}");

    cluster.members[newcomer].disk_stalls = false;
    cluster.run(Duration::from_secs(1));
    let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
    let node = Node::new(config, Restored { log: copy, store }, 9, cluster.now).unwrap();
    assert_eq!(node.boot.count(), boot.count(), "as often as the one that was seen");
    cluster.replace(0, Member::new(node, worker));
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.members[0].halt, Some(Halt::RolledBack { seen: boot }));
}

/// What another directory counted says nothing about a founder's: its id may have been somebody else's there.
#[test]
fn starts_on_another_directory_do_not_count() {
    for (birth, counts) in [(0, true), (1, false)] {
        let mut cluster = Cluster::alone();
        let genesis = cluster.members[0].node.genesis.clone().unwrap();
        let newcomer = cluster.join("m1");
        let (now, founder) = (cluster.now.instant, &genesis.members[0]);
        let node = &mut cluster.members[newcomer].node;
        let (name, boot) = (founder.name.clone(), Boot(7 << 32));
        node.guests.insert(founder.id, Guest { name, birth: founder.birth ^ birth, boot });
        node.join_cluster(now, founder.id, Some(genesis.clone()));
        assert_eq!(node.boots.get(&founder.id), counts.then_some(&boot));
    }
}

/// One list of addresses may serve all members: a member that finds itself at one of them tells nobody. Another one that
/// runs on a copy of its directory meanwhile is told of on both sides, and its address is dialled on.
#[test]
fn a_member_that_dials_itself_is_no_twin() {
    let mut cluster = Cluster::alone();
    let second = cluster.join("m1");
    cluster.run(Duration::from_secs(5));
    assert!(cluster.net.dials["m1"] > 0, "its own address is in its list");
    let refused = |member: &Member| {
        let reason = |event: &Event| match event {
            Event::PeerRefused { reason, by_us, .. } => Some((reason.clone(), *by_us)),
            _ => None,
        };
        member.events.iter().filter_map(reason).collect::<Vec<_>>()
    };
    assert_eq!(refused(&cluster.members[second]), []);

    let log = cluster.log_of(second);
    let twin = cluster.join("m1");
    let config = Config { join: alloc::vec!["m1".to_string()], ..joining(twin, "m1") };
    let (worker, store) = Worker::new(MemoryStore::new(), &config.limits).unwrap();
    let node = Node::new(config, Restored { log, store }, 9, cluster.now).unwrap();
    cluster.members[twin] = Member::new(node, worker);
    let dialled = cluster.net.dials["m1"];
    cluster.run(Duration::from_secs(5));
    assert!(refused(&cluster.members[twin]).contains(&(Refusal::Twin, false)));
    assert!(refused(&cluster.members[second]).contains(&(Refusal::Twin, true)));
    assert!(cluster.net.dials["m1"] > dialled + 2);
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
        self.break_links(|one, _| one == place);
        self.members[place] = Member::new(node, worker);
    }
}
