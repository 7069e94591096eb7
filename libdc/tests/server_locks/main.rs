//! The server side of connections with lock requests: differences from the original server, and additions to
//! it.

mod ending;
mod recorded;
mod server;

use libdc::id::Token;
use libdc::limits::AUTH_FAILURE_DELAY_MS;
use libdc::proto::machine::MachineState;
use libdc::proto::server::ServerCloseReason;
use libdc::secret::AuthToken;
use libdc::service::LinkPolicy;
use libdc::wire::frame::LinkOperation;
use libdc::wire::link::{Detach, Ping, Welcome};
use libdc::wire::lock::{LockAction, LockRequest, LockStatus};
use server::{FixtureOptions, GRACE_MS, LockServerFixture, READ_TIMEOUT_MS, key, release};

#[test]
fn a_turn_that_was_missed_is_told() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b) = (server.open(), server.open());
    let token = server.lock(a, "l\nk\n5\n");
    assert_eq!(server.ask(b, "e\nk\n1\n"), "queued");
    assert_eq!(server.ask(a, &format!("r\nk\n{token}\n")), "ok");
    server.pass(1_001);
    let c = server.open();
    let other = server.lock(c, "l\nk\n0\n");
    assert_eq!(server.ask(b, "e\nk\n1\n"), "error_already_enqueued");
    assert_eq!(server.ask(b, "w\nk\n1\n"), "error_lease_expired");
    assert_eq!(server.ask(b, "w\nk\n1\n"), "error_not_enqueued");
    assert_eq!(server.ask(c, &format!("n\nk\n{other}\n")), "ok 33", "no other lease was renewed instead");
}

#[test]
fn closed_connection_leaves_the_queue() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b, c) = (server.open(), server.open(), server.open());
    let token = server.lock(a, "l\nk\n5\n");
    server.send(b, b"l\nk\n9\n");
    server.send(c, b"l\nk\n9\n");
    server.close(b);
    assert_eq!(server.ask(a, &format!("r\nk\n{token}\n")), "ok");
    assert!(server.line(c).starts_with("ok "));
}

#[test]
fn a_holder_is_not_closed_for_being_idle() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (holder, idle, blocked) = (server.open(), server.open(), server.open());
    server.lock(holder, "l\nk\n5 60\n");
    assert_eq!(server.ask(idle, "ping\n_\n\n"), "ok");
    server.send(blocked, b"l\nk\n100\n");
    server.pass(READ_TIMEOUT_MS);
    assert_eq!(server.close_reason(idle), Some(ServerCloseReason::Idle));
    assert_eq!(server.line(idle), "error");
    server.pass(60_000 - READ_TIMEOUT_MS - 1);
    assert_eq!((server.close_reason(holder), server.line(blocked)), (None, String::new()));
    server.pass(1);
    assert!(server.line(blocked).starts_with("ok "), "granted when the lease ends");
    assert_eq!(server.close_reason(holder), Some(ServerCloseReason::Idle), "the holder has lost its lock");
    assert_eq!(server.close_reason(blocked), None);
}

#[test]
fn a_request_that_is_blocked_holds_back_those_behind_it() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b) = (server.open(), server.open());
    let token = server.lock(a, "l\nk\n5\n");
    assert_eq!(server.ask(b, "l\nk\n9\nping\n_\n\nl\nj\n0\n"), "");
    assert_eq!(server.ask(a, &format!("r\nk\n{token}\n")), "ok");
    let lines = server.line(b);
    let lines: Vec<_> = lines.lines().map(|line| line.split(' ').next().unwrap_or("")).collect();
    assert_eq!(lines, ["ok", "ok", "ok"]);
}

#[test]
fn an_over_long_line_is_refused_before_its_end() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let a = server.open();
    server.send(a, &[b'x'; 256]);
    assert_eq!(server.close_reason(a), None);
    server.send(a, b"x");
    assert_eq!(server.line(a), "error");
    assert!(matches!(server.close_reason(a), Some(ServerCloseReason::LineTooLong(_))));
}

#[test]
fn tls_on_a_plain_port_is_named() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let a = server.open();
    server.send(a, &[0x16, 3, 1]);
    assert_eq!(server.close_reason(a), Some(ServerCloseReason::Tls));
}

#[test]
fn frames_must_begin_with_the_token() {
    let options = || FixtureOptions {
        auth: Some(AuthToken::new(b"s3cret").expect("a token")),
        ..FixtureOptions::default()
    };
    let mut server = LockServerFixture::new(options());
    let (good, wrong, session, ping) = (server.open(), server.open(), server.open(), server.open());
    let welcome = server.hello(good, 1, b"s3cret");
    assert_eq!(welcome, Welcome { status: LockStatus::Ok, grace_ms: GRACE_MS, remembered: 0 });
    assert!(server.acquire(good, 2, 0, "k", 0).is_some());
    assert_eq!(server.hello(wrong, 2, b"s3creT").status, LockStatus::ErrorAuth);
    assert_eq!(server.connections[&wrong].machine.state(), MachineState::Closing);
    server.pass(99);
    assert_eq!(server.close_reason(wrong), None, "failed attempts are delayed");
    server.pass(1);
    assert_eq!(server.close_reason(wrong), Some(ServerCloseReason::WrongToken));
    server.send(session, &[0, 0x11, 0, 0, 0, 0, 0, 0, 1, 0, 3, 1, 0, 1, b'x']);
    server.link(ping, LinkOperation::Ping, &[]);
    server.pass(AUTH_FAILURE_DELAY_MS);
    assert!(matches!(server.close_reason(session), Some(ServerCloseReason::NotAuthenticated(_))));
    assert!(matches!(server.close_reason(ping), Some(ServerCloseReason::NotAuthenticated(_))));
    assert_eq!(server.service.totals().wrong_tokens(), 1);
    let silent = server.open();
    server.pass(READ_TIMEOUT_MS);
    assert!(server.is_ending(silent), "a silent connection is not kept");
}

#[test]
fn blocked_requests_hold_nobody_back_in_frames() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let a = server.open();
    let token = server.acquire(a, 1, 5, "k", 0).expect("free");
    assert_eq!(server.acquire(a, 2, 6, "k", 60_000), None);
    assert!(server.acquire(a, 3, 6, "j", 0).is_some());
    assert_eq!(server.request(a, 4, 6, release("k", token)), Some(vec![LockStatus::Ok as u8]));
    // The answer to 2 came with or right behind the answer to 4.
    assert_eq!(server.acquire(a, 5, 7, "k", 0), None, "owner 6 holds it");
}

#[test]
fn a_blocked_request_can_be_given_up() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b) = (server.open(), server.open());
    let token = server.acquire(a, 1, 0, "k", 0).expect("free");
    assert_eq!(server.acquire(b, 2, 0, "k", 60_000), None);
    let mut cancel = Vec::new();
    LockRequest { owner: 0, action: LockAction::Cancel { uid: 2 } }.write(3, &mut cancel);
    server.send(b, &cancel);
    let expected = vec![(2, vec![LockStatus::Timeout as u8]), (3, vec![LockStatus::Ok as u8])];
    assert_eq!(server.messages(b), expected);
    server.send(b, &cancel);
    assert_eq!(server.messages(b), [(3, vec![LockStatus::Error as u8])]);
    assert_eq!(server.request(a, 4, 0, release("k", token)), Some(vec![LockStatus::Ok as u8]));
    assert_eq!(server.messages(b), [], "it left the queue");
}

#[test]
fn a_link_cut_for_less_than_the_grace_keeps_its_locks() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, waiter) = (server.open(), server.open());
    server.hello(a, 1, b"");
    let held = server.acquire(a, 2, 5, "k", 0).expect("free");
    let dropped = server.acquire(a, 3, 6, "j", 0).expect("free");
    server.send(waiter, b"l\nk\n60\n");
    server.close(a);
    server.pass(u64::from(GRACE_MS) - 1);
    assert_eq!(server.line(waiter), "");
    let again = server.open();
    assert_eq!(server.hello(again, 1, b"").remembered, 2);
    assert_eq!(server.claim(again, 5, "k", held), LockStatus::Ok);
    assert_eq!(server.claim(again, 6, "k", held), LockStatus::Error, "another owner holds it");
    assert_eq!(server.claim(again, 5, "k", Token::new(held.fence(), 1)), LockStatus::Error);
    assert_eq!(server.link(again, LinkOperation::Open, &[]), [LockStatus::Ok as u8]);
    assert_eq!(
        server.request(waiter, 0, 0, LockAction::Stats),
        None,
        "the connection keeps its line protocol"
    );
    let other = server.open();
    assert!(server.ask(other, "l\nj\n0\n").starts_with("ok "), "an unclaimed lock is free: {dropped:?}");
    server.pass(u64::from(GRACE_MS));
    assert_eq!(server.line(waiter), "", "the link still holds it");
    assert_eq!(server.request(again, 9, 5, release("k", held)), Some(vec![LockStatus::Ok as u8]));
    assert!(server.line(waiter).starts_with("ok "));
}

#[test]
fn a_link_cut_for_longer_loses_its_locks() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, waiter) = (server.open(), server.open());
    server.hello(a, 1, b"");
    let held = server.acquire(a, 2, 5, "k", 0).expect("free");
    server.send(waiter, b"l\nk\n60\n");
    server.close(a);
    server.pass(GRACE_MS.into());
    assert!(server.line(waiter).starts_with("ok "));
    let again = server.open();
    assert_eq!(server.hello(again, 1, b"").remembered, 0);
    assert_eq!(server.claim(again, 5, "k", held), LockStatus::Error);
    let renew = LockAction::Renew { key: key("k"), token: held, lease_ms: 0 };
    assert_eq!(server.request(again, 3, 5, renew), Some(vec![LockStatus::Error as u8]));
}

#[test]
fn the_newest_hello_takes_a_link_over() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (old, new) = (server.open(), server.open());
    server.hello(old, 1, b"");
    let held = server.acquire(old, 2, 5, "k", 0).expect("free");
    assert_eq!(server.hello(new, 1, b"").remembered, 1);
    assert_eq!(server.close_reason(old), Some(ServerCloseReason::TakenOver));
    assert_eq!(server.claim(new, 5, "k", held), LockStatus::Ok);
    server.close(old);
    server.link(new, LinkOperation::Open, &[]);
    server.pass(u64::from(GRACE_MS) + 1);
    let other = server.open();
    assert_eq!(server.ask(other, "l\nk\n0\n"), "timeout", "it is held over the new connection");
}

#[test]
fn a_detached_owner_holds_and_waits_for_nothing() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b) = (server.open(), server.open());
    server.hello(a, 1, b"");
    let other = server.lock(b, "l\nj\n5\n");
    assert!(server.acquire(a, 2, 5, "k", 0).is_some());
    assert!(server.acquire(a, 3, 6, "m", 0).is_some());
    assert_eq!(server.acquire(a, 4, 5, "j", 60_000), None);
    let mut detach = Vec::new();
    Detach { owner: 5 }.write(9, &mut detach);
    server.send(a, &detach);
    let expected = vec![(4, vec![LockStatus::Error as u8]), (9, vec![LockStatus::Ok as u8])];
    assert_eq!(server.messages(a), expected, "no uid is left without an answer");
    assert!(server.ask(b, "l\nk\n0\n").starts_with("ok "));
    assert_eq!(server.ask(b, "l\nm\n0\n"), "timeout", "another owner holds it");
    assert_eq!(server.ask(b, &format!("r\nj\n{other}\n")), "ok");
    assert_eq!(server.messages(a), []);
}

#[test]
fn a_link_that_says_bye_releases_everything_at_once() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b) = (server.open(), server.open());
    server.hello(a, 1, b"");
    assert!(server.acquire(a, 2, 5, "k", 0).is_some());
    server.send(b, b"l\nk\n60\n");
    assert_eq!(server.link(a, LinkOperation::Bye, &[]), [LockStatus::Ok as u8]);
    assert_eq!(server.close_reason(a), Some(ServerCloseReason::Bye));
    assert!(server.line(b).starts_with("ok "));
}

#[test]
fn a_silent_link_is_broken() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (link, plain) = (server.open(), server.open());
    server.hello(link, 1, b"");
    assert!(server.acquire(plain, 2, 0, "k", 0).is_some());
    server.pass(READ_TIMEOUT_MS - 1);
    server.link(link, LinkOperation::Ping, &[]);
    server.pass(READ_TIMEOUT_MS - 1);
    assert_eq!(server.close_reason(link), None);
    server.pass(1);
    assert_eq!(server.close_reason(link), Some(ServerCloseReason::Silent));
    assert_eq!(server.close_reason(plain), None, "frames without a link may be idle");
}

#[test]
fn an_idle_link_is_pinged_and_stays_if_it_answers() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (link, plain) = (server.open(), server.open());
    server.hello(link, 1, b"");
    let (mut question, mut answer) = (Vec::new(), Vec::new());
    Ping { uid: 0 }.write_request(&mut question);
    Ping { uid: 0 }.write_response(&mut answer);
    for _ in 0..3 {
        server.pass(READ_TIMEOUT_MS / 2 - 1);
        assert_eq!(server.received(link), b"");
        server.pass(READ_TIMEOUT_MS / 2 - 1);
        assert_eq!(server.received(link), question);
        server.send(link, &answer);
    }
    assert_eq!(server.close_reason(link), None);
    server.send(plain, &answer);
    assert!(
        matches!(server.close_reason(plain), Some(ServerCloseReason::Corruption(_))),
        "a response without a request"
    );
}

#[test]
fn link_operation_without_link_is_refused() {
    for operation in [LinkOperation::Claim, LinkOperation::Open, LinkOperation::Bye, LinkOperation::GoAway] {
        let mut server = LockServerFixture::new(FixtureOptions::default());
        let a = server.open();
        server.link(a, operation, &[]);
        assert!(matches!(server.close_reason(a), Some(ServerCloseReason::Corruption(_))), "{operation:?}");
    }
}

/// A server whose link 1 held `k` for owner 5 and was cut, and another connection.
fn a_link_is_cut_with_auto_release_off() -> (LockServerFixture, u64) {
    let links = LinkPolicy { auto_release: false, grace_ms: GRACE_MS };
    let mut server = LockServerFixture::new(FixtureOptions { links, ..FixtureOptions::default() });
    let (a, b) = (server.open(), server.open());
    server.hello(a, 1, b"");
    assert!(server.acquire(a, 2, 5, "k", 0).is_some());
    server.close(a);
    (server, b)
}

#[test]
fn with_auto_release_off_leases_outlive_their_link() {
    let (mut server, b) = a_link_is_cut_with_auto_release_off();
    server.pass(29_999);
    assert_eq!(server.ask(b, "l\nk\n0\n"), "timeout");
    server.pass(1);
    assert!(server.ask(b, "l\nk\n0\n").starts_with("ok "));
}

#[test]
fn with_auto_release_off_a_link_need_not_claim() {
    let (mut server, b) = a_link_is_cut_with_auto_release_off();
    let again = server.open();
    assert_eq!(server.hello(again, 1, b"").remembered, 1);
    assert_eq!(server.link(again, LinkOperation::Open, &[]), [LockStatus::Ok as u8]);
    assert_eq!(server.ask(b, "l\nk\n0\n"), "timeout");
}

#[test]
fn a_uid_that_waits_is_taken() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (a, b) = (server.open(), server.open());
    let token = server.acquire(a, 1, 0, "k", 0).expect("free");
    assert_eq!(server.acquire(b, 2, 0, "k", 60_000), None);
    let again = LockAction::Acquire { key: key("k"), limit: 1, timeout_ms: 60_000, lease_ms: 0 };
    assert_eq!(server.request(b, 2, 0, again), Some(vec![LockStatus::Error as u8]));
    assert_eq!(server.request(a, 3, 0, release("k", token)), Some(vec![LockStatus::Ok as u8]));
    let answers = server.messages(b);
    assert_eq!(
        answers.iter().map(|(uid, data)| (*uid, data[0])).collect::<Vec<_>>(),
        [(2, LockStatus::Ok as u8)]
    );
}

#[test]
fn a_link_that_is_cut_or_taken_over_waits_for_nothing() {
    for is_taken_over in [false, true] {
        let mut server = LockServerFixture::new(FixtureOptions::default());
        let (old, new, other) = (server.open(), server.open(), server.open());
        server.hello(old, 1, b"");
        let token = server.lock(other, "l\nk\n0\n");
        assert_eq!(server.acquire(old, 2, 5, "k", 60_000), None);
        if is_taken_over {
            server.hello(new, 1, b"");
        }
        server.close(old);
        assert_eq!(server.ask(other, &format!("r\nk\n{token}\n")), "ok");
        let answer = server.ask(other, "l\nk\n0\n");
        assert!(answer.starts_with("ok "), "granted to a request of the old link: {answer}");
    }
}

#[test]
fn request_after_unnoticed_takeover_closes_the_connection() {
    for act in [act_of_lock, act_of_link] {
        let mut server = LockServerFixture::new(FixtureOptions::default());
        let (old, new) = (server.open(), server.open());
        server.hello(old, 1, b"");
        let held = server.acquire(old, 2, 5, "k", 0).expect("free");
        server.tells_late = true;
        server.hello(new, 1, b"");
        assert_eq!(server.close_reason(old), None);
        act(&mut server, old, held);
        assert_eq!(server.close_reason(old), Some(ServerCloseReason::TakenOver));
        assert_eq!(server.claim(new, 5, "k", held), LockStatus::Ok, "the link kept its lock");
    }
}

fn act_of_lock(server: &mut LockServerFixture, id: u64, token: Token) {
    assert_eq!(server.request(id, 3, 5, release("k", token)), None);
}

fn act_of_link(server: &mut LockServerFixture, id: u64, _: Token) {
    // Nothing is claimed yet, so OPEN would release every lock.
    assert_eq!(server.link(id, LinkOperation::Open, &[]), b"");
}
