//! The sending side of a connection: from messages to the bytes that its socket took.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use ring_core::wire::{Encoder, FRAME_BYTES_MAX, Message};
use tokio::io::AsyncWrite;

use super::link::Link;
use super::size::size;
use super::{End, Fault};

/// What is on its way out of a connection's queue. One thread at a time holds it.
pub(super) struct Outlet {
    encoder: Encoder,
    messages: Vec<Message>,
    /// Bulk messages that are not encoded yet: encoded buffers hold about as much as goes into one write.
    waiting: VecDeque<Message>,
    waiting_bytes: usize,
    /// Frames, of which `sent` bytes are gone.
    buffer: Vec<u8>,
    sent: usize,
    /// Why the connection ends, found out by who was not its writer.
    end: Option<End>,
    to: Box<dyn AsyncWrite + Send + Unpin>,
}

/// What was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    /// Some; there may be more.
    Some,
    /// All that there is.
    All,
    /// All, and nothing will follow.
    Last,
}

impl Outlet {
    pub(super) fn new(to: impl AsyncWrite + Send + Unpin + 'static) -> Self {
        Self {
            encoder: Encoder::new(),
            messages: Vec::new(),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            buffer: Vec::new(),
            sent: 0,
            end: None,
            to: Box::new(to),
        }
    }

    /// True while something waits for the socket to take it, or for the writer to hear of it.
    pub(super) fn is_busy(&self) -> bool {
        !self.buffer.is_empty() || self.has_more() || self.end.is_some()
    }

    /// True while there are messages that are in no frame, or only in part.
    fn has_more(&self) -> bool {
        !self.encoder.is_empty() || !self.waiting.is_empty()
    }

    /// Bytes that were taken off the queue and are not gone.
    fn backlog(&self) -> usize {
        self.encoder.queued_bytes() + self.buffer.len() + self.waiting_bytes
    }

    /// The connection is to end for this reason: its writer says so.
    pub(super) fn fail(&mut self, end: End) {
        self.end = Some(end);
    }

    /// Sends a part of what the link's queue holds, as much as goes into one write.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, link: &Link) -> Poll<Result<Sent, End>> {
        if let Some(end) = self.end.take() {
            return Poll::Ready(Err(end));
        }
        if self.buffer.is_empty() {
            let last = self.fill(link)?;
            if self.buffer.is_empty() {
                return Poll::Ready(Ok(if last { Sent::Last } else { Sent::All }));
            }
        }
        ready!(self.poll_write(cx))
            .map_err(|error| Fault::of_io(&error).map_or(End::Io(error), End::Unsecured))?;
        self.sent = 0;
        self.buffer.clear();
        if self.buffer.capacity() > 2 * WRITE_BYTES {
            self.buffer = Vec::new();
        }
        link.set_backlog(self.backlog());
        Poll::Ready(Ok(if self.has_more() || !link.is_empty() { Sent::Some } else { Sent::All }))
    }

    /// Takes what is queued and makes the next frames; true when nothing will follow.
    fn fill(&mut self, link: &Link) -> Result<bool, End> {
        let taken = link.take(&mut self.messages);
        let mut messages = std::mem::take(&mut self.messages);
        let encoded = self.encoder.queued_bytes();
        if self.waiting.is_empty() && encoded + taken.bytes <= WRITE_BYTES {
            for message in messages.drain(..) {
                self.encode(&message)?;
            }
        } else {
            for message in messages.drain(..) {
                if message.urgent() {
                    self.encode(&message)?;
                } else {
                    self.waiting_bytes += size(&message);
                    self.waiting.push_back(message);
                }
            }
            while self.buffer.len() + self.encoder.queued_bytes() < WRITE_BYTES
                && let Some(message) = self.waiting.pop_front()
            {
                self.waiting_bytes -= size(&message);
                self.encode(&message)?;
            }
            if self.waiting.capacity() > WAITING_SPARE && self.waiting.is_empty() {
                self.waiting = VecDeque::new();
            }
        }
        self.messages = messages;
        self.frame();
        link.set_backlog(self.backlog());
        Ok(taken.last)
    }

    /// Encodes a message; one that nearly fills a frame is spared a copy where nothing is before it.
    fn encode(&mut self, message: &Message) -> Result<(), End> {
        if (FRAME_BYTES_MAX / 4..FRAME_BYTES_MAX).contains(&size(message)) {
            self.frame();
            if self.buffer.len() < WRITE_BYTES
                && self.encoder.frame_alone(message, &mut self.buffer)
            {
                return Ok(());
            }
        }
        self.encoder.push(message).map_err(End::TooLong)
    }

    /// Moves what is encoded into frames, as much as goes into one write.
    fn frame(&mut self) {
        while self.buffer.len() < WRITE_BYTES && self.encoder.frame(&mut self.buffer) {}
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.buffer.len() {
            let written = Pin::new(&mut *self.to).poll_write(cx, &self.buffer[self.sent..]);
            match ready!(written)? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        // TLS may keep a part until it is flushed; a socket does not.
        Pin::new(&mut *self.to).poll_flush(cx)
    }

    pub(super) fn poll_shut(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.to).poll_shutdown(cx)
    }
}

impl fmt::Debug for Outlet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outlet")
            .field("left", &(self.buffer.len() - self.sent))
            .finish_non_exhaustive()
    }
}

/// About as many bytes go into one write.
const WRITE_BYTES: usize = 256 << 10;
/// Places for messages that wait are kept for as many.
const WAITING_SPARE: usize = 1024;
