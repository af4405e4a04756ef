//! What a group replicates: partitions and client sessions, applied on the store thread.
//!
//! Core hands committed entries to the world as [`StoreTask`](crate::store::StoreTask)s; the world
//! runs them through a [`Worker`] over the [`Store`](crate::store::Store) that it brings, and hands
//! the answers back. Everything here is a function of the entries alone, so that all replicas
//! agree; a digest over the history shows whether they do.
//!
//! | part | what it is |
//! |---|---|
//! | [`command`] | what is asked and answered, as it stands in the log and on the wire |
//! | `worker` | carries tasks out in order; gathers what was applied into one batch of writes |
//! | `apply` | what an entry does to a group |
//! | `session` | exactly once: what a group remembers of each client |
//! | `state` | what a group has in memory, and how it stands in the store |
//! | `read` | questions, and the snapshots of scans |
//! | `history` | the last changes, for those who watch |
//! | `transfer` | a group's state on its way to another replica, and its installation |
//! | `key` | the layout of keys in the store |
//! | `pending`, `kept` | the batch in the making; things kept for a while |
//!
//! # Exactly once
//!
//! A session's commands apply in the order of their numbers, each once (RIFL). One that comes again
//! gets the outcome it had at first; one that comes too early is told where to go on; one of an
//! unknown session changes nothing. A session lives for 60 s of shard time after its last command,
//! and 4096 of them live at once in a group; a session keeps its last 4096 replies at most, a group
//! 262,144. Shard time stands in the entries, so all replicas forget at the same entry.
//!
//! # Installing a snapshot
//!
//! A group's keys stand under an *epoch*. A received snapshot is written under a new one, which
//! nothing reads, made durable, and becomes current when one pointer is turned; what is applied up
//! to, sessions and data turn with it. A crash leaves the old state or the new one, whole. The keys
//! of epochs that do not count are dropped bit by bit, some at the end of each [`Worker::run`].
//!
//! # Limits
//!
//! - `Info` counts a partition's keys by reading them: on a large partition it holds the store
//!   thread up.
//! - Every variant added to a command or an item needs a new payload version: an older library
//!   calls a command that it cannot read malformed, and that must be what all replicas say.
//! - A session's record is rewritten whole with each batch that touches it: a client should declare
//!   its answered commands (`first`) as it goes.

pub mod command;

mod apply;
mod history;
mod kept;
mod key;
mod pending;
mod read;
mod session;
mod state;
mod transfer;
mod worker;

#[cfg(test)]
mod tests;

pub use apply::{KEY_BYTES_MAX, NAME_BYTES_MAX, PAYLOAD_VERSION, VALUE_BYTES_MAX};
pub use worker::Worker;
