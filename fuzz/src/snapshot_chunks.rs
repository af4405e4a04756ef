//! Chunks of snapshots of any content, in any order, on the store thread.
//!
//! - They are staged, installed or refused; nothing panics and the store never fails.
//! - A store opened again stands where it stood, whatever was installed or cut short.
//! - An installed snapshot can be read, applied to, and sent on.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ring_core::ids::{CursorId, GroupId, LogIndex, ReadId, SnapshotId, Term};
use ring_core::raft::message::Entry;
use ring_core::shard::Worker;
use ring_core::shard::command::{Query, Scan};
use ring_core::store::{MemoryStore, StoreDone, StoreTask};
use serde::{Deserialize, Serialize};
use twox_hash::XxHash64;

use crate::entries::{GROUP, body, worker};
use crate::world::limits;

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes end the play.
    let _ = try_run(&mut Unstructured::new(data));
}

/// What each chunk begins with; the format is frozen by a test beside it.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Head {
    version: u8,
    group: GroupId,
    index: LogIndex,
    digest: u64,
    chain: u64,
}

/// A store and what the fuzzer knows of it.
struct Play {
    worker: Worker<MemoryStore>,
    index: LogIndex,
    term: Term,
    /// An entry could not be applied: by design the store stops.
    stopped: bool,
    /// Chunks of a snapshot that some honest member sent.
    honest: Vec<Bytes>,
    head: Head,
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let honest = honest_chunks(u)?;
    let first = postcard::take_from_bytes::<Head>(&honest[0]).expect("an honest head").0;
    let mut play = Play {
        worker: worker(),
        index: LogIndex(0),
        term: Term(1),
        stopped: false,
        honest,
        head: first,
    };
    while !u.is_empty() && !play.stopped {
        play.step(u)?;
        if play.stopped {
            break;
        }
        let states = play.worker.states();
        let again = Worker::new(play.worker.store().clone(), &limits());
        let (again, stands) = again.expect("what a store holds can be opened");
        assert_eq!(stands, states, "a store opened again stands where it stood");
        if u.ratio(1, 8)? {
            play.worker = again;
        }
    }
    Ok(())
}

impl Play {
    fn step(&mut self, u: &mut Unstructured<'_>) -> Result<()> {
        let task = match u.int_in_range(0..=9)? {
            0 => {
                let (index, term) = (self.index.next(), self.term);
                let entries = vec![Entry { index, term, body: body(u)? }];
                StoreTask::Apply { group: GROUP, entries, answers: u.arbitrary()? }
            }
            1 => StoreTask::Load {
                group: GROUP,
                id: SnapshotId(u.int_in_range(0..=2)?),
                chunk: u.int_in_range(0..=3)?,
            },
            2 => {
                let scan = Scan {
                    partition: Bytes::from_static(b"p"),
                    from: Bytes::new(),
                    to: None,
                    reverse: u.arbitrary()?,
                    limit: u.arbitrary()?,
                    cursor: CursorId(1),
                };
                let query = if u.arbitrary()? {
                    Query::Scan(Box::new(scan))
                } else {
                    Query::Info { partition: scan.partition }
                };
                StoreTask::Read { read: ReadId(1), group: GROUP, query }
            }
            3 if u.ratio(1, 8)? => {
                self.carry_out(StoreTask::Drop { group: GROUP });
                let membership = ring_core::raft::message::Membership::default();
                StoreTask::Create { group: GROUP, membership }
            }
            _ => {
                let chunk = u.int_in_range(0..=4)?;
                StoreTask::Install {
                    group: GROUP,
                    id: SnapshotId(u.int_in_range(0..=2)?),
                    chunk,
                    data: self.chunk(u, usize::try_from(chunk).expect("small"))?,
                    last: u.arbitrary()?,
                }
            }
        };
        self.carry_out(task);
        Ok(())
    }

    fn carry_out(&mut self, task: StoreTask) {
        let applies = matches!(task, StoreTask::Apply { .. });
        let mut done = Vec::new();
        self.worker.run([task], &mut done);
        for done in done {
            match done {
                StoreDone::Applied { index, .. } => self.index = index,
                StoreDone::Dropped { .. } => (self.index, self.term) = Default::default(),
                StoreDone::Installed { state, .. } => {
                    assert!(state.index >= self.index, "nothing applied is taken back");
                    (self.index, self.term) = (state.index, state.term);
                }
                StoreDone::Failed { problem } => {
                    assert!(applies, "a peer's chunk made the store fail: {problem}");
                    self.stopped = true;
                }
                StoreDone::Read { .. }
                | StoreDone::Persisted { .. }
                | StoreDone::Loaded { .. }
                | StoreDone::Staged { .. }
                | StoreDone::InstallRefused { .. } => {}
            }
        }
    }

    /// An honest chunk, one with a byte changed, or one made up behind a head that fits.
    fn chunk(&mut self, u: &mut Unstructured<'_>, number: usize) -> Result<Bytes> {
        let kind = u.int_in_range(0..=3)?;
        let honest = self.honest.get(number).cloned().unwrap_or_default();
        if number == 0 {
            self.head.chain = 0;
        }
        let data = match kind {
            0 => honest,
            1 if !honest.is_empty() => {
                let mut data = honest.to_vec();
                let place = u.choose_index(data.len())?;
                data[place] ^= u.arbitrary::<u8>()?;
                Bytes::from(data)
            }
            2 => {
                let mut data = postcard::to_allocvec(&self.head).expect("memory does not fail");
                if number == 0 {
                    data = honest.to_vec();
                }
                for _ in 0..u.int_in_range(0..=3)? {
                    let pair = (suffix(u)?, value(u)?);
                    data = postcard::to_extend(&pair, data).expect("memory does not fail");
                }
                Bytes::from(data)
            }
            _ => {
                let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
                Bytes::copy_from_slice(u.bytes(len)?)
            }
        };
        self.head.chain = XxHash64::oneshot(self.head.chain, &data);
        Ok(data)
    }
}

/// Keys near the real ones: a kind, then anything.
fn suffix(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut suffix = vec![u.int_in_range(0..=4)?];
    let len = usize::from(u.int_in_range::<u8>(0..=12)?).min(u.len());
    suffix.extend_from_slice(u.bytes(len)?);
    Ok(suffix)
}

fn value(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let len = usize::from(u.int_in_range::<u8>(0..=40)?).min(u.len());
    Ok(u.bytes(len)?.to_vec())
}

/// The snapshot of a store with some history.
fn honest_chunks(u: &mut Unstructured<'_>) -> Result<Vec<Bytes>> {
    let mut worker = worker();
    for index in 1..=u.int_in_range(1..=6)? {
        let entry = Entry { index: LogIndex(index), term: Term(1), body: body(u)? };
        let entries = vec![entry];
        worker.run([StoreTask::Apply { group: GROUP, entries, answers: false }], &mut Vec::new());
        if worker.states()[0].index != LogIndex(index) {
            return Err(arbitrary::Error::IncorrectFormat); // It stopped at an entry that makes no sense.
        }
    }
    let mut chunks = Vec::new();
    for chunk in 0.. {
        let mut done = Vec::new();
        worker.run([StoreTask::Load { group: GROUP, id: SnapshotId(9), chunk }], &mut done);
        let Some(StoreDone::Loaded { data, last, .. }) = done.pop() else {
            return Err(arbitrary::Error::IncorrectFormat);
        };
        chunks.push(data);
        if last {
            break;
        }
    }
    Ok(chunks)
}
