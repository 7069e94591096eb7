//! How long an event is waited for before the test is given up.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

/// The longest wait for anything. An event that comes is acted upon at once, so this costs only who fails.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The result of `wait`, which blocks until `what` happens.
pub fn with_timeout<T: Send + 'static>(what: &str, wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    // Nobody waits any more when this fails.
    thread::spawn(move || sender.send(wait()).ok());
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error} after {PATIENCE:?}"))
}
