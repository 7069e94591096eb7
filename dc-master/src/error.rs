//! Errors that prevent the start of `dc_master` or end it early.

use dc_daemon::lifecycle::LifecycleError;
use dc_daemon::notify::NotifyError;
use dc_daemon::start::{ProgramFailure, StartError};
use std::io;

/// Why the master failed to start, or ended without a signal.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MasterError {
    /// A socket, an account or the log.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Detaching or the pidfile.
    #[error(transparent)]
    Life(#[from] LifecycleError),
    /// `NOTIFY_SOCKET` of the master's service manager is unusable.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The command cannot be executed at all.
    #[error("cannot start {0}")]
    Command(String),
    /// Children died too often.
    #[error("the command was restarted {0} times within a minute, and has died again")]
    TooManyRestarts(usize),
    /// The system refuses what the master needs to run.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl ProgramFailure for MasterError {
    fn status(&self) -> u8 {
        match self {
            Self::Start(error) => error.status(),
            _ => 1,
        }
    }
}
