//! The tasks that serve connections: bytes between sockets and machines, and the times.

pub mod agent;
mod buffers;
mod mailbox;
pub mod registry;
pub mod server;
pub mod workers;
