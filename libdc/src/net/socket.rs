//! A connected socket of any kind.

use crate::net::TlsSocket;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A socket that the runtime watches.
#[derive(Debug)]
pub enum Socket {
    /// Over TCP.
    Tcp(TcpStream),
    /// On this host.
    Unix(UnixStream),
    /// TLS over TCP. In a box, for the other kinds are to stay small: most connections are idle.
    Tls(Box<TlsSocket>),
}

impl Socket {
    /// Who is at the other end, for the log: address and port, or process and user on this host.
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

    /// Whether there is something to read, be it the end, as the system has it: the runtime may not know of it yet.
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

    /// Takes the socket out of the runtime that it is registered with.
    ///
    /// # Errors
    /// What the system says against it. One of TLS stays where its handshake was made.
    pub fn detach(self) -> io::Result<DetachedSocket> {
        Ok(match self {
            Self::Tcp(stream) => DetachedSocket::Tcp(stream.into_std()?),
            Self::Unix(stream) => DetachedSocket::Unix(stream.into_std()?),
            Self::Tls(_) => return Err(io::ErrorKind::Unsupported.into()),
        })
    }

    /// Writes what the socket takes at once. One of TLS takes nothing this way: only its own task can write.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; else the connection is broken.
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
            // What was written is the system's.
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

const _: () = assert!(size_of::<Socket>() <= size_of::<TcpStream>() + 8, "a kind of socket made all larger");

/// A socket that belongs to no runtime, on its way from one to another.
#[derive(Debug)]
pub enum DetachedSocket {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// On this host.
    Unix(std::os::unix::net::UnixStream),
}

impl DetachedSocket {
    /// Registers the socket with the runtime that this is called in.
    ///
    /// # Errors
    /// What the system says against it, such as a lack of memory.
    pub fn register(self) -> io::Result<Socket> {
        Ok(match self {
            Self::Tcp(stream) => Socket::Tcp(TcpStream::from_std(stream)?),
            Self::Unix(stream) => Socket::Unix(UnixStream::from_std(stream)?),
        })
    }
}

/// Turns on `TCP_NODELAY`, and keep-alive so that a vanished host is noticed within minutes.
///
/// # Errors
/// The system refuses an option, as on a socket that is gone.
pub fn prepare_tcp(stream: &impl std::os::fd::AsFd) -> io::Result<()> {
    let socket = socket2::SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(10))
        .with_retries(6);
    socket.set_tcp_keepalive(&keepalive)
}
