//! The failure detector in a small cluster: its aims hold, and the measurement notices when they do not.

use std::time::Duration;

use sim::gossip::{Options, Report, World, config, measure};

fn small(seed: u64) -> Options {
    Options { crashes: 40, long: Duration::from_secs(1200), warm: 40, ..Options::new(20, seed) }
}

fn without_time(mut report: Report) -> String {
    report.processor = Duration::ZERO;
    format!("{report:?}")
}

/// Traffic, first suspicion, spread of a death, no false death with 5 % loss and a stalling process, a healed split.
#[test]
fn a_small_cluster_meets_the_aims() {
    let report = measure(&small(1));
    assert_eq!(report.misses(), [""; 0], "{report}");
    assert_eq!(report.crashes.len(), 40, "every crash was noticed by all");
    assert!(report.suspicions > 0, "the loss was felt");
}

/// The same seed gives the same life.
#[test]
fn runs_repeat() {
    let options = Options { crashes: 3, long: Duration::from_secs(300), ..small(2) };
    assert_eq!(without_time(measure(&options)), without_time(measure(&options)));
}

/// A detector that gives nobody time to refute buries the living, and the report says so.
#[test]
fn a_hasty_detector_misses_the_aims() {
    let mut options = Options { crashes: 0, split: false, loss: 300, ..small(3) };
    options.config.suspicion_min = 1;
    options.config.suspicion_max = 1;
    let report = measure(&options);
    assert!(report.false_deaths > 0, "{report}");
    assert!(report.misses().iter().any(|miss| miss.contains("false deaths")), "{report}");
}

/// A process that stops for longer than any suspicion is buried, and comes back when it runs again.
#[test]
fn a_long_stop_is_a_death_and_the_process_comes_back() {
    let mut world = World::new(config(), 4);
    for place in 0..10 {
        world.start(place, &[0]);
    }
    assert!(world.settle(Duration::from_secs(60)).is_some());
    world.stop(3, Duration::from_secs(120));
    assert!(world.settle(Duration::from_secs(100)).is_some(), "nine see nine");
    assert!(
        (0..10).filter(|place| *place != 3).all(|place| world.machine(place).present_len() == 9)
    );

    world.run(Duration::from_secs(120));
    assert!(world.is_up(3));
    assert!(world.settle(Duration::from_secs(30)).is_some(), "ten see ten");
    assert_eq!(world.machine(3).present_len(), 10);
    world.check();
}

/// Everybody at once, again and again, with loss: each new life outranks what is said of the last one.
#[test]
fn mass_restarts_settle() {
    let mut world = World::new(config(), 5);
    for place in 0..30 {
        world.start(place, &[0, 1]);
    }
    assert!(world.settle(Duration::from_secs(60)).is_some());
    (world.loss, world.repeats) = (100, 100);
    for _ in 0..4 {
        for place in 0..25 {
            world.kill(place);
        }
        world.run(Duration::from_secs(2));
        for place in 0..25 {
            world.start(place, &[0, 1, 29]);
        }
        world.run(Duration::from_secs(3));
    }
    assert!(world.settle(Duration::from_secs(120)).is_some(), "all see all again");
    world.check();
}
