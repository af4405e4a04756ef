//! A network between members that a test can hurt.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

/// Stands between the others and a member. It can cut what goes through it, and stop to carry anything while all
/// connections stay open.
pub(crate) struct Proxy {
    through: Arc<Mutex<Vec<AbortHandle>>>,
    carries: watch::Sender<bool>,
}

impl Proxy {
    pub(crate) async fn new(at: &str, to: String) -> Self {
        let listener = TcpListener::bind(at).await.unwrap();
        let through = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let (carries, carried) = watch::channel(true);
        let connections = Arc::clone(&through);
        tokio::spawn(async move {
            loop {
                let (here, _) = listener.accept().await.unwrap();
                let (to, carried) = (to.clone(), carried.clone());
                let carry = tokio::spawn(async move {
                    let Ok(there) = TcpStream::connect(to).await else { return };
                    let (from_here, to_here) = here.into_split();
                    let (from_there, to_there) = there.into_split();
                    tokio::join!(
                        carry(from_here, to_there, carried.clone()),
                        carry(from_there, to_here, carried),
                    );
                });
                connections.lock().unwrap().push(carry.abort_handle());
            }
        });
        Self { through, carries }
    }

    /// Cuts all connections; new ones pass.
    pub(crate) fn cut(&self) {
        for connection in self.through.lock().unwrap().drain(..) {
            connection.abort();
        }
    }

    /// How many connections go through it.
    pub(crate) fn connections(&self) -> usize {
        self.through.lock().unwrap().iter().filter(|carry| !carry.is_finished()).count()
    }

    /// Nothing gets through any more, and no end hears of it; or what waits goes on.
    pub(crate) fn carry(&self, carries: bool) {
        self.carries.send_replace(carries);
    }
}

/// One direction of a connection.
async fn carry(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut carried: watch::Receiver<bool>,
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        let carries = carried.wait_for(|carries| *carries).await.is_ok();
        if !carries || to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}
