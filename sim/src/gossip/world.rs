//! The network and the processes.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use ring_core::ids::{ClusterId, MemberId, len_u64, len_usize};
use ring_core::membership::{
    AUTHENTICATION_BYTES, Config, Effects, Event, Incarnation, Membership, Profile, SyncMessage,
};
use ring_core::rng::Rng;
use ring_core::time::Instant;

/// A network of failure detectors. Members are numbered from 0; their ids from 1.
#[derive(Debug)]
pub struct World {
    /// Virtual time, the same for all members.
    pub now: Instant,
    /// Datagrams lost, in 1,000.
    pub loss: u64,
    /// Datagrams that come twice, in 1,000.
    pub repeats: u64,
    /// How long a datagram takes: from, to.
    pub delay: (Duration, Duration),
    /// Members from this one on cannot talk to those before it.
    pub split: Option<usize>,
    /// What members said since it was last emptied.
    pub events: Vec<(Instant, usize, Event)>,
    /// What no run may show.
    pub violations: Vec<String>,
    /// Datagrams, their bytes, and the bytes of comparisons since it was last set to zero.
    pub sent: Sent,
    config: Config,
    hosts: Vec<Host>,
    heap: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    scheduled: u64,
    rng: Rng,
    effects: Effects,
}

/// What was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes in datagrams, as the machine made them.
    pub bytes: u64,
    /// Bytes of comparisons, on streams.
    pub sync_bytes: u64,
}

#[derive(Debug)]
struct Host {
    id: MemberId,
    cluster: ClusterId,
    machine: Membership,
    run: Run,
    wake: Option<Instant>,
    durable: Incarnation,
    spoken: Incarnation,
    /// What waits in the socket of a stopped process.
    backlog: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Run {
    Up,
    Stopped { until: Instant },
    Dead,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Datagram {
        to: usize,
        from: usize,
        bytes: Vec<u8>,
    },
    /// Over a connection between two members that know each other's ids and cluster.
    Sync {
        to: MemberId,
        from: MemberId,
        bytes: Vec<u8>,
    },
    Wake(usize),
    Resume(usize),
}

/// Datagrams that a socket holds while nobody reads; the rest is lost.
const BACKLOG: usize = 256;
const PORT: u16 = 7000;

impl World {
    /// Nobody, yet.
    #[must_use]
    pub fn new(config: Config, seed: u64) -> Self {
        Self {
            now: Instant(1_000_000_000),
            loss: 0,
            repeats: 0,
            delay: (Duration::from_micros(500), Duration::from_millis(5)),
            split: None,
            events: Vec::new(),
            violations: Vec::new(),
            sent: Sent::default(),
            config,
            hosts: Vec::new(),
            heap: BinaryHeap::new(),
            scheduled: 0,
            rng: Rng::new(seed),
            effects: Effects::default(),
        }
    }

    /// How many members were ever started.
    #[must_use]
    pub fn len(&self) -> usize {
        self.hosts.len()
    }

    /// True before the first was started.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }

    /// The machine of one.
    #[must_use]
    pub fn machine(&self, place: usize) -> &Membership {
        &self.hosts[place].machine
    }

    /// True if its process runs.
    #[must_use]
    pub fn is_up(&self, place: usize) -> bool {
        self.hosts[place].run == Run::Up
    }

    /// Draws from the world's dice.
    pub fn draw(&mut self, bound: usize) -> usize {
        len_usize(self.rng.below(len_u64(bound)))
    }

    /// The id of the member that is, or was, at this place.
    #[must_use]
    pub fn id(&self, place: usize) -> MemberId {
        self.hosts[place].id
    }

    /// Its cluster.
    #[must_use]
    pub fn cluster(&self, place: usize) -> ClusterId {
        self.hosts[place].cluster
    }

    /// True if its process runs, or is stopped and will go on.
    #[must_use]
    pub fn is_alive(&self, place: usize) -> bool {
        self.hosts[place].run != Run::Dead
    }

    /// Starts a new member, or one that was killed, on its old disk.
    ///
    /// # Panics
    /// If the configuration cannot be used.
    pub fn start(&mut self, place: usize, seeds: &[usize]) {
        let (id, cluster) = match self.hosts.get(place) {
            Some(host) => (host.id, host.cluster),
            None => (id_of(place), self.config.cluster),
        };
        self.boot(place, id, cluster, seeds);
    }

    /// Starts another member, on an empty disk, at the address of one that was killed.
    ///
    /// # Panics
    /// If the configuration cannot be used.
    pub fn start_another(&mut self, place: usize, cluster: ClusterId, seeds: &[usize]) {
        let id = MemberId(self.hosts[place].id.0 + NEXT_OWNER);
        self.hosts[place].durable = Incarnation::default();
        self.hosts[place].spoken = Incarnation::default();
        self.boot(place, id, cluster, seeds);
    }

    fn boot(&mut self, place: usize, id: MemberId, cluster: ClusterId, seeds: &[usize]) {
        let durable = self.hosts.get(place).map_or(Incarnation::default(), |host| host.durable);
        let spoken = self.hosts.get(place).map_or(Incarnation::default(), |host| host.spoken);
        let profile = Profile {
            name: format!("member-{}", id.0 - FIRST_ID),
            datagram: address_of(place),
            stream: address_of(place),
            weight: 100,
            tags: vec![(String::from("zone"), String::from("a"))],
        };
        let rng = Rng::new(self.rng.next());
        let config = Config { cluster, ..self.config.clone() };
        let machine = Membership::new(config, id, profile, durable, rng, self.now);
        let mut machine = machine.expect("the world's configuration can be used");
        let seeds: Vec<SocketAddr> = seeds.iter().map(|seed| address_of(*seed)).collect();
        machine.join(self.now, &seeds);
        let backlog = Vec::new();
        let (run, wake) = (Run::Up, None);
        let host = Host { id, cluster, machine, run, wake, durable, spoken, backlog };
        if place == self.hosts.len() {
            self.hosts.push(host);
        } else {
            self.hosts[place] = host;
        }
        self.carry_out(place);
    }

    /// Ends a process.
    pub fn kill(&mut self, place: usize) {
        self.hosts[place].run = Run::Dead;
    }

    /// A process does not run for a while. What comes waits in its socket.
    pub fn stop(&mut self, place: usize, time: Duration) {
        if self.hosts[place].run == Run::Up {
            let until = self.now + time;
            self.hosts[place].run = Run::Stopped { until };
            self.schedule(until, Happening::Resume(place));
        }
    }

    /// A stopped process goes on before its time.
    pub fn wake_up(&mut self, place: usize) {
        if matches!(self.hosts[place].run, Run::Stopped { .. }) {
            self.resume(place);
        }
    }

    /// Goes on for a while.
    pub fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.heap.peek().is_some_and(|Reverse((at, ..))| *at <= end) {
            let Some(Reverse((at, _, happening))) = self.heap.pop() else { break };
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
    }

    /// Goes on until all that run see exactly each other, at most so long. How long it took, if it came to that.
    pub fn settle(&mut self, most: Duration) -> Option<Duration> {
        let begun = self.now;
        while !self.is_settled() {
            if self.now.since(begun) >= most {
                return None;
            }
            self.run(self.config.period / 4);
        }
        Some(self.now.since(begun))
    }

    fn is_settled(&self) -> bool {
        let up = || {
            let up = self.hosts.iter().filter(|host| host.run == Run::Up);
            up.filter(|host| host.cluster == self.config.cluster)
        };
        let digest = up().next().map(|host| host.machine.digest());
        let count = up().count();
        up().all(|host| {
            host.machine.present_len() == count && Some(host.machine.digest()) == digest
        })
    }

    /// Checks every invariant of every machine.
    pub fn check(&self) {
        self.hosts.iter().for_each(|host| host.machine.check());
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.scheduled += 1;
        self.heap.push(Reverse((at, self.scheduled, happening)));
    }

    fn happen(&mut self, happening: Happening) {
        let now = self.now;
        match happening {
            Happening::Datagram { to, from, bytes } => {
                let host = &mut self.hosts[to];
                match host.run {
                    Run::Up => host.machine.on_datagram(now, address_of(from), &bytes),
                    Run::Stopped { .. } if host.backlog.len() < BACKLOG => {
                        host.backlog.push((from, bytes));
                        return;
                    }
                    Run::Stopped { .. } | Run::Dead => return,
                }
                self.carry_out(to);
            }
            Happening::Sync { to, from, bytes } => self.compare(to, from, bytes),
            Happening::Wake(place) => self.wake(place),
            Happening::Resume(place) => {
                // It may have been woken, and stopped again.
                if self.hosts[place].run == (Run::Stopped { until: now }) {
                    self.resume(place);
                }
            }
        }
    }

    /// A message of a comparison comes, if its receiver is still the one that shook hands.
    fn compare(&mut self, to: MemberId, from: MemberId, bytes: Vec<u8>) {
        let (now, place) = (self.now, place_of(to));
        let Some(host) = self.hosts.get_mut(place).filter(|host| host.id == to) else { return };
        match host.run {
            Run::Up => {
                let message: SyncMessage =
                    postcard::from_bytes(&bytes).expect("what was encoded decodes");
                host.machine.on_sync(now, from, message);
                self.carry_out(place);
            }
            Run::Stopped { .. } => {
                let later = now + self.config.period;
                self.schedule(later, Happening::Sync { to, from, bytes });
            }
            Run::Dead => {}
        }
    }

    fn wake(&mut self, place: usize) {
        let (now, host) = (self.now, &mut self.hosts[place]);
        if host.wake == Some(now) {
            host.wake = None;
        }
        if host.run == Run::Up {
            if host.machine.deadline().is_some_and(|at| at <= now) {
                host.machine.on_wakeup(now);
            }
            self.carry_out(place);
        }
    }

    /// The timer may be seen before or after what waits in the socket.
    fn resume(&mut self, place: usize) {
        self.hosts[place].run = Run::Up;
        let timer_first = self.rng.chance(1, 2);
        if timer_first {
            self.wake(place);
        }
        let now = self.now;
        for (from, bytes) in std::mem::take(&mut self.hosts[place].backlog) {
            self.hosts[place].machine.on_datagram(now, address_of(from), &bytes);
            self.carry_out(place);
        }
        self.wake(place);
    }

    fn carry_out(&mut self, place: usize) {
        let mut effects = std::mem::take(&mut self.effects);
        let (now, host) = (self.now, &mut self.hosts[place]);
        host.machine.flush(&mut effects);
        while let Some(durable) = effects.persist.pop() {
            host.durable = durable;
            host.machine.on_persisted(now, durable);
            host.machine.flush(&mut effects);
        }
        let (id, incarnation) = (host.id, host.machine.incarnation());
        if incarnation < host.spoken {
            self.violations.push(format!("MEMBER: the incarnation of {id} fell"));
        }
        host.spoken = incarnation;
        if let Some(at) = host.machine.deadline()
            && host.wake.is_none_or(|wake| at < wake)
        {
            host.wake = Some(at.max(now));
            self.schedule(at.max(now), Happening::Wake(place));
        }
        for (to, bytes) in effects.datagrams.drain(..) {
            self.send(place, to, bytes);
        }
        for (to, message) in effects.syncs.drain(..) {
            let bytes = postcard::to_allocvec(&message).expect("a message always encodes");
            self.sent.sync_bytes += len_u64(bytes.len());
            let peer = self.hosts.get(place_of(to));
            let same = peer.is_some_and(|peer| peer.cluster == self.hosts[place].cluster);
            if same && self.can_talk(place, place_of(to)) {
                let at = now + self.delay.1;
                self.schedule(at, Happening::Sync { to, from: id, bytes });
            }
        }
        self.events.extend(effects.events.drain(..).map(|event| (now, place, event)));
        self.effects = effects;
    }

    fn send(&mut self, from: usize, to: SocketAddr, bytes: Vec<u8>) {
        assert!(bytes.len() + AUTHENTICATION_BYTES <= self.config.datagram_bytes, "too long");
        self.sent.datagrams += 1;
        self.sent.bytes += len_u64(bytes.len());
        let SocketAddr::V4(to) = to else { return };
        let to = len_usize(u64::from(to.ip().to_bits() & 0xff_ffff));
        if to >= self.hosts.len() || !self.can_talk(from, to) {
            return;
        }
        if self.rng.chance(self.repeats, 1000) {
            let at = self.now + self.rng.duration(self.delay.0, self.delay.1 * 100);
            self.schedule(at, Happening::Datagram { to, from, bytes: bytes.clone() });
        }
        if !self.rng.chance(self.loss, 1000) {
            let at = self.now + self.rng.duration(self.delay.0, self.delay.1);
            self.schedule(at, Happening::Datagram { to, from, bytes });
        }
    }

    fn can_talk(&self, one: usize, other: usize) -> bool {
        self.split.is_none_or(|first| (one < first) == (other < first))
    }
}

/// The default configuration of the simulated cluster.
#[must_use]
pub fn config() -> Config {
    Config::new(ClusterId(1))
}

/// The id of the first member at a place.
#[must_use]
pub fn id_of(place: usize) -> MemberId {
    MemberId(FIRST_ID + len_u64(place))
}

/// Ids are as long as drawn ones: what they take in a datagram counts.
const FIRST_ID: u64 = 0xA000_0000_0000_0001;

/// How far the ids of members that follow each other at one place are apart.
const NEXT_OWNER: u64 = 1_000_000;

fn place_of(id: MemberId) -> usize {
    len_usize((id.0 - FIRST_ID) % NEXT_OWNER)
}

fn address_of(place: usize) -> SocketAddr {
    let host = u32::try_from(place).expect("few members");
    SocketAddr::from((Ipv4Addr::from_bits((10 << 24) | host), PORT))
}
