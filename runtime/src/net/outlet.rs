//! The sending side of a connection: from messages to the bytes that its socket took.

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
            buffer: Vec::new(),
            sent: 0,
            end: None,
            to: Box::new(to),
        }
    }

    /// True while something waits for the socket to take it, or for the writer to hear of it.
    pub(super) fn is_busy(&self) -> bool {
        !self.buffer.is_empty() || !self.encoder.is_empty() || self.end.is_some()
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
        link.set_backlog(self.encoder.queued_bytes());
        Poll::Ready(Ok(if self.encoder.is_empty() && link.is_empty() {
            Sent::All
        } else {
            Sent::Some
        }))
    }

    /// Takes what is queued and makes the next frames; true when nothing will follow.
    fn fill(&mut self, link: &Link) -> Result<bool, End> {
        let last = link.take(&mut self.messages);
        let Self { encoder, messages, buffer, .. } = self;
        for message in messages.drain(..) {
            let nearly_fills_a_frame =
                (FRAME_BYTES_MAX / 4..FRAME_BYTES_MAX).contains(&size(&message));
            if nearly_fills_a_frame {
                while buffer.len() < WRITE_BYTES && encoder.frame(buffer) {}
            }
            let has_room = nearly_fills_a_frame && buffer.len() < WRITE_BYTES;
            if !(has_room && encoder.frame_alone(&message, buffer)) {
                encoder.push(&message).map_err(End::TooLong)?;
            }
        }
        while buffer.len() < WRITE_BYTES && encoder.frame(buffer) {}
        link.set_backlog(self.encoder.queued_bytes() + self.buffer.len());
        Ok(last)
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
