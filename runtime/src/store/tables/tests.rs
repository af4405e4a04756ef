use super::*;
use std::path::Path;

fn run(pairs: &[(&str, Option<&str>)]) -> Recent {
    let mut run = Recent::new();
    let b = |text: &str| Bytes::copy_from_slice(text.as_bytes());
    for (key, value) in pairs {
        run.insert(b(key), value.map(b));
    }
    run
}

fn all(tables: &Tables) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
    let point = tables.pin();
    let all = tables.scan(point, b"", b"\xff", false).collect();
    tables.unpin(point);
    all
}

fn pairs(all: &[(Bytes, Bytes)]) -> Vec<(&str, &str)> {
    let text = std::str::from_utf8;
    all.iter().map(|(key, value)| (text(key).unwrap(), text(value).unwrap())).collect()
}

/// Tables that were written when the process died, and never listed.
#[test]
fn a_run_counts_as_a_whole_once_it_is_listed() {
    let dir = tempfile::tempdir().unwrap();
    Tables::make(dir.path()).unwrap();
    let tables = Tables::open(dir.path()).unwrap();
    tables.add(&run(&[("a", Some("1")), ("b", Some("1"))])).unwrap();
    let files = || fs::read_dir(dir.path().join(TABLES)).unwrap().count();
    let before = files();
    tables.write(&run(&[("a", None), ("b", Some("2")), ("c", Some("2"))])).unwrap();
    fs::write(dir.path().join(".tmpabcdef"), "half").unwrap();
    fs::write(dir.path().join("v7"), "half").unwrap();
    drop(tables);
    assert!(files() > before);

    let tables = Tables::open(dir.path()).unwrap();
    assert_eq!(pairs(&all(&tables).unwrap()), [("a", "1"), ("b", "1")]);
    assert_eq!(files(), before);
    assert!(!dir.path().join(".tmpabcdef").exists());

    let written = tables.write(&run(&[("a", None), ("b", Some("2"))])).unwrap();
    tables.list(&written).unwrap();
    drop((written, tables));
    let tables = Tables::open(dir.path()).unwrap();
    assert_eq!(pairs(&all(&tables).unwrap()), [("b", "2")]);
}

#[test]
fn a_pinned_point_stays_readable_and_merged_tables_go_when_it_is_given_up() {
    let dir = tempfile::tempdir().unwrap();
    Tables::make(dir.path()).unwrap();
    let tables = Tables::open(dir.path()).unwrap();
    let empty = tables.pin();
    tables.add(&run(&[("a", Some("0"))])).unwrap();
    let first = tables.pin();
    for round in 1..=12 {
        let round = format!("{round}");
        tables.add(&run(&[("a", Some(&round)), (&round, Some(&round))])).unwrap();
        while tables.merge().unwrap() {}
    }
    tables.add(&run(&[("a", None)])).unwrap();
    assert_eq!(tables.get(empty, b"a").unwrap(), None);
    assert_eq!(tables.get(first, b"a").unwrap().unwrap(), "0");
    assert_eq!(tables.get(first, b"1").unwrap(), None);
    let keys = all(&tables).unwrap();
    assert_eq!(pairs(&keys).len(), 12, "{keys:?}");

    let files = || fs::read_dir(dir.path().join(TABLES)).unwrap().count();
    let before = files();
    tables.unpin(empty);
    tables.unpin(first);
    tables.remove_merged().unwrap();
    assert!(files() < before, "{before} files stay");
    assert_eq!(all(&tables).unwrap(), keys);
}

/// Every file, damaged at any place: what is read is right, or an error names the file.
#[test]
fn damage_is_told_with_the_file() {
    let dir = tempfile::tempdir().unwrap();
    Tables::make(dir.path()).unwrap();
    let mut large = Recent::new();
    for number in 0..400_u32 {
        let value = Bytes::from(vec![number.to_be_bytes()[3]; 100]);
        large.insert(Bytes::from(format!("key {number:05}")), Some(value));
    }
    let tables = Tables::open(dir.path()).unwrap();
    tables.add(&large).unwrap();
    tables.add(&run(&[("a", Some("1"))])).unwrap();
    let whole = all(&tables).unwrap();
    drop(tables);

    let mut files = vec![dir.path().join(MARKER), dir.path().join(CURRENT)];
    for entry in
        fs::read_dir(dir.path()).unwrap().chain(fs::read_dir(dir.path().join(TABLES)).unwrap())
    {
        let path = entry.unwrap().path();
        if path.is_file() && !files.contains(&path) {
            files.push(path);
        }
    }
    let mut found = 0;
    for file in &files {
        let bytes = fs::read(file).unwrap();
        let step = (bytes.len() / 60).max(1);
        for at in (0..bytes.len()).step_by(step) {
            for cut in [false, true] {
                let mut damaged = bytes.clone();
                if cut {
                    damaged.truncate(at);
                } else {
                    damaged[at] ^= 0x10;
                }
                fs::write(file, damaged).unwrap();
                found += usize::from(is_told(dir.path(), file, at, &whole));
                fs::write(file, &bytes).unwrap();
            }
        }
    }
    assert!(found > files.len() * 20, "{found} in {} files", files.len());
}

/// Whether damage was noticed; panics if something else was read, or if the error does not help.
fn is_told(dir: &Path, file: &Path, at: usize, whole: &[(Bytes, Bytes)]) -> bool {
    // A copy: opening removes what the damaged list of tables does not name.
    let copy = tempfile::tempdir().unwrap();
    let to = copy.path().join("store");
    fs::create_dir_all(to.join(TABLES)).unwrap();
    for (from, to) in [(dir.to_path_buf(), to.clone()), (dir.join(TABLES), to.join(TABLES))] {
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_file() {
                fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
            }
        }
    }
    let read = Tables::open(&to).and_then(|tables| all(&tables));
    match read {
        Ok(read) => {
            assert_eq!(read, whole, "{} at {at}", file.display());
            false
        }
        Err(StoreError(why)) => {
            let name = match file.strip_prefix(dir).unwrap() {
                list if list.starts_with(TABLES) => list.to_str().unwrap(),
                marker if marker.ends_with(MARKER) => MARKER,
                _ => CURRENT,
            };
            assert!(why.contains(name), "{} at {at}: {why}", file.display());
            true
        }
    }
}

#[test]
fn another_format_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let why = |dir: &Path| Tables::open(dir).err().unwrap().0;
    assert!(why(dir.path()).contains("FORMAT is missing"), "{}", why(dir.path()));
    Tables::make(dir.path()).unwrap();
    fs::write(dir.path().join(MARKER), "libring store, format 3\n").unwrap();
    let newer = why(dir.path());
    assert!(
        newer.contains("format 3") && newer.contains("reads \"libring store, format 2\""),
        "{newer}"
    );
    fs::write(dir.path().join(MARKER), MARKER_TEXT).unwrap();
    fs::remove_file(dir.path().join(CURRENT)).unwrap();
    assert!(why(dir.path()).contains("current is gone"), "{}", why(dir.path()));
}
