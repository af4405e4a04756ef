//! A log directory for people: what each file holds, where each group stands, what is wrong.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use crate::ids::{GroupId, LogIndex, LogSeq, ReplicaId, SegmentId, Term, len_u64};
use crate::storage::codec::frame;
use crate::storage::record::Record;
use crate::storage::recovery::{RecoveryError, SegmentSource, conclude, read_chain};
use crate::storage::replay::Replay;

/// Reads a whole log directory and reports on it. Changes nothing; what cannot be read or trusted
/// is part of the report.
pub fn inspect(source: &mut dyn SegmentSource) -> Report {
    let mut replay = Replay::default();
    let walked = read_chain(source, &mut replay);
    let groups = replay.extents().map(|(group, term, commit, extent)| {
        let report = GroupReport {
            replica: extent.replica,
            term,
            commit,
            cut: extent.cut_index,
            last: extent.last_index,
        };
        (group, report)
    });
    let groups = groups.collect();
    let mut counted = BTreeMap::new();
    let damage = match walked.and_then(|walked| conclude(walked, replay)) {
        Ok(recovered) => {
            counted.extend(recovered.tail.segments);
            None
        }
        Err(error) => Some(error),
    };
    let mut ids = source.segments();
    ids.sort_unstable();
    let segments = ids.into_iter().map(|id| inspect_segment(source, id, counted.get(&id)));
    Report { groups, segments: segments.collect(), damage }
}

/// What a log directory holds.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Report {
    /// Every file, in the order of their ids.
    pub segments: Vec<SegmentReport>,
    /// Every group; on damage as it stood before it.
    pub groups: BTreeMap<GroupId, GroupReport>,
    /// Why the member would not start, if it would not.
    pub damage: Option<RecoveryError>,
}

/// What a segment's file holds, up to the first byte that is not part of a valid batch.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct SegmentReport {
    /// The segment.
    pub segment: SegmentId,
    /// The file's length in bytes.
    pub bytes: u64,
    /// How many of them count; when the log is damaged, how many form valid batches.
    pub counted: u64,
    /// How many stand behind those and are void.
    pub void: u64,
    /// Valid batches among those that count.
    pub batches: u64,
    /// Number of the first of them.
    pub first: Option<LogSeq>,
    /// Number of the last of them.
    pub last: Option<LogSeq>,
    /// Records in them, by kind.
    pub records: BTreeMap<&'static str, u64>,
    /// Why the file could not be read, if it could not.
    pub problem: Option<String>,
}

/// Where a group stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupReport {
    /// This member's replica of it.
    pub replica: ReplicaId,
    /// Its term.
    pub term: Term,
    /// An index known to be committed.
    pub commit: LogIndex,
    /// The last index that is cut off its log.
    pub cut: LogIndex,
    /// The last index of its log.
    pub last: LogIndex,
}

fn inspect_segment(
    source: &mut dyn SegmentSource,
    segment: SegmentId,
    counted: Option<&u64>,
) -> SegmentReport {
    let mut report = SegmentReport { segment, ..SegmentReport::default() };
    let bytes = match source.read(segment) {
        Ok(bytes) => bytes,
        Err(problem) => {
            report.problem = Some(problem);
            return report;
        }
    };
    report.bytes = len_u64(bytes.len());
    let end = counted.copied().unwrap_or(report.bytes);
    while report.counted < end {
        let Ok(batch) = frame(&bytes, segment, report.counted) else {
            break;
        };
        report.counted += batch.len;
        report.batches += 1;
        report.first = report.first.or(Some(batch.seq));
        report.last = Some(batch.seq);
        for record in batch.records().flatten() {
            *report.records.entry(kind(&record)).or_default() += 1;
        }
    }
    report.void = report.bytes.saturating_sub(report.counted);
    report
}

fn kind(record: &Record) -> &'static str {
    match record {
        Record::Birth { .. } => "birth",
        Record::Genesis(_) => "genesis",
        Record::Founded => "founded",
        Record::Released => "released",
        Record::Boot(_) => "boot",
        Record::PeerBoot { .. } => "peer boot",
        Record::Vote { .. } => "vote",
        Record::Entries { .. } => "entries",
        Record::Cut { .. } => "cut",
        Record::Table(_) => "directory",
        Record::Replica { .. } => "replica",
        Record::Dropped { .. } => "dropped",
        Record::Checkpoint(_) => "checkpoint",
    }
}
