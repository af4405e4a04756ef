//! raft

pub mod message;
