//! A connection of the asynchronous client: a Unix or a TCP stream that knows which process opened it.
//!
//! A runtime registers its sockets with an epoll instance, and a forked child shares that instance with its
//! parent: were the child to drop a stream the usual way, the parent would never again hear of its own
//! connection. So a child closes the descriptor and leaves the registration alone.

use crate::net::address::{Address, Host};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::pin::Pin;
use std::process;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

/// A connection to an [`Address`].
#[derive(Debug)]
pub struct Stream {
    transport: Transport,
    owner: u32,
}

#[derive(Debug)]
enum Transport {
    Unix(UnixStream),
    Tcp(TcpStream),
    /// Closed by a forked child.
    Left,
}

impl Stream {
    /// Connects to `address`, without an end of its own: bound it with a timeout.
    ///
    /// Cancel-safe: a future that is dropped leaves nothing open.
    ///
    /// # Errors
    /// What the system says; of several addresses, what it says to the last.
    pub async fn connect(address: &Address) -> io::Result<Self> {
        let transport = match address {
            Address::Unix(path) => Transport::Unix(connect_unix(path.as_path()).await?),
            address => Transport::Tcp(connect_tcp(&resolve(address).await?).await?),
        };
        Ok(Self { transport, owner: process::id() })
    }

    /// The process that opened it.
    pub(super) const fn owner(&self) -> u32 {
        self.owner
    }
}

/// What an address stands for. A name is looked up on another thread: that blocks.
async fn resolve(address: &Address) -> io::Result<Vec<SocketAddr>> {
    if matches!(address.host(), Some(Host::Name(_))) {
        let address = address.clone();
        let found = tokio::task::spawn_blocking(move || address.resolve()).await;
        return found.unwrap_or_else(|error| Err(error.into()));
    }
    address.resolve()
}

/// Connects to a Unix socket. One whose backlog is full says so at once, and to nobody when it no longer is:
/// so it is asked again, at growing intervals.
async fn connect_unix(path: &Path) -> io::Result<UnixStream> {
    const PAUSE_MAX: Duration = Duration::from_millis(50);
    let mut pause = Duration::from_millis(1);
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(pause).await,
            result => return result,
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

async fn connect_tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    if addresses.is_empty() {
        return Err(io::ErrorKind::AddrNotAvailable.into());
    }
    let stream = TcpStream::connect(addresses).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.owner == process::id() {
            return;
        }
        let fd = match &self.transport {
            Transport::Unix(stream) => stream.as_raw_fd(),
            Transport::Tcp(stream) => stream.as_raw_fd(),
            Transport::Left => return,
        };
        std::mem::forget(std::mem::replace(&mut self.transport, Transport::Left));
        // It fails only for a descriptor that is closed already.
        nix::unistd::close(fd).ok();
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Tcp(stream) => Pin::new(stream).poll_read(cx, buf),
            Transport::Left => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Tcp(stream) => Pin::new(stream).poll_write(cx, buf),
            Transport::Left => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.transport {
            Transport::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            Transport::Left => Poll::Ready(Ok(())),
        }
    }
}
