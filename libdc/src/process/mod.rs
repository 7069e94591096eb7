//! The life of a daemon: detaching, pidfile, user, leftovers, signals, what outlives it ([`state`]), and the types that put them in order
//! ([`life`]); descriptors that a supervisor passes ([`passed`]) and that go from one process to another
//! ([`passing`]), and what a service tells its supervisor ([`notify`]).

pub mod account;
pub mod custodian;
pub mod descriptors;
pub mod detach;
pub mod file_limit;
pub mod life;
pub mod notify;
pub mod passed;
pub mod passing;
pub mod pidfile;
pub mod privileges;
#[cfg(feature = "tokio")]
pub mod signals;
pub mod state;
