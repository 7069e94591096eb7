//! Why `NOTIFY_SOCKET` cannot be used.

use std::ffi::OsString;
use std::io;

/// Why what the environment names is no supervisor.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// It is neither a path nor an abstract address.
    #[error("NOTIFY_SOCKET={}: neither an absolute path nor @ and a name", name.display())]
    NoAddress {
        /// The value of the variable.
        name: OsString,
    },
    /// No message can be sent there.
    #[error("NOTIFY_SOCKET={}: can't be used: {source}", name.display())]
    Unusable {
        /// The value of the variable.
        name: OsString,
        /// Why not.
        source: io::Error,
    },
    /// The time of the watchdog, or its process, is no number above 0.
    #[error("{variable}={}: not a number above 0", value.display())]
    Watchdog {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: OsString,
    },
}
