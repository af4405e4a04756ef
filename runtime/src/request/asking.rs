//! Who waits for the answers to this node's requests.

use std::collections::HashMap;
use std::time::Duration;

use parking_lot::Mutex;
use ring_core::ids::RequestId;
use ring_core::request::Failure;
use ring_core::time::Instant;
use tokio::sync::oneshot;

use super::Response;
use crate::error::Error;

type Answer = Result<Response, Error>;

/// All requests of this node that are not answered, also those that core has not taken yet.
///
/// Core ends each at its deadline. If core's thread is stuck, on a defect or because the system does not let it run,
/// [`AskingTable::give_up_late`] does, a little later; whatever core says of such a request after that is dropped.
#[derive(Debug, Default)]
pub(crate) struct AskingTable(Mutex<HashMap<RequestId, Waiting>>);

#[derive(Debug)]
struct Waiting {
    answer: oneshot::Sender<Answer>,
    /// When to give up if core does not answer.
    guard: Instant,
}

/// How long after a request's deadline core is taken to be stuck.
const GUARD: Duration = Duration::from_secs(2);

impl AskingTable {
    /// Begins a request. Its answer comes to the receiver. True: it is the only one.
    pub(super) fn begin(
        &self,
        request: RequestId,
        deadline: Instant,
    ) -> (oneshot::Receiver<Answer>, bool) {
        let (answer, receiver) = oneshot::channel();
        let mut table = self.0.lock();
        table.insert(request, Waiting { answer, guard: deadline + GUARD });
        (receiver, table.len() == 1)
    }

    /// Forgets a request. None: it has ended before.
    pub(super) fn end(&self, request: RequestId) -> Option<oneshot::Sender<Answer>> {
        self.0.lock().remove(&request).map(|waiting| waiting.answer)
    }

    /// Ends a request, unless it has ended before.
    pub(super) fn answer(&self, request: RequestId, result: Answer) {
        // With no lock held: a waker may do anything. Whoever has given up has told core so.
        if let Some(answer) = self.end(request) {
            let _: Result<(), Answer> = answer.send(result);
        }
    }

    /// Ends the requests that core should have ended long ago: nobody knows whether they were handled.
    pub(crate) fn give_up_late(&self, now: Instant) {
        let late: Vec<(RequestId, Waiting)> =
            self.0.lock().extract_if(|_, waiting| waiting.guard < now).collect();
        if !late.is_empty() {
            tracing::error!(requests = late.len(), "core does not answer: requests given up");
        }
        for (_, waiting) in late {
            let _: Result<(), Answer> = waiting.answer.send(Err(Failure::OutcomeUnknown.into()));
        }
    }

    /// The node has ended: those that are left never reached core.
    pub(super) fn clear(&self) {
        let left = std::mem::take(&mut *self.0.lock());
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Even a stuck core leaves nobody waiting for ever, and what it says afterwards harms nobody.
    #[test]
    fn a_request_without_an_answer_is_given_up_after_its_deadline() {
        let table = AskingTable::default();
        let deadline = Instant(5);
        let (mut first, is_alone) = table.begin(RequestId(1), deadline);
        assert!(is_alone);
        let (mut second, is_alone) = table.begin(RequestId(2), deadline + Duration::from_secs(9));
        assert!(!is_alone);
        table.give_up_late(deadline + GUARD);
        assert!(first.try_recv().is_err(), "not before the guard");
        table.give_up_late(deadline + GUARD + Duration::from_nanos(1));
        assert_eq!(first.try_recv().unwrap().unwrap_err(), Failure::OutcomeUnknown.into());
        table.answer(RequestId(1), Ok(Response::default()));
        table.answer(RequestId(2), Ok(Response::default()));
        assert!(second.try_recv().unwrap().is_ok());
        let (mut left, _) = table.begin(RequestId(3), deadline);
        table.clear();
        assert_eq!(left.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
    }
}
