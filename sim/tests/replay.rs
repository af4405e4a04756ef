//! A seed is a run: the same seed gives the same trace, to the last message and nanosecond.

use std::time::Duration;

use sim::swarm::{Options, run_seed};

#[test]
fn the_same_seed_gives_the_same_trace() {
    let options = Options { chaos: Some(Duration::from_secs(20)), ..Options::default() };
    for seed in [3, 11, 42] {
        let first = run_seed(seed, &options);
        let again = std::thread::spawn({
            let options = options.clone();
            move || run_seed(seed, &options)
        });
        let again = again.join().expect("a run catches its panics");
        assert_eq!(first.trace_hash, again.trace_hash, "seed {seed}");
        assert_eq!(first.history, again.history, "seed {seed}");
        assert!(first.counts.invoked > 100, "seed {seed}: {:?}", first.counts);
    }
}

#[test]
fn another_seed_gives_another_trace() {
    let options = Options { calm: true, chaos: Some(Duration::from_secs(5)), ..Options::default() };
    assert_ne!(run_seed(1, &options).trace_hash, run_seed(2, &options).trace_hash);
}
