//! What the suites of many seeds share.

use sim::swarm::{Options, run_many};

/// Runs as many seeds as the variable says, from `SIM_FIRST` on; three failures are enough.
pub(crate) fn every_seed_passes(seeds: (&str, u64), options: &Options) {
    let first = number("SIM_FIRST", 0);
    let seeds = number(seeds.0, seeds.1);
    let mut failed = Vec::new();
    let mut runs = 0;
    run_many(first..first + seeds, 2, options, |report| {
        runs += 1;
        if !report.passed() {
            failed.push(report);
        }
        failed.len() < 3
    });
    let reports: Vec<String> = failed.iter().map(ToString::to_string).collect();
    assert!(failed.is_empty(), "{} of {runs} seeds:\n{}", failed.len(), reports.join("\n\n"));
    assert_eq!(runs, seeds);
}

fn number(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}={text} is no number")),
        Err(_) => default,
    }
}
