//! What a node is told at its start.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ring_core::config::{Config, ConfigError, Detector, Limits, Timers};
use tracing::Dispatch;

use crate::net::{check_address, unix_path};
use crate::security::Keys;
use crate::transport::Transport;

/// How a node is started. Everything has a default: a cluster of one, in the directory `ring-data`.
#[derive(Clone, Debug)]
pub struct Options {
    /// This member's own name, one of `members`; any name for a client. Default: `one`.
    pub name: String,
    /// Name of the cluster: members of two names never talk. Default: `ring`.
    pub cluster: String,
    /// A client joins, routes and calls, and owns nothing: it has no data and does not listen.
    pub client: bool,
    /// Name and address of every member, this one included; the same list on all. An address is `host:port`, or `unix:` and
    /// the absolute path of a Unix domain socket for members on one machine, to which no datagrams go (see `gossip`).
    /// Empty on a member: a cluster of one.
    pub members: Vec<(String, String)>,
    /// Addresses of members to begin with: of a client, or of a member that joins a cluster that exists (`members` is
    /// empty then, and shards and replication are the cluster's). A member tries them again and again and creates no
    /// cluster.
    pub join: Vec<String>,
    /// How many members found the cluster, where no list of `members` says it: those who were told to `join` each other
    /// find each other and create it once, together, when so many are there; whoever comes later joins it. Give all the
    /// same number and the same addresses, each of which leads to one member. None: this member only joins.
    pub expect: Option<u16>,
    /// Where others reach this member (`host:port`, or `unix:/path`). None: where the list of `members` has it, or where it
    /// listens.
    pub advertise: Option<String>,
    /// A member's share of the shards beside the others'; 0: none. Default: 1.
    pub weight: u16,
    /// The application's own data about this member, which the others are told of ([`crate::Node::members`]): each key
    /// once, at most 32, and with the name about 480 bytes. They arrive by gossip.
    pub tags: Vec<(String, String)>,
    /// Whether this member finds out by gossip who is alive: datagrams (UDP) at the port on which it listens. Without,
    /// and where it does not listen, it takes for alive who it is connected to. The same on all members. Default: true.
    pub gossip: bool,
    /// Where to listen (`host:port`, or `unix:/path`; who may connect there the permissions of the directory say). None: on
    /// the own address of `members`; not at all for a cluster of one and for a client.
    pub listen: Option<String>,
    /// Where to tell metrics to scrapers of Prometheus (`host:port`): `GET /metrics` over HTTP. Nothing is encrypted
    /// there, and nobody is asked who they are, whatever `keys` say. None: nowhere.
    pub metrics: Option<String>,
    /// Where the data is.
    pub data: Data,
    /// With keys every connection is encrypted, and both of its sides prove who they are; without,
    /// none is and nobody does. All members of a cluster and all clients have keys, or none.
    pub keys: Option<Keys>,
    /// Allows listening beyond this machine without keys.
    pub insecure: bool,
    /// How nodes reach each other in place of sockets. None: over TCP, or over Unix domain sockets where an address says so.
    pub transport: Option<Arc<dyn Transport>>,
    /// Whether requests for which this member has no handler are turned away, as by one that has too many, until
    /// [`crate::Node::serve`] is called: their callers ask the next in line, or again. For an application that adds its
    /// handlers to an open node: a member that comes back is asked before it can. Default: false, and such requests end with
    /// [`crate::RequestFailure::NoRoute`].
    pub hold_requests: bool,
    /// Where this node logs, and nothing else does but what the application runs on the node's own threads, as its
    /// listeners. A subscriber may not wait for a call of the node, nor for who does. None: to the subscriber of the process.
    pub logger: Option<Dispatch>,
    /// Number of shards; fixed when the cluster is created. Default: 64.
    pub shards: u32,
    /// Replicas of each shard, at most; fixed when the cluster is created. Default: 3.
    pub replication: u32,
    /// All timers of the protocols.
    pub timers: Timers,
    /// How fast this member finds out by gossip who is alive.
    pub detector: Detector,
    /// All limits.
    pub limits: Limits,
    /// How long a call waits for its answer unless it says otherwise. Default: 10 s.
    pub deadline: Duration,
}

/// Where a member keeps its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Data {
    /// In a directory, made when it does not exist. An acknowledged write survives power loss.
    Dir(PathBuf),
    /// In memory alone: log and store end with the node, and so does every promise that it made. A
    /// cluster whose members all keep their data in memory is fine for tests and caches. A member
    /// that restarts comes back as a stranger to its cluster, which refuses it.
    Memory,
}

impl Default for Options {
    fn default() -> Self {
        let config = Config::default();
        Self {
            name: config.name,
            cluster: config.cluster,
            client: false,
            members: Vec::new(),
            join: Vec::new(),
            expect: None,
            advertise: None,
            weight: 1,
            tags: Vec::new(),
            gossip: true,
            listen: None,
            metrics: None,
            data: Data::Dir(PathBuf::from("ring-data")),
            keys: None,
            insecure: false,
            transport: None,
            hold_requests: false,
            logger: None,
            shards: config.shards,
            replication: config.replication,
            timers: config.timers,
            detector: config.detector,
            limits: config.limits,
            deadline: Duration::from_secs(10),
        }
    }
}

impl Options {
    /// What core is told.
    pub(crate) fn config(&self) -> Config {
        // Which port it will be is not known yet; on which of this machine's addresses others come is not, either.
        let is_open = |listen: &String| {
            listen.ends_with(":0") && self.transport.is_none() && unix_path(listen).is_none()
        };
        let listen = self.listen.clone();
        let listen = listen.filter(|listen| !is_open(listen) && !self.is_everywhere(listen));
        let address = self.reached_at().map(String::from).or(listen).unwrap_or_default();
        let (members, join) = match self.client {
            true => (self.join.iter().map(|a| (String::new(), a.clone())).collect(), Vec::new()),
            false => (self.members.clone(), self.join.clone()),
        };
        let mut tags = self.tags.clone();
        tags.sort();
        Config {
            cluster: self.cluster.clone(),
            name: self.name.clone(),
            client: self.client,
            members,
            join,
            expect: self.expect.filter(|_| !self.client),
            address,
            weight: self.weight,
            watch_ring: true,
            // Known when it listens.
            gossip: None,
            tags,
            shards: self.shards,
            replication: self.replication,
            timers: self.timers.clone(),
            detector: self.detector.clone(),
            limits: self.limits.clone(),
        }
    }

    /// What is wrong with an address of this node or another.
    pub(crate) fn check_address(&self, address: &str) -> Result<(), String> {
        match self.transport {
            // Its addresses are its own.
            Some(_) if address.is_empty() => Err(String::from("an address is empty")),
            Some(_) => Ok(()),
            None => check_address(address),
        }
    }

    /// Every address must be one that could be dialled or listened on: one that was mistyped would else be tried for ever.
    pub(crate) fn check_addresses(&self) -> Result<(), ConfigError> {
        let join = self.join.iter().map(|address| ("join", address));
        let members = self.members.iter().map(|(_, address)| ("members", address));
        let listen = self.listen.iter().map(|address| ("listen", address));
        let advertise = self.advertise.iter().map(|address| ("advertise", address));
        for (field, address) in join.chain(members).chain(listen).chain(advertise) {
            self.check_address(address).map_err(|problem| ConfigError { field, problem })?;
            if ["members", "advertise"].contains(&field) && self.is_everywhere(address) {
                let problem =
                    format!("{address:?} is where one listens, not where others reach it");
                return Err(ConfigError { field, problem });
            }
        }
        Ok(())
    }

    /// Whether an address stands for all that a machine has, as `0.0.0.0` does: one listens there, and is not reached there.
    pub(crate) fn is_everywhere(&self, address: &str) -> bool {
        let parsed = address.parse().is_ok_and(|parsed: SocketAddr| parsed.ip().is_unspecified());
        parsed && self.transport.is_none()
    }

    /// Where others reach this node, as far as it was told.
    pub(crate) fn reached_at(&self) -> Option<&str> {
        let own = self.members.iter().find(|(name, _)| *name == self.name);
        self.advertise.as_deref().or(own.map(|(_, address)| &**address))
    }

    /// Where this node listens, if it does.
    pub(crate) fn listen_address(&self) -> Option<String> {
        if self.client {
            return None;
        }
        let own = self.members.iter().find(|(name, _)| *name == self.name);
        self.listen.clone().or_else(|| own.map(|(_, address)| address.clone()))
    }
}
