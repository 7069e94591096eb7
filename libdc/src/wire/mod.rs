//! Bytes to messages and back, one file for each format.
//!
//! Parsing never panics on a peer's input and never allocates a length that a peer named: memory grows with
//! the bytes received.

pub mod decode_error;
pub mod detect;
pub mod frame;
pub mod line;
pub mod link;
pub mod lock;
pub mod message;
pub mod operation;
pub mod session;
