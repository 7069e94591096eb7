//! The values inside messages: ids, session data, times and counts, with or without secrets.

use libdc::id::SessionId;
use sha2::{Digest, Sha256};
use std::fmt;

/// Whether session data and tokens are written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Redaction {
    /// As a length and a digest.
    #[default]
    Hidden,
    /// In full, as hexadecimal digits.
    Shown,
}

/// An id, abbreviated: `5f0a…c9 (32)`. One of up to four bytes is shown whole.
#[must_use]
pub const fn show_id(id: &[u8]) -> impl fmt::Display + '_ {
    DisplayId(id)
}

pub(super) const fn show_session_id(id: SessionId<'_>) -> DisplayId<'_> {
    DisplayId(id.as_bytes())
}

pub(super) struct DisplayId<'a>(&'a [u8]);

impl fmt::Display for DisplayId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => write!(f, "- (0)"),
            [first, second, .., last] if self.0.len() > 4 => {
                write!(f, "{first:02x}{second:02x}…{last:02x} ({})", self.0.len())
            }
            short => write!(f, "{} ({})", show_hex(short), short.len()),
        }
    }
}

/// Session data: `183 bytes 8e1d04b7` or, with the secrets shown, `183 bytes` and all of their digits.
#[must_use]
pub const fn show_data(data: &[u8], secrets: Redaction) -> impl fmt::Display + '_ {
    DisplayData { data, secrets }
}

struct DisplayData<'a> {
    data: &'a [u8],
    secrets: Redaction,
}

impl fmt::Display for DisplayData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", bytes(self.data.len()))?;
        match self.secrets {
            Redaction::Hidden => write!(f, "{:08x}", digest(self.data)),
            Redaction::Shown => write!(f, "{}", show_hex(self.data)),
        }
    }
}

/// All the bytes as hexadecimal digits.
#[must_use]
pub const fn show_hex(bytes: &[u8]) -> impl fmt::Display + '_ {
    DisplayHex(bytes)
}

struct DisplayHex<'a>(&'a [u8]);

impl fmt::Display for DisplayHex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first four bytes of the SHA-256 of `data`: distinguishes secrets without revealing them.
#[must_use]
pub fn digest(data: &[u8]) -> u32 {
    let hash = Sha256::digest(data);
    hash.iter().take(4).fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// Milliseconds as a person writes them: `60s`, `1500ms`.
pub(super) const fn show_ms(ms: u64) -> impl fmt::Display {
    DisplayMs(ms)
}

struct DisplayMs(u64);

impl fmt::Display for DisplayMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}s", self.0 / 1000) } else { write!(f, "{}ms", self.0) }
    }
}

pub(super) const fn bytes(count: usize) -> impl fmt::Display {
    DisplayBytes(count)
}

struct DisplayBytes(usize);

impl fmt::Display for DisplayBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}
