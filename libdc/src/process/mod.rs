//! The life of a daemon: detaching, pidfile, user, leftovers, signals, what outlives it ([`state`]), and the types that put them in order
//! ([`life`]); descriptors that a supervisor passes ([`passed`]) and that go from one process to another
//! ([`passing`]), and what a service tells its supervisor ([`notify`]).

pub mod account;
pub mod activation;
pub mod cleanup;
pub mod descriptors;
pub mod detach;
pub mod fd_passing;
pub mod file_limit;
pub mod lifecycle;
pub mod notify;
pub mod pidfile;
pub mod privileges;
#[cfg(feature = "tokio")]
pub mod signals;
pub mod state;
