//! Sockets: addresses, listeners, and the drivers that move bytes between a socket and a machine.

#[cfg(feature = "tokio")]
pub mod accept;
pub mod address;
#[cfg(feature = "tokio")]
pub mod agent;
#[cfg(feature = "tokio")]
mod buffers;
#[cfg(feature = "tokio")]
pub mod clock;
#[cfg(feature = "tokio")]
pub mod codec;
#[cfg(feature = "tokio")]
pub mod connect;
#[cfg(feature = "tokio")]
mod expiry_timer;
#[cfg(any(feature = "tokio", feature = "daemon"))]
pub mod fds;
#[cfg(feature = "tokio")]
pub mod limiter;
#[cfg(any(feature = "tokio", feature = "daemon"))]
pub mod listen;
#[cfg(feature = "tokio")]
mod mailbox;
#[cfg(feature = "tokio")]
mod progress;
#[cfg(feature = "tokio")]
pub mod registry;
#[cfg(feature = "tokio")]
pub mod server;
#[cfg(feature = "tokio")]
mod server_task;
#[cfg(feature = "tokio")]
mod server_turn;
#[cfg(feature = "tokio")]
pub mod socket;
#[cfg(feature = "tokio")]
mod switchboard;
#[cfg(feature = "tokio")]
mod timer;
#[cfg(feature = "tokio")]
pub mod tls;
#[cfg(any(feature = "tokio", feature = "daemon"))]
mod unix_socket;
#[cfg(feature = "tokio")]
pub mod workers;
