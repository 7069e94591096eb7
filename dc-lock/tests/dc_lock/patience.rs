//! Timeouts of the tests.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::sync::mpsc::{self, RecvTimeoutError, SyncSender};
use std::thread;
use std::time::Duration;

/// Maximum time for any wait. Events are handled at once, so only a failing test takes as long.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The result of `wait`, which blocks until `what` happens.
pub(crate) fn with_timeout<T: Send + 'static>(what: &str, wait: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::sync_channel(1);
    // This fails when the receiver has given up.
    thread::spawn(move || sender.send(wait()).ok());
    receiver.recv_timeout(PATIENCE).unwrap_or_else(|error| panic!("{what}: {error} after {PATIENCE:?}"))
}

/// Kills a process that exceeds the time limit, so that readers of its output or connection fail.
#[derive(Debug)]
pub(crate) struct TestDeadline {
    _until_dropped: SyncSender<()>,
}

impl TestDeadline {
    /// A time limit for the process `pid`, until this is dropped. Drop it before the pid may be reused.
    pub(crate) fn for_process(pid: Pid) -> Self {
        let (sender, receiver) = mpsc::sync_channel(0);
        thread::spawn(move || {
            if receiver.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                eprintln!("dc_lock has not ended after {PATIENCE:?}: killing it");
                kill(pid, Signal::SIGKILL).ok();
            }
        });
        Self { _until_dropped: sender }
    }
}
