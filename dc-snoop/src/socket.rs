//! Connections, of TCP or of a Unix socket, as the relay needs them.

use dc_daemon::listen::ListenerSocket;
use libdc::net::address::Address;
use libdc::net::connect::connect;
use nix::sys::socket::{Shutdown, setsockopt, shutdown, sockopt};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// Maximum time to connect to the server.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(30);

/// A socket that accepts connections.
#[derive(Debug)]
pub(crate) enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct AcceptedConnection {
    pub(crate) socket: RelaySocket,
    /// Client and server of a TCP connection.
    pub(crate) ends: Option<(SocketAddr, SocketAddr)>,
    /// Description of the client.
    pub(crate) from: String,
}

impl Acceptor {
    pub(crate) fn new(socket: ListenerSocket) -> io::Result<Self> {
        Ok(match socket {
            ListenerSocket::Tcp(socket) => Self::Tcp(TcpListener::from_std(socket)?),
            ListenerSocket::Unix(socket) => Self::Unix(UnixListener::from_std(socket)?),
        })
    }

    /// The next connection. Cancel-safe.
    pub(crate) async fn accept(&self) -> io::Result<AcceptedConnection> {
        match self {
            Self::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream.set_nodelay(true)?;
                let ends = stream.local_addr().ok().map(|local| (peer, local));
                let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
                Ok(AcceptedConnection { socket: RelaySocket::Tcp(stream), ends, from: peer.to_string() })
            }
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                // A client's socket has no name; its process has.
                let process = stream.peer_cred().ok().and_then(|credentials| credentials.pid());
                let from = process.map_or_else(|| "a process".to_owned(), |pid| format!("process {pid}"));
                Ok(AcceptedConnection { socket: RelaySocket::Unix(stream), ends: None, from })
            }
        }
    }
}

#[derive(Debug)]
pub(crate) enum RelaySocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl RelaySocket {
    /// Connects; a name is looked up now, and all of its addresses are tried.
    pub(crate) async fn connect(address: &Address) -> io::Result<Self> {
        Ok(match connect(address, CONNECT_TIME_MAX).await? {
            libdc::net::socket::Socket::Tcp(stream) => Self::Tcp(stream),
            libdc::net::socket::Socket::Unix(stream) => Self::Unix(stream),
            // The relay performs no TLS handshake.
            libdc::net::socket::Socket::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    pub(crate) async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    pub(crate) async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }

    pub(crate) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_read(buffer),
            Self::Unix(stream) => stream.try_read(buffer),
        }
    }

    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
        }
    }

    /// Shuts down the writing side. If the peer has gone, this has no effect.
    pub(crate) fn finish_writing(&self) {
        shutdown(self.as_fd().as_raw_fd(), Shutdown::Write).ok();
    }

    /// Shuts down the reading side, which notifies the peer where the socket supports it.
    pub(crate) fn stop_reading(&self) {
        shutdown(self.as_fd().as_raw_fd(), Shutdown::Read).ok();
    }

    /// Closes the connection so that the peer sees it reset, if it is one of TCP.
    pub(crate) fn reset(self) {
        if let Self::Tcp(stream) = &self {
            let at_once = nix::libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(stream, sockopt::Linger, &at_once).ok();
        }
    }
}

impl AsFd for RelaySocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}
