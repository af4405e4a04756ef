use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::directory::Table;
use crate::genesis::{Founder, Genesis};
use crate::ids::{Boot, ClusterId, GroupId, LogIndex, MemberId, ReplicaId, Term};
use crate::raft::message::{Entry, EntryBody, Membership, Replica};
use crate::storage::record::{Checkpoint, GroupCheckpoint};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn replica(id: u64, member: u64) -> Replica {
    Replica { id: ReplicaId(id), member: MemberId(member) }
}

fn membership() -> Membership {
    Membership {
        voters: vec![replica(1, 1), replica(2, 2)],
        outgoing: vec![replica(3, 3)],
        learners: vec![replica(4, 4)],
        order: 9,
    }
}

fn genesis() -> Genesis {
    Genesis {
        cluster: ClusterId(7),
        name: "ab".to_string(),
        members: vec![Founder {
            id: MemberId(1),
            name: "x".to_string(),
            address: "y:1".to_string(),
            birth: 300,
        }],
        shards: 64,
        replication: 3,
    }
}

fn checkpoint() -> Checkpoint {
    Checkpoint {
        birth: 300,
        genesis: None,
        founded: true,
        boot: Boot(2),
        earlier: vec![300, 1],
        peers: vec![(MemberId(2), Boot(9))],
        table: None,
        groups: vec![GroupCheckpoint {
            group: GroupId(1),
            replica: ReplicaId(2),
            term: Term(3),
            vote: Some(ReplicaId(4)),
            commit: LogIndex(5),
            cut_index: LogIndex(6),
            cut_term: Term(7),
            membership: membership(),
            last_index: LogIndex(8),
        }],
    }
}

fn table() -> Table {
    Table { version: 3, next_replica: ReplicaId(1), members: vec![], groups: vec![] }
}

fn entries() -> Vec<Entry> {
    let bodies = [
        EntryBody::Noop,
        EntryBody::Membership(Box::new(membership())),
        EntryBody::Data(Bytes::from_static(b"hi")),
    ];
    (6..)
        .zip(bodies)
        .map(|(index, body)| Entry { index: LogIndex(index), term: Term(3), body })
        .collect()
}

/// One of each kind, with the bytes that it has on every disk for ever.
fn golden() -> Vec<(Record, &'static str)> {
    let (group, replica) = (GroupId(1), ReplicaId(2));
    vec![
        (Record::Birth { birth: 300 }, "00ac02"),
        (Record::Genesis(genesis()), "0107026162010101780379 3a31ac024003"),
        (Record::Founded, "02"),
        (Record::Released, "0c"),
        (Record::Boot(Boot(5)), "0305"),
        (Record::PeerBoot { member: MemberId(2), boot: Boot(9) }, "040209"),
        (Record::Vote { group, replica, term: Term(3), vote: Some(ReplicaId(4)) }, "05010203 0104"),
        (
            Record::Entries { group, replica, entries: entries() },
            "06010203 060300 070301 02 0101 0202 01 0303 01 0404 09 080302 02 6869",
        ),
        (
            Record::Cut {
                group,
                replica,
                index: LogIndex(6),
                term: Term(7),
                membership: membership(),
            },
            "0701020607 02 0101 0202 01 0303 01 0404 09",
        ),
        (
            Record::Checkpoint(checkpoint()),
            "08 ac02 00 01 02 02ac0201 01 0209 00 01 01 02 03 0104 05 06 07 02 0101 0202 01 0303 01 0404 09 08",
        ),
        (Record::Replica { group, replica }, "090102"),
        (Record::Table(Box::new(table())), "0a03010000"),
        (Record::Dropped { group }, "0b01"),
    ]
}

fn batch(offset: u64, opens: Option<Opening>, records: Vec<Record>) -> Batch {
    Batch {
        seq: LogSeq(0x1122),
        segment: SegmentId(0x33),
        offset,
        len: batch_len(records.iter().map(record_len).sum()),
        durable: LogSeq(0x1121),
        opens,
        records,
    }
}

fn encode(batch: &Batch) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_batch(batch, &mut bytes);
    bytes
}

/// Gives bytes the checksum that fits them.
fn seal(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let crc = crc32fast::hash(bytes);
    bytes[4..8].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn every_record_has_its_golden_bytes() {
    for (record, bytes) in golden() {
        let mut encoded = Vec::new();
        encode_record(&record, &mut encoded);
        assert_eq!(hex(&encoded[4..]), bytes.replace(' ', ""), "{record:?}");
        let len = u32::try_from(encoded.len() - 4).unwrap();
        assert_eq!(encoded[..4], len.to_le_bytes());
        assert_eq!(record_len(&record), len_u64(encoded.len()));
        assert_eq!(decode_record(&encoded), Ok((record, &[][..])));
    }
}

#[test]
fn a_batch_has_its_golden_bytes() {
    let opens = Opening { previous: Some(SegmentId(0x32)), previous_len: 0x4455 };
    let opening = batch(0, Some(opens), vec![Record::Founded, Record::Boot(Boot(5))]);
    assert_eq!(
        hex(&encode(&opening)),
        "5247574c 45c8a670 0100 0300 10000000 3300000000000000 0000000000000000 2211000000000000 \
         2111000000000000 3200000000000000 5544000000000000 02000000 01000000 02 02000000 0305 00"
            .replace(' ', "")
    );

    let first = batch(0, Some(Opening::default()), vec![Record::Founded]);
    assert_eq!(hex(&encode(&first)[8..16]), "0100010010000000");
    assert_eq!(hex(&encode(&first)[48..64]), "00".repeat(16));

    let mut bytes = vec![0; 0x50];
    let later = batch(0x50, None, vec![Record::Founded]);
    encode_batch(&later, &mut bytes);
    assert_eq!(hex(&bytes[0x58..0x60]), "0100000010000000");
    assert_eq!(decode_batch(&bytes, SegmentId(0x33), 0x50), Ok(later));
}

#[test]
fn batches_come_back_as_they_were() {
    let records: Vec<Record> = golden().into_iter().map(|(record, _)| record).collect();
    for count in 0..=records.len() {
        let batch = batch(0, Some(Opening::default()), records[..count].to_vec());
        let bytes = encode(&batch);
        assert_eq!(len_u64(bytes.len()), batch.len);
        assert_eq!(batch.len % 8, 0);
        assert_eq!(decode_batch(&bytes, batch.segment, 0), Ok(batch));
    }
}

#[test]
fn no_changed_bit_and_no_missing_byte_goes_unnoticed() {
    let records = golden().into_iter().map(|(record, _)| record).collect();
    let batch = batch(0, Some(Opening::default()), records);
    let bytes = encode(&batch);
    for at in 0..bytes.len() {
        for bit in 0..8 {
            let mut bad = bytes.clone();
            bad[at] ^= 1 << bit;
            let answer = decode_batch(&bad, batch.segment, 0);
            assert!(matches!(answer, Err(BatchError::Broken(_))), "{at}.{bit}: {answer:?}");
        }
        let answer = decode_batch(&bytes[..at], batch.segment, 0);
        assert_eq!(answer, Err(BatchError::Broken(Flaw::Short)), "cut at {at}");
    }
}

#[test]
fn a_batch_is_valid_only_in_its_place() {
    let batch = batch(0, Some(Opening::default()), vec![Record::Founded]);
    let bytes = encode(&batch);
    let place = Err(BatchError::Broken(Flaw::Place));
    assert_eq!(decode_batch(&bytes, SegmentId(0x34), 0), place);
    let mut moved = vec![0; 8];
    moved.extend_from_slice(&bytes);
    assert_eq!(decode_batch(&moved, batch.segment, 8), place);
    let beyond = decode_batch(&bytes, batch.segment, u64::MAX);
    assert_eq!(beyond, Err(BatchError::Broken(Flaw::Short)));
}

type Change = fn(&mut Vec<u8>);

#[test]
fn intact_nonsense_is_told_apart() {
    let batch = batch(0, Some(Opening::default()), vec![Record::Founded]);
    let good = encode(&batch);
    let with = |change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        seal(&mut bytes);
        decode_batch(&bytes, batch.segment, 0).unwrap_err()
    };
    assert_eq!(with(&|bytes| bytes[8] = 2), BatchError::Version(2));
    let cases: &[(Change, &str)] = &[
        (|bytes| bytes[10] = 9, "unknown flags"),
        (|bytes| bytes[10] = 2, "unknown flags"),
        (|bytes| bytes[10] = 0, "exactly the first batch of a segment opens it"),
        (|bytes| bytes[48] = 1, "names a segment before without a flag that says so"),
        (|bytes| bytes[40] = 0x22, "says that it was durable before it was made"),
        (|bytes| bytes[64] = 0, "bytes behind its records"),
        (|bytes| bytes[64] = 2, "a record cannot be decoded"),
        (|bytes| bytes[67] = 0xff, "a record cannot be decoded"),
        (|bytes| bytes[68] = 2, "bytes behind a record"),
        (|bytes| bytes[71] = 0xff, "a record is longer than its batch"),
        (|bytes| bytes[72] = 0x77, "a record cannot be decoded"),
        (|bytes| bytes[79] = 1, "bytes behind its records"),
    ];
    for (change, what) in cases {
        assert_eq!(with(change), BatchError::Malformed(what));
    }
}

#[test]
fn lengths_that_lie_allocate_nothing() {
    // Four billion entries, four billion bytes: the record ends long before.
    for record in ["060102ffffffff0f", "060102010603 02ffffffff0f", "01 07 ffffffff0f"] {
        let digits = record.replace(' ', "");
        let body: Vec<u8> = (0..digits.len() / 2)
            .map(|at| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).unwrap())
            .collect();
        let mut bytes = u32::try_from(body.len()).unwrap().to_le_bytes().to_vec();
        bytes.extend_from_slice(&body);
        assert_eq!(decode_record(&bytes), Err("a record cannot be decoded"));
    }
    let mut bytes = encode(&batch(0, Some(Opening::default()), vec![Record::Founded]));
    bytes[12..16].copy_from_slice(&0xffff_fff8_u32.to_le_bytes());
    let answer = decode_batch(&bytes, SegmentId(0x33), 0);
    assert_eq!(answer, Err(BatchError::Broken(Flaw::Short)));
}

proptest! {
    #[test]
    fn any_bytes_with_a_right_checksum_give_an_answer(
        body in prop::collection::vec(any::<u8>(), 8..200),
        flags in 0_u8..4,
    ) {
        let mut bytes = encode(&batch(0, Some(Opening::default()), vec![Record::Founded]));
        bytes.truncate(HEADER);
        bytes[10] = flags;
        bytes.extend_from_slice(&body[..body.len() / 8 * 8]);
        let len = u32::try_from(bytes.len() - HEADER).unwrap();
        bytes[12..16].copy_from_slice(&len.to_le_bytes());
        seal(&mut bytes);
        let answer = decode_batch(&bytes, SegmentId(0x33), 0);
        prop_assert!(!matches!(answer, Err(BatchError::Broken(_))));
    }
}
