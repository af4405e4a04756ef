use bytes::Bytes;
use ring_core::genesis::Founder;
use ring_core::ids::{ClusterId, SegmentId};
use ring_core::raft::message::{Body, Entry, EntryBody, Membership, Message as RaftMessage};
use ring_core::storage::record::{Batch, Record};
use ring_core::storage::{Recovered, RecoveredGroup};
use ring_core::store::{StoreDone, StoreState, StoreTask};
use ring_core::wire::Message;

use super::*;

const G: GroupId = GroupId(1);

fn entry(index: u64, term: u64, data: &'static str) -> Entry {
    let body = EntryBody::Data(Bytes::from_static(data.as_bytes()));
    Entry { index: LogIndex(index), term: Term(term), body }
}

pub(super) fn batch(seq: u64, records: Vec<Record>) -> Batch {
    Batch {
        seq: LogSeq(seq),
        segment: SegmentId(1),
        offset: 0,
        len: 0,
        durable: LogSeq(0),
        opens: None,
        records,
    }
}

fn vote(term: u64, vote: Option<u64>) -> Record {
    let vote = vote.map(ReplicaId);
    Record::Vote { group: G, replica: ReplicaId(1), term: Term(term), vote }
}

fn entries(entries: Vec<Entry>) -> Record {
    Record::Entries { group: G, replica: ReplicaId(1), entries }
}

fn message(term: u64, body: Body) -> Message {
    let (from, to) = (ReplicaId(1), ReplicaId(2));
    Message::Raft(RaftMessage { group: G, from, to, term: Term(term), body })
}

fn apply(entries: Vec<Entry>) -> StoreTask {
    StoreTask::Apply { group: G, entries, answers: false }
}

/// Three members, of which the first two have stored entry 1 of term 1; the first leads.
fn three() -> Oracle {
    let founder = |id| Founder {
        id: MemberId(id),
        name: format!("n{id}"),
        address: String::new(),
        birth: id,
    };
    let genesis = Genesis {
        cluster: ClusterId(1),
        name: String::from("sim"),
        members: (1..=3).map(founder).collect(),
        shards: 1,
        replication: 3,
    };
    let mut oracle = Oracle::new(3);
    oracle.on_up(0, &genesis);
    for member in 0..2 {
        let records = vec![vote(1, Some(1)), entries(vec![entry(1, 1, "a")])];
        oracle.on_append(member, &batch(1, records));
        oracle.on_stored(member, LogSeq(1));
    }
    oracle.on_leader(G, Term(1), MemberId(1));
    oracle
}

fn check(oracle: &Oracle) -> Option<&'static str> {
    oracle.violation().map(|v| v.check)
}

#[test]
fn a_good_run_is_good() {
    let mut oracle = three();
    assert!(oracle.on_send(1, &message(1, Body::Accepted { index: LogIndex(1) })));
    for member in 0..2 {
        oracle.on_task(member, &apply(vec![entry(1, 1, "a")]));
    }
    assert_eq!(oracle.violation(), None);
    assert_eq!(oracle.applied(G), LogIndex(1));
}

#[test]
fn elect_sees_a_second_leader() {
    let mut oracle = three();
    oracle.on_leader(G, Term(1), MemberId(2));
    assert_eq!(check(&oracle), Some("ELECT"));
}

/// Trap R4 and R17: a vote for a candidate with an older log.
#[test]
fn elect_sees_a_vote_for_an_older_log() {
    for (last_term, is_older) in [(0, true), (1, false)] {
        let mut oracle = three();
        let (last_index, last_term) = (LogIndex(last_term), Term(last_term));
        let ask = Body::Vote { last_index, last_term, transfer: false };
        let (from, to, term) = (ReplicaId(3), ReplicaId(1), Term(2));
        let request = RaftMessage { group: G, from, to, term, body: ask };
        oracle.on_append(2, &batch(1, vec![vote(2, Some(3))]));
        oracle.on_stored(2, LogSeq(1));
        oracle.on_send(2, &Message::Raft(request));

        oracle.on_append(0, &batch(2, vec![vote(2, Some(3))]));
        oracle.on_stored(0, LogSeq(2));
        let body = Body::VoteAnswer { granted: true };
        let answer = RaftMessage { group: G, from: to, to: from, term, body };
        oracle.on_send(0, &Message::Raft(answer));
        assert_eq!(check(&oracle), is_older.then_some("ELECT"));
    }
}

#[test]
fn match_sees_another_entry_of_the_same_index_and_term() {
    let mut oracle = three();
    oracle.on_append(2, &batch(1, vec![entries(vec![entry(1, 1, "b")])]));
    assert_eq!(check(&oracle), Some("MATCH"));
}

#[test]
fn match_sees_a_gap() {
    let mut oracle = three();
    oracle.on_append(0, &batch(2, vec![entries(vec![entry(3, 1, "c")])]));
    assert_eq!(check(&oracle), Some("MATCH"));
}

/// Trap R3: a second vote in one term.
#[test]
fn match_sees_a_vote_that_is_taken_back() {
    for other in [None, Some(2)] {
        let mut oracle = three();
        oracle.on_append(0, &batch(2, vec![vote(1, other)]));
        assert_eq!(check(&oracle), Some("MATCH"));
    }
}

#[test]
fn ledger_sees_two_entries_applied_at_one_index() {
    let mut oracle = three();
    oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
    oracle.on_task(1, &apply(vec![entry(1, 1, "b")]));
    assert_eq!(check(&oracle), Some("LEDGER"));
}

#[test]
fn ledger_sees_a_leader_without_what_was_applied() {
    let mut oracle = three();
    oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
    oracle.on_send(2, &message(2, Body::TimeoutNow));
    assert_eq!(check(&oracle), Some("LEDGER"));
}

#[test]
fn ledger_sees_an_applied_entry_given_up_but_not_a_late_leader() {
    let mut oracle = three();
    oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
    oracle.on_append(2, &batch(1, vec![entries(vec![entry(1, 9, "late")])]));
    assert_eq!(oracle.violation(), None);
    oracle.on_append(1, &batch(2, vec![entries(vec![entry(1, 9, "late")])]));
    assert_eq!(check(&oracle), Some("LEDGER"));
}

/// Trap R7: the leader counts its own disk before it has written.
#[test]
fn commit_sees_too_few_durable_copies() {
    let mut oracle = three();
    for member in 0..2 {
        oracle.on_append(member, &batch(2, vec![entries(vec![entry(2, 1, "b")])]));
    }
    oracle.on_stored(0, LogSeq(2));
    oracle.on_task(0, &apply(vec![entry(1, 1, "a"), entry(2, 1, "b")]));
    assert_eq!(check(&oracle), Some("COMMIT"));
}

/// Trap R1: a majority has an entry of an older term, but nothing of its leader's own.
#[test]
fn commit_sees_an_old_entry_committed_by_its_copies() {
    let mut oracle = three();
    oracle.on_append(0, &batch(2, vec![entries(vec![entry(2, 1, "b")])]));
    oracle.on_append(0, &batch(3, vec![vote(3, Some(1))]));
    oracle.on_append(1, &batch(2, vec![vote(3, Some(1)), entries(vec![entry(2, 1, "b")])]));
    oracle.on_stored(0, LogSeq(3));
    oracle.on_stored(1, LogSeq(2));
    oracle.on_task(0, &apply(vec![entry(1, 1, "a"), entry(2, 1, "b")]));
    assert_eq!(check(&oracle), Some("COMMIT"));
}

/// The same once the new leader's first entry is there too.
#[test]
fn commit_counts_an_entry_of_the_leaders_own_term() {
    let mut oracle = three();
    let old = entry(2, 1, "b");
    oracle.on_append(0, &batch(2, vec![entries(vec![old.clone()])]));
    let own = vec![vote(3, Some(1)), entries(vec![entry(3, 3, "c")])];
    oracle.on_append(0, &batch(3, own));
    let both = vec![vote(3, Some(1)), entries(vec![old.clone(), entry(3, 3, "c")])];
    oracle.on_append(1, &batch(2, both));
    oracle.on_stored(0, LogSeq(3));
    oracle.on_stored(1, LogSeq(2));
    oracle.on_task(0, &apply(vec![entry(1, 1, "a"), old]));
    assert_eq!(oracle.violation(), None);
}

/// Trap R2: the answer before the vote is on disk.
#[test]
fn promise_sees_a_vote_that_is_not_durable() {
    let mut oracle = three();
    oracle.on_append(0, &batch(2, vec![vote(2, Some(2))]));
    oracle.on_send(0, &message(2, Body::VoteAnswer { granted: true }));
    assert_eq!(check(&oracle), Some("PROMISE"));
}

#[test]
fn promise_sees_an_acceptance_that_is_not_durable_or_does_not_match() {
    let mut oracle = three();
    oracle.on_append(1, &batch(2, vec![entries(vec![entry(2, 1, "b")])]));
    oracle.on_send(1, &message(1, Body::Accepted { index: LogIndex(2) }));
    assert_eq!(check(&oracle), Some("PROMISE"));

    let mut oracle = three();
    let records = vec![vote(2, None), entries(vec![entry(2, 2, "b")])];
    oracle.on_append(0, &batch(2, records));
    oracle.on_leader(G, Term(2), MemberId(1));
    let records = vec![vote(2, None), entries(vec![entry(2, 1, "x")])];
    oracle.on_append(1, &batch(2, records));
    oracle.on_stored(1, LogSeq(2));
    oracle.on_send(1, &message(2, Body::Accepted { index: LogIndex(2) }));
    assert_eq!(check(&oracle), Some("PROMISE"));
}

/// Trap R21: an empty disk under an old name.
#[test]
fn promise_sees_a_member_on_an_empty_disk() {
    let mut oracle = three();
    oracle.on_lost(0);
    oracle.on_boot(0, &Recovered::default(), &[]);
    assert_eq!(oracle.violation(), None);
    oracle.on_send(0, &message(5, Body::VoteAnswer { granted: true }));
    assert_eq!(check(&oracle), Some("PROMISE"));
}

/// Trap R8: a leader that does not know what is committed tells a read to wait for too little.
#[test]
fn read_sees_an_index_before_what_was_applied() {
    for (index, is_stale) in [(0, true), (1, false)] {
        let mut oracle = three();
        oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
        let (from, to, term) = (ReplicaId(3), ReplicaId(1), Term(1));
        let body = Body::ReadIndex { read: 7 };
        oracle.on_send(2, &Message::Raft(RaftMessage { group: G, from, to, term, body }));
        let body = Body::ReadIndexAnswer { read: 7, index: Some(LogIndex(index)) };
        let answer = RaftMessage { group: G, from: to, to: from, term, body };
        oracle.on_send(0, &Message::Raft(answer));
        assert_eq!(check(&oracle), is_stale.then_some("READ"));
    }
}

#[test]
fn hash_sees_states_that_differ() {
    let mut oracle = three();
    for (member, digest) in [(0, 7), (1, 8)] {
        oracle.on_task(member, &apply(vec![entry(1, 1, "a")]));
        let (index, stamp) = (LogIndex(1), 0);
        let outcomes = Vec::new();
        oracle.on_done(member, &StoreDone::Applied { group: G, index, outcomes, digest, stamp });
    }
    assert_eq!(check(&oracle), Some("HASH"));
}

#[test]
fn once_sees_an_entry_applied_again() {
    let mut oracle = three();
    oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
    oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
    assert_eq!(check(&oracle), Some("ONCE"));
}

#[test]
fn once_sees_a_store_that_forgot_what_it_had_synced() {
    let state = |index| StoreState {
        group: G,
        index: LogIndex(index),
        term: Term(1),
        membership: Membership::default(),
        stamp: 0,
        digest: 7,
        epoch: ring_core::ids::Epoch(1),
    };
    for found in [vec![], vec![state(0)]] {
        let mut oracle = three();
        oracle.on_task(0, &apply(vec![entry(1, 1, "a")]));
        oracle.on_done(0, &StoreDone::Persisted { groups: vec![state(1)] });
        oracle.on_boot(0, &recovered(2, 1, vec![entry(1, 1, "a")]), &found);
        assert_eq!(check(&oracle), Some("ONCE"));
    }
}

fn recovered(next_seq: u64, term: u64, entries: Vec<Entry>) -> Recovered {
    let mut log = Recovered::default();
    log.tail.next_seq = LogSeq(next_seq);
    let group = RecoveredGroup {
        replica: ReplicaId(1),
        term: Term(term),
        vote: Some(ReplicaId(1)),
        commit: LogIndex(0),
        cut_index: LogIndex(0),
        cut_term: Term(0),
        membership: Membership::default(),
        entries,
    };
    log.groups.insert(G, group);
    log
}

/// Trap W3: the log ends before what was durable; or says something else.
#[test]
fn recover_sees_what_is_missing_or_wrong() {
    let mut oracle = three();
    oracle.on_recovered(0, &recovered(2, 1, vec![entry(1, 1, "a")]));
    assert_eq!(oracle.violation(), None);

    oracle.on_recovered(0, &recovered(1, 1, vec![]));
    assert_eq!(check(&oracle), Some("RECOVER"));
    for wrong in [
        recovered(2, 1, vec![]),
        recovered(2, 0, vec![entry(1, 1, "a")]),
        recovered(2, 1, vec![entry(1, 0, "a")]),
        Recovered { tail: recovered(2, 1, vec![]).tail, ..Recovered::default() },
    ] {
        let mut oracle = three();
        oracle.on_recovered(0, &wrong);
        assert_eq!(check(&oracle), Some("RECOVER"), "{wrong:?}");
    }
}

/// What was written and not synced may be there after a crash, up to any batch.
#[test]
fn recover_takes_any_prefix_of_what_was_not_durable() {
    for kept in 0..=2 {
        let mut oracle = three();
        oracle.on_append(0, &batch(2, vec![entries(vec![entry(2, 1, "b")])]));
        oracle.on_append(0, &batch(3, vec![entries(vec![entry(3, 1, "c")])]));
        let mut found = vec![entry(1, 1, "a"), entry(2, 1, "b"), entry(3, 1, "c")];
        found.truncate(1 + kept);
        let next = len_u64(kept) + 2;
        oracle.on_recovered(0, &recovered(next, 1, found));
        assert_eq!(oracle.violation(), None);
    }
}

fn shape(voters: &[u64], outgoing: &[u64]) -> Membership {
    let genesis = three().genesis().expect("it was founded").membership(G);
    let replicas = |members: &[u64]| {
        let on = |member: &u64| genesis.on_member(MemberId(*member)).expect("one of the three");
        let mut replicas: Vec<_> = members.iter().map(on).collect();
        replicas.sort_unstable();
        replicas
    };
    Membership {
        voters: replicas(voters),
        outgoing: replicas(outgoing),
        learners: Vec::new(),
        order: 0,
    }
}

fn change(index: u64, term: u64, shape: &Membership) -> Entry {
    let body = EntryBody::Membership(Box::new(shape.clone()));
    Entry { index: LogIndex(index), term: Term(term), body }
}

fn log_change(oracle: &mut Oracle, seq: u64, changes: Vec<Entry>) {
    oracle.on_append(0, &batch(seq, vec![entries(changes.clone())]));
    changes.iter().for_each(|entry| oracle.on_shape(0, G, entry));
}

/// Trap R14: from three voters to one at once, both may decide without the other.
#[test]
fn config_sees_a_change_without_a_common_majority() {
    let mut oracle = three();
    let steps = [shape(&[1], &[1, 2, 3]), shape(&[1], &[])];
    log_change(&mut oracle, 2, vec![change(2, 1, &steps[0]), change(3, 1, &steps[1])]);
    assert_eq!(oracle.violation(), None);

    // What a later leader puts in its place follows the genesis, and not what it replaces.
    log_change(&mut oracle, 3, vec![change(2, 2, &shape(&[2], &[1, 2, 3]))]);
    assert_eq!(oracle.violation(), None);

    log_change(&mut oracle, 4, vec![change(2, 3, &shape(&[2], &[]))]);
    assert_eq!(check(&oracle), Some("CONFIG"));
}

/// Trap R15: a replica goes by a membership that its log does not hold, or no longer.
#[test]
fn config_sees_a_membership_that_is_not_in_the_log() {
    let (old, joint) = (shape(&[1, 2, 3], &[]), shape(&[1], &[1, 2, 3]));
    let log = |cut, index, last| (LogIndex(cut), LogIndex(index), LogIndex(last));
    for (range, goes_by, wrong) in [
        (log(0, 0, 2), &old, None),
        (log(0, 0, 2), &joint, Some("CONFIG")),
        (log(0, 2, 2), &joint, None),
        (log(0, 2, 2), &old, Some("CONFIG")),
        (log(0, 3, 2), &joint, Some("CONFIG")),
        (log(2, 1, 2), &joint, Some("CONFIG")),
        (log(0, 2, 3), &joint, Some("MATCH")),
        (log(0, 0, 1), &old, Some("MATCH")),
    ] {
        let mut oracle = three();
        log_change(&mut oracle, 2, vec![change(2, 1, &joint)]);
        oracle.on_goes_by(0, G, range, goes_by);
        assert_eq!(check(&oracle), wrong, "{range:?}");
    }
}

/// Trap R19: a snapshot takes back what was applied.
#[test]
fn once_sees_an_older_snapshot_installed() {
    for (at, is_older) in [(1, true), (2, false)] {
        let mut oracle = three();
        let second = entry(2, 1, "b");
        for member in 0..2 {
            oracle.on_append(member, &batch(2, vec![entries(vec![second.clone()])]));
            oracle.on_stored(member, LogSeq(2));
        }
        oracle.on_task(0, &apply(vec![entry(1, 1, "a"), second]));
        let (group, index, stamp) = (G, LogIndex(2), 0);
        oracle.on_done(0, &StoreDone::Applied { group, index, stamp, digest: 1, outcomes: vec![] });
        let state = StoreState {
            group,
            index: LogIndex(at),
            term: Term(1),
            membership: shape(&[1, 2, 3], &[]),
            stamp: 0,
            digest: 1,
            epoch: ring_core::ids::Epoch(1),
        };
        oracle.on_done(
            0,
            &StoreDone::Installed { state: Box::new(state), id: ring_core::ids::SnapshotId(1) },
        );
        assert_eq!(check(&oracle), is_older.then_some("ONCE"), "at {at}");
    }
}
