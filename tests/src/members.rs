//! A cluster of `ring serve` processes.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use libring::{Keys, Node, Options};
use tempfile::TempDir;

use crate::PATIENCE;
use crate::network::Network;
use crate::ports::Ports;
use crate::program::{Exit, Program, ring, run_ring};

/// Members on one machine, each a process with a data directory and a port of its own.
#[derive(Debug)]
pub struct Members {
    dir: TempDir,
    ports: Ports,
    shards: u32,
    /// How many replicas each shard is to have.
    replication: u32,
    /// The first begins alone, and the others join.
    joining: bool,
    /// So many of the first found the cluster, as soon as they find each other, and the others join.
    expect: Option<usize>,
    /// After which time a member that is away is given up, as the command line takes it.
    replace_after: &'static str,
    /// Where all have keys, if they do.
    keys: Option<PathBuf>,
    /// Where they are, if not on this machine's own network.
    network: Option<Network>,
    /// What runs a member in place of the command `ring`.
    program: Option<PathBuf>,
    /// What more is said to a member at its start.
    words: Vec<String>,
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
            replication: 3,
            joining: false,
            expect: None,
            replace_after: "5s",
            keys: None,
            network: None,
            program: None,
            words: Vec::new(),
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

    /// A cluster that so many of the members found together, whichever begins; the others join.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn expecting(count: u16, expect: usize, shards: u32) -> Self {
        Self { expect: Some(expect), ..Self::new(count, shards) }
    }

    /// Each shard has so many replicas, and not three.
    #[must_use]
    pub fn replicated(mut self, replication: u32) -> Self {
        self.replication = replication;
        self
    }

    /// Members that join are given up when they are away for so long, and not after five seconds.
    #[must_use]
    pub fn replaced_after(mut self, time: &'static str) -> Self {
        self.replace_after = time;
        self
    }

    /// Gives keys to all members and to the client: everything is encrypted, and everyone proves who they are.
    ///
    /// # Panics
    /// When they cannot be made.
    #[must_use]
    pub fn with_keys(mut self) -> Self {
        let keys = self.dir.path().join("keys");
        let place = keys.to_string_lossy().into_owned();
        let names: Vec<String> = (0..self.running.len()).map(|k| self.name(k)).collect();
        let mut words = vec!["keys", "new", &place, "--cluster", "ring", "--client", "test"];
        for name in &names {
            words.extend(["--member", name]);
        }
        run_ring(&words).ok();
        self.keys = Some(keys);
        self
    }

    /// Puts each member into a network namespace.
    #[must_use]
    pub fn in_network(mut self, network: Network) -> Self {
        self.network = Some(network);
        self
    }

    /// Members are processes of this program, which takes the words of `ring`.
    #[must_use]
    pub fn running(mut self, program: impl Into<PathBuf>) -> Self {
        self.program = Some(program.into());
        self
    }

    /// Says this, too, to each member at its start.
    #[must_use]
    pub fn saying(mut self, words: &[&str]) -> Self {
        self.words.extend(words.iter().copied().map(String::from));
        self
    }

    /// Each member tells its [`Members::metrics`].
    #[must_use]
    pub fn with_metrics(self) -> Self {
        self.saying(&["--metrics", "127.0.0.1:0"])
    }

    /// The network that the members are in.
    ///
    /// # Panics
    /// When they are in none of their own.
    #[must_use]
    pub fn network(&self) -> &Network {
        self.network.as_ref().expect("the members were put into one")
    }

    /// Runs `ring` with these words as a client of the cluster, to its end.
    #[must_use]
    pub fn run(&self, words: &[&str]) -> Exit {
        let all: Vec<usize> = (0..self.running.len()).collect();
        Program::spawn(self.calling(&all, words)).wait_exit()
    }

    /// The command `ring` with these words, as a client that is told of these members only.
    #[must_use]
    pub fn calling(&self, known: &[usize], words: &[&str]) -> Command {
        let known: Vec<String> = known.iter().map(|&k| self.address(k)).collect();
        let mut command = ring();
        command.args(["--connect", &known.join(",")]);
        if let Some(keys) = self.client_keys() {
            command.arg("--keys").arg(keys);
        }
        command.args(words);
        command
    }

    fn client_keys(&self) -> Option<PathBuf> {
        Some(self.keys.as_ref()?.join("clients/test"))
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
        match &self.network {
            Some(network) => network.address(k),
            None => self.ports.address(k),
        }
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
        let mut command = self.program.as_ref().map_or_else(ring, Command::new);
        command.arg("serve").args(["--name", &self.name(k)]);
        command.args(["--shards", &self.shards.to_string()]);
        command.args(["--replication", &self.replication.to_string()]);
        command.arg("--data").arg(self.data(k));
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.args(&self.words);
        match &self.keys {
            Some(keys) => command.arg("--keys").arg(keys.join("members").join(self.name(k))),
            None if self.network.is_some() => command.arg("--insecure"),
            None => &mut command,
        };
        if let Some(expect) = self.expect {
            command.args(["--listen", &self.address(k), "--expect", &expect.to_string()]);
            command.args(["--replace-after", self.replace_after]);
            for first in 0..expect {
                command.args(["--join", &self.address(first)]);
            }
        } else if self.joining {
            command.args(["--listen", &self.address(k), "--replace-after", self.replace_after]);
            for other in (0..self.running.len()).filter(|_| k > 0) {
                command.args(["--join", &self.address(other)]);
            }
        } else {
            for other in 0..self.running.len() {
                let member = format!("{}={}", self.name(other), self.address(other));
                command.args(["--member", &member]);
            }
        }
        match &self.network {
            Some(network) => network.inside(k, &command),
            None => command,
        }
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
            let status = self.run(&["status"]);
            if status.code == Some(0) {
                return;
            }
            assert!(Instant::now() < deadline, "not every shard has a leader: {status:?}");
        }
    }

    /// What a running member measures, by the names that Prometheus is told, labels included.
    ///
    /// # Panics
    /// When it tells nothing, as it does unless [`Members::with_metrics`] was called.
    #[must_use]
    pub fn metrics(&self, k: usize) -> BTreeMap<String, u64> {
        let line = self.program(k).wait_line(" tells its metrics at ");
        let (_, url) = line.split_once("http://").expect("it is at a URL");
        let (address, path) = url.split_once('/').expect("the URL has a path");
        let mut socket = TcpStream::connect(address).expect("it listens there");
        write!(socket, "GET /{path} HTTP/1.1\r\n\r\n").expect("it reads");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("it answers with text");
        let (_, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        let samples = body.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ').expect("a name and a value");
            (name.to_owned(), value.parse().expect("a whole number"))
        };
        samples.map(sample).collect()
    }

    /// The directory of keys that all members' keys are in.
    ///
    /// # Panics
    /// When they have none.
    #[must_use]
    pub fn keys(&self) -> &Path {
        self.keys.as_ref().expect("the members were given keys")
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
        let all: Vec<usize> = (0..self.running.len()).collect();
        self.client_through(&all).await
    }

    /// A client of the cluster, in this process, that is told of these members only.
    ///
    /// # Panics
    /// When none of them can be reached.
    pub async fn client_through(&self, known: &[usize]) -> Node {
        self.client_with(self.client_options(known)).await
    }

    /// A client of the cluster, in this process, with such options.
    ///
    /// # Panics
    /// When the cluster cannot be reached.
    pub async fn client_with(&self, options: Options) -> Node {
        let opened = Node::open(options).await;
        opened.unwrap_or_else(|e| panic!("no client of {}: {e}", self.addresses()))
    }

    /// The options of a client that is told of these members only.
    ///
    /// # Panics
    /// When its keys cannot be read.
    #[must_use]
    pub fn client_options(&self, known: &[usize]) -> Options {
        Options {
            name: String::from("test"),
            client: true,
            join: known.iter().map(|&k| self.address(k)).collect(),
            keys: self.client_keys().map(|dir| Keys::read(dir).expect("made by `ring keys`")),
            deadline: Duration::from_secs(20),
            ..Options::default()
        }
    }
}
