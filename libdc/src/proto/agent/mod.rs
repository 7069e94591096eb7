//! The agent: its local connections, and the multiplexer that carries their requests over one link.

mod frames;
pub(crate) mod held;
mod lines;
pub mod local;
mod local_table;
mod locks;
pub mod multiplexer;
pub(crate) mod origin;
mod protocol;
