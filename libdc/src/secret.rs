//! The shared secret of authentication: who does not know it is not served.
//!
//! It is never printed, neither with `{:?}` nor in an error; it is compared in constant time; and its memory is
//! cleared when it is dropped. What is said of a file is said by its path. Nothing here panics.

use crate::limits::AUTH_TOKEN_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, Zeroizing};

/// Most bytes that are read of a file: the longest token, and white space behind it.
const FILE_BYTES_MAX: u64 = 4096;

/// The shared secret: 1 to 256 bytes of one line.
#[derive(Clone)]
pub struct AuthToken {
    bytes: Box<[u8]>,
    digest: [u8; 32],
    exposure: Option<TokenExposure>,
}

impl AuthToken {
    /// The token made of `bytes`.
    ///
    /// # Errors
    /// If there are none or too many, or more than one line.
    pub fn new(bytes: &[u8]) -> Result<Self, InvalidAuthToken> {
        if bytes.is_empty() {
            return Err(InvalidAuthToken::Empty);
        }
        if bytes.len() > AUTH_TOKEN_BYTES_MAX {
            return Err(InvalidAuthToken::TooLong);
        }
        // A line of the text protocol could not carry it.
        if bytes.iter().any(|byte| matches!(byte, b'\n' | b'\r')) {
            return Err(InvalidAuthToken::Lines);
        }
        Ok(Self { bytes: bytes.into(), digest: Sha256::digest(bytes).into(), exposure: None })
    }

    /// The same token, known to stand on a command line, where others on the host can read it.
    #[must_use]
    pub fn on_command_line(mut self) -> Self {
        self.exposure = Some(TokenExposure::Argument);
        self
    }

    /// The token in the one line of the file at `path`, without white space at its end.
    ///
    /// # Errors
    /// If the file can't be read, or there is no token in it.
    pub fn read(path: &Path) -> Result<Self, TokenFileError> {
        let unreadable = |source| TokenFileError::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(unreadable)?;
        let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
        // Of its full size from the start: a buffer that grows would leave copies of the secret behind.
        let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
        file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
        let mut token = Self::new(content.trim_ascii_end())
            .map_err(|source| TokenFileError::Content { path: path.to_owned(), source })?;
        token.exposure = (mode & 0o004 != 0).then(|| TokenExposure::File { path: path.to_owned(), mode });
        Ok(token)
    }

    /// Whether `offered` is this token. Takes the same time wherever they differ: what is compared are the
    /// digests of both.
    #[must_use]
    pub fn matches(&self, offered: &[u8]) -> bool {
        let offered: [u8; 32] = Sha256::digest(offered).into();
        self.digest.ct_eq(&offered).into()
    }

    /// The token itself, to present it.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Who else can read it, as far as is known here: to be said at start.
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

/// How a token can be read by somebody whom it does not concern. Its text is one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenExposure {
    /// It stands on a command line.
    #[error("the token of -auth-token is visible in the list of processes; use -auth-token-file")]
    Argument,
    /// It stands in a file that everybody may read.
    #[error("the file of the token, {}, can be read by everybody: its mode is {mode:o}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
}

/// What is no token. Its text reads on behind what it is said of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthToken {
    /// Nothing.
    #[error("is empty")]
    Empty,
    /// More bytes than there may be.
    #[error("is longer than {AUTH_TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// More than one line.
    #[error("has more than one line")]
    Lines,
}

/// Why a file gives no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// It can't be read.
    #[error("can't read the file of the token, {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// What is in it is no token.
    #[error("the token in the file {} {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidAuthToken,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn written(content: &[u8], mode: u32) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (directory, path)
    }

    #[test]
    fn only_the_token_itself_matches() {
        let token = AuthToken::new(b"open sesame").unwrap();
        assert!(token.matches(b"open sesame"));
        for other in [&b""[..], b"open sesam", b"open sesame ", b"Open sesame", &[b'o'; 4096]] {
            assert!(!token.matches(other));
        }
    }

    #[test]
    fn a_token_is_one_line_of_at_most_256_bytes() {
        assert_eq!(AuthToken::new(&[b'x'; 256]).unwrap().as_bytes().len(), 256);
        assert_eq!(AuthToken::new(b"").unwrap_err(), InvalidAuthToken::Empty);
        assert_eq!(AuthToken::new(&[b'x'; 257]).unwrap_err(), InvalidAuthToken::TooLong);
        assert_eq!(AuthToken::new(b"a\nb").unwrap_err(), InvalidAuthToken::Lines);
        assert_eq!(AuthToken::new(b"a\r").unwrap_err(), InvalidAuthToken::Lines);
    }

    #[test]
    fn a_file_has_the_token_in_its_only_line() {
        for content in [&b"secret"[..], b"secret\n", b"secret \t\r\n\n"] {
            let (_directory, path) = written(content, 0o600);
            let token = AuthToken::read(&path).unwrap();
            assert_eq!((token.as_bytes(), token.exposure()), (&b"secret"[..], None));
        }
        let (_directory, path) = written(b" leading white space counts\n", 0o640);
        assert!(AuthToken::read(&path).unwrap().matches(b" leading white space counts"));
    }

    #[test]
    fn a_file_without_a_token_is_named() {
        let long = [b'x'; 5000];
        for (content, wrong) in [
            (&b""[..], "is empty"),
            (b" \n\n", "is empty"),
            (b"a\nb\n", "has more than one line"),
            (&long, "is longer than 256 bytes"),
        ] {
            let (_directory, path) = written(content, 0o600);
            let error = AuthToken::read(&path).unwrap_err().to_string();
            assert_eq!(error, format!("the token in the file {} {wrong}", path.display()));
        }
        let (directory, _) = written(b"", 0o600);
        let absent = directory.path().join("absent");
        let error = AuthToken::read(&absent).unwrap_err().to_string();
        let expected = format!("can't read the file of the token, {}: No such file", absent.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn who_else_can_read_it_is_said() {
        let (_directory, path) = written(b"secret", 0o604);
        let token = AuthToken::read(&path).unwrap();
        let text = token.exposure().unwrap().to_string();
        let expected =
            format!("the file of the token, {}, can be read by everybody: its mode is 604", path.display());
        assert_eq!(text, expected);
        assert_eq!(
            AuthToken::new(b"secret").unwrap().on_command_line().exposure(),
            Some(&TokenExposure::Argument)
        );
        assert_eq!(AuthToken::new(b"secret").unwrap().exposure(), None);
    }

    #[test]
    fn it_is_not_printed() {
        assert_eq!(format!("{:?}", AuthToken::new(b"secret").unwrap().on_command_line()), "AuthToken(…)");
    }
}
