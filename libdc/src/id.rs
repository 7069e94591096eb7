//! Identifiers, each with a distinct type so that they cannot be confused.

use crate::limits::{LOCK_KEY_BYTES_MAX, SESSION_ID_BYTES_MAX};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// The id of a session: 1 to 64 bytes, chosen by the application that stored it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId<'a>(&'a [u8]);

impl<'a> SessionId<'a> {
    /// The id with these bytes; `None` unless there are 1 to 64.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Option<Self> {
        if bytes.is_empty() || bytes.len() > SESSION_ID_BYTES_MAX { None } else { Some(Self(bytes)) }
    }

    /// The id as chosen by the application.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0
    }
}

impl fmt::Debug for SessionId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SessionId(")?;
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}

/// A connection of one process. Numbers start at 1 and are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The connection with this number, counted from 1.
    #[must_use]
    pub const fn new(number: u64) -> Self {
        Self(number)
    }

    /// The number, counted from 1.
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// The name of a lock or semaphore: 1 to 256 bytes of UTF-8 without white space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey<'a>(&'a str);

impl<'a> LockKey<'a> {
    /// The key with this name; `None` if it is empty, too long or contains white space.
    #[must_use]
    pub fn new(name: &'a str) -> Option<Self> {
        let sized = !name.is_empty() && name.len() <= LOCK_KEY_BYTES_MAX;
        // Nearly all names are ASCII, where checking bytes is enough.
        let blank = if name.is_ascii() {
            name.bytes().any(|byte| matches!(byte, b' ' | b'\t'..=b'\r'))
        } else {
            name.contains(char::is_whitespace)
        };
        (sized && !blank).then_some(Self(name))
    }

    /// The key with these bytes; `None` if they are not a valid key.
    #[must_use]
    pub fn from_bytes(bytes: &'a [u8]) -> Option<Self> {
        std::str::from_utf8(bytes).ok().and_then(Self::new)
    }

    /// The name as a string of UTF-8.
    #[must_use]
    pub const fn as_str(self) -> &'a str {
        self.0
    }

    /// The name as its UTF-8 bytes.
    #[must_use]
    pub const fn as_bytes(self) -> &'a [u8] {
        self.0.as_bytes()
    }
}

impl fmt::Display for LockKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

/// An owned [`LockKey`] that is cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnedLockKey(Arc<str>);

impl OwnedLockKey {
    /// Borrows the key as a [`LockKey`].
    #[must_use]
    pub fn as_key(&self) -> LockKey<'_> {
        LockKey(&self.0)
    }
}

impl From<LockKey<'_>> for OwnedLockKey {
    fn from(key: LockKey<'_>) -> Self {
        Self(Arc::from(key.0))
    }
}

/// The proof that a lock is held: a monotonically increasing fence, and 64 secret bits.
///
/// On the wire it is 16 bytes, or 32 hexadecimal digits of which the first 16 are the fence. `{:?}` prints
/// only the fence, because the whole token allows its reader to release the lock.
#[derive(Clone, Copy)]
pub struct Token {
    fence: u64,
    secret: u64,
}

impl Token {
    /// The size of a token in bytes.
    pub const BYTES: usize = 16;

    /// A token with this fence and this secret.
    #[must_use]
    pub const fn new(fence: u64, secret: u64) -> Self {
        Self { fence, secret }
    }

    /// Decodes a token from its 16 bytes.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        let number = u128::from_be_bytes(bytes);
        Self { fence: (number >> 64) as u64, secret: number as u64 }
    }

    /// Decodes a token from 32 hexadecimal digits of either case; `None` if the input is anything else.
    #[must_use]
    pub fn from_hex(digits: &[u8]) -> Option<Self> {
        if digits.len() != 2 * Self::BYTES {
            return None;
        }
        let mut number = 0_u128;
        for digit in digits {
            number = number << 4 | u128::from(char::from(*digit).to_digit(16)?);
        }
        Some(Self::from_bytes(number.to_be_bytes()))
    }

    /// The fence, greater than that of every earlier grant of any key.
    #[must_use]
    pub const fn fence(self) -> u64 {
        self.fence
    }

    /// Encodes the token as 16 bytes.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        ((self.fence as u128) << 64 | self.secret as u128).to_be_bytes()
    }

    /// Encodes the token as 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn to_hex(self) -> [u8; 2 * Self::BYTES] {
        let mut digits = [0; 2 * Self::BYTES];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(self.to_bytes()) {
            pair[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
            pair[1] = b"0123456789abcdef"[usize::from(byte & 15)];
        }
        digits
    }
}

/// Compares in constant time.
impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        (self.fence ^ other.fence) | (self.secret ^ other.secret) == 0
    }
}

impl Eq for Token {}

impl Hash for Token {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write(&self.to_bytes());
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Token(fence {})", self.fence)
    }
}

/// A granted lock: its token and its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The proof that the lock is held.
    pub token: Token,
    /// The lease, in milliseconds from the grant.
    pub lease_ms: u64,
}

/// A holder or waiter: one connection of an application.
///
/// The agent on a link acts for many connections, and numbers them. A connection that is not a link is its
/// only owner, number 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Owner {
    /// The connection on which the link was first opened. A link that resumes on another connection keeps it.
    pub connection: ConnectionId,
    /// The number that the link's agent assigned.
    pub local: u64,
}

/// Identifies a link across its connections: 128 random bits that each agent process generates once.
///
/// The id allows its reader to take over the link, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId([u8; Self::BYTES]);

impl LinkId {
    /// The size of a link id in bytes.
    pub const BYTES: usize = 16;

    /// The link id with these bytes.
    #[must_use]
    pub const fn new(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The 16 random bytes of the id.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; Self::BYTES] {
        self.0
    }
}

impl fmt::Debug for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LinkId(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_key_is_utf8_without_white_space() {
        for good in ["k", "clé-日本", "a:b/c", &"k".repeat(256)] {
            assert_eq!(LockKey::new(good).map(LockKey::as_str), Some(good));
        }
        for bad in ["", "k k", "k\t", "\u{a0}", "é\u{2003}", "k\u{b}", &"k".repeat(257)] {
            assert_eq!(LockKey::new(bad), None, "{bad:?}");
        }
        assert_eq!(LockKey::from_bytes(&[b'k', 0xff]), None);
        let key = LockKey::new("k").unwrap();
        assert_eq!(OwnedLockKey::from(key).as_key(), key);
    }

    #[test]
    fn token_converts_to_bytes_and_hex() {
        let token = Token::new(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(&token.to_hex(), b"0123456789abcdeffedcba9876543210");
        assert_eq!(Token::from_hex(&token.to_hex()), Some(token));
        assert_eq!(Token::from_hex(b"0123456789ABCDEFFEDCBA9876543210"), Some(token));
        assert_eq!(Token::from_bytes(token.to_bytes()), token);
        assert_eq!(token.fence(), 0x0123_4567_89ab_cdef);
        for bad in [&b""[..], b"0123", b"+123456789abcdeffedcba9876543210", &[b'0'; 33]] {
            assert_eq!(Token::from_hex(bad), None);
        }
        assert_ne!(token, Token::new(token.fence(), 1));
        assert_ne!(token, Token::new(1, 0xfedc_ba98_7654_3210));
    }

    #[test]
    fn debug_output_omits_secrets() {
        assert_eq!(format!("{:?}", Token::new(7, 0xdead)), "Token(fence 7)");
        assert_eq!(format!("{:?}", LinkId::new([7; 16])), "LinkId(…)");
    }
}
