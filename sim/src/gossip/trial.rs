//! The life of a small cluster, drawn from a seed, and its judges.
//!
//! A few members start in any order; then crashes, restarts, stalls, splits, and other members at the addresses of
//! dead ones, of this cluster and of another, follow each other, with loss and repeats. At the end everything is
//! healed, and then one member is buried, comes back, and dies before many have heard of it.
//!
//! | judge | what it says |
//! |---|---|
//! | MEMBER | no incarnation falls; nobody who runs and could be heard for long is buried |
//! | GHOST | who is dead, and known to be by all, is not added again |
//! | MERGE | nobody of another cluster becomes a member |
//! | LIVE | healed, all that run see exactly each other within a bounded time |
//! | TOMB | of a dead member all know the latest incarnation in the end |
//! | crash | the invariants of the machine, which it asserts itself |

use std::collections::BTreeMap;
use std::time::Duration;

use ring_core::ids::{ClusterId, MemberId};
use ring_core::membership::Event;
use ring_core::time::Instant;

use super::world::{World, config};
use crate::panics;

/// Runs the trial of a seed.
///
/// # Errors
/// What it showed that no run may show: a judge's word, or a panic after `crash: `.
pub fn trial(seed: u64) -> Result<(), String> {
    panics::catch(|| live(seed)).unwrap_or_else(|said| Err(format!("crash: {said}")))
}

fn live(seed: u64) -> Result<(), String> {
    let mut trial = Trial::new(seed);
    trial.begin()?;
    for _ in 0..3 + trial.world.draw(8) {
        trial.act()?;
    }
    trial.heal()?;
    trial.flap()?;
    trial.world.check();
    Ok(())
}

struct Trial {
    world: World,
    members: usize,
    /// Since when a member runs, and can be heard by all, without a break.
    sound: Vec<Instant>,
    /// Since when nobody thinks that this member is present, although it was.
    gone: BTreeMap<MemberId, Instant>,
    /// From when until when a process was stopped last.
    stopped: Vec<(Instant, Instant)>,
}

const PERIOD: Duration = Duration::from_secs(1);
/// A suspicion of a member that was not sound is over by then, and so is the news of it.
const SOUND: Duration = Duration::from_secs(60);
/// Nothing that was sent before is still on its way.
const COLD: Duration = Duration::from_secs(10);
/// Healed clusters agree within.
const SETTLED: Duration = Duration::from_secs(300);
const OTHER: ClusterId = ClusterId(2);

impl Trial {
    fn new(seed: u64) -> Self {
        let mut world = World::new(config(), seed);
        let members = 3 + world.draw(8);
        let now = world.now;
        Self {
            world,
            members,
            sound: vec![now; members],
            gone: BTreeMap::new(),
            stopped: vec![(now, now); members],
        }
    }

    /// In one of three runs the seeds come last.
    fn begin(&mut self) -> Result<(), String> {
        let seeds = [0, 1];
        for place in 0..self.members {
            self.world.start(place, &seeds);
        }
        if self.world.draw(3) == 0 {
            seeds.iter().for_each(|seed| self.world.kill(*seed));
            let time = self.drawn(40);
            self.run(time)?;
            seeds.iter().for_each(|seed| self.world.start(*seed, &[]));
        }
        self.disturbed();
        self.agree("the new-born")?;
        self.world.loss = [0, 20, 50, 100][self.world.draw(4)];
        self.world.repeats = [0, 50][self.world.draw(2)];
        Ok(())
    }

    /// One thing goes wrong, and some time passes.
    fn act(&mut self) -> Result<(), String> {
        let place = self.world.draw(self.members);
        let seeds: Vec<usize> = (0..self.members).collect();
        let up = self.world.is_alive(place);
        match self.world.draw(10) {
            0 | 1 if up => self.world.kill(place),
            0..=2 if !up => self.world.start(place, &seeds),
            3 if !up => self.world.start_another(place, config().cluster, &seeds),
            4 if !up => self.world.start_another(place, OTHER, &seeds),
            5 | 6 => self.stall(place, 4),
            7 => self.stall(place, 100),
            8 => {
                self.world.split = Some(1 + self.world.draw(self.members - 1));
                self.disturbed();
            }
            _ => {
                self.world.split = None;
                self.disturbed();
            }
        }
        self.sound[place] = self.world.now;
        let longest = [2, 20, 120][self.world.draw(3)];
        let time = self.drawn(longest);
        self.run(time)
    }

    fn stall(&mut self, place: usize, periods: u32) {
        let time = self.drawn(periods);
        if self.world.is_up(place) {
            self.stopped[place] = (self.world.now, self.world.now + time);
            self.world.stop(place, time);
        }
    }

    /// Whatever is wrong with some is felt by all.
    fn disturbed(&mut self) {
        self.sound.fill(self.world.now);
    }

    fn drawn(&mut self, periods: u32) -> Duration {
        PERIOD * periods * u32::try_from(self.world.draw(1000)).unwrap_or(0) / 1000
    }

    /// Everything works, and all that run find each other.
    fn heal(&mut self) -> Result<(), String> {
        (self.world.split, self.world.loss) = (None, 0);
        for place in 0..self.members {
            self.world.wake_up(place);
            if self.world.is_alive(place) && self.world.cluster(place) == OTHER {
                self.world.kill(place);
            }
        }
        let ours = |place: &usize| self.world.cluster(*place) == config().cluster;
        let mut ours: Vec<usize> = (0..self.members).filter(ours).collect();
        ours.retain(|place| !self.world.is_alive(*place));
        let seeds: Vec<usize> = (0..self.members).collect();
        for place in ours {
            self.world.start(place, &seeds);
        }
        self.disturbed();
        self.agree("the healed")
    }

    /// One is buried while it is stopped, comes back, and dies when some have heard that it lives.
    fn flap(&mut self) -> Result<(), String> {
        let victim = self.world.draw(self.members);
        if !self.world.is_up(victim) {
            return Ok(());
        }
        let id = self.world.id(victim);
        self.world.stop(victim, SETTLED * 2);
        self.sound[victim] = self.world.now;
        let begun = self.world.now;
        while self.others(victim).any(|place| self.thinks_present(place, id)) {
            if self.world.now.since(begun) > SETTLED {
                return Err(format!("LIVE: {id} is silent, and not buried by all"));
            }
            self.run(PERIOD)?;
        }
        self.run(COLD * 2)?;
        self.world.wake_up(victim);
        let time = PERIOD * u32::try_from(self.world.draw(2000)).unwrap_or(0) / 1000;
        self.run(time)?;
        self.world.kill(victim);
        self.sound[victim] = self.world.now;
        self.agree("the bereaved")?;
        self.run(PERIOD * 60)?;
        let known = |place| self.world.machine(place).member(id).map(|member| member.incarnation);
        let mut known: Vec<_> = self.others(victim).map(known).collect();
        known.dedup();
        match known.len() {
            0 | 1 => Ok(()),
            _ => Err(format!("TOMB: {id} is dead, but as what is not agreed upon")),
        }
    }

    /// The members of this cluster that run, but for one.
    fn others(&self, but: usize) -> impl Iterator<Item = usize> {
        (0..self.members).filter(move |&place| {
            let ours = self.world.cluster(place) == config().cluster;
            place != but && ours && self.world.is_alive(place)
        })
    }

    fn thinks_present(&self, place: usize, id: MemberId) -> bool {
        let state = self.world.machine(place).state(id);
        state.is_some_and(|state| state.is_present())
    }

    fn agree(&mut self, who: &str) -> Result<(), String> {
        let end = self.world.now + SETTLED;
        while self.world.settle(Duration::ZERO).is_none() {
            if self.world.now >= end {
                return Err(format!("LIVE: {who} never agreed"));
            }
            self.run(PERIOD / 4)?;
        }
        Ok(())
    }

    /// Time passes, and is judged.
    fn run(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now + time;
        while self.world.now < end {
            let step = end.since(self.world.now).min(PERIOD);
            self.world.run(step);
            self.judge()?;
        }
        Ok(())
    }

    fn judge(&mut self) -> Result<(), String> {
        if let Some(violation) = self.world.violations.pop() {
            return Err(violation);
        }
        if self.world.split.is_some() {
            self.disturbed();
        }
        for place in 0..self.members {
            // A process that was stopped is not sound before it has read what waits for it.
            if self.stopped[place].1 >= self.world.now
                || self.world.is_alive(place) != self.world.is_up(place)
            {
                self.sound[place] = self.world.now;
            }
        }
        for (at, who, event) in std::mem::take(&mut self.world.events) {
            match event {
                Event::Failed(member) => self.judge_failure(at, who, member.id)?,
                Event::Joined(member) => self.judge_arrival(at, who, member.id)?,
                Event::Suspected(_)
                | Event::Recovered(_)
                | Event::Left(_)
                | Event::Updated { .. }
                | Event::Refuted { .. }
                | Event::JoinFailed { .. }
                | Event::Departed
                | Event::Twin { .. }
                | Event::Stalled { .. } => {}
            }
        }
        self.bury();
        Ok(())
    }

    /// Whoever runs has been heard. A process that was stopped may read late what was true when it was sent.
    fn judge_failure(&self, at: Instant, who: usize, id: MemberId) -> Result<(), String> {
        let owner = (0..self.members).find(|place| self.world.id(*place) == id);
        let Some(place) = owner.filter(|place| self.world.is_up(*place)) else { return Ok(()) };
        let (from, until) = self.stopped[who];
        let sent = if at.since(until) > SOUND { at } else { at.min(from) };
        if sent.since(self.sound[place]) > SOUND {
            let teller = self.world.id(who);
            return Err(format!("MEMBER: {teller} buries {id}, which runs and can be heard"));
        }
        Ok(())
    }

    fn judge_arrival(&self, at: Instant, who: usize, id: MemberId) -> Result<(), String> {
        let teller = self.world.id(who);
        let owner = (0..self.members).find(|place| self.world.id(*place) == id);
        if owner.is_some_and(|place| self.world.cluster(place) != self.world.cluster(who)) {
            return Err(format!("MERGE: {teller} takes {id} of another cluster for a member"));
        }
        let runs = owner.is_some_and(|place| self.world.is_alive(place));
        if !runs && self.gone.get(&id).is_some_and(|since| at.since(*since) > COLD) {
            return Err(format!("GHOST: {teller} adds {id} again, which all know to be dead"));
        }
        Ok(())
    }

    /// Notes who is gone for all. A stopped process has what it knows, too.
    fn bury(&mut self) {
        let now = self.world.now;
        for place in 0..self.members {
            let id = self.world.id(place);
            let mut alive = (0..self.members).filter(|other| self.world.is_alive(*other));
            let present = alive.any(|other| other != place && self.thinks_present(other, id));
            if present || self.world.is_alive(place) || !self.is_calm() {
                self.gone.remove(&id);
            } else {
                self.gone.entry(id).or_insert(now);
            }
        }
    }

    /// Nobody is stopped or cut off, with something unread or unsaid.
    fn is_calm(&self) -> bool {
        let running = |place| self.world.is_alive(place) == self.world.is_up(place);
        self.world.split.is_none() && (0..self.members).all(running)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drawn_lives_show_nothing_that_they_may_not() {
        for seed in 0..20 {
            assert_eq!(trial(seed), Ok(()), "seed {seed}");
        }
    }
}
