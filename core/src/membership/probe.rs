//! Probes (SWIM sections 3.1 and 4.3), with Lifeguard's local health.

use core::net::SocketAddr;

use alloc::vec::Vec;

use super::merge::Via;
use super::questions::Why;
use super::wire::{Accusers, Body, Claim, Header};
use super::{Incarnation, Membership, Phase};
use crate::ids::{MemberId, len_usize};
use crate::time::Instant;

/// The probe of the present period, until it is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Probe {
    target: MemberId,
    /// Which incarnation is accused if there is no answer.
    incarnation: Incarnation,
    /// When others are asked; none: they were.
    indirect: Option<Instant>,
    /// When the target is a suspect.
    verdict: Instant,
    /// How many others were asked...
    helpers: u32,
    /// ... and said at least that they had no answer either.
    nacks: u32,
}

impl Probe {
    pub(super) fn due(&self) -> Instant {
        self.indirect.unwrap_or(self.verdict)
    }
}

impl Membership {
    /// Begins the probe of a new period, or goes on with the present one.
    pub(super) fn drive_probe(&mut self, t: Instant) {
        if let Some(probe) = self.probe {
            if probe.verdict <= t {
                self.on_probe_timeout(t, probe);
            } else if probe.indirect.is_some_and(|at| at <= t) {
                self.on_ping_timeout(t, probe);
            }
        }
        if self.next_probe <= t {
            if let Some(probe) = self.probe {
                self.on_probe_timeout(t, probe);
            }
            self.next_probe = t + self.stretched(self.config.period);
            self.begin_probe(t);
        }
    }

    fn begin_probe(&mut self, t: Instant) {
        let Some(target) = self.table.next_target(&mut self.rng) else { return };
        let Some((address, incarnation)) = self.reach(target) else { return };
        self.counters.probes += 1;
        let rtt = self.table.get(target).and_then(|entry| entry.rtt);
        let timeout = rtt.map_or(self.config.ping_timeout, |rtt| {
            rtt.timeout().clamp(self.config.ping_timeout_min, self.config.ping_timeout)
        });
        let seq = self.send(address, Some(target), Body::Ping { to: target.into() }, &[]);
        self.ask(t, seq, Some(target), Why::Probe);
        self.probe = Some(Probe {
            target,
            incarnation,
            indirect: Some(t + self.stretched(timeout)),
            verdict: t + self.stretched(self.config.probe_timeout),
            helpers: 0,
            nacks: 0,
        });
    }

    /// No direct answer: others ping as well, and this member once more, for its own datagram may be what was lost. A
    /// stream to it may do where datagrams are not let through.
    fn on_ping_timeout(&mut self, t: Instant, mut probe: Probe) {
        let target = probe.target;
        let count = len_usize(u64::from(self.config.indirect_probes));
        let helpers: Vec<MemberId> = self.table.draw(&mut self.rng, count, target);
        for helper in helpers {
            let Some((address, _)) = self.reach(helper) else { continue };
            let seq = self.send(address, Some(helper), Body::PingFor { target }, &[]);
            self.ask(t, seq, Some(helper), Why::Indirect { target, nacked: false });
            probe.helpers += 1;
        }
        if let Some((address, _)) = self.reach(target) {
            let seq = self.send(address, Some(target), Body::Ping { to: target.into() }, &[]);
            self.ask(t, seq, Some(target), Why::Probe);
        }
        self.out.asks.push(target);
        probe.indirect = None;
        self.probe = Some(probe);
    }

    /// A member has said something over a stream, after it was asked there ([`Effects::asks`](super::Effects::asks)):
    /// it is alive, whatever became of the datagrams.
    pub fn vouch(&mut self, member: MemberId) {
        self.on_probe_answer(member);
        self.tell_suspect(member);
    }

    /// The target answered, to whomever.
    pub(super) fn on_probe_answer(&mut self, target: MemberId) {
        if self.probe.is_some_and(|probe| probe.target == target) {
            self.probe = None;
            self.improve_health();
        }
    }

    /// Nobody had an answer: the target is a suspect, and is told so at once (buddy notice). Where others did not
    /// even say that they had none, it is this member that hears badly (Lifeguard, "LHA-Probe").
    fn on_probe_timeout(&mut self, t: Instant, probe: Probe) {
        self.probe = None;
        self.counters.probes_failed += 1;
        self.worsen_health(if probe.helpers == 0 { 1 } else { probe.helpers - probe.nacks });
        let (member, incarnation) = (probe.target, probe.incarnation);
        if let Some(accusers) = Accusers::new(&[self.me]) {
            self.learn(t, Claim::Suspect { member, incarnation, accusers }, Via::Own);
        }
        self.tell_suspect(member);
        if let Some((address, _)) = self.reach(member) {
            let seq = self.send(address, Some(member), Body::Ping { to: member.into() }, &[]);
            self.ask(t, seq, Some(member), Why::Other);
        }
    }

    /// Pings for another.
    pub(super) fn on_ping_for(
        &mut self,
        t: Instant,
        from: SocketAddr,
        header: &Header,
        target: MemberId,
    ) {
        let echo = header.seq;
        let Some((address, _)) = self.reach(target).filter(|_| target != self.me) else {
            self.send(from, Some(header.sender), Body::Nack { echo }, &[]);
            return;
        };
        // Lifeguard: the nack must come before the one who asked gives up.
        let patience = self.config.probe_timeout - self.config.ping_timeout;
        let due = t + patience * 4 / 5;
        let seq = self.send(address, Some(target), Body::Ping { to: target.into() }, &[]);
        self.ask(t, seq, Some(target), Why::Relay { origin: from, echo, due });
        self.relays.insert((due, seq));
    }

    /// Tells those for whom this member pings that there was no answer so far.
    pub(super) fn drive_relays(&mut self, t: Instant) {
        while let Some((at, seq)) = self.relays.first().copied()
            && at <= t
        {
            self.relays.remove(&(at, seq));
            let Some(question) = self.asked.get(seq) else { continue };
            if let Why::Relay { origin, echo, .. } = question.why {
                self.send(origin, None, Body::Nack { echo }, &[]);
            }
        }
    }

    pub(super) fn on_relayed(&mut self, helper: MemberId, echo: u64) {
        let Some(question) = self.asked.get(echo) else { return };
        if let Why::Indirect { target, .. } = question.why
            && question.to == Some(helper)
        {
            self.asked.remove(echo);
            self.on_probe_answer(target);
        }
    }

    pub(super) fn on_nack(&mut self, helper: MemberId, echo: u64) {
        let Some(question) = self.asked.get_mut(echo) else { return };
        if let Why::Indirect { target, nacked } = &mut question.why
            && question.to == Some(helper)
            && !*nacked
        {
            *nacked = true;
            let target = *target;
            if let Some(probe) = self.probe.as_mut().filter(|probe| probe.target == target) {
                probe.nacks = probe.helpers.min(probe.nacks + 1);
            }
        }
    }

    /// Spreads its own departure.
    pub(super) fn drive_leave(&mut self, t: Instant) {
        let Phase::Leaving { until, next } = self.phase else { return };
        if next > t && until > t {
            return;
        }
        let count = len_usize(u64::from(self.config.indirect_probes)).max(1);
        for member in self.table.draw(&mut self.rng, count, self.me) {
            if let Some((address, _)) = self.reach(member) {
                self.send(address, Some(member), Body::Gossip, &[]);
            }
        }
        if until <= t || !self.news.contains(self.me) || self.table.present() == 0 {
            self.phase = Phase::Gone;
            self.out.events.push(super::Event::Departed);
            return;
        }
        self.phase = Phase::Leaving { until, next: t + self.config.period / 5 };
    }

    /// Where a member takes datagrams, and the incarnation that would answer.
    pub(super) fn reach(&self, member: MemberId) -> Option<(SocketAddr, Incarnation)> {
        let entry = self.table.get(member)?;
        let said = entry.profile.as_ref()?;
        Some((said.datagram, entry.incarnation))
    }
}
