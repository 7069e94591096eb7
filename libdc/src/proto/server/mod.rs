//! The server's side of a connection: the machine, and the two protocols that it speaks.

mod blocked;
mod close_reason;
pub mod connection;
mod frames;
mod lines;

pub use close_reason::ServerCloseReason;
pub use connection::{Notification, ServerConnection, ServerContext, ServerTimeouts};
