//! Runs a command that ends with `dc_lock`, even if `dc_lock` is killed.
//!
//! When `dc_lock` is killed by SIGKILL, its connection is closed, and another client gets the lock at once or
//! after the grace period. The kernel kills a process with its parent if the process has requested it
//! (`PR_SET_PDEATHSIG`, prctl(2)). No safe call can request this between fork and exec. So this program is
//! executed again in the child process, makes the request, and executes the command.

use crate::options::PROGRAM;
use crate::script;
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// This program, even if its file has been replaced or removed.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// The first argument of a tether. It is a key, too, but no number follows a key.
const MARK: &str = "@run";

/// The command of a `dc_lock`, in the process where it will run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ExecStub {
    parent: u32,
    program: OsString,
    arguments: Vec<OsString>,
}

impl ExecStub {
    /// The tether that this process was started as, if it was.
    pub(crate) fn from_arguments(mut arguments: impl Iterator<Item = OsString>) -> Option<Self> {
        if arguments.next()? != MARK {
            return None;
        }
        let parent = arguments.next()?.to_str()?.parse().ok()?;
        Some(Self { parent, program: arguments.next()?, arguments: arguments.collect() })
    }

    /// Prepares the process that starts the command so that it ends with this one.
    pub(crate) fn command(program: &OsString, arguments: &[OsString]) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0(PROGRAM.name).arg(MARK).arg(process::id().to_string()).arg(program).args(arguments);
        command
    }

    /// The program that is run.
    pub(crate) fn program(&self) -> &OsString {
        &self.program
    }

    /// Replaces this process with the command. Returns only on failure.
    pub(crate) fn run(&self) -> io::Error {
        // The process was executed as /proc/self/exe. The name is only informative.
        set_name(c"dc_lock").ok();
        if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
            return error.into();
        }
        // The kernel sends no signal if the parent has already ended.
        if u32::try_from(getppid().as_raw()) != Ok(self.parent) {
            return io::Error::other("dc_lock has ended, and the lock with it");
        }
        let error = Command::new(&self.program).args(&self.arguments).exec();
        if script::may_be_script(&error) {
            return script::command(&self.program, &self.arguments).exec();
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(words: &[&str]) -> Option<ExecStub> {
        ExecStub::from_arguments(words.iter().map(OsString::from))
    }

    #[test]
    fn stub_runs_the_given_program_and_arguments() {
        let (program, arguments) = (OsString::from("/bin/a b"), ["--".into(), "".into(), "-n".into()]);
        let command = ExecStub::command(&program, &arguments);
        let tether = ExecStub::from_arguments(command.get_args().map(ToOwned::to_owned));
        let parent = process::id();
        assert_eq!(tether, Some(ExecStub { parent, program, arguments: arguments.to_vec() }));
    }

    #[test]
    fn a_line_of_options_is_none() {
        for line in
            [&[][..], &["@run"], &["@run", "--", "true"], &["@run", "-n", "--", "true"], &["k", "1", "a"]]
        {
            assert_eq!(parse(line), None, "{line:?}");
        }
    }
}
