//! Where a client connects to. Needs no runtime, so that the blocking client can use it.

use std::fmt;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// The address of an agent or a server: `UNIX:/path`, `IP:host:port`, `IPv4:host:port` or
/// `IPv6:[address]:port`. The word before the first colon is taken in any case.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp {
        /// A name, found anew at every connect, or the address itself, without brackets.
        host: String,
        /// The port.
        port: u16,
        /// The addresses of the name that are used.
        family: Family,
    },
}

/// Which addresses of a host are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Family {
    /// All, in the order that the system gives.
    Any,
    /// Those of IPv4.
    V4,
    /// Those of IPv6.
    V6,
}

impl Family {
    pub(super) const fn takes(self, address: SocketAddr) -> bool {
        match self {
            Self::Any => true,
            Self::V4 => address.is_ipv4(),
            Self::V6 => address.is_ipv6(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Any => "IP",
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The socket addresses of a host, found by the system. This blocks for as long as that takes, but a host
/// given as an address never does.
pub(super) fn resolve(host: &str, port: u16, family: Family) -> std::io::Result<Vec<SocketAddr>> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    Ok((host, port).to_socket_addrs()?.filter(|address| family.takes(*address)).collect())
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let (kind, place) = text.split_once(':').ok_or(TargetError::Kind)?;
        let family = match kind.to_ascii_lowercase().as_str() {
            "unix" if place.is_empty() => return Err(TargetError::Path),
            "unix" => return Ok(Self::Unix(PathBuf::from(place))),
            "ip" => Family::Any,
            "ipv4" => Family::V4,
            "ipv6" => Family::V6,
            _ => return Err(TargetError::Kind),
        };
        let (host, port) = place.rsplit_once(':').ok_or(TargetError::Host)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(TargetError::Port)?;
        let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let literal = host.parse::<IpAddr>().ok();
        let is_whole =
            if bare.is_some() { matches!(literal, Some(IpAddr::V6(_))) } else { !host.contains(':') };
        if host.is_empty() || !is_whole || literal.is_some_and(|ip| !family.takes(SocketAddr::new(ip, port)))
        {
            return Err(TargetError::Host);
        }
        Ok(Self::Tcp { host: host.to_owned(), port, family })
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "UNIX:{}", path.display()),
            Self::Tcp { host, port, family } if host.contains(':') => {
                write!(f, "{}:[{host}]:{port}", family.name())
            }
            Self::Tcp { host, port, family } => write!(f, "{}:{host}:{port}", family.name()),
        }
    }
}

/// Why a text is no address to connect to.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum TargetError {
    /// It begins with none of the known words.
    #[error("an address is UNIX:/path or IP:host:port")]
    Kind,
    /// No path behind `UNIX:`.
    #[error("there is no path behind UNIX:")]
    Path,
    /// No host, not one of the family that was named, or an IPv6 address without brackets.
    #[error("there is no such host to connect to; an IPv6 address stands in [brackets]")]
    Host,
    /// The port is no number from 1 to 65535.
    #[error("a port is a number from 1 to 65535")]
    Port,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for text in ["UNIX:/tmp/scache", "UNIX:rel:a", "IP:host:9001", "IPv4:10.0.0.1:1", "IPv6:[::1]:65535"]
        {
            assert_eq!(text.parse::<Target>().unwrap().to_string(), text);
        }
        assert_eq!("unix:/a".parse(), Ok(Target::Unix("/a".into())));
        let v6 = Target::Tcp { host: "::1".into(), port: 9, family: Family::Any };
        assert_eq!("ip:[::1]:9".parse(), Ok(v6));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for (text, error) in [
            ("", TargetError::Kind),
            ("/tmp/scache", TargetError::Kind),
            ("FD:3", TargetError::Kind),
            ("UNIX:", TargetError::Path),
            ("IP:9001", TargetError::Host),
            ("IP::9001", TargetError::Host),
            ("IP:::1:9001", TargetError::Host),
            ("IP:[host]:9001", TargetError::Host),
            ("IPv4:[::1]:9001", TargetError::Host),
            ("IPv6:127.0.0.1:9001", TargetError::Host),
            ("IP:host:0", TargetError::Port),
            ("IP:host:65536", TargetError::Port),
            ("IP:host:", TargetError::Port),
        ] {
            assert_eq!(text.parse::<Target>(), Err(error), "{text}");
        }
    }
}
