//! `dc_test -locks` checks every answer about a lock: it must accept ours, and find the faults of others.

use dc_tests::harness::agent::{AgentProcess, unix};
use dc_tests::harness::daemon::stderr;
use dc_tests::harness::fake_locks::{FakeLockServer, FaultMode};
use dc_tests::harness::process::ProgramLaunch;
use dc_tests::harness::server::ServerProcess;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Many clients with few keys, and many rounds of a single client.
const WORKLOADS: [&[&str]; 4] = [
    &["-ops", "500"],
    &["-persistent", "-pipeline", "4", "-ops", "4000"],
    &["-persistent", "-pipeline", "3", "-limit", "3", "-keys", "2", "-ops", "2000"],
    &["-persistent", "-clients", "1", "-keys", "1", "-hold", "1", "-ops", "50"],
];
/// The text of each progress line of `dc_test`.
const PROGRESS: &str = " rounds in ";

fn check(connect: &str, workload: &[&str]) -> std::process::Output {
    ProgramLaunch::new("dc_test").with(["-connect", connect, "-locks", "-json"]).with(workload).output()
}

#[test]
fn lock_load_accepts_every_answer() {
    let server = ServerProcess::start(&[]);
    let agent = AgentProcess::start(server.address(), &[]);
    for connect in [unix(agent.socket()), format!("IP:{}", server.address())] {
        for workload in WORKLOADS {
            let output = check(&connect, workload);
            assert!(output.status.success(), "{workload:?}: {} {}", output.status, stderr(&output));
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["result"], "right");
            assert!(report["locks"].as_u64().unwrap() > 20, "{report}");
            // Every kind of request occurred, including invalid ones.
            for row in ["free", "renew", "release"] {
                assert!(report["operations"][row]["ok"].as_u64().unwrap() > 0, "{row}: {report}");
            }
            assert!(report["operations"]["misuse"]["refused"].as_u64().unwrap() > 0, "{report}");
        }
    }
}

#[test]
fn lock_load_accepts_honest_fake_server() {
    let server = FakeLockServer::start(FaultMode::Honest);
    for workload in WORKLOADS {
        let output = check(&format!("IP:{}", server.address()), workload);
        assert!(output.status.success(), "{workload:?}: {} {}", output.status, stderr(&output));
    }
}

#[test]
fn lock_load_finds_each_server_fault() {
    for (fault, expected) in [
        // Of two concurrent grants, the one with the later fence may be seen first.
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
        let server = FakeLockServer::start(fault);
        // Tolerating outages makes no difference.
        let workload = ["-persistent", "-pipeline", "4", "-ops", "20000", "-tolerate-outage", "60000"];
        let output = check(&format!("IP:{}", server.address()), &workload);
        assert_eq!(output.status.code(), Some(1), "{fault:?}: {}", stderr(&output));
        let errors = stderr(&output);
        assert!(expected.iter().any(|expected| errors.contains(expected)), "{fault:?}: {errors}");
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(report["result"], "wrong", "{report}");
    }
}

#[test]
fn lock_load_finds_lease_that_ends_early() {
    for (fault, workload) in [
        // Found by the first renewal that is sent in time, which a busy machine may delay.
        (FaultMode::RenewsNothing, &["-persistent", "-pipeline", "4", "-duration", "60"][..]),
        (FaultMode::ExpiresEarly, &["-hold", "400"]),
    ] {
        let server = FakeLockServer::start(fault);
        let output = check(&format!("IP:{}", server.address()), workload);
        let errors = stderr(&output);
        assert!(errors.contains("ok, as it was held; got error"), "{fault:?}: {} {errors}", output.status);
    }
}

#[test]
fn lock_load_continues_through_outages() {
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
