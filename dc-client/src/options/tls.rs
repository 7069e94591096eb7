//! The options of TLS.

use clap::Args;
use dc_cli::address::Address;
use dc_cli::path::path;
use dc_cli::{UsageError, ValueError};
use libdc::net::tls::client::{CertificateFiles, ClientTls, ClientTlsOptions, TlsName};
use libdc::net::tls::error::TlsError;
use std::path::PathBuf;

/// TLS with the server.
#[derive(Args, Debug)]
pub(crate) struct AgentTlsOptions {
    /// Speak TLS with the server.
    #[arg(long)]
    pub(crate) tls: bool,
    /// Certificates of the CAs to trust, in PEM, instead of those of the system.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub(crate) tls_ca: Option<PathBuf>,
    /// Name that the server's certificate must be for, instead of the host in -server.
    #[arg(long, value_name = "NAME", value_parser = tls_name)]
    pub(crate) tls_name: Option<TlsName>,
    /// Certificate of the agent, in PEM, for a server that requires one.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Private key of that certificate, in PEM.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub(crate) tls_key: Option<PathBuf>,
}

impl AgentTlsOptions {
    /// Checks the options against each other and the address of the server.
    pub(crate) fn check(&self, server: &Address) -> Result<(), UsageError> {
        if !self.tls {
            let others = [
                ("tls-ca", self.tls_ca.is_some()),
                ("tls-name", self.tls_name.is_some()),
                ("tls-cert", self.tls_cert.is_some()),
                ("tls-key", self.tls_key.is_some()),
            ];
            return match others.iter().find(|(_, given)| *given) {
                Some((option, _)) => Err(UsageError::inconsistent(option, "needs -tls")),
                None => Ok(()),
            };
        }
        if !matches!(server, Address::Tcp(_)) {
            return Err(UsageError::inconsistent("tls", "requires a TCP address in -server"));
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Err(UsageError::inconsistent("tls-cert", "needs -tls-key")),
            (None, Some(_)) => Err(UsageError::inconsistent("tls-key", "needs -tls-cert")),
            (None, None) | (Some(_), Some(_)) => Ok(()),
        }
    }

    /// Reads the files; `None` if TLS is off.
    pub(crate) fn load(&self) -> Result<Option<ClientTls>, TlsError> {
        if !self.tls {
            return Ok(None);
        }
        let identity =
            self.tls_cert.clone().zip(self.tls_key.clone()).map(|(cert, key)| CertificateFiles { cert, key });
        let options = ClientTlsOptions { ca: self.tls_ca.clone(), name: self.tls_name.clone(), identity };
        ClientTls::load(options).map(Some)
    }
}

fn tls_name(text: &str) -> Result<TlsName, ValueError> {
    text.parse().map_err(|_| ValueError::new("is no name of a host", "the name or address of a host"))
}
