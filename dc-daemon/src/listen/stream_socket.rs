//! The system calls that make a listening stream socket.

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType};
use std::os::fd::OwnedFd;

/// Connections that may wait to be accepted.
pub(super) const BACKLOG: i32 = 4096;

/// Starts to listen on a bound socket.
pub(super) fn listen(socket: &OwnedFd) -> nix::Result<()> {
    socket::listen(socket, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))
}

/// A new stream socket that no child inherits.
pub(super) fn stream_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}
