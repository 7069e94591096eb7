//! Under a supervisor: sockets that it passes, what it is told, and what becomes of its sockets.

use dc_tests::harness::agent::unix;
use dc_tests::harness::connection::{DISCONNECTED, NOTOK, OK, TestConnection};
use dc_tests::harness::daemon::{DaemonProcess, stderr};
use dc_tests::harness::notify_receiver::NotifyReceiver;
use dc_tests::harness::patience::PATIENCE;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::require::skip;
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use nix::sys::wait::WaitStatus;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process;

/// The mode of a passed socket: one that no program would choose.
const MODE: u32 = 0o640;

/// A socket of the supervisor's.
struct PassedTestSocket {
    place: TestDir,
    listener: UnixListener,
}

impl PassedTestSocket {
    fn new() -> Self {
        let place = TestDir::new();
        let listener = UnixListener::bind(place.file("socket")).unwrap();
        fs::set_permissions(place.file("socket"), fs::Permissions::from_mode(MODE)).unwrap();
        Self { place, listener }
    }

    fn path(&self) -> PathBuf {
        self.place.file("socket")
    }

    /// Passes it to the program, as descriptor 3, without saying so.
    fn silently(&self, program: &'static str) -> ProgramLaunch {
        ProgramLaunch::new(program).passing(self.listener.try_clone().unwrap())
    }

    /// Passes it to the program as systemd does.
    fn to(&self, program: &'static str) -> ProgramLaunch {
        self.silently(program).with_variable("LISTEN_FDS", "1").with_variable("LISTEN_PID", "own")
    }

    /// The program that had it has left it as it was: at its path, with its mode, and open to the next.
    fn is_intact(&self) {
        is_intact(&self.path());
        let _peer = UnixStream::connect(self.path()).unwrap();
        self.listener.accept().unwrap();
    }
}

fn is_intact(path: &Path) {
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, MODE);
}

/// An address of a server that nobody has.
fn no_server(place: &TestDir) -> String {
    unix(&place.file("no-server"))
}

#[test]
fn a_server_serves_a_passed_socket_and_tells_its_supervisor() {
    let (socket, supervisor) = (PassedTestSocket::new(), NotifyReceiver::start());
    let pidfile = socket.place.file("pid");
    let launch = socket.to("dc_server").with(["-pidfile", pidfile.to_str().unwrap()]);
    let mut server = launch.with_variable("NOTIFY_SOCKET", supervisor.path()).start();
    assert_eq!(supervisor.hears(), "READY=1");
    assert_eq!(supervisor.hears(), "STATUS=serving");
    assert_eq!(fs::read_to_string(pidfile).unwrap(), format!("{}\n", server.pid()));
    let mut connection = TestConnection::unix(&socket.path());
    assert_eq!((connection.add(b"id", b"session"), connection.have(b"id")), (OK.to_vec(), OK.to_vec()));
    server.signal(Signal::SIGTERM);
    assert_eq!(supervisor.hears(), "STOPPING=1");
    assert!(server.wait().success());
    assert_eq!(server.log.with("listening address=").len(), 1);
    socket.is_intact();
}

#[test]
fn an_agent_serves_a_passed_socket_without_a_server_too_and_says_which() {
    let (socket, supervisor) = (PassedTestSocket::new(), NotifyReceiver::start());
    let first = ServerProcess::start(&[]);
    let address = first.address();
    drop(first);
    let server = format!("IP:{address}");
    let launch = socket.silently("dc_client").with(["-server", &server, "-retry", "10"]);
    let launch = launch.with_variable("EINHORN_FDS", "3");
    let launch = launch.with_variable("EINHORN_MASTER_PID", process::id().to_string());
    let mut agent = launch.with_variable("NOTIFY_SOCKET", supervisor.path()).start();
    assert_eq!(supervisor.hears(), "READY=1");
    assert_eq!(
        supervisor.hears(),
        format!("STATUS=no server at {server}; requests are answered DISCONNECTED")
    );
    let mut connection = TestConnection::unix(&socket.path());
    assert_eq!(connection.have(b"id"), DISCONNECTED);

    let back = ProgramLaunch::new("dc_server").with(["-listen", &server]).start();
    assert_eq!(supervisor.hears(), format!("STATUS=connected to {server}"));
    assert_eq!(connection.have(b"id"), NOTOK);
    drop(back);
    assert_eq!(
        supervisor.hears(),
        format!("STATUS=no server at {server}; requests are answered DISCONNECTED")
    );
    agent.signal(Signal::SIGTERM);
    assert_eq!(supervisor.hears(), "STOPPING=1");
    assert!(agent.wait().success());
    // And not the usual place.
    assert_eq!(agent.log.with("listening address=").len(), 1);
    socket.is_intact();
}

#[test]
fn what_is_passed_is_listened_on_besides_what_is_given_and_once() {
    let socket = PassedTestSocket::new();
    let further = socket.place.file("further");
    let mut server = socket.to("dc_server").with(["-listen", "FD:3", "-listen", &unix(&further)]).start();
    server.log.expect("serving");
    assert_eq!(server.log.with("listening address=").len(), 2);
    for path in [&socket.path(), &further] {
        assert_eq!(TestConnection::unix(path).have(b"id"), NOTOK);
    }
    server.stop();
    assert!(!further.exists());
    socket.is_intact();
}

#[test]
fn a_supervisor_that_has_gone_is_no_obstacle() {
    let socket = PassedTestSocket::new();
    let nobody = socket.place.file("notify");
    let mut server = socket.to("dc_server").with_variable("NOTIFY_SOCKET", nobody).start();
    server.log.expect("cannot notify the service manager");
    assert_eq!(TestConnection::unix(&socket.path()).have(b"id"), NOTOK);
    server.stop();
}

#[test]
fn a_supervisor_that_has_no_time_is_told_when_it_has() {
    let (socket, supervisor) = (PassedTestSocket::new(), NotifyReceiver::start());
    supervisor.overwhelm();
    let mut server = socket.to("dc_server").with_variable("NOTIFY_SOCKET", supervisor.path()).start();
    server.log.expect("cannot notify the service manager");
    assert_eq!(TestConnection::unix(&socket.path()).have(b"id"), NOTOK);
    supervisor.expect("READY=1");
    assert_eq!(supervisor.hears(), "STATUS=serving");
    supervisor.overwhelm();
    server.stop();
    server.log.expect("notifications to the service manager were not delivered notifications=\"STOPPING=1 ");
}

#[test]
fn a_daemon_is_the_main_process_and_has_the_sockets_of_its_starter() {
    let (socket, supervisor) = (PassedTestSocket::new(), NotifyReceiver::start());
    let pidfile = socket.place.file("pid");
    let launch = socket.to("dc_server").with(["-daemon", "-pidfile", pidfile.to_str().unwrap()]);
    let launch = launch.with_variable("NOTIFY_SOCKET", supervisor.path());
    let daemon = DaemonProcess::start(&launch, &pidfile);
    assert_eq!(supervisor.hears(), format!("MAINPID={}", daemon.pid()));
    supervisor.expect("READY=1");
    assert_eq!(TestConnection::unix(&socket.path()).have(b"id"), NOTOK);
    let pid = daemon.pid();
    assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
    supervisor.expect("STOPPING=1");
    socket.is_intact();
}

#[test]
fn the_watchdog_hears_that_a_program_is_alive() {
    for program in ["dc_server", "dc_client"] {
        let (socket, supervisor) = (PassedTestSocket::new(), NotifyReceiver::start());
        let mut launch = socket.to(program).with_variable("WATCHDOG_USEC", "2000");
        if program == "dc_client" {
            launch = launch.with(["-server", &no_server(&socket.place)]);
        }
        let mut running = launch.with_variable("NOTIFY_SOCKET", supervisor.path()).start();
        supervisor.expect("READY=1");
        for _ in 0..3 {
            supervisor.expect("WATCHDOG=1");
        }
        running.signal(Signal::SIGTERM);
        supervisor.expect("STOPPING=1");
        assert!(running.wait().success());
    }
}

#[test]
fn variables_that_make_no_sense_prevent_the_start() {
    let socket = PassedTestSocket::new();
    let far = "LISTEN_FDNAMES has 1 names for 2 descriptors";
    for (variables, status, why) in [
        (vec![("LISTEN_FDS", "abc")], 1, "LISTEN_FDS=abc: not a number"),
        (vec![("LISTEN_FDS", "2")], 1, "passed by the service manager, FD:4: "),
        (vec![("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "one")], 1, far),
        (vec![("LISTEN_FDS", "1"), ("NOTIFY_SOCKET", "somewhere")], 1, "NOTIFY_SOCKET=somewhere: "),
        // Meant for nobody.
        (vec![], 64, "-listen is required unless a service manager passes sockets"),
    ] {
        let mut launch = socket.silently("dc_server").with_variable("LISTEN_PID", "own");
        for (name, value) in variables {
            launch = launch.with_variable(name, value);
        }
        let output = launch.output();
        let said = stderr(&output);
        assert!(said.contains(why) && said.lines().count() == 1, "{why:?} expected, {said:?} said");
        assert_eq!(output.status.code(), Some(status), "{said}");
    }
    let other =
        socket.silently("dc_server").with_variable("LISTEN_FDS", "1").with_variable("LISTEN_PID", "1");
    assert_eq!(other.output().status.code(), Some(64));
    socket.is_intact();
}

/// A connection that has its answer from the example, and is not closed.
fn answered(path: &Path) -> (BufReader<UnixStream>, String) {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut reader = BufReader::new(stream);
    let mut lines = String::new();
    reader.read_line(&mut lines).unwrap();
    assert_eq!(lines, "HTTP/1.0 200 OK\r\n");
    reader.read_to_string(&mut lines).unwrap();
    (reader, lines.lines().last().unwrap().to_owned())
}

#[test]
fn the_example_of_a_child_answers_what_it_has_accepted_and_leaves_the_rest_to_the_next() {
    let socket = PassedTestSocket::new();
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let supervisor = NotifyReceiver::start();
        let launch = socket.to("good_child").with_variable("NOTIFY_SOCKET", supervisor.path());
        let mut child = launch.start();
        assert_eq!(supervisor.hears(), "READY=1");
        let (mut busy, line) = answered(&socket.path());
        assert_eq!(line, format!("answered by process {}", child.pid()));
        child.signal(signal);
        assert_eq!(supervisor.hears(), "STOPPING=1");
        // More than the system holds: somebody has to read it.
        busy.get_mut().write_all(&vec![0; 1 << 24]).unwrap();
        drop(busy);
        assert!(child.wait().success());
        // Who comes now is in the queue.
        let mut waiting = UnixStream::connect(socket.path()).unwrap();
        waiting.set_read_timeout(Some(PATIENCE)).unwrap();
        let next = launch.start();
        let mut answer = String::new();
        waiting.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("answered by process {}\n", next.pid())), "{answer}");
    }
    socket.is_intact();
}

#[test]
fn the_tool_of_systemd_passes_sockets_to_all_of_them() {
    const TOOL: &str = "/usr/bin/systemd-socket-activate";
    if !Path::new(TOOL).exists() {
        skip(&format!("{TOOL} is not installed"));
        return;
    }
    for program in ["dc_server", "dc_client", "good_child"] {
        let (place, supervisor) = (TestDir::new(), NotifyReceiver::start());
        let path = place.file("socket");
        let notify = format!("NOTIFY_SOCKET={}", supervisor.path().display());
        let mut launch =
            ProgramLaunch::new(program).under([TOOL, "-l", path.to_str().unwrap(), "-E", &notify]);
        if program == "dc_client" {
            launch = launch.with(["-server", &no_server(&place)]);
        }
        let mut running = launch.start();
        running.log.expect("Listening on");
        fs::set_permissions(&path, fs::Permissions::from_mode(MODE)).unwrap();
        // It starts the program at the first connection.
        match program {
            "dc_server" => assert_eq!(TestConnection::unix(&path).have(b"id"), NOTOK),
            "dc_client" => assert_eq!(TestConnection::unix(&path).have(b"id"), DISCONNECTED),
            _ => assert_eq!(answered(&path).1, format!("answered by process {}", running.pid())),
        }
        supervisor.expect("READY=1");
        running.signal(Signal::SIGTERM);
        supervisor.expect("STOPPING=1");
        assert!(running.wait().success());
        is_intact(&path);
    }
}
