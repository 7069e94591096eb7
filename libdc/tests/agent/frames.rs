//! Frames of classes 1 and 2 at the agent, and the choice of the protocol by the first byte.

use super::scripted::{
    ACQUIRE, BYE, CANCEL, CLAIM, DETACH, GET, GOAWAY, GRACE_MS, HELLO, OK, OPEN, PING, RELEASE,
    ScriptedMultiplexer, acquire, key, lock, token, welcome,
};
use libdc::limits::{LOCAL_BLOCKED_MAX, LOCAL_IN_FLIGHT_MAX, PING_INTERVAL_MS, PING_TIMEOUT_MS_MAX};
use libdc::proto::agent::local::LocalCloseReason;
use libdc::proto::link::LinkError;
use libdc::wire::frame::{DecodeError, Direction};
use libdc::wire::link::{Claim, Detach};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::MessageReader;

const ERROR: &[u8] = &[LockStatus::Error as u8];

#[test]
fn first_byte_selects_the_protocol() {
    let mut agent = ScriptedMultiplexer::linked();
    let (frames, text, tls, other) = (agent.open(), agent.open(), agent.open(), agent.open());
    agent.send(frames, &[0]).unwrap();
    agent.send(text, b"p").unwrap();
    assert_eq!(agent.send(tls, &[0x16]), Err(LocalCloseReason::Tls));
    let version = DecodeError::Version { offset: 0, byte: b'L' };
    assert_eq!(agent.send(other, b"L"), Err(LocalCloseReason::Corruption(version)));
    agent.text(text, "ing\n_\n\n");
    assert_eq!(agent.lines_at(text), "ok\n");
    assert!(agent.send(frames, b"l\nk\n5\n").is_err());
}

#[test]
fn frames_are_answered_out_of_order() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.ask(id, 7, acquire("k", 5_000));
    agent.ask(id, 8, acquire("j", 0));
    agent.message(id, 9, GET, b"session").unwrap();
    let asked = agent.at_server();
    assert_eq!(asked.len(), 3, "a blocked request must not delay others");
    agent.answer(&asked[2], b"here").unwrap();
    agent.reply(&asked[1], LockAnswer::Status(LockStatus::Timeout));
    agent.grant(&asked[0], 4, 1_000);
    let grant = [&[0][..], &token(4).to_bytes(), &1_000_u64.to_be_bytes()].concat();
    let timeout = vec![LockStatus::Timeout as u8];
    assert_eq!(agent.frames_at(id), [(9, b"here".to_vec()), (8, timeout), (7, grant)]);
}

#[test]
fn request_for_another_owner_is_refused() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    let mut bytes = Vec::new();
    LockRequest { owner: 1, action: acquire("k", 0) }.write(3, &mut bytes);
    agent.send(id, &bytes).unwrap();
    assert_eq!(agent.frames_at(id), [(3, ERROR.to_vec())]);
    assert_eq!(agent.at_server(), []);
}

#[test]
fn blocked_request_is_cancelled_by_its_local_uid() {
    let mut agent = ScriptedMultiplexer::linked();
    let (id, other) = (agent.open(), agent.open());
    agent.ask(other, 7, acquire("k", 5_000));
    agent.ask(id, 7, acquire("k", 5_000));
    let asked = agent.at_server();
    agent.ask(id, 8, LockAction::Cancel { uid: 7 });
    let cancel = agent.request();
    assert_eq!((cancel.head.operation, lock(&cancel).owner), (CANCEL, 1));
    assert_eq!(lock(&cancel).action, LockAction::Cancel { uid: asked[1].head.uid });
    agent.reply(&asked[1], LockAnswer::Status(LockStatus::Timeout));
    agent.reply(&cancel, LockAnswer::Status(LockStatus::Ok));
    assert_eq!(agent.frames_at(id), [(7, vec![LockStatus::Timeout as u8]), (8, OK.to_vec())]);
    agent.ask(id, 9, LockAction::Cancel { uid: 7 });
    assert_eq!(agent.frames_at(id), [(9, ERROR.to_vec())], "there is nothing to give up any more");
}

#[test]
fn blocked_requests_are_limited_apart_from_others() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    for uid in 0..LOCAL_BLOCKED_MAX as u32 {
        agent.ask(id, uid, acquire("k", 5_000));
    }
    assert_eq!(agent.at_server().len(), LOCAL_BLOCKED_MAX);
    agent.ask(id, 10_000, acquire("k", 5_000));
    assert_eq!(agent.frames_at(id), [(10_000, vec![LockStatus::ErrorMaxWaiters as u8])]);
    for uid in 0..LOCAL_IN_FLIGHT_MAX as u32 {
        assert!(agent.wants_input(id));
        agent.ask(id, 20_000 + uid, LockAction::Cancel { uid });
    }
    assert_eq!(agent.at_server().len(), LOCAL_IN_FLIGHT_MAX);
}

#[test]
fn blocked_request_does_not_make_the_server_silent() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.ask(id, 1, acquire("k", 600_000));
    let blocked = agent.request();
    agent.pass(PING_INTERVAL_MS - 1).unwrap();
    assert_eq!(agent.at_server(), []);
    for _ in 0..5 {
        agent.pass(1).unwrap();
        let ping = agent.request();
        assert_eq!(ping.head.operation, PING);
        agent.answer(&ping, &[]).unwrap();
        agent.pass(PING_INTERVAL_MS - 1).unwrap();
    }
    assert_eq!(agent.frames_at(id), []);
    agent.pass(1).unwrap();
    agent.request();
    assert!(matches!(agent.pass(PING_TIMEOUT_MS_MAX), Err(LinkError::Silent { .. })), "a dead server");
    agent.lose_link();
    assert_eq!(agent.frames_at(id), [(1, vec![LockStatus::ErrorDisconnected as u8])]);
    agent.connect();
    assert_eq!(agent.answer(&blocked, &[3]), Err(LinkError::Unasked));
}

#[test]
fn unanswered_prompt_request_beside_blocked_one_is_silence() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.ask(id, 1, acquire("k", 600_000));
    agent.ask(id, 2, acquire("k", 0));
    assert_eq!(agent.pass(2_000), Err(LinkError::Silent { silent_ms: 2_000 }));
}

#[test]
fn agent_pings_a_server_that_only_sends() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    for uid in 0..4 {
        agent.ask(id, uid, acquire("k", 600_000));
    }
    let mut asked = agent.at_server();
    agent.pass(PING_INTERVAL_MS - 1).unwrap();
    agent.reply(&asked.remove(0), LockAnswer::Status(LockStatus::Timeout));
    agent.pass(1).unwrap();
    assert_eq!(agent.request().head.operation, PING);
}

#[test]
fn applications_may_open_a_link_to_the_agent() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    let hello = [&[7; 16][..], &[0, 0]].concat();
    let mut claims = Vec::new();
    for fence in 1..=3 {
        Claim { owner: 0, token: token(fence), key: key("k") }.write(&mut claims);
    }
    agent.message(id, 1, HELLO, &hello).unwrap();
    agent.message(id, 2, CLAIM, &claims).unwrap();
    agent.message(id, 3, OPEN, &[]).unwrap();
    agent.message(id, 4, PING, &[]).unwrap();
    let expected = [(1, welcome(LockStatus::Ok)), (2, ERROR.repeat(3)), (3, OK.to_vec()), (4, Vec::new())];
    assert_eq!(agent.frames_at(id), expected);
    assert_eq!(expected[0].1[1..5], GRACE_MS.to_be_bytes());

    agent.lose_link();
    agent.message(id, 5, HELLO, &hello).unwrap();
    assert_eq!(agent.frames_at(id), [(5, [&[12][..], &[0; 8]].concat())]);
    for operation in [DETACH, GOAWAY] {
        let id = agent.open();
        assert!(matches!(agent.message(id, 1, operation, &[0; 8]), Err(LocalCloseReason::Corruption(_))));
    }
}

#[test]
fn bye_releases_locks_and_connection_gets_another_owner() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.hold(id, "k", 5, 60_000);
    agent.ask(id, 2, acquire("j", 0));
    let late = agent.request();
    agent.message(id, 3, BYE, &[]).unwrap();
    assert_eq!(agent.frames_at(id), [(3, OK.to_vec())]);
    let detach = agent.request();
    assert_eq!(Detach::parse(&detach.data), Ok(Detach { owner: 1 }));
    agent.grant(&late, 6, 60_000);
    agent.answer(&detach, OK).unwrap();
    assert_eq!(agent.frames_at(id).len(), 1);
    agent.ask(id, 4, acquire("k", 0));
    assert_eq!(lock(&agent.request()).owner, 2);
    agent.lose_link();
    agent.connect();
}

#[test]
fn long_messages_of_locks_are_not_gathered() {
    let mut agent = ScriptedMultiplexer::linked();
    let mut long = Vec::new();
    libdc::wire::message::write_message(
        &mut long,
        libdc::wire::frame::MessageHead::request(1, ACQUIRE),
        &[0; 2049],
    );
    for sent in [12, 14, 2000, long.len()] {
        let id = agent.open();
        let refused = LocalCloseReason::Corruption(DecodeError::TooManyFrames { frames_max: 1 });
        assert_eq!(agent.send(id, &long[..sent]), Err(refused), "{sent} bytes");
    }
    let id = agent.open();
    let claims = [&[0; 24][..], &[0, 1], b"k"].concat().repeat(2_427);
    agent.message(id, 1, CLAIM, &claims).unwrap();
    assert_eq!(agent.frames_at(id), [(1, ERROR.repeat(2_427))]);
}

#[test]
fn a_connection_that_asked_for_locks_is_detached_when_it_closes() {
    let mut agent = ScriptedMultiplexer::linked();
    let (holder, stranger, blocked) = (agent.open(), agent.open(), agent.open());
    agent.hold(holder, "k", 5, 60_000);
    agent.message(stranger, 1, GET, b"session").unwrap();
    agent.ask(blocked, 1, acquire("k", 5_000));
    let asked = agent.at_server();
    for id in [holder, stranger, blocked] {
        agent.close(id);
    }
    let detached = agent.at_server();
    let owners: Vec<_> = detached.iter().map(|message| Detach::parse(&message.data).unwrap().owner).collect();
    assert_eq!(owners, [1, 3]);
    let mut bytes = Vec::new();
    Detach { owner: 1 }.write(detached[0].head.uid, &mut bytes);
    assert_eq!(bytes[..5], [0, 0x11, 0, 1, 0]);
    assert_eq!(bytes[9..], [2, 4, 1, 0, 8, 0, 0, 0, 0, 0, 0, 0, 1]);

    let next = agent.open();
    assert_eq!(next.slot(), blocked.slot());
    agent.reply(&asked[1], LockAnswer::Status(LockStatus::Error));
    agent.answer(&asked[0], b"late").unwrap();
    agent.answer(&detached[0], OK).unwrap();
    agent.answer(&detached[1], OK).unwrap();
    assert_eq!(agent.frames_at(next), []);
    assert_eq!(agent.multiplexer.in_flight(), 0);
}

#[test]
fn a_connection_that_holds_or_waits_is_not_idle() {
    let mut agent = ScriptedMultiplexer::new(1_000, None);
    agent.connect();
    let (holder, waiter) = (agent.open(), agent.open());
    agent.hold(holder, "k", 5, 30_000);
    let end = agent.now.after_ms(30_000);
    assert_eq!(agent.multiplexer.local_deadline(holder), Some(end));
    agent.ask(waiter, 1, acquire("k", 600_000));
    agent.request();
    assert_eq!(agent.multiplexer.local_deadline(waiter), Some(agent.now.after_ms(1_000)), "the next look");
    agent.now = agent.now.after_ms(29_999);
    assert_eq!(agent.check(holder), Ok(()));
    assert_eq!(agent.check(waiter), Ok(()));
    agent.now = end;
    assert_eq!(agent.check(holder), Err(LocalCloseReason::Idle));
}

#[test]
fn released_lock_does_not_keep_its_connection_open() {
    let mut agent = ScriptedMultiplexer::new(1_000, None);
    agent.connect();
    let (holder, other) = (agent.open(), agent.open());
    agent.hold(holder, "k", 5, 30_000);
    // Any connection with the token may release it.
    agent.ask(other, 1, LockAction::Release { key: key("k"), token: token(5) });
    let release = agent.request();
    assert_eq!(release.head.operation, RELEASE);
    agent.reply(&release, LockAnswer::Status(LockStatus::Ok));
    assert_eq!(agent.multiplexer.local_deadline(holder), Some(agent.now.after_ms(1_000)));
}

#[test]
fn pings_overtake_what_has_not_begun_to_be_written() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    for uid in 0..20 {
        agent.message(id, uid, GET, &[7; 32]).unwrap();
    }
    let mut out = agent.written(50);
    let ping = libdc::wire::link::Ping { uid: 77 };
    let mut bytes = Vec::new();
    ping.write_request(&mut bytes);
    agent.receive(&bytes).unwrap();
    out.extend(agent.written(usize::MAX));
    let mut reader = MessageReader::link(Direction::Request);
    let mut input = out.as_slice();
    let mut operations = Vec::new();
    while let Some(message) = reader.next(&mut input).unwrap() {
        operations.push(message.head.operation);
    }
    assert_eq!(operations.iter().position(|operation| *operation == PING), Some(2));
    assert_eq!(operations.len(), 21);
}
