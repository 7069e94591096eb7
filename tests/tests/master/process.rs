//! The master as a process: pidfile, daemon, user, and first process of a container.

use crate::command::copy_child;
use crate::load::under_load;
use dc_tests::harness::callers::Callers;
use dc_tests::harness::daemon::{DaemonProcess, stderr};
use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::master::{ChildReport, MasterProcess};
use dc_tests::harness::process::{ProgramLaunch, status};
use dc_tests::harness::programs::program;
use dc_tests::harness::require::skip;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::WaitStatus;
use nix::unistd::{Pid, User, geteuid};
use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::process::Command;

/// Options for a separate address, which is returned, since no log line contains it.
fn launch(place: &TestDir) -> (ProgramLaunch, SocketAddr) {
    let port = TcpListener::bind((own_loopback(), 0)).unwrap();
    let address = port.local_addr().unwrap();
    let pidfile = place.file("pid");
    let launch =
        ProgramLaunch::new("dc_master").with(["-listen", &format!("tcp://{address}"), "-start", "0"]);
    let launch = launch.with(["-pidfile", pidfile.to_str().unwrap()]);
    let command = program("dc_child");
    (launch.with(["-daemon", "-command", command.to_str().unwrap(), "--", "ready"]), address)
}

#[test]
fn a_daemon_keeps_its_number_while_its_children_change() {
    let place = TestDir::new();
    let (launch, address) = launch(&place);
    let daemon = DaemonProcess::start(&launch, &place.file("pid"));
    let callers = Callers::of_child(address);
    let mut children = vec![callers.wait_for_another(&[])];
    for _ in 0..3 {
        kill(daemon.pid(), Signal::SIGHUP).unwrap();
        children.push(callers.wait_for_another(&children));
    }
    assert!(!children.contains(&daemon.pid()));
    callers.finish().all_answered(4);
    assert_eq!(fs::read_to_string(place.file("pid")).unwrap(), format!("{}\n", daemon.pid()));
    // A second instance is refused and changes nothing.
    let output = launch.output();
    let said = stderr(&output);
    let running = format!("another instance is running as process {}", daemon.pid());
    assert!(said.contains(&running) || said.contains("in use"), "{said}");
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    let pid = daemon.pid();
    assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn children_start_where_the_master_did_wherever_that_is_by_then() {
    let place = TestDir::new();
    let (before, after) = (place.file("before"), place.file("after"));
    let report = place.file("report");
    let word = format!("report={}", report.display());

    fs::create_dir(&before).unwrap();
    let child = program("dc_child");
    let listen = format!("tcp://{}:0", own_loopback());
    let here = ProgramLaunch::new("dc_master").within(&before).with(["-start", "0", "-listen", &listen]);
    let mut master =
        MasterProcess::launch(&here.with(["-command", child.to_str().unwrap(), "--", "ready", &word]));
    assert_eq!(ChildReport::read(&report).one("directory"), before.to_str().unwrap());
    fs::rename(&before, &after).unwrap();
    master.restart();
    assert_eq!(ChildReport::read(&report).one("directory"), after.to_str().unwrap());
    master.process.stop();

    let (launch, address) = launch(&place);
    let daemon = DaemonProcess::start(&launch.within(&after).with([&word]), &place.file("pid"));
    let callers = Callers::of_child(address);
    let first = callers.wait_for_another(&[]);
    assert_eq!(ChildReport::read(&report).one("directory"), after.to_str().unwrap());
    fs::rename(&after, &before).unwrap();
    kill(daemon.pid(), Signal::SIGHUP).unwrap();
    assert_ne!(callers.wait_for_another(&[first]), first);
    assert_eq!(ChildReport::read(&report).one("directory"), before.to_str().unwrap());
    callers.finish().all_answered(2);
}

/// The user to switch to, if that is possible; prints a message otherwise.
fn nobody() -> Option<User> {
    let nobody = geteuid().is_root().then(|| User::from_name("nobody").unwrap()).flatten();
    if nobody.is_none() {
        skip("not root, or there is no user nobody");
    }
    nobody
}

#[test]
fn children_are_another_user_and_the_master_stays_who_it_is() {
    let Some(nobody) = nobody() else { return };
    let place = TestDir::new();
    let (command, report, path) = (place.file("app"), place.file("report"), place.file("socket"));
    // A directory that this user may enter.
    copy_child(&command);
    let tcp = format!("tcp://{}:0", own_loopback());
    let launch = ProgramLaunch::new("dc_master").with(["-listen", &tcp, "-start", "0", "-user", "nobody"]);
    let launch = launch.with(["-listen", &format!("unix://{}", path.display()), "-sockowner"]);
    let launch = launch.with(["-command", command.to_str().unwrap(), "--", "ready"]);
    let mut master = MasterProcess::launch(&launch.with([format!("report={}", report.display())]));
    for _ in 0..2 {
        let four = |id: u32| [id.to_string(), id.to_string(), id.to_string(), id.to_string()].join("\t");
        let found = ChildReport::read(&report);
        let says = found.all("status");
        for (field, id) in [("Uid", nobody.uid.as_raw()), ("Gid", nobody.gid.as_raw())] {
            let expected = format!("{field}:\t{}", four(id));
            assert!(says.contains(&expected.as_str()), "{expected} in {says:?}");
        }
        assert_eq!(status(master.process.pid(), "Uid"), four(0));
        // The report belongs to that user; the next child cannot replace another's in this directory.
        under_load(&mut master, |master, _| master.restart());
    }
    assert_eq!(fs::metadata(&path).unwrap().uid(), nobody.uid.as_raw());
    master.process.stop();
    assert!(!path.exists());
}

#[test]
fn a_user_that_does_not_exist_is_an_error_at_the_start() {
    let launch = ProgramLaunch::new("dc_master").with(["-listen", "tcp://127.0.0.1:0", "-command", "true"]);
    let output = launch.with(["-user", "no-such-user"]).output();
    let said = stderr(&output);
    assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{said}");
    assert!(said.contains("no-such-user"), "{said}");
}

#[test]
fn too_few_descriptors_are_an_error_at_the_start() {
    for files_max in [8, 9, 12, 16] {
        let launch = ProgramLaunch::new("dc_master").with(["-log", "error", "-listen"]);
        let launch = launch.with([&format!("tcp://{}:0", own_loopback()), "-command", "true"]);
        let output = launch.with_files_max(files_max).output();
        let said = stderr(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(1), 1), "{files_max}: {said}");
        assert!(said.contains("Too many open files"), "{said}");
    }
}

#[test]
fn signals_that_were_blocked_are_heard() {
    let signals = [Signal::SIGHUP, Signal::SIGTERM, Signal::SIGCHLD];
    let blocked: SigSet = signals.into_iter().collect();
    // A new process has the signal mask of the thread that starts it, and this thread starts no other.
    blocked.thread_block().unwrap();
    let mut master = MasterProcess::start(&["-start", "0"], &["ready"]);
    blocked.thread_unblock().unwrap();
    master.restart();
    master.process.stop();
}

#[test]
fn master_runs_as_first_process_of_a_container() {
    let unshare = ["-pf", "--mount-proc"];
    let works = Command::new("unshare").args(unshare).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        skip("no PID namespace can be made (unshare -pf)");
        return;
    }
    let place = TestDir::new();
    let report = place.file("report");
    let launch =
        ProgramLaunch::new("dc_master").after("exec unshare -pf --kill-child --mount-proc \"$0\" \"$@\"");
    let launch = launch.with(["-listen", &format!("tcp://{}:0", own_loopback()), "-start", "0"]);
    let launch = launch.with(["-command", program("dc_child").to_str().unwrap(), "--"]);
    let mut master =
        MasterProcess::launch(&launch.with(["ready", "orphans=5", &format!("report={}", report.display())]));
    // The started process waits for the first one of the container, which has a different pid here.
    let children = master.children();
    let [first] = children[..] else { panic!("{children:?}") };
    for _ in 0..3 {
        let callers = Callers::of_child(master.address());
        let old = master.child();
        kill(first, Signal::SIGHUP).unwrap();
        let new = master.ready();
        master.ended(old);
        callers.wait_for_child(new);
        callers.finish().all_answered(1);
    }
    assert_eq!(ChildReport::read(&report).one("parent"), "1");
    wait_for_children_of(first, 1);
    kill(first, Signal::SIGTERM).unwrap();
    assert!(master.process.wait().success());
}

/// Waits until a process has this many children, including zombies.
fn wait_for_children_of(pid: Pid, count: usize) {
    let children = || fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let began = std::time::Instant::now();
    while children().split_whitespace().count() != count {
        assert!(began.elapsed() < dc_tests::harness::patience::PATIENCE, "{}", children());
        std::thread::yield_now();
    }
}
