//! Requests that this node handles: who may, how many at once, until when.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::message::{Ask, Part, headers_bytes, streams_bytes};
use super::{
    Broken, Effect, Fault, Gone, Handle, HandleId, Kind, Large, NAME_BYTES_MAX, Reach,
    RequestLimits, RequestName, Requests, Response, STREAM_WINDOW, Side, TEXT_BYTES_MAX, Target,
    TooLarge, Via, Way, check_parts,
};
use crate::ids::{MemberId, len_u64};
use crate::time::Instant;

/// All requests that this node handles.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
pub(super) struct Server {
    pub(super) is_serving: bool,
    handled: BTreeMap<HandleId, Handling>,
    /// By the way to the caller and its number of the request.
    by_number: BTreeMap<(Via, u64), HandleId>,
    deadlines: BTreeSet<(Instant, HandleId)>,
    next: u64,
    /// Handlers that have not answered.
    running: usize,
    /// In requests that are being handled, and in answers that wait for their connection.
    bytes: usize,
}

/// One request that is being handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Handling {
    /// The way to the caller; none when it is gone.
    caller: Option<Via>,
    number: u64,
    one_way: bool,
    streams: usize,
    bytes: usize,
    /// None: it is answered, and has open streams.
    deadline: Option<Instant>,
}

/// A one-way request may be handled for so long.
const ONE_WAY_MAX: Duration = Duration::from_secs(3600);

impl Server {
    pub(super) fn overdue(&self, now: Instant) -> Option<HandleId> {
        self.deadlines.first().filter(|(at, _)| *at <= now).map(|&(_, handle)| handle)
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|&(at, _)| at)
    }

    pub(super) fn len(&self) -> usize {
        self.running
    }

    pub(super) fn has(&self, handle: HandleId) -> bool {
        self.handled.contains_key(&handle)
    }

    pub(super) fn find(&self, via: Via, number: u64) -> Option<HandleId> {
        self.by_number.get(&(via, number)).copied()
    }

    /// The way to a request's caller, and its number of it.
    pub(super) fn caller(&self, handle: HandleId) -> Option<(Via, u64)> {
        let handling = self.handled.get(&handle)?;
        Some((handling.caller?, handling.number))
    }

    /// Answers that hold so many bytes wait for their connection.
    pub(super) fn hold(&mut self, bytes: usize) {
        self.bytes += bytes;
    }

    /// Answers that held so many bytes are sent, or given up.
    pub(super) fn release(&mut self, bytes: usize) {
        self.bytes -= bytes;
    }

    pub(super) fn forget_answered(&mut self, handle: HandleId) {
        if self.handled.get(&handle).is_some_and(|handling| handling.deadline.is_none()) {
            self.forget(handle);
        }
    }

    /// Forgets a request that was answered or given up.
    fn forget(&mut self, handle: HandleId) {
        let Some(handling) = self.handled.remove(&handle) else { return };
        if let Some(via) = handling.caller {
            self.by_number.remove(&(via, handling.number));
        }
        self.release(handling.bytes);
        if let Some(deadline) = handling.deadline {
            self.deadlines.remove(&(deadline, handle));
            self.running -= 1;
        }
    }

    /// `answers`: bytes of the answers that wait for their connection.
    pub(super) fn check(&self, answers: usize) {
        let held: usize = self.handled.values().map(|handling| handling.bytes).sum();
        assert_eq!(held + answers, self.bytes, "1: bytes of handlers add up");
        let running = self.handled.values().filter(|handling| handling.deadline.is_some()).count();
        assert_eq!((running, running), (self.running, self.deadlines.len()), "1: a deadline each");
        let reachable = self.handled.values().filter(|handling| handling.caller.is_some()).count();
        assert_eq!(reachable, self.by_number.len(), "1: each caller's number is known");
    }
}

impl Requests {
    pub(super) fn on_ask(
        &mut self,
        now: Instant,
        from: MemberId,
        via: Via,
        ask: Ask,
        reach: &impl Reach,
    ) -> Result<(), &'static str> {
        if self.server.find(via, ask.number).is_some() {
            return Err("asked for the same request twice on one connection");
        }
        if ask.kind == Kind::OneWay && !ask.streams.is_empty() {
            return Err("a one-way request with streams");
        }
        match self.admit(&ask, reach) {
            Ok(bytes) => self.begin(now, from, via, ask, bytes, reach),
            // Nobody waits for word of it.
            Err(_) if ask.kind == Kind::OneWay => {}
            Err(fault) => {
                let answer = Part::Answer { number: ask.number, result: Err(fault) };
                self.reply(via, answer, 0);
            }
        }
        Ok(())
    }

    /// Whether this node handles a request, and how many bytes that one holds.
    fn admit(&self, ask: &Ask, reach: &impl Reach) -> Result<usize, Fault> {
        let bytes = check_ask(&self.limits, ask)?;
        match &ask.target {
            Target::Member(member) if *member == self.me => {}
            Target::Member(member) => return Err(Fault::NotOwner { hint: Some(*member) }),
            Target::Key(key) => {
                let line = reach.owners(key, ask.skipped.len() + 1);
                let next = line.iter().find(|member| !ask.skipped.contains(member));
                let is_mine = next == Some(&self.me) || line.first() == Some(&self.me);
                if !is_mine {
                    return Err(Fault::NotOwner { hint: next.copied() });
                }
            }
            Target::Partition(partition) => {
                let leader = reach.leader_here(partition);
                if leader != Some(self.me) {
                    return Err(Fault::NotOwner { hint: leader });
                }
            }
        }
        if !self.server.is_serving {
            return Err(Fault::NoRoute);
        }
        let limits = &self.limits;
        let is_full = self.server.running >= limits.handlers
            || (self.server.bytes > 0 && self.server.bytes + bytes > limits.handlers_bytes)
            || self.streams.len() + ask.streams.len() > limits.streams;
        if is_full { Err(Fault::Busy) } else { Ok(bytes) }
    }

    fn begin(
        &mut self,
        now: Instant,
        from: MemberId,
        via: Via,
        ask: Ask,
        bytes: usize,
        reach: &impl Reach,
    ) {
        let server = &mut self.server;
        let handle = HandleId(server.next);
        server.next += 1;
        let one_way = ask.kind == Kind::OneWay;
        // A one-way request's caller has not waited since it was sent.
        let longest = if one_way { ONE_WAY_MAX } else { Duration::MAX };
        let deadline = now + Duration::from_nanos(ask.left).min(longest);
        let boot = match via {
            Via::Local => self.boot,
            Via::Conn(conn) => reach.boot(conn),
        };
        server.bytes += bytes;
        server.running += 1;
        server.deadlines.insert((deadline, handle));
        server.by_number.insert((via, ask.number), handle);
        let handling = Handling {
            caller: Some(via),
            number: ask.number,
            one_way,
            streams: ask.streams.len(),
            bytes,
            deadline: Some(deadline),
        };
        server.handled.insert(handle, handling);
        for (index, &(_, way)) in (0..).zip(&ask.streams) {
            self.streams.open(Side::Handler(handle), index, way, Way::Down, STREAM_WINDOW);
        }
        self.effects.push(Effect::Handle(Box::new(Handle {
            handle,
            id: RequestName { caller: from, boot, number: ask.number },
            attempt: ask.attempt,
            target: ask.target,
            one_way,
            route: ask.route,
            headers: ask.headers,
            body: ask.body,
            streams: ask.streams,
            deadline,
        })));
        self.tell_credit(Side::Handler(handle), 0);
        self.announce_credit(Side::Handler(handle));
    }

    /// Answers a request that this node handles. One that nobody waits for any more is answered in vain. A response that
    /// is larger than this node allows becomes an error. True when a response, with the streams that it adds, is on its way.
    pub(crate) fn respond(&mut self, handle: HandleId, result: Result<Response, Fault>) -> bool {
        let Some(handling) = self.server.handled.get(&handle) else { return false };
        if handling.deadline.is_none() {
            return false; // answered before
        }
        let (number, first, one_way) = (handling.number, handling.streams, handling.one_way);
        let caller = handling.caller.filter(|_| !one_way);
        let Some(via) = caller else {
            self.end_handling(handle, Broken::Request);
            return false;
        };
        let result = self.fit(result);
        let bytes = match &result {
            Ok(response) => response.bytes(),
            Err(Fault::Handler { text, .. }) => text.len(),
            Err(_) => 0,
        };
        let ways: Vec<Way> = match &result {
            Ok(response) => response.streams.iter().map(|&(_, way)| way).collect(),
            Err(_) => Vec::new(),
        };
        let is_done = result.is_ok();
        let part = Part::Answer { number, result: result.map(Box::new) };
        self.reply(via, part, bytes);
        if !is_done {
            self.end_handling(handle, Broken::Request);
            return false;
        }
        for (index, &way) in (first..).zip(&ways) {
            let index = u16::try_from(index).expect("two lists of at most 64");
            self.streams.open(Side::Handler(handle), index, way, Way::Down, STREAM_WINDOW);
        }
        let first = u16::try_from(first).expect("at most 64");
        self.tell_credit(Side::Handler(handle), first);
        let server = &mut self.server;
        let handling = server.handled.get_mut(&handle).expect("looked at just now");
        let held = core::mem::take(&mut handling.bytes);
        if let Some(deadline) = handling.deadline.take() {
            server.deadlines.remove(&(deadline, handle));
        }
        server.running -= 1;
        server.release(held);
        self.forget_if_done(Side::Handler(handle));
        true
    }

    /// What this node may send.
    fn fit(&self, result: Result<Response, Fault>) -> Result<Response, Fault> {
        match result {
            Ok(response) => {
                let Response { headers, body, streams } = &response;
                let fits = check_parts(&self.limits, headers, body, streams);
                let room = self.streams.len() + streams.len() <= self.limits.streams;
                match fits {
                    Ok(()) if room => Ok(response),
                    Ok(()) => Err(too_large(Large::Streams, self.limits.streams)),
                    Err(large) => Err(too_large(large.what, large.limit)),
                }
            }
            Err(Fault::Handler { code, text }) => {
                Err(Fault::Handler { code, text: cut_off(text, TEXT_BYTES_MAX) })
            }
            Err(
                fault @ (Fault::NoRoute
                | Fault::NotOwner { .. }
                | Fault::Busy
                | Fault::TooLarge { .. }),
            ) => Err(fault),
        }
    }

    pub(super) fn on_cancel(&mut self, via: Via, number: u64) {
        if let Some(handle) = self.server.find(via, number) {
            self.lose_caller(handle, Broken::Request);
        }
    }

    /// The callers on a connection are gone.
    pub(super) fn on_caller_lost(&mut self, via: Via) {
        let all = self.server.by_number.range((via, 0)..=(via, u64::MAX));
        let handles: Vec<HandleId> = all.map(|(_, &handle)| handle).collect();
        for handle in handles {
            self.lose_caller(handle, Broken::Lost);
        }
    }

    fn lose_caller(&mut self, handle: HandleId, why: Broken) {
        let Some(handling) = self.server.handled.get_mut(&handle) else { return };
        // Who sent it one way waits for nothing, and may be gone.
        if handling.one_way {
            if let Some(via) = handling.caller.take() {
                self.server.by_number.remove(&(via, handling.number));
            }
            return;
        }
        self.streams.break_all(Side::Handler(handle), why, &mut self.effects);
        let handling = self.server.handled.get_mut(&handle).expect("looked at just now");
        if let Some(via) = handling.caller.take() {
            self.server.by_number.remove(&(via, handling.number));
        }
        if handling.deadline.is_some() {
            self.effects.push(Effect::Gone { handle, why: Gone::Caller });
        } else {
            self.server.forget(handle);
        }
    }

    /// The caller has given up by now; so does this node.
    pub(super) fn on_late(&mut self, handle: HandleId) {
        self.effects.push(Effect::Gone { handle, why: Gone::Late });
        self.end_handling(handle, Broken::Request);
    }

    fn end_handling(&mut self, handle: HandleId, why: Broken) {
        self.streams.break_all(Side::Handler(handle), why, &mut self.effects);
        self.server.forget(handle);
    }
}

/// Whether a request keeps this node's limits; how many bytes it holds.
fn check_ask(limits: &RequestLimits, ask: &Ask) -> Result<usize, TooLarge> {
    let name = |what, len: usize, limit: usize| {
        if len > limit { Err(TooLarge { what, len, limit }) } else { Ok(len) }
    };
    let target = match &ask.target {
        Target::Key(key) => name(Large::Key, key.len(), limits.key)?,
        Target::Partition(partition) => name(Large::Key, partition.len(), NAME_BYTES_MAX)?,
        Target::Member(_) => 0,
    };
    let route = name(Large::Name, ask.route.len(), NAME_BYTES_MAX)?;
    check_parts(limits, &ask.headers, &ask.body, &ask.streams)?;
    let held = headers_bytes(&ask.headers) + streams_bytes(&ask.streams);
    Ok(target + route + held + ask.body.len())
}

fn too_large(what: Large, limit: usize) -> Fault {
    let text = alloc::format!(
        "the handler's response is too large: its {} passes the limit of {}",
        what.what(),
        len_u64(limit)
    );
    Fault::Handler { code: TOO_LARGE, text }
}

/// The code of a handler's error whose response could not be sent.
pub(super) const TOO_LARGE: u32 = u32::MAX;

fn cut_off(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
    }
    text
}
