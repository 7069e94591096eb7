//! The shared secret of authentication: who does not know it is not served.
//!
//! It is never printed, neither with `{:?}` nor in an error; it is compared in constant time; and its memory is
//! cleared when it is dropped. What is said of a file is said by its path. Nothing here panics.

use crate::limits::AUTH_TOKEN_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// The shared secret: 1 to 256 bytes of one line.
#[derive(Clone)]
pub struct AuthToken {
    bytes: Box<[u8]>,
    digest: [u8; 32],
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
        Ok(Self { bytes: bytes.into(), digest: Sha256::digest(bytes).into() })
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn it_is_not_printed() {
        assert_eq!(format!("{:?}", AuthToken::new(b"secret").unwrap()), "AuthToken(…)");
    }
}
