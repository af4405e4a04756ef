//! Many failure detectors on one simulated network, and how good they are.
//!
//! A discrete-event loop of its own over the real [`ring_core::membership::Membership`]: no executor, one heap, so
//! that a thousand members live an hour in minutes. [`measure()`] runs one cluster through its life: birth, quiet,
//! crashes, a long time with loss and a process that stalls, a split. [`trial()`] draws the life of a small cluster
//! from a seed, with whatever may go wrong, and judges it. What no run may show is an incarnation that falls, an
//! invariant of the machine that does not hold, a datagram that is too long.

mod measure;
mod trial;
mod world;

pub use measure::{Crash, Options, Report, Traffic, measure};
pub use trial::trial;
pub use world::{Sent, World, config, id_of};
