//! The format of a frame (the table stands in [`crate::wire`]), its limits, and what can be wrong
//! with one.

use alloc::vec::Vec;
use core::fmt;

use crate::ids::len_usize;

/// Longest frame, header included.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// Longest frame from a stranger: who dialled in and has not been welcomed.
pub const STRANGER_BYTES_MAX: usize = 4 << 10;
/// Longest message, encoded.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Longest message from a member that was dialled, until it is trusted: room for a genesis of
/// [`crate::wire::bounded::MEMBERS_MAX`] members with the longest names and addresses.
pub const WELCOME_BYTES_MAX: usize = 1 << 20;
/// Most messages in one frame. Without it 64 KiB could become 64 Ki messages of hundreds of bytes
/// each.
pub const FRAME_MESSAGES_MAX: usize = 1024;
/// Bytes before the body.
pub const HEADER_BYTES: usize = 12;
/// Longest body.
pub const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - HEADER_BYTES;
/// The version of this format.
pub const VERSION: u8 = 1;

const FLAG_LAST: u16 = 1;
const FLAG_URGENT: u16 = 2;
/// Where the part of a frame begins that its CRC covers.
const CRC_FROM: usize = 8;

/// What a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole messages.
    Messages,
    /// A part of one message.
    Chunk {
        /// The lane of that message.
        lane: Lane,
        /// Whether no more parts follow.
        last: bool,
    },
}

/// Order is kept inside a lane only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Overtakes bulk.
    Urgent,
    /// Everything else.
    Bulk,
}

/// The first bytes of a frame, checked but for the CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) kind: Kind,
    /// Bytes of the body.
    pub(super) body: usize,
    crc: u32,
}

impl Header {
    /// The header at the beginning of `bytes`; none if it is not all there. The frame may have
    /// `limit` bytes.
    pub(super) fn decode(bytes: &[u8], limit: usize) -> Result<Option<Self>, WireError> {
        let Some((&head, _)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [l0, l1, l2, l3, c0, c1, c2, c3, version, kind, f0, f1] = head;
        if version != VERSION {
            return Err(WireError::Version { found: version });
        }
        let body = len_usize(u64::from(u32::from_le_bytes([l0, l1, l2, l3])));
        if body > limit - HEADER_BYTES {
            return Err(WireError::FrameTooLong { body, limit });
        }
        let flags = u16::from_le_bytes([f0, f1]);
        let kind = match (kind, flags) {
            (0, 0) => Kind::Messages,
            (1, 0..=3) => Kind::Chunk {
                lane: if flags & FLAG_URGENT == 0 { Lane::Bulk } else { Lane::Urgent },
                last: flags & FLAG_LAST != 0,
            },
            _ => return Err(WireError::Kind { kind, flags }),
        };
        Ok(Some(Self { kind, body, crc: u32::from_le_bytes([c0, c1, c2, c3]) }))
    }

    /// Bytes of the whole frame.
    pub(super) fn frame(&self) -> usize {
        HEADER_BYTES + self.body
    }

    /// Checks the CRC of the whole frame.
    pub(super) fn check(&self, frame: &[u8]) -> Result<(), WireError> {
        if crc32fast::hash(&frame[CRC_FROM..]) == self.crc { Ok(()) } else { Err(WireError::Crc) }
    }
}

/// Appends a frame whose body is `head` and `rest`.
pub(super) fn write(kind: Kind, head: &[u8], rest: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER_BYTES + head.len() + rest.len());
    let at = begin(out);
    out.extend_from_slice(head);
    out.extend_from_slice(rest);
    finish(kind, at, out);
}

/// Begins a frame at the end of `out`, and says where: its body is to be appended, then comes [`finish`].
pub(super) fn begin(out: &mut Vec<u8>) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES]);
    at
}

/// Ends the frame that begins at this place.
pub(super) fn finish(kind: Kind, at: usize, out: &mut [u8]) {
    let (code, flags) = match kind {
        Kind::Messages => (0, 0),
        Kind::Chunk { lane, last } => {
            let urgent = if lane == Lane::Urgent { FLAG_URGENT } else { 0 };
            (1, urgent | if last { FLAG_LAST } else { 0 })
        }
    };
    let body = out.len() - at - HEADER_BYTES;
    assert!(body <= BODY_BYTES_MAX, "a frame's body has {body} bytes");
    let len = u32::try_from(body).expect("bounded above");

    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    out[at + CRC_FROM..at + 10].copy_from_slice(&[VERSION, code]);
    out[at + 10..at + HEADER_BYTES].copy_from_slice(&u16::to_le_bytes(flags));
    let crc = crc32fast::hash(&out[at + CRC_FROM..]);
    out[at + 4..at + CRC_FROM].copy_from_slice(&crc.to_le_bytes());
}

/// The body of a [`Kind::Chunk`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk<'a> {
    /// Names the message; rises on a connection, round the end of u32.
    pub(super) stream: u32,
    /// Place of this part in the message, from 0.
    pub(super) number: u32,
    /// Bytes of the whole message; in chunk 0 only.
    pub(super) total: Option<usize>,
    /// The part. Never empty.
    pub(super) data: &'a [u8],
}

impl<'a> Chunk<'a> {
    /// Bytes before the data in chunk 0, and in every other.
    const FIRST_HEAD_BYTES: usize = 12;
    const HEAD_BYTES: usize = 8;

    /// Most bytes of data in the chunk with this number.
    pub(super) fn room(number: u32) -> usize {
        let head = if number == 0 { Self::FIRST_HEAD_BYTES } else { Self::HEAD_BYTES };
        BODY_BYTES_MAX - head
    }

    pub(super) fn decode(body: &'a [u8]) -> Result<Self, WireError> {
        let (stream, rest) = word(body)?;
        let (number, rest) = word(rest)?;
        let (total, data) = if number == 0 {
            let (total, data) = word(rest)?;
            (Some(len_usize(u64::from(total))), data)
        } else {
            (None, rest)
        };
        if data.is_empty() {
            return Err(WireError::ChunkShort);
        }
        Ok(Self { stream, number, total, data })
    }

    /// Appends the frame.
    pub(super) fn write(&self, lane: Lane, last: bool, out: &mut Vec<u8>) {
        let mut head = [0; Self::FIRST_HEAD_BYTES];
        head[..4].copy_from_slice(&self.stream.to_le_bytes());
        head[4..8].copy_from_slice(&self.number.to_le_bytes());
        let head = match self.total {
            Some(total) => {
                let total = u32::try_from(total).expect("messages are shorter than 4 GiB");
                head[8..].copy_from_slice(&total.to_le_bytes());
                &head[..]
            }
            None => &head[..Self::HEAD_BYTES],
        };
        write(Kind::Chunk { lane, last }, head, self.data, out);
    }
}

fn word(bytes: &[u8]) -> Result<(u32, &[u8]), WireError> {
    match bytes.split_first_chunk::<4>() {
        Some((&word, rest)) => Ok((u32::from_le_bytes(word), rest)),
        None => Err(WireError::ChunkShort),
    }
}

/// What is wrong with what came from a connection, or with what was to be sent on it. On a stream
/// nothing after it can be trusted: close the connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WireError {
    /// A frame of another format. The peer runs a release that this one cannot talk to, or is no
    /// member at all.
    Version {
        /// What it says.
        found: u8,
    },
    /// A kind of frame, or flags, that this release does not know.
    Kind {
        /// The kind.
        kind: u8,
        /// The flags.
        flags: u16,
    },
    /// A frame longer than allowed (for now, if the peer has not been welcomed).
    FrameTooLong {
        /// Bytes of body that it claims.
        body: usize,
        /// Bytes that a frame may have, header included.
        limit: usize,
    },
    /// A frame handed over alone is not as long as its header says.
    FrameLength {
        /// How long it is.
        len: usize,
    },
    /// A frame was damaged on the way.
    Crc,
    /// A frame without a message.
    NoMessage,
    /// A frame with more than [`FRAME_MESSAGES_MAX`] messages.
    TooManyMessages,
    /// A message that cannot be decoded: damaged before it was framed, a list over its bound, or a
    /// message that only a later release knows.
    Malformed {
        /// What the decoder says.
        error: postcard::Error,
    },
    /// A message ends before its chunks do.
    Trailing {
        /// Bytes left over.
        bytes: usize,
    },
    /// A chunk from a peer that may not send any yet.
    ChunkTooEarly,
    /// A chunk without its numbers, or without data.
    ChunkShort,
    /// A chunk that does not follow the one before it.
    ChunkOrder {
        /// The message that it belongs to.
        stream: u32,
        /// Its place.
        number: u32,
    },
    /// The chunks of a message are more, or fewer, than the first one said.
    ChunkTotal {
        /// The message.
        stream: u32,
        /// Its length, as the first chunk said.
        total: usize,
    },
    /// A message longer than allowed. When it was to be sent: nothing of it was queued.
    MessageTooLong {
        /// Bytes that a message may have.
        limit: usize,
    },
}

impl fmt::Display for WireError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Version { found } => {
                write!(f, "frame version {found}, this release speaks {VERSION}")
            }
            Self::Kind { kind, flags } => {
                write!(f, "unknown kind of frame {kind} with flags {flags:#06x}")
            }
            Self::FrameTooLong { body, limit } => {
                write!(f, "a frame with a body of {body} bytes, frames may have {limit} bytes")
            }
            Self::FrameLength { len } => {
                write!(f, "a frame of {len} bytes does not have the length it says")
            }
            Self::Crc => f.write_str("a frame's checksum is wrong: it was damaged on the way"),
            Self::NoMessage => f.write_str("a frame without a message"),
            Self::TooManyMessages => {
                write!(f, "a frame with more than {FRAME_MESSAGES_MAX} messages")
            }
            Self::Malformed { error } => write!(f, "a message cannot be decoded: {error}"),
            Self::Trailing { bytes } => write!(f, "{bytes} bytes after the end of a message"),
            Self::ChunkTooEarly => f.write_str("a large message before the handshake is done"),
            Self::ChunkShort => f.write_str("a chunk without its numbers or without data"),
            Self::ChunkOrder { stream, number } => {
                write!(f, "chunk {number} of message {stream} is out of order")
            }
            Self::ChunkTotal { stream, total } => write!(
                f,
                "the chunks of message {stream} do not add up to the {total} bytes it claims"
            ),
            Self::MessageTooLong { limit } => {
                write!(f, "a message longer than the limit of {limit} bytes")
            }
        }
    }
}

impl core::error::Error for WireError {}
