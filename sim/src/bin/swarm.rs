//! Runs seeds: `swarm --seeds 1000 --jobs 2`, or one: `swarm --seed 77`.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::plan::Plan;
use sim::rare::Table;
use sim::swarm::{Options, Report, run_many, run_seed};

/// Runs simulated clusters under faults, one for each seed, and judges them.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Run this seed only, and say everything about it.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    seed: Option<u64>,
    /// How many seeds to run.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many at once.
    #[arg(long, default_value_t = 2)]
    jobs: usize,
    /// Stop after so many failures.
    #[arg(long, default_value_t = 5)]
    failures: usize,
    /// Print the plan and run nothing (with --seed).
    #[arg(long, requires = "seed")]
    plan: bool,
    /// Print every event as it happens (with --seed).
    #[arg(long, requires = "seed")]
    aloud: bool,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// Seconds of faults, instead of what the plan says.
    #[arg(long)]
    chaos: Option<u64>,
    /// Write the history of the (last failed) run to this file.
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let options =
        Options { aloud: args.aloud, calm: args.calm, chaos: args.chaos.map(Duration::from_secs) };
    let passed = match args.seed {
        Some(seed) => one(seed, &args, &options)?,
        None => many(&args, &options)?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(seed: u64, args: &Args, options: &Options) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", Plan::of(seed))?;
    if args.plan {
        return Ok(true);
    }
    let begun = Instant::now();
    let report = run_seed(seed, options);
    writeln!(out, "{report}")?;
    writeln!(out, "{}", speed(report.simulated, begun.elapsed()))?;
    save(args, &report)?;
    Ok(report.passed())
}

/// What all runs together did.
#[derive(Default)]
struct Total {
    runs: u64,
    simulated: Duration,
    ops: [u64; 3],
    faults: u64,
    entries: u64,
    unjudged: u64,
    rare: Table,
    failed: Vec<Report>,
}

fn many(args: &Args, options: &Options) -> io::Result<bool> {
    let bar = ProgressBar::new(args.seeds);
    let style = "{elapsed_precise} {bar:40} {pos}/{len} seeds, {per_sec}, {eta} left, {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("a constant template"));
    bar.set_message("no failure");
    let mut total = Total::default();
    let begun = Instant::now();
    let seeds = args.first..args.first + args.seeds;
    run_many(seeds, args.jobs, options, |report| {
        total.add(report);
        if let Some(last) = total.failed.last() {
            let (count, seed) = (total.failed.len(), last.plan.seed);
            bar.set_message(format!("{count} FAILED, last seed {seed}"));
        }
        bar.inc(1);
        total.failed.len() < args.failures
    });
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    for report in &total.failed {
        writeln!(out, "{report}\n")?;
    }
    if let Some(report) = total.failed.last() {
        save(args, report)?;
    }
    writeln!(out, "{}", total.rare)?;
    writeln!(out, "{total} {}", speed(total.simulated, begun.elapsed()))?;
    Ok(total.failed.is_empty())
}

impl Total {
    fn add(&mut self, report: Report) {
        self.runs += 1;
        self.simulated += report.simulated;
        let counts = [report.counts.ok, report.counts.fail, report.counts.info];
        for (sum, count) in self.ops.iter_mut().zip(counts) {
            *sum += count;
        }
        self.faults += report.faults.0;
        self.entries += report.applied;
        self.rare.add(&report.reached);
        self.unjudged += u64::from(!report.unjudged.is_empty());
        if !report.passed() {
            self.failed.push(report);
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [ok, fail, info] = self.ops;
        write!(
            f,
            "{} seeds, {} failed, {} not fully judged; operations: {ok} ok, {fail} failed, {info} unknown; {} faults, {} entries;",
            self.runs,
            self.failed.len(),
            self.unjudged,
            self.faults,
            self.entries
        )?;
        for report in &self.failed {
            write!(f, " [{}]", report.plan.seed)?;
        }
        Ok(())
    }
}

fn speed(simulated: Duration, real: Duration) -> String {
    format!(
        "{:.0} s simulated in {:.1} s: {:.0} times as fast as time",
        simulated.as_secs_f64(),
        real.as_secs_f64(),
        simulated.as_secs_f64() / real.as_secs_f64().max(1e-9)
    )
}

fn save(args: &Args, report: &Report) -> io::Result<()> {
    let Some(path) = &args.history else {
        return Ok(());
    };
    let mut file = BufWriter::new(File::create(path)?);
    report.history.write(&mut file)?;
    file.flush()
}
