//! The shard machine against its rules, an obvious slow twin, crashes and hostile peers.

#![expect(clippy::wildcard_enum_match_arm, reason = "a test may panic at what it does not expect")]

mod crash;
mod exactly_once;
mod golden;
mod install;
mod model;
mod scan;
mod watch;

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use bytes::Bytes;

use super::Worker;
use super::command::{
    Answer, Change, Command, Expect, Item, ItemOutcome, Outcome, Payload, Query, Scan,
};
use crate::config::Limits;
use crate::ids::{
    CursorId, GroupId, LogIndex, MemberId, ReadId, ReplicaId, Revision, Seq, SessionId, SnapshotId,
    Term,
};
use crate::raft::message::{Entry, EntryBody, Membership, Replica};
use crate::store::{MemoryStore, Store, StoreDone, StoreState, StoreTask};

const GROUP: GroupId = GroupId(1);
const SECOND: u64 = 1_000_000_000;

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn membership(voters: u64) -> Membership {
    let replica = |n| Replica { id: ReplicaId(n), member: MemberId(n) };
    Membership { voters: (1..=voters).map(replica).collect(), ..Membership::default() }
}

fn put(key: &str, value: &str) -> Command<Bytes> {
    Command::Put { partition: bytes("p"), key: bytes(key), value: bytes(value) }
}

fn delete(key: &str) -> Command<Bytes> {
    Command::Delete { partition: bytes("p"), key: bytes(key) }
}

fn swap(key: &str, expect: Expect<Bytes>, value: Option<&str>) -> Command<Bytes> {
    let value = value.map(bytes);
    Command::CompareAndSet { partition: bytes("p"), key: bytes(key), expect, value }
}

fn batch(changes: &[(&str, Option<&str>)]) -> Command<Bytes> {
    let change =
        |(key, value): &(&str, Option<&str>)| Change { key: bytes(key), value: value.map(bytes) };
    Command::Batch { partition: bytes("p"), changes: changes.iter().map(change).collect() }
}

fn open() -> Item<Bytes> {
    Item::Open { member: MemberId(1), nonce: 1 }
}

fn item(session: u64, seq: u64, first: u64, command: &Command<Bytes>) -> Item<Bytes> {
    let command = Bytes::from(postcard::to_allocvec(command).unwrap());
    Item::Command { session: SessionId(session), seq: Seq(seq), first: Seq(first), command }
}

fn data(stamp: u64, items: Vec<Item<Bytes>>) -> EntryBody {
    let payload = Payload { version: 1, stamp, items };
    EntryBody::Data(Bytes::from(postcard::to_allocvec(&payload).unwrap()))
}

fn entry(index: u64, body: EntryBody) -> Entry {
    Entry { index: LogIndex(index), term: Term(1), body }
}

fn apply(entries: &[Entry]) -> StoreTask {
    StoreTask::Apply { group: GROUP, entries: entries.to_vec(), answers: true }
}

fn create() -> StoreTask {
    StoreTask::Create { group: GROUP, membership: membership(3) }
}

fn run<S: Store>(
    worker: &mut Worker<S>,
    tasks: impl IntoIterator<Item = StoreTask>,
) -> Vec<StoreDone> {
    let mut done = Vec::new();
    worker.run(tasks, &mut done);
    done
}

fn ask<S: Store>(worker: &mut Worker<S>, query: Query) -> Answer {
    let task = StoreTask::Read { read: ReadId(1), group: GROUP, query };
    match run(worker, [task]).pop() {
        Some(StoreDone::Read { read: ReadId(1), answer }) => answer,
        other => panic!("{other:?}"),
    }
}

fn get<S: Store>(worker: &mut Worker<S>, key: &str) -> Option<(Bytes, Revision)> {
    match ask(worker, Query::Get { partition: bytes("p"), key: bytes(key) }) {
        Answer::Value(value) => value,
        other => panic!("{other:?}"),
    }
}

fn load<S: Store>(worker: &mut Worker<S>, id: u64, chunk: u64) -> (u64, Bytes, bool) {
    let task = StoreTask::Load { group: GROUP, id: SnapshotId(id), chunk };
    match run(worker, [task]).pop() {
        Some(StoreDone::Loaded { id: got, chunk, data, last, state: _ })
            if got == SnapshotId(id) =>
        {
            (chunk, data, last)
        }
        other => panic!("{other:?}"),
    }
}

fn install(id: u64, chunk: u64, data: &Bytes, last: bool) -> StoreTask {
    let data = data.clone();
    StoreTask::Install { group: GROUP, id: SnapshotId(id), chunk, data, last }
}

/// All chunks of a snapshot of the group.
fn chunks<S: Store>(worker: &mut Worker<S>, id: u64) -> Vec<Bytes> {
    let mut chunks = Vec::new();
    loop {
        let wanted = u64::try_from(chunks.len()).unwrap();
        let (chunk, data, last) = load(worker, id, wanted);
        assert_eq!(chunk, wanted);
        chunks.push(data);
        if last {
            return chunks;
        }
    }
}

fn small_limits() -> Limits {
    Limits { chunk_bytes: 64, scan_keys: 5, scan_bytes: 100, cursors: 2, ..Limits::default() }
}

/// One replica of one group, fed with one entry at a time.
struct Shard {
    worker: Worker<MemoryStore>,
    last: u64,
}

impl Shard {
    fn new() -> Self {
        let (mut worker, states) = Worker::new(MemoryStore::new(), &small_limits()).unwrap();
        assert_eq!(states, vec![]);
        assert_eq!(run(&mut worker, [create()]), vec![]);
        Self { worker, last: 0 }
    }

    /// With one open session.
    fn with_session() -> Self {
        let mut shard = Self::new();
        assert_eq!(shard.apply(0, vec![open()]), [ItemOutcome::Opened(SessionId(1))]);
        shard
    }

    fn apply(&mut self, stamp: u64, items: Vec<Item<Bytes>>) -> Vec<ItemOutcome> {
        self.last += 1;
        let task = apply(&[entry(self.last, data(stamp, items))]);
        match run(&mut self.worker, [task]).pop() {
            Some(StoreDone::Applied { group: GROUP, index, mut outcomes, .. }) => {
                assert_eq!((index, outcomes.len()), (LogIndex(self.last), 1));
                outcomes.remove(0)
            }
            other => panic!("{other:?}"),
        }
    }

    /// One command of session 1.
    fn command(&mut self, seq: u64, command: &Command<Bytes>) -> ItemOutcome {
        self.apply(0, vec![item(1, seq, 1, command)]).remove(0)
    }

    fn state(&self) -> StoreState {
        self.worker.states().remove(0)
    }

    fn reopen(self) -> Self {
        let (worker, states) = Worker::new(self.worker.store().clone(), &small_limits()).unwrap();
        assert_eq!(states, self.worker.states());
        Self { worker, last: self.last }
    }
}

fn written(revision: u64) -> ItemOutcome {
    ItemOutcome::Done(Outcome::Written { revision: Revision(revision) })
}

fn scan_of(from: &str, to: Option<&str>, reverse: bool, limit: u32, cursor: u64) -> Query {
    Query::Scan(Box::new(Scan {
        partition: bytes("p"),
        from: bytes(from),
        to: to.map(bytes),
        reverse,
        limit,
        cursor: CursorId(cursor),
    }))
}
