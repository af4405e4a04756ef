//! A network of TCP connections that can be split.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use libring::{Acceptor, Connection, Pending, Transport};
use tokio::io::{copy_bidirectional, duplex};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;

/// Between whom nothing goes.
#[derive(Debug, Default)]
pub(crate) struct Network(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// The addresses on one side of the split; nobody: all reach all.
    island: BTreeSet<String>,
    /// From where, to where, and what carries it.
    cables: Vec<(String, String, AbortHandle)>,
}

/// A node's way into the network.
#[derive(Debug)]
struct Plug {
    own: String,
    network: Arc<Network>,
}

struct Arrivals(TcpListener);

impl Network {
    /// The transport of the node at this address.
    pub(crate) fn plug(self: &Arc<Self>, own: &str) -> Arc<dyn Transport> {
        Arc::new(Plug { own: own.to_owned(), network: Arc::clone(self) })
    }

    /// Nothing goes any more between those at these addresses and all others.
    pub(crate) fn split(&self, island: &[&str]) {
        let mut state = self.0.lock().unwrap();
        state.island = island.iter().map(|&address| address.to_owned()).collect();
        for (_, _, cable) in state.cables.iter().filter(|(from, to, _)| state.is_cut(from, to)) {
            cable.abort();
        }
    }

    /// All reach all.
    pub(crate) fn heal(&self) {
        self.0.lock().unwrap().island.clear();
    }
}

impl State {
    fn is_cut(&self, from: &str, to: &str) -> bool {
        self.island.contains(from) != self.island.contains(to)
    }
}

impl Transport for Plug {
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Acceptor>> {
        Box::pin(async move {
            let acceptor: Box<dyn Acceptor> = Box::new(Arrivals(TcpListener::bind(address).await?));
            Ok(acceptor)
        })
    }

    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Connection>> {
        Box::pin(async move {
            let mut there = TcpStream::connect(address).await?;
            let (near, mut far) = duplex(64 << 10);
            let mut state = self.network.0.lock().unwrap();
            if state.is_cut(&self.own, address) {
                return Err(io::ErrorKind::HostUnreachable.into());
            }
            let carry = tokio::spawn(async move {
                // Either end may be gone at any time.
                let _ = copy_bidirectional(&mut far, &mut there).await;
            });
            let (from, to) = (self.own.clone(), address.to_owned());
            state.cables.push((from, to, carry.abort_handle()));
            let near: Box<dyn Connection> = Box::new(near);
            Ok(near)
        })
    }
}

impl Acceptor for Arrivals {
    fn accept(&mut self) -> Pending<'_, (Box<dyn Connection>, String)> {
        Box::pin(async {
            let (socket, from) = self.0.accept().await?;
            let socket: Box<dyn Connection> = Box::new(socket);
            Ok((socket, from.to_string()))
        })
    }
}
