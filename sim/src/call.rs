//! A call of a client to a node, and how it ended.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ring_core::io::{Action, Failure, Refused, Reply};

use crate::lock;

/// What a client asks of a node; the deadline runs on the node's clock from the moment it takes the call.
#[derive(Clone, Debug)]
pub struct Ask {
    /// How long the node may take.
    pub timeout: Duration,
    /// The partition.
    pub partition: String,
    /// What to do with it.
    pub action: Action,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq)]
pub enum Ended {
    /// The node answered.
    Answered(Result<Reply, Failure>),
    /// The node did not take it: nothing happened.
    Refused(Refused),
    /// The node died. It may have happened only if the node had taken the call.
    Lost {
        /// Whether it had.
        taken: bool,
    },
}

impl Ended {
    /// True when a write has certainly not happened and never will.
    #[must_use]
    pub fn certainly_not(&self) -> bool {
        match self {
            Self::Answered(Ok(_)) => false,
            Self::Answered(Err(failure)) => match failure {
                Failure::Deadline | Failure::Malformed | Failure::Closed { maybe: false } => true,
                Failure::OutcomeUnknown
                | Failure::Interrupted
                | Failure::Closed { maybe: true } => false,
            },
            Self::Refused(_) => true,
            Self::Lost { taken } => !taken,
        }
    }
}

/// The node's end of a call. Dropped without an answer, the call is lost.
#[derive(Debug)]
pub(crate) struct Promise {
    slot: Arc<Mutex<Slot>>,
    taken: bool,
}

/// The client's end of a call.
#[derive(Debug)]
pub struct Pending {
    slot: Arc<Mutex<Slot>>,
}

#[derive(Debug, Default)]
struct Slot {
    ended: Option<Ended>,
    waker: Option<Waker>,
}

/// Both ends of a new call.
pub(crate) fn call() -> (Promise, Pending) {
    let slot = Arc::new(Mutex::new(Slot::default()));
    let promise = Promise { slot: Arc::clone(&slot), taken: false };
    (promise, Pending { slot })
}

impl Promise {
    /// The node has taken the call.
    pub(crate) fn taken(&mut self) {
        self.taken = true;
    }

    pub(crate) fn end(self, ended: Ended) {
        lock(&self.slot).ended = Some(ended);
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        let slot = &mut *lock(&self.slot);
        slot.ended.get_or_insert(Ended::Lost { taken: self.taken });
        if let Some(waker) = slot.waker.take() {
            waker.wake();
        }
    }
}

impl Future for Pending {
    type Output = Ended;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        let slot = &mut *lock(&self.slot);
        match slot.ended.take() {
            Some(ended) => Poll::Ready(ended),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(pending: &mut Pending) -> Poll<Ended> {
        Pin::new(pending).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn an_answer_arrives() {
        let (promise, mut pending) = call();
        assert_eq!(poll(&mut pending), Poll::Pending);
        promise.end(Ended::Refused(Refused::Halted));
        assert_eq!(poll(&mut pending), Poll::Ready(Ended::Refused(Refused::Halted)));
    }

    #[test]
    fn a_dropped_call_is_lost_and_knows_whether_it_was_taken() {
        let (mut promise, mut pending) = call();
        promise.taken();
        drop(promise);
        assert_eq!(poll(&mut pending), Poll::Ready(Ended::Lost { taken: true }));
        let (promise, mut pending) = call();
        drop(promise);
        let Poll::Ready(ended) = poll(&mut pending) else {
            panic!("the call must have ended");
        };
        assert!(ended.certainly_not());
    }
}
