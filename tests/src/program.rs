//! A process, its output, its end.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::{PATIENCE, lock};

/// The command `ring`, built from this source. It finds no `ring dev` unless the test gives it a
/// home, and logs nothing beside what it says.
#[must_use]
pub fn ring() -> Command {
    let mut command = Command::new(binary());
    command
        .env_remove("RING_CONNECT")
        .env_remove("RING_KEYS")
        .env("RING_LOG", "off")
        .env("XDG_STATE_HOME", "/nonexistent/ring-tests");
    command
}

/// Runs `ring` with these words to its end.
#[must_use]
pub fn run_ring(words: &[&str]) -> Exit {
    let mut command = ring();
    command.args(words);
    Program::spawn(command).wait_exit()
}

/// A running process. Killed when it is dropped.
#[derive(Debug)]
pub struct Program {
    what: String,
    pid: Pid,
    state: Arc<State>,
}

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Exit {
    /// What was run.
    pub what: String,
    /// Its exit code; none: a signal ended it.
    pub code: Option<i32>,
    /// All of its stdout.
    pub stdout: String,
    /// All of its stderr.
    pub stderr: String,
}

#[derive(Debug, Default)]
struct State {
    seen: Mutex<Seen>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Seen {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    /// Of stdout and stderr, those that have ended.
    ended: usize,
    exit: Option<ExitStatus>,
}

/// Which stream of a process.
#[derive(Clone, Copy, Debug)]
enum Stream {
    Stdout,
    Stderr,
}

impl Program {
    /// Starts a process, with nothing on its stdin.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn(command: Command) -> Self {
        Self::spawn_with_input(command, Stdio::null())
    }

    /// Starts a process with this on its stdin.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn spawn_with_input(mut command: Command, stdin: Stdio) -> Self {
        let what = describe(&command);
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("{what}: {e}"));
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let state = Arc::new(State::default());
        let stdout = child.stdout.take().expect("piped above");
        let stderr = child.stderr.take().expect("piped above");
        state.collect(stdout, Stream::Stdout);
        state.collect(stderr, Stream::Stderr);
        state.reap(child);
        Self { what, pid: pid.expect("process ids are positive"), state }
    }

    /// Waits for a line that contains `needle` or for the end, and says whether the line came.
    ///
    /// # Panics
    /// When [`PATIENCE`] ends first.
    #[must_use]
    pub fn says_before_its_end(&self, needle: &str) -> bool {
        self.wait_for_line(needle).is_some()
    }

    /// Waits for a line that contains `needle`, on stdout or stderr, and gives it.
    ///
    /// # Panics
    /// When the process ends first, or [`PATIENCE`] does.
    #[must_use]
    pub fn wait_line(&self, needle: &str) -> String {
        self.wait_for_line(needle).unwrap_or_else(|| {
            panic!("{}: no line with \"{needle}\":\n{}", self.what, self.output())
        })
    }

    /// Waits until stdout has a line with `needle` after the first one with `mark`.
    ///
    /// # Panics
    /// When the process ends first, or [`PATIENCE`] does.
    pub fn wait_line_after(&self, mark: &str, needle: &str) {
        let found = self.wait(PATIENCE, |seen| {
            let text = String::from_utf8_lossy(&seen.stdout);
            let mut after = text.lines().skip_while(|line| !line.contains(mark));
            let found = after.any(|line| line.contains(needle));
            (found || seen.is_over()).then_some(found)
        });
        let what = &self.what;
        let output = || self.output();
        assert!(found == Some(true), "{what}: no \"{needle}\" after \"{mark}\":\n{}", output());
    }

    /// Waits for the end.
    ///
    /// # Panics
    /// When [`PATIENCE`] ends first.
    #[must_use]
    pub fn wait_exit(&self) -> Exit {
        let exit = self.exit_within(PATIENCE);
        exit.unwrap_or_else(|| panic!("{} does not end:\n{}", self.what, self.output()))
    }

    /// Waits for the end; none if it does not come in time.
    #[must_use]
    pub fn exit_within(&self, patience: Duration) -> Option<Exit> {
        self.wait(patience, |seen| {
            let status = seen.exit.filter(|_| seen.is_over())?;
            Some(Exit {
                what: self.what.clone(),
                code: status.code(),
                stdout: String::from_utf8_lossy(&seen.stdout).into_owned(),
                stderr: String::from_utf8_lossy(&seen.stderr).into_owned(),
            })
        })
    }

    /// Whether the process has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.state.lock().exit.is_some()
    }

    /// As the system's `kill -9`; gives way at once, the process is gone when this returns.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
        let gone = self.wait(PATIENCE, |seen| seen.exit);
        let status = gone.unwrap_or_else(|| panic!("{} cannot be killed", self.what));
        let ended_before = status.signal() != Some(Signal::KILL.as_raw());
        assert!(
            !ended_before || thread::panicking(),
            "{} had ended before it was killed ({status}):\n{}",
            self.what,
            self.output()
        );
    }

    /// Stops the process where it is. When this returns, none of its threads runs, or will return
    /// from a system call that it is in, until the process is killed.
    ///
    /// # Panics
    /// When it does not stop for [`PATIENCE`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        let deadline = Instant::now() + PATIENCE;
        while let Some(thread) = self.running_thread() {
            assert!(Instant::now() < deadline, "{} does not stop: {thread}", self.what);
            thread::yield_now();
        }
    }

    /// Lets the process go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// A thread that may still do something: that neither stopped nor is deep in a system call,
    /// at whose end it stops.
    fn running_thread(&self) -> Option<String> {
        let threads = format!("/proc/{}/task", self.pid.as_raw_nonzero());
        // It may have ended and be gone; whoever kills it then will see that.
        let threads = fs::read_dir(threads).ok()?;
        // A thread that ends meanwhile has no state.
        let states =
            threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("stat")).ok());
        states.into_iter().find(|line| {
            let (_, state) = line.rsplit_once(") ").expect("the name of a thread is in brackets");
            !state.starts_with(['T', 'D', 'Z', 'X'])
        })
    }

    /// Asks the process to stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// What it said so far, for messages.
    #[must_use]
    pub fn output(&self) -> String {
        let seen = self.state.lock();
        format!(
            "--- stdout\n{}--- stderr\n{}---",
            String::from_utf8_lossy(&seen.stdout),
            String::from_utf8_lossy(&seen.stderr)
        )
    }

    fn signal(&self, signal: Signal) {
        // Under the lock: a process that was not reaped keeps its id.
        let seen = self.state.lock();
        if seen.exit.is_none() {
            kill_process(self.pid, signal).expect("the process is ours");
        }
    }

    /// None if the process ends without it.
    fn wait_for_line(&self, needle: &str) -> Option<String> {
        let found = self.wait(PATIENCE, |seen| {
            let line =
                [&seen.stdout, &seen.stderr].into_iter().find_map(|text| find_line(text, needle));
            match line {
                None if seen.is_over() => Some(None),
                None => None,
                Some(line) => Some(Some(line)),
            }
        });
        found.unwrap_or_else(|| {
            panic!("{}: neither \"{needle}\" nor the end:\n{}", self.what, self.output())
        })
    }

    fn wait<T>(&self, patience: Duration, mut look: impl FnMut(&Seen) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + patience;
        let mut seen = self.state.lock();
        loop {
            if let Some(found) = look(&seen) {
                return Some(found);
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            let woken = self.state.changed.wait_timeout(seen, left);
            seen = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        self.wait(PATIENCE, |seen| seen.exit);
    }
}

impl Exit {
    /// Asserts that it went well and gives what it said.
    ///
    /// # Panics
    /// When it did not.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert_eq!(self.code, Some(0), "{self:?}");
        &self.stdout
    }

    /// Asserts a refusal as users should see it: this exit code, one line on stderr that begins
    /// with `ring: ` and contains each of `needles`. Gives that line.
    ///
    /// # Panics
    /// When it is not so.
    #[track_caller]
    pub fn refused(&self, code: i32, needles: &[&str]) -> &str {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "not one line: {self:?}");
        let line = self.stderr.trim_end();
        assert!(line.starts_with("ring: "), "{self:?}");
        for needle in needles {
            assert!(line.contains(needle), "no \"{needle}\" in: {line}");
        }
        line
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        lock(&self.seen)
    }

    fn collect(self: &Arc<Self>, from: impl Read + Send + 'static, stream: Stream) {
        let state = Arc::clone(self);
        thread::spawn(move || {
            let mut from = BufReader::new(from);
            let mut line = Vec::new();
            // What cannot be read any more is at its end for us.
            while from.read_until(b'\n', &mut line).is_ok_and(|n| n > 0) {
                let mut seen = state.lock();
                match stream {
                    Stream::Stdout => seen.stdout.append(&mut line),
                    Stream::Stderr => seen.stderr.append(&mut line),
                }
                state.changed.notify_all();
            }
            state.lock().ended += 1;
            state.changed.notify_all();
        });
    }

    fn reap(self: &Arc<Self>, mut child: Child) {
        let state = Arc::clone(self);
        thread::spawn(move || {
            // Looked at without reaping first, so that the id stays the child's until the lock is
            // held.
            wait_without_reaping(&child);
            let mut seen = state.lock();
            seen.exit = Some(child.wait().expect("a child can be waited for"));
            state.changed.notify_all();
        });
    }
}

impl Seen {
    fn is_over(&self) -> bool {
        self.exit.is_some() && self.ended == 2
    }
}

fn wait_without_reaping(child: &Child) {
    use rustix::process::{WaitId, WaitIdOptions, waitid};
    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pid = pid.expect("process ids are positive");
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while let Err(e) = waitid(WaitId::Pid(pid), options) {
        assert_eq!(e, rustix::io::Errno::INTR, "a child can be waited for");
    }
}

fn find_line(text: &[u8], needle: &str) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    text.lines().find(|line| line.contains(needle)).map(String::from)
}

fn describe(command: &Command) -> String {
    let program = Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = command.get_args().map(|word| word.to_string_lossy());
    format!("{} {}", program.display(), words.collect::<Vec<_>>().join(" "))
}

/// The binary `ring`, built as these tests were: in the same target directory, with the same
/// profile. `cargo test` does not build it for another package's tests, and an old one would make
/// tests lie, so cargo is always asked; it has nothing to do when the binary is fresh. Asked for it
/// as a part of the workspace, as features of dependencies are then nearly those with which all
/// tests are built, and little is built twice.
fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let test = env::current_exe().expect("a test knows its path");
        let dir = test.ancestors().nth(2).expect("tests lie in target/PROFILE/deps");
        let binary = dir.join("ring");
        let profile = dir.file_name().and_then(|name| name.to_str());
        let profile = match profile {
            Some("debug") | None => "dev",
            Some(profile) => profile,
        };
        let target = dir.parent().expect("the target directory");
        let mut cargo = Command::new(env!("CARGO"));
        cargo
            .args(["build", "--quiet", "--workspace", "--bin", "ring", "--profile", profile])
            .arg("--target-dir")
            .arg(target)
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        eprintln!("building {} (profile {profile})", binary.display());
        let built = cargo.status().expect("cargo runs these tests, so it runs");
        assert!(built.success(), "`cargo build --workspace --bin ring` failed");
        assert!(binary.exists(), "{} was not built", binary.display());
        binary
    })
}
