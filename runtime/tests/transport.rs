//! Nodes that reach each other by a transport of the application's own: here within one process.
#![expect(clippy::unwrap_used, reason = "tests")]

mod common;

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use common::keys::Authority;
use common::{open_all, quick};
use libring::security::Role;
use libring::{Acceptor, Connection, Data, Node, OpenError, Options, Pending, Transport};
use parking_lot::Mutex;
use tokio::io::{DuplexStream, duplex};
use tokio::sync::mpsc;

/// Who listens, by address.
#[derive(Debug, Default)]
struct Wires(Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>);

struct Arrivals(mpsc::Receiver<DuplexStream>);

impl Transport for Wires {
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Acceptor>> {
        Box::pin(async move {
            let (to, arrivals) = mpsc::channel(16);
            let mut listeners = self.0.lock();
            if listeners.get(address).is_some_and(|known| !known.is_closed()) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            listeners.insert(address.to_owned(), to);
            let acceptor: Box<dyn Acceptor> = Box::new(Arrivals(arrivals));
            Ok(acceptor)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Connection>> {
        let listener = self.0.lock().get(address).cloned();
        Box::pin(async move {
            let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
            let (near, far) = duplex(64 << 10);
            listener.ok_or_else(refused)?.send(far).await.map_err(|_| refused())?;
            let near: Box<dyn Connection> = Box::new(near);
            Ok(near)
        })
    }
}

impl Acceptor for Arrivals {
    fn accept(&mut self) -> Pending<'_, (Box<dyn Connection>, String)> {
        Box::pin(async {
            let Some(end) = self.0.recv().await else { return std::future::pending().await };
            let end: Box<dyn Connection> = Box::new(end);
            Ok((end, String::from("within")))
        })
    }
}

async fn meet(authority: Option<&Authority>) {
    let wires: Arc<dyn Transport> = Arc::new(Wires::default());
    let keys = |role, name: &str| authority.map(|authority| authority.keys(role, name));
    let founders: Vec<_> =
        ["n1", "n2", "n3"].map(|name| (name.to_owned(), format!("room of {name}"))).into();
    let options = |name: &str| Options {
        name: name.into(),
        members: founders.clone(),
        data: Data::Memory,
        transport: Some(Arc::clone(&wires)),
        keys: keys(Role::Member, name),
        ..quick()
    };
    let mut nodes = open_all(&["n1", "n2", "n3"].map(options)).await;
    assert!(nodes.iter().all(|node| node.address().is_none() && node.datagrams().is_none()));
    let client = Node::open(Options {
        client: true,
        join: vec![String::from("room of n2")],
        members: Vec::new(),
        keys: keys(Role::Client, "c"),
        ..options("c")
    });
    let client = client.await.unwrap();
    client.partition("p").put("k", "v").await.unwrap();

    // The wire is cut with the member, and laid anew when it is back; its address is free then.
    let taken = Node::open(options("n1")).await.unwrap_err();
    assert!(matches!(taken, OpenError::Listen { .. }), "{taken}");
    nodes.remove(2).close().await.unwrap();
    client.partition("p").put("k", "w").await.unwrap();
    assert_eq!(nodes[0].partition("p").get("k").await.unwrap().unwrap().value, "w");
    for node in [client].into_iter().chain(nodes) {
        node.close().await.unwrap();
    }
}

#[tokio::test]
async fn nodes_meet_over_a_transport_of_ones_own() {
    meet(None).await;
}

#[tokio::test]
async fn keys_work_over_it_too() {
    meet(Some(&Authority::new())).await;
}
