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
//! | `secret`, [`net`], [`client`] | the shared secret, sockets, the life of a daemon, the API of applications | all |
//!
//! Up to `proto` everything is pure: no socket, no clock, no randomness, no runtime. Bytes and the
//! time go in, bytes and deadlines come out, so a whole fleet runs in one thread of a test on a
//! virtual clock. The features `tokio` (drivers and listeners in `net`, the asynchronous client) and
//! `daemon` (listeners, module `process`) are on by default; without them the core, addresses and the blocking
//! client remain.
//!
//! An application wants [`client`].
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
