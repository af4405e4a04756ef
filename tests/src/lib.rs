//! Whole programs: the command `ring` as processes, on real sockets and disks, killed and damaged.
//!
//! | module | what it is |
//! |---|---|
//! | [`program`] | a process, its output, its end |
//! | [`members`] | a cluster of `ring serve` processes |
//! | [`network`] | networks of their own for members, whose cables can be pulled |
//! | [`ports`] | ports that no other test uses |
//! | [`disks`] | disks of their own for members, whose power can be cut |
//! | [`native`] | what safe Rust cannot do: system calls that fail, power cuts |
//! | [`load`] | clients that write, and what must be found of it |
//! | [`askers`] | clients that ask, and must be answered |
//! | [`followers`] | clients that watch, and must be told of what is acknowledged |
//! | [`handled`] | what members that handle requests write down of them |
//! | [`one`] | a cluster of one with a tiny log, and a fixed workload |
//! | [`journal`] | what clients saw, written as a history |
//! | [`whole`] | when a cluster is as it should be again |
//! | [`skip`] | tests that this machine cannot run |
//!
//! Nothing here sleeps: every wait is for a condition, with a deadline, and says what it waited for
//! when that passes.

pub mod askers;
pub mod disks;
pub mod followers;
pub mod handled;
pub mod journal;
pub mod load;
pub mod members;
pub mod native;
pub mod network;
pub mod one;
pub mod ports;
pub mod program;
pub mod skip;
pub mod whole;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a test waits for anything: long past what a healthy machine needs, so that a slow one
/// passes too.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Locks it, also after a thread of the test has panicked: what failed first is to be told.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a key or a value says, to be read.
pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The examples of the README.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
