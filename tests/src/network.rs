//! A network of its own for each member, whose cable can be pulled.

use std::process::{self, Command};

use crate::program::Program;

/// Network namespaces, each with an own address, joined by a bridge on which this process is too. Gone when this is
/// dropped.
#[derive(Debug)]
pub struct Network {
    bridge: String,
    /// The third number of all addresses.
    place: u32,
    count: usize,
}

impl Network {
    /// Makes `count` namespaces.
    ///
    /// # Errors
    /// This machine cannot do that: which command failed.
    ///
    /// # Panics
    /// When there are more than a test needs.
    pub fn new(count: usize) -> Result<Self, String> {
        assert!(count < 100, "addresses end at 255, and names are short");
        // Looked for before it is started, which must not fail.
        Command::new("ip").arg("-V").output().map_err(|error| format!("ip: {error}"))?;
        let id = process::id();
        // Dropped, and with it what was made, when a later step fails.
        let network = Self { bridge: format!("ring{id}"), place: id % 256, count };
        let bridge = &network.bridge;
        ip(&format!("link add {bridge} type bridge"))?;
        ip(&format!("addr add 198.18.{}.254/24 dev {bridge}", network.place))?;
        ip(&format!("link set {bridge} up"))?;
        for k in 0..count {
            let (namespace, cable) = (network.namespace(k), network.cable(k));
            ip(&format!("netns add {namespace}"))?;
            ip(&format!("link add {cable} type veth peer name eth0 netns {namespace}"))?;
            ip(&format!("link set {cable} master {bridge} up"))?;
            let host = network.host(k);
            ip(&format!("-n {namespace} addr add {host}/24 dev eth0"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} link set lo up"))?;
        }
        Ok(network)
    }

    /// Where the `k`th member is reached, by the others and by this process.
    #[must_use]
    pub fn address(&self, k: usize) -> String {
        format!("{}:7400", self.host(k))
    }

    /// The same command, run in the namespace of the `k`th member.
    #[must_use]
    pub fn inside(&self, k: usize, command: &Command) -> Command {
        let mut inside = Command::new("ip");
        inside.args(["netns", "exec", &self.namespace(k)]);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        inside
    }

    /// Pulls a member's cable: nothing reaches it, nothing leaves it, and nobody is told.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn cut(&self, k: usize) {
        self.set_cable(k, "down");
    }

    /// Plugs it in again.
    ///
    /// # Panics
    /// When that cannot be done.
    pub fn heal(&self, k: usize) {
        self.set_cable(k, "up");
    }

    fn set_cable(&self, k: usize, to: &str) {
        ip(&format!("link set {} {to}", self.cable(k))).expect("it could be made");
    }

    fn namespace(&self, k: usize) -> String {
        format!("{}-{k}", self.bridge)
    }

    /// The end of the cable on the bridge. At most 15 bytes.
    fn cable(&self, k: usize) -> String {
        format!("{}-{k}", self.bridge)
    }

    fn host(&self, k: usize) -> String {
        format!("198.18.{}.{}", self.place, k + 1)
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // What was never made, or is gone already, cannot be deleted.
        for k in 0..self.count {
            drop(ip(&format!("link del {}", self.cable(k))));
            drop(ip(&format!("netns del {}", self.namespace(k))));
        }
        drop(ip(&format!("link del {}", self.bridge)));
    }
}

fn ip(words: &str) -> Result<(), String> {
    let mut command = Command::new("ip");
    command.args(words.split_whitespace());
    let exit = Program::spawn(command).wait_exit();
    match exit.code {
        Some(0) => Ok(()),
        _ => Err(format!("ip {words}: {}", exit.stderr.trim())),
    }
}
