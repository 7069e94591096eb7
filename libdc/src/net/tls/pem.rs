//! Certificates and keys in PEM files.
//!
//! Files are read on the calling thread, even while connections are served. They have a few kilobytes, are
//! usually in the page cache, and are read only after a change. Anything that could take long is refused:
//! files that are not regular or are too large.

use crate::net::tls::error::{CertificateError, TlsError};
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::sign::CertifiedKey;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The maximum size of a file: a bundle of all public CAs has a quarter of a megabyte.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The files of a certificate with its intermediate CAs, and of its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, followed by the intermediate CAs.
    pub cert: PathBuf,
    /// The private key, which must not be encrypted.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Reads both files. A certificate that is not currently valid is logged and used: the clock may be
    /// wrong.
    pub(super) fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(&self.cert)?;
        if let Some(fault) = chain.first().and_then(|first| outside_of_validity(first, UnixTime::now())) {
            tracing::warn!("the certificate in {} {fault}", self.cert.display());
        }
        let key = key(&self.key)?;
        CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Mismatch { key: self.key.clone(), cert: self.cert.clone() }
            }
            rustls::Error::InvalidCertificate(_) => TlsError::BrokenCertificate { path: self.cert.clone() },
            _ => TlsError::BrokenKey { path: self.key.clone() },
        })
    }
}

/// The trusted CA certificates in the file at `path`.
pub(super) fn roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|_| TlsError::BrokenCertificate { path: path.to_owned() })?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let content = read(path)?;
    let found = CertificateDer::pem_slice_iter(&content).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|_| TlsError::Pem { path: path.to_owned() })?;
    if found.is_empty() {
        return Err(TlsError::NoCertificate { path: path.to_owned() });
    }
    Ok(found)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let content = read(path)?;
    let is_encrypted = || {
        let mut lines = content.split(|byte| *byte == b'\n');
        lines.any(|line| {
            line.starts_with(b"-----BEGIN ENCRYPTED") || line.starts_with(b"Proc-Type: 4,ENCRYPTED")
        })
    };
    let path = || path.to_owned();
    PrivateKeyDer::from_pem_slice(&content).map_err(|error| match error {
        _ if is_encrypted() => TlsError::EncryptedKey { path: path() },
        rustls::pki_types::pem::Error::NoItemsFound => TlsError::NoKey { path: path() },
        _ => TlsError::Pem { path: path() },
    })
}

/// Why `certificate` is not valid at `now`, if so. Signatures are not verified.
fn outside_of_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<CertificateError> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    // Without trusted roots this always fails, but a wrong time is the first error reported.
    let usage = webpki::KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], now, usage, None, None).err()? {
        webpki::Error::CertExpired { time, not_after } => Some(CertificateError::expired(time, not_after)),
        webpki::Error::CertNotValidYet { time, not_before } => {
            Some(CertificateError::not_yet_valid(time, not_before))
        }
        _ => None,
    }
}

/// Reads a file that may contain a key; the content is zeroed when it is dropped.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    // Checked before the file is opened: opening a pipe would block until it has a writer.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(TlsError::NotAFile { path: path.to_owned() });
    }
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len().min(FILE_BYTES_MAX) as usize + 1));
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(TlsError::TooLarge { path: path.to_owned() });
    }
    Ok(content)
}
