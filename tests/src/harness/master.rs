//! `dc_master`, with children of the tests or others.

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

/// A running master, and the child that serves.
#[derive(Debug)]
pub struct MasterProcess {
    /// The process.
    pub process: TestProcess,
    address: SocketAddr,
    child: Pid,
}

impl MasterProcess {
    /// A master of `dc_child` with this plan, on a port of its own, with these options besides. Its first child is
    /// ready.
    #[must_use]
    pub fn start(options: &[&str], plan: &[&str]) -> Self {
        Self::for_command(&program("dc_child"), options, plan)
    }

    /// A master of any program that is ready by itself.
    #[must_use]
    pub fn for_command(command: &Path, options: &[&str], arguments: &[&str]) -> Self {
        let address = SocketAddr::new(own_loopback().into(), 0);
        let launch = ProgramLaunch::new("dc_master").with(["-listen", &format!("tcp://{address}")]);
        let command = command.to_str().expect("a path of ours");
        Self::launch(&launch.with(options).with(["-command", command, "--"]).with(arguments))
    }

    /// A master started in a way of its own, with a socket of TCP first.
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

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The child that got ready last.
    #[must_use]
    pub const fn child(&self) -> Pid {
        self.child
    }

    /// Has its program restarted. Does not wait.
    pub fn hup(&self) {
        self.process.signal(Signal::SIGHUP);
    }

    /// Has its program restarted, and waits until the new child serves and the old one has ended.
    pub fn restart(&mut self) {
        let old = self.child;
        self.hup();
        self.ready();
        self.ended(old);
        assert_ne!(self.child, old);
    }

    /// Waits until a child is started. Returns its number.
    #[must_use]
    pub fn started(&self) -> Pid {
        number(&self.process.log.expect("started child="))
    }

    /// Waits until a child is ready, which serves then. Returns its number.
    pub fn ready(&mut self) -> Pid {
        self.child = number(&self.process.log.expect("ready child="));
        self.child
    }

    /// Waits for the end of a child. Returns the line that says so.
    pub fn ended(&self, child: Pid) -> String {
        self.process.log.expect(&format!("ended child={child} "))
    }

    /// Waits until a child has written a line that begins so.
    pub fn written(&self, child: Pid, text: &str) {
        self.process.log.wait_for(&format!("[{child}] {text}"));
    }

    /// Waits for a line of the log.
    pub fn expect(&self, text: &str) -> String {
        self.process.log.expect(text)
    }

    /// The processes that are its children now, zombies too.
    #[must_use]
    pub fn children(&self) -> Vec<Pid> {
        let pid = self.process.pid();
        let path = format!("/proc/{pid}/task/{pid}/children");
        let text = fs::read_to_string(path).expect("the children of a process");
        text.split_whitespace().map(|number| Pid::from_raw(number.parse().expect("a number"))).collect()
    }

    /// Waits until these are its only children, zombies counted.
    pub fn wait_for_children(&self, wanted: &[Pid]) {
        watch("its children", || self.children(), |children| children == wanted);
    }

    /// Waits until a child of it has ended that it has not waited for, as while it is stopped.
    pub fn wait_for_zombie(&self, child: Pid) {
        watch("its states", || status(child, "State"), |state| state.starts_with('Z'));
    }

    /// Waits until it has no more descriptors than this.
    pub fn wait_for_descriptors(&self, most: usize) {
        watch("its descriptors", || self.descriptors(), |count| *count <= most);
    }

    /// How many descriptors it has open.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.process.pid())).expect("its descriptors").count()
    }
}

/// Looks until what is seen is right. For what the system has and tells nobody of.
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

/// Waits until a child has made this file.
pub fn wait_for_file(path: &Path) {
    watch("the files", || path.exists(), |exists| *exists);
}

/// The number behind `child=` in a line.
#[must_use]
pub fn number(line: &str) -> Pid {
    let digits = line.rsplit_once("child=").map(|(_, rest)| rest.split(' ').next().unwrap_or_default());
    let number = digits.and_then(|digits| digits.parse().ok());
    Pid::from_raw(number.unwrap_or_else(|| panic!("no child in {line:?}")))
}

/// A plan for `dc_child` in a file: what the next child is to do.
#[derive(Debug)]
pub struct PlanFile {
    path: PathBuf,
    word: String,
}

impl PlanFile {
    /// A plan in `place`.
    #[must_use]
    pub fn new(place: &TestDir, words: &[&str]) -> Self {
        let path = place.file("plan");
        let plan = Self { word: format!("@{}", path.display()), path };
        plan.set(words);
        plan
    }

    /// What to give to `dc_child`.
    #[must_use]
    pub fn word(&self) -> &str {
        &self.word
    }

    /// From now on children do this.
    pub fn set(&self, words: &[&str]) {
        let unfinished = self.path.with_extension("unfinished");
        fs::write(&unfinished, words.join("\n")).expect("a file of ours");
        fs::rename(&unfinished, &self.path).expect("to rename a file of ours");
    }
}

/// What a child found when it started; see `dc_child`'s `report`.
#[derive(Debug)]
pub struct ChildReport(String);

impl ChildReport {
    /// The report in `path`, which is there.
    #[must_use]
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path);
        Self(text.unwrap_or_else(|error| panic!("the report in {}: {error}", path.display())))
    }

    /// What stands behind `word`, of all lines with it.
    #[must_use]
    pub fn all(&self, word: &str) -> Vec<&str> {
        let behind = |line| str::strip_prefix(line, word).and_then(|rest| rest.strip_prefix(' '));
        self.0.lines().filter_map(behind).collect()
    }

    /// What stands behind `word`, of the one line with it.
    #[must_use]
    pub fn one(&self, word: &str) -> &str {
        let all = self.all(word);
        assert_eq!(all.len(), 1, "{word} in {self:?}");
        all[0]
    }

    /// The value of a variable.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        let mut pairs = self.all("variable").into_iter().filter_map(|line| line.split_once('='));
        pairs.find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}
