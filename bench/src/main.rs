//! Benchmarks of libring: `cargo run --release -p bench -- <name>`. Each module says what it measures, and what not.

mod cluster;
mod idle;
mod log;
mod machine;
mod membership;
mod moving;
mod process;
mod raft;
mod recovery;
mod report;
mod requests;
mod ring;
mod simulator;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use crate::cluster::System;
use crate::cluster::load::Call;
use crate::machine::Machine;
use crate::report::{Report, Section};

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
    /// Also write what is printed, Markdown, to this file.
    #[arg(long, global = true, value_name = "FILE")]
    markdown: Option<PathBuf>,
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
    /// Everything, one after another.
    All,
    /// Raft alone: three replicas in one thread, beside raft-rs.
    Raft(RaftArguments),
    /// Durable appends through the log thread, beside write and fdatasync.
    Log,
    /// A cluster of three processes, beside etcd and redis.
    Cluster(ClusterArguments),
    /// How fast the simulator is.
    Sim,
    /// The hash ring: lookups, balance, what moves.
    Ring,
    /// Requests and streams between two processes, beside bare sockets and NATS.
    Requests(RequestsArguments),
    /// The failure detector, beside foca.
    Membership,
    /// What a cluster costs that nobody calls.
    Idle,
    /// From a long log to a member.
    Recovery {
        /// MiB of the log.
        #[arg(long)]
        mib: Option<u64>,
    },
    /// A member joins under load, and leaders die.
    Move {
        /// MiB that move to the member that joins.
        #[arg(long)]
        mib: Option<u64>,
        /// Leaders that are killed then.
        #[arg(long)]
        kills: Option<usize>,
    },
    /// Print what an earlier run wrote with `--json`.
    Report {
        /// That file.
        file: PathBuf,
    },
    /// Become a server of the benchmark.
    #[command(name = process::RUN_SERVER, hide = true)]
    RunServer {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<String>,
    },
    /// Answer requests, as a server of `requests`.
    #[command(name = requests::COMMAND, hide = true)]
    AnswerRequests { kind: String, port: u16 },
    /// Time one step of `recovery`.
    #[command(name = recovery::COMMAND, hide = true)]
    RecoveryStep { step: recovery::Step, place: PathBuf },
}

#[derive(clap::Args)]
struct RaftArguments {
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
}

#[derive(clap::Args)]
struct ClusterArguments {
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    callers: Vec<usize>,
    #[arg(long, value_delimiter = ',', default_values = ["ring", "spread", "etcd", "redis"])]
    systems: Vec<System>,
    /// What to call.
    #[arg(long, value_delimiter = ',', default_values = ["put", "get"])]
    calls: Vec<Call>,
    /// Seconds of one measurement.
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long)]
    rounds: Option<usize>,
    /// Bytes of a value.
    #[arg(long, default_value_t = 64)]
    value_bytes: usize,
}

#[derive(clap::Args)]
struct RequestsArguments {
    #[arg(long, value_delimiter = ',', default_values = ["remote", "local", "tcp", "nats"])]
    systems: Vec<requests::System>,
    #[arg(long, value_delimiter = ',', default_values_t = [1, 64, 256])]
    in_flight: Vec<usize>,
    /// Bytes of a body.
    #[arg(long, value_delimiter = ',', default_values_t = [64, 65_536])]
    bytes: Vec<usize>,
    /// MiB of a stream; 0: no streams.
    #[arg(long, default_value_t = 1024)]
    stream_mib: u64,
    /// Seconds of one measurement.
    #[arg(long)]
    seconds: Option<f64>,
    #[arg(long)]
    rounds: Option<usize>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let result = match &arguments.what {
        What::RunServer { words } => process::run_server(words),
        What::AnswerRequests { kind, port } => requests::serve(kind, *port),
        What::RecoveryStep { step, place } => {
            recovery::step(*step, place).map(|told| print(&told.to_string()))
        }
        What::Report { file } => read(file).map(|report| print(&report.markdown())),
        What::All
        | What::Raft(_)
        | What::Log
        | What::Cluster(_)
        | What::Sim
        | What::Ring
        | What::Requests(_)
        | What::Membership
        | What::Idle
        | What::Move { .. }
        | What::Recovery { .. } => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("bench: {problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let common = &arguments.common;
    let made = fs::create_dir_all(&common.data);
    made.map_err(|e| format!("cannot make {}: {e}", common.data.display()))?;
    process::Directory::remove_orphans(&common.data)?;
    let machine = Machine::here(&common.data);
    let mut report = Report { machine, sections: Vec::new() };
    let all = [
        "raft",
        "log",
        "cluster",
        "requests",
        "sim",
        "ring",
        "membership",
        "idle",
        "recovery",
        "move",
    ];
    let parts: Vec<What> = match &arguments.what {
        What::All => all.map(|part| Arguments::parse_from(["bench", part]).what).into(),
        What::Raft(_)
        | What::Log
        | What::Cluster(_)
        | What::Sim
        | What::Ring
        | What::Requests(_)
        | What::Membership
        | What::Idle
        | What::Move { .. }
        | What::Recovery { .. }
        | What::Report { .. }
        | What::RunServer { .. }
        | What::AnswerRequests { .. }
        | What::RecoveryStep { .. } => Vec::new(),
    };
    let parts = if parts.is_empty() { vec![&arguments.what] } else { parts.iter().collect() };
    for part in parts {
        report.sections.extend(common.measure(part)?);
        // Each time: what is there stays when a later part fails.
        if let Some(path) = &common.json {
            write(path, &serde_json::to_string_pretty(&report).expect("plain data"))?;
        }
        if let Some(path) = &common.markdown {
            write(path, &report.markdown())?;
        }
    }
    print(&report.markdown());
    Ok(())
}

impl Common {
    fn measure(&self, what: &What) -> Result<Option<Section>, String> {
        let data = self.data.clone();
        let seconds = Duration::from_secs_f64;
        let section = match what {
            What::Raft(given) => raft::run(&raft::Plan {
                in_flight: given.in_flight.clone(),
                bytes: given.bytes,
                proposals: given.proposals.unwrap_or(self.pick(1_000_000, 200_000)),
                rounds: given.rounds.unwrap_or(self.pick(7, 3)),
            }),
            What::Log => log::run(&log::Plan {
                writers: vec![1, 64, 256],
                bytes: 64,
                window: seconds(self.pick(1.0, 0.5)),
                rounds: self.pick(5, 3),
                data,
            })?,
            What::Cluster(given) => cluster::run(&cluster::Plan {
                systems: given.systems.clone(),
                calls: given.calls.clone(),
                callers: given.callers.clone(),
                rounds: given.rounds.unwrap_or(self.pick(3, 1)),
                window: seconds(given.seconds.unwrap_or(self.pick(2.5, 1.5))),
                value_bytes: given.value_bytes,
                keys: 10_000,
                data,
            })?,
            What::Sim => simulator::run(self.pick(40, 10))?,
            What::Ring => ring::run(&ring::Plan {
                members: vec![3, 10, 100, 1000],
                draws: self.pick(20, 3),
                rounds: self.pick(100, 20),
                shards: 64,
                replicas: 3,
            }),
            What::Requests(given) => requests::run(&requests::Plan {
                systems: given.systems.clone(),
                in_flight: given.in_flight.clone(),
                bytes: given.bytes.clone(),
                window: seconds(given.seconds.unwrap_or(self.pick(2.0, 1.0))),
                rounds: given.rounds.unwrap_or(self.pick(3, 1)),
                stream_bytes: given.stream_mib << 20,
                data,
            })?,
            What::Membership => membership::run(&membership::Plan {
                members: vec![100, 1000],
                rounds: self.pick(7, 3),
                member_periods: self.pick(200_000, 50_000),
            }),
            What::Idle => {
                idle::run(&data, seconds(self.pick(10.0, 5.0)), seconds(self.pick(30.0, 10.0)))?
            }
            What::Recovery { mib } => recovery::run(&recovery::Plan {
                log_bytes: mib.unwrap_or(self.pick(1024, 256)) << 20,
                rounds: self.pick(3, 1),
                data,
            })?,
            What::Move { mib, kills } => moving::run(&moving::Plan {
                moved_bytes: mib.unwrap_or(self.pick(1024, 128)) << 20,
                callers: 64,
                window: seconds(self.pick(10.0, 5.0)),
                kills: kills.unwrap_or(self.pick(10, 3)),
                data,
            })?,
            What::All
            | What::Report { .. }
            | What::RunServer { .. }
            | What::AnswerRequests { .. }
            | What::RecoveryStep { .. } => {
                return Ok(None);
            }
        };
        Ok(Some(section))
    }

    /// The usual amount, or that of a short run.
    fn pick<T>(&self, usual: T, short: T) -> T {
        if self.short { short } else { usual }
    }
}

fn read(path: &Path) -> Result<Report, String> {
    let text =
        fs::read_to_string(path).map_err(|e| format!("cannot read {}: {e}", path.display()))?;
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", path.display()))
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

#[expect(clippy::print_stdout, reason = "the result of a benchmark is what it prints")]
fn print(text: &str) {
    print!("{text}");
}
