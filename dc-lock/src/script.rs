//! Scripts without a `#!` line: the shell runs them, as execvp(3) does.
//!
//! Not every C library does that, and none does when it spawns a process.

use nix::errno::Errno;
use std::ffi::OsString;
use std::io;
use std::process::Command;

/// Whether `error` means that the file is not executable by the kernel and may be a script.
pub(crate) fn may_be_script(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::ENOEXEC as i32)
}

/// A shell command that finds the program and runs it.
pub(crate) fn command(program: &OsString, arguments: &[OsString]) -> Command {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\""]).arg(program).args(arguments);
    command
}
