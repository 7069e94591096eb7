//! The tokio runtime of one thread.

use std::io;
use tokio::runtime::{Builder, Runtime};

/// A current-thread runtime with timers and sockets.
///
/// # Errors
/// The system refuses a descriptor.
pub fn runtime() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}
