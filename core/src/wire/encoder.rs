//! One connection's sending side.

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use postcard::ser_flavors::Flavor;

use super::frame::{
    self, BODY_BYTES_MAX, Chunk, FRAME_MESSAGES_MAX, Kind, Lane, MESSAGE_BYTES_MAX, WireError,
};
use super::message::Message;
use crate::ids::len_usize;
use crate::raft::message::Body;

/// Turns messages into frames for one connection. A message is encoded once, when it is pushed,
/// into its lane's buffer; frames are cut from there.
///
/// Nothing here bounds the queue: look at [`Encoder::queued_bytes`] and close the connection of a
/// peer that does not read.
#[derive(Clone, Debug, Default)]
pub struct Encoder {
    urgent: Queue,
    bulk: Queue,
    /// The number of the next message that goes in chunks.
    next_stream: u32,
}

/// The encoded messages of one lane that are not sent yet.
#[derive(Clone, Debug, Default)]
struct Queue {
    /// Everything before `sent` is gone.
    bytes: Vec<u8>,
    sent: usize,
    /// Length of each message, the first one's without what was sent of it in chunks.
    lens: VecDeque<u32>,
    /// The first message is on its way in chunks: its stream and the number of the next chunk.
    chunking: Option<(u32, u32)>,
}

/// What a lane's buffer may keep when it is empty, and the least that is worth moving its rest for.
const SPARE_BYTES: usize = 256 << 10;

impl Encoder {
    /// With nothing queued.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`WireError::MessageTooLong`] if it takes more than [`MESSAGE_BYTES_MAX`]; nothing was
    /// queued.
    pub fn push(&mut self, message: &Message) -> Result<(), WireError> {
        if message.urgent() { self.urgent.push(message) } else { self.bulk.push(message) }
    }

    /// Appends a frame of this one message to `out`, which saves a message that nearly fills a frame
    /// a copy. False: messages are queued before it, or it does not fit; nothing was done.
    pub fn frame_alone(&mut self, message: &Message, out: &mut Vec<u8>) -> bool {
        if !self.is_empty() {
            return false;
        }
        let at = frame::begin(out);
        let end = out.len() + BODY_BYTES_MAX;
        if postcard::serialize_with_flavor(message, Tail { bytes: out, end }).is_err() {
            out.truncate(at);
            return false;
        }
        frame::finish(Kind::Messages, at, out);
        true
    }

    /// Appends the next frame to `out`; false if nothing is queued. Small messages of one lane
    /// share a frame, so call this when the connection can take bytes, not after each message.
    pub fn frame(&mut self, out: &mut Vec<u8>) -> bool {
        self.urgent.frame(Lane::Urgent, &mut self.next_stream, out)
            || self.bulk.frame(Lane::Bulk, &mut self.next_stream, out)
    }

    /// Bytes of messages that are queued and not in any frame yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.urgent.len() + self.bulk.len()
    }

    /// True when there is nothing to send.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.queued_bytes() == 0
    }
}

impl Queue {
    fn len(&self) -> usize {
        self.bytes.len() - self.sent
    }

    fn push(&mut self, message: &Message) -> Result<(), WireError> {
        self.make_room();
        let start = self.bytes.len();
        let tail = Tail { bytes: &mut self.bytes, end: start + MESSAGE_BYTES_MAX };
        if postcard::serialize_with_flavor(message, tail).is_err() {
            // A message serializes unless it is too long: no list in it hides its length, and
            // nothing fails by hand.
            self.bytes.truncate(start);
            return Err(WireError::MessageTooLong { limit: MESSAGE_BYTES_MAX });
        }
        let len = u32::try_from(self.bytes.len() - start).expect("at most MESSAGE_BYTES_MAX");
        self.lens.push_back(len);
        Ok(())
    }

    fn frame(&mut self, lane: Lane, next_stream: &mut u32, out: &mut Vec<u8>) -> bool {
        let Some(&first) = self.lens.front() else {
            return false;
        };
        if self.chunking.is_some() || usize_of(first) > BODY_BYTES_MAX {
            self.chunk(lane, next_stream, out);
        } else {
            self.messages(out);
        }
        true
    }

    /// As many whole messages as fit.
    fn messages(&mut self, out: &mut Vec<u8>) {
        let mut end = self.sent;
        let mut count = 0;
        for &len in &self.lens {
            let with = end + usize_of(len);
            if with - self.sent > BODY_BYTES_MAX || count == FRAME_MESSAGES_MAX {
                break;
            }
            end = with;
            count += 1;
        }
        self.lens.drain(..count);
        frame::write(Kind::Messages, &[], &self.bytes[self.sent..end], out);
        self.sent = end;
    }

    /// The next part of the first message.
    fn chunk(&mut self, lane: Lane, next_stream: &mut u32, out: &mut Vec<u8>) {
        let left = self.lens.front_mut().expect("a message is queued");
        let rest = usize_of(*left);
        let (stream, number) = self.chunking.unwrap_or_else(|| {
            let stream = *next_stream;
            *next_stream = stream.wrapping_add(1);
            (stream, 0)
        });
        let part = rest.min(Chunk::room(number));
        let chunk = Chunk {
            stream,
            number,
            total: (number == 0).then_some(rest),
            data: &self.bytes[self.sent..self.sent + part],
        };
        let last = part == rest;
        chunk.write(lane, last, out);

        self.sent += part;
        if last {
            self.lens.pop_front();
            self.chunking = None;
        } else {
            *left -= u32::try_from(part).expect("a part of a u32");
            self.chunking = Some((stream, number + 1));
        }
    }

    /// Forgets what was sent, at a cost that is constant for each byte sent.
    fn make_room(&mut self) {
        if self.sent == self.bytes.len() {
            self.bytes.clear();
            self.bytes.shrink_to(SPARE_BYTES);
            self.sent = 0;
        } else if self.sent >= SPARE_BYTES && self.sent >= self.len() {
            self.bytes.drain(..self.sent);
            self.sent = 0;
        }
    }
}

impl Message {
    /// True for what keeps the cluster alive and is small: it overtakes everything else on its
    /// connection. What must keep its order with proposals and their answers is not urgent; nor is
    /// what carries data.
    #[must_use]
    pub fn urgent(&self) -> bool {
        match self {
            Self::Hello(_)
            | Self::Welcome(_)
            | Self::Refuse(_)
            | Self::Founding(_)
            | Self::Gather(_)
            | Self::Beats(_)
            | Self::BeatAnswers(_)
            | Self::TableVersion(_)
            | Self::RequestsTaken { .. }
            | Self::StreamCredit { .. }
            | Self::Ping
            | Self::Pong => true,
            Self::Raft(message) => match &message.body {
                Body::PreVote { .. }
                | Body::PreVoteAnswer { .. }
                | Body::Vote { .. }
                | Body::VoteAnswer { .. }
                | Body::Accepted { .. }
                | Body::Rejected { .. }
                | Body::Beat(_)
                | Body::BeatAnswer(_)
                | Body::SnapshotNext { .. }
                | Body::TimeoutNow
                | Body::ReadIndex { .. }
                | Body::ReadIndexAnswer { .. } => true,
                Body::Append { .. } | Body::Snapshot { .. } => false,
            },
            Self::Open { .. }
            | Self::Opened { .. }
            | Self::Propose { .. }
            | Self::Proposed { .. }
            | Self::NotLeader { .. }
            | Self::Busy { .. }
            | Self::Ask { .. }
            | Self::Answer { .. }
            | Self::LocalAnswer { .. }
            | Self::AskStatus { .. }
            | Self::Status { .. }
            | Self::Table(_)
            | Self::Register { .. }
            | Self::Leave { .. }
            | Self::Settled { .. }
            | Self::ChangeRefused(_)
            | Self::Sync(_)
            | Self::Request { .. }
            | Self::RequestsSent { .. } => false,
        }
    }
}

/// Lets postcard write onto the end of a buffer, up to a limit.
struct Tail<'a> {
    bytes: &'a mut Vec<u8>,
    end: usize,
}

impl Flavor for Tail<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if data.len() > self.end - self.bytes.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.try_extend(&[byte])
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

fn usize_of(len: u32) -> usize {
    len_usize(u64::from(len))
}
