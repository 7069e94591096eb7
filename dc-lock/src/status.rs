//! Exit statuses and their messages. The numbers are those of sysexits.h and of the shell.

use crate::options::PROGRAM;
use dc_daemon::token_file::TokenFileError;
use libdc::client::lock::{LockError, Loss};
use std::fmt::Display;
use std::io::{self, ErrorKind, Write};
use thiserror::Error;

/// The lock was lost while the command ran (`EX_PROTOCOL`).
pub(crate) const LOST: u8 = 76;

/// Why a command has no exit status.
#[derive(Debug, Error)]
pub(crate) enum LockFailure {
    /// The lock was not acquired.
    #[error("{0}")]
    Lock(#[from] LockError),
    /// The lock was lost before the command was started.
    #[error("the lock was lost before the command could be started: {0}")]
    LostBefore(Loss),
    /// Another holds the lock.
    #[error("the lock is held by another client")]
    Conflict {
        /// The exit status for this.
        status: u8,
    },
    /// A signal arrived while waiting.
    #[error("ended by signal {number}")]
    Signal { number: u8 },
    /// The file of the token gives none.
    #[error(transparent)]
    Token(#[from] TokenFileError),
    /// The command cannot be started.
    #[error("cannot run {command}: {source}")]
    Command { command: String, source: io::Error },
    /// The command was started, but waiting for its end failed.
    #[error("cannot tell how the command has ended: {0}")]
    Wait(io::Error),
    /// A runtime or a signal handler could not be created.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
}

impl LockFailure {
    pub(crate) fn status(&self) -> u8 {
        match self {
            Self::Lock(error) => status_of(error),
            Self::LostBefore(_) => LOST,
            Self::Conflict { status } => *status,
            Self::Signal { number } => 128 + number,
            Self::Token(_) => 66,
            Self::Command { source, .. } => match source.kind() {
                ErrorKind::NotFound => 127,
                ErrorKind::WouldBlock | ErrorKind::OutOfMemory => 71,
                _ => 126,
            },
            Self::Wait(_) | Self::System(_) => 71,
        }
    }

    /// Whether it is printed only with `-verbose`, since the exit status is enough.
    pub(crate) const fn is_quiet(&self) -> bool {
        matches!(self, Self::Conflict { .. } | Self::Signal { .. })
    }
}

const fn status_of(error: &LockError) -> u8 {
    match error {
        LockError::Connect { .. }
        | LockError::Disconnected(_)
        | LockError::AgentDisconnected
        | LockError::NoAnswer
        | LockError::MaxLocks
        | LockError::MaxWaiters
        | LockError::Unsupported => 69,
        LockError::Auth => 77,
        _ => 70,
    }
}

/// Says something on stderr, in one line.
pub(crate) fn print_error(what: &impl Display) {
    // If standard error is closed, the exit status still reports it.
    writeln!(io::stderr(), "{}: {what}", PROGRAM.name).ok();
}
