//! A node: its life and its operations.
//!
//! Invariants:
//! 1. Every operation that was accepted ends with exactly one DONE, pushed before it stops counting
//!    as in flight.
//! 2. When CLOSED is pushed nothing is in flight, and nothing is accepted any more.
//!
//! No lock is held while something is pushed into a queue.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use libring::{
    Action, Bytes, Error, Event as NodeEvent, Member, MemberChange, MemberId, Node, Options,
    Refused, Reply, RequestId, RingEvent,
};

use crate::fault::Fault;
use crate::guard;
use crate::op::{self, Listed, Op, What};
use crate::own::{OWN, Own};
use crate::pager::Pager;
use crate::queue::{Event, Queue, User};
use crate::scan::failed;
use crate::serve::Route;
use crate::status;
use crate::types::{
    RING_EV_CLOSED, RING_EV_LEADER, RING_EV_LEFT, RING_EV_MEMBER, RING_EV_MOVE, RING_EV_STATE,
    RING_EV_STEAL, RING_MEMBER_FAILED, RING_MEMBER_JOINED, RING_MEMBER_LEFT, RING_MEMBER_RECOVERED,
    RING_MEMBER_SUSPECT, RING_MEMBER_UPDATED,
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
    /// What a panic said that this layer caught.
    panicked: OnceLock<String>,
    pub(crate) own: Own,
    /// Most operations of `own`.
    pub(crate) requests_max: usize,
    closer: Mutex<Option<JoinHandle<()>>>,
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
            event = self.came.wait(event).unwrap_or_else(PoisonError::into_inner);
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
    /// Opens a node; blocks until it is up.
    pub(crate) fn open(
        options: Options,
        timeout: Option<Duration>,
        events: Option<Arc<Queue>>,
    ) -> Result<Arc<Self>, Fault> {
        let requests_max = options.limits.requests;
        let open = move || block_on(Node::open(options), timeout);
        let opened = guard::spawn("ring-open", open).map_err(system)?.join();
        let opened = opened.map_err(|panic| {
            let text = guard::panic_text(&*panic);
            guard::let_go(panic);
            Fault::new(status::RING_PANICKED, text)
        })?;
        let Some(node) = opened else {
            let text = "the node was not up in time: does a majority of its members run?";
            return Err(Fault::new(status::RING_TIMEOUT, text));
        };
        let node = node?;
        if let Some(queue) = events {
            node.listen(move |event| {
                if let Some(event) = told(&event) {
                    queue.push(event);
                }
            });
        }
        Ok(Arc::new(Self {
            forks: guard::forks(),
            node,
            in_flight: AtomicUsize::new(0),
            closing: AtomicBool::new(false),
            hurry: AtomicBool::new(false),
            turn: Mutex::new(()),
            changed: Condvar::new(),
            panicked: OnceLock::new(),
            own: Own::default(),
            requests_max,
            closer: Mutex::new(None),
        }))
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
        let thread = guard::spawn("ring-close", move || {
            this.cancel_lasting();
            this.wait_for_flights(timeout);
            let gone = this.node.shut_down(!this.hurry.load(Ordering::SeqCst));
            this.end_own();
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
                guard::spawn("ring-free", move || {
                    this.cancel_lasting();
                    this.node.shut_down(false);
                    this.end_own();
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

    /// A defect was met in this layer: the node stops, and says so from now on.
    pub(crate) fn defect(&self, text: &str) {
        self.panicked.get_or_init(|| text.to_owned());
        self.node.fail_stop();
    }

    /// Does something on a thread of the node: a panic is a defect.
    pub(crate) fn safely(&self, act: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(act)) {
            let text = guard::panic_text(&*panic);
            guard::let_go(panic);
            self.defect(&text);
        }
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
        if let Some(text) = self.panicked.get() {
            return Fault::new(status::RING_PANICKED, text.clone());
        }
        let panicked = self.node.has_panicked();
        match self.node.halt() {
            Some(halt) if panicked => Fault::new(status::RING_PANICKED, halt.to_string()),
            Some(halt) if fault.code == status::RING_HALTED => {
                Fault::new(status::RING_HALTED, halt.to_string())
            }
            None if panicked => Fault::new(status::RING_PANICKED, "a defect of libring"),
            Some(_) | None => fault,
        }
    }

    fn begin_one(&self) -> Result<(), Fault> {
        if let Some(text) = self.panicked.get() {
            return Err(Fault::new(status::RING_PANICKED, text.clone()));
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
            What::Leave(member) => {
                let member = member.unwrap_or_else(|| self.node.whoami());
                Action::Leave { member, force: false }
            }
            What::Ask(question) => {
                let listed = |m: Member| {
                    let Member { id, name, address, weight, standing, state, tags } = m;
                    Listed { id, name, address, weight, standing, state, tags }
                };
                let members = || self.node.members().into_iter().map(listed).collect();
                sink.push(op::answered(tag, &question, &self.node.ring(), members));
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
            #[cfg(feature = "test-ops")]
            What::Echo(data) => {
                let kind = crate::types::RING_EV_DONE;
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
        failed(tag, id, &Fault::new(status::RING_PANICKED, text))
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
        while self.in_flight.load(Ordering::SeqCst) > 0 && !self.hurry.load(Ordering::SeqCst) {
            turn = match until {
                None => self.changed.wait(turn).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.changed.wait_timeout(turn, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

/// What of a node's events a host is told.
pub(crate) fn told(event: &NodeEvent) -> Option<Event> {
    let (kind, a, b) = match event {
        NodeEvent::PeerConnected { member, .. } => (RING_EV_MEMBER, member.0, 1),
        NodeEvent::PeerDisconnected { member, .. } => (RING_EV_MEMBER, member.0, 0),
        NodeEvent::LeaderChanged { group, leader, .. } => {
            (RING_EV_LEADER, u64::from(group.0), leader.map_or(0, |leader| leader.0))
        }
        NodeEvent::Member { peer, change } => {
            let data = Bytes::copy_from_slice(peer.name.as_bytes());
            let (kind, a, b) = (RING_EV_STATE, peer.id.0, code_of(*change));
            return Some(Event { kind, a, b, data, ..Event::default() });
        }
        NodeEvent::Left => (RING_EV_LEFT, 0, 0),
        NodeEvent::Ring(RingEvent::Move { to, slots }) => {
            return Some(slots_of(RING_EV_MOVE, *to, slots));
        }
        NodeEvent::Ring(RingEvent::Steal { from, slots }) => {
            return Some(slots_of(RING_EV_STEAL, *from, slots));
        }
        NodeEvent::Ring(
            RingEvent::Left { .. } | RingEvent::NextChanged { .. } | RingEvent::Came { .. },
        )
        | NodeEvent::Up { .. }
        | NodeEvent::Gathering { .. }
        | NodeEvent::PeerReconnecting { .. }
        | NodeEvent::PeerFailed { .. }
        | NodeEvent::Ready
        | NodeEvent::NotReady
        | NodeEvent::Halted { .. }
        | NodeEvent::DirectoryChanged { .. }
        | NodeEvent::RingChanged { .. }
        | NodeEvent::ChangeRefused { .. }
        | NodeEvent::PeerRefused { .. }
        | NodeEvent::PeerFault { .. } => return None,
    };
    Some(Event { kind, a, b, ..Event::default() })
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
            ready = match until {
                None => signal.came.wait(ready).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let left = until.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = signal.came.wait_timeout(ready, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
