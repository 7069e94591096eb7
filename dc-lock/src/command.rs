//! The process of the command: started with the lock in its environment, receives forwarded signals, and is
//! stopped.

use crate::exec_stub::ExecStub;
use crate::options::{LockCommandOptions, OnLoss};
use crate::script;
use crate::status::LockFailure;
use libdc::client::lock::Guard;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use tokio::process::{Child, Command};

/// A command that runs.
#[derive(Debug)]
pub(crate) struct CommandProcess(Child);

impl CommandProcess {
    /// Starts the command of the options, in the process group of this program: it stays in the foreground of
    /// a terminal.
    ///
    /// # Errors
    /// [`LockFailure::Command`].
    pub(crate) fn start(options: &LockCommandOptions, guard: &Guard) -> Result<Self, LockFailure> {
        let shell = options.command.as_ref().map(|line| ["sh".into(), "-c".into(), line.clone()]);
        let words: &[OsString] = shell.as_ref().map_or(&options.words, |words| words);
        let (program, arguments) = words.split_first().unzip();
        let program = program.cloned().unwrap_or_default();
        let arguments = arguments.unwrap_or_default();
        let with_the_lock = |mut command: Command| {
            let token = String::from_utf8_lossy(&guard.token().to_hex()).into_owned();
            command.env("DC_LOCK_KEY", guard.key()).env("DC_LOCK_TOKEN", token);
            command.env("DC_LOCK_FENCE", guard.fence().to_string()).spawn()
        };
        let alone = || {
            let mut command = Command::new(&program);
            command.args(arguments);
            match with_the_lock(command) {
                Err(error) if script::may_be_script(&error) => {
                    with_the_lock(script::command(&program, arguments).into())
                }
                started => started,
            }
        };
        let started = match options.on_loss {
            OnLoss::Warn => alone(),
            OnLoss::Kill => match with_the_lock(ExecStub::command(&program, arguments).into()) {
                // Without /proc there is no exec stub.
                Err(error) if error.kind() == ErrorKind::NotFound => alone(),
                started => started,
            },
        };
        let failed =
            |source| LockFailure::Command { command: program.to_string_lossy().into_owned(), source };
        started.map(Self).map_err(failed)
    }

    /// Waits for its end. Cancel-safe.
    ///
    /// # Errors
    /// [`LockFailure::Wait`].
    pub(crate) async fn ended(&mut self) -> Result<ExitStatus, LockFailure> {
        self.0.wait().await.map_err(LockFailure::Wait)
    }

    /// Sends it a signal, unless it has ended.
    pub(crate) fn signal(&self, signal: Signal) {
        if let Some(pid) = self.pid() {
            // It may have ended without having been reaped: the signal then has no effect.
            kill(pid, signal).ok();
        }
    }

    /// Whether it is stopped.
    pub(crate) fn is_stopped(&self) -> bool {
        let look = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        self.pid().is_some_and(|pid| matches!(waitid(Id::Pid(pid), look), Ok(WaitStatus::Stopped(..))))
    }

    fn pid(&self) -> Option<Pid> {
        self.0.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw)
    }
}

/// The exit status for the end of a command, as in the shell.
pub(crate) fn status(ended: ExitStatus) -> u8 {
    let status = ended.code().or_else(|| ended.signal().map(|number| 128 + number));
    status.and_then(|status| u8::try_from(status).ok()).unwrap_or(u8::MAX)
}
