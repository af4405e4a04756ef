//! What core and a connection's tasks share.

use std::future::poll_fn;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use ring_core::ids::ConnId;
use ring_core::wire::Message;
use tokio::io::AsyncWrite;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::sleep;

use super::End;
use super::outlet::{Outlet, Sent};
use super::size::size;

/// A connection's queue, bounded in bytes. Core puts messages in and never waits; the connection's
/// writer takes them out, encodes and sends them. What little there is on a connection that has
/// nothing else to send is sent at once, by whoever works for core: that saves a hand-over. The order
/// stays that of the queue: only who holds the outlet takes from it.
#[derive(Debug)]
pub(crate) struct Link {
    conn: ConnId,
    queue: Mutex<Queue>,
    /// None: the connection has not begun, or has ended.
    outlet: Mutex<Option<Outlet>>,
    /// Empty vectors for messages that come: core gives them back.
    spare: Mutex<Vec<Vec<Message>>>,
    /// Something for the writer to do.
    more: Notify,
    /// The connection is to end.
    over: Notify,
    /// Bytes that the writer has taken and not sent.
    backlog: AtomicUsize,
    /// Most bytes in queue and backlog.
    most: AtomicUsize,
    /// Set when the two sides have shaken hands.
    welcome: AtomicBool,
    /// A stranger's place, given back at the welcome.
    stranger: Mutex<Option<OwnedSemaphorePermit>>,
}

#[derive(Debug, Default)]
struct Queue {
    messages: Vec<Message>,
    bytes: usize,
    /// The writer was not told of some of them.
    is_untold: bool,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
enum Phase {
    #[default]
    Open,
    /// What is queued is sent, and then the connection is closed.
    Closing,
    /// Nothing is sent any more.
    Dead,
}

/// A connection's queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Overflow {
    /// How many bytes it may hold.
    pub(crate) most: usize,
}

/// What was taken off a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Took {
    pub(super) bytes: usize,
    /// Nothing will follow.
    pub(super) last: bool,
}

impl Link {
    pub(crate) fn new(conn: ConnId, stranger: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            conn,
            queue: Mutex::default(),
            outlet: Mutex::new(None),
            spare: Mutex::default(),
            more: Notify::new(),
            over: Notify::new(),
            backlog: AtomicUsize::new(0),
            most: AtomicUsize::new(STRANGER_QUEUE_BYTES),
            welcome: AtomicBool::new(false),
            stranger: Mutex::new(stranger),
        }
    }

    pub(crate) fn conn(&self) -> ConnId {
        self.conn
    }

    /// Queues a message and tells the writer; as [`Link::put`] and [`Link::flush`].
    pub(crate) fn send(&self, message: Message) -> Result<(), Overflow> {
        if self.put(message)? {
            self.flush(false);
        }
        Ok(())
    }

    /// Queues a message. True for the first since [`Link::flush`], which is to be called. A queue that overflows is
    /// emptied and its connection dies: what is lost in the middle of a connection could not be made good.
    pub(crate) fn put(&self, message: Message) -> Result<bool, Overflow> {
        if matches!(message, Message::Welcome(_)) {
            self.shake_hands();
        }
        let bytes = size(&message);
        let most = self.most.load(Ordering::Relaxed);
        let mut queue = self.queue.lock();
        if queue.phase != Phase::Open {
            return Ok(false);
        }
        if queue.bytes + self.backlog.load(Ordering::Relaxed) + bytes > most {
            drop(queue);
            self.kill();
            return Err(Overflow { most });
        }
        queue.bytes += bytes;
        queue.messages.push(message);
        Ok(!std::mem::replace(&mut queue.is_untold, true))
    }

    /// Has sent what was put in: here and now if `here`, it is little, and nothing else is on its way.
    pub(crate) fn flush(&self, here: bool) {
        let mut queue = self.queue.lock();
        queue.is_untold = false;
        let is_little = queue.phase == Phase::Open && queue.bytes <= HERE_BYTES;
        drop(queue);
        if !(here && is_little && self.flush_here()) {
            self.more.notify_one();
        }
    }

    /// Sends what is queued as far as that goes without waiting. False: there is something left for the writer.
    fn flush_here(&self) -> bool {
        let Some(mut outlet) = self.outlet.try_lock() else { return false };
        let Some(outlet) = &mut *outlet else { return false };
        // The writer waits until the connection takes more; to poll would take its place.
        if outlet.is_busy() {
            return false;
        }
        match outlet.poll(&mut Context::from_waker(Waker::noop()), self) {
            Poll::Ready(Ok(Sent::All)) => true,
            Poll::Ready(Ok(Sent::Some | Sent::Last)) | Poll::Pending => false,
            Poll::Ready(Err(end)) => {
                outlet.fail(end);
                false
            }
        }
    }

    /// From now on what is queued is sent to `to`.
    pub(super) fn open(&self, to: impl AsyncWrite + Unpin + Send + 'static) {
        *self.outlet.lock() = Some(Outlet::new(to));
    }

    /// For the writer: sends a part of what is queued.
    pub(super) async fn send_some(&self) -> Result<Sent, End> {
        poll_fn(|cx| match &mut *self.outlet.lock() {
            Some(outlet) => outlet.poll(cx, self),
            None => Poll::Ready(Err(End::Dropped)),
        })
        .await
    }

    /// For the writer: says to the other side that nothing follows.
    pub(super) async fn shut(&self) -> io::Result<()> {
        poll_fn(|cx| match &mut *self.outlet.lock() {
            Some(outlet) => outlet.poll_shut(cx),
            None => Poll::Ready(Ok(())),
        })
        .await
    }

    /// The connection has ended: its socket is let go.
    pub(super) fn end(&self) {
        let outlet = self.outlet.lock().take();
        drop(outlet); // with no lock held
    }

    /// Ends the connection when everything queued is sent, or after a while.
    pub(crate) fn close(&self) {
        let mut queue = self.queue.lock();
        if queue.phase == Phase::Open {
            queue.phase = Phase::Closing;
        }
        drop(queue);
        self.more.notify_one();
        self.over.notify_one();
    }

    /// Ends the connection now.
    pub(crate) fn kill(&self) {
        *self.queue.lock() = Queue { phase: Phase::Dead, ..Queue::default() };
        self.more.notify_one();
        self.over.notify_one();
    }

    /// An empty vector, for messages that come.
    pub(super) fn spare(&self) -> Vec<Message> {
        self.spare.lock().pop().unwrap_or_default()
    }

    /// Gives it back, empty.
    pub(crate) fn put_back(&self, messages: Vec<Message>) {
        debug_assert!(messages.is_empty(), "all of them have been handled");
        let mut spare = self.spare.lock();
        if spare.len() < SPARES_MAX && messages.capacity() <= SPARE_MESSAGES_MAX {
            spare.push(messages);
        }
    }

    /// Moves what is queued into `into`, which is empty.
    pub(super) fn take(&self, into: &mut Vec<Message>) -> Took {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.messages, into);
        let bytes = std::mem::take(&mut queue.bytes);
        // Counted as backlog until the writer says how long they are encoded.
        self.backlog.fetch_add(bytes, Ordering::Relaxed);
        Took { bytes, last: queue.phase != Phase::Open }
    }

    /// True when nothing is queued and the connection goes on.
    pub(super) fn is_empty(&self) -> bool {
        let queue = self.queue.lock();
        queue.messages.is_empty() && queue.phase == Phase::Open
    }

    pub(super) fn set_backlog(&self, bytes: usize) {
        self.backlog.store(bytes, Ordering::Relaxed);
    }

    /// Waits until there is something for the writer to do.
    pub(super) async fn more(&self) {
        self.more.notified().await;
    }

    /// Waits until the connection must be dropped.
    pub(super) async fn over(&self) {
        self.over.notified().await;
        if self.queue.lock().phase == Phase::Closing {
            sleep(FLUSH_TIME).await;
        }
    }

    /// Looks at an arrived message for who is there.
    pub(super) fn note(&self, message: &Message) {
        let who = if let Message::Hello(hello) = message {
            &hello.who
        } else if let Message::Welcome(welcome) = message {
            self.shake_hands();
            &welcome.who
        } else {
            return;
        };
        let most = if who.member.is_client() { CLIENT_QUEUE_BYTES } else { MEMBER_QUEUE_BYTES };
        self.most.store(most, Ordering::Relaxed);
    }

    pub(super) fn is_welcome(&self) -> bool {
        self.welcome.load(Ordering::Acquire)
    }

    fn shake_hands(&self) {
        self.welcome.store(true, Ordering::Release);
        self.stranger.lock().take();
    }
}

/// A genesis of many members, with room to spare.
const STRANGER_QUEUE_BYTES: usize = 2 << 20;
const CLIENT_QUEUE_BYTES: usize = 16 << 20;
const MEMBER_QUEUE_BYTES: usize = 64 << 20;
/// As much is sent by who works for core: about what costs no more than to wake the writer.
const HERE_BYTES: usize = 16 << 10;
/// While core works off one the reader fills another.
const SPARES_MAX: usize = 2;
/// Longer ones are freed: a connection that is idle holds no more.
const SPARE_MESSAGES_MAX: usize = 512;
/// How long a connection that is closed may still send.
const FLUSH_TIME: Duration = Duration::from_secs(2);
