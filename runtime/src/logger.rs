//! Where a node logs.
//!
//! A node logs by `tracing`, to the subscriber that its thread has. With [`Options::logger`] that is the one given there:
//!
//! 1. *The node's own threads* have it as their default from their first line to their last ([`Logger::run`],
//!    [`Logger::enter`]). Without a logger nothing is set, and nothing costs more than it did.
//! 2. *The threads of others*, which work for core when they have just begun a call ([`crate::engine`]), keep theirs. What a
//!    turn has to say there waits for core's thread ([`crate::shared::Shared::log`]), and stays in order. To set a default
//!    for that time would panic on a thread that is inside of a subscriber, as `tracing` has it lent there.
//!
//! A thread knows whose default it has by a number, so the threads of one node are threads of others for another node of
//! the process.
//!
//! [`Options::logger`]: crate::Options::logger

use std::cell::{Cell, RefCell};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use ring_core::io::Event;
use ring_core::ring::RingEvent;
use tracing::Dispatch;
use tracing::dispatcher::{DefaultGuard, set_default};
use tracing::subscriber::NoSubscriber;

use crate::shared::explain;

/// What a node's threads share to log at one place. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Logger {
    /// None: wherever the thread does.
    to: Option<Dispatch>,
    /// Never used twice in a process; 0 without `to`.
    id: u64,
}

/// For as long as it lives its thread logs for one node.
struct Entered {
    before: u64,
    /// Gives the thread its former default back.
    _default: DefaultGuard,
}

impl Logger {
    pub(crate) fn new(to: Option<Dispatch>) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        if to.is_none() {
            return Self { to, id: 0 };
        }
        // While `tracing` knows of one subscriber, whoever reaches a line first decides for all threads whether it is of
        // interest: a thread without that subscriber would silence the line for ever. With two it asks both.
        static SECOND: OnceLock<Dispatch> = OnceLock::new();
        SECOND.get_or_init(|| Dispatch::new(NoSubscriber::default()));
        Self { to, id: NEXT.fetch_add(1, Ordering::Relaxed) }
    }

    /// Does something for the node alone, on a thread that is inside of no subscriber.
    pub(crate) fn run<T>(&self, act: impl FnOnce() -> T) -> T {
        let _entered = self.entered();
        act()
    }

    /// From now on this thread is one of the node's, until [`leave`].
    pub(crate) fn enter(&self) {
        if let Some(entered) = self.entered() {
            THREAD.set(Some(entered));
        }
    }

    /// Whether what this thread logs reaches the right place.
    pub(crate) fn is_here(&self) -> bool {
        HERE.get() == self.id
    }

    fn entered(&self) -> Option<Entered> {
        let to = self.to.as_ref().filter(|_| !self.is_here())?;
        Some(Entered { before: HERE.replace(self.id), _default: set_default(to) })
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        HERE.set(self.before);
    }
}

/// This thread is going to end.
pub(crate) fn leave() {
    drop(THREAD.take());
}

thread_local! {
    /// Whose default this thread has; 0: no node's.
    static HERE: Cell<u64> = const { Cell::new(0) };
    static THREAD: RefCell<Option<Entered>> = const { RefCell::new(None) };
}

/// Logs what happened.
pub(crate) fn log_event(event: &Event) {
    match event {
        Event::Up { genesis } => {
            tracing::info!(cluster = %genesis.cluster, name = genesis.name, "up");
        }
        Event::DirectoryChanged { table } => tracing::info!(
            version = table.version,
            members = table.members.len(),
            moving = table.moving(),
            "directory"
        ),
        Event::RingChanged { placement } => {
            tracing::info!(members = placement.members().len(), "ring");
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
        }
        Event::ChangeRefused { reason } => tracing::warn!(%reason, "refused by the directory"),
        Event::Left => tracing::info!("left: nothing is held here any more"),
        Event::Gathering { found, expect, missing } => {
            log_gathering(found, *expect, missing.as_deref());
        }
        Event::PeerConnected { member, address } => {
            tracing::info!(%member, ?address, "peer connected");
        }
        Event::PeerDisconnected { member, address } => {
            tracing::info!(%member, ?address, "peer disconnected");
        }
        Event::PeerReconnecting { member, address } => {
            tracing::debug!(%member, address, "peer is dialled again");
        }
        Event::PeerFailed { member, address } => {
            tracing::info!(?member, address, "nobody answers");
        }
        Event::Ready => tracing::info!("a majority is connected"),
        Event::NotReady => tracing::warn!("no majority is connected: what needs one waits"),
        Event::Halted { reason } => tracing::error!(%reason, "halted"),
        // Who refuses this node is told of where its address is known.
        Event::PeerRefused { by_us: false, .. } => {}
        Event::PeerRefused { member, address, reason, by_us: true } => {
            tracing::warn!(?member, ?address, "it was refused, and told: {}", explain(reason));
        }
        Event::LeaderChanged { group, term, leader } => {
            tracing::debug!(%group, %term, ?leader, "leader changed");
        }
        Event::PeerFault { member, address, what } => {
            tracing::warn!(?member, ?address, what, "peer at fault");
        }
    }
}

fn log_gathering(found: &[String], expect: u16, missing: Option<&str>) {
    tracing::info!(?found, expect, "looking for the others that found the cluster");
    if let Some(name) = missing {
        tracing::warn!(
            name,
            "all have agreed, and only this member knows whether the cluster exists: start it. If its data directory \
             is lost, empty those of the others, which hold nothing else yet"
        );
    }
}

/// How many slots.
fn count(slots: &[std::ops::Range<u32>]) -> usize {
    slots.iter().map(ExactSizeIterator::len).sum()
}

#[cfg(test)]
mod tests;
