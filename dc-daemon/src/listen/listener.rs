//! Listening sockets, created from an [`Address`].
//!
//! A listener is non-blocking and close-on-exec, and has a queue of 4096 connections (the system may allow
//! fewer). A TCP port can be bound again at once after a restart. A Unix socket has its owner, group and mode
//! before any process can connect to it. An existing path is replaced if a dead process left its socket
//! there; it is an error if a live process listens or the path is not a socket. A socket inherited as a
//! descriptor is used as it is; its path, if any, is neither changed nor removed.
//!
//! `IP:port` listens on IPv6 and IPv4 with one socket if the system has IPv6, otherwise on IPv4. For a host
//! name with several addresses, the listener uses the first that belongs to this host, IPv4 before IPv6,
//! since distcache 1.x programs connect there.
//!
//! Nothing here panics.

use super::error::{ListenError, ListenStep};
use super::permissions::SocketPermissions;
use super::stream_socket::{listen, stream_socket};
use super::unix;
use crate::fds::{InheritedFd, InheritedFdError};
use crate::file::OwnedFile;
use libdc::net::address::{Address, Family, SocketPath, TcpAddress};
use nix::errno::Errno;
use nix::sys::socket::{self, AddressFamily, SockType, SockaddrLike, SockaddrStorage, sockopt};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

/// A listening socket, and the file that it created.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: ListenerSocket,
    file: Option<OwnedFile>,
}

impl Listener {
    /// Listens on `address`. `permissions` apply only to a newly created Unix socket.
    ///
    /// # Errors
    /// [`ListenError`], in one line that names the address.
    pub fn bind(address: &Address, permissions: &SocketPermissions) -> Result<Self, ListenError> {
        let (socket, file) = match address {
            Address::Tcp(tcp) => (ListenerSocket::Tcp(bind_tcp(address, tcp)?), None),
            Address::Unix(path) => {
                let (socket, file) = unix::bind(address, path, permissions)?;
                (ListenerSocket::Unix(socket), Some(file))
            }
            Address::Descriptor(number) => (inherit(address, *number)?, None),
        };
        let listener = Self { address: address.clone(), socket, file };
        listener.set_nonblocking(true)?;
        Ok(listener)
    }

    /// The address as configured.
    #[must_use]
    pub const fn address(&self) -> &Address {
        &self.address
    }

    /// The listening socket itself.
    #[must_use]
    pub const fn socket(&self) -> &ListenerSocket {
        &self.socket
    }

    /// The address of a TCP listener, with the port that the system chose for port 0. `None` for a Unix
    /// socket.
    #[must_use]
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            ListenerSocket::Tcp(socket) => socket.local_addr().ok(),
            ListenerSocket::Unix(_) => None,
        }
    }

    /// The address with the port that the system chose, or with the address behind a descriptor.
    #[must_use]
    pub fn actual_address(&self) -> Address {
        let actual = match &self.socket {
            ListenerSocket::Tcp(socket) => socket.local_addr().ok().map(|at| TcpAddress::from(at).into()),
            ListenerSocket::Unix(socket) => {
                let at = socket.local_addr().ok();
                at.and_then(|at| Some(SocketPath::new(at.as_pathname()?).ok()?.into()))
            }
        };
        actual.unwrap_or_else(|| self.address.clone())
    }

    /// Takes the file of a Unix socket, which the caller then removes. A listener that still has its file
    /// removes it on drop.
    pub const fn take_file(&mut self) -> Option<OwnedFile> {
        self.file.take()
    }

    /// The socket and its file, for a driver.
    #[must_use]
    pub fn into_parts(self) -> (ListenerSocket, Option<OwnedFile>) {
        (self.socket, self.file)
    }

    /// Makes the socket blocking or non-blocking, for every process that shares it. Initially it is
    /// non-blocking.
    ///
    /// # Errors
    /// [`ListenError::Failed`]; not expected for an open socket.
    pub fn set_nonblocking(&self, nonblocking: bool) -> Result<(), ListenError> {
        let set = match &self.socket {
            ListenerSocket::Tcp(socket) => socket.set_nonblocking(nonblocking),
            ListenerSocket::Unix(socket) => socket.set_nonblocking(nonblocking),
        };
        set.map_err(|source| ListenError::failed(&self.address, ListenStep::Create, source))
    }
}

/// A listening TCP or Unix socket.
#[derive(Debug)]
pub enum ListenerSocket {
    /// A TCP socket.
    Tcp(TcpListener),
    /// A Unix stream socket.
    Unix(UnixListener),
}

fn bind_tcp(address: &Address, tcp: &TcpAddress) -> Result<TcpListener, ListenError> {
    if tcp.host().is_none() {
        return bind_all_interfaces(tcp).map_err(|(step, error)| ListenError::failed(address, step, error));
    }
    let mut found =
        tcp.resolve().map_err(|source| ListenError::failed(address, ListenStep::Lookup, source))?;
    found.sort_by_key(SocketAddr::is_ipv6);
    let mut failure = (ListenStep::Lookup, Errno::EADDRNOTAVAIL);
    for at in found {
        match bind_one(at, true) {
            Ok(listener) => return Ok(listener),
            // The name also has addresses of other hosts, or of an interface that is down.
            Err((step, Errno::EADDRNOTAVAIL | Errno::EAFNOSUPPORT)) => {
                failure = (step, Errno::EADDRNOTAVAIL);
            }
            Err(other) => {
                failure = other;
                break;
            }
        }
    }
    Err(ListenError::failed(address, failure.0, failure.1))
}

fn bind_all_interfaces(tcp: &TcpAddress) -> Result<TcpListener, (ListenStep, Errno)> {
    let v4 = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), tcp.port());
    let v6 = SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), tcp.port());
    match tcp.family() {
        Family::V4 => bind_one(v4, true),
        Family::V6 => bind_one(v6, true),
        // First a system without IPv6, then one with IPv6 disabled.
        Family::Any => match bind_one(v6, false) {
            Err((_, Errno::EAFNOSUPPORT | Errno::EADDRNOTAVAIL)) => bind_one(v4, true),
            bound => bound,
        },
    }
}

fn bind_one(at: SocketAddr, only_v6: bool) -> Result<TcpListener, (ListenStep, Errno)> {
    let family = if at.is_ipv6() { AddressFamily::Inet6 } else { AddressFamily::Inet };
    let create = || -> nix::Result<OwnedFd> {
        let socket = stream_socket(family)?;
        socket::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
        if at.is_ipv6() {
            socket::setsockopt(&socket, sockopt::Ipv6V6Only, &only_v6)?;
        }
        Ok(socket)
    };
    let socket = create().map_err(|error| (ListenStep::Create, error))?;
    socket::bind(socket.as_raw_fd(), &SockaddrStorage::from(at))
        .map_err(|error| (ListenStep::Bind, error))?;
    listen(&socket).map_err(|error| (ListenStep::Listen, error))?;
    Ok(TcpListener::from(socket))
}

/// Claims the listening socket that the process inherited as descriptor `number`.
fn inherit(address: &Address, number: RawFd) -> Result<ListenerSocket, ListenError> {
    let not_listening = || ListenError::NotListening { address: address.clone() };
    let refused = |error| match error {
        InheritedFdError::NotInherited => ListenError::NotInherited { address: address.clone() },
        InheritedFdError::System(error) => ListenError::failed(address, ListenStep::Inherit, error),
    };
    let inherited = InheritedFd::find(number).map_err(refused)?;
    let Some(name) = inherited.socket_name().copied() else { return Err(not_listening()) };
    let failed = |error: Errno| ListenError::failed(address, ListenStep::Inherit, error);
    let stream = socket::getsockopt(&inherited, sockopt::SockType).map_err(failed)? == SockType::Stream;
    if !stream || !socket::getsockopt(&inherited, sockopt::AcceptConn).map_err(failed)? {
        return Err(not_listening());
    }
    match name.family() {
        Some(AddressFamily::Inet | AddressFamily::Inet6) => {
            Ok(ListenerSocket::Tcp(TcpListener::from(inherited.claim().map_err(refused)?)))
        }
        Some(AddressFamily::Unix) => {
            Ok(ListenerSocket::Unix(UnixListener::from(inherited.claim().map_err(refused)?)))
        }
        _ => Err(not_listening()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fds::tests::{alone, inheritable};
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    use std::io;
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    fn bind(text: &str) -> Result<Listener, ListenError> {
        Listener::bind(&text.parse().unwrap(), &SocketPermissions::default())
    }

    #[test]
    fn unspecified_address_listens_on_ipv4_and_ipv6() {
        let listener = bind("IP:0").unwrap();
        let port = listener.local_address().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
        if listener.local_address().unwrap().is_ipv6() {
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
        }
        let ListenerSocket::Tcp(socket) = listener.socket() else { panic!("not TCP") };
        socket.accept().unwrap();
        let flags = fcntl(socket, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
    }

    #[test]
    fn address_family_restricts_the_listener() {
        let v4 = bind("IPv4:0").unwrap().local_address().unwrap();
        assert_eq!(v4.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        if let Ok(listener) = bind("IPv6:0") {
            let port = listener.local_address().unwrap().port();
            TcpStream::connect((Ipv6Addr::LOCALHOST, port)).unwrap();
            let error = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        }
        let listener = bind("IP:localhost:0").unwrap();
        let named = listener.local_address().unwrap();
        assert_eq!(named.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        assert_eq!(listener.actual_address().to_string(), format!("IP:{named}"));
    }

    #[test]
    fn listener_is_nonblocking_and_occupies_its_port() {
        let listener = bind("IP:127.0.0.1:0").unwrap();
        let ListenerSocket::Tcp(socket) = listener.socket() else { panic!("not TCP") };
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let text = format!("IP:{}", listener.local_address().unwrap());
        let error = bind(&text).unwrap_err();
        assert!(matches!(&error, ListenError::Failed { step: ListenStep::Bind, .. }));
        assert!(error.to_string().starts_with(&format!("{text}: cannot bind: Address already in use")));
        let error = bind("IP:192.0.2.1:0").unwrap_err().to_string();
        assert!(error.starts_with("IP:192.0.2.1:0: cannot bind: "), "{error}");
    }

    #[test]
    fn inherited_listener_is_claimed_once() {
        let _alone = alone();
        let number = inheritable(TcpListener::bind("127.0.0.1:0").unwrap());
        let listener = bind(&format!("FD:{number}")).unwrap();
        let ListenerSocket::Tcp(socket) = listener.socket() else { panic!("not TCP") };
        assert_eq!(socket.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        TcpStream::connect(socket.local_addr().unwrap()).unwrap();
        // The number is free now, or reused for a close-on-exec descriptor of this process.
        let error = bind(&format!("FD:{number}")).unwrap_err();
        assert!(matches!(error, ListenError::NotInherited { .. } | ListenError::NotListening { .. }));
    }

    #[test]
    fn inherited_unix_listener_keeps_its_path() {
        let _alone = alone();
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let number = inheritable(UnixListener::bind(&path).unwrap());
        let listener = bind(&format!("FD:{number}")).unwrap();
        assert_eq!(listener.actual_address().to_string(), format!("UNIX:{}", path.display()));
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(path.exists());
    }

    #[test]
    fn inherited_descriptor_must_be_a_listening_socket() {
        let _alone = alone();
        let ours = TcpListener::bind("127.0.0.1:0").unwrap();
        let error = bind(&format!("FD:{}", ours.as_raw_fd())).unwrap_err();
        assert!(matches!(error, ListenError::NotInherited { .. }), "{error}");
        ours.local_addr().unwrap();

        let (connected, _peer) = UnixStream::pair().unwrap();
        let number = inheritable(connected);
        let error = bind(&format!("FD:{number}")).unwrap_err();
        assert_eq!(error.to_string(), format!("FD:{number}: not a listening stream socket"));

        let number = inheritable(tempfile::tempfile().unwrap());
        let error = bind(&format!("FD:{number}")).unwrap_err();
        assert!(matches!(error, ListenError::NotListening { .. }), "{error}");

        let error = bind("FD:1000000").unwrap_err();
        assert_eq!(error.to_string(), "FD:1000000: no such descriptor was inherited");
    }
}
