//! A power cut between any two batches, and a store that fails.

use alloc::rc::Rc;
use core::cell::{Cell, RefCell};

use proptest::prelude::*;

use super::model::{any_history, apply_in_portions, contents};
use super::*;
use crate::ids::len_u64;
use crate::store::{StoreError, SyncNumber, View, WriteBatch};

/// A store that remembers its batches and syncs, so that it can be opened as a power cut would have
/// left it.
#[derive(Clone, Default)]
struct Disk {
    now: MemoryStore,
    journal: Rc<RefCell<Vec<Step>>>,
    /// How many more writes and syncs succeed.
    good_for: Option<usize>,
    /// Not every batch is asked to be whole.
    lazy: bool,
}

#[derive(Clone)]
enum Step {
    Write(WriteBatch),
    Sync,
}

impl Disk {
    fn step(&mut self, step: Step) -> Result<(), StoreError> {
        if let Some(left) = &mut self.good_for {
            *left = left.checked_sub(1).ok_or_else(|| StoreError("the disk is full".into()))?;
        }
        self.journal.borrow_mut().push(step);
        Ok(())
    }
}

impl View for Disk {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.now.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.now.scan(from, to, reverse, visit)
    }
}

impl Store for Disk {
    type Snapshot = MemoryStore;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        self.step(Step::Write(batch.clone()))?;
        self.now.write(batch)
    }

    fn wants_whole(&self) -> bool {
        !self.lazy || self.journal.borrow().len().is_multiple_of(3)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let journal = self.journal.borrow();
        let last = journal.iter().rfind(|step| matches!(step, Step::Write(_)));
        assert!(last.is_none_or(is_whole), "a sync follows a whole batch");
        drop(journal);
        self.step(Step::Sync)
    }

    fn snapshot(&self) -> MemoryStore {
        self.now.clone()
    }
}

fn is_whole(step: &Step) -> bool {
    matches!(step, Step::Write(WriteBatch { whole: true, .. }))
}

/// The store as it is when nothing after the first `len` steps survives: it ends with a whole batch.
fn after_power_cut(journal: &[Step], len: usize) -> MemoryStore {
    let mut store = MemoryStore::new();
    let len = journal[..len].iter().rposition(is_whole).map_or(0, |last| last + 1);
    for step in &journal[..len] {
        if let Step::Write(batch) = step {
            store.write(batch.clone()).unwrap();
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 64,
        ..ProptestConfig::default()
    })]

    /// Whatever prefix of the batches survives: each group is at some applied index, whole, not
    /// before the last one that was said to be durable; and going on from there ends where all
    /// replicas end.
    #[test]
    fn a_power_cut_leaves_some_applied_index_and_nothing_else(
        history in any_history(60),
        at in any::<proptest::sample::Index>(),
        before in any::<proptest::sample::Index>(),
        cuts in proptest::collection::vec(0..3_u8, 1..10),
        lazy in any::<bool>(),
    ) {
        prop_assume!(!history.entries.is_empty());
        let at = 1 + at.index(history.entries.len());
        let before = before.index(at);
        let mut sender = Shard::new();
        let mut digests = vec![0];
        for one in &history.entries {
            apply_in_portions(&mut sender.worker, core::slice::from_ref(one), &[2]);
            digests.push(sender.state().digest);
        }
        // All chunks of what the sender was at `at`.
        let mut from = Shard::new();
        apply_in_portions(&mut from.worker, &history.entries[..at], &[2]);
        let chunks = chunks(&mut from.worker, 1);

        let disk = Disk { lazy, ..Disk::default() };
        let journal = disk.journal.clone();
        let (mut worker, _) = Worker::new(disk, &small_limits()).unwrap();
        run(&mut worker, [create()]);
        let mut durable = vec![(0, 0)]; // from this step on at least this index
        apply_in_portions(&mut worker, &history.entries[..before], &cuts);
        run(&mut worker, [StoreTask::Persist]);
        durable.push((journal.borrow().len(), before));
        install::install_all(&mut worker, 1, &chunks);
        let is_sync = |step: &Step| matches!(step, Step::Sync);
        let installed = journal.borrow().iter().rposition(is_sync).unwrap();
        durable.push((installed + 1, at));
        apply_in_portions(&mut worker, &history.entries[at..], &cuts);

        let journal = journal.borrow();
        for len in 0..=journal.len() {
            let store = after_power_cut(&journal, len);
            let (mut worker, states) = Worker::new(store, &small_limits()).unwrap();
            if states.is_empty() {
                let some = journal[..len].iter().any(is_whole);
                prop_assert!(!some, "nothing but the first sync, or what never was whole");
                run(&mut worker, [create()]);
            }
            let state = worker.states().remove(0);
            let index = usize::try_from(state.index.0).unwrap();
            let (_, promised) = durable.iter().rfind(|(step, _)| *step <= len).unwrap();
            prop_assert!(index >= *promised, "at step {}: {} < {}", len, index, promised);
            prop_assert!(index <= before || index >= at);
            prop_assert_eq!(state.digest, digests[index]);
            if index > 0 {
                prop_assert_eq!(&contents(&mut worker), &history.data[index - 1]);
            }

            let outcomes = apply_in_portions(&mut worker, &history.entries[index..], &[1]);
            prop_assert_eq!(&outcomes[..], &history.outcomes[index..]);
            prop_assert_eq!(worker.states()[0].digest, *digests.last().unwrap());
            run(&mut worker, [StoreTask::Persist]);
            prop_assert_eq!(worker.store().len(), sender.worker.store().len(), "no leftovers");
        }
    }
}

#[test]
fn after_the_first_failure_nothing_is_done() {
    let put = |index, seq| apply(&[entry(index, data(0, vec![item(1, seq, 1, &put("k", "v"))]))]);
    for good_for in 0..4 {
        // The first sync, when the worker begins, is good.
        let disk = Disk { good_for: Some(good_for + 1), ..Disk::default() };
        let (mut worker, _) = Worker::new(disk, &small_limits()).unwrap();
        let mut done = run(&mut worker, [create(), apply(&[entry(1, data(0, vec![open()]))])]);
        done.extend(run(&mut worker, [put(2, 1), StoreTask::Persist, put(3, 2)]));
        done.extend(run(&mut worker, [StoreTask::Persist]));

        let kinds = done.iter().map(|done| match done {
            StoreDone::Applied { .. } => "applied",
            StoreDone::Persisted { .. } => "persisted",
            StoreDone::Failed { problem } => {
                assert_eq!(problem, "the disk is full");
                "failed"
            }
            other => panic!("{other:?}"),
        });
        let kinds: Vec<_> = kinds.collect();
        let all = ["applied", "applied", "persisted", "applied"];
        assert_eq!(kinds[..kinds.len() - 1], all[..good_for]);
        assert_eq!(kinds.last(), Some(&"failed"));
    }
}

/// A store whose syncs are done when the test says so.
#[derive(Clone, Default)]
struct Late {
    now: MemoryStore,
    begun: Rc<Cell<u64>>,
    done: Rc<Cell<u64>>,
    fails: Rc<Cell<bool>>,
}

impl View for Late {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.now.get(key)
    }

    fn scan(
        &self,
        from: &[u8],
        to: &[u8],
        reverse: bool,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.now.scan(from, to, reverse, visit)
    }
}

impl Store for Late {
    type Snapshot = MemoryStore;

    fn write(&mut self, batch: WriteBatch) -> Result<(), StoreError> {
        self.now.write(batch)
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        self.done.set(self.begun.get());
        Ok(())
    }

    fn start_sync(&mut self) -> Result<SyncNumber, StoreError> {
        self.begun.set(self.begun.get() + 1);
        Ok(SyncNumber(self.begun.get()))
    }

    fn synced(&mut self) -> Result<SyncNumber, StoreError> {
        match self.fails.get() {
            true => Err(StoreError("a flush failed".into())),
            false => Ok(SyncNumber(self.done.get())),
        }
    }

    fn snapshot(&self) -> MemoryStore {
        self.now.clone()
    }
}

#[test]
fn a_sync_that_takes_its_time_holds_up_nothing_and_tells_of_what_it_covers() {
    let put = |index, seq| apply(&[entry(index, data(0, vec![item(1, seq, 1, &put("k", "v"))]))]);
    let store = Late::default();
    let (mut worker, _) = Worker::new(store.clone(), &small_limits()).unwrap();
    run(&mut worker, [create(), apply(&[entry(1, data(0, vec![open()]))])]);

    let at_first = worker.states();
    assert_eq!(run(&mut worker, [StoreTask::Persist]), vec![]);
    assert!(matches!(run(&mut worker, [put(2, 1)])[..], [StoreDone::Applied { .. }]));
    let later = worker.states();
    assert_eq!(run(&mut worker, [StoreTask::Persist]), vec![]);
    assert!(matches!(run(&mut worker, [put(3, 2)])[..], [StoreDone::Applied { .. }]));
    assert!(worker.is_syncing());

    store.done.set(1);
    assert_eq!(run(&mut worker, []), vec![StoreDone::Persisted { groups: at_first }]);
    assert!(worker.is_syncing());
    let mut done = Vec::new();
    worker.finish(&mut done);
    assert_eq!(done, vec![StoreDone::Persisted { groups: later }]);
    assert!(!worker.is_syncing());

    assert_eq!(run(&mut worker, [StoreTask::Persist]), vec![]);
    store.fails.set(true);
    let problem = "a flush failed".into();
    assert_eq!(run(&mut worker, []), vec![StoreDone::Failed { problem }]);
    assert!(!worker.is_syncing());
    assert_eq!(run(&mut worker, [put(4, 3)]), vec![]);
}

#[test]
fn many_groups_and_tasks_are_one_batch() {
    let disk = Disk::default();
    let journal = disk.journal.clone();
    let (mut worker, _) = Worker::new(disk, &small_limits()).unwrap();
    let group = |n| GroupId(n);
    let create = |n| StoreTask::Create { group: group(n), membership: membership(1) };
    let apply = |n, index, items| StoreTask::Apply {
        group: group(n),
        entries: vec![entry(index, data(0, items))],
        answers: false,
    };
    let tasks = [
        create(1),
        create(2),
        apply(1, 1, vec![open()]),
        apply(2, 1, vec![open()]),
        apply(1, 2, vec![item(1, 1, 1, &put("k", "v"))]),
    ];

    assert_eq!(run(&mut worker, tasks).len(), 3);

    let journal = journal.borrow();
    let [Step::Sync, Step::Write(batch)] = &journal[..] else {
        panic!("one batch");
    };
    // Two pointers, the put, and for each group its session and its meta, once.
    assert_eq!(batch.writes.len(), 2 + 1 + 2 * 2);
}

/// A dropped epoch goes bit by bit.
#[test]
fn tidying_is_bounded_and_comes_to_an_end() {
    let mut from = Shard::with_session();
    for n in 0..3_u64 {
        let items = (1..=200).map(|seq| {
            let key = alloc::format!("k{n}-{seq}");
            item(1, n * 200 + seq, n * 200 + seq, &put(&key, "v"))
        });
        from.apply(0, items.collect());
    }
    let (mut big, _) = Worker::new(from.worker.store().clone(), &Limits::default()).unwrap();
    let chunks = chunks(&mut big, 1);
    let (mut worker, _) = Worker::new(MemoryStore::new(), &small_limits()).unwrap();
    run(&mut worker, [create(), install(1, 0, &Bytes::new(), true)]);
    install::install_all(&mut worker, 1, &chunks);
    let whole = worker.store().len();
    let next = entry(5, data(0, vec![item(1, 601, 601, &Command::Skip)]));
    run(&mut big, [apply(&[next])]);
    let chunks = super::chunks(&mut big, 2);
    install::install_all(&mut worker, 2, &chunks);

    let mut lengths = vec![worker.store().len()];
    for _ in 0..3 {
        run(&mut worker, []);
        lengths.push(worker.store().len());
    }
    let whole_again = lengths.last() == Some(&whole);
    assert!(whole_again && lengths[0] > whole, "in steps, to the end: {lengths:?}");
    assert!(lengths.windows(2).all(|pair| pair[0] - pair[1] <= 256), "{lengths:?}");
    assert_eq!(model::contents(&mut worker).len(), 600);
}

/// While a complete snapshot becomes durable other groups go on, and its own shows what it was; then it counts.
#[test]
fn an_installation_ends_beside_other_work() {
    let mut from = Shard::with_session();
    from.apply(0, vec![item(1, 1, 1, &put("k", "new"))]);
    let new = chunks(&mut from.worker, 1);
    let (last, first) = (new.len() - 1, &new[..new.len() - 1]);
    let other = |index, items| StoreTask::Apply {
        group: GroupId(2),
        entries: vec![entry(index, data(0, items))],
        answers: true,
    };
    let store = Late::default();
    let (mut worker, _) = Worker::new(store.clone(), &small_limits()).unwrap();
    let (group, membership) = (GroupId(2), membership(3));
    run(&mut worker, [create(), StoreTask::Create { group, membership }, other(1, vec![open()])]);
    for (chunk, data) in (0..).zip(first) {
        run(&mut worker, [install(1, chunk, data, false)]);
    }

    let wanted = u64::try_from(last).unwrap();
    assert_eq!(run(&mut worker, [install(1, wanted, &new[last], true)]), vec![]);
    let put = item(1, 1, 1, &put("k", "other"));
    assert!(matches!(run(&mut worker, [other(2, vec![put])])[..], [StoreDone::Applied { .. }]));
    assert_eq!(get(&mut worker, "k"), None, "what is not durable is not shown");
    assert!(worker.is_syncing());

    store.done.set(store.begun.get());
    let state = from.worker.states()[0].clone();
    let done = run(&mut worker, []);
    let [StoreDone::Installed { state: installed, id: SnapshotId(1) }] = &done[..] else {
        panic!("{done:?}");
    };
    assert_eq!((installed.index, installed.digest), (state.index, state.digest));
    assert!(!worker.is_syncing());
    assert_eq!(get(&mut worker, "k").unwrap().0, bytes("new"));
}

/// One that is forgotten before it is durable leaves nothing behind.
#[test]
fn a_group_is_dropped_while_its_installation_ends() {
    let mut from = Shard::with_session();
    let chunks = chunks(&mut from.worker, 1);
    let store = Late::default();
    let (mut worker, _) = Worker::new(store.clone(), &small_limits()).unwrap();
    run(&mut worker, [create()]);
    for (chunk, data) in (0..).zip(&chunks) {
        run(&mut worker, [install(1, chunk, data, chunk + 1 == len_u64(chunks.len()))]);
    }
    assert!(worker.is_syncing());

    let done = run(&mut worker, [StoreTask::Drop { group: GROUP }]);

    assert_eq!(done, vec![StoreDone::Dropped { group: GROUP }]);
    assert!(!worker.is_syncing());
    store.done.set(store.begun.get());
    assert_eq!(run(&mut worker, []), vec![]);
    assert_eq!(worker.store().now.len(), 1, "the pointer, which says that no epoch counts");
}
