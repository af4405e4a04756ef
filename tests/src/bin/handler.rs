//! `handler serve WORDS`: a member that handles requests, told what it is as `ring serve` is by `tests::members`. Made to
//! be killed, stopped where it is and closed while it handles them.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use libring::{Data, HandlerError, Incoming, Keys, Node, Options};
use tests::handled::{self, ECHO, RECORD, Record, STREAM, TAKES, WORK};
use tokio::signal::unix::{SignalKind, signal};

fn main() -> ExitCode {
    let words: Vec<String> = env::args().skip(1).collect();
    let options = match words.split_first() {
        Some((first, rest)) if first == "serve" => options(rest),
        _ => Err(String::from("usage: handler serve WORDS")),
    };
    let runtime = tokio::runtime::Runtime::new().expect("threads can be started");
    match options.and_then(|options| runtime.block_on(serve(options))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            eprintln!("handler: {line}");
            ExitCode::FAILURE
        }
    }
}

/// What the words say: each `--name` with a value.
fn options(words: &[String]) -> Result<Options, String> {
    // A member that comes back is asked before its handlers are there.
    let mut options =
        Options { timers: handled::timers(), hold_requests: true, ..Options::default() };
    for pair in words.chunks(2) {
        let [name, value] = pair else { return Err(format!("{pair:?} has no value")) };
        let wrong = |why: &dyn std::fmt::Display| format!("{name} {value}: {why}");
        match &**name {
            "--name" => options.name.clone_from(value),
            "--shards" => options.shards = value.parse().map_err(|e| wrong(&e))?,
            "--replication" => options.replication = value.parse().map_err(|e| wrong(&e))?,
            "--data" => options.data = Data::Dir(PathBuf::from(value)),
            "--keys" => options.keys = Some(Keys::read(value).map_err(|e| wrong(&e))?),
            "--member" => {
                let (name, address) = value.split_once('=').ok_or_else(|| wrong(&"no address"))?;
                options.members.push((name.to_owned(), address.to_owned()));
            }
            _ => return Err(wrong(&"unknown")),
        }
    }
    Ok(options)
}

#[allow(clippy::print_stdout, reason = "what it says is read by a test")]
async fn serve(options: Options) -> Result<(), String> {
    let name = options.name.clone();
    let record = env::var_os(RECORD).ok_or_else(|| format!("{RECORD} is not set"))?;
    let record = Record::open(&PathBuf::from(record), &name).map_err(|e| e.to_string())?;
    let mut told = signal(SignalKind::terminate()).map_err(|e| e.to_string())?;
    let node = Node::open(options).await.map_err(|e| e.to_string())?;
    let record = Arc::new(record);
    let work = move |incoming: Incoming| {
        let record = Arc::clone(&record);
        async move {
            record.begins(&incoming)?;
            tokio::time::sleep(TAKES).await;
            record.ends(&incoming)?;
            Ok(incoming.body().clone())
        }
    };
    node.handle(WORK, work).map_err(|e| e.to_string())?;
    node.handle(ECHO, echo).map_err(|e| e.to_string())?;
    node.serve();
    println!("{name} is up: {}", node.whoami());
    tokio::select! {
        halt = node.halted() => return Err(format!("halted: {halt}")),
        _ = told.recv() => {}
    }
    node.close().await.map_err(|e| e.to_string())
}

async fn echo(mut incoming: Incoming) -> Result<&'static str, HandlerError> {
    let both = incoming.reader(STREAM).zip(incoming.writer(STREAM));
    let (mut from, mut to) = both.ok_or_else(|| HandlerError::new(1, "no such stream"))?;
    while let Some(piece) = from.next().await? {
        to.write(piece).await?;
    }
    to.finish().await?;
    Ok("the end")
}
