use bytes::Bytes;
use ring_core::io::Consistency;

use super::*;

const DEADLINE: Duration = Duration::from_secs(10);

fn shared(calls: usize, calls_bytes: usize) -> Shared {
    let mut options = Options::default();
    options.limits.calls = calls;
    options.limits.calls_bytes = calls_bytes;
    Shared::new(options)
}

fn put(bytes: usize) -> Action {
    Action::Put { key: Bytes::new(), value: Bytes::from(vec![0; bytes]) }
}

fn get() -> Action {
    Action::Get { key: Bytes::new(), consistency: Consistency::Linearizable }
}

fn full<T: std::fmt::Debug>(result: Result<T, Error>) -> u64 {
    let Err(Error::Refused(Refused::Full { limit, .. })) = result else { panic!("{result:?}") };
    limit
}

/// The request of the last call that reached the inbox.
fn last_request(shared: &Shared) -> RequestId {
    let mut items = Vec::new();
    shared.take(&mut items, None);
    let Some(Item::Call { request, .. }) = items.pop() else { panic!("a call") };
    request
}

#[test]
fn calls_are_bounded_in_number_whether_or_not_someone_waits() {
    let shared = shared(2, 100);
    let first = shared.call("p", get(), DEADLINE).unwrap();
    let request = last_request(&shared);
    drop(shared.call("p", get(), DEADLINE).unwrap());
    assert_eq!(full(shared.call("p", get(), DEADLINE)), 2);

    shared.answer(&mut vec![(request, Ok(Reply::Value(None)))]);
    assert_eq!(first.blocking_recv().unwrap(), Ok(Reply::Value(None)));
    shared.call("p", get(), DEADLINE).unwrap();
}

#[test]
fn calls_are_bounded_in_bytes_and_core_judges_what_never_fits() {
    let shared = shared(9, 100);
    let waiting = shared.call("p", put(60), DEADLINE).unwrap();
    let request = last_request(&shared);
    assert_eq!(full(shared.call("p", put(41), DEADLINE)), 100);
    shared.call("p", put(40), DEADLINE).unwrap();
    shared.call("p", put(101), DEADLINE).unwrap();
    shared.answer(&mut vec![(request, Err(Failure::Deadline.into()))]);
    assert_eq!(waiting.blocking_recv().unwrap(), Err(Failure::Deadline.into()));
    shared.call("p", put(60), DEADLINE).unwrap();
}

#[test]
fn an_answer_that_nobody_asked_for_is_dropped() {
    let shared = shared(9, 100);
    let mut answers = vec![(RequestId(77), Ok(Reply::Value(None)))];
    shared.answer(&mut answers);
    assert!(answers.is_empty());
}

/// Even a stuck core thread leaves no caller waiting for ever.
#[test]
fn a_call_without_an_answer_is_given_up_after_its_deadline() {
    let shared = shared(1, 100);
    let write = shared.call("p", put(1), Duration::ZERO).unwrap();
    shared.give_up_late_calls();
    assert_eq!(full(shared.call("p", get(), DEADLINE)), 1, "not before the guard");
    shared.calls.lock().waiting.values_mut().for_each(|w| w.guard = Instant(0));
    shared.give_up_late_calls();
    assert_eq!(write.blocking_recv().unwrap(), Err(Failure::OutcomeUnknown.into()));

    let read = shared.call("p", get(), DEADLINE).unwrap();
    shared.calls.lock().waiting.values_mut().for_each(|w| w.guard = Instant(0));
    shared.give_up_late_calls();
    assert_eq!(read.blocking_recv().unwrap(), Err(Failure::Deadline.into()));
    assert_eq!(shared.calls.lock().bytes, 0);
}

#[test]
fn the_end_answers_every_call_and_refuses_the_next() {
    for (halt, later) in [
        (None, Error::from(Failure::Closed { maybe: false })),
        (Some(Halt::Wiped), Error::from(Refused::Halted)),
    ] {
        let shared = shared(9, 100);
        let mut events = shared.events().unwrap();
        let write = shared.call("p", put(1), DEADLINE).unwrap();
        let read = shared.call("p", get(), DEADLINE).unwrap();
        shared.end();
        // The inbox is closed and the end not told yet: this call is answered like those before.
        let between = shared.call("p", get(), DEADLINE).unwrap();
        shared.ended(halt.clone());
        assert_eq!(write.blocking_recv().unwrap(), Err(Failure::Closed { maybe: true }.into()));
        assert_eq!(read.blocking_recv().unwrap(), Err(Failure::Closed { maybe: false }.into()));
        assert_eq!(between.blocking_recv().unwrap(), Err(Failure::Closed { maybe: false }.into()));
        assert_eq!(shared.call("p", get(), DEADLINE).unwrap_err(), later);
        if let Some(reason) = &halt {
            let told = Event::Halted { reason: reason.clone() };
            assert_eq!(events.blocking_recv(), Ok(told));
        }
        assert_eq!(events.blocking_recv(), Err(broadcast::error::RecvError::Closed));
        let phase = halt.map_or(Phase::Closed, Phase::Halted);
        assert_eq!(*shared.phase().borrow(), phase);
        // What has ended stays ended.
        shared.ended(Some(Halt::Agreement));
        assert_eq!(*shared.phase().borrow(), phase);
    }
}

#[test]
fn a_refusal_is_kept_for_whoever_waits_for_the_opening() {
    let shared = shared(9, 100);
    let reason = Refusal::ClusterName { expected: "other".into() };
    let (member, address) = (None, None);
    shared.event(Event::PeerRefused { member, address, reason: reason.clone(), by_us: true });
    assert_eq!(*shared.phase().borrow(), Phase::Opening { refused: None });
    shared.met_itself("it is this very node");
    shared.refused(&explain(&reason));
    shared.met_itself("it is this very node");
    let Phase::Opening { refused: Some(why) } = shared.phase().borrow().clone() else {
        panic!("opening")
    };
    assert!(why.contains("\"other\""), "{why}");
}
