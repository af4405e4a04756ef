//! Datagrams out, and datagrams in until it is clear that they count.
//!
//! A datagram counts if it is of this cluster, of its sender's latest life, not seen before, and if its sender has
//! proven that it speaks now, by an answer to a datagram of this run. What was recorded and is sent again, by whomever,
//! an hour or a year later, therefore changes nothing: it makes this member ask for a proof, or answer
//! "I am here", no more.

use core::net::SocketAddr;

use super::effects::{Event, JoinFailure};
use super::gossip::Taken;
use super::merge::Via;
use super::questions::{Question, Why};
use super::replay::Window;
use super::suspicion::rounds;
use super::table::RoundTrip;
use super::wire::{self, Body, Claims, Header, Unreadable, Writer};
use super::{Membership, Phase, State};
use crate::ids::{MemberId, len_u64};
use crate::time::Instant;

/// What a datagram tells besides news.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// What a member said of itself.
    Said(MemberId),
    /// What is thought of it.
    Thought(MemberId),
}

impl Piece {
    fn member(self) -> MemberId {
        match self {
            Self::Said(member) | Self::Thought(member) => member,
        }
    }
}

/// Most questions that may be answered at a time; the oldest are forgotten first.
pub(super) const ASKED_MAX: usize = 4096;
/// News that did not fit into a datagram before it is closed.
const MISFITS_MAX: usize = 3;

impl Membership {
    /// Sends a datagram with these members' news first, and as much other news as fits. Returns its number.
    pub(super) fn send(
        &mut self,
        to: SocketAddr,
        receiver: Option<MemberId>,
        body: Body,
        first: &[Piece],
    ) -> u64 {
        let (seq, mut writer) = self.open(body);
        self.write(&mut writer, first);
        // Buddy notice (Lifeguard): the accused hears of it from whoever talks to it.
        let accused = receiver.filter(|receiver| {
            let entry = self.table.get(*receiver);
            entry.is_some_and(|entry| entry.state() != State::Alive)
                && first.iter().all(|piece| piece.member() != *receiver)
        });
        if let Some(accused) = accused {
            self.write(&mut writer, &[Piece::Thought(accused)]);
        }
        let limit = self.tellings();
        let (table, mut misfits) = (&self.table, 0);
        self.news.tell(limit, |member| {
            if misfits == MISFITS_MAX || writer.is_full() {
                return Taken::Full;
            }
            if accused == Some(member) || first.iter().any(|piece| piece.member() == member) {
                return Taken::Passed;
            }
            let update = table.get(member).and_then(|entry| entry.thought(member));
            if update.is_some_and(|update| writer.add(&update)) {
                return Taken::Told;
            }
            misfits += 1;
            Taken::Passed
        });
        self.post(to, writer);
        seq
    }

    /// How often news is told (SWIM section 4.1).
    pub(super) fn tellings(&self) -> u32 {
        self.config.transmissions * rounds(self.table.present())
    }

    /// Sends a datagram with nothing but what the receiver needs, to one that may not be who it says.
    pub(super) fn send_bare(&mut self, to: SocketAddr, body: Body, pieces: &[Piece]) -> u64 {
        let (seq, mut writer) = self.open(body);
        self.write(&mut writer, pieces);
        self.post(to, writer);
        seq
    }

    fn write(&self, writer: &mut Writer, pieces: &[Piece]) {
        for piece in pieces {
            let entry = self.table.get(piece.member());
            let claim = entry.and_then(|entry| match *piece {
                Piece::Said(member) => entry.said(member),
                Piece::Thought(member) => entry.thought(member),
            });
            if let Some(claim) = claim {
                writer.add(&claim);
            }
        }
    }

    fn open(&mut self, body: Body) -> (u64, Writer) {
        self.seq += 1;
        let header = Header {
            cluster: self.config.cluster,
            sender: self.me,
            incarnation: self.incarnation(),
            seq: self.seq,
        };
        (self.seq, Writer::new(&header, body, self.config.plain_bytes()))
    }

    fn post(&mut self, to: SocketAddr, writer: Writer) {
        let bytes = writer.finish();
        self.counters.sent += 1;
        self.counters.sent_bytes += len_u64(bytes.len());
        self.out.datagrams.push((to, bytes));
    }

    /// Remembers that a datagram may be answered.
    pub(super) fn ask(&mut self, t: Instant, seq: u64, to: Option<MemberId>, why: Why) {
        let keep = self.config.period * (self.config.health_max + 2);
        while let Some(&(oldest, question)) = self.asked.oldest()
            && (self.asked.len() >= ASKED_MAX || question.sent + keep <= t)
        {
            if let Why::Relay { due, .. } = question.why {
                self.relays.remove(&(due, oldest));
            }
            self.asked.remove(oldest);
        }
        self.asked.push(seq, Question { to, why, sent: t });
    }

    /// A datagram came. Whatever it is, it is not the caller's fault: it counts, or is dropped and counted.
    pub fn on_datagram(&mut self, now: Instant, from: SocketAddr, bytes: &[u8]) {
        let t = self.clock(now);
        match self.phase {
            Phase::Running | Phase::Leaving { .. } => {}
            Phase::Waiting | Phase::Gone => return,
        }
        self.counters.received += 1;
        let read = if bytes.len() > self.config.plain_bytes() {
            Err(Unreadable::Malformed)
        } else {
            wire::decode(self.config.cluster, bytes)
        };
        let (header, body, claims) = match read {
            Ok(datagram) => datagram,
            Err(why) => return self.on_unreadable(from, why),
        };
        if header.sender == self.me {
            return self.on_own_id(from, &header, body);
        }
        let known = self.table.get(header.sender);
        let life = header.incarnation.life();
        if known.is_some_and(|entry| life < entry.incarnation.life()) {
            return self.on_stale(from, &header, body);
        }
        let window = self.table.contact(header.sender).and_then(|(window, _)| window.as_mut());
        match window.filter(|window| window.life() == life) {
            Some(window) => {
                if !window.accept(header.seq) {
                    self.counters.replayed += 1;
                    return;
                }
                self.take_in(t, from, &header, claims);
                self.on_body(t, from, &header, body);
            }
            None => self.on_unproven(t, from, &header, body, claims),
        }
    }

    fn take_in(&mut self, t: Instant, from: SocketAddr, header: &Header, claims: Claims<'_>) {
        for claim in claims {
            self.learn(t, claim, Via::Datagram(header.sender, from));
        }
    }

    fn on_body(&mut self, t: Instant, from: SocketAddr, header: &Header, body: Body) {
        let (sender, seq) = (header.sender, header.seq);
        match body {
            Body::Ping { to } if to != self.me.into() => self.counters.misdirected += 1,
            Body::Ping { .. } => {
                let outdated = self.outdated(header);
                self.send(from, Some(sender), Body::Ack { echo: seq }, outdated.as_slice());
            }
            Body::Join => {
                let own = [Piece::Thought(self.me)];
                self.send(from, Some(sender), Body::Ack { echo: seq }, &own);
            }
            Body::Ack { echo } => {
                self.on_answer(t, sender, echo);
            }
            Body::AckProve { echo } => {
                self.on_answer(t, sender, echo);
                let own = [Piece::Thought(self.me)];
                self.send(from, Some(sender), Body::Ack { echo: seq }, &own);
            }
            Body::PingFor { target } => self.on_ping_for(t, from, header, target),
            Body::Relayed { echo } => self.on_relayed(sender, echo),
            Body::Nack { echo } => self.on_nack(sender, echo),
            Body::Pull { member } => self.on_pull(from, sender, member),
            Body::Foreign | Body::Gossip => {}
        }
    }

    /// What a sender that is behind with what it says of itself must hear: that it is known by a later incarnation.
    fn outdated(&self, header: &Header) -> Option<Piece> {
        let known = self.table.get(header.sender);
        let later = known.is_some_and(|entry| entry.incarnation > header.incarnation);
        later.then_some(Piece::Thought(header.sender))
    }

    /// From a sender that has proven nothing yet in this run of this member, or not in its present life.
    fn on_unproven(
        &mut self,
        t: Instant,
        from: SocketAddr,
        header: &Header,
        body: Body,
        claims: Claims<'_>,
    ) {
        let (sender, echo) = (header.sender, header.seq);
        match body {
            Body::Ack { echo: answered } | Body::AckProve { echo: answered } => {
                if !self.may_answer(sender, answered) {
                    self.counters.unproven += 1;
                    return;
                }
                self.take_in(t, from, header, claims);
                if let Some((window, _)) = self.table.contact(sender) {
                    *window = Some(Window::proven(header.incarnation.life(), header.seq));
                }
                self.on_body(t, from, header, body);
            }
            Body::Join => {
                self.counters.unproven += 1;
                let own = [Piece::Thought(self.me)];
                let seq = self.send_bare(from, Body::AckProve { echo }, &own);
                self.ask(t, seq, Some(sender), Why::Other);
            }
            Body::Ping { to } if to == self.me.into() => {
                self.counters.unproven += 1;
                let outdated = self.outdated(header);
                let seq = self.send_bare(from, Body::AckProve { echo }, outdated.as_slice());
                self.ask(t, seq, Some(sender), Why::Other);
            }
            Body::Ping { .. } => self.counters.misdirected += 1,
            Body::PingFor { .. } | Body::Gossip | Body::Pull { .. } => {
                self.counters.unproven += 1;
                let seq = self.send_bare(from, Body::Ping { to: sender.into() }, &[]);
                self.ask(t, seq, Some(sender), Why::Other);
            }
            Body::Relayed { .. } | Body::Nack { .. } | Body::Foreign => self.counters.unproven += 1,
        }
    }

    /// From a life of the sender that is over. If it is the sender itself, put back to an earlier state, it must hear
    /// of its later life, to begin one after it.
    fn on_stale(&mut self, from: SocketAddr, header: &Header, body: Body) {
        self.counters.stale += 1;
        match body {
            Body::Join | Body::Ping { .. } => {
                // The sender is known by a later life, so there is something to tell of it.
                let pieces = [Piece::Thought(self.me), Piece::Thought(header.sender)];
                self.send_bare(from, Body::Ack { echo: header.seq }, &pieces);
            }
            Body::Ack { .. }
            | Body::AckProve { .. }
            | Body::PingFor { .. }
            | Body::Relayed { .. }
            | Body::Nack { .. }
            | Body::Foreign
            | Body::Gossip
            | Body::Pull { .. } => {}
        }
    }

    fn on_own_id(&mut self, from: SocketAddr, header: &Header, body: Body) {
        if body == Body::Join
            && header.incarnation.life() == self.incarnation().life()
            && let Some(Why::Seed(address)) = self.asked.get(header.seq).map(|asked| asked.why)
        {
            self.on_seed_failure(address, JoinFailure::Own);
            return;
        }
        self.counters.twin += 1;
        // A datagram of an earlier life of this member may still be on its way.
        if header.incarnation.life() > self.incarnation().life() {
            self.out.events.push(Event::Twin { address: Some(from) });
        }
    }

    fn on_unreadable(&mut self, from: SocketAddr, why: Unreadable) {
        let (failure, joins) = match why {
            Unreadable::Malformed => {
                self.counters.malformed += 1;
                (JoinFailure::Garbage, false)
            }
            Unreadable::Cluster { theirs, joins } => {
                self.counters.other_cluster += 1;
                (JoinFailure::OtherCluster(theirs), joins)
            }
            Unreadable::Version { joins } => {
                self.counters.other_version += 1;
                (JoinFailure::OtherVersion, joins)
            }
        };
        self.on_seed_failure(from, failure);
        if joins {
            self.send_bare(from, Body::Foreign, &[]);
        }
    }

    pub(super) fn may_answer(&self, sender: MemberId, echo: u64) -> bool {
        let question = self.asked.get(echo);
        question.is_some_and(|question| match question.why {
            Why::Indirect { .. } => false,
            Why::Seed(_) => true,
            Why::Probe | Why::Relay { .. } | Why::Other => question.to == Some(sender),
        })
    }

    /// A ping was answered by the one it went to.
    fn on_answer(&mut self, t: Instant, sender: MemberId, echo: u64) {
        if !self.may_answer(sender, echo) {
            return;
        }
        let question = self.asked.remove(echo).expect("a question that may be answered");
        if let Some((_, rtt)) = self.table.contact(sender) {
            *rtt = Some(RoundTrip::with(*rtt, t.since(question.sent)));
        }
        match question.why {
            Why::Probe => self.on_probe_answer(sender),
            Why::Relay { origin, echo: asked, due } => {
                self.relays.remove(&(due, echo));
                self.send(origin, None, Body::Relayed { echo: asked }, &[]);
            }
            Why::Seed(address) => self.on_seed_answer(sender, address),
            Why::Other | Why::Indirect { .. } => {}
        }
    }

    fn on_pull(&mut self, from: SocketAddr, sender: MemberId, member: MemberId) {
        let Some(entry) = self.table.get(member) else { return };
        let pieces = [Piece::Said(member), Piece::Thought(member)];
        let count = if entry.state() == State::Alive { 1 } else { 2 };
        self.send(from, Some(sender), Body::Gossip, &pieces[..count]);
    }
}
