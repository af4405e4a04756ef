//! Many seeds, each a cluster under its own faults. `SIM_SEEDS` says how many (200), `SIM_FIRST` the first (0).

use sim::swarm::{Options, run_many};

/// Nothing false happens under faults, and everything finishes when they end.
#[test]
fn every_seed_passes() {
    let first = number("SIM_FIRST", 0);
    let seeds = number("SIM_SEEDS", 200);
    let mut failed = Vec::new();
    let mut runs = 0;
    run_many(first..first + seeds, 2, &Options::default(), |report| {
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
