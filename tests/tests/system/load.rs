//! The server is killed and restarted under load. `dc_test` checks every answer against the stored sessions.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::log::time_of;
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::server::ServerProcess;
use nix::sys::signal::Signal;
use serde_json::Value;

const OUTAGES: u64 = 3;
/// The text of each progress line of `dc_test`.
const PROGRESS: &str = " operations in ";

#[test]
fn session_load_continues_through_outages() {
    let mut server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &["-retry", "200", "-log", "debug"]);
    let load = ProgramLaunch::new("dc_test").with(["-connect", &unix(agent.socket()), "-persistent"]);
    let load = load.with(["-clients", "8", "-sessions", "50", "-pipeline", "4", "-duration", "3600"]);
    let load = load.with(["-answer-timeout", "20000", "-tolerate-outage", "60000"]);
    let mut load = load.with(["-progress", "500", "-json"]).start();
    for _ in 0..OUTAGES {
        load.log.skip();
        load.log.expect(PROGRESS);
        server.kill();
        agent.process.log.expect("the link is lost");
        let listening = server.restart();
        agent.process.log.expect("the link is up");
        load.log.skip();
        load.log.expect(PROGRESS);
        let failed = agent.process.log.with("DEBUG Connection refused");
        let late = failed.iter().filter(|line| time_of(line) > time_of(&listening)).count();
        assert!(late <= 1, "{late} attempts failed although the server listened: {failed:?}");
    }
    load.signal(Signal::SIGINT);
    let status = load.wait();
    let report: Value = serde_json::from_str(&load.log.with("{\"")[0]).unwrap();
    assert_eq!((status.code(), &report["result"]), (Some(130), &"interrupted".into()), "{report}");
    // There are no other failures, at any time.
    let failures = &report["failures"];
    assert_eq!(failures["unanswered"], 0, "{report}");
    assert_eq!(failures["connection_lost"], 0, "{report}");
    assert_eq!(failures["not_connected"], 0, "{report}");
    assert!(failures["disconnected"].as_u64().unwrap() >= OUTAGES, "{report}");
    // One outage counts as two if an answer from before its end is read after one from after it.
    let outages = report["outages"]["count"].as_u64().unwrap();
    assert!((OUTAGES..=2 * OUTAGES).contains(&outages), "{report}");
}

#[test]
fn session_load_accepts_every_answer() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    for connect in [unix(agent.socket()), format!("IP:{}", server.address())] {
        for mode in [&["-persistent", "-pipeline", "8"][..], &[]] {
            let load = ProgramLaunch::new("dc_test").with(["-connect", &connect, "-clients", "4"]);
            let output =
                load.with(["-sessions", "20", "-ops", "4000", "-datamax", "32000"]).with(mode).output();
            let errors = String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success(), "{}: {errors}", output.status);
        }
    }
}
