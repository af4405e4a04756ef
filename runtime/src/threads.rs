//! How a node's threads are started and stopped.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;

use ring_core::ConfigError;
use ring_core::node::{Node, Restored};
use ring_core::shard::Worker;
use ring_core::storage::{self, Recovered};
use ring_core::store::{MemoryStore, Store, StoreError, StoreState, StoreTask};
use tokio::net::{TcpListener, UdpSocket};
use tokio::runtime::Runtime;
use tokio::task::AbortHandle;

use crate::directory::{Directory, Segments};
use crate::engine::{Engine, Log};
use crate::error::OpenError;
use crate::log::{self, Files, LogTask, Writer};
use crate::logger::{self, Logger};
use crate::mailbox::Mailbox;
use crate::metrics;
use crate::net::{Datagrams, Entrance, Net, guarded, unix_path};
use crate::node::{Events, Listener};
use crate::options::{Data, Options};
use crate::security::Keys;
use crate::shared::{Shared, panic_text};
use crate::store::{self, DiskStore};
use crate::transport::Transport;

/// Everything that must be stopped when a node ends. Dropped, it stops it at once.
pub(crate) struct Threads {
    shared: Arc<Shared>,
    appends: Arc<Mailbox<LogTask>>,
    tasks: Arc<Mailbox<StoreTask>>,
    /// Cloned into each thread; its other end is told when all are gone.
    running: Option<mpsc::Sender<()>>,
    gone: mpsc::Receiver<()>,
    /// To be joined then, so that nothing of them is left when the node is.
    handles: Mutex<Vec<JoinHandle<()>>>,
    sockets: Option<Runtime>,
    listening: Option<AbortHandle>,
    /// Ends when all connections have.
    connections: tokio::sync::mpsc::Receiver<()>,
    /// Released last.
    directory: Option<Directory>,
}

/// What was durable, and the threads that go on from there.
struct Prepared {
    restored: Restored,
    log: Option<Body>,
    store: Body,
}

/// What a thread does.
type Body = Box<dyn FnOnce() + Send>;

/// A node that has been started, and where it listens.
type Started = (Arc<Shared>, Threads, Option<SocketAddr>);

/// Starts a node. What it has started when it fails is stopped again.
pub(crate) fn start(options: Options, told: Option<Listener>) -> Result<Started, OpenError> {
    let shared = Arc::new(Shared::new(options));
    let logger = shared.logger.clone();
    logger.run(|| start_logged(shared, told))
}

fn start_logged(shared: Arc<Shared>, told: Option<Listener>) -> Result<Started, OpenError> {
    let options = &shared.options;
    let mut config = options.config();
    check(options)?;
    // Before anything is touched: is it a configuration at all?
    let _probe = Node::new(config.clone(), Restored::default(), 0, shared.clock.now())?;
    let sockets = sockets(&shared.logger)?;
    let (listener, socket) = sockets.block_on(entrance(options))?;
    if let Some(socket) = &socket {
        config.gossip = sockets.block_on(gossip_address(options, socket));
    }
    let socket = socket.filter(|_| config.gossip.is_some());
    let scraped = match &options.metrics {
        Some(address) => Some(sockets.block_on(listen(address.clone(), true))?),
        None => None,
    };
    let directory = match &options.data {
        Data::Dir(path) if !options.client => Some(Directory::open(path)?),
        Data::Dir(_) | Data::Memory => None,
    };
    let address = listener.as_ref().and_then(Entrance::address);
    let (net, connections) =
        Net::new(Arc::clone(&shared), sockets.handle().clone(), config.members.len());

    let (running, gone) = mpsc::channel();
    let mut threads = Threads {
        shared: Arc::clone(&shared),
        appends: Arc::new(Mailbox::new()),
        tasks: Arc::new(Mailbox::new()),
        running: Some(running),
        gone,
        handles: Mutex::default(),
        sockets: Some(sockets),
        listening: None,
        connections,
        directory,
    };
    if let Some(told) = told {
        threads.listen(Events::of(&shared), told);
    }
    let Prepared { restored, log, store } = match &threads.directory {
        Some(directory) => threads.prepare_disk(directory)?,
        None => threads.prepare_memory()?,
    };
    let seed = getrandom::u64().map_err(|e| OpenError::System(io::Error::other(e)))?;
    let mut node = Node::new(config, restored, seed, shared.clock.now())?;
    // Those for which there is no handler are answered here.
    node.serve_requests();
    shared.me.get_or_init(|| node.view().me());
    if let Some(socket) = socket {
        threads.carry_datagrams(socket, &node, &net);
    }
    let (appends, tasks) = (Arc::clone(&threads.appends), Arc::clone(&threads.tasks));
    let way = if log.is_some() { Log::Disk(appends) } else { Log::Memory };
    let engine = Engine::new(node, Arc::clone(&shared), Arc::clone(&net), way, tasks);
    if let Some(log) = log {
        threads.begin("ring-log", log)?;
    }
    threads.begin("ring-store", store)?;
    threads.begin("ring-core", Box::new(move || engine.run()))?;
    if let (Some(listener), Some(sockets)) = (listener, &threads.sockets) {
        threads.listening = Some(sockets.spawn(net.listen(listener)).abort_handle());
    }
    if let Some(scraped) = scraped {
        if let Ok(address) = scraped.local_addr() {
            shared.metrics_address.get_or_init(|| address);
        }
        threads.spawn(metrics::serve(scraped, Arc::downgrade(&shared)));
    }
    threads.spawn(watch_core(Arc::downgrade(&shared)));
    let Options { name, data, .. } = &shared.options;
    tracing::info!(name, ?address, ?data, "started");
    Ok((shared, threads, address))
}

impl Threads {
    /// Recovers log and store.
    fn prepare_disk(&self, directory: &Directory) -> Result<Prepared, OpenError> {
        let (dir, path) = (directory.log(), directory.store());
        let log = storage::recover(&mut Segments::of(&dir)?)
            .map_err(|source| OpenError::Log { dir: dir.clone(), source })?;
        let files = Files::of(&dir);
        files.sync_last(log.tail.last).map_err(OpenError::directory(&dir, "sync"))?;
        let torn = |problem: String| OpenError::Torn { dir: directory.path().into(), problem };
        if !path.is_dir() {
            if log.tail.last.is_some() {
                let gone = format!("it has a log, but its store {} is gone", path.display());
                return Err(torn(gone));
            }
            directory.make_store(|aside| DiskStore::make(aside).map_err(store_error(aside)))?;
        }
        let tasks = Arc::clone(&self.tasks);
        let wake = Box::new(move || tasks.nudge());
        let store = DiskStore::open(&path, wake, &self.shared.logger);
        let store = store.map_err(store_error(&path))?;
        let (worker, states) =
            Worker::new(store, &self.shared.options.limits).map_err(store_error(&path))?;
        fits(&log, &states).map_err(torn)?;
        let (appends, shared) = (Arc::clone(&self.appends), Arc::clone(&self.shared));
        Ok(Prepared {
            restored: Restored { log, store: states },
            log: Some(Box::new(move || log::run(Writer::new(files), &appends, &shared))),
            store: self.store_thread(worker, path),
        })
    }

    fn prepare_memory(&self) -> Result<Prepared, OpenError> {
        let limits = &self.shared.options.limits;
        let place = PathBuf::from("memory");
        let worker = Worker::new(MemoryStore::new(), limits);
        let (worker, store) = worker.map_err(store_error(&place))?;
        Ok(Prepared {
            restored: Restored { log: Recovered::default(), store },
            log: None,
            store: self.store_thread(worker, place),
        })
    }

    fn store_thread<S: Store + Send + 'static>(&self, worker: Worker<S>, place: PathBuf) -> Body
    where
        S::Snapshot: Send,
    {
        let (tasks, shared) = (Arc::clone(&self.tasks), Arc::clone(&self.shared));
        Box::new(move || store::run(worker, &place, &tasks, &shared))
    }

    /// Receives and sends datagrams from now on.
    fn carry_datagrams(&self, socket: UdpSocket, node: &Node, net: &Net) {
        let (shared, socket) = (&self.shared, Arc::new(socket));
        let keys = shared.options.keys.as_ref().and_then(Keys::datagram);
        let (me, boot) = (node.view().me(), node.view().boot());
        let (datagrams, outgoing) = Datagrams::new(&shared.options.cluster, keys, me, boot);
        let datagrams = shared.datagrams.get_or_init(|| datagrams);
        self.spawn(Arc::clone(datagrams).receive(Arc::clone(shared), Arc::clone(&socket)));
        self.spawn(Datagrams::transmit(Arc::clone(shared), socket, outgoing, net.alive()));
    }

    fn begin(&self, name: &str, body: Body) -> Result<(), OpenError> {
        let (running, logger) = (self.running.clone(), self.shared.logger.clone());
        let thread = std::thread::Builder::new().name(name.into());
        let started = thread.spawn(move || {
            mark_own();
            logger.run(body);
            drop(running);
        });
        self.handles.lock().push(started.map_err(OpenError::System)?);
        Ok(())
    }

    /// What runs the sockets.
    pub(crate) fn executor(&self) -> Option<tokio::runtime::Handle> {
        self.sockets.as_ref().map(|sockets| sockets.handle().clone())
    }

    /// Tells `listener` what happens. What it panics with is a defect.
    pub(crate) fn listen(&self, mut events: Events, mut listener: Listener) {
        let shared = Arc::clone(&self.shared);
        self.spawn(async move {
            while let Some(event) = events.next().await {
                if let Err(panic) = catch_unwind(AssertUnwindSafe(|| listener(event))) {
                    return shared.halt_on_defect(panic_text(&*panic).to_owned());
                }
            }
        });
    }

    /// Runs something beside the sockets.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(sockets) = &self.sockets {
            sockets.spawn(task);
        }
    }

    /// Stops in good order, on a thread of its own; then says whether all are gone.
    pub(crate) fn close(mut self, done: impl FnOnce(bool) + Send + 'static) {
        self.shared.end();
        let thread = std::thread::Builder::new().name("ring-stop".into());
        // If there is no thread to be had, everything is dropped here, and stops.
        let _ = thread.spawn(move || {
            let gone = self.shut(true);
            drop(self);
            done(gone);
        });
    }

    /// Stops at once, and waits for it: whoever drops a node can use its port and directory again.
    pub(crate) fn stop(mut self) {
        self.shared.seal();
        self.shared.end();
        let (done, stopped) = mpsc::channel();
        let thread = std::thread::Builder::new().name("ring-stop".into());
        let started = thread.spawn(move || {
            self.shut(false);
            drop(self);
            let _: Result<(), mpsc::SendError<()>> = done.send(());
        });
        // A waker that drops the last handle runs on a thread that is to be stopped: it cannot wait
        // for itself.
        if let Ok(thread) = started
            && !OWN.get()
            && stopped.recv_timeout(STOP_TIME).is_ok()
        {
            let _: Result<(), _> = thread.join();
        }
    }

    /// As `close` or `stop`, on the caller's thread, which must be none of a node's and outside of
    /// any executor; says whether all threads are gone.
    pub(crate) fn stop_here(mut self, in_order: bool) -> bool {
        self.shut(in_order)
    }

    fn shut(&mut self, in_order: bool) -> bool {
        let logger = self.shared.logger.clone();
        logger.run(|| self.shut_logged(in_order))
    }

    /// Waits for the threads, then for the connections; says whether the threads are gone.
    fn shut_logged(&mut self, in_order: bool) -> bool {
        let Some(running) = self.running.take() else {
            return true;
        };
        drop(running);
        if !in_order {
            self.shared.seal();
        }
        self.shared.end();
        if let Some(listening) = self.listening.take() {
            listening.abort();
        }
        // The core thread closes these when it ends, with its last words in them; but it may never
        // have begun.
        let ended = self.gone.recv_timeout(CORE_TIME) == Err(mpsc::RecvTimeoutError::Disconnected);
        if !ended {
            tracing::error!("a thread of this node does not end; its directory stays locked");
            std::mem::forget(self.directory.take());
        } else if !OWN.get() {
            for thread in self.handles.get_mut().drain(..) {
                let _: Result<(), _> = thread.join(); // It is at its very end, or it has panicked.
            }
        }
        if let Some(sockets) = self.sockets.take() {
            if in_order {
                let connections = self.connections.recv();
                let wait = async { tokio::time::timeout(CONNECTIONS_TIME, connections).await };
                drop(sockets.block_on(wait));
            }
            if tokio::runtime::Handle::try_current().is_ok() {
                sockets.shutdown_background();
            } else {
                sockets.shutdown_timeout(SOCKETS_TIME);
            }
        }
        self.directory = None;
        ended
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.appends.close();
        self.tasks.close();
        self.shut(false);
    }
}

/// What core cannot check.
fn check(options: &Options) -> Result<(), OpenError> {
    let wrong = |field, problem: &str| {
        Err(OpenError::Config(ConfigError { field, problem: problem.into() }))
    };
    if options.client && options.join.is_empty() {
        return wrong("join", "a client needs at least one address of a member");
    }
    if options.client && options.listen.is_some() {
        return wrong("listen", "a client does not listen");
    }
    if options.client && options.expect.is_some() {
        return wrong("expect", "a client founds nothing");
    }
    let told = !options.join.is_empty() || options.expect.is_some();
    let joins = !options.client && told && options.members.is_empty();
    if joins && options.listen.is_none() {
        return wrong(
            "listen",
            "missing: a member that joins says where it listens (host:port, or unix:/path)",
        );
    }
    options.check_addresses().map_err(OpenError::Config)?;
    if let Some(listen) = &options.listen
        && joins
        && options.reached_at().is_none()
        && options.is_everywhere(listen)
        && !listen.ends_with(":0")
    {
        let problem =
            format!("missing: others cannot reach {listen:?}; say where they reach this member");
        return wrong("advertise", &problem);
    }
    if options.deadline.is_zero() {
        return wrong("deadline", "calls need some time");
    }
    if let Some(keys) = &options.keys {
        if let Err(problem) = keys.fit(&options.cluster, options.client, &options.name) {
            return wrong("keys", &problem);
        }
        keys.warn_if_expiring();
    }
    Ok(())
}

fn sockets(logger: &Logger) -> Result<Runtime, OpenError> {
    let logger = logger.clone();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads((cores / 2).clamp(1, 4))
        .thread_name("ring-net")
        .on_thread_start(move || {
            mark_own();
            logger.enter();
        })
        .on_thread_stop(logger::leave)
        .enable_io()
        .enable_time()
        .build()
        .map_err(OpenError::System)
}

/// Listens; beyond this machine only with keys, or if that was asked for.
async fn listen(address: String, beyond: bool) -> Result<TcpListener, OpenError> {
    let error = |source| OpenError::Listen { address: address.clone(), source };
    let found = tokio::net::lookup_host(&*address).await.map_err(error)?;
    let found: Vec<SocketAddr> = found.collect();
    if !beyond && !found.iter().all(|found| found.ip().is_loopback()) {
        return Err(OpenError::NotLoopback { address });
    }
    TcpListener::bind(&*found).await.map_err(error)
}

/// Whether a member finds out by datagrams who is alive.
fn gossips(options: &Options) -> bool {
    let can_seal = options.keys.as_ref().is_none_or(|keys| keys.datagram().is_some());
    if options.gossip && !can_seal {
        tracing::warn!(
            "the keys hold none for datagrams (datagram.keys, see `ring keys`): this member takes for alive who it \
             is connected to"
        );
    }
    options.gossip && can_seal
}

/// Where a node listens, if it does: for connections, and for datagrams.
async fn entrance(options: &Options) -> Result<(Option<Entrance>, Option<UdpSocket>), OpenError> {
    let Some(address) = options.listen_address() else { return Ok((None, None)) };
    if let Some(transport) = &options.transport {
        let patience = options.timers.handshake;
        return Ok((Some(listen_at(&**transport, address, patience).await?), None));
    }
    let beyond = options.insecure || options.keys.is_some();
    let (listener, socket) = listen_for_both(address, beyond, gossips(options)).await?;
    Ok((Some(listener), socket))
}

/// Listens at a transport of the application's.
async fn listen_at(
    transport: &dyn Transport,
    address: String,
    patience: Duration,
) -> Result<Entrance, OpenError> {
    let acceptor = tokio::time::timeout(patience, guarded(|| transport.listen(&address))).await;
    let acceptor = acceptor.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
    acceptor.map(Entrance::Own).map_err(|source| OpenError::Listen { address, source })
}

/// Listens for connections and datagrams at one port; at a Unix domain socket for connections alone.
async fn listen_for_both(
    address: String,
    beyond: bool,
    gossips: bool,
) -> Result<(Entrance, Option<UdpSocket>), OpenError> {
    if let Some(path) = unix_path(&address) {
        let listener = Entrance::at(path).await;
        let listener = listener.map_err(|source| OpenError::Listen { address, source })?;
        return Ok((listener, None));
    }
    let mut tries = 0;
    loop {
        let listener = listen(address.clone(), beyond).await?;
        if !gossips {
            return Ok((Entrance::Tcp(listener), None));
        }
        let error = |source| OpenError::Listen { address: format!("{address} (UDP)"), source };
        let local = listener.local_addr().map_err(error)?;
        tries += 1;
        match UdpSocket::bind(local).await {
            Ok(socket) => return Ok((Entrance::Tcp(listener), Some(socket))),
            // The system chose the port for TCP alone: another one may be free for both.
            Err(source)
                if source.kind() == io::ErrorKind::AddrInUse
                    && address.ends_with(":0")
                    && tries < PORT_TRIES => {}
            Err(source) => return Err(error(source)),
        }
    }
}

/// Where others reach this member with datagrams: where they reach it with connections. None: that is not known, or no
/// datagrams go there.
async fn gossip_address(options: &Options, socket: &UdpSocket) -> Option<SocketAddr> {
    let local = socket.local_addr().ok()?;
    let mut found = local;
    if let Some(told) = options.reached_at() {
        if unix_path(told).is_some() {
            return None;
        }
        match tokio::net::lookup_host(told).await {
            Ok(addresses) => {
                let mut addresses = addresses.filter(|a| local.is_ipv6() || a.is_ipv4());
                found = addresses.next().unwrap_or(local);
            }
            Err(error) => tracing::warn!(address = told, %error, "cannot look up the own address"),
        }
    }
    if found.port() == 0 {
        found.set_port(local.port());
    }
    if found.ip().is_unspecified() {
        tracing::warn!(
            address = %found,
            "others cannot send datagrams there, so this member does not gossip: say where they reach it \
             (`advertise`)"
        );
        return None;
    }
    Some(found)
}

/// Whether store and log are halves of one member.
fn fits(log: &Recovered, store: &[StoreState]) -> Result<(), String> {
    if log.tail.last.is_none() {
        return match store.first() {
            Some(_) => Err("it has a store, but its log is gone".into()),
            None => Ok(()),
        };
    }
    for (group, recovered) in &log.groups {
        let held = store.iter().find(|state| state.group == *group);
        let held = held.map_or_else(Default::default, |state| state.index);
        if held < recovered.cut_index {
            return Err(format!(
                "the store is older than the log: it holds shard {group} up to entry {held}, the \
                 log begins behind entry {}",
                recovered.cut_index
            ));
        }
    }
    Ok(())
}

fn store_error(path: &Path) -> impl FnOnce(StoreError) -> OpenError + use<> {
    let path = path.to_path_buf();
    move |error| OpenError::Store { path, problem: error.0 }
}

/// Looks after calls that the core thread does not answer, as long as the node lives.
async fn watch_core(shared: Weak<Shared>) {
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        shared.give_up_late_calls();
        shared.asking.give_up_late(shared.clock.instant());
    }
}

thread_local! {
    /// Whether this is a thread of a node.
    static OWN: Cell<bool> = const { Cell::new(false) };
}

fn mark_own() {
    OWN.set(true);
}

/// For the time of `act` this is a thread of a node: what it calls must not wait for one.
pub(crate) fn as_own<T>(act: impl FnOnce() -> T) -> T {
    let before = OWN.replace(true);
    let done = act();
    OWN.set(before);
    done
}

/// How long a dropped node holds up its dropper at most.
const STOP_TIME: Duration = Duration::from_secs(5);
/// How long the threads may take to end: a sync of a slow disk.
const CORE_TIME: Duration = Duration::from_secs(30);
/// How long the connections may take to send what is queued.
const CONNECTIONS_TIME: Duration = Duration::from_secs(4);
const SOCKETS_TIME: Duration = Duration::from_secs(1);
/// So often a port is looked for that is free for both protocols.
const PORT_TRIES: u32 = 16;

#[cfg(test)]
mod tests;
