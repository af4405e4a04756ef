//! Committed entries of any content, on the store thread.
//!
//! - An entry is applied, or the store says that it cannot go on (an entry of a later version does that); nothing
//!   panics.
//! - Two stores that apply the same entries, cut into tasks differently, agree on the outcomes and the digest.
//! - A store opened again stands where it stood.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use ring_core::ids::{GroupId, LogIndex, MemberId, ReplicaId, Revision, Seq, SessionId, Term};
use ring_core::raft::message::{Entry, EntryBody, Membership, Replica};
use ring_core::shard::Worker;
use ring_core::shard::command::{Change, Command, Expect, Item, ItemOutcome, Payload};
use ring_core::store::{MemoryStore, StoreDone, StoreTask};

use crate::world::limits;

/// The group that all entries are of.
pub const GROUP: GroupId = GroupId(1);

/// See the [module](self).
pub fn run(data: &[u8]) {
    // Too few bytes are an empty input.
    let _ = try_run(&mut Unstructured::new(data));
}

fn try_run(u: &mut Unstructured<'_>) -> Result<()> {
    let mut entries = Vec::new();
    let mut term = 1;
    let mut cuts = Vec::new();
    while !u.is_empty() && entries.len() < 64 {
        term += u64::from(u.ratio(1, 8)?);
        cuts.push(u.ratio(1, 3)?);
        let index = LogIndex(u64::try_from(entries.len()).expect("few") + 1);
        entries.push(Entry { index, term: Term(term), body: body(u)? });
    }
    let one_by_one = apply(entries.iter().map(|entry| vec![entry.clone()]).collect());
    let mut tasks: Vec<Vec<Entry>> = Vec::new();
    for (entry, cut) in entries.into_iter().zip(cuts) {
        match tasks.last_mut() {
            Some(task) if !cut => task.push(entry),
            _ => tasks.push(vec![entry]),
        }
    }
    let cut_otherwise = apply(tasks);
    if !one_by_one.failed && !cut_otherwise.failed {
        assert_eq!(one_by_one, cut_otherwise, "how entries are cut into tasks makes no difference");
    }
    assert_eq!(one_by_one.failed, cut_otherwise.failed, "both go on, or neither");
    Ok(())
}

#[derive(Debug, PartialEq)]
struct Applied {
    outcomes: Vec<Vec<ItemOutcome>>,
    digest: u64,
    failed: bool,
}

fn apply(tasks: Vec<Vec<Entry>>) -> Applied {
    let mut worker = worker();
    let (mut outcomes, mut digest, mut failed) = (Vec::new(), 0, false);
    for entries in tasks {
        let mut done = Vec::new();
        worker.run([StoreTask::Apply { group: GROUP, entries, answers: true }], &mut done);
        for done in done {
            match done {
                StoreDone::Applied { outcomes: more, digest: now, .. } => {
                    outcomes.extend(more);
                    digest = now;
                }
                StoreDone::Failed { .. } => failed = true,
                other => panic!("no answer to an apply: {other:?}"),
            }
        }
    }
    if !failed {
        let states = worker.states();
        let again = Worker::new(worker.store().clone(), &limits()).expect("a sound store");
        assert_eq!(again.1, states, "a store opened again stands where it stood");
    }
    Applied { outcomes, digest, failed }
}

/// A store that has the group.
#[must_use]
pub fn worker() -> Worker<MemoryStore> {
    let (mut worker, _) = Worker::new(MemoryStore::new(), &limits()).expect("an empty store");
    let replica = |id| Replica { id: ReplicaId(id), member: MemberId(id) };
    let voters = vec![replica(1), replica(2), replica(3)];
    let membership = Membership { voters, ..Membership::default() };
    worker.run([StoreTask::Create { group: GROUP, membership }], &mut Vec::new());
    worker
}

/// What an entry may say: mostly sense, sometimes none.
pub fn body(u: &mut Unstructured<'_>) -> Result<EntryBody> {
    Ok(match u.int_in_range(0..=9)? {
        0 => EntryBody::Noop,
        1 => EntryBody::Membership(Box::new(membership(u)?)),
        2 => {
            let len = usize::from(u.arbitrary::<u8>()?).min(u.len());
            EntryBody::Data(Bytes::copy_from_slice(u.bytes(len)?))
        }
        _ => EntryBody::Data(Bytes::from(payload(u)?)),
    })
}

/// Any voters and learners, also impossible ones.
pub fn membership(u: &mut Unstructured<'_>) -> Result<Membership> {
    let mut replicas = || -> Result<Vec<Replica>> {
        let mut replicas = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            let (id, member) = (u.int_in_range(0..=8)?, u.int_in_range(0..=4)?);
            replicas.push(Replica { id: ReplicaId(id), member: MemberId(member) });
        }
        Ok(replicas)
    };
    Ok(Membership { voters: replicas()?, outgoing: replicas()?, learners: replicas()?, order: 1 })
}

fn payload(u: &mut Unstructured<'_>) -> Result<Vec<u8>> {
    let mut items = Vec::new();
    for _ in 0..u.int_in_range(0..=4)? {
        items.push(if u.ratio(1, 4)? {
            let (member, nonce) = (MemberId(u.int_in_range(0..=3)?), u.int_in_range(0..=3)?);
            Item::Open { member, nonce }
        } else {
            let command = command(u)?;
            Item::Command {
                session: SessionId(u.int_in_range(0..=4)?),
                seq: Seq(number(u, 12)?),
                first: Seq(number(u, 12)?),
                command,
            }
        });
    }
    let version = if u.ratio(1, 32)? { u.arbitrary()? } else { 1 };
    let stamp = number(u, 1 << 40)?;
    let payload: Payload<Bytes> = Payload { version, stamp, items };
    Ok(postcard::to_allocvec(&payload).expect("memory does not fail"))
}

/// Mostly small, sometimes anything.
fn number(u: &mut Unstructured<'_>, max: u64) -> Result<u64> {
    if u.ratio(1, 16)? { u.arbitrary() } else { u.int_in_range(0..=max) }
}

/// An encoded command, or bytes that are none.
pub fn command(u: &mut Unstructured<'_>) -> Result<Bytes> {
    let mut short = || -> Result<Bytes> {
        let len = usize::from(u.int_in_range::<u8>(0..=5)?).min(u.len());
        Ok(Bytes::copy_from_slice(u.bytes(len)?))
    };
    let (partition, key, value) = (short()?, short()?, short()?);
    let command = match u.int_in_range(0..=6)? {
        0 => Command::Skip,
        1 => Command::Put { partition, key, value },
        2 => Command::Delete { partition, key },
        3 => {
            let expect = Expect::Revision(Revision(number(u, 8)?));
            Command::CompareAndSet { partition, key, expect, value: Some(value) }
        }
        4 => {
            let expect = Expect::Value(u.arbitrary::<bool>()?.then(|| value.clone()));
            Command::CompareAndSet { partition, key, expect, value: None }
        }
        5 => {
            let change = |value| Change { key: key.clone(), value };
            Command::Batch { partition, changes: vec![change(Some(value)), change(None)] }
        }
        _ => return Ok(value),
    };
    Ok(Bytes::from(postcard::to_allocvec(&command).expect("memory does not fail")))
}
