//! Programs that are told to end while others wait for locks, or have only just connected.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, TestConnection};
use dc_tests::harness::process::TestProcess;
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;
use nix::sys::signal::Signal;

/// A server that waits for ever for what is under way.
fn patient() -> ServerProcess {
    ServerProcess::start(&["-shutdown-timeout", "0"])
}

/// Sees to it that all of these wait for the lock.
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
fn a_server_that_ends_grants_nothing_and_waits_for_nobody_who_waits() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = patient();
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
        assert_eq!(holder.read_to_end(), b"", "it hears no more");
    }
}

#[test]
fn an_agent_that_ends_waits_for_nobody_who_waits() {
    let server = patient();
    let mut agent = AgentProcess::start(server.address(), &["-shutdown-timeout", "0"]);
    let mut holder = server.connect();
    let mut waiters: Vec<_> = (0..20).map(|_| agent.connect()).collect();
    assert!(holder.request("l\nk\n5 600\n").starts_with("ok "));
    all_wait(&mut waiters, &server);
    ends_on(&mut agent.process, Signal::SIGTERM);
    for waiter in &mut waiters {
        let said = String::from_utf8(waiter.read_to_end()).unwrap();
        assert!(!said.contains("ok "), "{said}");
    }
}

#[test]
fn who_waits_to_be_accepted_at_the_end_is_answered() {
    let mut server = patient();
    let mut agent = AgentProcess::start(server.address(), &["-shutdown-timeout", "0"]);
    let at_agent = || agent.connect();
    answers_all_that_wait(&agent.process, &at_agent);
    assert_eq!(agent.process.wait().code(), Some(0));
    answers_all_that_wait(&server.process, &|| server.connect());
    assert_eq!(server.process.wait().code(), Some(0));
}

#[test]
fn who_is_still_to_be_accepted_is_not_told_that_somebody_has_the_lock() {
    let mut server = patient();
    server.process.signal(Signal::SIGSTOP);
    let mut newcomers: Vec<_> = (0..500).map(|_| server.connect()).collect();
    for (number, newcomer) in newcomers.iter_mut().enumerate() {
        newcomer.write(format!("l\nfree-{number}\n0\n").as_bytes());
    }
    server.process.signal(Signal::SIGTERM);
    server.process.signal(Signal::SIGCONT);
    for newcomer in &mut newcomers {
        // Some may come before the signal.
        let answer = newcomer.line();
        assert!(answer.starts_with("ok ") || answer == "error_disconnected", "{answer}");
    }
    assert_eq!(server.process.wait().code(), Some(0));
}

/// More than are accepted in one go come while the process stands still, and it is told to end before it goes on.
fn answers_all_that_wait(process: &TestProcess, connect: &dyn Fn() -> TestConnection) {
    process.signal(Signal::SIGSTOP);
    let mut newcomers: Vec<_> = (0..500).map(|_| connect()).collect();
    for newcomer in &mut newcomers {
        newcomer.send(SessionOperation::Have, b"id");
    }
    process.signal(Signal::SIGTERM);
    process.signal(Signal::SIGCONT);
    for newcomer in &mut newcomers {
        assert_eq!(newcomer.receive().data, NOTOK);
        assert_eq!(newcomer.read_to_end(), b"");
    }
}
