//! What core's thread and a connection's tasks share.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ring_core::ids::ConnId;
use ring_core::wire::Message;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::sleep;

use super::size::size;

/// A connection's queue, bounded in bytes. Core's thread puts messages in and never waits; the
/// connection's writer takes them out, encodes and sends them.
#[derive(Debug)]
pub(crate) struct Link {
    conn: ConnId,
    queue: Mutex<Queue>,
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

impl Link {
    pub(crate) fn new(conn: ConnId, stranger: Option<OwnedSemaphorePermit>) -> Self {
        Self {
            conn,
            queue: Mutex::default(),
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

    /// Queues a message. A queue that overflows is emptied and its connection dies: what is lost in
    /// the middle of a connection could not be made good.
    pub(crate) fn send(&self, message: Message) -> Result<(), Overflow> {
        if matches!(message, Message::Welcome(_)) {
            self.shake_hands();
        }
        let bytes = size(&message);
        let most = self.most.load(Ordering::Relaxed);
        let mut queue = self.queue.lock();
        if queue.phase != Phase::Open {
            return Ok(());
        }
        if queue.bytes + self.backlog.load(Ordering::Relaxed) + bytes > most {
            drop(queue);
            self.kill();
            return Err(Overflow { most });
        }
        queue.bytes += bytes;
        queue.messages.push(message);
        drop(queue);
        self.more.notify_one();
        Ok(())
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

    /// Moves what is queued into `into`; true when nothing will follow.
    pub(super) fn take(&self, into: &mut Vec<Message>) -> bool {
        let mut queue = self.queue.lock();
        std::mem::swap(&mut queue.messages, into);
        // Counted as backlog until the writer says how long they are encoded.
        self.backlog.fetch_add(queue.bytes, Ordering::Relaxed);
        queue.bytes = 0;
        queue.phase != Phase::Open
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
/// How long a connection that is closed may still send.
const FLUSH_TIME: Duration = Duration::from_secs(2);
