use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::ids::{Boot, LogIndex, Term};
use crate::raft::message::{Entry, EntryBody, Membership};
use crate::storage::record::GroupCheckpoint;

const G: GroupId = GroupId(1);
const H: GroupId = GroupId(2);

fn entries(group: GroupId, range: core::ops::RangeInclusive<u64>, term: u64) -> Record {
    let entries = range.map(|index| Entry {
        index: LogIndex(index),
        term: Term(term),
        body: EntryBody::Noop,
    });
    Record::Entries { group, replica: ReplicaId(1), entries: entries.collect() }
}

fn cut(group: GroupId, index: u64, term: u64) -> Record {
    Record::Cut {
        group,
        replica: ReplicaId(1),
        index: LogIndex(index),
        term: Term(term),
        membership: Membership::default(),
    }
}

fn vote(group: GroupId, replica: u64) -> Record {
    Record::Vote { group, replica: ReplicaId(replica), term: Term(1), vote: None }
}

/// A checkpoint of groups with (group, replica, cut index, cut term, last index).
fn checkpoint(groups: &[(GroupId, u64, u64, u64, u64)]) -> Checkpoint {
    let groups = groups.iter().map(|(group, replica, cut, term, last)| GroupCheckpoint {
        group: *group,
        replica: ReplicaId(*replica),
        term: Term(1),
        vote: None,
        commit: LogIndex(*cut),
        cut_index: LogIndex(*cut),
        cut_term: Term(*term),
        membership: Membership::default(),
        last_index: LogIndex(*last),
    });
    Checkpoint { groups: groups.collect(), ..Checkpoint::default() }
}

/// Seals and stores what is staged.
fn store(log: &mut Log) -> Batch {
    let batch = log.seal().unwrap();
    log.on_stored(batch.seq);
    batch
}

/// An empty log whose first segment is open and durable.
fn opened() -> Log {
    let mut log = Log::new(&Tail::default(), 100);
    log.open_segment(Checkpoint::default());
    store(&mut log);
    log
}

fn rotate(log: &mut Log, groups: &[(GroupId, u64, u64, u64, u64)]) -> Batch {
    log.open_segment(checkpoint(groups));
    store(log)
}

fn pinning(log: &Log) -> Vec<GroupId> {
    log.pinning().collect()
}

#[test]
fn batches_follow_one_another_and_say_what_was_durable() {
    let mut log = Log::new(&Tail::default(), 200);
    assert!(log.wants_segment());
    assert_eq!((log.next_seq(), log.stored()), (LogSeq(1), LogSeq(0)));
    assert_eq!(log.seal(), None);

    log.open_segment(Checkpoint::default());
    assert!(!log.wants_segment(), "something is staged");
    assert_eq!(log.push(Record::Boot(Boot(1))), LogSeq(1));
    assert_eq!(
        log.seal(),
        Some(Batch {
            seq: LogSeq(1),
            segment: SegmentId(1),
            offset: 0,
            len: 88,
            durable: LogSeq(0),
            opens: Some(Opening::default()),
            records: vec![Record::Checkpoint(Checkpoint::default()), Record::Boot(Boot(1))],
        })
    );
    assert_eq!(log.seal(), None);

    assert_eq!(log.push(Record::Founded), LogSeq(2));
    let batch = log.seal().unwrap();
    assert_eq!((batch.offset, batch.len, batch.durable), (88, 80, LogSeq(0)));
    log.on_stored(LogSeq(1));
    log.push(Record::Founded);
    let batch = log.seal().unwrap();
    assert_eq!((batch.seq, batch.offset, batch.durable), (LogSeq(3), 168, LogSeq(1)));
    assert_eq!((log.stored(), log.bytes()), (LogSeq(1), 248));

    assert!(log.wants_segment());
    log.open_segment(Checkpoint::default());
    let batch = log.seal().unwrap();
    assert_eq!((batch.seq, batch.segment, batch.offset), (LogSeq(4), SegmentId(2), 0));
    assert_eq!(batch.durable, LogSeq(3), "the world syncs the segment before");
    let opens = Opening { previous: Some(SegmentId(1)), previous_len: 248 };
    assert_eq!(batch.opens, Some(opens));
}

#[test]
fn a_recovered_log_goes_on_in_a_new_segment() {
    let tail = Tail {
        next_seq: LogSeq(9),
        next_segment: SegmentId(6),
        last: Some(SegmentId(4)),
        last_len: 64,
        segments: vec![(SegmentId(3), 128), (SegmentId(4), 64), (SegmentId(5), 0)],
        ..Tail::default()
    };
    let mut log = Log::new(&tail, 1000);
    assert!(log.wants_segment(), "nothing is written to a segment that was found");
    assert_eq!((log.stored(), log.bytes()), (LogSeq(8), 192));

    log.open_segment(Checkpoint::default());
    let batch = log.seal().unwrap();
    assert_eq!((batch.seq, batch.segment, batch.durable), (LogSeq(9), SegmentId(6), LogSeq(8)));
    let opens = Opening { previous: Some(SegmentId(4)), previous_len: 64 };
    assert_eq!(batch.opens, Some(opens));
    assert_eq!(log.discardable(), None);
    log.on_stored(LogSeq(9));
    assert_eq!(log.discardable(), Some(SegmentId(6)));
    assert_eq!(log.discardable(), None);
    assert_eq!(log.bytes(), batch.len);
}

#[test]
#[should_panic(expected = "the first batch of a run opens a segment")]
fn nothing_is_written_to_a_recovered_segment() {
    Log::new(&Tail::default(), 100).push(Record::Founded);
}

#[test]
#[should_panic(expected = "entries begin behind the end of their log")]
fn a_gap_is_never_written() {
    opened().push(entries(G, 2..=3, 1));
}

#[test]
#[should_panic(expected = "what the log holds and what its checkpoint says")]
fn a_checkpoint_that_disagrees_with_the_log_is_never_written() {
    let mut log = opened();
    log.push(entries(G, 1..=3, 1));
    store(&mut log);
    log.open_segment(checkpoint(&[(G, 1, 0, 0, 2)]));
}

/// A later opening, durable, and nothing needed: then, and not before, and once.
#[test]
fn a_segment_goes_when_a_later_opening_is_durable() {
    let mut log = opened();
    log.push(vote(G, 1));
    store(&mut log);
    assert_eq!(log.discardable(), None);
    log.open_segment(checkpoint(&[(G, 1, 0, 0, 0)]));
    let batch = log.seal().unwrap();
    assert_eq!(log.discardable(), None, "the checkpoint is not durable");
    log.on_stored(batch.seq);
    assert_eq!(log.discardable(), Some(SegmentId(2)), "an idle group pins nothing");
    assert_eq!(log.discardable(), None);
}

#[test]
fn a_segment_stays_while_entries_in_it_are_needed() {
    let mut log = opened();
    log.push(entries(G, 1..=4, 1));
    log.push(entries(H, 1..=1, 1));
    store(&mut log);
    assert_eq!(pinning(&log), []);
    rotate(&mut log, &[(G, 1, 0, 0, 4), (H, 1, 0, 0, 1)]);
    assert_eq!(pinning(&log), [G, H]);
    log.push(entries(G, 5..=6, 1));
    store(&mut log);

    log.push(cut(G, 3, 1));
    log.push(cut(H, 1, 1));
    store(&mut log);
    assert_eq!((log.discardable(), pinning(&log)), (None, vec![G]), "entry 4 is needed");

    log.push(cut(G, 4, 1));
    assert_eq!(pinning(&log), []);
    let batch = log.seal().unwrap();
    assert_eq!(log.discardable(), None, "the cut is not durable");
    log.on_stored(batch.seq);
    assert_eq!(log.discardable(), Some(SegmentId(2)));
}

#[test]
fn replaced_entries_are_not_needed_once_the_new_ones_are_durable() {
    let mut log = opened();
    log.push(entries(G, 1..=4, 1));
    store(&mut log);
    rotate(&mut log, &[(G, 1, 0, 0, 4)]);
    log.push(entries(G, 2..=3, 2));
    store(&mut log);
    assert_eq!((log.discardable(), pinning(&log)), (None, vec![G]), "entry 1 is needed");
    log.push(entries(G, 1..=1, 3));
    let batch = log.seal().unwrap();
    assert_eq!((log.discardable(), pinning(&log)), (None, vec![]));
    log.on_stored(batch.seq);
    assert_eq!(log.discardable(), Some(SegmentId(2)));
}

#[test]
fn another_replica_and_a_vanished_group_need_nothing() {
    let mut log = opened();
    log.push(entries(G, 1..=4, 1));
    log.push(entries(H, 1..=4, 1));
    store(&mut log);
    rotate(&mut log, &[(G, 1, 0, 0, 4), (H, 1, 0, 0, 4)]);
    log.push(vote(G, 7));
    store(&mut log);
    assert_eq!((log.discardable(), pinning(&log)), (None, vec![H]));

    log.open_segment(checkpoint(&[(G, 7, 0, 0, 0)]));
    let batch = log.seal().unwrap();
    assert_eq!((log.discardable(), pinning(&log)), (None, vec![]));
    log.on_stored(batch.seq);
    assert_eq!(log.discardable(), Some(SegmentId(3)));
}

/// A snapshot of another history makes entries void that it does not cover. Only the entry at the
/// cut tells so in a replay, until a later checkpoint says where the log ends.
#[test]
fn what_shows_that_a_cut_voids_stays_until_a_later_checkpoint() {
    let mut log = opened();
    log.push(entries(G, 1..=4, 1));
    store(&mut log);
    rotate(&mut log, &[(G, 1, 0, 0, 4)]);
    log.push(entries(G, 5..=9, 3));
    log.push(cut(G, 4, 2));
    store(&mut log);
    assert_eq!((log.discardable(), pinning(&log)), (None, vec![]));
    log.push(entries(G, 5..=5, 4));
    store(&mut log);
    assert_eq!(log.discardable(), None);
    rotate(&mut log, &[(G, 1, 4, 2, 5)]);
    assert_eq!(log.discardable(), Some(SegmentId(2)), "entry 5 is in segment 2");

    // A snapshot that covers everything leaves no question open.
    log.push(cut(G, 8, 5));
    store(&mut log);
    assert_eq!(log.discardable(), Some(SegmentId(3)));
}

#[test]
fn terms_are_known_for_what_is_held() {
    let mut extent = Extent::new(ReplicaId(1));
    let held = |extent: &Extent| {
        let terms = (0..12).map(|index| extent.term_at(LogIndex(index)));
        terms.map(|term| term.map_or(-1, |term| i64::try_from(term.0).unwrap())).collect::<Vec<_>>()
    };
    let write = |extent: &mut Extent, record: Record| {
        let Record::Entries { entries, .. } = record else {
            panic!("{record:?}");
        };
        extent.on_entries(SegmentId(1), &entries).unwrap();
    };
    write(&mut extent, entries(G, 1..=4, 1));
    write(&mut extent, entries(G, 5..=8, 2));
    write(&mut extent, entries(G, 9..=9, 2));
    assert_eq!(held(&extent), [0, 1, 1, 1, 1, 2, 2, 2, 2, 2, -1, -1]);
    write(&mut extent, entries(G, 7..=8, 3));
    assert_eq!(held(&extent), [0, 1, 1, 1, 1, 2, 2, 3, 3, -1, -1, -1]);
    extent.on_cut(LogIndex(5), Term(2)).unwrap();
    assert_eq!(held(&extent), [-1, -1, -1, -1, -1, 2, 2, 3, 3, -1, -1, -1]);
    assert_eq!(extent.terms, [(LogIndex(6), Term(2)), (LogIndex(7), Term(3))]);
    extent.on_cut(LogIndex(7), Term(4)).unwrap();
    assert_eq!(held(&extent), [-1, -1, -1, -1, -1, -1, -1, 4, -1, -1, -1, -1]);
    assert_eq!(extent.on_cut(LogIndex(7), Term(5)), Err("one index was cut with two terms"));
    assert_eq!(extent.on_cut(LogIndex(6), Term(5)), Ok(Change::default()));
}
