//! Certificates and keys in files of PEM.
//!
//! Files are read on the thread that calls, also while connections are served: they are a few kilobytes, mostly in the
//! system's cache, and are read only when they were changed. What could make that long is refused:
//! what is no regular file, and what is too large.

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

/// Most bytes of a file: a bundle of all CAs has a quarter of a megabyte.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// The files of a certificate, with those of the CAs between it and a root, and of its private key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate first.
    pub cert: PathBuf,
    /// The private key, not encrypted.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// Reads both files. One that is not valid now is logged and used: the clock may be what is wrong.
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

/// The certificates of CAs in the file at `path`, as what is trusted.
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

/// What is wrong with the time of `certificate`. Nobody's signature is looked at.
fn outside_of_validity(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<CertificateError> {
    let certificate = webpki::EndEntityCert::try_from(certificate).ok()?;
    // With nobody to trust this always fails, and a wrong time is what it fails of first.
    let usage = webpki::KeyUsage::server_auth();
    match certificate.verify_for_usage(&[], &[], &[], now, usage, None, None).err()? {
        webpki::Error::CertExpired { time, not_after } => Some(CertificateError::expired(time, not_after)),
        webpki::Error::CertNotValidYet { time, not_before } => {
            Some(CertificateError::not_yet_valid(time, not_before))
        }
        _ => None,
    }
}

/// The content of a file, cleared when it is dropped: it may be a key.
fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), source };
    // Looked at before it is opened: the opening of a pipe would wait for somebody to write.
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
