//! The life of one cluster, and what it shows.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::time::Duration;

use ring_core::ids::{MemberId, len_u64, len_usize};
use ring_core::membership::{AUTHENTICATION_BYTES, Config, Event};
use ring_core::time::Instant;

use super::world::{Sent, World, config, id_of};

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many members.
    pub members: usize,
    /// The seed of everything.
    pub seed: u64,
    /// Datagrams lost, in 1,000, in all phases but birth and quiet.
    pub loss: u64,
    /// Crashes to measure.
    pub crashes: usize,
    /// Virtual time of the long phase, in which a process stalls again and again.
    pub long: Duration,
    /// The longest stall of that process. It may be buried if it is longer than a suspicion.
    pub stall: Duration,
    /// Periods of quiet before traffic is measured; with as many as there are members each has met every other.
    pub warm: usize,
    /// Whether half of the members are cut off for a while at the end.
    pub split: bool,
    /// The machines' configuration.
    pub config: Config,
}

impl Options {
    /// The default run of so many members.
    #[must_use]
    pub fn new(members: usize, seed: u64) -> Self {
        Self {
            members,
            seed,
            loss: 50,
            crashes: 100,
            long: Duration::from_secs(3600),
            stall: Duration::from_secs(4),
            warm: members,
            split: true,
            config: config(),
        }
    }
}

/// What a run showed. Times in periods.
#[derive(Clone, Debug)]
pub struct Report {
    /// How many members.
    pub members: usize,
    /// From the start of all until all saw all.
    pub birth: Option<f64>,
    /// In a quiet cluster.
    pub quiet: Traffic,
    /// With loss, and a process that stalls.
    pub busy: Traffic,
    /// Each crash.
    pub crashes: Vec<Crash>,
    /// Member-hours of the long phase.
    pub member_hours: f64,
    /// Suspicions of members that ran, in the long phase.
    pub suspicions: usize,
    /// Members that were healthy and were buried by somebody, in the long phase.
    pub false_deaths: usize,
    /// Times that the stalling process was buried by somebody.
    pub stalled_deaths: usize,
    /// Longest that a half was cut off, and from its return until all saw all.
    pub heal: Option<(f64, Option<f64>)>,
    /// Processor time of the whole simulation for one period of one member, in the quiet phase; zero where the
    /// system does not tell.
    pub processor: Duration,
}

/// What members sent, for each member and period.
#[derive(Clone, Copy, Debug, Default)]
pub struct Traffic {
    /// Datagrams.
    pub datagrams: f64,
    /// Bytes of datagrams without authentication, with UDP and IPv4 headers.
    pub plain: f64,
    /// The same as it is sent with keys: sealed.
    pub sealed: f64,
    /// Bytes of comparisons.
    pub sync: f64,
}

/// One crash.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// From the crash to the first suspicion.
    pub suspected: f64,
    /// From the crash to the first burial.
    pub buried: f64,
    /// From the first burial to the last.
    pub known: f64,
}

/// UDP over IPv4.
const HEADERS: u64 = 28;

/// Runs a cluster through its life.
///
/// # Panics
/// If something happens that no run may show.
#[must_use]
pub fn measure(options: &Options) -> Report {
    let mut world = World::new(options.config.clone(), options.seed);
    let period = options.config.period;
    let mut runner = Runner { options, world: &mut world, period };
    let birth = runner.birth();
    let (quiet, processor) = runner.quiet();
    runner.world.loss = options.loss;
    let crashes = (0..options.crashes).filter_map(|_| runner.crash()).collect();
    let long = runner.long();
    let heal = options.split.then(|| runner.split());
    world.check();
    assert!(world.violations.is_empty(), "{:?}", world.violations);
    Report {
        members: options.members,
        birth,
        quiet,
        busy: long.traffic,
        crashes,
        member_hours: long.member_hours,
        suspicions: long.suspicions,
        false_deaths: long.false_deaths,
        stalled_deaths: long.stalled_deaths,
        heal,
        processor,
    }
}

struct Runner<'a> {
    options: &'a Options,
    world: &'a mut World,
    period: Duration,
}

struct Long {
    traffic: Traffic,
    member_hours: f64,
    suspicions: usize,
    false_deaths: usize,
    stalled_deaths: usize,
}

impl Runner<'_> {
    fn periods(&self, time: Duration) -> f64 {
        time.as_secs_f64() / self.period.as_secs_f64()
    }

    /// All start within a period and know three of them.
    fn birth(&mut self) -> Option<f64> {
        let share = self.period / u32::try_from(self.options.members).unwrap_or(u32::MAX);
        for place in 0..self.options.members {
            self.world.start(place, &[0, 1, 2]);
            self.world.run(share);
        }
        let took = self.world.settle(self.period * 600);
        took.map(|took| self.periods(took + self.period))
    }

    fn quiet(&mut self) -> (Traffic, Duration) {
        let warm = u32::try_from(self.options.warm).unwrap_or(u32::MAX);
        self.world.run(self.period * warm);
        self.world.sent = Sent::default();
        self.world.events.clear();
        let begun = processor();
        self.world.run(self.period * QUIET_PERIODS);
        let spent = processor().saturating_sub(begun);
        let traffic = self.traffic(u64::from(QUIET_PERIODS));
        let member_periods =
            u32::try_from(self.options.members).unwrap_or(u32::MAX) * QUIET_PERIODS;
        assert!(self.world.events.is_empty(), "nothing happens in a quiet cluster");
        (traffic, spent / member_periods)
    }

    fn traffic(&self, periods: u64) -> Traffic {
        let sent = self.world.sent;
        let share = |total: u64| float(total) / float(len_u64(self.options.members) * periods);
        let plain = sent.bytes + sent.datagrams * HEADERS;
        let seal = len_u64(AUTHENTICATION_BYTES);
        Traffic {
            datagrams: share(sent.datagrams),
            plain: share(plain),
            sealed: share(plain + sent.datagrams * seal),
            sync: share(sent.sync_bytes),
        }
    }

    /// Kills one, waits until all have buried it, and starts it again.
    fn crash(&mut self) -> Option<Crash> {
        let victim = self.world.draw(self.options.members);
        let share = u32::try_from(self.world.draw(1000)).unwrap_or(0);
        self.world.run(self.period * share / 1000);
        self.world.events.clear();
        self.world.kill(victim);
        let (crashed, id) = (self.world.now, id_of(victim));
        let mut buried = BTreeSet::new();
        let (mut suspected, mut first, mut last) = (None, None, crashed);
        while buried.len() + 1 < self.options.members {
            if self.world.now.since(crashed) > self.period * 1000 {
                return None;
            }
            self.world.run(self.period);
            for (at, who, event) in self.world.events.drain(..) {
                if matches!(&event, Event::Suspected(member) if member.id == id) {
                    suspected.get_or_insert(at);
                }
                if matches!(&event, Event::Failed(member) if member.id == id) {
                    first.get_or_insert(at);
                    last = last.max(at);
                    buried.insert(who);
                }
            }
        }
        let (suspected, first): (Instant, Instant) = (suspected?, first?);
        let seeds = [self.world.draw(self.options.members), self.world.draw(self.options.members)];
        self.world.start(victim, &seeds);
        self.world.run(self.period * 60);
        Some(Crash {
            suspected: self.periods(suspected.since(crashed)),
            buried: self.periods(first.since(crashed)),
            known: self.periods(last.since(first)),
        })
    }

    /// A long time with loss, in which one process stops again and again.
    fn long(&mut self) -> Long {
        self.world.sent = Sent::default();
        let begun = self.world.now;
        let stalling = self.world.draw(self.options.members);
        let mut long = Long {
            traffic: Traffic::default(),
            member_hours: 0.0,
            suspicions: 0,
            false_deaths: 0,
            stalled_deaths: 0,
        };
        let mut accused: BTreeSet<MemberId> = BTreeSet::new();
        self.world.events.clear();
        while self.world.now.since(begun) < self.options.long {
            let share = u32::try_from(self.world.draw(1000)).unwrap_or(0);
            self.world.stop(stalling, self.options.stall * share / 1000);
            self.world.run(self.period * 5);
            for (_, who, event) in self.world.events.drain(..) {
                match event {
                    Event::Suspected(member) => {
                        long.suspicions += usize::from(accused.insert(member.id));
                    }
                    Event::Refuted { .. } => {
                        accused.remove(&id_of(who));
                    }
                    Event::Failed(member) if member.id == id_of(stalling) => {
                        long.stalled_deaths += 1;
                    }
                    Event::Failed(_) => long.false_deaths += 1,
                    Event::Joined(_)
                    | Event::Recovered(_)
                    | Event::Left(_)
                    | Event::Updated { .. }
                    | Event::JoinFailed { .. }
                    | Event::Departed
                    | Event::Twin { .. }
                    | Event::Stalled { .. } => {}
                }
            }
        }
        let time = self.world.now.since(begun);
        long.member_hours = time.as_secs_f64() / 3600.0 * float(len_u64(self.options.members));
        let periods = time.as_nanos() / self.period.as_nanos();
        long.traffic = self.traffic(u64::try_from(periods).unwrap_or(u64::MAX));
        long
    }

    /// Cuts a half off until each has buried the other, and for as long again; then lets them meet.
    fn split(&mut self) -> (f64, Option<f64>) {
        let begun = self.world.now;
        let half = self.options.members / 2;
        self.world.split = Some(half);
        let most = self.period * 600;
        while self.world.now.since(begun) < most && !self.is_parted(half) {
            self.world.run(self.period);
        }
        let parted = self.world.now.since(begun);
        self.world.run(parted);
        self.world.split = None;
        let healed = self.world.settle(most);
        (self.periods(parted * 2), healed.map(|time| self.periods(time)))
    }

    fn is_parted(&self, half: usize) -> bool {
        (0..self.options.members).all(|place| {
            let side = if place < half { half } else { self.options.members - half };
            self.world.machine(place).present_len() <= side
        })
    }
}

const QUIET_PERIODS: u32 = 100;

impl Report {
    /// What misses the aims; nothing in a good run.
    #[must_use]
    pub fn misses(&self) -> Vec<String> {
        let mut misses = Vec::new();
        let mut aim = |holds: bool, what: String| {
            if !holds {
                misses.push(what);
            }
        };
        aim(self.birth.is_some(), String::from("the new-born never agreed"));
        let quiet = self.quiet.sealed + self.quiet.sync;
        aim(quiet <= 150.0, format!("quiet: {quiet:.0} sealed bytes a member a period, aim 150"));
        let suspected = mean(self.crashes.iter().map(|crash| crash.suspected));
        aim(suspected <= 2.0, format!("suspected after {suspected:.2} periods, aim 2 in the mean"));
        let known = self.crashes.iter().map(|crash| crash.known).fold(0.0, f64::max);
        let bound = self.known_aim();
        aim(known <= bound, format!("known to all after {known:.1} periods, aim {bound:.1}"));
        aim(self.false_deaths == 0, format!("{} false deaths, aim 0", self.false_deaths));
        let healed = self.heal.is_none_or(|(_, healed)| healed.is_some());
        aim(healed, String::from("the halves never agreed again"));
        misses
    }

    /// 3 * log2(n) periods.
    fn known_aim(&self) -> f64 {
        3.0 * float(len_u64(self.members)).log2()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "members              {}", self.members)?;
        writeln!(f, "birth                {} periods", maybe(self.birth))?;
        writeln!(f, "quiet traffic        {}", self.quiet)?;
        writeln!(f, "traffic under faults {}", self.busy)?;
        let column = |pick: fn(&Crash) -> f64| spread(self.crashes.iter().map(pick));
        writeln!(f, "crashes              {}", self.crashes.len())?;
        writeln!(f, "  first suspicion    {} periods", column(|crash| crash.suspected))?;
        writeln!(f, "  first burial       {} periods", column(|crash| crash.buried))?;
        let aim = self.known_aim();
        writeln!(f, "  then known to all  {} periods, aim {aim:.1}", column(|crash| crash.known))?;
        let (hours, suspicions) = (self.member_hours, self.suspicions);
        writeln!(f, "long phase           {hours:.0} member-hours, {suspicions} suspicions")?;
        writeln!(f, "  false deaths       {}", self.false_deaths)?;
        writeln!(f, "  of the stalling    {}", self.stalled_deaths)?;
        if let Some((cut, healed)) = self.heal {
            writeln!(f, "split of {cut:.0} periods  healed in {} periods", maybe(healed))?;
        }
        write!(f, "processor            {:?} a member a period, quiet", self.processor)
    }
}

impl fmt::Display for Traffic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { datagrams, plain, sealed, sync } = self;
        write!(
            f,
            "{datagrams:.2} datagrams, {plain:.1} bytes with headers ({sealed:.1} sealed), {sync:.1} on \
             streams, a member a period"
        )
    }
}

/// Processor time of this process so far.
fn processor() -> Duration {
    let text = fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    let nanos = text.split_whitespace().next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

fn maybe(periods: Option<f64>) -> String {
    periods.map_or(String::from("never"), |periods| format!("{periods:.1}"))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let values: Vec<f64> = values.collect();
    values.iter().sum::<f64>() / float(len_u64(values.len().max(1)))
}

fn spread(values: impl Iterator<Item = f64>) -> String {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |share: u64| {
        let last = len_u64(values.len().saturating_sub(1));
        values.get(len_usize((last * share).div_ceil(100))).copied().unwrap_or(f64::NAN)
    };
    let mean = mean(values.iter().copied());
    format!("mean {mean:.2}, median {:.2}, p99 {:.2}, most {:.2}", at(50), at(99), at(100))
}

fn float(number: u64) -> f64 {
    let low = u32::try_from(number & 0xffff_ffff).expect("32 bits");
    let high = u32::try_from(number >> 32).expect("32 bits");
    f64::from(high) * 4_294_967_296.0 + f64::from(low)
}
