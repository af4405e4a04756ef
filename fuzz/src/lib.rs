//! What the fuzz targets do with the bytes that the fuzzer draws. Each module's `run` panics where a promise is
//! broken, and returns otherwise.
//!
//! | module | what reads the bytes |
//! |---|---|
//! | [`frames`] | the decoder of a connection, and that of single frames |
//! | [`handshake`] | a member, from the first message of a connection on |
//! | [`log_recovery`] | recovery of a log directory |
//! | [`snapshot_chunks`] | the store thread's installation of snapshots |
//! | [`entries`] | the store thread's apply |
//! | [`node`] | a whole member among hostile peers, with an honest disk and store |
//! | [`membership`] | the failure detector |
//! | [`datagrams`] | the opener of sealed datagrams |

pub mod datagrams;
pub mod entries;
pub mod frames;
pub mod handshake;
pub mod log_recovery;
pub mod membership;
pub mod node;
pub mod snapshot_chunks;
pub mod world;
