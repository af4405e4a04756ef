//! Connections between machines, over madsim's network, with faults of our own on top.
//!
//! madsim carries parcels from endpoint to endpoint with its latency and its notion of a dead machine. On each
//! directed link we add: loss, delay, duplication, reordering and corruption of frames, partitions (one way or both),
//! and connections that break late when a machine loses power.
//!
//! A link is *tame* or *wild*. A tame one behaves as TCP does: bytes arrive in order or the connection breaks, and a
//! lost packet is a delay. A wild one loses, repeats and reorders single frames inside a connection, more than
//! any transport that core is promised; nothing false may happen there either.
//!
//! Datagrams go from inbox to inbox, each by itself: on any link they are lost, repeated and late, and come out of order.
//! One that is damaged is dropped: the seal or the checksum that the world puts on it finds that.

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use madsim::net::{Endpoint, Receiver, Sender};
use madsim::time::TimeHandle;
use ring_core::ids::{ConnId, len_u64, len_usize};
use ring_core::io::Dial;
use ring_core::rng::Rng;
use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::inbox::Delivery;
use crate::lock;
use crate::world::Sim;

/// The state of all links.
#[derive(Debug)]
pub struct Net {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    machines: usize,
    links: Vec<Link>,
    waiters: Vec<Waker>,
    /// By machine: ends of connections to it notice its death only after this moment.
    half_open_until: Vec<Nanos>,
    /// Ends of connections that stand still, or of which the other end is gone.
    unwell: usize,
    rng: Rng,
    /// For datagrams alone, so that they do not shift what else is drawn.
    datagrams: Rng,
    /// Somebody records datagrams, and sends them again later.
    recorder: Option<Recorder>,
    /// A datagram takes between these.
    latency: (Duration, Duration),
    counts: Counts,
}

/// What one directed link does to what travels on it. Chances are in 10,000 frames.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// Nothing passes.
    pub blocked: bool,
    /// Frames are treated one by one; see the module.
    pub wild: bool,
    /// Lost.
    pub loss: u64,
    /// Delivered twice.
    pub duplication: u64,
    /// Delayed on its own, so that others overtake it.
    pub reordering: u64,
    /// A bit is flipped.
    pub corruption: u64,
    /// Everything is late by up to this.
    pub delay_max: Nanos,
}

/// What the network did so far, for reports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Parcels that arrived.
    pub parcels: u64,
    /// Frames lost on wild links.
    pub lost: u64,
    /// Frames repeated.
    pub duplicated: u64,
    /// Frames overtaken.
    pub reordered: u64,
    /// Frames damaged.
    pub corrupted: u64,
    /// Connections broken by a partition.
    pub broken: u64,
    /// Datagrams sent...
    pub datagrams: u64,
    /// ... and of those lost, damaged ones included.
    pub datagrams_lost: u64,
    /// Datagrams sent again by somebody else.
    pub replayed: u64,
}

/// Who listens, and sends what was sent before once more: to whom it was for or to somebody else, before and after that one
/// was started again. In some runs only.
#[derive(Debug)]
struct Recorder {
    rng: Rng,
    old: VecDeque<(usize, (SocketAddr, Vec<u8>))>,
}

/// The machine that gets it; whom it says to be from, and its bytes.
pub(crate) type Replay = (usize, (SocketAddr, Vec<u8>));

impl Recorder {
    fn of(seed: u64) -> Option<Self> {
        let mut rng = Rng::new(seed).fork(2);
        rng.chance(1, 4).then(|| Self { rng, old: VecDeque::new() })
    }

    fn record(&mut self, to: usize, datagram: &(SocketAddr, Vec<u8>)) {
        if self.rng.chance(1, 16) {
            self.old.push_back((to, datagram.clone()));
        }
        if self.old.len() > RECORDED_MAX {
            let place = len_usize(self.rng.below(len_u64(self.old.len())));
            drop(self.old.remove(place));
        }
    }

    fn replay(&mut self, machines: usize) -> Option<Replay> {
        if !self.rng.chance(1, 100) {
            return None;
        }
        let place = len_usize(self.rng.below(len_u64(self.old.len())));
        let (mut to, datagram) = self.old.get(place)?.clone();
        if self.rng.chance(1, 3) {
            to = len_usize(self.rng.below(len_u64(machines)));
        }
        Some((to, datagram))
    }
}

/// So many datagrams are recorded; then any of them is forgotten for each that comes.
const RECORDED_MAX: usize = 300;

/// What one machine ships to another at once: frames of one connection.
#[derive(Debug)]
pub(crate) struct Parcel {
    pub(crate) bytes: Vec<u8>,
    /// Where each frame ends.
    pub(crate) ends: Vec<usize>,
    /// Bytes on their way on this connection and direction.
    pub(crate) flight: Arc<AtomicUsize>,
}

/// A connection's sending end.
pub(crate) struct Wire {
    sender: Sender,
    pub(crate) peer: usize,
    pub(crate) wild: bool,
    pub(crate) dialled: bool,
}

/// A lost packet is sent again after this long on a tame link.
const RESEND: Duration = Duration::from_millis(200);
/// A connection whose link is blocked breaks after a time up to this.
const BREAK_AFTER_MAX: Duration = Duration::from_secs(12);
/// A frame that others overtake is late by up to this.
const OVERTAKEN_MAX: Duration = Duration::from_millis(300);
/// A dial to a machine that does not answer fails after a time up to this.
const DIAL_TIMEOUT_MAX: Duration = Duration::from_secs(3);
/// Of 10,000 datagrams so many are lost on a link that is well...
const DATAGRAM_LOSS: u64 = 20;
/// ... and so many come twice.
const DATAGRAM_REPEATS: u64 = 20;
const PORT: u16 = 7000;

impl Net {
    /// Links between so many machines, all well.
    #[must_use]
    pub fn new(machines: usize, seed: u64) -> Self {
        let state = State {
            machines,
            links: vec![Link::default(); machines * machines],
            waiters: Vec::new(),
            half_open_until: vec![0; machines],
            unwell: 0,
            rng: Rng::new(seed),
            datagrams: Rng::new(seed).fork(1),
            recorder: Recorder::of(seed),
            latency: (Duration::from_micros(100), Duration::from_millis(1)),
            counts: Counts::default(),
        };
        Self { state: Mutex::new(state) }
    }

    /// The link from one machine to another.
    #[must_use]
    pub fn link(&self, from: usize, to: usize) -> Link {
        let state = lock(&self.state);
        state.links[from * state.machines + to]
    }

    /// Changes the link from one machine to another.
    pub fn change(&self, from: usize, to: usize, change: impl FnOnce(&mut Link)) {
        let mut state = lock(&self.state);
        let at = from * state.machines + to;
        change(&mut state.links[at]);
        wake_all(state);
    }

    /// Changes every link between two different machines.
    pub fn change_all(&self, mut change: impl FnMut(usize, usize, &mut Link)) {
        let mut state = lock(&self.state);
        let machines = state.machines;
        for from in 0..machines {
            for to in (0..machines).filter(|to| *to != from) {
                change(from, to, &mut state.links[from * machines + to]);
            }
        }
        wake_all(state);
    }

    /// Whether some link is blocked.
    #[must_use]
    pub fn is_split(&self) -> bool {
        lock(&self.state).links.iter().any(|link| link.blocked)
    }

    /// All links are well again; tame ones stay tame, wild ones wild, without faults.
    pub fn heal(&self) {
        self.change_all(|_, _, link| {
            *link = Link { wild: link.wild, ..Link::default() };
        });
    }

    /// A machine lost its power: others notice only after `until`.
    pub fn half_open(&self, machine: usize, until: Nanos) {
        lock(&self.state).half_open_until[machine] = until;
    }

    /// Whether some connection stands still, or a process has not noticed yet that its other end is gone.
    #[must_use]
    pub fn is_unwell(&self) -> bool {
        lock(&self.state).unwell > 0
    }

    /// What the network did so far.
    #[must_use]
    pub fn counts(&self) -> Counts {
        lock(&self.state).counts
    }

    /// From now on a datagram takes between these.
    pub fn set_latency(&self, latency: (Duration, Duration)) {
        lock(&self.state).latency = latency;
    }

    /// How late a datagram arrives, each time that it does.
    pub(crate) fn datagram(&self, from: usize, to: usize) -> Vec<Nanos> {
        let state = &mut *lock(&self.state);
        let link = state.links[from * state.machines + to];
        let rng = &mut state.datagrams;
        state.counts.datagrams += 1;
        let lost = rng.chance(DATAGRAM_LOSS, 10_000) || rng.chance(link.loss, 10_000);
        if link.blocked || lost || rng.chance(link.corruption, 10_000) {
            state.counts.datagrams_lost += 1;
            return Vec::new();
        }
        let copies = 1 + u64::from(rng.chance(link.duplication + DATAGRAM_REPEATS, 10_000));
        let arrivals = (0..copies).map(|copy| {
            let mut late = nanos(rng.duration(state.latency.0, state.latency.1));
            late += rng.below(link.delay_max);
            if copy > 0 || rng.chance(link.reordering, 10_000) {
                late += rng.below(nanos(OVERTAKEN_MAX));
            }
            late
        });
        arrivals.collect()
    }

    /// A datagram that was sent long ago, and is sent again now: where to, and what.
    pub(crate) fn recorded(&self, to: usize, datagram: &(SocketAddr, Vec<u8>)) -> Option<Replay> {
        let state = &mut *lock(&self.state);
        let recorder = state.recorder.as_mut()?;
        recorder.record(to, datagram);
        let replay = recorder.replay(state.machines)?;
        state.counts.replayed += 1;
        Some(replay)
    }

    fn draw(&self, low: Duration, high: Duration) -> Duration {
        lock(&self.state).rng.duration(low, high)
    }

    /// Waits until nothing blocks the link any more; false if that takes longer than a connection lives.
    async fn opened(&self, time: &TimeHandle, from: usize, to: usize) -> bool {
        if !self.link(from, to).blocked {
            return true;
        }
        let patience = self.draw(Duration::from_millis(500), BREAK_AFTER_MAX);
        let mut timer = pin!(time.sleep(patience));
        let mut armed = false;
        poll_fn(|cx| {
            if !self.link(from, to).blocked {
                return Poll::Ready(true);
            }
            if timer.is_elapsed() {
                lock(&self.state).counts.broken += 1;
                return Poll::Ready(false);
            }
            if !armed {
                armed = true;
                let _ = timer.as_mut().poll(cx);
            }
            lock(&self.state).waiters.push(cx.waker().clone());
            Poll::Pending
        })
        .await
    }
}

/// The time in which a connection stands still, though its links may be well again: a packet that was lost is not sent
/// again yet, also that of a dial, or its other side has ended and this one has not noticed. It ends with the process, too.
struct Unwell<'a>(&'a Net);

impl<'a> Unwell<'a> {
    fn new(net: &'a Net) -> Self {
        lock(&net.state).unwell += 1;
        Self(net)
    }
}

impl Drop for Unwell<'_> {
    fn drop(&mut self) {
        lock(&self.0.state).unwell -= 1;
    }
}

/// The address of a machine.
#[must_use]
pub fn address(machine: usize) -> SocketAddr {
    let last = u8::try_from(machine + 1).expect("a run has few machines");
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, last)), PORT)
}

/// The machine of an address.
#[must_use]
pub fn machine_of(address: SocketAddr) -> Option<usize> {
    match address.ip() {
        IpAddr::V4(ip) if ip.octets()[..3] == [10, 0, 0] && ip.octets()[3] > 0 => {
            Some(usize::from(ip.octets()[3]) - 1)
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let percent = [
            ("lose", self.loss),
            ("repeat", self.duplication),
            ("reorder", self.reordering),
            ("damage", self.corruption),
        ];
        f.write_str("(")?;
        for (word, chance) in percent.iter().filter(|(_, chance)| *chance > 0) {
            write!(f, "{word} {}.{:02} % ", chance / 100, chance % 100)?;
        }
        write!(f, "late {:?})", Duration::from_nanos(self.delay_max))
    }
}

impl Wire {
    /// Ships a parcel; false if the other end is gone.
    pub(crate) fn ship(&self, parcel: Parcel) -> bool {
        let payload: Box<dyn Any + Send + Sync> = Box::new(parcel);
        let sending = pin!(self.sender.send(payload));
        let done = sending.poll(&mut Context::from_waker(Waker::noop()));
        matches!(done, Poll::Ready(Ok(())))
    }
}

/// Accepts connections for a machine until its process dies.
pub(crate) async fn accept(sim: Arc<Sim>, me: usize, endpoint: Endpoint) {
    while let Ok((sender, receiver, from)) = endpoint.accept1().await {
        let Some(peer) = machine_of(from) else {
            continue;
        };
        if peer >= sim.machines.len() {
            continue;
        }
        let wire = Wire { sender, peer, wild: sim.net.link(peer, me).wild, dialled: false };
        let conn = sim.machines[me].inbox.connected(wire, None);
        madsim::task::spawn(receive(Arc::clone(&sim), me, peer, conn, receiver));
    }
}

/// Dials another machine, and receives if it answers.
pub(crate) async fn dial(
    sim: Arc<Sim>,
    me: usize,
    endpoint: Endpoint,
    dial: Dial,
    address: Option<SocketAddr>,
) {
    let inbox = &sim.machines[me].inbox;
    let peer = address.and_then(machine_of).filter(|p| *p < sim.machines.len());
    let (Some(peer), Some(address)) = (peer, address) else {
        sim.time.sleep(Duration::from_millis(1)).await;
        return inbox.push(Delivery::DialFailed { dial });
    };
    let blocked = |from, to| sim.net.link(from, to).blocked;
    // Who is up again answers, though ends of earlier connections have not noticed that it was gone.
    let is_up = sim.machines[peer].inbox.is_up();
    let powerless = lock(&sim.net.state).half_open_until[peer] > sim.now() && !is_up;
    if blocked(me, peer) || blocked(peer, me) || powerless {
        let _unanswered = Unwell::new(&sim.net);
        let patience = sim.net.draw(Duration::from_millis(100), DIAL_TIMEOUT_MAX);
        sim.time.sleep(patience).await;
        return inbox.push(Delivery::DialFailed { dial });
    }
    let Ok((sender, receiver)) = endpoint.connect1(address).await else {
        return inbox.push(Delivery::DialFailed { dial });
    };
    let wire = Wire { sender, peer, wild: sim.net.link(me, peer).wild, dialled: true };
    let conn = inbox.connected(wire, Some(dial));
    receive(Arc::clone(&sim), me, peer, conn, receiver).await;
}

/// Takes parcels off a connection, lets the link do its worst, and hands them to the process.
async fn receive(sim: Arc<Sim>, me: usize, peer: usize, conn: ConnId, mut receiver: Receiver) {
    let inbox = &sim.machines[me].inbox;
    while let Ok(payload) = receiver.recv().await {
        let parcel = payload.downcast::<Parcel>().expect("only parcels travel between machines");
        let link = sim.net.link(peer, me);
        if link.wild {
            deliver_wildly(&sim, me, conn, link, *parcel);
            continue;
        }
        if link.blocked && !sim.net.opened(&sim.time, peer, me).await {
            return inbox.push(Delivery::Broken { conn });
        }
        if let Some(delay) = tame_delay(&sim.net, link) {
            let _stalled = Unwell::new(&sim.net);
            sim.time.sleep(delay).await;
        }
        let mut parcel = *parcel;
        corrupt(&sim.net, link, &mut parcel);
        inbox.push(Delivery::Parcel { conn, parcel });
    }
    let _unnoticed = Unwell::new(&sim.net);
    let late = lock(&sim.net.state).half_open_until[peer].saturating_sub(sim.now());
    if late > 0 {
        sim.time.sleep(Duration::from_nanos(late)).await;
    }
    let _broken_anyway = sim.net.opened(&sim.time, peer, me).await;
    inbox.push(Delivery::Broken { conn });
}

fn tame_delay(net: &Net, link: Link) -> Option<Duration> {
    if link.loss == 0 && link.delay_max == 0 {
        return None;
    }
    let rng = &mut lock(&net.state).rng;
    let mut delay = Duration::from_nanos(rng.below(link.delay_max));
    let mut wait = RESEND;
    while rng.chance(link.loss, 10_000) && wait < Duration::from_secs(4) {
        delay += wait;
        wait *= 2;
    }
    Some(delay)
}

fn corrupt(net: &Net, link: Link, parcel: &mut Parcel) {
    if link.corruption == 0 {
        return;
    }
    let state = &mut *lock(&net.state);
    if state.rng.chance(link.corruption, 10_000) {
        state.counts.corrupted += 1;
        flip(&mut parcel.bytes, &mut state.rng);
    }
}

fn flip(bytes: &mut [u8], rng: &mut Rng) {
    let place = len_usize(rng.below(len_u64(bytes.len())));
    if let Some(byte) = bytes.get_mut(place) {
        *byte ^= 1 << rng.below(8);
    }
}

fn deliver_wildly(sim: &Sim, me: usize, conn: ConnId, link: Link, parcel: Parcel) {
    let inbox = &sim.machines[me].inbox;
    let calm = Link { wild: true, ..Link::default() };
    if link == calm {
        return inbox.push(Delivery::Parcel { conn, parcel });
    }
    let now = sim.now();
    let state = &mut *lock(&sim.net.state);
    let mut start = 0;
    for end in &parcel.ends {
        let frame = &parcel.bytes[start..*end];
        start = *end;
        let rng = &mut state.rng;
        if link.blocked || rng.chance(link.loss, 10_000) {
            state.counts.lost += 1;
            parcel.flight.fetch_sub(frame.len(), Ordering::Relaxed);
            continue;
        }
        let copies = 1 + u64::from(rng.chance(link.duplication, 10_000));
        state.counts.duplicated += copies - 1;
        for copy in 0..copies {
            let rng = &mut state.rng;
            let mut late = rng.below(link.delay_max);
            if copy > 0 || rng.chance(link.reordering, 10_000) {
                late += rng.below(nanos(OVERTAKEN_MAX));
                state.counts.reordered += 1;
            }
            let mut bytes = frame.to_vec();
            if rng.chance(link.corruption, 10_000) {
                state.counts.corrupted += 1;
                flip(&mut bytes, rng);
            }
            let flight = match copy {
                0 => Arc::clone(&parcel.flight),
                _ => Arc::new(AtomicUsize::new(bytes.len())),
            };
            let parcel = Parcel { ends: vec![bytes.len()], bytes, flight };
            inbox.push_at(now + late, Delivery::Parcel { conn, parcel });
        }
    }
}

fn wake_all(mut state: MutexGuard<'_, State>) {
    let waiters = std::mem::take(&mut state.waiters);
    drop(state);
    for waker in waiters {
        waker.wake();
    }
}

/// A duration as nanoseconds of true time.
#[must_use]
pub fn nanos(duration: Duration) -> Nanos {
    Nanos::try_from(duration.as_nanos()).expect("runs are short")
}

/// Waits for a moment of true time, to the nanosecond.
pub(crate) fn arm(time: &TimeHandle, at: Nanos, cx: &mut Context<'_>) {
    let now = time.elapsed();
    let deadline = time.now_instant() + Duration::from_nanos(at).saturating_sub(now);
    let mut timer = time.sleep(Duration::ZERO);
    let mut timer = Pin::new(&mut timer);
    timer.as_mut().reset(deadline);
    let _ = timer.poll(cx);
}
