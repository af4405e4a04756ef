//! Requests between the nodes under faults: each asks now and then, and handles what comes, late or never.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use ring_core::Node;
use ring_core::ids::{RequestId, len_u64};
use ring_core::request::message::Fault;
use ring_core::request::{Effect, Failure, Gone, HandleId, Kind, Request, Response, Target};
use ring_core::rng::Rng;
use ring_core::time::{Instant, Now};

use crate::oracle::Asked;
use crate::world::{Sim, member_id};

/// The requests of one process, and those that it handles.
#[derive(Debug)]
pub(crate) struct Traffic {
    rng: Rng,
    next: u64,
    open: BTreeMap<RequestId, (u64, Instant)>,
    /// Of what it handles: the number that each request carries.
    handling: BTreeMap<HandleId, u64>,
}

/// What a process does about what core said.
pub(crate) enum Then {
    Nothing,
    /// It answers after this time.
    Answer(HandleId, Duration),
}

impl Traffic {
    pub(crate) fn new(rng: Rng) -> Self {
        Self { rng, next: 0, open: BTreeMap::new(), handling: BTreeMap::new() }
    }

    /// How long until the next request, if they come about this often.
    pub(crate) fn pause(&mut self, usual: u64) -> u64 {
        usual / 2 + self.rng.below(usual.max(1))
    }

    /// Asks somebody something.
    pub(crate) fn ask(&mut self, sim: &Sim, me: usize, node: &mut Node, now: Now) {
        let rng = &mut self.rng;
        let target = match rng.below(4) {
            0 => Target::Member(member_id(usize::try_from(rng.below(5)).expect("few"))),
            1 => Target::Partition(Bytes::from(format!("p{}", rng.below(4)))),
            _ => Target::Key(Bytes::from(format!("key {}", rng.below(20)))),
        };
        let kind = match rng.below(3) {
            0 => Kind::Retried,
            1 => Kind::Once,
            _ => Kind::OneWay,
        };
        let patience = rng.duration(Duration::from_millis(200), Duration::from_secs(8));
        let deadline = now.instant + patience;
        let number = sim.oracle(|oracle| oracle.on_asking(me, kind));
        let padding = if rng.chance(1, 20) { rng.below(200_000) } else { rng.below(100) };
        let mut body = number.to_le_bytes().to_vec();
        body.resize(8 + usize::try_from(padding).expect("small"), 7);
        self.next += 1;
        let request = RequestId(self.next);
        let what = Request {
            target,
            kind,
            route: String::from("r"),
            headers: Vec::new(),
            body: Bytes::from(body),
            streams: Vec::new(),
            deadline,
        };
        let asked = node.request(now, request, what);
        match asked {
            Ok(()) => {
                self.open.insert(request, (number, deadline));
            }
            Err(_) => sim.oracle(|oracle| oracle.on_outcome(number, Asked::NotHandled)),
        }
    }

    /// What core says.
    pub(crate) fn on_effect(&mut self, sim: &Sim, me: usize, effect: Effect) -> Then {
        match effect {
            Effect::Handle(handle) => {
                let number = number_of(&handle.body);
                sim.trace(|trace| trace.mix(number ^ 13 << 56));
                sim.oracle(|oracle| oracle.on_handled(me, number, handle.attempt));
                self.handling.insert(handle.handle, number);
                if self.rng.chance(1, 12) {
                    return Then::Nothing; // never
                }
                let most = if self.rng.chance(1, 6) { 3_000 } else { 30 };
                let wait = self.rng.duration(Duration::ZERO, Duration::from_millis(most));
                return Then::Answer(handle.handle, wait);
            }
            Effect::Gone { handle, why: Gone::Late } => {
                self.handling.remove(&handle);
            }
            Effect::Gone { why: Gone::Caller, .. } => {}
            Effect::Answered { request, result } => self.on_answered(sim, me, request, result),
            Effect::Data { .. } | Effect::Credit { .. } | Effect::Broken { .. } => {
                sim.oracle(|oracle| {
                    oracle.fail("REQUEST", format!("{}: streams of nobody", member_id(me)));
                });
            }
        }
        Then::Nothing
    }

    fn on_answered(
        &mut self,
        sim: &Sim,
        me: usize,
        request: RequestId,
        result: Result<Response, Failure>,
    ) {
        let Some((number, _)) = self.open.remove(&request) else {
            let problem = format!("{}: {request} ended twice", member_id(me));
            sim.oracle(|oracle| oracle.fail("REQUEST", problem));
            return;
        };
        sim.trace(|trace| trace.mix(number ^ u64::from(result.is_ok()) << 63));
        let outcome = match result {
            Ok(response) if response.body.is_empty() => Asked::Sent,
            Ok(response) => Asked::Answered(number_of(&response.body)),
            Err(Failure::Handler { code, .. }) => Asked::Answered(u64::from(code)),
            Err(failure) if failure.is_outcome_unknown() => Asked::Unknown,
            Err(_) => Asked::NotHandled,
        };
        sim.oracle(|oracle| oracle.on_outcome(number, outcome));
    }

    /// Answers a request that it handles, unless it is over.
    pub(crate) fn answer(&mut self, sim: &Sim, node: &mut Node, handle: HandleId) {
        let Some(number) = self.handling.remove(&handle) else { return };
        let result = if self.rng.chance(1, 4) {
            let code = u32::try_from(number).expect("counted from 1");
            Err(Fault::Handler { code, text: String::new() })
        } else {
            let body = Bytes::from(number.to_le_bytes().to_vec());
            Ok(Response { body, ..Response::default() })
        };
        sim.trace(|trace| trace.mix(number ^ 14 << 56));
        node.respond(handle, result);
    }

    /// After a turn nothing is overdue.
    pub(crate) fn check(&self, sim: &Sim, me: usize, now: Instant) {
        if let Some((request, _)) = self.open.iter().find(|(_, (_, deadline))| *deadline <= now) {
            let open = len_u64(self.open.len());
            let problem = format!("{}: {request} of {open} is overdue", member_id(me));
            sim.oracle(|oracle| oracle.fail("REQUEST", problem));
        }
    }
}

/// The number that a body begins with.
fn number_of(body: &[u8]) -> u64 {
    body.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
