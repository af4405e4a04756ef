//! UDP: the datagrams of the failure detector, on the port on which the node listens for connections.
//!
//! # What a datagram is
//!
//! | | bytes |
//! |---|---|
//! | with keys | sealed ([`crate::security::datagram`]): nobody without the cluster's key reads or makes one. What core made, but for its stamp, whose numbers the seal has, too |
//! | without | CRC-32 of the cluster's name and what follows, little-endian; then what core made |
//!
//! The checksum finds what was damaged on its way, which UDP's own 16 bits do not find well enough for news that is
//! passed on, and tells clusters of other names apart. It stops nobody who means harm: that is what keys are for.
//! Clusters of one name are told apart by core, whose datagrams begin with the cluster's id.
//!
//! # Who is heard
//!
//! With keys a sender must have introduced itself over a secured connection before its datagrams are opened. Its
//! handshake does that: `Hello` and `Welcome` say which start of which member speaks, and the reader of the connection has
//! checked them against the certificate. A datagram of this start that was recorded before is opened once; core
//! believes nobody who does not answer it now, so that changes nothing.
//!
//! # Bounds
//!
//! Datagrams may be lost. So what does not fit is dropped and counted: into core's inbox beyond
//! [`WAITING_MAX`], out of it beyond [`OUTGOING_MAX`].
//!
//! # Limits
//!
//! A member that was started again is heard by those with whom it has shaken hands since. Until then the others hear of
//! it from those.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ring_core::ids::{Boot, ClusterId, MemberId};
use ring_core::membership::{AUTHENTICATION_BYTES, Stamp};
use ring_core::time::Instant;
use ring_core::wire::message::Identity;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::sleep;

use crate::mailbox::Closed;
use crate::security::datagram::{
    DATAGRAM_BYTES_MAX, DatagramKeys, Dropped, Introduction, OVERHEAD_BYTES, Opener, SENDERS_MAX,
    Sealer, Start,
};
use crate::shared::{Item, Shared};

/// A datagram with where it comes from or goes to.
pub(crate) type Addressed = (SocketAddr, Vec<u8>);

/// One node's datagrams.
pub(crate) struct Datagrams {
    guard: Mutex<Guard>,
    me: MemberId,
    start: Start,
    /// None: the node has ended.
    outgoing: Mutex<Option<mpsc::Sender<Addressed>>>,
    /// Datagrams that core has not taken yet.
    waiting: AtomicUsize,
    counters: Counters,
}

/// Who may send and read.
enum Guard {
    /// Everybody; the checksum of the cluster's name.
    Open { name: crc32fast::Hasher },
    /// Nobody yet: the cluster is not known. Who has introduced itself meanwhile.
    Early { keys: DatagramKeys, met: BTreeMap<MemberId, Start> },
    /// Who has the cluster's key.
    Sealed { cluster: ClusterId, opener: Box<Opener>, sealer: Box<Sealer> },
}

/// How often what happened.
#[derive(Debug, Default)]
struct Counters {
    sent: AtomicU64,
    received: AtomicU64,
    refused: AtomicU64,
    dropped: AtomicU64,
    failed: AtomicU64,
}

/// Numbers about a node's datagrams since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct DatagramCounts {
    /// Sent.
    pub sent: u64,
    /// Received, those that were refused or dropped included.
    pub received: u64,
    /// Of those not taken: damaged, of another cluster, of somebody without the key, of a member that has not
    /// introduced itself yet, or opened before.
    pub refused: u64,
    /// Of those refused because they were opened before: somebody has recorded them and sent them again. Without keys
    /// nobody knows.
    pub replayed: u64,
    /// Dropped because too many waited, on their way in or out.
    pub dropped: u64,
    /// Not sent because the system refused.
    pub failed: u64,
}

impl Datagrams {
    /// For a member of a cluster of this name, in this start. What is to be sent comes out of the receiver.
    pub(crate) fn new(
        cluster: &str,
        keys: Option<&DatagramKeys>,
        me: MemberId,
        boot: Boot,
    ) -> (Arc<Self>, mpsc::Receiver<Addressed>) {
        let guard = match keys {
            Some(keys) => Guard::Early { keys: keys.clone(), met: BTreeMap::new() },
            None => {
                let mut name = crc32fast::Hasher::new();
                name.update(cluster.as_bytes());
                Guard::Open { name }
            }
        };
        let (outgoing, out) = mpsc::channel(OUTGOING_MAX);
        let counters = Counters::default();
        let datagrams = Self {
            guard: Mutex::new(guard),
            me,
            start: start_of(boot),
            outgoing: Mutex::new(Some(outgoing)),
            waiting: AtomicUsize::new(0),
            counters,
        };
        (Arc::new(datagrams), out)
    }

    /// The cluster is known.
    pub(crate) fn begin(&self, now: Instant, cluster: ClusterId) {
        let guard = &mut *self.guard.lock();
        let Guard::Early { keys, met } = guard else { return };
        let mut opener = Opener::new(keys.clone(), cluster);
        for (&member, &start) in &*met {
            // Nobody was introduced before.
            let _ = opener.introduce(now, member, Introduction { start, next: 0 });
        }
        let sealer = Sealer::new(keys, cluster, self.me, self.start);
        *guard = Guard::Sealed { cluster, opener: Box::new(opener), sealer: Box::new(sealer) };
    }

    /// A member has said over a secured connection who it is. A client sends no datagrams.
    pub(crate) fn introduce(&self, now: Instant, who: &Identity) {
        if who.member.is_client() {
            return;
        }
        let start = start_of(who.boot);
        let introduced = match &mut *self.guard.lock() {
            Guard::Open { .. } => Ok(()),
            Guard::Early { met, .. } => {
                let known = met.get(&who.member);
                let is_older = known.is_some_and(|known| start.counter < known.counter);
                if !is_older && (known.is_some() || met.len() < SENDERS_MAX) {
                    met.insert(who.member, start);
                }
                Ok(())
            }
            Guard::Sealed { opener, .. } => {
                opener.introduce(now, who.member, Introduction { start, next: 0 })
            }
        };
        if let Err(why) = introduced {
            tracing::debug!(member = %who.member, %why, "datagrams of it are not opened");
        }
    }

    /// For core's thread: sends a datagram, if there is room.
    pub(crate) fn send(&self, to: SocketAddr, bytes: Vec<u8>) {
        let outgoing = self.outgoing.lock();
        if outgoing.as_ref().is_none_or(|outgoing| outgoing.try_send((to, bytes)).is_err()) {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The node has ended: what waits is still sent, and nothing more.
    pub(crate) fn end(&self) {
        self.outgoing.lock().take();
    }

    /// For core's thread: it has taken so many.
    pub(crate) fn taken(&self, count: usize) {
        self.waiting.fetch_sub(count, Ordering::Relaxed);
    }

    pub(crate) fn counts(&self) -> DatagramCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { sent, received, refused, dropped, failed } = &self.counters;
        DatagramCounts {
            sent: read(sent),
            received: read(received),
            refused: read(refused),
            replayed: match &*self.guard.lock() {
                Guard::Open { .. } | Guard::Early { .. } => 0,
                Guard::Sealed { opener, .. } => opener.dropped(Dropped::Replayed),
            },
            dropped: read(dropped),
            failed: read(failed),
        }
    }

    /// What was in a datagram; none: it does not count.
    fn open(&self, now: Instant, datagram: &mut [u8]) -> Option<Vec<u8>> {
        match &mut *self.guard.lock() {
            Guard::Open { name } => {
                let (sum, plain) = datagram.split_first_chunk::<SUM_BYTES>()?;
                (*sum == checksum(name, plain)).then(|| plain.to_vec())
            }
            Guard::Early { .. } => None,
            Guard::Sealed { cluster, opener, .. } => {
                let opened = opener.open(now, datagram).ok()?;
                let stamp = Stamp { cluster: *cluster, sender: opened.from, seq: opened.counter };
                Some(stamp.join(opened.plain))
            }
        }
    }

    /// Appends what is to be sent for a datagram; false: it is not to be sent.
    fn close(&self, plain: &[u8], out: &mut Vec<u8>) -> bool {
        match &mut *self.guard.lock() {
            Guard::Open { name } => {
                out.extend_from_slice(&checksum(name, plain));
                out.extend_from_slice(plain);
                true
            }
            Guard::Early { .. } => false,
            Guard::Sealed { cluster, sealer, .. } => {
                let own = Stamp::split(plain)
                    .filter(|(stamp, _)| stamp.cluster == *cluster && stamp.sender == self.me);
                own.is_some_and(|(stamp, rest)| sealer.seal(stamp.seq, rest, out).is_ok())
            }
        }
    }

    /// Receives until the node ends.
    pub(crate) async fn receive(self: Arc<Self>, shared: Arc<Shared>, socket: Arc<UdpSocket>) {
        let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
        let mut over = pin!(shared.is_over());
        loop {
            let ready = tokio::select! {
                ready = socket.readable() => ready,
                () = &mut over => return,
            };
            if let Err(error) = ready {
                tracing::warn!(%error, "cannot receive datagrams");
                sleep(PAUSE).await;
            }
            let mut batch: Vec<Addressed> = Vec::new();
            for _ in 0..BATCH_MAX {
                match socket.try_recv_from(&mut buffer) {
                    Ok((len, from)) => {
                        self.counters.received.fetch_add(1, Ordering::Relaxed);
                        let now = shared.clock.instant();
                        match self.open(now, &mut buffer[..len]) {
                            Some(bytes) => batch.push((plain_address(from), bytes)),
                            None => {
                                self.counters.refused.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    // Some systems tell here that a datagram sent before found nobody.
                    Err(error) => {
                        tracing::debug!(%error, "no datagram");
                        break;
                    }
                }
            }
            if self.hand_over(&shared, batch).is_err() {
                return;
            }
        }
    }

    fn hand_over(&self, shared: &Shared, mut batch: Vec<Addressed>) -> Result<(), Closed> {
        let waiting = self.waiting.load(Ordering::Relaxed);
        let room = WAITING_MAX.saturating_sub(waiting);
        let dropped = batch.len().saturating_sub(room);
        self.counters.dropped.fetch_add(ring_core::ids::len_u64(dropped), Ordering::Relaxed);
        batch.truncate(room);
        if batch.is_empty() {
            return Ok(());
        }
        self.waiting.fetch_add(batch.len(), Ordering::Relaxed);
        let bytes = batch.iter().map(|(_, bytes)| bytes.len()).sum();
        shared.put_here(Item::Datagrams(batch), bytes)
    }

    /// Sends until the node has ended and nothing waits any more; who ends it waits for `alive` to be dropped.
    pub(crate) async fn transmit(
        shared: Arc<Shared>,
        socket: Arc<UdpSocket>,
        mut outgoing: mpsc::Receiver<Addressed>,
        alive: mpsc::Sender<()>,
    ) {
        let Some(datagrams) = shared.datagrams.get() else { return };
        let is_v6 = socket.local_addr().is_ok_and(|address| address.is_ipv6());
        let mut batch = Vec::with_capacity(BATCH_MAX);
        let mut bytes = Vec::new();
        while outgoing.recv_many(&mut batch, BATCH_MAX).await > 0 {
            for (to, plain) in batch.drain(..) {
                bytes.clear();
                if !datagrams.close(&plain, &mut bytes) {
                    datagrams.counters.failed.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                let counter = match socket.send_to(&bytes, reachable(to, is_v6)).await {
                    Ok(_) => &datagrams.counters.sent,
                    Err(error) => {
                        tracing::debug!(%to, %error, "a datagram was not sent");
                        &datagrams.counters.failed
                    }
                };
                counter.fetch_add(1, Ordering::Relaxed);
            }
        }
        drop(alive);
    }
}

/// A start counter and what was drawn at it: two starts that count alike are still two.
fn start_of(boot: Boot) -> Start {
    Start { counter: boot.count(), drawn: u64::from(boot.drawn()) }
}

fn checksum(name: &crc32fast::Hasher, plain: &[u8]) -> [u8; SUM_BYTES] {
    let mut hasher = name.clone();
    hasher.update(plain);
    hasher.finalize().to_le_bytes()
}

/// As others name it: a socket for both versions of IP shows an address of the old one in the form of the new.
fn plain_address(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

/// As a socket of this version of IP can reach it.
fn reachable(address: SocketAddr, is_v6: bool) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if is_v6 => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// Most datagrams that wait for core.
const WAITING_MAX: usize = 4096;
/// Most that wait to be sent.
const OUTGOING_MAX: usize = 1024;
/// Received or sent at a time.
const BATCH_MAX: usize = 64;
const SUM_BYTES: usize = 4;
const PAUSE: Duration = Duration::from_millis(50);

const _: () = assert!(
    OVERHEAD_BYTES <= AUTHENTICATION_BYTES + Stamp::BYTES && SUM_BYTES <= AUTHENTICATION_BYTES
);

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> DatagramKeys {
        let file = crate::security::datagram::new_file().expect("the system has random numbers");
        DatagramKeys::parse(&file).expect("just made")
    }

    fn who(member: u64, boot: u64) -> Identity {
        Identity {
            cluster_name: "ring".into(),
            cluster: None,
            member: MemberId(member),
            name: format!("m{member}"),
            boot: Boot(boot << 32 | 7),
            earlier: Vec::new(),
            birth: 1,
            agreement: 0,
            ring: 0,
        }
    }

    fn datagrams(cluster: &str, keys: Option<&DatagramKeys>, me: u64, boot: u64) -> Arc<Datagrams> {
        Datagrams::new(cluster, keys, MemberId(me), who(me, boot).boot).0
    }

    fn sealed(datagrams: &Datagrams, plain: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        assert!(datagrams.close(plain, &mut bytes));
        bytes
    }

    const NOW: Instant = Instant(0);

    /// As core makes it.
    fn made(cluster: ClusterId, sender: u64, seq: u64, rest: &[u8]) -> Vec<u8> {
        Stamp { cluster, sender: MemberId(sender), seq }.join(rest)
    }

    /// Whatever is changed on its way, and what another cluster sent, is dropped.
    #[test]
    fn without_keys_a_checksum_tells_clusters_apart() {
        let (ours, theirs) = (datagrams("ours", None, 1, 1), datagrams("theirs", None, 1, 1));
        let datagram = sealed(&ours, b"ping");
        assert_eq!(ours.open(NOW, &mut datagram.clone()).as_deref(), Some(&b"ping"[..]));
        assert_eq!(theirs.open(NOW, &mut datagram.clone()), None);
        for bit in 0..datagram.len() * 8 {
            let mut damaged = datagram.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(ours.open(NOW, &mut damaged), None, "bit {bit}");
        }
        assert_eq!(ours.open(NOW, &mut [1, 2, 3]), None);
    }

    /// With keys a member is heard from its handshake on, also if that came before the cluster was known; each datagram
    /// once, and none of an earlier start.
    #[test]
    fn with_keys_a_handshake_introduces() {
        let keys = keys();
        let one = datagrams("ring", Some(&keys), 1, 3);
        let two = datagrams("ring", Some(&keys), 2, 1);
        let cluster = ClusterId(5);
        let ping = made(cluster, 1, 5, b"ping");
        let mut bytes = Vec::new();
        assert!(!one.close(&ping, &mut bytes) && bytes.is_empty(), "the cluster is unknown");
        one.begin(NOW, cluster);
        let datagram = sealed(&one, &ping);
        assert!(datagram.len() <= ping.len() + AUTHENTICATION_BYTES);

        assert_eq!(two.open(NOW, &mut datagram.clone()), None, "too early");
        two.introduce(NOW, &who(1, 3));
        two.begin(NOW, cluster);
        assert_eq!(two.open(NOW, &mut datagram.clone()), Some(ping.clone()));
        assert_eq!(two.open(NOW, &mut datagram.clone()), None, "twice");
        two.introduce(NOW, &who(1, 3));
        assert_eq!(two.open(NOW, &mut datagram.clone()), None, "after another handshake");

        let pong = made(cluster, 2, 1, b"pong");
        let datagram = sealed(&two, &pong);
        assert_eq!(one.open(NOW, &mut datagram.clone()), None, "never introduced");
        one.introduce(NOW, &who(2, 1));
        assert_eq!(one.open(NOW, &mut datagram.clone()), Some(pong));

        let before = sealed(&one, &made(cluster, 1, 6, b"of start 3"));
        two.introduce(NOW, &who(1, 4));
        assert_eq!(two.open(NOW, &mut before.clone()), None, "it was started again");
        two.introduce(NOW, &who(1, 3));
        assert_eq!(two.open(NOW, &mut before.clone()), None, "and does not go back");

        // What is not this member's, or was sealed before, is not sent.
        for other in [ping, made(ClusterId(6), 1, 9, b"x"), made(cluster, 2, 9, b"x"), vec![0; 9]] {
            assert!(!one.close(&other, &mut bytes) && bytes.is_empty(), "{other:?}");
        }
    }

    /// Keys of another cluster are none.
    #[test]
    fn other_keys_open_nothing() {
        let one = datagrams("ring", Some(&keys()), 1, 1);
        let two = datagrams("ring", Some(&keys()), 1, 1);
        let plain = datagrams("ring", None, 1, 1);
        let cluster = ClusterId(5);
        for datagrams in [&one, &two] {
            datagrams.introduce(NOW, &who(1, 1));
            datagrams.begin(NOW, cluster);
        }
        let ping = made(cluster, 1, 1, b"ping");
        let datagram = sealed(&one, &ping);
        assert_eq!(two.open(NOW, &mut datagram.clone()), None);
        assert_eq!(plain.open(NOW, &mut datagram.clone()), None);
        assert_eq!(two.open(NOW, &mut sealed(&plain, &ping)), None);
        assert_eq!(one.open(NOW, &mut datagram.clone()), Some(ping));
    }

    /// A full queue drops and counts; nothing waits.
    #[test]
    fn what_does_not_fit_is_dropped() {
        let (datagrams, mut out) = Datagrams::new("ring", None, MemberId(1), Boot(1 << 32));
        let to = SocketAddr::from(([127, 0, 0, 1], 1));
        for _ in 0..OUTGOING_MAX + 3 {
            datagrams.send(to, vec![1]);
        }
        assert_eq!(datagrams.counts().dropped, 3);
        datagrams.end();
        datagrams.send(to, vec![1]);
        assert_eq!(datagrams.counts().dropped, 4);
        let left = std::iter::from_fn(|| out.blocking_recv()).count();
        assert_eq!(left, OUTGOING_MAX, "what waited is still sent");
    }

    #[test]
    fn addresses_are_those_that_others_use() {
        let v4 = SocketAddr::from(([10, 0, 0, 1], 7));
        let mapped: SocketAddr = "[::ffff:10.0.0.1]:7".parse().expect("an address");
        assert_eq!(plain_address(mapped), v4);
        assert_eq!((reachable(v4, true), reachable(v4, false)), (mapped, v4));
    }
}
