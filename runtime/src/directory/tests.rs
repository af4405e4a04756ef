use super::*;

#[test]
fn a_new_directory_is_made_and_one_of_ours_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("deep").join("data");
    drop(Directory::open(&path).unwrap());
    assert_eq!(fs::read_to_string(path.join(MARKER)).unwrap(), MARKER_TEXT);
    drop(Directory::open(&path).unwrap());
}

#[test]
fn one_member_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let held = Directory::open(dir.path()).unwrap();
    let error = Directory::open(dir.path()).unwrap_err();
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let name = dir.path().canonicalize().unwrap().display().to_string();
    assert!(error.to_string().contains(&name), "{error}");
    drop(held);
    Directory::open(dir.path()).unwrap();
}

#[test]
fn a_foreign_directory_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("thesis.doc"), "years of work").unwrap();
    let error = Directory::open(dir.path()).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { found, .. } if found == "thesis.doc"), "{error}");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

/// Whatever the first start was doing when it was cut off, the second one goes on.
#[test]
fn a_first_start_may_be_cut_off_anywhere() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(LOCK), "").unwrap();
    fs::write(dir.path().join(MARKER_ASIDE), "libri").unwrap();
    let directory = Directory::open(dir.path()).unwrap();
    let make = |aside: &Path| {
        assert!(!aside.exists(), "what was half made is gone");
        fs::create_dir(aside).map_err(OpenError::directory(aside, "create"))
    };
    fs::create_dir(dir.path().join(STORE_ASIDE)).unwrap();
    directory.make_store(make).unwrap();
    assert!(directory.store().is_dir());
    assert!(!dir.path().join(STORE_ASIDE).exists());
}

#[test]
fn another_format_is_refused_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join(MARKER), "libring data directory, format 2\nmore").unwrap();
    let error = Directory::open(dir.path()).unwrap_err();
    let OpenError::Format { found, .. } = &error else { panic!("{error}") };
    assert_eq!(found, "libring data directory, format 2");
}

#[test]
fn a_path_that_is_no_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("file");
    fs::write(&path, "").unwrap();
    let error = Directory::open(&path).unwrap_err();
    assert!(matches!(error, OpenError::Directory { .. }), "{error}");
    assert!(error.to_string().contains(&*path.to_string_lossy()), "{error}");
}
