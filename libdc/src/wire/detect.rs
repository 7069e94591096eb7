//! The first byte of a connection, which tells the protocols apart.

use std::fmt;

/// The first byte of every handshake of TLS: the type of its record.
pub const TLS_FIRST_BYTE: u8 = 0x16;

/// What a connection begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// 0x00: frames, of whatever class.
    Frames,
    /// A lower-case letter: the three-line text protocol.
    Text,
    /// 0x16: a handshake of TLS.
    Tls,
    /// Anything else is none of ours.
    Unknown(u8),
}

impl Protocol {
    /// What a connection is that begins with `first`.
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
            Self::Frames => f.write_str("frames of distcache"),
            Self::Text => f.write_str("the text protocol"),
            Self::Tls => f.write_str("a handshake of TLS"),
            Self::Unknown(byte) => write!(f, "byte 0x{byte:02x}, which no protocol here begins with"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_tells_the_protocol() {
        for (byte, opening) in [
            (0x00, Protocol::Frames),
            (0x16, Protocol::Tls),
            (b'a', Protocol::Text),
            (b'z', Protocol::Text),
            (b'A', Protocol::Unknown(b'A')),
            (0x01, Protocol::Unknown(1)),
            (0x80, Protocol::Unknown(0x80)),
        ] {
            assert_eq!(Protocol::detect(byte), opening);
        }
        let text = Protocol::detect(0x80).to_string();
        assert_eq!(text, "byte 0x80, which no protocol here begins with");
    }
}
