//! The auth token: a shared secret that clients must present.
//!
//! It is never printed, neither with `{:?}` nor in an error. It is compared in constant time, and its memory
//! is cleared when it is dropped. Errors about a token file name the path only. Nothing here panics.

use crate::limits::AUTH_TOKEN_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// The maximum number of bytes read from a token file: the longest token, and trailing white space.
const FILE_BYTES_MAX: u64 = 4096;

/// A shared secret of 1 to 256 bytes without line breaks.
#[derive(Clone)]
pub struct AuthToken {
    bytes: Box<[u8]>,
    digest: [u8; 32],
    exposure: Option<TokenExposure>,
}

impl AuthToken {
    /// The token with these bytes.
    ///
    /// # Errors
    /// If `bytes` is empty or too long, or contains a line break.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidAuthToken> {
        if bytes.is_empty() {
            return Err(InvalidAuthToken::Empty);
        }
        if bytes.len() > AUTH_TOKEN_BYTES_MAX {
            return Err(InvalidAuthToken::TooLong);
        }
        // A line of the line protocol could not carry it.
        if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Err(InvalidAuthToken::Lines);
        }
        Ok(Self { bytes: bytes.into(), digest: Sha256::digest(bytes).into(), exposure: None })
    }

    /// Marks the token as taken from a command line, where other users of the host can read it.
    #[must_use]
    pub fn on_command_line(mut self) -> Self {
        self.exposure = Some(TokenExposure::Argument);
        self
    }

    /// Reads the token from a file with one line, without trailing white space.
    ///
    /// # Errors
    /// If the file cannot be read or contains no valid token.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |source| TokenFileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
        // Allocated at its full size: a growing buffer would leave copies of the secret in memory.
        let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
        let mut token = Self::new(content.trim_ascii_end())
            .map_err(|source| TokenFileError::Content { path: path.to_owned(), source })?;
        token.exposure = (mode & 0o004 != 0).then(|| TokenExposure::File { path: path.to_owned(), mode });
        Ok(token)
    }

    /// Whether `offered` is this token. Takes constant time, because the digests of both are compared.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        self.digest.ct_eq(&offered).into()
    }

    /// The bytes of the token, to present it to a server.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How other users can read the token, if that is known; to be logged at start.
    #[must_use]
    pub const fn exposure(&self) -> Option<&TokenExposure> {
        self.exposure.as_ref()
    }
}

impl Drop for AuthToken {
    fn drop(&mut self) {
        self.bytes.zeroize();
        self.digest.zeroize();
    }
}

impl fmt::Debug for AuthToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AuthToken(…)")
    }
}

/// A way in which other users can read a token. The text is one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenExposure {
    /// The token was given on a command line.
    #[error("-auth-token is visible in the process list; use -auth-token-file")]
    Argument,
    /// The token is in a world-readable file.
    #[error("auth token file {} is readable by all users: mode {mode:o}", path.display())]
    File {
        /// The path of the token file.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
}

/// Why bytes are not a valid token. The text continues a sentence that begins with the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthToken {
    /// There are no bytes in it.
    #[error("is empty")]
    Empty,
    /// It exceeds the maximum length.
    #[error("is longer than {AUTH_TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// It contains a line break.
    #[error("has more than one line")]
    Lines,
}

/// Why no token could be read from a file.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read auth token file {}: {source}", path.display())]
    Read {
        /// The path of the token file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file does not contain a valid token.
    #[error("auth token in file {} {source}", path.display())]
    Content {
        /// The path of the token file.
        path: PathBuf,
        /// Why the content is invalid.
        source: InvalidAuthToken,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn write_token_file(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn only_equal_bytes_match() {
        let token = AuthToken::new(b"open sesame").unwrap();
        assert!(token.matches(b"open sesame"));
        for other in [&b""[..], b"open sesam", b"open sesame ", b"Open sesame", &[b'o'; 4096]] {
            assert!(!token.matches(other));
        }
    }

    #[test]
    fn auth_token_is_one_line_of_at_most_256_bytes() {
        assert_eq!(AuthToken::new(&[b'x'; 256]).unwrap().as_bytes().len(), 256);
        assert_eq!(AuthToken::new(b"").unwrap_err(), InvalidAuthToken::Empty);
        assert_eq!(AuthToken::new(&[b'x'; 257]).unwrap_err(), InvalidAuthToken::TooLong);
        assert_eq!(AuthToken::new(b"a\nb").unwrap_err(), InvalidAuthToken::Lines);
        assert_eq!(AuthToken::new(b"a\r").unwrap_err(), InvalidAuthToken::Lines);
    }

    #[test]
    fn token_file_holds_one_line() {
        for content in [&b"secret"[..], b"secret\n", b"secret \t\r\n\n"] {
            let (_directory, path) = write_token_file(content, 0o600);
            let token = AuthToken::read(&path).unwrap();
            assert_eq!((token.as_bytes(), token.exposure()), (&b"secret"[..], None));
        }
        let (_directory, path) = write_token_file(b" leading white space counts\n", 0o640);
        assert!(AuthToken::read(&path).unwrap().matches(b" leading white space counts"));
    }

    #[test]
    fn invalid_token_file_error_names_path() {
        let long = [b'x'; 5000];
        for (content, wrong) in [
            (&b""[..], "is empty"),
            (b" \n\n", "is empty"),
            (b"a\nb\n", "has more than one line"),
            (&long, "is longer than 256 bytes"),
        ] {
            let (_directory, path) = write_token_file(content, 0o600);
            let error = AuthToken::read(&path).unwrap_err().to_string();
            assert_eq!(error, format!("auth token in file {} {wrong}", path.display()));
        }
        let (directory, _) = write_token_file(b"", 0o600);
        let absent = directory.path().join("absent");
        let error = AuthToken::read(&absent).unwrap_err().to_string();
        let expected = format!("cannot read auth token file {}: No such file", absent.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn exposure_reports_readable_token() {
        let (_directory, path) = write_token_file(b"secret", 0o604);
        let token = AuthToken::read(&path).unwrap();
        let text = token.exposure().unwrap().to_string();
        let expected = format!("auth token file {} is readable by all users: mode 604", path.display());
        assert_eq!(text, expected);
        assert_eq!(
            AuthToken::new(b"secret").unwrap().on_command_line().exposure(),
            Some(&TokenExposure::Argument)
        );
        assert_eq!(AuthToken::new(b"secret").unwrap().exposure(), None);
    }

    #[test]
    fn debug_output_omits_token() {
        assert_eq!(format!("{:?}", AuthToken::new(b"secret").unwrap().on_command_line()), "AuthToken(…)");
    }
}
