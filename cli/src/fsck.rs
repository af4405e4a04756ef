//! `ring fsck`: what a member's log holds and whether it can be trusted. Nothing is changed.

use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use libring::Bytes;
use ring_core::ids::{SegmentId, len_u64};
use ring_core::storage::{self, Report, SegmentSource};
use serde_json::{Value, json};

use crate::args::{Common, Fsck};
use crate::out;
use crate::stop::{Code, Stop};

/// Checks a data directory.
pub(crate) fn run(common: &Common, args: &Fsck) -> Result<(), Stop> {
    // Held to the end: nobody writes while we read.
    let _lock = lock(&args.dir)?;
    let mut files = Files::of(&args.dir.join("log"))?;
    let report = storage::inspect(&mut files);
    if common.json {
        out::json(&json(&report))?;
    } else {
        out::write(text(&report).as_bytes())?;
    }
    let unread = report.segments.iter().find_map(|segment| segment.problem.as_ref());
    match (&report.damage, unread) {
        (None, None) => Ok(()),
        (Some(damage), _) => {
            Err(Stop::new(Code::No, format!("the log in {}: {damage}", files.dir.display())))
        }
        (None, Some(problem)) => {
            Err(Stop::new(Code::No, format!("the log in {}: {problem}", files.dir.display())))
        }
    }
}

/// Makes sure that the directory is a member's and that the member does not run.
fn lock(dir: &Path) -> Result<Option<File>, Stop> {
    let refuse = |why: String| Stop::new(Code::Member, format!("{}: {why}", dir.display()));
    let is_ours = dir.join("LIBRING").try_exists();
    if !is_ours.map_err(|e| refuse(e.to_string()))? {
        return Err(refuse(String::from(
            "not a member's data directory (it has no file LIBRING); name that of one member",
        )));
    }
    let file = match File::open(dir.join("LOCK")) {
        Ok(file) => file,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(refuse(format!("its LOCK cannot be opened: {e}"))),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Err(refuse(String::from(
            "in use by a running member; stop it first, or ask it with `ring status`",
        ))),
        Err(TryLockError::Error(e)) => Err(refuse(format!("its LOCK cannot be locked: {e}"))),
    }
}

/// The segments of a log.
#[derive(Debug)]
struct Files {
    dir: PathBuf,
    ids: Vec<SegmentId>,
}

impl Files {
    fn of(dir: &Path) -> Result<Self, Stop> {
        let list = || -> io::Result<Vec<SegmentId>> {
            let mut ids = Vec::new();
            for entry in fs::read_dir(dir)? {
                let name = entry?.file_name();
                ids.extend(name.to_str().and_then(storage::parse_segment_name));
            }
            Ok(ids)
        };
        let ids = list().map_err(|e| Stop::new(Code::Member, format!("{}: {e}", dir.display())))?;
        Ok(Self { dir: dir.to_path_buf(), ids })
    }

    fn open(&self, segment: SegmentId) -> Result<File, String> {
        let path = self.dir.join(storage::segment_name(segment));
        File::open(&path).map_err(|e| e.to_string())
    }
}

impl SegmentSource for Files {
    fn segments(&self) -> Vec<SegmentId> {
        self.ids.clone()
    }

    fn read(&mut self, segment: SegmentId) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        let mut file = self.open(segment)?;
        file.read_to_end(&mut bytes).map_err(|e| e.to_string())?;
        Ok(Bytes::from(bytes))
    }

    fn head(&mut self, segment: SegmentId, len: usize) -> Result<Bytes, String> {
        let mut bytes = Vec::new();
        let file = self.open(segment)?;
        let read = file.take(len_u64(len)).read_to_end(&mut bytes);
        read.map_err(|e| e.to_string())?;
        Ok(Bytes::from(bytes))
    }
}

fn text(report: &Report) -> String {
    let segments = report.segments.iter().map(|segment| {
        let records = segment.records.iter().map(|(kind, count)| format!("{count} {kind}"));
        let batches = match (segment.first, segment.last) {
            (Some(first), Some(last)) => format!("{}..{}", first.0, last.0),
            _ => String::from("-"),
        };
        vec![
            storage::segment_name(segment.segment),
            segment.bytes.to_string(),
            segment.void.to_string(),
            batches,
            match &segment.problem {
                Some(problem) => problem.clone(),
                None => records.collect::<Vec<_>>().join(", "),
            },
        ]
    });
    let mut text =
        out::table(&["SEGMENT", "BYTES", "VOID", "BATCHES", "RECORDS"], segments.collect());
    let groups = report.groups.iter().map(|(group, at)| {
        vec![
            group.0.to_string(),
            at.replica.0.to_string(),
            at.term.0.to_string(),
            at.commit.0.to_string(),
            at.cut.0.to_string(),
            at.last.0.to_string(),
        ]
    });
    text.push('\n');
    text.push_str(&out::table(
        &["SHARD", "REPLICA", "TERM", "COMMIT", "CUT", "LAST"],
        groups.collect(),
    ));
    if report.damage.is_none() {
        let is_empty = report.segments.iter().all(|segment| segment.counted == 0);
        text.push_str(if is_empty { "\nthe log is empty\n" } else { "\nthe log is sound\n" });
    }
    text
}

fn json(report: &Report) -> Value {
    let segments = report.segments.iter().map(|segment| {
        json!({
            "file": storage::segment_name(segment.segment),
            "bytes": segment.bytes,
            "void": segment.void,
            "batches": segment.batches,
            "first": segment.first.map(|seq| seq.0),
            "last": segment.last.map(|seq| seq.0),
            "records": segment.records,
            "problem": segment.problem,
        })
    });
    let groups = report.groups.iter().map(|(group, at)| {
        json!({
            "shard": group.0,
            "replica": at.replica.0,
            "term": at.term.0,
            "commit": at.commit.0,
            "cut": at.cut.0,
            "last": at.last.0,
        })
    });
    json!({
        "segments": segments.collect::<Vec<_>>(),
        "shards": groups.collect::<Vec<_>>(),
        "damage": report.damage.as_ref().map(ToString::to_string),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_of_something_else_is_refused() {
        let dir = std::env::temp_dir();
        match lock(&dir) {
            Err(Stop::Error { code: Code::Member, line }) => {
                assert!(line.contains("LIBRING"), "{line}")
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_empty_log_is_called_so() {
        let report = Report::default();
        assert!(text(&report).ends_with("the log is empty\n"));
        assert_eq!(json(&report)["damage"], Value::Null);
    }
}
