//! `libring.so`, `libring.a` and `include/ring.h`: libring for C, and through it for every other
//! language.
//!
//! | module | what it is |
//! |---|---|
//! | [`guide`] | the header's first page |
//! | [`status`] | the codes that calls return |
//! | [`types`] | the structs of the header |
//! | [`abi`] | what the library says of itself |
//! | [`cq`] | exports: completion queues |
//! | [`node`] | exports: nodes and their operations |
//! | [`sans`] | exports: a member without input and output of its own |
//! | [`sync`] | locks that a panic does not close |
//! | [`raw`] | reading and writing through the host's pointers |
//! | [`guard`] | panics, forks, callbacks, signals |
//! | [`fault`] | why a call failed |
//! | [`queue`] | a completion queue, in safe code |
//! | [`wake`] | the descriptor that an event loop watches |
//! | [`handle`] | a node, in safe code: its life, its operations |
//! | [`own`] | what a node owes its host beside core's calls |
//! | [`request`] | requests of a node, tracked keys |
//! | [`serve`] | handlers of a node, and the requests that its host holds |
//! | [`stream`] | ends of streams |
//! | [`message`] | the fields of requests and responses |
//! | [`pager`] | scans and watches under way |
//! | [`log`] | where a node logs, for its host |
//! | [`layout`] | sizes and offsets of the header's structs, asserted |
//! | [`machine`] | the sans-IO member, in safe code |
//! | [`op`] | operations: from the header's struct to core's actions, from replies to events |
//! | [`scan`] | the pages of a scan and of a watch |
//!
//! `unsafe` stands only in the modules that export and in `raw`, `guard` and `wake`. The others are
//! safe, and hold everything that decides.

#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)
)]
#![deny(unsafe_op_in_unsafe_fn, clippy::undocumented_unsafe_blocks)]
#![allow(unreachable_pub, reason = "the header is made of what is `pub`")]
#![allow(non_camel_case_types, reason = "types carry their names of C")]

mod abi;
mod cq;
mod fault;
mod guard;
mod guide;
mod handle;
mod layout;
mod log;
mod machine;
mod message;
mod node;
mod op;
mod own;
mod pager;
mod queue;
mod raw;
mod request;
mod sans;
mod scan;
mod serve;
mod status;
mod stream;
mod sync;
mod types;
mod wake;
