//! What connections go over: TCP, between processes of one machine Unix domain sockets, or a transport of the application's.

use std::any::Any;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

use crate::shared::{catch, panic_text};
use crate::transport::{Acceptor, Connection, Pending, Transport};

/// One end of a connection.
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
    Own(Box<dyn Connection>),
}

/// Where connections are accepted.
pub(crate) enum Entrance {
    Tcp(TcpListener),
    /// The file goes first: once nobody listens at it another process may take its place.
    Unix(SocketFile, UnixListener),
    Own(Box<dyn Acceptor>),
}

/// The file of a socket that this process listens at, removed with it.
#[derive(Debug)]
pub(crate) struct SocketFile(PathBuf);

/// The path that an address names, if it is that of a Unix domain socket.
pub(crate) fn unix_path(address: &str) -> Option<&Path> {
    address.strip_prefix(UNIX).map(Path::new)
}

/// What is wrong with an address: `host:port`, or `unix:` and an absolute path.
pub(crate) fn check_address(address: &str) -> Result<(), String> {
    if let Some(path) = unix_path(address) {
        return match std::os::unix::net::SocketAddr::from_pathname(path) {
            Ok(_) if path.is_absolute() => Ok(()),
            Ok(_) => Err(format!("{address:?} is no address: unix: wants an absolute path")),
            Err(error) => Err(format!("{address:?} is no address: {error}")),
        };
    }
    let parts = address.rsplit_once(':');
    match parts.is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok()) {
        true => Ok(()),
        false => Err(format!("{address:?} is no address: host:port or unix:/path is wanted")),
    }
}

impl Socket {
    pub(crate) async fn connect(
        address: &str,
        transport: Option<&dyn Transport>,
    ) -> io::Result<Self> {
        if let Some(transport) = transport {
            return guarded(|| transport.connect(address)).await.map(Self::Own);
        }
        match unix_path(address) {
            Some(path) => UnixStream::connect(path).await.map(Self::Unix),
            None => TcpStream::connect(address).await.map(Self::Tcp),
        }
    }

    /// Has what is written sent at once, not gathered for a while (Nagle's algorithm).
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.set_nodelay(true),
            Self::Unix(_) | Self::Own(_) => Ok(()),
        }
    }

    /// From where it comes; none but for TCP.
    pub(crate) fn peer_ip(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(socket) => socket.peer_addr().ok().map(|address| address.ip()),
            Self::Unix(_) | Self::Own(_) => None,
        }
    }
}

impl Entrance {
    /// Listens at a path. A socket that a process left behind when it was killed is replaced.
    pub(crate) async fn at(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(path).await => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        Ok(Self::Unix(SocketFile(path.to_owned()), listener))
    }

    /// The next connection, and from where it comes.
    pub(crate) async fn accept(&mut self) -> io::Result<(Socket, String)> {
        match self {
            Self::Tcp(listener) => {
                let (socket, peer) = listener.accept().await?;
                Ok((Socket::Tcp(socket), peer.to_string()))
            }
            Self::Unix(SocketFile(path), listener) => {
                let (socket, _) = listener.accept().await?;
                Ok((Socket::Unix(socket), format!("{UNIX}{}", path.display())))
            }
            Self::Own(acceptor) => {
                let (connection, from) = guarded(|| acceptor.accept()).await?;
                Ok((Socket::Own(connection), from))
            }
        }
    }

    /// None: not at an internet address.
    pub(crate) fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) | Self::Own(_) => None,
        }
    }
}

/// What a transport answers. A panic of the application's is an error as any other: it takes no task of ours along.
pub(crate) async fn guarded<'a, T>(begin: impl FnOnce() -> Pending<'a, T> + Send) -> io::Result<T> {
    let panicked = |panic: Box<dyn Any + Send>| {
        io::Error::other(format!("the transport panicked: {}", panic_text(&*panic)))
    };
    let begun = catch(Box::pin(async { begin().await })).await;
    begun.unwrap_or_else(|panic| Err(panicked(panic)))
}

/// Whether a file is a socket at which nobody listens any more.
async fn is_left(path: &Path) -> bool {
    use std::os::unix::fs::FileTypeExt;
    std::fs::symlink_metadata(path).is_ok_and(|file| file.file_type().is_socket())
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.0) {
            tracing::debug!(path = %self.0.display(), %error, "cannot remove a socket");
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Unix(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Own(connection) => Pin::new(connection).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Unix(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Own(connection) => Pin::new(connection).poll_write(cx, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Unix(socket) => Pin::new(socket).poll_write_vectored(cx, slices),
            Self::Own(connection) => Pin::new(connection).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(socket) => socket.is_write_vectored(),
            Self::Unix(socket) => socket.is_write_vectored(),
            Self::Own(connection) => connection.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_flush(cx),
            Self::Unix(socket) => Pin::new(socket).poll_flush(cx),
            Self::Own(connection) => Pin::new(connection).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Unix(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Own(connection) => Pin::new(connection).poll_shutdown(cx),
        }
    }
}

/// How the address of a Unix domain socket begins.
const UNIX: &str = "unix:";
