use std::cell::RefCell;
use std::rc::Rc;

use ring_core::ids::Boot;
use ring_core::storage::record::{Checkpoint, Record};
use ring_core::storage::{Log, Tail};

use super::*;
use crate::directory::Segments;

/// A disk that notes what is done to it, and fails the operation with a given number.
#[derive(Clone, Default)]
struct Paper {
    done: Rc<RefCell<Vec<String>>>,
    fails: Option<(usize, io::ErrorKind)>,
}

impl Paper {
    fn note(&self, what: String) -> io::Result<()> {
        let number = self.done.borrow().len();
        self.done.borrow_mut().push(what);
        match self.fails {
            Some((at, kind)) if at == number => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

impl Disk for Paper {
    type File = SegmentId;

    fn create(&mut self, segment: SegmentId) -> io::Result<SegmentId> {
        self.note(format!("create {segment}")).map(|()| segment)
    }

    fn write(&mut self, file: &mut SegmentId, bytes: &[u8]) -> io::Result<()> {
        self.note(format!("write {file} {}", bytes.len()))
    }

    fn sync(&mut self, file: &mut SegmentId) -> io::Result<()> {
        self.note(format!("sync {file}"))
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.note("sync names".into())
    }

    fn remove(&mut self, below: SegmentId) -> io::Result<()> {
        self.note(format!("remove below {below}"))
    }

    fn show(&self, segment: Option<SegmentId>) -> String {
        segment.map_or("log".into(), |segment| segment.to_string())
    }
}

/// A log that opens a segment for each `true`, and appends to it for each `false`.
fn batches(opens: &[bool]) -> Vec<Batch> {
    let mut log = Log::new(&Tail::default(), 1 << 20);
    let batch = |opens: &bool| {
        if *opens {
            log.open_segment(Checkpoint::default());
        } else {
            log.push(Record::Boot(Boot(1)));
        }
        log.seal().unwrap()
    };
    opens.iter().map(batch).collect()
}

fn appends(batches: &[Batch]) -> Vec<LogTask> {
    batches.iter().cloned().map(LogTask::Append).collect()
}

#[test]
fn what_waits_is_written_once_and_synced_once() {
    let disk = Paper::default();
    let mut writer = Writer::new(disk.clone());
    let made = batches(&[true, false, false, false]);
    let (first, rest) = made.split_at(1);

    let stored = writer.work_off(&mut appends(first)).unwrap();
    assert_eq!(stored, Some(LogSeq(1)));
    let wrote = format!("write seg1 {}", first[0].len);
    assert_eq!(disk.done.take(), ["create seg1", &wrote, "sync seg1", "sync names"]);

    let stored = writer.work_off(&mut appends(rest)).unwrap();
    assert_eq!(stored, Some(LogSeq(4)));
    let wrote = format!("write seg1 {}", rest.iter().map(|b| b.len).sum::<u64>());
    assert_eq!(disk.done.take(), [&wrote, "sync seg1"]);
}

/// A new segment says that everything before it is durable: so it is.
#[test]
fn a_segment_is_durable_before_the_next_one_exists() {
    let disk = Paper::default();
    let mut writer = Writer::new(disk.clone());
    let made = batches(&[true, false, true, false]);
    assert_eq!(writer.work_off(&mut appends(&made)).unwrap(), Some(LogSeq(4)));
    let wrote = |segment: u64, n: usize| format!("write seg{segment} {}", made[n].len);
    let done = disk.done.take();
    let expected = [
        "create seg1",
        &wrote(1, 0),
        "sync seg1",
        "sync names",
        &wrote(1, 1),
        "sync seg1",
        "create seg2",
        &wrote(2, 2),
        "sync seg2",
        "sync names",
        &wrote(2, 3),
        "sync seg2",
    ];
    assert_eq!(done, expected);
}

#[test]
fn old_segments_go_after_what_was_asked_before_is_durable() {
    let disk = Paper::default();
    let mut writer = Writer::new(disk.clone());
    let made = batches(&[true, false]);
    let mut tasks = appends(&made);
    tasks.push(LogTask::Discard { below: SegmentId(1) });
    assert_eq!(writer.work_off(&mut tasks).unwrap(), Some(LogSeq(2)));
    let done = disk.done.take();
    assert_eq!(done[5..], ["sync seg1", "remove below seg1", "sync names"]);

    let mut tasks = vec![LogTask::Discard { below: SegmentId(1) }];
    assert_eq!(writer.work_off(&mut tasks).unwrap(), None);
    assert_eq!(disk.done.take(), ["remove below seg1", "sync names"]);
}

/// Whatever fails is the last thing that is done, and no batch is called stored.
#[test]
fn after_a_failure_nothing_is_done() {
    let made = batches(&[true, false, true]);
    for at in 0..10 {
        let disk = Paper { fails: Some((at, io::ErrorKind::Other)), ..Paper::default() };
        let mut writer = Writer::new(disk.clone());
        let problem = writer.work_off(&mut appends(&made)).unwrap_err();
        assert!(problem.starts_with("cannot "), "{problem}");
        assert_eq!(disk.done.borrow().len(), at + 1);
    }
}

#[test]
fn a_full_disk_is_named_with_what_to_do() {
    let disk = Paper { fails: Some((1, io::ErrorKind::StorageFull)), ..Paper::default() };
    let problem = Writer::new(disk).work_off(&mut appends(&batches(&[true]))).unwrap_err();
    assert_eq!(problem, "cannot write seg1: no storage space (free some space in log first)");
}

#[test]
fn the_thread_reports_a_failure_and_ends() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let shared = Shared::new(crate::Options::default());
    let mailbox = Mailbox::new();
    for batch in batches(&[true, false]) {
        mailbox.push(LogTask::Append(batch), 0).unwrap();
    }
    run(Writer::new(Files::of(&gone)), &mailbox, &shared); // returns although the mailbox is open
    let mut items = Vec::new();
    shared.take(&mut items, None);
    let [Item::Input(Input::LogFailed { problem })] = &*items else { panic!("one failure") };
    assert!(problem.contains(&*gone.to_string_lossy()), "{problem}");
}

#[test]
fn nothing_is_written_once_the_node_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let shared = Shared::new(crate::Options::default());
    let mailbox = Mailbox::new();
    mailbox.push(LogTask::Append(batches(&[true]).remove(0)), 0).unwrap();
    shared.seal();
    run(Writer::new(Files::of(dir.path())), &mailbox, &shared);
    assert_eq!(segment_ids(dir.path()).unwrap(), []);
}

#[test]
fn files_are_recovered_and_removed_oldest_first() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = Writer::new(Files::of(dir.path()));
    let made = batches(&[true, false, true, true, false]);
    writer.work_off(&mut appends(&made)).unwrap();
    std::fs::write(dir.path().join("notes.txt"), "not ours").unwrap();
    assert_eq!(segment_ids(dir.path()).unwrap(), [1, 2, 3].map(SegmentId));

    let recovered = storage::recover(&mut Segments::of(dir.path()).unwrap()).unwrap();
    assert_eq!(recovered.boot, Boot(1));
    assert_eq!(recovered.tail.next_seq, LogSeq(6));
    assert_eq!(recovered.tail.last, Some(SegmentId(3)));
    Files::of(dir.path()).sync_last(recovered.tail.last).unwrap();

    writer.work_off(&mut vec![LogTask::Discard { below: SegmentId(3) }]).unwrap();
    assert_eq!(segment_ids(dir.path()).unwrap(), [SegmentId(3)]);
    let again = storage::recover(&mut Segments::of(dir.path()).unwrap()).unwrap();
    assert_eq!(again.tail.next_seq, LogSeq(6));
}
