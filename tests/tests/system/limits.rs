//! How many connections there may be, and for how long one may say nothing.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, OK, TestConnection};
use dc_tests::harness::process::TestProcess;
use dc_tests::harness::relay::{RelayWay, TestRelay};
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;

const LIMITED: [&str; 4] = ["-max-connections", "3", "-log", "debug"];
const THROTTLED: [&str; 4] = ["-throttle", "3", "-log", "debug"];

#[test]
fn the_server_closes_connections_beyond_its_limit_at_once() {
    let server = ServerProcess::start(&LIMITED);
    closes_the_fourth(|| server.connect(), &server.process);
}

#[test]
fn the_agent_closes_connections_beyond_its_limit_at_once() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &LIMITED);
    closes_the_fourth(|| agent.connect(), &agent.process);
}

fn closes_the_fourth(connect: impl Fn() -> TestConnection, process: &TestProcess) {
    let mut open: Vec<TestConnection> = (0..3).map(|_| connect()).collect();
    open.iter_mut().for_each(|it| assert_eq!(it.have(b"id"), NOTOK));
    for _ in 0..10 {
        assert_eq!(connect().read_to_end(), b"");
    }
    open.iter_mut().for_each(|it| assert_eq!(it.have(b"id"), NOTOK));
    open.pop();
    process.log.expect("DEBUG closed connection=");
    let mut fourth = connect();
    assert_eq!(fourth.have(b"id"), NOTOK);
    assert_eq!(connect().read_to_end(), b"");
}

#[test]
fn the_server_leaves_connections_beyond_its_throttle_in_the_queue() {
    let server = ServerProcess::start(&THROTTLED);
    leaves_the_fourth_waiting(|| server.connect());
}

#[test]
fn the_agent_leaves_connections_beyond_its_throttle_in_the_queue() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &THROTTLED);
    leaves_the_fourth_waiting(|| agent.connect());
}

fn leaves_the_fourth_waiting(connect: impl Fn() -> TestConnection) {
    let mut open: Vec<TestConnection> = (0..3).map(|_| connect()).collect();
    open.iter_mut().for_each(|it| assert_eq!(it.have(b"id"), NOTOK));
    let mut waiting: Vec<TestConnection> = (0..3).map(|_| connect()).collect();
    for connection in &mut waiting {
        connection.send(SessionOperation::Have, b"id");
    }
    // Long enough for those to be answered, were they served.
    for connection in &mut open {
        (0..200).for_each(|_| assert_eq!(connection.have(b"id"), NOTOK));
    }
    assert!(waiting.iter().all(|connection| !connection.has_input()), "a fourth connection was served");
    for mut connection in waiting {
        open.pop();
        assert_eq!(connection.receive().data, NOTOK);
        open.push(connection);
    }
}

#[test]
fn the_agent_closes_an_idle_connection_and_none_that_waits_for_its_answer() {
    let server = ServerProcess::start(&[]);
    assert_eq!(server.connect().add(b"id", b"session"), OK);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &["-idle", "1000", "-timeout", "0"]);
    relay.hold(RelayWay::Down);
    let mut busy = agent.connect();
    busy.send(SessionOperation::Get, b"id");
    relay.wait_until_held(RelayWay::Down, 1);
    // Each of these has been idle for less long than the other one, were it idle.
    for _ in 0..2 {
        assert_eq!(agent.connect().read_to_end(), b"");
    }
    assert!(!busy.has_input());
    relay.release(RelayWay::Down);
    assert_eq!(busy.receive().data, b"session");
    // Now it has nothing under way.
    assert_eq!(busy.read_to_end(), b"");
    assert_eq!(agent.process.log.with(" WARN "), Vec::<String>::new());
}

#[test]
fn without_idle_nobody_is_closed_for_silence() {
    let server = ServerProcess::start(&[]);
    let patient = AgentProcess::start(server.address(), &[]);
    let mut silent = patient.connect();
    let strict = AgentProcess::start(server.address(), &["-idle", "300"]);
    assert_eq!(strict.connect().read_to_end(), b"");
    assert_eq!(silent.have(b"id"), NOTOK);
}
