//! What a node owes its host beside core's calls: operations of its own, requests that it handed out, ends of streams.
//!
//! Invariants:
//! 1. Whoever takes an operation out of `ops` tells its DONE, and nobody else: so each has exactly one.
//! 2. A request that was handed out is in `sessions` until it is answered, given up or late. Whoever takes it out
//!    decides which.
//! 3. When the node has ended, `end_own` has emptied all of it: nothing is told afterwards.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use libring::{Canceller, Failure};
use ring_core::ids::len_u64;
use ring_core::request::STREAMS_MAX;
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::handle::{Handle, Sink};
use crate::pager::Pager;
use crate::queue::{Event, Queue, User};
use crate::scan::failed;
use crate::serve::{Route, Session};
use crate::status;
use crate::stream::Stream;
use crate::sync::lock;
use crate::types::RING_EV_DONE;

/// Ids from here on are given here; core never makes so many calls. They say what they name, so that one that was
/// never given, or to something else, is known as such for ever: bits 0 to 6 are 0, or the place of a stream among those
/// that follow an id; 7 to 13 how many follow it; 14 whether it is that of a request that was handed out; from 15 on
/// a number that counts up. Of these there are 2^48: as many as a million a second make in nine years.
pub(crate) const OWN: u64 = 1 << 63;
const INDEX: u64 = 127;
const COUNT_SHIFT: u32 = 7;
const SESSION: u64 = 1 << 14;
const NUMBER_SHIFT: u32 = 15;
const _: () = assert!(STREAMS_MAX <= 127);

/// All of it, of one node.
#[derive(Default)]
pub(crate) struct Own {
    /// So many numbers were given.
    given: AtomicU64,
    ops: Mutex<Ops>,
    pub(crate) pagers: Mutex<BTreeMap<u64, Arc<Pager>>>,
    pub(crate) sessions: Mutex<Sessions>,
    streams: Mutex<BTreeMap<u64, Arc<Stream>>>,
}

/// Requests that were handed out.
#[derive(Default)]
pub(crate) struct Sessions {
    pub(crate) open: BTreeMap<u64, Arc<Session>>,
    /// Those whose deadline passed before they were answered, the latest [`LATE_MAX`]: their hosts may answer them still.
    pub(crate) late: BTreeSet<u64>,
}

impl Sessions {
    pub(crate) fn is_late(&mut self, session: u64) {
        self.late.insert(session);
        if self.late.len() > LATE_MAX {
            self.late.pop_first();
        }
    }
}

/// Operations that have not ended.
#[derive(Default)]
struct Ops {
    all: BTreeMap<u64, Entry>,
    /// So many are requests of this node...
    requests: usize,
    /// ... and so many last until something happens.
    lasting: usize,
}

impl Ops {
    fn count_of(&mut self, does: &Does) -> Option<&mut usize> {
        match does {
            Does::Request(..) | Does::Task { .. } => Some(&mut self.requests),
            Does::Handle(_) | Does::Track(_) => Some(&mut self.lasting),
            Does::Respond => None, // as many as there are requests handed out
        }
    }
}

/// An operation that has not ended.
pub(crate) struct Entry {
    pub(crate) tag: u64,
    pub(crate) sink: Sink,
    pub(crate) does: Does,
}

pub(crate) enum Does {
    /// And whether the streams of its response are taken.
    Request(Canceller, bool),
    Handle(Arc<Route>),
    Respond,
    /// Something short.
    Task {
        /// It changes something.
        changes: bool,
    },
    /// Dropped, it ends the task.
    Track(#[expect(dead_code, reason = "it is only dropped")] oneshot::Sender<()>),
}

/// What is to be cancelled.
enum Found {
    Request(Canceller),
    Handle(Arc<Route>),
    Respond,
    Track,
    Task { changes: bool },
}

impl Own {
    /// An operation's id; those of its streams, [`STREAMS_MAX`] at most, follow it.
    pub(crate) fn new_op(&self, streams: usize) -> u64 {
        self.new_ids(0, streams)
    }

    /// The id of a request that is handed out; those of its streams follow it.
    pub(crate) fn new_session(&self, streams: usize) -> u64 {
        self.new_ids(SESSION, streams)
    }

    /// The id of a stream that follows nothing.
    pub(crate) fn new_stream(&self) -> u64 {
        self.new_ids(0, 1) + 1
    }

    fn new_ids(&self, kind: u64, streams: usize) -> u64 {
        let number = self.given.fetch_add(1, Ordering::Relaxed);
        OWN | number << NUMBER_SHIFT | kind | len_u64(streams) << COUNT_SHIFT
    }

    /// Whether an id was given to a request that was handed out.
    pub(crate) fn was_session(&self, id: u64) -> bool {
        self.was_given(id) && id & SESSION != 0 && id & INDEX == 0
    }

    /// Whether an id was given to a stream.
    fn was_stream(&self, id: u64) -> bool {
        let (index, count) = (id & INDEX, id >> COUNT_SHIFT & INDEX);
        self.was_given(id) && (1..=count).contains(&index)
    }

    fn was_given(&self, id: u64) -> bool {
        id >= OWN && (id & !OWN) >> NUMBER_SHIFT < self.given.load(Ordering::Relaxed)
    }

    /// Whether so many requests of this node have not ended: RING_AGAIN.
    pub(crate) fn check_requests(&self, most: usize) -> Result<(), Fault> {
        check_room(lock(&self.ops).requests, most)
    }

    /// Whether too many handlers and tracked keys have not ended: RING_AGAIN.
    pub(crate) fn check_lasting(&self) -> Result<(), Fault> {
        check_room(lock(&self.ops).lasting, LASTING_MAX)
    }

    pub(crate) fn add_op(&self, id: u64, entry: Entry) {
        let mut ops = lock(&self.ops);
        if let Some(count) = ops.count_of(&entry.does) {
            *count += 1;
        }
        ops.all.insert(id, entry);
    }

    /// Takes an operation out: its end is to be told.
    pub(crate) fn take_op(&self, id: u64) -> Option<Entry> {
        let mut ops = lock(&self.ops);
        let entry = ops.all.remove(&id)?;
        if let Some(count) = ops.count_of(&entry.does) {
            *count -= 1;
        }
        Some(entry)
    }

    pub(crate) fn add_stream(&self, stream: &Arc<Stream>) {
        lock(&self.streams).insert(stream.id(), Arc::clone(stream));
    }

    /// A stream that has not ended.
    pub(crate) fn stream(&self, id: u64) -> Result<Arc<Stream>, Fault> {
        match lock(&self.streams).get(&id) {
            Some(stream) => Ok(Arc::clone(stream)),
            None if self.was_stream(id) => Err(Fault::closed()),
            None => Err(Fault::invalid("no such stream: the id was never given to one")),
        }
    }

    fn ops_that(&self, matches: impl Fn(&Entry) -> bool) -> Vec<u64> {
        lock(&self.ops).all.iter().filter(|(_, entry)| matches(entry)).map(|(&id, _)| id).collect()
    }
}

impl Handle {
    /// Ends an operation; false: it has ended before.
    pub(crate) fn end_op(&self, id: u64, status: Result<u64, Fault>) -> bool {
        self.end_op_with(id, status.map(|a| (a, Bytes::new())))
    }

    /// As `end_op`, with what the operation found.
    pub(crate) fn end_op_with(&self, id: u64, status: Result<(u64, Bytes), Fault>) -> bool {
        let Some(entry) = self.own.take_op(id) else { return false };
        let (tag, kind) = (entry.tag, RING_EV_DONE);
        let event = match status {
            Ok((a, data)) => Event { tag, id, kind, a, data, ..Event::default() },
            Err(fault) => failed(entry.tag, id, &fault),
        };
        self.tell_end(&entry.sink, event);
        true
    }

    /// Tells the end of an operation that was taken out.
    pub(crate) fn tell_end(&self, sink: &Sink, event: Event) {
        sink.push(event);
        self.end_one();
    }

    pub(crate) fn forget_stream(&self, id: u64) {
        let forgotten = lock(&self.own.streams).remove(&id);
        drop(forgotten); // with no lock held
    }

    /// Cancels an operation of this layer, or gives up a request that was handed out. False: it has ended.
    pub(crate) fn cancel_own(self: &Arc<Self>, id: u64) -> bool {
        let pager = lock(&self.own.pagers).get(&id).cloned();
        if let Some(pager) = pager {
            return pager.cancel(self);
        }
        let found = lock(&self.own.ops).all.get(&id).map(|entry| match &entry.does {
            Does::Request(canceller, _) => Found::Request(canceller.clone()),
            Does::Handle(route) => Found::Handle(Arc::clone(route)),
            Does::Respond => Found::Respond,
            Does::Task { changes } => Found::Task { changes: *changes },
            Does::Track(_) => Found::Track,
        });
        match found {
            // Its DONE comes when core knows what became of it.
            Some(Found::Request(canceller)) => {
                canceller.cancel();
                true
            }
            Some(Found::Handle(route)) => route.close(self) && self.end_op(id, Err(cancelled())),
            Some(Found::Track | Found::Task { changes: false }) => {
                self.end_op(id, Err(cancelled()))
            }
            Some(Found::Task { changes: true }) => self.end_op(id, Err(unknown())),
            Some(Found::Respond) => false,
            None => {
                let session = lock(&self.own.sessions).open.remove(&id);
                session.is_some_and(|session| session.give_up())
            }
        }
    }

    /// The node is to end: what lasts until it is cancelled is cancelled.
    pub(crate) fn cancel_lasting(self: &Arc<Self>) {
        let lasts = |entry: &Entry| match entry.does {
            Does::Handle(_) | Does::Track(_) => true,
            Does::Request(..) | Does::Respond | Does::Task { .. } => false,
        };
        let pagers: Vec<u64> = lock(&self.own.pagers).keys().copied().collect();
        for id in pagers.into_iter().chain(self.own.ops_that(lasts)) {
            self.cancel_own(id);
        }
        let sessions = std::mem::take(&mut lock(&self.own.sessions).open);
        for session in sessions.into_values() {
            session.give_up();
        }
    }

    /// The node has ended: so has everything of it.
    pub(crate) fn end_own(&self) {
        let sessions = std::mem::take(&mut *lock(&self.own.sessions));
        drop(sessions); // with no lock held
        let streams = std::mem::take(&mut *lock(&self.own.streams));
        for stream in streams.into_values() {
            stream.end();
        }
        for id in self.own.ops_that(|_| true) {
            let Some(entry) = self.own.take_op(id) else { continue };
            let fault = match &entry.does {
                // Core's thread has ended and said nothing: it may have been handled.
                Does::Request(..) => {
                    let maybe = libring::RequestFailure::Closed { maybe: true };
                    self.fault(libring::Error::Request(maybe))
                }
                Does::Task { changes: true } => {
                    self.fault(libring::Error::Failed(Failure::Closed { maybe: true }))
                }
                Does::Task { changes: false } => {
                    self.fault(libring::Error::Failed(Failure::Closed { maybe: false }))
                }
                Does::Handle(_) | Does::Respond | Does::Track(_) => cancelled(),
            };
            self.tell_end(&entry.sink, failed(entry.tag, id, &fault));
        }
    }
}

impl User for Handle {
    fn on_queue_freed(self: Arc<Self>, queue: &Queue) {
        let is_it = |other: &Arc<Queue>| std::ptr::eq(Arc::as_ptr(other), queue);
        let pagers: Vec<u64> = lock(&self.own.pagers)
            .iter()
            .filter(|(_, pager)| is_it(&pager.queue))
            .map(|(&id, _)| id)
            .collect();
        let ops = self.own.ops_that(|entry| match &entry.sink {
            Sink::Queue(other) => is_it(other),
            Sink::Call(_) => false,
        });
        for id in pagers.into_iter().chain(ops) {
            self.cancel_own(id);
        }
        let sessions: Vec<Arc<Session>> = {
            let mut sessions = lock(&self.own.sessions);
            sessions
                .open
                .extract_if(.., |_, session| is_it(session.queue()))
                .map(|(_, s)| s)
                .collect()
        };
        for session in sessions {
            session.give_up();
        }
        let streams: Vec<Arc<Stream>> = lock(&self.own.streams)
            .values()
            .filter(|stream| is_it(&stream.queue))
            .cloned()
            .collect();
        for stream in streams {
            stream.reset(true, true);
        }
    }
}

pub(crate) fn cancelled() -> Fault {
    Fault::new(status::RING_CANCELLED, "cancelled")
}

fn unknown() -> Fault {
    Fault::from(libring::Error::Failed(Failure::OutcomeUnknown))
}

fn check_room(count: usize, most: usize) -> Result<(), Fault> {
    if count < most {
        return Ok(());
    }
    let text = format!("{count} operations of this kind are under way; try again later");
    Err(Fault::new(status::RING_AGAIN, text))
}

/// Handlers and tracked keys of a node.
const LASTING_MAX: usize = 1 << 16;
/// So many requests that were late are known as such.
const LATE_MAX: usize = 1 << 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Streams, operations and requests are told apart by their ids alone, also long after they ended.
    #[test]
    fn an_id_says_what_it_was_given_to() {
        let own = Own::default();
        let (op, session, alone) = (own.new_op(2), own.new_session(STREAMS_MAX), own.new_stream());
        let last = session + len_u64(STREAMS_MAX);
        for stream in [op + 1, op + 2, session + 1, last, alone] {
            assert!(own.was_stream(stream) && !own.was_session(stream), "{stream:#x}");
            assert_eq!(own.stream(stream).err().map(|fault| fault.code), Some(status::RING_CLOSED));
        }
        assert!(own.was_session(session) && !own.was_session(op) && !own.was_session(alone));
        let later = Own::default();
        for _ in 0..4 {
            later.new_op(0);
        }
        let never = later.new_session(1);
        for other in [0, 1, OWN - 1, op, op + 3, session, last + 1, alone + 1, never, never + 1] {
            assert!(!own.was_stream(other), "{other:#x}");
            assert_eq!(own.stream(other).err().map(|fault| fault.code), Some(status::RING_INVALID));
        }
        assert!(!own.was_session(never));
        assert!(own.new_op(0) > alone, "they rise");
    }
}
