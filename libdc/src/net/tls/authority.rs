//! A CA for tests that stores its certificates in files.

use crate::net::tls::client::CertificateFiles;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A CA that is trusted only by programs that load its file.
pub(super) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

/// The period in which a certificate is valid.
#[derive(Clone, Copy)]
pub(super) enum Validity {
    Now,
    Past,
    Future,
}

impl Authority {
    pub(super) fn new() -> Self {
        Self::named("an authority for tests")
    }

    pub(super) fn named(name: &str) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("ca"), issuer.pem()).unwrap();
        fs::write(directory.path().join("ca.key"), issuer.key().serialize_pem()).unwrap();
        Self { issuer, directory }
    }

    /// The file of the CA's certificate.
    pub(super) fn ca(&self) -> PathBuf {
        self.file("ca")
    }

    /// The CA's certificate and key, presented as if they were a server's.
    pub(super) fn itself(&self) -> CertificateFiles {
        CertificateFiles { cert: self.ca(), key: self.file("ca.key") }
    }

    /// A certificate for `name` that is currently valid.
    pub(super) fn issue(&self, name: &str) -> CertificateFiles {
        self.issue_for(name, Validity::Now)
    }

    pub(super) fn issue_for(&self, name: &str, validity: Validity) -> CertificateFiles {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        (params.not_before, params.not_after) = match validity {
            Validity::Now => (date_time_ymd(2000, 1, 1), date_time_ymd(4000, 1, 1)),
            Validity::Past => (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1)),
            Validity::Future => (date_time_ymd(3999, 1, 1), date_time_ymd(4000, 1, 1)),
        };
        let key = KeyPair::generate().unwrap();
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        // Several certificates of one name are stored in different files.
        let stem =
            format!("{}-{}", fs::read_dir(self.directory.path()).unwrap().count(), name.replace(':', "."));
        let (cert_path, key_path) = (self.file(&format!("{stem}.cert")), self.file(&format!("{stem}.key")));
        fs::write(&cert_path, cert.pem()).unwrap();
        fs::write(&key_path, key.serialize_pem()).unwrap();
        CertificateFiles { cert: cert_path, key: key_path }
    }

    pub(super) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file with this content.
    pub(super) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.file(name);
        fs::write(&path, content).unwrap();
        path
    }
}

/// Replaces the files of `old` by those of `new`.
pub(super) fn replace(old: &CertificateFiles, new: &CertificateFiles) {
    let copy = |from: &Path, to: &Path| {
        let beside = to.with_extension("new");
        fs::copy(from, &beside).unwrap();
        fs::rename(&beside, to).unwrap();
    };
    copy(&new.cert, &old.cert);
    copy(&new.key, &old.key);
}
