//! Servers as processes that do not outlive the benchmark, and what they use.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Signal, set_parent_process_death_signal};

/// A running server. Killed when this is dropped, and by the system when the benchmark dies first.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

/// Memory of a process, in KiB.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Memory {
    /// All its pages in memory.
    pub(crate) rss: u64,
    /// The same, pages that several processes share counted in parts.
    pub(crate) pss: u64,
}

impl Server {
    /// Starts a program, with what it says in `<name>.log` of the directory.
    pub(crate) fn spawn(name: &str, words: &[String], dir: &Path) -> Result<Self, String> {
        let log = dir.join(format!("{name}.log"));
        let problem = |e: io::Error| format!("cannot start {}: {e}", words[0]);
        let own = env::current_exe().map_err(problem)?;
        let out = File::create(&log).map_err(problem)?;
        let child = Command::new(own)
            .arg(RUN_SERVER)
            .args(words)
            .stdin(Stdio::null())
            .stdout(out.try_clone().map_err(problem)?)
            .stderr(out)
            .spawn()
            .map_err(problem)?;
        Ok(Self { name: String::from(name), child, log })
    }

    /// Fails with what it said if it has ended.
    pub(crate) fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                Err(format!("{} ended ({status}):\n{}", self.name, tail(&self.log)))
            }
            Err(e) => Err(format!("{}: {e}", self.name)),
        }
    }

    /// Processor time that it used, in user and in kernel mode.
    pub(crate) fn cpu(&self) -> Duration {
        cpu_of(&format!("/proc/{}/stat", self.child.id()))
    }

    pub(crate) fn memory(&self) -> Memory {
        let path = format!("/proc/{}/smaps_rollup", self.child.id());
        let text = fs::read_to_string(path).unwrap_or_default();
        let field = |name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).unwrap_or(0)
        };
        Memory { rss: field("Rss:"), pss: field("Pss:") }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What this program does when it was started by [`Server::spawn`]: becomes the server.
pub(crate) fn run_server(words: &[String]) -> Result<(), String> {
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    bound.map_err(|e| format!("cannot bind this process to its parent: {e}"))?;
    let (program, words) = words.split_first().ok_or("no program named")?;
    Err(format!("cannot run {program}: {}", Command::new(program).args(words).exec()))
}

/// Processor time of this process.
pub(crate) fn own_cpu() -> Duration {
    cpu_of("/proc/self/stat")
}

/// A directory of this process, removed with everything in it when this is dropped.
#[derive(Debug)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    /// A new one in `place`.
    pub(crate) fn new(place: &Path, name: &str) -> Result<Self, String> {
        let path = place.join(format!("{name}-{}", process::id()));
        let problem = |e| format!("cannot make {}: {e}", path.display());
        if path.exists() {
            fs::remove_dir_all(&path).map_err(problem)?;
        }
        fs::create_dir_all(&path).map_err(problem)?;
        Ok(Self(path))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Removes what a benchmark left in `place` that was killed.
    pub(crate) fn remove_orphans(place: &Path) -> Result<(), String> {
        let problem = |e| format!("cannot clear {}: {e}", place.display());
        for entry in fs::read_dir(place).map_err(problem)? {
            let path = entry.map_err(problem)?.path();
            let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let pid = name.rsplit_once('-').and_then(|(_, pid)| pid.parse::<u32>().ok());
            if pid.is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists()) {
                fs::remove_dir_all(&path).map_err(problem)?;
            }
        }
        Ok(())
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing can be done about it, and the next run does not mind.
        drop(fs::remove_dir_all(&self.0));
    }
}

/// Ports of 127.0.0.1 on which nobody listens, below those that the system gives to outgoing
/// connections.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let begin = u16::try_from(process::id() % 10_000).expect("less than 10 000");
    let ports: Vec<u16> = (0..10_000)
        .map(|k| 20_000 + (begin + k) % 10_000)
        .filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .take(count)
        .collect();
    if ports.len() < count { Err(String::from("no free ports")) } else { Ok(ports) }
}

fn cpu_of(path: &str) -> Duration {
    let text = fs::read_to_string(path).unwrap_or_default();
    let ticks = ticks(&text).unwrap_or(0);
    let per_second = rustix::param::clock_ticks_per_second();
    Duration::from_micros(ticks * 1_000_000 / per_second)
}

/// User and system time of `/proc/<pid>/stat`: its 14th and 15th field. The second is the name in
/// parentheses, which can contain anything.
fn ticks(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let mut next = || fields.next()?.parse::<u64>().ok();
    Some(next()? + next()?)
}

fn tail(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

/// The hidden command by which this program becomes a server.
pub(crate) const RUN_SERVER: &str = "run-server";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_is_read_whatever_the_name() {
        let stat = "12 (a b) c) S 1 2 3 4 5 6 7 8 9 10 70 30 0 0 20";
        assert_eq!(ticks(stat), Some(100));
        assert_eq!(ticks("12 (a"), None);
    }

    #[test]
    fn only_what_the_dead_left_is_removed() {
        let place = tempfile::tempdir().expect("the temporary directory can be written");
        let own = Directory::new(place.path(), "own").expect("a new directory");
        let [orphan, other] = ["dead-4294967295", "other"].map(|name| place.path().join(name));
        fs::create_dir(&orphan).expect("a new directory");
        fs::create_dir(&other).expect("a new directory");

        Directory::remove_orphans(place.path()).expect("all of it is ours");
        assert!(own.path().exists() && other.exists() && !orphan.exists());
        let path = own.path().to_path_buf();
        drop(own);
        assert!(!path.exists());
    }

    #[test]
    fn ports_are_free_and_differ() {
        let ports = free_ports(5).expect("thousands of ports are not all in use");
        let mut unique = ports.clone();
        unique.dedup();
        assert_eq!((ports.len(), unique), (5, ports.clone()));
    }
}
