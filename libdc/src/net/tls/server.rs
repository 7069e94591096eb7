//! TLS on the server's side.

use crate::net::socket::Socket;
use crate::net::tls::error::{TlsError, TlsPeer};
use crate::net::tls::pem::{self, CertificateFiles};
use crate::net::tls::reload::Reloaded;
use crate::net::tls::stream::TlsSocket;
use crate::wire::detect::Protocol;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::server::WebPkiClientVerifier;
use rustls::sign::SingleCertAndKey;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;

/// Shortest time between two looks at whether the files have changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The server's certificate, and whose certificates it takes. Files that are renewed are taken up by the next handshake.
pub struct ServerTls {
    config: Reloaded<ServerConfig>,
}

impl ServerTls {
    /// Reads the certificate with those above it, its key, and, where clients must have certificates, those
    /// of the CAs that sign them. A certificate that is not valid now is logged and used.
    ///
    /// # Errors
    /// If a file can't be read or used, or the key is not the certificate's.
    pub fn load(cert: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> Result<Self, TlsError> {
        let files = [&cert, &key].into_iter().chain(&client_ca).cloned().collect();
        let identity = CertificateFiles { cert, key };
        let make = move || config(&identity, client_ca.as_deref());
        Ok(Self { config: Reloaded::new(files, LOOK_INTERVAL, Instant::now().into_std(), make)? })
    }

    /// Makes the handshake on a connection that was just accepted, without a limit of time. Where it is
    /// dropped, or fails, the connection is closed.
    ///
    /// # Errors
    /// What is wrong with the peer. One that does not begin with a handshake is noticed by its first byte.
    pub async fn accept(&self, stream: TcpStream) -> Result<TlsSocket, TlsError> {
        let mut first = [0];
        if stream.peek(&mut first).await.map_err(TlsError::Socket)? == 0 {
            return Err(TlsError::Closed(TlsPeer::Client));
        }
        let opening = Protocol::detect(first[0]);
        if opening != Protocol::Tls {
            return Err(TlsError::Plain(opening));
        }
        let acceptor = TlsAcceptor::from(self.config.current(Instant::now().into_std()));
        let accepted = acceptor.accept(stream).await;
        accepted.map(TlsSocket::new).map_err(|error| TlsError::of_stream(error, TlsPeer::Client))
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ServerTls(…)")
    }
}

/// Makes the handshake with a client within the time given; zero is for ever. A socket on this host stays as it is:
/// there is nobody between. To be called where the connection is served, since a connection of TLS can't be
/// handed to another thread's runtime.
///
/// # Errors
/// What is wrong with the client, or that it took too long.
pub async fn handshake(tls: &ServerTls, socket: Socket, within: Duration) -> Result<Socket, TlsError> {
    let Socket::Tcp(stream) = socket else {
        return Ok(socket);
    };
    let accepting = tls.accept(stream);
    let accepted = if within.is_zero() {
        accepting.await?
    } else {
        timeout(within, accepting).await.map_err(|_| TlsError::Timeout(within))??
    };
    Ok(Socket::Tls(Box::new(accepted)))
}

fn config(identity: &CertificateFiles, client_ca: Option<&Path>) -> Result<ServerConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let certified = identity.read(&provider)?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Protocol)?;
    let builder = match client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = Arc::new(pem::roots(path)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider).build();
            let broken = |_| TlsError::BrokenCertificate { path: path.to_owned() };
            builder.with_client_cert_verifier(verifier.map_err(broken)?)
        }
    };
    Ok(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified))))
}
