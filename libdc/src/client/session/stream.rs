//! A connection of the asynchronous client, that knows which process opened it.
//!
//! A runtime registers its sockets with an epoll instance, and a forked child shares that instance with its
//! parent: were the child to drop a socket the usual way, the parent would never again hear of its own
//! connection. So a child closes the descriptor and leaves the registration alone.

use crate::net::address::Address;
use crate::net::connect::connect;
use crate::net::socket::Socket;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::process;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};

/// A connection.
#[derive(Debug)]
pub(crate) struct ClientStream {
    /// `None` only while it is dropped.
    socket: Option<Socket>,
    owner: u32,
}

impl ClientStream {
    /// Connects to `address`.
    pub(crate) async fn connect(address: &Address, within: Duration) -> io::Result<Self> {
        let socket = connect(address, within).await?;
        Ok(Self { socket: Some(socket), owner: process::id() })
    }

    /// The process that opened it.
    pub(crate) const fn owner(&self) -> u32 {
        self.owner
    }

    /// Writes all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket()?.write_all(bytes).await
    }

    /// Reads what there is; 0 is the end.
    pub(crate) async fn receive(&mut self, room: &mut [u8]) -> io::Result<usize> {
        self.socket()?.read(room).await
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.socket()?).poll_write(cx, bytes)
    }

    /// Hands on what was written, where the socket keeps it back.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.socket()?).poll_flush(cx)
    }

    /// Reads what there is; 0 is the end.
    pub(crate) fn poll_receive(&mut self, cx: &mut Context<'_>, room: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut room = ReadBuf::new(room);
        let read = Pin::new(self.socket()?).poll_read(cx, &mut room);
        read.map_ok(|()| room.filled().len())
    }

    fn socket(&mut self) -> io::Result<&mut Socket> {
        self.socket.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl Drop for ClientStream {
    fn drop(&mut self) {
        if self.owner == process::id() {
            return;
        }
        let Some(socket) = self.socket.take() else {
            return;
        };
        let fd = socket.as_raw_fd();
        std::mem::forget(socket);
        // It fails only for a descriptor that is closed already.
        nix::unistd::close(fd).ok();
    }
}
