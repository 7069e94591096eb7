//! Programs that receive a stop signal while clients wait for locks, or have only just connected.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, TestConnection};
use dc_tests::harness::process::TestProcess;
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;
use nix::sys::signal::Signal;

/// A server without a limit on the duration of its shutdown.
fn server_without_deadline() -> ServerProcess {
    ServerProcess::start(&["-shutdown-timeout", "0"])
}

/// Makes all of these wait for the lock.
fn all_wait(waiters: &mut [TestConnection], server: &ServerProcess) {
    for waiter in &mut *waiters {
        waiter.write(b"l\nk\n600\n");
    }
    let (mut monitor, all) = (server.connect(), format!("\"waiters\":{}", waiters.len()));
    while !monitor.request("stats\n_\n\n").contains(&all) {}
}

fn ends_on(process: &mut TestProcess, signal: Signal) {
    process.signal(signal);
    assert_eq!(process.wait().code(), Some(0));
}

#[test]
fn stopping_server_cancels_waiters_and_grants_nothing() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = server_without_deadline();
        let agents = [AgentProcess::start(server.address(), &[]), AgentProcess::start(server.address(), &[])];
        let (mut holder, mut far_holder) = (server.connect(), agents[0].connect());
        let mut waiters: Vec<_> = (0..20).map(|_| server.connect()).collect();
        waiters.extend((0..20).map(|number| agents[number % 2].connect()));
        assert!(holder.request("l\nk\n5 600\n").starts_with("ok "));
        assert!(far_holder.request("l\nj\n5 600\n").starts_with("ok "));
        all_wait(&mut waiters, &server);
        ends_on(&mut server.process, signal);
        for waiter in &mut waiters {
            assert_eq!(waiter.line(), "error_disconnected");
        }
        assert_eq!(holder.read_to_end(), b"", "the holder gets no further bytes");
    }
}

#[test]
fn stopping_agent_does_not_wait_for_lock_waiters() {
    let server = server_without_deadline();
    let mut agent = AgentProcess::start(server.address(), &["-shutdown-timeout", "0"]);
    let mut holder = server.connect();
    let mut waiters: Vec<_> = (0..20).map(|_| agent.connect()).collect();
    assert!(holder.request("l\nk\n5 600\n").starts_with("ok "));
    all_wait(&mut waiters, &server);
    ends_on(&mut agent.process, Signal::SIGTERM);
    for waiter in &mut waiters {
        let answers = String::from_utf8(waiter.read_to_end()).unwrap();
        assert!(!answers.contains("ok "), "{answers}");
    }
}

#[test]
fn connections_in_accept_queue_are_answered_at_shutdown() {
    let mut server = server_without_deadline();
    let mut agent = AgentProcess::start(server.address(), &["-shutdown-timeout", "0"]);
    let at_agent = || agent.connect();
    answers_all_that_wait(&agent.process, &at_agent);
    assert_eq!(agent.process.wait().code(), Some(0));
    answers_all_that_wait(&server.process, &|| server.connect());
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn queued_try_lock_at_shutdown_never_reports_timeout() {
    let mut server = server_without_deadline();
    server.process.signal(Signal::SIGSTOP);
    let mut connections: Vec<_> = (0..500).map(|_| server.connect()).collect();
    for (number, connection) in connections.iter_mut().enumerate() {
        connection.write(format!("l\nfree-{number}\n0\n").as_bytes());
    }
    server.process.signal(Signal::SIGTERM);
    server.process.signal(Signal::SIGCONT);
    for connection in &mut connections {
        // Some may be accepted before the signal.
        let answer = connection.line();
        assert!(answer.starts_with("ok ") || answer == "error_disconnected", "{answer}");
    }
    assert_eq!(server.process.wait().code(), Some(0));
}

/// More connections than one accept batch arrive while the process is stopped, and SIGTERM is pending when it
/// continues.
fn answers_all_that_wait(process: &TestProcess, connect: &dyn Fn() -> TestConnection) {
    process.signal(Signal::SIGSTOP);
    let mut connections: Vec<_> = (0..500).map(|_| connect()).collect();
    for connection in &mut connections {
        connection.send(SessionOperation::Have, b"id");
    }
    process.signal(Signal::SIGTERM);
    process.signal(Signal::SIGCONT);
    for connection in &mut connections {
        assert_eq!(connection.receive().data, NOTOK);
        assert_eq!(connection.read_to_end(), b"");
    }
}
