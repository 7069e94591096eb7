//! Why `dc_master` does not start, or ends early.

use dc_daemon::lifecycle::LifecycleError;
use dc_daemon::notify::NotifyError;
use dc_daemon::start::{ProgramFailure, StartError};
use std::io;

/// Why the master does not start, or ends without having been told to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum MasterError {
    /// A socket, an account or the log.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Detaching or the pidfile.
    #[error(transparent)]
    Life(#[from] LifecycleError),
    /// What supervises the master can't be told.
    #[error(transparent)]
    Notify(#[from] NotifyError),
    /// The command can't be executed at all.
    #[error("can't start {0}")]
    Command(String),
    /// Children died too often.
    #[error("the command was restarted {0} times within a minute, and has died again")]
    TooManyRestarts(usize),
    /// The system refuses what the master needs to run.
    #[error("can't start: {0}")]
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
