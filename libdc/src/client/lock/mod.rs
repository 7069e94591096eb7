//! A client for distributed locks and semaphores, through an agent or directly at a server.
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
//! [`LockClient`] is asynchronous; [`blocking`] offers the same client to threads.
//!
//! # Guarantees and their limits
//!
//! A lock is a lease: the server promises, for a time, to grant it to no other client. A [`Guard`] renews the
//! lease in the background. By the local clock, counted from before each request was sent, it knows until
//! when the lease certainly lasts. A process that is suspended for longer cannot detect the loss before it
//! runs again. If concurrent access would do damage, send the [`fence`](Guard::fence) along with each request
//! to the protected resource. The resource must refuse a fence smaller than the greatest one it has seen.
//!
//! # Forked processes
//!
//! A client belongs to the process that created it. In a forked child, methods that send a request fail with
//! [`LockError::Forked`], guards count as lost, and dropping a client or guard has no effect.

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
