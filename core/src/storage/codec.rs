//! How a batch looks on disk.
//!
//! | byte | what (little-endian) |
//! |---|---|
//! | 0 | the four bytes `RGWL` |
//! | 4 | CRC-32 of the whole batch, with zeros in this place |
//! | 8 | version of the format: 1 |
//! | 10 | flags: 1 opens a segment, 2 there is a segment before |
//! | 12 | length of the body |
//! | 16 | segment |
//! | 24 | offset in the segment |
//! | 32 | number of the batch |
//! | 40 | all batches up to this one were durable when this one was made |
//! | 48 | the segment before, or 0 |
//! | 56 | how many of its bytes count, or 0 |
//! | 64 | body: how many records, each one's length and postcard bytes, zeros to a multiple of 8 |
//!
//! Segment and offset are under the checksum, so a batch that stands in the wrong place is not
//! valid there.

use alloc::vec::Vec;
use core::fmt;

use crate::ids::{LogSeq, SegmentId, len_u64, len_usize};
use crate::storage::record::{Batch, Opening, Record};

/// Appends exactly `batch.len` bytes. To be run where the batch is written, not where it was made.
///
/// What the world owes a batch: write these bytes at `offset` of the segment's file, all of them or
/// fail; report the batch stored only when the file is synced. Before the first write of a batch
/// that opens a segment it must have synced the file of the segment before *and* the directory,
/// after it the new file and the directory: an opening says by being there that everything before
/// it is durable. That holds also for a segment that recovery found, since what a killed process
/// wrote may be readable without being durable.
///
/// # Panics
/// If the batch was not made by [`crate::storage::Log`], so that its length is another one.
pub fn encode_batch(batch: &Batch, out: &mut Vec<u8>) {
    let start = out.len();
    out.reserve(len_usize(batch.len));
    let body_len = u32::try_from(batch.len - len_u64(HEADER)).expect("the log bounds its batches");
    let (mut flags, mut previous, mut previous_len) = (0, 0, 0);
    if let Some(opening) = batch.opens {
        flags |= FLAG_OPENS;
        if let Some(segment) = opening.previous {
            flags |= FLAG_PREVIOUS;
            previous = segment.0;
            previous_len = opening.previous_len;
        }
    }
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.extend_from_slice(&flags.to_le_bytes());
    out.extend_from_slice(&body_len.to_le_bytes());
    out.extend_from_slice(&batch.segment.0.to_le_bytes());
    out.extend_from_slice(&batch.offset.to_le_bytes());
    out.extend_from_slice(&batch.seq.0.to_le_bytes());
    out.extend_from_slice(&batch.durable.0.to_le_bytes());
    out.extend_from_slice(&previous.to_le_bytes());
    out.extend_from_slice(&previous_len.to_le_bytes());
    let count = u32::try_from(batch.records.len()).expect("the log bounds its batches");
    out.extend_from_slice(&count.to_le_bytes());
    for record in &batch.records {
        encode_record(record, out);
    }
    let end = start + len_usize(batch.len);
    assert!(
        out.len() <= end && end - out.len() < 8,
        "batch {} is {} bytes long, not {}",
        batch.seq,
        out.len() - start,
        batch.len
    );
    out.resize(end, 0);
    let crc = crc32fast::hash(&out[start..]);
    out[start + 4..start + 8].copy_from_slice(&crc.to_le_bytes());
}

/// Reads the batch that stands at `offset` of a segment; `bytes` are the segment's from its
/// beginning.
///
/// # Errors
/// No valid batch stands there. Nothing is allocated beyond what the bytes that are there ask for.
pub fn decode_batch(bytes: &[u8], segment: SegmentId, offset: u64) -> Result<Batch, BatchError> {
    let frame = frame(bytes, segment, offset)?;
    let records = frame.records().collect::<Result<Vec<_>, _>>()?;
    Ok(Batch {
        seq: frame.seq,
        segment,
        offset,
        len: frame.len,
        durable: frame.durable,
        opens: frame.opens,
        records,
    })
}

/// Why no batch can be read at a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BatchError {
    /// The bytes are not those of a batch: never written, torn or damaged.
    Broken(Flaw),
    /// The batch is intact but of another version of the format.
    Version(u16),
    /// The batch is intact but makes no sense; or it holds a kind of record that this version does
    /// not know.
    Malformed(&'static str),
}

/// How bytes fail to be a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    /// The file ends before the batch does.
    Short,
    /// It does not begin as a batch does.
    Magic,
    /// It belongs to another segment or another offset.
    Place,
    /// It has a length that no batch has.
    Length,
    /// The checksum is not that of the bytes.
    Checksum,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Short => "the file ends before the batch does",
            Self::Magic => "no batch begins there",
            Self::Place => "the batch there belongs to another place",
            Self::Length => "the batch there has an impossible length",
            Self::Checksum => "the checksum is wrong",
        })
    }
}

/// An intact batch whose records are not decoded yet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Frame<'a> {
    pub(super) seq: LogSeq,
    pub(super) durable: LogSeq,
    pub(super) opens: Option<Opening>,
    pub(super) len: u64,
    count: u32,
    records: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Its records, in order; the last item is an error if one cannot be read.
    pub(super) fn records(&self) -> Records<'a> {
        Records { left: self.count, bytes: self.records }
    }
}

/// Finds out whether an intact batch stands at `offset` of a segment.
pub(super) fn frame(
    bytes: &[u8],
    segment: SegmentId,
    offset: u64,
) -> Result<Frame<'_>, BatchError> {
    use BatchError::{Broken, Malformed, Version};
    let rest = usize::try_from(offset)
        .ok()
        .and_then(|start| bytes.get(start..))
        .ok_or(Broken(Flaw::Short))?;
    let (head, after) = rest.split_first_chunk::<HEADER>().ok_or(Broken(Flaw::Short))?;
    if head[..4] != MAGIC {
        return Err(Broken(Flaw::Magic));
    }
    if u64_at(head, 16) != segment.0 || u64_at(head, 24) != offset {
        return Err(Broken(Flaw::Place));
    }
    let body_len = u32_at(head, 12);
    if !body_len.is_multiple_of(8) || body_len == 0 {
        return Err(Broken(Flaw::Length));
    }
    let body = usize::try_from(body_len)
        .ok()
        .and_then(|len| after.get(..len))
        .ok_or(Broken(Flaw::Short))?;
    let mut crc = crc32fast::Hasher::new();
    crc.update(&head[..4]);
    crc.update(&[0; 4]);
    crc.update(&head[8..]);
    crc.update(body);
    if crc.finalize() != u32_at(head, 4) {
        return Err(Broken(Flaw::Checksum));
    }

    if u16_at(head, 8) != VERSION {
        return Err(Version(u16_at(head, 8)));
    }
    let flags = u16_at(head, 10);
    let (previous, previous_len) = (u64_at(head, 48), u64_at(head, 56));
    let opens = match flags {
        0 => None,
        FLAG_OPENS => Some(Opening::default()),
        FLAG_OPENS_AFTER => Some(Opening { previous: Some(SegmentId(previous)), previous_len }),
        _ => return Err(Malformed("unknown flags")),
    };
    if flags != FLAG_OPENS_AFTER && (previous, previous_len) != (0, 0) {
        return Err(Malformed("names a segment before without a flag that says so"));
    }
    if opens.is_some() != (offset == 0) {
        return Err(Malformed("exactly the first batch of a segment opens it"));
    }
    let (seq, durable) = (LogSeq(u64_at(head, 32)), LogSeq(u64_at(head, 40)));
    if durable >= seq {
        return Err(Malformed("says that it was durable before it was made"));
    }
    let (count, records) = body.split_first_chunk::<4>().ok_or(Malformed("no body"))?;
    Ok(Frame {
        seq,
        durable,
        opens,
        len: len_u64(HEADER) + u64::from(body_len),
        count: u32::from_le_bytes(*count),
        records,
    })
}

/// The records of a frame.
#[derive(Clone, Debug)]
pub(super) struct Records<'a> {
    left: u32,
    bytes: &'a [u8],
}

impl Iterator for Records<'_> {
    type Item = Result<Record, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let padding = core::mem::take(&mut self.bytes);
            let clean = padding.len() < 8 && padding.iter().all(|byte| *byte == 0);
            return (!clean).then_some(Err(BatchError::Malformed("bytes behind its records")));
        }
        match decode_record(self.bytes) {
            Ok((record, rest)) => {
                self.left -= 1;
                self.bytes = rest;
                Some(Ok(record))
            }
            Err(what) => {
                self.left = 0;
                self.bytes = &[];
                Some(Err(BatchError::Malformed(what)))
            }
        }
    }
}

/// How many bytes a record adds to a batch, without encoding it.
pub(super) fn record_len(record: &Record) -> u64 {
    4 + len_u64(postcard::experimental::serialized_size(record).expect(INFALLIBLE))
}

/// How long a batch is whose records add this many bytes.
pub(super) fn batch_len(records: u64) -> u64 {
    (len_u64(HEADER) + 4 + records).next_multiple_of(8)
}

fn encode_record(record: &Record, out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    postcard::serialize_with_flavor(record, Append(out)).expect(INFALLIBLE);
    let len = u32::try_from(out.len() - start - 4).expect("the log bounds its batches");
    out[start..start + 4].copy_from_slice(&len.to_le_bytes());
}

fn decode_record(bytes: &[u8]) -> Result<(Record, &[u8]), &'static str> {
    const SHORT: &str = "a record is longer than its batch";
    let (len, rest) = bytes.split_first_chunk::<4>().ok_or(SHORT)?;
    let len = usize::try_from(u32::from_le_bytes(*len)).map_err(|_| SHORT)?;
    let (record, rest) = rest.split_at_checked(len).ok_or(SHORT)?;
    match postcard::take_from_bytes(record) {
        Ok((record, [])) => Ok((record, rest)),
        Ok(_) => Err("bytes behind a record"),
        Err(_) => Err("a record cannot be decoded"),
    }
}

/// Lets postcard write to the end of a buffer that is used again.
struct Append<'a>(&'a mut Vec<u8>);

impl postcard::ser_flavors::Flavor for Append<'_> {
    type Output = ();

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(data);
        Ok(())
    }

    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.0.push(data);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn u16_at(head: &[u8; HEADER], at: usize) -> u16 {
    u16::from_le_bytes([head[at], head[at + 1]])
}

fn u32_at(head: &[u8; HEADER], at: usize) -> u32 {
    u32::from_le_bytes(*head[at..].first_chunk().expect("fields lie within the header"))
}

fn u64_at(head: &[u8; HEADER], at: usize) -> u64 {
    u64::from_le_bytes(*head[at..].first_chunk().expect("fields lie within the header"))
}

/// Bytes before the body.
pub(super) const HEADER: usize = 64;
/// No batch is longer, so that its lengths fit their fields.
pub(super) const BATCH_BYTES_MAX: u64 = 1 << 31;

const MAGIC: [u8; 4] = *b"RGWL";
const VERSION: u16 = 1;
const FLAG_OPENS: u16 = 1;
const FLAG_PREVIOUS: u16 = 2;
const FLAG_OPENS_AFTER: u16 = FLAG_OPENS | FLAG_PREVIOUS;
const INFALLIBLE: &str = "records are flat and memory does not refuse";

#[cfg(test)]
mod tests;
