//! Arbitrary bytes as log segments, and damaged logs of a member's life.
//!
//! - Recovery never panics, and holds no more than a constant factor of what it reads (the fuzzer's own limit).
//! - It says the same each time, and to people ([`inspect`]) whatever happened.
//! - A log that recovery believes can be gone on with, and what it then says is what it said before.

use std::collections::BTreeMap;

use arbitrary::{Arbitrary, Result, Unstructured};
use bytes::Bytes;
use ring_core::directory::Table;
use ring_core::genesis::{Founder, Genesis};
use ring_core::ids::{Boot, ClusterId, GroupId, LogIndex, MemberId, ReplicaId, SegmentId, Term};
use ring_core::raft::message::{Entry, EntryBody, Membership, Replica};
use ring_core::storage::record::{Batch, Checkpoint, GroupCheckpoint, Record};
use ring_core::storage::{Log, Recovered, encode_batch, inspect, recover};

type Segments = BTreeMap<SegmentId, Bytes>;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes are an empty input.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut segments = if u.arbitrary()? { live(u)? } else { Files::new() };
    for _ in 0..u.int_in_range(0..=4)? {
        damage(&mut segments, u)?;
    }
    if segments.is_empty() {
        let mends: bool = u.arbitrary()?;
        let rest = u.bytes(u.len())?.split(|&byte| byte == 0xfe);
        for (segment, bytes) in (1..).map(SegmentId).zip(rest) {
            let mut bytes = bytes.to_vec();
            if mends {
                mend(segment, &mut bytes);
            }
            segments.insert(segment, bytes);
        }
    }
    check(segments.into_iter().map(|(id, bytes)| (id, Bytes::from(bytes))).collect());
    Ok(())
}

type Files = BTreeMap<SegmentId, Vec<u8>>;

fn check(mut segments: Segments) {
    let first = recover(&mut segments);
    assert_eq!(first, recover(&mut segments), "recovery repeats");
    let _for_people = inspect(&mut segments);
    let Ok(recovered) = first else { return };
    // Nobody starts a member whose counters are at their end.
    let tail = &recovered.tail;
    if tail.next_seq.0 > u64::MAX - 8 || tail.next_segment.0 > u64::MAX - 8 {
        return;
    }
    let mut log = Log::new(tail, 1 << 20);
    log.open_segment(checkpoint(&recovered));
    let batch = log.seal().expect("a checkpoint is staged");
    let mut bytes = Vec::new();
    encode_batch(&batch, &mut bytes);
    segments.insert(batch.segment, Bytes::from(bytes));
    let again = recover(&mut segments).expect("a log that was gone on with");
    let facts = |recovered: &Recovered| Recovered { tail: Default::default(), ..recovered.clone() };
    assert_eq!(facts(&again), facts(&recovered), "recover twice is recover once");
}

fn checkpoint(recovered: &Recovered) -> Checkpoint {
    let groups = recovered.groups.iter().map(|(&group, held)| GroupCheckpoint {
        group,
        replica: held.replica,
        term: held.term,
        vote: held.vote,
        commit: held.commit,
        cut_index: held.cut_index,
        cut_term: held.cut_term,
        membership: held.membership.clone(),
        last_index: held.entries.last().map_or(held.cut_index, |entry| entry.index),
    });
    Checkpoint {
        birth: recovered.birth,
        genesis: recovered.genesis.clone(),
        founded: recovered.founded,
        boot: recovered.boot,
        earlier: recovered.earlier.clone(),
        table: recovered.table.clone(),
        peers: recovered.peers.iter().map(|(&member, &boot)| (member, boot)).collect(),
        groups: groups.collect(),
    }
}

/// One step of a member's life.
#[derive(Arbitrary, Clone, Copy, Debug)]
enum Step {
    Vote { group: bool, term: u8, vote: Option<bool> },
    Entries { group: bool, back: u8, count: u8, size: u8 },
    Cut { group: bool, on: u8 },
    Peer { boot: u8 },
    Make { group: bool },
    Drop { group: bool },
    Table { version: u8 },
    Birth,
    Seal,
    Stored,
    Segment,
}

/// What a member holds of one group.
#[derive(Clone, Debug, Default)]
struct Held {
    term: u64,
    vote: Option<ReplicaId>,
    cut: (u64, u64),
    /// Terms of the entries behind the cut.
    terms: Vec<u64>,
}

/// A log as a member writes it.
fn live(u: &mut Unstructured<'_>) -> Result<Files> {
    let mut log = Log::new(&Default::default(), 4096);
    let mut files = Files::new();
    let mut groups: BTreeMap<GroupId, Held> = BTreeMap::new();
    log.open_segment(Checkpoint { birth: 7, boot: Boot(1 << 32), ..Checkpoint::default() });
    for _ in 0..u.int_in_range(0..=40)? {
        step(u.arbitrary()?, &mut log, &mut files, &mut groups);
    }
    seal(&mut log, &mut files);
    Ok(files)
}

fn step(step: Step, log: &mut Log, files: &mut Files, groups: &mut BTreeMap<GroupId, Held>) {
    let held_of = |group: bool| (GroupId(1 + u32::from(group)), ReplicaId(3 + u64::from(group)));
    match step {
        Step::Vote { group, term, vote } => {
            let (group, replica) = held_of(group);
            let held = groups.entry(group).or_default();
            held.term = held.term.max(u64::from(term));
            held.vote = vote.map(|vote| ReplicaId(u64::from(vote)));
            let (term, vote) = (Term(held.term), held.vote);
            log.push(Record::Vote { group, replica, term, vote });
        }
        Step::Entries { group, back, count, size } => {
            let (group, replica) = held_of(group);
            let held = groups.entry(group).or_default();
            let kept = held.terms.len().saturating_sub(usize::from(back));
            held.terms.truncate(kept);
            let from = held.cut.0 + 1 + u64::try_from(kept).unwrap_or(0);
            let term = held.term.max(held.terms.last().copied().unwrap_or(held.cut.1));
            held.term = term;
            let data = || Bytes::from(vec![size; usize::from(size)]);
            let body =
                |index| if index % 3 == 0 { EntryBody::Noop } else { EntryBody::Data(data()) };
            let entries: Vec<Entry> = (from..=from + u64::from(count % 8))
                .map(|index| Entry { index: LogIndex(index), term: Term(term), body: body(index) })
                .collect();
            held.terms.extend(entries.iter().map(|entry| entry.term.0));
            log.push(Record::Entries { group, replica, entries });
        }
        Step::Cut { group, on } => {
            let (group, replica) = held_of(group);
            let held = groups.entry(group).or_default();
            let cut = usize::from(on).min(held.terms.len());
            if let Some(&term) = cut.checked_sub(1).and_then(|last| held.terms.get(last)) {
                held.cut = (held.cut.0 + u64::try_from(cut).unwrap_or(0), term);
                held.terms.drain(..cut);
                let (index, term) = (LogIndex(held.cut.0), Term(held.cut.1));
                let membership = membership();
                log.push(Record::Cut { group, replica, index, term, membership });
            }
        }
        Step::Peer { boot } => {
            let boot = Boot(u64::from(boot) << 32);
            log.push(Record::PeerBoot { member: MemberId(2), boot });
        }
        Step::Make { group } => {
            let (group, replica) = held_of(group);
            groups.entry(group).or_default();
            log.push(Record::Replica { group, replica });
        }
        Step::Drop { group } => {
            let (group, _) = held_of(group);
            groups.remove(&group);
            log.push(Record::Dropped { group });
        }
        Step::Table { version } => {
            let table = Table { version: version.into(), ..Table::of_genesis(&genesis()) };
            log.push(Record::Table(Box::new(table)));
        }
        Step::Birth => {
            log.push(Record::Genesis(genesis()));
        }
        Step::Seal => seal(log, files),
        Step::Stored => log.on_stored(log.next_seq().prev()),
        Step::Segment => {
            seal(log, files);
            log.on_stored(log.next_seq().prev());
            let groups = groups.iter().map(|(&group, held)| GroupCheckpoint {
                group,
                replica: ReplicaId(2 + u64::from(group.0)),
                term: Term(held.term),
                vote: held.vote,
                commit: LogIndex(held.cut.0),
                cut_index: LogIndex(held.cut.0),
                cut_term: Term(held.cut.1),
                membership: membership(),
                last_index: LogIndex(held.cut.0 + u64::try_from(held.terms.len()).unwrap_or(0)),
            });
            let groups = groups.collect();
            log.open_segment(Checkpoint { birth: 7, groups, ..Checkpoint::default() });
        }
    }
}

fn seal(log: &mut Log, files: &mut Files) {
    if let Some(batch) = log.seal() {
        write(&batch, files);
    }
}

fn write(batch: &Batch, files: &mut Files) {
    encode_batch(batch, files.entry(batch.segment).or_default());
}

fn membership() -> Membership {
    let replica = |id| Replica { id: ReplicaId(id), member: MemberId(id) };
    Membership { voters: vec![replica(3), replica(4)], ..Membership::default() }
}

fn genesis() -> Genesis {
    let founder = |id: u64| Founder {
        id: MemberId(id),
        name: format!("m{id}"),
        address: String::from("a"),
        birth: 7 + id,
    };
    let members = vec![founder(1), founder(2)];
    Genesis { cluster: ClusterId(9), name: String::from("c"), members, shards: 2, replication: 2 }
}

/// What happens to files.
fn damage(files: &mut Files, u: &mut Unstructured<'_>) -> Result<()> {
    if files.is_empty() {
        return Ok(());
    }
    let ids: Vec<SegmentId> = files.keys().copied().collect();
    let id = *u.choose(&ids)?;
    let bytes = files.get_mut(&id).expect("just listed");
    match u.int_in_range(0..=6)? {
        0 => bytes.truncate(u.int_in_range(0..=bytes.len())?),
        1 if !bytes.is_empty() => {
            let place = u.choose_index(bytes.len())?;
            bytes[place] ^= u.arbitrary::<u8>()?;
        }
        // The same with right checksums: what a defect could have written.
        2 if !bytes.is_empty() => {
            let place = u.choose_index(bytes.len())?;
            bytes[place] ^= u.arbitrary::<u8>()?;
            mend(id, bytes);
        }
        3 => {
            files.remove(&id);
        }
        4 => {
            let other = *u.choose(&ids)?;
            let content = files[&id].clone();
            files.insert(other, content);
        }
        5 => {
            let len = u.arbitrary_len::<u8>()?;
            bytes.extend_from_slice(u.bytes(len)?);
        }
        _ => {
            let (begin, end) = (u.int_in_range(0..=bytes.len())?, u.int_in_range(0..=bytes.len())?);
            bytes.get_mut(begin..end).unwrap_or_default().fill(0);
        }
    }
    Ok(())
}

/// Bytes of a batch's header; the format is frozen by tests beside the codec.
const HEADER: usize = 64;

/// Makes of every batch an intact one at its place, whatever it holds.
fn mend(segment: SegmentId, bytes: &mut [u8]) {
    let mut offset = 0;
    while bytes.len() >= offset + HEADER + 8 {
        let batch = &mut bytes[offset..];
        let room = (batch.len() - HEADER) / 8 * 8;
        let said = u32::from_le_bytes([batch[12], batch[13], batch[14], batch[15]]);
        let said = usize::try_from(said).unwrap_or(usize::MAX);
        let body = if said.is_multiple_of(8) && said > 0 { said.min(room) } else { room };
        let place = u64::try_from(offset).unwrap_or(u64::MAX);
        batch[..4].copy_from_slice(b"RGWL");
        batch[4..8].fill(0);
        batch[12..16].copy_from_slice(&u32::try_from(body).unwrap_or(8).to_le_bytes());
        batch[16..24].copy_from_slice(&segment.0.to_le_bytes());
        batch[24..32].copy_from_slice(&place.to_le_bytes());
        let crc = crc32fast::hash(&batch[..HEADER + body]);
        batch[4..8].copy_from_slice(&crc.to_le_bytes());
        offset += HEADER + body;
    }
}
