//! Under a service manager: socket activation, notifications, and the state in which sockets are left.

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

/// The mode of an inherited socket, which no program would choose.
const MODE: u32 = 0o640;

/// A socket of the service manager.
struct PassedTestSocket {
    dir: TestDir,
    listener: UnixListener,
}

impl PassedTestSocket {
    fn new() -> Self {
        let dir = TestDir::new();
        let listener = UnixListener::bind(dir.file("socket")).unwrap();
        fs::set_permissions(dir.file("socket"), fs::Permissions::from_mode(MODE)).unwrap();
        Self { dir, listener }
    }

    fn path(&self) -> PathBuf {
        self.dir.file("socket")
    }

    /// Passes the socket to the program as descriptor 3, without the variables.
    fn silently(&self, program: &'static str) -> ProgramLaunch {
        ProgramLaunch::new(program).passing(self.listener.try_clone().unwrap())
    }

    /// Passes the socket to the program as systemd does.
    fn to(&self, program: &'static str) -> ProgramLaunch {
        self.silently(program).with_variable("LISTEN_FDS", "1").with_variable("LISTEN_PID", "own")
    }

    /// Asserts that the socket is unchanged: same path, same mode, and still accepting.
    fn is_intact(&self) {
        is_intact(&self.path());
        let _peer = UnixStream::connect(self.path()).unwrap();
        self.listener.accept().unwrap();
    }
}

fn is_intact(path: &Path) {
    assert_eq!(fs::metadata(path).unwrap().mode() & 0o7777, MODE);
}

/// The address of a server that does not exist.
fn no_server(dir: &TestDir) -> String {
    unix(&dir.file("no-server"))
}

#[test]
fn server_serves_inherited_socket_and_notifies() {
    let (socket, receiver) = (PassedTestSocket::new(), NotifyReceiver::start());
    let pidfile = socket.dir.file("pid");
    let launch = socket.to("dc_server").with(["-pidfile", pidfile.to_str().unwrap()]);
    let mut server = launch.with_variable("NOTIFY_SOCKET", receiver.path()).start();
    assert_eq!(receiver.hears(), "READY=1");
    assert_eq!(receiver.hears(), "STATUS=serving");
    assert_eq!(fs::read_to_string(pidfile).unwrap(), format!("{}\n", server.pid()));
    let mut connection = TestConnection::unix(&socket.path());
    assert_eq!((connection.add(b"id", b"session"), connection.have(b"id")), (OK.to_vec(), OK.to_vec()));
    server.signal(Signal::SIGTERM);
    assert_eq!(receiver.hears(), "STOPPING=1");
    assert!(server.wait().success());
    assert_eq!(server.log.with("listening address=").len(), 1);
    socket.is_intact();
}

#[test]
fn agent_serves_inherited_socket_and_notifies_server_state() {
    let (socket, receiver) = (PassedTestSocket::new(), NotifyReceiver::start());
    let first = ServerProcess::start(&[]);
    let address = first.address();
    drop(first);
    let server = format!("IP:{address}");
    let launch = socket.silently("dc_client").with(["-server", &server, "-retry", "10"]);
    let launch = launch.with_variable("EINHORN_FDS", "3");
    let launch = launch.with_variable("EINHORN_MASTER_PID", process::id().to_string());
    let mut agent = launch.with_variable("NOTIFY_SOCKET", receiver.path()).start();
    assert_eq!(receiver.hears(), "READY=1");
    assert_eq!(receiver.hears(), format!("STATUS=no server at {server}; requests are answered DISCONNECTED"));
    let mut connection = TestConnection::unix(&socket.path());
    assert_eq!(connection.have(b"id"), DISCONNECTED);

    let back = ProgramLaunch::new("dc_server").with(["-listen", &server]).start();
    assert_eq!(receiver.hears(), format!("STATUS=connected to {server}"));
    assert_eq!(connection.have(b"id"), NOTOK);
    drop(back);
    assert_eq!(receiver.hears(), format!("STATUS=no server at {server}; requests are answered DISCONNECTED"));
    agent.signal(Signal::SIGTERM);
    assert_eq!(receiver.hears(), "STOPPING=1");
    assert!(agent.wait().success());
    // It does not listen on its default address too.
    assert_eq!(agent.log.with("listening address=").len(), 1);
    socket.is_intact();
}

#[test]
fn inherited_sockets_add_to_listen_options_without_duplicates() {
    let socket = PassedTestSocket::new();
    let further = socket.dir.file("further");
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
fn missing_notify_socket_does_not_stop_program() {
    let socket = PassedTestSocket::new();
    let missing = socket.dir.file("notify");
    let mut server = socket.to("dc_server").with_variable("NOTIFY_SOCKET", missing).start();
    server.log.expect("cannot notify the service manager");
    assert_eq!(TestConnection::unix(&socket.path()).have(b"id"), NOTOK);
    server.stop();
}

#[test]
fn notification_is_sent_once_full_socket_has_space() {
    let (socket, receiver) = (PassedTestSocket::new(), NotifyReceiver::start());
    receiver.overwhelm();
    let mut server = socket.to("dc_server").with_variable("NOTIFY_SOCKET", receiver.path()).start();
    server.log.expect("cannot notify the service manager");
    assert_eq!(TestConnection::unix(&socket.path()).have(b"id"), NOTOK);
    receiver.expect("READY=1");
    assert_eq!(receiver.hears(), "STATUS=serving");
    receiver.overwhelm();
    server.stop();
    server.log.expect("notifications to the service manager were not delivered notifications=\"STOPPING=1 ");
}

#[test]
fn daemon_sends_mainpid_and_inherits_sockets() {
    let (socket, receiver) = (PassedTestSocket::new(), NotifyReceiver::start());
    let pidfile = socket.dir.file("pid");
    let launch = socket.to("dc_server").with(["-daemon", "-pidfile", pidfile.to_str().unwrap()]);
    let launch = launch.with_variable("NOTIFY_SOCKET", receiver.path());
    let daemon = DaemonProcess::start(&launch, &pidfile);
    assert_eq!(receiver.hears(), format!("MAINPID={}", daemon.pid()));
    receiver.expect("READY=1");
    assert_eq!(TestConnection::unix(&socket.path()).have(b"id"), NOTOK);
    let pid = daemon.pid();
    assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
    receiver.expect("STOPPING=1");
    socket.is_intact();
}

#[test]
fn watchdog_is_notified_periodically() {
    for program in ["dc_server", "dc_client"] {
        let (socket, receiver) = (PassedTestSocket::new(), NotifyReceiver::start());
        let mut launch = socket.to(program).with_variable("WATCHDOG_USEC", "2000");
        if program == "dc_client" {
            launch = launch.with(["-server", &no_server(&socket.dir)]);
        }
        let mut running = launch.with_variable("NOTIFY_SOCKET", receiver.path()).start();
        receiver.expect("READY=1");
        for _ in 0..3 {
            receiver.expect("WATCHDOG=1");
        }
        running.signal(Signal::SIGTERM);
        receiver.expect("STOPPING=1");
        assert!(running.wait().success());
    }
}

#[test]
fn malformed_activation_variables_prevent_start() {
    let socket = PassedTestSocket::new();
    let far = "LISTEN_FDNAMES has 1 names for 2 descriptors";
    for (variables, status, reason) in [
        (vec![("LISTEN_FDS", "abc")], 1, "LISTEN_FDS=abc: not a number"),
        (vec![("LISTEN_FDS", "2")], 1, "passed by the service manager, FD:4: "),
        (vec![("LISTEN_FDS", "2"), ("LISTEN_FDNAMES", "one")], 1, far),
        (vec![("LISTEN_FDS", "1"), ("NOTIFY_SOCKET", "somewhere")], 1, "NOTIFY_SOCKET=somewhere: "),
        // Without `LISTEN_FDS` the socket is not used.
        (vec![], 64, "-listen is required unless a service manager passes sockets"),
    ] {
        let mut launch = socket.silently("dc_server").with_variable("LISTEN_PID", "own");
        for (name, value) in variables {
            launch = launch.with_variable(name, value);
        }
        let output = launch.output();
        let errors = stderr(&output);
        assert!(
            errors.contains(reason) && errors.lines().count() == 1,
            "expected {reason:?}, got {errors:?}"
        );
        assert_eq!(output.status.code(), Some(status), "{errors}");
    }
    let other =
        socket.silently("dc_server").with_variable("LISTEN_FDS", "1").with_variable("LISTEN_PID", "1");
    assert_eq!(other.output().status.code(), Some(64));
    socket.is_intact();
}

/// Returns a connection that the example has answered and keeps open, and the last line of the answer.
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
fn example_child_answers_accepted_and_leaves_queue_to_next() {
    let socket = PassedTestSocket::new();
    for signal in [Signal::SIGHUP, Signal::SIGTERM] {
        let receiver = NotifyReceiver::start();
        let launch = socket.to("good_child").with_variable("NOTIFY_SOCKET", receiver.path());
        let mut child = launch.start();
        assert_eq!(receiver.hears(), "READY=1");
        let (mut busy, line) = answered(&socket.path());
        assert_eq!(line, format!("answered by process {}", child.pid()));
        child.signal(signal);
        assert_eq!(receiver.hears(), "STOPPING=1");
        // More bytes than the socket buffers hold, so the child has to read them.
        busy.get_mut().write_all(&vec![0; 1 << 24]).unwrap();
        drop(busy);
        assert!(child.wait().success());
        // This connection stays in the accept queue.
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
fn systemd_socket_activate_passes_sockets_to_all_programs() {
    const TOOL: &str = "/usr/bin/systemd-socket-activate";
    if !Path::new(TOOL).exists() {
        skip(&format!("{TOOL} is not installed"));
        return;
    }
    for program in ["dc_server", "dc_client", "good_child"] {
        let (dir, receiver) = (TestDir::new(), NotifyReceiver::start());
        let path = dir.file("socket");
        let notify = format!("NOTIFY_SOCKET={}", receiver.path().display());
        let mut launch =
            ProgramLaunch::new(program).under([TOOL, "-l", path.to_str().unwrap(), "-E", &notify]);
        if program == "dc_client" {
            launch = launch.with(["-server", &no_server(&dir)]);
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
        receiver.expect("READY=1");
        running.signal(Signal::SIGTERM);
        receiver.expect("STOPPING=1");
        assert!(running.wait().success());
        is_intact(&path);
    }
}
