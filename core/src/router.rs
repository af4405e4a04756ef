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

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use crate::config::{Limits, Timers};
use crate::ids::{CursorId, GroupId, MemberId, RequestId, Revision, Seq, SessionId, len_u64};
use crate::io::{Failure, Output, Reply};
use crate::rng::Rng;
use crate::shard::command::{Answer, Command, ItemOutcome, Outcome, Page, Query};
use crate::time::Instant;
use crate::wire::message::{AskError, MemberStatus, Message};

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

/// The way to one group's leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Route {
    leader: Option<MemberId>,
    /// Whom to ask next while the leader is not known.
    turn: usize,
    /// To whom the unanswered were sent last.
    target: Option<MemberId>,
    session: Session,
    next_seq: Seq,
    /// Numbered and unanswered.
    window: BTreeMap<Seq, Write>,
    /// Not numbered yet.
    queue: VecDeque<(RequestId, Bytes)>,
    /// Nothing is sent before this.
    pause_until: Instant,
    /// What was sent and not answered is sent again then.
    retry_at: Instant,
    /// When the group last answered.
    used: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Session {
    None,
    Opening { nonce: u64, sent: bool },
    Open(SessionId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Write {
    /// None when its caller has given up.
    request: Option<RequestId>,
    command: Bytes,
    /// Whether the group may have seen the command.
    ever_sent: bool,
    /// Whether it is on its way to the present target.
    sent: bool,
}

/// A question under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ask {
    request: RequestId,
    what: What,
    turn: usize,
    target: Option<MemberId>,
    due: Instant,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum What {
    Query {
        group: GroupId,
        query: Query,
        linearizable: bool,
    },
    /// A later page of a scan: only where the scan began, and only once.
    Page {
        group: GroupId,
        member: MemberId,
        cursor: CursorId,
        query: Query,
    },
    Status {
        member: MemberId,
    },
}

/// A scan that may go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Cursor {
    group: GroupId,
    member: MemberId,
    page: u32,
    revision: Revision,
    idle_until: Instant,
}

/// About how many bytes of commands one message holds; a longer command has one to itself.
const PROPOSE_BYTES: usize = 1 << 20;

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
        }
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

    pub(crate) fn query(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        group: GroupId,
        query: Query,
        linearizable: bool,
    ) {
        self.ask(now, request, deadline, What::Query { group, query, linearizable });
    }

    pub(crate) fn status(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        member: MemberId,
    ) {
        self.ask(now, request, deadline, What::Status { member });
    }

    /// The next page of a scan, or its end. False when the cursor is not known (any more).
    pub(crate) fn page(
        &mut self,
        now: Instant,
        request: RequestId,
        deadline: Instant,
        cursor: CursorId,
        limit: Option<u32>,
    ) -> bool {
        let Some(known) = self.cursors.get_mut(&cursor) else { return false };
        known.page += 1;
        known.idle_until = now + self.timers.cursor_ttl;
        let (group, member) = (known.group, known.member);
        let (page, revision) = (known.page, known.revision);
        let query = match limit {
            Some(limit) => Query::ScanNext { cursor, page, revision, limit },
            None => Query::ScanClose { cursor },
        };
        if limit.is_none() {
            self.cursors.remove(&cursor);
        }
        self.ask(now, request, deadline, What::Page { group, member, cursor, query });
        true
    }

    /// A name for a new scan's snapshot.
    pub(crate) fn new_cursor(&mut self) -> CursorId {
        CursorId(self.rng.next())
    }

    fn ask(&mut self, now: Instant, request: RequestId, deadline: Instant, what: What) {
        let id = self.next_ask;
        self.next_ask += 1;
        self.add_call(request, deadline, 64, At::Ask(id));
        self.asks.insert(id, Ask { request, what, turn: 0, target: None, due: now });
        self.ask_due.insert((now, id));
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
        out.push(Output::Reply { request, result });
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

    fn drive_route(
        &mut self,
        now: Instant,
        group: GroupId,
        reach: &impl Reach,
        send: &mut Vec<(MemberId, Message)>,
    ) {
        let window_max = self.window_max;
        let route = self.routes.get_mut(&group).expect("an active route exists");
        if route.window.is_empty() && route.queue.is_empty() {
            self.active.remove(&group);
            return;
        }
        if now < route.pause_until {
            return;
        }
        // No answer for a while: the leader may be another by now.
        if now >= route.retry_at && route.awaits() {
            route.lose_target();
        }
        if !route.choose_target(group, reach) {
            route.pause_until = now + PAUSE;
            return;
        }
        let target = route.target.expect("just chosen");
        match route.session {
            Session::Open(session) => {
                // An idle session may have been forgotten: what has nothing under way begins a new one, well
                // before the group's own patience ends.
                if route.window.is_empty() && now.since(route.used) > self.timers.session_ttl / 2 {
                    route.session = Session::None;
                    route.open(now, group, target, &self.timers, &mut self.rng, send);
                    return;
                }
                while route.window.len() < window_max
                    && let Some((request, command)) = route.queue.pop_front()
                {
                    let seq = route.next_seq;
                    route.next_seq = seq.next();
                    let write =
                        Write { request: Some(request), command, ever_sent: false, sent: false };
                    route.window.insert(seq, write);
                    let call = self.calls.get_mut(&request).expect("a queued call is under way");
                    call.at = At::Window(group, seq);
                }
                let idle = !route.awaits();
                let parts = route.take_unsent();
                if parts.is_empty() {
                    return;
                }
                if idle {
                    route.retry_at = now + self.timers.retry;
                }
                let first = *route.window.keys().next().expect("just sent from it");
                for commands in parts {
                    send.push((target, Message::Propose { group, session, first, commands }));
                }
            }
            Session::None | Session::Opening { .. } => {
                route.open(now, group, target, &self.timers, &mut self.rng, send);
            }
        }
    }

    fn drive_ask(
        &mut self,
        now: Instant,
        id: u64,
        reach: &impl Reach,
        send: &mut Vec<(MemberId, Message)>,
        out: &mut Vec<Output>,
    ) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let mut wait = self.timers.retry;
        match &ask.what {
            What::Query { group, query, linearizable } => {
                // First the own replica, else the leader; then one after the other.
                let first = reach
                    .local_replica(*group)
                    .or_else(|| self.routes.get(group).and_then(|route| route.leader))
                    .filter(|_| ask.turn == 0);
                ask.target = choose_replica(*group, ask.turn, first, reach);
                ask.turn += 1;
                if let Some(target) = ask.target {
                    let (query, linearizable, group) = (query.clone(), *linearizable, *group);
                    let ask = Message::Ask { call: id, group, query, linearizable };
                    send.push((target, ask));
                } else {
                    wait = PAUSE;
                }
            }
            What::Page { group, member, cursor, query } => {
                let (group, member, cursor) = (*group, *member, *cursor);
                // Asked a second time it would skip a page, so it is asked once.
                if ask.turn > 0 || !reach.is_connected(member) {
                    let request = ask.request;
                    self.cursors.remove(&cursor);
                    self.asks.remove(&id);
                    self.end_call(request, Err(Failure::Interrupted), out);
                    return;
                }
                ask.turn = 1;
                ask.target = Some(member);
                wait = self.timers.retry * 10;
                let query = query.clone();
                send.push((member, Message::Ask { call: id, group, query, linearizable: false }));
            }
            What::Status { member } => {
                ask.target = Some(*member);
                if reach.is_connected(*member) {
                    send.push((*member, Message::AskStatus { call: id }));
                } else {
                    wait = PAUSE;
                }
            }
        }
        ask.due = now + wait;
        self.ask_due.insert((ask.due, id));
    }

    /// A session was opened.
    pub(crate) fn on_opened(
        &mut self,
        now: Instant,
        from: MemberId,
        group: GroupId,
        nonce: u64,
        session: SessionId,
    ) {
        let Some(route) = self.routes.get_mut(&group) else { return };
        if !matches!(route.session, Session::Opening { nonce: asked, .. } if asked == nonce) {
            return;
        }
        assert!(route.window.is_empty(), "numbers belong to one session");
        route.session = Session::Open(session);
        route.next_seq = Seq(1);
        route.used = now;
        route.leader = Some(from);
        self.active.insert(group);
    }

    /// What became of commands.
    pub(crate) fn on_proposed(
        &mut self,
        now: Instant,
        group: GroupId,
        session: SessionId,
        outcomes: Vec<(Seq, ItemOutcome)>,
        out: &mut Vec<Output>,
    ) {
        let Some(route) = self.routes.get_mut(&group) else { return };
        if route.session != Session::Open(session) {
            return;
        }
        route.used = now;
        route.retry_at = now + self.timers.retry;
        let mut done: Vec<(RequestId, Result<Reply, Failure>)> = Vec::new();
        let mut resend_from = None;
        let mut expired = false;
        for (seq, outcome) in outcomes {
            match outcome {
                ItemOutcome::Done(outcome) => {
                    if let Some(write) = route.window.remove(&seq)
                        && let Some(request) = write.request
                    {
                        done.push((request, reply_of(outcome)));
                    }
                }
                ItemOutcome::Forgotten => {
                    if let Some(write) = route.window.remove(&seq)
                        && let Some(request) = write.request
                    {
                        done.push((request, Err(Failure::OutcomeUnknown)));
                    }
                }
                ItemOutcome::Gap { next } => {
                    resend_from = Some(resend_from.map_or(next, |from: Seq| from.min(next)));
                }
                ItemOutcome::Expired => expired = true,
                ItemOutcome::Opened(_) => {}
            }
        }
        if let Some(next) = resend_from {
            for (_, write) in route.window.range_mut(next..) {
                write.sent = false;
            }
        }
        if expired {
            route.session = Session::None;
            let window = core::mem::take(&mut route.window);
            for write in window.into_values().rev() {
                let Some(request) = write.request else { continue };
                if write.ever_sent {
                    done.push((request, Err(Failure::OutcomeUnknown)));
                } else {
                    let call = self.calls.get_mut(&request).expect("a numbered call is under way");
                    call.at = At::Queue(group);
                    route.queue.push_front((request, write.command));
                }
            }
        }
        self.active.insert(group);
        for (request, result) in done {
            self.end_call(request, result, out);
        }
    }

    /// The asked member does not lead the group. Its `hint` is a member that can be reached, or none.
    pub(crate) fn on_not_leader(
        &mut self,
        now: Instant,
        from: MemberId,
        group: GroupId,
        hint: Option<MemberId>,
    ) {
        let Some(route) = self.routes.get_mut(&group) else { return };
        if route.target != Some(from) {
            return;
        }
        route.lose_target();
        route.leader = hint.filter(|&hint| hint != from);
        // With a leader's name at once; without, when one may have been elected.
        if route.leader.is_none() {
            route.pause_until = now + PAUSE;
        }
    }

    /// A replica on this member knows who leads.
    pub(crate) fn on_leader(&mut self, group: GroupId, leader: MemberId) {
        let Some(route) = self.routes.get_mut(&group) else { return };
        if route.leader == Some(leader) {
            return;
        }
        if route.target != Some(leader) {
            route.lose_target();
        }
        route.leader = Some(leader);
        route.pause_until = Instant(0);
    }

    /// The leader has no room now.
    pub(crate) fn on_busy(&mut self, now: Instant, from: MemberId, group: GroupId) {
        let Some(route) = self.routes.get_mut(&group) else { return };
        if route.target == Some(from) {
            route.resend();
            route.pause_until = now + PAUSE;
        }
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

    /// An answer to a question.
    pub(crate) fn on_answer(
        &mut self,
        now: Instant,
        from: MemberId,
        id: u64,
        result: Result<Answer, AskError>,
        out: &mut Vec<Output>,
        describe: impl Fn(GroupId) -> (Vec<MemberId>, Option<MemberId>),
    ) {
        let Some(ask) = self.asks.get_mut(&id) else { return };
        let Ok(answer) = result else {
            // Another replica, a little later; an answer of one that is not asked any more changes nothing.
            if ask.target == Some(from) && matches!(ask.what, What::Query { .. }) {
                self.ask_due.remove(&(ask.due, id));
                ask.due = now + PAUSE;
                self.ask_due.insert((ask.due, id));
            }
            return;
        };
        self.ask_due.remove(&(ask.due, id));
        let ask = self.asks.remove(&id).expect("looked at just now");
        let result = match answer {
            Answer::Value(value) => Ok(Reply::Value(value)),
            Answer::Info(info) => {
                let (replicas, leader) = describe(info.group);
                Ok(Reply::Info { info, replicas, leader })
            }
            Answer::NoCursor => Err(Failure::Interrupted),
            Answer::Page(page) => {
                let cursor = self.note_cursor(now, from, &ask.what, &page);
                Ok(Reply::Page { page, cursor })
            }
        };
        self.end_call(ask.request, result, out);
    }

    /// Remembers where a scan can go on, or forgets it.
    fn note_cursor(
        &mut self,
        now: Instant,
        from: MemberId,
        what: &What,
        page: &Page,
    ) -> Option<CursorId> {
        let (more, revision) = (page.more, page.revision);
        let idle_until = now + self.timers.cursor_ttl;
        match what {
            What::Query { group, query: Query::Scan(scan), .. } if more => {
                let cursor = Cursor { group: *group, member: from, page: 0, revision, idle_until };
                self.cursors.insert(scan.cursor, cursor);
                Some(scan.cursor)
            }
            What::Page { cursor, .. } if more => Some(*cursor),
            What::Page { cursor, .. } => {
                self.cursors.remove(cursor);
                None
            }
            What::Query { .. } | What::Status { .. } => None,
        }
    }

    /// What a member says of itself.
    pub(crate) fn on_status(&mut self, id: u64, status: MemberStatus, out: &mut Vec<Output>) {
        if let Some(ask) = self.asks.remove(&id) {
            self.ask_due.remove(&(ask.due, id));
            self.end_call(ask.request, Ok(Reply::Status(status)), out);
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

impl Route {
    fn new(now: Instant) -> Self {
        Self {
            leader: None,
            turn: 0,
            target: None,
            session: Session::None,
            next_seq: Seq(1),
            window: BTreeMap::new(),
            queue: VecDeque::new(),
            pause_until: Instant(0),
            retry_at: now,
            used: now,
        }
    }

    /// True when an answer is awaited.
    fn awaits(&self) -> bool {
        matches!(self.session, Session::Opening { sent: true, .. })
            || self.window.values().any(|write| write.sent)
    }

    /// Everything unanswered is to be sent again, as soon as the route is not paused.
    fn resend(&mut self) {
        self.retry_at = Instant(0);
        for write in self.window.values_mut() {
            write.sent = false;
        }
        if let Session::Opening { sent, .. } = &mut self.session {
            *sent = false;
        }
    }

    /// Everything unanswered goes to another replica.
    fn lose_target(&mut self) {
        self.resend();
        self.target = None;
        self.leader = None;
        self.turn += 1;
    }

    /// True when there is somebody to send to.
    fn choose_target(&mut self, group: GroupId, reach: &impl Reach) -> bool {
        if self.target.is_some_and(|target| reach.is_connected(target)) {
            return true;
        }
        self.resend();
        let target = choose_replica(group, self.turn, self.leader, reach);
        self.target = target;
        target.is_some()
    }

    fn open(
        &mut self,
        now: Instant,
        group: GroupId,
        target: MemberId,
        timers: &Timers,
        rng: &mut Rng,
        send: &mut Vec<(MemberId, Message)>,
    ) {
        let nonce = match self.session {
            Session::Opening { sent: true, .. } => return,
            Session::Opening { nonce, .. } => nonce,
            Session::None | Session::Open(_) => rng.next(),
        };
        self.session = Session::Opening { nonce, sent: true };
        self.retry_at = now + timers.retry;
        send.push((target, Message::Open { group, nonce }));
    }

    /// What is to be sent now, in messages of about `PROPOSE_BYTES`.
    fn take_unsent(&mut self) -> Vec<Vec<(Seq, Bytes)>> {
        let mut parts: Vec<Vec<(Seq, Bytes)>> = Vec::new();
        let mut bytes = PROPOSE_BYTES;
        for (&seq, write) in &mut self.window {
            if write.sent {
                continue;
            }
            write.sent = true;
            write.ever_sent = true;
            bytes += write.command.len();
            if bytes > PROPOSE_BYTES {
                parts.push(Vec::new());
                bytes = write.command.len();
            }
            let part = parts.last_mut().expect("the first command begins a part");
            part.push((seq, write.command.clone()));
        }
        parts
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

fn encode(command: &Command<Bytes>) -> Vec<u8> {
    postcard::to_allocvec(command).expect("memory is the only limit")
}

fn reply_of(outcome: Outcome) -> Result<Reply, Failure> {
    match outcome {
        Outcome::Written { revision } => Ok(Reply::Written { revision }),
        Outcome::Deleted { existed, revision } => Ok(Reply::Deleted { existed, revision }),
        Outcome::Compared { swapped, revision } => Ok(Reply::Compared { swapped, revision }),
        Outcome::Malformed => Err(Failure::Malformed),
        // The caller of a skipped command has been answered long ago; a late original cannot be told from it.
        Outcome::Skipped => Err(Failure::OutcomeUnknown),
    }
}
