//! The listening sockets, which the master opens once and keeps as long as it runs.
//!
//! Children get duplicates. `O_NONBLOCK` belongs to the open socket, which all duplicates share. So it is set
//! only when the socket is opened: changing it for a new child would change it for the old one.

use dc_daemon::activation::{PassedFd, UNNAMED};
use dc_daemon::file::OwnedFile;
use dc_daemon::listen::{ListenError, Listener, ListenerSocket, SocketPermissions};
use libdc::net::address::Address;
use nix::sys::socket::{Shutdown, shutdown};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use tracing::{error, info, warn};

/// Name of a socket that was passed without one.
const NAME_DEFAULT: &str = "listener";

/// An address to listen on, and the socket's name for the children.
#[derive(Clone, Debug)]
pub(crate) struct ListenSpec {
    address: Address,
    name: String,
}

/// A socket for a child.
#[derive(Debug)]
pub(crate) struct PassedSocket {
    /// Its name in `LISTEN_FDNAMES`.
    pub(crate) name: String,
    /// A duplicate of the listening socket.
    pub(crate) descriptor: OwnedFd,
}

/// All sockets of the master, in the order in which children get them.
#[derive(Debug)]
pub(crate) struct ListenSockets {
    held: Vec<HeldSocket>,
    permissions: SocketPermissions,
    nonblocking: bool,
}

/// A listening socket. Its path is removed on drop.
#[derive(Debug)]
struct HeldSocket {
    name: String,
    listener: Listener,
    file: Option<OwnedFile>,
}

impl From<Address> for ListenSpec {
    fn from(address: Address) -> Self {
        Self { address, name: NAME_DEFAULT.to_owned() }
    }
}

impl From<&PassedFd> for ListenSpec {
    /// Keeps the name that was passed with it.
    fn from(passed: &PassedFd) -> Self {
        let name = if passed.name == UNNAMED { NAME_DEFAULT } else { &passed.name };
        Self { address: passed.address(), name: name.to_owned() }
    }
}

impl ListenSockets {
    /// Opens a socket for each of `places`.
    ///
    /// # Errors
    ///
    /// [`ListenError`] for the first that cannot be opened. Earlier ones are closed again.
    pub(crate) fn open(
        places: &[ListenSpec],
        permissions: SocketPermissions,
        nonblocking: bool,
    ) -> Result<Self, ListenError> {
        let opened = places.iter().map(|place| HeldSocket::open(place, &permissions, nonblocking));
        Ok(Self { held: opened.collect::<Result<_, _>>()?, permissions, nonblocking })
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = Address> {
        self.held.iter().map(|held| held.listener.actual_address())
    }

    /// A duplicate of each, for a child.
    ///
    /// # Errors
    /// If there are too few descriptors left.
    pub(crate) fn duplicates(&self) -> io::Result<Vec<PassedSocket>> {
        let duplicate = |held: &HeldSocket| {
            let descriptor = held.descriptor().try_clone_to_owned()?;
            Ok(PassedSocket { name: held.name.clone(), descriptor })
        };
        self.held.iter().map(duplicate).collect()
    }

    /// Reopens Unix sockets whose path no longer leads to them, so that clients can connect to the next
    /// child. On failure the old socket is kept and a warning is logged.
    pub(crate) fn renew(&mut self) {
        for held in &mut self.held {
            let lost = held.file.as_ref().is_some_and(|file| matches!(file.is_there(), Ok(false)));
            if !lost {
                continue;
            }
            let address = held.listener.address().clone();
            let place = ListenSpec { address: address.clone(), name: held.name.clone() };
            match HeldSocket::open(&place, &self.permissions, self.nonblocking) {
                Ok(new) => {
                    warn!(%address, "the path no longer led to the socket: reopened it");
                    *held = new;
                }
                Err(error) => {
                    error!("the path no longer leads to the socket and cannot be reopened: {error}");
                }
            }
        }
    }

    /// Stops listening, in children and grandchildren too, so that the addresses are free. Inherited sockets
    /// stay open.
    pub(crate) fn close(self) {
        for held in self.held {
            if matches!(held.listener.address(), Address::Descriptor(_)) {
                continue;
            }
            if let Err(error) = shutdown(held.descriptor().as_raw_fd(), Shutdown::Both) {
                info!(address = %held.listener.address(), %error, "the socket cannot be shut down");
            }
        }
    }
}

impl HeldSocket {
    fn open(
        place: &ListenSpec,
        permissions: &SocketPermissions,
        nonblocking: bool,
    ) -> Result<Self, ListenError> {
        let mut listener = Listener::bind(&place.address, permissions)?;
        listener.set_nonblocking(nonblocking)?;
        let file = listener.take_file();
        Ok(Self { name: place.name.clone(), listener, file })
    }

    fn descriptor(&self) -> BorrowedFd<'_> {
        match self.listener.socket() {
            ListenerSocket::Tcp(socket) => socket.as_fd(),
            ListenerSocket::Unix(socket) => socket.as_fd(),
        }
    }
}
