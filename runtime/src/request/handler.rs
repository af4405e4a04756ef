//! Handlers, and what they are given.

use std::collections::HashMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ring_core::ids::{MemberId, len_u64};
use ring_core::request::message::Fault;
use ring_core::request::{
    self as core, HandleId, NAME_BYTES_MAX, RequestName, Side, StreamId, Target, Way,
};
use tokio::runtime;
use tokio::sync::Notify;

use super::stream::{Ends, Open};
use super::{Response, StreamReader, StreamWriter, Talk};
use crate::node::Node;
use crate::partition::Partition;
use crate::shared::{Shared, catch, panic_text};

/// An answer that is an error: a code and a text, which reach the caller as
/// [`Failure::Handler`](ring_core::request::Failure::Handler).
///
/// Made with `?` from any error, with [`HandlerError::UNNAMED`] and the error's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HandlerError {
    /// The handler's own code. The highest few are taken: see the constants.
    pub code: u32,
    /// For people. Cut off at [`TEXT_BYTES_MAX`](ring_core::request::TEXT_BYTES_MAX).
    pub text: String,
}

impl HandlerError {
    /// The code of an error without one.
    pub const UNNAMED: u32 = 0;
    /// The handler's response was larger than its node allows.
    pub const TOO_LARGE: u32 = u32::MAX;
    /// The handler panicked.
    pub const PANICKED: u32 = u32::MAX - 1;
    /// The handler was dropped before it answered: its runtime has ended.
    pub const DROPPED: u32 = u32::MAX - 2;

    /// With a code and a text.
    #[must_use]
    pub fn new(code: u32, text: impl Into<String>) -> Self {
        Self { code, text: text.into() }
    }
}

impl<E: std::error::Error> From<E> for HandlerError {
    fn from(error: E) -> Self {
        Self::new(Self::UNNAMED, error.to_string())
    }
}

/// Why a route gets no handler. Nothing has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HandleError {
    /// A route has 1 to 255 bytes.
    Length(usize),
    /// It has a handler.
    Taken,
}

impl fmt::Display for HandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(len) => {
                write!(f, "a route has 1 to {NAME_BYTES_MAX} bytes, this one has {len}")
            }
            Self::Taken => f.write_str("the route has a handler already"),
        }
    }
}

impl std::error::Error for HandleError {}

/// A request, as its handler gets it.
pub struct Incoming {
    handle: core::Handle,
    streams: Open,
    pub(super) shared: Arc<Shared>,
    given: Arc<Given>,
}

/// What a handler and core's thread share.
#[derive(Default)]
pub(super) struct Given {
    /// Nobody waits for the answer any more.
    gone: AtomicBool,
    told: Notify,
    /// Streams that the response is to add.
    added: Mutex<Vec<(String, Way, Ends)>>,
    on_answered: Mutex<Option<OnAnswered>>,
}

/// Told whether core got the answer.
type OnAnswered = Box<dyn FnOnce(bool) + Send>;

impl Incoming {
    pub(super) fn new(
        handle: core::Handle,
        streams: Open,
        shared: Arc<Shared>,
        given: Arc<Given>,
    ) -> Self {
        Self { handle, streams, shared, given }
    }

    /// Names the request, the same in each of its attempts.
    #[must_use]
    pub fn id(&self) -> RequestName {
        self.handle.id
    }

    /// How often the request was sent, this time included. A later attempt may follow one that was handled, here or by
    /// another member, or one of which that is not so: the count also rises when a member that was asked is not the one, or
    /// has no room.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.handle.attempt
    }

    /// Who asks.
    #[must_use]
    pub fn caller(&self) -> MemberId {
        self.handle.id.caller
    }

    /// The route that was asked for.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.handle.route
    }

    /// The key whose owner was asked for, if it was by a key.
    #[must_use]
    pub fn key(&self) -> Option<&Bytes> {
        match &self.handle.target {
            Target::Key(key) => Some(key),
            Target::Member(_) | Target::Partition(_) => None,
        }
    }

    /// Names and values.
    #[must_use]
    pub fn headers(&self) -> &[(String, Bytes)] {
        &self.handle.headers
    }

    /// The value of the first header of this name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&Bytes> {
        let mut headers = self.handle.headers.iter();
        headers.find(|(known, _)| known == name).map(|(_, value)| value)
    }

    /// The body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.handle.body
    }

    /// True if nobody waits for the answer.
    #[must_use]
    pub fn is_one_way(&self) -> bool {
        self.handle.one_way
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn time_left(&self) -> Duration {
        self.handle.deadline.since(self.shared.clock.instant())
    }

    /// The reading end of one of the request's streams; none if there is none, or it was taken before. Streams that are not
    /// taken are given up with this value.
    pub fn reader(&mut self, name: &str) -> Option<StreamReader> {
        self.streams.reader(name)
    }

    /// The writing end; see [`Incoming::reader`].
    pub fn writer(&mut self, name: &str) -> Option<StreamWriter> {
        self.streams.writer(name)
    }

    /// The request's streams, by name, in the order in which the caller opened them.
    #[must_use]
    pub fn streams(&self) -> &[(String, Way)] {
        &self.handle.streams
    }

    /// Adds a stream to the response, from the handler to the caller. What is written to it waits until the handler has
    /// answered: write from another task.
    #[must_use]
    pub fn add_writer(&mut self, name: &str) -> Option<StreamWriter> {
        self.add(name, Way::Down).writer(name)
    }

    /// Adds a stream to the response, from the caller to the handler.
    #[must_use]
    pub fn add_reader(&mut self, name: &str) -> Option<StreamReader> {
        self.add(name, Way::Up).reader(name)
    }

    /// Adds a stream to the response, in any way: its ends here, by what `way` has for the handler.
    pub fn add_stream(
        &mut self,
        name: &str,
        way: Way,
    ) -> (Option<StreamReader>, Option<StreamWriter>) {
        let mut open = self.add(name, way);
        (open.reader(name), open.writer(name))
    }

    fn add(&self, name: &str, way: Way) -> Open {
        let mut open = Open::default();
        let mut added = self.given.added.lock();
        let index = u16::try_from(self.handle.streams.len() + added.len()).unwrap_or(u16::MAX);
        let stream = StreamId { side: Side::Handler(self.handle.handle), index };
        let ends = open.add(&self.shared, stream, name, way, Way::Down);
        added.push((name.to_owned(), way, ends));
        open
    }

    /// Resolves when nobody waits for the answer any more: the caller gave up or is gone. The handler may go on until its
    /// caller's deadline.
    pub async fn cancelled(&self) {
        self.given.cancelled().await;
    }

    /// True when nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.given.gone.load(Ordering::Acquire)
    }

    /// Has `told` run when this node has the answer, however the handler ends: from then on it is on its way even if the node
    /// is closed, and the streams that it adds can be written. False: the node has ended before. Takes the place of what was
    /// given here before. Runs where the handler does, and must not block.
    pub fn on_answered(&self, told: impl FnOnce(bool) + Send + 'static) {
        *self.given.on_answered.lock() = Some(Box::new(told));
    }

    /// This node; none when it is being dropped.
    #[must_use]
    pub fn node(&self) -> Option<Node> {
        self.shared.node()
    }

    /// The partition that was asked for, whose leader this member is; none if it was not by a partition, or the node is
    /// being dropped.
    #[must_use]
    pub fn partition(&self) -> Option<Partition> {
        self.other_partition(self.partition_name()?)
    }

    /// The name of the partition that was asked for, if it was by a partition.
    #[must_use]
    pub fn partition_name(&self) -> Option<&str> {
        match &self.handle.target {
            Target::Partition(name) => std::str::from_utf8(name).ok(),
            Target::Key(_) | Target::Member(_) => None,
        }
    }

    /// Any partition; its leader may be another member. None when the node is being dropped.
    #[must_use]
    pub fn other_partition(&self, name: &str) -> Option<Partition> {
        Some(self.node()?.partition(name))
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Incoming")
            .field("id", &self.handle.id)
            .field("attempt", &self.handle.attempt)
            .field("route", &self.handle.route)
            .field("body", &self.handle.body.len())
            .finish_non_exhaustive()
    }
}

impl Given {
    pub(super) fn tell_gone(&self) {
        self.gone.store(true, Ordering::Release);
        self.told.notify_waiters();
    }

    async fn cancelled(&self) {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            // Before the look: a word in between is not lost.
            told.as_mut().enable();
            if self.gone.load(Ordering::Acquire) {
                return;
            }
            told.await;
        }
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response, HandlerError>> + Send>>;

/// A handler, and where it runs.
#[derive(Clone)]
pub(crate) struct Handler {
    act: Arc<dyn Fn(Incoming) -> Answering + Send + Sync>,
    executor: Option<runtime::Handle>,
}

impl Handler {
    pub(crate) fn new<F, A, R>(handler: F, executor: Option<runtime::Handle>) -> Self
    where
        F: Fn(Incoming) -> A + Send + Sync + 'static,
        A: Future<Output = Result<R, HandlerError>> + Send + 'static,
        R: Into<Response> + 'static,
    {
        let act = move |incoming| -> Answering {
            let answer = handler(incoming);
            Box::pin(async move { answer.await.map(Into::into) })
        };
        Self { act: Arc::new(act), executor }
    }

    /// Runs it; its answer goes to core. None: there is nowhere to run it any more.
    pub(super) fn spawn(self, incoming: Incoming) -> Option<tokio::task::AbortHandle> {
        let executor = self.executor?;
        let owed = Owed {
            shared: Arc::clone(&incoming.shared),
            handle: incoming.handle.handle,
            given: Arc::clone(&incoming.given),
            answer: None,
        };
        let act = self.act;
        let task = async move {
            let mut owed = owed;
            let answer = catch(Box::pin(async move { act(incoming).await })).await;
            owed.answer = Some(answer.unwrap_or_else(|panic| {
                let text = panic_text(&*panic);
                Err(HandlerError::new(HandlerError::PANICKED, format!("it panicked: {text}")))
            }));
        };
        Some(executor.spawn(task).abort_handle())
    }
}

/// The answer that a handler owes. Given when it is dropped, however the handler ended.
struct Owed {
    shared: Arc<Shared>,
    handle: HandleId,
    given: Arc<Given>,
    answer: Option<Result<Response, HandlerError>>,
}

impl Drop for Owed {
    fn drop(&mut self) {
        let dropped =
            || HandlerError::new(HandlerError::DROPPED, "it was dropped without an answer");
        let answer = self.answer.take().unwrap_or_else(|| Err(dropped()));
        let added = std::mem::take(&mut *self.given.added.lock());
        let result = match answer {
            Ok(Response { headers, body, streams: _ }) => {
                let streams = added.iter().map(|(name, way, _)| (name.clone(), *way)).collect();
                Ok(core::Response { headers, body, streams })
            }
            Err(HandlerError { code, text }) => Err(Fault::Handler { code, text }),
        };
        let ends = added.into_iter().map(|(_, _, ends)| ends).collect();
        let put = self.shared.respond(Talk::Respond { handle: self.handle, result, ends });
        let told = self.given.on_answered.lock().take();
        if let Some(told) = told {
            told(put.is_ok());
        }
    }
}

/// Who handles what.
pub(crate) struct Routes {
    table: RwLock<Table>,
    /// More handlers are to come.
    held: AtomicBool,
}

#[derive(Default)]
struct Table {
    by_route: HashMap<String, Handler>,
    rest: Option<Handler>,
}

impl Routes {
    /// `held`: more handlers are to come, until [`Routes::serve`].
    pub(crate) fn new(held: bool) -> Self {
        Self { table: RwLock::default(), held: AtomicBool::new(held) }
    }

    pub(super) fn serve(&self) {
        self.held.store(false, Ordering::Release);
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load(Ordering::Acquire)
    }

    pub(super) fn add(&self, route: Option<&str>, handler: Handler) -> Result<(), HandleError> {
        let mut table = self.table.write();
        match route {
            None if table.rest.is_some() => return Err(HandleError::Taken),
            None => table.rest = Some(handler),
            Some(route) if route.is_empty() || route.len() > NAME_BYTES_MAX => {
                return Err(HandleError::Length(route.len()));
            }
            Some(route) if table.by_route.contains_key(route) => return Err(HandleError::Taken),
            Some(route) => {
                table.by_route.insert(route.to_owned(), handler);
            }
        }
        Ok(())
    }

    pub(super) fn remove(&self, route: Option<&str>) -> bool {
        let mut table = self.table.write();
        let removed = match route {
            None => table.rest.take(),
            Some(route) => table.by_route.remove(route),
        };
        drop(table); // before the handler: it may hold anything
        removed.is_some()
    }

    pub(super) fn of(&self, route: &str) -> Option<Handler> {
        let table = self.table.read();
        table.by_route.get(route).or(table.rest.as_ref()).cloned()
    }

    /// Drops all handlers, and what they hold.
    pub(crate) fn clear(&self) {
        let table = std::mem::take(&mut *self.table.write());
        drop(table); // with no lock held: a handler may hold anything
    }

    /// How many routes have a handler.
    pub(super) fn len(&self) -> u64 {
        len_u64(self.table.read().by_route.len())
    }
}
