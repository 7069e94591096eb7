//! The server's side of a connection: the machine, and the two protocols that it speaks.

mod blocked;
pub mod connection;
mod frames;
mod lines;

pub use connection::{ServerCloseReason, ServerConnection, ServerContext};
