//! Peers that are silent, break the protocol, or end the link.

use super::*;

#[test]
fn idle_link_is_pinged_and_silent_link_closed() {
    let mut bench = Bench::up(true);
    assert_eq!(bench.machine.deadline(), Some(Time::from_ms(1_000 + PING_INTERVAL_MS)));
    bench.pass_ms(PING_INTERVAL_MS);
    let ping = bench.expect("PING").head;
    bench.answer(ping, &[]);
    bench.pass_ms(PING_INTERVAL_MS);
    assert_eq!(bench.asked(), ["PING"]);
    bench.pass_ms(5_999);
    bench.now = bench.now.after_ms(1);
    bench.machine.handle_timeout(bench.now);
    assert_eq!(bench.end(), Err(LinkError::Silent { silent_ms: 6_000 }.into()));
}

#[test]
fn blocked_call_is_no_silence() {
    let mut bench = Bench::up(true);
    bench.ask(acquire("k", WaitLimit::Forever));
    for _ in 0..10 {
        bench.pass_ms(PING_INTERVAL_MS);
        let ping = bench.expect("PING").head;
        bench.answer(ping, &[]);
    }
    bench.grant("ACQUIRE");
}

#[test]
fn call_without_answer_fails_after_its_timeout() {
    let mut bench = Bench::up(true);
    bench.ask(acquire("k", WaitLimit::Now));
    bench.pass_ms(5_000);
    let ping = bench.expect("PING").head;
    bench.answer(ping, &[]);
    bench.pass_ms(1_000);
    assert!(matches!(bench.error(), LockError::NoAnswer));
    bench.grant("ACQUIRE");
    assert_eq!(bench.asked(), ["RELEASE"]);
}

#[test]
fn ping_is_answered_and_goaway_closes_the_link() {
    let mut bench = Bench::up(true);
    let mut out = Vec::new();
    Ping { uid: 99 }.write_request(&mut out);
    bench.receive(&out).unwrap();
    let answered = bench.machine.poll_output().to_vec();
    out.clear();
    Ping { uid: 99 }.write_response(&mut out);
    assert_eq!(answered, out);
    out.clear();
    write_message(&mut out, MessageHead::request(1, Operation::Link(LinkOperation::GoAway)), &[]);
    assert_eq!(bench.receive(&out), Err(LinkError::GoAway.into()));
}

#[test]
fn unasked_answer_closes_the_link() {
    let mut bench = Bench::up(true);
    let mut out = Vec::new();
    Ping { uid: 99 }.write_response(&mut out);
    assert_eq!(bench.receive(&out), Err(LinkError::Unasked.into()));
    let mut bench = Bench::up(true);
    bench.ask(acquire("k", WaitLimit::Forever));
    let uid = bench.expect("ACQUIRE").head.uid;
    out.clear();
    Ping { uid }.write_response(&mut out);
    assert_eq!(bench.receive(&out), Err(LinkError::OtherOperation.into()));
}

#[test]
fn shutdown_fails_calls_loses_locks_and_sends_bye() {
    let mut bench = Bench::up(true);
    let hold = bench.hold("k");
    bench.ask(acquire("other", WaitLimit::Forever));
    bench.machine.shut_down(bench.now);
    assert!(matches!(bench.error(), LockError::Closed));
    assert_eq!(bench.loss(hold), Loss::Closed);
    bench.ask(LockCall::Stats);
    assert!(matches!(bench.error(), LockError::Closed));
    assert!(!bench.machine.is_closed());
    bench.status("BYE", LockStatus::Ok);
    assert!(bench.machine.is_closed());
}

#[test]
fn error_status_maps_to_its_error() {
    for (status, text) in [
        (LockStatus::ErrorMaxLocks, "MaxLocks"),
        (LockStatus::ErrorMaxWaiters, "MaxWaiters"),
        (LockStatus::ErrorLimitMismatch, "LimitMismatch"),
        (LockStatus::ErrorUnsupported, "Unsupported"),
        (LockStatus::ErrorAuth, "Auth"),
        (LockStatus::Error, "Refused(Error)"),
    ] {
        let mut bench = Bench::up(true);
        bench.ask(acquire("k", WaitLimit::Forever));
        bench.status("ACQUIRE", status);
        assert_eq!(format!("{:?}", bench.error()), text);
    }
}
