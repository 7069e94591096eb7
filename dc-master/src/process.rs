//! The process of a child: its pid, notifications, output and signals.

use crate::launch::Launched;
use crate::notify_listener::NotifyListener;
use crate::output::{ChildOutput, ChildStream};
use crate::supervisor::ChildId;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use nix::unistd::Pid;
use std::fmt;
use std::fs;
use std::io::{self, PipeReader, Read};
use std::time::Instant;
use tracing::warn;

/// A child. Its pid is not reused before it has been reaped.
#[derive(Debug)]
pub(crate) struct ChildProcess {
    pub(crate) id: ChildId,
    pub(crate) pid: Pid,
    pub(crate) notices: NotifyListener,
    /// The last `STATUS=` of the child.
    pub(crate) status: Option<String>,
    /// When the child counts as ready; set by `READY=1`.
    pub(crate) believed_at: Option<Instant>,
    /// Whether it has been reaped and only its entry remains.
    pub(crate) ended: bool,
    failure: PipeReader,
}

impl ChildProcess {
    /// Follows what was launched.
    ///
    /// # Errors
    /// If the runtime cannot watch it.
    pub(crate) fn new(id: ChildId, launched: Launched, output: &mut ChildOutput) -> io::Result<Self> {
        let Launched { pid, notices, output: written, errors, failure } = launched;
        output.follow(pid, ChildStream::Output, written)?;
        output.follow(pid, ChildStream::Errors, errors)?;
        Ok(Self {
            id,
            pid,
            notices: NotifyListener::new(notices, pid)?,
            status: None,
            believed_at: None,
            ended: false,
            failure,
        })
    }

    pub(crate) fn signal(&self, signal: Signal) {
        if let Err(error) = kill(self.pid, signal) {
            // The child has changed its user to root.
            warn!(child = self.pid.as_raw(), signal = signal.as_str(), %error, "cannot send a signal");
        }
    }

    /// Whether it catches or ignores the signal, which would otherwise kill it.
    pub(crate) fn is_prepared_for(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).unwrap_or_default();
        let masks = status
            .lines()
            .filter_map(|line| line.strip_prefix("SigCgt:").or_else(|| line.strip_prefix("SigIgn:")));
        let bit = 1_u64 << (signal as i32 - 1);
        masks.filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok()).any(|mask| mask & bit != 0)
    }

    /// Whether it is running. A child that has ended remains to be reaped.
    pub(crate) fn lives(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        matches!(waitid(Id::Pid(self.pid), flags), Ok(WaitStatus::StillAlive))
    }

    /// Why its command could not be executed, once it has ended; `None` if it was executed.
    pub(crate) fn failure(&mut self) -> Option<String> {
        let mut reason = String::new();
        // The other end was closed by the exec or with the stub.
        self.failure.read_to_string(&mut reason).ok()?;
        (!reason.is_empty()).then_some(reason)
    }
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitReason {
    /// With this exit status.
    Exited(i32),
    Signaled(Signal),
}

impl fmt::Display for ExitReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(status) => write!(f, "{status}"),
            Self::Signaled(signal) => f.write_str(signal.as_str()),
        }
    }
}

/// Reaps the next process that has ended: a child or an orphaned descendant. `None` if there is none.
pub(crate) fn reap() -> Option<(Pid, ExitReason)> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => return Some((pid, ExitReason::Exited(status))),
            Ok(WaitStatus::Signaled(pid, signal, _)) => return Some((pid, ExitReason::Signaled(signal))),
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return None,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                warn!(%error, "cannot wait for children");
                return None;
            }
        }
    }
}
