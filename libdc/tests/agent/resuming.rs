//! Opening the link, resuming it after a loss, and ending it.

use super::scripted::{
    BYE, CLAIM, DETACH, GET, GOAWAY, HELLO, LINK_ID, OK, OPEN, ScriptedMultiplexer, acquire, claims, hello,
    key, token, welcome,
};
use libdc::limits::CLAIM_BYTES_MAX;
use libdc::proto::link::{LinkError, LinkState};
use libdc::wire::frame::MessageHead;
use libdc::wire::link::Detach;
use libdc::wire::lock::{LockAction, LockAnswer, LockStatus};
use libdc::wire::message::{Message, write_message};

const LOST: u8 = LockStatus::Error as u8;

fn operations(messages: &[Message]) -> Vec<libdc::wire::frame::Operation> {
    messages.iter().map(|message| message.head.operation).collect()
}

#[test]
fn a_link_is_opened_before_it_carries_anything() {
    let mut agent = ScriptedMultiplexer::new(0, None);
    let id = agent.open();
    let opening = agent.begin();
    assert_eq!(operations(&opening), [HELLO, OPEN]);
    let hello = hello(&opening[0]);
    assert_eq!((hello.link_id.to_bytes(), hello.auth_token), (LINK_ID, &[][..]));
    agent.message(id, 1, GET, b"session").unwrap();
    agent.ask(id, 2, acquire("k", 0));
    assert_eq!(agent.frames_at(id), [(1, vec![2]), (2, vec![LockStatus::ErrorDisconnected as u8])]);
    agent.answer(&opening[1], OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Up { patch_level: 1 });
    agent.message(id, 3, GET, b"session").unwrap();
    assert_eq!(agent.request().head.operation, GET);
}

#[test]
fn link_with_auth_token_sends_hello_without_probe() {
    let mut agent = ScriptedMultiplexer::new(0, Some(b"s3cret"));
    agent.multiplexer.link_connected(agent.now, &[7; 32]);
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Resuming);
    let opening = agent.at_server();
    assert_eq!(operations(&opening), [HELLO]);
    assert_eq!(hello(&opening[0]).auth_token, b"s3cret");
    assert!(!format!("{:?}", agent.multiplexer).contains("s3cret"));
}

#[test]
fn a_refused_link_says_why() {
    let mut agent = ScriptedMultiplexer::new(0, Some(b"wrong"));
    agent.multiplexer.link_connected(agent.now, &[7; 32]);
    let opening = agent.at_server();
    let fault = agent.answer(&opening[0], &welcome(LockStatus::ErrorAuth)).unwrap_err();
    assert_eq!(fault, LinkError::Refused { status: LockStatus::ErrorAuth });
    assert_eq!(fault.to_string(), "the server refuses the link: the auth token is wrong or missing");
    let other = LinkError::Refused { status: LockStatus::ErrorDisconnected };
    assert_eq!(other.to_string(), "the server refuses the link: error_disconnected");
}

#[test]
fn wrong_answer_in_the_handshake_is_an_error() {
    for (place, data) in [(0, vec![0; 8]), (0, vec![99; 9]), (1, vec![LOST]), (1, vec![])] {
        let mut agent = ScriptedMultiplexer::new(0, None);
        let asked = if place == 0 { agent.handshake() } else { agent.begin().remove(place) };
        assert!(agent.answer(&asked, &data).is_err(), "{place} {data:?}");
    }
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.hold(id, "k", 5, 60_000);
    agent.lose_link();
    let opening = agent.begin();
    assert!(matches!(agent.answer(&opening[1], &[0, 0]), Err(LinkError::Handshake { .. })));
}

#[test]
fn proxy_without_locks_makes_a_link_for_sessions() {
    let mut agent = ScriptedMultiplexer::new(0, None);
    let id = agent.open();
    let hello = agent.handshake();
    agent.answer(&hello, &welcome(LockStatus::ErrorUnsupported)).unwrap();
    let open = agent.request();
    agent.answer(&open, OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Up { patch_level: 1 });
    agent.message(id, 1, GET, b"session").unwrap();
    agent.ask(id, 2, acquire("k", 0));
    assert_eq!(agent.frames_at(id), [(2, vec![LockStatus::ErrorUnsupported as u8])]);
    assert_eq!(operations(&agent.at_server()), [GET]);
    agent.close(id);
    assert_eq!(agent.at_server(), []);
}

#[test]
fn held_locks_are_claimed_after_link_loss() {
    let mut agent = ScriptedMultiplexer::linked();
    let (one, other, gone) = (agent.open(), agent.open(), agent.open());
    agent.hold(one, "a", 1, 60_000);
    agent.hold(other, "b", 2, 60_000);
    agent.hold(gone, "c", 3, 60_000);
    agent.hold(one, "d", 4, 500);
    agent.lose_link();
    agent.close(gone);
    agent.now = agent.now.after_ms(500);
    let opening = agent.begin();
    assert_eq!(operations(&opening), [HELLO, CLAIM, OPEN]);
    assert_eq!(
        claims(&opening[1]),
        [(1, 1), (2, 2)],
        "expired locks and locks of closed connections are not claimed"
    );
    // In any order.
    agent.answer(&opening[2], OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Resuming, "not all claims have been answered");
    agent.answer(&opening[1], &[0, LOST]).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Up { patch_level: 1 });

    agent.lose_link();
    let opening = agent.begin();
    assert_eq!(claims(&opening[1]), [(1, 1)], "a lost lock is not claimed again");
}

#[test]
fn owner_of_claimed_locks_is_detached_when_it_closes() {
    let mut agent = ScriptedMultiplexer::linked();
    let (one, other) = (agent.open(), agent.open());
    agent.hold(one, "a", 1, 60_000);
    agent.hold(other, "b", 2, 60_000);
    agent.lose_link();
    let opening = agent.begin();
    agent.close(one);
    let detach = agent.request();
    assert_eq!(Detach::parse(&detach.data), Ok(Detach { owner: 1 }));
    for (request, data) in opening[1..].iter().zip([vec![0, 0], vec![0]]) {
        agent.answer(request, &data).unwrap();
    }
    agent.answer(&detach, OK).unwrap();
    agent.lose_link();
    assert_eq!(claims(&agent.begin()[1]), [(2, 2)]);
}

#[test]
fn renewal_and_release_change_the_claims() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    for (fence, name) in [(1, "a"), (2, "b"), (3, "c"), (4, "d")] {
        agent.hold(id, name, fence, 1_000);
    }
    let renew = |name, fence| LockAction::Renew { key: key(name), token: token(fence), lease_ms: 0 };
    agent.ask(id, 1, renew("a", 1));
    agent.ask(id, 2, renew("b", 2));
    agent.ask(id, 3, renew("b", 3));
    let asked = agent.at_server();
    agent.reply(&asked[0], LockAnswer::Renewed { lease_ms: 60_000 });
    agent.reply(&asked[1], LockAnswer::Status(LockStatus::Error));
    agent.reply(&asked[2], LockAnswer::Status(LockStatus::Error));
    agent.ask(id, 4, LockAction::Release { key: key("d"), token: token(4) });
    let release = agent.request();
    agent.reply(&release, LockAnswer::Status(LockStatus::Ok));
    agent.lose_link();
    assert_eq!(claims(&agent.begin()[1]), [(1, 1), (1, 3)], "c is not b's");
    agent.lose_link();
    agent.now = agent.now.after_ms(1_000);
    assert_eq!(claims(&agent.begin()[1]), [(1, 1)]);
}

#[test]
fn lock_whose_release_was_lost_is_not_claimed() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.hold(id, "a", 1, 60_000);
    agent.hold(id, "b", 2, 60_000);
    agent.ask(id, 1, LockAction::Release { key: key("a"), token: token(1) });
    agent.ask(id, 2, LockAction::Release { key: key("a"), token: token(2) });
    agent.lose_link();
    assert_eq!(claims(&agent.begin()[1]), [(1, 2)], "b is not released by the name of a");
}

#[test]
fn a_grant_that_was_lost_is_not_claimed() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.ask(id, 1, acquire("a", 5_000));
    agent.lose_link();
    assert_eq!(agent.frames_at(id), [(1, vec![LockStatus::ErrorDisconnected as u8])]);
    assert_eq!(operations(&agent.begin()), [HELLO, OPEN]);
}

#[test]
fn many_claims_go_in_messages_of_bounded_size() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    let name = "k".repeat(200);
    let bytes = 8 + 16 + 2 + name.len();
    let count = 40 * CLAIM_BYTES_MAX / bytes;
    for fence in 1..=count as u64 {
        agent.hold(id, &name, fence, 600_000);
    }
    agent.lose_link();
    let opening = agent.begin();
    let mut claimed = Vec::new();
    for message in &opening[1..opening.len() - 1] {
        assert!(message.data.len() <= CLAIM_BYTES_MAX);
        claimed.extend(claims(message));
    }
    assert!(claimed.iter().map(|claim| claim.1).eq(1..=count as u64));
    assert_eq!(opening.last().map(|message| message.head.operation), Some(OPEN));
    for message in &opening[1..opening.len() - 1] {
        agent.answer(message, &vec![0; message.data.len() / bytes]).unwrap();
    }
    agent.answer(opening.last().unwrap(), OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Up { patch_level: 1 });
}

#[test]
fn unread_claims_do_not_accumulate() {
    let mut agent = ScriptedMultiplexer::linked();
    let (id, leaver) = (agent.open(), agent.open());
    let name = "k".repeat(256);
    for fence in 1..=40_000_u64 {
        agent.hold(if fence == 1 { leaver } else { id }, &name, fence, 600_000);
    }
    agent.lose_link();
    let hello = agent.handshake();
    agent.answer(&hello, &welcome(LockStatus::Ok)).unwrap();
    let queued = agent.multiplexer.link_poll_output().len();
    assert!(queued < libdc::limits::LINK_OUTBOX_BYTES_MAX + 2 * CLAIM_BYTES_MAX, "{queued} bytes");
    // Its locks have been claimed already; DETACH may be sent only once the claims are complete.
    agent.close(leaver);
    let asking = agent.open();
    agent.ask(asking, 1, acquire("k", 0));
    assert_eq!(agent.frames_at(asking).len(), 1, "a request waited for the link");
    let opening = agent.at_server();
    let count: usize = opening[..opening.len() - 2].iter().map(|message| claims(message).len()).sum();
    assert_eq!(count, 40_000);
    assert_eq!(operations(&opening[opening.len() - 2..]), [OPEN, DETACH]);
}

#[test]
fn goaway_closes_the_link_and_claims_are_repeated() {
    let mut agent = ScriptedMultiplexer::linked();
    let (holder, waiter) = (agent.open(), agent.open());
    agent.hold(holder, "k", 5, 60_000);
    agent.text(waiter, "l\nk\n60\n");
    let blocked = agent.request();
    agent.message(holder, 1, GET, b"session").unwrap();
    let get = agent.request();
    let mut bytes = Vec::new();
    write_message(&mut bytes, get.head.response(), b"here");
    write_message(&mut bytes, MessageHead::request(78, GOAWAY), &[]);
    write_message(&mut bytes, blocked.head.response(), &[3]);
    assert_eq!(agent.receive(&bytes), Err(LinkError::GoAway));
    assert!(agent.multiplexer.link_poll_output().is_empty(), "it is answered");
    agent.lose_link();
    assert_eq!(agent.frames_at(holder), [(1, b"here".to_vec())]);
    assert_eq!(agent.lines_at(waiter), "error_disconnected\n");
    assert_eq!(claims(&agent.begin()[1]), [(1, 5)]);
}

#[test]
fn agent_shutdown_sends_bye_and_awaits_its_answer() {
    let mut agent = ScriptedMultiplexer::linked();
    let id = agent.open();
    agent.hold(id, "k", 5, 60_000);
    assert!(agent.multiplexer.send_bye(agent.now));
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Leaving);
    let bye = agent.request();
    assert_eq!((bye.head.operation, bye.data.len()), (BYE, 0));
    agent.ask(id, 1, acquire("j", 0));
    assert_eq!(agent.frames_at(id), [(1, vec![LockStatus::ErrorDisconnected as u8])]);
    agent.answer(&bye, OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Left);

    let mut agent = ScriptedMultiplexer::new(0, None);
    assert!(!agent.multiplexer.send_bye(agent.now), "there is no server to ask");
    let opening = agent.begin();
    assert!(agent.multiplexer.send_bye(agent.now));
    let bye = agent.request();
    agent.answer(&opening[1], OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Leaving);
    agent.answer(&bye, OK).unwrap();
    assert_eq!(agent.multiplexer.link_phase(), LinkState::Left);
}
