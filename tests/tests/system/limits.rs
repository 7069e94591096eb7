//! The limits on the number of connections, and on their idle time.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{NOTOK, OK, TestConnection};
use dc_tests::harness::process::TestProcess;
use dc_tests::harness::relay::{RelayWay, TestRelay};
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;

const LIMITED: [&str; 4] = ["-max-connections", "3", "-log", "debug"];
const THROTTLED: [&str; 4] = ["-throttle", "3", "-log", "debug"];

#[test]
fn server_closes_connections_beyond_limit_at_once() {
    let server = ServerProcess::start(&LIMITED);
    closes_the_fourth(|| server.connect(), &server.process);
}

#[test]
fn agent_closes_connections_beyond_limit_at_once() {
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
fn server_leaves_connections_beyond_throttle_queued() {
    let server = ServerProcess::start(&THROTTLED);
    leaves_the_fourth_waiting(|| server.connect());
}

#[test]
fn agent_leaves_connections_beyond_throttle_queued() {
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
    // Enough round trips for the waiting connections to be answered, if they were served.
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
fn agent_closes_idle_connection_but_not_pending_one() {
    let server = ServerProcess::start(&[]);
    assert_eq!(server.connect().add(b"id", b"session"), OK);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &["-idle", "1000", "-timeout", "0"]);
    relay.hold(RelayWay::Down);
    let mut busy = agent.connect();
    busy.send(SessionOperation::Get, b"id");
    relay.wait_until_held(RelayWay::Down, 1);
    // Each of these connects later than the busy one, and reaches the idle timeout later.
    for _ in 0..2 {
        assert_eq!(agent.connect().read_to_end(), b"");
    }
    assert!(!busy.has_input());
    relay.release(RelayWay::Down);
    assert_eq!(busy.receive().data, b"session");
    // Its request is answered, so it is idle now.
    assert_eq!(busy.read_to_end(), b"");
    assert_eq!(agent.process.log.with(" WARN "), Vec::<String>::new());
}

#[test]
fn agent_without_idle_timeout_keeps_silent_connection() {
    let server = ServerProcess::start(&[]);
    let unlimited = AgentProcess::start(server.address(), &[]);
    let mut silent = unlimited.connect();
    let limited = AgentProcess::start(server.address(), &["-idle", "300"]);
    assert_eq!(limited.connect().read_to_end(), b"");
    assert_eq!(silent.have(b"id"), NOTOK);
}
