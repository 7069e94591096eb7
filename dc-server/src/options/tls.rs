//! The options of TLS.

use clap::Args;
use dc_cli::UsageError;
use dc_cli::path::path;
use libdc::net::tls::error::TlsError;
use libdc::net::tls::server::ServerTls;
use std::path::PathBuf;

/// TLS on the listeners of TCP.
#[derive(Args, Debug)]
pub(crate) struct ServerTlsOptions {
    /// Certificate of the server, in PEM, with those between it and its CA: TLS on all listeners of TCP.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub(crate) tls_key: Option<PathBuf>,
    /// Require certificates of clients that one of the CAs in this file has signed.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub(crate) tls_client_ca: Option<PathBuf>,
}

impl ServerTlsOptions {
    /// Checks the options against each other.
    pub(crate) fn check(&self) -> Result<(), UsageError> {
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(_), None, _) => Err(UsageError::inconsistent("tls-cert", "needs -tls-key")),
            (None, Some(_), _) => Err(UsageError::inconsistent("tls-key", "needs -tls-cert")),
            (None, None, Some(_)) => {
                Err(UsageError::inconsistent("tls-client-ca", "needs -tls-cert and -tls-key"))
            }
            (None, None, None) | (Some(_), Some(_), _) => Ok(()),
        }
    }

    /// Reads the files; `None` if TLS is off.
    pub(crate) fn load(&self) -> Result<Option<ServerTls>, TlsError> {
        let (Some(cert), Some(key)) = (&self.tls_cert, &self.tls_key) else {
            return Ok(None);
        };
        ServerTls::load(cert.clone(), key.clone(), self.tls_client_ca.clone()).map(Some)
    }
}
