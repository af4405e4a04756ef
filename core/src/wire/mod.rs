//! wire

pub mod message;
