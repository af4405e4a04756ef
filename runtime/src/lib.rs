//! One library that makes a program a member of a cluster.
//!
//! A program that opens a [`Node`] is a member: no server to install, no coordinator. Alone it is
//! its own majority, and everything works, on disk, without a network. With two more it is a
//! cluster that survives the loss of any one of them, and no call changes.
//!
//! ```
//! use libring::{Data, Node, Options, Range};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // In memory, for this example; by default the data is in the directory `ring-data`.
//! let options = Options { data: Data::Memory, ..Options::default() };
//! let node = Node::open(options).await?;
//!
//! let fruit = node.partition("fruit");
//! fruit.put("apple", "red").await?;
//! fruit.put("plum", "blue").await?;
//!
//! let apple = fruit.get("apple").await?.expect("just written");
//! assert_eq!(apple.value, "red");
//!
//! let mut scan = fruit.scan(Range::prefix("p"));
//! while let Some(item) = scan.next().await? {
//!     println!("{:?} = {:?}", item.key, item.value);
//! }
//! # drop(scan);
//! node.close().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Three members are the same with `members` set to the same three names and addresses on all of
//! them, each with its own name and directory. A program that only wants to call is a client:
//! `client: true` and `join`.
//!
//! # Promises
//!
//! - Calls on a [`Partition`] are linearizable unless they say otherwise. An acknowledged write
//!   survives power loss of any minority and, after restart, of all members (with [`Data::Dir`]).
//! - Every call ends within its deadline. After an error the caller knows whether the call
//!   certainly did not happen or may have: [`Error::is_outcome_unknown`].
//! - Memory is bounded: calls in flight, messages from peers, queues to peers. Past a limit a call
//!   is refused with [`Refused::Full`], a peer waits in its socket, or its connection is closed.
//! - A member that cannot keep its promises (its disk failed, its directory was rolled back) halts:
//!   it writes nothing more, answers every call, and says why: [`Node::halted`].
//!
//! # Threads
//!
//! A node has its own threads, so that calls may come from any executor: one decides (the core
//! thread), one writes the log, one works on the store and one helps it, and few serve sockets. All
//! of them end with the node.
//!
//! A node logs by `tracing`: to the subscriber of the process, or to its own ([`Options::logger`]).
//!
//! # Limits
//!
//! - Without [`Options::keys`] connections are neither encrypted nor authenticated, and nodes listen
//!   on loopback addresses only, unless [`Options::insecure`] is set.
//! - The store holds open scans' snapshots; what they see is not reclaimed before they end.

#[cfg(feature = "bench")]
#[doc(hidden)]
pub mod bench;
mod clock;
mod directory;
mod engine;
mod error;
mod log;
mod logger;
mod mailbox;
mod metrics;
mod net;
mod node;
mod options;
mod partition;
mod request;
mod ring;
pub mod security;
mod shared;
mod store;
mod submit;
mod threads;
mod transport;
mod view;
mod watch;

pub use bytes::Bytes;
pub use error::{Error, OpenError, ScanError};
pub use metrics::{CallCounts, Metrics};
pub use net::DatagramCounts;
pub use node::{Connections, Events, Node};
pub use options::{Data, Options};
pub use partition::{Compared, Info, Item, Local, Partition, Range, Scan, Value};
pub use request::{
    Call, Canceller, HandleError, HandlerError, Incoming, Request, Response, StreamReader,
    StreamWriter,
};
pub use ring::{Track, Tracked};
pub use ring_core::config::{ConfigError, Detector, Limits, Timers};
pub use ring_core::directory::{Assignment, ChangeRefused, Registered, Standing, Table};
pub use ring_core::genesis::Founder;
pub use ring_core::ids::{
    Boot, ClusterId, CursorId, GroupId, LogIndex, MemberId, ReplicaId, RequestId, Revision, Term,
};
pub use ring_core::io::{
    Action, Consistency, Event, Failure, Halt, MemberChange, Peer, Refused, Reply,
};
pub use ring_core::membership::{Counters as GossipCounts, State as MemberState};
pub use ring_core::raft::message::Replica;
pub use ring_core::request::{
    Broken, Failure as RequestFailure, Large, RequestName, STREAM_WINDOW, Waited, Way,
};
pub use ring_core::ring::{Placement, RingEvent, SLOTS, TrackError, slot_of};
pub use ring_core::shard::command::{Change, Changed, Expect};
pub use ring_core::wire::message::{GroupStatus, MemberStatus, Refusal, Role};
pub use security::{Keys, KeysError};
pub use shared::explain;
pub use tracing::Dispatch;
pub use transport::{Acceptor, Connection, Pending, Transport};
pub use view::{Member, View};
pub use watch::{Watch, WatchError};
