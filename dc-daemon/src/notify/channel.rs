//! The socket for messages to the service manager.
//!
//! Nothing here panics.

use super::error::NotifyError;
use crate::fd_passing::send_with;
use nix::sys::socket::MsgFlags;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;
use tracing::debug;

/// The maximum wait for the service manager to take a message with [`Haste::Wait`].
const PATIENCE: Duration = Duration::from_secs(1);

/// How to send while the queue of the service manager is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Haste {
    Wait,
    Lose,
}

#[derive(Debug)]
pub(super) struct NotifyChannel {
    socket: UnixDatagram,
    supervisor: SocketAddr,
}

impl NotifyChannel {
    pub(super) fn open(name: &OsStr) -> Result<Self, NotifyError> {
        let unusable = |source| NotifyError::Unusable { name: name.to_owned(), source };
        let address = match name.as_bytes() {
            [b'/', ..] => SocketAddr::from_pathname(name),
            [b'@', rest @ ..] if !rest.is_empty() => SocketAddr::from_abstract_name(rest),
            _ => return Err(NotifyError::NoAddress { name: name.to_owned() }),
        };
        let supervisor = address.map_err(unusable)?;
        let socket = UnixDatagram::unbound().map_err(unusable)?;
        socket.set_write_timeout(Some(PATIENCE)).map_err(unusable)?;
        match socket.connect_addr(&supervisor) {
            Ok(()) => {}
            Err(error) if is_absence(&error) => debug!(%error, "the service manager is not available"),
            Err(error) => return Err(unusable(error)),
        }
        Ok(Self { socket, supervisor })
    }

    /// Sends a message. Reconnects to a service manager that was unavailable or has been replaced.
    pub(super) fn send(&self, message: &str, descriptors: &[BorrowedFd<'_>], haste: Haste) -> io::Result<()> {
        let flags = if haste == Haste::Lose { MsgFlags::MSG_DONTWAIT } else { MsgFlags::empty() };
        let send = || send_with(self.socket.as_fd(), message.as_bytes(), descriptors, flags);
        match send() {
            Err(error) if is_absence(&error) => {
                self.socket.connect_addr(&self.supervisor)?;
                send()
            }
            sent => sent,
        }
        .map(drop)
    }
}

/// Whether the peer is unavailable, which may be temporary.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, ConnectionReset, NotConnected, NotFound};
    matches!(error.kind(), ConnectionRefused | ConnectionReset | NotConnected | NotFound)
}
