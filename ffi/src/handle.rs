//! A node: its life and its operations.
//!
//! Invariants:
//! 1. Every operation that was accepted ends with exactly one DONE, pushed before it stops counting
//!    as in flight.
//! 2. When CLOSED is pushed nothing is in flight, and nothing is accepted any more.
//!
//! No lock is held while something is pushed into a queue.

use std::future::poll_fn;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libring::{
    Action, Bytes, Error, Event as NodeEvent, Halt, Keys, Member, MemberChange, MemberId, Node,
    Options, Refused, Reply, RequestId, RingEvent,
};

use ring_core::ids::len_u64;
use serde_json::Value;
use tracing::Dispatch;
use tracing::dispatcher::with_default;

use crate::fault::Fault;
use crate::guard;
use crate::op::{self, Listed, Op, There, What};
use crate::own::{OWN, Own};
use crate::pager::Pager;
use crate::queue::{Event, Queue, User};
use crate::scan::failed;
use crate::serve::Route;
use crate::status::{self, ring_status_t};
use crate::sync::{lock, wait, wait_until};
use crate::types::{
    RING_EV_CLOSED, RING_EV_DONE, RING_EV_FAULT, RING_EV_GATHERING, RING_EV_HALTED, RING_EV_LEADER,
    RING_EV_LEFT, RING_EV_MEMBER, RING_EV_MOVE, RING_EV_READY, RING_EV_RECONNECTING,
    RING_EV_REFUSED, RING_EV_REFUSED_BY, RING_EV_STATE, RING_EV_STAYS, RING_EV_STEAL,
    RING_EV_UNREACHABLE, RING_MEMBER_FAILED, RING_MEMBER_JOINED, RING_MEMBER_LEFT,
    RING_MEMBER_RECOVERED, RING_MEMBER_SUSPECT, RING_MEMBER_UPDATED,
};

/// A node and all that it owes.
pub(crate) struct Handle {
    forks: u32,
    pub(crate) node: Node,
    in_flight: AtomicUsize,
    pub(crate) closing: AtomicBool,
    /// Whoever closes waits no longer for what is in flight.
    hurry: AtomicBool,
    /// For who waits for `in_flight` or `hurry`.
    turn: Mutex<()>,
    changed: Condvar,
    pub(crate) own: Own,
    /// Told of the node's own events.
    audience: Option<Arc<Audience>>,
    /// Of operations that do not say.
    pub(crate) deadline: Duration,
    /// Most operations of `own`.
    pub(crate) requests_max: usize,
    closer: Mutex<Option<JoinHandle<()>>>,
    /// Where the threads of this layer log, as the node's do.
    logger: Option<Dispatch>,
}

/// Where a node's own events go.
struct Audience {
    queue: Arc<Queue>,
    /// The last event was told: that the node halted.
    is_halt_told: AtomicBool,
}

impl Audience {
    fn tell(&self, event: &NodeEvent) {
        if let NodeEvent::Halted { .. } = event
            && self.is_halt_told.swap(true, Ordering::SeqCst)
        {
            return;
        }
        told(event).into_iter().for_each(|event| self.queue.push(event));
    }
}

/// Where an operation's end goes.
#[derive(Clone)]
pub(crate) enum Sink {
    Queue(Arc<Queue>),
    /// To a thread that waits for this one.
    Call(Arc<OneEvent>),
}

/// An event that a thread waits for.
#[derive(Default)]
pub(crate) struct OneEvent {
    event: Mutex<Option<Event>>,
    came: Condvar,
}

impl OneEvent {
    fn wait(&self) -> Event {
        let mut event = lock(&self.event);
        loop {
            if let Some(event) = event.take() {
                return event;
            }
            event = wait(&self.came, event);
        }
    }
}

impl Sink {
    /// The queue, for what is told by many events.
    pub(crate) fn into_queue(self) -> Result<Arc<Queue>, Fault> {
        match self {
            Self::Queue(queue) => Ok(queue),
            Self::Call(_) => Err(Fault::invalid("it needs a queue: ring_submit()")),
        }
    }

    pub(crate) fn push(&self, event: Event) {
        match self {
            Self::Queue(queue) => queue.push(event),
            Self::Call(one) => {
                *lock(&one.event) = Some(event);
                one.came.notify_one();
            }
        }
    }
}

impl Handle {
    /// Opens a node, with the keys of this directory if one is named; blocks until it is up.
    pub(crate) fn open(
        mut options: Options,
        keys_dir: Option<String>,
        timeout: Option<Duration>,
        events: Option<Arc<Queue>>,
    ) -> Result<Arc<Self>, Fault> {
        let logger = options.logger.clone();
        let (requests_max, deadline) = (options.limits.requests, options.deadline);
        let audience = events.map(|queue| {
            let is_halt_told = AtomicBool::new(false);
            Arc::new(Audience { queue, is_halt_told })
        });
        let told = audience.clone();
        let open = move || -> Result<Node, Fault> {
            if let Some(dir) = keys_dir {
                let keys =
                    Keys::read(&dir).map_err(|e| Fault::invalid(format!("keys_dir: {e}")))?;
                options.keys = Some(keys);
            }
            let opened = match told {
                Some(told) => {
                    let listener = move |event| told.tell(&event);
                    block_on(Node::open_listening(options, listener), timeout)
                }
                None => block_on(Node::open(options), timeout),
            };
            let late = || {
                let text = "the node was not up in time: does a majority of its members run?";
                Fault::new(status::RING_TIMEOUT, text)
            };
            Ok(opened.ok_or_else(late)??)
        };
        let opened = spawn("ring-open", &logger, open).map_err(system)?.join();
        let node = opened.map_err(|panic| {
            let text = guard::panic_text(&*panic);
            guard::let_go(panic);
            Fault::panicked(&text)
        })??;
        Ok(Arc::new(Self {
            forks: guard::forks(),
            node,
            in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            turn: Mutex::new(()),
            changed: Condvar::new(),
            own: Own::default(),
            audience,
            deadline,
            requests_max,
            closer: Mutex::new(None),
            logger,
        }))
    }

    /// The node has ended. Who listens ended with it, perhaps before it heard why.
    fn tell_halt(&self) {
        if let (Some(audience), Some(reason)) = (&self.audience, self.node.halt()) {
            audience.tell(&NodeEvent::Halted { reason });
        }
    }

    /// Whether this process made it.
    pub(crate) fn same_process(&self) -> Result<(), Fault> {
        guard::same_process(self.forks)
    }

    /// Begins an operation.
    pub(crate) fn submit(self: &Arc<Self>, op: Op<'_>, sink: Sink) -> Result<u64, Fault> {
        self.begin_one()?;
        let begun = self.begin(op, sink);
        if begun.is_err() {
            self.end_one();
        }
        begun
    }

    /// Makes an operation and waits for its end.
    pub(crate) fn call(self: &Arc<Self>, op: Op<'_>) -> Result<Event, Fault> {
        let one = Arc::new(OneEvent::default());
        self.submit(op, Sink::Call(Arc::clone(&one)))?;
        Ok(one.wait())
    }

    /// Ends an operation for its submitter.
    pub(crate) fn cancel(self: &Arc<Self>, id: u64) -> Result<(), Fault> {
        let found = if id >= OWN { self.cancel_own(id) } else { self.node.abandon(RequestId(id)) };
        if found { Ok(()) } else { Err(Fault::invalid("no such operation, or it has ended")) }
    }

    /// Begins to close: refuses what comes, and pushes CLOSED when nothing is in flight any more, or
    /// when `timeout` has passed.
    pub(crate) fn close(
        self: &Arc<Self>,
        queue: Arc<Queue>,
        tag: u64,
        timeout: Option<Duration>,
    ) -> Result<(), Fault> {
        let mut closer = lock(&self.closer);
        if self.closing.swap(true, Ordering::SeqCst) {
            return Err(Fault::closed());
        }
        let this = Arc::clone(self);
        let thread = spawn("ring-close", &self.logger, move || {
            this.cancel_lasting();
            this.wait_for_flights(timeout);
            let gone = this.node.shut_down(!this.hurry.load(Ordering::SeqCst));
            this.end_own();
            this.tell_halt();
            let status = if gone { status::RING_OK } else { status::RING_OUTCOME_UNKNOWN };
            queue.push(Event { tag, kind: RING_EV_CLOSED, status, ..Event::default() });
        });
        match thread {
            Ok(thread) => *closer = Some(thread),
            Err(error) => {
                self.closing.store(false, Ordering::SeqCst);
                return Err(system(error));
            }
        }
        Ok(())
    }

    /// Stops at once and waits for it. Everything in flight ends.
    pub(crate) fn stop(self: Arc<Self>) {
        let mut closer = lock(&self.closer);
        self.closing.store(true, Ordering::SeqCst);
        self.hurry.store(true, Ordering::SeqCst);
        drop(lock(&self.turn));
        self.changed.notify_all();
        let this = Arc::clone(&self);
        let thread = closer.take().map_or_else(
            || {
                spawn("ring-free", &self.logger, move || {
                    this.cancel_lasting();
                    this.node.shut_down(false);
                    this.end_own();
                    this.tell_halt();
                })
            },
            Ok,
        );
        drop(closer);
        match thread {
            Ok(thread) => {
                if let Err(panic) = thread.join() {
                    guard::let_go(panic);
                }
            }
            // No thread is left for it: its own threads end, nobody waits for them.
            Err(_) => self.node.fail_stop(),
        }
    }

    /// A defect was met in this layer: the node halts, and says so from now on.
    pub(crate) fn defect(&self, text: &str) {
        self.node.halt_on_defect(text);
        drop(lock(&self.turn)); // the closer is before its look, or waits
        self.changed.notify_all();
    }

    /// Does something on a thread of the node: a panic is a defect.
    pub(crate) fn safely(&self, act: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
            let text = guard::panic_text(&*panic);
            guard::let_go(panic);
            self.defect(&text);
        }
    }

    /// A task of this layer on a node's thread. None: it panicked, which is a defect, and the node halts.
    pub(crate) async fn task<T>(handle: Weak<Self>, task: impl Future<Output = T>) -> Option<T> {
        let mut task = Box::pin(task);
        poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| task.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Some),
            Err(panic) => {
                let text = guard::panic_text(&*panic);
                guard::let_go(panic);
                if let Some(handle) = handle.upgrade() {
                    handle.defect(&text);
                }
                Poll::Ready(None)
            }
        })
        .await
    }

    /// Runs such a task on the node's own threads.
    pub(crate) fn spawn(self: &Arc<Self>, task: impl Future<Output = ()> + Send + 'static) {
        let task = Self::task(Arc::downgrade(self), task);
        self.node.spawn(async {
            let _: Option<()> = task.await;
        });
    }

    /// What `error` is for a host that must know of defects.
    pub(crate) fn fault(&self, error: Error) -> Fault {
        let fault = Fault::from(error);
        if fault.code != status::RING_CLOSED
            && fault.code != status::RING_HALTED
            && fault.code != status::RING_OUTCOME_UNKNOWN
        {
            return fault;
        }
        if let Some(what) = self.node.defect() {
            return Fault::panicked(what);
        }
        match self.node.halt() {
            Some(halt) if fault.code == status::RING_HALTED => {
                Fault::new(status::RING_HALTED, halt.to_string())
            }
            Some(_) | None => fault,
        }
    }

    fn begin_one(&self) -> Result<(), Fault> {
        if let Some(what) = self.node.defect() {
            return Err(Fault::panicked(what));
        }
        // Counted first: a closer that has not seen this one is seen here.
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        if self.closing.load(Ordering::SeqCst) {
            self.end_one();
            return Err(Fault::closed());
        }
        Ok(())
    }

    pub(crate) fn end_one(&self) {
        let before = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if before == 1 && self.closing.load(Ordering::SeqCst) {
            drop(lock(&self.turn)); // the closer is before its look, or waits
            self.changed.notify_all();
        }
    }

    fn begin(self: &Arc<Self>, op: Op<'_>, sink: Sink) -> Result<u64, Fault> {
        let (partition, tag, timeout) = (op.partition, op.tag, op.timeout);
        if let (Sink::Queue(queue), true) = (&sink, op.what.outlives_its_submission()) {
            let this: Weak<Self> = Arc::downgrade(self);
            let this: Weak<dyn User> = this;
            queue.join(&this);
        }
        let action = match op.what {
            What::Call(action) => action,
            What::Status(member) => {
                Action::Status { member: member.unwrap_or_else(|| self.node.whoami()) }
            }
            What::Leave { member, force } => {
                let member = member.unwrap_or_else(|| self.node.whoami());
                Action::Leave { member, force }
            }
            What::Ask(question) => {
                let listed = |m: Member| {
                    let Member { id, name, address, weight, standing, state, tags, connected } = m;
                    Listed { id, name, address, weight, standing, state, tags, connected }
                };
                let there = || {
                    let view = self.node.view();
                    let members = view.members.into_iter().map(listed).collect();
                    There { members, clients: view.clients }
                };
                let me = self.node.whoami();
                sink.push(op::answered(tag, &question, me, &self.node.ring(), there));
                self.end_one();
                return Ok(0);
            }
            What::Pages(pages) => {
                let queue = sink.into_queue()?;
                return Pager::begin(self, queue, (tag, partition, timeout), pages);
            }
            What::Request(ask) => return self.begin_request((tag, partition, timeout), *ask, sink),
            What::Respond(reply) => return self.begin_respond(tag, *reply, sink),
            What::Handle(wish) => return Route::begin(self, tag, wish, sink.into_queue()?),
            What::Track(key, awaited) => {
                return self.begin_track(tag, key, awaited, sink.into_queue()?);
            }
            What::Join(address) => return self.begin_join((tag, timeout), address, sink),
            What::Metrics => return self.begin_metrics((tag, timeout), sink),
            What::Serve => {
                self.node.serve();
                sink.push(Event { tag, kind: RING_EV_DONE, ..Event::default() });
                self.end_one();
                return Ok(0);
            }
            #[cfg(feature = "test-ops")]
            What::Echo(data) => {
                let kind = RING_EV_DONE;
                sink.push(Event { tag, kind, data, ..Event::default() });
                self.end_one();
                return Ok(0);
            }
            #[cfg(feature = "test-ops")]
            #[expect(clippy::panic, reason = "that is what it is for")]
            What::PanicHere => panic!("asked for, in a call"),
            #[cfg(feature = "test-ops")]
            What::PanicThere => return self.begin_panic(tag, sink),
        };
        let this = Arc::clone(self);
        let told = move |request: RequestId, answer| this.end(tag, request, answer, &sink);
        let begun = self.node.submit(partition, action, timeout, told);
        begun.map(|request| request.0).map_err(|error| self.fault(error))
    }

    /// An operation has ended. Never unwinds: the thread is the node's.
    fn end(&self, tag: u64, request: RequestId, answer: Result<Reply, Error>, sink: &Sink) {
        let made = catch_unwind(AssertUnwindSafe(|| self.done(tag, request.0, answer)));
        let event = made.unwrap_or_else(|panic| self.event_of_panic(tag, request.0, panic));
        sink.push(event);
        self.end_one();
    }

    fn done(&self, tag: u64, id: u64, answer: Result<Reply, Error>) -> Event {
        match answer {
            Err(error @ (Error::Refused(Refused::Halted) | Error::Failed(_)))
                if !matches!(error, Error::Failed(libring::Failure::Interrupted)) =>
            {
                failed(tag, id, &self.fault(error))
            }
            answer => op::done(tag, id, answer),
        }
    }

    pub(crate) fn event_of_panic(
        &self,
        tag: u64,
        id: u64,
        panic: Box<dyn std::any::Any + Send>,
    ) -> Event {
        let text = guard::panic_text(&*panic);
        guard::let_go(panic);
        self.defect(&text);
        failed(tag, id, &Fault::panicked(&text))
    }

    #[cfg(feature = "test-ops")]
    fn begin_panic(self: &Arc<Self>, tag: u64, sink: Sink) -> Result<u64, Fault> {
        let this = Arc::clone(self);
        let action = Action::Status { member: self.node.whoami() };
        #[expect(clippy::panic, reason = "that is what it is for")]
        let told = move |request: RequestId, _| {
            let made = catch_unwind(|| -> Event { panic!("asked for, in a completion") });
            let event = made.unwrap_or_else(|panic| this.event_of_panic(tag, request.0, panic));
            sink.push(event);
            this.end_one();
        };
        let begun = self.node.submit("", action, None, told);
        begun.map(|request| request.0).map_err(|error| self.fault(error))
    }

    fn wait_for_flights(&self, timeout: Option<Duration>) {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut turn = lock(&self.turn);
        // An operation that a panic met may never be counted as ended; all others end with their node.
        let is_awaited = || {
            self.in_flight.load(Ordering::SeqCst) > 0
                && !self.hurry.load(Ordering::SeqCst)
                && self.node.defect().is_none()
        };
        while is_awaited() {
            turn = match wait_until(&self.changed, turn, until) {
                Ok(turn) => turn,
                Err(_) => return,
            };
        }
    }
}

/// What of a node's events a host is told.
pub(crate) fn told(event: &NodeEvent) -> Option<Event> {
    let at = |address: &Option<String>| address.as_deref().map_or_else(Bytes::new, bytes_of);
    let id = |member: &Option<MemberId>| member.map_or(0, |member| member.0);
    let made = |kind, a, b, data| Some(Event { kind, a, b, data, ..Event::default() });
    match event {
        NodeEvent::PeerConnected { member, address } => {
            made(RING_EV_MEMBER, member.0, 1, at(address))
        }
        NodeEvent::PeerDisconnected { member, address } => {
            made(RING_EV_MEMBER, member.0, 0, at(address))
        }
        NodeEvent::PeerReconnecting { member, address } => {
            made(RING_EV_RECONNECTING, member.0, 0, bytes_of(address))
        }
        NodeEvent::PeerFailed { member, address } => {
            made(RING_EV_UNREACHABLE, id(member), 0, bytes_of(address))
        }
        NodeEvent::PeerRefused { member, address, reason, by_us } => {
            let kind = if *by_us { RING_EV_REFUSED } else { RING_EV_REFUSED_BY };
            let address = address.as_deref().unwrap_or_default();
            let data = Bytes::from(format!("{address}{}", libring::explain(reason)));
            made(kind, id(member), len_u64(address.len()), data)
        }
        NodeEvent::PeerFault { member, address, what } => {
            let address = address.as_deref().unwrap_or_default();
            let data = Bytes::from(format!("{address}{what}"));
            made(RING_EV_FAULT, id(member), len_u64(address.len()), data)
        }
        NodeEvent::LeaderChanged { group, leader, .. } => {
            made(RING_EV_LEADER, u64::from(group.0), id(leader), Bytes::new())
        }
        NodeEvent::Member { peer, change } => {
            made(RING_EV_STATE, peer.id.0, code_of(*change), bytes_of(&peer.name))
        }
        NodeEvent::Ready => made(RING_EV_READY, 0, 1, Bytes::new()),
        NodeEvent::NotReady => made(RING_EV_READY, 0, 0, Bytes::new()),
        NodeEvent::Gathering { found, expect, .. } => {
            let data = Bytes::from(Value::from(found.clone()).to_string());
            made(RING_EV_GATHERING, len_u64(found.len()), u64::from(*expect), data)
        }
        NodeEvent::ChangeRefused { reason } => {
            made(RING_EV_STAYS, 0, 0, Bytes::from(reason.to_string()))
        }
        NodeEvent::Left => made(RING_EV_LEFT, 0, 0, Bytes::new()),
        NodeEvent::Halted { reason } => {
            let status = code_of_halt(reason);
            let data = Bytes::from(reason.to_string());
            Some(Event { kind: RING_EV_HALTED, status, data, ..Event::default() })
        }
        NodeEvent::Ring(RingEvent::Move { to, slots }) => Some(slots_of(RING_EV_MOVE, *to, slots)),
        NodeEvent::Ring(RingEvent::Steal { from, slots }) => {
            Some(slots_of(RING_EV_STEAL, *from, slots))
        }
        // Told by RING_OP_TRACK; by ring_node_open(); by what RING_OP_MEMBERS and RING_OP_OWNERS say.
        NodeEvent::Ring(
            RingEvent::Left { .. } | RingEvent::NextChanged { .. } | RingEvent::Came { .. },
        )
        | NodeEvent::Up { .. }
        | NodeEvent::DirectoryChanged { .. }
        | NodeEvent::RingChanged { .. } => None,
    }
}

fn bytes_of(text: impl AsRef<str>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref().as_bytes())
}

fn code_of_halt(reason: &Halt) -> ring_status_t {
    match reason {
        Halt::Defect { .. } => status::RING_PANICKED,
        Halt::Log { .. }
        | Halt::Store { .. }
        | Halt::RolledBack { .. }
        | Halt::Wiped
        | Halt::OtherCluster { .. }
        | Halt::Agreement
        | Halt::Contradiction { .. } => status::RING_HALTED,
    }
}

/// Slots that went or came, and the member at the other end.
fn slots_of(kind: u32, member: Option<MemberId>, slots: &[Range<u32>]) -> Event {
    let data = slots.iter().flat_map(|range| [range.start, range.end]).flat_map(u32::to_ne_bytes);
    let data: Vec<u8> = data.collect();
    let count: u64 = slots.iter().map(|range| u64::from(range.end - range.start)).sum();
    let a = member.map_or(0, |member| member.0);
    Event { kind, a, b: count, data: data.into(), ..Event::default() }
}

fn code_of(change: MemberChange) -> u64 {
    match change {
        MemberChange::Joined => RING_MEMBER_JOINED,
        MemberChange::Suspect => RING_MEMBER_SUSPECT,
        MemberChange::Recovered => RING_MEMBER_RECOVERED,
        MemberChange::Failed => RING_MEMBER_FAILED,
        MemberChange::Left => RING_MEMBER_LEFT,
        MemberChange::Updated => RING_MEMBER_UPDATED,
    }
}

pub(crate) fn system(error: std::io::Error) -> Fault {
    Fault::new(status::RING_IO, format!("the system refused what a node needs: {error}"))
}

/// Starts a thread of this layer.
fn spawn<T: Send + 'static>(
    name: &str,
    logger: &Option<Dispatch>,
    body: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    match logger.clone() {
        Some(logger) => guard::spawn(name, move || with_default(&logger, body)),
        None => guard::spawn(name, body),
    }
}

/// Waits for a future on this thread; none: it took too long, and was dropped.
fn block_on<F: Future>(future: F, timeout: Option<Duration>) -> Option<F::Output> {
    #[derive(Default)]
    struct Signal {
        ready: Mutex<bool>,
        came: Condvar,
    }
    impl Wake for Signal {
        fn wake(self: Arc<Self>) {
            *lock(&self.ready) = true;
            self.came.notify_one();
        }
    }
    let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let signal = Arc::new(Signal::default());
    let waker = Waker::from(Arc::clone(&signal));
    let mut future = std::pin::pin!(future);
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return Some(done);
        }
        let mut ready = lock(&signal.ready);
        while !std::mem::take(&mut *ready) {
            ready = wait_until(&signal.came, ready, until).ok()?;
        }
    }
}
