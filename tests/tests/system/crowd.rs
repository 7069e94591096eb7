//! Very many connections: left open, exceeding the descriptors, or closed before their answer.

use dc_daemon::file_limit;
use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, OK, TestConnection};
use dc_tests::harness::process::{ProgramLaunch, TestProcess};
use dc_tests::harness::relay::{RelayWay, TestRelay};
use dc_tests::harness::require::skip;
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Descriptors reserved for concurrent tests.
const SPARE_FILES: u64 = 2_000;

/// Held by a test that opens very many descriptors.
static CROWDED: Mutex<()> = Mutex::new(());

/// Permission to open `count` connections at once; skips the test if the limit is too low.
fn crowd(count: u64) -> Option<MutexGuard<'static, ()>> {
    let files_max = file_limit::raise().unwrap();
    if files_max < count + SPARE_FILES {
        skip(&format!("{count} connections, but at most {files_max} open files (ulimit -Hn)"));
        return None;
    }
    Some(CROWDED.lock().unwrap_or_else(PoisonError::into_inner))
}

#[test]
fn server_keeps_serving_beside_5000_idle_connections() {
    let server = ServerProcess::start(&[]);
    serves_beside_5000(|| server.connect(), &server.process);
}

#[test]
fn agent_keeps_serving_beside_5000_idle_connections() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    serves_beside_5000(|| agent.connect(), &agent.process);
}

fn serves_beside_5000(connect: impl Fn() -> TestConnection, process: &TestProcess) {
    let Some(_crowd) = crowd(5_000) else { return };
    let mut good = connect();
    let left: Vec<TestConnection> = (0..5_000).map(|_| connect()).collect();
    assert_eq!(good.add(b"id", b"session"), OK);
    let mut late = connect();
    assert_eq!(late.get(b"id"), b"session");
    assert!(left.iter().all(|connection| !connection.has_input()));
    drop(left);
    assert_eq!(connect().get(b"id"), b"session");
    assert_eq!(good.get(b"id"), b"session");
    assert_eq!(process.log.with(" WARN "), Vec::<String>::new());
}

#[test]
fn agent_serves_2000_clients_at_once() {
    let Some(_crowd) = crowd(2_000) else { return };
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    let mut clients: Vec<TestConnection> = (0..2_000).map(|_| agent.connect()).collect();
    let ids = (0..2_000_u32).map(u32::to_be_bytes);
    for (client, id) in clients.iter_mut().zip(ids.clone()) {
        assert_eq!(client.add(&id, &id.repeat(8)), OK);
    }
    // All requests at once, each client for a session that another one stored.
    for (client, id) in clients.iter_mut().rev().zip(ids.clone()) {
        client.send(SessionOperation::Get, &id);
    }
    for (client, id) in clients.iter_mut().rev().zip(ids) {
        assert_eq!(client.receive().data, id.repeat(8));
    }
}

#[test]
fn clients_closing_with_pending_requests_affect_no_other() {
    let server = ServerProcess::start(&[]);
    let relay = TestRelay::to(server.address());
    let mut agent = AgentProcess::start(relay.address(), &["-timeout", "0"]);
    let mut good = agent.connect();
    assert_eq!(good.add(b"id", b"session"), OK);
    for round in 0..10 {
        let mut leaving: Vec<TestConnection> = (0..20).map(|_| agent.connect()).collect();
        // Closing with an unread answer resets the connection; without one, the agent may see a half-close.
        for client in leaving.iter_mut().step_by(2) {
            client.send(SessionOperation::Have, b"id");
            client.wait_for_input();
        }
        relay.hold(RelayWay::Down);
        for client in &mut leaving {
            client.send(SessionOperation::Get, b"id");
        }
        relay.wait_until_held(RelayWay::Down, 1);
        // Half of the clients close before the answers arrive, half just as they do.
        leaving.truncate(10);
        good.send(SessionOperation::Have, b"other");
        relay.release(RelayWay::Down);
        assert_eq!(good.receive().data, NOTOK, "round {round}");
        drop(leaving);
        assert_eq!(good.get(b"id"), b"session", "round {round}");
    }
    let lines = agent.process.stop();
    assert!(lines.iter().all(|line| !line.contains(" WARN ") && !line.contains(" ERROR ")), "{lines:?}");
}

#[test]
fn server_pauses_accepting_until_descriptors_are_free() {
    let server =
        ServerProcess::launch(ProgramLaunch::new("dc_server").with(["-threads", "1"]).with_files_max(80));
    runs_out_of_descriptors(|| server.connect(), &server.process);
}

#[test]
fn server_pauses_accepting_on_unexpected_emfile() {
    // This many threads need more descriptors than are reserved.
    let server =
        ServerProcess::launch(ProgramLaunch::new("dc_server").with(["-threads", "32"]).with_files_max(150));
    runs_out_of_descriptors(|| server.connect(), &server.process);
    assert!(!server.process.log.with("os error 24").is_empty());
}

#[test]
fn agent_pauses_accepting_until_descriptors_are_free() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::launch(ProgramLaunch::new("dc_client").with_files_max(80), server.address());
    runs_out_of_descriptors(|| agent.connect(), &agent.process);
}

fn runs_out_of_descriptors(connect: impl Fn() -> TestConnection, process: &TestProcess) {
    let mut open: VecDeque<TestConnection> = (0..100).map(|_| connect()).collect();
    for connection in &mut open {
        connection.send(SessionOperation::Have, b"id");
    }
    process.log.expect("new connections wait");
    // The first connections are served; each closed one lets a waiting one be accepted.
    assert_eq!(open[0].receive().data, NOTOK);
    assert_eq!(open[0].add(b"other", b"session"), OK);
    open[0].send(SessionOperation::Have, b"id");
    for _ in 0..300 {
        assert_eq!(open.pop_front().unwrap().receive().data, NOTOK);
        let mut next = connect();
        next.send(SessionOperation::Have, b"id");
        open.push_back(next);
    }
    while let Some(mut connection) = open.pop_front() {
        assert_eq!(connection.receive().data, NOTOK);
    }
    process.log.expect("accepting again");
    assert_eq!(connect().get(b"other"), b"session");
    let warnings = process.log.with(" WARN ").len();
    assert!(warnings < 10, "{warnings} warnings");
}

#[test]
fn agent_out_of_descriptors_reconnects_to_server() {
    let mut server = ServerProcess::start(&[]);
    let launch = ProgramLaunch::new("dc_client").with(["-retry", "20", "-log", "debug"]).with_files_max(80);
    let agent = AgentProcess::launch(launch, server.address());
    let mut open: Vec<TestConnection> = (0..100).map(|_| agent.connect()).collect();
    assert_eq!(open[0].add(b"id", b"session"), OK);
    agent.process.log.expect("new connections wait");
    server.kill();
    agent.process.log.expect("the link is lost");
    // Waiting clients would otherwise take the descriptor of the link.
    for _ in 0..30 {
        agent.process.log.expect("DEBUG ");
    }
    server.restart();
    agent.process.log.expect("the link is up");
    assert_eq!(open[0].have(b"id"), NOTOK);
}
