//! Fifty restarts of servers of several kinds, unnoticed by callers.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::callers::{CallCounters, Callers};
use dc_tests::harness::connection::NOTOK;
use dc_tests::harness::master::MasterProcess;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::programs::program;
use dc_tests::harness::require::skip;
use dc_tests::harness::server::ServerProcess;
use dc_tests::harness::test_dir::TestDir;
use std::path::{Path, PathBuf};
use std::process::Command;

const RESTARTS: usize = 50;

/// Restarts a master's program fifty times. The master's pid stays the same.
fn fifty_times(master: &mut MasterProcess) {
    let pid = master.process.pid();
    (0..RESTARTS).for_each(|_| master.restart());
    assert_eq!(master.process.pid(), pid);
    let ready = master.process.log.with("ready child=");
    assert_eq!(ready.len(), RESTARTS + 1);
}

/// The Python interpreter, if there is one; prints a message otherwise.
fn python() -> Option<PathBuf> {
    // Not a wrapper that starts it elsewhere through a shell.
    let asked = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).output();
    let path = asked.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    let path = path.and_then(|path| String::from_utf8(path).ok()).map(|path| PathBuf::from(path.trim()));
    if path.is_none() {
        skip("python3 is not installed");
    }
    path
}

fn http_server() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/master/http_server.py")
}

fn almost_all_served(tally: &CallCounters) {
    tally.all_answered(500);
    // Neither the first nor the last child gives all answers: each child serves for a while.
    assert!(tally.by_child.len() > RESTARTS / 2, "{:?}", tally.by_child);
}

#[test]
fn a_server_in_python() {
    let Some(python) = python() else { return };
    let place = TestDir::new();
    std::fs::write(place.file("index.html"), "hello\n").unwrap();
    let launch = ProgramLaunch::new("dc_master").within(place.path()).with(["-listen", "tcp://127.0.0.1:0"]);
    let launch = launch.with(["-start", "0", "-command", python.to_str().unwrap(), "--"]);
    let mut master = MasterProcess::launch(&launch.with([http_server()]));
    let callers = Callers::of_http(master.address());
    fifty_times(&mut master);
    callers.wait_for(100);
    almost_all_served(&callers.finish());
    master.process.stop();
}

#[test]
fn the_server_in_python_is_that_of_the_manual() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../man/dc_master.1"));
    let code = std::fs::read_to_string(http_server()).unwrap().replace('\\', "\\e");
    assert!(page.unwrap().contains(&code), "the manual shows another");
}

#[test]
fn a_server_with_libdc() {
    let mut master = MasterProcess::for_command(&program("good_child"), &["-start", "0"], &[]);
    let callers = Callers::of_child(master.address());
    fifty_times(&mut master);
    callers.wait_for(100);
    callers.finish().all_answered(500);
    master.process.stop();
}

#[test]
fn a_server_of_sessions() {
    let mut master = MasterProcess::for_command(&program("dc_server"), &["-start", "0"], &["-log", "warn"]);
    let callers = Callers::of_sessions(format!("IP:{}", master.address()).parse().unwrap());
    fifty_times(&mut master);
    callers.wait_for(100);
    callers.finish().all_answered(500);
    master.process.stop();
}

#[test]
fn an_agent() {
    let server = ServerProcess::start(&[]);
    let place = TestDir::new();
    let path = place.file("agent");
    let upstream = format!("IP:{}", server.address());
    let launch = ProgramLaunch::new("dc_master").with(["-listen", "tcp://127.0.0.1:0"]);
    let launch = launch.with(["-listen", &format!("unix://{}", path.display()), "-start", "0"]);
    let agent = program("dc_client");
    let launch = launch.with(["-command", agent.to_str().unwrap(), "--", "-server", &upstream]);
    let mut master = MasterProcess::launch(&launch.with(["-log", "warn"]));
    let callers = Callers::of_sessions(unix(&path).parse().unwrap());
    fifty_times(&mut master);
    callers.wait_for(100);
    callers.finish().all_answered(500);
    master.process.stop();
}

#[test]
fn an_agent_and_its_server_in_turn() {
    let mut server = MasterProcess::for_command(&program("dc_server"), &["-start", "0"], &["-log", "warn"]);
    let upstream = format!("IP:{}", server.address());
    let plan = ["-server", &upstream, "-retry", "20", "-log", "warn"];
    let mut agent = MasterProcess::for_command(&program("dc_client"), &["-start", "0"], &plan);
    let callers = Callers::of_sessions(format!("IP:{}", agent.address()).parse().unwrap());
    for _ in 0..RESTARTS / 2 {
        server.restart();
        callers.wait_for(1);
        agent.restart();
        callers.wait_for(1);
    }
    let tally = callers.finish();
    // An agent without a server answers at once, so no call fails: the client makes a new session.
    println!("{} answers, and {} that the server is away", tally.answered, tally.disconnected);
    assert!(tally.failures.is_empty() && tally.answered > 200, "{tally:?}");
    agent.process.stop();
    server.process.stop();
}

#[test]
fn an_agent_is_back_at_once_when_its_server_was_restarted() {
    let mut server = MasterProcess::for_command(&program("dc_server"), &["-start", "0"], &["-log", "warn"]);
    // The first failing attempt would end this test.
    let agent = AgentProcess::start(server.address(), &["-retry", "3600000"]);
    for _ in 0..5 {
        server.restart();
        agent.process.log.expect("the link is up");
    }
    assert_eq!(agent.connect().have(b"id"), NOTOK);
    server.process.stop();
}
