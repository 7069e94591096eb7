//! Owner, group and mode of a Unix socket.

use std::fmt;
use std::str::FromStr;

/// Owner, group and mode of a Unix socket. `None` keeps the default of the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SocketPermissions {
    /// The user id from `-sockowner`.
    pub owner: Option<u32>,
    /// The group id from `-sockgroup`.
    pub group: Option<u32>,
    /// The mode from `-sockperms`.
    pub mode: Option<SocketMode>,
}

/// The mode of a Unix socket, at most 0777. Connecting needs write permission on Linux.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketMode(u32);

impl SocketMode {
    /// The mode with these permission bits; `None` above 0777.
    #[must_use]
    pub const fn new(bits: u32) -> Option<Self> {
        if bits <= 0o777 { Some(Self(bits)) } else { None }
    }

    /// The permission bits, 0 to 0777.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }
}

impl FromStr for SocketMode {
    type Err = SocketModeError;

    fn from_str(text: &str) -> Result<Self, SocketModeError> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(SocketModeError);
        }
        u32::from_str_radix(text, 8).ok().and_then(Self::new).ok_or(SocketModeError)
    }
}

impl fmt::Display for SocketMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:03o}", self.0)
    }
}

/// The text is not a valid mode of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an octal mode from 000 to 777")]
pub struct SocketModeError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn socket_mode_is_octal_up_to_777() {
        assert_eq!("660".parse(), Ok(SocketMode(0o660)));
        assert_eq!("0777".parse::<SocketMode>().unwrap().to_string(), "777");
        for text in ["", "8", "1000", "-1", "+7", "rw", "0o660", "77777777777777"] {
            assert_eq!(text.parse::<SocketMode>(), Err(SocketModeError), "{text:?}");
        }
    }
}
