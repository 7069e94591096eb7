//! `dc_lock` on two hosts, each with its agent.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::process::{ProgramLaunch, TestProcess};
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;

/// Runs a shell command under the lock `nightly`, through this agent.
fn lock(agent: &AgentProcess, options: &[&str], command: &str) -> ProgramLaunch {
    let launch = ProgramLaunch::new("dc_lock").with(["-connect", &unix(agent.socket())]).with(options);
    launch.with(["nightly", "--", "sh", "-c", command])
}

/// A command that says that it runs and with which fence, and goes on until it may end.
fn until(begun: &Path, may_end: &Path) -> String {
    // A named pipe: reading blocks until somebody writes, so nobody has to look again and again.
    nix::unistd::mkfifo(may_end, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (begun, may_end) = (begun.display(), may_end.display());
    format!("echo $DC_LOCK_FENCE > {begun}.new && mv {begun}.new {begun} && exec cat {may_end}")
}

fn fence(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Waits until somebody waits for a lock.
fn wait_for_waiter(server: &ServerProcess) {
    let mut monitor = server.connect();
    while !monitor.request("stats\n_\n\n").contains("\"waiters\":1") {}
}

#[test]
fn on_two_hosts_one_command_runs_after_the_other() {
    let (server, place) = (ServerProcess::start(&[]), TestDir::new());
    let agents = [AgentProcess::start(server.address(), &[]), AgentProcess::start(server.address(), &[])];
    let [first, second, go] = ["first", "second", "go"].map(|name| place.file(name));
    let mut one = lock(&agents[0], &["-verbose"], &until(&first, &go)).start();
    one.log.expect("nightly");
    while !first.exists() {
        std::thread::yield_now();
    }
    let mut other = lock(&agents[1], &[], &format!("echo $DC_LOCK_FENCE > {}", second.display())).start();
    wait_for_waiter(&server);
    assert!(!second.exists(), "both run at once");
    fs::write(&go, "").unwrap();
    assert!(one.wait().success() && other.wait().success());
    assert!(fence(&second) > fence(&first));
}

#[test]
fn who_does_not_want_to_wait_is_told_by_its_status() {
    let (server, place) = (ServerProcess::start(&[]), TestDir::new());
    let agent = AgentProcess::start(server.address(), &[]);
    let mut holder = server.connect();
    let held = holder.request("l\nnightly\n0 600\n");
    assert_eq!(lock(&agent, &["-n"], "true").output().status.code(), Some(75));
    assert_eq!(lock(&agent, &["-timeout", "100ms"], "true").output().status.code(), Some(75));
    let token = held.split(' ').nth(1).unwrap();
    assert_eq!(holder.request(&format!("r\nnightly\n{token}\n")), "ok");
    assert_eq!(lock(&agent, &["-n"], "exit 7").output().status.code(), Some(7));
    drop(place);
}

/// A command under a lock that would go on for ever, once it runs.
fn running(agent: &AgentProcess, place: &TestDir) -> TestProcess {
    let (begun, never) = (place.file("begun"), place.file("never"));
    let process = lock(agent, &["-lease", "6"], &until(&begun, &never)).start();
    while !begun.exists() {
        std::thread::yield_now();
    }
    process
}

#[test]
fn a_command_ends_with_its_agent_its_server_or_the_signal_that_ends_it() {
    let mut server = ServerProcess::start(&["-grace", "2"]);
    let agent = AgentProcess::start(server.address(), &[]);
    let place = TestDir::new();
    let mut command = running(&agent, &place);
    command.signal(Signal::SIGTERM);
    assert_eq!(command.wait().code(), Some(128 + Signal::SIGTERM as i32));
    assert!(
        server.connect().request("l\nnightly\n0\n").starts_with("ok "),
        "it is free when the command has ended"
    );

    let place = TestDir::new();
    let mut command = running(&agent, &place);
    agent.process.signal(Signal::SIGKILL);
    assert_eq!(command.wait().code(), Some(76), "the agent is gone");

    let agent = AgentProcess::start(server.address(), &[]);
    let place = TestDir::new();
    let mut command = running(&agent, &place);
    server.kill();
    assert_eq!(command.wait().code(), Some(76), "the server is gone");
}
