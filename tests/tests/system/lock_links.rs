//! Locks through agents whose link breaks, whose server restarts, or that are killed.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::TestConnection;
use dc_tests::harness::relay::TestRelay;
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use std::time::Instant;

/// Retries every 20 ms.
const EAGER: [&str; 2] = ["-retry", "20"];

fn token(answer: &str) -> &str {
    let mut words = answer.split(' ');
    assert_eq!(words.next(), Some("ok"), "{answer}");
    words.next().unwrap()
}

fn fence(answer: &str) -> u64 {
    u64::from_str_radix(&token(answer)[..16], 16).unwrap()
}

/// Requests a lock, and returns when the request waits.
fn wait_for(client: &mut TestConnection, key: &str, monitor: &mut TestConnection) {
    client.write(format!("l\n{key}\n600\n").as_bytes());
    while !monitor.request("stats\n_\n\n").contains("\"waiters\":1") {}
}

#[test]
fn client_disconnect_grants_lock_to_waiter_on_other_host() {
    let server = ServerProcess::start(&[]);
    let agents = [AgentProcess::start(server.address(), &[]), AgentProcess::start(server.address(), &[])];
    let (mut one, mut other) = (agents[0].connect(), agents[1].connect());
    let mut monitor = server.connect();
    let first = one.request("l\nnightly\n0 600\n");
    wait_for(&mut other, "nightly", &mut monitor);
    drop(one);
    let second = other.line();
    assert!(fence(&second) > fence(&first));
}

#[test]
fn link_cut_within_grace_period_keeps_locks() {
    let server = ServerProcess::start(&["-grace", "600"]);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &EAGER);
    let (mut holder, mut blocked, mut direct) = (agent.connect(), agent.connect(), server.connect());
    let held = holder.request("l\nk\n0 600\n");
    wait_for(&mut blocked, "k", &mut direct);
    relay.cut();
    agent.process.log.expect("the link is lost");
    assert_eq!(blocked.line(), "error_disconnected", "a blocked request fails at once");
    agent.process.log.expect("the link is up");
    assert_eq!(direct.request("l\nk\n0\n"), "timeout", "no other client gets it");
    assert_eq!(holder.request(&format!("n\nk\n{} 60\n", token(&held))), "ok 60");
    assert_eq!(holder.request(&format!("r\nk\n{}\n", token(&held))), "ok");
    assert!(fence(&direct.request("l\nk\n0\n")) > fence(&held));
}

#[test]
fn link_cut_beyond_grace_period_loses_locks() {
    let server = ServerProcess::start(&["-grace", "200ms"]);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &EAGER);
    let (mut holder, mut waiter, mut monitor) = (agent.connect(), server.connect(), server.connect());
    let held = holder.request("l\nk\n0 600\n");
    wait_for(&mut waiter, "k", &mut monitor);
    relay.refuse();
    let next = waiter.line();
    assert!(fence(&next) > fence(&held), "the waiter gets it after the grace period");
    relay.accept_again();
    agent.process.log.expect("the link is up");
    assert_eq!(holder.request(&format!("n\nk\n{}\n", token(&held))), "error", "the old holder has lost it");
    assert_eq!(waiter.request(&format!("n\nk\n{} 60\n", token(&next))), "ok 60");
}

#[test]
fn lock_requests_fail_at_once_while_server_is_down() {
    let mut server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut client = agent.connect();
    let held = client.request("l\nk\n0 600\n");
    server.kill();
    agent.process.log.expect("the link is lost");
    assert_eq!(client.request("l\nj\n600\n"), "error_disconnected");
    assert_eq!(client.request(&format!("n\nk\n{}\n", token(&held))), "error_disconnected");
    assert_eq!(client.request("ping\n_\n\n"), "ok", "the agent still answers");
    server.restart();
    agent.process.log.expect("the link is up");
    assert_eq!(client.request(&format!("n\nk\n{}\n", token(&held))), "error", "the server has forgotten it");
    assert!(fence(&client.request("l\nk\n600\n")) > fence(&held), "fences grow across restarts");
}

#[test]
fn stopped_agent_releases_at_once_and_killed_one_after_grace() {
    let server = ServerProcess::start(&["-grace", "600"]);
    let mut ending = AgentProcess::start(server.address(), &[]);
    let (mut waiter, mut monitor) = (server.connect(), server.connect());
    let mut client = ending.connect();
    client.request("l\nk\n0 600\n");
    wait_for(&mut waiter, "k", &mut monitor);
    ending.process.signal(Signal::SIGTERM);
    // A grace period of ten minutes would fail the test.
    let granted = waiter.line();
    ending.process.wait();

    let killed = AgentProcess::start(server.address(), &[]);
    let mut client = killed.connect();
    assert_eq!(waiter.request(&format!("r\nk\n{}\n", token(&granted))), "ok");
    client.request("l\nk\n0 2\n");
    killed.process.signal(Signal::SIGKILL);
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(waiter.request("l\nk\n0\n"), "timeout", "the lock may still be claimed");
    let start = Instant::now();
    assert!(waiter.request("l\nk\n600\n").starts_with("ok "), "the lease bounds the wait");
    assert!(start.elapsed().as_secs() < 60);
}

#[test]
fn server_after_crash_grants_only_after_grace_period() {
    let state = TestDir::new();
    let directory = state.path().to_str().unwrap().to_owned();
    let options = ["-state", directory.as_str(), "-grace", "1"];
    let mut server = ServerProcess::start(&options);
    let mut direct = server.connect();
    let first = direct.request("l\nk\n0 600\n");
    server.restart();
    let mut direct = server.connect();
    let second = direct.request("l\nk\n0 600\n");
    assert!(fence(&second) > fence(&first), "without links there is no grace period");

    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut holder = agent.connect();
    let third = holder.request("l\nj\n0 600\n");
    server.restart();
    assert!(server.process.log.lines().iter().any(|line| line.contains("until the grace period ends")));
    let mut direct = server.connect();
    assert_eq!(direct.request("l\nj\n0 600\n"), "timeout", "an agent may still hold it");
    let fourth = direct.request("l\nj\n600 600\n");
    assert!(fence(&fourth) > fence(&third));

    drop((direct, holder));
    server.process.signal(Signal::SIGTERM);
    server.process.wait();
    server.restart();
    assert!(
        server.connect().request("l\nj\n0\n").starts_with("ok "),
        "after a graceful shutdown there is no grace period"
    );
}

#[test]
fn server_restarted_gracefully_keeps_locks_for_claims() {
    let state = TestDir::new();
    // The test does not outlast a grace period of ten minutes.
    let options = ["-state", state.path().to_str().unwrap(), "-grace", "600"];
    let mut server = ServerProcess::start(&options);
    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut holder = agent.connect();
    let held = holder.request("l\nk\n0 600\n");
    assert!(fence(&held) > 0);
    server.process.stop();
    server.restart();
    let mut direct = server.connect();
    assert_eq!(direct.request("l\nk\n0\n"), "timeout", "its agent may still hold it");
}
