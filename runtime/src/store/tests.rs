use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;
use ring_core::store::{MemoryStore, StoreError, SyncNumber, View, WriteBatch};

use super::*;
use crate::logger::Logger;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn open(dir: &Path) -> DiskStore {
    if !dir.join("FORMAT").exists() {
        DiskStore::make(dir).unwrap();
    }
    DiskStore::open(dir, Box::new(|| ()), &Logger::new(None)).unwrap()
}

fn put(store: &mut DiskStore, pairs: &[(&str, Option<&str>)]) {
    let writes = pairs.iter().map(|(k, v)| (b(k), v.map(b))).collect();
    store.write(WriteBatch { writes, whole: true }).unwrap();
}

fn shown(
    view: &impl View,
    from: &[u8],
    to: &[u8],
    reverse: bool,
    most: usize,
) -> Vec<(Bytes, Bytes)> {
    let mut seen = Vec::new();
    view.scan(from, to, reverse, &mut |k, v| {
        seen.push((Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)));
        seen.len() < most
    })
    .unwrap();
    seen
}

fn all(view: &impl View, from: &str, to: &str, reverse: bool, most: usize) -> Vec<(Bytes, Bytes)> {
    shown(view, from.as_bytes(), to.as_bytes(), reverse, most)
}

fn everything(view: &impl View) -> Vec<(Bytes, Bytes)> {
    shown(view, &[], &[255; 9], false, usize::MAX)
}

#[test]
fn a_scan_shows_a_half_open_range_both_ways_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    // In tables, in recent writes, in both, and removed above the tables.
    put(&mut store, &[("a", Some("1")), ("c", Some("0")), ("bb", Some("gone"))]);
    store.sync().unwrap();
    put(&mut store, &[("b", Some("2")), ("c", Some("3")), ("d", Some("4")), ("bb", None)]);
    let (bb, cc) = ((b("b"), b("2")), (b("c"), b("3")));
    assert_eq!(all(&store, "b", "d", false, 9), [bb.clone(), cc.clone()]);
    assert_eq!(all(&store, "b", "d", true, 9), [cc.clone(), bb.clone()]);
    assert_eq!(all(&store, "b", "d", true, 1), [cc]);
    assert_eq!(all(&store, "b", "d", false, 1), [bb]);
    assert_eq!(all(&store, "d", "b", false, 9), []);
    assert_eq!(all(&store, "b", "b", true, 9), []);
}

#[test]
fn a_later_write_of_a_batch_wins_and_a_snapshot_does_not_move() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    put(&mut store, &[("a", Some("1")), ("a", Some("2")), ("b", Some("1")), ("b", None)]);
    assert_eq!(store.get(b"a").unwrap(), Some(b("2")));
    assert_eq!(store.get(b"b").unwrap(), None);
    put(&mut store, &[("c", None), ("c", Some("9"))]);
    assert_eq!(store.get(b"c").unwrap(), Some(b("9")));

    let snapshot = store.snapshot();
    put(&mut store, &[("a", None), ("b", Some("3"))]);
    store.sync().unwrap();
    assert_eq!(snapshot.get(b"a").unwrap(), Some(b("2")));
    assert_eq!(snapshot.get(b"b").unwrap(), None);
    assert_eq!(all(&snapshot, "a", "z", false, 9), [(b("a"), b("2")), (b("c"), b("9"))]);
    assert_eq!(store.get(b"a").unwrap(), None);
}

#[test]
fn what_was_synced_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0_u32..3 {
        let mut store = open(dir.path());
        for old in 0..round {
            assert!(store.get(&old.to_be_bytes()).unwrap().is_some(), "round {round}");
        }
        let key = Bytes::copy_from_slice(&round.to_be_bytes());
        store.write(WriteBatch { writes: vec![(key, Some(b("x")))], whole: true }).unwrap();
        store.sync().unwrap();
        put(&mut store, &[("not synced", Some(""))]);
        drop(store);
        let store = open(dir.path());
        assert_eq!(store.get(b"not synced").unwrap(), None, "there is no journal");
    }
}

/// Flushes and merges under way change nothing that a reader sees.
#[test]
fn more_than_memory_holds_is_read_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let keys = 320_u32; // 20 MiB a round
    let check = |pairs: Vec<(Bytes, Bytes)>, round: u8| {
        let value = vec![round; 64 << 10];
        assert_eq!(pairs.len(), 320);
        for (number, (key, found)) in (0_u32..).zip(pairs) {
            assert_eq!(key[..], number.to_be_bytes());
            assert!(found == value, "key {number} in round {round}");
        }
    };
    let mut first = None;
    for round in 0..6 {
        for chunk in 0..keys / 64 {
            let writes = (0..64).map(|k| {
                let key = (chunk * 64 + k).to_be_bytes();
                (Bytes::copy_from_slice(&key), Some(Bytes::from(vec![round; 64 << 10])))
            });
            store.write(WriteBatch { writes: writes.collect(), whole: true }).unwrap();
        }
        check(everything(&store), round);
        first.get_or_insert_with(|| store.snapshot());
    }
    let first = first.unwrap();
    check(everything(&first), 0);
    store.sync().unwrap();
    drop((first, store));
    let store = open(dir.path());
    check(everything(&store), 5);
}

#[test]
fn keys_that_are_written_over_again_and_again_stay_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    store.set_room(100_000);
    for round in 0..1000_u32 {
        let value = Bytes::from(vec![7; 1000]);
        let writes = (0..20).map(|key| (Bytes::from(format!("key {key}")), Some(value.clone())));
        let mut writes: Vec<_> = writes.collect();
        writes.push((b("round"), Some(Bytes::copy_from_slice(&round.to_be_bytes()))));
        store.write(WriteBatch { writes, whole: true }).unwrap();
    }
    assert_eq!(store.start_sync(), Ok(SyncNumber(1)), "nothing was flushed before");
    store.sync().unwrap();
    drop(store);
    let store = open(dir.path());
    assert_eq!(store.get(b"round").unwrap().unwrap(), &999_u32.to_be_bytes()[..]);
    assert_eq!(everything(&store).len(), 21);
}

#[test]
fn the_longest_keys_and_values_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = open(dir.path());
    let mut twin = MemoryStore::new();
    let long = |len: usize, end: u8| {
        let mut key = vec![7; len];
        key.push(end);
        Bytes::from(key)
    };
    let most = (64 << 10) + 9 + 2 + 255;
    let batches = [
        vec![(long(most, 1), Some(b("1"))), (long(most, 3), Some(b("3"))), (b("k"), Some(b("0")))],
        vec![(long(most, 2), Some(Bytes::from(vec![1; 16 << 20]))), (long(most, 3), None)],
        vec![
            (long(long::HEAD - 1, 7), Some(b("the head"))),
            (long(long::HEAD - 2, 7), Some(b("s"))),
        ],
        vec![(long(most, 1), None), (long(most, 2), None), (long(long::HEAD, 0), Some(b("4")))],
    ];
    for writes in batches {
        store.write(WriteBatch { writes: writes.clone(), whole: true }).unwrap();
        twin.write(WriteBatch { writes: writes.clone(), whole: true }).unwrap();
        assert_eq!(everything(&store), everything(&twin));
        store.sync().unwrap();
        assert_eq!(everything(&store), everything(&twin));
        for (key, _) in &writes {
            assert_eq!(store.get(key).unwrap(), twin.get(key).unwrap());
        }
        for reverse in [false, true] {
            let (from, to) = (long(most, 1), long(most, 3));
            let found = shown(&store, &from, &to, reverse, 9);
            assert_eq!(found, shown(&twin, &from, &to, reverse, 9));
        }
    }
}

#[test]
fn a_sync_is_done_beside_the_writes_and_wakes_who_waits() {
    let dir = tempfile::tempdir().unwrap();
    DiskStore::make(dir.path()).unwrap();
    let (told, wakes) = mpsc::channel();
    let wake = move || told.send(()).unwrap_or_default();
    let mut store = DiskStore::open(dir.path(), Box::new(wake), &Logger::new(None)).unwrap();
    assert_eq!(store.start_sync(), Ok(SyncNumber(0)), "nothing was written");
    assert_eq!(store.synced(), Ok(SyncNumber(0)));
    put(&mut store, &[("a", Some("1"))]);
    let number = store.start_sync().unwrap();
    put(&mut store, &[("a", Some("2")), ("b", Some("2"))]);
    while store.synced().unwrap() < number {
        wakes.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    drop(store);
    assert_eq!(everything(&open(dir.path())), [(b("a"), b("1"))]);
}

#[test]
fn after_a_flush_has_failed_nothing_is_done() {
    let dir = tempfile::tempdir().unwrap();
    DiskStore::make(dir.path()).unwrap();
    let (told, wakes) = mpsc::channel();
    let wake = move || told.send(()).unwrap_or_default();
    let mut store = DiskStore::open(dir.path(), Box::new(wake), &Logger::new(None)).unwrap();
    put(&mut store, &[("a", Some("1"))]);
    fs::remove_dir_all(dir.path().join("tables")).unwrap();
    store.start_sync().unwrap();
    wakes.recv_timeout(Duration::from_secs(60)).unwrap();
    let StoreError(why) = store.synced().unwrap_err();
    assert!(why.contains("cannot flush") && why.contains("No such file"), "{why}");
    put(&mut store, &[("a", Some("2"))]);
    assert_eq!(store.sync(), Err(StoreError(why.clone())));
    store.set_room(0);
    let write = WriteBatch { writes: vec![(b("a"), None)], whole: true };
    assert_eq!(store.write(write), Err(StoreError(why)));
}

#[derive(Clone, Debug)]
enum Step {
    Write(Vec<(Key, Option<u16>)>),
    Sync,
    StartSync,
    Snapshot,
    Scan(Key, Key, bool),
    /// Dropped without a sync, and opened again.
    Crash,
}

#[derive(Clone, Debug)]
struct Key(Bytes);

fn keys() -> impl Strategy<Value = Key> {
    let long = |more: usize, end: u8| {
        let mut key = vec![b'm'; long::HEAD - 1 + more];
        key.push(end);
        key
    };
    let key = prop_oneof![
        12 => (0..200_u16).prop_map(|number| format!("k{number:03}").into_bytes()),
        4 => proptest::collection::vec(any::<u8>(), 1..4),
        1 => (0..4_usize, 0..3_u8).prop_map(move |(more, end)| long(more, end)),
    ];
    key.prop_map(|key| Key(key.into()))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let write = (keys(), proptest::option::weighted(0.7, any::<u16>()));
    let step = prop_oneof![
        16 => proptest::collection::vec(write, 1..20).prop_map(Step::Write),
        2 => Just(Step::Sync),
        2 => Just(Step::StartSync),
        2 => Just(Step::Snapshot),
        4 => (keys(), keys(), any::<bool>()).prop_map(|(a, b, r)| Step::Scan(a, b, r)),
        1 => Just(Step::Crash),
    ];
    proptest::collection::vec(step, 1..80)
}

/// A store on disk beside the same in memory.
struct Pair {
    dir: tempfile::TempDir,
    room: usize,
    disk: Option<DiskStore>,
    /// The states after each batch since the last sync, that sync's first.
    states: Vec<MemoryStore>,
}

impl Pair {
    fn disk(&mut self) -> &mut DiskStore {
        let (dir, room) = (&self.dir, self.room);
        self.disk.get_or_insert_with(|| {
            let mut store = open(dir.path());
            store.set_room(room);
            store
        })
    }

    fn now(&self) -> &MemoryStore {
        self.states.last().unwrap()
    }

    /// Some state between two batches survives, at least the last one synced.
    fn crash(&mut self) -> Result<(), TestCaseError> {
        self.disk = None;
        let found = everything(self.disk());
        let left = self.states.iter().rposition(|state| everything(state) == found);
        prop_assert!(left.is_some(), "{} keys, no prefix of the batches", found.len());
        let left = self.states.swap_remove(left.unwrap());
        self.states = vec![left];
        Ok(())
    }

    fn run(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut snapshots = Vec::new();
        for step in steps {
            match step {
                Step::Write(writes) => {
                    let value = |number: u16| Bytes::from(number.to_string().repeat(40));
                    let writes = writes.into_iter().map(|(Key(key), v)| (key, v.map(value)));
                    let batch = WriteBatch { writes: writes.collect(), whole: true };
                    let mut next = self.now().clone();
                    next.write(batch.clone()).unwrap();
                    for (key, _) in &batch.writes {
                        prop_assert_eq!(self.disk().get(key), self.now().get(key));
                    }
                    self.disk().write(batch.clone()).unwrap();
                    for (key, _) in &batch.writes {
                        prop_assert_eq!(self.disk().get(key), next.get(key));
                    }
                    self.states.push(next);
                }
                Step::Sync => {
                    self.disk().sync().unwrap();
                    self.states.drain(..self.states.len() - 1);
                }
                Step::StartSync => {
                    self.disk().start_sync().unwrap();
                    self.disk().synced().unwrap();
                }
                Step::Snapshot => snapshots.push((self.disk().snapshot(), self.now().clone())),
                Step::Scan(Key(from), Key(to), reverse) => {
                    let wanted = shown(self.now(), &from, &to, reverse, usize::MAX);
                    prop_assert_eq!(shown(self.disk(), &from, &to, reverse, usize::MAX), wanted);
                }
                Step::Crash => {
                    check_snapshots(&snapshots)?;
                    snapshots.clear();
                    self.crash()?;
                }
            }
        }
        check_snapshots(&snapshots)?;
        let wanted = everything(self.now());
        prop_assert_eq!(everything(self.disk()), wanted);
        self.crash()
    }
}

fn check_snapshots(snapshots: &[(disk::DiskSnapshot, MemoryStore)]) -> Result<(), TestCaseError> {
    for (snapshot, twin) in snapshots {
        prop_assert_eq!(everything(snapshot), everything(twin));
        let backwards = shown(snapshot, b"k", b"l", true, usize::MAX);
        prop_assert_eq!(backwards, shown(twin, b"k", b"l", true, usize::MAX));
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 40,
        ..ProptestConfig::default()
    })]

    #[test]
    fn it_does_what_the_store_in_memory_does(steps in steps(), room in 500..100_000_usize) {
        let dir = tempfile::tempdir().unwrap();
        let mut pair = Pair { dir, room, disk: None, states: vec![MemoryStore::new()] };
        pair.run(steps)?;
    }
}

/// A process that writes is killed, at any moment of its flushes and merges, again and again.
#[test]
fn a_killed_process_leaves_whole_batches() {
    if let Some(dir) = std::env::var_os(CHILD) {
        write_until_killed(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let mut last = 0;
    for round in 0..12_u64 {
        let (mut child, lines) = start_child(dir.path());
        // Killed a while after it has synced something.
        let mut synced = lines.recv_timeout(Duration::from_secs(120)).unwrap();
        if let Err(mpsc::RecvTimeoutError::Timeout) =
            lines.recv_timeout(Duration::from_millis(round * 7)).map(|number| synced = number)
        {
        }
        child.kill().unwrap();
        child.wait().unwrap();
        synced = lines.iter().last().unwrap_or(synced);

        let store = open(dir.path());
        let count = count(&store);
        assert!(count >= synced && synced > last, "{count} batches, {synced} were synced");
        let mut twin = MemoryStore::new();
        for number in 1..=count {
            twin.write(batch(number)).unwrap();
        }
        assert!(everything(&store) == everything(&twin), "not what {count} batches leave");
        last = count;
    }
}

fn start_child(dir: &Path) -> (Child, mpsc::Receiver<u64>) {
    let name = "store::tests::a_killed_process_leaves_whole_batches";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([name, "--exact", "--nocapture"])
        .env(CHILD, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let (say, lines) = mpsc::channel();
    let output = BufReader::new(child.stdout.take().unwrap());
    std::thread::spawn(move || {
        for line in output.lines() {
            let Ok(line) = line else { return };
            if let Some(number) = line.strip_prefix("synced ") {
                let _: Result<(), mpsc::SendError<u64>> = say.send(number.parse().unwrap());
            }
        }
    });
    (child, lines)
}

fn write_until_killed(dir: &Path) {
    let mut store = open(dir);
    store.set_room(20_000);
    let mut syncing = None;
    for number in count(&store) + 1.. {
        store.write(batch(number)).unwrap();
        match syncing {
            None if number % 50 == 0 => syncing = Some((store.start_sync().unwrap(), number)),
            Some((sync, upto)) if store.synced().unwrap() >= sync => {
                writeln!(std::io::stdout(), "synced {upto}").unwrap();
                syncing = None;
            }
            None | Some(_) => {}
        }
    }
}

fn count(store: &impl View) -> u64 {
    let count = store.get(b"count").unwrap();
    count.map_or(0, |count| u64::from_be_bytes(count[..].try_into().unwrap()))
}

/// What the child writes as its batch of this number.
fn batch(number: u64) -> WriteBatch {
    let mut dice = ring_core::rng::Rng::new(number);
    let mut writes = vec![(b("count"), Some(Bytes::copy_from_slice(&number.to_be_bytes())))];
    for _ in 0..dice.below(20) {
        let key = Bytes::from(format!("key {}", dice.below(500)));
        let value = Bytes::from(number.to_string().repeat(20));
        writes.push((key, dice.chance(3, 4).then_some(value)));
    }
    WriteBatch { writes, whole: true }
}

const CHILD: &str = "LIBRING_STORE_TEST_CHILD";
