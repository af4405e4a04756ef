//! Handlers of this node, and the requests that they have handed to their host.
//!
//! A request takes these steps, each at most once:
//!
//! 1. The runtime gives it to [`Route::serve`], a task. It waits for a place among the requests that wait in the queue:
//!    a host that does not drain holds so many and no more, and core turns further ones away when too many wait.
//! 2. It becomes a [`Session`] and an event. What the request says is kept until the event is drained. The event holds the
//!    place until it leaves the queue, also if the request ends before: so no more events wait than there are places.
//! 3. The host answers: the answer goes to the task, and through it to core.
//!
//! At the request's deadline core drops the task, wherever it stands. Before 2. nobody knows of it; between 2. and the
//! drain its event is taken back; after the drain the host is told by GONE. When the handler is cancelled or the queue
//! freed, what was not drained is answered with an error; when the node is closed or the queue freed, so is what was.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Instant;

use bytes::Bytes;
use libring::{Error, HandlerError, Incoming, RequestFailure, Response, Way};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

use crate::fault::Fault;
use crate::handle::{Handle, Sink};
use crate::message::{Fields, ways};
use crate::own::{Does, Entry, cancelled};
use crate::queue::{Added, Event, Queue, Source, Taken};
use crate::request::Parts;
use crate::scan::failed;
use crate::status;
use crate::stream::{End, Stream};
use crate::sync::lock;
use crate::types::{
    RING_EV_GONE, RING_EV_REQUEST, RING_FIELD_KEY, RING_FIELD_PARTITION, RING_FIELD_ROUTE,
};

/// What a host wants to handle.
pub(crate) struct Wish {
    /// None: all routes without a handler.
    pub(crate) route: Option<String>,
    /// Most requests in the queue.
    pub(crate) places: usize,
}

/// An answer, and to what.
pub(crate) struct Reply {
    pub(crate) session: u64,
    pub(crate) result: Result<Parts, HandlerError>,
}

/// A handler.
pub(crate) struct Route {
    id: u64,
    tag: u64,
    queue: Arc<Queue>,
    name: Option<String>,
    /// Weak: it lies in the node's table of routes.
    handle: Weak<Handle>,
    places: Arc<Semaphore>,
    /// Held while a request is handed out, so that none is after it is set.
    is_closed: Mutex<bool>,
}

impl Route {
    pub(crate) fn begin(
        handle: &Arc<Handle>,
        tag: u64,
        wish: Wish,
        queue: Arc<Queue>,
    ) -> Result<u64, Fault> {
        handle.own.check_lasting()?;
        let id = handle.own.new_op(0);
        let route = Arc::new(Self {
            id,
            tag,
            queue: Arc::clone(&queue),
            name: wish.route,
            handle: Arc::downgrade(handle),
            places: Arc::new(Semaphore::new(wish.places)),
            is_closed: Mutex::new(false),
        });
        let does = Does::Handle(Arc::clone(&route));
        handle.own.add_op(id, Entry { tag, sink: Sink::Queue(queue), does });
        let serving = Arc::clone(&route);
        let serve = move |incoming| {
            let (serving, handle) = (Arc::clone(&serving), Weak::clone(&serving.handle));
            async move {
                let served = Handle::task(handle, serving.serve(incoming)).await;
                // The node halts, so its caller does not get this: whether it was handled is not known.
                served.unwrap_or_else(|| Err(given_up()))
            }
        };
        let added = match route.name.as_deref() {
            Some(name) => handle.node.handle(name, serve),
            None => handle.node.handle_rest(serve),
        };
        if let Err(error) = added
            && handle.own.take_op(id).is_some()
        {
            return Err(error.into());
        }
        if handle.closing.load(Ordering::SeqCst) {
            handle.cancel_own(id); // the closer may have looked before this one was there
        }
        Ok(id)
    }

    /// No request is handed out any more, and those that were not drained are given up. False: it was closed before, by
    /// somebody who may still be at it, and who ends the operation.
    pub(crate) fn close(&self, handle: &Handle) -> bool {
        if std::mem::replace(&mut *lock(&self.is_closed), true) {
            return false;
        }
        handle.node.unhandle(self.name.as_deref());
        self.places.close();
        let waiting: Vec<Arc<Session>> = {
            let mut sessions = lock(&handle.own.sessions);
            let waits = |_: &u64, session: &mut Arc<Session>| {
                session.route == self.id && session.is_waiting()
            };
            sessions.open.extract_if(.., waits).map(|(_, session)| session).collect()
        };
        for session in waiting {
            session.give_up();
        }
        true
    }

    async fn serve(self: Arc<Self>, mut incoming: Incoming) -> Result<Response, HandlerError> {
        let place = tokio::select! {
            biased;
            // It frees its place among those that core has handled at a time.
            () = incoming.cancelled() => return Err(given_up()),
            place = Arc::clone(&self.places).acquire_owned() => place.map_err(|_| given_up())?,
        };
        let (session, mut answered) = self.hand_out(&mut incoming, place).ok_or_else(given_up)?;
        let owed = Owed(session);
        let answer = tokio::select! {
            biased;
            answer = &mut answered => answer,
            () = incoming.cancelled() => {
                if !owed.0.tell_gone() {
                    return Err(given_up());
                }
                answered.await
            }
        };
        answer.map_err(|_| given_up())?.give(&mut incoming)
    }

    /// Makes an event of a request; none: the handler is closed.
    fn hand_out(
        &self,
        incoming: &mut Incoming,
        place: OwnedSemaphorePermit,
    ) -> Option<(Arc<Session>, oneshot::Receiver<Answer>)> {
        let handle = self.handle.upgrade()?;
        #[cfg(feature = "test-ops")]
        assert_ne!(incoming.route(), TEST_PANIC_ROUTE, "asked for, where a request is handed out");
        let streams = incoming.streams().to_vec();
        let id = handle.own.new_session(streams.len());
        let mut opened = Vec::with_capacity(streams.len());
        for (id, (name, way)) in (id + 1..).zip(&streams) {
            let end = End { id, tag: self.tag, writes_up: false };
            let (reads, writes) = (*way != Way::Down, *way != Way::Up);
            let reader = if reads { incoming.reader(name) } else { None };
            let writer = if writes { incoming.writer(name) } else { None };
            opened.push(handle.open_stream(end, &self.queue, reader, writer));
        }
        let (answer, answered) = oneshot::channel();
        let said = Said::of(incoming, streams);
        let session = Arc::new(Session {
            id,
            tag: self.tag,
            route: self.id,
            queue: Arc::clone(&self.queue),
            handle: Weak::clone(&self.handle),
            streams: opened,
            state: Mutex::new(State { shown: Shown::No(Box::new(said)), answer: Some(answer) }),
        });
        let event = session.event(incoming.attempt(), place);
        let is_closed = lock(&self.is_closed);
        if *is_closed || handle.closing.load(Ordering::SeqCst) {
            drop(is_closed);
            session.give_up();
            return None;
        }
        lock(&handle.own.sessions).open.insert(id, Arc::clone(&session));
        let added = self.queue.add([event]);
        drop(is_closed);
        self.queue.announce(added);
        if added == Added::Dropped {
            lock(&handle.own.sessions).open.remove(&id);
            session.give_up();
            return None;
        }
        Some((session, answered))
    }
}

/// A request that was handed out.
pub(crate) struct Session {
    id: u64,
    tag: u64,
    /// The handler's operation.
    route: u64,
    queue: Arc<Queue>,
    handle: Weak<Handle>,
    streams: Vec<Arc<Stream>>,
    state: Mutex<State>,
}

struct State {
    shown: Shown,
    /// To the task; none when there is nothing to answer any more.
    answer: Option<oneshot::Sender<Answer>>,
}

/// Whether the host has a request.
enum Shown {
    /// It waits in the queue.
    No(Box<Said>),
    /// Its event is complete, and was not taken yet.
    Made,
    Yes,
    /// It ended before.
    Never,
    /// It ended while the host took it, and the host is to be told.
    Missed,
}

impl Shown {
    /// Takes it back if the host does not have it; true if so.
    fn take_back(&mut self) -> bool {
        match self {
            Self::No(_) | Self::Made => {
                *self = Self::Never;
                true
            }
            Self::Yes | Self::Never | Self::Missed => false,
        }
    }
}

/// What a request says.
struct Said {
    route: String,
    target: Option<(u32, Bytes)>,
    headers: Vec<(String, Bytes)>,
    streams: Vec<(String, Way)>,
    name: libring::RequestName,
    deadline: Option<Instant>,
    one_way: bool,
    body: Bytes,
}

impl Said {
    fn of(incoming: &Incoming, streams: Vec<(String, Way)>) -> Self {
        let key = incoming.key().map(|key| (RING_FIELD_KEY, key.clone()));
        let partition = || {
            let name = incoming.partition_name()?;
            Some((RING_FIELD_PARTITION, Bytes::copy_from_slice(name.as_bytes())))
        };
        Self {
            route: incoming.route().to_owned(),
            target: key.or_else(partition),
            headers: incoming.headers().to_vec(),
            streams,
            name: incoming.id(),
            deadline: Instant::now().checked_add(incoming.time_left()),
            one_way: incoming.is_one_way(),
            body: incoming.body().clone(),
        }
    }

    fn fields(self, id: u64) -> (Bytes, u64) {
        let mut fields = Fields::default();
        fields.bytes(RING_FIELD_ROUTE, self.route.as_bytes());
        if let Some((kind, target)) = &self.target {
            fields.bytes(*kind, target);
        }
        for (name, value) in &self.headers {
            fields.header(name, value);
        }
        for (stream, (name, way)) in (id + 1..).zip(&self.streams) {
            fields.stream(name, stream, ways(*way));
        }
        fields.request(self.name.caller.0, self.name.boot.0, self.name.number);
        let left = self.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let left = left.and_then(|left| u64::try_from(left.as_nanos()).ok());
        fields.time_left(left.unwrap_or(u64::MAX));
        if self.one_way {
            fields.one_way();
        }
        fields.with_body(self.body)
    }
}

impl Session {
    pub(crate) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    fn is_waiting(&self) -> bool {
        matches!(lock(&self.state).shown, Shown::No(_) | Shown::Made)
    }

    /// What tells of it, which holds its place for as long as it waits: also when the request has ended long before.
    fn event(self: &Arc<Self>, attempt: u32, place: OwnedSemaphorePermit) -> Event {
        Event {
            tag: self.tag,
            id: self.id,
            kind: RING_EV_REQUEST,
            b: u64::from(attempt),
            source: Some(Arc::new(Placed { session: Arc::clone(self), _place: place })),
            then: Some(Arc::<Self>::clone(self)),
            ..Event::default()
        }
    }

    /// Nothing is answered any more: its caller gets an error. For who has taken it out of the table. True.
    pub(crate) fn give_up(&self) -> bool {
        let mut state = lock(&self.state);
        let was_waiting = state.shown.take_back();
        let answer = state.answer.take();
        drop(state);
        if was_waiting {
            self.reset_streams(); // nobody was told of them
        }
        drop(answer);
        true
    }

    /// The host is told that nobody waits; false: it does not have the request, or not any more.
    fn tell_gone(&self) -> bool {
        if !matches!(lock(&self.state).shown, Shown::Yes) {
            return false;
        }
        self.push_gone(0);
        true
    }

    /// The task has ended without an answer.
    fn on_late(&self) {
        let Some(handle) = self.handle.upgrade() else { return };
        let mut sessions = lock(&handle.own.sessions);
        if sessions.open.remove(&self.id).is_none() {
            return; // it was answered, or given up
        }
        let was_waiting = {
            let mut state = lock(&self.state);
            state.answer = None;
            state.shown.take_back()
        };
        if !was_waiting {
            // Before anybody can find it gone.
            sessions.is_late(self.id);
        }
        drop(sessions);
        if was_waiting {
            self.reset_streams();
        } else {
            self.push_gone(1);
        }
    }

    fn reset_streams(&self) {
        for stream in &self.streams {
            stream.reset(true, true);
        }
    }

    /// Not when the node is closing: the host is done with requests, and nothing may follow CLOSED.
    fn push_gone(&self, a: u64) {
        let is_open = |handle: Arc<Handle>| !handle.closing.load(Ordering::SeqCst);
        if self.handle.upgrade().is_some_and(is_open) {
            let (tag, id, kind) = (self.tag, self.id, RING_EV_GONE);
            self.queue.push(Event { tag, id, kind, a, ..Event::default() });
        }
    }
}

/// A request that was handed out, as it lies in the queue.
struct Placed {
    session: Arc<Session>,
    _place: OwnedSemaphorePermit,
}

impl Source for Placed {
    fn fill(&self, event: &mut Event) -> bool {
        let mut state = lock(&self.session.state);
        let said = match std::mem::replace(&mut state.shown, Shown::Made) {
            Shown::No(said) => said,
            Shown::Made => return true,
            ended @ (Shown::Yes | Shown::Never | Shown::Missed) => {
                state.shown = ended;
                return false;
            }
        };
        (event.data, event.a) = said.fields(self.session.id);
        true
    }

    fn on_shown(&self) {
        let mut state = lock(&self.session.state);
        let made = matches!(state.shown, Shown::Made);
        state.shown = if made { Shown::Yes } else { Shown::Missed };
    }
}

impl Taken for Session {
    fn on_taken(self: Arc<Self>) {
        let Some(handle) = self.handle.upgrade() else { return };
        handle.safely(|| {
            self.streams.iter().for_each(|stream| stream.start());
            let was_missed = matches!(lock(&self.state).shown, Shown::Missed);
            if was_missed {
                lock(&handle.own.sessions).is_late(self.id);
                self.push_gone(1);
            }
        });
    }
}

/// Held by the task of a request that was handed out.
struct Owed(Arc<Session>);

impl Drop for Owed {
    fn drop(&mut self) {
        if let Some(handle) = self.0.handle.upgrade() {
            handle.safely(|| self.0.on_late());
        }
    }
}

/// An answer on its way to the task. Dropped before it is given, its operation ends: nobody waits for it any more.
struct Answer {
    handle: Weak<Handle>,
    queue: Option<Arc<Queue>>,
    id: u64,
    tag: u64,
    result: Option<Result<Parts, HandlerError>>,
}

impl Answer {
    /// Hands the answer to the runtime. Its operation ends when core has it: a node that is closed then still sends it, and
    /// the streams that it adds are core's.
    fn give(mut self, incoming: &mut Incoming) -> Result<Response, HandlerError> {
        let (result, handle) = (self.result.take(), self.handle.upgrade());
        let (Some(result), Some(handle)) = (result, handle) else { return Err(given_up()) };
        if incoming.is_cancelled() {
            return Err(given_up()); // so is the operation, with this
        }
        let mut opened = Vec::new();
        let answer = result.map(|Parts { headers, body, streams }| {
            if let Some(queue) = &self.queue {
                for (id, (name, way)) in (self.id + 1..).zip(&streams) {
                    let end = End { id, tag: self.tag, writes_up: false };
                    let (reader, writer) = incoming.add_stream(name, *way);
                    opened.push(Stream::new(&handle, end, queue, reader, writer));
                }
            }
            let mut response = Response::new(body);
            response.headers = headers;
            response
        });
        incoming.on_answered(move |is_given| self.given(&opened, is_given));
        answer
    }

    /// Core has the answer, or never will.
    fn given(self, opened: &[Arc<Stream>], is_given: bool) {
        let Some(handle) = self.handle.upgrade() else { return };
        handle.safely(|| {
            if !is_given {
                let closed = RequestFailure::Closed { maybe: false };
                handle.end_op(self.id, Err(handle.fault(Error::Request(closed))));
                return;
            }
            opened.iter().for_each(|stream| handle.own.add_stream(stream));
            handle.end_op(self.id, Ok(0));
            opened.iter().for_each(|stream| stream.start());
        });
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.upgrade() {
            handle.safely(|| {
                handle.end_op(self.id, Err(cancelled()));
            });
        }
    }
}

impl Handle {
    /// Answers a request. The ids of the streams that the answer adds follow that of the operation.
    pub(crate) fn begin_respond(
        self: &Arc<Self>,
        tag: u64,
        reply: Reply,
        sink: Sink,
    ) -> Result<u64, Fault> {
        let Reply { session, result } = reply;
        let streams = result.as_ref().map_or(0, |parts| parts.streams.len());
        let queue = match &sink {
            Sink::Queue(queue) => Some(Arc::clone(queue)),
            Sink::Call(_) if streams == 0 => None,
            Sink::Call(_) => {
                return Err(Fault::invalid("streams need a queue: ring_submit()"));
            }
        };
        let mut sessions = lock(&self.own.sessions);
        let found = sessions.open.remove(&session);
        let was_late = found.is_none() && sessions.late.remove(&session);
        drop(sessions);
        if found.is_none() && !was_late {
            return Err(if self.own.was_session(session) {
                Fault::new(status::RING_MISUSE, "the request was answered before, or for the host")
            } else {
                Fault::invalid("target: no such request")
            });
        }
        let id = self.own.new_op(streams);
        let Some(session) = found else {
            self.tell_end(&sink, failed(tag, id, &cancelled()));
            return Ok(id);
        };
        session.streams.iter().for_each(|stream| stream.reset_unwanted());
        self.own.add_op(id, Entry { tag, sink, does: Does::Respond });
        let handle = Arc::downgrade(self);
        let answer = Answer { handle, queue, id, tag, result: Some(result) };
        let sender = {
            let mut state = lock(&session.state);
            state.shown.take_back(); // a host that answers what it was not shown
            state.answer.take()
        };
        if let Some(sender) = sender {
            // One that the task takes no more ends with its drop.
            drop(sender.send(answer));
        }
        Ok(id)
    }
}

fn given_up() -> HandlerError {
    let text = "the host has given up: its handler, its queue or its node is closing";
    HandlerError::new(HandlerError::DROPPED, text)
}

/// Panics where a request for it is handed out.
#[cfg(feature = "test-ops")]
const TEST_PANIC_ROUTE: &str = "test-panic";

#[cfg(test)]
mod tests {
    use super::*;

    /// However often callers give up, a host that does not drain has no more events than places.
    #[test]
    fn a_request_that_ended_keeps_its_place_until_its_event_leaves_the_queue() {
        let queue = Arc::new(Queue::new(None).unwrap());
        let places = Arc::new(Semaphore::new(1));
        let hand_out = |id| {
            let place = Arc::clone(&places).try_acquire_owned().ok()?;
            let said = Said {
                route: "r".into(),
                target: None,
                headers: Vec::new(),
                streams: Vec::new(),
                name: libring::RequestName {
                    caller: ring_core::ids::MemberId(1),
                    boot: ring_core::ids::Boot(1),
                    number: 1,
                },
                deadline: None,
                one_way: false,
                body: Bytes::new(),
            };
            let session = Arc::new(Session {
                id,
                tag: 0,
                route: 0,
                queue: Arc::clone(&queue),
                handle: Weak::new(),
                streams: Vec::new(),
                state: Mutex::new(State { shown: Shown::No(Box::new(said)), answer: None }),
            });
            queue.push(session.event(1, place));
            Some(session)
        };
        let drain = || queue.drain(|_| crate::queue::Take::Took).unwrap();
        hand_out(1).unwrap().give_up();
        assert!(hand_out(2).is_none(), "its event waits");
        assert_eq!(drain(), 0, "there is nothing to tell");
        let shown = hand_out(3).unwrap();
        assert_eq!(drain(), 1);
        assert!(matches!(lock(&shown.state).shown, Shown::Yes));
        drop(hand_out(4).unwrap());
        queue.free();
        assert_eq!(places.available_permits(), 1);
    }
}
