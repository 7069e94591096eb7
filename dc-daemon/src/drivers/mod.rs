//! The tasks that serve connections: bytes between sockets and machines, and the times.

pub mod agent;
mod buffers;
mod mailbox;
pub mod server;
mod switchboard;
pub mod workers;
