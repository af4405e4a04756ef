//! What the threads of one node share.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::sync::{Arc, OnceLock, Weak};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use ring_core::directory::Table;
use ring_core::genesis::Genesis;
use ring_core::ids::{ConnId, LogSeq, MemberId, RequestId, len_u64};
use ring_core::io::{Action, Call, Dial, Event, Failure, Halt, Input, Peer, Refused, Reply};
use ring_core::ring::{Placement, TrackId};
use ring_core::store::StoreDone;
use ring_core::time::Instant;
use ring_core::wire::Message;
use ring_core::wire::message::Refusal;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::Error;
use crate::logger::{Logger, log_event};
use crate::mailbox::{Closed, Mailbox, PushError, Taken};
use crate::metrics::{CallCounts, Measured};
use crate::net::{Addressed, Counters, Datagrams, Link};
use crate::node::{Inner, Node};
use crate::options::Options;
use crate::request::{AskingTable, Routes, Talk, Trace};
use crate::ring::Tracking;
use crate::security::{Notices, Whom};
use crate::threads::as_own;

/// What the threads of one node share.
pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) logger: Logger,
    pub(crate) clock: Clock,
    pub(crate) counters: Counters,
    pub(crate) notices: Notices,
    /// Who this node is; known before anyone can ask.
    pub(crate) me: OnceLock<MemberId>,
    /// Known when the node is up.
    pub(crate) genesis: OnceLock<Genesis>,
    /// The newest directory.
    pub(crate) table: Mutex<Option<Arc<Table>>>,
    /// Who owns which keys.
    pub(crate) placement: Mutex<Arc<Placement>>,
    /// What is thought of the other members.
    pub(crate) peers: Mutex<BTreeMap<MemberId, Peer>>,
    /// The members and clients to which it is connected.
    pub(crate) connected: Mutex<BTreeSet<MemberId>>,
    /// Where scrapers are answered, if they are.
    pub(crate) metrics_address: OnceLock<SocketAddr>,
    /// Whether a majority is connected.
    pub(crate) is_ready: AtomicBool,
    /// None: this node does not gossip.
    pub(crate) datagrams: OnceLock<Arc<Datagrams>>,
    /// For core.
    inbox: Mailbox<Item>,
    /// Core itself: whoever holds it works on the inbox. See [`crate::engine`].
    pub(crate) seat: Mutex<Option<Box<Engine>>>,
    /// Woken when the inbox was full and is not any more.
    room: Notify,
    calls: Mutex<Calls>,
    pub(crate) routes: Routes,
    pub(crate) asking: AskingTable,
    /// Requests that core has: of this node, and that it handles.
    pub(crate) asked: AtomicUsize,
    pub(crate) handling: AtomicUsize,
    pub(crate) next_request: AtomicU64,
    pub(crate) trace: Trace,
    /// The node, once it is handed out.
    pub(crate) inner: OnceLock<Weak<Inner>>,
    events: Mutex<Option<broadcast::Sender<Event>>>,
    phase: watch::Sender<Phase>,
    /// Set when nothing may be written to the data directory any more.
    sealed: AtomicBool,
    /// The first defect of ours that was met, in core or in a layer above it.
    pub(crate) defect: OnceLock<String>,
}

/// What reaches core's thread.
pub(crate) enum Item {
    Connected { link: std::sync::Arc<Link>, dial: Option<Dial> },
    Messages { conn: ConnId, messages: Vec<Message> },
    Disconnected { conn: ConnId },
    Datagrams(Vec<Addressed>),
    Stored { upto: LogSeq },
    Store(Vec<StoreDone>),
    Input(Input),
    Call { request: RequestId, call: Call },
    Talk(Talk),
    Join { addresses: Vec<String>, answer: oneshot::Sender<Result<(), Refused>> },
    Measure(oneshot::Sender<Measured>),
    Track(Tracking),
    Untrack(TrackId),
}

/// How far a node has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// It is not up yet; a peer may have refused it.
    Opening {
        refused: Option<String>,
    },
    Up,
    Halted(Halt),
    Closed,
}

/// A call's end.
pub(crate) type Answer = Result<Reply, Error>;

/// Told how a call ended. Runs on the thread that works for core, which it must not hold up; no lock
/// is held but core's seat, for which only core's thread waits.
pub(crate) type Completion = Box<dyn FnOnce(RequestId, Answer) + Send>;

#[derive(Default)]
struct Calls {
    waiting: HashMap<RequestId, Waiting>,
    /// In all that wait.
    bytes: usize,
    last: RequestId,
    /// Ended since the start: with an answer, and with an error.
    answered: u64,
    failed: u64,
    /// Set when no more calls are taken.
    ended: Option<Error>,
}

struct Waiting {
    /// None: nobody waits any more, but core still works on it, and its place stays taken.
    answer: Option<Completion>,
    write: bool,
    bytes: usize,
    /// When to give up if core's thread does not answer.
    guard: Instant,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Self {
        let routes = Routes::new(options.hold_requests);
        Self {
            logger: Logger::new(options.logger.clone()),
            options,
            clock: Clock::start(),
            counters: Counters::default(),
            notices: Notices::default(),
            me: OnceLock::new(),
            genesis: OnceLock::new(),
            table: Mutex::new(None),
            placement: Mutex::new(Arc::new(Placement::new([]))),
            peers: Mutex::default(),
            connected: Mutex::default(),
            metrics_address: OnceLock::new(),
            is_ready: AtomicBool::new(false),
            datagrams: OnceLock::new(),
            inbox: Mailbox::new(),
            seat: Mutex::new(None),
            room: Notify::new(),
            calls: Mutex::default(),
            routes,
            asking: AskingTable::default(),
            asked: AtomicUsize::new(0),
            handling: AtomicUsize::new(0),
            next_request: AtomicU64::new(1),
            trace: Trace::default(),
            inner: OnceLock::new(),
            events: Mutex::new(Some(broadcast::Sender::new(EVENTS))),
            phase: watch::Sender::new(Phase::Opening { refused: None }),
            sealed: AtomicBool::new(false),
            defect: OnceLock::new(),
        }
    }

    /// From now on nothing is written to the data directory.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
    }

    /// A defect of ours was met: the node halts, as core's thread does when it next looks, and writes nothing from now on.
    pub(crate) fn halt_on_defect(&self, what: String) {
        self.defect.get_or_init(|| what);
        self.seal();
        self.end();
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed.load(Ordering::Acquire)
    }

    pub(crate) fn phase(&self) -> watch::Receiver<Phase> {
        self.phase.subscribe()
    }

    /// Resolves when the node has ended.
    pub(crate) async fn is_over(&self) {
        let mut phase = self.phase();
        let over = |phase: &Phase| match phase {
            Phase::Opening { .. } | Phase::Up => false,
            Phase::Halted(_) | Phase::Closed => true,
        };
        // The sender is in this very struct: it is not gone.
        let _: Result<_, watch::error::RecvError> = phase.wait_for(over).await;
    }

    /// The node, unless it is being dropped.
    pub(crate) fn node(&self) -> Option<Node> {
        Some(Node { inner: self.inner.get()?.upgrade()? })
    }

    /// A peer that was dialled and this node do not get together: what to say if it never gets up.
    pub(crate) fn refused(&self, why: &str) {
        self.advance(Phase::Opening { refused: Some(why.to_owned()) });
    }

    /// It has dialled itself: what to say if it never gets up, and nobody else has refused it.
    pub(crate) fn met_itself(&self, why: &str) {
        if *self.phase.borrow() == (Phase::Opening { refused: None }) {
            self.refused(why);
        }
    }
}

/// Core's inbox.
impl Shared {
    /// Hands something to core's thread, unless the node has ended.
    pub(crate) fn put(&self, item: Item, bytes: usize) -> Result<(), Closed> {
        self.inbox.push(item, bytes)
    }

    /// As `put`; if core is idle it works on this very thread. For who has nothing better to do and holds no lock.
    pub(crate) fn put_here(&self, item: Item, bytes: usize) -> Result<(), Closed> {
        self.inbox.push_quietly(item, bytes)?;
        self.work_here();
        Ok(())
    }

    /// As `put`, unless the inbox is full; with `here` as `put_here`.
    pub(crate) fn put_if_room(
        &self,
        item: Item,
        bytes: usize,
        here: bool,
    ) -> Result<(), PushError> {
        self.inbox.push_quietly_if_room(item, bytes, INBOX_BYTES)?;
        if here {
            self.work_here();
        } else {
            self.inbox.wake();
        }
        Ok(())
    }

    /// As `put` or, if it is little and this node has little to do, as `put_here`; but waits while the inbox is full.
    pub(crate) async fn put_when_room(&self, item: Item, bytes: usize) -> Result<(), Closed> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Before the look: a wake-up in between is not lost.
            room.as_mut().enable();
            if self.inbox.bytes() < INBOX_BYTES {
                let here = bytes <= HERE_BYTES && self.is_calm();
                return if here { self.put_here(item, bytes) } else { self.put(item, bytes) };
            }
            room.await;
        }
    }

    /// Hands core an input, unless the node has ended.
    pub(crate) fn tell(&self, input: Input) {
        let _: Result<(), Closed> = self.inbox.push(Item::Input(input), 0);
    }

    /// Lets core work off what waits, on this thread if nobody else is at it: who is looks into the inbox once more
    /// when it has let go of the seat.
    fn work_here(&self) {
        for _ in 0..TURNS_MAX {
            // The other half is in `is_waited_for` and `wait`: of a thread that puts something in and finds the seat
            // taken, and one that leaves the seat and looks into the inbox, one sees what the other did.
            fence(Ordering::SeqCst);
            let Some(mut seat) = self.seat.try_lock() else { return };
            let Some(engine) = &mut *seat else {
                return self.inbox.wake();
            };
            let wants_thread = as_own(|| engine.work_here());
            drop(seat);
            if wants_thread {
                break;
            }
            // An answer that has come meanwhile, mostly: to wake another for it takes longer than to take it.
            if !self.is_waited_for() {
                return;
            }
        }
        self.inbox.nudge();
    }

    /// For who has just let go of the seat: whether something has come meanwhile.
    fn is_waited_for(&self) -> bool {
        fence(Ordering::SeqCst);
        !self.inbox.is_empty()
    }

    /// For core's thread, which has just let go of the seat: waits for something to do.
    pub(crate) fn wait(&self, until: Option<std::time::Instant>) {
        fence(Ordering::SeqCst);
        self.inbox.wait(until);
    }

    /// For who has the seat: everything that waits.
    pub(crate) fn take_now(&self, into: &mut Vec<Item>) -> Taken {
        self.note_room(self.inbox.take_now(into))
    }

    /// Everything that waits, or comes until then. Where there is no core.
    #[cfg(any(test, feature = "bench"))]
    pub(crate) fn take(&self, into: &mut Vec<Item>, until: Option<std::time::Instant>) -> Taken {
        self.note_room(self.inbox.take(into, until))
    }

    fn note_room(&self, taken: Taken) -> Taken {
        if matches!(taken, Taken::Items(bytes) if bytes >= INBOX_BYTES) {
            self.room.notify_waiters();
        }
        taken
    }

    /// True when nothing waits for core, nor is much to come soon.
    pub(crate) fn is_idle(&self) -> bool {
        self.is_calm() && self.inbox.is_empty()
    }

    /// True while few requests are under way. With many it is worth while to wait for more to share a turn or a write.
    fn is_calm(&self) -> bool {
        let few = |count: &AtomicUsize| count.load(Ordering::Relaxed) <= CALM_MAX;
        few(&self.asked) && few(&self.handling)
    }

    /// Ends the node: core's thread works off what waits and stops.
    pub(crate) fn end(&self) {
        self.inbox.close();
        self.room.notify_waiters();
    }
}

/// Calls.
impl Shared {
    /// Begins a call. Its answer comes to the receiver; to drop that forgets the answer, not the
    /// call.
    pub(crate) fn call(
        &self,
        partition: &str,
        action: Action,
        deadline: Duration,
    ) -> Result<oneshot::Receiver<Answer>, Error> {
        let (answer, receiver) = oneshot::channel();
        let done = move |_, result| {
            let _: Result<(), Answer> = answer.send(result);
        };
        self.begin(partition, action, deadline, Box::new(done))?;
        Ok(receiver)
    }

    /// As `call`, for an answer that is told to `answer`, exactly once. After an error it is never
    /// told.
    pub(crate) fn begin(
        &self,
        partition: &str,
        action: Action,
        deadline: Duration,
        answer: Completion,
    ) -> Result<RequestId, Error> {
        let limits = &self.options.limits;
        let deadline = self.clock.instant() + deadline;
        let (write, mut bytes) = weigh(&action);
        if bytes > limits.calls_bytes {
            bytes = 0; // Core refuses it and says which part of it is too long.
        }
        let mut calls = self.calls.lock();
        if let Some(error) = &calls.ended {
            return Err(error.clone());
        }
        if calls.waiting.len() >= limits.calls {
            let limit = len_u64(limits.calls);
            return Err(Refused::Full { what: "the table of calls", limit }.into());
        }
        if calls.bytes + bytes > limits.calls_bytes {
            let limit = len_u64(limits.calls_bytes);
            return Err(Refused::Full { what: "the room for calls' bytes", limit }.into());
        }
        calls.last = calls.last.next();
        calls.bytes += bytes;
        let request = calls.last;
        let guard = deadline + GUARD;
        let answer = Some(answer);
        calls.waiting.insert(request, Waiting { answer, write, bytes, guard });
        let is_alone = calls.waiting.len() == 1;
        drop(calls);
        let call = Call { deadline, partition: partition.to_owned(), action };
        // When the node has just ended its last act is to answer all calls, this one too.
        let item = Item::Call { request, call };
        // Who is alone has nobody to share a turn with; others wait for core's thread, and share its turns.
        let _: Result<(), Closed> =
            if is_alone { self.put_here(item, 0) } else { self.put(item, 0) };
        Ok(request)
    }

    /// Nobody waits for a call any more: ends it for its caller, not for core. None: it has ended.
    /// Its completion is handed back, with whether the call is a write.
    pub(crate) fn abandon(&self, request: RequestId) -> Option<(Completion, bool)> {
        let mut calls = self.calls.lock();
        let waiting = calls.waiting.get_mut(&request)?;
        let write = waiting.write;
        Some((waiting.answer.take()?, write))
    }

    /// Answers calls, and leaves `answers` empty.
    pub(crate) fn answer(&self, answers: &mut Vec<(RequestId, Answer)>) {
        if answers.is_empty() {
            return;
        }
        let mut calls = self.calls.lock();
        let mut ready = Vec::with_capacity(answers.len());
        for (request, answer) in answers.drain(..) {
            if let Some(waiting) = calls.waiting.remove(&request) {
                calls.bytes -= waiting.bytes;
                match &answer {
                    Ok(_) => calls.answered += 1,
                    Err(_) => calls.failed += 1,
                }
                ready.push((waiting.answer, request, answer));
            }
        }
        drop(calls); // A waker may do anything.
        for (caller, request, answer) in ready {
            if let Some(caller) = caller {
                caller(request, answer);
            }
        }
    }

    pub(crate) fn call_counts(&self) -> CallCounts {
        let calls = self.calls.lock();
        CallCounts {
            open: len_u64(calls.waiting.len()),
            open_bytes: len_u64(calls.bytes),
            answered: calls.answered,
            failed: calls.failed,
        }
    }

    /// Fails the calls that core's thread should have answered long ago: it must be stuck.
    pub(crate) fn give_up_late_calls(&self) {
        let now = self.clock.instant();
        let mut calls = self.calls.lock();
        let late: Vec<(RequestId, Waiting)> =
            calls.waiting.extract_if(|_, waiting| waiting.guard < now).collect();
        calls.failed += len_u64(late.len());
        for (_, waiting) in &late {
            calls.bytes -= waiting.bytes;
        }
        drop(calls);
        if !late.is_empty() {
            tracing::error!(calls = late.len(), "the core thread does not answer: calls given up");
        }
        for (request, Waiting { answer, write, .. }) in late {
            let failure = if write { Failure::OutcomeUnknown } else { Failure::Deadline };
            if let Some(answer) = answer {
                answer(request, Err(failure.into()));
            }
        }
    }

    /// Ends all calls, and every one to come with `later`.
    fn end_calls(&self, later: Error) {
        let mut calls = self.calls.lock();
        calls.ended.get_or_insert(later);
        calls.bytes = 0;
        let waiting = std::mem::take(&mut calls.waiting);
        drop(calls);
        let mut waiting: Vec<(RequestId, Waiting)> = waiting.into_iter().collect();
        waiting.sort_unstable_by_key(|(request, _)| *request); // in the order in which they began
        for (request, Waiting { answer, write, .. }) in waiting {
            if let Some(answer) = answer {
                answer(request, Err(Failure::Closed { maybe: write }.into()));
            }
        }
    }
}

/// What the application is told.
impl Shared {
    pub(crate) fn events(&self) -> Option<broadcast::Receiver<Event>> {
        self.events.lock().as_ref().map(broadcast::Sender::subscribe)
    }

    /// Logs what happened, on a thread of the node's, and tells it as [`Shared::tell_event`].
    pub(crate) fn event(&self, event: Event) {
        if self.is_news(&event) {
            log_event(&event);
        }
        self.tell_event(event);
    }

    /// Whether the log is to say it: not of what is told again and again.
    pub(crate) fn is_news(&self, event: &Event) -> bool {
        let (whom, what) = if let Event::ChangeRefused { reason } = event {
            (None, reason.to_string())
        } else if let Event::PeerRefused { member, reason, by_us: true, .. } = event {
            (*member, explain(reason))
        } else {
            return true;
        };
        self.notices.tell(std::time::Instant::now(), Whom::Member(whom), what).is_some()
    }

    /// Tells the application, and notes what concerns the opening.
    pub(crate) fn tell_event(&self, event: Event) {
        match &event {
            Event::Up { genesis } => {
                let _: Result<(), Genesis> = self.genesis.set(genesis.clone());
                if let Some(datagrams) = self.datagrams.get() {
                    datagrams.begin(self.clock.instant(), genesis.cluster);
                }
                self.advance(Phase::Up);
            }
            Event::DirectoryChanged { table } => {
                // Nobody asks about those whom it does not have any more.
                self.peers.lock().retain(|id, _| table.member(*id).is_some());
                *self.table.lock() = Some(Arc::new((**table).clone()));
            }
            Event::RingChanged { placement } => *self.placement.lock() = Arc::clone(placement),
            Event::Member { peer, .. } => {
                self.peers.lock().insert(peer.id, (**peer).clone());
            }
            Event::PeerConnected { member, .. } => {
                self.connected.lock().insert(*member);
            }
            Event::PeerDisconnected { member, .. } => {
                self.connected.lock().remove(member);
            }
            Event::Ready => self.is_ready.store(true, Ordering::Relaxed),
            Event::NotReady => self.is_ready.store(false, Ordering::Relaxed),
            Event::Ring(_)
            | Event::ChangeRefused { .. }
            | Event::Left
            | Event::Gathering { .. }
            | Event::PeerReconnecting { .. }
            | Event::PeerFailed { .. }
            | Event::Halted { .. }
            | Event::PeerRefused { .. }
            | Event::LeaderChanged { .. }
            | Event::PeerFault { .. } => {}
        }
        if let Some(events) = &*self.events.lock() {
            let _ = events.send(event); // It is nobody's fault that nobody listens.
        }
    }

    /// The node has ended: says so to everyone who waits.
    pub(crate) fn ended(&self, halt: Option<Halt>) {
        match halt {
            Some(halt) => {
                self.event(Event::Halted { reason: halt.clone() });
                self.advance(Phase::Halted(halt));
                self.end_calls(Refused::Halted.into());
            }
            None => {
                tracing::info!("closed");
                self.advance(Phase::Closed);
                self.end_calls(Failure::Closed { maybe: false }.into());
            }
        }
        self.events.lock().take();
        self.routes.clear();
        // Of what came since core took the last: who waits for it hears of the end by its drop, with no lock held.
        let mut left = Vec::new();
        let _: Taken = self.take_now(&mut left);
        drop(left);
    }

    fn advance(&self, to: Phase) {
        self.phase.send_if_modified(|phase| {
            let moves = match (&*phase, &to) {
                (Phase::Opening { .. }, _) => true,
                (Phase::Up, Phase::Halted(_) | Phase::Closed) => true,
                (Phase::Up | Phase::Halted(_) | Phase::Closed, _) => false,
            };
            if moves {
                *phase = to;
            }
            moves
        });
    }
}

/// Whether an action changes something, and how many bytes it holds.
fn weigh(action: &Action) -> (bool, usize) {
    match action {
        Action::Put { key, value } => (true, key.len() + value.len()),
        Action::Delete { key } => (true, key.len()),
        Action::CompareAndSet { key, expect, value } => {
            use ring_core::shard::command::Expect;
            let expected = match expect {
                Expect::Value(value) => value.as_ref().map_or(0, bytes::Bytes::len),
                Expect::Revision(_) => 0,
            };
            (true, key.len() + expected + value.as_ref().map_or(0, bytes::Bytes::len))
        }
        Action::Batch { changes } => {
            let lens =
                changes.iter().map(|c| c.key.len() + c.value.as_ref().map_or(0, bytes::Bytes::len));
            (true, lens.sum())
        }
        Action::Get { key, .. } => (false, key.len()),
        Action::Scan { from, to, .. } => {
            (false, from.len() + to.as_ref().map_or(0, bytes::Bytes::len))
        }
        Action::ScanNext { .. } | Action::ScanClose { .. } => (false, 0),
        Action::Watch { from, to, .. } => {
            (false, from.len() + to.as_ref().map_or(0, bytes::Bytes::len))
        }
        Action::Info | Action::Status { .. } | Action::Leave { .. } => (false, 0),
    }
}

/// A refusal in words, with what to do.
#[must_use]
pub fn explain(refusal: &Refusal) -> String {
    match refusal {
        Refusal::Version { min, max } => format!(
            "it speaks versions {min} to {max} of the protocol: use a release that speaks one of \
             them"
        ),
        Refusal::ClusterName { expected } => {
            format!("its cluster is called \"{expected}\": correct the name or the address")
        }
        Refusal::Cluster { expected } => format!(
            "it belongs to another cluster of the same name ({expected}): correct the address, or \
             empty the data directory that is wrong"
        ),
        Refusal::Agreement => {
            "it was configured with other members, shards or replication: give all members the \
             same"
                .into()
        }
        Refusal::RolledBack { seen } => format!(
            "it has seen a later state of this data directory (start {}): bring back the newer \
             directory",
            seen.count()
        ),
        Refusal::Wiped => {
            "it knows this member from another data directory: bring the old one back, or replace \
             this member by a new one"
                .into()
        }
        Refusal::Stranger => "it does not know this member: add it to the list of members".into(),
        Refusal::Full => {
            "it has no room for more clients: try again later, or another member".into()
        }
        Refusal::Twin => {
            "it is the same member on a copy of its data directory: give each member a directory of its own"
                .into()
        }
        Refusal::Itself => "it is this very node: correct the address".into(),
        Refusal::Ring => {
            "it places keys on members by other rules: use a release of the same kind on all members"
                .into()
        }
        Refusal::Certificate => {
            "the certificate that it was shown names somebody else: give each member its own keys, \
             and clients a client's (`ring keys add`)"
                .into()
        }
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

/// Polls a future of the application's; what it panics with is its end.
pub(crate) async fn catch<T>(
    mut future: Pin<Box<dyn Future<Output = T> + Send + '_>>,
) -> Result<T, Box<dyn Any + Send>> {
    poll_fn(move |cx| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => Poll::Ready(Err(panic)),
    })
    .await
}

/// Messages that wait for core, in bytes; readers wait at more.
const INBOX_BYTES: usize = 64 << 20;
/// As much is worked off by who has read it.
const HERE_BYTES: usize = 16 << 10;
/// So many turns are made by who is not core's thread, in case more has come meanwhile.
const TURNS_MAX: usize = 3;
/// So many requests are few.
const CALM_MAX: usize = 4;
/// Events that wait for a listener; it misses the oldest at more.
const EVENTS: usize = 1024;
/// How long after a call's deadline core's thread is taken to be stuck.
const GUARD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
