//! The authentication options of `dc_server` and `dc_client`.
//!
//! The token is never printed. A token on the command line stays visible in the process list, since no safe
//! code can overwrite it there; a warning is logged. Where both options are given, the token itself takes
//! precedence.

use crate::token_file::{TokenExposure, TokenFileError, read_token};
use clap::Args;
use dc_cli::ValueError;
use dc_cli::path::path;
use libdc::secret::AuthToken;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The shared secret, given directly or in a file.
#[derive(Args, Clone, Debug)]
pub struct AuthOptions {
    /// Shared secret for authentication; visible in the process list, prefer -auth-token-file.
    #[arg(long, value_name = "TOKEN", value_parser = auth_token)]
    pub auth_token: Option<AuthToken>,
    /// File that holds the shared secret on its only line.
    #[arg(long, value_name = "PATH", value_parser = path())]
    pub auth_token_file: Option<PathBuf>,
}

impl AuthOptions {
    /// The token, if authentication is configured. Logs a warning if other users can read it.
    ///
    /// # Errors
    /// [`TokenFileError`] if the file cannot be read or holds no valid token.
    pub fn token(&self) -> Result<Option<AuthToken>, TokenFileError> {
        let loaded = self.load()?;
        if let Some((_, Some(exposure))) = &loaded {
            tracing::warn!("{exposure}");
        }
        Ok(loaded.map(|(token, _)| token))
    }

    /// The token, if authentication is configured, and how other users can read it.
    ///
    /// # Errors
    /// As [`token`](Self::token).
    pub fn load(&self) -> Result<Option<(AuthToken, Option<TokenExposure>)>, TokenFileError> {
        Ok(match (&self.auth_token, &self.auth_token_file) {
            (Some(token), _) => {
                let exposed = is_among(std::env::args_os(), token);
                Some((token.clone(), exposed.then_some(TokenExposure::Argument)))
            }
            (None, Some(path)) => Some(read_token(path)?),
            (None, None) => None,
        })
    }
}

fn auth_token(text: &str) -> Result<AuthToken, ValueError> {
    let bad = |error: libdc::secret::InvalidAuthToken| {
        ValueError::new(error.to_string(), "1 to 256 bytes of one line")
    };
    AuthToken::new(text.as_bytes()).map_err(bad)
}

/// Whether the words of a command line show the token. A token from the environment is not visible to other
/// users.
fn is_among(words: impl Iterator<Item = OsString>, token: &AuthToken) -> bool {
    let value = |word: &OsStr| {
        let bytes = word.as_bytes();
        bytes.iter().position(|byte| *byte == b'=').map_or(bytes, |at| &bytes[at + 1..]).to_owned()
    };
    words.into_iter().any(|word| token.matches(word.as_bytes()) || token.matches(&value(&word)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(token: Option<&[u8]>, file: Option<PathBuf>) -> AuthOptions {
        let auth_token = token.map(|token| AuthToken::new(token).unwrap());
        AuthOptions { auth_token, auth_token_file: file }
    }

    #[test]
    fn token_on_the_command_line_is_detected() {
        let token = AuthToken::new(b"a=secret").unwrap();
        let seen = |words: &[&str]| is_among(words.iter().map(OsString::from), &token);
        assert!(seen(&["dc_server", "-auth-token", "a=secret"]));
        assert!(seen(&["dc_server", "--auth-token=a=secret", "-debug"]));
        assert!(!seen(&["dc_server", "-auth-token-file", "/run/secret", "-log=a"]));
    }

    #[test]
    fn auth_token_takes_precedence_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        std::fs::write(&path, "of the file\n").unwrap();
        let token = |options: &AuthOptions| options.token().unwrap().map(|token| token.as_bytes().to_owned());
        assert_eq!(token(&options(Some(b"itself"), Some(path.clone()))).as_deref(), Some(&b"itself"[..]));
        assert_eq!(token(&options(None, Some(path.clone()))).as_deref(), Some(&b"of the file"[..]));
        assert_eq!(token(&options(None, None)), None);
        let absent = options(None, Some(directory.path().join("absent")));
        assert!(absent.token().unwrap_err().to_string().contains("absent"));
    }

    #[test]
    fn invalid_token_error_hides_the_token() {
        assert_eq!(
            auth_token(&"x".repeat(257)).unwrap_err().to_string(),
            "is longer than 256 bytes; it takes 1 to 256 bytes of one line"
        );
        let text = format!("{:?}", options(Some(b"secret"), None));
        assert!(!text.contains("secret"), "{text}");
    }
}
