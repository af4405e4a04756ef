//! The ends of streams, as the application sees them.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use parking_lot::Mutex;
use ring_core::ids::{len_u64, len_usize};
use ring_core::request::{Broken, Half, STREAM_WINDOW, StreamId, Way};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Talk;
use crate::shared::Shared;

/// What core's thread knows of a stream's ends on this node. Dropped, it breaks those that have not ended: nobody else can.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    pub(super) read: Option<Arc<Reading>>,
    pub(super) write: Option<Arc<Writing>>,
}

/// A direction that comes here.
#[derive(Debug, Default)]
pub(crate) struct Reading(Mutex<ReadState>);

#[derive(Debug, Default)]
struct ReadState {
    /// What came and was not read: at most a window.
    queue: VecDeque<Bytes>,
    end: Option<Result<(), Broken>>,
    waker: Option<Waker>,
}

/// A direction that goes from here.
#[derive(Debug, Default)]
pub(crate) struct Writing(Mutex<WriteState>);

#[derive(Debug, Default)]
struct WriteState {
    credit: u64,
    broken: Option<Broken>,
    waker: Option<Waker>,
}

impl Ends {
    /// Bytes have come.
    pub(super) fn come(&self, data: Bytes, last: bool) {
        let Some(reading) = &self.read else { return };
        let mut state = reading.0.lock();
        if !data.is_empty() {
            state.queue.push_back(data);
        }
        if last {
            state.end.get_or_insert(Ok(()));
        }
        let waker = state.waker.take();
        drop(state);
        waker.map(Waker::wake).unwrap_or_default();
    }

    /// So many bytes may be written in all.
    pub(super) fn allow(&self, upto: u64) {
        let Some(writing) = &self.write else { return };
        let mut state = writing.0.lock();
        state.credit = upto;
        let waker = state.waker.take();
        drop(state);
        waker.map(Waker::wake).unwrap_or_default();
    }

    pub(super) fn break_half(&self, half: Half, why: Broken) {
        let waker = match half {
            Half::Read => self.read.as_ref().and_then(|reading| {
                let mut state = reading.0.lock();
                state.end.get_or_insert(Err(why));
                state.waker.take()
            }),
            Half::Write => self.write.as_ref().and_then(|writing| {
                let mut state = writing.0.lock();
                state.broken.get_or_insert(why);
                state.waker.take()
            }),
        };
        waker.map(Waker::wake).unwrap_or_default();
    }

    pub(super) fn break_both(&self, why: Broken) {
        self.break_half(Half::Read, why);
        self.break_half(Half::Write, why);
    }
}

impl Drop for Ends {
    fn drop(&mut self) {
        self.break_both(Broken::Closed);
    }
}

/// Ends of streams that nobody has taken yet. Dropped, they are given up.
#[derive(Debug, Default)]
pub(super) struct Open {
    readers: Vec<(String, StreamReader)>,
    writers: Vec<(String, StreamWriter)>,
}

impl Open {
    /// Adds this node's end of a stream. `writes` is the way in which this side writes.
    pub(super) fn add(
        &mut self,
        shared: &Arc<Shared>,
        stream: StreamId,
        name: &str,
        way: Way,
        writes: Way,
    ) -> Ends {
        let mut ends = Ends::default();
        if way == Way::Both || way == writes {
            let state = Arc::<Writing>::default();
            ends.write = Some(Arc::clone(&state));
            let shared = Arc::clone(shared);
            let writer = StreamWriter { stream, shared, state, written: 0, ended: false };
            self.writers.push((name.to_owned(), writer));
        }
        if way == Way::Both || way != writes {
            let state = Arc::<Reading>::default();
            ends.read = Some(Arc::clone(&state));
            let shared = Arc::clone(shared);
            let current = Bytes::new();
            let reader = StreamReader { stream, shared, state, current, untold: 0, ended: false };
            self.readers.push((name.to_owned(), reader));
        }
        ends
    }

    pub(super) fn reader(&mut self, name: &str) -> Option<StreamReader> {
        let place = self.readers.iter().position(|(known, _)| known == name)?;
        Some(self.readers.remove(place).1)
    }

    pub(super) fn writer(&mut self, name: &str) -> Option<StreamWriter> {
        let place = self.writers.iter().position(|(known, _)| known == name)?;
        Some(self.writers.remove(place).1)
    }

    /// All ends, the two of one stream together.
    pub(super) fn drain(&mut self) -> Vec<(String, Option<StreamReader>, Option<StreamWriter>)> {
        let mut ends: Vec<(StreamId, String, Option<StreamReader>, Option<StreamWriter>)> =
            Vec::new();
        for (name, reader) in self.readers.drain(..) {
            ends.push((reader.stream, name, Some(reader), None));
        }
        for (name, writer) in self.writers.drain(..) {
            match ends.iter_mut().find(|(stream, ..)| *stream == writer.stream) {
                Some(end) => end.3 = Some(writer),
                None => ends.push((writer.stream, name, None, Some(writer))),
            }
        }
        ends.sort_by_key(|(stream, ..)| *stream);
        ends.into_iter().map(|(_, name, reader, writer)| (name, reader, writer)).collect()
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.readers.extend(other.readers);
        self.writers.extend(other.writers);
    }
}

/// The reading end of a stream. What comes waits here, at most [`STREAM_WINDOW`] bytes; then the writer waits. Dropped before
/// its end, the writer is told.
pub struct StreamReader {
    stream: StreamId,
    shared: Arc<Shared>,
    state: Arc<Reading>,
    /// What is left of a part that was read in pieces.
    current: Bytes,
    /// Bytes that were read and core was not told of.
    untold: u64,
    ended: bool,
}

impl StreamReader {
    /// The next bytes, in the parts in which they came; none at the end.
    ///
    /// # Errors
    /// [`Broken`]: the stream has not come to its end, and never will.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Resolves when the stream is broken, also while there are bytes to read.
    pub async fn broken(&mut self) -> Broken {
        poll_fn(|cx| {
            let mut state = self.state.0.lock();
            if let Some(Err(why)) = state.end {
                return Poll::Ready(why);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
        if !self.current.is_empty() {
            return Poll::Ready(Ok(Some(std::mem::take(&mut self.current))));
        }
        let mut state = self.state.0.lock();
        if let Some(data) = state.queue.pop_front() {
            drop(state);
            self.take(data.len());
            return Poll::Ready(Ok(Some(data)));
        }
        if let Some(end) = state.end {
            drop(state);
            self.ended = true;
            return Poll::Ready(end.map(|()| None));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn take(&mut self, bytes: usize) {
        self.untold += len_u64(bytes);
        if self.untold >= TELL_EVERY {
            let bytes = std::mem::take(&mut self.untold);
            self.shared.talk(Talk::Taken { stream: self.stream, bytes });
        }
    }
}

impl AsyncRead for StreamReader {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let polled = self.poll_next(cx);
        polled.map(|next| {
            if let Some(mut data) = next.map_err(broken_pipe)? {
                let piece = data.split_to(data.len().min(buffer.remaining()));
                buffer.put_slice(&piece);
                self.current = data;
            }
            Ok(())
        })
    }
}

impl Drop for StreamReader {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.talk(Talk::GiveUp { stream: self.stream, half: Half::Read });
        }
    }
}

/// The writing end of a stream. It waits while its reader is [`STREAM_WINDOW`] bytes behind. [`StreamWriter::finish`] (or
/// `shutdown`) ends it well; dropped before, it breaks at its reader.
pub struct StreamWriter {
    stream: StreamId,
    shared: Arc<Shared>,
    state: Arc<Writing>,
    written: u64,
    ended: bool,
}

impl StreamWriter {
    /// Writes all of these bytes.
    ///
    /// # Errors
    /// [`Broken`]: the stream is broken; how much the reader has got is not known.
    pub async fn write(&mut self, data: impl Into<Bytes>) -> Result<(), Broken> {
        let mut data = data.into();
        while !data.is_empty() {
            let room = poll_fn(|cx| self.poll_room(cx)).await?;
            let part = data.split_to(data.len().min(room));
            self.put(part, false);
        }
        Ok(())
    }

    /// Ends the stream well. The reader gets all that was written, if its connection lasts.
    ///
    /// # Errors
    /// [`Broken`]: it was broken before.
    pub async fn finish(mut self) -> Result<(), Broken> {
        self.end()
    }

    /// Resolves when nobody reads the stream any more, or it is broken for another reason.
    pub async fn broken(&mut self) -> Broken {
        poll_fn(|cx| {
            let mut state = self.state.0.lock();
            if let Some(why) = state.broken {
                return Poll::Ready(why);
            }
            state.waker = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// How many bytes may be written now; at least one.
    fn poll_room(&self, cx: &mut Context<'_>) -> Poll<Result<usize, Broken>> {
        let mut state = self.state.0.lock();
        if let Some(why) = state.broken {
            return Poll::Ready(Err(why));
        }
        if state.credit > self.written {
            let room = (state.credit - self.written).min(PART_BYTES);
            return Poll::Ready(Ok(len_usize(room)));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn put(&mut self, data: Bytes, last: bool) {
        self.written += len_u64(data.len());
        self.shared.talk(Talk::Write { stream: self.stream, data, last });
    }

    fn end(&mut self) -> Result<(), Broken> {
        if let Some(why) = self.state.0.lock().broken {
            return Err(why);
        }
        if !self.ended {
            self.ended = true;
            self.put(Bytes::new(), true);
        }
        Ok(())
    }
}

impl AsyncWrite for StreamWriter {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        data: &[u8],
    ) -> Poll<io::Result<usize>> {
        if data.is_empty() || self.ended {
            return Poll::Ready(if self.ended && !data.is_empty() {
                Err(io::ErrorKind::BrokenPipe.into())
            } else {
                Ok(0)
            });
        }
        self.poll_room(cx).map(|room| {
            let len = data.len().min(room.map_err(broken_pipe)?);
            self.put(Bytes::copy_from_slice(&data[..len]), false);
            Ok(len)
        })
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.end().map_err(broken_pipe))
    }
}

impl Drop for StreamWriter {
    fn drop(&mut self) {
        if !self.ended {
            self.shared.talk(Talk::GiveUp { stream: self.stream, half: Half::Write });
        }
    }
}

impl fmt::Debug for StreamReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamReader").field("stream", &self.stream).finish_non_exhaustive()
    }
}

impl fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamWriter").field("stream", &self.stream).finish_non_exhaustive()
    }
}

fn broken_pipe(why: Broken) -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, why)
}

/// As much of a stream travels together: what fits in a frame is copied less often.
const PART_BYTES: u64 = 60 << 10;
/// Core is told when so much more was read. With what core itself holds back it is less than a window.
const TELL_EVERY: u64 = STREAM_WINDOW / 8;

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use ring_core::request::message::Fault;
    use ring_core::request::{HandleId, Side};

    use super::*;
    use crate::options::Options;
    use crate::request::Request;

    /// What core has not taken when it ends is not left where it lies: whoever waits for it is told.
    #[test]
    fn streams_that_core_never_heard_of_end_with_the_node() {
        let shared = Arc::new(Shared::new(Options::default()));
        let request = Request::new("r").stream("s", Way::Both);
        let target = ring_core::request::Target::Key(Bytes::new());
        let mut call = shared.call_handler(target, request).unwrap();
        let handle = HandleId(1);
        let stream = StreamId { side: Side::Handler(handle), index: 0 };
        let mut open = Open::default();
        let ends = vec![open.add(&shared, stream, "s", Way::Both, Way::Down)];
        shared.talk(Talk::Respond { handle, result: Err(Fault::NoRoute), ends });
        shared.end();
        shared.ended(None);
        let mut cx = Context::from_waker(Waker::noop());
        for mut reader in [call.reader("s").unwrap(), open.reader("s").unwrap()] {
            assert_eq!(pin!(reader.next()).poll(&mut cx), Poll::Ready(Err(Broken::Closed)));
        }
        for mut writer in [call.writer("s").unwrap(), open.writer("s").unwrap()] {
            assert_eq!(pin!(writer.broken()).poll(&mut cx), Poll::Ready(Broken::Closed));
        }
    }
}
