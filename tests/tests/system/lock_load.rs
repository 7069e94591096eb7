//! `dc_test -locks` holds every answer about a lock against who may hold it: it finds ours right, and others wrong.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::daemon::stderr;
use dc_tests::harness::fake_locks::{FakeLockServer, FaultMode};
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::server::ServerProcess;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Many lockers of few keys, and many locks of a lonely one.
const MANNERS: [&[&str]; 4] = [
    &["-ops", "500"],
    &["-persistent", "-pipeline", "4", "-ops", "4000"],
    &["-persistent", "-pipeline", "3", "-limit", "3", "-keys", "2", "-ops", "2000"],
    &["-persistent", "-clients", "1", "-keys", "1", "-hold", "1", "-ops", "50"],
];
/// What `dc_test` says every so many rounds.
const PROGRESS: &str = " rounds in ";

fn check(connect: &str, manner: &[&str]) -> std::process::Output {
    ProgramLaunch::new("dc_test").with(["-connect", connect, "-locks", "-json"]).with(manner).output()
}

#[test]
fn a_load_of_locks_finds_every_answer_right() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    for connect in [unix(agent.socket()), format!("IP:{}", server.address())] {
        for manner in MANNERS {
            let output = check(&connect, manner);
            assert!(output.status.success(), "{manner:?}: {} {}", output.status, stderr(&output));
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["result"], "right");
            assert!(report["locks"].as_u64().unwrap() > 20, "{report}");
            // Each kind of question was asked, those too that must be refused.
            for row in ["free", "renew", "release"] {
                assert!(report["operations"][row]["ok"].as_u64().unwrap() > 0, "{row}: {report}");
            }
            assert!(report["operations"]["misuse"]["refused"].as_u64().unwrap() > 0, "{report}");
        }
    }
}

#[test]
fn a_lock_server_that_keeps_its_promises_passes() {
    let server = FakeLockServer::start(FaultMode::Honest);
    for manner in MANNERS {
        let output = check(&format!("IP:{}", server.address()), manner);
        assert!(output.status.success(), "{manner:?}: {} {}", output.status, stderr(&output));
    }
}

#[test]
fn a_broken_promise_about_locks_is_found() {
    for (conduct, said) in [
        // Of two grants at a time the later fence may have come first.
        (FaultMode::GrantsTwice, &["no more than 1 at a time to hold it", "a fence above "][..]),
        (FaultMode::FenceGoesBack, &["a fence above "]),
        (FaultMode::LastInFirstOut, &["which was requested later"]),
        (FaultMode::TriesOvertake, &["which was requested later"]),
        (FaultMode::ReleasesTwice, &["expected error, as it had been released"]),
        (FaultMode::LosesLocks, &["ok, as it was held; got error"]),
        (FaultMode::RenewsForLess, &["got ok for 15000 ms"]),
        (FaultMode::NeverExpires, &["expected error, as it had been released or had expired; got ok"]),
        (FaultMode::IgnoresLimits, &["expected error_limit_mismatch"]),
        (FaultMode::MixesUpUids, &["which is not pending"]),
    ] {
        let server = FakeLockServer::start(conduct);
        // What is tolerated makes no difference.
        let manner = ["-persistent", "-pipeline", "4", "-ops", "20000", "-tolerate-outage", "60000"];
        let output = check(&format!("IP:{}", server.address()), &manner);
        assert_eq!(output.status.code(), Some(1), "{conduct:?}: {}", stderr(&output));
        let told = stderr(&output);
        assert!(said.iter().any(|said| told.contains(said)), "{conduct:?}: {told}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["result"], "wrong", "{report}");
    }
}

#[test]
fn a_lease_that_ends_too_early_is_found() {
    for (conduct, manner) in [
        // Found by the first renewal that the machine is not too busy for.
        (FaultMode::RenewsNothing, &["-persistent", "-pipeline", "4", "-duration", "60"][..]),
        (FaultMode::ExpiresEarly, &["-hold", "400"]),
    ] {
        let server = FakeLockServer::start(conduct);
        let output = check(&format!("IP:{}", server.address()), manner);
        let told = stderr(&output);
        assert!(told.contains("ok, as it was held; got error"), "{conduct:?}: {} {told}", output.status);
    }
}

#[test]
fn a_load_of_locks_goes_through_outages() {
    let mut server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &["-retry", "200"]);
    for (connect, disconnected) in [(unix(agent.socket()), true), (format!("IP:{}", server.address()), false)]
    {
        let load =
            ProgramLaunch::new("dc_test").with(["-connect", &connect, "-locks", "-persistent", "-json"]);
        let load = load.with(["-pipeline", "4", "-duration", "3600", "-progress", "200"]);
        let mut load = load.with(["-answer-timeout", "20000", "-tolerate-outage", "60000"]).start();
        for _ in 0..3 {
            load.log.skip();
            load.log.expect(PROGRESS);
            server.kill();
            server.restart();
            load.log.skip();
            load.log.expect(PROGRESS);
        }
        load.signal(Signal::SIGINT);
        let status = load.wait();
        let report: Value = serde_json::from_str(&load.log.with("{\"")[0]).unwrap();
        assert_eq!((status.code(), &report["result"]), (Some(130), &"interrupted".into()), "{report}");
        let failures = &report["failures"];
        let kind = if disconnected { "disconnected" } else { "connection_lost" };
        assert!(failures[kind].as_u64().unwrap() > 0, "{report}");
        assert_eq!(failures["unanswered"], 0, "{report}");
    }
}
