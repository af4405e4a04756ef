//! Requests of this node, and the keys that it tracks: futures of the runtime that become events.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use libring::{
    Error, Failure, MemberId, Refused, Request, RequestFailure, Response, StreamReader,
    StreamWriter, Tracked, Way,
};
use tokio::sync::oneshot;

use crate::fault::Fault;
use crate::handle::{Handle, Sink};
use crate::message::Fields;
use crate::own::{Does, Entry};
use crate::queue::{Event, Queue, Taken};
use crate::scan::failed;
use crate::status;
use crate::stream::{End, Stream};
use crate::sync::lock;
use crate::types::{RING_DOWN, RING_EV_DONE, RING_EV_NEXT, RING_UP};

/// A request that a host wants handled.
pub(crate) struct Ask {
    pub(crate) to: To,
    pub(crate) route: String,
    pub(crate) parts: Parts,
    pub(crate) once: bool,
    pub(crate) one_way: bool,
    /// Those that the response adds.
    pub(crate) takes_streams: bool,
}

/// Who is to handle it.
pub(crate) enum To {
    Owner(Bytes),
    /// None: this one.
    Member(Option<MemberId>),
    /// Of the operation's partition.
    Leader,
}

/// What a request and a response have.
#[derive(Default)]
pub(crate) struct Parts {
    pub(crate) headers: Vec<(String, Bytes)>,
    pub(crate) body: Bytes,
    pub(crate) streams: Vec<(String, Way)>,
}

/// What is awaited of a key.
#[derive(Clone, Copy)]
pub(crate) enum Awaited {
    Leaving,
    LeavingOrNext,
    Coming,
}

/// An operation whose end a task owes; dropped with the task, it ends all the same.
struct Owed {
    handle: Weak<Handle>,
    id: u64,
    is_told: bool,
}

impl Owed {
    fn new(handle: &Arc<Handle>, id: u64) -> Self {
        Self { handle: Arc::downgrade(handle), id, is_told: false }
    }

    fn answered(mut self, result: Result<Response, Error>) {
        self.is_told = true;
        if let Some(handle) = self.handle.upgrade() {
            handle.safely(|| handle.on_response(self.id, result));
        }
    }

    fn ended(mut self, result: Result<u64, Error>) {
        self.is_told = true;
        if let Some(handle) = self.handle.upgrade() {
            handle.safely(|| {
                handle.end_op(self.id, result.map_err(|error| handle.fault(error)));
            });
        }
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        if let Some(handle) = self.handle.upgrade() {
            let closed = Error::Request(RequestFailure::Closed { maybe: true });
            handle.safely(|| {
                handle.end_op(self.id, Err(handle.fault(closed)));
            });
        }
    }
}

impl Handle {
    /// Begins a request. The ids of its streams follow its own.
    pub(crate) fn begin_request(
        self: &Arc<Self>,
        (tag, partition, timeout): (u64, &str, Option<Duration>),
        ask: Ask,
        sink: Sink,
    ) -> Result<u64, Fault> {
        let Ask { to, route, parts, once, one_way, takes_streams } = ask;
        let Parts { headers, body, streams } = parts;
        let queue = match &sink {
            Sink::Queue(queue) => Some(Arc::clone(queue)),
            Sink::Call(_) if streams.is_empty() && !takes_streams => None,
            Sink::Call(_) => {
                return Err(Fault::invalid("streams need a queue: ring_submit()"));
            }
        };
        if !one_way {
            self.own.check_requests(self.requests_max)?;
        }
        let mut request = Request::new(route).body(body);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        for (name, way) in &streams {
            request = request.stream(name.clone(), *way);
        }
        request = if once { request.once() } else { request };
        request = if one_way { request.one_way() } else { request };
        request = match timeout {
            Some(timeout) => request.deadline(timeout),
            None => request,
        };
        let begun = match to {
            To::Owner(key) => self.node.call(key, request),
            To::Member(member) => {
                let member = member.unwrap_or_else(|| self.node.whoami());
                self.node.call_member(member, request)
            }
            To::Leader => self.node.partition(partition).begin(request),
        };
        let mut call = begun.map_err(|error| self.fault(error))?;
        let id = self.own.new_op(streams.len());
        let mut opened = Vec::with_capacity(streams.len());
        if let Some(queue) = queue {
            for (id, (name, way)) in (id + 1..).zip(&streams) {
                let end = End { id, tag, writes_up: true };
                let (reads, writes) = (*way != Way::Up, *way != Way::Down);
                let reader = if reads { call.reader(name) } else { None };
                let writer = if writes { call.writer(name) } else { None };
                opened.push(self.open_stream(end, &queue, reader, writer));
            }
        }
        self.own
            .add_op(id, Entry { tag, sink, does: Does::Request(call.canceller(), takes_streams) });
        let owed = Owed::new(self, id);
        let answered = async move { owed.answered(call.response().await) };
        self.spawn(answered);
        for stream in opened {
            stream.start();
        }
        Ok(id)
    }

    /// This node's end of a stream, of which nothing is told yet.
    pub(crate) fn open_stream(
        self: &Arc<Self>,
        end: End,
        queue: &Arc<Queue>,
        reader: Option<StreamReader>,
        writer: Option<StreamWriter>,
    ) -> Arc<Stream> {
        let stream = Stream::new(self, end, queue, reader, writer);
        self.own.add_stream(&stream);
        stream
    }

    fn on_response(self: &Arc<Self>, id: u64, result: Result<Response, Error>) {
        let Some(Entry { tag, sink, does }) = self.own.take_op(id) else { return };
        let takers = if let Does::Request(_, true) = does { Some(&sink) } else { None };
        let mut opened = Vec::new();
        let make = || match result {
            Ok(response) => self.response(tag, id, response, takers, &mut opened),
            Err(Error::Request(RequestFailure::Handler { code, text })) => {
                let fault = Fault::new(status::RING_HANDLER_ERROR, text);
                Event { a: u64::from(code), ..failed(tag, id, &fault) }
            }
            Err(error) => failed(tag, id, &self.fault(error)),
        };
        let made = catch_unwind(AssertUnwindSafe(make));
        let event = made.unwrap_or_else(|panic| self.event_of_panic(tag, id, panic));
        self.tell_end(&sink, event);
        for stream in opened {
            stream.start();
        }
    }

    fn response(
        self: &Arc<Self>,
        tag: u64,
        id: u64,
        mut response: Response,
        takers: Option<&Sink>,
        opened: &mut Vec<Arc<Stream>>,
    ) -> Event {
        let mut fields = Fields::default();
        for (name, value) in &response.headers {
            fields.header(name, value);
        }
        // Streams that nobody takes are given up: who answers may add as many as he likes.
        if let Some(Sink::Queue(queue)) = takers {
            for (name, reader, writer) in response.ends() {
                let stream = self.own.new_stream();
                let down = if reader.is_some() { RING_DOWN } else { 0 };
                let up = if writer.is_some() { RING_UP } else { 0 };
                fields.stream(&name, stream, down | up);
                let end = End { id: stream, tag, writes_up: true };
                opened.push(self.open_stream(end, queue, reader, writer));
            }
        }
        let (data, a) = fields.with_body(response.body);
        Event { tag, id, kind: RING_EV_DONE, a, data, ..Event::default() }
    }

    /// Dials an address, too.
    pub(crate) fn begin_join(
        self: &Arc<Self>,
        about: (u64, Option<Duration>),
        address: String,
        sink: Sink,
    ) -> Result<u64, Fault> {
        let node = self.node.clone();
        let joined = async move { node.join([address]).await.map(|()| Bytes::new()) };
        self.begin_task(about, sink, true, joined)
    }

    /// Numbers about the node, as Prometheus reads them.
    pub(crate) fn begin_metrics(
        self: &Arc<Self>,
        about: (u64, Option<Duration>),
        sink: Sink,
    ) -> Result<u64, Fault> {
        let node = self.node.clone();
        let measured = async move { Ok(node.metrics().await?.to_prometheus().into()) };
        self.begin_task(about, sink, false, measured)
    }

    /// Begins something short, which core answers at its next turn, and which `changes` something or not.
    fn begin_task(
        self: &Arc<Self>,
        (tag, timeout): (u64, Option<Duration>),
        sink: Sink,
        changes: bool,
        task: impl Future<Output = Result<Bytes, Error>> + Send + 'static,
    ) -> Result<u64, Fault> {
        self.own.check_requests(self.requests_max)?;
        let id = self.own.new_op(0);
        self.own.add_op(id, Entry { tag, sink, does: Does::Task { changes } });
        let timeout = timeout.unwrap_or(self.deadline);
        let handle = Arc::downgrade(self);
        self.spawn(async move {
            let late = if changes { Failure::OutcomeUnknown } else { Failure::Deadline };
            let result = tokio::time::timeout(timeout, task).await;
            let result = result.unwrap_or(Err(Error::Failed(late)));
            // Without a word, as when the node ends, `end_own` tells its end.
            if let Some(handle) = handle.upgrade() {
                let result = result.map(|data| (0, data)).map_err(|error| handle.fault(error));
                handle.end_op_with(id, result);
            }
        });
        Ok(id)
    }

    /// Begins to wait for what becomes of a key.
    pub(crate) fn begin_track(
        self: &Arc<Self>,
        tag: u64,
        key: Bytes,
        awaited: Awaited,
        queue: Arc<Queue>,
    ) -> Result<u64, Fault> {
        self.own.check_lasting()?;
        let id = self.own.new_op(0);
        let (stop, stopped) = oneshot::channel();
        let sink = Sink::Queue(Arc::clone(&queue));
        self.own.add_op(id, Entry { tag, sink, does: Does::Track(stop) });
        let owed = Owed::new(self, id);
        let node = self.node.clone();
        let task = async move {
            let tracked = async {
                let mut track = match awaited {
                    Awaited::Leaving => node.track(&key).await?,
                    Awaited::LeavingOrNext => node.track_with_replica(&key).await?,
                    Awaited::Coming => node.replica(&key).await?,
                };
                let mut owner = None;
                while let Some(told) = track.next().await {
                    match told {
                        Tracked::Left { to } => owner = to,
                        Tracked::Came => owner = Some(node.whoami()),
                        Tracked::Next { new, old } => {
                            let (a, b) = (new.0, old.map_or(0, |old| old.0));
                            let event =
                                Event { tag, id, kind: RING_EV_NEXT, a, b, ..Event::default() };
                            drained(&queue, event).await;
                        }
                    }
                }
                match (owner, node.halt()) {
                    (Some(owner), _) => Ok(owner.0),
                    (None, Some(_)) => Err(Refused::Halted.into()),
                    // A key leaves for nobody, but does not come to nobody: the node has ended.
                    (None, None) if matches!(awaited, Awaited::Coming) => {
                        Err(Error::Failed(Failure::Closed { maybe: false }))
                    }
                    (None, None) => Ok(0),
                }
            };
            tokio::select! {
                _ = stopped => {}
                result = tracked => owed.ended(result),
            }
        };
        self.spawn(task);
        if self.closing.load(Ordering::SeqCst) {
            self.cancel_own(id); // the closer may have looked before this one was there
        }
        Ok(id)
    }
}

/// Tells something, and waits until the host has taken it.
async fn drained(queue: &Queue, event: Event) {
    struct Signal(Mutex<Option<oneshot::Sender<()>>>);
    impl Taken for Signal {
        fn on_taken(self: Arc<Self>) {
            drop(lock(&self.0).take());
        }
    }
    let (signal, taken) = oneshot::channel();
    let then: Arc<dyn Taken> = Arc::new(Signal(Mutex::new(Some(signal))));
    queue.push(Event { then: Some(then), ..event });
    // Dropped without a word is what it waits for: the event was taken, or is gone with its queue.
    let _: Result<(), oneshot::error::RecvError> = taken.await;
}
