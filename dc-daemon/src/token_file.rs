//! Reading the auth token from a file, and checking whether other users can read it.
//!
//! The buffer that the file is read into is zeroed on drop. Errors show the path of the file, but not its
//! content.

use libdc::secret::{AuthToken, InvalidAuthToken};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The maximum number of bytes read from a file: the longest token and trailing white space.
const FILE_BYTES_MAX: u64 = 4096;

/// Reads the token from the only line of the file at `path`, without trailing white space.
///
/// # Errors
/// [`TokenFileError`] if the file cannot be read, or holds no valid token.
pub fn read_token(path: &Path) -> Result<(AuthToken, Option<TokenExposure>), TokenFileError> {
    let unreadable = |source| TokenFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    // Allocated at full size: a growing buffer would leave copies of the secret in memory.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
    let token = AuthToken::new(content.trim_ascii_end())
        .map_err(|source| TokenFileError::Content { path: path.to_owned(), source })?;
    let exposure = (mode & 0o004 != 0).then(|| TokenExposure::File { path: path.to_owned(), mode });
    Ok((token, exposure))
}

/// How other users can read the token. Displayed as one line for the log.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenExposure {
    /// The token is on a command line.
    #[error("the token of -auth-token is visible in the process list; use -auth-token-file")]
    Argument,
    /// The token file is world-readable.
    #[error("the auth token file {} is world-readable (mode {mode:o})", path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// The permission bits of the file.
        mode: u32,
    },
}

/// Why a file yields no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The file cannot be read.
    #[error("cannot read the auth token file {}: {source}", path.display())]
    Read {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The content of the file is not a valid token.
    #[error("the auth token in {} {source}", path.display())]
    Content {
        /// The path of the file.
        path: PathBuf,
        /// The reason, as a predicate.
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
    fn token_file_holds_one_line() {
        for content in [&b"secret"[..], b"secret\n", b"secret \t\r\n\n"] {
            let (_directory, path) = written(content, 0o600);
            let (token, exposure) = read_token(&path).unwrap();
            assert_eq!((token.as_bytes(), exposure), (&b"secret"[..], None));
        }
        let (_directory, path) = written(b" leading white space counts\n", 0o640);
        assert!(read_token(&path).unwrap().0.matches(b" leading white space counts"));
    }

    #[test]
    fn file_without_token_is_named_in_the_error() {
        let long = [b'x'; 5000];
        for (content, wrong) in [
            (&b""[..], "is empty"),
            (b" \n\n", "is empty"),
            (b"a\nb\n", "has more than one line"),
            (&long, "is longer than 256 bytes"),
        ] {
            let (_directory, path) = written(content, 0o600);
            let error = read_token(&path).unwrap_err().to_string();
            assert_eq!(error, format!("the auth token in {} {wrong}", path.display()));
        }
        let (directory, _) = written(b"", 0o600);
        let absent = directory.path().join("absent");
        let error = read_token(&absent).unwrap_err().to_string();
        let expected = format!("cannot read the auth token file {}: No such file", absent.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn world_readable_token_file_is_reported() {
        let (_directory, path) = written(b"secret", 0o604);
        let (_, exposure) = read_token(&path).unwrap();
        let text = exposure.unwrap().to_string();
        let expected = format!("the auth token file {} is world-readable (mode 604)", path.display());
        assert_eq!(text, expected);
    }
}
