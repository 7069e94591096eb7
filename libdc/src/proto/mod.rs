//! The machines between bytes and answers: pure values that a driver feeds with bytes and the time.
//!
//! A machine can be put down between any two calls: nothing of a connection's state is elsewhere.

pub mod flight;
mod holdings;
pub mod link;
pub mod local;
mod local_frames;
mod local_locks;
mod local_table;
mod local_text;
mod lock_flight;
pub mod multiplexer;
pub mod observe;
pub mod outbox;
pub mod resume;
pub mod server;
mod speech;
