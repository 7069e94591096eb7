//! Listeners: binding, accepting, and the limit of connections.

pub mod accept;
mod error;
pub mod limiter;
mod listener;
mod permissions;
mod stream_socket;
mod unix;

pub use error::{ListenError, ListenStep};
pub use listener::{Listener, ListenerSocket};
pub use permissions::{SocketMode, SocketModeError, SocketPermissions};
