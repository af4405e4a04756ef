//! A cluster of `ring serve` processes.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libring::{Node, Options};
use tempfile::TempDir;

use crate::PATIENCE;
use crate::ports::Ports;
use crate::program::{Program, ring, run_ring};

/// Members on one machine, each a process with a data directory and a port of its own.
#[derive(Debug)]
pub struct Members {
    dir: TempDir,
    ports: Ports,
    shards: u32,
    /// The first begins alone, and the others join.
    joining: bool,
    env: Vec<(String, OsString)>,
    running: Vec<Option<Program>>,
}

impl Members {
    /// A cluster that is not started yet.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new(count: u16, shards: u32) -> Self {
        Self {
            dir: tempfile::tempdir().expect("the temporary directory can be written"),
            ports: Ports::reserve(count),
            shards,
            joining: false,
            env: Vec::new(),
            running: (0..count).map(|_| None).collect(),
        }
    }

    /// A cluster that the first member begins alone and the others join.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn joining(count: u16, shards: u32) -> Self {
        Self { joining: true, ..Self::new(count, shards) }
    }

    /// The name of the `k`th member, counted from 0; its id is `k + 1`.
    #[must_use]
    pub fn name(&self, k: usize) -> String {
        assert!(k < self.running.len(), "there is no member {k}");
        format!("member-{}", k + 1)
    }

    /// What holds a member's data directory and nothing else: a disk may be mounted there.
    #[must_use]
    pub fn disk(&self, k: usize) -> PathBuf {
        self.dir.path().join(self.name(k))
    }

    /// A member's data directory.
    #[must_use]
    pub fn data(&self, k: usize) -> PathBuf {
        self.disk(k).join("data")
    }

    /// Sets a variable of the environment for all members started from now on.
    pub fn set_env(&mut self, name: &str, value: impl Into<OsString>) {
        self.env.push((name.into(), value.into()));
    }

    /// The members start without the variables that were set.
    pub fn clear_env(&mut self) {
        self.env.clear();
    }

    /// Where all of it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A member's address.
    #[must_use]
    pub fn address(&self, k: usize) -> String {
        self.ports.address(k)
    }

    /// All addresses, as `--connect` takes them.
    #[must_use]
    pub fn addresses(&self) -> String {
        let all: Vec<String> = (0..self.running.len()).map(|k| self.address(k)).collect();
        all.join(",")
    }

    /// The command that runs a member.
    #[must_use]
    pub fn command(&self, k: usize) -> Command {
        let mut command = ring();
        command.arg("serve").args(["--name", &self.name(k)]);
        command.args(["--shards", &self.shards.to_string()]);
        command.arg("--data").arg(self.data(k));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        if self.joining {
            command.args(["--listen", &self.address(k), "--replace-after", "5s"]);
            for other in (0..self.running.len()).filter(|_| k > 0) {
                command.args(["--join", &self.address(other)]);
            }
            return command;
        }
        for other in 0..self.running.len() {
            let member = format!("{}={}", self.name(other), self.address(other));
            command.args(["--member", &member]);
        }
        command
    }

    /// Starts a member without waiting for it.
    ///
    /// # Panics
    /// When it runs already.
    pub fn start(&mut self, k: usize) -> &Program {
        assert!(self.running[k].is_none(), "{} runs already", self.name(k));
        let program = Program::spawn(self.command(k));
        self.running[k].insert(program)
    }

    /// Starts all members that do not run, and waits until they are up.
    pub fn start_all(&mut self) {
        let missing: Vec<usize> =
            (0..self.running.len()).filter(|k| self.running[*k].is_none()).collect();
        for k in &missing {
            self.start(*k);
        }
        for k in &missing {
            self.wait_up(*k);
        }
    }

    /// Waits until a member is up.
    pub fn wait_up(&self, k: usize) {
        drop(self.program(k).wait_line(" is up: "));
    }

    /// Waits until every shard has a leader, as `ring status` sees it.
    ///
    /// # Panics
    /// When [`PATIENCE`] ends first.
    pub fn wait_led(&self) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = run_ring(&["--connect", &self.addresses(), "status"]);
            if status.code == Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "not every shard has a leader: {status:?}");
        }
    }

    /// A running member.
    ///
    /// # Panics
    /// When it does not run.
    #[must_use]
    pub fn program(&self, k: usize) -> &Program {
        self.running[k].as_ref().expect("the member runs")
    }

    /// `kill -9`.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self, k: usize) {
        self.running[k].take().expect("the member runs").kill();
    }

    /// Stops a member cleanly.
    ///
    /// # Panics
    /// When it does not run, or does not stop with success.
    pub fn stop(&mut self, k: usize) {
        let program = self.running[k].take().expect("the member runs");
        program.terminate();
        program.wait_exit().ok();
    }

    /// Takes a member that ends by itself out of the cluster.
    ///
    /// # Panics
    /// When it does not run.
    pub fn take(&mut self, k: usize) -> Program {
        self.running[k].take().expect("the member runs")
    }

    /// A client of the cluster, in this process.
    ///
    /// # Panics
    /// When the cluster cannot be reached.
    pub async fn client(&self) -> Node {
        let options = Options {
            name: String::from("test"),
            client: true,
            join: (0..self.running.len()).map(|k| self.address(k)).collect(),
            deadline: Duration::from_secs(20),
            ..Options::default()
        };
        let opened = Node::open(options).await;
        opened.unwrap_or_else(|e| panic!("no client of {}: {e}", self.addresses()))
    }
}
