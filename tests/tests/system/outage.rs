//! The server or the network fails: applications get an answer at once, and the agent reconnects without a
//! restart.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::{DISCONNECTED, NOTOK, OK};
use dc_tests::harness::fake::{FakeKind, FakeServer, HELD_ID};
use dc_tests::harness::log::time_of;
use dc_tests::harness::loopback::own_loopback;
use dc_tests::harness::patience::PATIENCE;
use dc_tests::harness::relay::{RelayWay, TestRelay};
use dc_tests::harness::server::ServerProcess;
use libdc::wire::frame::SessionOperation;
use nix::sys::signal::Signal;
use std::net::TcpListener;
use std::time::Instant;

/// Retries every 20 ms, and logs every attempt.
const EAGER: [&str; 4] = ["-retry", "20", "-log", "debug"];
/// The log line of a failed attempt, except for the first of an outage.
const FAILED_ATTEMPT: &str = "DEBUG Connection refused";

#[test]
fn agent_without_server_answers_disconnected_at_once() {
    // The address of a server that has just stopped.
    let address = TcpListener::bind((own_loopback(), 0)).unwrap().local_addr().unwrap();
    // An answer that waited for the server would take an hour.
    let agent = AgentProcess::start(address, &["-timeout", "0", "-retry", "3600000"]);
    let mut client = agent.connect();
    assert_eq!(client.add(b"id", b"session"), DISCONNECTED);
    assert_eq!(client.get(b"id"), DISCONNECTED);
    assert_eq!(client.have(b"id"), DISCONNECTED);
    assert_eq!(client.remove(b"id"), DISCONNECTED);
    assert_eq!(agent.process.log.with(" WARN ").len(), 1, "one line is enough for one outage");
}

#[test]
fn agent_reconnects_to_restarted_server_in_one_attempt() {
    let mut server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut client = agent.connect();
    for _ in 0..3 {
        assert_eq!(client.add(b"id", b"session"), OK);
        server.kill();
        agent.process.log.expect("the link is lost");
        assert_eq!(client.get(b"id"), DISCONNECTED);
        agent.process.log.expect(FAILED_ATTEMPT);
        let listening = server.restart();
        agent.process.log.expect("the link is up");
        assert_eq!(client.get(b"id"), NOTOK, "the connection is the same, the server is another");
        let failed = agent.process.log.with(FAILED_ATTEMPT);
        let late = failed.iter().filter(|line| time_of(line) > time_of(&listening)).count();
        // One attempt may have failed earlier, and been logged late.
        assert!(late <= 1, "{late} attempts failed although the server listened: {failed:?}");
    }
}

#[test]
fn retry_option_sets_pause_between_attempts() {
    let mut server = ServerProcess::start(&[]);
    let eager = AgentProcess::start(server.address(), &["-retry", "20", "-idle", "8000", "-log", "debug"]);
    let calm = AgentProcess::start(server.address(), &["-retry", "20000", "-idle", "1000", "-log", "debug"]);
    server.kill();
    calm.process.log.expect("the link is lost");
    let (idle_long, mut idle_short) = (eager.connect(), calm.connect());
    for _ in 0..10 {
        eager.process.log.expect(FAILED_ATTEMPT);
    }
    assert!(!idle_long.has_input(), "ten pauses of 20 ms took more than 8 seconds");
    assert_eq!(idle_short.read_to_end(), b"");
    let attempts = calm.process.log.with(FAILED_ATTEMPT).len();
    assert!(attempts <= 1, "{attempts} attempts in a second, with a pause of 20 seconds");
}

#[test]
fn agent_detects_stopped_server_and_its_continuation() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &["-retry", "20", "-timeout", "1000"]);
    let mut client = agent.connect();
    assert_eq!(client.add(b"id", b"session"), OK);
    server.process.signal(Signal::SIGSTOP);
    assert_eq!(client.get(b"id"), DISCONNECTED);
    agent.process.log.expect("the link is lost: the server has been silent for 1");
    assert_eq!(client.get(b"id"), DISCONNECTED);
    server.process.signal(Signal::SIGCONT);
    agent.process.log.expect("the link is up");
    assert_eq!(client.get(b"id"), b"session");
}

#[test]
fn silent_server_counts_as_unreachable() {
    let silent = FakeServer::start(FakeKind::Silent);
    let agent = AgentProcess::start(silent.address(), &["-retry", "20", "-timeout", "1000", "-log", "debug"]);
    let mut client = agent.connect();
    assert_eq!(client.get(b"id"), DISCONNECTED);
    silent.wait_for_connections(2);
    assert_eq!(client.get(b"id"), DISCONNECTED);
    assert!(agent.process.log.with("the link is up").is_empty());
}

/// A fault of the link while an answer is in flight.
#[derive(Clone, Copy, Debug)]
enum OutageFault {
    Cut,
    NoMoreAnswers,
    NoMoreRequests,
}

#[test]
fn link_loss_fails_pending_request_and_next_one_succeeds() {
    let server = ServerProcess::start(&[]);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &EAGER);
    let mut client = agent.connect();
    assert_eq!(client.add(b"id", b"session"), OK);
    for fault in [OutageFault::Cut, OutageFault::NoMoreAnswers, OutageFault::NoMoreRequests] {
        relay.hold(RelayWay::Down);
        client.send(SessionOperation::Get, b"id");
        relay.wait_until_held(RelayWay::Down, 1);
        let expected = match fault {
            OutageFault::Cut => {
                relay.cut();
                DISCONNECTED
            }
            OutageFault::NoMoreAnswers => {
                relay.half_close(RelayWay::Down);
                DISCONNECTED
            }
            OutageFault::NoMoreRequests => {
                // The server answers the requests it has received, and closes.
                relay.half_close(RelayWay::Up);
                relay.release(RelayWay::Down);
                b"session"
            }
        };
        assert_eq!(client.receive().data, expected, "{fault:?}");
        relay.release(RelayWay::Down);
        agent.process.log.expect("the link is lost");
        agent.process.log.expect("the link is up");
        assert_eq!(client.get(b"id"), b"session", "{fault:?}");
    }
}

#[test]
fn unanswered_request_delays_no_other_and_late_answer_is_lost() {
    let server = FakeServer::start(FakeKind::Current);
    let agent = AgentProcess::start(server.address(), &["-timeout", "2000"]);
    let (mut late, mut other) = (agent.connect(), agent.connect());
    assert_eq!(late.add(b"id", b"session"), OK);
    late.send(SessionOperation::Get, HELD_ID);
    // The server still answers all other requests.
    let start = Instant::now();
    while !late.has_input() {
        assert!(start.elapsed() < PATIENCE, "the agent does not time out a request");
        assert_eq!(other.get(b"id"), b"session");
    }
    assert_eq!(late.receive().data, DISCONNECTED);
    for client in [&mut late, &mut other] {
        client.send(SessionOperation::Have, b"other id");
    }
    assert_eq!(server.answer_held(), 1);
    for client in [&mut late, &mut other] {
        assert_eq!(client.receive().data, NOTOK);
        assert_eq!(client.get(b"id"), b"session");
    }
    assert_eq!(agent.process.log.with(" WARN "), Vec::<String>::new(), "the link was closed");
}

#[test]
fn goaway_makes_agent_reconnect_at_once() {
    let server = FakeServer::start(FakeKind::Current);
    // A pause of an hour would fail the test.
    let agent = AgentProcess::start(server.address(), &["-retry", "3600000"]);
    let mut client = agent.connect();
    assert_eq!(client.add(b"id", b"session"), OK);
    let log = &agent.process.log;
    for _ in 0..2 {
        server.send_goaway();
        log.expect("the link is made anew");
        log.expect("the link is up");
        assert_eq!(client.get(b"id"), b"session");
    }
    assert_eq!(log.with(" WARN "), Vec::<String>::new());
}
