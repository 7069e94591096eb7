//! Bytes to messages and back, one file for each format.
//!
//! Nothing here panics on what a peer sent, and nothing allocates a length that a peer named: memory
//! grows with the bytes that came.

pub mod decode_error;
pub mod detect;
pub mod frame;
pub mod line;
pub mod link;
pub mod lock;
pub mod message;
pub mod operation;
pub mod session;
