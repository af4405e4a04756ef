//! The directory against its promises.

mod director;
mod follow;
mod model;
