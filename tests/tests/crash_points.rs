//! Every system call on a data file as a place to crash at, and as one that fails: a cluster of one
//! loses nothing that it acknowledged, stops with a line that says why, and starts again.
//!
//! `RING_CRASH_POINTS` says how many points each test draws, or `all`.

use std::collections::{BTreeMap, BTreeSet};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use tempfile::TempDir;
use tests::program::{Exit, Program};
use tests::skip::skip;
use tests::{PATIENCE, native, one};
use tokio::runtime::Runtime;

/// The process is killed before a call, or after it, or in the middle of a write.
#[test]
fn a_crash_at_any_call_loses_nothing() {
    const NAME: &str = "a_crash_at_any_call_loses_nothing";
    let Some(faults) = native::faults() else {
        return skip(NAME, "there is no C compiler");
    };
    let report = run_all(&faults, &[Kind::Kill, Kind::Torn]);
    eprintln!("{report:?}");
    assert!(report.contains_key("killed"), "no crash was met: {report:?}");
}

/// A call fails, a write falls short, the disk is full from there on, or a sync fails and what it
/// should have made durable is gone.
#[test]
fn an_error_at_any_call_loses_nothing() {
    const NAME: &str = "an_error_at_any_call_loses_nothing";
    let Some(faults) = native::faults() else {
        return skip(NAME, "there is no C compiler");
    };
    let report = run_all(&faults, &[Kind::Eio, Kind::Enospc, Kind::Short, Kind::Lost]);
    eprintln!("{report:?}");
    assert!(report.contains_key("halted"), "no error was met: {report:?}");
}

/// A disk that lies makes a cluster of one lose what it acknowledged, and this is seen: otherwise
/// the tests above would prove nothing.
#[test]
fn a_sync_that_lies_is_seen() {
    const NAME: &str = "a_sync_that_lies_is_seen";
    let Some(faults) = native::faults() else {
        return skip(NAME, "there is no C compiler");
    };
    let life = Scenario::life();
    let clean = Run::of(&life);
    clean.go(&faults, None).expect("it ends").ok();
    let calls = clean.calls();
    let syncs: Vec<usize> = (1..)
        .zip(&calls)
        .filter(|(_, call)| call.name == "fdatasync" && call.in_log())
        .map(|(at, _)| at)
        .collect();
    let runtime = Runtime::new().expect("worker threads can be started");
    // Not each time: what is lost may be no write, or in the store already; and a run may end before
    // a sync that another one reached.
    let (early, late) = syncs.split_at(syncs.len() / 2);
    let seen = late.iter().chain(early.iter().rev()).any(|at| {
        let ended = run_one(&runtime, &faults, &life, Kind::Lie, *at);
        ended.is_err_and(|what| what.contains("were acknowledged and are lost"))
    });
    assert!(seen, "no lost write was noticed");
}

/// The library that lets calls fail sees every one that a tracer sees: otherwise the tests above
/// would leave some out. It cannot see those that a program makes without the C library; they are
/// let crash and fail by the tracer.
#[test]
fn no_call_on_a_data_file_is_left_out() {
    const NAME: &str = "no_call_on_a_data_file_is_left_out";
    let Some(faults) = native::faults() else {
        return skip(NAME, "there is no C compiler");
    };
    let traced = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).output();
    if !traced.is_ok_and(|ended| ended.status.success()) {
        return skip(NAME, "strace is not there, or may not trace");
    }
    let runtime = Runtime::new().expect("worker threads can be started");
    for scenario in [Scenario::life(), Scenario::again(&faults)] {
        let run = Run::of(&scenario);
        run.traced(&faults, &[]).expect("it ends").ok();
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for call in run.calls() {
            *counted.entry(call.name).or_default() += 1;
        }
        let mut seen = run.trace();
        // Of a crate that makes temporary files.
        let raw = seen.remove("renameat").unwrap_or_default();
        assert_eq!(counted, seen, "{}", scenario.name);
        eprintln!("{}: {counted:?}, and renameat: {raw}", scenario.name);

        for at in 1..=raw {
            for (kind, what) in [(Kind::Kill, "signal=KILL"), (Kind::Eio, "error=EIO")] {
                let run = Run::of(&scenario);
                let exit =
                    run.traced(&faults, &["-e", &format!("inject=renameat:{what}:when={at}")]);
                let what = format!("{} renameat:{what}@{at}", scenario.name);
                let how = run.judge(&runtime, kind, exit, &what);
                how.unwrap_or_else(|wrong| panic!("{wrong}"));
            }
        }
    }
}

/// A directory that was made is synced in the one above, up to where something was there before:
/// a power cut takes what hangs on an unsynced name.
#[test]
fn new_directories_are_made_durable() {
    const NAME: &str = "new_directories_are_made_durable";
    let Some(faults) = native::faults() else {
        return skip(NAME, "there is no C compiler");
    };
    let life = Scenario { count: 1, ..Scenario::life() };
    let run = Run::of(&life);
    let deep = run.data().join("some").join("where");
    let mut command = Command::new(env!("CARGO_BIN_EXE_one"));
    command.arg(&deep).args(["0", "1"]).envs(
        run.command(&faults, None)
            .get_envs()
            .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned()))),
    );
    Program::spawn(command).wait_exit().ok();
    let calls = run.calls();
    let place = |name: &str, path: &str| {
        let found = calls.iter().position(|call| call.name == name && call.path == path);
        found.unwrap_or_else(|| panic!("no {name} of \"{path}\": {calls:?}"))
    };
    let first_promise = place("fdatasync", "/some/where/log/0000000000000001.log");
    for above in ["", "/some"] {
        assert!(place("fsync", above) > place("mkdir", "/some/where"));
        assert!(place("fsync", above) < first_promise);
    }
}

/// What happens at a call; `native/faults.c` says more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Kill,
    Torn,
    Eio,
    Enospc,
    Short,
    Lost,
    Lie,
}

impl Kind {
    /// As the library is told.
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Torn => "torn",
            Self::Eio => "eio",
            Self::Enospc => "enospc",
            Self::Short => "short",
            Self::Lost => "lost",
            Self::Lie => "lie",
        }
    }

    /// Whether it can happen at a call and is another thing there than a simpler kind.
    fn hits(self, call: &Call) -> bool {
        let name = call.name.as_str();
        let writes = name.contains("write");
        match self {
            Self::Kill | Self::Torn | Self::Eio => true,
            Self::Enospc => writes || ["create", "mkdir", "ftruncate", "fallocate"].contains(&name),
            Self::Short => writes,
            Self::Lost | Self::Lie => name.contains("sync"),
        }
    }

    /// What a line about it must say.
    fn reason(self) -> &'static str {
        match self {
            Self::Enospc => "No space left on device",
            Self::Kill | Self::Torn | Self::Eio | Self::Short | Self::Lost | Self::Lie => {
                "Input/output error"
            }
        }
    }
}

/// A system call on a data file.
#[derive(Clone, Debug)]
struct Call {
    name: String,
    /// Below the data directory.
    path: String,
}

/// A run of the workload on a certain directory.
struct Scenario {
    name: &'static str,
    base: Option<TempDir>,
    /// What is in `base`: acknowledged, and tried.
    acknowledged: BTreeSet<u64>,
    tried: BTreeSet<u64>,
    from: u64,
    count: u64,
}

impl Scenario {
    /// A cluster is created, its log turns over several times, and is cut.
    fn life() -> Self {
        Self {
            name: "life",
            base: None,
            acknowledged: BTreeSet::new(),
            tried: BTreeSet::new(),
            from: 0,
            count: 80,
        }
    }

    /// A member that was killed in the middle of a write to its log starts again and goes on.
    fn again(faults: &Path) -> Self {
        let life = Self::life();
        let clean = Run::of(&life);
        clean.go(faults, None).expect("it ends").ok();
        let calls = clean.calls();
        let is_write = |call: &Call| call.name == "write" && call.in_log();
        let mut last = calls.iter().rposition(is_write).expect("a life writes to its log");
        // Writes are gathered differently in each run: what one run reaches, another may not.
        let (run, exit) = loop {
            last = last * 4 / 5;
            let torn = calls[..last].iter().rposition(is_write);
            let torn = torn.expect("a life writes to its log often") + 1;
            let run = Run::of(&life);
            let exit = run.go(faults, Some((Kind::Torn, torn))).expect("it ends");
            if exit.code != Some(0) {
                break (run, exit);
            }
        };
        assert_eq!(exit.code, None, "{exit:?}");
        let acknowledged = acknowledged(&exit);
        assert!(acknowledged.len() > 20, "{exit:?}");
        Self {
            name: "again",
            base: Some(run.dir),
            acknowledged,
            tried: (0..life.count).collect(),
            from: life.count,
            count: 30,
        }
    }
}

impl Call {
    fn in_log(&self) -> bool {
        self.path.starts_with("/log/")
    }
}

/// One run of a scenario, on a copy of its directory.
struct Run<'a> {
    scenario: &'a Scenario,
    dir: TempDir,
}

impl<'a> Run<'a> {
    fn of(scenario: &'a Scenario) -> Self {
        let dir = tempfile::tempdir().expect("the temporary directory can be written");
        let run = Self { scenario, dir };
        match &scenario.base {
            Some(base) => copy(&base.path().join("data"), &run.data()),
            None => fs::create_dir(run.data()).expect("the directory is ours"),
        }
        run
    }

    fn data(&self) -> PathBuf {
        self.dir.path().canonicalize().expect("it is there").join("data")
    }

    fn command(&self, faults: &Path, fault: Option<(Kind, usize)>) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_one"));
        command.arg(self.data());
        command.args([self.scenario.from.to_string(), self.scenario.count.to_string()]);
        command.env("LD_PRELOAD", faults).env("RING_FAULT_DIR", self.data());
        command.env("RING_FAULT_LOG", self.dir.path().join("calls"));
        if let Some((kind, at)) = fault {
            command.env("RING_FAULT", format!("{}@{at}", kind.name()));
        }
        command
    }

    /// None if it hangs.
    fn go(&self, faults: &Path, fault: Option<(Kind, usize)>) -> Option<Exit> {
        Program::spawn(self.command(faults, fault)).exit_within(PATIENCE)
    }

    /// As [`Self::go`], under a tracer that is told this too.
    fn traced(&self, faults: &Path, words: &[&str]) -> Option<Exit> {
        let member = self.command(faults, None);
        let mut strace = Command::new("strace");
        strace.args(["-f", "-qq", "-y", "-s", "0", "-e", "signal=none", "-e"]);
        strace.arg(format!("trace={CALLS}")).arg("-o").arg(self.dir.path().join("trace"));
        strace.args(words);
        for (name, value) in member.get_envs() {
            let value = value.expect("nothing is removed from the environment").to_string_lossy();
            strace.arg("-E").arg(format!("{}={value}", name.to_string_lossy()));
        }
        strace.arg(member.get_program()).args(member.get_args());
        Program::spawn(strace).exit_within(PATIENCE)
    }

    /// How often the tracer saw each call on a data file, by the names that the library uses but
    /// for `renameat`.
    fn trace(&self) -> BTreeMap<String, usize> {
        let mut seen = BTreeMap::new();
        let data = self.data().display().to_string();
        let trace = fs::read_to_string(self.dir.path().join("trace")).expect("it was traced");
        for line in trace.lines().filter(|line| line.contains(&data)) {
            let (_, line) = line.split_once(' ').expect("a line begins with a process id");
            let line = line.trim_start();
            if line.starts_with("<... ") {
                continue; // The end of a call whose beginning was counted.
            }
            let name = line.split('(').next().unwrap_or_default();
            let name = match name.trim_end_matches("64") {
                "openat" | "open" if line.contains("O_CREAT") => "create",
                "openat" => "open",
                "renameat2" => "rename",
                "unlinkat" => "unlink",
                "mkdirat" => "mkdir",
                other => other,
            };
            *seen.entry(name.to_owned()).or_default() += 1;
        }
        seen
    }

    /// Tells how a run ended, or what is wrong with it and with what it left.
    fn judge(
        &self,
        runtime: &Runtime,
        kind: Kind,
        exit: Option<Exit>,
        what: &str,
    ) -> Result<&'static str, String> {
        let exit = exit.ok_or_else(|| format!("{what}: hangs"))?;
        let how = judge_end(kind, &exit).map_err(|e| format!("{what}: {e}: {exit:?}"))?;
        let mut kept = self.scenario.acknowledged.clone();
        kept.append(&mut acknowledged(&exit));
        let mut tried = self.scenario.tried.clone();
        tried.extend(self.scenario.from..self.scenario.from + self.scenario.count);
        let checked = runtime.block_on(one::check(&self.data(), &kept, &tried));
        checked.map_err(|e| format!("{what}: {e}; the run before: {exit:?}"))?;
        Ok(how)
    }

    /// The calls that it made, the one at which it ended included.
    fn calls(&self) -> Vec<Call> {
        let text = fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        let mut calls: Vec<(usize, Call)> = text
            .lines()
            .map(|line| {
                let words: Vec<&str> = line.splitn(3, ' ').collect();
                let [number, name, path] = words[..] else { panic!("{line}") };
                let number = number.parse().expect("calls are numbered");
                (number, Call { name: name.to_owned(), path: path.to_owned() })
            })
            .collect();
        // Threads count first and write the line then.
        calls.sort_by_key(|(number, _)| *number);
        calls.into_iter().map(|(_, call)| call).collect()
    }
}

fn acknowledged(exit: &Exit) -> BTreeSet<u64> {
    let said = exit.stdout.lines().filter_map(|line| line.strip_prefix("acknowledged "));
    said.map(|k| k.parse().expect("writes are numbered")).collect()
}

/// Runs both scenarios with each fault at each call, or at a sample of them. Tells how they ended.
fn run_all(faults: &Path, kinds: &[Kind]) -> BTreeMap<String, usize> {
    let scenarios = [Scenario::life(), Scenario::again(faults)];
    let mut points = Vec::new();
    for scenario in &scenarios {
        let clean = Run::of(scenario);
        clean.go(faults, None).expect("it ends").ok();
        let calls = clean.calls();
        for kind in kinds {
            let hit = (1..).zip(&calls).filter(|(_, call)| kind.hits(call));
            points.extend(hit.map(|(at, call)| (scenario, *kind, at, call.name.clone())));
        }
    }
    let total = points.len();
    let sample = sample(total);
    let next = AtomicUsize::new(0);
    let work = || {
        let runtime = Runtime::new().expect("worker threads can be started");
        let mut ended = Vec::new();
        while let Some(k) = sample.get(next.fetch_add(1, Ordering::Relaxed)) {
            let (scenario, kind, at, name) = &points[*k];
            let how = run_one(&runtime, faults, scenario, *kind, *at);
            // Of those that went on one wants to know what they bore.
            ended.push(how.map(|how| match how {
                "went on" => format!("went on ({} of {name})", kind.name()),
                how => how.to_owned(),
            }));
        }
        ended
    };
    let ended: Vec<Result<String, String>> = thread::scope(|scope| {
        let workers: Vec<_> = (0..WORKERS).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no run panics")).collect()
    });
    eprintln!("{} of {total} points", sample.len());
    let wrong: Vec<&String> = ended.iter().filter_map(|ended| ended.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{} of {}: {wrong:#?}", wrong.len(), sample.len());
    let mut report = BTreeMap::new();
    for how in ended.into_iter().flatten() {
        *report.entry(how).or_default() += 1;
    }
    report
}

/// Runs a scenario with one fault.
fn run_one(
    runtime: &Runtime,
    faults: &Path,
    scenario: &Scenario,
    kind: Kind,
    at: usize,
) -> Result<&'static str, String> {
    let run = Run::of(scenario);
    let exit = run.go(faults, Some((kind, at)));
    let calls = run.calls();
    let call = calls.get(at - 1).map(|call| format!("{} {}", call.name, call.path));
    let what = format!("{} {}@{at} ({})", scenario.name, kind.name(), call.unwrap_or_default());
    run.judge(runtime, kind, exit, &what)
}

fn judge_end(kind: Kind, exit: &Exit) -> Result<&'static str, &'static str> {
    if exit.stderr.contains("panicked") || exit.stderr.contains("a defect of libring") {
        return Err("panics");
    }
    match exit.code {
        None if matches!(kind, Kind::Kill | Kind::Torn | Kind::Lie) => Ok("killed"),
        None => Err("was killed by a signal"),
        Some(0) if exit.stderr.is_empty() => Ok("went on"),
        Some(0) => Err("says something and succeeds"),
        Some(6) if exit.stderr.lines().count() != 1 => Err("does not say why in one line"),
        Some(6) if !exit.stderr.contains(kind.reason()) => Err("does not say what failed"),
        Some(6) => Ok("halted"),
        Some(_) => Err("ends with a strange exit code"),
    }
}

/// Which points are tried: all, or as many as asked for, evenly spread.
fn sample(total: usize) -> Vec<usize> {
    let wanted = env::var("RING_CRASH_POINTS").unwrap_or_else(|_| String::from("40"));
    if wanted == "all" {
        return (0..total).collect();
    }
    let wanted: usize = wanted.parse().expect("RING_CRASH_POINTS is a number or `all`");
    (0..wanted.min(total)).map(|k| k * total / wanted.min(total)).collect()
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(copied.is_ok_and(|status| status.success()), "cannot copy {}", from.display());
}

/// What the library counts.
const CALLS: &str = "open,openat,creat,write,pwrite64,writev,pwritev,pwritev2,read,pread64,readv,\
                     preadv,fsync,fdatasync,sync_file_range,rename,renameat,renameat2,unlink,\
                     unlinkat,rmdir,mkdir,mkdirat,ftruncate,truncate,fallocate,link,linkat,\
                     copy_file_range,sendfile,msync";
const WORKERS: usize = 2;
