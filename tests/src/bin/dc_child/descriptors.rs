//! The descriptors that a child has from its master.

use std::env;
use std::io;
use std::net::TcpListener;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// The first descriptor that is passed.
pub(crate) const FIRST: RawFd = 3;

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum ChildListener {
    /// On TCP.
    Tcp(TcpListener),
    /// On a path.
    Unix(UnixListener),
}

/// The sockets. May be called once.
///
/// # Errors
/// There are none, or one of them is no listening socket.
pub(crate) fn listeners() -> io::Result<Vec<ChildListener>> {
    let count = number("EINHORN_FD_COUNT").or_else(|| number("LISTEN_FDS")).unwrap_or_default();
    if count == 0 {
        return Err(io::Error::other("there are no sockets"));
    }
    (FIRST..FIRST + count).map(|number| listener(claim(number))).collect()
}

/// The number of a variable.
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

#[allow(unsafe_code, reason = "a number becomes a descriptor in no other way")]
fn claim(number: RawFd) -> OwnedFd {
    // SAFETY: what was inherited under this number is nobody else's in this process, and is taken once.
    unsafe { OwnedFd::from_raw_fd(number) }
}
