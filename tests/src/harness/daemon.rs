//! A program under `-daemon`.
//!
//! The test process is the subreaper, so the daemon becomes its child once the parent process has exited, and
//! can be waited for as any child process.

use crate::harness::patience::with_timeout;
use crate::harness::process::ProgramLaunch;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Output;

/// A serving daemon; dropping it kills it.
#[derive(Debug)]
pub struct DaemonProcess {
    pid: Pid,
    ended: bool,
}

impl DaemonProcess {
    /// Starts a daemon, which must succeed, and finds it by its pidfile.
    #[must_use]
    pub fn start(launch: &ProgramLaunch, pidfile: &Path) -> Self {
        nix::sys::prctl::set_child_subreaper(true).expect("to become the subreaper");
        let output = launch.output();
        assert!(output.status.success(), "{}: {}", output.status, stderr(&output));
        Self::of_pidfile(pidfile)
    }

    /// Finds the daemon by its pidfile. The test must have become the subreaper before the daemon started.
    #[must_use]
    pub fn of_pidfile(pidfile: &Path) -> Self {
        let content = fs::read_to_string(pidfile).expect("a pidfile");
        let pid = content.strip_suffix('\n').and_then(|number| number.parse().ok());
        Self {
            pid: Pid::from_raw(pid.unwrap_or_else(|| panic!("the pidfile contains {content:?}"))),
            ended: false,
        }
    }

    /// The daemon's process id, from its pidfile.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal, and waits until it has exited.
    pub fn terminate(mut self, signal: Signal) -> WaitStatus {
        kill(self.pid, signal).unwrap_or_else(|error| panic!("{signal} to the daemon: {error}"));
        let pid = self.pid;
        let status = with_timeout("the exit of the daemon", move || waitpid(pid, None));
        self.ended = true;
        status.expect("a daemon that is a child of the test")
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        if !self.ended {
            // It may have exited already.
            kill(self.pid, Signal::SIGKILL).and_then(|()| waitpid(self.pid, None)).ok();
        }
    }
}

/// The standard error output of a finished program.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
