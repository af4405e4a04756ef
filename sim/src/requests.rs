//! Requests between the nodes under faults: each asks now and then, and handles what comes: at once, late, with an error
//! or never. Some are given up by those who asked, and some have streams beside them: see `requests/streams.rs`.
//!
//! A request's body begins with its number in the oracle's book, and says how it is to be handled; the rest of it, and of
//! its answer, is told by the number, so that whoever gets it can tell whether it is what was meant.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ring_core::Node;
use ring_core::ids::{ConnId, MemberId, RequestId, len_u64, len_usize};
use ring_core::request::message::{Ask, Fault, Part};
use ring_core::request::{
    Effect, Failure, Gone, Half, Handle, HandleId, Kind, Request, Response, Side, StreamId, Target,
    Way,
};
use ring_core::ring::shard_of;
use ring_core::rng::Rng;
use ring_core::time::{Instant, Now};
use ring_core::wire::Message;

use crate::clock::Nanos;
use crate::oracle::{Asked, Asking, Pipe};
use crate::trace::Hash64;
use crate::world::{Sim, member_id};

mod streams;

use streams::Ends;

/// The requests of one process, and those that it handles.
#[derive(Debug)]
pub(crate) struct Traffic {
    rng: Rng,
    next: u64,
    open: BTreeMap<RequestId, Open>,
    handling: BTreeMap<HandleId, Handling>,
    ends: Ends,
    /// What it is to do, and after how long.
    later: Vec<(Duration, Chore)>,
    /// Requests of others that came in this turn, and for which the node was the one to ask when they came.
    responsible: Vec<u64>,
    /// Requests on connections that are not up yet: the node looks whether it is the one when they are.
    early: Vec<(ConnId, Box<Ask>)>,
    /// Connections carry as much as large bodies and streams need.
    wide: bool,
}

/// Something that a process does by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chore {
    /// It asks somebody something.
    Ask,
    /// It wants no answer any more.
    Cancel(RequestId),
    /// It answers what it was asked.
    Answer(HandleId),
    /// It writes to a stream.
    Write(StreamId),
    /// It has done with so many bytes of a stream.
    Take(StreamId, u64),
    /// It gives up one direction of a stream.
    Leave(StreamId, Half),
}

/// A request of this process.
#[derive(Clone, Copy, Debug)]
struct Open {
    number: u64,
    deadline: Instant,
    streams: usize,
}

/// A request that this process handles.
#[derive(Clone, Copy, Debug)]
struct Handling {
    number: u64,
    attempt: u32,
    conduct: Conduct,
    deadline: Instant,
    streams: usize,
}

/// What a handler does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conduct {
    /// It answers after so many milliseconds.
    Answer(u64),
    /// It answers with an error after so many milliseconds.
    Fail(u64),
    /// It never answers.
    Forget,
}

/// Who is prompt answers within this many milliseconds.
const PROMPT: u64 = 30;
/// The number, how it is to be handled, after how long.
const HEAD: usize = 8 + 1 + 8;

impl Conduct {
    fn draw(rng: &mut Rng, quiet: bool) -> Self {
        let long = if rng.chance(1, 6) { 3_000 } else { PROMPT };
        match rng.below(if quiet { 48 } else { 12 }) {
            0 => Self::Forget,
            1..=3 => Self::Fail(rng.below(long)),
            _ => Self::Answer(rng.below(long)),
        }
    }

    fn is_prompt(self) -> bool {
        match self {
            Self::Answer(wait) | Self::Fail(wait) => wait <= PROMPT,
            Self::Forget => false,
        }
    }

    fn code(self) -> (u8, u64) {
        match self {
            Self::Answer(wait) => (0, wait),
            Self::Fail(wait) => (1, wait),
            Self::Forget => (2, 0),
        }
    }

    fn of(code: u8, wait: u64) -> Self {
        match code {
            0 => Self::Answer(wait),
            1 => Self::Fail(wait),
            _ => Self::Forget,
        }
    }
}

impl Traffic {
    pub(crate) fn new(rng: Rng, wide: bool) -> Self {
        Self {
            rng,
            next: 0,
            open: BTreeMap::new(),
            handling: BTreeMap::new(),
            ends: Ends::default(),
            later: Vec::new(),
            responsible: Vec::new(),
            early: Vec::new(),
            wide,
        }
    }

    /// It will ask, if requests come about this often.
    pub(crate) fn begin(&mut self, usual: Nanos) {
        let pause = usual / 2 + self.rng.below(usual.max(1));
        self.later.push((Duration::from_nanos(pause), Chore::Ask));
    }

    /// What is to be done later that was not told yet.
    pub(crate) fn chores(&mut self) -> std::vec::Drain<'_, (Duration, Chore)> {
        self.later.drain(..)
    }

    pub(crate) fn carry_out(
        &mut self,
        sim: &Sim,
        me: usize,
        node: &mut Node,
        now: Now,
        chore: Chore,
    ) {
        match chore {
            Chore::Ask => {
                self.ask(sim, me, node, now);
                self.ends.show(sim);
                self.begin(sim.pace.requests);
            }
            Chore::Cancel(request) => node.cancel_request(request),
            Chore::Answer(handle) => self.answer(sim, me, node, handle),
            Chore::Write(stream) => {
                let more = self.ends.write(sim, node, stream, &mut self.rng);
                self.later.extend(more);
            }
            Chore::Take(stream, bytes) => self.ends.take(sim, node, stream, bytes),
            Chore::Leave(stream, half) => self.ends.leave(sim, node, stream, half),
        }
    }

    /// Asks somebody something.
    fn ask(&mut self, sim: &Sim, me: usize, node: &mut Node, now: Now) {
        let quiet = sim.oracle(|oracle| oracle.is_quiet());
        let target = self.target(node, quiet);
        let rng = &mut self.rng;
        let kind = match rng.below(3) {
            0 => Kind::Retried,
            1 => Kind::Once,
            _ => Kind::OneWay,
        };
        let patience = rng.duration(Duration::from_millis(200), Duration::from_secs(8));
        let conduct = Conduct::draw(rng, quiet);
        let ways: Vec<Way> = match kind != Kind::OneWay && rng.chance(1, if quiet { 6 } else { 24 })
        {
            true => (0..1 + rng.below(3)).map(|_| a_way(rng)).collect(),
            false => Vec::new(),
        };
        let cancelled = !quiet && rng.chance(1, 30);
        let padding = if self.wide && rng.chance(1, 40) {
            len_usize(rng.below(200_000))
        } else {
            len_usize(rng.below(100))
        };
        let number = sim.oracle(|oracle| oracle.next_request());
        let body = body_of(number, conduct, padding);
        let headers = vec![(String::from("n"), Bytes::copy_from_slice(&number.to_le_bytes()))];
        self.next += 1;
        let request = RequestId(self.next);
        let deadline = now.instant + patience;
        let asking = Asking {
            caller: me,
            kind,
            digest: digest(&headers, &body),
            streams: len_u64(ways.len()),
            at: sim.now(),
            patience: crate::net::nanos(patience),
            // A client goes by its links, and may not know yet who has come.
            prompt: conduct.is_prompt() && !cancelled && me < sim.members,
            fails: matches!(conduct, Conduct::Fail(_)),
        };
        sim.oracle(|oracle| oracle.on_asking(number, asking));
        let streams = ways.iter().map(|&way| (String::from("s"), way)).collect();
        let route = String::from("r");
        let what = Request { target, kind, route, headers, body, streams, deadline };
        let asked = node.request(now, request, what);
        if asked.is_err() {
            let outcome = Asked::NotHandled;
            return sim.oracle(|oracle| oracle.on_outcome(number, outcome, sim.now()));
        }
        let streams = ways.len();
        self.open.insert(request, Open { number, deadline, streams });
        self.open_ends(sim, me, Side::Caller(request), number, (0, &ways));
        if cancelled {
            let wait = self.rng.duration(Duration::ZERO, Duration::from_secs(2));
            self.later.push((wait, Chore::Cancel(request)));
        }
    }

    fn target(&mut self, node: &Node, quiet: bool) -> Target {
        let rng = &mut self.rng;
        match rng.below(4) {
            0 if quiet => {
                let there: Vec<MemberId> = node.view().alive().collect();
                match there.get(len_usize(rng.below(len_u64(there.len().max(1))))) {
                    Some(member) => Target::Member(*member),
                    None => Target::Key(Bytes::from_static(b"key")),
                }
            }
            0 => Target::Member(member_id(len_usize(rng.below(5)))),
            1 => Target::Partition(Bytes::from(format!("p{}", rng.below(4)))),
            _ => Target::Key(Bytes::from(format!("key {}", rng.below(20)))),
        }
    }

    /// This process's ends of streams that begin, the first of which has this index.
    fn open_ends(
        &mut self,
        sim: &Sim,
        me: usize,
        side: Side,
        number: u64,
        (first, ways): (usize, &[Way]),
    ) {
        for (index, way) in (first..).zip(ways) {
            let index = u16::try_from(index).expect("few streams");
            let stream = StreamId { side, index };
            for upward in [true, false] {
                let goes = if upward { Way::Up } else { Way::Down };
                if *way != Way::Both && *way != goes {
                    continue;
                }
                let pipe = Pipe { number, index, upward };
                let writes = upward == matches!(side, Side::Caller(_));
                let chores =
                    self.ends.open(sim, me, (stream, pipe), writes, self.wide, &mut self.rng);
                self.later.extend(chores);
            }
        }
    }

    /// Something has come; whether the node is the one to handle it is looked up before it does so.
    pub(crate) fn on_message(&mut self, node: &mut Node, conn: ConnId, message: &Message) {
        let Message::Request { part: Part::Ask(ask), .. } = message else { return };
        if node.view().is_pending(conn) {
            self.early.push((conn, ask.clone()));
        }
        if is_responsible(node, &ask.target, ask) {
            self.responsible.push(number_of(&ask.body));
        }
    }

    /// Something happens to the node, or has happened: it may be the one for what came early now.
    pub(crate) fn judge_early(&mut self, node: &mut Node) {
        for (_, ask) in &self.early {
            if is_responsible(node, &ask.target, ask) {
                self.responsible.push(number_of(&ask.body));
            }
        }
    }

    /// What core says.
    pub(crate) fn on_effect(&mut self, sim: &Sim, me: usize, node: &Node, effect: Effect) {
        match effect {
            Effect::Handle(handle) => self.on_handle(sim, me, node, &handle),
            Effect::Gone { handle, why: Gone::Late } => {
                self.handling.remove(&handle);
            }
            Effect::Gone { why: Gone::Caller, .. } => {}
            Effect::Answered { request, result } => self.on_answered(sim, me, request, result),
            Effect::Data { stream, data, last } => {
                let chores = self.ends.on_data(sim, stream, &data, last, &mut self.rng);
                self.later.extend(chores);
            }
            Effect::Credit { stream, upto } => {
                let chores = self.ends.on_credit(sim, stream, upto, &mut self.rng);
                self.later.extend(chores);
            }
            Effect::Broken { stream, half, .. } => self.ends.on_broken(sim, stream, half),
        }
    }

    fn on_handle(&mut self, sim: &Sim, me: usize, node: &Node, handle: &Handle) {
        let number = number_of(&handle.body);
        sim.trace(|trace| trace.mix(number ^ 13 << 56));
        let is_own = handle.id.caller == node.view().me();
        if !is_own && !self.responsible.contains(&number) {
            let problem = format!(
                "{} handles request {number} for {:?} of {}, and is not the one",
                member_id(me),
                handle.target,
                handle.id
            );
            sim.oracle(|oracle| oracle.fail("REQUEST", problem));
        }
        let digest = digest(&handle.headers, &handle.body);
        let (name, attempt) = (handle.id, handle.attempt);
        sim.oracle(|oracle| oracle.on_handled(me, number, (name, attempt), digest));
        let conduct = match handle.body.get(8..HEAD).and_then(|head| head.split_first()) {
            Some((&code, wait)) => Conduct::of(code, number_of(wait)),
            None => Conduct::Forget,
        };
        let ways: Vec<Way> = handle.streams.iter().map(|&(_, way)| way).collect();
        self.handling.insert(
            handle.handle,
            Handling { number, attempt, conduct, deadline: handle.deadline, streams: ways.len() },
        );
        self.open_ends(sim, me, Side::Handler(handle.handle), number, (0, &ways));
        if let Conduct::Answer(wait) | Conduct::Fail(wait) = conduct {
            self.later.push((Duration::from_millis(wait), Chore::Answer(handle.handle)));
        }
    }

    fn on_answered(
        &mut self,
        sim: &Sim,
        me: usize,
        request: RequestId,
        result: Result<Response, Failure>,
    ) {
        let Some(Open { number, streams, .. }) = self.open.remove(&request) else {
            let problem = format!("{}: {request} ended twice", member_id(me));
            sim.oracle(|oracle| oracle.fail("REQUEST", problem));
            return;
        };
        sim.trace(|trace| trace.mix(number ^ u64::from(result.is_ok()) << 63));
        let outcome = match result {
            Ok(response) if response == Response::default() => Asked::Sent,
            Ok(response) => {
                let ways: Vec<Way> = response.streams.iter().map(|&(_, way)| way).collect();
                self.open_ends(sim, me, Side::Caller(request), number, (streams, &ways));
                Asked::Answered(digest(&response.headers, &response.body))
            }
            Err(Failure::Handler { code, text }) => Asked::Answered(digest_of_error(code, &text)),
            Err(failure) if failure.is_outcome_unknown() => Asked::Unknown,
            Err(_) => Asked::NotHandled,
        };
        sim.oracle(|oracle| oracle.on_outcome(number, outcome, sim.now()));
    }

    /// Answers a request that it handles, unless it is over.
    fn answer(&mut self, sim: &Sim, me: usize, node: &mut Node, handle: HandleId) {
        let Some(handling) = self.handling.remove(&handle) else { return };
        let Handling { number, attempt, streams, .. } = handling;
        let rng = &mut self.rng;
        sim.trace(|trace| trace.mix(number ^ 14 << 56));
        if let Conduct::Fail(_) = handling.conduct {
            let code = u32::try_from(number).expect("counted from 1");
            let text = format!("attempt {attempt} failed at {}", member_id(me));
            let digest = digest_of_error(code, &text);
            sim.oracle(|oracle| oracle.on_answering(me, number, digest));
            node.respond(handle, Err(Fault::Handler { code, text }));
            return;
        }
        let ways: Vec<Way> = match streams > 0 && rng.chance(1, 2) {
            true => (0..1 + rng.below(2)).map(|_| a_way(rng)).collect(),
            false => Vec::new(),
        };
        let padding = match self.wide && rng.chance(1, 60) {
            true => rng.below(200_000),
            false => rng.below(100),
        };
        // Of a number that no request has, so that nobody takes a question for its answer.
        let kind = Conduct::Answer(u64::from(attempt) << 32 | len_u64(me));
        let body = body_of(number | 1 << 63, kind, len_usize(padding));
        let headers = vec![(String::from("of"), Bytes::copy_from_slice(&number.to_le_bytes()))];
        let digest = digest(&headers, &body);
        sim.oracle(|oracle| oracle.on_answering(me, number, digest));
        let new = ways.iter().map(|&way| (String::from("t"), way)).collect();
        if node.respond(handle, Ok(Response { headers, body, streams: new })) {
            self.open_ends(sim, me, Side::Handler(handle), number, (streams, &ways));
        }
    }

    /// After a turn nothing is overdue, here or there.
    pub(crate) fn check(&mut self, sim: &Sim, me: usize, node: &Node, now: Instant) {
        self.responsible.clear();
        self.early.retain(|(conn, _)| node.view().is_pending(*conn));
        self.ends.end_turn();
        if let Some((request, _)) = self.open.iter().find(|(_, open)| open.deadline <= now) {
            let open = self.open.len();
            let problem = format!("{}: {request} of {open} is overdue", member_id(me));
            sim.oracle(|oracle| oracle.fail("REQUEST", problem));
        }
        let late = self.handling.values().find(|handling| handling.deadline <= now);
        if let Some(Handling { number, .. }) = late {
            let problem = format!("{}: still handles {number}, which is over", member_id(me));
            sim.oracle(|oracle| oracle.fail("REQUEST", problem));
        }
    }
}

/// The number of a request that goes on a connection, and as which attempt.
pub(crate) fn sent(message: &Message) -> Option<(u64, u32)> {
    let Message::Request { part: Part::Ask(ask), .. } = message else { return None };
    Some((number_of(&ask.body), ask.attempt))
}

/// Whether a node is to handle what somebody else asks for, as far as it knows itself.
fn is_responsible(node: &mut Node, target: &Target, ask: &Ask) -> bool {
    match target {
        Target::Member(member) => *member == node.view().me(),
        Target::Key(key) => {
            let me = node.view().me();
            let line = node.ring().owners(key, ask.skipped.len() + 1);
            line.first() == Some(&me) || line.iter().find(|m| !ask.skipped.contains(m)) == Some(&me)
        }
        Target::Partition(partition) => {
            let view = node.view();
            let Some(genesis) = view.genesis() else { return false };
            let group = view.group(shard_of(partition, genesis.shards));
            group.is_some_and(|group| group.raft().is_leader())
        }
    }
}

fn a_way(rng: &mut Rng) -> Way {
    match rng.below(3) {
        0 => Way::Up,
        1 => Way::Down,
        _ => Way::Both,
    }
}

/// A body that begins with this number; what follows the head is told by it.
fn body_of(number: u64, conduct: Conduct, padding: usize) -> Bytes {
    let (code, wait) = conduct.code();
    let mut body = Vec::with_capacity(HEAD + padding);
    body.extend(number.to_le_bytes());
    body.push(code);
    body.extend(wait.to_le_bytes());
    body.resize(HEAD + padding, number.to_le_bytes()[0]);
    Bytes::from(body)
}

/// The number that a body begins with.
fn number_of(body: &[u8]) -> u64 {
    body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn digest(headers: &[(String, Bytes)], body: &[u8]) -> u64 {
    let mut hash = Hash64::default();
    for (name, value) in headers {
        hash.mix_bytes(name.as_bytes());
        hash.mix_bytes(value);
    }
    hash.mix_bytes(body);
    hash.value()
}

fn digest_of_error(code: u32, text: &str) -> u64 {
    let mut hash = Hash64::default();
    hash.mix(u64::from(code));
    hash.mix_bytes(text.as_bytes());
    hash.value()
}
