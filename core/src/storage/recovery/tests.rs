mod twin;

use alloc::string::ToString;
use alloc::vec;

use super::*;
use crate::ids::{Boot, MemberId, ReplicaId, Term};
use crate::raft::message::{Entry, EntryBody, Membership};
use crate::storage::record::{Batch, Checkpoint, GroupCheckpoint};
use crate::storage::{Extent, Log, RecoveredGroup, encode_batch, inspect};

const G: GroupId = GroupId(1);

/// A log and the files that a world without faults makes of it.
struct Writer {
    log: Log,
    files: BTreeMap<SegmentId, Vec<u8>>,
    batches: Vec<Batch>,
}

impl Writer {
    fn new(tail: &Tail) -> Self {
        Self { log: Log::new(tail, 1 << 20), files: BTreeMap::new(), batches: Vec::new() }
    }

    /// Opens a segment: group 1 is at this term and has this log.
    fn open(&mut self, cut: u64, last: u64) -> &mut Self {
        self.log.open_segment(checkpoint(cut, last));
        self.write()
    }

    fn push(&mut self, record: Record) -> &mut Self {
        self.log.push(record);
        self.write()
    }

    /// Writes what is staged; it becomes durable at once.
    fn write(&mut self) -> &mut Self {
        let batch = self.unsynced();
        self.log.on_stored(batch.seq);
        self
    }

    fn unsynced(&mut self) -> Batch {
        let batch = self.log.seal().unwrap();
        encode_batch(&batch, self.files.entry(batch.segment).or_default());
        self.batches.push(batch.clone());
        batch
    }

    fn source(&self) -> BTreeMap<SegmentId, Bytes> {
        let files = self.files.iter();
        files.map(|(id, bytes)| (*id, Bytes::from(bytes.clone()))).collect()
    }

    fn recover(&self) -> Result<Recovered, RecoveryError> {
        let recovered = recover(&mut self.source());
        assert_eq!(recovered, recover(&mut self.source()));
        recovered
    }
}

fn checkpoint(cut: u64, last: u64) -> Checkpoint {
    Checkpoint {
        birth: 7,
        boot: Boot(1),
        peers: vec![(MemberId(2), Boot(4))],
        groups: vec![GroupCheckpoint {
            group: G,
            replica: ReplicaId(1),
            term: Term(5),
            vote: Some(ReplicaId(3)),
            commit: LogIndex(cut),
            cut_index: LogIndex(cut),
            cut_term: Term(u64::from(cut > 0)),
            membership: Membership::default(),
            last_index: LogIndex(last),
        }],
        ..Checkpoint::default()
    }
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        index: LogIndex(index),
        term: Term(term),
        body: EntryBody::Data(Bytes::from_static(b"value")),
    }
}

fn entries(range: core::ops::RangeInclusive<u64>, term: u64) -> Record {
    Record::Entries {
        group: G,
        replica: ReplicaId(1),
        entries: range.map(|index| entry(index, term)).collect(),
    }
}

fn cut(index: u64, term: u64) -> Record {
    Record::Cut {
        group: G,
        replica: ReplicaId(1),
        index: LogIndex(index),
        term: Term(term),
        membership: Membership::default(),
    }
}

fn indexes(recovered: &Recovered) -> Vec<(u64, u64)> {
    let entries = &recovered.groups[&G].entries;
    entries.iter().map(|entry| (entry.index.0, entry.term.0)).collect()
}

/// Three segments; each batch knew the one before it to be durable.
fn small() -> Writer {
    let mut writer = Writer::new(&Tail::default());
    writer.open(0, 0).push(entries(1..=3, 1)).push(entries(4..=4, 1));
    writer.open(0, 4).push(cut(2, 1)).push(entries(4..=5, 2));
    writer.log.open_segment(Checkpoint {
        groups: vec![GroupCheckpoint {
            cut_index: LogIndex(2),
            cut_term: Term(1),
            ..checkpoint(0, 5).groups.remove(0)
        }],
        ..checkpoint(0, 5)
    });
    writer.write().push(Record::Founded).push(entries(6..=6, 2));
    writer
}

#[test]
fn an_empty_directory_is_a_beginning() {
    let mut expected = Recovered::default();
    expected.tail.next_seq = LogSeq(1);
    expected.tail.next_segment = SegmentId(1);
    assert_eq!(recover(&mut BTreeMap::new()), Ok(expected));
}

#[test]
fn everything_durable_is_found() {
    let writer = small();
    let lens: Vec<_> = writer.files.iter().map(|(id, bytes)| (*id, len_u64(bytes.len()))).collect();
    let extent = Extent {
        replica: ReplicaId(1),
        cut_index: LogIndex(2),
        cut_term: Term(1),
        last_index: LogIndex(6),
        terms: vec![(LogIndex(3), Term(1)), (LogIndex(4), Term(2))],
        spans: vec![
            (SegmentId(1), LogIndex(1)),
            (SegmentId(2), LogIndex(4)),
            (SegmentId(3), LogIndex(6)),
        ],
    };
    let group = RecoveredGroup {
        replica: ReplicaId(1),
        term: Term(5),
        vote: Some(ReplicaId(3)),
        commit: LogIndex(2),
        cut_index: LogIndex(2),
        cut_term: Term(1),
        membership: Membership::default(),
        entries: vec![entry(3, 1), entry(4, 2), entry(5, 2), entry(6, 2)],
    };
    let expected = Recovered {
        birth: 7,
        genesis: None,
        founded: true,
        boot: Boot(1),
        earlier: vec![],
        peers: [(MemberId(2), Boot(4))].into(),
        table: None,
        groups: [(G, group)].into(),
        tail: Tail {
            next_seq: LogSeq(10),
            next_segment: SegmentId(4),
            last: Some(SegmentId(3)),
            last_len: lens[2].1,
            segments: lens,
            extents: [(G, extent)].into(),
        },
    };
    assert_eq!(writer.recover(), Ok(expected));
}

/// W4: the last batch cut at each byte, or with zeros from there on: the state before it.
#[test]
fn a_last_batch_torn_at_any_byte_never_happened() {
    let writer = small();
    let last = writer.batches.last().unwrap();
    let start = usize::try_from(last.offset).unwrap();
    let whole = writer.recover().unwrap();
    for end in start..writer.files[&SegmentId(3)].len() {
        for zeros in [false, true] {
            let mut source = writer.source();
            let mut bytes = writer.files[&SegmentId(3)].clone();
            let len = bytes.len();
            bytes.truncate(end);
            if zeros {
                bytes.resize(len, 0);
            }
            let padding_only = bytes == writer.files[&SegmentId(3)];
            source.insert(SegmentId(3), bytes.into());
            let recovered = recover(&mut source).unwrap();
            if padding_only {
                assert_eq!(recovered, whole);
                continue;
            }
            assert_eq!(recovered.tail.next_seq, last.seq, "cut at {end}");
            assert_eq!(recovered.tail.last_len, last.offset);
            assert_eq!(indexes(&recovered), [(3, 1), (4, 2), (5, 2)]);
            assert!(recovered.founded);
        }
    }
}

/// W3: a changed bit in anything but the last batch is told, with file and place.
#[test]
fn a_changed_bit_in_a_durable_batch_is_always_an_error() {
    let writer = small();
    let last = writer.batches.last().unwrap();
    let batches = writer.batches.iter().filter(|batch| batch.seq < last.seq);
    for batch in batches {
        for at in batch.offset..batch.offset + batch.len {
            let mut bytes = writer.files[&batch.segment].clone();
            bytes[usize::try_from(at).unwrap()] ^= 1 << (at % 8);
            let mut source = writer.source();
            source.insert(batch.segment, bytes.into());
            match recover(&mut source) {
                Err(RecoveryError::Damaged { segment, offset, .. }) => {
                    assert_eq!((segment, offset), (batch.segment, batch.offset));
                }
                other => panic!("{} byte {at}: {other:?}", batch.segment),
            }
        }
    }
}

#[test]
fn damage_says_where_and_what_to_do() {
    let writer = small();
    let mut source = writer.source();
    let batch = &writer.batches[1];
    let mut bytes = writer.files[&SegmentId(1)].clone();
    bytes[usize::try_from(batch.offset).unwrap() + 70] ^= 1;
    source.insert(SegmentId(1), bytes.into());
    let error = recover(&mut source).unwrap_err();
    assert_eq!(
        error.to_string(),
        "log file 0000000000000001.log is damaged at byte 96, before its durable end: the \
         checksum is wrong; this member cannot trust its log any more: bring the file back from a \
         backup of this very state, or replace this member by a new one on an empty directory"
    );
    assert_eq!(batch.offset, 96);
}

#[test]
fn a_segment_shorter_than_the_next_one_knew_is_damage() {
    let writer = small();
    for (segment, offset) in [(1, 0), (2, 0), (1, 96)] {
        let mut source = writer.source();
        let bytes = &writer.files[&SegmentId(segment)];
        source.insert(SegmentId(segment), Bytes::copy_from_slice(&bytes[..offset]));
        let damaged = RecoveryError::Damaged {
            segment: SegmentId(segment),
            offset: len_u64(offset),
            what: Flaw::Short,
        };
        assert_eq!(recover(&mut source), Err(damaged));
    }
}

#[test]
fn a_missing_segment_is_an_error_exactly_when_its_entries_are_needed() {
    let mut writer = small();
    for gone in [1, 2] {
        let mut source = writer.source();
        source.remove(&SegmentId(gone));
        let missing =
            RecoveryError::Missing { segment: SegmentId(gone), group: G, index: LogIndex(3) };
        assert_eq!(recover(&mut source), Err(missing));
    }

    writer.push(cut(5, 2));
    let whole = writer.recover().unwrap();
    for gone in [&[1][..], &[2], &[1, 2]] {
        let mut source = writer.source();
        for gone in gone {
            source.remove(&SegmentId(*gone));
        }
        let recovered = recover(&mut source).unwrap();
        assert_eq!((&recovered.groups, recovered.founded), (&whole.groups, true));
        assert_eq!(recovered.tail.next_seq, whole.tail.next_seq);
        assert_eq!(recovered.tail.last, whole.tail.last);
    }
}

/// Of three unsynced batches the first is lost and the others are there.
#[test]
fn a_hole_in_what_was_not_synced_is_a_torn_tail() {
    let mut writer = small();
    let mut tail = Vec::new();
    for index in 7..=9 {
        writer.log.push(entries(index..=index, 2));
        tail.push(writer.unsynced());
    }
    let hole = usize::try_from(tail[0].offset).unwrap();
    let mut source = writer.source();
    let mut bytes = writer.files[&SegmentId(3)].clone();
    bytes[hole..hole + 8].fill(0);
    source.insert(SegmentId(3), bytes.clone().into());
    let recovered = recover(&mut source).unwrap();
    assert_eq!(recovered.tail.next_seq, tail[0].seq);
    assert_eq!(recovered.tail.last_len, tail[0].offset);

    // W11: the next run goes on elsewhere, and what stands behind the hole never comes back.
    let mut next = Writer::new(&recovered.tail);
    next.log.open_segment(Checkpoint {
        groups: vec![GroupCheckpoint {
            cut_index: LogIndex(2),
            cut_term: Term(1),
            ..checkpoint(0, 6).groups.remove(0)
        }],
        ..checkpoint(0, 6)
    });
    next.write();
    source.extend(next.source());
    let recovered = recover(&mut source).unwrap();
    assert_eq!(indexes(&recovered), [(3, 1), (4, 2), (5, 2), (6, 2)]);
    assert_eq!(recovered.tail.next_seq, tail[0].seq.next());

    // Mended by chance, the hole would make both runs true.
    bytes[hole..hole + 8].copy_from_slice(&writer.files[&SegmentId(3)][hole..hole + 8]);
    source.insert(SegmentId(3), bytes.into());
    let error = recover(&mut source).unwrap_err().to_string();
    assert!(error.contains("was begun before this one ended"), "{error}");
}

/// The same hole when a batch behind it knew better.
#[test]
fn a_hole_that_a_later_batch_knew_to_be_durable_is_damage() {
    let mut writer = small();
    writer.log.push(entries(7..=7, 2));
    let first = writer.unsynced();
    writer.log.push(entries(8..=8, 2));
    writer.unsynced();
    writer.log.on_stored(first.seq);
    writer.log.push(entries(9..=9, 2));
    writer.unsynced();
    let mut source = writer.source();
    let mut bytes = writer.files[&SegmentId(3)].clone();
    bytes[usize::try_from(first.offset).unwrap()] = 0;
    source.insert(SegmentId(3), bytes.into());
    let damaged =
        RecoveryError::Damaged { segment: SegmentId(3), offset: first.offset, what: Flaw::Magic };
    assert_eq!(recover(&mut source), Err(damaged));
}

/// Crash, recover, open a segment, crash before it is durable, again and again.
#[test]
fn segments_that_never_opened_do_not_count_and_lend_their_ids_to_nobody() {
    let writer = small();
    let whole = writer.recover().unwrap();
    let mut source = writer.source();
    for orphan in 4..8 {
        let mut run = Writer::new(&recover(&mut source).unwrap().tail);
        run.log.open_segment(Checkpoint::default());
        run.unsynced();
        run.log.push(Record::Boot(Boot(9)));
        run.unsynced();
        let mut bytes = run.files[&SegmentId(orphan)].clone();
        match orphan {
            4 => bytes.clear(),
            5 => bytes.truncate(40),
            6 => bytes[..64].fill(0), // The batch behind the opening is there.
            _ => bytes[70] ^= 0x80,
        }
        source.insert(SegmentId(orphan), bytes.into());
        let recovered = recover(&mut source).unwrap();
        assert_eq!(recovered.groups, whole.groups);
        assert_eq!(recovered.tail.next_segment, SegmentId(orphan + 1));
        assert_eq!(recovered.tail.next_seq, whole.tail.next_seq);
        assert_eq!(recovered.tail.last, whole.tail.last);
        assert_eq!(recovered.tail.segments.last(), Some(&(SegmentId(orphan), 0)));
    }

    // At last one opens; the orphans before it are passed over.
    let mut run = Writer::new(&recover(&mut source).unwrap().tail);
    run.log.open_segment(Checkpoint::default());
    run.write();
    source.extend(run.source());
    let recovered = recover(&mut source).unwrap();
    assert_eq!(recovered.tail.last, Some(SegmentId(8)));
    assert_eq!(recovered.groups, BTreeMap::new());
    assert_eq!(run.log.discardable(), Some(SegmentId(8)));
}

#[test]
fn a_bad_opening_is_damage_when_a_batch_behind_it_knew_it_to_be_durable() {
    for first in [false, true] {
        let mut writer = match first {
            true => Writer::new(&Tail::default()),
            false => small(),
        };
        writer.log.open_segment(
            writer.batches.last().map_or_else(|| checkpoint(0, 0), |_| Checkpoint::default()),
        );
        let opening = writer.unsynced();
        writer.log.push(Record::Boot(Boot(2)));
        writer.unsynced();
        let spoil = |writer: &Writer| {
            let mut source = writer.source();
            let mut bytes = writer.files[&opening.segment].clone();
            bytes[65] ^= 1;
            source.insert(opening.segment, bytes.into());
            source
        };
        let recovered = recover(&mut spoil(&writer)).unwrap();
        assert_eq!(recovered.tail.next_seq, opening.seq);

        writer.log.on_stored(opening.seq);
        writer.log.push(Record::Founded);
        writer.unsynced();
        let damaged =
            RecoveryError::Damaged { segment: opening.segment, offset: 0, what: Flaw::Checksum };
        assert_eq!(recover(&mut spoil(&writer)), Err(damaged));
    }
}

/// Deleted files come back in any choice when the directory was not synced.
#[test]
fn discarded_segments_that_come_back_change_nothing() {
    let mut writer = Writer::new(&Tail::default());
    writer.open(0, 0).push(entries(1..=4, 1));
    writer.open(0, 4).push(entries(3..=3, 2)).push(entries(1..=3, 3));
    writer.push(cut(1, 3));
    writer.log.open_segment(Checkpoint {
        groups: vec![GroupCheckpoint { cut_term: Term(3), ..checkpoint(1, 3).groups.remove(0) }],
        ..checkpoint(1, 3)
    });
    writer.write().push(entries(2..=2, 4));
    assert_eq!(writer.log.discardable(), Some(SegmentId(3)));
    let whole = writer.recover().unwrap();
    assert_eq!(indexes(&whole), [(2, 4)]);
    for back in 0..4_u64 {
        let mut source = writer.source();
        source.retain(|id, _| id.0 == 3 || back >> (id.0 - 1) & 1 == 1);
        let recovered = recover(&mut source).unwrap();
        assert_eq!(recovered.groups, whole.groups, "{back}");
        assert_eq!(recovered.tail.next_seq, whole.tail.next_seq);
    }
}

/// Entries whose beginning was discarded, before the cut that allowed it: what follows the cut
/// stays.
#[test]
fn a_cut_below_which_entries_are_gone_keeps_what_follows() {
    let mut writer = Writer::new(&Tail::default());
    writer.open(0, 0).push(entries(1..=4, 1));
    writer.open(0, 4).push(entries(5..=6, 1)).push(cut(4, 1));
    assert_eq!(writer.log.discardable(), Some(SegmentId(2)));
    writer.files.remove(&SegmentId(1));
    assert_eq!(indexes(&writer.recover().unwrap()), [(5, 1), (6, 1)]);
}

#[test]
fn a_cut_with_another_term_makes_what_follows_void() {
    let mut writer = Writer::new(&Tail::default());
    writer.open(0, 0).push(entries(1..=4, 1)).push(cut(3, 2));
    let recovered = writer.recover().unwrap();
    assert_eq!(indexes(&recovered), []);
    assert_eq!(recovered.groups[&G].cut_index, LogIndex(3));
    assert_eq!(recovered.groups[&G].commit, LogIndex(3));
    writer.push(entries(4..=5, 2));
    assert_eq!(indexes(&writer.recover().unwrap()), [(4, 2), (5, 2)]);
}

#[test]
fn another_replica_begins_anew() {
    let mut writer = Writer::new(&Tail::default());
    writer.open(0, 0).push(entries(1..=4, 1)).push(Record::Vote {
        group: G,
        replica: ReplicaId(8),
        term: Term(1),
        vote: None,
    });
    let recovered = writer.recover().unwrap();
    let group = RecoveredGroup {
        replica: ReplicaId(8),
        term: Term(1),
        vote: None,
        commit: LogIndex(0),
        cut_index: LogIndex(0),
        cut_term: Term(0),
        membership: Membership::default(),
        entries: vec![],
    };
    assert_eq!(recovered.groups, [(G, group)].into());
}

/// Batches that our own log never writes: what recovery says to them.
#[test]
fn intact_batches_that_contradict_one_another_are_told() {
    let mut writer = Writer::new(&Tail::default());
    writer.open(0, 0).push(entries(1..=3, 1));
    let place = len_u64(writer.files[&SegmentId(1)].len());
    let good = Batch {
        seq: LogSeq(3),
        segment: SegmentId(1),
        offset: place,
        len: 80,
        durable: LogSeq(2),
        opens: None,
        records: vec![Record::Founded],
    };
    let told = |batch: Batch| {
        let mut files = writer.files.clone();
        let records: u64 = batch.records.iter().map(crate::storage::codec::record_len).sum();
        let len = crate::storage::codec::batch_len(records);
        encode_batch(&Batch { len, ..batch }, files.get_mut(&SegmentId(1)).unwrap());
        let mut source: BTreeMap<_, _> =
            files.into_iter().map(|(id, bytes)| (id, Bytes::from(bytes))).collect();
        match recover(&mut source) {
            Ok(_) => "",
            Err(RecoveryError::Contradiction { segment, offset, what, .. }) => {
                assert_eq!((segment, offset), (SegmentId(1), place));
                what
            }
            Err(other) => panic!("{other:?}"),
        }
    };
    let with = |record| Batch { records: vec![record], ..good.clone() };
    assert_eq!(told(good.clone()), "");
    let skips = Batch { seq: LogSeq(4), ..good.clone() };
    assert_eq!(told(skips), "a batch does not follow the one before it");
    assert_eq!(told(with(entries(5..=5, 1))), "entries begin behind the end of their log");
    let jumps = Record::Entries {
        group: G,
        replica: ReplicaId(1),
        entries: vec![entry(4, 1), entry(6, 1)],
    };
    assert_eq!(told(with(jumps)), "entries do not follow one another");
    let ends = Record::Entries { group: G, replica: ReplicaId(1), entries: vec![] };
    assert_eq!(told(with(ends)), "no entries in a record of entries");
    assert_eq!(
        told(with(Record::Checkpoint(checkpoint(0, 3)))),
        "a segment begins with its checkpoint, and has no other"
    );
    assert_eq!(
        told(with(entries(u64::MAX..=u64::MAX, 1))),
        "entries begin behind the end of their log"
    );
}

#[test]
fn ids_at_their_end_are_an_error_and_no_panic() {
    for id in [u64::MAX, u64::MAX - 1] {
        let mut source = BTreeMap::from([(SegmentId(id), Bytes::new())]);
        let error = recover(&mut source).unwrap_err().to_string();
        assert!(error.contains("leaves none for later segments"), "{error}");
    }
}

#[test]
fn a_read_that_fails_is_an_error() {
    struct Failing;
    impl SegmentSource for Failing {
        fn segments(&self) -> Vec<SegmentId> {
            vec![SegmentId(1)]
        }

        fn read(&mut self, _: SegmentId) -> Result<Bytes, String> {
            Err("the disk is on fire".to_string())
        }
    }
    assert_eq!(
        recover(&mut Failing).unwrap_err().to_string(),
        "log file 0000000000000001.log cannot be read: the disk is on fire; mend the disk and start \
         this member again"
    );
}

#[test]
fn names_of_files() {
    assert_eq!(segment_name(SegmentId(0x1f)), "000000000000001f.log");
    assert_eq!(parse_segment_name("000000000000001f.log"), Some(SegmentId(0x1f)));
    for other in
        ["", "1f.log", "000000000000001F.log", "+00000000000001f.log", "000000000000001f.tmp"]
    {
        assert_eq!(parse_segment_name(other), None);
    }
}

#[test]
fn inspection_shows_files_groups_and_damage() {
    let mut writer = small();
    writer.files.get_mut(&SegmentId(3)).unwrap().extend_from_slice(&[1; 5]);
    writer.files.insert(SegmentId(4), vec![2; 9]);
    let report = inspect(&mut writer.source());
    assert_eq!(report.damage, None);
    let group = &report.groups[&G];
    assert_eq!((group.term, group.cut, group.last), (Term(5), LogIndex(2), LogIndex(6)));
    let segments: Vec<_> = report
        .segments
        .iter()
        .map(|it| (it.segment.0, it.batches, it.first, it.last, it.void))
        .collect();
    assert_eq!(
        segments,
        [
            (1, 3, Some(LogSeq(1)), Some(LogSeq(3)), 0),
            (2, 3, Some(LogSeq(4)), Some(LogSeq(6)), 0),
            (3, 3, Some(LogSeq(7)), Some(LogSeq(9)), 5),
            (4, 0, None, None, 9),
        ]
    );
    let kinds = BTreeMap::from([("checkpoint", 1), ("cut", 1), ("entries", 1)]);
    assert_eq!(report.segments[1].records, kinds);

    writer.files.get_mut(&SegmentId(2)).unwrap()[3] = 0;
    let report = inspect(&mut writer.source());
    let damaged = RecoveryError::Damaged { segment: SegmentId(2), offset: 0, what: Flaw::Magic };
    assert_eq!(report.damage, Some(damaged));
    assert_eq!(report.segments[1].void, report.segments[1].bytes);
}
