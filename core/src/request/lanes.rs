//! What goes over each connection: its order, and its window.
//!
//! Every part has a place: the weight of all that was sent before it on its connection. The receiver takes a part whose
//! place is not before what it has taken, so nothing is taken twice or out of order, whatever the connection does; and
//! it says up to where it has taken, which opens the window. Both sides count alike, so no part needs a number beside.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use super::WINDOW;
use super::message::Part;
use crate::ids::{ConnId, RequestId, len_u64};
use crate::time::Instant;
use crate::wire::Message;

/// All connections that requests have gone over.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<ConnId, Lane>,
    /// Those that have something to send and may.
    ready: BTreeSet<ConnId>,
    /// Those whose window is full.
    full: BTreeMap<ConnId, Full>,
    /// Those whose other end does not keep the protocol, and how.
    stuck: BTreeMap<ConnId, &'static str>,
    /// Those whose other end is to be told what was taken.
    untold: BTreeSet<ConnId>,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Lane {
    /// Weight of everything sent...
    sent: u64,
    /// ... and of what of it the other end has taken.
    acked: u64,
    waiting: VecDeque<Waiting>,
    /// How many of those that wait answer what the other end said.
    replies: u64,
    /// Weight of everything taken...
    taken: u64,
    /// ... and how much of it the other end knows of.
    told: u64,
}

/// A window that is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
struct Full {
    /// When the other end is asked what it has taken.
    ask_at: Option<Instant>,
    /// When it is not believed any more that it takes anything.
    until: Option<Instant>,
}

/// What waits for a window.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Waiting {
    /// A request, which may end before it is sent.
    Ask(RequestId),
    /// An answer to something that the other end said, and the bytes that it holds.
    Reply(Part, usize),
    /// Anything else.
    Part(Part),
}

impl Waiting {
    /// The bytes of a handler's answer.
    fn bytes(&self) -> usize {
        match self {
            Self::Reply(_, bytes) => *bytes,
            Self::Ask(_) | Self::Part(_) => 0,
        }
    }
}

/// The other end is told when it knows of so much less than was taken.
const TELL_EVERY: u64 = WINDOW / 8;
/// The other end of a full window is asked after this long, and again: a connection may have lost its word.
const ASK_AFTER: Duration = Duration::from_millis(500);
/// A connection whose other end takes nothing for this long, and has been asked all the while, is given up: requests would
/// pile up for it.
const STUCK_AFTER: Duration = Duration::from_secs(20);

impl Lane {
    fn is_open(&self) -> bool {
        self.sent - self.acked < WINDOW
    }
}

impl Lanes {
    pub(super) fn push(&mut self, conn: ConnId, part: Part) {
        self.queue(conn, Waiting::Part(part));
    }

    pub(super) fn queue(&mut self, conn: ConnId, waiting: Waiting) {
        let lane = self.lanes.entry(conn).or_default();
        lane.waiting.push_back(waiting);
        if lane.is_open() {
            self.ready.insert(conn);
        } else {
            self.full.entry(conn).or_default();
        }
    }

    /// Answers something that the other end said; `bytes` are held until that is sent. `most`: so many answers may wait.
    pub(super) fn reply(&mut self, conn: ConnId, part: Part, bytes: usize, most: u64) {
        let lane = self.lanes.entry(conn).or_default();
        lane.replies += 1;
        if lane.replies > most {
            self.stuck.insert(conn, "asked on, and took no answers");
        }
        self.queue(conn, Waiting::Reply(part, bytes));
    }

    /// The next thing that may be sent.
    pub(super) fn next(&mut self) -> Option<(ConnId, Waiting)> {
        while let Some(&conn) = self.ready.first() {
            let lane = self.lanes.get_mut(&conn).expect("a ready lane exists");
            if lane.is_open()
                && let Some(waiting) = lane.waiting.pop_front()
            {
                lane.replies -= u64::from(matches!(waiting, Waiting::Reply(..)));
                return Some((conn, waiting));
            }
            if !lane.waiting.is_empty() {
                self.full.entry(conn).or_default();
            }
            self.ready.remove(&conn);
        }
        None
    }

    /// The place of a part of this weight, which is sent now.
    pub(super) fn advance(&mut self, conn: ConnId, weight: u64) -> u64 {
        let lane = self.lanes.get_mut(&conn).expect("what is sent was queued");
        let at = lane.sent;
        lane.sent += weight;
        at
    }

    /// True when a part at this place is new, and follows what was taken.
    pub(super) fn take(&mut self, conn: ConnId, at: u64, weight: u64) -> bool {
        let lane = self.lanes.entry(conn).or_default();
        if at < lane.taken {
            return false;
        }
        lane.taken = at.saturating_add(weight);
        if lane.taken - lane.told >= TELL_EVERY {
            self.untold.insert(conn);
        }
        true
    }

    pub(super) fn on_taken(&mut self, conn: ConnId, upto: u64) {
        let Some(lane) = self.lanes.get_mut(&conn) else { return };
        let before = lane.acked;
        lane.acked = before.max(upto.min(lane.sent));
        if let Some(full) = self.full.get_mut(&conn)
            && lane.acked > before
        {
            full.until = None;
        }
        if lane.is_open() {
            self.full.remove(&conn);
            if !lane.waiting.is_empty() {
                self.ready.insert(conn);
            }
        }
    }

    /// What of it has not come by now was lost; should it come after all, it is too late.
    pub(super) fn on_sent(&mut self, conn: ConnId, upto: u64) {
        let lane = self.lanes.entry(conn).or_default();
        lane.taken = lane.taken.max(upto);
        self.untold.insert(conn);
    }

    /// Tells what was taken, and asks where a window is full.
    pub(super) fn report(&mut self, now: Instant, sends: &mut Vec<(ConnId, Message)>) {
        while let Some(conn) = self.untold.pop_first() {
            let lane = self.lanes.get_mut(&conn).expect("what was taken has a lane");
            lane.told = lane.taken;
            sends.push((conn, Message::RequestsTaken { upto: lane.taken }));
        }
        for (conn, full) in &mut self.full {
            if let Some(at) = full.ask_at
                && at <= now
            {
                sends.push((*conn, Message::RequestsSent { upto: self.lanes[conn].sent }));
                full.ask_at = None;
            }
            full.ask_at.get_or_insert(now + ASK_AFTER);
            if *full.until.get_or_insert(now + STUCK_AFTER) <= now {
                self.stuck.insert(*conn, "took nothing of what was sent to it");
            }
        }
    }

    /// A connection whose other end does not keep the protocol, and how. It is to be dropped.
    pub(super) fn stuck(&self) -> Option<(ConnId, &'static str)> {
        self.stuck.first_key_value().map(|(&conn, &how)| (conn, how))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.full.values().filter_map(|full| full.ask_at).min()
    }

    /// Forgets a connection; gives back the bytes of the answers that waited for it.
    pub(super) fn drop_conn(&mut self, conn: ConnId) -> usize {
        self.ready.remove(&conn);
        self.full.remove(&conn);
        self.untold.remove(&conn);
        self.stuck.remove(&conn);
        let lane = self.lanes.remove(&conn).unwrap_or_default();
        lane.waiting.iter().map(Waiting::bytes).sum()
    }

    /// Bytes of the answers that wait.
    pub(super) fn answers_bytes(&self) -> usize {
        self.lanes.values().flat_map(|lane| &lane.waiting).map(Waiting::bytes).sum()
    }

    pub(super) fn check(&self) {
        for (conn, lane) in &self.lanes {
            assert!(lane.acked <= lane.sent && lane.told <= lane.taken, "places do not fall");
            let replies = lane.waiting.iter().filter(|w| matches!(w, Waiting::Reply(..))).count();
            assert_eq!(len_u64(replies), lane.replies, "1: answers that wait add up");
            let is_full = self.full.contains_key(conn);
            assert!(lane.waiting.is_empty() || is_full, "4: only a full window makes parts wait");
            assert!(!is_full || !lane.is_open(), "4: a full window is full");
        }
    }
}
