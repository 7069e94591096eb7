//! The exec stub: runs in a child's process before its command.
//!
//! It closes every descriptor that is not the child's, changes to the user, requests a signal for the death
//! of the master, sets `LISTEN_PID`, and executes the command. It writes errors to the pipe that the master
//! reads when the process has ended.
//!
//! Only [`Launcher`](crate::launch::Launcher) starts it, with arguments that are not options.

use crate::options::signal;
use dc_daemon::account::{Account, AccountError};
use dc_daemon::activation::PASSED_FIRST;
use dc_daemon::descriptors::close_all_but;
use dc_daemon::log;
use dc_daemon::privileges::{PrivilegeError, become_user};
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, ExitCode};
use users::os::unix::UserExt;

/// The first argument of an exec stub. No option begins like this.
const MARK: &str = "@start";
/// Exit status if the command cannot be executed, as in the shell.
const STATUS_NOT_EXECUTED: u8 = 126;
/// Exit status if the command does not exist, as in the shell.
const STATUS_NOT_FOUND: u8 = 127;

/// The command to run, its arguments and its user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExecRequest {
    pub(crate) command: OsString,
    pub(crate) arguments: Vec<OsString>,
    /// `-user`, by name or number.
    pub(crate) user: Option<String>,
    /// The signal that the child receives when the master is killed.
    pub(crate) orphan_signal: Option<Signal>,
}

/// The arguments of the exec stub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct MasterExecStub {
    pub(crate) start: ExecRequest,
    /// The process id of the master.
    pub(crate) parent: u32,
    /// The pipe for errors: the first descriptor that is not the child's.
    pub(crate) failure: RawFd,
}

impl MasterExecStub {
    /// Parses the arguments of this process; `None` if they are not those of an exec stub.
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        if arguments.next()? != MARK {
            return None;
        }
        let mut next = || arguments.next()?.into_string().ok();
        let (parent, failure) = (next()?.parse().ok()?, next()?.parse().ok()?);
        let orphan_signal = Some(next()?).filter(|name| !name.is_empty());
        let orphan_signal = orphan_signal.and_then(|name| signal(&name));
        let user = Some(next()?).filter(|name| !name.is_empty());
        let command = arguments.next()?;
        let start = ExecRequest { command, arguments: arguments.collect(), user, orphan_signal };
        Some(Self { start, parent, failure })
    }

    /// Formats the arguments for [`Self::from_arguments`].
    pub(crate) fn into_arguments(self) -> Vec<OsString> {
        let ExecRequest { command, arguments, user, orphan_signal } = self.start;
        let orphan_signal = orphan_signal.map(Signal::as_str).unwrap_or_default();
        let mut line: Vec<OsString> = vec![MARK.into()];
        line.push(self.parent.to_string().into());
        line.push(self.failure.to_string().into());
        line.push(orphan_signal.into());
        line.push(user.unwrap_or_default().into());
        line.push(command);
        line.extend(arguments);
        line
    }

    /// Replaces this process with the command. Returns only on failure.
    pub(crate) fn run(self) -> ExitCode {
        // The process was executed as /proc/self/exe. The name is only informative.
        set_name(c"dc_master").ok();
        let pipe = self.failure_pipe();
        let prepared =
            pipe.as_ref().map_or(Ok(()), |pipe| self.close_all_but_own(pipe)).and_then(|()| self.prepare());
        let error = match prepared {
            Ok(mut command) => ExecError::Execute(command.exec()),
            Err(error) => error,
        };
        let command = self.start.command.to_string_lossy().into_owned();
        let written = pipe.is_some_and(|mut pipe| write!(pipe, "{command}: {error}").is_ok());
        if !written {
            // There is no pipe, so standard error is the only way to report it.
            writeln!(io::stderr(), "dc_master: cannot start {command}: {error}").ok();
        }
        let missing = matches!(&error, ExecError::Execute(error) if error.kind() == io::ErrorKind::NotFound);
        ExitCode::from(if missing { STATUS_NOT_FOUND } else { STATUS_NOT_EXECUTED })
    }

    fn prepare(&self) -> Result<Command, ExecError> {
        // Inherited from the master.
        log::unblock();
        let mut command = Command::new(&self.start.command);
        command.args(&self.start.arguments).env("LISTEN_PID", process::id().to_string());
        if let Some(name) = &self.start.user {
            let account = Account::resolve(name)?;
            become_user(&account)?;
            command.envs(user_environment(account.uid()));
        }
        // After the change of the user, which clears it.
        set_pdeathsig(self.start.orphan_signal).map_err(|error| ExecError::System(error.into()))?;
        let parent = u32::try_from(getppid().as_raw()).unwrap_or_default();
        if parent != self.parent && self.start.orphan_signal.is_some() {
            return Err(ExecError::Orphan);
        }
        Ok(command)
    }

    /// The pipe, opened close-on-exec. `None` if the system has no `/proc`.
    fn failure_pipe(&self) -> Option<File> {
        OpenOptions::new().write(true).open(format!("/proc/self/fd/{}", self.failure)).ok()
    }

    fn close_all_but_own(&self, pipe: &File) -> Result<(), ExecError> {
        let own: Vec<RawFd> = (PASSED_FIRST..self.failure).chain([pipe.as_raw_fd()]).collect();
        close_all_but(&own).map_err(ExecError::System)
    }
}

/// The variables that describe the user to the command.
fn user_environment(uid: u32) -> Vec<(&'static str, OsString)> {
    let Some(user) = users::get_user_by_uid(uid) else { return Vec::new() };
    vec![
        ("USER", user.name().to_owned()),
        ("LOGNAME", user.name().to_owned()),
        ("HOME", user.home_dir().as_os_str().to_owned()),
        ("SHELL", user.shell().as_os_str().to_owned()),
    ]
}

/// Why a command was not executed.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    /// The user is not known.
    #[error(transparent)]
    Account(#[from] AccountError),
    /// The process cannot become the user.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// A step before the exec failed.
    #[error("cannot prepare the process: {0}")]
    System(io::Error),
    /// The master ended before the exec.
    #[error("the master has ended")]
    Orphan,
    /// The command cannot be executed.
    #[error("cannot execute it: {0}")]
    Execute(io::Error),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stub_arguments_round_trip() {
        let mut starter = MasterExecStub {
            start: ExecRequest {
                command: "/bin/a b".into(),
                arguments: vec!["-listen".into(), "".into(), "@start".into()],
                user: Some("nobody".to_owned()),
                orphan_signal: Some(Signal::SIGTERM),
            },
            parent: 1,
            failure: 7,
        };
        let back = |starter: &MasterExecStub| {
            MasterExecStub::from_arguments(starter.clone().into_arguments().into_iter())
        };
        assert_eq!(back(&starter), Some(starter.clone()));
        starter.start.user = None;
        starter.start.orphan_signal = None;
        starter.start.arguments.clear();
        assert_eq!(back(&starter), Some(starter));
    }

    #[test]
    fn options_start_no_command() {
        for line in [&[][..], &["-command", "a"], &["@start"], &["@start", "x", "3", "", "", "a"]] {
            assert_eq!(MasterExecStub::from_arguments(line.iter().map(OsString::from)), None, "{line:?}");
        }
    }
}
