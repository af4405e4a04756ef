//! Visits every state of small clusters within bounds: `explore`, or `explore --only elections`.

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;
use sim::explore::{configurations, explore};

/// Runs copies of the real replicas through every order of events within bounds, and judges each state.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Only the configuration with this name.
    #[arg(long)]
    only: Option<String>,
    /// Only those that take seconds.
    #[arg(long)]
    quick: bool,
    /// Give up after so many states.
    #[arg(long, default_value_t = 150_000_000)]
    states: usize,
    /// Say how far it is, at each step of depth.
    #[arg(long)]
    aloud: bool,
}

fn main() -> io::Result<ExitCode> {
    let args = Args::parse();
    let mut sound = true;
    let mut out = io::stdout().lock();
    for configuration in configurations() {
        let wanted = args.only.as_ref().is_none_or(|only| only == configuration.name);
        if !wanted || (args.quick && !configuration.quick) {
            continue;
        }
        writeln!(out, "{}: {}", configuration.name, configuration.about)?;
        writeln!(out, "  {:?}", configuration.bounds)?;
        let report = explore(&configuration.bounds, args.states, &mut |states, here, depth| {
            if args.aloud {
                // Progress is worth no failure.
                let _ = writeln!(io::stderr(), "  depth {depth}: {here} of {states} states");
            }
        });
        writeln!(out, "  {report}")?;
        if let Some(memory) = memory() {
            writeln!(out, "  {memory} at most in memory, so far")?;
        }
        sound &= report.broken.is_none();
    }
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The most memory that this process has held, where the system tells.
fn memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
