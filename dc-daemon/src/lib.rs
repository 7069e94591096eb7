//! The lifecycle of a distcache daemon, and the tokio drivers that move bytes between sockets and machines.
//!
//! - [`start`] starts a daemon from its options: [`lifecycle`], [`detach`], [`pidfile`], [`cleanup`],
//!   [`privileges`], [`account`], [`signals`], [`state`].
//! - [`activation`], [`fds`], [`fd_passing`], [`notify`], [`service_manager`]: sockets and messages exchanged
//!   with a service manager.
//! - [`log`]: one line per event, to standard error or to syslog.
//! - [`listen`]: listeners and the connection limit.
//! - [`drivers`]: the tasks that serve connections.
#![forbid(unsafe_op_in_unsafe_fn)]

pub mod account;
pub mod activation;
mod auth_options;
pub mod cleanup;
mod daemon_options;
pub mod descriptors;
pub mod detach;
pub mod drivers;
pub mod fd_passing;
pub mod fds;
pub mod file;
pub mod file_limit;
pub mod lifecycle;
pub mod listen;
pub mod log;
pub mod notify;
pub mod pidfile;
pub mod privileges;
#[cfg(test)]
#[path = "../../tests/src/harness/require.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where the file stands")]
mod require;
pub mod service_manager;
pub mod signals;
mod socket_options;
pub mod start;
pub mod state;
pub mod token_file;

pub use auth_options::AuthOptions;
pub use daemon_options::DaemonOptions;
pub use log::LogOptions;
pub use socket_options::SocketOptions;
