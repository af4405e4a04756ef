//! What news does to the table: the rules of SWIM section 4.2, with death and departure of an incarnation rather
//! than of a member, so that it can come back.
//!
//! News is a point (incarnation, state) of one member, and the greater point holds. So news may come late, twice
//! and in any order, and an old one changes nothing. Two exceptions keep live members in:
//!
//! 1. A member that hears an accusation of its own present incarnation refutes it with a greater one.
//! 2. A death told in a comparison of views is taken for a suspicion where the member is thought to be present:
//!    after a split each side holds the other for dead, and the accused must be heard first.

use core::cmp::Ordering;
use core::net::SocketAddr;

use alloc::vec::Vec;

use super::effects::Event;
use super::member::{Incarnation, State, Statement};
use super::suspicion::Suspicion;
use super::table::{Entry, Standing};
use super::wire::{Body, Claim};
use super::{Membership, Phase};
use crate::ids::MemberId;
use crate::time::Instant;

/// How news came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Via {
    /// This member found out by itself.
    Own,
    /// In a datagram of this member, from this address.
    Datagram(MemberId, SocketAddr),
    /// In a comparison with this member.
    Stream(MemberId),
}

impl Membership {
    /// Takes in one piece of news.
    pub(super) fn learn(&mut self, t: Instant, claim: Claim<'_>, via: Via) {
        let (member, incarnation) = (claim.member(), claim.incarnation());
        if member == self.me {
            self.on_claim(&claim);
            return;
        }
        let known = self.table.get(member);
        if known.is_some_and(|entry| incarnation < entry.incarnation)
            && !matches!(claim, Claim::Alive { .. })
        {
            return;
        }
        let takes_room = matches!(claim, Claim::Alive { .. } | Claim::Suspect { .. })
            && known.is_none_or(|entry| !entry.state().is_present());
        if takes_room && self.table.known() >= self.config.members_max {
            self.counters.full += 1;
            return;
        }
        match claim {
            Claim::Alive { profile, .. } => {
                self.learn_alive(member, incarnation, profile, via);
            }
            Claim::Suspect { accusers, .. } => {
                self.learn_suspect(t, member, incarnation, accusers.as_slice(), via);
            }
            Claim::Dead { .. } => match via {
                Via::Stream(teller) if known.is_some_and(|entry| entry.state().is_present()) => {
                    self.learn_suspect(t, member, incarnation, &[teller], via);
                }
                Via::Own | Via::Datagram(..) | Via::Stream(_) => {
                    self.bury(t, member, incarnation, Standing::Dead, via);
                }
            },
            Claim::Left { .. } => self.bury(t, member, incarnation, Standing::Left, via),
        }
    }

    fn learn_alive(
        &mut self,
        member: MemberId,
        incarnation: Incarnation,
        profile: &[u8],
        via: Via,
    ) {
        let Some(entry) = self.table.get(member) else {
            let mut entry = Entry::new(incarnation, Standing::Alive);
            entry.profile = Some(Statement::read(incarnation, profile));
            self.table.insert(member, entry, &mut self.rng);
            self.pass_on(member, via);
            self.tell_change(member, Event::Joined);
            return;
        };
        let (was_present, was) = (entry.is_present(), entry.state());
        let newer = incarnation > entry.incarnation;
        if !newer && entry.profile.as_ref().is_some_and(|said| said.at >= incarnation) {
            if incarnation == entry.incarnation && entry.state() == State::Alive {
                self.heard_again(member, via);
            }
            return;
        }
        let same = entry.profile.as_ref().is_some_and(|said| said.bytes() == profile);
        let restarted = incarnation.life() > entry.incarnation.life();
        self.table.update(member, &mut self.rng, |entry| {
            match &mut entry.profile {
                Some(said) if same => said.at = incarnation,
                said => *said = Some(Statement::read(incarnation, profile)),
            }
            if newer {
                entry.incarnation = incarnation;
                entry.standing = Standing::Alive;
                entry.timer = None;
            }
        });
        if newer {
            self.pass_on(member, via);
        }
        let present = self.table.get(member).is_some_and(Entry::is_present);
        if !was_present && present {
            self.tell_change(member, Event::Joined);
            if !newer {
                self.tell(member, Event::Suspected);
            }
            // It was thought gone, and speaks: it may have been on the other side of a split, with others.
            if let Via::Datagram(sender, _) = via
                && sender == member
            {
                self.compare_with(member);
            }
        } else if present {
            if newer && was == State::Suspect {
                self.tell(member, Event::Recovered);
            }
            if !same || restarted {
                self.tell_change(member, |member| Event::Updated { member, restarted });
            }
        }
    }

    fn learn_suspect(
        &mut self,
        t: Instant,
        member: MemberId,
        incarnation: Incarnation,
        accusers: &[MemberId],
        via: Via,
    ) {
        if let Some(entry) = self.table.get(member)
            && entry.incarnation == incarnation
        {
            match &entry.standing {
                Standing::Suspect(before) => {
                    if before.is_shortened_by(accusers) {
                        self.confirm(member, accusers);
                    } else if before.accusers.iter().all(|accuser| accusers.contains(accuser)) {
                        self.heard_again(member, via);
                    }
                    return;
                }
                Standing::Dead | Standing::Left => return,
                Standing::Alive => {}
            }
        }
        let mut suspicion = Suspicion { accusers: Vec::new(), since: t };
        suspicion.add(accusers);
        let until = suspicion.until(&self.config, self.table.present());
        let Some(entry) = self.table.get(member) else {
            let mut entry = Entry::new(incarnation, Standing::Suspect(suspicion));
            entry.timer = Some(until);
            self.table.insert(member, entry, &mut self.rng);
            self.news.add(member);
            self.pull(member, via);
            return;
        };
        let was_present = entry.is_present();
        let outdated = entry.profile.as_ref().is_none_or(|said| said.at < incarnation);
        self.table.update(member, &mut self.rng, |entry| {
            entry.incarnation = incarnation;
            entry.standing = Standing::Suspect(suspicion);
            entry.timer = Some(until);
        });
        self.news.add(member);
        if outdated {
            self.pull(member, via);
        }
        if !was_present {
            self.tell_change(member, Event::Joined);
        }
        self.tell(member, Event::Suspected);
    }

    /// Others suspect a suspect as well: it has less time (Lifeguard, "LHA-Suspicion").
    fn confirm(&mut self, member: MemberId, accusers: &[MemberId]) {
        let (config, present) = (&self.config, self.table.present());
        self.table.update(member, &mut self.rng, |entry| {
            if let Standing::Suspect(suspicion) = &mut entry.standing {
                suspicion.add(accusers);
                entry.timer = Some(suspicion.until(config, present));
            }
        });
        self.news.add(member);
    }

    /// A member is dead or has left. It is remembered, so that late news does not bring it back.
    fn bury(
        &mut self,
        t: Instant,
        member: MemberId,
        incarnation: Incarnation,
        standing: Standing,
        via: Via,
    ) {
        let until = t + self.config.dead_retention;
        let left = standing == Standing::Left;
        let before = self.table.get(member);
        let was_present = before.is_some_and(Entry::is_present);
        match before {
            None => {
                let mut entry = Entry::new(incarnation, standing);
                entry.timer = Some(until);
                self.table.insert(member, entry, &mut self.rng);
            }
            Some(entry) => {
                let state = if left { State::Left } else { State::Dead };
                match (incarnation, state).cmp(&(entry.incarnation, entry.state())) {
                    Ordering::Less => return,
                    Ordering::Equal => return self.heard_again(member, via),
                    Ordering::Greater => {}
                }
                self.table.update(member, &mut self.rng, |entry| {
                    entry.incarnation = incarnation;
                    entry.standing = standing;
                    entry.timer = Some(until);
                });
            }
        }
        self.news.add(member);
        if was_present {
            self.tell_change(member, if left { Event::Left } else { Event::Failed });
            self.on_gone(t);
        }
        while self.table.gone() > self.config.dead_max {
            let Some((_, oldest)) = self.table.next_tomb() else { break };
            self.forget(oldest);
        }
    }

    pub(super) fn forget(&mut self, member: MemberId) {
        self.table.remove(member);
        self.news.remove(member);
    }

    /// A suspicion is over: nobody has refuted it.
    pub(super) fn on_suspicion_timeout(&mut self, t: Instant, member: MemberId) {
        let Some(entry) = self.table.get(member) else { return };
        self.bury(t, member, entry.incarnation, Standing::Dead, Via::Own);
    }

    /// Somebody says something about this member.
    fn on_claim(&mut self, claim: &Claim<'_>) {
        let mine = self.incarnation();
        let theirs = claim.incarnation();
        let accuses = match claim {
            Claim::Alive { profile, .. } => {
                let same = self.table.get(self.me).and_then(|entry| entry.profile.as_ref());
                let another = same.is_some_and(|mine| mine.bytes() != *profile);
                if theirs > mine || (theirs == mine && another) {
                    self.out.events.push(Event::Twin { address: None });
                    true
                } else {
                    false
                }
            }
            Claim::Suspect { .. } | Claim::Dead { .. } | Claim::Left { .. } => true,
        };
        match self.phase {
            Phase::Running => {}
            Phase::Waiting | Phase::Leaving { .. } | Phase::Gone => return,
        }
        if accuses && theirs >= mine {
            self.worsen_health(1);
            self.outrank(theirs);
        } else if accuses && !self.news.contains(self.me) {
            // Who says so has not heard the refutation.
            self.news.add(self.me);
        }
    }

    /// Takes an incarnation above one that was heard of. Within this life it can be used at once: a restart begins a
    /// greater life whatever was used. One above a later life must be durable first, or the next start could
    /// begin below it.
    fn outrank(&mut self, theirs: Incarnation) {
        if theirs.life() <= self.incarnation().life() && theirs.next().life() == theirs.life() {
            self.speak_as(theirs.next());
            return;
        }
        if self.pending.is_none_or(|pending| pending <= theirs) {
            let next = theirs.following(self.rng.next());
            if next > theirs {
                self.pending = Some(next);
                self.out.persist.push(next);
            }
        }
    }

    /// This member is known by this incarnation from now on.
    pub(super) fn speak_as(&mut self, incarnation: Incarnation) {
        self.set_own(|own| {
            own.incarnation = incarnation;
            if let Some(said) = &mut own.profile {
                said.at = incarnation;
            }
        });
        self.out.events.push(Event::Refuted { incarnation });
    }

    /// Changes what this member says of itself, and tells it.
    pub(super) fn set_own(&mut self, change: impl FnOnce(&mut Entry)) {
        let mut incarnation = self.incarnation;
        self.table.update(self.me, &mut self.rng, |own| {
            change(own);
            incarnation = own.incarnation;
        });
        self.incarnation = incarnation;
        self.news.add(self.me);
    }

    /// Tells of a member that is there. In a comparison many are told of at once, and to a newcomer all: most of that
    /// is known to everybody else. So this member tells it a few times only; for whom it is new tells it in full.
    fn pass_on(&mut self, member: MemberId, via: Via) {
        let told = match via {
            Via::Stream(_) => self.tellings().saturating_sub(self.config.transmissions),
            Via::Own | Via::Datagram(..) => 0,
        };
        self.news.add_told(member, told);
    }

    /// Who says what this member knows and tells, tells it too.
    fn heard_again(&mut self, member: MemberId, via: Via) {
        if matches!(via, Via::Datagram(..)) && self.news.contains(member) {
            self.news.heard(member, self.tellings());
        }
    }

    /// Asks whoever told about an unknown member what it knows of it (trap G3).
    fn pull(&mut self, member: MemberId, via: Via) {
        if let Via::Datagram(teller, address) = via {
            self.send(address, Some(teller), Body::Pull { member }, &[]);
        }
    }

    fn tell(&mut self, member: MemberId, event: impl FnOnce(super::Member) -> Event) {
        if let Some(member) = self.table.get(member).and_then(|entry| entry.member(member)) {
            self.out.events.push(event(member));
        }
    }

    /// Tells of a change of the view.
    fn tell_change(&mut self, member: MemberId, event: impl FnOnce(super::Member) -> Event) {
        self.version += 1;
        self.tell(member, event);
    }
}
