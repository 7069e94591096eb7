//! The exact environment of a child, and its notifications to the master.

use crate::load::under_load;
use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::master::{ChildReport, MasterProcess};
use dc_tests::harness::patience::with_timeout;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::program;
use dc_tests::harness::test_dir::TestDir;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::Signal;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::path::{Path, PathBuf};

/// A master with two sockets whose first child has reported.
struct Reported {
    master: MasterProcess,
    report: PathBuf,
    place: TestDir,
}

impl Reported {
    fn start(options: &[&str]) -> Self {
        let place = TestDir::new();
        let report = place.file("report");
        let socket = format!("unix://{}", place.file("socket").display());
        let listen = format!("tcp://{}:0", own_loopback());
        // Children inherit neither the master's own descriptors nor its ignored signals, as from nohup.
        let launch =
            ProgramLaunch::new("dc_master").after("trap '' HUP; exec \"$0\" \"$@\" 7</dev/null 9<&0");
        let launch = launch.within(place.path()).with_variable("MARK", "left alone");
        let launch = launch.with_variable("LISTEN_ADDR", "its own").with_variable("WATCHDOG_PID", "1");
        let launch = launch.with(["-listen", &listen, "-listen", &socket, "-start", "0"]).with(options);
        let launch = launch.with(["-command", program("dc_child").to_str().unwrap(), "--", "ready"]);
        let master = MasterProcess::launch(&launch.with([format!("report={}", report.display())]));
        Self { master, report, place }
    }

    fn found(&self) -> ChildReport {
        let found = ChildReport::read(&self.report);
        assert_eq!(found.one("pid"), self.master.child().to_string());
        found
    }

    /// The descriptors of the child, with pipes and sockets without their numbers.
    fn descriptors(&self) -> Vec<String> {
        let found = self.found();
        let nameless = |line: &&str| {
            let (before, rest) = line.split_once(":[").unwrap_or((line, ""));
            format!("{before}{}", rest.split_once(']').map_or("", |(_, flags)| flags))
        };
        found.all("descriptor").iter().map(nameless).collect()
    }
}

#[test]
fn a_child_has_its_sockets_and_nothing_else() {
    let mut reported = Reported::start(&[]);
    assert_eq!(reported.descriptors(), ["0 /dev/null", "1 pipe", "2 pipe", "3 socket", "4 socket"]);
    // The children of these tests set the flag, which belongs to the socket and not to the descriptor. It
    // must not be cleared while they serve.
    under_load(&mut reported.master, |master, _| master.restart());
    let second = ["0 /dev/null", "1 pipe", "2 pipe", "3 socket nonblock", "4 socket nonblock"];
    assert_eq!(reported.descriptors(), second);
}

#[test]
fn sockets_are_non_blocking_where_that_is_asked_for() {
    let reported = Reported::start(&["-nonblock"]);
    let expected = ["0 /dev/null", "1 pipe", "2 pipe", "3 socket nonblock", "4 socket nonblock"];
    assert_eq!(reported.descriptors(), expected);
}

#[test]
fn a_child_is_told_what_it_has() {
    let mut reported = Reported::start(&[]);
    let mut addresses = Vec::new();
    for _ in 0..2 {
        let (found, master) = (reported.found(), &reported.master);
        let (pid, master_pid) = (master.child().to_string(), master.process.pid().to_string());
        for (name, value) in [
            ("LISTEN_FDS", "2"),
            ("LISTEN_PID", &pid),
            ("LISTEN_FDNAMES", "listener:listener"),
            ("FDSTORE", "256"),
            ("EINHORN_FDS", "3"),
            ("EINHORN_FD_COUNT", "2"),
            ("EINHORN_FD_0", "3"),
            ("EINHORN_FD_1", "4"),
            ("EINHORN_MASTER_PID", &master_pid),
            ("MARK", "left alone"),
            ("LISTEN_ADDR", "its own"),
        ] {
            assert_eq!(found.variable(name), Some(value), "{name}");
        }
        assert_eq!(found.variable("WATCHDOG_PID"), None);
        assert_eq!(found.one("parent"), master_pid);
        assert_eq!(found.one("directory"), reported.place.path().to_str().unwrap());
        assert_eq!(found.all("argument")[0], "ready");
        let status = found.all("status");
        for field in ["SigBlk:\t0000000000000000", "Name:\tdc_child"] {
            assert!(status.contains(&field), "{field} in {status:?}");
        }
        let ignored = status.iter().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        for signal in [
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGTERM,
            Signal::SIGCHLD,
        ] {
            assert_eq!(ignored >> (signal as i32 - 1) & 1, 0, "{signal} is ignored");
        }
        addresses.push(found.variable("NOTIFY_SOCKET").unwrap().to_owned());
        reported.master.restart();
    }
    assert!(addresses.iter().all(|address| address.starts_with('/')), "{addresses:?}");
    assert_ne!(addresses[0], addresses[1], "a child has the address of another");
    reported.master.process.stop();
    let left = |address: &String| Path::new(address).parent().unwrap().exists();
    assert!(!addresses.iter().any(left), "the directory of {addresses:?} was left");
}

#[test]
fn child_output_has_the_child_number() {
    let mut master = MasterProcess::start(&["-start", "0"], &["output", "ready"]);
    let child = master.child();
    let own = format!("[{child}] ");
    master.restart();
    let lines = master.process.stop();
    let written: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix(&own)).collect();
    let count = written.iter().map(|line| line.bytes().filter(|byte| *byte == b'x').count()).sum::<usize>();
    assert_eq!(count, 300_001, "of the long line something is lost");
    assert!(written.iter().any(|line| line.ends_with("the end of x")));
    assert!(written.iter().any(|line| line.starts_with("binary ")), "{written:?}");
    for line in ["plain", "to stderr", "without an end", "signal HUP"] {
        assert!(written.contains(&line), "{line}");
    }
    let strays = lines.iter().filter(|line| line.contains("xxx") && !line.starts_with('['));
    assert_eq!(strays.count(), 0, "lines without a number");
}

/// A pipe whose buffer is full.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = io::pipe().unwrap();
    let capacity = fcntl(&writer, FcntlArg::F_GETPIPE_SZ).unwrap();
    writer.write_all(&vec![b'\n'; usize::try_from(capacity).unwrap()]).unwrap();
    (reader, writer)
}

#[test]
fn unread_child_output_does_not_block_the_master() {
    // Kept open, since writing would fail otherwise.
    let (unread, full) = full_pipe();
    let launch = ProgramLaunch::new("dc_master").with_stdin(full).after("exec \"$0\" \"$@\" >&0 </dev/null");
    let launch = launch.with(["-listen", &format!("tcp://{}:0", own_loopback()), "-start", "0"]);
    let launch = launch.with(["-command", program("dc_child").to_str().unwrap(), "--", "ready", "chatter"]);
    let mut master = MasterProcess::launch(&launch);
    under_load(&mut master, |master, _| (0..5).for_each(|_| master.restart()));
    let lines = master.process.stop();
    let told =
        lines.iter().filter(|line| line.contains(" WARN the last output of the children is lost bytes="));
    assert_eq!(told.count(), 1, "how much is lost is told");
    drop(unread);
}

#[test]
fn a_reader_that_stops_halfway_holds_the_master_up_in_nothing() {
    // Log and child output go to the same pipe, of which little is read, and then nothing.
    let (mut unread, full) = full_pipe();
    let launch =
        ProgramLaunch::new("dc_master").with_stdin(full).after("exec \"$0\" \"$@\" >&0 2>&0 </dev/null");
    let place = TestDir::new();
    let socket = place.file("socket");
    let launch = launch.with(["-listen", &format!("unix://{}", socket.display()), "-start", "0"]);
    let launch = launch.with(["-command", "sh", "--", "-c", "exec \"$0\" ready chatter >&2"]);
    let mut master = launch.with([program("dc_child")]).start();
    let mut page = [0; 4096];
    while !page.contains(&b'[') {
        unread.read_exact(&mut page).unwrap();
    }
    for _ in 0..1000 {
        unread.read_exact(&mut page).unwrap();
        // It logs each forwarded signal, most likely while lines of a child are queued.
        (0..20).for_each(|_| master.signal(Signal::SIGUSR1));
    }
    with_timeout("the end of the master", move || master.stop());
    drop(unread);
}
