//! A script that does not say what runs it: the shell does, as execvp(3) has it.
//!
//! Not every C library does that, and none does where a process is spawned.

use nix::errno::Errno;
use std::ffi::OsString;
use std::io;
use std::process::Command;

/// Whether `error` says that the system cannot execute a file that may be a script.
pub(crate) fn may_be_script(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOEXEC as i32)
}

/// A shell command that finds the program and runs it.
pub(crate) fn command(program: &OsString, arguments: &[OsString]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\""]).arg(program).args(arguments);
    command
}
