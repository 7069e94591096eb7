//! Addresses in the notation of users, and their meaning for listening and connecting.
//!
//! | written | listening | connecting |
//! |---|---|---|
//! | `IP:port` | all interfaces: IPv4 and IPv6 if the system supports it, else IPv4 | this host: 127.0.0.1,
//! then `[::1]` |
//! | `IP:host:port` | the interface with that address | that host, in any address family |
//! | `IPv4:port`, `IPv4:host:port` | the same, IPv4 only | the same, IPv4 only |
//! | `IPv6:port`, `IPv6:[addr]:port` | the same, IPv6 only | the same, IPv6 only |
//! | `UNIX:/path` | a Unix socket created at that path | the Unix socket at that path |
//! | `FD:n` | the listening socket inherited as descriptor n | not possible |
//!
//! `host` is a name, an IPv4 address or an IPv6 address in brackets. The scheme may be written in any
//! case. Port 0 lets the system choose one to listen on.
//!
//! The printed form parses to the same address. A relative path of a Unix socket is made absolute when it is
//! parsed, because a daemon changes its directory. A path that no socket can have is rejected by the parser,
//! not when it is used. A name is resolved at each use and never cached. Nothing here panics.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::os::fd::RawFd;
use std::os::unix::net::SocketAddr as UnixSocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The maximum length of a host name in characters.
const NAME_CHARS_MAX: usize = 253;

/// An address to listen on or to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Address {
    /// `IP:`, `IPv4:` and `IPv6:`: a TCP address.
    Tcp(TcpAddress),
    /// `UNIX:`: a Unix stream socket.
    Unix(SocketPath),
    /// `FD:`: a descriptor inherited from the parent process.
    Descriptor(RawFd),
}

impl Address {
    /// The host to resolve; `None` for an address without one.
    #[must_use]
    pub fn host(&self) -> Option<&Host> {
        if let Self::Tcp(tcp) = self { tcp.host() } else { None }
    }

    /// The port; `None` if it is not a TCP address.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        if let Self::Tcp(tcp) = self { Some(tcp.port()) } else { None }
    }

    /// The path of a Unix socket; `None` for other addresses.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        if let Self::Unix(path) = self { Some(path.as_path()) } else { None }
    }

    /// The addresses to connect to, in the order to try them; see [`TcpAddress::resolve`].
    ///
    /// # Errors
    /// Errors of the resolver; [`io::ErrorKind::InvalidInput`] if the address is not a TCP address.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        match self {
            Self::Tcp(tcp) => tcp.resolve(),
            Self::Unix(_) | Self::Descriptor(_) => {
                Err(io::Error::new(io::ErrorKind::InvalidInput, "not a TCP address"))
            }
        }
    }
}

impl From<TcpAddress> for Address {
    fn from(tcp: TcpAddress) -> Self {
        Self::Tcp(tcp)
    }
}

impl From<SocketPath> for Address {
    fn from(path: SocketPath) -> Self {
        Self::Unix(path)
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = text.split_once(':').ok_or(AddressError::NoScheme)?;
        let is = |name: &str| scheme.eq_ignore_ascii_case(name);
        if is("IP") {
            TcpAddress::parse(Family::Any, rest).map(Self::Tcp)
        } else if is("IPv4") {
            TcpAddress::parse(Family::V4, rest).map(Self::Tcp)
        } else if is("IPv6") {
            TcpAddress::parse(Family::V6, rest).map(Self::Tcp)
        } else if is("UNIX") {
            SocketPath::new(Path::new(rest)).map(Self::Unix)
        } else if is("FD") {
            let digits = !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
            let number = if digits { rest.parse().ok() } else { None };
            number.map(Self::Descriptor).ok_or(AddressError::Descriptor)
        } else {
            Err(AddressError::Scheme)
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => tcp.fmt(f),
            Self::Unix(path) => write!(f, "UNIX:{}", path.as_path().display()),
            Self::Descriptor(number) => write!(f, "FD:{number}"),
        }
    }
}

/// A TCP address: a port, and a host unless it stands for all interfaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TcpAddress {
    family: Family,
    host: Option<Host>,
    port: u16,
}

impl TcpAddress {
    /// The address with this port and host; `None` stands for all interfaces.
    ///
    /// # Errors
    /// [`AddressError::Family`] if the host is an address of the other family.
    pub fn new(family: Family, host: Option<Host>, port: u16) -> Result<Self, AddressError> {
        let fits = match host {
            Some(Host::V4(_)) => family != Family::V6,
            Some(Host::V6(_)) => family != Family::V4,
            Some(Host::Name(_)) | None => true,
        };
        if fits { Ok(Self { family, host, port }) } else { Err(AddressError::Family) }
    }

    /// The IP families that may be used.
    #[must_use]
    pub const fn family(&self) -> Family {
        self.family
    }

    /// The host. `None` stands for all interfaces when listening, and for this host when connecting.
    #[must_use]
    pub const fn host(&self) -> Option<&Host> {
        self.host.as_ref()
    }

    /// The port; 0 lets the system choose one to listen on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The addresses to connect to, in the order to try them. A name is resolved now, which blocks: an
    /// asynchronous caller resolves with its runtime instead, and filters by [`Family::admits`].
    ///
    /// # Errors
    /// Errors of the resolver; [`io::ErrorKind::NotFound`] if the name has no address of the family.
    pub fn resolve(&self) -> io::Result<Vec<SocketAddr>> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let Some(Host::Name(name)) = &self.host else { return Ok(Vec::new()) };
        let found: Vec<SocketAddr> =
            (name.as_str(), self.port).to_socket_addrs()?.filter(|found| self.family.admits(found)).collect();
        if found.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "the name has no address of this family"));
        }
        Ok(found)
    }

    /// The addresses to connect to if no name has to be resolved, in the order to try them; `None` for a
    /// name.
    #[must_use]
    pub fn known(&self) -> Option<Vec<SocketAddr>> {
        let hosts = match &self.host {
            Some(Host::Name(_)) => return None,
            Some(Host::V4(ip)) => vec![IpAddr::V4(*ip)],
            Some(Host::V6(ip)) => vec![IpAddr::V6(*ip)],
            None => vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)],
        };
        let all = hosts.into_iter().map(|ip| SocketAddr::new(ip, self.port));
        Some(all.filter(|known| self.family.admits(known)).collect())
    }

    /// Parses the part after the scheme: `port`, `host:port` or `[addr]:port`.
    fn parse(family: Family, text: &str) -> Result<Self, AddressError> {
        let (host, port) = match text.rsplit_once(':') {
            Some(_) if text.ends_with(']') => return Err(AddressError::Port),
            None => (None, text),
            Some((host, port)) => (Some(host.parse()?), port),
        };
        let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
        let port = if digits { port.parse().ok() } else { None };
        Self::new(family, host, port.ok_or(AddressError::Port)?)
    }
}

impl From<SocketAddr> for TcpAddress {
    fn from(at: SocketAddr) -> Self {
        let host = match at.ip() {
            IpAddr::V4(ip) => Host::V4(ip),
            IpAddr::V6(ip) => Host::V6(ip),
        };
        Self { family: Family::Any, host: Some(host), port: at.port() }
    }
}

impl fmt::Display for TcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = match self.family {
            Family::Any => "IP",
            Family::V4 => "IPv4",
            Family::V6 => "IPv6",
        };
        match &self.host {
            None => write!(f, "{scheme}:{}", self.port),
            Some(host) => write!(f, "{scheme}:{host}:{}", self.port),
        }
    }
}

/// The IP families that an address stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// `IP:`, both IPv4 and IPv6.
    Any,
    /// `IPv4:`, only IPv4 addresses.
    V4,
    /// `IPv6:`, only IPv6 addresses.
    V6,
}

impl Family {
    /// Whether `address` belongs to the family.
    #[must_use]
    pub const fn admits(self, address: &SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }
}

/// A host as it was given.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// A name that is resolved at each use.
    Name(HostName),
    /// An IPv4 address in dotted form.
    V4(Ipv4Addr),
    /// An IPv6 address, written in brackets.
    V6(Ipv6Addr),
}

impl FromStr for Host {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(inner) = text.strip_prefix('[') {
            let address = inner.strip_suffix(']').and_then(|inner| inner.parse().ok());
            return address.map(Self::V6).ok_or(AddressError::Ipv6);
        }
        if text.contains(':') {
            return Err(AddressError::Brackets);
        }
        match text.parse() {
            Ok(address) => Ok(Self::V4(address)),
            Err(_) => HostName::new(text).map(Self::Name),
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.as_str().fmt(f),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => write!(f, "[{address}]"),
        }
    }
}

/// A host name: 1 to 253 letters, digits, `-`, `_` and `.`. The part after the last dot must not consist of
/// digits only, because that is a mistyped IPv4 address.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HostName(String);

impl HostName {
    /// Checks and stores the name.
    ///
    /// # Errors
    /// [`AddressError::Host`] if it is not a valid host name.
    pub fn new(text: &str) -> Result<Self, AddressError> {
        let characters =
            text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'));
        let labels = text.strip_suffix('.').unwrap_or(text);
        let last = labels.rsplit('.').next().unwrap_or_default();
        let number = last.bytes().all(|byte| byte.is_ascii_digit());
        if !characters || number || labels.split('.').any(str::is_empty) || text.len() > NAME_CHARS_MAX {
            return Err(AddressError::Host);
        }
        Ok(Self(text.to_owned()))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The path of a Unix socket: absolute, and within the maximum length of such a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SocketPath(PathBuf);

impl SocketPath {
    /// The path, made absolute against the current directory.
    ///
    /// # Errors
    /// [`AddressError`] if the path is empty, invalid for a socket, or relative to an unknown current
    /// directory.
    pub fn new(path: &Path) -> Result<Self, AddressError> {
        if path.as_os_str().is_empty() {
            return Err(AddressError::NoPath);
        }
        if path.as_os_str().as_encoded_bytes().contains(&0) {
            return Err(AddressError::PathNul);
        }
        let path = std::path::absolute(path).map_err(|error| AddressError::Directory(error.kind()))?;
        let bytes = path.as_os_str().len();
        match UnixSocketAddr::from_pathname(&path) {
            Ok(_) => Ok(Self(path)),
            Err(_) => Err(AddressError::PathLength { bytes }),
        }
    }

    /// The absolute path of the socket.
    #[must_use]
    pub fn as_path(&self) -> &Path {
        &self.0
    }
}

/// Why a text is not an address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// The text contains no colon.
    #[error("no scheme, such as IP: or UNIX:")]
    NoScheme,
    /// The part before the colon is not a known scheme.
    #[error("unknown scheme; an address begins with IP:, IPv4:, IPv6:, UNIX: or FD:")]
    Scheme,
    /// The port is missing or out of range.
    #[error("the port is not a number from 0 to 65535")]
    Port,
    /// The host is empty or contains characters that are invalid in a name.
    #[error("the host is neither a name nor an address")]
    Host,
    /// An IPv6 address is not in brackets.
    #[error("an IPv6 address must be in brackets: [addr]:port")]
    Brackets,
    /// The brackets do not contain an IPv6 address, or one of them is missing.
    #[error("the text in brackets is not an IPv6 address")]
    Ipv6,
    /// The scheme is `IPv4:` and the address is IPv6, or the reverse.
    #[error("the address family does not match the scheme")]
    Family,
    /// The path after `UNIX:` is empty.
    #[error("the socket path is missing")]
    NoPath,
    /// The path contains a zero byte.
    #[error("the path contains a zero byte")]
    PathNul,
    /// The path exceeds the maximum length of a Unix socket's address.
    #[error("the path has {bytes} bytes, too many for a socket path")]
    PathLength {
        /// The length of the absolute path in bytes.
        bytes: usize,
    },
    /// The path is relative, and the current directory cannot be determined.
    #[error("the path is relative and the current directory is unknown: {0}")]
    Directory(io::ErrorKind),
    /// The text after `FD:` is not a descriptor number.
    #[error("the descriptor is not a number")]
    Descriptor,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Address, AddressError> {
        text.parse()
    }

    #[test]
    fn address_forms_parse_and_print() {
        for text in [
            "IP:9001",
            "IP:0",
            "IP:127.0.0.1:9001",
            "IP:cacheserver.localnet:9001",
            "IP:cache-1.example.:65535",
            "IP:[::1]:9001",
            "IPv4:9001",
            "IPv4:10.0.0.1:1",
            "IPv4:localhost:1",
            "IPv6:9001",
            "IPv6:[fd00::2]:9001",
            "IPv6:localhost:1",
            "UNIX:/tmp/scache",
            "UNIX:/tmp/with:colon and space",
            "FD:0",
            "FD:17",
        ] {
            assert_eq!(parse(text).map(|address| address.to_string()), Ok(text.to_owned()));
        }
        assert_eq!(parse("ip:9001"), parse("IP:9001"));
        assert_eq!(parse("ipV6:[0:0::1]:1"), parse("IPv6:[::1]:1"));
        assert_eq!(parse("unix:/a//b/./c"), parse("UNIX:/a/b/c"));
        assert_eq!(parse("fd:03"), Ok(Address::Descriptor(3)));
    }

    #[test]
    fn invalid_address_error_names_cause() {
        for (text, error) in [
            ("", AddressError::NoScheme),
            ("9001", AddressError::NoScheme),
            ("/tmp/scache", AddressError::NoScheme),
            ("localhost:9001", AddressError::Scheme),
            ("IP6:9001", AddressError::Scheme),
            ("IP:", AddressError::Port),
            ("IP:host", AddressError::Port),
            ("IP:host:", AddressError::Port),
            ("IP:host:65536", AddressError::Port),
            ("IP:host:+1", AddressError::Port),
            ("IP:-1", AddressError::Port),
            ("IP::9001", AddressError::Host),
            ("IP:*:9001", AddressError::Host),
            ("IP:a..b:9001", AddressError::Host),
            ("IP:300.1.1.1:9001", AddressError::Host),
            ("IP: host:9001", AddressError::Host),
            ("IP:::1:9001", AddressError::Brackets),
            ("IP:[::1]", AddressError::Port),
            ("IP:[::1:9001", AddressError::Ipv6),
            ("IP:[host]:9001", AddressError::Ipv6),
            ("IP:::1]:9001", AddressError::Brackets),
            ("IPv4:[::1]:9001", AddressError::Family),
            ("IPv6:127.0.0.1:9001", AddressError::Family),
            ("UNIX:", AddressError::NoPath),
            ("UNIX:/a\0b", AddressError::PathNul),
            ("FD:", AddressError::Descriptor),
            ("FD:-1", AddressError::Descriptor),
            ("FD:x", AddressError::Descriptor),
            ("FD:99999999999", AddressError::Descriptor),
        ] {
            assert_eq!(parse(text), Err(error), "{text:?}");
        }
        let long = format!("IP:{}:1", "a".repeat(254));
        assert_eq!(parse(&long), Err(AddressError::Host));
    }

    #[test]
    fn socket_path_is_made_absolute_and_bounded() {
        let here = std::env::current_dir().unwrap();
        let relative = parse("UNIX:run/scache").unwrap();
        assert_eq!(relative.path(), Some(here.join("run/scache").as_path()));
        let longest = (1..200)
            .map(|n| format!("UNIX:/{}", "x".repeat(n)))
            .take_while(|text| parse(text).is_ok())
            .last()
            .unwrap();
        let path = longest.strip_prefix("UNIX:").unwrap();
        assert!(UnixSocketAddr::from_pathname(path).is_ok());
        let bytes = path.len() + 1;
        assert_eq!(parse(&format!("{longest}x")), Err(AddressError::PathLength { bytes }));
    }

    #[test]
    fn address_without_host_resolves_to_loopback() {
        let resolved = |text: &str| parse(text).unwrap().resolve().unwrap();
        assert_eq!(resolved("IP:7"), ["127.0.0.1:7".parse().unwrap(), "[::1]:7".parse().unwrap()]);
        assert_eq!(resolved("IPv4:7"), ["127.0.0.1:7".parse().unwrap()]);
        assert_eq!(resolved("IPv6:7"), ["[::1]:7".parse().unwrap()]);
        assert_eq!(resolved("IP:10.1.2.3:7"), ["10.1.2.3:7".parse().unwrap()]);
        assert_eq!(resolved("IP:[fd00::2]:7"), ["[fd00::2]:7".parse().unwrap()]);
        assert!(resolved("IPv4:localhost:7").iter().all(SocketAddr::is_ipv4));
        assert_eq!(parse("FD:3").unwrap().resolve().unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    prop_compose! {
        fn name()(labels in prop::collection::vec("[a-zA-Z0-9_-]{1,12}", 0..4), last in "[a-z][a-z0-9-]{0,8}")
            -> HostName
        {
            let labels: String = labels.into_iter().map(|label| label + ".").collect();
            HostName::new(&(labels + &last)).unwrap()
        }
    }

    fn host() -> impl Strategy<Value = Host> {
        prop_oneof![
            name().prop_map(Host::Name),
            any::<u32>().prop_map(|bits| Host::V4(bits.into())),
            any::<u128>().prop_map(|bits| Host::V6(bits.into())),
        ]
    }

    fn address() -> impl Strategy<Value = Address> {
        let family = prop_oneof![Just(Family::Any), Just(Family::V4), Just(Family::V6)];
        let tcp = (family, prop::option::of(host()), any::<u16>())
            .prop_filter_map("host of the other family", |(family, host, port)| {
                TcpAddress::new(family, host, port).ok().map(Address::Tcp)
            });
        let path = "(/[a-zA-Z0-9:.@ \u{e9}-]{1,8}){1,8}"
            .prop_map(|path| Address::Unix(SocketPath::new(Path::new(&path)).unwrap()));
        prop_oneof![3 => tcp, 2 => path, 1 => (0..RawFd::MAX).prop_map(Address::Descriptor)]
    }

    proptest! {
        #[test]
        fn printed_address_round_trips(address in address()) {
            prop_assert_eq!(parse(&address.to_string()), Ok(address));
        }

        #[test]
        fn arbitrary_text_never_panics(text in "(IP|ip|IPv4|IPv6|UNIX|FD)?:?\\PC{0,40}") {
            if let Ok(address) = parse(&text) {
                prop_assert_eq!(parse(&address.to_string()), Ok(address));
            }
        }
    }
}
