//! A network for datagrams that remembers what went through it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::UdpSocket;

/// Stands between the others and a member: carries datagrams both ways, and keeps those to the member.
pub(crate) struct Tap {
    socket: Arc<UdpSocket>,
    to: SocketAddr,
    kept: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Tap {
    pub(crate) async fn new(at: &str, to: &str) -> Self {
        let socket = Arc::new(UdpSocket::bind(at).await.unwrap());
        let to: SocketAddr = to.parse().unwrap();
        let kept = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let (carrier, keeps) = (Arc::clone(&socket), Arc::clone(&kept));
        tokio::spawn(async move {
            let (mut bytes, mut other) = (vec![0; 65_536], None);
            loop {
                // Some systems tell here that a datagram sent before found nobody.
                let Ok((len, from)) = carrier.recv_from(&mut bytes).await else { continue };
                let datagram = &bytes[..len];
                let there = if from == to {
                    other
                } else {
                    keeps.lock().unwrap().push(datagram.to_vec());
                    other = Some(from);
                    Some(to)
                };
                if let Some(there) = there {
                    let _ = carrier.send_to(datagram, there).await;
                }
            }
        });
        Self { socket, to, kept }
    }

    /// Those to the member since the last call.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.kept.lock().unwrap())
    }

    /// How many there are to take.
    pub(crate) fn kept(&self) -> usize {
        self.kept.lock().unwrap().len()
    }

    /// Sends them to the member once more.
    pub(crate) async fn again(&self, datagrams: &[Vec<u8>]) {
        for datagram in datagrams {
            self.socket.send_to(datagram, self.to).await.unwrap();
        }
    }
}
