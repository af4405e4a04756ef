//! A completion queue: filled by many threads, drained by one at a time.
//!
//! Invariants:
//! 1. `signalled` is true from the moment in which an event waits until a drain has found both halves
//!    empty; the descriptor is set after it becomes true and cleared only with it, under the lock. So
//!    a descriptor that is not readable means that no event waits, and at worst one is readable for
//!    nothing.
//! 2. After `free` the host's `wake` is not called, and no call of it is under way.
//!
//! No lock is held while the host's `wake` runs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::RawFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, TryLockError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::fault::Fault;
use crate::guard;
use crate::status::{self, ring_status_t};
use crate::sync::{lock, wait, wait_until};
use crate::types::ring_id_t;
use crate::wake::WakeFd;

/// What happened.
#[derive(Default)]
pub(crate) struct Event {
    pub(crate) tag: u64,
    pub(crate) id: ring_id_t,
    pub(crate) kind: u32,
    pub(crate) status: ring_status_t,
    pub(crate) a: u64,
    pub(crate) b: u64,
    pub(crate) data: Bytes,
    /// Makes the rest of the event when the host takes it.
    pub(crate) source: Option<Arc<dyn Source>>,
    /// Told when the host takes this event.
    pub(crate) then: Option<Arc<dyn Taken>>,
}

/// Knows what an event says only when the host takes it. The drainer's half is locked: nothing may be pushed here.
pub(crate) trait Source: Send + Sync {
    /// Completes the event, which the host may then take, or not yet. False: there is nothing to tell any more, and the
    /// event goes.
    fn fill(&self, event: &mut Event) -> bool;

    /// The host has taken it.
    fn on_shown(&self);
}

/// Has given its host something in a queue that it must take back when the queue is freed.
pub(crate) trait User: Send + Sync {
    /// Nothing of this queue will be drained any more. No lock is held.
    fn on_queue_freed(self: Arc<Self>, queue: &Queue);
}

/// Waits for an event to be taken out of its queue.
pub(crate) trait Taken: Send + Sync {
    /// It was. No lock is held.
    fn on_taken(self: Arc<Self>);
}

/// The host's function that is called when events begin to wait.
pub(crate) type Wake = Box<dyn Fn() + Send + Sync>;

pub(crate) struct Queue {
    forks: u32,
    fd: WakeFd,
    wake: Option<Wake>,
    incoming: Mutex<Incoming>,
    /// Something for a thread that waits.
    changed: Condvar,
    /// The drainer's half; whoever finds it locked is a second drainer.
    ready: Mutex<VecDeque<Event>>,
    /// Who is to know when it is freed.
    users: Mutex<Vec<Weak<dyn User>>>,
}

#[derive(Default)]
struct Incoming {
    events: VecDeque<Event>,
    signalled: bool,
    /// `wakeup` was called.
    woken: bool,
    waiting: usize,
    /// Calls of `wake` under way.
    waking: usize,
    freed: bool,
}

/// What adding events came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Added {
    /// Nobody will ever drain them: they are gone.
    Dropped,
    /// Others waited already.
    Quietly,
    /// They are the first that wait.
    First {
        /// A thread waits for them.
        waiting: bool,
    },
}

/// How a drain takes an event.
pub(crate) enum Take {
    Took,
    /// No room: it stays.
    Full,
}

impl Queue {
    pub(crate) fn new(wake: Option<Wake>) -> io::Result<Self> {
        Ok(Self {
            forks: guard::forks(),
            fd: WakeFd::new()?,
            wake,
            incoming: Mutex::default(),
            changed: Condvar::new(),
            ready: Mutex::default(),
            users: Mutex::default(),
        })
    }

    /// `user` is told when the queue is freed, once, however often it says so.
    pub(crate) fn join(&self, user: &Weak<dyn User>) {
        let mut users = lock(&self.users);
        if users.iter().any(|known| known.ptr_eq(user)) {
            return;
        }
        users.retain(|known| known.strong_count() > 0);
        users.push(Weak::clone(user));
    }

    /// Whether this process made it.
    pub(crate) fn same_process(&self) -> Result<(), Fault> {
        guard::same_process(self.forks)
    }

    pub(crate) fn fd(&self) -> RawFd {
        self.fd.raw()
    }

    /// Adds an event; drops it when nobody will ever drain it.
    pub(crate) fn push(&self, event: Event) {
        self.push_all([event]);
    }

    /// Adds events, with one wake-up for all.
    pub(crate) fn push_all(&self, events: impl IntoIterator<Item = Event>) {
        self.announce(self.add(events));
    }

    /// Adds events and calls nobody, so that the caller may hold a lock; `announce` is to follow.
    pub(crate) fn add(&self, events: impl IntoIterator<Item = Event>) -> Added {
        let mut incoming = self.lock();
        if incoming.freed {
            return Added::Dropped;
        }
        incoming.events.extend(events);
        if incoming.signalled || incoming.events.is_empty() {
            return Added::Quietly;
        }
        incoming.signalled = true;
        incoming.waking += usize::from(self.wake.is_some());
        Added::First { waiting: incoming.waiting > 0 }
    }

    /// Wakes whoever is to be woken. No lock may be held: the host is called.
    pub(crate) fn announce(&self, added: Added) {
        let waiting = match added {
            Added::Dropped | Added::Quietly => return,
            Added::First { waiting } => waiting,
        };
        self.fd.set();
        if waiting {
            self.changed.notify_all();
        }
        if let Some(wake) = &self.wake {
            guard::callback(wake);
            let mut incoming = self.lock();
            incoming.waking -= 1;
            if incoming.freed {
                self.changed.notify_all();
            }
        }
    }

    /// Waits until events wait.
    pub(crate) fn wait(&self, timeout: Option<Duration>) -> Result<(), Fault> {
        let until = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut incoming = self.lock();
        incoming.waiting += 1;
        let result = loop {
            if incoming.freed {
                break Err(Fault::closed());
            }
            if std::mem::take(&mut incoming.woken) {
                break Err(Fault::new(status::RING_AGAIN, "woken"));
            }
            if incoming.signalled {
                break Ok(());
            }
            match wait_until(&self.changed, incoming, until) {
                Ok(woken) => incoming = woken,
                Err(same) => {
                    incoming = same;
                    break Err(Fault::new(status::RING_TIMEOUT, "no event came in time"));
                }
            }
        };
        incoming.waiting -= 1;
        result
    }

    /// Ends one `wait`, the one under way or the next, and makes the descriptor readable until the
    /// next drain.
    pub(crate) fn wakeup(&self) {
        self.lock().woken = true;
        self.fd.set();
        self.changed.notify_one();
    }

    /// Hands events to `take`, in the order in which they happened, until it is full or none is
    /// left; says how many it took. An event whose source has nothing to tell any more is dropped.
    pub(crate) fn drain(&self, mut take: impl FnMut(&mut Event) -> Take) -> Result<u32, Fault> {
        let mut ready = match self.ready.try_lock() {
            Ok(ready) => ready,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                let text = "another thread drains this queue at the same time";
                return Err(Fault::new(status::RING_MISUSE, text));
            }
        };
        let mut taken = 0;
        let mut followers: Vec<Arc<dyn Taken>> = Vec::new();
        'all: loop {
            while let Some(event) = ready.front_mut() {
                let source = event.source.clone();
                if source.as_ref().is_some_and(|source| !source.fill(event)) {
                    ready.pop_front();
                    continue;
                }
                match take(event) {
                    Take::Took => {
                        source.iter().for_each(|source| source.on_shown());
                        followers.extend(event.then.take());
                        ready.pop_front();
                        taken += 1;
                    }
                    Take::Full => break 'all,
                }
            }
            let mut incoming = self.lock();
            if incoming.events.is_empty() {
                incoming.signalled = false;
                self.fd.clear();
                break;
            }
            std::mem::swap(&mut incoming.events, &mut *ready);
        }
        if ready.is_empty() && ready.capacity() > SPARE_EVENTS {
            *ready = VecDeque::new();
        }
        drop(ready);
        for follower in followers {
            follower.on_taken();
        }
        Ok(taken)
    }

    /// Nobody drains it any more: what waits and what still comes is dropped.
    pub(crate) fn free(&self) {
        let mut incoming = self.lock();
        incoming.freed = true;
        let dropped = std::mem::take(&mut incoming.events);
        self.changed.notify_all();
        while incoming.waking > 0 {
            incoming = wait(&self.changed, incoming);
        }
        drop(incoming);
        let ready = self.ready.try_lock().map(|mut ready| std::mem::take(&mut *ready));
        // Outside of the locks. Who waits for an event to be taken learns that none is any more.
        for event in dropped.into_iter().chain(ready.unwrap_or_default()) {
            if let Some(follower) = event.then {
                follower.on_taken();
            }
        }
        let users = std::mem::take(&mut *lock(&self.users));
        for user in users.iter().filter_map(Weak::upgrade) {
            user.on_queue_freed(self);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Incoming> {
        lock(&self.incoming)
    }
}

/// What an empty queue may keep allocated.
const SPARE_EVENTS: usize = 1 << 16;

#[cfg(test)]
mod tests;
