//! Starting and finding probe daemons, and waiting for their exit.
//!
//! The test is the reaper of orphans, so a daemon and its cleanup helper become its child processes once
//! their parent process has exited, and it waits for them as for any child process.

use crate::require::skip;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use tempfile::TempDir;

/// Marks the processes of a directory in their environment.
const MARK: &str = "DC_PROBE_PLACE";

pub(crate) fn adopt_orphans() {
    nix::sys::prctl::set_child_subreaper(true).unwrap();
}

/// A directory with the files of a daemon, and the processes started for it. Dropping it kills them.
pub(crate) struct DaemonDir {
    directory: TempDir,
}

impl DaemonDir {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// A directory like `/tmp`: other users may enter it, but not remove files from it.
    pub(crate) fn sticky() -> Self {
        use std::os::unix::fs::PermissionsExt;
        let place = Self::new();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o1777)).unwrap();
        place
    }

    pub(crate) fn path(&self) -> &Path {
        self.directory.path()
    }

    pub(crate) fn pidfile(&self) -> PathBuf {
        self.path().join("pid")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path().join("socket")
    }

    /// A probe with the pidfile and socket of this directory, and `options`.
    pub(crate) fn probe(&self, options: &[&str]) -> Command {
        let mut command = self.bare_probe(options);
        command.arg(format!("pidfile={}", self.pidfile().display()));
        command.arg(format!("listen=UNIX:{}", self.socket().display()));
        command
    }

    pub(crate) fn bare_probe(&self, options: &[&str]) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("--probe").args(options).env(MARK, self.path()).current_dir(self.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Starts a daemon, which must succeed without output.
    pub(crate) fn start(&self, options: &[&str]) -> Pid {
        let output = self.probe(options).arg("daemon").output().unwrap();
        assert_eq!((text(&output), output.status.code()), (String::new(), Some(0)));
        assert_eq!(output.stdout, b"");
        self.pid_in_file()
    }

    /// Starts a probe in the foreground, and waits until it serves.
    pub(crate) fn start_in_foreground(&self, options: &[&str]) -> Child {
        let mut child = self.probe(options).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, "serving\n");
        child
    }

    pub(crate) fn pid_in_file(&self) -> Pid {
        let content = fs::read_to_string(self.pidfile()).unwrap();
        Pid::from_raw(content.strip_suffix('\n').unwrap().parse().unwrap())
    }

    pub(crate) fn connect(&self) -> DaemonTalk {
        DaemonTalk(BufReader::new(UnixStream::connect(self.socket()).unwrap()))
    }

    /// The cleanup helper of the daemon in this directory.
    pub(crate) fn custodian(&self) -> Pid {
        let custodians: Vec<Pid> =
            self.processes().into_iter().filter(|pid| proc(*pid, "comm") == "dc_custodian\n").collect();
        assert_eq!(custodians.len(), 1, "{custodians:?}");
        custodians[0]
    }

    /// All processes of this directory.
    pub(crate) fn processes(&self) -> Vec<Pid> {
        let mark = format!("{MARK}={}", self.path().display());
        let all = fs::read_dir("/proc").unwrap();
        let pids = all.filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok());
        let ours = pids.filter(|pid: &i32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes())
        });
        ours.map(Pid::from_raw).collect()
    }

    /// Asserts that neither pidfile nor socket nor any other file is left.
    pub(crate) fn assert_empty(&self) {
        let left: Vec<_> =
            fs::read_dir(self.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "left behind: {left:?}");
    }
}

impl Drop for DaemonDir {
    fn drop(&mut self) {
        for pid in self.processes() {
            // It may have exited meanwhile, or be a child of another process.
            kill(pid, Signal::SIGKILL).and_then(|()| waitpid(pid, None)).ok();
        }
    }
}

/// A connection to a probe, read by lines.
pub(crate) struct DaemonTalk(BufReader<UnixStream>);

impl DaemonTalk {
    /// Reads the next line; empty at the end of the stream.
    pub(crate) fn line(&mut self) -> String {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(_) => line.trim_end().to_owned(),
            // The probe was killed before it accepted the connection.
            Err(_) => String::new(),
        }
    }
}

/// Sends `signal` to `pid` and waits for its exit.
pub(crate) fn terminate(pid: Pid, signal: Signal) -> WaitStatus {
    kill(pid, signal).unwrap();
    waitpid(pid, None).unwrap()
}

/// The content of a file of `pid` in /proc.
pub(crate) fn proc(pid: Pid, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// The words after `field` in the status file of `pid`.
pub(crate) fn status(pid: Pid, field: &str) -> Vec<String> {
    let status = proc(pid, "status");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':')).unwrap();
    line.split_whitespace().map(str::to_owned).collect()
}

/// The targets of the open descriptors of `pid`.
pub(crate) fn descriptors(pid: Pid) -> Vec<(u32, String)> {
    let mut all: Vec<(u32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let target = fs::read_link(entry.path()).unwrap().display().to_string();
            (entry.file_name().to_str().unwrap().parse().unwrap(), target)
        })
        .collect();
    all.sort_unstable();
    all
}

pub(crate) fn text(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Whether the test runs as root; reports that it is skipped if not.
pub(crate) fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        skip("not root");
    }
    root
}
