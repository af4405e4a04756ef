//! A few members on a network that loses, repeats and delays, with processes that stop: nobody healthy is buried,
//! and all agree in the end.

use alloc::collections::{BTreeMap, BTreeSet, BinaryHeap};
use core::cmp::Reverse;

use super::*;

/// A world for members 1 to n.
pub(super) struct Net {
    pub(super) now: Instant,
    nodes: BTreeMap<u64, Host>,
    queue: BinaryHeap<Reverse<(Instant, u64, Happening)>>,
    scheduled: u64,
    rng: Rng,
    /// Lost datagrams, in 1,000.
    pub(super) loss: u64,
    /// Datagrams that come twice, in 1,000.
    pub(super) repeats: u64,
    pub(super) delay: (Duration, Duration),
    /// Pairs that cannot talk are those of which exactly one is in here.
    pub(super) island: BTreeSet<u64>,
    pub(super) events: Vec<(Instant, u64, Event)>,
    incarnations: BTreeMap<u64, Incarnation>,
}

struct Host {
    machine: Membership,
    stopped: Option<Instant>,
    durable: Incarnation,
    wake: Option<Instant>,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Happening {
    Datagram { to: u64, from: u64, bytes: Vec<u8> },
    Sync { to: u64, from: u64, bytes: Vec<u8> },
    Wake { of: u64 },
}

impl Net {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now: Instant(1_000_000_000),
            nodes: BTreeMap::new(),
            queue: BinaryHeap::new(),
            scheduled: 0,
            rng: Rng::new(seed),
            loss: 0,
            repeats: 0,
            delay: (millis(1), millis(5)),
            island: BTreeSet::new(),
            events: Vec::new(),
            incarnations: BTreeMap::new(),
        }
    }

    /// Members 1 to n, all of which look for the first.
    pub(super) fn cluster(seed: u64, n: u64) -> Self {
        let mut net = Self::new(seed);
        for id in 1..=n {
            net.start(id, &[1]);
        }
        net
    }

    pub(super) fn start(&mut self, id: u64, seeds: &[u64]) {
        let durable = self.nodes.get(&id).map_or(Incarnation::default(), |host| host.durable);
        let config = Config::new(CLUSTER);
        let rng = Rng::new(self.rng.next());
        let mut machine =
            Membership::new(config, MemberId(id), profile(id), durable, rng, self.now).unwrap();
        let seeds: Vec<SocketAddr> = seeds.iter().map(|id| address(*id)).collect();
        machine.join(self.now, &seeds);
        self.nodes.insert(id, Host { machine, stopped: None, durable, wake: None });
        self.carry_out(id);
    }

    pub(super) fn kill(&mut self, id: u64) {
        self.on(id).stopped = Some(Instant::NEVER);
    }

    /// The process does not run for a while; what comes waits in its socket.
    pub(super) fn stop(&mut self, id: u64, time: Duration) {
        let until = self.now + time;
        self.on(id).stopped = Some(until);
    }

    fn on(&mut self, id: u64) -> &mut Host {
        self.nodes.get_mut(&id).expect("a member that was started")
    }

    pub(super) fn machine(&self, id: u64) -> &Membership {
        &self.nodes[&id].machine
    }

    pub(super) fn act(&mut self, id: u64, act: impl FnOnce(&mut Membership, Instant)) {
        let now = self.now;
        act(&mut self.on(id).machine, now);
        self.carry_out(id);
    }

    fn schedule(&mut self, at: Instant, happening: Happening) {
        self.scheduled += 1;
        self.queue.push(Reverse((at, self.scheduled, happening)));
    }

    fn carry_out(&mut self, id: u64) {
        let mut effects = Effects::default();
        loop {
            let now = self.now;
            let host = self.on(id);
            host.machine.check();
            host.machine.flush(&mut effects);
            let Some(durable) = effects.persist.pop() else { break };
            effects.persist.clear();
            host.durable = durable;
            host.machine.on_persisted(now, durable);
        }
        let incarnation = self.on(id).machine.incarnation();
        let before = self.incarnations.insert(id, incarnation).unwrap_or_default();
        assert!(incarnation >= before, "incarnations never fall");
        for (to, bytes) in effects.datagrams {
            let to = u64::from(to.port()) - 7000;
            assert!(bytes.len() <= 1400 - AUTHENTICATION_BYTES, "datagrams are bounded");
            let cut = self.island.contains(&id) != self.island.contains(&to);
            let copies = 1 + u64::from(self.rng.chance(self.repeats, 1000));
            for _ in 0..copies {
                if cut || self.rng.chance(self.loss, 1000) {
                    continue;
                }
                let at = self.now + self.rng.duration(self.delay.0, self.delay.1);
                let bytes = bytes.clone();
                self.schedule(at, Happening::Datagram { to, from: id, bytes });
            }
        }
        for (to, message) in effects.syncs {
            if self.island.contains(&id) == self.island.contains(&to.0) {
                let at = self.now + self.delay.1;
                let bytes = postcard::to_allocvec(&message).unwrap();
                self.schedule(at, Happening::Sync { to: to.0, from: id, bytes });
            }
        }
        let now = self.now;
        self.events.extend(effects.events.into_iter().map(|event| (now, id, event)));
        let deadline = self.on(id).machine.deadline();
        if self.on(id).wake != deadline {
            self.on(id).wake = deadline;
            if let Some(at) = deadline {
                self.schedule(at.max(now), Happening::Wake { of: id });
            }
        }
    }

    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(Reverse((at, ..))) = self.queue.peek()
            && *at <= end
        {
            let Some(Reverse((at, _, happening))) = self.queue.pop() else { break };
            self.now = at;
            self.happen(happening);
        }
        self.now = end;
    }

    fn happen(&mut self, happening: Happening) {
        let (Happening::Datagram { to: id, .. }
        | Happening::Sync { to: id, .. }
        | Happening::Wake { of: id }) = happening;
        let now = self.now;
        let Some(host) = self.nodes.get_mut(&id) else { return };
        if let Some(until) = host.stopped {
            if until > now {
                if until < Instant::NEVER {
                    self.schedule(until, happening);
                }
                return;
            }
            host.stopped = None;
        }
        match happening {
            Happening::Datagram { from, bytes, .. } => {
                host.machine.on_datagram(now, address(from), &bytes);
            }
            Happening::Sync { from, bytes, .. } => {
                let message = postcard::from_bytes(&bytes).unwrap();
                host.machine.on_sync(now, MemberId(from), message);
            }
            Happening::Wake { .. } => {
                if host.wake.is_none_or(|at| at > now) {
                    return;
                }
                host.wake = None;
                host.machine.on_wakeup(now);
            }
        }
        self.carry_out(id);
    }

    /// Who is a member, as one of them sees it.
    pub(super) fn view(&self, id: u64) -> Vec<u64> {
        self.machine(id).present().map(|member| member.id.0).collect()
    }

    /// Runs until these members, and only they, see each other; at most so long.
    pub(super) fn settle(&mut self, ids: &[u64], most: Duration) {
        let end = self.now + most;
        while !self.agree(ids) {
            assert!(self.now < end, "no agreement: {:?}", ids.iter().map(|id| self.view(*id)));
            self.run(millis(250));
        }
    }

    fn agree(&self, ids: &[u64]) -> bool {
        let all = ids.iter().all(|id| self.view(*id) == ids);
        let hashes: BTreeSet<u64> = ids.iter().map(|id| self.machine(*id).digest()).collect();
        all && hashes.len() == 1
    }

    pub(super) fn failures(&self) -> Vec<(u64, u64)> {
        let failed = self.events.iter().filter_map(|(_, at, event)| match event {
            Event::Failed(member) => Some((*at, member.id.0)),
            _ => None,
        });
        failed.collect()
    }
}

#[test]
fn members_that_know_one_seed_find_each_other() {
    let mut net = Net::cluster(1, 8);
    net.settle(&[1, 2, 3, 4, 5, 6, 7, 8], secs(10));
    let hashes: BTreeSet<u64> = (1..=8).map(|id| net.machine(id).ring_hash()).collect();
    assert_eq!(hashes.len(), 1, "the same ring everywhere");
}

#[test]
fn a_crashed_member_is_buried_by_all_and_a_restart_brings_it_back() {
    let mut net = Net::cluster(2, 5);
    net.settle(&[1, 2, 3, 4, 5], secs(10));
    net.kill(3);
    net.settle(&[1, 2, 4, 5], secs(60));
    assert_eq!(net.machine(1).state(MemberId(3)), Some(State::Dead));

    net.start(3, &[1]);
    net.settle(&[1, 2, 3, 4, 5], secs(10));
}

#[test]
fn loss_repeats_and_delays_bury_nobody() {
    for seed in 0..5 {
        let mut net = Net::cluster(seed, 9);
        (net.loss, net.repeats, net.delay) = (100, 100, (millis(1), millis(200)));
        net.settle(&[1, 2, 3, 4, 5, 6, 7, 8, 9], secs(60));
        net.run(secs(1800));
        assert_eq!(net.failures(), [], "seed {seed}");
    }
}

/// G6: it was stopped, not the others.
#[test]
fn a_member_that_was_stopped_accuses_nobody_when_it_wakes() {
    for seed in 0..20 {
        let mut net = Net::cluster(seed, 7);
        net.settle(&[1, 2, 3, 4, 5, 6, 7], secs(10));
        for round in 0..20 {
            net.stop(4, millis(700 + 900 * round));
            net.run(secs(40));
        }
        let accused = net.events.iter().filter(|(_, at, event)| {
            *at == 4 && matches!(event, Event::Suspected(_) | Event::Failed(_))
        });
        assert_eq!(accused.count(), 0, "seed {seed}");
        let failed: Vec<_> = net.failures().into_iter().filter(|(_, who)| *who != 4).collect();
        assert_eq!(failed, [], "seed {seed}");
        net.settle(&[1, 2, 3, 4, 5, 6, 7], secs(60));
    }
}

/// A split long enough for each side to bury the other heals by itself.
#[test]
fn a_long_split_heals() {
    for seed in 0..5 {
        let mut net = Net::cluster(seed, 8);
        net.settle(&[1, 2, 3, 4, 5, 6, 7, 8], secs(10));
        net.island = BTreeSet::from([1, 2, 3]);
        net.settle(&[1, 2, 3], secs(120));
        net.settle(&[4, 5, 6, 7, 8], secs(120));
        net.run(secs(600));

        net.island.clear();
        net.settle(&[1, 2, 3, 4, 5, 6, 7, 8], secs(60));
    }
}

#[test]
fn a_member_that_leaves_is_gone_at_once_and_is_not_called_dead() {
    let mut net = Net::cluster(3, 6);
    net.settle(&[1, 2, 3, 4, 5, 6], secs(10));
    net.act(2, Membership::leave);
    net.settle(&[1, 3, 4, 5, 6], secs(6));
    net.run(secs(10));
    assert_eq!(net.failures(), []);
    let said = net.events.iter().any(|(_, at, event)| *at == 2 && *event == Event::Departed);
    assert!(said, "it can stop");
    assert_eq!(net.machine(2).deadline(), None);

    net.act(2, |machine, now| machine.join(now, &[address(1)]));
    net.settle(&[1, 2, 3, 4, 5, 6], secs(10));
}

/// G2: many restarts at once, with loss; each new life outranks what is said of the old one.
#[test]
fn a_mass_restart_settles() {
    let mut net = Net::cluster(4, 9);
    net.settle(&[1, 2, 3, 4, 5, 6, 7, 8, 9], secs(10));
    net.loss = 100;
    for _ in 0..5 {
        for id in 2..=8 {
            net.kill(id);
        }
        net.run(secs(3));
        for id in 2..=8 {
            net.start(id, &[1, 9]);
        }
        net.run(secs(4));
    }
    net.settle(&[1, 2, 3, 4, 5, 6, 7, 8, 9], secs(60));
}

/// G9: the only seed is down at the start.
#[test]
fn a_seed_that_comes_up_later_is_found() {
    let mut net = Net::new(5);
    net.start(2, &[1]);
    net.run(secs(200));
    let tries = |net: &Net| {
        let tries = net.events.iter().filter(|(_, _, e)| matches!(e, Event::JoinFailed { .. }));
        tries.count()
    };
    assert!(tries(&net) > 5, "it says that nobody answers");
    net.start(1, &[]);
    net.settle(&[1, 2], secs(40));
}
