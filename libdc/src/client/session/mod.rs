//! The session clients, asynchronous and blocking: one operation at a time on one connection.

#[cfg(feature = "async")]
mod asynchronous;
pub mod blocking;
mod error;
mod exchange;
mod options;
#[cfg(feature = "async")]
pub(crate) mod stream;

#[cfg(feature = "async")]
pub use asynchronous::Client;
pub use error::{Error, OperationPhase, Refusal};
pub use options::{ConnectionMode, SessionOptions};
