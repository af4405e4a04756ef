use std::collections::BTreeMap;
use std::path::PathBuf;

use bytes::Bytes;
use ring_core::ids::{GroupId, LogIndex, LogSeq};
use ring_core::io::{Action, Failure, Halt};
use ring_core::storage::{RecoveredGroup, Tail};

use super::*;
use crate::error::Error;
use crate::shared::{Item, Phase};

fn options(dir: &Path) -> Options {
    Options { data: Data::Dir(dir.to_path_buf()), shards: 2, ..Options::default() }
}

/// Every file of a directory with its content.
fn content(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(content(&path));
        } else {
            files.insert(path.clone(), std::fs::read(path).unwrap());
        }
    }
    files
}

fn put(shared: &Shared) -> Result<tokio::sync::oneshot::Receiver<crate::shared::Answer>, Error> {
    let action = Action::Put { key: Bytes::from("k"), value: Bytes::from("v") };
    shared.call("p", action, Duration::from_secs(10))
}

fn wait_for(shared: &Shared, wanted: impl Fn(&Phase) -> bool) -> Phase {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut phase = shared.phase();
    runtime.block_on(async { phase.wait_for(wanted).await.unwrap().clone() })
}

/// A panic on the core thread stops this member for good, answers everyone, and harms neither host
/// nor directory.
#[test]
fn a_defect_stops_the_member_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (shared, threads, _) = start(options(dir.path()), None).unwrap();
    wait_for(&shared, |phase| *phase == Phase::Up);
    put(&shared).unwrap().blocking_recv().unwrap().unwrap();
    // No world of ours says this: the core asserts that it was appended.
    shared.put(Item::Stored { upto: LogSeq(1 << 60) }, 0).unwrap();
    let halted = wait_for(&shared, |phase| matches!(phase, Phase::Halted(_)));
    let Phase::Halted(Halt::Defect { what }) = halted else { panic!("{halted:?}") };
    assert!(what.starts_with("only what was appended"), "{what}");
    let log = dir.path().join("log");
    let before = content(&log);
    let error = loop {
        match put(&shared) {
            Ok(answer) => drop(answer),
            Err(error) => break error,
        }
    };
    assert_eq!(error, Error::Refused(ring_core::io::Refused::Halted));
    assert!(shared.is_sealed());
    threads.stop();
    assert_eq!(content(&log), before);
    // The next start is none the worse.
    let (shared, threads, _) = start(options(dir.path()), None).unwrap();
    wait_for(&shared, |phase| *phase == Phase::Up);
    threads.stop();
}

/// A call that is under way when the defect shows is answered too.
#[test]
fn a_defect_leaves_no_caller_waiting() {
    let (shared, threads, _) =
        start(Options { data: Data::Memory, ..Options::default() }, None).unwrap();
    let first = put(&shared).unwrap();
    shared.put(Item::Stored { upto: LogSeq(1 << 60) }, 0).unwrap();
    match first.blocking_recv().unwrap() {
        Ok(_) | Err(Error::Failed(Failure::Closed { maybe: true })) => {}
        Err(error) => panic!("{error}"),
    }
    threads.stop();
}

#[test]
fn a_store_older_than_its_log_is_noticed() {
    let group = |cut: u64| RecoveredGroup {
        replica: Default::default(),
        term: Default::default(),
        vote: None,
        commit: LogIndex(cut),
        cut_index: LogIndex(cut),
        cut_term: Default::default(),
        membership: Default::default(),
        entries: Vec::new(),
    };
    let log = |cut| Recovered {
        tail: Tail { last: Some(Default::default()), ..Tail::default() },
        groups: [(GroupId(1), group(cut))].into(),
        ..Recovered::default()
    };
    let held = |index| StoreState {
        group: GroupId(1),
        index: LogIndex(index),
        term: Default::default(),
        membership: Default::default(),
        stamp: 0,
        digest: 0,
        epoch: Default::default(),
    };
    assert_eq!(fits(&log(0), &[]), Ok(()));
    assert_eq!(fits(&log(7), &[held(7)]), Ok(()));
    assert_eq!(fits(&log(7), &[held(9)]), Ok(()));
    assert!(fits(&log(7), &[held(6)]).unwrap_err().contains("older"));
    assert!(fits(&log(7), &[]).unwrap_err().contains("older"));
    assert!(fits(&Recovered::default(), &[held(1)]).unwrap_err().contains("log is gone"));
    assert_eq!(fits(&Recovered::default(), &[]), Ok(()));
}
