//! The descriptors that a child inherits from its master.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// The first inherited descriptor, as in `sd_listen_fds(3)`.
pub(crate) const FIRST: RawFd = 3;

/// A listening socket, TCP or Unix.
#[derive(Debug)]
pub(crate) enum ChildListener {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The inherited sockets. May be called once.
///
/// # Errors
/// No socket is inherited, or a descriptor is not a listening socket.
pub(crate) fn listeners() -> io::Result<Vec<ChildListener>> {
    let count = number("EINHORN_FD_COUNT").or_else(|| number("LISTEN_FDS")).unwrap_or_default();
    if count == 0 {
        return Err(io::Error::other("no sockets are inherited"));
    }
    (FIRST..FIRST + count).map(|number| listener(claim(number))).collect()
}

/// The value of a numeric variable; `None` if absent or malformed.
pub(crate) fn number(name: &str) -> Option<RawFd> {
    env::var(name).ok()?.parse().ok()
}

fn listener(socket: OwnedFd) -> io::Result<ChildListener> {
    let is_tcp = socket2::SockRef::from(&socket).local_addr()?.as_socket().is_some();
    let listener =
        if is_tcp { ChildListener::Tcp(socket.into()) } else { ChildListener::Unix(socket.into()) };
    match &listener {
        ChildListener::Tcp(socket) => socket.set_nonblocking(true)?,
        ChildListener::Unix(socket) => socket.set_nonblocking(true)?,
    }
    Ok(listener)
}

#[allow(unsafe_code, reason = "there is no safe way from a number to a descriptor")]
fn claim(number: RawFd) -> OwnedFd {
    // SAFETY: the descriptor was inherited, has no other owner in this process, and is taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
