//! Snapshots, and logs that they replace.

use super::*;

/// A snapshot's state as the store reports it.
fn state(index: u64, term: u64) -> StoreState {
    StoreState {
        group: GROUP,
        index: LogIndex(index),
        term: Term(term),
        membership: membership(&[1, 2, 3], &[]),
        stamp: 0,
        digest: 0,
        epoch: crate::ids::Epoch(1),
    }
}

fn snapshot(chunk: u64, last: bool) -> Body {
    Body::Snapshot {
        id: SnapshotId(9),
        index: LogIndex(5),
        last_term: Term(2),
        chunk,
        data: bytes::Bytes::from_static(b"chunk"),
        last,
    }
}

/// Section 5: the index is accepted when the store has installed it and the log says so.
#[test]
fn a_snapshot_is_accepted_when_installed_and_recorded() {
    let mut raft = three(2, &[1]);
    let fx = step(&mut raft, at(0), from(2, 2, snapshot(1, false)));
    let again = Body::SnapshotNext { id: SnapshotId(9), chunk: 0 };
    assert_eq!(fx.sends, [to(2, 2, again)], "it begins at the beginning");
    let fx = step(&mut raft, at(0), from(2, 2, snapshot(0, false)));
    assert_eq!((fx.installs.len(), fx.sends.len()), (1, 0));
    let mut fx = Effects::default();
    raft.on_staged(SnapshotId(9), 1, &mut fx);
    assert_eq!(fx.sends, [to(2, 2, Body::SnapshotNext { id: SnapshotId(9), chunk: 1 })]);
    step(&mut raft, at(0), from(2, 2, snapshot(1, true)));
    assert!(raft.take_committed(usize::MAX).is_empty());
    let mut fx = Effects::default();
    raft.on_installed(&state(5, 2), &mut fx);
    assert!(matches!(&fx.records[..], [Record::Cut { index: LogIndex(5), .. }]));
    assert_eq!(fx.promises, [to(2, 2, accepted(5))]);
    assert_eq!((raft.commit(), raft.handed()), (LogIndex(5), LogIndex(5)));
    raft.check();
}

/// The answer to a repeated chunk must not let entries be applied to a state that is about to be replaced.
#[test]
fn a_repeated_chunk_does_not_end_the_closing() {
    let mut raft = three(2, &[]);
    let committed = append((0, 0), 1, vec![entry(1, 2)]);
    step(&mut raft, at(0), from(2, 2, snapshot(0, false)));
    step(&mut raft, at(0), from(2, 2, snapshot(0, false)));
    step(&mut raft, at(0), from(2, 2, committed));
    step(&mut raft, at(0), from(2, 2, snapshot(1, true)));
    let mut fx = Effects::default();
    raft.on_staged(SnapshotId(9), 1, &mut fx);
    raft.on_staged(SnapshotId(9), 1, &mut fx);
    assert!(raft.take_committed(usize::MAX).is_empty());
    raft.on_installed(&state(5, 2), &mut fx);
    assert_eq!(raft.handed(), LogIndex(5));
    raft.check();
}

/// TRAPS R19: an old snapshot does not replace a log that holds more.
#[test]
fn a_late_snapshot_is_not_installed() {
    let mut raft = three(2, &[1, 1, 1, 2, 2, 2, 2]);
    step(&mut raft, at(0), from(2, 2, append((7, 2), 6, vec![])));
    let fx = step(&mut raft, at(0), from(2, 2, snapshot(0, true)));
    assert_eq!((fx.installs.len(), fx.promises), (0, vec![to(2, 2, accepted(6))]));
}

/// TRAPS R15: what the snapshot does not confirm of the log behind it is void, its membership too.
#[test]
fn a_snapshot_replaces_a_log_that_conflicts() {
    let mut raft = three(2, &[1, 1, 1, 1, 1]);
    let change = Entry {
        index: LogIndex(6),
        term: Term(2),
        body: EntryBody::Membership(Box::new(membership(&[1, 9], &[]))),
    };
    step(&mut raft, at(0), from(3, 2, append((5, 1), 0, vec![change])));
    assert_eq!(raft.membership().voters.len(), 2);
    step(&mut raft, at(0), from(2, 3, snapshot(0, true)));
    raft.on_installed(&state(5, 2), &mut Effects::default());
    assert_eq!(raft.log().last_index(), LogIndex(5));
    assert_eq!(raft.membership().voters.len(), 3);
    raft.check();
}

/// A follower that is behind the cut gets chunks, one at a time, and then the log again.
#[test]
fn a_follower_behind_the_cut_gets_a_snapshot() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[1, 1]);
    flush(&mut raft);
    step(&mut raft, at(0), from(2, 2, accepted(3)));
    raft.take_committed(usize::MAX);
    let mut fx = Effects::default();
    raft.cut(LogIndex(3), &mut fx);
    let rejected =
        Body::Rejected { prev_index: LogIndex(2), hint_index: LogIndex(0), hint_term: Term(0) };
    let fx = step(&mut raft, at(0), from(3, 2, rejected));
    let [(id, 0)] = fx.loads[..] else { panic!("{fx:?}") };
    let mut fx = Effects::default();
    let data = bytes::Bytes::from_static(b"a");
    raft.on_loaded(id, 0, data.clone(), false, &state(3, 2), &mut fx);
    let Body::Snapshot { chunk: 0, last: false, .. } = fx.sends[0].1.body else { panic!() };
    let fx = step(&mut raft, at(0), from(3, 2, Body::SnapshotNext { id, chunk: 1 }));
    assert_eq!(fx.loads, [(id, 1)]);
    let mut fx = Effects::default();
    raft.on_loaded(id, 1, data, true, &state(3, 2), &mut fx);
    assert_eq!(fx.sends.len(), 1);
    let fx = step(&mut raft, at(0), from(3, 2, accepted(3)));
    assert_eq!(fx.unloads, [id]);
    raft.propose(bytes::Bytes::new(), &mut Effects::default()).unwrap();
    let fx = flush(&mut raft);
    assert!(fx.sends.iter().any(|(member, _)| *member == MemberId(3)));
}

/// TRAPS R20: a store that is ahead of the log, or of another history, is right.
#[test]
fn a_store_ahead_of_the_log_takes_its_place() {
    let durable = Durable {
        term: Term(2),
        vote: None,
        commit: LogIndex(1),
        cut_index: LogIndex(0),
        cut_term: Term(0),
        membership: membership(&[1, 2, 3], &[]),
        entries: vec![entry(1, 1), entry(2, 1)],
    };
    let new = |store: &StoreState| {
        let rng = Rng::new(1);
        let mut fx = Effects::default();
        let durable = durable.clone();
        let raft =
            Raft::new((GROUP, ReplicaId(1)), settings(), durable, store, rng, at(0), &mut fx);
        (raft, fx.records.len())
    };
    let (raft, cuts) = new(&state(5, 2));
    assert_eq!(cuts, 1, "the log must say so before anything follows");
    assert_eq!((raft.commit(), raft.log().last_index()), (LogIndex(5), LogIndex(5)));
    let (raft, cuts) = new(&state(1, 1));
    assert_eq!(cuts, 0);
    assert_eq!((raft.commit(), raft.log().last_index()), (LogIndex(1), LogIndex(2)));
    let (raft, _) = new(&state(2, 2));
    assert_eq!((raft.log().last_index(), raft.log().last_term()), (LogIndex(2), Term(2)));
}

/// Appends to a follower were lost and the log was cut behind them meanwhile: it gets a snapshot.
#[test]
fn a_follower_whose_lost_appends_were_cut_gets_a_snapshot() {
    let mut raft = leader(membership(&[1, 2, 3], &[]), &[]);
    flush(&mut raft);
    step(&mut raft, at(0), from(3, 2, accepted(1)));
    let mut fx = Effects::default();
    for _ in 0..4 {
        raft.propose(bytes::Bytes::from_static(b"x"), &mut fx).unwrap();
        flush(&mut raft);
    }
    for _ in 0..2 {
        raft.propose(bytes::Bytes::from_static(b"x"), &mut fx).unwrap();
        flush(&mut raft);
    }
    store(&mut raft, at(0));
    step(&mut raft, at(0), from(2, 2, accepted(7)));
    raft.take_committed(usize::MAX);
    raft.cut(LogIndex(7), &mut fx);
    raft.on_beat_due(at(0), &mut fx);
    let answer = Body::BeatAnswer(BeatAnswer { round: 2, last_index: LogIndex(1) });
    let fx = step(&mut raft, at(1), from(3, 2, answer));
    assert_eq!(fx.loads.len(), 1, "{fx:?}");
}
