//! A program under `-daemon`.
//!
//! The test is the reaper of orphans, so a daemon is its child once the starter is gone, and its end can be
//! waited for as any child's.

use crate::harness::patience::with_timeout;
use crate::harness::process::ProgramLaunch;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::Output;

/// A daemon that serves. Dropped, it is killed.
#[derive(Debug)]
pub struct DaemonProcess {
    pid: Pid,
    ended: bool,
}

impl DaemonProcess {
    /// Starts a daemon, which must succeed, and finds it by its pidfile.
    #[must_use]
    pub fn start(launch: &ProgramLaunch, pidfile: &Path) -> Self {
        nix::sys::prctl::set_child_subreaper(true).expect("to be the reaper of orphans");
        let output = launch.output();
        assert!(output.status.success(), "{}: {}", output.status, stderr(&output));
        Self::of_pidfile(pidfile)
    }

    /// The daemon that has written this pidfile, where the test has become the reaper of orphans before it was started.
    #[must_use]
    pub fn of_pidfile(pidfile: &Path) -> Self {
        let content = fs::read_to_string(pidfile).expect("a pidfile");
        let pid = content.strip_suffix('\n').and_then(|number| number.parse().ok());
        Self { pid: Pid::from_raw(pid.unwrap_or_else(|| panic!("{content:?} in the pidfile"))), ended: false }
    }

    /// Its number.
    #[must_use]
    pub const fn pid(&self) -> Pid {
        self.pid
    }

    /// Sends it a signal and waits for its end.
    pub fn terminate(mut self, signal: Signal) -> WaitStatus {
        kill(self.pid, signal).unwrap_or_else(|error| panic!("{signal} to the daemon: {error}"));
        let pid = self.pid;
        let status = with_timeout("the end of the daemon", move || waitpid(pid, None));
        self.ended = true;
        status.expect("a daemon that is our child")
    }
}

impl Drop for DaemonProcess {
    fn drop(&mut self) {
        if !self.ended {
            // It may have ended by itself.
            kill(self.pid, Signal::SIGKILL).and_then(|()| waitpid(self.pid, None)).ok();
        }
    }
}

/// What a program that has ended said on stderr.
#[must_use]
pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
