//! The auth token in a file, and who else can read it.
//!
//! The buffer that the file is read into is cleared when it is dropped. Errors name the file by its path and show none of its content.

use libdc::secret::{AuthToken, InvalidAuthToken};
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Most bytes that are read of a file: the longest token, and white space behind it.
const FILE_BYTES_MAX: u64 = 4096;

/// Reads the token in the one line of the file at `path`, without white space at its end.
///
/// # Errors
/// The file cannot be read, or holds no token.
pub fn read_token(path: &Path) -> Result<(AuthToken, Option<TokenExposure>), TokenFileError> {
    let unreadable = |source| TokenFileError::Read { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let mode = file.metadata().map_err(unreadable)?.mode() & 0o777;
    // Of its full size from the start: a growing buffer would leave copies of the secret behind.
    let mut content = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX as usize));
    file.take(FILE_BYTES_MAX).read_to_end(&mut content).map_err(unreadable)?;
    let token = AuthToken::new(content.trim_ascii_end())
        .map_err(|source| TokenFileError::Content { path: path.to_owned(), source })?;
    let exposure = (mode & 0o004 != 0).then(|| TokenExposure::File { path: path.to_owned(), mode });
    Ok((token, exposure))
}

/// How others can read the token. Its text is one line for the log.
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
            assert_eq!(error, format!("the token in the file {} {wrong}", path.display()));
        }
        let (directory, _) = written(b"", 0o600);
        let absent = directory.path().join("absent");
        let error = read_token(&absent).unwrap_err().to_string();
        let expected = format!("can't read the file of the token, {}: No such file", absent.display());
        assert!(error.starts_with(&expected), "{error}");
    }

    #[test]
    fn world_readable_token_file_is_reported() {
        let (_directory, path) = written(b"secret", 0o604);
        let (_, exposure) = read_token(&path).unwrap();
        let text = exposure.unwrap().to_string();
        let expected =
            format!("the file of the token, {}, can be read by everybody: its mode is 604", path.display());
        assert_eq!(text, expected);
    }
}
