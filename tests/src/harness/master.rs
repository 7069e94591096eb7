//! `dc_master`, running `dc_child` or another program.

use crate::harness::loopback::own_loopback;
use crate::harness::patience::PATIENCE;
use crate::harness::process::{ProgramLaunch, TestProcess, status};
use crate::harness::programs::program;
use crate::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use nix::unistd::Pid;
use std::fmt::Debug;
use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Instant;

/// A running master, and the pid of its serving child process.
#[derive(Debug)]
pub struct MasterProcess {
    /// The child process, with its log.
    pub process: TestProcess,
    address: SocketAddr,
    child: Pid,
}

impl MasterProcess {
    /// Starts a master of `dc_child` with this plan and these options, on a separate port. Its first child is
    /// ready on return.
    #[must_use]
    pub fn start(options: &[&str], plan: &[&str]) -> Self {
        Self::for_command(&program("dc_child"), options, plan)
    }

    /// Like [`start`](Self::start), for any program that signals readiness.
    #[must_use]
    pub fn for_command(command: &Path, options: &[&str], arguments: &[&str]) -> Self {
        let address = SocketAddr::new(own_loopback().into(), 0);
        let launch = ProgramLaunch::new("dc_master").with(["-listen", &format!("tcp://{address}")]);
        let command = command.to_str().expect("a path of UTF-8");
        Self::launch(&launch.with(options).with(["-command", command, "--"]).with(arguments))
    }

    /// Starts a master with any options; the first socket it listens on must be TCP.
    #[must_use]
    pub fn launch(launch: &ProgramLaunch) -> Self {
        let process = launch.start();
        let line = process.log.expect("listening address=");
        let address = line.split_once("address=").and_then(|(_, address)| {
            address.trim_start_matches(|c: char| !c.is_ascii_digit() && c != '[').parse().ok()
        });
        let address = address.unwrap_or_else(|| panic!("no address in {line:?}"));
        let mut master = Self { process, address, child: Pid::from_raw(0) };
        master.ready();
        master
    }

    /// The TCP address it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The pid of the child that became ready last.
    #[must_use]
    pub const fn child(&self) -> Pid {
        self.child
    }

    /// Sends SIGHUP, which restarts the child. Does not wait.
    pub fn hup(&self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// Restarts the child, and waits until the new one serves and the old one has exited.
    pub fn restart(&mut self) {
        let old = self.child;
        self.hup();
        self.ready();
        self.ended(old);
        assert_ne!(self.child, old);
    }

    /// Waits until a child is started. Returns its pid.
    #[must_use]
    pub fn started(&self) -> Pid {
        number(&self.process.log.expect("started child="))
    }

    /// Waits until a child is ready and serves. Returns its pid.
    pub fn ready(&mut self) -> Pid {
        self.child = number(&self.process.log.expect("ready child="));
        self.child
    }

    /// Waits until a child has exited. Returns the log line about it.
    pub fn ended(&self, child: Pid) -> String {
        self.process.log.expect(&format!("ended child={child} "))
    }

    /// Waits until a child has written a line that begins with `text`.
    pub fn written(&self, child: Pid, text: &str) {
        self.process.log.wait_for(&format!("[{child}] {text}"));
    }

    /// Waits for the next log line with `text`.
    pub fn expect(&self, text: &str) -> String {
        self.process.log.expect(text)
    }

    /// The pids of its child processes, including zombies.
    #[must_use]
    pub fn children(&self) -> Vec<Pid> {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).expect("the children of a process");
        text.split_whitespace().map(|number| Pid::from_raw(number.parse().expect("a number"))).collect()
    }

    /// Waits until it has exactly these child processes, including zombies.
    pub fn wait_for_children(&self, wanted: &[Pid]) {
        watch("its children", || self.children(), |children| children == wanted);
    }

    /// Waits until `child` is a zombie, as while the master is stopped.
    pub fn wait_for_zombie(&self, child: Pid) {
        watch("its states", || status(child, "State"), |state| state.starts_with('Z'));
    }

    /// Waits until it has at most this many open descriptors.
    pub fn wait_for_descriptors(&self, most: usize) {
        watch("its descriptors", || self.descriptors(), |count| *count <= most);
    }

    /// The number of its open descriptors.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("its descriptors").count()
    }
}

/// Polls until the observed value is right, for state that the system reports no event about.
fn watch<T: Debug>(what: &str, see: impl Fn() -> T, is_right: impl Fn(&T) -> bool) {
    let began = Instant::now();
    loop {
        let seen = see();
        if is_right(&seen) {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{what} are {seen:?}");
        thread::yield_now();
    }
}

/// Waits until this file exists.
pub fn wait_for_file(path: &Path) {
    watch("the files", || path.exists(), |exists| *exists);
}

/// The pid behind `child=` in a log line.
#[must_use]
pub fn number(line: &str) -> Pid {
    let digits = line.rsplit_once("child=").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
    let number = digits.and_then(|digits| digits.parse().ok());
    Pid::from_raw(number.unwrap_or_else(|| panic!("no child in {line:?}")))
}

/// A plan for `dc_child` in a file: the behaviour of the children started next.
#[derive(Debug)]
pub struct PlanFile {
    path: PathBuf,
    word: String,
}

impl PlanFile {
    /// Writes a plan to a file in `dir`.
    #[must_use]
    pub fn new(dir: &TestDir, words: &[&str]) -> Self {
        let path = dir.file("plan");
        let plan = Self { word: format!("@{}", path.display()), path };
        plan.set(words);
        plan
    }

    /// The argument that makes `dc_child` read the file.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.word
    }

    /// Replaces the plan for children started from now on.
    pub fn set(&self, words: &[&str]) {
        let unfinished = self.path.with_extension("unfinished");
        fs::write(&unfinished, words.join("\n")).expect("to write the plan");
        fs::rename(&unfinished, &self.path).expect("to rename the plan");
    }
}

/// The environment that a child found at its start; see `dc_child`'s `report`.
#[derive(Debug)]
pub struct ChildReport(String);

impl ChildReport {
    /// Reads the report in `path`, which must exist.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path);
        Self(text.unwrap_or_else(|error| panic!("the report in {}: {error}", path.display())))
    }

    /// The text after `word` in each line that begins with it.
    #[must_use]
    pub fn all(&self, word: &str) -> Vec<&str> {
        let behind = |line| str::strip_prefix(line, word).and_then(|rest| rest.strip_prefix(' '));
        self.0.lines().filter_map(behind).collect()
    }

    /// The text after `word` in the only line that begins with it.
    #[must_use]
    pub fn one(&self, word: &str) -> &str {
        let all = self.all(word);
        assert_eq!(all.len(), 1, "{word} in {self:?}");
        all[0]
    }

    /// The value of an environment variable of the child.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let mut pairs = self.all("variable").into_iter().filter_map(|line| line.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}
