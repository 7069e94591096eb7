//! Locks shared by a fleet: taken, held and given back through an agent, or straight at a server.
//!
//! ```no_run
//! use libdc::client::lock::{AcquireOptions, LockClient, LockOptions};
//! use std::time::Duration;
//!
//! # async fn nightly() -> Result<(), Box<dyn std::error::Error>> {
//! let client = LockClient::connect("UNIX:/tmp/scache".parse()?, LockOptions::default()).await?;
//! let guard = client.acquire("nightly-backup", &AcquireOptions::default()).await?;
//! tokio::select! {
//!     () = back_up(guard.fence()) => guard.release().await?,
//!     loss = guard.lost() => return Err(loss.into()),
//! }
//! # Ok(())
//! # }
//! # async fn back_up(_: u64) {}
//! ```
//!
//! [`LockClient`] is asynchronous; [`blocking`] is the same for threads.
//!
//! What a [`Guard`] promises, and what it can't: a lease is a promise of the server for a time. The guard renews it and
//! knows, by the local clock and counting from before each request was sent, until when it surely runs. A holder that
//! is stopped for longer than that, and goes on, does not know. So whatever must not be done by two at once is
//! best told the [`fence`](Guard::fence), and refuses smaller ones than it has seen.
//!
//! A client is of the process that made it. A forked child must not use it: there its methods answer
//! [`LockError::Forked`], its guards count as lost, and dropping any of it does nothing.

pub mod blocking;
mod boot_clock;
mod calls;
mod client;
mod driver;
#[cfg(test)]
mod driver_tests;
mod error;
mod guard;
mod lease;
mod machine;
#[cfg(test)]
mod machine_tests;
mod options;
mod shared;

pub use client::LockClient;
pub use error::{LockError, LockLinkError, Loss};
pub use guard::{Guard, QueuedLock};
pub use options::{AcquireOptions, LockOptions, PeerKind};
