//! The log of a program: one line per event, to stderr or to the local syslog.
//!
//! ```text
//! 2026-03-01T12:00:01.204Z  INFO connected to the server server=IP:10.0.0.1:9001 after_ms=17
//! {"timestamp":"2026-03-01T12:00:01.204Z","level":"INFO","message":"connected to the server","server":"IP:10.0.0.1:9001","after_ms":17,"target":"dc_client"}
//! ```
//!
//! Logging never blocks, slows or ends the program. A line that would block (full pipe, stopped syslog
//! daemon) or that cannot be written (full disk, closed stderr, no syslog daemon) is dropped; the number of
//! dropped lines is logged with the next line that is written. A line is written completely or not at all:
//! one write call per line, with control characters escaped, so that data from a peer cannot forge lines.

mod line;
mod options;
mod stderr;
mod stream;
mod subscriber;
mod syslog;

pub use options::{LogFilter, LogFormat, LogOptions};
pub use stream::{StdStream, WRITE_BYTES_MAX};
pub use subscriber::{Log, LogError, log_to_syslog, start, unblock};
