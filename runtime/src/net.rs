//! TCP: listening, dialling, and the two tasks of each connection. Bytes become messages here, off
//! the core thread.
//!
//! # What a peer cannot do
//!
//! 1. Fill memory: what it sends waits in its socket while core's inbox is full, what it does not
//!    read is bounded by its connection's queue ([`Link`]), and a connection whose queue is full is
//!    closed.
//! 2. Hold up another: no task waits for two connections, and core's thread waits for none.
//! 3. Take all places: strangers, who have not shaken hands, and connections altogether are
//!    counted.

mod link;
mod size;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use ring_core::ids::ConnId;
use ring_core::io::{Dial, Event, Input};
use ring_core::wire::{Decoder, Encoder, Message, WireError};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

pub(crate) use self::link::Link;
use crate::mailbox::Closed;
use crate::shared::{Item, Shared};

/// One member's connections.
pub(crate) struct Net {
    shared: Arc<Shared>,
    tasks: Handle,
    next_conn: AtomicU64,
    /// Places for accepted connections, and among them for strangers.
    places: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    dial_time: Duration,
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
            alive,
            shared,
        };
        (Arc::new(net), gone)
    }

    /// Accepts connections until it is aborted.
    pub(crate) async fn listen(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => self.accept(stream, peer),
                Err(error) => {
                    // Out of descriptors, mostly: a loop without a pause would only burn time.
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn accept(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let place = Arc::clone(&self.places).try_acquire_owned();
        let stranger = Arc::clone(&self.strangers).try_acquire_owned();
        let (Ok(place), Ok(stranger)) = (place, stranger) else {
            self.shared.counters.turned_away.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%peer, "turned away: too many connections");
            return;
        };
        self.shared.counters.accepted.fetch_add(1, Ordering::Relaxed);
        let link = Arc::new(Link::new(self.conn(), Some(stranger)));
        let served = Arc::clone(self).serve(stream, link, None, Some(place), peer.to_string());
        self.tasks.spawn(served);
    }

    /// Opens a connection; answers core with `Connected` or `ConnectFailed`.
    pub(crate) fn dial(self: &Arc<Self>, dial: Dial, address: String) {
        let net = Arc::clone(self);
        self.tasks.spawn(async move {
            let problem = match timeout(net.dial_time, TcpStream::connect(&*address)).await {
                Ok(Ok(stream)) => {
                    let link = Arc::new(Link::new(net.conn(), None));
                    return net.serve(stream, link, Some(dial), None, address).await;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            tracing::debug!(address, problem, "cannot connect");
            net.shared.tell(Input::ConnectFailed { dial });
        });
    }

    fn conn(&self) -> ConnId {
        ConnId(self.next_conn.fetch_add(1, Ordering::Relaxed))
    }

    /// Serves a connection until it ends, and tells core of both.
    async fn serve(
        self: Arc<Self>,
        stream: TcpStream,
        link: Arc<Link>,
        dial: Option<Dial>,
        place: Option<OwnedSemaphorePermit>,
        peer: String,
    ) {
        let alive = self.alive.clone();
        let shared = Arc::clone(&self.shared);
        // What the task below needs, and no more: the node must not wait for the connections to end
        // it.
        drop(self);
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(peer, %error, "cannot turn off Nagle's algorithm");
        }
        let conn = link.conn();
        if shared.put(Item::Connected { link: Arc::clone(&link), dial }, 0).is_err() {
            return;
        }
        let (mut from, to) = stream.into_split();
        let mut writer = tokio::spawn(write(Arc::clone(&link), to));
        let end = tokio::select! {
            end = read(&shared, &link, &mut from, dial.is_some()) => end,
            end = &mut writer => end.unwrap_or(End::Dropped),
            () = link.over() => End::Dropped,
        };
        link.kill();
        writer.abort();
        shared.count(&end, conn, &peer);
        let _: Result<(), Closed> = shared.put(Item::Disconnected { conn }, 0);
        if matches!(end, End::Sent) {
            // To close now would throw away what the other side has not read yet if it has sent
            // more to us.
            let _ = timeout(LINGER, drain(&mut from)).await;
        }
        drop((place, alive));
    }
}

impl Shared {
    fn count(&self, end: &End, conn: ConnId, peer: &str) {
        match end {
            End::Closed | End::Sent | End::Dropped => {
                tracing::debug!(%conn, peer, ?end, "connection ended");
            }
            End::Io(error) => tracing::debug!(%conn, peer, %error, "connection lost"),
            End::Stalled => {
                self.counters.overflows.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%conn, peer, "closed: it takes nothing");
                self.event(Event::PeerFault { member: None, what: "takes nothing" });
            }
            End::Garbage(error) => {
                self.counters.garbage.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(%conn, peer, %error, "closed: it sent what is no message");
                self.event(Event::PeerFault { member: None, what: "sent what is no message" });
            }
            End::TooLong(error) => tracing::error!(%conn, peer, %error, "a message was not sent"),
        }
    }
}

/// Reads messages and hands them to core, several at once.
async fn read(shared: &Shared, link: &Link, from: &mut OwnedReadHalf, dialled: bool) -> End {
    let mut decoder = if dialled { Decoder::dialled() } else { Decoder::accepted() };
    let mut known = false;
    // What came since messages were last handed over: a long one comes in many reads.
    let mut bytes = 0;
    loop {
        bytes += match from.read_buf(decoder.buffer()).await {
            Ok(0) => return End::Closed,
            Ok(read) => read,
            Err(error) => return End::Io(error),
        };
        let mut messages = Vec::new();
        let end = loop {
            if !known && link.is_welcome() {
                decoder.authenticated();
                known = true;
            }
            match decoder.next() {
                Ok(Some(message)) => {
                    link.note(&message);
                    bytes += size_of::<Message>();
                    messages.push(message);
                }
                Ok(None) => break None,
                Err(error) => break Some(End::Garbage(error)),
            }
        };
        if !messages.is_empty() {
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

/// Writes everything that is queued together, until the connection is to end.
async fn write(link: Arc<Link>, mut to: OwnedWriteHalf) -> End {
    let mut encoder = Encoder::new();
    let (mut messages, mut buffer) = (Vec::new(), Vec::new());
    loop {
        let last = link.take(&mut messages);
        for message in messages.drain(..) {
            if let Err(error) = encoder.push(&message) {
                return End::TooLong(error);
            }
        }
        while buffer.len() < WRITE_BYTES && encoder.frame(&mut buffer) {}
        link.set_backlog(encoder.queued_bytes() + buffer.len());
        if buffer.is_empty() {
            if last {
                return match to.shutdown().await {
                    Ok(()) => End::Sent,
                    Err(error) => End::Io(error),
                };
            }
            link.more().await;
            continue;
        }
        match timeout(STALL, to.write_all(&buffer)).await {
            Ok(Ok(())) => buffer.clear(),
            Ok(Err(error)) => return End::Io(error),
            Err(_) => return End::Stalled,
        }
        if buffer.capacity() > 2 * WRITE_BYTES {
            buffer = Vec::new();
        }
    }
}

/// Reads on until the other side has closed.
async fn drain(from: &mut OwnedReadHalf) {
    let mut scrap = [0; 1024];
    while matches!(from.read(&mut scrap).await, Ok(1..)) {}
}

/// About as many bytes go into one write.
const WRITE_BYTES: usize = 256 << 10;
/// A connection that takes none of a write's bytes... for this long is closed.
const STALL: Duration = Duration::from_secs(30);
/// How long a connection that is closed waits for the other side to close too.
const LINGER: Duration = Duration::from_secs(1);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
