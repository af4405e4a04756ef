//! One member: where the machines meet.

use alloc::vec::Vec;

use crate::config::{Config, ConfigError};
use crate::ids::RequestId;
use crate::io::{Call, Input, Outbox, Refused, Wakeup};
use crate::storage::Recovered;
use crate::store::StoreState;
use crate::time::Now;

/// What was durable when a member was started.
#[derive(Clone, Debug, Default)]
pub struct Restored {
    /// What the log says; the default for an empty directory.
    pub log: Recovered,
    /// Where the store stands, as [`crate::shard::Worker::states`] tells.
    pub store: Vec<StoreState>,
}

/// One member of a cluster (or a client), as a state machine.
#[derive(Clone, Debug)]
pub struct Node {}

impl Node {
    /// A member rebuilt from what was durable.
    ///
    /// # Errors
    /// The configuration cannot be used; names the field.
    pub fn new(
        _config: Config,
        _restored: Restored,
        _seed: u64,
        _now: Now,
    ) -> Result<Self, ConfigError> {
        unimplemented!()
    }

    /// The only way for the world to act on the node. Never fails, never blocks.
    pub fn handle(&mut self, _now: Now, _input: Input) {
        unimplemented!()
    }

    /// The only way for the application to act on the node.
    ///
    /// # Errors
    /// The call was not accepted; nothing changed.
    pub fn submit(&mut self, _now: Now, _request: RequestId, _call: Call) -> Result<(), Refused> {
        unimplemented!()
    }

    /// Ends a turn: everything that the node asks of the world because of this turn's inputs.
    pub fn flush(&mut self, _now: Now, _out: &mut Outbox) {
        unimplemented!()
    }

    /// The next deadline and why; cheap.
    #[must_use]
    pub fn wakeup(&self) -> Option<Wakeup> {
        unimplemented!()
    }

    /// Asserts the invariants.
    pub fn check(&self) {
        unimplemented!()
    }
}
