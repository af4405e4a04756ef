//! `bench recovery`: how long a member takes to know again what it promised, from a long log.
//!
//! A cluster of one whose log is never cut is filled by 256 callers with values of 1 KiB, and killed. Then, each time
//! in a new process: the log is read (all that Raft needs is in memory then), or the whole member is opened, until it
//! is up and until it has answered linearizable reads of 256 partitions. Beside it the bare reading of the same files.
//! Cold: every file of the directory was dropped from the system's page cache first (`posix_fadvise`); the disk's own
//! caches, and those of a host under a virtual machine, are not ours to drop.
//!
//! What it does not show: a usual log, which is cut at 256 MiB; a member that gets its state from others.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};
use std::{env, io};

use bytes::Bytes;
use libring::{Data, Node, Options};
use ring_core::config::Limits;
use rustix::fs::{Advice, fadvise};
use serde_json::{Value, json};

use crate::process::{Directory, Server};
use crate::report::{Columns, Section, median, show};

/// How it is measured.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// How long the log becomes.
    pub(crate) log_bytes: u64,
    pub(crate) rounds: usize,
    /// Where data directories are made.
    pub(crate) data: PathBuf,
}

/// What is timed, in a process of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Step {
    /// Write until killed.
    Fill,
    /// Read the files, and do nothing with them.
    Read,
    /// Recover the log.
    Recover,
    /// Open the member.
    Open,
}

/// Measures, in turns.
pub(crate) fn run(plan: &Plan) -> Result<Section, String> {
    let dir = Directory::new(&plan.data, "recovery")?;
    let member = dir.path().join("member");
    fill(dir.path(), &member, plan.log_bytes)?;
    let log = member.join("log");
    let steps = [(Step::Read, "files read"), (Step::Recover, "Raft state ready")];
    let mut timed: Vec<(&str, bool, Vec<Value>)> = Vec::new();
    for cold in [true, false] {
        for (_, name) in steps {
            timed.push((name, cold, Vec::new()));
        }
        timed.push(("member open", cold, Vec::new()));
    }
    for _ in 0..plan.rounds {
        for (k, (step, _)) in steps.iter().enumerate() {
            for (place, cold) in [(k, true), (k + 3, false)] {
                timed[place].2.push(time(*step, &log, &member, cold)?);
            }
        }
    }
    // Last, because it writes: every start begins a segment.
    for (place, cold) in [(2, true), (5, false)] {
        timed[place].2.push(time(Step::Open, &member, &member, cold)?);
    }
    Ok(section(&timed, plan))
}

/// Writes until the log is long enough, then kills the member.
fn fill(dir: &Path, member: &Path, bytes: u64) -> Result<(), String> {
    let own = env::current_exe().map_err(|e| e.to_string())?;
    let words =
        [own.display().to_string(), COMMAND.into(), "fill".into(), member.display().to_string()];
    let mut server = Server::spawn("fill", &words, dir)?;
    let give_up = Instant::now() + FILL_PATIENCE;
    while size(&member.join("log")) < bytes {
        server.check()?;
        if Instant::now() > give_up {
            return Err(format!("the log did not grow to {bytes} bytes in time"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// Runs one step in a process of its own; what it says is JSON.
fn time(step: Step, place: &Path, member: &Path, cold: bool) -> Result<Value, String> {
    let problem = |e: io::Error| format!("{step:?}: {e}");
    for path in files(member).map_err(problem)? {
        let file = File::open(&path).map_err(problem)?;
        // Only what is on the disk can be dropped.
        file.sync_all().map_err(problem)?;
        if cold {
            fadvise(&file, 0, None, Advice::DontNeed).map_err(|e| problem(e.into()))?;
        } else {
            io::copy(&mut &file, &mut io::sink()).map_err(problem)?;
        }
    }
    let own = env::current_exe().map_err(problem)?;
    let name = format!("{step:?}").to_lowercase();
    let output = Command::new(own).args([COMMAND, &name]).arg(place).output().map_err(problem)?;
    if !output.status.success() {
        return Err(format!("{step:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    serde_json::from_slice(&output.stdout).map_err(|e| format!("{step:?}: {e}"))
}

fn section(timed: &[(&str, bool, Vec<Value>)], plan: &Plan) -> Section {
    let mut table = Columns::new(&["step", "page cache", "seconds", "MiB/s"]);
    let mut notes = Vec::new();
    for (name, cold, values) in timed {
        let of = |field: &str| median(values.iter().filter_map(|v| v[field].as_f64()));
        let mut row = |name: &str, seconds: f64| {
            table.rows.push(vec![
                String::from(name),
                String::from(if *cold { "cold" } else { "warm" }),
                show(seconds),
                show(of("bytes") / f64::from(1 << 20) / seconds),
            ]);
        };
        row(name, of("seconds"));
        let read = of("read_seconds");
        if read.is_finite() {
            row("member open, 256 partitions read", read);
        }
        let entries = values.iter().find_map(|v| v["entries"].as_u64());
        if let Some(entries) = entries.filter(|_| *cold) {
            notes.push(format!("The log held {entries} entries of Raft that were needed."));
        }
    }
    let figures = timed
        .iter()
        .map(|(name, cold, values)| json!({ "step": name, "cold": cold, "rounds": values }));
    Section {
        name: String::from("recovery"),
        title: String::from("from a long log to a member"),
        about: vec![
            format!(
                "A log of {} MiB of a cluster of one that was killed under load; values of 1 KiB. \
                 Each step in a new process.",
                plan.log_bytes >> 20
            ),
            format!("Medians of {} rounds in turn; the member was opened once.", plan.rounds),
        ],
        tables: vec![table],
        notes,
        figures: figures.collect(),
    }
}

/// One step, in this process.
pub(crate) fn step(step: Step, place: &Path) -> Result<Value, String> {
    let begin = Instant::now();
    match step {
        Step::Fill => runtime()?.block_on(fill_until_killed(place)),
        Step::Read => {
            let mut bytes = Vec::new();
            for path in files(place).map_err(|e| e.to_string())? {
                bytes.clear();
                let read = File::open(path).and_then(|mut file| file.read_to_end(&mut bytes));
                read.map_err(|e| e.to_string())?;
            }
            Ok(json!({ "seconds": begin.elapsed().as_secs_f64(), "bytes": size(place) }))
        }
        Step::Recover => {
            let recovered = libring::bench::recover(place).map_err(|e| e.to_string())?;
            let seconds = begin.elapsed().as_secs_f64();
            let entries: usize = recovered.groups.values().map(|group| group.entries.len()).sum();
            Ok(json!({ "seconds": seconds, "bytes": size(place), "entries": entries }))
        }
        Step::Open => runtime()?.block_on(async {
            let bytes = size(&place.join("log"));
            let node = Node::open(options(place)).await.map_err(|e| e.to_string())?;
            let open = begin.elapsed().as_secs_f64();
            for k in 0..PARTITIONS {
                let get = node.partition(&partition(k)).get(Bytes::from_static(b"none")).await;
                get.map_err(|e| e.to_string())?;
            }
            let read = begin.elapsed().as_secs_f64();
            node.close().await.map_err(|e| e.to_string())?;
            Ok(json!({ "seconds": open, "read_seconds": read, "bytes": bytes }))
        }),
    }
}

async fn fill_until_killed(dir: &Path) -> Result<Value, String> {
    let node = Node::open(options(dir)).await.map_err(|e| e.to_string())?;
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..CALLERS {
        let partition = node.partition(&partition(caller % PARTITIONS));
        callers.spawn(async move {
            let value = Bytes::from(vec![7; 1 << 10]);
            for n in 0.. {
                let key = Bytes::from(format!("{caller}-{n}"));
                partition.put(key, value.clone()).await.map_err(|e| e.to_string())?;
            }
            Ok(())
        });
    }
    while let Some(caller) = callers.join_next().await {
        caller.map_err(|e| e.to_string()).flatten()?;
    }
    Err(String::from("callers end only with this process"))
}

/// Of a member that never cuts its log.
fn options(dir: &Path) -> Options {
    let limits = Limits { log_bytes: 1 << 40, ..Limits::default() };
    Options { data: Data::Dir(dir.to_path_buf()), limits, ..Options::default() }
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Runtime::new().map_err(|e| e.to_string())
}

fn partition(k: usize) -> String {
    format!("bench-{k}")
}

/// Bytes of all files in a directory; none while it is not there.
fn size(dir: &Path) -> u64 {
    let length = |path: &PathBuf| path.metadata().map_or(0, |metadata| metadata.len());
    files(dir).map_or(0, |files| files.iter().map(length).sum())
}

/// All files in a directory and below.
fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut entries: Vec<PathBuf> =
        fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    entries.sort_unstable();
    for path in entries {
        if path.is_dir() {
            found.extend(files(&path)?);
        } else {
            found.push(path);
        }
    }
    Ok(found)
}

/// The hidden command that runs a [`Step`].
pub(crate) const COMMAND: &str = "recovery-step";
const CALLERS: usize = 256;
const PARTITIONS: usize = 256;
const FILL_PATIENCE: Duration = Duration::from_secs(300);
