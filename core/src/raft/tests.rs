//! One test per rule: a replica's state, one input, the exact effects.

mod snapshots;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::message::{Beat, BeatAnswer};
use super::*;

const GROUP: GroupId = GroupId(1);

fn replica(id: u64) -> Replica {
    Replica { id: ReplicaId(id), member: MemberId(id) }
}

fn membership(voters: &[u64], learners: &[u64]) -> Membership {
    Membership {
        voters: voters.iter().map(|&id| replica(id)).collect(),
        outgoing: Vec::new(),
        learners: learners.iter().map(|&id| replica(id)).collect(),
        order: 0,
    }
}

fn settings() -> Settings {
    Settings {
        election_min: Duration::from_millis(500),
        election_max: Duration::from_millis(1000),
        append_bytes: 1 << 20,
        append_entries: 1024,
        appends_in_flight: 4,
        log_bytes_max: 1 << 30,
    }
}

fn at(millis: u64) -> Instant {
    Instant(millis * 1_000_000)
}

fn entry(index: u64, term: u64) -> Entry {
    let body = EntryBody::Data(bytes::Bytes::from_static(b"x"));
    Entry { index: LogIndex(index), term: Term(term), body }
}

/// Replica 1 with a log of these terms, nothing committed.
fn with_log(membership: Membership, term: u64, terms: &[u64]) -> Raft {
    let entries = (1..).zip(terms).map(|(index, &term)| entry(index, term)).collect();
    let durable = Durable {
        term: Term(term),
        vote: None,
        commit: LogIndex(0),
        cut_index: LogIndex(0),
        cut_term: Term(0),
        membership: membership.clone(),
        entries,
    };
    let store = StoreState {
        group: GROUP,
        index: LogIndex(0),
        term: Term(0),
        membership,
        stamp: 0,
        digest: 0,
        epoch: crate::ids::Epoch(0),
    };
    Raft::new(
        (GROUP, ReplicaId(1)),
        settings(),
        durable,
        &store,
        Rng::new(1),
        at(0),
        &mut Effects::default(),
    )
}

fn three(term: u64, terms: &[u64]) -> Raft {
    with_log(membership(&[1, 2, 3], &[]), term, terms)
}

/// A message to replica 1.
fn from(id: u64, term: u64, body: Body) -> (MemberId, Message) {
    let message =
        Message { group: GROUP, from: ReplicaId(id), to: ReplicaId(1), term: Term(term), body };
    (MemberId(id), message)
}

/// A message of replica 1.
fn to(id: u64, term: u64, body: Body) -> (MemberId, Message) {
    let message =
        Message { group: GROUP, from: ReplicaId(1), to: ReplicaId(id), term: Term(term), body };
    (MemberId(id), message)
}

fn step(raft: &mut Raft, now: Instant, (member, message): (MemberId, Message)) -> Effects {
    let mut fx = Effects::default();
    raft.on_message(now, member, message, &mut fx);
    raft.check();
    fx
}

fn vote_record(term: u64, vote: Option<u64>) -> Record {
    let (term, vote) = (Term(term), vote.map(ReplicaId));
    Record::Vote { group: GROUP, replica: ReplicaId(1), term, vote }
}

fn append(prev: (u64, u64), commit: u64, entries: Vec<Entry>) -> Body {
    Body::Append {
        prev_index: LogIndex(prev.0),
        prev_term: Term(prev.1),
        commit: LogIndex(commit),
        entries,
    }
}

fn accepted(index: u64) -> Body {
    Body::Accepted { index: LogIndex(index) }
}

/// Everything recorded so far is durable.
fn store(raft: &mut Raft, now: Instant) -> Effects {
    let mut fx = Effects::default();
    raft.on_recorded(LogSeq(1));
    raft.on_stored(now, LogSeq(1), &mut fx);
    raft.check();
    fx
}

/// Replica 1 leads term 2 and its no-op is durable here.
fn leader(membership: Membership, terms: &[u64]) -> Raft {
    let mut raft = with_log(membership, 1, terms);
    let mut fx = Effects::default();
    raft.become_candidate(at(0), false, &mut fx);
    store(&mut raft, at(0));
    if !raft.is_leader() {
        step(&mut raft, at(0), from(2, 2, Body::VoteAnswer { granted: true }));
    }
    assert!(raft.is_leader());
    store(&mut raft, at(0));
    raft
}

fn flush(raft: &mut Raft) -> Effects {
    let mut fx = Effects::default();
    raft.flush(&mut fx);
    raft.check();
    fx
}

/// One record and one wait for all that is proposed in a turn, none for what an earlier turn recorded.
#[test]
fn what_is_proposed_in_one_turn_is_one_record() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[1]);
    let mut fx = Effects::default();
    for _ in 0..3 {
        raft.propose(bytes::Bytes::from_static(b"x"), &mut fx).unwrap();
    }
    let [Record::Entries { entries, .. }] = &fx.records[..] else { panic!("{fx:?}") };
    let indexes: Vec<u64> = entries.iter().map(|entry| entry.index.0).collect();
    assert_eq!(indexes, [3, 4, 5]);

    raft.on_recorded(LogSeq(2));
    let mut next = Effects::default();
    raft.propose(bytes::Bytes::from_static(b"y"), &mut next).unwrap();
    raft.on_recorded(LogSeq(3));
    raft.on_stored(at(0), LogSeq(2), &mut next);
    assert_eq!(raft.log().stored(), LogIndex(5));
}

/// Section 3.6.1; TRAPS R2: the vote is a record, and the grant waits for it.
#[test]
fn a_vote_is_promised_after_its_record() {
    let mut raft = three(1, &[1]);
    let vote = Body::Vote { last_index: LogIndex(1), last_term: Term(1), transfer: false };
    let fx = step(&mut raft, at(0), from(2, 2, vote.clone()));
    let expected = Effects {
        records: vec![vote_record(2, None), vote_record(2, Some(2))],
        promises: vec![to(2, 2, Body::VoteAnswer { granted: true })],
        ..Effects::default()
    };
    assert_eq!(fx, expected);

    // One vote a term; the same candidate may ask again (R3).
    let fx = step(&mut raft, at(0), from(3, 2, vote.clone()));
    assert_eq!(fx.sends, [to(3, 2, Body::VoteAnswer { granted: false })]);
    let fx = step(&mut raft, at(0), from(2, 2, vote));
    assert_eq!((fx.records, fx.promises.len()), (vec![], 1));
}

/// TRAPS R3: a leader that becomes known does not free the vote.
#[test]
fn a_known_leader_does_not_free_the_vote() {
    let mut raft = three(1, &[1]);
    let vote = Body::Vote { last_index: LogIndex(1), last_term: Term(1), transfer: false };
    step(&mut raft, at(0), from(2, 2, vote.clone()));
    step(&mut raft, at(0), from(2, 2, append((1, 1), 0, vec![])));
    let fx = step(&mut raft, at(5000), from(3, 2, vote));
    assert_eq!(fx.sends, [to(3, 2, Body::VoteAnswer { granted: false })]);
}

/// TRAPS R17: terms are compared before lengths.
#[test]
fn a_longer_log_of_an_older_term_gets_no_vote() {
    let mut raft = three(3, &[1, 3]);
    let long = Body::Vote { last_index: LogIndex(9), last_term: Term(2), transfer: false };
    let fx = step(&mut raft, at(0), from(2, 4, long));
    assert_eq!(fx.sends, [to(2, 4, Body::VoteAnswer { granted: false })]);
    let newer = Body::Vote { last_index: LogIndex(1), last_term: Term(4), transfer: false };
    let fx = step(&mut raft, at(0), from(3, 4, newer));
    assert_eq!(fx.promises, [to(3, 4, Body::VoteAnswer { granted: true })]);
}

/// Section 9.6: asking whether one would be elected changes nothing.
#[test]
fn a_pre_vote_changes_no_term() {
    let mut raft = three(1, &[1]);
    let ask = Body::PreVote { last_index: LogIndex(1), last_term: Term(1) };
    let fx = step(&mut raft, at(0), from(2, 7, ask));
    let granted = to(2, 7, Body::PreVoteAnswer { granted: true });
    assert_eq!(fx, Effects { sends: vec![granted], ..Effects::default() });
    assert_eq!(raft.term(), Term(1));
}

/// Sections 4.2.3 and 9.6: who hears a leader helps nobody to depose it; the leader itself may ask for it.
#[test]
fn who_hears_a_leader_deposes_no_one() {
    let mut raft = three(1, &[1]);
    step(&mut raft, at(0), from(2, 1, append((1, 1), 0, vec![])));
    let ask = Body::PreVote { last_index: LogIndex(1), last_term: Term(1) };
    let fx = step(&mut raft, at(499), from(3, 2, ask.clone()));
    assert_eq!(fx.sends, [to(3, 1, Body::PreVoteAnswer { granted: false })]);
    let vote = |transfer| Body::Vote { last_index: LogIndex(1), last_term: Term(1), transfer };
    assert_eq!(step(&mut raft, at(499), from(3, 2, vote(false))), Effects::default());
    assert_eq!(raft.term(), Term(1));

    let fx = step(&mut raft, at(500), from(3, 2, ask));
    assert_eq!(fx.sends, [to(3, 2, Body::PreVoteAnswer { granted: true })]);
    let fx = step(&mut raft, at(499), from(3, 2, vote(true)));
    assert_eq!(fx.promises, [to(3, 2, Body::VoteAnswer { granted: true })]);
}

/// TRAPS R2, R7: the own vote counts when it is durable, not before.
#[test]
fn a_candidate_counts_its_own_vote_when_stored() {
    let mut raft = three(1, &[1]);
    let mut fx = Effects::default();
    raft.become_candidate(at(0), false, &mut fx);
    assert_eq!(fx.records, [vote_record(2, Some(1))]);
    assert_eq!((fx.sends.len(), fx.promises.len()), (0, 2));
    step(&mut raft, at(0), from(2, 2, Body::VoteAnswer { granted: true }));
    assert!(!raft.is_leader(), "one stored vote of three");
    store(&mut raft, at(0));
    assert!(raft.is_leader());
}

/// A grant of an earlier pre-election elects nobody now.
#[test]
fn grants_of_another_attempt_do_not_count() {
    let mut raft = three(1, &[1]);
    let mut fx = Effects::default();
    raft.on_election_timeout(at(1000), &mut fx);
    let stale = from(2, 5, Body::PreVoteAnswer { granted: true });
    assert_eq!(step(&mut raft, at(1000), stale), Effects::default());
    assert_eq!(raft.role(), Role::PreCandidate);
    step(&mut raft, at(1000), from(2, 2, Body::PreVoteAnswer { granted: true }));
    assert_eq!((raft.role(), raft.term()), (Role::Candidate, Term(2)));
}

#[test]
fn a_learner_never_stands_and_its_vote_never_counts() {
    let mut raft = with_log(membership(&[2, 3], &[1]), 1, &[1]);
    let mut fx = Effects::default();
    raft.on_election_timeout(at(1000), &mut fx);
    assert_eq!(fx, Effects::default());

    let mut raft = with_log(membership(&[1, 2], &[3]), 1, &[1]);
    raft.become_candidate(at(0), false, &mut fx);
    store(&mut raft, at(0));
    step(&mut raft, at(0), from(3, 2, Body::VoteAnswer { granted: true }));
    assert!(!raft.is_leader());
    step(&mut raft, at(0), from(2, 2, Body::VoteAnswer { granted: true }));
    assert!(raft.is_leader());
}

/// Section 3.5: entries are recorded, the answer waits for the record.
#[test]
fn an_append_is_accepted_after_its_record() {
    let mut raft = three(1, &[1]);
    let entries = vec![entry(2, 1), entry(3, 1)];
    let fx = step(&mut raft, at(0), from(2, 1, append((1, 1), 2, entries.clone())));
    let record = Record::Entries { group: GROUP, replica: ReplicaId(1), entries };
    assert_eq!(fx.records, [record]);
    assert_eq!(fx.promises, [to(2, 1, accepted(3))]);
    assert_eq!(fx.sends, []);
    assert_eq!(raft.commit(), LogIndex(2));
}

#[test]
fn an_append_behind_a_gap_is_rejected_with_a_hint() {
    let mut raft = three(3, &[1, 1, 2]);
    let fx = step(&mut raft, at(0), from(2, 3, append((7, 3), 0, vec![entry(8, 3)])));
    let rejected =
        Body::Rejected { prev_index: LogIndex(7), hint_index: LogIndex(3), hint_term: Term(2) };
    assert_eq!(fx.sends, [to(2, 3, rejected)]);
    // A conflict in term 2: the logs may agree at the end of term 1.
    let fx = step(&mut raft, at(0), from(2, 3, append((3, 1), 0, vec![])));
    let rejected =
        Body::Rejected { prev_index: LogIndex(3), hint_index: LogIndex(2), hint_term: Term(1) };
    assert_eq!(fx.sends, [to(2, 3, rejected)]);
}

/// TRAPS R6: a late, shorter append does not shorten a log that matches.
#[test]
fn a_late_append_truncates_nothing() {
    let mut raft = three(1, &[1, 1, 1]);
    let fx = step(&mut raft, at(0), from(2, 1, append((0, 0), 0, vec![entry(1, 1)])));
    assert_eq!((fx.records, fx.promises), (vec![], vec![to(2, 1, accepted(1))]));
    assert_eq!(raft.log().last_index(), LogIndex(3));
}

#[test]
fn a_conflict_truncates_and_replaces() {
    let mut raft = three(2, &[1, 1, 1]);
    let fx = step(&mut raft, at(0), from(2, 2, append((1, 1), 0, vec![entry(2, 2)])));
    assert_eq!(fx.promises, [to(2, 2, accepted(2))]);
    assert_eq!((raft.log().last_index(), raft.log().last_term()), (LogIndex(2), Term(2)));
    assert_eq!(raft.log().stored(), LogIndex(1));
    store(&mut raft, at(0));
    assert_eq!(raft.log().stored(), LogIndex(2));
}

/// An entry that was replaced before it was stored makes nothing stored.
#[test]
fn a_replaced_entry_says_nothing_about_its_place() {
    let mut raft = three(1, &[]);
    step(&mut raft, at(0), from(2, 1, append((0, 0), 0, vec![entry(1, 1)])));
    raft.on_recorded(LogSeq(1));
    step(&mut raft, at(0), from(3, 2, append((0, 0), 0, vec![entry(1, 2)])));
    raft.on_recorded(LogSeq(2));
    raft.on_stored(at(0), LogSeq(1), &mut Effects::default());
    assert_eq!(raft.log().stored(), LogIndex(0));
    raft.on_stored(at(0), LogSeq(2), &mut Effects::default());
    assert_eq!(raft.log().stored(), LogIndex(1));
}

/// What an append does not say is not committed, however far the leader is.
#[test]
fn commit_stops_at_what_is_known_to_match() {
    let mut raft = three(2, &[1, 1, 1]);
    step(&mut raft, at(0), from(2, 2, append((1, 1), 9, vec![])));
    assert_eq!(raft.commit(), LogIndex(1));
}

/// A leader of an earlier term hears that its time is over, and nothing else happens.
#[test]
fn a_deposed_leader_is_told() {
    let mut raft = three(5, &[1]);
    let fx = step(&mut raft, at(0), from(2, 4, append((1, 1), 1, vec![entry(2, 4)])));
    let answer = Body::BeatAnswer(BeatAnswer { round: 0, last_index: LogIndex(1) });
    assert_eq!(fx, Effects { sends: vec![to(2, 5, answer)], ..Effects::default() });
}

/// Section 3.6.2, figure 3.7; TRAPS R1: an entry of an earlier term commits only with one of the own.
#[test]
fn a_majority_of_an_old_entry_commits_nothing() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[1, 1]);
    step(&mut raft, at(0), from(2, 2, accepted(2)));
    assert_eq!(raft.commit(), LogIndex(0));
    step(&mut raft, at(0), from(2, 2, accepted(3)));
    assert_eq!(raft.commit(), LogIndex(3));
}

/// TRAPS R7: a leader's copy counts when its own disk has it; alone it is its own majority.
#[test]
fn the_own_copy_counts_when_stored() {
    let mut raft = leader(membership(&[1], &[]), &[]);
    assert_eq!(raft.commit(), LogIndex(1));
    let mut fx = Effects::default();
    let data = bytes::Bytes::from_static(b"x");
    assert_eq!(raft.propose(data.clone(), &mut fx), Ok(LogIndex(2)));
    assert_eq!(raft.commit(), LogIndex(1));
    store(&mut raft, at(0));
    assert_eq!(raft.commit(), LogIndex(2));

    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    raft.propose(data, &mut fx).unwrap();
    step(&mut raft, at(0), from(2, 2, accepted(2)));
    assert_eq!(raft.commit(), LogIndex(1), "two of three, one of them not durable");
    step(&mut raft, at(0), from(3, 2, accepted(2)));
    assert_eq!(raft.commit(), LogIndex(2), "two others have it");
}

/// Section 10.2.2: appends are pipelined up to the bound, and a lost one is found by the next.
#[test]
fn appends_are_pipelined_and_bounded() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    flush(&mut raft);
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    let mut sent = 0;
    for _ in 0..6 {
        let mut fx = Effects::default();
        raft.propose(bytes::Bytes::from_static(b"x"), &mut fx).unwrap();
        let fx = flush(&mut raft);
        sent += fx.sends.iter().filter(|(member, _)| *member == MemberId(2)).count();
    }
    assert_eq!(sent, 4, "appends_in_flight");
    step(&mut raft, at(0), from(2, 2, accepted(3)));
    let fx = flush(&mut raft);
    let Body::Append { prev_index, entries, .. } = &fx.sends[0].1.body else { panic!("{fx:?}") };
    assert_eq!((*prev_index, entries.len()), (LogIndex(5), 2), "the rest in one");
}

/// A follower that refuses is asked further back; an old refusal changes nothing.
#[test]
fn a_refusal_moves_the_probe_back() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[1, 1, 1]);
    flush(&mut raft);
    let rejected = |prev: u64, hint: u64| Body::Rejected {
        prev_index: LogIndex(prev),
        hint_index: LogIndex(hint),
        hint_term: Term(1),
    };
    step(&mut raft, at(0), from(2, 2, rejected(3, 1)));
    let fx = flush(&mut raft);
    let Body::Append { prev_index, entries, .. } = &fx.sends[0].1.body else { panic!("{fx:?}") };
    assert_eq!((*prev_index, entries.len()), (LogIndex(1), 3));
    step(&mut raft, at(0), from(2, 2, rejected(3, 0)));
    assert_eq!(flush(&mut raft).sends, []);
}

/// An append or its answer was lost: the tick after next asks again, once a tick.
#[test]
fn what_is_unanswered_for_a_tick_is_asked_again() {
    let mut raft = leader(membership(&[1, 2], &[]), &[]);
    flush(&mut raft);
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    let mut fx = Effects::default();
    raft.propose(bytes::Bytes::from_static(b"x"), &mut fx).unwrap();
    flush(&mut raft);
    raft.on_beat_due(at(0), &mut fx);
    let answer = Body::BeatAnswer(BeatAnswer { round: 2, last_index: LogIndex(1) });
    let fx = step(&mut raft, at(1), from(2, 2, answer.clone()));
    assert_eq!(fx.sends, [to(2, 2, append((2, 2), 1, vec![]))]);
    assert_eq!(step(&mut raft, at(1), from(2, 2, answer)).sends, []);
}

/// Section 6.4; TRAPS R8: no read before an entry of the own term is committed, and none without a quorum.
#[test]
fn a_read_waits_for_the_terms_first_commit_and_a_quorum() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[1]);
    let mut fx = Effects::default();
    raft.read_index(7, &mut fx);
    assert!(!flush(&mut raft).sends.iter().any(|(_, m)| matches!(m.body, Body::Beat(_))));
    step(&mut raft, at(0), from(2, 2, accepted(2)));
    let fx = flush(&mut raft);
    let beat = Beat { commit: LogIndex(2), round: 2 };
    assert!(fx.sends.contains(&to(2, 2, Body::Beat(beat))));
    assert_eq!(fx.reads, []);
    let answer = |round| Body::BeatAnswer(BeatAnswer { round, last_index: LogIndex(2) });
    assert_eq!(step(&mut raft, at(0), from(2, 2, answer(1))).reads, [], "an earlier round");
    assert_eq!(step(&mut raft, at(0), from(2, 2, answer(2))).reads, [(7, Some(LogIndex(2)))]);
}

/// A leader that steps down answers no read.
#[test]
fn a_deposed_leader_refuses_its_reads() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    let mut fx = Effects::default();
    raft.read_index(7, &mut fx);
    flush(&mut raft);
    let fx = step(&mut raft, at(0), from(3, 3, append((0, 0), 0, vec![])));
    assert_eq!(fx.reads, [(7, None)]);
    assert!(fx.leader_changed);
}

/// Section 6.2: a leader that hears no quorum for an election time-out steps down.
#[test]
fn a_leader_without_a_quorum_steps_down() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    let mut fx = Effects::default();
    raft.on_quorum_check_timeout(at(999), &mut fx);
    assert!(raft.is_leader());
    raft.on_quorum_check_timeout(at(1000), &mut fx);
    assert_eq!((raft.role(), raft.leader()), (Role::Follower, None));
}

/// Section 3.10: the target is told when it has everything, and proposals wait.
#[test]
fn leadership_is_handed_to_one_that_has_everything() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    let mut fx = Effects::default();
    raft.transfer(at(0), ReplicaId(2), &mut fx).unwrap();
    assert_eq!(fx.sends, []);
    let refused = raft.propose(bytes::Bytes::new(), &mut fx);
    assert_eq!(refused, Err(ProposeRefused::Transferring));
    let fx = step(&mut raft, at(0), from(2, 2, accepted(1)));
    assert_eq!(fx.sends, [to(2, 2, Body::TimeoutNow)]);
    let mut fx = Effects::default();
    step(&mut raft, at(900), from(2, 2, accepted(1)));
    raft.on_quorum_check_timeout(at(1000), &mut fx);
    assert!(raft.is_leader(), "replica 2 was heard");
    assert!(raft.propose(bytes::Bytes::new(), &mut fx).is_ok(), "the hand-over is off");
}

#[test]
fn a_follower_stands_at_once_when_its_leader_asks() {
    let mut raft = three(1, &[1]);
    step(&mut raft, at(0), from(2, 1, append((1, 1), 0, vec![])));
    assert_eq!(step(&mut raft, at(0), from(3, 1, Body::TimeoutNow)), Effects::default());
    let fx = step(&mut raft, at(0), from(2, 1, Body::TimeoutNow));
    assert_eq!(raft.term(), Term(2));
    let vote = Body::Vote { last_index: LogIndex(1), last_term: Term(1), transfer: true };
    assert_eq!(fx.promises, [to(2, 2, vote.clone()), to(3, 2, vote)]);
}

/// Section 4.3: a change of voters goes through a joint configuration, which both majorities must commit.
#[test]
fn a_change_of_voters_is_joint_and_is_left_when_committed() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    let mut fx = Effects::default();
    let voters = vec![replica(1), replica(4), replica(5)];
    let early = raft.change_membership(at(0), voters.clone(), vec![], 0, &mut fx);
    assert_eq!(early, Err(ProposeRefused::NoCommitInTerm), "TRAPS R14");
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    raft.change_membership(at(0), voters.clone(), vec![], 0, &mut fx).unwrap();
    let again = raft.change_membership(at(0), voters, vec![], 0, &mut fx);
    assert_eq!(again, Err(ProposeRefused::ChangePending));
    store(&mut raft, at(0));

    step(&mut raft, at(0), from(4, 2, accepted(2)));
    assert_eq!(raft.commit(), LogIndex(1), "the old majority has not agreed");
    let fx = step(&mut raft, at(0), from(3, 2, accepted(2)));
    assert_eq!(raft.commit(), LogIndex(2));
    assert!(!raft.membership().is_joint(), "the leader leaves the joint configuration");
    assert_eq!(fx.records.len(), 1);
    store(&mut raft, at(0));
    step(&mut raft, at(0), from(2, 2, accepted(3)));
    assert_eq!(raft.commit(), LogIndex(2), "an outgoing voter does not count any more");
    step(&mut raft, at(0), from(5, 2, accepted(3)));
    assert_eq!(raft.commit(), LogIndex(3));
}

/// Reads wait for a voter that is removed, and who remains is alone: nobody answers their rounds any more, and nobody needs to.
#[test]
fn reads_under_way_end_when_their_voters_are_removed() {
    let mut raft = leader(membership(&[1, 2], &[]), &[]);
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    let mut fx = Effects::default();
    for read in 0..9 {
        raft.read_index(read, &mut fx);
        raft.flush(&mut fx);
    }
    raft.change_membership(at(0), vec![replica(1)], vec![], 0, &mut fx).unwrap();
    assert_eq!(fx.reads, [], "the other voter may follow another leader");
    store(&mut raft, at(0));
    let mut fx = step(&mut raft, at(0), from(2, 2, accepted(2)));
    raft.flush(&mut fx);
    let reads: Vec<_> = (0..9).map(|read| (read, Some(LogIndex(1)))).collect();
    assert_eq!(fx.reads[..4], reads[..4]);
    let answered: Vec<u64> = fx.reads.iter().map(|(read, _)| *read).collect();
    assert_eq!(answered, (0..9).collect::<Vec<_>>(), "those that shared the next round, too");
}

/// Section 4.2.2: a leader that removed itself hands over when the change is committed.
#[test]
fn a_removed_leader_hands_over() {
    let mut raft = leader(membership(&[1, 2], &[]), &[]);
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    let mut fx = Effects::default();
    raft.change_membership(at(0), vec![replica(2)], vec![], 0, &mut fx).unwrap();
    store(&mut raft, at(0));
    step(&mut raft, at(0), from(2, 2, accepted(2)));
    store(&mut raft, at(0));
    assert!(raft.is_leader(), "until the last change is committed");
    let fx = step(&mut raft, at(0), from(2, 2, accepted(3)));
    assert!(fx.sends.contains(&to(2, 2, Body::TimeoutNow)));
    assert_eq!(raft.role(), Role::Learner, "it takes no part any more");
    let mut fx = Effects::default();
    raft.on_election_timeout(at(9000), &mut fx);
    assert_eq!(fx, Effects::default());
}

/// Section 4.2.2, figure 4.6: only the removed leader has the last entry of its removal. Without it nobody is elected.
#[test]
fn a_removed_voter_stands_until_its_removal_is_committed() {
    let mut raft = leader(membership(&[1, 2], &[]), &[]);
    step(&mut raft, at(0), from(2, 2, accepted(1)));
    raft.change_membership(at(0), vec![replica(2)], vec![], 0, &mut Effects::default()).unwrap();
    store(&mut raft, at(0));
    step(&mut raft, at(0), from(2, 2, accepted(2)));
    store(&mut raft, at(0));
    assert_eq!((raft.commit(), raft.membership()), (LogIndex(2), &membership(&[2], &[])));
    raft.on_quorum_check_timeout(at(5000), &mut Effects::default());
    assert!(!raft.is_leader(), "nobody was heard");

    // The other has the joint membership only, and needs a vote that it does not get.
    let vote = Body::PreVote { last_index: LogIndex(2), last_term: Term(2) };
    let fx = step(&mut raft, at(9000), from(2, 3, vote));
    assert_eq!(fx.sends, [to(2, 2, Body::PreVoteAnswer { granted: false })]);

    let mut fx = Effects::default();
    raft.on_election_timeout(at(9000), &mut fx);
    assert_eq!(fx.sends.len(), 1);
    let granted = Body::PreVoteAnswer { granted: true };
    step(&mut raft, at(9000), from(2, 3, granted));
    store(&mut raft, at(9000));
    step(&mut raft, at(9000), from(2, 3, Body::VoteAnswer { granted: true }));
    assert!(raft.is_leader());
    assert_eq!(raft.leader(), Some(replica(1)));
    store(&mut raft, at(9000));
    let fx = step(&mut raft, at(9000), from(2, 3, accepted(4)));
    assert!(fx.sends.contains(&to(2, 3, Body::TimeoutNow)), "its work is done");
    assert_eq!((raft.commit(), raft.role()), (LogIndex(4), Role::Learner));
    let mut fx = Effects::default();
    raft.on_election_timeout(at(20_000), &mut fx);
    assert_eq!(fx, Effects::default(), "it takes no part any more");
}

/// A membership that is truncated away was never in force.
#[test]
fn a_truncated_membership_is_undone() {
    let mut raft = three(1, &[1]);
    let change = Entry {
        index: LogIndex(2),
        term: Term(1),
        body: EntryBody::Membership(Box::new(membership(&[1, 2, 3, 4], &[]))),
    };
    step(&mut raft, at(0), from(2, 1, append((1, 1), 0, vec![change])));
    assert_eq!(raft.membership().voters.len(), 4);
    step(&mut raft, at(0), from(3, 2, append((1, 1), 0, vec![entry(2, 2)])));
    assert_eq!(raft.membership().voters.len(), 3);
}

/// A follower that is only slow is not sent the same entries with every tick.
#[test]
fn an_unanswered_probe_is_repeated_without_its_entries() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    flush(&mut raft);
    step(&mut raft, at(1), from(2, 2, accepted(1)));
    let mut fx = Effects::default();
    raft.propose(bytes::Bytes::from(vec![0; 1 << 20]), &mut fx).unwrap();
    flush(&mut raft);
    let rejected =
        Body::Rejected { prev_index: LogIndex(2), hint_index: LogIndex(1), hint_term: Term(2) };
    step(&mut raft, at(1), from(2, 2, rejected));
    let size = |fx: &Effects| -> usize {
        let bodies = fx.sends.iter().filter(|(to, _)| *to == MemberId(2)).map(|(_, m)| &m.body);
        let entries = bodies.filter_map(|body| match body {
            Body::Append { entries, .. } => Some(entries),
            _ => None,
        });
        entries.flatten().map(|entry| entry.body.size()).sum()
    };
    let mut bytes = size(&flush(&mut raft));
    for tick in 1..=10 {
        let mut fx = Effects::default();
        raft.on_beat_due(at(tick * 100), &mut fx);
        let answer = BeatAnswer { round: tick + 1, last_index: LogIndex(1) };
        bytes += size(&step(&mut raft, at(tick * 100), from(2, 2, Body::BeatAnswer(answer))));
        bytes += size(&flush(&mut raft));
    }
    assert_eq!(bytes, 1 << 20);
}

#[test]
fn a_learner_cannot_take_over() {
    let mut raft = leader(membership(&[1, 2], &[3]), &[]);
    flush(&mut raft);
    step(&mut raft, at(2), from(2, 2, accepted(1)));
    step(&mut raft, at(2), from(3, 2, accepted(1)));
    assert!(raft.could_hand_over(ReplicaId(2)));
    assert!(!raft.could_hand_over(ReplicaId(3)));
}

/// Under a steady load a learner never has what was committed last; it is near enough when it has what was committed a
/// span ago (dissertation 4.2.1), and not before the leader has led for that long.
#[test]
fn a_learner_that_is_a_round_trip_behind_has_caught_up() {
    let span = Duration::from_millis(100);
    let raft = leader(membership(&[1, 2], &[3]), &[]);
    let mut group = crate::group::Group::new(raft, LogSeq(0), LogIndex(0), 0, 0);
    let mut caught = Vec::new();
    for round in 1..=6 {
        let now = at(round * 50);
        let raft = &mut group.raft;
        let mut fx = Effects::default();
        raft.propose(bytes::Bytes::from_static(b"x"), &mut fx).unwrap();
        flush(raft);
        store(raft, now);
        // What is committed is index `round + 1`. From round 3 on the learner is one entry behind.
        step(raft, now, from(2, 2, accepted(round + 1)));
        assert_eq!(raft.commit(), LogIndex(round + 1));
        if round >= 3 {
            flush(raft);
            step(raft, now, from(3, 2, accepted(round)));
            assert!(!raft.holds(ReplicaId(3), raft.commit()));
        }
        group.note_commit(now, span);
        caught.push(group.has_caught_up(ReplicaId(3)));
    }
    // Noted at rounds 1, 3 and 5.
    assert_eq!(caught, [false, false, true, true, true, true]);
}
