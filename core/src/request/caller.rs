//! Requests of this node: whom to ask, again and elsewhere, until there is an answer or the deadline has come.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::message::{Ask, Part, SKIPPED_MAX, headers_bytes, streams_bytes};
use super::{
    Broken, Effect, Failure, Fault, Kind, NAME_BYTES_MAX, Reach, Request, Requests, Response,
    STREAM_WINDOW, Side, Target, Via, Waited, Way, check_parts, lanes,
};
use crate::ids::{ConnId, MemberId, RequestId, len_u64};
use crate::io::Refused;
use crate::rng::Rng;
use crate::time::Instant;

/// All requests of this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Callers {
    /// Boxed: to insert and to remove moves the neighbours.
    requests: BTreeMap<RequestId, Box<Asked>>,
    deadlines: BTreeSet<(Instant, RequestId)>,
    due: BTreeSet<(Instant, RequestId)>,
    /// Requests that are to be answered and are not.
    waiting: usize,
    bytes: usize,
    rng: Rng,
}

/// One request.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    request: Request,
    bytes: usize,
    at: At,
    /// How often it was sent.
    attempts: u32,
    /// How often everybody in line was tried.
    rounds: u32,
    /// Those who could not be reached in this round...
    skipped: Vec<MemberId>,
    /// ... and those who said that they are not the one, since the last that could not.
    refused: Vec<MemberId>,
    /// Who is the one, by the word of somebody who is not.
    hint: Option<MemberId>,
    /// It was sent, and that attempt was lost: it may have been handled.
    maybe: bool,
    /// Why it is not under way.
    waited: Waited,
    /// Until then it waits for members that were never reached.
    patience: Instant,
}

/// Whom to ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Choice {
    Ask(MemberId, Via),
    /// The one may be connected soon.
    Wait,
    /// Everybody in line was tried.
    Nobody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    /// To be tried then.
    Due(Instant),
    /// Waits for the connection's window.
    Queued(Via, MemberId),
    Sent(Via, MemberId),
    /// Its streams are open.
    Answered(Via),
}

/// How long a request waits for a member that was never reached.
const PATIENCE: Duration = Duration::from_millis(500);
/// So many in line are tried in a round.
const LINE_MAX: usize = SKIPPED_MAX;
/// How long to wait when everybody in line was tried; doubled with each round...
const PAUSE_MIN: Duration = Duration::from_millis(20);
/// ... up to this.
const PAUSE_MAX: Duration = Duration::from_secs(1);

impl Callers {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            requests: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            due: BTreeSet::new(),
            waiting: 0,
            bytes: 0,
            rng,
        }
    }

    pub(super) fn overdue(&self, now: Instant) -> Option<RequestId> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|&(_, request)| request)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let due = self.due.first().map(|&(at, _)| at);
        [self.expires(), due].into_iter().flatten().min()
    }

    pub(super) fn expires(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    /// Whether something that is for a key's owner is tried by then.
    pub(super) fn wants_ring(&self, until: Instant) -> bool {
        let mut due = self.due.iter().take_while(|(at, _)| *at <= until);
        due.any(|(_, request)| matches!(self.requests[request].request.target, Target::Key(_)))
    }

    /// What waits for a later try is tried now.
    pub(super) fn wake(&mut self, now: Instant) {
        let later = self.due.split_off(&(now, RequestId(u64::MAX)));
        for (_, request) in later {
            let asked = self.requests.get_mut(&request).expect("what is due exists");
            asked.at = At::Due(now);
            self.due.insert((now, request));
        }
    }

    /// What waits for a later try and is for one of these partitions is tried now.
    pub(super) fn wake_partitions(&mut self, now: Instant, is_one: impl Fn(&[u8]) -> bool) {
        let later = self.due.range((now, RequestId(u64::MAX))..);
        let is_woken = |request: &RequestId| match &self.requests[request].request.target {
            Target::Partition(partition) => is_one(partition),
            Target::Key(_) | Target::Member(_) => false,
        };
        let woken: Vec<(Instant, RequestId)> =
            later.filter(|(_, request)| is_woken(request)).copied().collect();
        for (at, request) in woken {
            self.due.remove(&(at, request));
            self.put_off(request, now);
        }
    }

    /// Where a request went; none if it is not on its way or has no streams any more.
    pub(super) fn via(&self, request: RequestId) -> Option<Via> {
        match self.requests.get(&request)?.at {
            At::Due(_) | At::Queued(..) => None,
            At::Sent(via, _) | At::Answered(via) => Some(via),
        }
    }

    pub(super) fn has(&self, request: RequestId) -> bool {
        self.requests.contains_key(&request)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    pub(super) fn forget_answered(&mut self, request: RequestId) {
        let asked = self.requests.get(&request);
        if asked.is_some_and(|asked| matches!(asked.at, At::Answered(_))) {
            self.requests.remove(&request);
        }
    }

    pub(super) fn close(&mut self, effects: &mut Vec<Effect>) {
        for (request, asked) in core::mem::take(&mut self.requests) {
            let result = Err(Failure::Closed { maybe: asked.is_perhaps_handled() });
            if !matches!(asked.at, At::Answered(_)) {
                effects.push(Effect::Answered { request, result });
            }
        }
        self.deadlines.clear();
        self.due.clear();
        self.waiting = 0;
        self.bytes = 0;
    }

    pub(super) fn check(&self) {
        let open = || self.requests.values().filter(|asked| !matches!(asked.at, At::Answered(_)));
        let bytes: usize = open().map(|asked| asked.bytes).sum();
        assert_eq!(bytes, self.bytes, "1: bytes of requests add up");
        assert_eq!(open().count(), self.deadlines.len(), "2: a deadline each");
        let counted = open().filter(|asked| asked.request.kind != Kind::OneWay).count();
        assert_eq!(counted, self.waiting, "1: requests in flight add up");
        let due = open().filter(|asked| matches!(asked.at, At::Due(_))).count();
        assert_eq!(due, self.due.len(), "2: what waits for a try is due");
    }

    /// It is tried again later.
    fn put_off(&mut self, request: RequestId, at: Instant) {
        let asked = self.requests.get_mut(&request).expect("a request that is put off exists");
        asked.at = At::Due(at);
        self.due.insert((at, request));
    }
}

impl Asked {
    /// True when it may have been handled, or may still be.
    fn is_perhaps_handled(&self) -> bool {
        self.maybe || matches!(self.at, At::Sent(..))
    }

    fn may_go_again(&self) -> bool {
        self.request.kind == Kind::Retried && self.request.streams.is_empty()
    }

    /// The next to be asked, of those in line; those that cannot be reached are passed over.
    fn choose(&mut self, now: Instant, reach: &impl Reach) -> Choice {
        let is_new = |hint: &MemberId| !self.skipped.contains(hint) && !self.refused.contains(hint);
        if let Some(hint) = self.hint.take().filter(is_new).filter(|_| self.tried() < LINE_MAX) {
            if let Some(via) = reach.via(hint) {
                return Choice::Ask(hint, via);
            }
            if self.awaits(now, hint, reach) {
                self.hint = Some(hint);
                return Choice::Wait;
            }
            // Who said so takes it for the one, and does not know yet that it cannot be reached.
            self.skip(hint);
            self.waited = Waited::Connection;
        }
        loop {
            let tried = self.tried();
            if tried >= LINE_MAX {
                return Choice::Nobody;
            }
            let line = match &self.request.target {
                Target::Key(key) => reach.owners(key, tried + 1),
                Target::Partition(partition) => reach.leaders(partition),
                Target::Member(member) => Vec::from([*member]),
            };
            if line.is_empty() && tried == 0 {
                self.waited = Waited::Owner;
            }
            let is_new = |m: &&MemberId| !self.skipped.contains(m) && !self.refused.contains(m);
            let Some(&next) = line.iter().find(is_new) else { return Choice::Nobody };
            if let Some(via) = reach.via(next) {
                return Choice::Ask(next, via);
            }
            if self.awaits(now, next, reach) {
                return Choice::Wait;
            }
            self.skip(next);
            self.waited = Waited::Connection;
        }
    }

    /// How many of this round were asked or passed over.
    fn tried(&self) -> usize {
        self.skipped.len() + self.refused.len()
    }

    /// A member that was never reached may be about to be: a node that has just begun is connected to few.
    fn awaits(&mut self, now: Instant, member: MemberId, reach: &impl Reach) -> bool {
        self.waited = Waited::Connection;
        now < self.patience && !reach.was_reached(member)
    }

    /// A member cannot be reached: whoever thought it the one may be the one now.
    fn skip(&mut self, member: MemberId) {
        if !self.skipped.contains(&member) {
            self.skipped.push(member);
        }
        self.refused.clear();
    }

    /// Everybody in line was tried.
    fn begin_round(&mut self) {
        self.rounds = self.rounds.saturating_add(1);
        self.skipped.clear();
        self.refused.clear();
        self.hint = None;
    }
}

impl Requests {
    /// Takes a request of the application; it ends with one [`Effect::Answered`].
    ///
    /// # Errors
    /// It is not accepted: nothing has changed.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        request: RequestId,
        what: Request,
    ) -> Result<(), Refused> {
        let bytes = self.check_request(&what)?;
        let callers = &mut self.callers;
        let counted = what.kind != Kind::OneWay;
        if counted && callers.waiting >= self.limits.requests {
            let limit = len_u64(self.limits.requests);
            return Err(Refused::Full { what: "the table of requests", limit });
        }
        if callers.bytes > 0 && callers.bytes + bytes > self.limits.requests_bytes {
            let limit = len_u64(self.limits.requests_bytes);
            return Err(Refused::Full { what: "the room for requests' bytes", limit });
        }
        if self.streams.len() + what.streams.len() > self.limits.streams {
            let limit = len_u64(self.limits.streams);
            return Err(Refused::Full { what: "the table of streams", limit });
        }
        callers.bytes += bytes;
        callers.waiting += usize::from(counted);
        callers.deadlines.insert((what.deadline, request));
        callers.due.insert((now, request));
        for (index, &(_, way)) in (0..).zip(&what.streams) {
            // The handler's word that it takes them opens those that go to it.
            self.streams.open(Side::Caller(request), index, way, Way::Up, 0);
        }
        let asked = Asked {
            request: what,
            bytes,
            at: At::Due(now),
            attempts: 0,
            rounds: 0,
            skipped: Vec::new(),
            refused: Vec::new(),
            hint: None,
            maybe: false,
            waited: Waited::Owner,
            patience: now + PATIENCE,
        };
        let before = callers.requests.insert(request, Box::new(asked));
        assert!(before.is_none(), "request ids are never used twice");
        Ok(())
    }

    /// Gives a request up, answered or not: its streams break.
    pub(crate) fn cancel(&mut self, request: RequestId) {
        let Some(asked) = self.callers.requests.get(&request) else { return };
        let maybe = asked.is_perhaps_handled();
        if let At::Sent(via, _) | At::Answered(via) = asked.at {
            self.send(via, Part::Cancel { number: request.0 });
        }
        self.fail(request, Failure::Cancelled { maybe }, Broken::Request);
    }

    fn check_request(&self, what: &Request) -> Result<usize, Refused> {
        if what.route.is_empty() {
            return Err(Refused::Invalid { what: "an empty route" });
        }
        if what.kind == Kind::OneWay && !what.streams.is_empty() {
            return Err(Refused::Invalid { what: "a one-way request with streams" });
        }
        let too_large = |what: &'static str, len: usize, limit: usize| {
            Err(Refused::TooLarge { what, len: len_u64(len), limit: len_u64(limit) })
        };
        if what.route.len() > NAME_BYTES_MAX {
            return too_large("route", what.route.len(), NAME_BYTES_MAX);
        }
        let target = match &what.target {
            Target::Key(name) if name.len() > self.limits.key => {
                return too_large("key of a request", name.len(), self.limits.key);
            }
            Target::Partition(name) if name.is_empty() || name.len() > NAME_BYTES_MAX => {
                return too_large("partition name", name.len(), NAME_BYTES_MAX);
            }
            Target::Key(name) | Target::Partition(name) => name.len(),
            Target::Member(_) => 0,
        };
        check_parts(&self.limits, &what.headers, &what.body, &what.streams)?;
        let held = headers_bytes(&what.headers) + streams_bytes(&what.streams);
        Ok(target + what.route.len() + held + what.body.len())
    }

    /// Tries what is due.
    pub(super) fn try_due(&mut self, now: Instant, reach: &impl Reach) {
        while let Some(&(at, request)) = self.callers.due.first() {
            if at > now {
                break;
            }
            self.callers.due.remove(&(at, request));
            self.attempt(now, request, reach);
        }
    }

    /// Sends a request to the next in line.
    fn attempt(&mut self, now: Instant, request: RequestId, reach: &impl Reach) {
        let asked = self.callers.requests.get_mut(&request).expect("what is due exists");
        let choice = asked.choose(now, reach);
        if choice == Choice::Wait {
            let patience = asked.patience;
            self.callers.put_off(request, patience);
            return;
        }
        let Choice::Ask(member, via) = choice else {
            let longest = PAUSE_MIN * 2_u32.saturating_pow(asked.rounds.min(16));
            let longest = longest.min(PAUSE_MAX);
            asked.begin_round();
            let pause = self.callers.rng.duration(longest / 2, longest);
            self.callers.put_off(request, now + pause);
            return;
        };
        asked.at = At::Queued(via, member);
        asked.waited = Waited::Window;
        match via {
            Via::Conn(conn) => self.lanes.queue(conn, lanes::Waiting::Ask(request)),
            Via::Local => {
                let part = self.depart(now, request).expect("queued just now");
                self.local.push_back(part);
            }
        }
    }

    /// A request's turn on its connection has come; none when it waits for it no more.
    pub(super) fn leave(&mut self, now: Instant, conn: ConnId, request: RequestId) -> Option<Part> {
        let asked = self.callers.requests.get(&request)?;
        // It may have been given up, or tried elsewhere, while it waited.
        let At::Queued(Via::Conn(queued), _) = asked.at else { return None };
        if queued == conn { self.depart(now, request) } else { None }
    }

    /// The request as it is sent now. From here on it may be handled.
    fn depart(&mut self, now: Instant, request: RequestId) -> Option<Part> {
        let asked = self.callers.requests.get_mut(&request)?;
        let At::Queued(via, member) = asked.at else { return None };
        asked.attempts = asked.attempts.saturating_add(1);
        asked.at = At::Sent(via, member);
        let what = &asked.request;
        let ask = Ask {
            number: request.0,
            attempt: asked.attempts,
            kind: what.kind,
            target: what.target.clone(),
            skipped: asked.skipped.clone(),
            left: u64::try_from(what.deadline.since(now).as_nanos()).unwrap_or(u64::MAX),
            route: what.route.clone(),
            headers: what.headers.clone(),
            body: what.body.clone(),
            streams: what.streams.clone(),
        };
        if what.kind == Kind::OneWay {
            self.end(request, Ok(Response::default()));
        }
        Some(Part::Ask(Box::new(ask)))
    }

    /// What became of an attempt, from whom was asked.
    pub(super) fn on_answer(
        &mut self,
        now: Instant,
        via: Via,
        request: RequestId,
        result: Result<Response, Fault>,
    ) {
        let Some(asked) = self.callers.requests.get_mut(&request) else { return };
        let At::Sent(asked_via, member) = asked.at else { return };
        if asked_via != via {
            return; // of an attempt whose connection is gone
        }
        match result {
            Ok(response) => {
                asked.at = At::Answered(via);
                let first = asked.request.streams.len();
                for (index, &(_, way)) in (first..).zip(&response.streams) {
                    let index = u16::try_from(index).expect("two lists of at most 64");
                    let side = Side::Caller(request);
                    self.streams.open(side, index, way, Way::Up, STREAM_WINDOW);
                }
                self.end_answered(request, response);
                let first = u16::try_from(first).expect("at most 64");
                self.tell_credit(Side::Caller(request), first);
            }
            Err(Fault::Handler { code, text }) => {
                self.fail(request, Failure::Handler { code, text }, Broken::Request);
            }
            Err(Fault::NoRoute) if !asked.maybe => {
                self.fail(request, Failure::NoRoute, Broken::Request);
            }
            Err(Fault::TooLarge { what, limit }) if !asked.maybe => {
                self.fail(request, Failure::TooLarge { what, limit }, Broken::Request);
            }
            // An earlier attempt may have been handled all the same.
            Err(Fault::NoRoute | Fault::TooLarge { .. }) => {
                self.fail(request, Failure::OutcomeUnknown, Broken::Request);
            }
            Err(Fault::NotOwner { hint }) => {
                asked.refused.push(member);
                asked.hint = hint;
                asked.waited = Waited::Agreement;
                self.callers.put_off(request, now);
            }
            Err(Fault::Busy) => {
                let longest = PAUSE_MIN * 2_u32.saturating_pow(asked.rounds.min(16));
                asked.begin_round();
                asked.waited = Waited::Room;
                let longest = longest.min(PAUSE_MAX);
                let pause = self.callers.rng.duration(longest / 2, longest);
                self.callers.put_off(request, now + pause);
            }
        }
    }

    /// A connection is lost: what was sent on it may have been handled or not, what waited for it was not.
    pub(super) fn on_callee_lost(&mut self, now: Instant, via: Via) {
        let on_it: Vec<RequestId> = self
            .callers
            .requests
            .iter()
            .filter(|(_, asked)| match asked.at {
                At::Queued(way, _) | At::Sent(way, _) | At::Answered(way) => way == via,
                At::Due(_) => false,
            })
            .map(|(&request, _)| request)
            .collect();
        for request in on_it {
            let asked = self.callers.requests.get_mut(&request).expect("just listed");
            match asked.at {
                At::Queued(_, member) => {
                    asked.skip(member);
                    asked.waited = Waited::Connection;
                    self.callers.put_off(request, now);
                }
                At::Sent(_, member) => {
                    asked.maybe = true;
                    if asked.may_go_again() {
                        asked.skip(member);
                        asked.waited = Waited::Connection;
                        self.callers.put_off(request, now);
                    } else {
                        self.fail(request, Failure::OutcomeUnknown, Broken::Lost);
                    }
                }
                At::Answered(_) => {
                    let side = Side::Caller(request);
                    self.streams.break_all(side, Broken::Lost, &mut self.effects);
                    self.forget_if_done(side);
                }
                At::Due(_) => {}
            }
        }
    }

    pub(super) fn on_deadline(&mut self, request: RequestId) {
        let Some(asked) = self.callers.requests.get(&request) else { return };
        let failure = if asked.is_perhaps_handled() {
            Failure::OutcomeUnknown
        } else {
            Failure::Deadline { waited: asked.waited }
        };
        if let At::Sent(via, _) = asked.at {
            self.send(via, Part::Cancel { number: request.0 });
        }
        self.fail(request, failure, Broken::Request);
    }

    /// A request ends without a response: its streams break.
    fn fail(&mut self, request: RequestId, failure: Failure, why: Broken) {
        self.streams.break_all(Side::Caller(request), why, &mut self.effects);
        self.end(request, Err(failure));
    }

    fn end_answered(&mut self, request: RequestId, response: Response) {
        let asked = &self.callers.requests[&request];
        let (deadline, bytes) = (asked.request.deadline, asked.bytes);
        self.callers.deadlines.remove(&(deadline, request));
        self.callers.bytes -= bytes;
        self.callers.waiting -= 1;
        self.effects.push(Effect::Answered { request, result: Ok(response) });
        if self.streams.is_open(Side::Caller(request)) {
            // Only its streams are left.
            let asked = self.callers.requests.get_mut(&request).expect("looked at just now");
            asked.request.body = Bytes::new();
            asked.request.headers = Vec::new();
            asked.request.route = String::new();
        } else {
            self.callers.requests.remove(&request);
        }
    }

    /// A request has ended, and is forgotten. One that was answered before ends without a word.
    fn end(&mut self, request: RequestId, result: Result<Response, Failure>) {
        let Some(asked) = self.callers.requests.remove(&request) else { return };
        match asked.at {
            At::Answered(_) => return,
            At::Due(at) => {
                self.callers.due.remove(&(at, request));
            }
            At::Queued(..) | At::Sent(..) => {}
        }
        self.callers.deadlines.remove(&(asked.request.deadline, request));
        self.callers.bytes -= asked.bytes;
        self.callers.waiting -= usize::from(asked.request.kind != Kind::OneWay);
        self.effects.push(Effect::Answered { request, result });
    }
}
