//! What the threads of one node share.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ring_core::directory::Table;
use ring_core::genesis::Genesis;
use ring_core::ids::{ConnId, LogSeq, MemberId, RequestId, len_u64};
use ring_core::io::{Action, Call, Dial, Event, Failure, Halt, Input, Peer, Refused, Reply};
use ring_core::ring::{Placement, RingEvent, TrackId};
use ring_core::store::StoreDone;
use ring_core::time::Instant;
use ring_core::wire::Message;
use ring_core::wire::message::Refusal;
use tokio::sync::{Notify, broadcast, oneshot, watch};

use crate::clock::Clock;
use crate::error::Error;
use crate::mailbox::{Closed, Mailbox, PushError, Taken};
use crate::net::{Addressed, Counters, Datagrams, Link};
use crate::node::{Inner, Node};
use crate::options::Options;
use crate::request::{Routes, Talk, Trace};
use crate::ring::Tracking;
use crate::security::Notices;

/// What the threads of one node share.
pub(crate) struct Shared {
    pub(crate) options: Options,
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
    /// None: this node does not gossip.
    pub(crate) datagrams: OnceLock<Arc<Datagrams>>,
    /// For core's thread.
    inbox: Mailbox<Item>,
    /// Woken when the inbox was full and is not any more.
    room: Notify,
    calls: Mutex<Calls>,
    pub(crate) routes: Routes,
    pub(crate) next_request: AtomicU64,
    pub(crate) trace: Trace,
    /// The node, once it is handed out.
    pub(crate) inner: OnceLock<Weak<Inner>>,
    events: Mutex<Option<broadcast::Sender<Event>>>,
    phase: watch::Sender<Phase>,
    /// Set when nothing may be written to the data directory any more.
    sealed: AtomicBool,
    /// Set when core's thread met a defect of ours.
    pub(crate) panicked: AtomicBool,
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

/// Told how a call ended. Runs on the thread that found out, mostly core's, which it must not hold
/// up; no lock is held.
pub(crate) type Completion = Box<dyn FnOnce(RequestId, Answer) + Send>;

#[derive(Default)]
struct Calls {
    waiting: HashMap<RequestId, Waiting>,
    /// In all that wait.
    bytes: usize,
    last: RequestId,
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
        Self {
            options,
            clock: Clock::start(),
            counters: Counters::default(),
            notices: Notices::default(),
            me: OnceLock::new(),
            genesis: OnceLock::new(),
            table: Mutex::new(None),
            placement: Mutex::new(Arc::new(Placement::new([]))),
            peers: Mutex::default(),
            datagrams: OnceLock::new(),
            inbox: Mailbox::new(),
            room: Notify::new(),
            calls: Mutex::default(),
            routes: Routes::default(),
            next_request: AtomicU64::new(1),
            trace: Trace::default(),
            inner: OnceLock::new(),
            events: Mutex::new(Some(broadcast::Sender::new(EVENTS))),
            phase: watch::Sender::new(Phase::Opening { refused: None }),
            sealed: AtomicBool::new(false),
            panicked: AtomicBool::new(false),
        }
    }

    /// From now on nothing is written to the data directory.
    pub(crate) fn seal(&self) {
        self.sealed.store(true, Ordering::Release);
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
}

/// Core's inbox.
impl Shared {
    /// Hands something to core's thread, unless the node has ended.
    pub(crate) fn put(&self, item: Item, bytes: usize) -> Result<(), Closed> {
        self.inbox.push(item, bytes)
    }

    /// As `put`, unless the inbox is full.
    pub(crate) fn put_if_room(&self, item: Item, bytes: usize) -> Result<(), PushError> {
        self.inbox.push_if_room(item, bytes, INBOX_BYTES)
    }

    /// As `put`, but waits while the inbox is full.
    pub(crate) async fn put_when_room(&self, item: Item, bytes: usize) -> Result<(), Closed> {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Before the look: a wake-up in between is not lost.
            room.as_mut().enable();
            if self.inbox.bytes() < INBOX_BYTES {
                return self.inbox.push(item, bytes);
            }
            room.await;
        }
    }

    /// Hands core an input, unless the node has ended.
    pub(crate) fn tell(&self, input: Input) {
        let _: Result<(), Closed> = self.inbox.push(Item::Input(input), 0);
    }

    /// For core's thread: everything that waits.
    pub(crate) fn take(&self, into: &mut Vec<Item>, until: Option<std::time::Instant>) -> Taken {
        let taken = self.inbox.take(into, until);
        if matches!(taken, Taken::Items(bytes) if bytes >= INBOX_BYTES) {
            self.room.notify_waiters();
        }
        taken
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
        drop(calls);
        let call = Call { deadline, partition: partition.to_owned(), action };
        // When the node has just ended its last act is to answer all calls, this one too.
        let _: Result<(), Closed> = self.inbox.push(Item::Call { request, call }, 0);
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

    /// Fails the calls that core's thread should have answered long ago: it must be stuck.
    pub(crate) fn give_up_late_calls(&self) {
        let now = self.clock.instant();
        let mut calls = self.calls.lock();
        let late: Vec<(RequestId, Waiting)> =
            calls.waiting.extract_if(|_, waiting| waiting.guard < now).collect();
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

    /// Tells the log and the application, and notes what concerns the opening.
    pub(crate) fn event(&self, event: Event) {
        match &event {
            Event::Up { genesis } => {
                tracing::info!(cluster = %genesis.cluster, name = genesis.name, "up");
                let _: Result<(), Genesis> = self.genesis.set(genesis.clone());
                if let Some(datagrams) = self.datagrams.get() {
                    datagrams.begin(self.clock.instant(), genesis.cluster);
                }
                self.advance(Phase::Up);
            }
            Event::DirectoryChanged { table } => {
                tracing::info!(
                    version = table.version,
                    members = table.members.len(),
                    moving = table.moving(),
                    "directory"
                );
                // Nobody asks about those whom it does not have any more.
                self.peers.lock().retain(|id, _| table.member(*id).is_some());
                *self.table.lock() = Some(Arc::new((**table).clone()));
            }
            Event::RingChanged { placement } => {
                tracing::info!(members = placement.members().len(), "ring");
                *self.placement.lock() = Arc::clone(placement);
            }
            Event::Ring(RingEvent::Move { to, slots }) => {
                tracing::info!(?to, slots = count(slots), "keys leave");
            }
            Event::Ring(RingEvent::Steal { from, slots }) => {
                tracing::info!(?from, slots = count(slots), "keys come");
            }
            Event::Ring(_) => {}
            Event::Member { peer, change } => {
                tracing::info!(member = %peer.id, name = peer.name, ?change, "member");
                self.peers.lock().insert(peer.id, (**peer).clone());
            }
            Event::ChangeRefused { reason } => {
                tracing::warn!(%reason, "refused by the directory");
            }
            Event::Left => {
                tracing::info!("left: nothing is held here any more");
            }
            Event::PeerConnected { member } => tracing::info!(%member, "peer connected"),
            Event::PeerDisconnected { member } => tracing::info!(%member, "peer disconnected"),
            Event::PeerRefused { member, reason, by_us } => {
                let reason = explain(reason);
                tracing::warn!(?member, reason, by_us, "connection refused");
                if !by_us {
                    self.advance(Phase::Opening { refused: Some(reason) });
                }
            }
            Event::LeaderChanged { group, term, leader } => {
                tracing::debug!(%group, %term, ?leader, "leader changed");
            }
            Event::PeerFault { member, what } => tracing::warn!(?member, what, "peer at fault"),
        }
        if let Some(events) = &*self.events.lock() {
            let _ = events.send(event); // It is nobody's fault that nobody listens.
        }
    }

    /// The node has ended: says so to everyone who waits.
    pub(crate) fn ended(&self, halt: Option<Halt>) {
        match halt {
            Some(halt) => {
                tracing::error!(%halt, "halted");
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

/// How many slots.
fn count(slots: &[std::ops::Range<u32>]) -> usize {
    slots.iter().map(ExactSizeIterator::len).sum()
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
        Refusal::Twin => "it has the same name: give each member its own".into(),
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
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic")
}

/// Messages that wait for core, in bytes; readers wait at more.
const INBOX_BYTES: usize = 64 << 20;
/// Events that wait for a listener; it misses the oldest at more.
const EVENTS: usize = 1024;
/// How long after a call's deadline core's thread is taken to be stuck.
const GUARD: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests;
