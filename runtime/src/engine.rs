//! The core thread: it takes what waits, gives it to the core, and carries out what the core asks
//! for.

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
use ring_core::wire::Message;

use crate::error::Error;
use crate::log::LogTask;
use crate::mailbox::{Mailbox, Taken};
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
            log,
            store,
            appends: Vec::new(),
            tasks: Vec::new(),
            answers: Vec::new(),
            next: Vec::new(),
            tracks: Tracks::default(),
            talks: Talks::default(),
            halt: None,
        };
        Self { node, world, outbox: Outbox::new(), items: Vec::new() }
    }

    /// Works until the node is closed or halts. A defect of ours stops this node and nothing else.
    pub(crate) fn run(mut self) {
        let worked = catch_unwind(AssertUnwindSafe(|| self.work()));
        if let Err(panic) = worked {
            let what = format!("a defect of libring: {}", panic_text(&*panic));
            self.world.shared.panicked.store(true, Ordering::Release);
            self.world.halt = Some(Halt::Contradiction { what });
        }
        self.world.end();
    }

    fn work(&mut self) {
        self.turn();
        while self.world.halt.is_none() {
            let taken = self.wait();
            if self.world.shared.is_sealed() {
                return;
            }
            if taken == Taken::Closed {
                self.node.stop(self.world.shared.clock.now());
                return self.turn();
            }
            self.turn();
        }
    }

    /// Waits for the next turn's inputs.
    fn wait(&mut self) -> Taken {
        let shared = &self.world.shared;
        let until = if self.world.next.is_empty() {
            self.node.wakeup().map(|wakeup| {
                let wait = wakeup.at.since(shared.clock.instant());
                std::time::Instant::now() + wait.min(LONGEST_WAIT)
            })
        } else {
            Some(std::time::Instant::now())
        };
        shared.take(&mut self.items, until)
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
                Item::Messages { conn, messages } if self.world.links.contains_key(&conn) => {
                    for message in messages {
                        self.node.handle(now, Input::Message { conn, message });
                    }
                }
                Item::Messages { .. } => {}
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
                Item::Talk(talk) => self.world.talks.tell(&mut self.node, now, talk),
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
        let Err(overflow) = link.send(message) else {
            return;
        };
        tracing::warn!(%conn, most = overflow.most, "closed: it does not read fast enough");
        self.shared.counters.overflows.fetch_add(1, Ordering::Relaxed);
        self.links.remove(&conn);
        self.next.push(Input::Disconnected { conn });
        self.shared.event(Event::PeerFault { member: None, what: "does not read fast enough" });
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
            self.shared.event(event);
        }
    }

    fn halt(&mut self, reason: Halt) {
        // At once: what else this turn asks for must not reach the disk.
        self.shared.seal();
        self.halt.get_or_insert(reason);
    }
}

impl Host {
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
        self.shared.answer(&mut self.answers);
    }

    /// The node has ended: its threads are told, then those who wait for it.
    fn end(mut self) {
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
        self.talks.end();
        self.shared.ended(self.halt.take());
    }
}

/// The clock that runs through suspend may be ahead of the one that wakes us.
const LONGEST_WAIT: std::time::Duration = std::time::Duration::from_secs(60);
