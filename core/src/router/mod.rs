//! The application's calls on their way: to the leader of a shard for writes, to a replica for reads, again and
//! elsewhere until there is an answer or the deadline has come.
//!
//! Writes are exactly-once by sessions (Lee et al., *Implementing Linearizability at Large Scale and Low Latency*,
//! SOSP 2015, "RIFL"): this node has one session with each group it writes to; every command has a number in it,
//! and is sent again under that number until it is answered. What keeps that right:
//!
//! 1. A number is never given to another command, with one exception: a caller that gave up leaves its number to a
//!    [`Command::Skip`]. Whichever of the two stands first in the log is applied; the other never is.
//! 2. A session is never opened by a retry. When the group has forgotten the session, what was ever sent in it has an
//!    unknown outcome, and only what was never sent goes on in a new one.
//! 3. `first` never passes an unanswered number, so that the group keeps every reply that may still be asked for.
//!
//! | file | owns |
//! |---|---|
//! | `mod.rs` | the calls, their deadlines and limits |
//! | `route.rs` | the way to each group's leader: its session and what is numbered in it |
//! | `ask.rs` | questions: reads, pages of scans, a member's status |

mod ask;
mod route;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::config::{Limits, Timers};
use crate::ids::{CursorId, GroupId, MemberId, RequestId, Revision, Seq, len_u64};
use crate::io::{Failure, Output, Reply};
use crate::rng::Rng;
use crate::shard::command::Command;
use crate::time::Instant;
use crate::wire::message::Message;
use ask::{Ask, Cursor};
use route::{Route, Session, encode};

/// Whom this node can reach, as the router sees it.
pub(crate) trait Reach {
    /// True when a message to this member would leave now (or it is this node).
    fn is_connected(&self, member: MemberId) -> bool;
    /// Members with a replica of the group, the preferred leader first.
    fn replicas(&self, group: GroupId) -> Vec<MemberId>;
    /// This node, if it has a replica of the group.
    fn local_replica(&self, group: GroupId) -> Option<MemberId>;
}

/// All calls under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Router {
    timers: Timers,
    calls_max: usize,
    calls_bytes_max: usize,
    window_max: usize,
    rng: Rng,
    calls: BTreeMap<RequestId, Call>,
    calls_bytes: usize,
    deadlines: BTreeSet<(Instant, RequestId)>,
    routes: BTreeMap<GroupId, Route>,
    /// Routes that have something to send or to wait for.
    active: BTreeSet<GroupId>,
    asks: BTreeMap<u64, Ask>,
    ask_due: BTreeSet<(Instant, u64)>,
    next_ask: u64,
    cursors: BTreeMap<CursorId, Cursor>,
    /// Answers to calls that the node made of itself.
    own: Vec<(RequestId, Own)>,
}

/// The answer to a call that the node made of itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Own {
    /// A value and its revision, if there is one.
    Value(Option<(Bytes, Revision)>),
    /// The new revision of a compare-and-set that took place.
    Swapped(Revision),
    /// It did not take place, or that is not known.
    Failed,
}

impl Own {
    fn of(result: Result<Reply, Failure>) -> Self {
        match result {
            Ok(Reply::Value(value)) => Self::Value(value),
            Ok(Reply::Compared { swapped: true, revision }) => Self::Swapped(revision),
            Ok(_) | Err(_) => Self::Failed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Call {
    deadline: Instant,
    bytes: usize,
    at: At,
}

/// Where a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    Queue(GroupId),
    Window(GroupId, Seq),
    Ask(u64),
}

/// How long nothing is sent to a group whose leader is busy or not known.
const PAUSE: Duration = Duration::from_millis(50);

impl Router {
    pub(crate) fn new(timers: Timers, limits: &Limits, mut rng: Rng) -> Self {
        // Drawn, so that a late answer to a question of this node's last life answers none of this one's.
        let next_ask = rng.next() >> 2;
        Self {
            timers,
            calls_max: limits.calls,
            calls_bytes_max: limits.calls_bytes,
            window_max: usize::try_from(limits.session_window).unwrap_or(usize::MAX),
            rng,
            calls: BTreeMap::new(),
            calls_bytes: 0,
            deadlines: BTreeSet::new(),
            routes: BTreeMap::new(),
            active: BTreeSet::new(),
            asks: BTreeMap::new(),
            ask_due: BTreeSet::new(),
            next_ask,
            cursors: BTreeMap::new(),
            own: Vec::new(),
        }
    }

    /// Answers to calls that the node made of itself.
    pub(crate) fn take_own(&mut self) -> Vec<(RequestId, Own)> {
        core::mem::take(&mut self.own)
    }

    /// Which limit a call of this size would pass, if any.
    pub(crate) fn full(&self, bytes: usize) -> Option<(&'static str, usize)> {
        if self.calls.len() >= self.calls_max {
            return Some(("calls in flight", self.calls_max));
        }
        if !self.calls.is_empty() && self.calls_bytes + bytes > self.calls_bytes_max {
            return Some(("bytes of calls in flight", self.calls_bytes_max));
        }
        None
    }

    pub(crate) fn write(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        group: GroupId,
        command: &Command<Bytes>,
    ) {
        let command = Bytes::from(encode(command));
        self.add_call(request, deadline, command.len(), At::Queue(group));
        let route = self.routes.entry(group).or_insert_with(|| Route::new(now));
        route.queue.push_back((request, command));
        self.active.insert(group);
    }

    fn add_call(&mut self, request: RequestId, deadline: Instant, bytes: usize, at: At) {
        let call = Call { deadline, bytes, at };
        assert!(self.calls.insert(request, call).is_none(), "request ids are never used twice");
        self.calls_bytes += bytes;
        self.deadlines.insert((deadline, request));
    }

    fn end_call(
        &mut self,
        request: RequestId,
        result: Result<Reply, Failure>,
        out: &mut Vec<Output>,
    ) {
        let Some(call) = self.calls.remove(&request) else { return };
        self.calls_bytes -= call.bytes;
        self.deadlines.remove(&(call.deadline, request));
        if request.is_internal() {
            self.own.push((request, Own::of(result)));
        } else {
            out.push(Output::Reply { request, result });
        }
    }

    /// Ends the calls whose deadline has come.
    pub(crate) fn expire(&mut self, now: Instant, out: &mut Vec<Output>) {
        while let Some(&(deadline, request)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.on_deadline(request, out);
        }
    }

    /// The next call's deadline.
    pub(crate) fn expires(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Ends what is overdue and sends what is due.
    pub(crate) fn drive(
        &mut self,
        now: Instant,
        reach: &impl Reach,
        send: &mut Vec<(MemberId, Message)>,
        out: &mut Vec<Output>,
    ) {
        self.expire(now, out);
        let groups: Vec<GroupId> = self.active.iter().copied().collect();
        for group in groups {
            self.drive_route(now, group, reach, send);
        }
        while let Some(&(due, id)) = self.ask_due.first() {
            if due > now {
                break;
            }
            self.ask_due.remove(&(due, id));
            self.drive_ask(now, id, reach, send, out);
        }
        if self.cursors.values().any(|cursor| cursor.idle_until <= now) {
            self.cursors.retain(|_, cursor| cursor.idle_until > now);
        }
    }

    /// When `drive` has something to do again. `flush` has just called it.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let call = self.expires();
        let ask = self.ask_due.first().map(|&(at, _)| at);
        let routes = self.active.iter().filter_map(|group| self.routes.get(group));
        let route = routes.map(|route| route.retry_at.max(route.pause_until)).min();
        [call, ask, route].into_iter().flatten().min()
    }

    fn on_deadline(&mut self, request: RequestId, out: &mut Vec<Output>) {
        let Some(call) = self.calls.get(&request) else { return };
        let failure = match call.at {
            At::Queue(group) => {
                if let Some(route) = self.routes.get_mut(&group) {
                    route.queue.retain(|&(queued, _)| queued != request);
                }
                Failure::Deadline
            }
            At::Window(group, seq) => {
                let write = self.routes.get_mut(&group).and_then(|r| r.window.get_mut(&seq));
                let write = write.expect("a numbered call is in its window");
                write.request = None;
                write.command = Bytes::from(encode(&Command::<Bytes>::Skip));
                write.sent = false;
                if write.ever_sent { Failure::OutcomeUnknown } else { Failure::Deadline }
            }
            At::Ask(id) => {
                if let Some(ask) = self.asks.remove(&id) {
                    self.ask_due.remove(&(ask.due, id));
                }
                // A read changes nothing: nothing can have happened.
                Failure::Deadline
            }
        };
        self.end_call(request, Err(failure), out);
    }

    /// A member can no longer be reached: whatever it was asked is asked elsewhere.
    pub(crate) fn on_disconnected(&mut self, now: Instant, member: MemberId) {
        for route in self.routes.values_mut() {
            if route.leader == Some(member) {
                route.leader = None;
            }
            if route.target == Some(member) {
                route.lose_target();
                route.pause_until = Instant(0);
            }
        }
        let asked: Vec<(Instant, u64)> = self
            .asks
            .iter()
            .filter(|(_, ask)| ask.target == Some(member))
            .map(|(&id, ask)| (ask.due, id))
            .collect();
        for (due, id) in asked {
            self.ask_due.remove(&(due, id));
            self.ask_due.insert((now, id));
            self.asks.get_mut(&id).expect("just listed").due = now;
        }
    }

    /// The node has halted: every call ends.
    pub(crate) fn close(&mut self, out: &mut Vec<Output>) {
        let calls: Vec<(RequestId, At)> =
            self.calls.iter().map(|(&id, call)| (id, call.at)).collect();
        for (request, at) in calls {
            let maybe = match at {
                At::Window(group, seq) => {
                    let route = self.routes.get(&group);
                    route.and_then(|r| r.window.get(&seq)).is_some_and(|write| write.ever_sent)
                }
                At::Queue(_) | At::Ask(_) => false,
            };
            self.end_call(request, Err(Failure::Closed { maybe }), out);
        }
        self.routes.clear();
        self.active.clear();
        self.asks.clear();
        self.ask_due.clear();
    }

    /// Calls under way.
    pub(crate) fn len(&self) -> usize {
        self.calls.len()
    }

    /// Who leads a group, as far as this node has learned from answers.
    pub(crate) fn leader(&self, group: GroupId) -> Option<MemberId> {
        self.routes.get(&group).and_then(|route| route.leader)
    }

    pub(crate) fn check(&self) {
        let bytes: usize = self.calls.values().map(|call| call.bytes).sum();
        assert_eq!(bytes, self.calls_bytes, "bytes of calls add up");
        assert_eq!(len_u64(self.calls.len()), len_u64(self.deadlines.len()), "a deadline each");
        for (group, route) in &self.routes {
            let idle = route.window.is_empty() && route.queue.is_empty();
            assert!(idle || self.active.contains(group), "a route with work is active");
            let open = matches!(route.session, Session::Open(_));
            assert!(open || route.window.is_empty(), "numbers belong to an open session");
        }
    }
}

/// Whom to ask: the one preferred if it can be reached; else, by turns, the replicas that can.
fn choose_replica(
    group: GroupId,
    turn: usize,
    preferred: Option<MemberId>,
    reach: &impl Reach,
) -> Option<MemberId> {
    if let Some(preferred) = preferred.filter(|&preferred| reach.is_connected(preferred)) {
        return Some(preferred);
    }
    let mut candidates: Vec<MemberId> = reach.replicas(group);
    candidates.retain(|&candidate| reach.is_connected(candidate));
    if candidates.is_empty() {
        return None;
    }
    candidates.get(turn % candidates.len()).copied()
}
