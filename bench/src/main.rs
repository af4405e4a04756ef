//! Benchmarks of libring.

mod cluster;
mod machine;
mod process;
mod raft;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::cluster::System;
use crate::cluster::load::Call;
use crate::machine::Machine;
use crate::report::Report;

/// Measures parts of libring.
#[derive(Parser)]
#[command(name = "bench")]
struct Arguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
struct Common {
    /// Also write everything as JSON to this file.
    #[arg(long, global = true, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Fewer and shorter rounds.
    #[arg(long, global = true)]
    short: bool,
    /// Where to make data directories: on the file system to measure.
    #[arg(long, global = true, value_name = "DIR",
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bench-data"))]
    data: PathBuf,
}

#[derive(Subcommand)]
enum What {
    /// Raft alone: three replicas in one thread, beside raft-rs.
    Raft {
        /// Proposals in flight.
        #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
        in_flight: Vec<usize>,
        /// Bytes of a proposal.
        #[arg(long, default_value_t = 64)]
        bytes: usize,
        /// Proposals to commit in one measurement.
        #[arg(long)]
        proposals: Option<u64>,
        #[arg(long)]
        rounds: Option<usize>,
    },
    /// A cluster of three processes, beside etcd and redis.
    Cluster {
        #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
        callers: Vec<usize>,
        #[arg(long, value_delimiter = ',', default_values = ["ring", "etcd", "redis"])]
        systems: Vec<System>,
        /// Seconds of one measurement.
        #[arg(long)]
        seconds: Option<f64>,
        #[arg(long)]
        rounds: Option<usize>,
        /// Bytes of a value.
        #[arg(long, default_value_t = 64)]
        value_bytes: usize,
    },
    /// Become a server of the benchmark.
    #[command(name = process::RUN_SERVER, hide = true)]
    RunServer {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), String> {
    let common = &arguments.common;
    if !matches!(arguments.what, What::RunServer { .. }) {
        let made = fs::create_dir_all(&common.data);
        made.map_err(|e| format!("cannot make {}: {e}", common.data.display()))?;
    }
    let machine = Machine::here(&common.data);
    let sections = match arguments.what {
        What::Raft { in_flight, bytes, proposals, rounds } => {
            let plan = raft::Plan {
                in_flight,
                bytes,
                proposals: proposals.unwrap_or(if common.short { 200_000 } else { 1_000_000 }),
                rounds: rounds.unwrap_or(if common.short { 3 } else { 7 }),
            };
            vec![raft::run(&plan)]
        }
        What::RunServer { words } => return process::run_server(&words),
        What::Cluster { callers, systems, seconds, rounds, value_bytes } => {
            let plan = cluster::Plan {
                systems,
                calls: vec![Call::Put, Call::Get],
                callers,
                rounds: rounds.unwrap_or(if common.short { 1 } else { 3 }),
                window: Duration::from_secs_f64(seconds.unwrap_or(if common.short { 1.0 } else { 2.5 })),
                value_bytes,
                keys: 10_000,
                data: common.data.clone(),
            };
            vec![cluster::run(&plan)?]
        }
    };
    tell(common, Report { machine, sections })
}

fn tell(common: &Common, report: Report) -> Result<(), String> {
    print(&report.markdown());
    if let Some(path) = &common.json {
        write(path, &serde_json::to_string_pretty(&report).expect("plain data"))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark is what it prints")]
fn print(text: &str) {
    print!("{text}");
}
