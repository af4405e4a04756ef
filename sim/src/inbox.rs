//! What waits for a process: deliveries of the network and calls of clients. It outlives the process.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::task::Waker;

use ring_core::ids::{ConnId, GroupId, MemberId};
use ring_core::io::Dial;

use crate::call::{Ask, Pending, Promise, call};
use crate::clock::Nanos;
use crate::lock;
use crate::net::{Parcel, Wire};

/// What the network has for a process.
pub(crate) enum Delivery {
    Connected {
        conn: ConnId,
        dial: Option<Dial>,
        wire: Wire,
    },
    DialFailed {
        dial: Dial,
    },
    Parcel {
        conn: ConnId,
        parcel: Parcel,
    },
    Broken {
        conn: ConnId,
    },
    Datagram {
        from: SocketAddr,
        bytes: Vec<u8>,
    },
    /// The member is asked to change who takes part in a group.
    Reshape {
        group: GroupId,
        voters: Vec<MemberId>,
        learners: Vec<MemberId>,
    },
    /// The member is asked to go, by force or not.
    Leave {
        force: bool,
    },
    /// The node is told more addresses to dial.
    Join {
        addresses: Vec<String>,
    },
    /// All connections to this machine are to break now.
    Reset {
        peer: usize,
    },
}

/// A call on its way into a node.
pub(crate) struct Submission {
    pub(crate) ask: Ask,
    pub(crate) promise: Promise,
}

/// The queue before a process.
#[derive(Default)]
pub struct Inbox {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    up: bool,
    paused: bool,
    conns: u64,
    deliveries: VecDeque<Delivery>,
    /// Each with the moment at which it arrives.
    late: Vec<(Nanos, Delivery)>,
    /// Datagrams among them.
    datagrams: usize,
    calls: VecDeque<Submission>,
    waker: Option<Waker>,
}

/// What the inbox has for a process that looks into it.
pub(crate) enum Look {
    Paused,
    Empty,
    Something,
}

impl Inbox {
    /// A process begins: whatever came for an earlier one is dropped.
    pub(crate) fn open(&self) {
        let mut state = lock(&self.state);
        state.up = true;
        state.clear();
    }

    /// The process is dead.
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        state.up = false;
        state.paused = false;
        let dropped = state.clear();
        drop(state);
        drop(dropped);
    }

    /// Whether a process runs (or is paused).
    #[must_use]
    pub fn is_up(&self) -> bool {
        lock(&self.state).up
    }

    /// Stops the process between two turns; what comes piles up.
    pub fn pause(&self) {
        lock(&self.state).paused = true;
    }

    /// Lets the process go on.
    pub fn resume(&self) {
        let mut state = lock(&self.state);
        state.paused = false;
        state.wake();
    }

    /// A client calls. Lost at once if no process runs.
    pub fn call(&self, ask: Ask) -> Pending {
        let (promise, pending) = call();
        let mut state = lock(&self.state);
        if state.up {
            state.calls.push_back(Submission { ask, promise });
            state.wake();
        }
        pending
    }

    pub(crate) fn connected(&self, wire: Wire, dial: Option<Dial>) -> ConnId {
        let mut state = lock(&self.state);
        state.conns += 1;
        let conn = ConnId(state.conns);
        state.deliveries.push_back(Delivery::Connected { conn, dial, wire });
        state.wake();
        conn
    }

    pub(crate) fn push(&self, delivery: Delivery) {
        let mut state = lock(&self.state);
        if state.up {
            state.deliveries.push_back(delivery);
            state.wake();
        }
    }

    pub(crate) fn push_at(&self, at: Nanos, delivery: Delivery) {
        let mut state = lock(&self.state);
        if state.up {
            state.late.push((at, delivery));
            state.wake();
        }
    }

    /// A datagram that arrives at this moment; lost if nobody takes those that came before.
    pub(crate) fn push_datagram(&self, at: Nanos, from: SocketAddr, bytes: Vec<u8>) {
        let mut state = lock(&self.state);
        if state.up && state.datagrams < DATAGRAMS_MAX {
            state.datagrams += 1;
            state.late.push((at, Delivery::Datagram { from, bytes }));
            state.wake();
        }
    }

    /// What is there; if nothing is, `waker` is told when something comes.
    pub(crate) fn look(&self, waker: &Waker) -> Look {
        let mut state = lock(&self.state);
        let idle = state.deliveries.is_empty() && state.late.is_empty() && state.calls.is_empty();
        let look = match (state.paused, idle) {
            (true, _) => Look::Paused,
            (false, true) => Look::Empty,
            (false, false) => return Look::Something,
        };
        if !state.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            state.waker = Some(waker.clone());
        }
        look
    }

    /// Takes up to `most` deliveries and calls, and all that come later.
    pub(crate) fn take(
        &self,
        most: usize,
        deliveries: &mut Vec<Delivery>,
        late: &mut Vec<(Nanos, Delivery)>,
        calls: &mut Vec<Submission>,
    ) {
        let mut state = lock(&self.state);
        let count = most.min(state.deliveries.len());
        deliveries.extend(state.deliveries.drain(..count));
        let count = most.min(state.calls.len());
        calls.extend(state.calls.drain(..count));
        late.append(&mut state.late);
        state.datagrams = 0;
    }
}

/// So many datagrams a process that is stopped finds when it goes on; the rest is lost.
const DATAGRAMS_MAX: usize = 256;

impl State {
    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn clear(&mut self) -> (VecDeque<Delivery>, VecDeque<Submission>) {
        self.waker = None;
        self.late.clear();
        self.datagrams = 0;
        (std::mem::take(&mut self.deliveries), std::mem::take(&mut self.calls))
    }
}
