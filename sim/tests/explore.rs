//! Every state within the quick bounds, and that the search notices a broken state.

use sim::explore::{Bounds, Start, Times, configurations, explore};

/// Within the quick bounds no order of events breaks anything.
#[test]
fn quick_bounds_are_sound() {
    for configuration in configurations().into_iter().filter(|each| each.quick) {
        let report = explore(&configuration.bounds, usize::MAX, &mut |_, _, _| {});
        assert!(report.complete && report.broken.is_none(), "{}: {report}", configuration.name);
    }
}

/// The same bounds always give the same states.
#[test]
fn searches_repeat() {
    let bounds = &configurations()[0].bounds;
    let [one, other] = [1, 2].map(|_| explore(bounds, 20_000, &mut |_, _, _| {}));
    assert_eq!((one.states, one.transitions), (other.states, other.transitions));
}

/// Two replicas that begin with different entries of one index and term: no run leads there, and the search says so.
#[test]
fn logs_that_cannot_be_are_noticed() {
    let log = |data: &[u64]| Start { term: 2, log: data.to_vec() };
    let bounds = Bounds {
        start: vec![log(&[1, 2]), log(&[2, 2]), log(&[])],
        term: 3,
        in_flight: 2,
        unstored: 2,
        append_entries: 1024,
        times: Times { timeouts: 1, ..Times::CALM },
    };
    let report = explore(&bounds, usize::MAX, &mut |_, _, _| {});
    let broken = report.broken.expect("the logs do not match");
    assert!(broken.what.starts_with("MATCH"), "{}", broken.what);
    assert!(!broken.steps.is_empty());
}
