//! A program as a process.

use crate::harness::log::Log;
use crate::harness::programs::program;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;

/// What the variables begin with that the programs read.
const VARIABLES: [&str; 10] = [
    "DC_SERVER_",
    "DC_CLIENT_",
    "DC_LOCK_",
    "DC_MASTER_",
    "DFLOCKD_",
    "EINHORN_",
    "LISTEN_",
    "NOTIFY_SOCKET",
    "RUST_LOG",
    "WATCHDOG_",
];

/// How a program is to be started: with these arguments, and nothing from the environment.
#[derive(Clone, Debug)]
pub struct Launch {
    program: &'static str,
    arguments: Vec<OsString>,
    prelude: Option<String>,
    variables: Vec<(&'static str, OsString)>,
    directory: Option<PathBuf>,
    stdin: Option<Arc<OwnedFd>>,
}

impl Launch {
    /// A program of ours, such as `dc_server`.
    #[must_use]
    pub const fn new(program: &'static str) -> Self {
        Self {
            program,
            arguments: Vec::new(),
            prelude: None,
            variables: Vec::new(),
            directory: None,
            stdin: None,
        }
    }

    /// With further arguments.
    #[must_use]
    pub fn with(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With no more than this many open files, which it can't raise.
    #[must_use]
    pub fn with_files_max(self, files_max: u32) -> Self {
        self.after(&format!("ulimit -n {files_max} && exec \"$0\" \"$@\""))
    }

    /// By these words of a shell, in which `exec "$0" "$@"` is the program with its arguments.
    #[must_use]
    pub fn after(mut self, prelude: &str) -> Self {
        self.prelude = Some(prelude.to_owned());
        self
    }

    /// With a variable.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// In this directory.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// With this descriptor as its standard input.
    #[must_use]
    pub fn with_stdin(mut self, descriptor: OwnedFd) -> Self {
        self.stdin = Some(Arc::new(descriptor));
        self
    }

    /// Starts it.
    #[must_use]
    pub fn start(&self) -> Process {
        let spawned = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("can't start {}: {error}", self.program));
        let log = Log::default();
        child.stdout.take().into_iter().for_each(|pipe| log.follow(pipe));
        child.stderr.take().into_iter().for_each(|pipe| log.follow(pipe));
        Process { name: self.program, child, log, ended: None }
    }

    /// Runs it to its end: for what fails to start, or detaches.
    #[must_use]
    pub fn output(&self) -> Output {
        self.command().output().unwrap_or_else(|error| panic!("can't start {}: {error}", self.program))
    }

    fn command(&self) -> Command {
        let path = program(self.program);
        let mut command = match &self.prelude {
            None => Command::new(path),
            Some(prelude) => {
                let mut shell = Command::new("sh");
                shell.arg("-c").arg(prelude).arg(path);
                shell
            }
        };
        for (name, _) in env::vars_os() {
            if VARIABLES.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        if let Some(stdin) = &self.stdin {
            command.stdin(stdin.try_clone().expect("a copy of a descriptor"));
        }
        command
    }
}

/// A process that we started. Dropped, it is killed, and shows what it wrote if the test has failed.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    /// What it writes, on both streams.
    pub log: Log,
    ended: Option<ExitStatus>,
}

impl Process {
    /// Its number.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("the number of a process"))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended before {signal}", self.name);
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        self.log.wait_for_end();
        let status = self.child.wait().expect("the end of a child of ours");
        self.ended = Some(status);
        status
    }

    /// Kills it as `kill -9` does. It has ended on return.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().expect("to kill a child of ours");
            self.wait();
        }
    }

    /// Ends it in good order, and returns all that it wrote.
    pub fn stop(&mut self) -> Vec<String> {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        self.log.lines()
    }

    /// The most memory that it has had, in KiB.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let line = status(self.pid(), "VmHWM");
        let number = line.split_whitespace().next().and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("the memory of {}: {line:?}", self.name))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have ended by itself.
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("---- {} ({})", self.name, self.child.id());
            self.log.lines().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// What the system says in `field` of the status of a process.
#[must_use]
pub fn status(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}
