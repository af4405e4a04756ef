//! The way to one group's leader: a session, and what is numbered in it.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;

use bytes::Bytes;

use super::{At, PAUSE, Reach, Router, choose_replica};
use crate::config::Timers;
use crate::ids::{GroupId, MemberId, RequestId, Seq, SessionId};
use crate::io::{Failure, Output, Reply};
use crate::rng::Rng;
use crate::shard::command::{Command, ItemOutcome, Outcome};
use crate::time::Instant;
use crate::wire::message::Message;

/// The way to one group's leader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Route {
    pub(super) leader: Option<MemberId>,
    /// Whom to ask next while the leader is not known.
    pub(super) turn: usize,
    /// To whom the unanswered were sent last.
    pub(super) target: Option<MemberId>,
    pub(super) session: Session,
    pub(super) next_seq: Seq,
    /// Numbered and unanswered.
    pub(super) window: BTreeMap<Seq, Write>,
    /// Not numbered yet.
    pub(super) queue: VecDeque<(RequestId, Bytes)>,
    /// Nothing is sent before this.
    pub(super) pause_until: Instant,
    /// What was sent and not answered is sent again then.
    pub(super) retry_at: Instant,
    /// When the group last answered.
    pub(super) used: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Session {
    None,
    Opening { nonce: u64, sent: bool },
    Open(SessionId),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Write {
    /// None when its caller has given up.
    pub(super) request: Option<RequestId>,
    pub(super) command: Bytes,
    /// Whether the group may have seen the command.
    pub(super) ever_sent: bool,
    /// Whether it is on its way to the present target.
    pub(super) sent: bool,
}

/// About how many bytes of commands one message holds; a longer command has one to itself.
const PROPOSE_BYTES: usize = 1 << 20;

impl Router {
    pub(super) fn drive_route(
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
}

impl Route {
    pub(super) fn new(now: Instant) -> Self {
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
    pub(super) fn lose_target(&mut self) {
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

pub(super) fn encode(command: &Command<Bytes>) -> Vec<u8> {
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
