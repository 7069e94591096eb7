//! A command that ends with `dc_lock`, however that ends.
//!
//! When `dc_lock` is killed by SIGKILL its connection is closed, and the lock is another's at once, or after the grace. The
//! system kills a process with its parent if the process has asked for it (`PR_SET_PDEATHSIG`, prctl(2)), which cannot be
//! asked between fork and exec by any safe call. So this program is started again where the command will run, asks, and
//! executes the command in its place.

use crate::options::PROGRAM;
use crate::script;
use nix::sys::prctl::{set_name, set_pdeathsig};
use nix::sys::signal::Signal;
use nix::unistd::getppid;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// This program, whatever has become of its file.
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

    /// What starts the command so that it ends with this process.
    pub(crate) fn command(program: &OsString, arguments: &[OsString]) -> Command {
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0(PROGRAM.name).arg(MARK).arg(process::id().to_string()).arg(program).args(arguments);
        command
    }

    /// The program that is run.
    pub(crate) fn program(&self) -> &OsString {
        &self.program
    }

    /// Becomes the command. Returns only why it can't.
    pub(crate) fn run(&self) -> io::Error {
        // It was started by another name; for whoever looks, and nothing depends on it.
        set_name(c"dc_lock").ok();
        if let Err(error) = set_pdeathsig(Signal::SIGKILL) {
            return error.into();
        }
        // A parent that has ended before is not told of.
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
    fn what_is_started_is_what_was_asked_for() {
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
