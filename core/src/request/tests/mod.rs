//! The machine alone: state, one input, the exact effects and messages.

mod faults;
mod rules;
mod streams;

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use bytes::Bytes;

use super::message::{Ask, Fault, Part};
use super::*;
use crate::config::Limits;
use crate::ids::{Boot, ConnId, MemberId, RequestId};
use crate::io::Refused;
use crate::time::Instant;
use crate::wire::Message;

const START: Instant = Instant(1_000_000_000);
const SECOND: Duration = Duration::from_secs(1);
const ME: MemberId = MemberId(1);
const A: MemberId = MemberId(2);
const B: MemberId = MemberId(3);

/// What a machine is told of the others.
#[derive(Clone, Debug)]
struct Around {
    me: MemberId,
    conns: BTreeMap<MemberId, ConnId>,
    /// Who is in line for every key, and for every partition.
    line: Vec<MemberId>,
    leader: Option<MemberId>,
    /// Those that were never connected.
    strange: Vec<MemberId>,
}

impl Around {
    /// `me` connected to members by connections that have their numbers.
    fn new(me: MemberId, line: &[MemberId]) -> Self {
        let others = line.iter().filter(|&&member| member != me);
        let conns = others.map(|&member| (member, ConnId(member.0))).collect();
        Self { me, conns, line: line.to_vec(), leader: None, strange: Vec::new() }
    }
}

impl Reach for Around {
    fn via(&self, member: MemberId) -> Option<Via> {
        if member == self.me {
            return Some(Via::Local);
        }
        self.conns.get(&member).map(|&conn| Via::Conn(conn))
    }
    fn was_reached(&self, member: MemberId) -> bool {
        !self.strange.contains(&member)
    }
    fn owners(&self, _key: &[u8], count: usize) -> Vec<MemberId> {
        self.line.iter().take(count).copied().collect()
    }
    fn leaders(&self, _partition: &[u8]) -> Vec<MemberId> {
        let mut line: Vec<MemberId> = self.leader.into_iter().collect();
        line.extend(self.line.iter().filter(|&&member| Some(member) != self.leader));
        line
    }
    fn leader_here(&self, _partition: &[u8]) -> Option<MemberId> {
        self.leader
    }
    fn boot(&self, _conn: ConnId) -> Boot {
        Boot(77)
    }
}

/// One machine, and what is around it.
struct One {
    now: Instant,
    machine: Requests,
    around: Around,
    sent: Vec<(ConnId, Message)>,
    effects: Vec<Effect>,
    /// Weight of what each peer has sent.
    places: BTreeMap<ConnId, u64>,
}

impl One {
    fn new(line: &[MemberId]) -> Self {
        Self::with(&Limits::default(), line)
    }

    fn with(limits: &Limits, line: &[MemberId]) -> Self {
        let mut machine = Requests::new(ME, Boot(5), limits, Rng::new(9));
        machine.serve();
        Self {
            now: START,
            machine,
            around: Around::new(ME, line),
            sent: Vec::new(),
            effects: Vec::new(),
            places: BTreeMap::new(),
        }
    }

    fn drive(&mut self) {
        self.machine.drive(self.now, &self.around);
        self.sent.extend(self.machine.sends());
        self.effects.extend(self.machine.effects());
        self.machine.check();
        let due = self.machine.deadline();
        assert!(due.is_none_or(|due| due > self.now), "nothing is left to do now");
    }

    /// Time passes, from deadline to deadline.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(due) = self.machine.deadline().filter(|&due| due <= end) {
            self.now = due.max(self.now);
            self.drive();
        }
        self.now = end;
    }

    fn ask(&mut self, number: u64, request: Request) {
        self.machine.request(self.now, RequestId(number), request).unwrap();
        self.drive();
    }

    /// A part comes from a member.
    fn comes(&mut self, from: MemberId, part: Part) -> Result<(), &'static str> {
        let conn = self.around.conns[&from];
        let place = self.places.entry(conn).or_default();
        let at = *place;
        *place += part.weight();
        let result = self.machine.on_part(self.now, from, conn, (at, part), &self.around);
        self.drive();
        result
    }

    /// The connection to a member is lost.
    fn lose(&mut self, member: MemberId) {
        let conn = self.around.conns.remove(&member).unwrap();
        self.machine.on_conn_lost(self.now, conn);
        self.drive();
    }

    fn sent(&mut self) -> Vec<(ConnId, Part)> {
        let parts = core::mem::take(&mut self.sent).into_iter().map(|(conn, message)| {
            let Message::Request { part, .. } = message else { panic!("{message:?}") };
            (conn, part)
        });
        parts.collect()
    }

    /// The one request that was sent, and to whom.
    fn asked(&mut self) -> (MemberId, Ask) {
        let mut sent = self.sent();
        assert_eq!(sent.len(), 1, "{sent:?}");
        let Some((conn, Part::Ask(ask))) = sent.pop() else { panic!("a request") };
        (MemberId(conn.0), *ask)
    }

    fn effects(&mut self) -> Vec<Effect> {
        core::mem::take(&mut self.effects)
    }

    /// The one request that is to be handled.
    fn handle(&mut self) -> Handle {
        let mut effects = self.effects();
        assert_eq!(effects.len(), 1, "{effects:?}");
        let Some(Effect::Handle(handle)) = effects.pop() else { panic!("a request") };
        *handle
    }
}

fn request(kind: Kind) -> Request {
    Request {
        target: Target::Key(Bytes::from("key")),
        kind,
        route: "echo".to_string(),
        headers: vec![("h".to_string(), Bytes::from("v"))],
        body: Bytes::from("body"),
        streams: Vec::new(),
        deadline: START + SECOND * 10,
    }
}

fn with_streams(ways: &[Way]) -> Request {
    let names = (0..ways.len()).map(|n| alloc::format!("s{n}"));
    Request { streams: names.zip(ways.iter().copied()).collect(), ..request(Kind::Retried) }
}

fn response(body: &'static str) -> Response {
    Response { body: Bytes::from(body), ..Response::default() }
}

fn answer(number: u64, body: &'static str) -> Part {
    Part::Answer { number, result: Ok(Box::new(response(body))) }
}

fn fault(number: u64, fault: Fault) -> Part {
    Part::Answer { number, result: Err(fault) }
}

fn not_owner(hint: Option<MemberId>) -> Part {
    fault(1, Fault::NotOwner { hint })
}

fn ask(number: u64) -> Ask {
    let Request { target, kind, route, headers, body, streams, .. } = request(Kind::Retried);
    let left = 5_000_000_000;
    let skipped = Vec::new();
    Ask { number, attempt: 1, kind, target, skipped, left, route, headers, body, streams }
}

fn done(number: u64, body: &'static str) -> Effect {
    Effect::Answered { request: RequestId(number), result: Ok(response(body)) }
}

fn failed(number: u64, failure: Failure) -> Effect {
    Effect::Answered { request: RequestId(number), result: Err(failure) }
}
