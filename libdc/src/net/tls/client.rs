//! TLS on the side of the agent.

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

/// The TLS options of the agent.
#[derive(Clone, Debug, Default)]
pub struct ClientTlsOptions {
    /// The file of trusted CA certificates; by default those of the system.
    pub ca: Option<PathBuf>,
    /// The name that the server's certificate must have; by default the host in its address.
    pub name: Option<TlsName>,
    /// The certificate and key for servers that require a client certificate.
    pub identity: Option<CertificateFiles>,
}

/// The agent's trusted CAs and certificate. Changed files are loaded at the next connection.
pub struct ClientTls {
    config: Reloaded<ClientConfig>,
    name: Option<TlsName>,
}

impl ClientTls {
    /// Loads the files, and the system's CA certificates unless a file of CAs is given.
    ///
    /// # Errors
    /// If a file cannot be read or is invalid, or the key does not match the certificate.
    pub fn load(options: ClientTlsOptions) -> Result<Self, TlsError> {
        let ClientTlsOptions { ca, name, identity } = options;
        let own = identity.iter().flat_map(|identity| [&identity.cert, &identity.key]);
        let files = ca.iter().chain(own).cloned().collect();
        // There are hundreds of them, in as many files, so they are loaded only once.
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

    /// Performs the handshake with the server at the other end of `socket`, which was connected to `address`.
    /// The timeout `within` bounds it; zero means no limit. If the future fails or is dropped, the connection
    /// is closed.
    ///
    /// # Errors
    /// If the server is not acceptable or the timeout has passed. A server that rejects the client's
    /// certificate, or requires one, may report that only with the first read.
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

/// A name that a server's certificate can have: a host name or an IP address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsName(ServerName<'static>);

impl TlsName {
    /// The name of `host`; of the local host if the address has none.
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
        // Certificates omit the dot that ends an absolute name.
        let name = DnsName::try_from(text.trim_end_matches('.').to_owned()).map_err(|_| InvalidTlsName)?;
        Ok(Self(name.into()))
    }
}

/// A text that cannot be a name in a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not a host name or IP address")]
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

/// The system's CA certificates. Unreadable ones are common and are ignored.
fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() { Err(TlsError::NoSystemRoots) } else { Ok(Arc::new(roots)) }
}
