//! The master's addresses: paths that are stale, taken or removed, and inherited sockets.

use crate::load::under_load;
use dc_tests::harness::callers::Callers;
use dc_tests::harness::connection::TestConnection;
use dc_tests::harness::daemon::stderr;
use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::master::{ChildReport, MasterProcess};
use dc_tests::harness::patience::with_timeout;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::program;
use dc_tests::harness::require::skip;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::stat::fstat;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;

/// A master with a port and a path.
fn with_path(path: &Path, options: &[&str]) -> MasterProcess {
    let socket = format!("unix://{}", path.display());
    let tcp = format!("tcp://{}:0", own_loopback());
    let launch = ProgramLaunch::new("dc_master").with(["-listen", &tcp, "-listen", &socket, "-start", "0"]);
    let command = program("dc_child");
    MasterProcess::launch(&launch.with(options).with(["-command", command.to_str().unwrap(), "--", "ready"]))
}

/// The child that answers at a path.
fn child_at(path: &Path) -> Pid {
    let answer = TestConnection::unix(path).request("who\n");
    Pid::from_raw(answer.strip_prefix("child ").and_then(|number| number.parse().ok()).unwrap())
}

#[test]
fn callers_of_a_path_notice_no_restart_either() {
    let place = TestDir::new();
    let path = place.file("socket");
    let mut master = with_path(&path, &["-sockperms", "600"]);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let callers = Callers::of_child_at(&path);
    for _ in 0..10 {
        master.restart();
        callers.wait_for_child(master.child());
    }
    callers.finish().all_answered(10);
    master.process.stop();
    assert_eq!(place.names(), Vec::<String>::new(), "the path was left");
}

#[test]
fn a_path_that_a_dead_process_left_is_taken() {
    let place = TestDir::new();
    let path = place.file("socket");
    drop(UnixListener::bind(&path).unwrap());
    // This process adopts orphans, so that their end can be observed.
    set_child_subreaper(true).unwrap();
    let mut first = with_path(&path, &[]);
    let child = first.child();
    assert_eq!(child_at(&path), child);
    // It has no chance to remove the path, which is stale once its child has ended.
    first.process.kill();
    with_timeout("the end of an orphan", move || waitpid(child, None)).unwrap();
    let second = with_path(&path, &[]);
    assert_eq!(child_at(&path), second.child());
}

#[test]
fn a_path_where_somebody_listens_or_something_is_stays_as_it_is() {
    let place = TestDir::new();
    let (taken, file) = (place.file("taken"), place.file("file"));
    let live = UnixListener::bind(&taken).unwrap();
    fs::write(&file, "precious").unwrap();
    for (path, says) in [(&taken, "a live process is listening there"), (&file, "not a socket")] {
        let socket = format!("unix://{}", path.display());
        let launch = ProgramLaunch::new("dc_master").with(["-listen", &socket, "-command", "true"]);
        let output = launch.output();
        let said = stderr(&output);
        assert!(said.contains(says) && said.lines().count() == 1, "{said}");
        assert_eq!(output.status.code(), Some(1), "{said}");
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    drop(live);
    assert_eq!(place.names(), ["file", "taken"]);
}

#[test]
fn a_path_that_was_removed_is_made_anew_by_a_hangup() {
    let place = TestDir::new();
    let path = place.file("socket");
    let mut master = with_path(&path, &[]);
    under_load(&mut master, |master, _| {
        fs::remove_file(&path).unwrap();
        master.restart();
        assert_eq!(child_at(&path), master.child());
        // The path is not recreated without need.
        let made = fs::metadata(&path).unwrap();
        master.restart();
        assert_eq!(child_at(&path), master.child());
        assert_eq!(fs::metadata(&path).unwrap().ino(), made.ino());
    });
    master.process.stop();
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn a_path_that_was_replaced_is_the_others_at_the_end() {
    let place = TestDir::new();
    let path = place.file("socket");
    let mut master = with_path(&path, &[]);
    fs::remove_file(&path).unwrap();
    let _other = UnixListener::bind(&path).unwrap();
    // The path is taken, so the master keeps its old socket.
    under_load(&mut master, |master, _| master.restart());
    master.process.stop();
    assert_eq!(place.names(), ["socket"], "the socket of another was removed");
}

fn passing(listener: &TcpListener, options: &[&str], report: &Path) -> ProgramLaunch {
    let launch = ProgramLaunch::new("dc_master").passing(listener.try_clone().unwrap());
    let launch = launch.with_variable("LISTEN_FDS", "1").with_variable("LISTEN_PID", "own");
    let launch = launch.with(["-start", "0", "-command", program("dc_child").to_str().unwrap()]);
    launch.with(options).with(["--", "ready", &format!("report={}", report.display())])
}

#[test]
fn a_socket_that_was_passed_in_is_passed_on_and_stays_open() {
    let place = TestDir::new();
    let report = place.file("report");
    let listener = TcpListener::bind((own_loopback(), 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut master = MasterProcess::launch(&passing(&listener, &[], &report));
    assert_eq!(master.address(), address);
    under_load(&mut master, |master, _| master.restart());
    let found = ChildReport::read(&report);
    assert_eq!(found.variable("LISTEN_PID"), Some(master.child().to_string().as_str()));
    assert_eq!((found.variable("LISTEN_FDS"), found.variable("EINHORN_FD_COUNT")), (Some("1"), Some("1")));
    assert_eq!(found.all("descriptor").len(), 4, "{found:?}");
    master.process.stop();
    // It does not belong to the master, which must not kill it.
    TcpStream::connect(address).unwrap();
}

#[test]
fn sockets_that_were_passed_in_come_before_others() {
    let place = TestDir::new();
    let report = place.file("report");
    let listener = TcpListener::bind((own_loopback(), 0)).unwrap();
    let passed = format!("3 socket:[{}]", fstat(&listener).unwrap().st_ino);
    let another = format!("tcp://{}:0", own_loopback());
    let launch = passing(&listener, &["-listen", &another], &report).with_variable("LISTEN_FDNAMES", "web");
    let mut master = MasterProcess::launch(&launch);
    for _ in 0..2 {
        let found = ChildReport::read(&report);
        assert_eq!(found.variable("LISTEN_FDNAMES"), Some("web:listener"), "it keeps its name");
        let descriptors = found.all("descriptor");
        assert_eq!(descriptors.len(), 5, "{found:?}");
        // Flags may follow it.
        assert!(descriptors[3].starts_with(&passed), "{passed} is not in {descriptors:?}");
        assert!(descriptors[4].starts_with("4 socket:"), "{descriptors:?}");
        under_load(&mut master, |master, _| master.restart());
    }
    assert_eq!(master.address(), listener.local_addr().unwrap());
    master.process.stop();
}

#[test]
fn sockets_for_another_process_are_not_taken() {
    let place = TestDir::new();
    let listener = TcpListener::bind((own_loopback(), 0)).unwrap();
    let not_ours = passing(&listener, &[], &place.file("report")).with_variable("LISTEN_PID", "1");
    let output = not_ours.output();
    let said = stderr(&output);
    assert!(!output.status.success() && said.lines().count() == 1, "{said}");
    assert_eq!(place.names(), Vec::<String>::new(), "a child was started");
}

#[test]
fn systemd_socket_activate_starts_it() {
    if Command::new("systemd-socket-activate").arg("--version").output().is_err() {
        skip("systemd-socket-activate is not installed");
        return;
    }
    let place = TestDir::new();
    let report = place.file("report");
    // No other process has the port: the address is private to this test.
    let port = TcpListener::bind((own_loopback(), 0)).unwrap();
    let address = port.local_addr().unwrap();
    drop(port);
    let launch =
        ProgramLaunch::new("dc_master").under(["systemd-socket-activate", "-l", &address.to_string()]);
    let launch = launch.with(["-start", "0", "-command", program("dc_child").to_str().unwrap(), "--"]);
    let launch = launch.with(["ready", &format!("report={}", report.display())]);
    let process = launch.start();
    process.log.expect("Listening on");
    let callers = Callers::of_child(address);
    process.log.expect("ready child=");
    for _ in 0..3 {
        process.signal(nix::sys::signal::Signal::SIGHUP);
        process.log.expect("ready child=");
    }
    callers.wait_for(100);
    callers.finish().all_answered(100);
    assert_eq!(ChildReport::read(&report).variable("LISTEN_FDS"), Some("1"));
}
