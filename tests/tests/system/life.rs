//! How the programs start, fail to start, and end: what is said, with which status, and what is left behind.

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

/// A server on sockets in `place`, with its pidfile there.
fn server_in(place: &TestDir) -> ProgramLaunch {
    let (socket, pidfile) = (place.file("socket"), place.file("pid"));
    ProgramLaunch::new("dc_server").with(["-listen", &unix(&socket), "-pidfile", pidfile.to_str().unwrap()])
}

/// An agent on a socket in `place`, with its pidfile there and no server.
fn agent_in(place: &TestDir) -> ProgramLaunch {
    let (socket, pidfile) = (place.file("socket"), place.file("pid"));
    let nobody = unix(&place.file("no-server"));
    let arguments = ["-listen", &unix(&socket), "-server", &nobody, "-pidfile", pidfile.to_str().unwrap()];
    ProgramLaunch::new("dc_client").with(arguments)
}

/// Starting with `launch` fails, and says why in one line that contains `why`.
fn fails(launch: &ProgramLaunch, why: &str) {
    let output = launch.output();
    let said = stderr(&output);
    assert!(said.contains(why) && said.lines().count() == 1, "{why:?} expected, {said:?} said");
    assert_eq!((output.status.code(), output.stdout), (Some(1), Vec::new()), "{said}");
}

#[test]
fn a_daemon_serves_when_its_starter_is_back_and_leaves_nothing() {
    for launch in [server_in, agent_in] {
        let place = TestDir::new();
        let daemon = DaemonProcess::start(&launch(&place).with(["-daemon"]), &place.file("pid"));
        let answer = TestConnection::unix(&place.file("socket")).get(b"id");
        assert!(answer == NOTOK || answer == DISCONNECTED);
        assert_eq!(place.names(), ["pid", "socket"]);
        let pid = daemon.pid();
        assert_eq!(daemon.terminate(Signal::SIGTERM), WaitStatus::Exited(pid, 0));
        assert_eq!(place.names(), Vec::<String>::new());
    }
}

#[test]
fn a_second_instance_is_refused_and_changes_nothing() {
    let place = TestDir::new();
    let daemon = DaemonProcess::start(&server_in(&place).with(["-daemon"]), &place.file("pid"));
    let running = format!("another instance is running as process {}", daemon.pid());
    fails(&server_in(&place), &running);
    fails(&server_in(&place).with(["-daemon"]), &running);
    assert_eq!(fs::read_to_string(place.file("pid")).unwrap(), format!("{}\n", daemon.pid()));
    assert_eq!(TestConnection::unix(&place.file("socket")).have(b"id"), NOTOK);
}

#[test]
fn what_prevents_a_start_is_said_in_one_line_under_daemon_too() {
    let server = ServerProcess::start(&[]);
    let taken = format!("IP:{}", server.address());
    let place = TestDir::new();
    let nowhere = place.file("no-directory/pid");
    let nowhere = nowhere.to_str().unwrap();
    for launch in [server_in, agent_in] {
        for further in [&[][..], &["-daemon"]] {
            let launch = launch(&place).with(further);
            fails(&launch.clone().with(["-listen", &taken]), "Address already in use");
            fails(&launch.clone().with(["-user", "no-such-user"]), "no-such-user");
            fails(&launch.clone().with(["-sockgroup", "no-such-group"]), "no-such-group");
            fails(&launch.clone().with(["-sockowner", "no-such-owner"]), "no-such-owner");
            assert_eq!(place.names(), Vec::<String>::new());
        }
    }
    let bare = ProgramLaunch::new("dc_server").with(["-listen", "IP:127.0.0.1:0", "-pidfile", nowhere]);
    fails(&bare, "No such file or directory");
    fails(&bare.with(["-daemon"]), "No such file or directory");
}

#[test]
fn what_is_found_missing_after_listening_is_said_in_one_line_too() {
    for further in [&[][..], &["-daemon"]] {
        let place = TestDir::new();
        let absent = place.file("absent");
        let absent = absent.to_str().unwrap();
        let server = server_in(&place).with(further);
        for options in [["-state", absent].as_slice(), &["-tls-cert", absent, "-tls-key", absent]] {
            fails(&server.clone().with(options), "No such file or directory");
        }
        let agent = agent_in(&place).with(further);
        for launch in [server.clone(), agent] {
            fails(&launch.with(["-auth-token-file", absent]), "No such file or directory");
        }
        // Nothing can be written to a file, but to the pipes of the test.
        fails(&server.after("trap '' XFSZ; ulimit -f 0 && exec \"$0\" \"$@\""), "File too large");
        assert_eq!(place.names(), Vec::<String>::new());
    }
}

#[test]
fn a_log_that_may_not_grow_costs_lines_and_not_the_program() {
    for launch in [server_in, agent_in] {
        let place = TestDir::new();
        let (log, socket) = (place.file("log"), place.file("socket"));
        let prelude = format!("ulimit -f 2 && exec \"$0\" \"$@\" 2>{}", log.display());
        let mut program = launch(&place).with(["-debug"]).after(&prelude).start();
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
fn a_signal_during_the_start_is_heeded_when_it_serves() {
    for launch in [server_in, agent_in] {
        for (signal, ends) in [(Signal::SIGTERM, true), (Signal::SIGUSR1, false)] {
            let place = TestDir::new();
            let mut program = launch(&place).start_amid(signal, &place, "pid");
            program.log.expect("serving");
            if ends {
                program.log.expect("shutting down signal=\"SIGTERM\"");
                assert!(program.wait().success());
            } else {
                program.log.expect("ignored signal=\"SIGUSR1\"");
                program.stop();
            }
            assert_eq!(place.names(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_signal_that_was_blocked_at_the_start_is_heard() {
    let blocked: SigSet = [Signal::SIGTERM].into_iter().collect();
    for launch in [server_in, agent_in] {
        let place = TestDir::new();
        // A process that is started has the mask of the thread that starts it, and this thread starts no other.
        blocked.thread_block().unwrap();
        let mut program = launch(&place).start();
        blocked.thread_unblock().unwrap();
        program.log.expect("serving");
        program.signal(Signal::SIGTERM);
        assert_eq!(program.wait().code(), Some(0));
    }
}

#[test]
fn a_token_that_does_not_come_can_be_done_without() {
    for launch in [server_in, agent_in] {
        let place = TestDir::new();
        let pipe = place.file("token");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        let mut program = launch(&place).with(["-auth-token-file", pipe.to_str().unwrap()]).start();
        // Opened when the program has opened it, too.
        let writer =
            with_timeout("who reads the token", move || File::options().write(true).open(pipe).unwrap());
        program.signal(Signal::SIGTERM);
        assert_eq!(program.wait().signal(), Some(Signal::SIGTERM as i32));
        assert_eq!(place.names(), ["token"]);
        drop(writer);
    }
}

#[test]
fn a_mistake_on_the_command_line_has_its_own_status() {
    for launch in [ProgramLaunch::new("dc_server"), ProgramLaunch::new("dc_client").with(["-server", "9001"])]
    {
        let output = launch.with(["-daemon"]).output();
        let said = stderr(&output);
        assert_eq!((output.status.code(), said.lines().count()), (Some(64), 1), "{said}");
    }
}

#[test]
fn a_server_that_is_told_to_end_answers_what_has_begun() {
    let mut server = ServerProcess::start(&["-threads", "1"]);
    let (mut busy, mut idle) = (server.connect(), server.connect());
    assert_eq!(busy.add(b"id", b"session"), OK);
    let get = request(77, SessionOperation::Get, b"id");
    let (begun, rest) = get.split_at(15);
    busy.write(begun);
    // Its one thread learns of what came first no later than of this.
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
fn an_agent_that_is_told_to_end_answers_what_is_on_its_way() {
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
fn who_connected_just_before_the_end_is_answered() {
    let options = ["-log", "libdc=debug,info", "-shutdown-timeout", "0"];
    let ends = |process: &mut TestProcess, connect: &dyn Fn() -> TestConnection| {
        let (mut newcomer, mut silent) = (connect(), connect());
        process.log.expect("connected");
        process.log.expect("connected");
        // Whoever asked before goes at once. It came last, so of those before it has been decided when it has gone.
        let mut other = connect();
        assert_eq!(other.have(b"id"), NOTOK);
        process.signal(Signal::SIGTERM);
        process.log.expect("shutting down");
        assert_eq!(other.read_to_end(), b"");
        assert_eq!(newcomer.have(b"id"), NOTOK);
        assert_eq!(newcomer.read_to_end(), b"");
        // Who asks nothing is not waited for as long as there is no limit to the time.
        assert_eq!(silent.read_to_end(), b"");
        assert!(process.wait().success());
    };
    let mut server = ServerProcess::start(&[&options[..], &["-threads", "1"]].concat());
    let mut agent = AgentProcess::start(server.address(), &options);
    let socket = agent.socket().to_owned();
    ends(&mut agent.process, &|| TestConnection::unix(&socket));
    // Behind the agent's link.
    server.process.log.expect("connected");
    let address = server.address();
    ends(&mut server.process, &|| TestConnection::tcp(address));
}

#[test]
fn a_second_signal_ends_at_once_and_a_shutdown_takes_no_longer_than_it_may() {
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
fn user_signals_end_only_who_is_killable() {
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
fn a_socket_that_a_live_process_serves_is_not_taken() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    let path = agent.socket();
    let second = ProgramLaunch::new("dc_client").with(["-listen", &unix(path), "-server", "IP:127.0.0.1:9"]);
    fails(&second, "a live process is listening there");
    fails(&second.with(["-daemon"]), "a live process is listening there");
    assert_eq!(agent.connect().have(b"id"), NOTOK);
    // Nor is what is no socket.
    let file = agent.dir().file("file");
    fs::write(&file, "precious").unwrap();
    fails(&ProgramLaunch::new("dc_server").with(["-listen", &unix(&file)]), "not a socket");
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced() {
    let place = TestDir::new();
    let path = place.file("socket");
    drop(UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let mut first = agent_in(&place).start();
    first.log.expect("serving server=");
    assert_eq!(TestConnection::unix(&path).have(b"id"), DISCONNECTED);
    // Without a chance to tidy up.
    first.kill();
    assert_eq!(place.names(), ["pid", "socket"]);
    let mut second = agent_in(&place).start();
    second.log.expect("serving server=");
    assert_eq!(TestConnection::unix(&path).have(b"id"), DISCONNECTED);
    second.stop();
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn an_agent_whose_socket_was_removed_goes_on_and_leaves_its_successors_alone() {
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
