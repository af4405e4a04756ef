//! Who is alive: SWIM (Das, Gupta, Motivala 2002) with Lifeguard (Dadgar, Phillips, Currey 2018).
//!
//! Each period a member probes one other, in a drawn order that visits everyone once a round (`probe`). No answer
//! in time: it asks some others to probe as well. No answer to anyone: it *suspects* the member, which has some
//! time to refute, the less the more members suspect it (`suspicion`). What is new is told in the datagrams that
//! go out anyway, each piece a bounded number of times (`gossip`). From time to time two members compare their
//! whole views over a stream, and a dead member is probed, so that a healed split is noticed (`sync`).
//!
//! # Promises
//!
//! - *Completeness*: a crashed member is suspected by whoever probes it next, within two rounds, and is dead when it
//!   has not refuted; all that hear of it in time learn it in O(log n) periods.
//! - *Convergence*: what is thought of a member only rises (`merge`), so members that hear the same news think the
//!   same, in whatever order it came; comparisons bring the news that datagrams lost.
//! - *Refutation*: a member that runs and can be heard outranks each accusation. Its incarnation never falls: within
//!   one start it is in memory, and each start begins above everything said before, because the upper part counts
//!   the starts and is durable before the first datagram leaves ([`Incarnation`]).
//! - *No promise of agreement*: two members can think differently of a third for some periods. Nothing that needs
//!   a majority rests on this machine.
//!
//! # Faults
//!
//! | fault | what it does |
//! |---|---|
//! | lost datagram | a probe fails: others probe; news is told again, or comes with the next comparison |
//! | repeated or old datagram | nothing: each datagram counts once, and none that its sender does not prove to have sent in this run of the receiver (`replay`) |
//! | crash | the next start has a greater life; whatever was said of the last one does not count |
//! | this process stopped for a while | it notices by its own late timer: the time does not count against others, the running probe has no verdict, and no suspicion ends before what has come meanwhile was read |
//! | this process is slow | local health (Lifeguard) makes it patient |
//! | split | each side buries the other; a probe of the dead finds it when the split heals, and a comparison brings the rest |
//!
//! Clients (see [`MemberId::is_client`]) take part like everyone else, so their failure is noticed; they are not in
//! [`Membership::ring_hash`]. A program that comes for one call should not join at all.
//!
//! # Limits
//!
//! A member that everybody has forgotten (`dead_retention`) and that one member alone, stopped for longer than that,
//! still holds for alive, is a member again until that one's next probe of it fails.

mod config;
mod effects;
mod gossip;
mod join;
mod member;
mod merge;
mod probe;
mod questions;
mod replay;
mod send;
mod suspicion;
mod sync;
mod table;
#[cfg(test)]
mod tests;
mod wire;

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

pub use config::{ACCUSERS_MAX, AUTHENTICATION_BYTES, Config, SEEDS_MAX};
pub use effects::{Counters, Effects, Event, JoinFailure};
pub use member::{
    Incarnation, Member, NAME_BYTES_MAX, PROFILE_BYTES_MAX, Profile, ProfileError, State, TAGS_MAX,
};
pub use wire::{Stamp, SyncMessage, Update};

use crate::config::ConfigError;
use crate::ids::MemberId;
use crate::rng::Rng;
use crate::time::Instant;
use gossip::News;
use join::Seed;
use member::Statement;
use probe::Probe;
use questions::Questions;
use table::{Entry, Standing, Table};

/// The failure detector of one member.
///
/// The world gives it datagrams, messages of comparisons and the time, and carries out what
/// [`flush`](Membership::flush) hands over. Inputs never fail: what peers send wrong is dropped and counted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    config: Config,
    me: MemberId,
    /// That of its own entry: each datagram says it.
    incarnation: Incarnation,
    rng: Rng,
    phase: Phase,
    clock: Clock,
    /// No verdict on anyone before this time: it follows a pause of this process.
    verdicts_from: Instant,
    /// An incarnation that is being made durable.
    pending: Option<Incarnation>,
    /// The number of the last datagram.
    seq: u64,
    /// The local health multiplier: 0 is healthy.
    health: u32,
    table: Table,
    version: u64,
    news: News,
    probe: Option<Probe>,
    next_probe: Instant,
    next_sync: Instant,
    next_grave: Instant,
    /// Pings and requests that may still be answered.
    asked: Questions,
    /// Pings for others, by the time at which they are told that there was no answer yet.
    relays: BTreeSet<(Instant, u64)>,
    seeds: Vec<Seed>,
    out: Effects,
    counters: Counters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    /// Silent until the first incarnation is durable.
    Waiting,
    Running,
    /// Spreading its own departure.
    Leaving {
        until: Instant,
        next: Instant,
    },
    /// Silent.
    Gone,
}

/// The time during which this member ran. What it did not run does not count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Clock {
    /// The greatest time seen, on this clock.
    now: Instant,
    /// How far the world's clock is ahead of this one.
    lost: Duration,
}

/// A machine that cannot be made. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InvalidMembership {
    /// The configuration.
    Config(ConfigError),
    /// What the member says of itself.
    Profile(ProfileError),
}

impl fmt::Display for InvalidMembership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(error) => error.fmt(f),
            Self::Profile(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for InvalidMembership {}

impl Membership {
    /// A member that begins. `restored` is the greatest incarnation that it ever made durable; zero on an empty
    /// directory. It is silent until the incarnation that the first flush asks to persist is durable.
    ///
    /// # Errors
    /// The configuration or the profile cannot be used.
    pub fn new(
        config: Config,
        me: MemberId,
        profile: Profile,
        restored: Incarnation,
        mut rng: Rng,
        now: Instant,
    ) -> Result<Self, InvalidMembership> {
        config.check().map_err(InvalidMembership::Config)?;
        profile.check().map_err(InvalidMembership::Profile)?;
        let incarnation = restored.following(rng.next());
        let mut own = Entry::new(incarnation, Standing::Alive);
        own.profile = Some(Statement::new(incarnation, &profile));
        let mut table = Table::new(me);
        table.insert(me, own, &mut rng);
        // Where numbers begin is drawn, so that no answer to an earlier run fits a question of this one.
        let seq = rng.next() >> 33;
        let out = Effects { persist: alloc::vec![incarnation], ..Effects::default() };
        Ok(Self {
            config,
            me,
            incarnation,
            rng,
            phase: Phase::Waiting,
            clock: Clock { now, lost: Duration::ZERO },
            verdicts_from: now,
            pending: Some(incarnation),
            seq,
            health: 0,
            table,
            version: 1,
            news: News::default(),
            probe: None,
            next_probe: Instant::NEVER,
            next_sync: Instant::NEVER,
            next_grave: Instant::NEVER,
            asked: Questions::default(),
            relays: BTreeSet::new(),
            seeds: Vec::new(),
            out,
            counters: Counters::default(),
        })
    }

    /// An incarnation that a flush asked to persist is durable, and all below it.
    pub fn on_persisted(&mut self, now: Instant, incarnation: Incarnation) {
        let t = self.clock(now);
        if self.pending.is_none_or(|pending| pending > incarnation) {
            return;
        }
        let pending = self.pending.take().unwrap_or(incarnation);
        match self.phase {
            Phase::Waiting => {
                self.phase = Phase::Running;
                self.begin(t);
            }
            Phase::Running => self.speak_as(pending),
            Phase::Leaving { .. } | Phase::Gone => {}
        }
    }

    /// Members that start together do not probe together.
    fn begin(&mut self, t: Instant) {
        let after = |rng: &mut Rng, span| t + rng.duration(Duration::ZERO, span);
        self.next_probe = after(&mut self.rng, self.config.period);
        self.next_sync = after(&mut self.rng, self.config.sync_interval);
        self.next_grave = after(&mut self.rng, self.config.dead_probe_interval);
        self.ask_seeds(t);
    }

    /// Looks for the cluster at these addresses, besides those given before. Each is asked until it answers, and
    /// again whenever this member knows nobody. Addresses past [`SEEDS_MAX`] or to which nothing can be sent are left
    /// out. After a departure this member comes back.
    pub fn join(&mut self, now: Instant, addresses: &[SocketAddr]) {
        let t = self.clock(now);
        let life = self.incarnation().life();
        if self.phase == Phase::Gone && self.pending.is_some_and(|at| at.life() == life) {
            // It left before it had said a word.
            self.phase = Phase::Waiting;
        } else if self.phase == Phase::Gone {
            self.phase = Phase::Running;
            let incarnation = self.incarnation().next();
            self.set_own(|own| {
                own.incarnation = incarnation;
                own.standing = Standing::Alive;
                if let Some(said) = &mut own.profile {
                    said.at = incarnation;
                }
            });
            self.version += 1;
            self.begin(t);
        }
        self.add_seeds(t, addresses);
        self.ask_seeds(t);
    }

    /// Says something else of itself from now on.
    ///
    /// # Errors
    /// The profile cannot be used; nothing was changed.
    pub fn update_profile(&mut self, now: Instant, profile: Profile) -> Result<(), ProfileError> {
        self.clock(now);
        profile.check()?;
        let incarnation = self.incarnation().next();
        self.set_own(|own| {
            own.incarnation = incarnation;
            own.profile = Some(Statement::new(incarnation, &profile));
        });
        self.version += 1;
        Ok(())
    }

    /// Leaves: tells some members at once and more for a while, then [`Event::Departed`].
    pub fn leave(&mut self, now: Instant) {
        let t = self.clock(now);
        match self.phase {
            Phase::Waiting => {
                self.phase = Phase::Gone;
                self.out.events.push(Event::Departed);
            }
            Phase::Running => {
                self.set_own(|own| own.standing = Standing::Left);
                self.version += 1;
                self.probe = None;
                self.phase = Phase::Leaving { until: t + self.config.leave_timeout, next: t };
                self.drive_leave(t);
            }
            Phase::Leaving { .. } | Phase::Gone => {}
        }
    }

    /// A deadline is over.
    pub fn on_wakeup(&mut self, now: Instant) {
        let t = self.clock(now);
        match self.phase {
            Phase::Running => {
                self.drive_probe(t);
                self.drive_suspicions(t);
                self.drive_relays(t);
                self.drive_sync(t);
                self.ask_seeds(t);
            }
            Phase::Leaving { .. } => {
                self.drive_relays(t);
                self.drive_leave(t);
            }
            Phase::Waiting | Phase::Gone => {}
        }
    }

    /// The least time that a suspect has to refute, among as many members as there are now.
    pub(crate) fn least_patience(&self) -> Duration {
        suspicion::timeout(&self.config, self.table.present(), usize::MAX)
    }

    /// When [`on_wakeup`](Membership::on_wakeup) is due, on the world's clock. None: nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Instant> {
        self.due().map(|at| at + self.clock.lost)
    }

    /// Hands over what has come together.
    pub fn flush(&mut self, effects: &mut Effects) {
        effects.datagrams.append(&mut self.out.datagrams);
        effects.syncs.append(&mut self.out.syncs);
        effects.asks.append(&mut self.out.asks);
        effects.persist.append(&mut self.out.persist);
        effects.events.append(&mut self.out.events);
    }

    /// Its own id.
    #[must_use]
    pub fn me(&self) -> MemberId {
        self.me
    }

    /// Its own incarnation.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// The members present, this one and clients included, suspects too, sorted by id.
    pub fn present(&self) -> impl Iterator<Item = Member> {
        let present = self.table.iter().filter(|(_, entry)| entry.is_present());
        present.filter_map(|(id, entry)| entry.member(id))
    }

    /// How many they are.
    #[must_use]
    pub fn present_len(&self) -> usize {
        self.table.present()
    }

    /// One member; the dead and departed are known for a while.
    #[must_use]
    pub fn member(&self, id: MemberId) -> Option<Member> {
        self.table.get(id)?.member(id)
    }

    /// What is thought of one member; none if nothing is.
    #[must_use]
    pub fn state(&self, id: MemberId) -> Option<State> {
        self.table.get(id).map(Entry::state)
    }

    /// What is thought of one member, and of which of its incarnations; none if nothing is.
    #[must_use]
    pub fn thought(&self, id: MemberId) -> Option<(Incarnation, State)> {
        self.table.get(id).map(|entry| (entry.incarnation, entry.state()))
    }

    /// What one member said of itself last; none if that has not come here.
    #[must_use]
    pub fn profile(&self, id: MemberId) -> Option<Profile> {
        self.table.get(id)?.profile.as_ref().map(Statement::profile)
    }

    /// True when what a member said of itself has come here.
    #[must_use]
    pub fn has_profile(&self, id: MemberId) -> bool {
        self.table.get(id).is_some_and(|entry| entry.profile.is_some())
    }

    /// All members of whom anything is known, the dead and departed too, sorted by id.
    pub fn known(&self) -> impl Iterator<Item = (MemberId, Incarnation, State)> + '_ {
        self.table.iter().map(|(id, entry)| (id, entry.incarnation, entry.state()))
    }

    /// Rises with each change of the members present and of what they say of themselves.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// A hash over ids and weights of the members present, clients left out: what the ring depends on. Equal on two
    /// members that see the same ring.
    #[must_use]
    pub fn ring_hash(&self) -> u64 {
        self.table.ring_hash()
    }

    /// A hash over ids and incarnations of all members present. Equal views have equal digests.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.table.digest()
    }

    /// The local health multiplier (Lifeguard): 0 is healthy; n makes this member n + 1 times as patient.
    #[must_use]
    pub fn health(&self) -> u32 {
        self.health
    }

    /// What happened so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Asserts the invariants: the table's, and the bounds of everything that grows. Costs time in the number of members.
    pub fn check(&self) {
        self.table.check();
        self.news.check();
        let own = self.table.get(self.me).map(|own| own.incarnation);
        assert_eq!(own, Some(self.incarnation), "it speaks as it is known");
        let others = self.config.members_max.max(1) + self.config.dead_max;
        assert!(self.table.known() <= self.config.members_max.max(1), "members are bounded");
        assert!(self.table.gone() <= self.config.dead_max + 1, "tombstones are bounded");
        assert!(self.news.len() <= others + 1, "news is of known members");
        assert!(self.asked.len() <= send::ASKED_MAX, "questions are bounded");
        assert!(self.relays.len() <= self.asked.len(), "relays are questions");
        assert!(self.seeds.len() <= SEEDS_MAX, "seeds are bounded");
        assert!(self.health <= self.config.health_max, "health is bounded");
    }

    /// Now, on the clock of the time during which this member ran.
    ///
    /// A timer that is seen far too late means that this process was stopped, or starved: others went on
    /// meanwhile and what they sent waits to be read. So the time does not count, the running probe is given up, and
    /// there is no verdict on anyone for a period.
    fn clock(&mut self, now: Instant) -> Instant {
        let t = (now - self.clock.lost).max(self.clock.now);
        if let Some(due) = self.due()
            && t.since(due) > self.config.period / LATENESS_SHARE
        {
            let resume = due.max(self.clock.now);
            let lateness = t.since(resume);
            self.clock.lost += lateness;
            self.clock.now = resume;
            self.verdicts_from = resume + self.config.period;
            self.probe = None;
            self.worsen_health(1);
            self.out.events.push(Event::Stalled { lateness });
            return resume;
        }
        self.clock.now = t;
        t
    }

    fn due(&self) -> Option<Instant> {
        match self.phase {
            Phase::Waiting | Phase::Gone => None,
            Phase::Leaving { until, next } => {
                let relay = self.relays.first().map_or(Instant::NEVER, |(at, _)| *at);
                Some(until.min(next).min(relay))
            }
            Phase::Running => {
                let end = self.table.next_end().map(|(at, _)| at.max(self.verdicts_from));
                let tomb = self.table.next_tomb().map(|(at, _)| at);
                let relay = self.relays.first().map(|(at, _)| *at);
                let probe = self.probe.as_ref().map(Probe::due);
                let fixed = self.next_probe.min(self.next_sync).min(self.next_grave);
                [end, tomb, relay, probe, self.seeds_due()]
                    .into_iter()
                    .flatten()
                    .min()
                    .map_or(Some(fixed), |at| Some(at.min(fixed)))
            }
        }
    }

    fn drive_suspicions(&mut self, t: Instant) {
        while t >= self.verdicts_from
            && let Some((at, member)) = self.table.next_end()
            && at <= t
        {
            self.on_suspicion_timeout(t, member);
        }
        while let Some((at, member)) = self.table.next_tomb()
            && at <= t
        {
            self.forget(member);
        }
    }

    fn worsen_health(&mut self, by: u32) {
        self.health = self.health.saturating_add(by).min(self.config.health_max);
    }

    fn improve_health(&mut self) {
        self.health = self.health.saturating_sub(1);
    }

    /// A time of the configuration, stretched by local health (Lifeguard, "LHA-Probe").
    fn stretched(&self, time: Duration) -> Duration {
        time * (self.health + 1)
    }
}

/// A timer that is later than this part of a period was late because this process did not run.
const LATENESS_SHARE: u32 = 5;
