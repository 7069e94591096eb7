//! The machines between bytes and answers: pure values that a driver feeds with bytes and the time.
//!
//! A machine can be put down between any two calls: nothing of a connection's state is elsewhere.

pub mod agent;
pub mod handshake;
pub mod link;
pub mod machine;
pub mod observe;
pub mod outbox;
pub mod pending;
pub mod server;
