//! TLS errors, worded for operators.
//!
//! rustls describes errors in terms of the protocol. Here they are translated to the most likely
//! misconfiguration. Messages contain no data from a peer except the names in its certificate, escaped and
//! truncated.

use crate::wire::detect::Protocol;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, PeerIncompatible};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// The maximum number of names of a certificate, and of characters of each, in a message.
const NAMES_MAX: usize = 4;
const NAME_CHARS_MAX: usize = 80;
const DAY: u64 = 86_400;

/// Why TLS cannot be used, or a handshake failed.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path is not a regular file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path of the file.
        path: PathBuf,
    },
    /// A file exceeds the maximum size of certificates and keys.
    #[error("{} is too large for certificates or a key", path.display())]
    TooLarge {
        /// The path of the file.
        path: PathBuf,
    },
    /// A file contains malformed PEM.
    #[error("{} is not valid PEM", path.display())]
    Pem {
        /// The path of the file.
        path: PathBuf,
    },
    /// A certificate file contains no certificate.
    #[error("no certificate in {} (expected PEM)", path.display())]
    NoCertificate {
        /// The path of the file.
        path: PathBuf,
    },
    /// A certificate cannot be decoded.
    #[error("malformed certificate in {}", path.display())]
    BrokenCertificate {
        /// The path of the file.
        path: PathBuf,
    },
    /// A key file contains no private key.
    #[error("no private key in {} (expected PEM)", path.display())]
    NoKey {
        /// The path of the file.
        path: PathBuf,
    },
    /// A private key is encrypted with a passphrase.
    #[error("the private key in {} is encrypted; passphrases are not supported", path.display())]
    EncryptedKey {
        /// The path of the file.
        path: PathBuf,
    },
    /// A private key cannot be used.
    #[error("the private key in {} is malformed or of an unsupported type", path.display())]
    BrokenKey {
        /// The path of the file.
        path: PathBuf,
    },
    /// The private key does not belong to the certificate.
    #[error("the private key in {} does not match the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The path of the key file.
        key: PathBuf,
        /// The path of the certificate file.
        cert: PathBuf,
    },
    /// The system has no CA certificates.
    #[error("the system has no CA certificates; specify a file with -tls-ca")]
    NoSystemRoots,
    /// The server's address is not a TCP address.
    #[error("TLS requires a TCP address of the server")]
    NotTcp,
    /// The host of the server's address cannot be a name in a certificate.
    #[error("the host of the server's address cannot be in a certificate; specify a name with -tls-name")]
    NoName,
    /// The client did not start with a TLS handshake.
    #[error("plain-text connection on a TLS listener: it began with {0}")]
    Plain(Protocol),
    /// The peer answered the handshake with something other than TLS.
    #[error("the {0} does not speak TLS; is this its TLS port?")]
    NotTls(TlsPeer),
    /// The peer supports no common version of TLS.
    #[error("the {0} supports neither TLS 1.2 nor a later version")]
    OldVersion(TlsPeer),
    /// The peer lacks a required algorithm or extension.
    #[error("no TLS parameters in common with the {0}: {1:?}")]
    Incompatible(TlsPeer, PeerIncompatible),
    /// The peer's certificate was rejected.
    #[error("the certificate of the {0} {1}")]
    Certificate(TlsPeer, CertificateError),
    /// The client presented no certificate, but one is required.
    #[error("the client presented no certificate, and -tls-client-ca requires one")]
    ClientCertificateMissing,
    /// The server requires a client certificate, but we have none.
    #[error("the server requires a client certificate; set -tls-cert and -tls-key")]
    ClientCertificateRequired,
    /// The peer rejected our certificate.
    #[error("the {0} does not trust our certificate ({1:?})")]
    Distrusted(TlsPeer, AlertDescription),
    /// The peer aborted with an alert of another kind.
    #[error("the {0} aborted TLS ({1:?})")]
    Alert(TlsPeer, AlertDescription),
    /// The timeout of the handshake has passed.
    #[error("TLS handshake not completed within {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The peer closed the connection during the handshake.
    #[error("the {0} closed the connection during the TLS handshake")]
    Closed(TlsPeer),
    /// The connection failed with an error of the system.
    #[error(transparent)]
    Socket(io::Error),
    /// Any other error of rustls.
    #[error("TLS failed: {0}")]
    Protocol(rustls::Error),
}

impl TlsError {
    /// Translates an error of a TLS stream with `peer`.
    pub(super) fn of_stream(error: io::Error, peer: TlsPeer) -> Self {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(inner) => Self::of_protocol(inner.clone(), peer),
            None if error.kind() == io::ErrorKind::UnexpectedEof => Self::Closed(peer),
            None => Self::Socket(error),
        }
    }

    pub(super) fn of_protocol(error: rustls::Error, peer: TlsPeer) -> Self {
        use PeerIncompatible as P;
        match error {
            rustls::Error::InvalidCertificate(fault) => Self::Certificate(peer, fault.into()),
            rustls::Error::NoCertificatesPresented if peer == TlsPeer::Client => Self::ClientCertificateMissing,
            rustls::Error::InvalidMessage(_) => Self::NotTls(peer),
            rustls::Error::PeerIncompatible(
                P::Tls12NotOffered
                | P::Tls12NotOfferedOrEnabled
                | P::ServerDoesNotSupportTls12Or13
                | P::ServerTlsVersionIsDisabledByOurConfig
                | P::SupportedVersionsExtensionRequired
                // An extension of TLS 1.2, which rustls checks before the version.
                | P::SignatureAlgorithmsExtensionRequired,
            ) => Self::OldVersion(peer),
            rustls::Error::PeerIncompatible(lack) => Self::Incompatible(peer, lack),
            rustls::Error::AlertReceived(alert) => Self::of_alert(alert, peer),
            other => Self::Protocol(other),
        }
    }

    fn of_alert(alert: AlertDescription, peer: TlsPeer) -> Self {
        use AlertDescription as A;
        match alert {
            A::ProtocolVersion => Self::OldVersion(peer),
            A::CertificateRequired if peer == TlsPeer::Server => Self::ClientCertificateRequired,
            A::UnknownCA
            | A::BadCertificate
            | A::UnsupportedCertificate
            | A::CertificateRevoked
            | A::CertificateExpired
            | A::CertificateUnknown
            // The signature was not made by the CA that the certificate names.
            | A::DecryptError => Self::Distrusted(peer, alert),
            _ => Self::Alert(peer, alert),
        }
    }
}

impl From<TlsError> for io::Error {
    fn from(error: TlsError) -> Self {
        match error {
            TlsError::Socket(error) => error,
            TlsError::Timeout(_) => Self::new(io::ErrorKind::TimedOut, error),
            TlsError::Closed(_) => Self::new(io::ErrorKind::UnexpectedEof, error),
            _ => Self::new(io::ErrorKind::InvalidData, error),
        }
    }
}

/// The remote end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPeer {
    /// A client of our listener.
    Client,
    /// The server that we connected to.
    Server,
}

impl fmt::Display for TlsPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Client => "client",
            Self::Server => "server",
        })
    }
}

/// Why a certificate was rejected. The text continues a sentence that begins with the certificate.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// The validity period has ended.
    #[error("has expired{}", since(*seconds, "ago"))]
    Expired {
        /// The time since its expiry in seconds, if known.
        seconds: Option<u64>,
    },
    /// The validity period has not begun.
    #[error("is not valid yet{}: is a clock wrong?", since(*seconds, "to go"))]
    NotYetValid {
        /// The time until it becomes valid in seconds, if known.
        seconds: Option<u64>,
    },
    /// The certificate is not signed by a trusted CA.
    #[error("is not signed by a trusted CA")]
    UnknownCa,
    /// The certificate is that of a CA, not of a server or client.
    #[error("is a CA certificate (CA:TRUE), not one for a server or client")]
    IsCa,
    /// The certificate is for another name.
    #[error("is not for the name {expected}{}", presented.as_ref().map_or_else(String::new, |names| format!(" but for {names}")))]
    WrongName {
        /// The name that was expected.
        expected: String,
        /// The names in the certificate, if known.
        presented: Option<String>,
    },
    /// Any other reason that rustls reports.
    #[error("is not accepted: {0:?}")]
    Other(rustls::CertificateError),
}

impl CertificateError {
    /// The error for a certificate that was valid until `not_after`, before `now`.
    pub(super) fn expired(now: UnixTime, not_after: UnixTime) -> Self {
        Self::Expired { seconds: Some(now.as_secs().saturating_sub(not_after.as_secs())) }
    }

    /// The error for a certificate that is valid from `not_before` on, after `now`.
    pub(super) fn not_yet_valid(now: UnixTime, not_before: UnixTime) -> Self {
        Self::NotYetValid { seconds: Some(not_before.as_secs().saturating_sub(now.as_secs())) }
    }
}

impl From<rustls::CertificateError> for CertificateError {
    fn from(error: rustls::CertificateError) -> Self {
        use rustls::CertificateError as E;
        match error {
            E::Expired => Self::Expired { seconds: None },
            E::ExpiredContext { time, not_after } => Self::expired(time, not_after),
            E::NotValidYet => Self::NotYetValid { seconds: None },
            E::NotValidYetContext { time, not_before } => Self::not_yet_valid(time, not_before),
            // The latter occurs if a trusted CA has the same name but another key: usually after the CA was
            // recreated.
            E::UnknownIssuer | E::BadSignature => Self::UnknownCa,
            E::NotValidForName => {
                Self::WrongName { expected: "that was requested".to_owned(), presented: None }
            }
            E::NotValidForNameContext { expected, presented } => {
                Self::WrongName { expected: expected.to_str().into_owned(), presented: shown(&presented) }
            }
            E::Other(other) if is_ca(&other.0) => Self::IsCa,
            other => Self::Other(other),
        }
    }
}

fn is_ca(error: &(impl std::ops::Deref<Target = dyn std::error::Error + Send + Sync> + ?Sized)) -> bool {
    matches!(error.downcast_ref::<webpki::Error>(), Some(webpki::Error::CaUsedAsEndEntity))
}

/// The names in a peer's certificate, escaped for a log line.
fn shown(names: &[String]) -> Option<String> {
    let one = |name: &String| -> String {
        bare(name).chars().take(NAME_CHARS_MAX).flat_map(char::escape_debug).collect()
    };
    let mut shown: Vec<String> = names.iter().take(NAMES_MAX).map(one).collect();
    if names.len() > NAMES_MAX {
        shown.push("others".to_owned());
    }
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// Strips the kind from a name: rustls has `DnsName("a.example")` and `IpAddress(127.0.0.1)`.
fn bare(name: &str) -> &str {
    let of_kind = |kind| name.strip_prefix(kind)?.strip_prefix('(')?.strip_suffix(')');
    of_kind("DnsName").or_else(|| of_kind("IpAddress")).map_or(name, |bare| bare.trim_matches('"'))
}

fn since(seconds: Option<u64>, direction: &str) -> String {
    let plural = |n: u64, unit: &str| format!(" ({n} {unit}{} {direction})", if n == 1 { "" } else { "s" });
    match seconds {
        None => String::new(),
        Some(seconds) if seconds >= DAY => plural(seconds / DAY, "day"),
        Some(seconds) if seconds >= 3600 => plural(seconds / 3600, "hour"),
        Some(seconds) => plural(seconds / 60, "minute"),
    }
}
