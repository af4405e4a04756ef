use super::*;

fn b(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(store: &mut FjallStore, pairs: &[(&str, Option<&str>)]) {
    let writes = pairs.iter().map(|(k, v)| (b(k), v.map(b))).collect();
    store.write(WriteBatch { writes }).unwrap();
}

fn all(view: &impl View, from: &str, to: &str, reverse: bool, most: usize) -> Vec<(Bytes, Bytes)> {
    let mut seen = Vec::new();
    view.scan(from.as_bytes(), to.as_bytes(), reverse, &mut |k, v| {
        seen.push((Bytes::copy_from_slice(k), Bytes::copy_from_slice(v)));
        seen.len() < most
    })
    .unwrap();
    seen
}

#[test]
fn a_scan_shows_a_half_open_range_both_ways_until_it_is_told_to_stop() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path()).unwrap();
    put(&mut store, &[("a", Some("1")), ("b", Some("2")), ("c", Some("3")), ("d", Some("4"))]);
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
    let mut store = FjallStore::open(dir.path()).unwrap();
    put(&mut store, &[("a", Some("1")), ("a", Some("2")), ("b", Some("1")), ("b", None)]);
    assert_eq!(store.get(b"a").unwrap(), Some(b("2")));
    assert_eq!(store.get(b"b").unwrap(), None);
    put(&mut store, &[("c", None), ("c", Some("9"))]);
    assert_eq!(store.get(b"c").unwrap(), Some(b("9")));

    let snapshot = store.snapshot();
    put(&mut store, &[("a", None), ("b", Some("3"))]);
    assert_eq!(snapshot.get(b"a").unwrap(), Some(b("2")));
    assert_eq!(snapshot.get(b"b").unwrap(), None);
    assert_eq!(all(&snapshot, "a", "z", false, 9), [(b("a"), b("2")), (b("c"), b("9"))]);
    assert_eq!(store.get(b"a").unwrap(), None);
}

#[test]
fn what_was_synced_is_there_when_it_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0_u32..3 {
        let mut store = FjallStore::open(dir.path()).unwrap();
        for old in 0..round {
            assert!(store.get(&old.to_be_bytes()).unwrap().is_some(), "round {round}");
        }
        let key = Bytes::copy_from_slice(&round.to_be_bytes());
        store.write(WriteBatch { writes: vec![(key, Some(b("x")))] }).unwrap();
        store.sync().unwrap();
    }
}

/// Flushes and compactions under way change nothing that a reader sees.
#[test]
fn more_than_a_memtable_is_read_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let mut store = FjallStore::open(dir.path()).unwrap();
    let value = Bytes::from(vec![7; 64 << 10]);
    let keys = 640_u32; // 40 MiB: more than two memtables
    for chunk in 0..keys / 64 {
        let writes = (0..64).map(|k| {
            let key = (chunk * 64 + k).to_be_bytes();
            (Bytes::copy_from_slice(&key), Some(value.clone()))
        });
        store.write(WriteBatch { writes: writes.collect() }).unwrap();
    }
    let mut seen = 0_u32;
    store
        .scan(&[0; 4], &[255; 5], false, &mut |k, v| {
            assert_eq!(k, seen.to_be_bytes());
            assert_eq!(v, &*value);
            seen += 1;
            true
        })
        .unwrap();
    assert_eq!(seen, keys);
    drop(store);
    let store = FjallStore::open(dir.path()).unwrap();
    assert!(store.get(&0_u32.to_be_bytes()).unwrap().is_some(), "what was flushed is durable");
}

/// The store's own thread keeps why it failed to itself: the disk is asked again.
#[test]
fn a_store_whose_thread_failed_says_what_the_disk_says() {
    let dir = tempfile::tempdir().unwrap();
    let problem = |path: &Path| Place(path.into()).problem(&fjall::Error::Poisoned).0;
    let gone = problem(&dir.path().join("gone").join("store"));
    assert!(gone.contains("No such file"), "{gone}");
    let well = problem(&dir.path().join("store"));
    assert!(well.contains("has room"), "{well}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "nothing is left behind");
}
