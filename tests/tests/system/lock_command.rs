//! `dc_lock` on two hosts, each with an agent.

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

/// A command that writes its fence to `begun`, and runs until `may_end` is written.
fn until(begun: &Path, may_end: &Path) -> String {
    // Reading a named pipe blocks until it is written, so nothing has to poll.
    nix::unistd::mkfifo(may_end, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let (begun, may_end) = (begun.display(), may_end.display());
    format!("echo $DC_LOCK_FENCE > {begun}.new && mv {begun}.new {begun} && exec cat {may_end}")
}

fn fence(file: &Path) -> u64 {
    fs::read_to_string(file).unwrap().trim().parse().unwrap()
}

/// Waits until a client waits for a lock.
fn wait_for_waiter(server: &ServerProcess) {
    let mut monitor = server.connect();
    while !monitor.request("stats\n_\n\n").contains("\"waiters\":1") {}
}

#[test]
fn commands_on_two_hosts_run_one_after_the_other() {
    let (server, dir) = (ServerProcess::start(&[]), TestDir::new());
    let agents = [AgentProcess::start(server.address(), &[]), AgentProcess::start(server.address(), &[])];
    let [first, second, go] = ["first", "second", "go"].map(|name| dir.file(name));
    let mut first_command = lock(&agents[0], &["-verbose"], &until(&first, &go)).start();
    first_command.log.expect("nightly");
    while !first.exists() {
        std::thread::yield_now();
    }
    let mut second_command =
        lock(&agents[1], &[], &format!("echo $DC_LOCK_FENCE > {}", second.display())).start();
    wait_for_waiter(&server);
    assert!(!second.exists(), "both commands run at once");
    fs::write(&go, "").unwrap();
    assert!(first_command.wait().success() && second_command.wait().success());
    assert!(fence(&second) > fence(&first));
}

#[test]
fn nonblock_and_timeout_exit_with_conflict_status() {
    let (server, dir) = (ServerProcess::start(&[]), TestDir::new());
    let agent = AgentProcess::start(server.address(), &[]);
    let mut holder = server.connect();
    let held = holder.request("l\nnightly\n0 600\n");
    assert_eq!(lock(&agent, &["-n"], "true").output().status.code(), Some(75));
    assert_eq!(lock(&agent, &["-timeout", "100ms"], "true").output().status.code(), Some(75));
    let token = held.split(' ').nth(1).unwrap();
    assert_eq!(holder.request(&format!("r\nnightly\n{token}\n")), "ok");
    assert_eq!(lock(&agent, &["-n"], "exit 7").output().status.code(), Some(7));
    drop(dir);
}

/// Starts a command under a lock that never exits by itself, and waits until it runs.
fn running(agent: &AgentProcess, dir: &TestDir) -> TestProcess {
    let (begun, never) = (dir.file("begun"), dir.file("never"));
    let process = lock(agent, &["-lease", "6"], &until(&begun, &never)).start();
    while !begun.exists() {
        std::thread::yield_now();
    }
    process
}

#[test]
fn command_ends_after_signal_or_loss_of_agent_or_server() {
    let mut server = ServerProcess::start(&["-grace", "2"]);
    let agent = AgentProcess::start(server.address(), &[]);
    let dir = TestDir::new();
    let mut command = running(&agent, &dir);
    command.signal(Signal::SIGTERM);
    assert_eq!(command.wait().code(), Some(128 + Signal::SIGTERM as i32));
    assert!(
        server.connect().request("l\nnightly\n0\n").starts_with("ok "),
        "the lock is free when the command has exited"
    );

    let dir = TestDir::new();
    let mut command = running(&agent, &dir);
    agent.process.signal(Signal::SIGKILL);
    assert_eq!(command.wait().code(), Some(76), "the agent is gone");

    let agent = AgentProcess::start(server.address(), &[]);
    let dir = TestDir::new();
    let mut command = running(&agent, &dir);
    server.kill();
    assert_eq!(command.wait().code(), Some(76), "the server is gone");
}
