//! TLS on the side of the server.

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

/// The minimum time between two checks for changed files.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// The server's certificate, and the CAs of client certificates. Changed files are loaded at the next
/// handshake.
pub struct ServerTls {
    config: Reloaded<ServerConfig>,
}

impl ServerTls {
    /// Loads the certificate chain, its key and, if clients must present certificates, the CAs that sign
    /// those. A certificate that is not currently valid is logged and used.
    ///
    /// # Errors
    /// If a file cannot be read or is invalid, or the key does not match the certificate.
    pub fn load(cert: PathBuf, key: PathBuf, client_ca: Option<PathBuf>) -> Result<Self, TlsError> {
        let files = [&cert, &key].into_iter().chain(&client_ca).cloned().collect();
        let identity = CertificateFiles { cert, key };
        let make = move || config(&identity, client_ca.as_deref());
        Ok(Self { config: Reloaded::new(files, LOOK_INTERVAL, Instant::now().into_std(), make)? })
    }

    /// Performs the handshake on an accepted connection, without a timeout. If the future fails or is
    /// dropped, the connection is closed.
    ///
    /// # Errors
    /// If the client is not acceptable. A client that does not start with a TLS handshake is detected by its
    /// first byte.
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

/// Performs the handshake with a client within a timeout; zero means no limit. A Unix socket stays as it is,
/// since no network lies between. Must be called on the thread that serves the connection, because a TLS
/// connection cannot move to another thread's runtime.
///
/// # Errors
/// If the client is not acceptable or the timeout has passed.
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
