//! The ends of streams on a node, for a host that is told by events.
//!
//! Invariants:
//! 1. What was read and not told is one part at most; bytes are told within the host's credit alone. When the stream
//!    breaks, those without credit are dropped: nobody may ever allow them.
//! 2. Each way that this end has ends once: told by a last BODY or by a WRITABLE that says RESET, or
//!    ended by the host itself, which is not told.
//! 3. After a write that found no room a WRITABLE follows: the runtime's end wakes this one, and
//!    `armed` is set and looked at under one lock.
//!
//! The runtime's ends wake this one on core's thread, with no lock held. Wakers know a stream weakly:
//! they lie in what the stream holds.

use std::io;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use libring::{Broken, StreamReader, StreamWriter};
use ring_core::ids::{len_u64, len_usize};
use tokio::io::AsyncWrite;

use crate::fault::Fault;
use crate::handle::Handle;
use crate::queue::{Added, Event, Queue};
use crate::status;
use crate::sync::lock;
use crate::types::{RING_EV_BODY, RING_EV_WRITABLE};

/// This node's end of a stream.
pub(crate) struct Stream {
    id: u64,
    tag: u64,
    pub(crate) queue: Arc<Queue>,
    handle: Weak<Handle>,
    /// The way in which this end writes.
    writes_up: bool,
    reads: bool,
    writes: bool,
    read: Mutex<Reading>,
    write: Mutex<Writing>,
    on_readable: Waker,
    on_writable: Waker,
}

/// Which end of which stream.
#[derive(Clone, Copy)]
pub(crate) struct End {
    pub(crate) id: u64,
    pub(crate) tag: u64,
    /// It is the caller's.
    pub(crate) writes_up: bool,
}

#[derive(Default)]
struct Reading {
    /// None: this way has ended, or there is none.
    reader: Option<StreamReader>,
    /// Read and not told.
    rest: Bytes,
    credit: u64,
    /// The host has ever given credit.
    is_wanted: bool,
}

#[derive(Default)]
struct Writing {
    /// None: this way has ended, or there is none.
    writer: Option<StreamWriter>,
    /// A write found no room, and the host was not told of room since.
    armed: bool,
}

/// What is to be told, and whether a way has ended.
#[derive(Default)]
struct News {
    events: Vec<Event>,
    is_over: bool,
}

struct OnReadable(Weak<Stream>);
struct OnWritable(Weak<Stream>);

impl Wake for OnReadable {
    fn wake(self: Arc<Self>) {
        if let Some(stream) = self.0.upgrade() {
            stream.safely(Stream::read_on);
        }
    }
}

impl Wake for OnWritable {
    fn wake(self: Arc<Self>) {
        if let Some(stream) = self.0.upgrade() {
            stream.safely(Stream::look);
        }
    }
}

impl Stream {
    /// Takes the ends over. Nothing is told before `start`.
    pub(crate) fn new(
        handle: &Arc<Handle>,
        End { id, tag, writes_up }: End,
        queue: &Arc<Queue>,
        reader: Option<StreamReader>,
        writer: Option<StreamWriter>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|this| Self {
            id,
            tag,
            queue: Arc::clone(queue),
            handle: Arc::downgrade(handle),
            writes_up,
            reads: reader.is_some(),
            writes: writer.is_some(),
            read: Mutex::new(Reading { reader, ..Reading::default() }),
            write: Mutex::new(Writing { writer, armed: false }),
            on_readable: Waker::from(Arc::new(OnReadable(Weak::clone(this)))),
            on_writable: Waker::from(Arc::new(OnWritable(Weak::clone(this)))),
        })
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// From now on its ends are told, and bytes within the host's credit.
    pub(crate) fn start(&self) {
        self.read_on();
        self.look();
    }

    /// The host takes so many bytes more.
    pub(crate) fn credit(&self, bytes: u64) -> Result<(), Fault> {
        if !self.reads {
            return Err(Fault::invalid("the stream does not come here"));
        }
        {
            let mut reading = lock(&self.read);
            if reading.reader.is_none() && reading.rest.is_empty() {
                return Err(Fault::closed());
            }
            reading.credit = reading.credit.saturating_add(bytes);
            reading.is_wanted = true;
        }
        self.read_on();
        Ok(())
    }

    /// Writes what there is room for, and with `fin` ends the stream when that was all. Says how much it took, and what
    /// became of it.
    pub(crate) fn write(&self, chunk: &[u8], fin: bool) -> (usize, Result<(), Fault>) {
        if !self.writes {
            return (0, Err(Fault::invalid("the stream does not go from here")));
        }
        let mut news = News::default();
        let mut writing = lock(&self.write);
        let written = self.write_on(&mut writing, chunk, fin, &mut news);
        drop(writing);
        self.tell_over(&news);
        written
    }

    fn write_on(
        &self,
        writing: &mut Writing,
        chunk: &[u8],
        fin: bool,
        news: &mut News,
    ) -> (usize, Result<(), Fault>) {
        let mut cx = Context::from_waker(&self.on_writable);
        let Some(writer) = writing.writer.as_mut() else { return (0, Err(Fault::closed())) };
        let mut taken = 0;
        let written = loop {
            let Some(left) = chunk.get(taken..).filter(|left| !left.is_empty()) else {
                break if fin { Pin::new(&mut *writer).poll_shutdown(&mut cx) } else { READY };
            };
            match Pin::new(&mut *writer).poll_write(&mut cx, left) {
                Poll::Ready(Ok(n)) if n > 0 => taken += n,
                Poll::Ready(Ok(_)) => break Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Err(error)) => break Poll::Ready(Err(error)),
                Poll::Pending => break Poll::Pending,
            }
        };
        let written = match written {
            Poll::Pending => {
                writing.armed = true;
                let text = "the stream takes no more now";
                return (taken, Err(Fault::new(status::RING_AGAIN, text)));
            }
            Poll::Ready(Ok(())) if !fin => return (taken, Ok(())),
            Poll::Ready(Ok(())) => Ok(()),
            // Said here: no event follows.
            Poll::Ready(Err(_)) => Err(match broken(writer, &mut cx) {
                Poll::Ready(why) => reset(why),
                Poll::Pending => Fault::closed(), // it has ended
            }),
        };
        writing.writer = None;
        news.is_over = true;
        (taken, written)
    }

    /// The host gives ways up. The other end is told.
    pub(crate) fn give_up(&self, up: bool, down: bool) -> Result<(), Fault> {
        let (reads, writes) = if self.writes_up { (down, up) } else { (up, down) };
        if (reads && !self.reads) || (writes && !self.writes) {
            return Err(Fault::invalid("ways: the stream has not all of them"));
        }
        self.reset(reads, writes);
        Ok(())
    }

    /// What is open is given up.
    pub(crate) fn reset(&self, reads: bool, writes: bool) {
        let mut was_open = false;
        if reads {
            let mut reading = lock(&self.read);
            let old = std::mem::take(&mut *reading);
            drop(reading);
            was_open |= old.reader.is_some() || !old.rest.is_empty();
        }
        if writes {
            let mut writing = lock(&self.write);
            let old = std::mem::take(&mut *writing);
            drop(writing);
            was_open |= old.writer.is_some();
        }
        if was_open {
            self.tell_over(&News { is_over: true, ..News::default() });
        }
    }

    /// What comes here is given up unless the host has ever given credit for it.
    pub(crate) fn reset_unwanted(&self) {
        if !lock(&self.read).is_wanted {
            self.reset(true, false);
        }
    }

    /// The node has ended: what is open ends so.
    pub(crate) fn end(&self) {
        let mut events = Vec::new();
        let mut reading = lock(&self.read);
        let old = std::mem::take(&mut *reading);
        drop(reading);
        if old.reader.is_some() || !old.rest.is_empty() {
            events.push(self.body_end(Err(Broken::Closed)));
        }
        let mut writing = lock(&self.write);
        let old = std::mem::take(&mut *writing);
        drop(writing);
        if old.writer.is_some() {
            events.push(self.write_end(Broken::Closed));
        }
        self.queue.push_all(events);
    }

    /// Tells what came, as far as the host's credit goes.
    fn read_on(&self) {
        let mut news = News::default();
        let mut reading = lock(&self.read);
        loop {
            let mut cx = Context::from_waker(&self.on_readable);
            if !reading.rest.is_empty() && reading.credit == 0 {
                let Some(reader) = reading.reader.as_mut() else { break };
                if let Poll::Ready(why) = stopped(reader, &mut cx) {
                    news.events.push(self.body_end(Err(why)));
                    news.is_over = true;
                    *reading = Reading::default();
                }
                break;
            }
            if !reading.rest.is_empty() {
                let most = len_usize(reading.credit).min(reading.rest.len());
                let data = reading.rest.split_to(most);
                reading.credit -= len_u64(data.len());
                news.events.push(Event { data, ..self.event(RING_EV_BODY) });
                continue;
            }
            let Some(reader) = reading.reader.as_mut() else { break };
            match next(reader, &mut cx) {
                Poll::Pending => break,
                Poll::Ready(Ok(Some(data))) => reading.rest = data,
                Poll::Ready(end) => {
                    news.events.push(self.body_end(end.map(|_| ())));
                    news.is_over = true;
                    reading.reader = None;
                    break;
                }
            }
        }
        // Under the lock: bytes keep their order whoever tells of them.
        let added = self.queue.add(std::mem::take(&mut news.events));
        drop(reading);
        self.queue.announce(added);
        if added == Added::Dropped {
            self.reset(true, true);
        }
        self.tell_over(&news);
    }

    /// Sees whether it is broken or takes bytes again.
    fn look(&self) {
        let mut news = News::default();
        let mut writing = lock(&self.write);
        let Some(writer) = writing.writer.as_mut() else { return };
        let mut cx = Context::from_waker(&self.on_writable);
        if let Poll::Ready(why) = broken(writer, &mut cx) {
            news.events.push(self.write_end(why));
            news.is_over = true;
            writing.writer = None;
        } else if std::mem::take(&mut writing.armed) {
            news.events.push(self.event(RING_EV_WRITABLE));
        }
        let added = self.queue.add(std::mem::take(&mut news.events));
        drop(writing);
        self.queue.announce(added);
        self.tell_over(&news);
    }

    /// Forgets a stream when all its ways have ended.
    fn tell_over(&self, news: &News) {
        if !news.is_over {
            return;
        }
        let reads = {
            let reading = lock(&self.read);
            reading.reader.is_some() || !reading.rest.is_empty()
        };
        if !reads
            && lock(&self.write).writer.is_none()
            && let Some(handle) = self.handle.upgrade()
        {
            handle.forget_stream(self.id);
        }
    }

    fn safely(&self, act: impl FnOnce(&Self)) {
        if let Some(handle) = self.handle.upgrade() {
            handle.safely(|| act(self));
        }
    }

    fn body_end(&self, end: Result<(), Broken>) -> Event {
        let event = Event { b: 1, ..self.event(RING_EV_BODY) };
        match end {
            Ok(()) => event,
            Err(why) => said(event, &reset(why)),
        }
    }

    fn write_end(&self, why: Broken) -> Event {
        said(self.event(RING_EV_WRITABLE), &reset(why))
    }

    fn event(&self, kind: u32) -> Event {
        Event { tag: self.tag, id: self.id, kind, ..Event::default() }
    }
}

fn next(reader: &mut StreamReader, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Broken>> {
    pin!(reader.next()).poll(cx)
}

fn stopped(reader: &mut StreamReader, cx: &mut Context<'_>) -> Poll<Broken> {
    pin!(reader.broken()).poll(cx)
}

fn broken(writer: &mut StreamWriter, cx: &mut Context<'_>) -> Poll<Broken> {
    pin!(writer.broken()).poll(cx)
}

fn reset(why: Broken) -> Fault {
    Fault::new(status::RING_RESET, why.to_string())
}

fn said(event: Event, fault: &Fault) -> Event {
    let data = Bytes::copy_from_slice(fault.text.as_bytes());
    Event { status: fault.code, data, ..event }
}

const READY: Poll<io::Result<()>> = Poll::Ready(Ok(()));
