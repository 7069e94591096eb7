//! Detection of a connection's protocol by its first byte.

use std::fmt;

/// The first byte of every TLS handshake: the type of its record.
pub const TLS_FIRST_BYTE: u8 = 0x16;

/// The protocol of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 0x00: frames of any class.
    Frames,
    /// A lower-case letter: the three-line protocol of locks.
    Text,
    /// 0x16: a TLS handshake, as a client sends it first.
    Tls,
    /// Any other byte: none of our protocols.
    Unknown(u8),
}

impl Protocol {
    /// The protocol of a connection whose first byte is `first`.
    #[must_use]
    pub const fn detect(first: u8) -> Self {
        match first {
            0x00 => Self::Frames,
            b'a'..=b'z' => Self::Text,
            TLS_FIRST_BYTE => Self::Tls,
            other => Self::Unknown(other),
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frames => f.write_str("distcache frames"),
            Self::Text => f.write_str("a line-protocol request"),
            Self::Tls => f.write_str("a TLS handshake"),
            Self::Unknown(byte) => write!(f, "byte 0x{byte:02x}, which starts no known protocol"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_byte_selects_protocol() {
        for (byte, protocol) in [
            (0x00, Protocol::Frames),
            (0x16, Protocol::Tls),
            (b'a', Protocol::Text),
            (b'z', Protocol::Text),
            (b'A', Protocol::Unknown(b'A')),
            (0x01, Protocol::Unknown(1)),
            (0x80, Protocol::Unknown(0x80)),
        ] {
            assert_eq!(Protocol::detect(byte), protocol);
        }
        let text = Protocol::detect(0x80).to_string();
        assert_eq!(text, "byte 0x80, which starts no known protocol");
    }
}
