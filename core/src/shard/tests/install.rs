//! Snapshots between replicas, among them hostile ones.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;

use super::*;

/// Installs all chunks.
pub(super) fn install_all<S: Store>(
    worker: &mut Worker<S>,
    id: u64,
    chunks: &[Bytes],
) -> StoreState {
    let count = u64::try_from(chunks.len()).unwrap();
    for (chunk, data) in (0..).zip(chunks) {
        let last = chunk + 1 == count;
        match &run(worker, [install(id, chunk, data, last)])[..] {
            [StoreDone::Staged { group: GROUP, next, .. }] if !last && *next == chunk + 1 => {}
            [StoreDone::Installed { state, .. }] if last => return StoreState::clone(state),
            other => panic!("{other:?}"),
        }
    }
    panic!("no chunks");
}

fn staged(id: u64, next: u64) -> Vec<StoreDone> {
    vec![StoreDone::Staged { group: GROUP, id: SnapshotId(id), next }]
}

fn refused<S: Store>(worker: &mut Worker<S>, task: StoreTask) -> String {
    match &run(worker, [task])[..] {
        [StoreDone::InstallRefused { group: GROUP, problem, .. }] => problem.clone(),
        other => panic!("{other:?}"),
    }
}

fn sender() -> Shard {
    let mut shard = Shard::with_session();
    for seq in 1..=9 {
        shard
            .command(seq, &put(&format!("k{seq}"), &"v".repeat(usize::try_from(seq).unwrap() * 9)));
    }
    shard
}

#[test]
fn chunks_keep_to_their_size_and_one_pair_may_exceed_it() {
    let mut shard = sender();
    let chunks = chunks(&mut shard.worker, 1);
    assert!(chunks.len() > 5);
    assert!(chunks.iter().any(|chunk| chunk.len() > 64), "the big value");
    assert!(chunks.iter().filter(|chunk| chunk.len() > 64).count() < chunks.len());
}

#[test]
fn the_last_chunk_can_be_asked_again_and_others_begin_anew() {
    let mut shard = sender();
    let worker = &mut shard.worker;
    let first = load(worker, 1, 0);
    let second = load(worker, 1, 1);
    assert_eq!(second.0, 1);
    let third = load(worker, 1, 2);
    shard.command(10, &put("k1", "changed"));
    let worker = &mut shard.worker;

    assert_eq!(load(worker, 1, 2), third, "from the same snapshot");
    let anew = load(worker, 1, 1);
    assert_eq!(anew.0, 0);
    assert_ne!(anew, first, "a new one");
    assert_eq!(load(worker, 2, 5).0, 0, "never opened");
    run(worker, [StoreTask::CloseSnapshot { id: SnapshotId(1) }]);
    assert_eq!(load(worker, 1, 1).0, 0, "closed");
}

#[test]
fn snapshots_are_bounded() {
    let mut shard = sender();
    for id in 1..=17 {
        load(&mut shard.worker, id, 0);
    }
    assert_eq!(load(&mut shard.worker, 2, 1).0, 1);
    assert_eq!(load(&mut shard.worker, 1, 1).0, 0, "the oldest gave way");
}

#[test]
fn an_installation_tells_which_chunk_it_wants() {
    let chunks = chunks(&mut sender().worker, 1);
    let mut shard = Shard::new();
    let worker = &mut shard.worker;

    assert_eq!(run(worker, [install(1, 3, &chunks[3], false)]), staged(1, 0));
    assert_eq!(run(worker, [install(1, 0, &chunks[0], false)]), staged(1, 1));
    assert_eq!(run(worker, [install(1, 0, &chunks[0], false)]), staged(1, 1), "repeated");
    assert_eq!(run(worker, [install(1, 2, &chunks[2], false)]), staged(1, 1), "too early");
    assert_eq!(run(worker, [install(1, 1, &chunks[1], false)]), staged(1, 2));
    assert_eq!(run(worker, [install(1, 1, &chunks[1], false)]), staged(1, 2), "too late");
    assert_eq!(run(worker, [install(2, 2, &chunks[2], false)]), staged(2, 0), "another one");
    assert_eq!(run(worker, [install(1, 2, &chunks[2], false)]), staged(1, 3));
    assert_eq!(run(worker, [install(1, 0, &chunks[0], false)]), staged(1, 1), "begun anew");
    let state = install_all(worker, 2, &chunks);

    assert_eq!(state.index, LogIndex(10));
    let sent = sender().worker.store().len();
    assert_eq!(shard.worker.store().len(), sent, "what was cut short is dropped");
}

#[test]
fn what_is_written_aside_is_not_visible_and_the_group_goes_on() {
    let chunks = chunks(&mut sender().worker, 1);
    let mut shard = Shard::with_session();
    shard.command(1, &put("k1", "mine"));
    for (chunk, data) in (0..).zip(&chunks[..chunks.len() - 1]) {
        run(&mut shard.worker, [install(1, chunk, data, false)]);
    }
    assert_eq!(shard.command(2, &put("k2", "mine")), written(2));
    assert_eq!(model::contents(&mut shard.worker).len(), 2);

    let mut shard = shard.reopen();

    assert_eq!(model::contents(&mut shard.worker).len(), 2);
    assert_eq!(
        shard.worker.store().len(),
        1 + 1 + 1 + 2,
        "pointer, meta, session, data: leftovers went"
    );
    assert_eq!(shard.command(3, &put("k3", "mine")), written(3));
}

#[test]
fn a_snapshot_never_takes_back_what_is_applied() {
    let chunks = chunks(&mut sender().worker, 1);
    let last = u64::try_from(chunks.len()).unwrap() - 1;
    let mut shard = Shard::with_session();
    for (chunk, data) in (0..last).zip(&chunks) {
        run(&mut shard.worker, [install(1, chunk, data, false)]);
    }
    for seq in 1..=9 {
        shard.command(seq, &put("mine", "v")); // now at the snapshot's index
    }

    let problem = refused(&mut shard.worker, install(1, last, chunks.last().unwrap(), true));
    assert!(problem.contains("not newer than i10"), "{problem}");
    let problem = refused(&mut shard.worker, install(2, 0, &chunks[0], false));
    assert!(problem.contains("not newer than i10"), "{problem}");

    assert_eq!(model::contents(&mut shard.worker).len(), 1);
    assert_eq!(shard.worker.store().len(), 4, "what was written aside is dropped");
}

#[test]
fn a_group_that_the_store_does_not_have_can_be_installed() {
    let mut from = sender();
    let chunks = chunks(&mut from.worker, 1);
    let (mut worker, _) = Worker::new(MemoryStore::new(), &small_limits()).unwrap();

    install_all(&mut worker, 1, &chunks);
    run(&mut worker, [create()]); // has one already

    assert_eq!(worker.states()[0].digest, from.state().digest);
    assert_eq!(get(&mut worker, "k1"), Some((bytes("vvvvvvvvv"), Revision(1))));
}

#[test]
fn chunks_of_two_snapshots_are_never_mixed() {
    let mut from = sender();
    let old = chunks(&mut from.worker, 1);
    from.command(10, &put("k9", "changed"));
    let new = chunks(&mut from.worker, 1);
    let mut shard = Shard::new();
    run(&mut shard.worker, [install(1, 0, &old[0], false)]);

    let problem = refused(&mut shard.worker, install(1, 1, &new[1], false));
    assert!(problem.contains("another snapshot"), "{problem}");
    assert_eq!(run(&mut shard.worker, [install(1, 1, &old[1], false)]), staged(1, 0));
    assert_eq!(install_all(&mut shard.worker, 1, &new).index, LogIndex(11));
}

#[test]
fn two_cuts_of_one_state_are_never_mixed() {
    let from = sender();
    let fine = chunks(&mut sender().worker, 1);
    let limits = Limits { chunk_bytes: 200, ..Limits::default() };
    let (mut coarse, _) = Worker::new(from.worker.store().clone(), &limits).unwrap();
    let coarse = chunks(&mut coarse, 1);
    let mut shard = Shard::new();
    run(&mut shard.worker, [install(1, 0, &fine[0], false)]);

    let problem = refused(&mut shard.worker, install(1, 1, &coarse[1], false));
    assert!(problem.contains("another snapshot"), "keys would be missing: {problem}");
}

#[test]
fn a_chunk_that_comes_again_after_the_end_is_told_so() {
    let mut from = sender();
    let many = chunks(&mut from.worker, 1);
    let last = u64::try_from(many.len()).unwrap() - 1;
    let mut shard = Shard::new();
    let state = install_all(&mut shard.worker, 1, &many);
    let again = |shard: &mut Shard, task| run(&mut shard.worker, [task]);

    let installed = vec![StoreDone::Installed { state: Box::new(state), id: SnapshotId(1) }];
    assert_eq!(again(&mut shard, install(1, last, &many[many.len() - 1], true)), installed);
    assert_eq!(again(&mut shard, install(1, 1, &many[1], false)), installed);
    assert!(matches!(
        again(&mut shard, install(1, 0, &many[0], false))[..],
        [StoreDone::InstallRefused { .. }]
    ));
    assert_eq!(again(&mut shard, install(2, 1, &many[1], false)), staged(2, 0));

    let (mut big, _) = Worker::new(from.worker.store().clone(), &Limits::default()).unwrap();
    let one = chunks(&mut big, 3);
    let mut shard = Shard::new();
    let state = install_all(&mut shard.worker, 3, &one);
    let installed = vec![StoreDone::Installed { state: Box::new(state), id: SnapshotId(3) }];
    assert_eq!(again(&mut shard, install(3, 0, &one[0], true)), installed);
}

#[test]
fn a_later_state_can_be_installed_under_the_same_id() {
    let mut from = sender();
    let mut shard = Shard::new();
    install_all(&mut shard.worker, 1, &chunks(&mut from.worker, 1));
    from.command(10, &put("k1", "changed"));

    let state = install_all(&mut shard.worker, 1, &chunks(&mut from.worker, 1));

    assert_eq!((state.index, state.digest), (LogIndex(11), from.state().digest));
}

/// Every single flipped bit and every shortening of every chunk is refused, or makes a value of its
/// own that hurts nobody; nothing panics, and what was there stays.
#[test]
fn hostile_chunks_do_no_harm() {
    let chunks = chunks(&mut sender().worker, 1);
    let mut shard = Shard::new();
    let before = shard.state();
    for (at, good) in chunks.iter().enumerate() {
        for bit in 0..good.len() * 8 {
            let mut bad = good.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            try_hostile(&mut shard, &chunks[..at], Bytes::from(bad));
        }
        for len in 0..good.len() {
            try_hostile(&mut shard, &chunks[..at], good.slice(..len));
        }
    }
    assert_eq!(shard.state(), before);
    assert_eq!(shard.worker.store().len(), 2);
}

fn try_hostile(shard: &mut Shard, good: &[Bytes], bad: Bytes) {
    let at = u64::try_from(good.len()).unwrap();
    for (chunk, data) in (0..).zip(good) {
        run(&mut shard.worker, [install(1, chunk, data, false)]);
    }
    let done = run(&mut shard.worker, [install(1, at, &bad, false)]);
    match &done[..] {
        [StoreDone::InstallRefused { .. } | StoreDone::Staged { .. }] => {}
        other => panic!("{other:?}"),
    }
    // Ends the installation, whatever became of it, and drops what it wrote.
    run(&mut shard.worker, [install(9, 0, &Bytes::new(), false)]);
}

#[test]
fn what_a_hostile_snapshot_says_is_checked() {
    let good = chunks(&mut sender().worker, 1);
    let (mut big, _) = Worker::new(sender().worker.store().clone(), &Limits::default()).unwrap();
    let whole = &chunks(&mut big, 1)[0];
    let mut shard = Shard::new();
    let mut refuse =
        |data: Vec<u8>| refused(&mut shard.worker, install(1, 0, &Bytes::from(data), true));

    assert!(refuse(vec![]).contains("version"));
    assert!(refuse(vec![2]).contains("version"));
    assert!(refuse(vec![1]).contains("head"));
    let mut twice = whole.to_vec();
    twice.extend_from_slice(&[1, 0, 0]); // meta again
    assert!(refuse(twice).contains("out of order"));
    for (pair, problem) in [
        (&b"\x01\x03\x00"[..], "unknown kind"),
        (b"\x04\x02\x09ab\x00", "no partition"),
        (b"\x04\x02\x01zk\x03abc", "damaged value"),
        (b"\x04\x02\x01zk\x08\0\0\0\0\0\0\0\x0a", "revision from the future"),
        (b"\x04\x02\x01zk\x08\0\0\0\0\0\0\0\0", "revision from the future"),
        (b"\xff\xff\xff\xff\x0f", "chunk is damaged"),
        (
            b"\x04\x02\x01zk\x08\0\0\0\0\0\0\0\x01\x04\x02\x01zk\x08\0\0\0\0\0\0\0\x02",
            "out of order",
        ),
    ] {
        let data = [whole, pair].concat();
        let said = refuse(data);
        assert!(said.contains(problem), "{said}");
    }
    let other = GroupId(2);
    let (id, chunk, last) = (SnapshotId(1), 0, false);
    let task = StoreTask::Install { group: other, id, chunk, data: good[0].clone(), last };
    let done = run(&mut shard.worker, [task]);
    assert!(matches!(&done[..], [StoreDone::InstallRefused { group: GroupId(2), .. }]), "{done:?}");
}
