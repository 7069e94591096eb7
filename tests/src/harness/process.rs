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

/// What the variables begin with that the programs read.
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
/// Starts the words behind it with standard input as descriptor 3. A shell keeps its number when it becomes the program.
const PASSING: &str =
    "[ \"$LISTEN_PID\" != own ] || export LISTEN_PID=$$; exec \"$0\" \"$@\" 3<&0 </dev/null";

/// How a program is to be started: with these arguments and variables, and no others from the environment.
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
    /// A program of ours, such as `dc_server`.
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

    /// The program of this name in another directory.
    #[must_use]
    pub fn of(mut self, programs: &Path) -> Self {
        self.programs = Some(programs.to_owned());
        self
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
    pub fn after(self, prelude: &str) -> Self {
        self.under(["sh", "-c", prelude])
    }

    /// In this directory.
    #[must_use]
    pub fn within(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// With this descriptor as its standard input.
    #[must_use]
    pub fn with_stdin(mut self, descriptor: impl Into<OwnedFd>) -> Self {
        self.stdin = Some(Arc::new(descriptor.into()));
        self
    }

    /// With a variable in its environment.
    #[must_use]
    pub fn with_variable(mut self, name: &'static str, value: impl AsRef<OsStr>) -> Self {
        self.variables.push((name, value.as_ref().to_owned()));
        self
    }

    /// Started by another program, whose words these are.
    #[must_use]
    pub fn under(mut self, words: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.before = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
        self
    }

    /// Passing it this socket as descriptor 3. Its variables are to be given; `own` as `LISTEN_PID` means the program itself.
    #[must_use]
    pub fn passing(self, socket: impl Into<OwnedFd>) -> Self {
        self.with_stdin(socket).after(PASSING)
    }

    /// Starts it.
    #[must_use]
    pub fn start(&self) -> TestProcess {
        let spawned = self.command().stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let mut child = spawned.unwrap_or_else(|error| panic!("can't start {}: {error}", self.program));
        let log = CapturedLog::default();
        child.stdout.take().into_iter().for_each(|pipe| log.follow(pipe));
        child.stderr.take().into_iter().for_each(|pipe| log.follow(pipe));
        TestProcess { name: self.program, child, log, ended: None }
    }

    /// Starts it and sends it a signal while it is about to make a socket in `place`, and has made its pidfile there.
    #[must_use]
    pub fn start_amid(&self, signal: Signal, place: &TestDir, pidfile: &str) -> TestProcess {
        // Who makes a socket waits for its turn in the directory.
        let turn = File::open(place.path()).expect("a directory");
        turn.lock().expect("a turn");
        let process = self.start();
        let pidfile = place.file(pidfile);
        with_timeout("the pidfile", move || {
            while !pidfile.exists() {
                thread::yield_now();
            }
        });
        process.signal(signal);
        process
    }

    /// Runs it to its end: for what fails to start, or detaches.
    #[must_use]
    pub fn output(&self) -> Output {
        self.command().output().unwrap_or_else(|error| panic!("can't start {}: {error}", self.program))
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
            Some(descriptor) => descriptor.try_clone().expect("a copy of a descriptor").into(),
        });
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }
}

/// A process that we started. Dropped, it is killed, and shows what it wrote if the test has failed.
#[derive(Debug)]
pub struct TestProcess {
    name: &'static str,
    child: Child,
    /// What it writes, on both streams.
    pub log: CapturedLog,
    ended: Option<ExitStatus>,
}

impl TestProcess {
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

impl Drop for TestProcess {
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
