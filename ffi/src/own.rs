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

use libring::Canceller;
use ring_core::ids::len_u64;
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::handle::{Handle, Sink, lock};
use crate::pager::Pager;
use crate::queue::{Event, Queue, User};
use crate::scan::failed;
use crate::serve::{Route, Session};
use crate::status;
use crate::stream::Stream;
use crate::types::RING_EV_DONE;

/// Ids from here on are given here; core never makes so many calls.
pub(crate) const OWN: u64 = 1 << 63;

/// All of it, of one node.
#[derive(Default)]
pub(crate) struct Own {
    /// Ids given, less [`OWN`].
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
            Does::Request(..) => Some(&mut self.requests),
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
    /// Dropped, it ends the task.
    Track(#[expect(dead_code, reason = "it is only dropped")] oneshot::Sender<()>),
}

/// What is to be cancelled.
enum Found {
    Request(Canceller),
    Handle(Arc<Route>),
    Respond,
    Track,
}

impl Own {
    /// An id, which no more than `streams` others follow.
    pub(crate) fn new_ids(&self, streams: usize) -> u64 {
        OWN + self.given.fetch_add(1 + len_u64(streams), Ordering::Relaxed)
    }

    /// Whether an id was given.
    pub(crate) fn was_given(&self, id: u64) -> bool {
        id >= OWN && id - OWN < self.given.load(Ordering::Relaxed)
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
            None if self.was_given(id) => Err(Fault::closed()),
            None => Err(Fault::invalid("no such stream")),
        }
    }

    fn ops_that(&self, matches: impl Fn(&Entry) -> bool) -> Vec<u64> {
        lock(&self.ops).all.iter().filter(|(_, entry)| matches(entry)).map(|(&id, _)| id).collect()
    }
}

impl Handle {
    /// Ends an operation; false: it has ended before.
    pub(crate) fn end_op(&self, id: u64, status: Result<u64, Fault>) -> bool {
        let Some(entry) = self.own.take_op(id) else { return false };
        let event = match status {
            Ok(a) => Event { tag: entry.tag, id, kind: RING_EV_DONE, a, ..Event::default() },
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
            Does::Track(_) => Found::Track,
        });
        match found {
            // Its DONE comes when core knows what became of it.
            Some(Found::Request(canceller)) => {
                canceller.cancel();
                true
            }
            Some(Found::Handle(route)) => route.close(self) && self.end_op(id, Err(cancelled())),
            Some(Found::Track) => self.end_op(id, Err(cancelled())),
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
            Does::Request(..) | Does::Respond => false,
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
