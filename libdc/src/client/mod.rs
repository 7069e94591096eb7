//! The API for applications: sessions stored, fetched, asked for and removed through an agent, or straight
//! from a server.
//!
//! [`Client`] is asynchronous (feature `tokio`); [`blocking::Client`] needs neither threads nor a runtime and
//! is at home in a process that forks. They differ in nothing else.
//!
//! ```no_run
//! use libdc::client::{Options, blocking::Client};
//! use std::time::Duration;
//!
//! let mut client = Client::new("UNIX:/tmp/scache".parse()?, Options::default());
//! client.add(b"id", b"session", Duration::from_secs(300))?;
//! assert_eq!(client.get(b"id")?.as_deref(), Some(&b"session"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The modes of the original library (`DC_CTX`) and how to have them:
//!
//! | there | here |
//! |---|---|
//! | no flag | [`ConnectionMode::Temporary`] |
//! | `PERSISTENT` | [`ConnectionMode::Persistent`], opened by `connect` |
//! | `PERSISTENT_PIDCHECK` | its `notice_fork` |
//! | `PERSISTENT_RETRY` | its `retry` |
//! | `PERSISTENT_LATE` | `new` in the place of `connect` |
//!
//! A client does one operation at a time. Threads and tasks have one client each, or share one behind a lock.
//!
//! Locks are [`lock`]'s affair: they are held over a connection of their own, which is kept.
//!
//! Limits: an id has 1 to 64 bytes, a session 1 to 32,760 less those of its id, and is kept for seven days at
//! most. An answer to GET of a single byte that is the number of a status can't be told from that status, so
//! a session of one byte is better not stored.

#[cfg(feature = "async")]
pub mod lock;
mod session;

#[cfg(feature = "async")]
pub use session::Client;
pub use session::{ConnectionMode, Error, OperationPhase, Refusal, SessionOptions, blocking};
