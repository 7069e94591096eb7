//! A connected socket: TCP, Unix or TLS.

use crate::net::TlsSocket;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connected socket that is registered with a runtime.
#[derive(Debug)]
pub enum Socket {
    /// A TCP connection without TLS.
    Tcp(TcpStream),
    /// A Unix stream connection.
    Unix(UnixStream),
    /// TLS over TCP. Boxed to keep the other variants small, since most connections are idle.
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// The peer for the log: address and port, or process and user of a Unix socket.
    #[must_use]
    pub fn peer(&self) -> String {
        let unknown = || String::from("unknown");
        let address =
            |stream: &TcpStream| stream.peer_addr().map_or_else(|_| unknown(), |peer| peer.to_string());
        match self {
            Self::Tcp(stream) => address(stream),
            Self::Tls(stream) => address(stream.tcp()),
            Self::Unix(stream) => stream.peer_cred().map_or_else(
                |_| unknown(),
                |peer| match peer.pid() {
                    Some(pid) => format!("pid {pid} uid {}", peer.uid()),
                    None => format!("uid {}", peer.uid()),
                },
            ),
        }
    }

    /// Whether the system has input or the end of input, even if the runtime has not been notified yet.
    #[must_use]
    pub fn has_input(&self) -> bool {
        let descriptor = match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.tcp().as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        };
        let mut asked = [PollFd::new(descriptor, PollFlags::POLLIN)];
        nix::poll::poll(&mut asked, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }

    /// Deregisters the socket from its runtime.
    ///
    /// # Errors
    /// Errors of the system. A TLS connection cannot leave the runtime of its handshake.
    pub fn detach(self) -> io::Result<DetachedSocket> {
        Ok(match self {
            Self::Tcp(stream) => DetachedSocket::Tcp(stream.into_std()?),
            Self::Unix(stream) => DetachedSocket::Unix(stream.into_std()?),
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    /// Writes as much as the socket accepts immediately. A TLS connection accepts nothing: only its task can
    /// write.
    ///
    /// # Errors
    /// `WouldBlock` if it accepts nothing now; otherwise the connection has failed.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.try_write(bytes),
            Self::Unix(stream) => stream.try_write(bytes),
            Self::Tls(_) => Err(io::ErrorKind::WouldBlock.into()),
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Tls(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            // Written data is already in the kernel.
            Self::Tcp(_) | Self::Unix(_) => Poll::Ready(Ok(())),
            Self::Tls(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        match self {
            Self::Tcp(stream) => stream.as_raw_fd(),
            Self::Unix(stream) => stream.as_raw_fd(),
            Self::Tls(stream) => stream.tcp().as_raw_fd(),
        }
    }
}

const _: () = assert!(size_of::<Socket>() <= size_of::<TcpStream>() + 8, "no variant may enlarge the others");

/// A socket without a runtime, while it moves from one to another.
#[derive(Debug)]
pub enum DetachedSocket {
    /// A TCP connection in non-blocking mode.
    Tcp(std::net::TcpStream),
    /// A Unix stream connection in non-blocking mode.
    Unix(std::os::unix::net::UnixStream),
}

impl DetachedSocket {
    /// Registers the socket with the current runtime.
    ///
    /// # Errors
    /// Errors of the system, such as a lack of memory.
    pub fn register(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// Sets `TCP_NODELAY`, and enables keep-alive so that a vanished host is detected within minutes.
///
/// # Errors
/// Errors of the system, as for a socket that is closed.
pub fn prepare_tcp(stream: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    socket.set_tcp_keepalive(&keepalive)
}
