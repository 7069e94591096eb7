//! The auth token: a shared secret that clients must present.
//!
//! It is never printed, neither with `{:?}` nor in an error. It is compared in constant time, and its memory
//! is cleared when it is dropped. Nothing here panics.

use crate::limits::AUTH_TOKEN_BYTES_MAX;
use sha2::{Digest, Sha256};
use std::fmt;
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A shared secret of 1 to 256 bytes without line breaks.
#[derive(Clone)]
pub struct AuthToken {
    bytes: Box<[u8]>,
    digest: [u8; 32],
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
        Ok(Self { bytes: bytes.into(), digest: Sha256::digest(bytes).into() })
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn debug_output_omits_token() {
        assert_eq!(format!("{:?}", AuthToken::new(b"secret").unwrap()), "AuthToken(…)");
    }
}
