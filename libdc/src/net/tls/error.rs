//! What can be wrong with TLS, in the words of who has to mend it.
//!
//! rustls says what happened in the terms of the protocol; here that becomes the mistake that was most likely made.
//! What a peer sent is in no message, but for the names in its certificate, escaped and cut short.

use crate::wire::detect::Protocol;
use rustls::pki_types::UnixTime;
use rustls::{AlertDescription, PeerIncompatible};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Most names of a certificate, and most characters of each, that a message repeats.
const NAMES_MAX: usize = 4;
const NAME_CHARS_MAX: usize = 80;
const DAY: u64 = 86_400;

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("can't read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something that is not a file.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// A file is so large that it is no certificate or key.
    #[error("{} is too large for certificates or a key", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// A file begins something in PEM and does not keep to the format.
    #[error("{} is broken: it is not PEM", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
    },
    /// A file that should have a certificate has none.
    #[error("there is no certificate in {} (PEM is expected)", path.display())]
    NoCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A certificate can't be read.
    #[error("a certificate in {} is broken", path.display())]
    BrokenCertificate {
        /// The file.
        path: PathBuf,
    },
    /// A file that should have a private key has none.
    #[error("there is no private key in {} (PEM is expected)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key is encrypted.
    #[error("the private key in {} is encrypted with a passphrase, which nobody could enter", path.display())]
    EncryptedKey {
        /// The file.
        path: PathBuf,
    },
    /// A private key can't be used.
    #[error("the private key in {} can't be used: it is broken or of an unknown kind", path.display())]
    BrokenKey {
        /// The file.
        path: PathBuf,
    },
    /// A key and a certificate that do not belong together.
    #[error("the private key in {} is not that of the first certificate in {}", key.display(), cert.display())]
    Mismatch {
        /// The file of the key.
        key: PathBuf,
        /// The file of the certificate.
        cert: PathBuf,
    },
    /// The system knows no certificates of CAs.
    #[error("the system has no certificates of CAs; name a file of them with -tls-ca")]
    NoSystemRoots,
    /// The server is not reached over TCP.
    #[error("TLS takes a server over TCP")]
    NotTcp,
    /// The address of the server has a host that no certificate can be for.
    #[error("no certificate can be for the host of the server's address; name another with -tls-name")]
    NoName,
    /// A peer that does not begin a handshake.
    #[error("a plain connection on a TLS port: it began with {0}")]
    Plain(Protocol),
    /// A peer that answers a handshake with something else.
    #[error("the {0} does not speak TLS; is this its TLS port?")]
    NotTls(TlsPeer),
    /// A peer that has no version in common with us.
    #[error("the {0} speaks neither TLS 1.2 nor a later version")]
    OldVersion(TlsPeer),
    /// A peer without an algorithm or extension that is needed.
    #[error("the {0} and this side have no way of TLS in common: {1:?}")]
    Incompatible(TlsPeer, PeerIncompatible),
    /// The peer's certificate is not trusted here.
    #[error("the certificate of the {0} {1}")]
    Certificate(TlsPeer, CertificateError),
    /// The client has none, and must.
    #[error("the client presented no certificate, and -tls-client-ca requires one")]
    ClientCertificateMissing,
    /// We have none, and must.
    #[error("the server requires a certificate of the client; give -tls-cert and -tls-key")]
    ClientCertificateRequired,
    /// The peer does not trust our certificate.
    #[error("the {0} does not trust the certificate of this side ({1:?})")]
    Distrusted(TlsPeer, AlertDescription),
    /// The peer gave up, for a reason that only it knows.
    #[error("the {0} ended TLS ({1:?})")]
    Alert(TlsPeer, AlertDescription),
    /// The handshake took too long.
    #[error("the handshake of TLS was not complete after {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The peer left in the middle.
    #[error("the {0} closed the connection during the handshake of TLS")]
    Closed(TlsPeer),
    /// The connection broke.
    #[error(transparent)]
    Socket(io::Error),
    /// Anything else that rustls refuses.
    #[error("TLS failed: {0}")]
    Protocol(rustls::Error),
}

impl TlsError {
    /// What an error of a stream of TLS means, said of `peer`.
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
                // An extension of TLS 1.2, which is looked for before the version.
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
            // The signature is not that of the CA which the certificate names.
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

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsPeer {
    /// A client of ours.
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

/// What is wrong with a certificate. Its text reads on behind "the certificate".
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CertificateError {
    /// It was good until some time ago.
    #[error("has expired{}", since(*seconds, "ago"))]
    Expired {
        /// For how long it has been, in seconds, where that is known.
        seconds: Option<u64>,
    },
    /// It will be good some time.
    #[error("is not valid yet{}: is a clock wrong?", since(*seconds, "to go"))]
    NotYetValid {
        /// How long that will take, in seconds, where that is known.
        seconds: Option<u64>,
    },
    /// Nobody who is trusted has signed it.
    #[error("is signed by no CA that is trusted here")]
    UnknownCa,
    /// The certificate is that of a CA, not one that a CA has signed.
    #[error("is that of a CA itself (CA:TRUE), and none for a server or client")]
    IsCa,
    /// It is somebody else's.
    #[error("is not for the name {expected}{}", presented.as_ref().map_or_else(String::new, |names| format!(" but for {names}")))]
    WrongName {
        /// What it should be for.
        expected: String,
        /// What it is for, where that is known.
        presented: Option<String>,
    },
    /// Anything else.
    #[error("is not accepted: {0:?}")]
    Other(rustls::CertificateError),
}

impl CertificateError {
    /// The certificate was good until `not_after`, before `now`.
    pub(super) fn expired(now: UnixTime, not_after: UnixTime) -> Self {
        Self::Expired { seconds: Some(now.as_secs().saturating_sub(not_after.as_secs())) }
    }

    /// The certificate is good from `not_before` on, after `now`.
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
            // The latter where somebody has the name of a trusted CA and another key: most often a CA made anew.
            E::UnknownIssuer | E::BadSignature => Self::UnknownCa,
            E::NotValidForName => {
                Self::WrongName { expected: "that was asked for".to_owned(), presented: None }
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

/// The names that a peer's certificate has, fit for a line of a log.
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

/// A name without its kind: rustls has `DnsName("a.example")` and `IpAddress(127.0.0.1)`.
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
