//! How good the failure detector is: `gossip --members 1000 --hours 1 --loss 5`; and whether it keeps its promises in
//! drawn lives of small clusters: `gossip --trials 1000`.

use std::io::{self, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use sim::gossip::{Options, measure, trial};

/// Runs simulated clusters of failure detectors through their life and measures them.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// How many members.
    #[arg(long, default_value_t = 100)]
    members: usize,
    /// The seed of the first run or trial.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many drawn lives of small clusters, instead of a measurement. Ends with the first that fails.
    #[arg(long)]
    trials: Option<u64>,
    /// How many runs, each with the next seed.
    #[arg(long, default_value_t = 1)]
    runs: u64,
    /// Datagrams lost after birth and quiet, in 100.
    #[arg(long, default_value_t = 5)]
    loss: u64,
    /// Virtual hours with loss and a process that stalls.
    #[arg(long, default_value_t = 1.0)]
    hours: f64,
    /// Longest stall of that process, in seconds.
    #[arg(long, default_value_t = 4.0)]
    stall: f64,
    /// Crashes to measure.
    #[arg(long, default_value_t = 100)]
    crashes: usize,
    /// Periods of quiet before traffic is measured, instead of as many as there are members.
    #[arg(long)]
    warm: Option<usize>,
    /// No split at the end.
    #[arg(long)]
    whole: bool,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let mut out = io::stdout().lock();
    if let Some(trials) = args.trials {
        return run_trials(&mut out, args.seed, trials);
    }
    let mut passed = true;
    for seed in args.seed..args.seed + args.runs {
        let mut options = Options::new(args.members, seed);
        options.loss = args.loss * 10;
        options.long = Duration::from_secs_f64(args.hours * 3600.0);
        options.stall = Duration::from_secs_f64(args.stall);
        options.crashes = args.crashes;
        options.warm = args.warm.unwrap_or(args.members);
        options.split = !args.whole;
        let begun = Instant::now();
        let report = measure(&options);
        writeln!(out, "seed                 {seed}\n{report}")?;
        writeln!(out, "real time            {:.1} s", begun.elapsed().as_secs_f64())?;
        for miss in report.misses() {
            writeln!(out, "MISSED               {miss}")?;
            passed = false;
        }
    }
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn run_trials(out: &mut impl Write, first: u64, trials: u64) -> io::Result<ExitCode> {
    for seed in first..first + trials {
        if let Err(problem) = trial(seed) {
            writeln!(out, "trial {seed} FAILED: {problem}")?;
            return Ok(ExitCode::FAILURE);
        }
    }
    writeln!(out, "{trials} trials passed")?;
    Ok(ExitCode::SUCCESS)
}
