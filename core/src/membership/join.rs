//! How a member finds the cluster: seeds are asked until they answer, and again while it knows nobody (trap G9).

use core::net::SocketAddr;
use core::time::Duration;

use super::Membership;
use super::config::SEEDS_MAX;
use super::effects::{Event, JoinFailure};
use super::member::is_reachable;
use super::questions::Why;
use super::send::Piece;
use super::wire::Body;
use crate::ids::MemberId;
use crate::time::Instant;

/// An address at which a member of the cluster may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Seed {
    address: SocketAddr,
    /// When it is asked next; none: it has answered, or is this member.
    next: Option<Instant>,
    backoff: Duration,
    /// How often it was asked since it answered last.
    attempts: u32,
    /// What came of the last time.
    failure: JoinFailure,
}

impl Membership {
    pub(super) fn add_seeds(&mut self, t: Instant, addresses: &[SocketAddr]) {
        let own = self.reach(self.me).map(|(address, _)| address);
        for &address in addresses {
            let known = self.seeds.iter_mut().find(|seed| seed.address == address);
            if let Some(seed) = known {
                if seed.failure != JoinFailure::Own {
                    seed.next = seed.next.or(Some(t));
                }
                continue;
            }
            if Some(address) == own || !is_reachable(address) || self.seeds.len() >= SEEDS_MAX {
                continue;
            }
            self.seeds.push(Seed {
                address,
                next: Some(t),
                backoff: self.config.join_retry_min,
                attempts: 0,
                failure: JoinFailure::Silent,
            });
        }
    }

    pub(super) fn seeds_due(&self) -> Option<Instant> {
        self.seeds.iter().filter_map(|seed| seed.next).min()
    }

    /// Asks each seed that is due.
    pub(super) fn ask_seeds(&mut self, t: Instant) {
        match self.phase {
            super::Phase::Running => {}
            super::Phase::Waiting | super::Phase::Leaving { .. } | super::Phase::Gone => return,
        }
        for place in 0..self.seeds.len() {
            let seed = &mut self.seeds[place];
            if seed.next.is_none_or(|at| at > t) {
                continue;
            }
            let address = seed.address;
            if seed.attempts > 0 {
                let (attempts, why) = (seed.attempts, seed.failure);
                self.out.events.push(Event::JoinFailed { address, attempts, why });
            }
            seed.attempts = seed.attempts.saturating_add(1);
            seed.failure = JoinFailure::Silent;
            // Members that were started together do not ask together for ever.
            let wait = self.rng.duration(seed.backoff, seed.backoff * 5 / 4);
            seed.next = Some(t + wait);
            seed.backoff = (seed.backoff * 2).min(self.config.join_retry_max);
            let seq = self.send_bare(address, Body::Join, &[Piece::Thought(self.me)]);
            self.ask(t, seq, None, Why::Seed(address));
        }
    }

    /// A seed let this member in.
    pub(super) fn on_seed_answer(&mut self, sender: MemberId, address: SocketAddr) {
        if let Some(seed) = self.seeds.iter_mut().find(|seed| seed.address == address) {
            seed.next = None;
            seed.attempts = 0;
            seed.backoff = self.config.join_retry_min;
        }
        self.compare_with(sender);
    }

    /// A seed that was asked has said something else than yes.
    pub(super) fn on_seed_failure(&mut self, address: SocketAddr, why: JoinFailure) {
        let seed = self.seeds.iter_mut().find(|seed| seed.address == address);
        let Some(seed) = seed.filter(|seed| seed.next.is_some()) else { return };
        seed.failure = why;
        if why == JoinFailure::Own {
            seed.next = None;
            let attempts = seed.attempts;
            self.out.events.push(Event::JoinFailed { address, attempts, why });
        }
    }

    /// A member is gone. If it was the last, the seeds are asked again.
    pub(super) fn on_gone(&mut self, t: Instant) {
        if self.table.present() > 1 {
            return;
        }
        for seed in &mut self.seeds {
            if seed.failure != JoinFailure::Own {
                seed.next = seed.next.or(Some(t));
            }
        }
    }
}
