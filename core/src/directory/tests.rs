//! The directory against its promises.

mod director;
mod model;
