//! Runs seeds: `swarm --seeds 1000 --jobs 2`, or one: `swarm --seed 77`; makes one that fails smaller:
//! `swarm --seed 77 --shrink`, and runs what came of it: `swarm --plan-file seed-77.json`.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use indicatif::{ProgressBar, ProgressStyle};
use sim::plan::Plan;
use sim::rare::Table;
use sim::swarm::{Options, Report, Suite, run_many, run_plan, shrink_plan};

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
    /// Run the plan in this file, as --shrink writes it.
    #[arg(long, conflicts_with_all = ["seeds", "first", "seed"])]
    plan_file: Option<PathBuf>,
    /// Print the plan and run nothing (of one seed or file).
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    plan: bool,
    /// Print every event as it happens (of one seed or file).
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    aloud: bool,
    /// Look for the smallest plan that fails as this one does (one seed or file), and write it to a file.
    #[arg(long, conflicts_with_all = ["seeds", "first"])]
    shrink: bool,
    /// How many plans --shrink may try.
    #[arg(long, default_value_t = 1_000)]
    tries: usize,
    /// Where --shrink writes the plan, instead of `seed-N.json`.
    #[arg(long)]
    out: Option<PathBuf>,
    /// No faults.
    #[arg(long)]
    calm: bool,
    /// In every plan members come and go (else in one of three).
    #[arg(long, conflicts_with = "steady")]
    churn: bool,
    /// In no plan members come and go.
    #[arg(long)]
    steady: bool,
    /// Seconds of faults, instead of what the plan says.
    #[arg(long)]
    chaos: Option<u64>,
    /// Write the history of the (last failed) run to this file.
    #[arg(long)]
    history: Option<PathBuf>,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let options = Options {
        aloud: args.aloud,
        calm: args.calm,
        suite: match (args.churn, args.steady) {
            (true, _) => Suite::Churn,
            (_, true) => Suite::Steady,
            (false, false) => Suite::Mixed,
        },
        chaos: args.chaos.map(Duration::from_secs),
    };
    let plan = match (args.seed, &args.plan_file) {
        (Some(seed), _) => Some(options.plan_of(seed)),
        (None, Some(path)) => Some(options.applied_to(Plan::parse(&fs::read_to_string(path)?)?)),
        (None, None) => None,
    };
    let passed = match plan {
        Some(plan) if args.shrink => smaller(&plan, &args)?,
        Some(plan) => one(&plan, &args, &options)?,
        None => many(&args, &options)?,
    };
    Ok(if passed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn one(plan: &Plan, args: &Args, options: &Options) -> io::Result<bool> {
    let mut out = io::stdout().lock();
    writeln!(out, "{plan}")?;
    if args.plan {
        return Ok(true);
    }
    let begun = Instant::now();
    let report = run_plan(plan, options);
    writeln!(out, "{report}")?;
    writeln!(out, "{}", speed(report.simulated, begun.elapsed()))?;
    save(args, &report)?;
    Ok(report.passed())
}

/// Looks for a smaller plan that fails alike.
fn smaller(plan: &Plan, args: &Args) -> io::Result<bool> {
    let bar = ProgressBar::new_spinner();
    let style = "{elapsed_precise} {pos} plans tried; the last: {msg}";
    bar.set_style(ProgressStyle::with_template(style).expect("a constant template"));
    let found = shrink_plan(plan, args.tries, |plan, failure| {
        let end = failure.map_or(String::from("passed"), ToString::to_string);
        let line = end.lines().next().unwrap_or_default();
        bar.set_message(format!("{} faults, {line}", plan.faults.len()));
        bar.inc(1);
    });
    bar.finish_and_clear();
    let mut out = io::stdout().lock();
    let Some((failure, shrunk)) = found else {
        writeln!(out, "{plan}\npassed: there is nothing to make smaller")?;
        return Ok(true);
    };
    let path = args.out.clone();
    let path = path.unwrap_or_else(|| PathBuf::from(format!("seed-{}.json", plan.seed)));
    fs::write(&path, shrunk.plan.to_text())?;
    let (tries, before) = (shrunk.tries, plan.faults.len());
    writeln!(out, "{failure}\n\n{tries} plans tried, of {before} faults left:\n{}", shrunk.plan)?;
    let path = path.display();
    writeln!(out, "replay: cargo run --release -p sim --bin swarm -- --plan-file {path}")?;
    Ok(false)
}

/// What all runs together did.
#[derive(Default)]
struct Total {
    runs: u64,
    simulated: Duration,
    ops: [u64; 3],
    faults: u64,
    entries: u64,
    /// Requests asked and answered, directions of streams and those that ended well, watches and what they told.
    asked: [u64; 7],
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
        let (requests, streams, watches) = (report.requests, report.streams, report.watches);
        let counts = [requests.asked, requests.answered, streams.0, streams.1];
        let counts = counts.into_iter().chain([watches.0, watches.1, watches.2]);
        for (sum, count) in self.asked.iter_mut().zip(counts) {
            *sum += count;
        }
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
        let [asked, answered, begun, ended, watches, told, forgotten] = self.asked;
        write!(
            f,
            "{} seeds, {} failed, {} not fully judged; operations: {ok} ok, {fail} failed, {info} unknown; {} faults, {} entries; requests: {answered} of {asked} \
             answered; streams: {ended} of {begun} read to their end; {watches} watches told {told} changes, {forgotten} times \
             that some were forgotten;",
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
