//! A connection of the asynchronous client that records the process that opened it.
//!
//! A runtime registers its sockets with an epoll instance, which a forked child shares with its parent. If
//! the child dropped a socket normally, the parent would receive no more events of its connection. The child
//! therefore closes the descriptor and leaves the registration unchanged.

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

#[derive(Debug)]
pub(crate) struct ClientStream {
    /// `None` only while it is dropped.
    socket: Option<Socket>,
    owner: u32,
}

impl ClientStream {
    pub(crate) async fn connect(address: &Address, within: Duration) -> io::Result<Self> {
        let socket = connect(address, within).await?;
        Ok(Self { socket: Some(socket), owner: process::id() })
    }

    /// The id of the process that opened it.
    pub(crate) const fn owner(&self) -> u32 {
        self.owner
    }

    /// Writes all of `bytes`.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.socket()?.write_all(bytes).await
    }

    /// Reads available bytes; 0 is the end of input.
    pub(crate) async fn receive(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.socket()?.read(buffer).await
    }

    /// Writes some of `bytes`.
    pub(crate) fn poll_send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(self.socket()?).poll_write(cx, bytes)
    }

    /// Flushes written bytes that the socket buffers.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(self.socket()?).poll_flush(cx)
    }

    /// Reads available bytes; 0 is the end of input.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        let read = Pin::new(self.socket()?).poll_read(cx, &mut buffer);
        read.map_ok(|()| buffer.filled().len())
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
        // It fails only if the descriptor is already closed.
        nix::unistd::close(fd).ok();
    }
}
