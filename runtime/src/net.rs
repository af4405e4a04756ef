//! TCP, Unix domain sockets, and transports of the application's: listening, dialling, and the two tasks of each connection. Bytes become messages here.
//!
//! # What a peer cannot do
//!
//! 1. Fill memory: what it sends waits in its socket while core's inbox is full, what it does not
//!    read is bounded by its connection's queue ([`Link`]), and a connection whose queue is full is
//!    closed.
//! 2. Hold up another: no task waits for two connections, and core's thread waits for none.
//! 3. Take all places: strangers, who have not shaken hands, and connections altogether are
//!    counted.
//!
//! With keys a connection is secured first ([`crate::security`]), by the task that will serve it;
//! core hears of it when that is done. Without, its bytes are the socket's.

mod link;
mod outlet;
mod size;
mod socket;
mod stream;
mod udp;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ring_core::ids::{ConnId, len_u64};
use ring_core::io::{Dial, Input};
use ring_core::wire::message::Refusal;
use ring_core::wire::{Decoder, Message, WireError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

pub(crate) use self::link::Link;
use self::outlet::Sent;
use self::socket::Socket;
pub(crate) use self::socket::{Entrance, check_address, guarded, unix_path};
use self::stream::{Peer, Stream};
pub use self::udp::DatagramCounts;
pub(crate) use self::udp::{Addressed, Datagrams};
use crate::mailbox::Closed;
use crate::node::Connections;
use crate::security::{Fault, Whom};
use crate::shared::{Item, Shared, explain};

/// One member's connections.
pub(crate) struct Net {
    shared: Arc<Shared>,
    tasks: Handle,
    next_conn: AtomicU64,
    /// Places for accepted connections, and among them for strangers.
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    dial_time: Duration,
    /// Addresses that were dialled in vain, and since when.
    unreached: Mutex<BTreeMap<String, Instant>>,
    /// Cloned into each connection: who holds the other end learns when all are gone.
    alive: mpsc::Sender<()>,
}

/// Numbers about connections, since the node was opened.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Accepted.
    pub(crate) accepted: AtomicUsize,
    /// Closed at once, because there were too many.
    pub(crate) turned_away: AtomicUsize,
    /// Closed because they sent what is no message.
    pub(crate) garbage: AtomicUsize,
    /// Closed because they did not read.
    pub(crate) overflows: AtomicUsize,
    /// Closed because the other side's certificate was refused.
    pub(crate) refused: AtomicUsize,
    /// Closed because they could not be secured for another reason.
    pub(crate) unsecured: AtomicUsize,
}

impl Counters {
    /// All of them, as they are.
    pub(crate) fn read(&self) -> Connections {
        let read = |counter: &AtomicUsize| len_u64(counter.load(Ordering::Relaxed));
        Connections {
            accepted: read(&self.accepted),
            turned_away: read(&self.turned_away),
            garbage: read(&self.garbage),
            overflows: read(&self.overflows),
            refused: read(&self.refused),
            unsecured: read(&self.unsecured),
        }
    }
}

/// Why a connection ended.
#[derive(Debug)]
enum End {
    /// The other side closed it.
    Closed,
    /// This side did, and everything was sent.
    Sent,
    /// This side did, or the node has ended.
    Dropped,
    /// The socket failed.
    Io(io::Error),
    /// The other side took nothing for too long.
    Stalled,
    /// The other side sent something that is no message.
    Garbage(WireError),
    /// A message was too long to be sent.
    TooLong(WireError),
    /// The connection is not secured, or not by the right one.
    Unsecured(Fault),
}

impl Net {
    /// Connections are served by `tasks`. The receiver ends when all are gone, and the `Net` with
    /// them.
    pub(crate) fn new(
        shared: Arc<Shared>,
        tasks: Handle,
        members: usize,
    ) -> (Arc<Self>, mpsc::Receiver<()>) {
        let (alive, gone) = mpsc::channel(1);
        let limits = &shared.options.limits;
        let places = limits.strangers + limits.clients + 2 * members;
        let net = Self {
            tasks,
            next_conn: AtomicU64::new(1),
            places: Arc::new(Semaphore::new(places.min(Semaphore::MAX_PERMITS))),
            strangers: Arc::new(Semaphore::new(limits.strangers.min(Semaphore::MAX_PERMITS))),
            dial_time: shared.options.timers.handshake,
            unreached: Mutex::default(),
            alive,
            shared,
        };
        (Arc::new(net), gone)
    }

    /// To be held by what a node that ends waits for.
    pub(crate) fn alive(&self) -> mpsc::Sender<()> {
        self.alive.clone()
    }

    /// Accepts connections until it is aborted.
    pub(crate) async fn listen(self: Arc<Self>, mut listener: Entrance) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.accept(socket, peer),
                Err(error) => {
                    // Out of descriptors, mostly: a loop without a pause would only burn time.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, socket: Socket, peer: String) {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let stranger = Arc::clone(&self.strangers).try_acquire_owned();
        let (Ok(place), Ok(stranger)) = (place, stranger) else {
            self.shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(peer, "turned away: too many connections");
            return;
        };
        self.shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let net = Arc::clone(self);
        self.tasks.spawn(async move {
            let secured = net.secure(socket, peer, false).await;
            if let Some((stream, peer)) = secured {
                let link = Arc::new(Link::new(net.conn(), Some(stranger)));
                net.serve(stream, link, None, Some(place), peer).await;
            }
        });
    }

    /// Opens a connection; answers core with `Connected` or `ConnectFailed`.
    pub(crate) fn dial(self: &Arc<Self>, dial: Dial, address: String) {
        let net = Arc::clone(self);
        self.tasks.spawn(async move {
            let connecting = Socket::connect(&address, net.shared.options.transport.as_deref());
            let problem = match timeout(net.dial_time, connecting).await {
                Ok(Ok(socket)) => match net.secure(socket, address.clone(), true).await {
                    Some((stream, peer)) => {
                        net.unreached.lock().remove(&address);
                        let link = Arc::new(Link::new(net.conn(), None));
                        return net.serve(stream, link, Some(dial), None, peer).await;
                    }
                    None => None,
                },
                Ok(Err(error)) => Some(error.to_string()),
                Err(_) => Some("no answer in time".to_owned()),
            };
            if let Some(problem) = problem {
                net.note_unreached(address, problem);
            }
            net.shared.tell(Input::ConnectFailed { dial });
        });
    }

    /// Nobody is at an address that was dialled. A member that is being started is not told of, nor is anyone each time
    /// that it is dialled again.
    fn note_unreached(&self, address: String, problem: String) {
        tracing::debug!(address, problem, "cannot connect");
        let now = Instant::now();
        let mut unreached = self.unreached.lock();
        if unreached.len() >= UNREACHED_MAX {
            unreached.clear();
        }
        let since = *unreached.entry(address.clone()).or_insert(now);
        drop(unreached);
        if now.duration_since(since) >= UNREACHED_AFTER
            && self.shared.notices.tell(now, Whom::At(address.clone()), problem.clone()).is_some()
        {
            tracing::warn!(address, problem, "cannot connect: it is dialled again and again");
        }
    }

    /// Shakes hands over TLS if this node has keys. None: it failed, and that was told.
    async fn secure(
        &self,
        socket: Socket,
        address: String,
        dialled: bool,
    ) -> Option<(Stream, Peer)> {
        if let Err(error) = socket.set_nodelay() {
            tracing::debug!(address, %error, "cannot turn off Nagle's algorithm");
        }
        let mut peer = Peer::new(&socket, address, dialled);
        let Some(keys) = &self.shared.options.keys else {
            return Some((Stream::Plain(socket), peer));
        };
        let securing =
            async { if dialled { keys.dial(socket).await } else { keys.accept(socket).await } };
        let secured = tokio::select! {
            secured = timeout(self.dial_time, securing) => secured,
            () = self.shared.is_over() => return None,
        };
        let failed = match secured {
            Ok(Ok(secured)) => {
                peer.subject = Some(secured.subject);
                return Some((Stream::Tls(Box::new(secured.stream)), peer));
            }
            Err(_) => {
                self.shared.unsecured(&Fault::TooSlow, &peer);
                return None;
            }
            Ok(Err(failed)) => failed,
        };
        match &failed.fault {
            // Somebody only looked whether the port is open.
            Some(Fault::Cut) if !dialled && !failed.heard => {
                tracing::debug!(peer = peer.address, "closed before it said anything");
            }
            Some(fault) => self.shared.unsecured(fault, &peer),
            None => tracing::debug!(peer = peer.address, error = %failed.error, "connection lost"),
        }
        if let Some(mut socket) = failed.socket {
            // The alert says why. To close with bytes unread would throw it away.
            let _: io::Result<()> = socket.shutdown().await;
            let _ = timeout(LINGER, drain(&mut socket.take(LINGER_BYTES))).await;
        }
        None
    }

    fn conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    /// Serves a connection until it ends, and tells core of both.
    async fn serve(
        self: Arc<Self>,
        stream: Stream,
        link: Arc<Link>,
        dial: Option<Dial>,
        place: Option<OwnedSemaphorePermit>,
        peer: Peer,
    ) {
        let alive = self.alive.clone();
        let shared = Arc::clone(&self.shared);
        // What the task below needs, and no more: the node must not wait for the connections to end
        // it.
        drop(self);
        if shared.put(Item::Connected { link: Arc::clone(&link), dial }, 0).is_err() {
            return;
        }
        match stream {
            Stream::Plain(Socket::Tcp(socket)) => {
                let (from, to) = socket.into_split();
                talk(&shared, &link, from, to, &peer).await;
            }
            Stream::Plain(Socket::Unix(socket)) => {
                let (from, to) = socket.into_split();
                talk(&shared, &link, from, to, &peer).await;
            }
            Stream::Plain(Socket::Own(connection)) => {
                let (from, to) = tokio::io::split(connection);
                talk(&shared, &link, from, to, &peer).await;
            }
            Stream::Tls(stream) => {
                let (from, to) = tokio::io::split(*stream);
                talk(&shared, &link, from, to, &peer).await;
            }
        }
        drop((place, alive));
    }
}

/// Reads and writes until the connection ends, and tells core that it did.
async fn talk<R, W>(shared: &Shared, link: &Arc<Link>, mut from: R, to: W, peer: &Peer)
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin + Send + 'static,
{
    let conn = link.conn();
    link.open(to);
    let mut writer = tokio::spawn(write(Arc::clone(link)));
    let end = tokio::select! {
        end = read(shared, link, &mut from, peer) => end,
        end = &mut writer => end.unwrap_or(End::Dropped),
        () = link.over() => End::Dropped,
    };
    link.kill();
    writer.abort();
    link.end();
    shared.count(&end, conn, peer);
    let _: Result<(), Closed> = shared.put(Item::Disconnected { conn }, 0);
    if matches!(end, End::Sent) {
        // To close now would throw away what the other side has not read yet if it has sent
        // more to us.
        let _ = timeout(LINGER, drain(&mut from)).await;
    }
}

impl Shared {
    /// Who has proven by its certificate to be whom it calls itself is heard by datagram, too.
    fn introduce(&self, message: &Message) {
        let who = if let Message::Hello(hello) = message {
            &hello.who
        } else if let Message::Welcome(welcome) = message {
            &welcome.who
        } else {
            return;
        };
        if let Some(datagrams) = self.datagrams.get().filter(|_| self.options.keys.is_some()) {
            datagrams.introduce(self.clock.instant(), who);
        }
    }

    fn count(&self, end: &End, conn: ConnId, peer: &Peer) {
        let from = peer;
        let peer = &*from.address;
        match end {
            End::Closed | End::Sent | End::Dropped => {
                tracing::debug!(%conn, peer, ?end, "connection ended");
            }
            End::Io(error) => tracing::debug!(%conn, peer, %error, "connection lost"),
            End::Stalled => {
                self.counters.overflows.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%conn, peer, "closed: it takes nothing");
                self.event(from.fault("takes nothing"));
            }
            End::Garbage(error) => {
                self.counters.garbage.fetch_add(1, Ordering::Relaxed);
                let what = "sent what is no message";
                if self.notices.tell(Instant::now(), from.whom(), what).is_some() {
                    tracing::warn!(%conn, peer, %error, "closed: it sent what is no message");
                    self.event(from.fault(what));
                }
            }
            End::TooLong(error) => tracing::error!(%conn, peer, %error, "a message was not sent"),
            End::Unsecured(fault) => self.unsecured(fault, from),
        }
    }

    /// Counts and tells of a connection that could not be secured.
    fn unsecured(&self, fault: &Fault, peer: &Peer) {
        let counters = &self.counters;
        let counter = if fault.is_refusal() { &counters.refused } else { &counters.unsecured };
        counter.fetch_add(1, Ordering::Relaxed);
        if peer.dialled {
            self.refused(&format!("{}: {fault}", peer.address));
        }
        let Some(before) = self.notices.tell(Instant::now(), peer.whom(), fault.what()) else {
            return;
        };
        tracing::warn!(peer = peer.address, before, "not connected: {fault}");
        self.event(peer.fault(fault.what()));
    }

    /// Whoever is at an address that was dialled does not let this node in. Core is told of it too.
    fn turned_away(&self, address: &str, reason: &Refusal) {
        let why = explain(reason);
        if *reason == Refusal::Itself {
            return self.met_itself(&format!("{address}: {why}"));
        }
        self.refused(&format!("{address}: {why}"));
        if self.notices.tell(Instant::now(), Whom::At(address.to_owned()), why.clone()).is_some() {
            tracing::warn!(address, "refused: {why}");
        }
    }
}

/// Reads messages and hands them to core, several at once.
async fn read(
    shared: &Shared,
    link: &Link,
    from: &mut (impl AsyncRead + Unpin),
    peer: &Peer,
) -> End {
    let mut decoder = if peer.dialled { Decoder::dialled() } else { Decoder::accepted() };
    let mut known = false;
    // What came since messages were last handed over: a long one comes in many reads.
    let mut bytes = 0;
    loop {
        bytes += match from.read_buf(decoder.buffer()).await {
            Ok(0) => return End::Closed,
            Ok(read) => read,
            Err(error) => return Fault::of_io(&error).map_or(End::Io(error), End::Unsecured),
        };
        if !known && peer.speaks_tls_to_plain(decoder.buffer()) {
            return End::Unsecured(Fault::WantsTls);
        }
        let mut messages = link.spare();
        let end = loop {
            if !known && link.is_welcome() {
                decoder.authenticated();
                known = true;
            }
            match decoder.next() {
                Ok(Some(message)) => {
                    if let Err(fault) = peer.may_say(&message, shared.genesis.get()) {
                        return refuse(shared, link, peer, &fault).await;
                    }
                    if let Message::Refuse(reason) = &message
                        && peer.dialled
                    {
                        shared.turned_away(&peer.address, reason);
                    }
                    shared.introduce(&message);
                    link.note(&message);
                    bytes += size_of::<Message>();
                    messages.push(message);
                }
                Ok(None) => break None,
                Err(error) => break Some(End::Garbage(error)),
            }
        };
        if messages.is_empty() {
            link.put_back(messages);
        } else {
            let item = Item::Messages { conn: link.conn(), messages };
            if shared.put_when_room(item, bytes).await.is_err() {
                // The node has ended: nothing more is heard, and what it said last is still sent.
                link.close();
                return std::future::pending().await;
            }
            bytes = 0;
        }
        if let Some(end) = end {
            return end;
        }
    }
}

/// Tells a peer that it is not who its certificate names, and ends the connection. Core never hears
/// what it said.
async fn refuse(shared: &Shared, link: &Link, peer: &Peer, fault: &Fault) -> End {
    shared.unsecured(fault, peer);
    // A full queue ends the connection too.
    let _: Result<(), link::Overflow> = link.send(Message::Refuse(Refusal::Certificate));
    link.close();
    std::future::pending().await
}

/// Writes everything that is queued together, until the connection is to end.
async fn write(link: Arc<Link>) -> End {
    loop {
        match timeout(STALL, link.send_some()).await {
            Ok(Ok(Sent::Some)) => {}
            Ok(Ok(Sent::All)) => link.more().await,
            Ok(Ok(Sent::Last)) => {
                return match link.shut().await {
                    Ok(()) => End::Sent,
                    Err(error) => End::Io(error),
                };
            }
            Ok(Err(end)) => return end,
            Err(_) => return End::Stalled,
        }
    }
}

/// Reads on until the other side has closed.
async fn drain(from: &mut (impl AsyncRead + Unpin)) {
    let mut scrap = [0; 1024];
    while matches!(from.read(&mut scrap).await, Ok(1..)) {}
}

/// A connection that takes none of a write's bytes... for this long is closed.
const STALL: Duration = Duration::from_secs(30);
/// How long a connection that is closed waits for the other side to close too.
const LINGER: Duration = Duration::from_secs(1);
/// As many bytes of a stranger are read on, so that it sees why it was refused.
const LINGER_BYTES: u64 = 64 << 10;
/// Who was dialled in vain for so long is told of.
const UNREACHED_AFTER: Duration = Duration::from_secs(2);
/// Of so many addresses it is known since when.
const UNREACHED_MAX: usize = 4096;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
