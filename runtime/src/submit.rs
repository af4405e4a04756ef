//! The node for a binding to another language: calls that end in a completion instead of a future,
//! and an end that blocks. A program in Rust wants [`crate::Partition`].

use std::time::Duration;

use ring_core::ids::RequestId;
use ring_core::io::{Action, Event, Failure, Halt, Reply};

use crate::error::Error;
use crate::node::Node;
use crate::shared::Phase;

impl Node {
    /// Begins a call on a partition and gives its number, which no other call of this node ever
    /// has. `done` is told exactly once how it ended, possibly before this returns; after an error
    /// it never is. It runs on a thread of the node, or on one that has just begun a call or a request of
    /// it; it must not hold that up, and no lock is held that another call of the node waits for. Writes to a partition keep their order. Without `deadline` the node's own counts.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no room or the node has ended: nothing happened.
    pub fn submit(
        &self,
        partition: &str,
        action: Action,
        deadline: Option<Duration>,
        done: impl FnOnce(RequestId, Result<Reply, Error>) + Send + 'static,
    ) -> Result<RequestId, Error> {
        let shared = &self.inner.shared;
        let deadline = deadline.unwrap_or(shared.options.deadline);
        shared.begin(partition, action, deadline, Box::new(done))
    }

    /// Ends a call for its caller, on the caller's thread: its completion is told
    /// [`Failure::OutcomeUnknown`] if it may have changed something, else
    /// [`Failure::Interrupted`]. It goes on inside, and its room is free when it has ended there. False: it has ended before.
    pub fn abandon(&self, request: RequestId) -> bool {
        let Some((done, write)) = self.inner.shared.abandon(request) else {
            return false;
        };
        let failure = if write { Failure::OutcomeUnknown } else { Failure::Interrupted };
        done(request, Err(failure.into()));
        true
    }

    /// Ends the node, for all who hold a clone of it, and waits for that: in good order as
    /// [`Node::close`], or at once, as if the process had been killed. Only for a thread that is
    /// none of a node's and outside of any executor. False: a disk that does not answer keeps a
    /// thread from ending.
    pub fn shut_down(&self, in_order: bool) -> bool {
        let threads = self.inner.threads.lock().take();
        threads.is_none_or(|threads| threads.stop_here(in_order))
    }

    /// Stops the node without waiting for it: from now on nothing is written to its directory, and
    /// its calls end with [`Failure::Closed`].
    pub fn fail_stop(&self) {
        self.inner.shared.seal();
        self.inner.shared.end();
    }

    /// For who has found a defect of this library: stops the node as [`Node::fail_stop`], and it halts, which
    /// [`Event::Halted`] tells: [`Halt::Defect`] with what was found, the first of several.
    pub fn halt_on_defect(&self, what: impl Into<String>) {
        self.inner.shared.halt_on_defect(what.into());
    }

    /// Tells `listener` what happens, on a thread of the node, until the node ends. It must not block. Its panic is a defect,
    /// and the node halts.
    pub fn listen(&self, listener: impl FnMut(Event) + Send + 'static) {
        if let Some(threads) = &*self.inner.threads.lock() {
            threads.listen(self.events(), Box::new(listener));
        }
    }

    /// Runs something on the node's own threads, until the node ends: then it is dropped, as it is here when the node has
    /// ended.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        if let Some(executor) = self.inner.own_executor() {
            executor.spawn(task);
        }
    }

    /// Why the node has halted, if it has.
    #[must_use]
    pub fn halt(&self) -> Option<Halt> {
        match &*self.inner.shared.phase().borrow() {
            Phase::Halted(halt) => Some(halt.clone()),
            Phase::Opening { .. } | Phase::Up | Phase::Closed => None,
        }
    }

    /// The defect of this library for which the node halts, or has halted.
    #[must_use]
    pub fn defect(&self) -> Option<&str> {
        self.inner.shared.defect.get().map(String::as_str)
    }
}
