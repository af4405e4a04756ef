use bytes::Bytes;
use ring_core::genesis::{Founder, Genesis};
use ring_core::ids::{ClusterId, LogSeq};
use ring_core::raft::message::{Body, Message as RaftMessage};
use ring_core::storage::record::Record;
use ring_core::store::StoreTask;
use ring_core::wire::Message;

use super::*;
use crate::oracle::tests::batch;

const G: GroupId = GroupId(1);

fn genesis() -> Genesis {
    let founder = |id| Founder {
        id: MemberId(id),
        name: format!("n{id}"),
        address: String::new(),
        birth: id,
    };
    Genesis {
        cluster: ClusterId(1),
        name: String::from("sim"),
        members: (1..=3).map(founder).collect(),
        shards: 1,
        replication: 3,
    }
}

/// The replica that the genesis gave a founder's machine.
fn first(machine: usize) -> Replica {
    genesis().membership(G).on_member(member_id(machine)).expect("each founder has one")
}

/// One that the directory gave later.
fn later(id: u64, machine: usize) -> Replica {
    Replica { id: ReplicaId(100 + id), member: member_id(machine) }
}

/// Three founders and a fourth machine; the founders have their replicas, and everyone has the first table.
fn cluster() -> Oracle {
    let mut oracle = Oracle::new(4);
    oracle.on_up(0, &genesis());
    for machine in 0..4 {
        oracle.on_started(machine, member_id(machine));
        oracle.on_table(machine, &Table::of_genesis(&genesis()));
    }
    for machine in 0..3 {
        let made = Record::Replica { group: G, replica: first(machine).id };
        append(&mut oracle, machine, 1, vec![made]);
    }
    oracle.on_leader(G, Term(1), MemberId(1));
    oracle
}

fn append(oracle: &mut Oracle, machine: usize, seq: u64, records: Vec<Record>) {
    let batch = batch(seq, records);
    oracle.on_append(machine, &batch);
    for record in &batch.records {
        if let Record::Entries { group, entries, .. } = record {
            entries.iter().for_each(|entry| oracle.on_shape(machine, *group, entry));
        }
    }
    oracle.on_stored(machine, LogSeq(seq));
}

/// A table that gives an order: the first two founders and the fourth machine; the third's replica retires.
fn ordered(version: u64, settled: bool) -> Table {
    let mut table = Table::of_genesis(&genesis());
    table.version = version;
    table.next_replica = ReplicaId(200);
    let group = table.groups.iter_mut().find(|group| group.group == G).expect("it is there");
    group.order = 2;
    group.voters = vec![first(0), first(1), later(1, 3)];
    group.settled = settled;
    group.retiring = if settled { Vec::new() } else { vec![first(2)] };
    table
}

fn shape(voters: &[Replica], outgoing: &[Replica], order: u64) -> Membership {
    let sorted = |replicas: &[Replica]| {
        let mut replicas = replicas.to_vec();
        replicas.sort_unstable();
        replicas
    };
    let (voters, outgoing) = (sorted(voters), sorted(outgoing));
    Membership { voters, outgoing, learners: Vec::new(), order }
}

fn new_voters() -> Vec<Replica> {
    vec![first(0), first(1), later(1, 3)]
}

fn entry(index: u64, membership: Membership) -> Entry {
    let body = EntryBody::Membership(Box::new(membership));
    Entry { index: LogIndex(index), term: Term(1), body }
}

fn goes_by(oracle: &mut Oracle, machine: usize, at: u64, present: &Membership) {
    let committed = Some(LogIndex(at));
    oracle.on_replica(machine, GoesBy { group: G, leads: None, present, committed });
}

fn check(oracle: &Oracle) -> Option<&'static str> {
    oracle.violation().map(|v| v.check)
}

fn promise(oracle: &mut Oracle, machine: usize, from: ReplicaId) {
    let body = Body::Accepted { index: LogIndex(0) };
    let to = first(0).id;
    let message = RaftMessage { group: G, from, to, term: Term(0), body };
    oracle.on_send(machine, &Message::Raft(message));
}

/// A whole order: the table, the membership, its settling, and the end of the replica that retired.
#[test]
fn a_move_is_good() {
    let mut oracle = cluster();
    oracle.on_table(0, &ordered(2, false));
    append(&mut oracle, 3, 1, vec![Record::Replica { group: G, replica: later(1, 3).id }]);
    goes_by(&mut oracle, 0, 5, &shape(&new_voters(), &[], 2));
    oracle.on_table(2, &ordered(3, true));
    append(&mut oracle, 2, 2, vec![Record::Dropped { group: G }]);
    promise(&mut oracle, 3, later(1, 3).id);
    assert_eq!(oracle.violation(), None);
    assert_eq!(oracle.machine_of(MemberId(4)), Some(3));
}

#[test]
fn table_sees_two_tables_of_one_version_and_one_that_goes_back() {
    let mut oracle = cluster();
    oracle.on_table(0, &ordered(2, false));
    oracle.on_table(1, &ordered(2, true));
    assert_eq!(check(&oracle), Some("TABLE"));

    let mut oracle = cluster();
    oracle.on_table(0, &ordered(2, false));
    oracle.on_table(0, &Table::of_genesis(&genesis()));
    assert_eq!(check(&oracle), Some("TABLE"));

    let mut oracle = cluster();
    oracle.on_table(0, &ordered(2, false));
    oracle.on_started(0, MemberId(1));
    oracle.on_table(0, &Table::of_genesis(&genesis()));
    assert_eq!(oracle.violation(), None, "another life knows nothing");
}

/// Planted bug D4.
#[test]
fn table_sees_a_replica_id_of_two_members() {
    let mut oracle = cluster();
    oracle.on_table(0, &ordered(2, false));
    let mut table = ordered(3, false);
    let group = table.groups.iter_mut().find(|group| group.group == G).expect("it is there");
    group.voters[2].member = MemberId(5);
    oracle.on_table(0, &table);
    assert_eq!(check(&oracle), Some("TABLE"));
}

/// Planted bugs D1 and D3: the table names a voter no more that is in force.
#[test]
fn order_sees_a_voter_that_the_table_does_not_name() {
    let mut oracle = cluster();
    goes_by(&mut oracle, 0, 1, &genesis().membership(G));
    oracle.on_table(0, &ordered(2, true));
    assert_eq!(check(&oracle), Some("ORDER"));

    let mut oracle = cluster();
    oracle.on_table(0, &ordered(2, true));
    goes_by(&mut oracle, 0, 1, &genesis().membership(G));
    assert_eq!(check(&oracle), Some("ORDER"), "whichever comes first");

    // The same in the log of whoever leads in the highest term, and of nobody else.
    for (term, found) in [(1, Some("ORDER")), (0, None)] {
        let mut oracle = cluster();
        oracle.on_table(0, &ordered(2, true));
        let present = &genesis().membership(G);
        let leads = Some(Term(term));
        oracle.on_replica(0, GoesBy { group: G, leads, present, committed: None });
        assert_eq!(check(&oracle), found);
    }
}

/// Planted bug D2.
#[test]
fn order_sees_an_older_order_after_a_newer_one() {
    let mut oracle = cluster();
    for (index, order) in [(1, 3), (2, 2)] {
        assert_eq!(oracle.violation(), None);
        let entries = vec![entry(index, shape(&genesis().membership(G).voters, &[], order))];
        for machine in 0..2 {
            let replica = first(machine).id;
            let vote = Record::Vote { group: G, replica, term: Term(1), vote: None };
            let records =
                vec![vote, Record::Entries { group: G, replica, entries: entries.clone() }];
            append(&mut oracle, machine, 1 + index, records);
        }
        oracle.on_task(0, &StoreTask::Apply { group: G, entries, answers: false });
    }
    assert_eq!(check(&oracle), Some("ORDER"));
}

/// Planted bug D5.
#[test]
fn order_sees_a_voter_dropped_and_one_that_leaves() {
    let mut oracle = cluster();
    goes_by(&mut oracle, 0, 1, &genesis().membership(G));
    append(&mut oracle, 2, 2, vec![Record::Dropped { group: G }]);
    assert_eq!(check(&oracle), Some("ORDER"));

    let mut oracle = cluster();
    goes_by(&mut oracle, 0, 1, &genesis().membership(G));
    oracle.on_left(2);
    assert_eq!(check(&oracle), Some("ORDER"));
}

/// Who did not know that it was registered leaves though it is named, but with nothing that it made.
#[test]
fn order_lets_go_who_was_named_and_made_nothing() {
    for (made, found) in [(false, None), (true, Some("ORDER"))] {
        let mut oracle = cluster();
        let mut shape = genesis().membership(G);
        shape.learners.push(later(1, 3));
        oracle.on_table(0, &ordered(2, false));
        if made {
            append(&mut oracle, 3, 1, vec![Record::Replica { group: G, replica: later(1, 3).id }]);
        }
        goes_by(&mut oracle, 0, 1, &shape);
        assert_eq!(oracle.violation(), None);
        oracle.on_left(3);
        assert_eq!(check(&oracle), found);
    }
}

#[test]
fn order_sees_a_replica_made_twice() {
    let mut oracle = cluster();
    append(&mut oracle, 3, 1, vec![Record::Replica { group: G, replica: later(1, 3).id }]);
    append(&mut oracle, 3, 2, vec![Record::Dropped { group: G }]);
    assert_eq!(oracle.violation(), None);
    append(&mut oracle, 3, 3, vec![Record::Replica { group: G, replica: later(1, 3).id }]);
    assert_eq!(check(&oracle), Some("ORDER"));
}

/// Planted bug D6.
#[test]
fn ready_sees_a_voter_that_lacks_what_was_applied() {
    for (has, found) in [(false, Some("READY")), (true, None)] {
        let mut oracle = cluster();
        let noop = Entry { index: LogIndex(1), term: Term(1), body: EntryBody::Data(Bytes::new()) };
        append(&mut oracle, 3, 1, vec![Record::Replica { group: G, replica: later(1, 3).id }]);
        for machine in 0..4 {
            let replica = if machine == 3 { later(1, 3) } else { first(machine) }.id;
            let vote = Record::Vote { group: G, replica, term: Term(1), vote: None };
            let entries = vec![noop.clone()];
            let records = vec![vote, Record::Entries { group: G, replica, entries }];
            if machine < 3 || has {
                append(&mut oracle, machine, 2, records);
            }
        }
        let entries = vec![noop];
        oracle.on_task(0, &StoreTask::Apply { group: G, entries, answers: false });
        oracle.on_table(0, &ordered(2, false));
        let joint = shape(&new_voters(), &genesis().membership(G).voters, 2);
        let entries = vec![entry(2, joint)];
        let replica = first(0).id;
        append(&mut oracle, 0, 3, vec![Record::Entries { group: G, replica, entries }]);
        assert_eq!(check(&oracle), found);
    }
}

/// Trap R22, and planted bug D7: what was dropped, or never made, promises nothing.
#[test]
fn r22_sees_a_promise_of_a_replica_that_is_not_there() {
    let mut oracle = cluster();
    promise(&mut oracle, 2, first(2).id);
    assert_eq!(oracle.violation(), None);
    append(&mut oracle, 2, 2, vec![Record::Dropped { group: G }]);
    promise(&mut oracle, 2, first(2).id);
    assert_eq!(check(&oracle), Some("R22"));

    let mut oracle = cluster();
    promise(&mut oracle, 2, later(7, 2).id);
    assert_eq!(check(&oracle), Some("R22"));

    let mut oracle = cluster();
    oracle.on_renewed(2);
    oracle.on_started(2, MemberId(77));
    let made = Record::Replica { group: G, replica: later(9, 2).id };
    append(&mut oracle, 2, 1, vec![made]);
    promise(&mut oracle, 2, later(9, 2).id);
    assert_eq!(oracle.violation(), None);
    promise(&mut oracle, 2, first(2).id);
    assert_eq!(check(&oracle), Some("R22"), "its disk was emptied");
}

/// Who has left may come back on its directory, on its machine.
#[test]
fn r22_sees_a_member_in_two_places() {
    let mut oracle = cluster();
    oracle.on_left(3);
    oracle.on_started(3, MemberId(4));
    assert_eq!(oracle.violation(), None);
    oracle.on_started(2, MemberId(4));
    assert_eq!(check(&oracle), Some("R22"));
}

#[test]
fn recover_sees_a_state_that_is_forgotten_before_the_log_says_so() {
    let forget = StoreTask::Drop { group: G };
    let mut oracle = cluster();
    append(&mut oracle, 2, 2, vec![Record::Dropped { group: G }]);
    oracle.on_task(2, &forget);
    assert_eq!(oracle.violation(), None);

    let mut oracle = cluster();
    oracle.on_append(2, &batch(2, vec![Record::Dropped { group: G }]));
    oracle.on_task(2, &forget);
    assert_eq!(check(&oracle), Some("RECOVER"), "written, but not durable");
}

/// One of three disks may be lost, and no second one until another replica has taken the place of the first.
#[test]
fn disks_may_be_lost_as_long_as_every_membership_keeps_a_majority() {
    let mut oracle = cluster();
    assert!((0..3).all(|machine| oracle.may_lose(Some(machine), |_| false)));
    oracle.on_renewed(2);
    oracle.on_started(2, MemberId(77));
    for (machine, holds_nothing) in [(0, false), (1, false), (2, true), (3, true)] {
        assert_eq!(
            oracle.may_lose(Some(machine), |_| false),
            holds_nothing,
            "two of three would be gone"
        );
    }
    assert!(!oracle.may_lose(None, |machine| machine == 0), "one of two would be left");

    oracle.on_table(0, &ordered(2, false));
    goes_by(&mut oracle, 0, 5, &shape(&new_voters(), &[], 2));
    assert!(
        !oracle.may_lose(Some(0), |_| false),
        "the directory's own group has three replicas, one of them lost"
    );
    let mut shape = genesis().membership(GroupId::DIRECTORY);
    shape.voters.retain(|voter| voter.member != member_id(2));
    shape.voters.push(Replica { id: ReplicaId(150), member: member_id(3) });
    shape.order = 3;
    let present = &shape;
    let committed = Some(LogIndex(3));
    let mut table = ordered(3, false);
    table.groups[0].voters.clone_from(&shape.voters);
    oracle.on_table(0, &table);
    let group = GroupId::DIRECTORY;
    oracle.on_replica(0, GoesBy { group, leads: None, present, committed });
    assert_eq!(oracle.violation(), None);
    assert!(oracle.may_lose(Some(0), |_| false));
}
