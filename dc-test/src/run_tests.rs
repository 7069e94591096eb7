//! Whole runs against servers of known conduct.

use crate::clients::run_clients;
use crate::counters::OperationFailure;
use crate::fake::{FakeConduct, ScriptedFake};
use crate::options::{PROGRAM, TestOptions};
use crate::run::TestRun;
use crate::stop_reason::StopReason;
use std::rc::Rc;
use std::time::Duration;

/// The options of a command line.
pub(crate) fn parse(line: &str) -> TestOptions {
    let words = ["-connect", "UNIX:/a"].into_iter().chain(line.split_whitespace());
    PROGRAM.try_parse(words.map(Into::into), |_| None).unwrap()
}

/// Runs with the options of `line` against a server of that conduct.
async fn run(line: &str, conduct: FakeConduct) -> (Result<(), StopReason>, Rc<TestRun>) {
    let server = ScriptedFake::start(conduct).await;
    let options = TestOptions { connect: server.address.clone(), ..parse(line) };
    let run = TestRun::new(&options);
    let ended = run_clients(&run, &options).await;
    (ended, run)
}

#[tokio::test]
async fn an_honest_server_passes() {
    for line in [
        "",
        "--persistent",
        "--persistent --pipeline 10",
        "--persistent --clients 8 --pipeline 4 --ops 4000",
        "--clients 3",
        "--persistent --sessions 3 --datamin 32728 --datamax 32728 --pipeline 3",
        "--persistent --datamin 1 --datamax 3 --ops 2000",
        "--persistent --timeout 0 --timevar 0 --ops 2000",
        "--ops 0",
    ] {
        for conduct in [FakeConduct::Honest, FakeConduct::Reversed] {
            let (ended, run) = run(line, conduct).await;
            ended.unwrap();
            let tally = run.tally.borrow();
            let clients = parse(line);
            assert_eq!(tally.answered(), clients.operations(), "{line}");
            assert_eq!(tally.failed(), 0);
        }
    }
}

#[tokio::test]
async fn a_lie_is_caught() {
    for (conduct, said) in [
        (FakeConduct::AltersSessions, "wrong answer to GET"),
        (FakeConduct::MixesUpSessions, "wrong answer to GET"),
        (FakeConduct::ForgetsAdds, "wrong answer to "),
        (FakeConduct::MatchesWrongly, "got MATCHING_SESSION"),
        (FakeConduct::Replaces, "wrong answer to ADD"),
        (FakeConduct::KeepsRemoved, "expected nothing stored"),
        (FakeConduct::HasAll, "wrong answer to HAVE"),
        (FakeConduct::RefusesAdds, "got DATA_RANGE"),
        (FakeConduct::Evicts(3), "got "),
        (FakeConduct::MixesUpUids, "which is not pending"),
        (FakeConduct::Babbles, "malformed answer"),
    ] {
        for line in ["", "--persistent --pipeline 5 --clients 2 --ops 2000 --tolerate-outage 60s"] {
            let (ended, _) = run(line, conduct.clone()).await;
            let stop = ended.expect_err(said);
            assert!(!matches!(stop, StopReason::Failed(_)), "{stop}");
            assert!(stop.to_string().contains(said), "{conduct:?}: {stop}");
        }
    }
}

#[tokio::test]
async fn evictions_are_told_apart_if_tolerated() {
    let line = "--persistent --tolerate-eviction --ops 2000";
    let (ended, run_) = run(line, FakeConduct::Evicts(3)).await;
    ended.unwrap();
    assert!(run_.tally.borrow().operations().iter().map(|it| it.outcomes[4]).sum::<u64>() > 0);
    // The answers for stored sessions must still be right.
    assert!(matches!(run(line, FakeConduct::AltersSessions).await.0, Err(StopReason::Wrong(_))));
}

#[tokio::test]
async fn an_outage_ends_a_run_unless_it_is_tolerated() {
    let outage = FakeConduct::Disconnects(300..340);
    let (ended, run_) = run("", outage.clone()).await;
    assert!(matches!(ended, Err(StopReason::Failed(OperationFailure::Disconnected))), "{ended:?}");
    assert_eq!(run_.tally.borrow().disconnected, 1);

    for line in ["", "--persistent --pipeline 4 --clients 2"] {
        let line = format!("--tolerate-outage 60s --sessions 50 --ops 1000 {line}");
        let (ended, run) = run(&line, outage.clone()).await;
        ended.unwrap();
        let (tally, outages) = (run.tally.borrow(), run.outages.borrow());
        assert_eq!(tally.answered(), 1000);
        assert_eq!((tally.disconnected, tally.failed()), (40, 40));
        assert!(outages.count >= 1);
        // The server lost its sessions; some of them were read again.
        assert!(tally.operations().iter().map(|it| it.outcomes[3]).sum::<u64>() > 0);
    }
}

#[tokio::test]
async fn a_wrong_content_is_wrong_after_an_outage_too() {
    let (ended, _) = run("--tolerate-outage 60s", FakeConduct::DisconnectsAndAlters(300..340)).await;
    assert!(matches!(ended, Err(StopReason::Wrong(_))), "{ended:?}");
}

#[tokio::test]
async fn lost_connections_are_opened_again() {
    for line in ["--tolerate-outage 60s", "--tolerate-outage 60s --persistent --pipeline 4 --clients 2"] {
        let (ended, run) = run(line, FakeConduct::Closes(300..310)).await;
        ended.unwrap();
        let tally = run.tally.borrow();
        assert_eq!(tally.answered(), 1000);
        assert!(tally.connection_lost >= 10, "{}", tally.connection_lost);
    }
    let (ended, _) = run("--persistent", FakeConduct::Closes(300..310)).await;
    assert!(
        matches!(ended, Err(StopReason::Failed(OperationFailure::Closed | OperationFailure::Broke(_)))),
        "{ended:?}"
    );
}

#[tokio::test]
async fn a_silent_server_is_a_failure() {
    let server = ScriptedFake::start(FakeConduct::FallsSilent(100)).await;
    let line = "--persistent --pipeline 3";
    let options = TestOptions {
        connect: server.address.clone(),
        answer_timeout: Duration::from_millis(50),
        ..parse(line)
    };
    let run = TestRun::new(&options);
    let ended = run_clients(&run, &options).await;
    assert!(matches!(ended, Err(StopReason::Failed(OperationFailure::Unanswered { .. }))), "{ended:?}");
    assert_eq!(run.tally.borrow().unanswered, 3);
}

#[tokio::test]
async fn a_server_that_was_never_there_is_not_waited_for() {
    let server = ScriptedFake::start(FakeConduct::Honest).await;
    let address = server.address.clone();
    drop(server);
    tokio::task::yield_now().await;
    let line = "--tolerate-outage 60s";
    let options = TestOptions { connect: address, ..parse(line) };
    let stop = run_clients(&TestRun::new(&options), &options).await.unwrap_err();
    assert!(matches!(stop, StopReason::Failed(OperationFailure::NotConnected { .. })), "{stop}");
    assert!(!stop.to_string().contains('\n'));
}

#[tokio::test]
async fn a_run_ends_with_its_duration_or_when_stopped() {
    let server = ScriptedFake::start(FakeConduct::Honest).await;
    let parsed = parse("--persistent --pipeline 5 --duration 1");
    let options = TestOptions {
        connect: server.address.clone(),
        duration: Some(Duration::from_millis(30)),
        ..parsed.clone()
    };
    run_clients(&TestRun::new(&options), &options).await.unwrap();

    let options =
        TestOptions { connect: server.address.clone(), duration: None, ops: Some(u64::MAX), ..parsed };
    let run = TestRun::new(&options);
    let stop = async {
        while run.tally.borrow().answered() < 50 {
            tokio::task::yield_now().await;
        }
        run.stop();
        std::future::pending::<()>().await;
    };
    tokio::select! {
        ended = run_clients(&run, &options) => assert!(matches!(ended, Err(StopReason::Interrupted)), "{ended:?}"),
        () = stop => {}
    }
}
