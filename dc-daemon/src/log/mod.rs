//! The log of a program: one line an event, to stderr or to the local syslog.
//!
//! ```text
//! 2026-03-01T12:00:01.204Z  INFO connected to the server server=IP:10.0.0.1:9001 after_ms=17
//! {"timestamp":"2026-03-01T12:00:01.204Z","level":"INFO","message":"connected to the server","server":"IP:10.0.0.1:9001","after_ms":17,"target":"dc_client"}
//! ```
//!
//! To log neither stops nor slows nor ends the program. A line that would have to wait (a pipe that nobody reads,
//! a syslog that is stopped), or that can't be written (a full disk, a closed stderr, no syslog), is lost; how
//! many were lost is logged as soon as a line gets through again. A line is whole or not there: each is written
//! at once, and control characters in it are escaped, so that what a peer sent makes no lines of its own.

mod line;
mod options;
mod stderr;
mod stream;
mod subscriber;
mod syslog;

pub use options::{LogFilter, LogFormat, LogOptions};
pub use stream::{StdStream, WRITE_BYTES_MAX};
pub use subscriber::{Log, LogError, log_to_syslog, start, unblock};
