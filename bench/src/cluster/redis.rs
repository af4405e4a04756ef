//! redis: one server that syncs before it answers, and one connection on which calls are pipelined.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;

use super::load::Client;
use super::{Servers, key_name};
use crate::process::{Server, free_ports};

pub(crate) fn start(dir: &Path) -> Result<Servers, String> {
    let port = free_ports(1)?[0];
    let data = dir.join("data");
    std::fs::create_dir(&data).map_err(|e| format!("cannot make {}: {e}", data.display()))?;
    // Without its snapshots: the append-only file alone makes it durable.
    let words = [
        ["redis-server", "--bind", "127.0.0.1", "--port"].map(String::from).to_vec(),
        vec![port.to_string(), String::from("--dir"), data.display().to_string()],
        ["--appendonly", "yes", "--appendfsync", "always", "--save", ""].map(String::from).to_vec(),
    ]
    .concat();
    let servers = vec![Server::spawn("redis", &words, dir)?];
    Ok(Servers { servers, addresses: vec![format!("redis://127.0.0.1:{port}/")] })
}

#[derive(Clone)]
pub(crate) struct Redis(MultiplexedConnection);

impl Redis {
    pub(crate) async fn connect(addresses: &[String]) -> Result<Self, String> {
        let client = redis::Client::open(addresses[0].clone()).map_err(|e| e.to_string())?;
        let config =
            AsyncConnectionConfig::new().set_response_timeout(Some(Duration::from_secs(10)));
        let connection = client.get_multiplexed_async_connection_with_config(&config).await;
        connection.map(Self).map_err(|e| e.to_string())
    }
}

impl Client for Redis {
    async fn put(&self, key: u64, value: Bytes) -> Result<(), String> {
        let mut connection = self.0.clone();
        let mut command = redis::cmd("SET");
        command.arg(&key_name(key)[..]).arg(&value[..]);
        command.exec_async(&mut connection).await.map_err(|e| e.to_string())
    }

    async fn get(&self, key: u64) -> Result<(), String> {
        let mut connection = self.0.clone();
        let mut command = redis::cmd("GET");
        command.arg(&key_name(key)[..]);
        let found: Result<Option<Vec<u8>>, _> = command.query_async(&mut connection).await;
        match found.map_err(|e| e.to_string())? {
            Some(_) => Ok(()),
            None => Err(String::from("a key is missing")),
        }
    }
}
