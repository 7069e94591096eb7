//! TLS on the agent's side.

use crate::net::address::{Address, Host};
use crate::net::socket::Socket;
use crate::net::tls::error::{TlsError, TlsPeer};
use crate::net::tls::pem;
use crate::net::tls::reload::Reloaded;
use crate::net::tls::stream::TlsSocket;
use rustls::crypto::ring;
use rustls::pki_types::{DnsName, IpAddr, ServerName};
use rustls::sign::SingleCertAndKey;
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

pub use crate::net::tls::pem::CertificateFiles;

/// How the agent is to speak TLS with its server.
#[derive(Clone, Debug, Default)]
pub struct ClientTlsOptions {
    /// The certificates of the CAs to trust; without it, those of the system.
    pub ca: Option<PathBuf>,
    /// The name that the server's certificate must be for, instead of that in its address.
    pub name: Option<TlsName>,
    /// What to present to a server that asks for a certificate.
    pub identity: Option<CertificateFiles>,
}

/// Whom the agent trusts, and its certificate. Files that are renewed are taken up by the next connection.
pub struct ClientTls {
    config: Reloaded<ClientConfig>,
    name: Option<TlsName>,
}

impl ClientTls {
    /// Reads the files, and the system's certificates of CAs if no file of them is named.
    ///
    /// # Errors
    /// If a file can't be read or used, or the key is not the certificate's.
    pub fn load(options: ClientTlsOptions) -> Result<Self, TlsError> {
        let ClientTlsOptions { ca, name, identity } = options;
        let own = identity.iter().flat_map(|identity| [&identity.cert, &identity.key]);
        let files = ca.iter().chain(own).cloned().collect();
        // There are hundreds of them, in as many files: they are read once.
        let system = if ca.is_none() { Some(system_roots()?) } else { None };
        let make = move || {
            let roots = match (&ca, &system) {
                (Some(path), _) => Arc::new(pem::roots(path)?),
                (None, Some(system)) => Arc::clone(system),
                (None, None) => return Err(TlsError::NoSystemRoots),
            };
            config(roots, identity.as_ref())
        };
        Ok(Self { config: Reloaded::new(files, Duration::ZERO, Instant::now().into_std(), make)?, name })
    }

    /// Makes the handshake with the server that `socket` was connected to by its `address`, within the time
    /// given; zero is for ever. Where it is dropped, or fails, the connection is closed.
    ///
    /// # Errors
    /// What is wrong with the server, or that it took too long. A server that wants another certificate, or
    /// one at all, may say so only with the first read.
    pub async fn connect(
        &self,
        socket: Socket,
        address: &Address,
        within: Duration,
    ) -> Result<Socket, TlsError> {
        let (Socket::Tcp(stream), Address::Tcp(tcp)) = (socket, address) else {
            return Err(TlsError::NotTcp);
        };
        let name = match &self.name {
            Some(name) => name.clone(),
            None => TlsName::of_host(tcp.host())?,
        };
        let connector = TlsConnector::from(self.config.current(Instant::now().into_std()));
        let connecting = connector.connect(name.0, stream);
        let connected = if within.is_zero() {
            connecting.await
        } else {
            timeout(within, connecting).await.map_err(|_| TlsError::Timeout(within))?
        };
        let stream = connected.map_err(|error| TlsError::of_stream(error, TlsPeer::Server))?;
        Ok(Socket::Tls(Box::new(TlsSocket::new(stream))))
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The name of a server as its certificate has it: a host's name or address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(ServerName<'static>);

impl TlsName {
    /// The name of `host`; that of this host where an address has none.
    fn of_host(host: Option<&Host>) -> Result<Self, TlsError> {
        let name = match host {
            None => return Ok(Self(IpAddr::from(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST)).into())),
            Some(Host::V4(ip)) => IpAddr::from(std::net::IpAddr::V4(*ip)).into(),
            Some(Host::V6(ip)) => IpAddr::from(std::net::IpAddr::V6(*ip)).into(),
            Some(Host::Name(name)) => return name.as_str().parse().map_err(|_| TlsError::NoName),
        };
        Ok(Self(name))
    }
}

impl FromStr for TlsName {
    type Err = InvalidTlsName;

    fn from_str(text: &str) -> Result<Self, InvalidTlsName> {
        if let Ok(ip) = text.trim_matches(['[', ']']).parse::<std::net::IpAddr>() {
            return Ok(Self(IpAddr::from(ip).into()));
        }
        // The dot that ends an absolute name is in no certificate.
        let name = DnsName::try_from(text.trim_end_matches('.').to_owned()).map_err(|_| InvalidTlsName)?;
        Ok(Self(name.into()))
    }
}

/// What can stand in no certificate as the name of a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no name or address of a host")]
pub struct InvalidTlsName;

fn config(roots: Arc<RootCertStore>, identity: Option<&CertificateFiles>) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let certified = identity.map(|identity| identity.read(&provider)).transpose()?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?
        .with_root_certificates(roots);
    Ok(match certified {
        None => builder.with_no_client_auth(),
        Some(certified) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(certified))),
    })
}

/// The certificates of CAs that the system has. Some that can't be read are nothing unusual.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(Arc::new(roots)) }
}
