//! `bench membership`: what it costs to know who is alive, beside the crate `foca`.
//!
//! All members in one thread, in virtual time: each machine gets the datagrams and timers that are due, one after
//! another, and what it sends takes 0.5 to 5 ms. Members are told of all others at the start, then run as many
//! periods as there are members, so that what was new is told and each has met each. Then a number of periods is
//! timed: quiet, and with 5 % of the datagrams lost. Rounds take turns. Both have a period of a second; foca is
//! configured as its manual proposes for a local network of that size (`Config::new_lan`) and sends an address and
//! a generation of each member; ours has its defaults, and a name of some bytes.
//!
//! Processor time is that of the process: of the machines, and of the loop that carries datagrams, which is the same
//! for both. Bytes are those of the datagrams with 28 bytes for the headers of UDP and IPv4, and without authentication,
//! which foca leaves to others; and for ours those of comparisons, which are on connections.
//!
//! What it does not show: sockets. A thousand members in one process share its caches, so a machine finds nothing
//! of its own there; a small machine gains by that.

#[cfg(feature = "peers")]
mod peer;

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use ring_core::ids::{ClusterId, MemberId};
use ring_core::membership::{
    Config, Effects, Incarnation, Membership, Profile, SyncMessage, Update,
};
use ring_core::rng::Rng;
use ring_core::time::Instant;
use rustix::time::{ClockId, Timespec, clock_gettime};
use serde_json::{Value, json};

use crate::report::{Columns, Section, float, median, show};

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) members: Vec<usize>,
    pub(crate) rounds: usize,
    /// Members times periods of one measurement.
    pub(crate) member_periods: usize,
}

/// A failure detector.
trait Machine: Sized {
    const NAME: &str;
    /// What it is woken with.
    type Timer;

    /// The machine of one of so many members. It knows all of them.
    fn new(place: usize, members: usize, now: Instant, out: &mut Outbox<Self::Timer>) -> Self;
    fn on_datagram(
        &mut self,
        now: Instant,
        from: usize,
        bytes: &[u8],
        out: &mut Outbox<Self::Timer>,
    );
    /// Bytes of a comparison, over a connection.
    fn on_stream(&mut self, now: Instant, from: usize, bytes: &[u8], out: &mut Outbox<Self::Timer>);
    fn on_timer(&mut self, now: Instant, timer: Self::Timer, out: &mut Outbox<Self::Timer>);
    /// Members that it holds for alive, itself included.
    fn present(&self) -> usize;
}

/// What a machine wants to have done.
struct Outbox<T> {
    datagrams: Vec<(usize, Vec<u8>)>,
    streams: Vec<(usize, Vec<u8>)>,
    timers: Vec<(Instant, T)>,
}

struct Happening<T> {
    at: Instant,
    number: u64,
    to: usize,
    what: What<T>,
}

enum What<T> {
    Datagram { from: usize, bytes: Vec<u8> },
    Stream { from: usize, bytes: Vec<u8> },
    Timer(T),
}

/// All members, and the datagrams between them.
struct Cluster<M: Machine> {
    machines: Vec<M>,
    heap: BinaryHeap<Reverse<Happening<M::Timer>>>,
    out: Outbox<M::Timer>,
    number: u64,
    now: Instant,
    /// Datagrams lost, in 1,000.
    loss: u64,
    rng: Rng,
    sent: Sent,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sent {
    datagrams: u64,
    bytes: u64,
    stream_bytes: u64,
}

/// What one measurement gave, for each member and period.
#[derive(Clone, Copy, Debug)]
struct Figures {
    nanos: f64,
    datagrams: f64,
    bytes: f64,
    stream_bytes: f64,
}

/// What was measured, round by round.
#[derive(Debug, Default)]
struct Turns {
    ours: Vec<Figures>,
    peer: Vec<Figures>,
}

/// Measures, in turns.
pub(crate) fn run(plan: &Plan) -> Section {
    let header =
        ["members", "lost", "", "CPU µs", "datagrams", "bytes", "on streams", "CPU / foca"];
    let mut table = Columns::new(&header);
    let mut figures = Vec::new();
    for &members in &plan.members {
        let mut ours = Cluster::<Ours>::warm(members);
        #[cfg(feature = "peers")]
        let mut peer = Cluster::<peer::Peer>::warm(members);
        for loss in [0, 50] {
            let mut turns = Turns::default();
            for _ in 0..plan.rounds {
                turns.ours.push(ours.measure(plan, loss));
                #[cfg(feature = "peers")]
                turns.peer.push(peer.measure(plan, loss));
            }
            let pairs = turns.ours.iter().zip(&turns.peer);
            let ratio = median(pairs.map(|(ours, peer)| ours.nanos / peer.nanos));
            table.rows.push(row::<Ours>(members, loss, &turns.ours, ratio));
            #[cfg(feature = "peers")]
            table.rows.push(row::<peer::Peer>(members, loss, &turns.peer, f64::NAN));
            figures.push(json!({
                "members": members, "lost_per_1000": loss,
                "ours": objects(&turns.ours), "foca": objects(&turns.peer),
            }));
        }
    }
    Section {
        name: String::from("membership"),
        title: String::from("what it costs to know who is alive, a member a period"),
        about: vec![format!(
            "All members in one thread and in virtual time, the loop included; medians of {} rounds of \
             {} member-periods each.",
            plan.rounds, plan.member_periods
        )],
        tables: vec![table],
        notes: Vec::new(),
        figures: figures.into(),
    }
}

fn row<M: Machine>(members: usize, loss: u64, figures: &[Figures], ratio: f64) -> Vec<String> {
    let middle = |pick: fn(&Figures) -> f64| show(median(figures.iter().map(pick)));
    vec![
        members.to_string(),
        format!("{} %", loss / 10),
        String::from(M::NAME),
        middle(|figures| figures.nanos / 1e3),
        middle(|figures| figures.datagrams),
        middle(|figures| figures.bytes),
        middle(|figures| figures.stream_bytes),
        show(ratio),
    ]
}

fn objects(figures: &[Figures]) -> Vec<Value> {
    let object = |figures: &Figures| {
        let Figures { nanos, datagrams, bytes, stream_bytes } = figures;
        json!({
            "nanos": nanos, "datagrams": datagrams, "bytes": bytes, "stream_bytes": stream_bytes,
        })
    };
    figures.iter().map(object).collect()
}

impl<M: Machine> Cluster<M> {
    /// Members that have met.
    fn warm(members: usize) -> Self {
        let mut cluster = Self {
            machines: Vec::with_capacity(members),
            heap: BinaryHeap::new(),
            out: Outbox { datagrams: Vec::new(), streams: Vec::new(), timers: Vec::new() },
            number: 0,
            now: Instant(1_000_000_000),
            loss: 0,
            rng: Rng::new(1),
            sent: Sent::default(),
        };
        let count = u32::try_from(members).expect("few members");
        for place in 0..members {
            // They do not probe all at once.
            let started = cluster.now + PERIOD / count * u32::try_from(place).expect("few members");
            let machine = M::new(place, members, started, &mut cluster.out);
            cluster.machines.push(machine);
            cluster.carry_out(place);
        }
        cluster.run(PERIOD * (count + 1));
        let all = cluster.machines.iter().all(|machine| machine.present() == members);
        assert!(all, "{}: a quiet cluster agrees", M::NAME);
        cluster
    }

    fn measure(&mut self, plan: &Plan, loss: u64) -> Figures {
        let members = self.machines.len();
        let periods = u32::try_from((plan.member_periods / members).max(1)).expect("few periods");
        self.loss = loss;
        // What was new before is told first.
        self.run(PERIOD * 10);
        self.sent = Sent::default();
        let began = clock_gettime(ClockId::ProcessCPUTime);
        self.run(PERIOD * periods);
        let nanos = nanos_since(began);
        let count = f64::from(periods) * float(u64::try_from(members).expect("few members"));
        let Sent { datagrams, bytes, stream_bytes } = self.sent;
        Figures {
            nanos: nanos / count,
            datagrams: float(datagrams) / count,
            bytes: float(bytes + datagrams * HEADERS) / count,
            stream_bytes: float(stream_bytes) / count,
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.heap.peek().is_some_and(|Reverse(next)| next.at <= end) {
            let Some(Reverse(Happening { at, to, what, .. })) = self.heap.pop() else { break };
            self.now = at;
            let (machine, out) = (&mut self.machines[to], &mut self.out);
            match what {
                What::Datagram { from, bytes } => machine.on_datagram(at, from, &bytes, out),
                What::Stream { from, bytes } => machine.on_stream(at, from, &bytes, out),
                What::Timer(timer) => machine.on_timer(at, timer, out),
            }
            self.carry_out(to);
        }
        self.now = end;
    }

    fn carry_out(&mut self, place: usize) {
        let mut out = std::mem::replace(
            &mut self.out,
            Outbox { datagrams: Vec::new(), streams: Vec::new(), timers: Vec::new() },
        );
        for (at, timer) in out.timers.drain(..) {
            self.schedule(at, place, What::Timer(timer));
        }
        for (to, bytes) in out.datagrams.drain(..) {
            self.sent.datagrams += 1;
            self.sent.bytes += u64::try_from(bytes.len()).expect("a length");
            if !self.rng.chance(self.loss, 1000) {
                let at = self.now + self.rng.duration(DELAY.0, DELAY.1);
                self.schedule(at, to, What::Datagram { from: place, bytes });
            }
        }
        for (to, bytes) in out.streams.drain(..) {
            self.sent.stream_bytes += u64::try_from(bytes.len()).expect("a length");
            self.schedule(self.now + DELAY.1, to, What::Stream { from: place, bytes });
        }
        self.out = out;
    }

    fn schedule(&mut self, at: Instant, to: usize, what: What<M::Timer>) {
        self.number += 1;
        self.heap.push(Reverse(Happening { at, number: self.number, to, what }));
    }
}

impl<T> Happening<T> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.number)
    }
}

impl<T> PartialEq for Happening<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Happening<T> {}

impl<T> PartialOrd for Happening<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Happening<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
}

/// Our machine.
struct Ours {
    machine: Membership,
    effects: Effects,
    /// When it is woken next.
    wake: Instant,
}

impl Machine for Ours {
    const NAME: &str = "ours";
    type Timer = ();

    fn new(place: usize, members: usize, now: Instant, out: &mut Outbox<()>) -> Self {
        let config = Config::new(ClusterId(1));
        let rng = dice_of(place);
        let (restored, said) = (Incarnation::default(), profile(place));
        let machine = Membership::new(config, id_of(place), said, restored, rng, now);
        let mut machine = machine.expect("the default configuration");
        machine.on_persisted(now, machine.incarnation());
        assert_eq!(machine.incarnation(), incarnation_of(place), "as the others are told");
        let update = |place| {
            let (member, incarnation) = (id_of(place), incarnation_of(place));
            Update::Alive { member, incarnation, profile: profile(place) }
        };
        let others = (0..members).filter(|other| *other != place);
        let updates = others.map(update).collect();
        let records = SyncMessage::Records { updates, wanted: Vec::new() };
        machine.on_sync(now, id_of((place + 1) % members), records);
        let mut ours = Self { machine, effects: Effects::default(), wake: Instant::NEVER };
        ours.flush(now, out);
        ours
    }

    fn on_datagram(&mut self, now: Instant, from: usize, bytes: &[u8], out: &mut Outbox<()>) {
        self.machine.on_datagram(now, SocketAddr::V4(address_of(from)), bytes);
        self.flush(now, out);
    }

    fn on_stream(&mut self, now: Instant, from: usize, bytes: &[u8], out: &mut Outbox<()>) {
        let message = postcard::from_bytes(bytes).expect("what was encoded decodes");
        self.machine.on_sync(now, id_of(from), message);
        self.flush(now, out);
    }

    fn on_timer(&mut self, now: Instant, (): (), out: &mut Outbox<()>) {
        if self.wake == now {
            self.wake = Instant::NEVER;
        }
        if self.machine.deadline().is_some_and(|at| at <= now) {
            self.machine.on_wakeup(now);
        }
        self.flush(now, out);
    }

    fn present(&self) -> usize {
        self.machine.present_len()
    }
}

impl Ours {
    fn flush(&mut self, now: Instant, out: &mut Outbox<()>) {
        let Self { machine, effects, wake } = self;
        machine.flush(effects);
        if let Some(durable) = effects.persist.pop() {
            effects.persist.clear();
            machine.on_persisted(now, durable);
            machine.flush(effects);
        }
        effects.events.clear();
        let datagrams = effects.datagrams.drain(..);
        out.datagrams.extend(datagrams.map(|(to, bytes)| (place_of(to), bytes)));
        for (to, message) in effects.syncs.drain(..) {
            let bytes = postcard::to_allocvec(&message).expect("a message always encodes");
            out.streams.push((usize::try_from(to.0 - id_of(0).0).expect("a place"), bytes));
        }
        if let Some(at) = machine.deadline()
            && at < *wake
        {
            *wake = at.max(now);
            out.timers.push((*wake, ()));
        }
    }
}

fn profile(place: usize) -> Profile {
    let address = SocketAddr::V4(address_of(place));
    Profile {
        name: format!("m{place}"),
        datagram: address,
        stream: address,
        weight: 1,
        tags: Vec::new(),
    }
}

fn dice_of(place: usize) -> Rng {
    Rng::new(2).fork(number(place))
}

/// What a first start begins with.
fn incarnation_of(place: usize) -> Incarnation {
    Incarnation::default().following(dice_of(place).next())
}

fn number(place: usize) -> u64 {
    u64::try_from(place).expect("a place")
}

fn id_of(place: usize) -> MemberId {
    // As long as drawn ones.
    MemberId(0xA000_0000_0000_0001 + number(place))
}

fn address_of(place: usize) -> SocketAddrV4 {
    let host = u32::try_from(place).expect("few members");
    SocketAddrV4::new(Ipv4Addr::from_bits((10 << 24) | host), 7000)
}

fn place_of(address: SocketAddr) -> usize {
    let SocketAddr::V4(address) = address else { unreachable!("all addresses are of IPv4") };
    usize::try_from(address.ip().to_bits() & 0xff_ffff).expect("a place")
}

fn nanos_since(began: Timespec) -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime) - began;
    float(used.tv_sec.unsigned_abs()) * 1e9 + float(used.tv_nsec.unsigned_abs())
}

const PERIOD: Duration = Duration::from_secs(1);
const DELAY: (Duration, Duration) = (Duration::from_micros(500), Duration::from_millis(5));
/// UDP over IPv4.
const HEADERS: u64 = 28;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_cluster_probes_once_a_period() {
        let mut cluster = Cluster::<Ours>::warm(20);
        let plan = Plan { members: vec![20], rounds: 1, member_periods: 2_000 };
        let quiet = cluster.measure(&plan, 0);
        assert!((1.9..2.3).contains(&quiet.datagrams), "{quiet:?}");
        assert!((100.0..160.0).contains(&quiet.bytes), "{quiet:?}");
        let lossy = cluster.measure(&plan, 100);
        assert!(lossy.datagrams > quiet.datagrams, "{lossy:?}");
    }

    #[cfg(feature = "peers")]
    #[test]
    fn the_peer_is_driven_alike() {
        let mut cluster = Cluster::<peer::Peer>::warm(20);
        let plan = Plan { members: vec![20], rounds: 1, member_periods: 2_000 };
        let quiet = cluster.measure(&plan, 0);
        assert!((1.9..2.3).contains(&quiet.datagrams), "{quiet:?}");
    }
}
