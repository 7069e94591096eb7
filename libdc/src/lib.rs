//! Sessions and locks shared by a fleet of servers.
//!
//! Everything of distcache that can be wrong is in this library, and tested here; the programs
//! (`dc_server`, `dc_client`, `dc_snoop`, `dc_test`) are options and wiring.
//!
//! | layer | what it is | may use |
//! |---|---|---|
//! | [`limits`], [`id`], [`time`] | bounds, identifiers, the time as an argument | nothing |
//! | [`wire`] | bytes to messages and back | the above |
//! | [`table`] | what the server knows | limits, id, time |
//! | [`service`] | a request in, the answer out | wire, table |
//! | [`proto`] | the machines between bytes and answers | wire, service |
//! | [`auth`], `file`, [`net`], `process`, [`client`] | the shared secret, sockets, the life of a daemon, the API of applications | all |
//!
//! Up to `proto` everything is pure: no socket, no clock, no randomness, no runtime. Bytes and the
//! time go in, bytes and deadlines come out, so a whole fleet runs in one thread of a test on a
//! virtual clock. The features `tokio` (drivers and listeners in `net`, the asynchronous client) and
//! `daemon` (listeners, module `process`) are on by default; without them the core, addresses and the blocking
//! client remain.
//!
//! An application wants [`client`].
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod auth;
pub mod client;
#[cfg(any(feature = "tokio", feature = "daemon"))]
pub mod file;
pub mod id;
pub mod limits;
pub mod net;
#[cfg(feature = "daemon")]
pub mod process;
pub mod proto;
#[cfg(all(test, feature = "daemon", target_os = "linux"))]
#[path = "../../tests/src/harness/require.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where the file stands")]
mod require;
pub mod service;
pub mod table;
pub mod time;
pub mod wire;
