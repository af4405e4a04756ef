//! The command `ring`: a cluster for development, single members, and a client of either.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | done |
//! | 1 | the answer is no: no such key, no match in compare-and-set, a leaderless shard, damage |
//! | 2 | wrong usage or a bad configuration |
//! | 3 | no cluster found, or no answer in time; the call did not happen |
//! | 4 | the outcome of a write is not known |
//! | 5 | the cluster refused the call: a limit, or an invalid argument |
//! | 6 | a member cannot start or has halted: its port, its directory, its disk |
//! | 7 | reading or writing a file or stream of the command itself failed |
//!
//! An error is one line on stderr that begins with `ring: `. A reader that closes our stdout early
//! (`ring kv scan | head`) ends a client command quietly, with code 0.

mod args;
mod bench;
mod connect;
mod dev;
mod dev_state;
mod follow;
mod fsck;
mod keys;
mod kv;
mod members;
mod out;
mod owner;
mod request;
mod serve;
mod status;
mod stop;

use std::future::Future;
use std::process::ExitCode;

use crate::args::{Cli, Command};
use crate::stop::{Code, Stop};

fn main() -> ExitCode {
    let result = args::parse(std::env::args_os()).and_then(run);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(stop) => stop.report(),
    }
}

fn run(cli: Cli) -> Result<(), Stop> {
    let Cli { common, command } = cli;
    match command {
        Command::Dev(args) => on_tokio(dev::run(&common, &args)),
        Command::Serve(args) => on_tokio(serve::run(&common, &args)),
        Command::Status(args) => on_tokio(status::run(&common, &args)),
        Command::Members => on_tokio(members::run(&common)),
        Command::Leave(args) => on_tokio(members::leave(&common, &args)),
        Command::Kv(args) => on_tokio(kv::run(&common, &args)),
        Command::Owner(args) => on_tokio(owner::run(&common, &args)),
        Command::Request(args) => on_tokio(request::run(&common, &args)),
        Command::Bench(args) => on_tokio(bench::run(&common, &args)),
        Command::Fsck(args) => fsck::run(&common, &args),
        Command::Keys(args) => keys::run(&common, &args),
        Command::Completions(args) => args::completions(args.shell),
    }
}

/// Runs a command on a runtime of its own, which ends with it: a task that still reads stdin does
/// not hold it up.
fn on_tokio(command: impl Future<Output = Result<(), Stop>>) -> Result<(), Stop> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Stop::new(Code::Io, format!("cannot start worker threads: {e}")))?;
    let result = runtime.block_on(command);
    runtime.shutdown_background();
    result
}
