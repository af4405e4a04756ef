//! What the suites of many seeds share.

use sim::swarm::{Options, run_many};

/// Runs as many seeds as the variable says, from `SIM_FIRST` on; three failures are enough.
pub(crate) fn every_seed_passes(seeds: (&str, u64), options: &Options) {
    let first = number("SIM_FIRST", 0);
    let seeds = number(seeds.0, seeds.1);
    let mut failed = Vec::new();
    let mut runs = 0;
    let (mut asked, mut answered) = (0, 0);
    let (mut ended, mut told) = (0, 0);
    run_many(first..first + seeds, 2, options, |report| {
        runs += 1;
        asked += report.requests.asked;
        answered += report.requests.answered;
        ended += report.streams.1;
        told += report.watches.1;
        if !report.passed() {
            failed.push(report);
        }
        failed.len() < 3
    });
    let reports: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} of {runs} seeds:\n{}", failed.len(), reports.join("\n\n"));
    assert_eq!(runs, seeds);
    // Safety alone would hold in a world in which nothing is ever answered.
    assert!(answered * 100 >= asked * ANSWERED_MIN, "{answered} of {asked} requests answered");
    assert!(ended > 0 && told > 0, "{ended} streams ended well, {told} changes told");
}

/// Of 100 requests whose handlers are prompt so many are answered at least, faults or not.
const ANSWERED_MIN: u64 = 70;

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}
