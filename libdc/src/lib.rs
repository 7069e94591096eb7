//! Sessions and locks shared by a fleet of servers: the clients of distcache, and the core of its programs.
//!
//! An application talks to the agent of its host, `dc_client`, over a Unix socket, or straight to
//! `dc_server`. Sessions are stored under an id until they expire. Locks are leases that the client renews in
//! the background.
//!
//! A session, with the blocking client, which needs neither threads nor a runtime:
//!
//! ```no_run
//! use libdc::{Address, SessionOptions, blocking};
//! use std::time::Duration;
//!
//! let agent: Address = "UNIX:/tmp/scache".parse()?;
//! let mut client = blocking::Client::new(agent, SessionOptions::default());
//! client.add(b"id", b"session", Duration::from_secs(300))?;
//! assert_eq!(client.get(b"id")?.as_deref(), Some(&b"session"[..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! A lock, with the asynchronous client (feature `async`):
//!
//! ```no_run
//! # #[cfg(feature = "async")]
//! # async fn nightly() -> Result<(), Box<dyn std::error::Error>> {
//! use libdc::{AcquireOptions, LockClient, LockOptions};
//!
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
//! # Features
//!
//! | feature | what it adds |
//! |---|---|
//! | `async` (default) | the asynchronous clients of sessions and locks, on tokio |
//! | `tls` (default) | TLS on the sockets of the daemons |
//! | `server`, `agent` | the tables and the machines of `dc_server` and `dc_client` |
//!
//! Without default features the blocking session client remains.
//!
//! # Limits and guarantees
//!
//! - An id has 1 to 64 bytes, a session 1 to 32,760 less those of its id. A session is kept for at most seven
//!   days.
//! - A lock's key has 1 to 256 bytes. A `Guard` counts as lost before the server can grant the lock to
//!   another client, as long as the holder's process runs. A suspended process may not notice the loss, so a
//!   store should refuse a fence (`Guard::fence`) smaller than any it has seen.
//! - Fences are monotonically increasing: a later grant of any lock has a greater fence.
//! - Everything is bounded; [`limits`] has the figures.
//!
//! # Layers
//!
//! A layer uses those above it. Up to `proto` everything is pure: bytes and the time go in, bytes and
//! deadlines come out.
//!
//! | layer | contents |
//! |---|---|
//! | [`limits`], [`id`], [`time`] | bounds, identifiers, the time as an argument |
//! | `secret` | the auth token |
//! | [`wire`] | bytes to messages and back |
//! | `table` | what the server keeps |
//! | `service` | a request in, the answer out |
//! | `proto` | the machines of connections |
//! | [`net`] | addresses, sockets, TLS |
//! | [`client`] | the clients of applications |
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod client;
pub mod id;
pub mod limits;
pub mod net;
#[cfg(any(feature = "agent", feature = "async", feature = "server"))]
pub mod proto;
#[cfg(any(feature = "agent", feature = "async", feature = "server"))]
pub mod secret;
#[cfg(feature = "server")]
pub mod service;
#[cfg(feature = "server")]
pub mod table;
pub mod time;
pub mod wire;

#[cfg(feature = "async")]
pub use client::Client;
#[cfg(feature = "async")]
pub use client::lock::{AcquireOptions, Guard, LockClient, LockError, LockOptions, Loss, QueuedLock};
pub use client::{ConnectionMode, Error, SessionOptions, blocking};
pub use net::address::Address;
