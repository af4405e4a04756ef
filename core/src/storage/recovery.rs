//! What a directory says after a crash, and whether it can be trusted. The rules are in the [module
//! above](super).

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;

use bytes::Bytes;

use crate::ids::{GroupId, LogIndex, LogSeq, SegmentId, len_u64};
use crate::storage::codec::{BatchError, Flaw, Frame, frame};
use crate::storage::record::{Opening, Record};
use crate::storage::replay::{Conflict, Replay};
use crate::storage::{Recovered, Tail};

/// Reads a log directory. Changes nothing, so it can be repeated. Holds one segment in memory at a
/// time, beside the result.
///
/// # Errors
/// The directory cannot be read or cannot be trusted; the error says which file, where, and what to
/// do.
pub fn recover(source: &mut dyn SegmentSource) -> Result<Recovered, RecoveryError> {
    let mut replay = Replay::default();
    let walked = read_chain(source, &mut replay)?;
    conclude(walked, replay)
}

/// Where recovery reads segments from.
pub trait SegmentSource {
    /// The ids of all segment files, in any order. Files with other names are not the log's.
    fn segments(&self) -> Vec<SegmentId>;

    /// A segment's whole content.
    ///
    /// # Errors
    /// It could not be read: what happened, in the world's words.
    fn read(&mut self, segment: SegmentId) -> Result<Bytes, String>;

    /// At least the first `len` bytes of a segment, all of it when it is shorter. Worth its own
    /// implementation: a recovery looks at the beginning of each file before it reads them.
    ///
    /// # Errors
    /// As [`Self::read`].
    fn head(&mut self, segment: SegmentId, len: usize) -> Result<Bytes, String> {
        let _ = len;
        self.read(segment)
    }
}

impl SegmentSource for BTreeMap<SegmentId, Bytes> {
    fn segments(&self) -> Vec<SegmentId> {
        self.keys().copied().collect()
    }

    fn read(&mut self, segment: SegmentId) -> Result<Bytes, String> {
        let bytes = self.get(&segment).cloned();
        bytes.ok_or_else(|| String::from("no such segment"))
    }
}

/// The name of a segment's file.
#[must_use]
pub fn segment_name(segment: SegmentId) -> String {
    format!("{:016x}.log", segment.0)
}

/// The segment that a file's name stands for; none when the file is not the log's.
#[must_use]
pub fn parse_segment_name(name: &str) -> Option<SegmentId> {
    let digits = name.strip_suffix(".log")?;
    let plain = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let segment = u64::from_str_radix(digits, 16).ok()?;
    (plain && digits.len() == 16).then_some(SegmentId(segment))
}

/// Why a log directory cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecoveryError {
    /// A file could not be read.
    Read {
        /// The file.
        segment: SegmentId,
        /// What happened, in the world's words.
        problem: String,
    },
    /// Bytes that were durable are no longer what was written.
    Damaged {
        /// The file.
        segment: SegmentId,
        /// Where the bad batch begins.
        offset: u64,
        /// What is wrong there.
        what: Flaw,
    },
    /// A file is gone that holds entries which are still needed.
    Missing {
        /// The file.
        segment: SegmentId,
        /// A group that needs it.
        group: GroupId,
        /// The first index that the group lacks.
        index: LogIndex,
    },
    /// A batch is of a format that this version does not know.
    Version {
        /// The file.
        segment: SegmentId,
        /// Where the batch begins.
        offset: u64,
        /// Its format.
        version: u16,
    },
    /// Intact batches contradict one another.
    Contradiction {
        /// The file.
        segment: SegmentId,
        /// Where the batch begins that shows it.
        offset: u64,
        /// The group concerned, if one is.
        group: Option<GroupId>,
        /// The index concerned, if one is.
        index: Option<LogIndex>,
        /// What was found.
        what: &'static str,
    },
}

impl fmt::Display for RecoveryError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const WAY_OUT: &str = "this member cannot trust its log any more: bring the file \
            back from a backup of this very state, or replace this member by a new one on an empty directory";
        match self {
            Self::Read { segment, problem } => write!(
                f,
                "log file {} cannot be read: {problem}; mend the disk and start this member again",
                segment_name(*segment)
            ),
            Self::Damaged { segment, offset, what } => write!(
                f,
                "log file {} is damaged at byte {offset}, before its durable end: {what}; \
                 {WAY_OUT}",
                segment_name(*segment)
            ),
            Self::Missing { segment, group, index } => write!(
                f,
                "log file {} is missing: group {group} needs its log from index {index} on; \
                 {WAY_OUT}",
                segment_name(*segment)
            ),
            Self::Version { segment, offset, version } => write!(
                f,
                "log file {} has format {version} at byte {offset}, which this version does not \
                 know: start this member with the version that wrote it, or a later one",
                segment_name(*segment)
            ),
            Self::Contradiction { segment, offset, group, index, what } => {
                write!(
                    f,
                    "log file {} contradicts what stands before byte {offset}: {what}",
                    segment_name(*segment)
                )?;
                if let Some(group) = group {
                    write!(f, " (group {group}")?;
                    if let Some(index) = index {
                        write!(f, ", index {index}")?;
                    }
                    write!(f, ")")?;
                }
                write!(f, "; keep a copy of the directory and report this; {WAY_OUT}")
            }
        }
    }
}

impl core::error::Error for RecoveryError {}

impl RecoveryError {
    fn contradiction((segment, offset): Place, conflict: Conflict) -> Self {
        Self::Contradiction {
            segment,
            offset,
            group: conflict.group,
            index: conflict.missing,
            what: conflict.what,
        }
    }

    fn nonsense(place: Place, what: &'static str) -> Self {
        let (group, missing) = (None, None);
        Self::contradiction(place, Conflict { group, missing, what })
    }

    fn of_batch((segment, offset): Place, error: BatchError) -> Self {
        match error {
            BatchError::Broken(what) => Self::Damaged { segment, offset, what },
            BatchError::Version(version) => Self::Version { segment, offset, version },
            BatchError::Malformed(what) => Self::nonsense((segment, offset), what),
        }
    }
}

/// A segment and an offset in it.
type Place = (SegmentId, u64);

/// What walking along the chain found, but for what the records say.
pub(super) struct Walked {
    tail: Tail,
    /// The last place that counts.
    end: Place,
    /// The segment that the oldest one names, if it is gone.
    hole: Option<SegmentId>,
}

/// Replays every batch that counts, in order.
pub(super) fn read_chain(
    source: &mut dyn SegmentSource,
    replay: &mut Replay,
) -> Result<Walked, RecoveryError> {
    let mut ids = source.segments();
    ids.sort_unstable();
    ids.dedup();
    let highest = ids.last().copied().unwrap_or_default();
    if highest.0 >= IDS_END {
        let what = "its id leaves none for later segments";
        return Err(RecoveryError::nonsense((highest, 0), what));
    }
    let next_segment = highest.next();
    let chain = find_chain(source, &ids)?;
    let mut cursor = Cursor { next_seq: None, replay };
    let mut lens: BTreeMap<SegmentId, u64> = ids.iter().map(|id| (*id, 0)).collect();
    for (place, (segment, opening)) in chain.iter().enumerate() {
        if place == 0 && opening.previous.is_none() {
            cursor.next_seq = Some(LogSeq(1));
        }
        let bytes = read(source, *segment)?;
        let len = match chain.get(place + 1) {
            Some((_, next)) => cursor.read_closed(*segment, &bytes, next.previous_len)?,
            None => cursor.read_last(*segment, &bytes)?,
        };
        lens.insert(*segment, len);
    }
    let next_seq = cursor.next_seq.unwrap_or(LogSeq(1));
    let last = chain.last().map(|(segment, _)| *segment);
    let last_len = last.and_then(|last| lens.get(&last).copied()).unwrap_or(0);
    for id in ids.iter().filter(|id| last.is_none_or(|last| **id > last)) {
        check_orphan(*id, &read(source, *id)?, next_seq)?;
    }
    let hole = chain.first().and_then(|(_, opening)| opening.previous);
    Ok(Walked {
        tail: Tail {
            next_seq,
            next_segment,
            last,
            last_len,
            segments: lens.into_iter().collect(),
            extents: BTreeMap::new(),
        },
        end: (last.unwrap_or_default(), last_len),
        hole,
    })
}

/// Walks back from the last segment with a valid opening. Answers the segments that count, oldest
/// first, with what their first batches say.
fn find_chain(
    source: &mut dyn SegmentSource,
    ids: &[SegmentId],
) -> Result<Vec<(SegmentId, Opening)>, RecoveryError> {
    let mut links: Vec<(SegmentId, Opening)> = Vec::new();
    for id in ids.iter().rev() {
        let named = links.last().map(|(_, opening)| opening.previous);
        if named.is_some_and(|previous| previous.is_none_or(|previous| previous > *id)) {
            break; // Older than a hole in the chain, or than its beginning.
        }
        let wanted = named.is_none_or(|previous| previous == Some(*id));
        match read_opening(source, *id)? {
            Ok(_) if !wanted => {
                let what = "a segment that was begun is not part of the log: two processes wrote \
                            here at once, or the disk once gave other bytes than now";
                return Err(RecoveryError::nonsense((*id, 0), what));
            }
            Ok(opening) => {
                if opening.previous.is_some_and(|previous| previous >= *id) {
                    let what = "a segment names a later one as the one before it";
                    return Err(RecoveryError::nonsense((*id, 0), what));
                }
                links.push((*id, opening));
            }
            Err(BatchError::Broken(_)) if named.is_none() || !wanted => {} // Never counted.
            Err(error) => return Err(RecoveryError::of_batch((*id, 0), error)),
        }
    }
    links.reverse();
    Ok(links)
}

fn read_opening(
    source: &mut dyn SegmentSource,
    segment: SegmentId,
) -> Result<Result<Opening, BatchError>, RecoveryError> {
    let opening = |bytes: &[u8]| {
        let opens = frame(bytes, segment, 0)?.opens;
        Ok(opens.expect("a frame at offset 0 opens its segment"))
    };
    let head = source
        .head(segment, HEAD_LEN)
        .map_err(|problem| RecoveryError::Read { segment, problem })?;
    match opening(&head) {
        Err(BatchError::Broken(Flaw::Short)) if head.len() >= HEAD_LEN => {
            Ok(opening(&read(source, segment)?))
        }
        answer => Ok(answer),
    }
}

fn read(source: &mut dyn SegmentSource, segment: SegmentId) -> Result<Bytes, RecoveryError> {
    source.read(segment).map_err(|problem| RecoveryError::Read { segment, problem })
}

/// The state that a whole log adds up to.
pub(super) fn conclude(walked: Walked, replay: Replay) -> Result<Recovered, RecoveryError> {
    let mut recovered = replay.finish().map_err(|conflict| {
        let Conflict { group, missing, .. } = conflict;
        match (walked.hole, group, missing) {
            (Some(segment), Some(group), Some(index)) => {
                RecoveryError::Missing { segment, group, index }
            }
            _ => RecoveryError::contradiction(walked.end, conflict),
        }
    })?;
    recovered.tail = Tail { extents: recovered.tail.extents, ..walked.tail };
    Ok(recovered)
}

/// A file behind the chain, whose opening is bad. If a batch in it knew more to be durable than the
/// chain has, then its opening was durable (or the chain's end was): damage.
fn check_orphan(segment: SegmentId, bytes: &[u8], next_seq: LogSeq) -> Result<(), RecoveryError> {
    match frame(bytes, segment, 0) {
        Err(BatchError::Broken(what)) if knows(bytes, segment, 8, next_seq) => {
            let offset = 0;
            Err(RecoveryError::Damaged { segment, offset, what })
        }
        Ok(_) | Err(_) => Ok(()),
    }
}

/// Whether an intact batch at or behind `from` says that batch `seq` was durable.
fn knows(bytes: &[u8], segment: SegmentId, from: u64, seq: LogSeq) -> bool {
    (from..len_u64(bytes.len()))
        .step_by(8)
        .any(|offset| frame(bytes, segment, offset).is_ok_and(|frame| frame.durable >= seq))
}

/// Walks over the batches of one segment after the other.
struct Cursor<'a> {
    /// None until the first batch was read.
    next_seq: Option<LogSeq>,
    replay: &'a mut Replay,
}

impl Cursor<'_> {
    /// A segment that the next one names: everything before `end` was durable, nothing behind it
    /// counts.
    fn read_closed(
        &mut self,
        segment: SegmentId,
        bytes: &[u8],
        end: u64,
    ) -> Result<u64, RecoveryError> {
        let mut offset = 0;
        while offset < end {
            let place = (segment, offset);
            let frame = frame(bytes, segment, offset)
                .map_err(|error| RecoveryError::of_batch(place, error))?;
            offset += frame.len;
            self.on_batch(place, &frame)?;
        }
        let goes_on =
            frame(bytes, segment, end).is_ok_and(|frame| Some(frame.seq) == self.next_seq);
        if offset > end || goes_on {
            let what = "the next segment was begun before this one ended: two processes wrote here \
                        at once, or the disk once gave other bytes than now";
            return Err(RecoveryError::nonsense((segment, end), what));
        }
        Ok(end)
    }

    /// The segment in which the member was writing. Answers how many of its bytes count.
    fn read_last(&mut self, segment: SegmentId, bytes: &[u8]) -> Result<u64, RecoveryError> {
        let mut offset = 0;
        loop {
            let place = (segment, offset);
            match frame(bytes, segment, offset) {
                Ok(frame) => {
                    offset += frame.len;
                    self.on_batch(place, &frame)?;
                }
                Err(error @ BatchError::Broken(_)) => {
                    let next_seq = self.next_seq.unwrap_or(LogSeq(1));
                    return match knows(bytes, segment, offset + 8, next_seq) {
                        true => Err(RecoveryError::of_batch(place, error)),
                        false => Ok(offset),
                    };
                }
                Err(error) => return Err(RecoveryError::of_batch(place, error)),
            }
        }
    }

    fn on_batch(&mut self, place: Place, frame: &Frame<'_>) -> Result<(), RecoveryError> {
        if self.next_seq.is_some_and(|seq| seq != frame.seq) {
            return Err(RecoveryError::nonsense(
                place,
                "a batch does not follow the one before it",
            ));
        }
        if frame.seq.0 >= IDS_END {
            let what = "its number leaves none for later batches";
            return Err(RecoveryError::nonsense(place, what));
        }
        self.next_seq = Some(frame.seq.next());
        let mut opening = frame.opens.is_some();
        for record in frame.records() {
            let record = record.map_err(|error| RecoveryError::of_batch(place, error))?;
            let checkpoint = matches!(record, Record::Checkpoint(_));
            if checkpoint != opening {
                let what = "a segment begins with its checkpoint, and has no other";
                return Err(RecoveryError::nonsense(place, what));
            }
            opening = false;
            self.replay
                .apply(place.0, record)
                .map_err(|conflict| RecoveryError::contradiction(place, conflict))?;
        }
        if opening {
            let what = "a segment begins without a checkpoint";
            return Err(RecoveryError::nonsense(place, what));
        }
        Ok(())
    }
}

/// No log lives long enough to count so far: such a number was not given by us.
const IDS_END: u64 = 1 << 63;
/// Openings are mostly shorter.
const HEAD_LEN: usize = 64 << 10;

#[cfg(test)]
mod tests;
