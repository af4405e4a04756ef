//! One library that makes a program a member of a cluster.
mod clock;
mod directory;
mod engine;
mod error;
mod log;
mod mailbox;
mod net;
mod node;
mod options;
mod partition;
mod shared;
mod store;
mod threads;

pub use bytes::Bytes;
pub use error::{Error, OpenError, ScanError};
pub use node::{Connections, Events, Node};
pub use options::{Data, Options};
pub use partition::{Compared, Info, Item, Partition, Range, Scan, Value};
pub use ring_core::config::{ConfigError, Limits, Timers};
pub use ring_core::genesis::Founder;
pub use ring_core::ids::{Boot, ClusterId, GroupId, LogIndex, MemberId, ReplicaId, Revision, Term};
pub use ring_core::io::{Consistency, Event, Failure, Halt, Refused};
pub use ring_core::shard::command::{Change, Expect};
pub use ring_core::wire::message::{GroupStatus, MemberStatus, Refusal, Role};
pub use shared::explain;
