//! The API for applications: store, fetch, check and remove sessions, through an agent or directly at a
//! server.
//!
//! [`Client`] is asynchronous (feature `async`). [`blocking::Client`] needs neither threads nor a runtime,
//! and suits processes that fork. Otherwise both behave alike.
//!
//! ```no_run
//! use libdc::client::{SessionOptions, blocking::Client};
//! use std::time::Duration;
//!
//! let mut client = Client::new("UNIX:/tmp/scache".parse()?, SessionOptions::default());
//! client.add(b"id", b"session", Duration::from_secs(300))?;
//! assert_eq!(client.get(b"id")?.as_deref(), Some(&b"session"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The modes of the original distcache library (`DC_CTX`) and their equivalents:
//!
//! | original | here |
//! |---|---|
//! | no flag | [`ConnectionMode::Temporary`] |
//! | `PERSISTENT` | [`ConnectionMode::Persistent`], opened by `connect` |
//! | `PERSISTENT_PIDCHECK` | its `notice_fork` |
//! | `PERSISTENT_RETRY` | its `retry` |
//! | `PERSISTENT_LATE` | `new` instead of `connect` |
//!
//! A client performs one operation at a time. Each thread or task has a client, or several share one behind a
//! lock.
//!
//! Locks are in [`lock`]: they are held on a separate connection, which stays open.
//!
//! Limits: an id has 1 to 64 bytes. A session has 1 to 32,760 bytes, less those of its id, and is stored for
//! at most seven days. An answer to GET of a single byte cannot be told from a status with that number, so
//! sessions of one byte should not be stored.

#[cfg(feature = "async")]
pub mod lock;
mod session;

#[cfg(feature = "async")]
pub use session::Client;
pub use session::{ConnectionMode, Error, OperationPhase, Refusal, SessionOptions, blocking};
