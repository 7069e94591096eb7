//! Why `NOTIFY_SOCKET` cannot be used.

use std::ffi::OsString;
use std::io;

/// Why `NOTIFY_SOCKET` or the watchdog variables are invalid.
#[derive(Debug, thiserror::Error)]
pub enum NotifyError {
    /// The value is neither a path nor an abstract address.
    #[error("NOTIFY_SOCKET={}: neither an absolute path nor @ and a name", name.display())]
    NoAddress {
        /// The value of the variable.
        name: OsString,
    },
    /// Messages cannot be sent to the address.
    #[error("NOTIFY_SOCKET={}: cannot connect: {source}", name.display())]
    Unusable {
        /// The value of the variable.
        name: OsString,
        /// The error of the system.
        source: io::Error,
    },
    /// The watchdog interval or its process id is not a number above 0.
    #[error("{variable}={}: not a number above 0", value.display())]
    Watchdog {
        /// The name of the variable.
        variable: &'static str,
        /// The value of the variable.
        value: OsString,
    },
}
