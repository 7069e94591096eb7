//! How the programs start, fail to start, and stop: messages, exit statuses, and files left behind.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::connection::{DISCONNECTED, NOTOK, OK, TestConnection, request};
use dc_tests::harness::daemon::{DaemonProcess, stderr};
use dc_tests::harness::patience::with_timeout;
use dc_tests::harness::process::{ProgramLaunch, TestProcess};
use dc_tests::harness::relay::{RelayWay, TestRelay};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use libdc::wire::frame::SessionOperation;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::Mode;
use nix::sys::wait::WaitStatus;
use nix::unistd::mkfifo;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::net::UnixListener;
use std::os::unix::process::ExitStatusExt;

/// A server on sockets in `dir`, with its pidfile there.
fn server_in(dir: &TestDir) -> ProgramLaunch {
    let (socket, pidfile) = (dir.file("socket"), dir.file("pid"));
    ProgramLaunch::new("dc_server").with(["-listen", &unix(&socket), "-pidfile", pidfile.to_str().unwrap()])
}

/// An agent on a socket in `dir`, with its pidfile there and an unreachable server.
fn agent_in(dir: &TestDir) -> ProgramLaunch {
    let (socket, pidfile) = (dir.file("socket"), dir.file("pid"));
    let unreachable = unix(&dir.file("no-server"));
    let arguments =
        ["-listen", &unix(&socket), "-server", &unreachable, "-pidfile", pidfile.to_str().unwrap()];
    ProgramLaunch::new("dc_client").with(arguments)
}

/// Asserts that starting fails with one line that contains `reason`.
fn fails(launch: &ProgramLaunch, reason: &str) {
    let output = launch.output();
    let errors = stderr(&output);
    assert!(errors.contains(reason) && errors.lines().count() == 1, "expected {reason:?}, got {errors:?}");
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{errors}");
}

#[test]
fn daemon_serves_when_parent_exits_and_leaves_no_files() {
    for launch in [server_in, agent_in] {
        let dir = TestDir::new();
        let daemon = DaemonProcess::start(&launch(&dir).with(["-daemon"]), &dir.file("pid"));
        let answer = TestConnection::unix(&dir.file("socket")).get(b"id");
        assert!(answer == NOTOK || answer == DISCONNECTED);
        assert_eq!(dir.names(), ["pid", "socket"]);
        let pid = daemon.pid();
        assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
        assert_eq!(dir.names(), Vec::<String>::new());
    }
}

#[test]
fn second_instance_is_refused_and_changes_nothing() {
    let dir = TestDir::new();
    let daemon = DaemonProcess::start(&server_in(&dir).with(["-daemon"]), &dir.file("pid"));
    let running = format!("another instance is running as process {}", daemon.pid());
    fails(&server_in(&dir), &running);
    fails(&server_in(&dir).with(["-daemon"]), &running);
    assert_eq!(fs::read_to_string(dir.file("pid")).unwrap(), format!("{}\n", daemon.pid()));
    assert_eq!(TestConnection::unix(&dir.file("socket")).have(b"id"), NOTOK);
}

#[test]
fn start_failure_prints_one_line_also_as_daemon() {
    let server = ServerProcess::start(&[]);
    let taken = format!("IP:{}", server.address());
    let dir = TestDir::new();
    let nowhere = dir.file("no-directory/pid");
    let nowhere = nowhere.to_str().unwrap();
    for launch in [server_in, agent_in] {
        for further in [&[][..], &["-daemon"]] {
            let launch = launch(&dir).with(further);
            fails(&launch.clone().with(["-listen", &taken]), "Address already in use");
            fails(&launch.clone().with(["-user", "no-such-user"]), "no-such-user");
            fails(&launch.clone().with(["-sockgroup", "no-such-group"]), "no-such-group");
            fails(&launch.clone().with(["-sockowner", "no-such-owner"]), "no-such-owner");
            assert_eq!(dir.names(), Vec::<String>::new());
        }
    }
    let bare = ProgramLaunch::new("dc_server").with(["-listen", "IP:127.0.0.1:0", "-pidfile", nowhere]);
    fails(&bare, "No such file or directory");
    fails(&bare.with(["-daemon"]), "No such file or directory");
}

#[test]
fn missing_file_found_after_listening_prints_one_line() {
    for further in [&[][..], &["-daemon"]] {
        let dir = TestDir::new();
        let absent = dir.file("absent");
        let absent = absent.to_str().unwrap();
        let server = server_in(&dir).with(further);
        for options in [["-state", absent].as_slice(), &["-tls-cert", absent, "-tls-key", absent]] {
            fails(&server.clone().with(options), "No such file or directory");
        }
        let agent = agent_in(&dir).with(further);
        for launch in [server.clone(), agent] {
            fails(&launch.with(["-auth-token-file", absent]), "No such file or directory");
        }
        // No file can be written; the pipes of the test can.
        fails(&server.after("trap '' XFSZ; ulimit -f 0 && exec \"$0\" \"$@\""), "File too large");
        assert_eq!(dir.names(), Vec::<String>::new());
    }
}

#[test]
fn log_at_file_size_limit_drops_lines_and_keeps_serving() {
    for launch in [server_in, agent_in] {
        let dir = TestDir::new();
        let (log, socket) = (dir.file("log"), dir.file("socket"));
        let prelude = format!("ulimit -f 2 && exec \"$0\" \"$@\" 2>{}", log.display());
        let mut program = launch(&dir).with(["-debug"]).after(&prelude).start();
        with_timeout("an answer", {
            let socket = socket.clone();
            move || while TestConnection::try_unix(&socket).is_err() {}
        });
        while fs::metadata(&log).unwrap().len() < 1024 {
            TestConnection::unix(&socket).have(b"id");
        }
        for _ in 0..20 {
            TestConnection::unix(&socket).have(b"id");
        }
        program.signal(Signal::SIGTERM);
        assert_eq!(program.wait().code(), Some(0));
    }
}

#[test]
fn signal_during_start_is_handled_when_serving() {
    for launch in [server_in, agent_in] {
        for (signal, ends) in [(Signal::SIGTERM, true), (Signal::SIGUSR1, false)] {
            let dir = TestDir::new();
            let mut program = launch(&dir).start_amid(signal, &dir, "pid");
            program.log.expect("serving");
            if ends {
                program.log.expect("shutting down signal=\"SIGTERM\"");
                assert!(program.wait().success());
            } else {
                program.log.expect("ignored signal=\"SIGUSR1\"");
                program.stop();
            }
            assert_eq!(dir.names(), Vec::<String>::new());
        }
    }
}

#[test]
fn signal_blocked_by_parent_is_handled() {
    let blocked: SigSet = [Signal::SIGTERM].into_iter().collect();
    for launch in [server_in, agent_in] {
        let dir = TestDir::new();
        // A child process inherits the signal mask of the thread that starts it, and this thread starts no
        // other.
        blocked.thread_block().unwrap();
        let mut program = launch(&dir).start();
        blocked.thread_unblock().unwrap();
        program.log.expect("serving");
        program.signal(Signal::SIGTERM);
        assert_eq!(program.wait().code(), Some(0));
    }
}

#[test]
fn sigterm_ends_program_that_waits_for_token_file() {
    for launch in [server_in, agent_in] {
        let dir = TestDir::new();
        let pipe = dir.file("token");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let mut program = launch(&dir).with(["-auth-token-file", pipe.to_str().unwrap()]).start();
        // The call returns when the program has opened the pipe too.
        let writer =
            with_timeout("opening the token file", move || File::options().write(true).open(pipe).unwrap());
        program.signal(Signal::SIGTERM);
        assert_eq!(program.wait().signal(), Some(Signal::SIGTERM as i32));
        assert_eq!(dir.names(), ["token"]);
        drop(writer);
    }
}

#[test]
fn usage_error_exits_with_status_64() {
    for launch in [ProgramLaunch::new("dc_server"), ProgramLaunch::new("dc_client").with(["-server", "9001"])]
    {
        let output = launch.with(["-daemon"]).output();
        let errors = stderr(&output);
        assert_eq!((output.status.code(), errors.lines().count()), (Some(64), 1), "{errors}");
    }
}

#[test]
fn stopping_server_answers_partly_received_request() {
    let mut server = ServerProcess::start(&["-threads", "1"]);
    let (mut busy, mut idle) = (server.connect(), server.connect());
    assert_eq!(busy.add(b"id", b"session"), OK);
    let get = request(77, SessionOperation::Get, b"id");
    let (start, rest) = get.split_at(15);
    busy.write(start);
    // The server's only thread has read the bytes above before it answers this request.
    assert_eq!(idle.have(b"id"), OK);
    server.process.signal(Signal::SIGTERM);
    server.process.log.expect("shutting down");
    assert_eq!(idle.read_to_end(), b"");
    busy.write(rest);
    assert_eq!(busy.receive().data, b"session");
    assert_eq!(busy.read_to_end(), b"");
    assert!(server.process.wait().success());
}

#[test]
fn stopping_agent_answers_request_in_flight() {
    let server = ServerProcess::start(&[]);
    let relay = TestRelay::to(server.address());
    let mut agent = AgentProcess::start(relay.address(), &[]);
    let (mut busy, mut idle) = (agent.connect(), agent.connect());
    assert_eq!(busy.add(b"id", b"session"), OK);
    assert_eq!(idle.have(b"id"), OK);
    relay.hold(RelayWay::Down);
    busy.send(SessionOperation::Get, b"id");
    relay.wait_until_held(RelayWay::Down, 1);
    agent.process.signal(Signal::SIGTERM);
    agent.process.log.expect("shutting down");
    assert_eq!(idle.read_to_end(), b"");
    relay.release(RelayWay::Down);
    assert_eq!(busy.receive().data, b"session");
    assert_eq!(busy.read_to_end(), b"");
    assert!(agent.process.wait().success());
    assert_eq!(agent.dir().names(), Vec::<String>::new());
}

#[test]
fn connection_accepted_just_before_shutdown_is_answered() {
    let options = ["-log", "libdc=debug,info", "-shutdown-timeout", "0"];
    let ends = |process: &mut TestProcess, connect: &dyn Fn() -> TestConnection| {
        let (mut pending, mut silent) = (connect(), connect());
        process.log.expect("connected");
        process.log.expect("connected");
        // A connection that has had a request closes at once. It was accepted last, so the earlier ones are
        // decided by then.
        let mut other = connect();
        assert_eq!(other.have(b"id"), NOTOK);
        process.signal(Signal::SIGTERM);
        process.log.expect("shutting down");
        assert_eq!(other.read_to_end(), b"");
        assert_eq!(pending.have(b"id"), NOTOK);
        assert_eq!(pending.read_to_end(), b"");
        // A connection without a request is closed after its drain grace, although the shutdown has no time
        // limit.
        assert_eq!(silent.read_to_end(), b"");
        assert!(process.wait().success());
    };
    let mut server = ServerProcess::start(&[&options[..], &["-threads", "1"]].concat());
    let mut agent = AgentProcess::start(server.address(), &options);
    let socket = agent.socket().to_owned();
    ends(&mut agent.process, &|| TestConnection::unix(&socket));
    // After the agent's link.
    server.process.log.expect("connected");
    let address = server.address();
    ends(&mut server.process, &|| TestConnection::tcp(address));
}

#[test]
fn second_signal_or_shutdown_timeout_ends_shutdown() {
    for (timeout, signals) in [("0", 2), ("1", 1)] {
        let mut server = ServerProcess::start(&["-shutdown-timeout", timeout, "-threads", "1"]);
        let (mut busy, mut idle) = (server.connect(), server.connect());
        busy.write(&request(1, SessionOperation::Have, b"id")[..15]);
        assert_eq!(idle.have(b"id"), NOTOK);
        for _ in 0..signals {
            server.process.signal(Signal::SIGTERM);
            server.process.log.expect("shutting down");
        }
        assert!(server.process.wait().success());
    }
}

#[test]
fn user_signals_stop_only_killable_programs() {
    for signal in [Signal::SIGUSR1, Signal::SIGUSR2] {
        let mut server = ServerProcess::start(&[]);
        server.process.signal(signal);
        server.process.log.expect("ignored");
        assert_eq!(server.connect().have(b"id"), NOTOK);
        server.process.stop();

        let mut server = ServerProcess::start(&["-killable"]);
        server.process.signal(signal);
        assert!(server.process.wait().success());

        let mut agent = AgentProcess::start(server.address(), &["-killable"]);
        agent.process.signal(signal);
        assert!(agent.process.wait().success());
        assert_eq!(agent.dir().names(), Vec::<String>::new());
    }
}

#[test]
fn socket_of_live_process_is_not_replaced() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    let path = agent.socket();
    let second = ProgramLaunch::new("dc_client").with(["-listen", &unix(path), "-server", "IP:127.0.0.1:9"]);
    fails(&second, "a live process is listening there");
    fails(&second.with(["-daemon"]), "a live process is listening there");
    assert_eq!(agent.connect().have(b"id"), NOTOK);
    // A file that is not a socket is not replaced either.
    let file = agent.dir().file("file");
    fs::write(&file, "precious").unwrap();
    fails(&ProgramLaunch::new("dc_server").with(["-listen", &unix(&file)]), "not a socket");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn socket_of_dead_process_is_replaced() {
    let dir = TestDir::new();
    let path = dir.file("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut first = agent_in(&dir).start();
    first.log.expect("serving server=");
    assert_eq!(TestConnection::unix(&path).have(b"id"), DISCONNECTED);
    // SIGKILL prevents the cleanup.
    first.kill();
    assert_eq!(dir.names(), ["pid", "socket"]);
    let mut second = agent_in(&dir).start();
    second.log.expect("serving server=");
    assert_eq!(TestConnection::unix(&path).have(b"id"), DISCONNECTED);
    second.stop();
    assert_eq!(dir.names(), Vec::<String>::new());
}

#[test]
fn agent_with_removed_socket_keeps_serving_and_spares_new_one() {
    let server = ServerProcess::start(&[]);
    let mut first = AgentProcess::start(server.address(), &[]);
    let mut client = first.connect();
    assert_eq!(client.add(b"id", b"session"), OK);
    let path = first.socket().to_owned();
    fs::remove_file(&path).unwrap();
    assert_eq!(client.get(b"id"), b"session");
    let gone = TestConnection::try_unix(&path).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);

    let upstream = format!("IP:{}", server.address());
    let second = ProgramLaunch::new("dc_client").with(["-listen", &unix(&path), "-server", &upstream]);
    let mut second = second.start();
    second.log.expect("serving server=");
    assert_eq!(TestConnection::unix(&path).get(b"id"), b"session");
    assert_eq!(client.get(b"id"), b"session");
    first.process.stop();
    assert_eq!(TestConnection::unix(&path).get(b"id"), b"session", "the first removed the second's socket");
    second.stop();
    assert!(!path.exists());
}
