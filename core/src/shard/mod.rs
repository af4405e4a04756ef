//! shard

pub mod command;
