//! etcd: three nodes with all defaults, and its gRPC interface over one connection a node.
//!
//! The messages are written down here with the fields that are used (`etcdserverpb/rpc.proto`), so that
//! building needs no compiler of protocol buffers.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tonic::Request;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use super::load::Client;
use super::{Servers, key_name};
use crate::process::{Server, free_ports};

pub(crate) fn start(dir: &Path) -> Result<Servers, String> {
    let ports = free_ports(6)?;
    let url = |port: u16| format!("http://127.0.0.1:{port}");
    let names = ["a", "b", "c"];
    let (client, peer) = ports.split_at(3);
    let members: Vec<String> =
        names.iter().zip(peer).map(|(name, port)| format!("{name}={}", url(*port))).collect();
    let mut servers = Vec::new();
    for (k, name) in names.iter().enumerate() {
        let data = dir.join(name).display().to_string();
        let words = [
            ["etcd", "--name"].map(String::from).to_vec(),
            vec![String::from(*name), String::from("--data-dir"), data],
            vec![String::from("--listen-client-urls"), url(client[k])],
            vec![String::from("--advertise-client-urls"), url(client[k])],
            vec![String::from("--listen-peer-urls"), url(peer[k])],
            vec![String::from("--initial-advertise-peer-urls"), url(peer[k])],
            vec![String::from("--initial-cluster"), members.join(",")],
        ]
        .concat();
        servers.push(Server::spawn(&format!("etcd-{name}"), &words, dir)?);
    }
    let addresses = client.iter().map(|port| url(*port)).collect();
    Ok(Servers { servers, addresses })
}

/// One connection a node, used in turn.
#[derive(Clone, Debug)]
pub(crate) struct Etcd {
    channels: Vec<Channel>,
    turn: Arc<AtomicUsize>,
}

impl Etcd {
    pub(crate) async fn connect(addresses: &[String]) -> Result<Self, String> {
        let mut channels = Vec::new();
        for address in addresses {
            let endpoint = Endpoint::from_shared(address.clone()).map_err(|e| e.to_string())?;
            let channel = endpoint.timeout(Duration::from_secs(10)).connect().await;
            channels.push(channel.map_err(|e| e.to_string())?);
        }
        Ok(Self { channels, turn: Arc::default() })
    }

    async fn call<M, R>(&self, path: &'static str, message: M) -> Result<R, String>
    where
        M: prost::Message + 'static,
        R: prost::Message + Default + 'static,
    {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % self.channels.len();
        let mut grpc = Grpc::new(self.channels[turn].clone());
        grpc.ready().await.map_err(|e| e.to_string())?;
        let codec = ProstCodec::default();
        let path = PathAndQuery::from_static(path);
        let answer = grpc.unary(Request::new(message), path, codec).await;
        answer.map(tonic::Response::into_inner).map_err(|status| status.to_string())
    }
}

impl Client for Etcd {
    async fn put(&self, key: u64, value: Bytes) -> Result<(), String> {
        let put = PutRequest { key: key_name(key), value };
        self.call::<_, PutResponse>("/etcdserverpb.KV/Put", put).await.map(drop)
    }

    async fn get(&self, key: u64) -> Result<(), String> {
        // Linearizable, as nothing else is asked for.
        let range = RangeRequest { key: key_name(key) };
        let found: RangeResponse = self.call("/etcdserverpb.KV/Range", range).await?;
        if found.kvs.is_empty() { Err(String::from("a key is missing")) } else { Ok(()) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    value: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PutResponse {}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeRequest {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RangeResponse {
    #[prost(message, repeated, tag = "2")]
    kvs: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeyValue {
    #[prost(bytes = "bytes", tag = "1")]
    key: Bytes,
    #[prost(bytes = "bytes", tag = "5")]
    value: Bytes,
}
