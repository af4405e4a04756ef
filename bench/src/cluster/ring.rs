//! libring: three processes `ring serve`, and a client in this process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use std::{env, io};

use bytes::Bytes;
use libring::{Node, Options, Partition};

use super::load::Client;
use super::{Servers, key_name};
use crate::process::{Server, free_ports};

/// Where the command is; it is built from this source first, so that it cannot be an old one.
pub(crate) fn build() -> Result<PathBuf, String> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let problem = |e: io::Error| format!("cannot build the command ring: {e}");
    let status = Command::new(cargo)
        .args(["build", "--quiet", "--release", "--package", "ring-cli"])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .status()
        .map_err(problem)?;
    if !status.success() {
        return Err(String::from("cannot build the command ring"));
    }
    let own = env::current_exe().map_err(problem)?;
    let ring = own.with_file_name("ring");
    // The benchmark itself may have been built another way.
    if ring.exists() { Ok(ring) } else { Err(format!("{} is not there", ring.display())) }
}

/// Starts three members with all defaults.
pub(crate) fn start(ring: &Path, dir: &Path) -> Result<Servers, String> {
    let ports = free_ports(3)?;
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let names = ["a", "b", "c"];
    let mut servers = Vec::new();
    for name in names {
        let data = dir.join(name);
        let mut words = vec![ring.display().to_string(), String::from("serve")];
        words.extend(["--log", "warn", "--name", name].map(String::from));
        words.extend([String::from("--data"), data.display().to_string()]);
        for (name, address) in names.iter().zip(&addresses) {
            words.extend([String::from("--member"), format!("{name}={address}")]);
        }
        servers.push(Server::spawn(&format!("ring-{name}"), &words, dir)?);
    }
    Ok(Servers { servers, addresses })
}

/// A client node: one connection a member.
#[derive(Clone, Debug)]
pub(crate) struct Ring {
    node: Node,
    /// One, or many that are spread over the shards.
    partitions: Vec<Partition>,
}

impl Ring {
    pub(crate) async fn connect(addresses: &[String], partitions: usize) -> Result<Self, String> {
        let options = Options {
            name: String::from("bench"),
            client: true,
            join: addresses.to_vec(),
            deadline: Duration::from_secs(10),
            ..Options::default()
        };
        let node = Node::open(options).await.map_err(|e| e.to_string())?;
        let partitions = (0..partitions).map(|k| node.partition(&format!("bench-{k}"))).collect();
        Ok(Self { node, partitions })
    }

    pub(crate) async fn close(self) -> Result<(), String> {
        self.node.close().await.map_err(|e| e.to_string())
    }

    fn partition(&self, key: u64) -> &Partition {
        let count = u64::try_from(self.partitions.len()).expect("few");
        &self.partitions[usize::try_from(key % count).expect("less than that")]
    }
}

impl Client for Ring {
    async fn put(&self, key: u64, value: Bytes) -> Result<(), String> {
        let put = self.partition(key).put(key_name(key), value).await;
        put.map(drop).map_err(|e| e.to_string())
    }

    async fn get(&self, key: u64) -> Result<(), String> {
        let found = self.partition(key).get(key_name(key)).await;
        match found.map_err(|e| e.to_string())? {
            Some(_) => Ok(()),
            None => Err(String::from("a key is missing")),
        }
    }
}
