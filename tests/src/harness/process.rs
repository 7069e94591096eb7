//! A program as a process.

use crate::harness::log::CapturedLog;
use crate::harness::patience::with_timeout;
use crate::harness::programs::program;
use crate::harness::test_dir::TestDir;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Arc;
use std::thread;

/// Prefixes of the variables that the programs read.
const VARIABLES: [&str; 10] = [
    "DC_SERVER_",
    "DC_CLIENT_",
    "DC_LOCK_",
    "DC_MASTER_",
    "DFLOCKD_",
    "RUST_LOG",
    "LISTEN_",
    "EINHORN_",
    "NOTIFY_SOCKET",
    "WATCHDOG_",
];
/// Runs the program with the shell's standard input as descriptor 3. `exec` keeps the shell's pid.
const PASSING: &str =
    "[ \"$LISTEN_PID\" != own ] || export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 </dev/null";

/// The command line and environment of a program. Variables of the programs are not inherited.
#[derive(Clone, Debug)]
pub struct ProgramLaunch {
    program: &'static str,
    programs: Option<PathBuf>,
    arguments: Vec<OsString>,
    variables: Vec<(&'static str, OsString)>,
    before: Vec<OsString>,
    directory: Option<PathBuf>,
    stdin: Option<Arc<OwnedFd>>,
}

impl ProgramLaunch {
    /// A program of this workspace, such as `dc_server`.
    #[must_use]
    pub const fn new(program: &'static str) -> Self {
        Self {
            program,
            programs: None,
            arguments: Vec::new(),
            variables: Vec::new(),
            before: Vec::new(),
            directory: None,
            stdin: None,
        }
    }

    /// Takes the program from another directory.
    #[must_use]
    pub fn of(mut self, programs: &Path) -> Self {
        self.programs = Some(programs.to_owned());
        self
    }

    /// Adds arguments to the command line.
    #[must_use]
    pub fn with(mut self, arguments: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Limits the open files to this number, as a hard limit.
    #[must_use]
    pub fn with_files_max(self, files_max: u32) -> Self {
        self.after(&format!("ulimit -n {files_max} && exec \"$0\" \"$@\""))
    }

    /// Runs the program by this shell command, in which `exec "$0" "$@"` is the program with its arguments.
    #[must_use]
    pub fn after(self, prelude: &str) -> Self {
        self.under(["sh", "-c", prelude])
    }

    /// Sets the working directory.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Sets the standard input.
    #[must_use]
    pub fn with_stdin(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(Arc::new(descriptor.into()));
        self
    }

    /// Adds a variable to the environment.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// Runs the program by another program, given with its arguments.
    #[must_use]
    pub fn under(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.before = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Passes this socket as descriptor 3. The variables must be added; `own` as `LISTEN_PID` means the
    /// program's pid.
    #[must_use]
    pub fn passing(self, socket: impl Into<OwnedFd>) -> Self {
        self.with_stdin(socket).after(PASSING)
    }

    /// Starts the program and captures its output.
    #[must_use]
    pub fn start(&self) -> TestProcess {
        let spawned = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program));
        let log = CapturedLog::default();
        child.stdout.take().into_iter().for_each(|pipe| log.follow(pipe));
        child.stderr.take().into_iter().for_each(|pipe| log.follow(pipe));
        TestProcess { name: self.program, child, log, ended: None }
    }

    /// Starts the program, and sends it a signal after it has written its pidfile in `dir` and before it
    /// binds its socket there.
    #[must_use]
    pub fn start_amid(&self, signal: Signal, dir: &TestDir, pidfile: &str) -> TestProcess {
        // The lock on the directory delays the binding of sockets in it.
        let lock = File::open(dir.path()).expect("a directory");
        lock.lock().expect("to lock the directory");
        let process = self.start();
        let pidfile = dir.file(pidfile);
        with_timeout("the pidfile", move || {
            while !pidfile.exists() {
                thread::yield_now();
            }
        });
        process.signal(signal);
        process
    }

    /// Runs the program to its end: for a program that fails to start, or detaches.
    #[must_use]
    pub fn output(&self) -> Output {
        self.command().output().unwrap_or_else(|error| panic!("cannot start {}: {error}", self.program))
    }

    fn command(&self) -> Command {
        let ours = || program(self.program);
        let path = self.programs.as_ref().map_or_else(ours, |programs| programs.join(self.program));
        let mut words = self.before.iter().cloned().chain([path.into_os_string()]);
        let mut command = Command::new(words.next().unwrap_or_default());
        command.args(words);
        for (name, _) in env::vars_os() {
            if VARIABLES.iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).envs(self.variables.iter().cloned());
        command.stdin(match &self.stdin {
            None => Stdio::null(),
            Some(descriptor) => descriptor.try_clone().expect("to duplicate a descriptor").into(),
        });
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

/// A process started by the test. Dropping it kills it, and prints its log if the test has failed.
#[derive(Debug)]
pub struct TestProcess {
    name: &'static str,
    child: Child,
    /// The output of both streams.
    pub log: CapturedLog,
    ended: Option<ExitStatus>,
}

impl TestProcess {
    /// The process id of the child.
    #[must_use]
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"))
    }

    /// Sends a signal; panics if it has exited.
    pub fn signal(&self, signal: Signal) {
        assert!(self.ended.is_none(), "{} has ended before {signal}", self.name);
        kill(self.pid(), signal).unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
    }

    /// Waits until it has exited.
    pub fn wait(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        self.log.wait_for_end();
        let status = self.child.wait().expect("to wait for a child process");
        self.ended = Some(status);
        status
    }

    /// Kills it as `kill -9` does. It has exited on return.
    pub fn kill(&mut self) {
        if self.ended.is_none() {
            self.child.kill().expect("to kill a child process");
            self.wait();
        }
    }

    /// Stops it with SIGTERM, which must succeed, and returns its output.
    pub fn stop(&mut self) -> Vec<String> {
        self.signal(Signal::SIGTERM);
        let status = self.wait();
        assert!(status.success(), "{} ended with {status} after SIGTERM", self.name);
        self.log.lines()
    }

    /// Its peak memory (`VmHWM`), in KiB.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        let line = status(self.pid(), "VmHWM");
        let number = line.split_whitespace().next().and_then(|number| number.parse().ok());
        number.unwrap_or_else(|| panic!("the memory of {}: {line:?}", self.name))
    }
}

impl Drop for TestProcess {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // It may have exited already.
            self.child.kill().ok();
            self.child.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("---- {} ({})", self.name, self.child.id());
            self.log.lines().iter().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// The value of `field` in `/proc/PID/status`.
#[must_use]
pub fn status(pid: Pid, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the status of a process");
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}
