//! Every protocol of libring, as one deterministic state machine without I/O.
//!
//! | module | what it is |
//! |---|---|
//! | [`io`] | the contract with the world: inputs, outputs, [`World`], [`carry_out`] |
//! | [`node`] | one member: where the machines meet |
//! | [`membership`] | who is alive: SWIM with Lifeguard |
//! | [`raft`] | one replicated log |
//! | [`storage`] | the member's own log: records, segments, recovery |
//! | [`request`] | requests to the owner of a key, and their streams |
//! | [`ring`] | the hash ring: which slot a name has, which members slots and shards fall to |
//! | [`shard`] | what a group replicates: sessions and partitions, applied on the store thread |
//! | [`store`] | what core asks of the ordered store that the world brings |
//! | [`wire`] | messages and frames |
//! | [`genesis`] | how a cluster begins |
//! | [`ids`], [`time`], [`rng`], [`config`] | what they share |
#![no_std]
#![cfg_attr(
    test,
    allow(
        clippy::wildcard_enum_match_arm,
        clippy::as_conversions,
        reason = "a test names what it expects and refuses the rest"
    )
)]

extern crate alloc;

mod budget;
pub mod config;
pub mod directory;
mod founding;
mod gathering;
pub mod genesis;
mod group;
pub mod ids;
pub mod io;
mod link;
pub mod membership;
pub mod node;
pub mod raft;
pub mod request;
pub mod ring;
pub mod rng;
mod router;
pub mod shard;
pub mod storage;
pub mod store;
pub mod time;
pub mod wire;

pub use config::{Config, ConfigError};
pub use io::{Input, Outbox, Output, World, carry_out};
pub use node::{Node, Restored, StartError};
