//! Core at work: what waits is taken, given to core, and what core asks for is carried out.
//!
//! Core is worked by one thread at a time, the one that holds its seat. That is core's own thread, for which the inbox
//! wakes; or a thread that has just put something into the inbox, finds the seat free and so saves two hand-overs,
//! each of which costs as much as many turns: the task that has read from a connection, the log's and the store's
//! threads with their answers, a caller that is alone. What each may rely on:
//!
//! 1. *Order.* Only who holds the seat takes from the inbox, and works off what it took before it lets go.
//! 2. *Nothing is left.* Who leaves the seat looks into the inbox once more. Who puts something in and finds the seat
//!    taken needs to do nothing: one of the two sees what the other did ([`Shared::put_here`]).
//! 3. *Few turns.* Who is not core's thread makes one, or a few if more has come meanwhile, and wakes that thread if there
//!    still is more: so core's thread works under load, and a connection's task reads on.
//! 4. *Core's thread keeps time*, and is woken if a turn of another's has brought a deadline forward. It also ends the
//!    node: another that meets the end, a halt or a defect leaves them to it.
//! 5. *No lock is held* but the seat by who works; and nobody waits for the seat but core's thread. So what a turn calls
//!    may do anything, also put something into the inbox.
//!
//! A thread that the system does not let run while it holds the seat holds core up, as core's thread would. One that is not
//! the node's own leaves to core's thread what is to be logged ([`crate::logger`]).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ring_core::Node;
use ring_core::ids::{ConnId, RequestId, SegmentId};
use ring_core::io::{Dial, Event, Failure, Halt, Input, Outbox, Reply, World, carry_out};
use ring_core::request::Effect;
use ring_core::storage::record::Batch;
use ring_core::store::StoreTask;
use ring_core::time::Instant;
use ring_core::wire::Message;

use crate::error::Error;
use crate::log::LogTask;
use crate::logger::log_event;
use crate::mailbox::{Mailbox, Taken};
use crate::metrics::Measured;
use crate::net::{Link, Net};
use crate::request::Talks;
use crate::ring::Tracks;
use crate::shared::{Answer, Item, Shared, panic_text};

/// A node and its world.
pub(crate) struct Engine {
    node: Node,
    world: Host,
    outbox: Outbox,
    items: Vec<Item>,
    /// Until when core's thread waits for something to do.
    alarm: Option<Instant>,
}

/// What core's thread does next.
enum Next {
    /// It waits: without an end if there is none.
    Wait(Option<std::time::Instant>),
    /// The node ends.
    End,
}

/// Where a member's promises go.
pub(crate) enum Log {
    /// To the log thread.
    Disk(Arc<Mailbox<LogTask>>),
    /// Nowhere: they hold as long as the process does.
    Memory,
}

/// Carries out what the core asks for.
struct Host {
    shared: Arc<Shared>,
    net: Arc<Net>,
    links: BTreeMap<ConnId, Arc<Link>>,
    /// Those on which something was sent in this turn.
    written: Vec<Arc<Link>>,
    log: Log,
    store: Arc<Mailbox<StoreTask>>,
    /// Gathered in a turn, and handed over together at its end.
    appends: Vec<LogTask>,
    tasks: Vec<StoreTask>,
    answers: Vec<(RequestId, Answer)>,
    /// What this world tells the core itself, in the next turn.
    next: Vec<Input>,
    tracks: Tracks,
    talks: Talks,
    /// What could not be logged on the thread where it happened.
    unsaid: Vec<Box<dyn FnOnce() + Send>>,
    halt: Option<Halt>,
}

impl Engine {
    pub(crate) fn new(
        node: Node,
        shared: Arc<Shared>,
        net: Arc<Net>,
        log: Log,
        store: Arc<Mailbox<StoreTask>>,
    ) -> Self {
        let world = Host {
            shared,
            net,
            links: BTreeMap::new(),
            written: Vec::new(),
            log,
            store,
            appends: Vec::new(),
            tasks: Vec::new(),
            answers: Vec::new(),
            next: Vec::new(),
            tracks: Tracks::default(),
            talks: Talks::default(),
            unsaid: Vec::new(),
            halt: None,
        };
        Self { node, world, outbox: Outbox::new(), items: Vec::new(), alarm: None }
    }

    /// Works, on core's thread, until the node is closed or halts. A defect of ours stops this node and nothing else.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.world.shared);
        self.guarded(Self::turn);
        *shared.seat.lock() = Some(Box::new(self));
        loop {
            let mut seat = shared.seat.lock();
            let engine = seat.as_mut().expect("only this thread takes it away");
            match engine.work() {
                Next::Wait(until) => {
                    drop(seat);
                    shared.wait(until);
                }
                Next::End => {
                    let engine = seat.take();
                    drop(seat);
                    return engine.into_iter().for_each(|engine| engine.world.end());
                }
            }
        }
    }

    /// Works off everything that waits.
    fn work(&mut self) -> Next {
        self.world.say_unsaid();
        while self.world.halt.is_none() {
            let taken = self.world.shared.take_now(&mut self.items);
            if self.world.shared.is_sealed() {
                return Next::End;
            }
            if taken == Taken::Closed {
                self.guarded(|engine| {
                    engine.node.stop(engine.world.shared.clock.now());
                    engine.turn();
                });
                return Next::End;
            }
            let now = self.world.shared.clock.instant();
            let wakeup = self.node.wakeup().map(|wakeup| wakeup.at);
            let is_due = wakeup.is_some_and(|at| at <= now);
            if taken == Taken::Late && !is_due && self.world.next.is_empty() {
                self.alarm = wakeup;
                return Next::Wait(
                    wakeup.map(|at| std::time::Instant::now() + at.since(now).min(LONGEST_WAIT)),
                );
            }
            self.guarded(Self::turn);
        }
        Next::End
    }

    /// Works off what waits, on a thread that is not core's. True: there is something to do for that one.
    pub(crate) fn work_here(&mut self) -> bool {
        let world = &self.world;
        if world.halt.is_some() || world.shared.is_sealed() || !world.unsaid.is_empty() {
            return true;
        }
        match self.world.shared.take_now(&mut self.items) {
            Taken::Items(_) => {}
            Taken::Late => return false,
            Taken::Closed => return true,
        }
        self.guarded(Self::turn);
        let world = &self.world;
        if world.halt.is_some() || !world.next.is_empty() || !world.unsaid.is_empty() {
            return true;
        }
        let wakeup = self.node.wakeup().map(|wakeup| wakeup.at);
        let is_earlier = match (wakeup, self.alarm) {
            (Some(wakeup), Some(alarm)) => wakeup < alarm,
            (Some(_), None) => true,
            (None, _) => false,
        };
        if is_earlier {
            self.alarm = wakeup;
        }
        is_earlier
    }

    fn guarded(&mut self, act: impl FnOnce(&mut Self)) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(self))) {
            let what = panic_text(&*panic).to_owned();
            self.world.shared.defect.get_or_init(|| what.clone());
            self.world.halt = Some(Halt::Defect { what });
        }
    }

    fn turn(&mut self) {
        let now = self.world.shared.clock.now();
        if self.node.wakeup().is_some_and(|wakeup| wakeup.at <= now.instant) {
            self.node.handle(now, Input::Wakeup);
        }
        for input in self.world.next.drain(..) {
            self.node.handle(now, input);
        }
        for item in self.items.drain(..) {
            match item {
                Item::Connected { link, dial } => {
                    let conn = link.conn();
                    self.world.links.insert(conn, link);
                    self.node.handle(now, Input::Connected { conn, dial });
                }
                // A connection that core has closed is silent, whatever was on its way.
                Item::Messages { conn, mut messages } => {
                    let Some(link) = self.world.links.get(&conn) else { continue };
                    for message in messages.drain(..) {
                        self.node.handle(now, Input::Message { conn, message });
                    }
                    link.put_back(messages);
                }
                Item::Disconnected { conn } => {
                    if self.world.links.remove(&conn).is_some() {
                        self.node.handle(now, Input::Disconnected { conn });
                    }
                }
                Item::Datagrams(datagrams) => {
                    self.world.taken(datagrams.len());
                    for (from, bytes) in datagrams {
                        self.node.handle(now, Input::Datagram { from, bytes });
                    }
                }
                Item::Stored { upto } => self.node.handle(now, Input::Stored { upto }),
                Item::Store(done) => {
                    for done in done {
                        self.node.handle(now, Input::Store(done));
                    }
                }
                Item::Input(input) => self.node.handle(now, input),
                Item::Track(tracking) => self.world.tracks.begin(&mut self.node, tracking),
                Item::Untrack(track) => self.world.tracks.end(&mut self.node, track),
                Item::Talk(talk) => {
                    let Host { shared, talks, .. } = &mut self.world;
                    talks.tell(shared, &mut self.node, now, talk);
                }
                Item::Join { addresses, answer } => {
                    // Who asked may have gone.
                    drop(answer.send(self.node.join(now, &addresses)));
                }
                Item::Measure(answer) => {
                    drop(answer.send(Measured::of(self.node.view(), now.instant)));
                }
                Item::Call { request, call } => {
                    if let Err(refused) = self.node.submit(now, request, call) {
                        self.world.answers.push((request, Err(Error::Refused(refused))));
                    }
                }
            }
        }
        self.node.flush(now, &mut self.outbox);
        carry_out(&mut self.outbox, &mut self.world);
        self.world.end_turn();
        if cfg!(debug_assertions) {
            self.node.check();
        }
    }
}

impl World for Host {
    fn connect(&mut self, dial: Dial, address: String) {
        self.net.dial(dial, address);
    }

    fn disconnect(&mut self, conn: ConnId) {
        if let Some(link) = self.links.remove(&conn) {
            link.close();
        }
    }

    fn send(&mut self, conn: ConnId, message: Message) {
        let Some(link) = self.links.get(&conn) else {
            return;
        };
        let overflow = match link.put(message) {
            Ok(is_first) => {
                if is_first {
                    self.written.push(Arc::clone(link));
                }
                return;
            }
            Err(overflow) => overflow,
        };
        self.log(move || {
            tracing::warn!(%conn, most = overflow.most, "closed: it does not read fast enough");
        });
        self.shared.counters.overflows.fetch_add(1, Ordering::Relaxed);
        self.links.remove(&conn);
        self.next.push(Input::Disconnected { conn });
        self.tell(Event::PeerFault {
            member: None,
            address: None,
            what: "does not read fast enough",
        });
    }

    fn datagram(&mut self, to: SocketAddr, bytes: Vec<u8>) {
        if let Some(datagrams) = self.shared.datagrams.get() {
            datagrams.send(to, bytes);
        }
    }

    fn append(&mut self, batch: Batch) {
        match &self.log {
            Log::Disk(_) => self.appends.push(LogTask::Append(batch)),
            Log::Memory => self.next.push(Input::Stored { upto: batch.seq }),
        }
    }

    fn discard(&mut self, below: SegmentId) {
        match &self.log {
            Log::Disk(_) => self.appends.push(LogTask::Discard { below }),
            Log::Memory => {}
        }
    }

    fn store(&mut self, task: StoreTask) {
        self.tasks.push(task);
    }

    fn reply(&mut self, request: RequestId, result: Result<Reply, Failure>) {
        self.answers.push((request, result.map_err(Error::Failed)));
    }

    fn request(&mut self, effect: Effect) {
        self.talks.carry_out(&self.shared, effect);
    }

    fn event(&mut self, event: Event) {
        let event = if let Event::Ring(event) = event {
            self.tracks.tell(event).map(Event::Ring)
        } else {
            Some(event)
        };
        if let Some(event) = event {
            self.tell(event);
        }
    }

    fn halt(&mut self, reason: Halt) {
        // At once: what else this turn asks for must not reach the disk.
        self.shared.seal();
        self.halt.get_or_insert(reason);
    }
}

impl Host {
    fn tell(&mut self, event: Event) {
        if self.shared.is_news(&event) {
            if self.shared.logger.is_here() {
                self.say_unsaid();
                log_event(&event);
            } else {
                let event = event.clone();
                self.unsaid.push(Box::new(move || log_event(&event)));
            }
        }
        self.shared.tell_event(event);
    }

    /// Logs something; on core's thread, if this one is none of the node's.
    fn log(&mut self, line: impl FnOnce() + Send + 'static) {
        if self.shared.logger.is_here() {
            self.say_unsaid();
            line();
        } else {
            self.unsaid.push(Box::new(line));
        }
    }

    fn say_unsaid(&mut self) {
        for line in self.unsaid.drain(..) {
            line();
        }
    }

    fn taken(&self, count: usize) {
        if let Some(datagrams) = self.shared.datagrams.get() {
            datagrams.taken(count);
        }
    }

    fn end_turn(&mut self) {
        if let Log::Disk(log) = &self.log {
            log.push_all(&mut self.appends);
        }
        self.store.push_all(&mut self.tasks);
        // Whoever has more to decide leaves the sending to others.
        let is_idle = self.next.is_empty() && self.shared.is_idle();
        for link in self.written.drain(..) {
            link.flush(is_idle);
        }
        self.shared.answer(&mut self.answers);
    }

    /// The node has ended: its threads are told, then those who wait for it.
    fn end(mut self) {
        self.say_unsaid();
        if self.halt.is_some() {
            self.shared.seal();
        }
        self.shared.end();
        if let Log::Disk(log) = &self.log {
            log.close();
        }
        self.store.push_all(&mut vec![StoreTask::Persist]);
        self.store.close();
        if let Some(datagrams) = self.shared.datagrams.get() {
            datagrams.end();
        }
        let at_once = self.shared.is_sealed() && self.halt.is_none();
        for link in std::mem::take(&mut self.links).into_values() {
            // Who halts still says what it has said; who is dropped does not.
            if at_once { link.kill() } else { link.close() }
        }
        self.talks.end(&self.shared);
        let defect = || self.shared.defect.get().map(|what| Halt::Defect { what: what.clone() });
        let halt = self.halt.take().or_else(defect);
        self.shared.ended(halt);
    }
}

/// The clock that runs through suspend may be ahead of the one that wakes us.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(60);
