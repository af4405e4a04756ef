//! The node, as the application sees it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;
use ring_core::directory::Table;
use ring_core::ids::MemberId;
use ring_core::io::{Action, Event, Failure, Halt, Refused, Reply};
use ring_core::wire::message::MemberStatus;
use tokio::runtime;
use tokio::sync::{broadcast, oneshot, watch};

use crate::error::{Error, OpenError};
use crate::net::DatagramCounts;
use crate::options::Options;
use crate::partition::{Partition, wrong};
use crate::request;
use crate::shared::{Item, Phase, Shared};
use crate::threads::{self, Threads};

/// A member of a cluster, or a client of one, in this process. Cheap to clone.
///
/// The node stays up while there is a `Node`, a [`Partition`] or a [`crate::Scan`] of it. When the
/// last one is dropped it stops at once, as if the process had been killed: nothing acknowledged is
/// lost. [`Node::close`] ends it in good order.
#[derive(Clone, Debug)]
pub struct Node {
    pub(crate) inner: Arc<Inner>,
}

/// A node and what stops it.
pub(crate) struct Inner {
    pub(crate) shared: Arc<Shared>,
    address: Option<SocketAddr>,
    pub(crate) threads: Mutex<Option<Threads>>,
}

/// Numbers about a node's connections since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Connections {
    /// Accepted.
    pub accepted: u64,
    /// Closed at once, because there were too many already.
    pub turned_away: u64,
    /// Closed because they sent what is no message.
    pub garbage: u64,
    /// Closed because they did not read what was sent to them.
    pub overflows: u64,
    /// Closed because this node refused the other side's certificate, or for want of one.
    pub refused: u64,
    /// Closed because they could not be secured for another reason: no TLS spoken, too slow, this
    /// node's certificate refused.
    pub unsecured: u64,
}

impl Node {
    /// Starts a node; resolves when it is up. For a member that is when the cluster is founded and
    /// known, however long that takes; for a client when a member has let it in, or its deadline
    /// has passed. To drop the future stops the node.
    ///
    /// # Errors
    /// See [`OpenError`]: each says what is wrong, where, and what to do.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_told(options, None).await
    }

    /// As [`Node::open`], and `listener` is told what happens from the start, also while the node is not up
    /// ([`Event::Gathering`], [`Event::PeerFailed`], [`Event::PeerRefused`] say why not), until it ends: see
    /// [`Node::listen`].
    ///
    /// # Errors
    /// As [`Node::open`].
    pub async fn open_listening(
        options: Options,
        listener: impl FnMut(Event) + Send + 'static,
    ) -> Result<Self, OpenError> {
        Self::open_told(options, Some(Box::new(listener))).await
    }

    async fn open_told(options: Options, listener: Option<Listener>) -> Result<Self, OpenError> {
        let (done, started) = oneshot::channel();
        // Recovery reads files and may take its time: not on the caller's executor.
        let thread = std::thread::Builder::new().name("ring-open".into());
        let start = move || {
            // If nobody waits any more the node is dropped, and stops.
            let started = Self::start(options, listener);
            let _: Result<(), Result<Node, OpenError>> = done.send(started);
        };
        thread.spawn(start).map_err(OpenError::System)?;
        let node = started.await.map_err(|_| OpenError::Closed)??;
        node.wait_until_up().await?;
        Ok(node)
    }

    /// This node's id.
    #[must_use]
    pub fn whoami(&self) -> MemberId {
        *self.inner.shared.me.get().expect("set before the node is handed out")
    }

    /// Numbers about datagrams; none if this node does not gossip.
    #[must_use]
    pub fn datagrams(&self) -> Option<DatagramCounts> {
        self.inner.shared.datagrams.get().map(|datagrams| datagrams.counts())
    }

    /// Who is registered and who is to hold which shard, as far as this node has been told.
    #[must_use]
    pub fn directory(&self) -> Option<Arc<Table>> {
        self.inner.shared.table.lock().clone()
    }

    /// How many replicas a shard is to have, if there are so many members; fixed when the cluster was created.
    #[must_use]
    pub fn replication(&self) -> u32 {
        let genesis = self.inner.shared.genesis.get();
        genesis.map_or(self.inner.shared.options.replication, |genesis| genesis.replication)
    }

    /// Dials these addresses (`host:port`, or `unix:/path`), too, from now on, again and again until somebody answers: more
    /// ways to the members of this node's cluster, or to the one that it is to join. Two clusters do not merge: a member
    /// of one is refused by the other, and goes on.
    ///
    /// # Errors
    /// [`Refused::Invalid`] for what is no address, [`Refused::Full`] when there are too many: nothing was changed.
    /// [`Failure::Closed`] when the node has ended.
    pub async fn join(
        &self,
        addresses: impl IntoIterator<Item = impl Into<String>>,
    ) -> Result<(), Error> {
        let addresses: Vec<String> = addresses.into_iter().map(Into::into).collect();
        let options = &self.inner.shared.options;
        if addresses.iter().any(|address| options.check_address(address).is_err()) {
            let what = "an address that is neither host:port nor unix:/path";
            return Err(Refused::Invalid { what }.into());
        }
        let bytes = addresses.iter().map(String::len).sum();
        let (answer, answered) = oneshot::channel();
        let closed = || Error::from(Failure::Closed { maybe: false });
        let item = Item::Join { addresses, answer };
        self.inner.shared.put(item, bytes).map_err(|_| closed())?;
        answered.await.map_err(|_| closed())?.map_err(Error::Refused)
    }

    /// Leaves the cluster: what this member holds moves to others first, which takes as long as the data needs; until
    /// then it serves as before. Resolves when nothing is held here any more: the node may be closed and its directory
    /// deleted.
    ///
    /// # Errors
    /// [`Error::Leave`] when the directory refuses, as it does for the only member that could hold the data, and where
    /// others are away so that no majority would be left ([`Node::tell_to_leave`] can force that); the node goes on then. [`Failure::Closed`] when the node ends first.
    pub async fn leave(&self) -> Result<(), Error> {
        let mut events = self.events();
        self.tell_to_leave(self.whoami(), false).await?;
        loop {
            match events.next().await {
                Some(Event::Left) => return Ok(()),
                Some(Event::ChangeRefused { reason }) => return Err(Error::Leave(reason)),
                Some(_) => {}
                None => return Err(Failure::Closed { maybe: true }.into()),
            }
        }
    }

    /// Tells a member to leave the cluster. Resolves when it knows; it is gone when [`Node::members`] has it no more, and
    /// stays when [`MemberStatus::stays`] of it says why.
    ///
    /// With `force` it may also go when too many others are away ([`ChangeRefused::NoMajority`]): those are given up
    /// then, so what they held too is left to fewer members than it should have, to a single one at worst, until
    /// they come back or others join.
    ///
    /// # Errors
    /// The member did not answer within the default deadline, or this node has ended.
    ///
    /// [`ChangeRefused::NoMajority`]: crate::ChangeRefused::NoMajority
    pub async fn tell_to_leave(
        &self,
        member: MemberId,
        force: bool,
    ) -> Result<MemberStatus, Error> {
        let shared = &self.inner.shared;
        let action = Action::Leave { member, force };
        let reply = shared.ask("", action, shared.options.deadline).await?;
        let Reply::Status(status) = reply else {
            return wrong(&reply);
        };
        Ok(*status)
    }

    /// Where this node listens, if it does; none at a Unix domain socket.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.inner.address
    }

    /// Where this node tells its metrics, if it does.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.inner.shared.metrics_address.get().copied()
    }

    /// A partition. It need not exist: it does when something is written to it.
    #[must_use]
    pub fn partition(&self, name: &str) -> Partition {
        Partition::new(Arc::clone(&self.inner), name)
    }

    /// What a member says of itself. The member may be this one.
    ///
    /// # Errors
    /// The member did not answer within the default deadline, or this node has ended.
    pub async fn status(&self, member: MemberId) -> Result<MemberStatus, Error> {
        let shared = &self.inner.shared;
        let reply = shared.ask("", Action::Status { member }, shared.options.deadline).await?;
        let Reply::Status(status) = reply else {
            return wrong(&reply);
        };
        Ok(*status)
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> Events {
        Events::of(&self.inner.shared)
    }

    /// Numbers about connections.
    #[must_use]
    pub fn connections(&self) -> Connections {
        self.inner.shared.counters.read()
    }

    /// Resolves when the node halts: it met something that it must not go on with. Never resolves
    /// otherwise.
    pub async fn halted(&self) -> Halt {
        let mut phase = self.inner.shared.phase();
        loop {
            if let Phase::Halted(halt) = &*phase.borrow_and_update() {
                return halt.clone();
            }
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Ends the node, for all who hold a clone of it: calls under way end with [`Failure::Closed`],
    /// everything is written and synced, connections, threads and files are closed, the directory
    /// is free for another when this resolves. Closing a node that has halted only frees what it
    /// holds; one that is closed is closed.
    ///
    /// # Errors
    /// [`Failure::OutcomeUnknown`]: a disk that does not answer keeps a thread from ending. Its
    /// directory stays locked as long as the process lives.
    pub async fn close(self) -> Result<(), Error> {
        let threads = self.inner.threads.lock().take();
        if let Some(threads) = threads {
            let (done, stopped) = oneshot::channel();
            threads.close(move |gone| {
                let _: Result<(), bool> = done.send(gone);
            });
            // An error means that there was no thread to wait on: what could be stopped is stopped.
            if !stopped.await.unwrap_or(true) {
                return Err(Failure::OutcomeUnknown.into());
            }
        }
        Ok(())
    }

    fn start(options: Options, listener: Option<Listener>) -> Result<Self, OpenError> {
        let (shared, threads, address) = threads::start(options, listener)?;
        let inner = Inner { shared, address, threads: Mutex::new(Some(threads)) };
        let inner = Arc::new(inner);
        inner.shared.inner.get_or_init(|| Arc::downgrade(&inner));
        request::add_monitoring(&inner).expect("nobody has added a route yet");
        Ok(Self { inner })
    }

    async fn wait_until_up(&self) -> Result<(), OpenError> {
        let shared = &self.inner.shared;
        let up = reached(shared.phase());
        if !shared.options.client {
            return up.await;
        }
        let late = self.inner.alarm(shared.options.deadline);
        tokio::select! {
            done = up => done,
            () = late => {
                let refused = match &*shared.phase().borrow() {
                    Phase::Opening { refused } => refused.clone(),
                    Phase::Up | Phase::Halted(_) | Phase::Closed => None,
                };
                Err(OpenError::Unreachable { join: shared.options.join.clone(), refused })
            }
        }
    }
}

/// Told what happens.
pub(crate) type Listener = Box<dyn FnMut(Event) + Send>;

async fn reached(mut phase: watch::Receiver<Phase>) -> Result<(), OpenError> {
    loop {
        match &*phase.borrow_and_update() {
            Phase::Opening { .. } => {}
            Phase::Up => return Ok(()),
            Phase::Halted(halt) => return Err(OpenError::Halted(halt.clone())),
            Phase::Closed => return Err(OpenError::Closed),
        }
        phase.changed().await.map_err(|_| OpenError::Closed)?;
    }
}

impl Inner {
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Where the application's tasks run: on the caller's runtime, or on the node's own.
    pub(crate) fn executor(&self) -> Option<runtime::Handle> {
        runtime::Handle::try_current().ok().or_else(|| self.own_executor())
    }

    /// The node's own; none when it is closed.
    pub(crate) fn own_executor(&self) -> Option<runtime::Handle> {
        self.threads.lock().as_ref().and_then(Threads::executor)
    }

    /// A timer of the node's own, so that the caller may use any executor.
    fn alarm(&self, after: std::time::Duration) -> impl Future<Output = ()> + use<> {
        let (ring, rung) = oneshot::channel();
        if let Some(threads) = &*self.threads.lock() {
            threads.spawn(async move {
                tokio::time::sleep(after).await;
                let _: Result<(), ()> = ring.send(());
            });
        }
        async {
            let _: Result<(), oneshot::error::RecvError> = rung.await;
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(threads) = self.threads.get_mut().take() {
            threads.stop();
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node")
            .field("name", &self.shared.options.name)
            .field("member", &self.shared.me.get())
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

/// What a node tells, from the moment at which this was made. Bounded: a slow listener misses the
/// oldest.
#[derive(Debug)]
pub struct Events {
    receiver: Option<broadcast::Receiver<Event>>,
    missed: u64,
}

impl Events {
    pub(crate) fn of(shared: &Shared) -> Self {
        Self { receiver: shared.events(), missed: 0 }
    }

    /// The next event; none when the node has ended.
    pub async fn next(&mut self) -> Option<Event> {
        loop {
            match self.receiver.as_mut()?.recv().await {
                Ok(event) => return Some(event),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.missed += missed,
                Err(broadcast::error::RecvError::Closed) => self.receiver = None,
            }
        }
    }

    /// How many events were dropped because they were not taken in time.
    #[must_use]
    pub fn missed(&self) -> u64 {
        self.missed
    }
}
