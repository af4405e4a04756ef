//! Rot: every byte of a log is flipped, and every file cut short at every length. Recovery names
//! the file and the place, or goes on without what no later batch vouches for; it never reads
//! anything else than what was written.
//!
//! `RING_FLIP_STRIDE` says how many bytes lie between two that are flipped, at most (8 without it;
//! 1: every byte).

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::Path;

use libring::{Bytes, Limits, Node, Options};
use ring_core::ids::SegmentId;
use ring_core::raft::message::Entry;
use ring_core::storage::record::{Batch, Record};
use ring_core::storage::{
    Recovered, RecoveryError, decode_batch, parse_segment_name, recover, segment_name,
};
use tests::members::Members;
use tests::one;
use tests::ports::Ports;
use tests::program::run_ring;
use tests::whole::wait_whole;
use tokio::runtime::Runtime;

/// A log as recovery reads it.
type Files = BTreeMap<SegmentId, Bytes>;

#[test]
fn every_flipped_byte_of_a_cluster_of_one_is_noticed() {
    let log = log_of_one();
    log.flip_all();
    log.truncate_all();
    log.lose_files();
}

#[test]
fn every_flipped_byte_of_a_member_of_three_is_noticed() {
    let log = log_of_three();
    log.flip_all();
    log.truncate_all();
    log.lose_files();
}

/// A library opened on a directory with rot says what recovery says, and changes nothing: flipped
/// back, everything is there.
#[test]
fn a_node_does_not_open_on_rot() {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let runtime = Runtime::new().expect("worker threads can be started");
    let written: BTreeSet<u64> = (0..WRITES).collect();
    runtime.block_on(async {
        let node = write(dir.path(), 0).await;
        node.close().await.unwrap_or_else(|e| panic!("{e}"));
    });
    let log = Log::read(&dir.path().join("log"));
    let sure: Vec<&Batch> = log.batches.iter().filter(|batch| log.is_vouched(batch)).collect();
    assert!(sure.len() > 10, "{} batches", sure.len());
    for batch in sure.iter().step_by(sure.len() / 10) {
        let path = dir.path().join("log").join(segment_name(batch.segment));
        let whole = fs::read(&path).expect("it is there");
        let mut rotten = whole.clone();
        rotten[usize::try_from(batch.offset + batch.len - 9).expect("small")] ^= 4;
        fs::write(&path, rotten).expect("the directory is ours");
        let opened = runtime.block_on(Node::open(one::options(dir.path())));
        let said = opened.expect_err("the log is damaged").to_string();
        let place = format!("{} is damaged at byte {},", segment_name(batch.segment), batch.offset);
        assert!(said.contains(&place) && said.contains("replace this member"), "{said}");
        fs::write(&path, whole).expect("the directory is ours");
    }
    let checked = runtime.block_on(one::check(dir.path(), &written, &written));
    checked.unwrap_or_else(|e| panic!("nothing is wrong any more: {e}"));
}

/// The whole way, with processes: a member with rot in its log says what, where and what to do, and
/// does not start; the two others go on. With rot in its last batch it starts, and learns again
/// from them what it forgot.
#[test]
fn a_member_with_rot_refuses_to_start_and_the_others_go_on() {
    let mut members = Members::new(3, 4);
    members.start_all();
    let runtime = Runtime::new().expect("worker threads can be started");
    let client = runtime.block_on(members.client());
    let names = ["member-1", "member-2", "member-3"];
    let whole = || runtime.block_on(wait_whole(&client, 4, &names));
    let addresses = members.addresses();
    let kv = |words: &[&str]| {
        let mut all = vec!["--connect", &addresses, "kv"];
        all.extend(words);
        run_ring(&all).ok().to_owned()
    };
    for start in 0..3 {
        for k in 0..8 {
            kv(&["put", &format!("{start}-{k}"), &format!("value {start}-{k}")]);
        }
        members.stop(2);
        members.start(2);
        members.wait_up(2);
    }
    // The last batch must be no record of its start: without that one it would be an older directory.
    whole();
    kv(&["put", "last", "v"]);
    whole();
    members.stop(2);

    let dir = members.data(2).join("log");
    let log = Log::read(&dir);
    let sure: Vec<&Batch> = log.batches.iter().filter(|batch| log.is_vouched(batch)).collect();
    for (count, place) in [0, 1, sure.len() / 2, sure.len() - 1].into_iter().enumerate() {
        let batch = sure[place];
        let path = dir.join(segment_name(batch.segment));
        let whole = fs::read(&path).expect("it is there");
        let mut rotten = whole.clone();
        rotten[usize::try_from(batch.offset + batch.len / 2).expect("small")] ^= 0x80;
        fs::write(&path, rotten).expect("the directory is ours");
        members.start(2);
        let place = format!("{} is damaged at byte {},", segment_name(batch.segment), batch.offset);
        let exit = members.take(2).wait_exit();
        exit.refused(6, &[&place, &dir.display().to_string(), "replace this member"]);
        let key = format!("meanwhile-{count}");
        kv(&["put", &key, "goes on"]);
        assert_eq!(kv(&["get", &key]), "goes on\n");
        fs::write(&path, whole).expect("the directory is ours");
    }

    let last = log.batches.last().expect("the log is not empty");
    let path = dir.join(segment_name(last.segment));
    let mut rotten = fs::read(&path).expect("it is there");
    rotten[usize::try_from(last.offset).expect("small")] ^= 1;
    fs::write(&path, rotten).expect("the directory is ours");
    members.start(2);
    members.wait_up(2);
    whole();
    // Now it is needed.
    members.kill(0);
    for start in 0..3 {
        for k in 0..8 {
            assert_eq!(kv(&["get", &format!("{start}-{k}")]), format!("value {start}-{k}\n"));
        }
    }
    kv(&["put", "at last", "v"]);
}

/// A log, and what it said when it was whole.
struct Log {
    files: Files,
    whole: Recovered,
    /// Of each file, how many bytes count.
    counted: BTreeMap<SegmentId, u64>,
    /// Every batch that counts, in order.
    batches: Vec<Batch>,
}

/// What became of a log that was damaged.
#[derive(Debug, Default)]
struct Tally {
    /// An error named file and place.
    refused: usize,
    /// What no later batch vouches for is void.
    torn: usize,
    /// Nothing that counts was hit.
    harmless: usize,
}

impl Log {
    fn read(dir: &Path) -> Self {
        let mut files = Files::new();
        for entry in fs::read_dir(dir).expect("the log is there") {
            let entry = entry.expect("it can be read");
            let id = entry.file_name().to_str().and_then(parse_segment_name);
            let id = id.expect("nothing else is in a log's directory");
            files.insert(id, fs::read(entry.path()).expect("it can be read").into());
        }
        let whole = recover(&mut files.clone()).expect("nothing is wrong yet");
        let counted: BTreeMap<SegmentId, u64> = whole.tail.segments.iter().copied().collect();
        let mut batches = Vec::new();
        for (segment, end) in &counted {
            let mut offset = 0;
            while offset < *end {
                let batch = decode_batch(&files[segment], *segment, offset);
                let batch = batch.expect("recovery has read it");
                offset += batch.len;
                batches.push(batch);
            }
        }
        let log = Self { files, whole, counted, batches };
        let bytes: usize = log.files.values().map(Bytes::len).sum();
        eprintln!("{} files, {bytes} bytes, {} batches", log.files.len(), log.batches.len());
        assert!(log.files.len() > 2, "a log that never went on to a new file proves little");
        assert!(log.batches.len() > 20, "nor does one of {} batches", log.batches.len());
        let unsure = log.batches.iter().filter(|batch| !log.is_vouched(batch)).count();
        assert!((1..=2).contains(&unsure), "{unsure} batches are in doubt");
        log
    }

    /// Whether a later batch knew that this one was durable.
    fn is_vouched(&self, batch: &Batch) -> bool {
        self.batches.iter().any(|other| other.durable >= batch.seq)
    }

    fn flip_all(&self) {
        let mut tally = Tally::default();
        let stride = stride();
        let mut dice = 0x9E37_79B9_7F4A_7C15_u64;
        for (segment, bytes) in &self.files {
            let mut place = 0;
            while place < bytes.len() {
                dice = dice.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(0x1405_7B7E_F767_814F);
                let masks = [1 << ((dice >> 33) % 8), 0xFF];
                for mask in masks {
                    let mut rotten = bytes.to_vec();
                    rotten[place] ^= mask;
                    self.judge_flip(*segment, place, rotten, &mut tally);
                }
                place += 1 + usize::try_from((dice >> 40) % stride).expect("less than 2^24");
            }
        }
        eprintln!("bytes flipped: {tally:?}");
        assert!(tally.refused > 0 && tally.torn > 0, "{tally:?}");
    }

    fn judge_flip(&self, segment: SegmentId, place: usize, rotten: Vec<u8>, tally: &mut Tally) {
        let what = format!("{} flipped at {place}", segment_name(segment));
        let found = self.recover_with(segment, Some(rotten));
        let place = u64::try_from(place).expect("small");
        let Some(batch) = self.batch_at(segment, place) else {
            assert_eq!(found.as_ref(), Ok(&self.whole), "{what}: nothing that counts was hit");
            tally.harmless += 1;
            return;
        };
        match found {
            Err(error) => {
                assert_eq!(place_of(&error), Some((segment, batch.offset)), "{what}: {error}");
                tally.refused += 1;
            }
            Ok(found) => {
                assert!(!self.is_vouched(batch), "{what}: it was known durable, and is forgotten");
                self.judge_rest(&found, |other| other.seq >= batch.seq, &what);
                tally.torn += 1;
            }
        }
    }

    fn truncate_all(&self) {
        let mut tally = Tally::default();
        let last = self.whole.tail.last;
        for (segment, bytes) in &self.files {
            for len in 0..bytes.len() {
                let what = format!("{} cut to {len} bytes", segment_name(*segment));
                let found = self.recover_with(*segment, Some(bytes[..len].to_vec()));
                let len = u64::try_from(len).expect("small");
                match found {
                    Ok(found) if self.counted[segment] <= len => {
                        assert_eq!(found, self.whole, "{what}: nothing that counts was hit");
                        tally.harmless += 1;
                    }
                    // As if the power had been cut before the rest was synced: a disk that lied.
                    Ok(found) if Some(*segment) == last => {
                        let gone = |other: &Batch| {
                            other.segment == *segment && other.offset + other.len > len
                        };
                        self.judge_rest(&found, gone, &what);
                        tally.torn += 1;
                    }
                    Ok(_) => panic!("{what}: durable batches are gone, and nobody has noticed"),
                    Err(error) => {
                        let batch = self.batch_at(*segment, len).expect("something was hit");
                        let place = (*segment, batch.offset);
                        assert_eq!(place_of(&error), Some(place), "{what}: {error}");
                        tally.refused += 1;
                    }
                }
            }
        }
        eprintln!("files cut short: {tally:?}");
        assert!(tally.refused > 0 && tally.torn > 0, "{tally:?}");
    }

    /// Each file is lost. The last one is missed by nobody, as with a disk that lied.
    fn lose_files(&self) {
        for segment in self.files.keys() {
            let what = format!("{} is lost", segment_name(*segment));
            match self.recover_with(*segment, None) {
                Ok(found) if Some(*segment) == self.whole.tail.last => {
                    self.judge_rest(&found, |batch| batch.segment == *segment, &what);
                }
                // It held nothing that is still needed.
                Ok(found) => assert_eq!(found.groups, self.whole.groups, "{what}"),
                Err(RecoveryError::Missing { segment: named, .. }) => {
                    assert_eq!(named, *segment, "{what}");
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    }

    fn recover_with(
        &self,
        segment: SegmentId,
        bytes: Option<Vec<u8>>,
    ) -> Result<Recovered, RecoveryError> {
        let mut files = self.files.clone();
        match bytes {
            Some(bytes) => files.insert(segment, bytes.into()),
            None => files.remove(&segment),
        };
        recover(&mut files)
    }

    fn batch_at(&self, segment: SegmentId, place: u64) -> Option<&Batch> {
        self.batches.iter().find(|batch| {
            batch.segment == segment && (batch.offset..batch.offset + batch.len).contains(&place)
        })
    }

    /// What is there is what was there, but for what the batches in question said.
    fn judge_rest(&self, found: &Recovered, gone: impl Fn(&Batch) -> bool, what: &str) {
        let mut lost: BTreeSet<(u32, u64, u64)> = BTreeSet::new();
        for batch in self.batches.iter().filter(|batch| gone(batch)) {
            for record in &batch.records {
                if let Record::Entries { group, entries, .. } = record {
                    lost.extend(entries.iter().map(|e| (group.0, e.index.0, e.term.0)));
                }
            }
        }
        for (group, whole) in &self.whole.groups {
            let entries: &[Entry] =
                found.groups.get(group).map_or(&[], |found| found.entries.as_slice());
            for entry in &whole.entries {
                let is_lost = lost.contains(&(group.0, entry.index.0, entry.term.0));
                let is_there = entries.contains(entry);
                assert!(is_there || is_lost, "{what}: group {group} lacks {entry:?}");
            }
        }
        for (group, found) in &found.groups {
            let whole = &self.whole.groups[group];
            assert!(found.term <= whole.term && found.commit <= whole.commit, "{what}: {group}");
            let begin = whole.cut_index;
            for entry in found.entries.iter().filter(|entry| entry.index > begin) {
                assert!(whole.entries.contains(entry), "{what}: {entry:?} was never written");
            }
        }
    }
}

/// File and offset that an error names.
fn place_of(error: &RecoveryError) -> Option<(SegmentId, u64)> {
    match error {
        RecoveryError::Damaged { segment, offset, .. }
        | RecoveryError::Version { segment, offset, .. }
        | RecoveryError::Contradiction { segment, offset, .. } => Some((*segment, *offset)),
        RecoveryError::Read { .. } | RecoveryError::Missing { .. } => None,
    }
}

/// The log of a cluster of one that was killed twice, the second time in the middle of a write.
fn log_of_one() -> Log {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let runtime = Runtime::new().expect("worker threads can be started");
    runtime.block_on(async {
        for from in [0, WRITES] {
            // Dropped without being closed, it stops as if it had been killed.
            let _node = write(dir.path(), from).await;
        }
    });
    let mut log = Log::read(&dir.path().join("log"));
    let last = log.batches.last().expect("the log is not empty");
    let begin = usize::try_from(last.offset).expect("small");
    let half = usize::try_from(last.len / 2).expect("small");
    let file = log.files.get_mut(&last.segment).expect("it was read");
    let mut torn = file.to_vec();
    torn.extend_from_within(begin..begin + half);
    *file = torn.into();
    assert_eq!(recover(&mut log.files.clone()).as_ref(), Ok(&log.whole), "half a batch is void");
    log
}

/// The log of a member of three that was stopped.
fn log_of_three() -> Log {
    let dir = tempfile::tempdir().expect("the temporary directory can be written");
    let ports = Ports::reserve(3);
    let members: Vec<(String, String)> =
        (0..3).map(|k| (format!("member-{k}"), ports.address(k))).collect();
    let member = |k: usize| Options {
        name: members[k].0.clone(),
        members: members.clone(),
        timers: Options::default().timers,
        ..options(&dir.path().join(&members[k].0))
    };
    let runtime = Runtime::new().expect("worker threads can be started");
    runtime.block_on(async {
        let opened =
            tokio::join!(Node::open(member(0)), Node::open(member(1)), Node::open(member(2)));
        let nodes = [opened.0, opened.1, opened.2];
        let nodes = nodes.map(|node| node.unwrap_or_else(|e| panic!("{e}")));
        put_all(&nodes[0], 0).await;
        for node in nodes {
            node.close().await.unwrap_or_else(|e| panic!("{e}"));
        }
    });
    Log::read(&dir.path().join("member-1").join("log"))
}

/// As the cluster of one has them, but for a log that is not cut.
fn options(dir: &Path) -> Options {
    let options = one::options(dir);
    Options { limits: Limits { log_bytes: 1 << 20, ..options.limits }, ..options }
}

async fn write(dir: &Path, from: u64) -> Node {
    let node = Node::open(options(dir)).await.unwrap_or_else(|e| panic!("{e}"));
    put_all(&node, from).await;
    node
}

async fn put_all(node: &Node, from: u64) {
    for k in from..from + WRITES {
        let put = one::partition(node, k).put(one::key(k), one::value(k)).await;
        put.unwrap_or_else(|e| panic!("write {k}: {e}"));
    }
}

fn stride() -> u64 {
    let text = env::var("RING_FLIP_STRIDE").unwrap_or_else(|_| String::from("8"));
    text.parse().expect("RING_FLIP_STRIDE is a number above 0")
}

const WRITES: u64 = 80;
