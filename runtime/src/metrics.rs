//! What an operator wants to measure: one snapshot, and the same as Prometheus text over HTTP.
//!
//! The HTTP server answers `GET /metrics` and refuses everything else. It is for a scraper on a network that one
//! trusts: nothing is encrypted, and nobody is asked who they are. A connection gets one answer, within a bounded time,
//! after a head of bounded length, and there is room for few connections at once.

use std::fmt::Write as _;
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use ring_core::ids::len_u64;
use ring_core::io::Failure;
use ring_core::membership::{self, State};
use ring_core::node::View;
use ring_core::time::Instant;
use ring_core::wire::message::{MemberStatus, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};

use crate::error::Error;
use crate::net::DatagramCounts;
use crate::node::{Connections, Node};
use crate::shared::{Item, Shared};

/// Numbers about a node, all of one moment. Counters count from its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metrics {
    /// What the member says of itself: uptime, who is connected, its log's bytes, each replica's term, role and
    /// indexes, what it thinks of the others. Of a client only some of it means anything.
    pub status: MemberStatus,
    /// Registered members.
    pub registered: u64,
    /// Of those the ones that are alive, as far as this node knows.
    pub alive: u64,
    /// Whether more than half of the registered members are connected.
    pub is_ready: bool,
    /// Accepted and closed connections.
    pub connections: Connections,
    /// Datagrams, if the node gossips...
    pub datagrams: Option<DatagramCounts>,
    /// ... and what the failure detector made of them.
    pub gossip: Option<membership::Counters>,
    /// Calls of the application on partitions.
    pub calls: CallCounts,
    /// Requests of this node that wait for an answer.
    pub requests_waiting: u64,
    /// Requests that this node handles at this moment.
    pub requests_handled: u64,
    /// Messages of peers that broke the protocol and were dropped.
    pub peer_faults: u64,
    /// Batches of its log that are durable; none for a client.
    pub batches_stored: u64,
}

/// Numbers about calls on partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct CallCounts {
    /// Under way...
    pub open: u64,
    /// ... and the bytes of keys and values in them.
    pub open_bytes: u64,
    /// Answered.
    pub answered: u64,
    /// Ended with an error: refused, late, or of unknown outcome.
    pub failed: u64,
}

/// What core says for a snapshot.
#[derive(Debug)]
pub(crate) struct Measured {
    status: MemberStatus,
    registered: u64,
    alive: u64,
    gossip: Option<membership::Counters>,
    requests: (usize, usize),
    peer_faults: u64,
    batches_stored: u64,
}

impl Measured {
    pub(crate) fn of(view: View<'_>, now: Instant) -> Self {
        Self {
            status: view.status(now),
            registered: len_u64(view.registered().len()),
            alive: len_u64(view.alive().count()),
            gossip: view.gossip().map(|gossip| *gossip.counters()),
            requests: view.requests(),
            peer_faults: view.peer_faults(),
            batches_stored: view.stored().0,
        }
    }
}

impl Node {
    /// Numbers about this node, all of one moment.
    ///
    /// # Errors
    /// [`Failure::Closed`] when the node has ended.
    pub async fn metrics(&self) -> Result<Metrics, Error> {
        measure(self.inner.shared()).await
    }
}

async fn measure(shared: &Shared) -> Result<Metrics, Error> {
    let (answer, answered) = oneshot::channel();
    let closed = || Error::from(Failure::Closed { maybe: false });
    shared.put(Item::Measure(answer), 0).map_err(|_| closed())?;
    let measured: Measured = answered.await.map_err(|_| closed())?;
    let Measured { status, registered, alive, gossip, requests, peer_faults, batches_stored } =
        measured;
    Ok(Metrics {
        status,
        registered,
        alive,
        is_ready: shared.is_ready.load(Ordering::Relaxed),
        connections: shared.counters.read(),
        datagrams: shared.datagrams.get().map(|datagrams| datagrams.counts()),
        gossip,
        calls: shared.call_counts(),
        requests_waiting: len_u64(requests.0),
        requests_handled: len_u64(requests.1),
        peer_faults,
        batches_stored,
    })
}

impl Metrics {
    /// The same in the text format of Prometheus (version 0.0.4 of its exposition format).
    #[must_use]
    pub fn to_prometheus(&self) -> String {
        let mut text = Text::default();
        let status = &self.status;
        text.gauge("ring_uptime_seconds", "Seconds since the start", status.uptime / NANOS);
        text.gauge("ring_ready", "1 while a majority is connected", u64::from(self.is_ready));
        text.gauge("ring_members_registered", "Registered members", self.registered);
        text.gauge("ring_members_alive", "Registered members that are alive", self.alive);
        let count = |state: State| {
            len_u64(status.members.iter().filter(|(_, thought)| *thought == state).count())
        };
        text.gauge("ring_members_suspect", "Members that are suspected", count(State::Suspect));
        text.gauge("ring_members_connected", "Connected members", len_u64(status.connected.len()));
        text.gauge("ring_clients", "Connected clients", status.clients);
        self.groups(&mut text);
        text.gauge("ring_log_bytes", "Bytes of the log's files", status.log_bytes);
        text.counter("ring_log_batches_total", "Durable batches of the log", self.batches_stored);
        let calls = &self.calls;
        text.gauge("ring_calls_open", "Calls under way", calls.open);
        text.gauge("ring_calls_open_bytes", "Bytes in calls under way", calls.open_bytes);
        text.counter("ring_calls_answered_total", "Calls that were answered", calls.answered);
        text.counter("ring_calls_failed_total", "Calls that ended with an error", calls.failed);
        text.gauge("ring_requests_waiting", "Own requests without answer", self.requests_waiting);
        text.gauge("ring_requests_handled", "Requests being handled", self.requests_handled);
        text.counter(
            "ring_peer_faults_total",
            "Messages that broke the protocol",
            self.peer_faults,
        );
        self.network(&mut text);
        text.0
    }

    fn groups(&self, text: &mut Text) {
        let groups = &self.status.groups;
        let led = groups.iter().filter(|group| group.role == Role::Leader);
        let orphans = groups.iter().filter(|group| group.leader.is_none());
        text.gauge("ring_replicas", "Replicas on this member", len_u64(groups.len()));
        text.gauge("ring_replicas_leading", "Of those, leaders", len_u64(led.count()));
        text.gauge(
            "ring_replicas_leaderless",
            "Of those, without leader",
            len_u64(orphans.count()),
        );
        let behind = groups.iter().map(|group| group.commit.0.saturating_sub(group.applied.0));
        let (most, sum) = (behind.clone().max().unwrap_or(0), behind.sum());
        text.gauge("ring_apply_lag_entries", "Committed entries not applied, all shards", sum);
        text.gauge("ring_apply_lag_entries_max", "The same of the worst shard", most);
        let applied = groups.iter().map(|group| group.applied.0).sum();
        text.gauge("ring_applied_entries", "Applied entries, all shards", applied);
    }

    fn network(&self, text: &mut Text) {
        let Connections { accepted, turned_away, garbage, overflows, refused, unsecured } =
            self.connections;
        text.counter("ring_connections_accepted_total", "Accepted connections", accepted);
        let values = [
            ("turned_away", turned_away),
            ("garbage", garbage),
            ("overflow", overflows),
            ("certificate", refused),
            ("unsecured", unsecured),
        ];
        text.counters(
            "ring_connections_closed_total",
            "Connections that were closed, by reason",
            "reason",
            &values,
        );
        if let Some(counts) = self.datagrams {
            let DatagramCounts { sent, received, refused, replayed, dropped, failed } = counts;
            let values = [
                ("sent", sent),
                ("received", received),
                ("refused", refused),
                ("replayed", replayed),
                ("dropped", dropped),
                ("failed", failed),
            ];
            text.counters(
                "ring_datagrams_total",
                "Datagrams, by what became of them",
                "what",
                &values,
            );
        }
        if let Some(gossip) = &self.gossip {
            text.counter("ring_gossip_probes_total", "Probes begun", gossip.probes);
            let failed = gossip.probes_failed;
            text.counter("ring_gossip_probes_failed_total", "Probes nobody answered", failed);
            text.counter("ring_gossip_syncs_total", "Comparisons of views begun", gossip.syncs);
            let values = [
                ("malformed", gossip.malformed),
                ("other_cluster", gossip.other_cluster),
                ("other_version", gossip.other_version),
                ("replayed", gossip.replayed),
                ("stale", gossip.stale),
                ("unproven", gossip.unproven),
                ("misdirected", gossip.misdirected),
                ("twin", gossip.twin),
            ];
            text.counters(
                "ring_gossip_dropped_total",
                "Datagrams of gossip that were not taken, by reason",
                "reason",
                &values,
            );
        }
    }
}

/// Text that Prometheus reads.
#[derive(Default)]
struct Text(String);

impl Text {
    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "gauge", help);
        self.sample(name, "", value);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        self.sample(name, "", value);
    }

    /// One counter for each value of a label.
    fn counters(&mut self, name: &str, help: &str, label: &str, values: &[(&str, u64)]) {
        self.head(name, "counter", help);
        for (of, value) in values {
            self.sample(name, &format!("{{{label}=\"{of}\"}}"), *value);
        }
    }

    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // To write to a string does not fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.0, "{name}{labels} {value}");
    }
}

/// Answers scrapers until it is aborted or the node is gone.
pub(crate) async fn serve(listener: TcpListener, shared: Weak<Shared>) {
    let places = Arc::new(Semaphore::new(PLACES));
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection for metrics");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Who finds no place is turned away: its connection is closed here.
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else { continue };
        let shared = Weak::clone(&shared);
        tokio::spawn(async move {
            // A scraper that is too slow, or gone, has no answer; that is its affair.
            drop(timeout(ANSWER_TIME, answer(socket, &shared)).await);
            drop(place);
        });
    }
}

async fn answer(mut socket: TcpStream, shared: &Weak<Shared>) -> io::Result<()> {
    let (status, body) = match head(&mut socket).await? {
        Head::Scrape => match shared.upgrade() {
            Some(shared) => match measure(&shared).await {
                Ok(metrics) => ("200 OK", metrics.to_prometheus()),
                Err(error) => ("503 Service Unavailable", format!("{error}\n")),
            },
            None => ("503 Service Unavailable", "the node has ended\n".into()),
        },
        Head::Refused(status) => (status, format!("{status}: GET /metrics is all there is\n")),
    };
    let len = body.len();
    let allow = if status.starts_with("405") { "Allow: GET\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {len}\r\n{allow}Connection: close\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await?;
    socket.write_all(body.as_bytes()).await?;
    socket.shutdown().await
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
enum Head {
    Scrape,
    Refused(&'static str),
}

/// Reads the head of a request (RFC 9112, section 2.1) to its end, and no further.
async fn head(socket: &mut TcpStream) -> io::Result<Head> {
    let mut bytes = Vec::new();
    while !bytes.windows(4).any(|end| end == b"\r\n\r\n") {
        if bytes.len() >= HEAD_BYTES {
            return Ok(Head::Refused("431 Request Header Fields Too Large"));
        }
        let mut part = [0; 1024];
        match socket.read(&mut part).await? {
            0 => return Ok(Head::Refused("400 Bad Request")),
            len => bytes.extend_from_slice(&part[..len]),
        }
    }
    Ok(judge(&bytes))
}

fn judge(head: &[u8]) -> Head {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match words[..] {
        [method, target, version] if version.starts_with(b"HTTP/1.") => {
            let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
            match (method, path) {
                (b"GET", b"/metrics") => Head::Scrape,
                (_, b"/metrics") => Head::Refused("405 Method Not Allowed"),
                (_, _) => Head::Refused("404 Not Found"),
            }
        }
        _ => Head::Refused("400 Bad Request"),
    }
}

const NANOS: u64 = 1_000_000_000;
/// Connections of scrapers at once.
const PLACES: usize = 16;
/// How long one may take, from the first byte to the last.
const ANSWER_TIME: Duration = Duration::from_secs(5);
/// Longest head.
const HEAD_BYTES: usize = 8 << 10;
/// When no connection can be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use ring_core::ids::MemberId;

    use super::*;

    #[test]
    fn only_a_get_of_metrics_is_answered() {
        let judge = |line: &str| judge(format!("{line}\r\nHost: a\r\n\r\n").as_bytes());
        assert_eq!(judge("GET /metrics HTTP/1.1"), Head::Scrape);
        assert_eq!(judge("GET /metrics?a=b HTTP/1.0"), Head::Scrape);
        assert_eq!(judge("POST /metrics HTTP/1.1"), Head::Refused("405 Method Not Allowed"));
        assert_eq!(judge("GET / HTTP/1.1"), Head::Refused("404 Not Found"));
        for wrong in ["", "GET", "GET /metrics", "GET /metrics HTTP/2", "GET  /metrics HTTP/1.1"] {
            assert_eq!(judge(wrong), Head::Refused("400 Bad Request"), "{wrong}");
        }
    }

    /// Every line is a comment or a sample, and each name is explained once, before its samples.
    #[test]
    fn the_text_is_what_prometheus_reads() {
        let metrics = Metrics {
            status: MemberStatus { uptime: 3 * NANOS, member: MemberId(1), ..Default::default() },
            registered: 3,
            alive: 2,
            is_ready: true,
            connections: Connections { garbage: 7, ..Connections::default() },
            datagrams: Some(DatagramCounts::default()),
            gossip: Some(membership::Counters { replayed: 9, ..Default::default() }),
            calls: CallCounts { failed: 4, ..CallCounts::default() },
            requests_waiting: 0,
            requests_handled: 0,
            peer_faults: 0,
            batches_stored: 5,
        };
        let text = metrics.to_prometheus();
        let mut explained = Vec::new();
        for line in text.lines() {
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let name = kind.split(' ').next().unwrap();
                assert!(!explained.contains(&name), "{name} twice");
                explained.push(name);
            } else if !line.starts_with("# HELP ") {
                let name = line.split(['{', ' ']).next().unwrap();
                assert_eq!(explained.last(), Some(&name), "{line}");
                assert!(line.rsplit(' ').next().unwrap().parse::<u64>().is_ok(), "{line}");
            }
        }
        assert!(text.contains("\nring_connections_closed_total{reason=\"garbage\"} 7\n"));
        assert!(text.contains("\nring_gossip_dropped_total{reason=\"replayed\"} 9\n"));
        assert!(text.contains("\nring_calls_failed_total 4\n") && text.contains("ring_ready 1\n"));
        assert!(text.starts_with("# HELP ring_uptime_seconds") && text.ends_with('\n'));
    }
}
