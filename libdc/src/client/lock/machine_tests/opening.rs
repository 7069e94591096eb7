//! Opening and resuming the link, and what its claims keep.

use super::*;

#[test]
fn link_is_probed_and_opened_before_any_request() {
    let mut bench = Bench::new(true);
    bench.ask(acquire("k", WaitLimit::Forever));
    assert!(bench.machine.wants_connection() && !bench.machine.fails_fast());
    bench.connect();
    assert_eq!(bench.asked(), ["HAVE"]);
    let probe = bench.expect("HAVE");
    assert_eq!(probe.data, [9; 32]);
    bench.answer(probe.head, &[1]);
    assert_eq!(bench.asked(), ["HELLO"]);
    let hello = bench.expect("HELLO");
    assert_eq!(Hello::parse(&hello.data), Ok(Hello { link_id: LinkId::new([7; 16]), auth_token: b"" }));
    bench.welcome(hello.head, LockStatus::Ok);
    assert_eq!(bench.asked(), ["OPEN"]);
    bench.status("OPEN", LockStatus::Ok);
    let request = bench.expect("ACQUIRE");
    let key = LockKey::new("k").unwrap();
    let timeout_ms = crate::limits::LOCK_MS_MAX;
    let action = LockAction::Acquire { key, limit: 1, timeout_ms, lease_ms: 0 };
    assert_eq!(
        LockRequest::parse(LockOperation::Acquire, &request.data),
        Ok(Ok(LockRequest { owner: 0, action }))
    );
}

#[test]
fn auth_token_is_sent_without_probe() {
    let auth_token = Some(AuthToken::new(b"secret").unwrap());
    let mut bench = Bench::with(LockLinkSettings { auth_token, timeout_ms: 6_000, resumes: true });
    bench.ask(acquire("k", WaitLimit::Forever));
    bench.connect();
    let hello = bench.expect("HELLO");
    assert_eq!(Hello::parse(&hello.data).unwrap().auth_token, b"secret");
    let mut out = Vec::new();
    Welcome { status: LockStatus::ErrorAuth, grace_ms: 0, remembered: 0 }.write(hello.head, &mut out);
    let fault = bench.receive(&out).unwrap_err();
    assert_eq!(fault, LinkError::Refused { status: LockStatus::ErrorAuth }.into());
    bench.machine.close(bench.now, &LockError::from_fault(fault));
    assert!(matches!(bench.error(), LockError::Auth), "waiting does not change the token");
}

#[test]
fn server_of_patch_level_0_gets_no_hello() {
    let mut bench = Bench::new(true);
    bench.connect();
    let mut head = bench.expect("HAVE").head.response();
    head.patch_level = 0;
    let mut out = Vec::new();
    write_message(&mut out, head, &[1]);
    let fault = bench.receive(&out).unwrap_err();
    assert_eq!(fault, LinkError::Unsupported.into());
    assert!(bench.asked().is_empty());
    assert!(matches!(LockError::from_fault(fault), LockError::Unsupported));
}

#[test]
fn claims_keep_leases_over_a_lost_connection() {
    let mut bench = Bench::up(true);
    let (kept, lost) = (bench.hold("kept"), bench.hold("lost"));
    bench.disconnect();
    assert!(!bench.is_valid(kept) && bench.machine.wants_connection());
    bench.pass_ms(1_000);
    bench.connect();
    let probe = bench.expect("HAVE").head;
    bench.answer(probe, &[1]);
    let hello = bench.expect("HELLO").head;
    bench.welcome(hello, LockStatus::Ok);
    assert_eq!(bench.asked(), ["CLAIM", "OPEN"]);
    let claim = bench.expect("CLAIM");
    let claims: Vec<_> =
        Claim::parse_all(&claim.data).map(|it| it.unwrap().unwrap().key.as_str().to_owned()).collect();
    assert_eq!(claims, ["kept", "lost"]);
    bench.answer(claim.head, &[0, 4]);
    assert_eq!(bench.loss(lost), Loss::Refused);
    assert!(bench.is_valid(kept) && !bench.is_valid(lost));
    bench.pass_ms(0);
    bench.status("OPEN", LockStatus::Ok);
    bench.renew();
    assert!(bench.machine.hold(kept).unwrap().is_valid_for(bench.now, 10_000));
    assert!(bench.event().is_none());
}

#[test]
fn claims_are_split_into_bounded_messages() {
    let mut bench = Bench::up(true);
    let holds: Vec<_> = (0..300).map(|number| bench.hold(&format!("{number:0256}"))).collect();
    bench.disconnect();
    bench.connect();
    let probe = bench.expect("HAVE").head;
    bench.answer(probe, &[1]);
    bench.machine.release(bench.now, holds[0]);
    assert!(matches!(bench.error(), LockError::Disconnected(_)), "OPEN releases it");
    let hello = bench.expect("HELLO").head;
    bench.welcome(hello, LockStatus::Ok);
    assert_eq!(bench.asked(), ["CLAIM", "CLAIM", "OPEN"]);
    bench.machine.release(bench.now, holds[1]);
    assert!(bench.event().is_none(), "it is claimed, so it has to be released");
    let mut count = 0;
    for _ in 0..2 {
        let claim = bench.expect("CLAIM");
        assert!(claim.data.len() <= CLAIM_BYTES_MAX);
        let claims = Claim::parse_all(&claim.data).count();
        bench.answer(claim.head, &vec![0; claims]);
        count += claims;
    }
    assert_eq!(count, 299);
    assert!(!bench.machine.is_up() && bench.asked() == ["OPEN"]);
    bench.status("OPEN", LockStatus::Ok);
    bench.status("RELEASE", LockStatus::Ok);
    assert!(matches!(bench.event(), Some(LockEvent::Answered(_, Ok(CallReply::Done)))));
    assert!(holds[2..].iter().all(|hold| bench.is_valid(*hold)));
}

#[test]
fn answer_to_other_claims_than_were_made_closes_the_link() {
    let mut bench = Bench::up(true);
    bench.hold("k");
    bench.disconnect();
    bench.connect();
    let probe = bench.expect("HAVE").head;
    bench.answer(probe, &[1]);
    let hello = bench.expect("HELLO").head;
    bench.welcome(hello, LockStatus::Ok);
    let mut out = Vec::new();
    write_message(&mut out, bench.expect("CLAIM").head.response(), &[0, 0]);
    let problem = "an answer to other claims than were made";
    assert_eq!(bench.receive(&out), Err(LinkError::Handshake { problem }.into()));
}

#[test]
fn server_without_locks_is_refused() {
    let mut bench = Bench::new(true);
    bench.ask(acquire("k", WaitLimit::Now));
    bench.connect();
    let probe = bench.expect("HAVE").head;
    bench.answer(probe, &[1]);
    let hello = bench.expect("HELLO").head;
    let mut out = Vec::new();
    Welcome { status: LockStatus::ErrorUnsupported, grace_ms: 0, remembered: 0 }.write(hello, &mut out);
    let reason = bench.receive(&out).unwrap_err();
    assert_eq!(reason, LinkError::Refused { status: LockStatus::ErrorUnsupported }.into());
    bench.machine.close(bench.now, &LockError::from_fault(reason));
    assert!(matches!(bench.error(), LockError::Unsupported));
}

#[test]
fn uid_of_answered_call_is_not_reused_at_once() {
    let mut bench = Bench::up(true);
    bench.ask(acquire("a", WaitLimit::Now));
    let first = bench.expect("ACQUIRE").head;
    bench.answer(first, &[LockStatus::Timeout as u8]);
    bench.event();
    bench.ask(acquire("b", WaitLimit::Now));
    let second = bench.expect("ACQUIRE").head;
    assert_ne!(first.uid, second.uid);
    let mut out = Vec::new();
    write_message(&mut out, first.response(), &[LockStatus::Timeout as u8]);
    assert_eq!(bench.receive(&out), Err(LinkError::Unasked.into()), "a second answer to the first call");
}

#[test]
fn shutdown_while_opening_sends_bye_behind_open() {
    let mut bench = Bench::new(true);
    bench.connect();
    bench.machine.shut_down(bench.now);
    assert!(!bench.machine.is_closed() && bench.asked() == ["HAVE"], "HELLO comes first");
    bench.answer_opening();
    bench.status("BYE", LockStatus::Ok);
    assert!(bench.machine.is_closed());
    let mut bench = Bench::new(true);
    bench.connect();
    let probe = bench.expect("HAVE").head;
    bench.answer(probe, &[1]);
    let hello = bench.expect("HELLO").head;
    bench.welcome(hello, LockStatus::Ok);
    bench.machine.shut_down(bench.now);
    assert_eq!(bench.asked(), ["OPEN", "BYE"]);
    bench.status("OPEN", LockStatus::Ok);
    assert!(!bench.machine.is_closed());
    bench.status("BYE", LockStatus::Ok);
    assert!(bench.machine.is_closed());
}

#[test]
fn hello_is_sent_alone_until_answered() {
    for auth_token in [None, Some(AuthToken::new(b"secret").unwrap())] {
        let is_probed = auth_token.is_none();
        let mut bench = Bench::with(LockLinkSettings { auth_token, timeout_ms: 6_000, resumes: true });
        bench.connect();
        bench.answer_opening();
        let (kept, returned) = (bench.hold("kept"), bench.hold("returned"));
        bench.disconnect();
        bench.connect();
        if is_probed {
            let probe = bench.expect("HAVE").head;
            bench.answer(probe, &[1]);
        }
        bench.ask(acquire("k", WaitLimit::Forever));
        bench.machine.release(bench.now, returned);
        assert!(matches!(bench.error(), LockError::Disconnected(_)), "it is not claimed any more");
        bench.pass_ms(PING_INTERVAL_MS);
        assert_eq!(bench.asked(), ["HELLO"]);
        let hello = bench.expect("HELLO").head;
        bench.welcome(hello, LockStatus::Ok);
        assert_eq!(bench.asked(), ["CLAIM", "OPEN"]);
        let claim = bench.expect("CLAIM");
        let mut claims = Claim::parse_all(&claim.data);
        assert_eq!(claims.next().unwrap().unwrap().unwrap().key.as_str(), "kept");
        assert!(claims.next().is_none());
        bench.answer(claim.head, &[0]);
        assert_eq!(bench.asked(), ["OPEN"]);
        bench.status("OPEN", LockStatus::Ok);
        assert!(bench.is_valid(kept));
        bench.pass_ms(0);
        assert_eq!(bench.asked(), ["ACQUIRE", "RENEW"]);
    }
}
