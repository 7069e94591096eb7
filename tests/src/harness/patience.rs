//! The time limit for events in tests.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The longest wait for an event. Events wake the test at once, so only failing tests take this long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Runs `wait`, which blocks until `what` happens, and returns its result.
pub fn with_timeout<T: Send + 'static>(what: &str, wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Sending fails after the timeout, when the receiver is dropped.
    thread::spawn(move || sender.send(wait()).ok());
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error} after {PATIENCE:?}"))
}
