//! The machine's rules, one by one; the traps; a small network; hostile input.

mod hostile;
mod network;
mod rules;
mod traps;

use alloc::format;
use alloc::vec::Vec;
use core::net::{Ipv4Addr, SocketAddr};
use core::time::Duration;

use super::*;
use crate::ids::ClusterId;

const CLUSTER: ClusterId = ClusterId(77);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

fn address(id: u64) -> SocketAddr {
    let port = 7000 + u16::try_from(id % 50_000).unwrap();
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

fn profile(id: u64) -> Profile {
    Profile {
        name: format!("member-{id}"),
        datagram: address(id),
        stream: address(id),
        weight: 100,
        tags: Vec::new(),
    }
}
