//! Datagrams out, and datagrams in until it is clear that they count.
//!
//! A datagram counts if it is of this cluster, of its sender's latest life, not seen before, and if its sender has
//! proven that it speaks now, by an answer to a datagram of this run. What was recorded and is sent again, by whomever,
//! an hour or a year later, therefore changes nothing: it makes this member ask for a proof, or answer
//! "I am here", no more.

use core::net::SocketAddr;

use alloc::vec::Vec;

use super::effects::{Event, JoinFailure};
use super::gossip::Taken;
use super::merge::Via;
use super::replay::Window;
use super::suspicion::rounds;
use super::table::RoundTrip;
use super::wire::{self, Body, Header, Unreadable, Update, Writer};
use super::{Membership, Phase, State};
use crate::ids::{MemberId, len_u64};
use crate::time::Instant;

/// A datagram that may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Question {
    /// Who may answer; none: whoever is at the address.
    pub(super) to: Option<MemberId>,
    pub(super) why: Why,
    pub(super) sent: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Why {
    /// A ping of the running probe, or of one before.
    Probe,
    /// A request to another to ping the probe's target.
    Indirect { target: MemberId, nacked: bool },
    /// A ping for another.
    Relay { origin: SocketAddr, echo: u64, due: Instant },
    /// For a proof, to tell a suspect of its suspicion, or to look after the dead.
    Other,
    /// To a seed.
    Seed(SocketAddr),
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
        first: &[Update],
    ) -> u64 {
        let (seq, mut writer) = self.open(body);
        let mut told: Vec<MemberId> = Vec::new();
        for update in first {
            writer.add(update);
            told.push(update.member());
        }
        // Buddy notice (Lifeguard): the accused hears of it from whoever talks to it.
        if let Some(receiver) = receiver
            && let Some(entry) = self.table.get(receiver)
            && entry.state() != State::Alive
            && !told.contains(&receiver)
            && let Some(thought) = entry.thought(receiver)
        {
            writer.add(&thought);
            told.push(receiver);
        }
        let limit = self.config.transmissions * rounds(self.table.present());
        let (table, mut misfits) = (&self.table, 0);
        self.news.tell(limit, |member| {
            if misfits == MISFITS_MAX || writer.is_full() {
                return Taken::Full;
            }
            if told.contains(&member) {
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

    /// Sends a datagram with nothing but what the receiver needs, to one that may not be who it says.
    pub(super) fn send_bare(&mut self, to: SocketAddr, body: Body, updates: &[Update]) -> u64 {
        let (seq, mut writer) = self.open(body);
        for update in updates {
            writer.add(update);
        }
        self.post(to, writer);
        seq
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
        while let Some((&oldest, question)) = self.asked.first_key_value()
            && (self.asked.len() >= ASKED_MAX || question.sent + keep <= t)
        {
            if let Why::Relay { due, .. } = question.why {
                self.relays.remove(&(due, oldest));
            }
            self.asked.remove(&oldest);
        }
        self.asked.insert(seq, Question { to, why, sent: t });
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
        let (header, body, updates) = match read {
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
                self.take_in(t, from, &header, updates);
                self.on_body(t, from, &header, body);
            }
            None => self.on_unproven(t, from, &header, body, updates),
        }
    }

    fn take_in(&mut self, t: Instant, from: SocketAddr, header: &Header, updates: Vec<Update>) {
        for update in updates {
            self.learn(t, update, Via::Datagram(header.sender, from));
        }
    }

    fn on_body(&mut self, t: Instant, from: SocketAddr, header: &Header, body: Body) {
        let (sender, seq) = (header.sender, header.seq);
        match body {
            Body::Ping { to } if to != self.me => self.counters.misdirected += 1,
            Body::Ping { .. } => {
                let outdated = self.outdated(header);
                self.send(from, Some(sender), Body::Ack { echo: seq }, &outdated);
            }
            Body::Join => {
                let own = self.own_update();
                self.send(from, Some(sender), Body::Ack { echo: seq }, &own);
            }
            Body::Ack { echo } => {
                self.on_answer(t, sender, echo);
            }
            Body::AckProve { echo } => {
                self.on_answer(t, sender, echo);
                let own = self.own_update();
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
    fn outdated(&self, header: &Header) -> Vec<Update> {
        let known = self.table.get(header.sender);
        let known = known.filter(|entry| entry.incarnation > header.incarnation);
        known.and_then(|entry| entry.thought(header.sender)).into_iter().collect()
    }

    pub(super) fn own_update(&self) -> Vec<Update> {
        let own = self.table.get(self.me);
        own.and_then(|own| own.thought(self.me)).into_iter().collect()
    }

    /// From a sender that has proven nothing yet in this run of this member, or not in its present life.
    fn on_unproven(
        &mut self,
        t: Instant,
        from: SocketAddr,
        header: &Header,
        body: Body,
        updates: Vec<Update>,
    ) {
        let (sender, echo) = (header.sender, header.seq);
        match body {
            Body::Ack { echo: answered } | Body::AckProve { echo: answered } => {
                if !self.may_answer(sender, answered) {
                    self.counters.unproven += 1;
                    return;
                }
                self.take_in(t, from, header, updates);
                if let Some((window, _)) = self.table.contact(sender) {
                    *window = Some(Window::proven(header.incarnation.life(), header.seq));
                }
                self.on_body(t, from, header, body);
            }
            Body::Join => {
                self.counters.unproven += 1;
                let own = self.own_update();
                let seq = self.send_bare(from, Body::AckProve { echo }, &own);
                self.ask(t, seq, Some(sender), Why::Other);
            }
            Body::Ping { to } if to == self.me => {
                self.counters.unproven += 1;
                let outdated = self.outdated(header);
                let seq = self.send_bare(from, Body::AckProve { echo }, &outdated);
                self.ask(t, seq, Some(sender), Why::Other);
            }
            Body::Ping { .. } => self.counters.misdirected += 1,
            Body::PingFor { .. } | Body::Gossip | Body::Pull { .. } => {
                self.counters.unproven += 1;
                let seq = self.send_bare(from, Body::Ping { to: sender }, &[]);
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
                let mut updates = self.own_update();
                updates.extend(self.outdated(header));
                self.send_bare(from, Body::Ack { echo: header.seq }, &updates);
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
            && let Some(Why::Seed(address)) = self.asked.get(&header.seq).map(|asked| asked.why)
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
        let question = self.asked.get(&echo);
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
        let question = self.asked.remove(&echo).expect("a question that may be answered");
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
        let mut updates: Vec<Update> = entry.said(member).into_iter().collect();
        if entry.state() != State::Alive {
            updates.extend(entry.thought(member));
        }
        self.send(from, Some(sender), Body::Gossip, &updates);
    }
}
