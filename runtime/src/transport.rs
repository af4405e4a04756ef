//! A transport of one's own, in place of the system's sockets.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};

/// What a transport answers with, when it has it.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = io::Result<T>> + Send + 'a>>;

/// A connection: bytes both ways, in order, none lost before its end. Whatever can be read and written as sockets can is one.
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// How the nodes of a cluster reach each other where that is not TCP: through a tunnel, within a process, over a bus. All
/// nodes of a cluster use the same.
///
/// Addresses are the transport's own: texts of 1 to 255 bytes without control characters, which mean the same on all
/// nodes. A node that is given a transport opens no socket but that of its metrics, and sends no datagrams: members
/// take for alive who they are connected to. Keys work as over TCP: what goes over the transport is TLS then. Without them
/// the transport has to see to it who may connect.
///
/// Its futures run on the node's own threads, and are dropped when the node ends or has waited for too long.
pub trait Transport: fmt::Debug + Send + Sync {
    /// Begins to listen at this node's address. Called once, when the node is opened, if it listens.
    fn listen<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Acceptor>>;

    /// Connects to the node at this address. An error is one attempt that failed: there will be others.
    fn connect<'a>(&'a self, address: &'a str) -> Pending<'a, Box<dyn Connection>>;
}

/// Where a transport's connections arrive. Dropped when the node ends.
pub trait Acceptor: Send {
    /// The next connection, and from where it comes, in words for people. After an error it is asked again, a moment
    /// later. What it has begun must not be lost when the future is dropped.
    fn accept(&mut self) -> Pending<'_, (Box<dyn Connection>, String)>;
}
