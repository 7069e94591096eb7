//! The system calls that make a listening stream socket.

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType};
use std::os::fd::OwnedFd;

/// The maximum length of the accept queue.
pub(super) const BACKLOG: i32 = 4096;

/// Makes a bound socket listen.
pub(super) fn listen(socket: &OwnedFd) -> nix::Result<()> {
    socket::listen(socket, Backlog::new(BACKLOG).unwrap_or(Backlog::MAXCONN))
}

/// Creates a close-on-exec stream socket.
pub(super) fn stream_socket(family: AddressFamily) -> nix::Result<OwnedFd> {
    socket::socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)
}
