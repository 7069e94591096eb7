//! The machines between bytes and answers: pure values that a driver feeds with bytes and the time.
//!
//! A machine can be put down between any two calls: nothing of a connection's state is elsewhere.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(feature = "agent")]
pub mod handshake;
#[cfg(feature = "agent")]
pub mod link;
pub mod outbox;
#[cfg(feature = "agent")]
pub mod pending;
#[cfg(feature = "server")]
pub mod server;
