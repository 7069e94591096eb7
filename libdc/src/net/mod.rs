//! Sockets: addresses, listeners, and the drivers that move bytes between a socket and a machine.

pub mod address;
#[cfg(any(feature = "tokio", feature = "daemon"))]
pub mod listen;
#[cfg(any(feature = "tokio", feature = "daemon"))]
mod unix_socket;
