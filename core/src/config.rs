//! What a member is told at its start: who it is, whom it knows, and every limit.

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
