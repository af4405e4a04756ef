//! What a member is told at its start: who it is, whom it knows, and every limit.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::time::Duration;

use serde::{Deserialize, Serialize};

/// The configuration of one member. Times are of the member's own monotonic clock.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Name of the cluster: members of two names never talk. 1 to 255 bytes.
    pub cluster: String,
    /// This member's own name, one of `members` (any name for a client). 1 to 255 bytes.
    pub name: String,
    /// A client joins, routes and calls, and owns nothing; it stores nothing either.
    pub client: bool,
    /// Name and address of every member of the cluster, itself included, the same list (in any order) on all. For
    /// a client: the addresses to begin with, names ignored. Empty on a member: a cluster of one.
    pub members: Vec<(String, String)>,
    /// Addresses of members of a cluster that exists, for a member that joins it: it asks any of them, again and again,
    /// and creates no cluster. `members` is empty then, and shards and replication are the cluster's.
    pub join: Vec<String>,
    /// How many members found the cluster, where no list of `members` says it: they find each other over `join` and
    /// create it once, together, when all are there; whoever comes later joins it. The same on all. None: this member
    /// only joins.
    pub expect: Option<u16>,
    /// Where others reach a member that joins.
    pub address: String,
    /// A member's share of the shards beside the others'; 0: none.
    pub weight: u16,
    /// Whether the application is told at once what it owns and what it does not any more.
    pub watch_ring: bool,
    /// Where others reach this member with datagrams. None: it does not gossip, and takes those for alive to whom it is
    /// connected. A client never gossips.
    pub gossip: Option<SocketAddr>,
    /// The application's own data about this member, which the others are told of by gossip: sorted by key, each key
    /// once, at most 32, and with the name about 480 bytes.
    pub tags: Vec<(String, String)>,
    /// Number of shards, fixed when the cluster is created.
    pub shards: u32,
    /// Replicas of each shard, at most this many.
    pub replication: u32,
    /// All timers.
    pub timers: Timers,
    /// How fast this member finds out who is alive, if it gossips.
    pub detector: Detector,
    /// All limits.
    pub limits: Limits,
}

/// Times that protocols wait.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Timers {
    /// A follower that hears nothing for a time drawn from `election_min..election_max` stands for election.
    pub election_min: Duration,
    /// See `election_min`.
    pub election_max: Duration,
    /// A leader shows itself this often.
    pub heartbeat: Duration,
    /// A broken connection is dialled again after this long, doubled with each failure...
    pub redial_min: Duration,
    /// ... up to this long.
    pub redial_max: Duration,
    /// A connection that has not shaken hands by then is closed.
    pub handshake: Duration,
    /// A call without an answer is sent again after this long.
    pub retry: Duration,
    /// A session idle for half of this is not used again: its group may have forgotten it. Groups do after 60 s of
    /// shard time, whatever stands here.
    pub session_ttl: Duration,
    /// A scan's snapshot that nobody asks for is closed after this long.
    pub cursor_ttl: Duration,
    /// What a member holds is moved elsewhere when it has been away for this long.
    pub replace_after: Duration,
}

/// How fast a member that gossips finds out who is alive: the failure detector of SWIM with Lifeguard, see
/// [`membership`](crate::membership). Faster means more datagrams, and more members that are suspected because their machine
/// was slow. Members of one cluster may differ; each detects at its own pace then.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Detector {
    /// Each member probes one other so often (SWIM's protocol period). At least 10 ms, at most an hour. Default: 1 s.
    pub probe_interval: Duration,
    /// A probe waits this long for a direct answer before others are asked to probe too. Less than `probe_timeout`, at
    /// least 1 ms. Default: 300 ms.
    pub ping_timeout: Duration,
    /// A probe that has no answer at all after this long makes its target a suspect. At most `probe_interval`. Default:
    /// 750 ms.
    pub probe_timeout: Duration,
    /// How many others are asked then (k in SWIM). At most 16. Default: 3.
    pub indirect_probes: u32,
    /// A suspect has so many probe intervals to refute when others suspect it too, more in clusters of more than ten
    /// (alpha in Lifeguard). 1 to 100. Default: 5.
    pub suspicion_min: u32,
    /// ... and this times as long if nobody else does (beta in Lifeguard). 1 to 100. Default: 6.
    pub suspicion_max: u32,
    /// Two members compare all that they know of the others this often. At least `probe_interval`, at most a day.
    /// Default: 30 s.
    pub sync_interval: Duration,
    /// A member that is dead is probed this often, so that a healed split is noticed. At least `probe_interval`, at most a
    /// day. Default: 10 s.
    pub dead_probe_interval: Duration,
}

impl Detector {
    /// One that probes so often, and whose probes time out after `probe_timeout`; without, after the same share of the
    /// interval as by default. `ping_timeout` has its share of that, the rest is as by default.
    #[must_use]
    pub fn paced(probe_interval: Duration, probe_timeout: Option<Duration>) -> Self {
        let probe_timeout = probe_timeout.unwrap_or(probe_interval / 4 * 3);
        let ping_timeout = probe_timeout / 5 * 2;
        Self { probe_interval, ping_timeout, probe_timeout, ..Self::default() }
    }

    /// Checks every field.
    ///
    /// # Errors
    /// The first that cannot be used, what it may be, and what to change. The caller's fault.
    pub fn check(&self) -> Result<(), ConfigError> {
        let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
        let interval = self.probe_interval;
        let wrong = |field, problem| Err(ConfigError { field, problem });
        if interval < PROBE_INTERVAL_MIN || interval > hour {
            let problem = format!("{interval:?}; {PROBE_INTERVAL_MIN:?} to an hour are allowed");
            return wrong("detector.probe_interval", problem);
        }
        if self.probe_timeout > interval {
            let problem = format!(
                "{:?} is longer than probe_interval, {interval:?}: a probe ends before the next begins; lower the \
                 one or raise the other",
                self.probe_timeout
            );
            return wrong("detector.probe_timeout", problem);
        }
        if self.ping_timeout < PING_TIMEOUT_MIN || self.ping_timeout >= self.probe_timeout {
            let problem = format!(
                "{:?}; at least {PING_TIMEOUT_MIN:?} and less than probe_timeout, {:?}, are allowed, so that time is \
                 left to ask others",
                self.ping_timeout, self.probe_timeout
            );
            return wrong("detector.ping_timeout", problem);
        }
        for (field, time) in [
            ("detector.sync_interval", self.sync_interval),
            ("detector.dead_probe_interval", self.dead_probe_interval),
        ] {
            if time < interval || time > day {
                let problem = format!(
                    "{time:?}; probe_interval, {interval:?}, to a day are allowed: it is no work for every probe"
                );
                return wrong(field, problem);
            }
        }
        for (field, number, min, max) in [
            ("detector.indirect_probes", self.indirect_probes, 0, 16),
            ("detector.suspicion_min", self.suspicion_min, 1, 100),
            ("detector.suspicion_max", self.suspicion_max, 1, 100),
        ] {
            if number < min || number > max {
                return wrong(field, format!("{number}; {min} to {max} are allowed"));
            }
        }
        Ok(())
    }
}

impl Default for Detector {
    fn default() -> Self {
        Self {
            probe_interval: Duration::from_secs(1),
            ping_timeout: Duration::from_millis(300),
            probe_timeout: Duration::from_millis(750),
            indirect_probes: 3,
            suspicion_min: 5,
            suspicion_max: 6,
            sync_interval: Duration::from_secs(30),
            dead_probe_interval: Duration::from_secs(10),
        }
    }
}

const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(10);
const PING_TIMEOUT_MIN: Duration = Duration::from_millis(1);

/// Bounds of everything that grows. Bytes where bytes are held.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limits {
    /// Longest key.
    pub key_bytes: usize,
    /// Longest value.
    pub value_bytes: usize,
    /// Longest name of a partition.
    pub name_bytes: usize,
    /// Most bytes of keys and values in one batch command.
    pub batch_bytes: usize,
    /// Most operations in one batch command.
    pub batch_ops: usize,
    /// Most keys on one page of a scan...
    pub scan_keys: usize,
    /// ... and most bytes.
    pub scan_bytes: usize,
    /// Most calls of the application in flight on this member...
    pub calls: usize,
    /// ... and most bytes in them.
    pub calls_bytes: usize,
    /// Most commands of one session in flight.
    pub session_window: u64,
    /// Most bytes of proposals that a member holds, over all groups that it leads, without having applied them; a
    /// group that holds none takes at least one.
    pub proposal_bytes: usize,
    /// Most bytes of entries in one append message.
    pub append_bytes: usize,
    /// Most entries in one append message.
    pub append_entries: usize,
    /// Most appends on their way to one follower of one group.
    pub appends_in_flight: usize,
    /// Most bytes of a group's log kept in memory behind what its store has synced, for followers that lag.
    pub log_tail_bytes: usize,
    /// A segment of the log is closed when it has grown past this.
    pub segment_bytes: u64,
    /// When the log's files hold more than this the store is synced and the log cut.
    pub log_bytes: u64,
    /// Bytes of changes that a replica remembers for those who watch, in each group...
    pub history_bytes: usize,
    /// ... and for how long, in shard time.
    pub history_time: Duration,
    /// Bytes of one chunk of a snapshot.
    pub chunk_bytes: usize,
    /// Most bytes a second of snapshots that a member sends to replicas that move, over all groups that it leads, while it is
    /// called; eight times as many while nobody calls it. What is left of the processor, the disk and the network is for
    /// calls; how long a move takes follows from it. Past it a snapshot waits, but for one that would be outrun by the
    /// log, and one for a voter. At least 4 KiB.
    pub transfer_bytes: u64,
    /// Most scan snapshots open on this member.
    pub cursors: usize,
    /// Most reads waiting on this member, and as many that wait for changes.
    pub reads: usize,
    /// Most connections that have not yet shaken hands, and most members that are connected and not registered.
    pub strangers: usize,
    /// Most clients connected to this member.
    pub clients: usize,
    /// Most groups that change their members at once.
    pub moves: u64,
    /// Most members of the cluster.
    pub members: usize,
    /// Most keys that are tracked.
    pub tracks: usize,
    /// Longest body of a request or a response.
    pub body_bytes: usize,
    /// Most bytes of headers of a request or a response.
    pub headers_bytes: usize,
    /// Most requests of this node that wait for an answer...
    pub requests: usize,
    /// ... and most bytes in them.
    pub requests_bytes: usize,
    /// Most requests that this node handles at once...
    pub handlers: usize,
    /// ... and most bytes in them and in their answers that are not sent.
    pub handlers_bytes: usize,
    /// Most ends of streams open on this node, of its own requests and of those that it handles. Each may hold
    /// [`STREAM_WINDOW`](crate::request::STREAM_WINDOW) bytes.
    pub streams: usize,
}

impl Default for Timers {
    fn default() -> Self {
        Self {
            election_min: Duration::from_millis(500),
            election_max: Duration::from_millis(1000),
            heartbeat: Duration::from_millis(100),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(1),
            handshake: Duration::from_secs(5),
            retry: Duration::from_millis(500),
            session_ttl: Duration::from_secs(60),
            cursor_ttl: Duration::from_secs(30),
            replace_after: Duration::from_secs(300),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            key_bytes: 64 << 10,
            value_bytes: 8 << 20,
            name_bytes: 255,
            batch_bytes: 12 << 20,
            batch_ops: 4096,
            scan_keys: 4096,
            scan_bytes: 1 << 20,
            calls: 65_536,
            calls_bytes: 64 << 20,
            session_window: 4096,
            proposal_bytes: 32 << 20,
            append_bytes: 256 << 10,
            append_entries: 1024,
            appends_in_flight: 64,
            log_tail_bytes: 1 << 20,
            segment_bytes: 64 << 20,
            log_bytes: 256 << 20,
            history_bytes: 1 << 20,
            history_time: Duration::from_secs(600),
            chunk_bytes: 256 << 10,
            transfer_bytes: 4 << 20,
            cursors: 1024,
            reads: 65_536,
            strangers: 128,
            clients: 1024,
            moves: 8,
            members: 255,
            tracks: 65_536,
            body_bytes: 8 << 20,
            headers_bytes: 64 << 10,
            requests: 65_536,
            requests_bytes: 64 << 20,
            handlers: 16_384,
            handlers_bytes: 64 << 20,
            streams: 1024,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cluster: String::from("ring"),
            name: String::from("one"),
            client: false,
            members: Vec::new(),
            join: Vec::new(),
            expect: None,
            address: String::new(),
            weight: 1,
            watch_ring: true,
            gossip: None,
            tags: Vec::new(),
            shards: 64,
            replication: 3,
            timers: Timers::default(),
            detector: Detector::default(),
            limits: Limits::default(),
        }
    }
}

/// A configuration that cannot be used: names the field, what is wrong and what is allowed. The caller's fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The field of [`Config`].
    pub field: &'static str,
    /// What is wrong with it, and what would be right.
    pub problem: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "configuration: {}: {}", self.field, self.problem)
    }
}

impl core::error::Error for ConfigError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ClusterId;
    use crate::membership;

    fn of(detector: &Detector) -> Result<(), ConfigError> {
        membership::Config::new(ClusterId(1)).paced(detector).check()
    }

    #[test]
    fn the_default_detector_is_the_default_of_membership() {
        let config = membership::Config::new(ClusterId(1));
        assert_eq!(config.clone().paced(&Detector::default()), config);
        assert_eq!(Detector::paced(Duration::from_secs(1), None), Detector::default());
    }

    /// What is let in here is let in there: the failure detector begins when the member is up, too late to refuse.
    #[test]
    fn what_is_allowed_can_be_used() {
        let (ms, hour) = (Duration::from_millis, Duration::from_secs(3600));
        let fastest = Detector {
            ping_timeout: PING_TIMEOUT_MIN,
            probe_timeout: ms(2),
            indirect_probes: 0,
            suspicion_min: 1,
            suspicion_max: 1,
            sync_interval: PROBE_INTERVAL_MIN,
            dead_probe_interval: PROBE_INTERVAL_MIN,
            probe_interval: PROBE_INTERVAL_MIN,
        };
        let slowest = Detector {
            probe_timeout: hour,
            ping_timeout: hour - ms(1),
            indirect_probes: 16,
            suspicion_min: 100,
            suspicion_max: 100,
            sync_interval: hour * 24,
            dead_probe_interval: hour * 24,
            probe_interval: hour,
        };
        for detector in [fastest, slowest, Detector::paced(ms(10), None)] {
            assert_eq!((detector.check(), of(&detector)), (Ok(()), Ok(())), "{detector:?}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_named_with_the_way_out() {
        let (ms, good) = (Duration::from_millis, Detector::default());
        for (detector, field, problem) in [
            (
                Detector { probe_interval: ms(9), ..good.clone() },
                "probe_interval",
                "9ms; 10ms to an hour",
            ),
            (
                Detector { probe_interval: ms(700), ..good.clone() },
                "probe_timeout",
                "longer than probe_interval, 700ms",
            ),
            (
                Detector { ping_timeout: ms(750), ..good.clone() },
                "ping_timeout",
                "less than probe_timeout, 750ms",
            ),
            (Detector { ping_timeout: ms(0), ..good.clone() }, "ping_timeout", "at least 1ms"),
            (
                Detector { sync_interval: ms(999), ..good.clone() },
                "sync_interval",
                "probe_interval, 1s, to a day",
            ),
            (
                Detector { dead_probe_interval: ms(1), ..good.clone() },
                "dead_probe_interval",
                "to a day",
            ),
            (Detector { indirect_probes: 17, ..good.clone() }, "indirect_probes", "17; 0 to 16"),
            (Detector { suspicion_min: 0, ..good.clone() }, "suspicion_min", "0; 1 to 100"),
            (Detector { suspicion_max: 101, ..good.clone() }, "suspicion_max", "101; 1 to 100"),
        ] {
            let refused = detector.check().unwrap_err();
            assert_eq!(refused.field.strip_prefix("detector."), Some(field));
            assert!(refused.problem.contains(problem), "{refused}");
        }
    }
}
