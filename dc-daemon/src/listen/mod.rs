//! Listeners: binding, accepting, and the limit of connections.

pub mod accept;
pub mod limiter;
pub mod listener;
pub(crate) mod unix;
