//! Requests to the owner of a key, to a member, or to the leader of a partition, and the handlers that answer them.

mod asking;
mod handler;
mod host;
mod monitoring;
mod stream;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use ring_core::ids::{MemberId, RequestId};
use ring_core::io::Refused;
use ring_core::request::{self as core, Failure, Kind, Side, StreamId, Target, Way};
use tokio::sync::oneshot;

pub(crate) use self::asking::AskingTable;
pub use self::handler::{HandleError, HandlerError, Incoming};
pub(crate) use self::handler::{Handler, Routes};
use self::host::Asking;
pub(crate) use self::host::{Talk, Talks};
pub(crate) use self::monitoring::{Trace, add as add_monitoring};
use self::stream::Open;
pub use self::stream::{StreamReader, StreamWriter};
use crate::error::Error;
use crate::mailbox::{Closed, PushError};
use crate::node::Node;
use crate::partition::Partition;
use crate::shared::{Item, Shared};

/// What is asked of a handler: a route, and what belongs to it.
///
/// By default a request is sent again, to the next in line, when it is not known whether it was handled: the owner died, or
/// the connection to it was lost. Its handler sees by [`Incoming::attempt`] that it may not be the first. A request that is
/// [`once`](Request::once), or that has streams, ends with [`Failure::OutcomeUnknown`] instead.
#[derive(Clone, Debug)]
pub struct Request {
    route: String,
    headers: Vec<(String, Bytes)>,
    body: Bytes,
    streams: Vec<(String, Way)>,
    kind: Kind,
    deadline: Option<Duration>,
}

impl Request {
    /// With an empty body, and the node's deadline.
    #[must_use]
    pub fn new(route: impl Into<String>) -> Self {
        Self {
            route: route.into(),
            headers: Vec::new(),
            body: Bytes::new(),
            streams: Vec::new(),
            kind: Kind::Retried,
            deadline: None,
        }
    }

    /// With this body.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// With one stream more: to the handler, from it, or both.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>, way: Way) -> Self {
        self.streams.push((name.into(), way));
        self
    }

    /// Handled once at most.
    #[must_use]
    pub fn once(mut self) -> Self {
        self.kind = Kind::Once;
        self
    }

    /// Not answered: see [`Node::fire`].
    #[must_use]
    pub fn one_way(mut self) -> Self {
        self.kind = Kind::OneWay;
        self
    }

    /// Answered within this time.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }
}

/// What a handler answers.
#[derive(Debug, Default)]
pub struct Response {
    /// Names and values.
    pub headers: Vec<(String, Bytes)>,
    /// The body.
    pub body: Bytes,
    streams: Open,
}

impl Response {
    /// With this body.
    #[must_use]
    pub fn new(body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..Self::default() }
    }

    /// With one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The reading end of a stream of the request or of the response; none if there is none, or it was taken before.
    /// Streams that are not taken are given up with the response.
    pub fn reader(&mut self, name: &str) -> Option<StreamReader> {
        self.streams.reader(name)
    }

    /// The writing end; see [`Response::reader`].
    pub fn writer(&mut self, name: &str) -> Option<StreamWriter> {
        self.streams.writer(name)
    }

    /// All ends that were not taken, by the names of their streams.
    pub fn ends(&mut self) -> Vec<(String, Option<StreamReader>, Option<StreamWriter>)> {
        self.streams.drain()
    }
}

impl<T: Into<Bytes>> From<T> for Response {
    fn from(body: T) -> Self {
        Self::new(body)
    }
}

/// A request under way. Dropped before it is answered, it is given up.
pub struct Call {
    request: RequestId,
    shared: Arc<Shared>,
    answer: Option<oneshot::Receiver<Result<Response, Error>>>,
    streams: Open,
}

impl Call {
    /// The reading end of one of its streams; none if there is none, or it was taken before.
    pub fn reader(&mut self, name: &str) -> Option<StreamReader> {
        self.streams.reader(name)
    }

    /// The writing end; see [`Call::reader`]. It waits until the request is handled.
    pub fn writer(&mut self, name: &str) -> Option<StreamWriter> {
        self.streams.writer(name)
    }

    /// What gives the request up while somebody else waits for its answer.
    #[must_use]
    pub fn canceller(&self) -> Canceller {
        Canceller { request: self.request, shared: Arc::clone(&self.shared) }
    }

    /// Waits for the answer. Streams that were not taken go over to the response.
    ///
    /// # Errors
    /// [`Error::Request`] says what became of it.
    pub async fn response(mut self) -> Result<Response, Error> {
        let answer = self.answer.as_mut().expect("taken only at the end");
        // A sender that is gone without a word never reached the core: the node has ended.
        let closed = Err(Failure::Closed { maybe: false }.into());
        let result = answer.await.unwrap_or(closed);
        self.answer = None;
        let mut response = result?;
        response.streams.extend(std::mem::take(&mut self.streams));
        Ok(response)
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if self.answer.is_some() {
            self.shared.talk(Talk::Cancel(self.request));
        }
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Gives a request up: see [`Call::canceller`].
#[derive(Clone)]
pub struct Canceller {
    request: RequestId,
    shared: Arc<Shared>,
}

impl Canceller {
    /// The request ends with [`Failure::Cancelled`], which says whether it may have been handled, unless it has ended
    /// before; then its streams end.
    pub fn cancel(&self) {
        self.shared.talk(Talk::Cancel(self.request));
    }
}

impl fmt::Debug for Canceller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Canceller").field("request", &self.request).finish_non_exhaustive()
    }
}

/// Requests. Each ends within its deadline; after an error the caller knows whether it certainly was not handled or may have
/// been ([`Error::is_outcome_unknown`]). A request that this node handles itself goes the same way, with the same results.
///
/// The ring is no lock: while members learn of a change two of them may handle requests for one key. What needs one place
/// belongs into a partition ([`Partition::request`]).
impl Node {
    /// Has a request handled by the owner of a key.
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not accepted. [`Error::Request`] says what became of it.
    pub async fn request(
        &self,
        key: impl Into<Bytes>,
        request: Request,
    ) -> Result<Response, Error> {
        self.call(key, request)?.response().await
    }

    /// Begins a request to the owner of a key. For requests with streams, which may be written and read before the answer.
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not accepted; nothing happened.
    pub fn call(&self, key: impl Into<Bytes>, request: Request) -> Result<Call, Error> {
        self.inner.shared.call_handler(Target::Key(key.into()), request)
    }

    /// Has a request handled by a member, which may be this one.
    ///
    /// # Errors
    /// As [`Node::request`].
    pub async fn request_to(&self, member: MemberId, request: Request) -> Result<Response, Error> {
        self.call_member(member, request)?.response().await
    }

    /// Begins a request to a member; see [`Node::call`].
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not accepted; nothing happened.
    pub fn call_member(&self, member: MemberId, request: Request) -> Result<Call, Error> {
        self.inner.shared.call_handler(Target::Member(member), request)
    }

    /// Sends a request to the owner of a key and does not wait for its answer: resolves when it is handed to the
    /// connection. It is handled once at most, and nobody says whether it was. It holds no place among the requests in
    /// flight.
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not accepted. [`Error::Request`]: it was not sent.
    pub async fn fire(&self, key: impl Into<Bytes>, request: Request) -> Result<(), Error> {
        self.call(key, request.one_way())?.response().await?;
        Ok(())
    }

    /// From now on this handler answers the requests for a route that this node is responsible for.
    ///
    /// It runs on the caller's tokio runtime, or on the node's own when there is none; then it must not block. A handler
    /// that panics answers with [`HandlerError::PANICKED`]; one that does not answer until the caller's deadline is
    /// dropped there. What the handler captures lives as long as the node: use [`Incoming::node`] in it instead of a clone,
    /// which would keep the node open for ever.
    ///
    /// # Errors
    /// [`HandleError`]: the route cannot be handled, or is handled already.
    pub fn handle<F, A, R>(&self, route: &str, handler: F) -> Result<(), HandleError>
    where
        F: Fn(Incoming) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, HandlerError>> + Send + 'static,
        R: Into<Response> + 'static,
    {
        self.add_handler(Some(route), Handler::new(handler, self.inner.executor()))
    }

    /// From now on this handler answers the requests for all routes that have none of their own.
    ///
    /// # Errors
    /// [`HandleError::Taken`]: there is one already.
    pub fn handle_rest<F, A, R>(&self, handler: F) -> Result<(), HandleError>
    where
        F: Fn(Incoming) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, HandlerError>> + Send + 'static,
        R: Into<Response> + 'static,
    {
        self.add_handler(None, Handler::new(handler, self.inner.executor()))
    }

    /// All handlers are there that are to be: from now on a request without one ends with
    /// [`RequestFailure::NoRoute`](crate::RequestFailure::NoRoute). For a node that was opened with
    /// [`Options::hold_requests`](crate::Options::hold_requests); any other serves from the beginning.
    pub fn serve(&self) {
        self.inner.shared.routes.serve();
    }

    /// Takes the handler of a route away, or with none that of all routes that have none of their own. What it is handling
    /// goes on. False: there is none.
    pub fn unhandle(&self, route: Option<&str>) -> bool {
        self.inner.shared.routes.remove(route)
    }

    fn add_handler(&self, route: Option<&str>, handler: Handler) -> Result<(), HandleError> {
        self.inner.shared.routes.add(route, handler)
    }
}

impl Partition {
    /// Has a request handled by the leader of the partition's shard, beside the data: see [`Incoming::partition`].
    ///
    /// # Errors
    /// As [`Node::request`].
    pub async fn request(&self, request: Request) -> Result<Response, Error> {
        self.begin(request)?.response().await
    }

    /// Begins a request to the partition; see [`Node::call`].
    ///
    /// # Errors
    /// [`Error::Refused`]: it was not accepted; nothing happened.
    pub fn begin(&self, request: Request) -> Result<Call, Error> {
        let deadline = request.deadline.or(Some(self.deadline()));
        let target = Target::Partition(Bytes::copy_from_slice(self.name().as_bytes()));
        self.shared().call_handler(target, Request { deadline, ..request })
    }
}

impl Shared {
    fn call_handler(self: &Arc<Self>, target: Target, request: Request) -> Result<Call, Error> {
        let Request { route, headers, body, streams, kind, deadline } = request;
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let number = RequestId(number);
        let mut open = Open::default();
        let mut ends = Vec::with_capacity(streams.len());
        for (index, (name, way)) in (0..).zip(&streams) {
            let stream = StreamId { side: Side::Caller(number), index };
            ends.push((stream, open.add(self, stream, name, *way, Way::Up)));
        }
        let held =
            route.len() + body.len() + headers.iter().map(|h| h.0.len() + h.1.len()).sum::<usize>();
        let deadline = self.clock.instant() + deadline.unwrap_or(self.options.deadline);
        let (receiver, is_alone) = self.asking.begin(number, deadline);
        let what = core::Request { target, kind, route, headers, body, streams, deadline };
        let asking = Asking { request: number, what, ends };
        let item = Item::Talk(Talk::Ask(Box::new(asking)));
        // Who is alone has nobody to share a turn with; others wait for core's thread, and share its turns.
        let put = self.put_if_room(item, held + ITEM_BYTES, is_alone);
        if let Err(error) = put {
            drop(self.asking.end(number));
            return Err(match error {
                PushError::Full { limit } => {
                    Refused::Full { what: "the core's inbox", limit }.into()
                }
                PushError::Closed => Failure::Closed { maybe: false }.into(),
            });
        }
        let shared = Arc::clone(self);
        Ok(Call { request: number, shared, answer: Some(receiver), streams: open })
    }

    /// Hands core something about requests, unless the node has ended.
    pub(crate) fn talk(&self, talk: Talk) {
        let _: Result<(), Closed> = self.put(Item::Talk(talk), 0);
    }

    /// Hands core a handler's answer. The only one that runs has nobody to share a turn with.
    fn respond(&self, talk: Talk) -> Result<(), Closed> {
        let is_alone = self.handling.load(Ordering::Relaxed) <= 1;
        let item = Item::Talk(talk);
        if is_alone { self.put_here(item, 0) } else { self.put(item, 0) }
    }
}

/// What a waiting request counts beside its bytes.
const ITEM_BYTES: usize = 512;
