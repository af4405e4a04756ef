//! One connection's receiving side.

use alloc::vec::Vec;

use super::assembler::{Accepted, Assembler};
use super::frame::{
    Chunk, FRAME_BYTES_MAX, FRAME_MESSAGES_MAX, HEADER_BYTES, Header, Kind, Lane,
    MESSAGE_BYTES_MAX, STRANGER_BYTES_MAX, WELCOME_BYTES_MAX, WireError,
};
use super::message::Message;

/// Turns the bytes of one connection into messages.
///
/// The world reads from its socket onto the end of [`Decoder::buffer`] (or hands bytes to
/// [`Decoder::feed`]) and calls [`Decoder::next`] until there is no message left, then reads again.
/// Any error is the connection's end.
#[derive(Clone, Debug)]
pub struct Decoder {
    trust: Trust,
    /// What came; everything before `taken` is decoded.
    bytes: Vec<u8>,
    taken: usize,
    /// Bytes that are left, and messages taken, of the `Messages` frame whose CRC has been checked.
    frame_left: usize,
    frame_messages: usize,
    assembler: Assembler,
    broken: Option<WireError>,
}

/// How far the other side is trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    /// It dialled, and may be anyone.
    Stranger,
    /// It was dialled: its address is known, not yet its name.
    Dialled,
    /// It was welcomed.
    Peer,
}

impl Trust {
    fn frame_bytes_max(self) -> usize {
        match self {
            Self::Stranger => STRANGER_BYTES_MAX,
            Self::Dialled | Self::Peer => FRAME_BYTES_MAX,
        }
    }

    /// Longest message in chunks; none: no chunks.
    fn chunked_bytes_max(self) -> Option<usize> {
        match self {
            Self::Stranger => None,
            Self::Dialled => Some(WELCOME_BYTES_MAX),
            Self::Peer => Some(MESSAGE_BYTES_MAX),
        }
    }
}

/// Free space that each read finds at the buffer's end.
const READ_BYTES: usize = 16 << 10;
/// What the buffer may keep allocated when it is empty.
const SPARE_BYTES: usize = 128 << 10;

impl Decoder {
    /// For a connection that was accepted. Until [`Decoder::authenticated`] frames have at most
    /// [`STRANGER_BYTES_MAX`] and hold whole messages only.
    #[must_use]
    pub fn accepted() -> Self {
        Self::new(Trust::Stranger)
    }

    /// For a connection that was dialled. Until [`Decoder::authenticated`] messages have at most
    /// [`WELCOME_BYTES_MAX`]: a welcome can name every member of the cluster.
    #[must_use]
    pub fn dialled() -> Self {
        Self::new(Trust::Dialled)
    }

    fn new(trust: Trust) -> Self {
        Self {
            trust,
            bytes: Vec::new(),
            taken: 0,
            frame_left: 0,
            frame_messages: 0,
            assembler: Assembler::new(),
            broken: None,
        }
    }

    /// The other side is known: full limits from the next frame on. To be called between two calls
    /// of `next`: on the side that dialled as soon as `next` gives a `Welcome` (large messages may
    /// follow it at once), on the other before a `Welcome` is sent.
    pub fn authenticated(&mut self) {
        self.trust = Trust::Peer;
    }

    /// The buffer to read onto the end of. What is in it must stay.
    pub fn buffer(&mut self) -> &mut Vec<u8> {
        self.make_room();
        let read = READ_BYTES.min(self.trust.frame_bytes_max());
        self.bytes.reserve(read);
        &mut self.bytes
    }

    /// Adds bytes that came.
    pub fn feed(&mut self, bytes: &[u8]) {
        if self.broken.is_some() {
            return;
        }
        self.make_room();
        self.bytes.extend_from_slice(bytes);
    }

    /// The next message; none until more bytes come.
    ///
    /// # Errors
    /// Whatever is wrong with the bytes. The same error comes again and again: close the
    /// connection. Its memory is given back.
    #[expect(clippy::should_implement_trait, reason = "an iterator would end at the first pause")]
    pub fn next(&mut self) -> Result<Option<Message>, WireError> {
        if let Some(error) = &self.broken {
            return Err(error.clone());
        }
        let result = self.advance();
        if let Err(error) = &result {
            self.broken = Some(error.clone());
            self.bytes = Vec::new();
            self.taken = 0;
            self.assembler = Assembler::new();
        }
        result
    }

    /// Bytes of memory held for what is not decoded yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.bytes.capacity() + self.assembler.held_bytes()
    }

    fn advance(&mut self) -> Result<Option<Message>, WireError> {
        loop {
            if self.frame_left > 0 {
                return self.take_message().map(Some);
            }
            let limit = self.trust.frame_bytes_max();
            let rest = &self.bytes[self.taken..];
            let Some(header) = Header::decode(rest, limit)? else {
                return Ok(None);
            };
            let Some(frame) = rest.get(..header.frame()) else {
                return Ok(None);
            };
            header.check(frame)?;
            match header.kind {
                Kind::Messages => {
                    if header.body == 0 {
                        return Err(WireError::NoMessage);
                    }
                    self.taken += HEADER_BYTES;
                    self.frame_left = header.body;
                    self.frame_messages = 0;
                }
                Kind::Chunk { lane, last } => {
                    let Some(limit) = self.trust.chunked_bytes_max() else {
                        return Err(WireError::ChunkTooEarly);
                    };
                    let chunk = Chunk::decode(&frame[HEADER_BYTES..])?;
                    self.taken += frame.len();
                    let message = take_chunk(&mut self.assembler, lane, &chunk, last, limit)?;
                    if message.is_some() {
                        return Ok(message);
                    }
                }
            }
        }
    }

    fn take_message(&mut self) -> Result<Message, WireError> {
        self.frame_messages += 1;
        if self.frame_messages > FRAME_MESSAGES_MAX {
            return Err(WireError::TooManyMessages);
        }
        let body = &self.bytes[self.taken..self.taken + self.frame_left];
        let (message, rest) = decode(body)?;
        self.taken += body.len() - rest.len();
        self.frame_left = rest.len();
        Ok(message)
    }

    /// Forgets what is decoded, at a cost that is constant for each byte that came.
    fn make_room(&mut self) {
        if self.taken == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(SPARE_BYTES);
            self.taken = 0;
        } else if self.taken >= self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
    }
}

/// On a stream nothing is lost and nothing comes twice: a chunk out of order is the sender's fault.
fn take_chunk(
    assembler: &mut Assembler,
    lane: Lane,
    chunk: &Chunk<'_>,
    last: bool,
    limit: usize,
) -> Result<Option<Message>, WireError> {
    let order = WireError::ChunkOrder { stream: chunk.stream, number: chunk.number };
    let lost = assembler.lost();
    let message = match assembler.accept(lane, chunk, last, limit)? {
        Accepted::More => None,
        Accepted::Whole(bytes) => Some(decode_whole(&bytes)?),
        Accepted::Stale | Accepted::Gap => return Err(order),
    };
    if assembler.lost() > lost {
        return Err(order);
    }
    Ok(message)
}

/// Decodes one frame of a transport that carries frames one by one and may lose, repeat and reorder
/// them: a message that lacks a chunk is given up silently ([`Assembler::lost`] counts it), a
/// repeated chunk is ignored. Messages are added to `out`. The sender is trusted as after the
/// handshake.
///
/// # Errors
/// Whatever is wrong with the frame; nothing was added to `out`, and the next frame may be taken.
pub fn decode_frame(
    frame: &[u8],
    assembler: &mut Assembler,
    out: &mut Vec<Message>,
) -> Result<(), WireError> {
    let length = WireError::FrameLength { len: frame.len() };
    let Some(header) = Header::decode(frame, FRAME_BYTES_MAX)? else {
        return Err(length);
    };
    if header.frame() != frame.len() {
        return Err(length);
    }
    header.check(frame)?;
    let body = &frame[HEADER_BYTES..];
    match header.kind {
        Kind::Messages => {
            let before = out.len();
            decode_all(body, out).inspect_err(|_| out.truncate(before))
        }
        Kind::Chunk { lane, last } => {
            let chunk = Chunk::decode(body)?;
            match assembler.accept(lane, &chunk, last, MESSAGE_BYTES_MAX)? {
                Accepted::Whole(bytes) => out.push(decode_whole(&bytes)?),
                Accepted::More | Accepted::Stale | Accepted::Gap => {}
            }
            Ok(())
        }
    }
}

fn decode_all(mut body: &[u8], out: &mut Vec<Message>) -> Result<(), WireError> {
    if body.is_empty() {
        return Err(WireError::NoMessage);
    }
    for _ in 0..FRAME_MESSAGES_MAX {
        let (message, rest) = decode(body)?;
        out.push(message);
        if rest.is_empty() {
            return Ok(());
        }
        body = rest;
    }
    Err(WireError::TooManyMessages)
}

fn decode_whole(bytes: &[u8]) -> Result<Message, WireError> {
    let (message, rest) = decode(bytes)?;
    if rest.is_empty() { Ok(message) } else { Err(WireError::Trailing { bytes: rest.len() }) }
}

fn decode(bytes: &[u8]) -> Result<(Message, &[u8]), WireError> {
    postcard::take_from_bytes(bytes).map_err(|error| WireError::Malformed { error })
}
