//! Locks through agents whose link breaks, whose server restarts, or who are killed themselves.

use dc_tests::harness::agent::AgentProcess;
use dc_tests::harness::connection::TestConnection;
use dc_tests::harness::relay::TestRelay;
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use std::time::Instant;

/// Tries to reach the server every 20 ms.
const EAGER: [&str; 2] = ["-retry", "20"];

fn token(answer: &str) -> &str {
    let mut words = answer.split(' ');
    assert_eq!(words.next(), Some("ok"), "{answer}");
    words.next().unwrap()
}

fn fence(answer: &str) -> u64 {
    u64::from_str_radix(&token(answer)[..16], 16).unwrap()
}

/// Asks for a lock and sees to it that it waits.
fn wait_for(client: &mut TestConnection, key: &str, monitor: &mut TestConnection) {
    client.write(format!("l\n{key}\n600\n").as_bytes());
    while !monitor.request("stats\n_\n\n").contains("\"waiters\":1") {}
}

#[test]
fn two_hosts_share_a_lock_and_a_client_that_leaves_gives_it_up() {
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
fn a_link_that_is_cut_for_less_than_the_grace_loses_no_lock() {
    let server = ServerProcess::start(&["-grace", "600"]);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &EAGER);
    let (mut holder, mut blocked, mut direct) = (agent.connect(), agent.connect(), server.connect());
    let held = holder.request("l\nk\n0 600\n");
    wait_for(&mut blocked, "k", &mut direct);
    relay.cut();
    agent.process.log.expect("the link is lost");
    assert_eq!(blocked.line(), "error_disconnected", "what is blocked is told at once");
    agent.process.log.expect("the link is up");
    assert_eq!(direct.request("l\nk\n0\n"), "timeout", "nobody else gets it");
    assert_eq!(holder.request(&format!("n\nk\n{} 60\n", token(&held))), "ok 60");
    assert_eq!(holder.request(&format!("r\nk\n{}\n", token(&held))), "ok");
    assert!(fence(&direct.request("l\nk\n0\n")) > fence(&held));
}

#[test]
fn a_link_that_is_cut_for_longer_than_the_grace_loses_its_locks() {
    let server = ServerProcess::start(&["-grace", "200ms"]);
    let relay = TestRelay::to(server.address());
    let agent = AgentProcess::start(relay.address(), &EAGER);
    let (mut holder, mut waiter, mut monitor) = (agent.connect(), server.connect(), server.connect());
    let held = holder.request("l\nk\n0 600\n");
    wait_for(&mut waiter, "k", &mut monitor);
    relay.refuse();
    let next = waiter.line();
    assert!(fence(&next) > fence(&held), "the next one has it when the grace is over");
    relay.accept_again();
    agent.process.log.expect("the link is up");
    assert_eq!(holder.request(&format!("n\nk\n{}\n", token(&held))), "error", "the old holder is told");
    assert_eq!(waiter.request(&format!("n\nk\n{} 60\n", token(&next))), "ok 60");
}

#[test]
fn while_the_server_is_away_locks_are_answered_at_once() {
    let mut server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut client = agent.connect();
    let held = client.request("l\nk\n0 600\n");
    server.kill();
    agent.process.log.expect("the link is lost");
    assert_eq!(client.request("l\nj\n600\n"), "error_disconnected");
    assert_eq!(client.request(&format!("n\nk\n{}\n", token(&held))), "error_disconnected");
    assert_eq!(client.request("ping\n_\n\n"), "ok", "the agent is there");
    server.restart();
    agent.process.log.expect("the link is up");
    assert_eq!(client.request(&format!("n\nk\n{}\n", token(&held))), "error", "the server has forgotten it");
    assert!(fence(&client.request("l\nk\n600\n")) > fence(&held), "fences grow across restarts");
}

#[test]
fn an_agent_that_ends_releases_at_once_and_one_that_is_killed_after_the_grace() {
    let server = ServerProcess::start(&["-grace", "600"]);
    let mut ending = AgentProcess::start(server.address(), &[]);
    let (mut waiter, mut monitor) = (server.connect(), server.connect());
    let mut client = ending.connect();
    client.request("l\nk\n0 600\n");
    wait_for(&mut waiter, "k", &mut monitor);
    ending.process.signal(Signal::SIGTERM);
    // A grace of ten minutes would be noticed.
    let got = waiter.line();
    ending.process.wait();

    let killed = AgentProcess::start(server.address(), &[]);
    let mut client = killed.connect();
    assert_eq!(waiter.request(&format!("r\nk\n{}\n", token(&got))), "ok");
    client.request("l\nk\n0 2\n");
    killed.process.signal(Signal::SIGKILL);
    assert_eq!(client.read_to_end(), b"");
    assert_eq!(waiter.request("l\nk\n0\n"), "timeout", "nobody knows yet that it won't be claimed");
    let begun = Instant::now();
    assert!(waiter.request("l\nk\n600\n").starts_with("ok "), "but never beyond its lease");
    assert!(begun.elapsed().as_secs() < 60);
}

#[test]
fn after_a_crash_nothing_is_granted_before_links_have_lost_what_they_held() {
    let state = TestDir::new();
    let directory = state.path().to_str().unwrap().to_owned();
    let options = ["-state", directory.as_str(), "-grace", "1"];
    let mut server = ServerProcess::start(&options);
    let mut direct = server.connect();
    let first = direct.request("l\nk\n0 600\n");
    server.restart();
    let mut direct = server.connect();
    let second = direct.request("l\nk\n0 600\n");
    assert!(fence(&second) > fence(&first), "no link was there: nobody has to wait");

    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut holder = agent.connect();
    let third = holder.request("l\nj\n0 600\n");
    server.restart();
    assert!(server.process.log.lines().iter().any(|line| line.contains("before the grace is over")));
    let mut direct = server.connect();
    assert_eq!(direct.request("l\nj\n0 600\n"), "timeout", "an agent may believe that it holds it");
    let fourth = direct.request("l\nj\n600 600\n");
    assert!(fence(&fourth) > fence(&third));

    drop((direct, holder));
    server.process.signal(Signal::SIGTERM);
    server.process.wait();
    server.restart();
    assert!(
        server.connect().request("l\nj\n0\n").starts_with("ok "),
        "after an orderly end nobody has to wait"
    );
}

#[test]
fn an_orderly_end_takes_the_locks_from_nobody() {
    let state = TestDir::new();
    // Of a grace of ten minutes nobody sees the end.
    let options = ["-state", state.path().to_str().unwrap(), "-grace", "600"];
    let mut server = ServerProcess::start(&options);
    let agent = AgentProcess::start(server.address(), &EAGER);
    let mut holder = agent.connect();
    let held = holder.request("l\nk\n0 600\n");
    assert!(fence(&held) > 0);
    server.process.stop();
    server.restart();
    let mut direct = server.connect();
    assert_eq!(direct.request("l\nk\n0\n"), "timeout", "its agent may believe that it holds it");
}
