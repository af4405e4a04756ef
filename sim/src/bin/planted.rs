//! Plants known bugs, one at a time, and sees what notices them: `planted`, `planted R1 W6`, `planted --check`.
//!
//! Each file in `sim/planted` is a patch of a few lines. The sources are copied beneath the target folder, the patch
//! is applied there, and seeds are run until a check notices, or the budget is spent. The build is a release build:
//! the assertions of core are on in it, as they are for users, so a bug may end a run before a check has seen
//! it. Therefore an assertion that fails does not end the search: seeds are run on until a check notices too, and a
//! bug that only assertions notice is a warning. One that nothing notices is work to do, and fails this program.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Output};

use clap::Parser;

/// Plants known bugs and sees what notices them.
#[derive(Parser)]
#[command(version)]
struct Args {
    /// Which patches; all if none is named.
    ids: Vec<String>,
    /// Most seeds for each.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Only see whether every patch applies.
    #[arg(long)]
    check: bool,
    /// Only say which there are.
    #[arg(long)]
    list: bool,
}

/// A bug to plant.
struct Patch {
    id: String,
    name: String,
    path: PathBuf,
    suite: Suite,
}

/// What is to notice it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Suite {
    /// Seeds of the simulator.
    Swarm,
    /// Seeds in all of which members come and go.
    Churn,
    /// Drawn lives of small clusters of failure detectors.
    Gossip,
    /// The tests of core: for what a simulated cluster does not do yet.
    Core,
}

/// The copy of the sources in which bugs are planted.
struct Bed {
    root: PathBuf,
    copy: PathBuf,
}

/// What came of a planted bug.
#[derive(Default)]
struct Finding {
    /// The check that noticed, and after how many seeds.
    check: Option<(String, u64)>,
    /// The assertion that failed first, and after how many seeds.
    assertion: Option<(String, u64)>,
    seeds: u64,
}

type Error = Box<dyn std::error::Error>;

fn main() -> Result<ExitCode, Error> {
    let args = Args::parse();
    let mut out = io::stdout().lock();
    let bed = Bed::new()?;
    let mut patches = bed.patches()?;
    for id in &args.ids {
        if patches.iter().all(|patch| patch.id != *id) {
            return Err(format!("no patch {id}").into());
        }
    }
    patches.retain(|patch| args.ids.is_empty() || args.ids.contains(&patch.id));
    if args.list {
        for patch in &patches {
            writeln!(out, "{:5} {}", patch.id, patch.name)?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if args.check {
        for patch in &patches {
            bed.plant(patch)?;
        }
        writeln!(out, "{} patches apply", patches.len())?;
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "| id | bug | noticed by | after | assertion | CPU |")?;
    writeln!(out, "|---|---|---|---|---|---|")?;
    let mut missed = Vec::new();
    for patch in &patches {
        bed.plant(patch)?;
        let program = match patch.suite {
            Suite::Swarm | Suite::Churn => Some(bed.build("swarm")?),
            Suite::Gossip => Some(bed.build("gossip")?),
            Suite::Core => None,
        };
        let begun = cpu_seconds();
        let finding = match &program {
            Some(program) => search(program, patch.suite, &args)?,
            None => bed.test_core()?,
        };
        writeln!(out, "{}", row(patch, &finding, cpu_seconds() - begun))?;
        out.flush()?;
        if finding.check.is_none() && finding.assertion.is_none() {
            missed.push(patch.id.clone());
        }
    }
    if missed.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    writeln!(out, "\nnoticed by nothing: {}", missed.join(" "))?;
    Ok(ExitCode::FAILURE)
}

fn row(patch: &Patch, finding: &Finding, cpu: u64) -> String {
    let Patch { id, name, .. } = patch;
    let after = |seeds: u64| match patch.suite {
        Suite::Swarm | Suite::Churn | Suite::Gossip => format!("{seeds} seeds"),
        Suite::Core => String::from("core's tests"),
    };
    let (check, when) = match (&finding.check, &finding.assertion) {
        (Some((check, seeds)), _) => (check.clone(), after(*seeds)),
        (None, Some(_)) => (String::from("WARNING: only an assertion"), after(finding.seeds)),
        (None, None) => (String::from("NOTHING"), after(finding.seeds)),
    };
    let assertion = match &finding.assertion {
        Some((what, seeds)) => format!("{what} ({})", after(*seeds)),
        None => String::new(),
    };
    format!("| {id} | {name} | {check} | {when} | {assertion} | {cpu} s |")
}

/// Runs seeds until a check notices. A process runs a few only, and in bounded memory.
fn search(program: &Path, suite: Suite, args: &Args) -> Result<Finding, Error> {
    let mut finding = Finding::default();
    let mut crashes = 0;
    while finding.seeds < args.seeds && crashes < CRASHES_MAX {
        let first = args.first + finding.seeds;
        let count = SEEDS_AT_ONCE.min(args.seeds - finding.seeds);
        let run = Command::new("sh")
            .args(["-c", "ulimit -v 3500000; exec \"$0\" \"$@\""])
            .arg(program)
            .args(seeds(suite, first, count))
            .output()?;
        let said = String::from_utf8_lossy(&run.stdout);
        let Some((seed, class, problem)) = said.lines().find_map(failure) else {
            if !run.status.success() {
                return Err(died("the simulator", &run));
            }
            finding.seeds += count;
            continue;
        };
        finding.seeds += seed - first + 1;
        if class != "crash" {
            finding.check = Some((described(class, problem), finding.seeds));
            break;
        }
        crashes += 1;
        let place = said.lines().find_map(panic_place).unwrap_or(problem);
        finding.assertion.get_or_insert((format!("`{place}`"), finding.seeds));
    }
    Ok(finding)
}

/// What tells the program to run these seeds.
fn seeds(suite: Suite, first: u64, count: u64) -> Vec<String> {
    let words = match suite {
        Suite::Gossip => format!("--seed {first} --trials {count}"),
        Suite::Churn => format!("--jobs 1 --failures 1 --churn --first {first} --seeds {count}"),
        Suite::Swarm | Suite::Core => {
            format!("--jobs 1 --failures 1 --steady --first {first} --seeds {count}")
        }
    };
    words.split(' ').map(String::from).collect()
}

/// Reads `seed 7 FAILED: safety: MATCH: ...`, and `trial 7 FAILED: GHOST: ...`.
fn failure(line: &str) -> Option<(u64, &str, &str)> {
    if let Some(line) = line.strip_prefix("trial ") {
        let (seed, problem) = line.split_once(" FAILED: ")?;
        let class = match problem.split_once(": ")?.0 {
            "LIVE" => "liveness",
            "crash" => "crash",
            _ => "safety",
        };
        return Some((seed.parse().ok()?, class, problem));
    }
    let (seed, rest) = line.strip_prefix("seed ")?.split_once(" FAILED: ")?;
    let (class, problem) = rest.split_once(": ")?;
    Some((seed.parse().ok()?, class, problem))
}

/// Reads `seed 7 FAILED: crash: panicked at core/src/raft/mod.rs:500:9:`.
fn panic_place(line: &str) -> Option<&str> {
    let (_, place) = line.split_once("crash: panicked at ")?;
    Some(place.trim_end_matches(':'))
}

/// The check and the class; of what did not happen in time, what that was.
fn described(class: &str, problem: &str) -> String {
    match class {
        "liveness" => {
            let end = problem.char_indices().nth(60).map_or(problem.len(), |(at, _)| at);
            let problem = problem[..end].trim_start_matches("LIVE: ");
            format!("LIVE (liveness): {}", problem.replace('|', "/"))
        }
        _ => format!("{} ({class})", problem.split(':').next().unwrap_or(problem)),
    }
}

impl Bed {
    fn new() -> Result<Self, Error> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize()?;
        let program = std::env::current_exe()?;
        // The program stands in <target>/<profile>.
        let target = program.ancestors().nth(2).ok_or("no target folder")?;
        Ok(Self { root, copy: target.join("planted") })
    }

    /// All patches, in the order of the catalogue.
    fn patches(&self) -> Result<Vec<Patch>, Error> {
        let mut patches = Vec::new();
        for entry in fs::read_dir(self.root.join("sim/planted"))? {
            let path = entry?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
            if path.extension().is_none_or(|extension| extension != "patch") {
                continue;
            }
            let (id, name) = stem.split_once('-').ok_or(format!("{stem}: <id>-<name>.patch"))?;
            let text = fs::read_to_string(&path)?;
            let suite = match text.lines().find_map(|line| line.strip_prefix("Suite: ")) {
                Some("core") => Suite::Core,
                Some("gossip") => Suite::Gossip,
                Some("churn") => Suite::Churn,
                Some(_) | None => Suite::Swarm,
            };
            let (id, name) = (id.to_owned(), name.replace('-', " "));
            patches.push(Patch { id, name, path, suite });
        }
        patches.sort_by_key(|patch| {
            let digits = patch.id[1..].trim_end_matches(|c: char| c.is_ascii_lowercase());
            (patch.id[..1].to_owned(), digits.parse::<u64>().ok(), patch.id.clone())
        });
        Ok(patches)
    }

    /// Makes the copy equal to the sources, and applies a patch.
    fn plant(&self, patch: &Patch) -> Result<(), Error> {
        self.copy_sources()?;
        let before = self.digest()?;
        let output = Command::new("git")
            .args(["apply", "--whitespace=nowarn"])
            .arg(&patch.path)
            .current_dir(&self.copy)
            // Inside a repository git would take the paths for the repository's, and apply nothing.
            .env("GIT_CEILING_DIRECTORIES", self.copy.parent().unwrap_or(&self.copy))
            .output()?;
        if !output.status.success() {
            return Err(died(&format!("{}: git apply", patch.id), &output));
        }
        if self.digest()? == before {
            return Err(format!("{}: the patch changed nothing", patch.id).into());
        }
        Ok(())
    }

    /// Copies what is needed to build core and sim. A file that is the same is left alone, so that only what a
    /// patch touches is built again.
    fn copy_sources(&self) -> Result<(), Error> {
        let mut wanted = BTreeSet::new();
        for folder in ["core", "sim/src"] {
            list(&self.root.join(folder), &mut wanted)?;
        }
        for file in ["Cargo.lock", ".cargo/config.toml", "sim/Cargo.toml"] {
            wanted.insert(self.root.join(file));
        }
        let mut copies = BTreeSet::new();
        for file in wanted {
            let copy = self.copy.join(file.strip_prefix(&self.root)?);
            put(&copy, &fs::read(&file)?)?;
            copies.insert(copy);
        }
        let mut present = BTreeSet::new();
        for folder in ["core", "sim"] {
            list(&self.copy.join(folder), &mut present)?;
        }
        for file in present.difference(&copies) {
            fs::remove_file(file)?;
        }
        let manifest = fs::read_to_string(self.root.join("Cargo.toml"))?;
        let lines = manifest.lines().filter(|line| !line.starts_with("default-members"));
        let lines = lines.map(|line| match line.starts_with("members = ") {
            true => "members = [\"core\", \"sim\"]",
            false => line,
        });
        let manifest: Vec<&str> = lines.collect();
        let manifest = format!("{}\n{QUICK_BUILDS}", manifest.join("\n"));
        put(&self.copy.join("Cargo.toml"), manifest.as_bytes())
    }

    /// All sources of the copy, to see whether a patch has changed any.
    fn digest(&self) -> Result<Vec<Vec<u8>>, Error> {
        let mut files = BTreeSet::new();
        list(&self.copy.join("core"), &mut files)?;
        list(&self.copy.join("sim"), &mut files)?;
        Ok(files.iter().map(fs::read).collect::<Result<_, _>>()?)
    }

    fn cargo(&self, args: &[&str]) -> Result<Output, Error> {
        // With a limit for it and its children: a planted bug may be a loop without an end.
        let mut cargo = Command::new("timeout");
        cargo.arg(LIMIT_SECONDS).arg(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(args).current_dir(&self.copy).env_remove("RUSTFLAGS");
        cargo.env("CARGO_INCREMENTAL", "1").env("CARGO_PROFILE_RELEASE_LTO", "off");
        // What fails is enough; the least of it is not looked for.
        cargo.env("PROPTEST_MAX_SHRINK_ITERS", "0");
        Ok(cargo.env("CARGO_TARGET_DIR", self.copy.join("target")).output()?)
    }

    fn build(&self, program: &str) -> Result<PathBuf, Error> {
        let output =
            self.cargo(&["build", "--release", "--offline", "-p", "sim", "--bin", program])?;
        match output.status.success() {
            true => Ok(self.copy.join("target/release").join(program)),
            false => Err(died("build", &output)),
        }
    }

    /// Runs core's own tests, and says which of them failed; of those that do not end only that they were running.
    fn test_core(&self) -> Result<Finding, Error> {
        let output = self.cargo(&["test", "--offline", "-p", "ring-core", "--lib"])?;
        let said = String::from_utf8_lossy(&output.stdout);
        let mut failed: Vec<&str> = said
            .lines()
            .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(" ... FAILED"))
            .collect();
        if failed.is_empty() && output.status.code() == Some(TIMED_OUT) {
            failed = said
                .lines()
                .filter_map(|line| line.strip_prefix("test ")?.strip_suffix(STILL_RUNNING))
                .collect();
        }
        if failed.is_empty() && !output.status.success() {
            return Err(died("core's tests", &output));
        }
        let first = failed.first().map(|test| {
            let more = failed.len() - 1;
            (if more == 0 { format!("`{test}`") } else { format!("`{test}` and {more} more") }, 0)
        });
        Ok(Finding { check: first, ..Finding::default() })
    }
}

fn died(what: &str, output: &Output) -> Error {
    let said = [&output.stdout[..], &output.stderr[..]].concat();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().collect();
    let last = lines[lines.len().saturating_sub(30)..].join("\n");
    format!("{what} failed ({}):\n{last}", output.status).into()
}

/// All files beneath a folder.
fn list(folder: &Path, files: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            list(&path, files)?;
        } else {
            files.insert(path);
        }
    }
    Ok(())
}

fn put(file: &Path, content: &[u8]) -> Result<(), Error> {
    if fs::read(file).is_ok_and(|present| present == content) {
        return Ok(());
    }
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(file, content)?;
    Ok(())
}

/// CPU time of all processes that this one has waited for; 0 where the system does not tell.
fn cpu_seconds() -> u64 {
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // Behind the name come state, parent, ...: user and system time of children are the 14th and 15th, in hundredths.
    let (_, numbers) = stat.rsplit_once(')').unwrap_or_default();
    let ticks = numbers.split_whitespace().skip(13).take(2);
    ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum::<u64>() / 100
}

/// A patch changes little: built piece by piece and with less optimization, it is built in seconds.
const QUICK_BUILDS: &str = "
[profile.release.package.ring-core]
opt-level = 1
debug = false
[profile.release.package.sim]
opt-level = 1
debug = false
";
/// For a build, or a build and core's tests.
const LIMIT_SECONDS: &str = "900";
/// What `timeout` exits with when the time is over.
const TIMED_OUT: i32 = 124;
/// What the test harness says of a test that takes long.
const STILL_RUNNING: &str = " has been running for over 60 seconds";
/// A process of the simulator grows with each run.
const SEEDS_AT_ONCE: u64 = 50;
/// So many failed assertions, and no check has noticed: none will.
const CRASHES_MAX: u64 = 30;
