//! libring in a simulated world.
//!
//! | module | what it is |
//! |---|---|
//! | [`disk`], [`store`], [`clock`], [`net`] | what a machine stands on, and how it fails |
//! | [`world`], [`member`], [`log`], [`inbox`] | one process: core's contract carried out on them |
//! | [`oracle`], [`trace`], [`rare`] | what sees all machines at once |
//! | [`plan`], [`swarm`], [`mod@shrink`] | what a seed turns into, many seeds, and a failing one made smaller |
//! | [`gossip`] | many failure detectors in a small world of their own |
//! | [`explore`] | no world at all: every state of a few replicas within bounds |

#[cfg(not(any(madsim, doc, doctest)))]
compile_error!(
    "sim needs `--cfg madsim`, which .cargo/config.toml sets for this workspace. A RUSTFLAGS environment variable \
     replaces that setting: unset RUSTFLAGS, or add `--cfg madsim` to it."
);

pub mod call;
mod chaos;
pub mod check;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod disk;
pub mod explore;
pub mod gossip;
pub mod history;
pub mod inbox;
pub mod log;
pub mod member;
pub mod net;
pub mod oracle;
mod panics;
pub mod plan;
pub mod rare;
mod requests;
pub mod shrink;
pub mod store;
pub mod swarm;
pub mod trace;
mod watch;
pub mod world;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks what only one thread ever uses; a panic elsewhere in the run does not hide what it holds.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
