//! The machines between bytes and answers: pure values that a driver feeds with bytes and the time.
//!
//! A machine holds the whole state of its connection, so it can be suspended between any two calls.

#[cfg(feature = "agent")]
pub mod agent;
#[cfg(any(feature = "agent", feature = "async"))]
#[cfg_attr(
    not(all(feature = "agent", feature = "async")),
    allow(dead_code, reason = "agent and lock client share the link, and each uses a part of it")
)]
pub mod handshake;
#[cfg(any(feature = "agent", feature = "async"))]
#[cfg_attr(
    not(all(feature = "agent", feature = "async")),
    allow(dead_code, reason = "agent and lock client share the link, and each uses a part of it")
)]
pub(crate) mod input;
#[cfg(any(feature = "agent", feature = "async"))]
#[cfg_attr(
    not(all(feature = "agent", feature = "async")),
    allow(dead_code, reason = "agent and lock client share the link, and each uses a part of it")
)]
pub(crate) mod keepalive;
#[cfg(any(feature = "agent", feature = "async"))]
#[cfg_attr(
    not(all(feature = "agent", feature = "async")),
    allow(dead_code, reason = "agent and lock client share the link, and each uses a part of it")
)]
pub mod link;
pub mod machine;
pub mod outbox;
#[cfg(any(feature = "agent", feature = "async"))]
#[cfg_attr(
    not(all(feature = "agent", feature = "async")),
    allow(dead_code, reason = "agent and lock client share the link, and each uses a part of it")
)]
pub mod pending;
#[cfg(any(feature = "agent", feature = "async"))]
pub mod reconnect;
#[cfg(feature = "server")]
pub mod server;
