//! Shutdown of a server with lock clients.

use crate::server::{FixtureOptions, LockServerFixture, key, release};
use libdc::proto::server::Notification;
use libdc::wire::lock::{LockAction, LockStatus};

const DISCONNECTED: [u8; 1] = [LockStatus::ErrorDisconnected as u8];

/// Shuts down the service, then notifies each connection, as the driver does.
fn shut_down(server: &mut LockServerFixture) {
    server.service.shut_down();
    for id in 1..=server.opened {
        server.mail(id, Notification::Drain);
    }
}

#[test]
fn shutdown_answers_waiters_and_grants_no_released_lock() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (holder, texts, frames) = (server.open(), [server.open(), server.open()], server.open());
    server.lock(holder, "l\nk\n5\n");
    for text in texts {
        server.send(text, b"l\nk\n60\n");
    }
    assert_eq!(server.acquire(frames, 7, 1, "k", 60_000), None);
    assert_eq!(server.acquire(frames, 8, 2, "k", 60_000), None);
    shut_down(&mut server);
    server.close(holder);
    for text in texts {
        assert_eq!(server.line(text), "error_disconnected");
    }
    assert_eq!(server.messages(frames), [(7, DISCONNECTED.to_vec()), (8, DISCONNECTED.to_vec())]);
    for id in [texts[0], texts[1], frames] {
        assert!(server.connections[&id].machine.is_idle(), "the server waits for nothing");
    }
}

#[test]
fn nothing_new_is_granted_and_what_is_held_can_be_given_back() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (text, frames) = (server.open(), server.open());
    let token = server.lock(text, "l\nk\n5\n");
    let held = server.acquire(frames, 1, 1, "j", 0).expect("free");
    shut_down(&mut server);
    for request in ["l\nfree\n0\n", "l\nfree\n5\n", "sl\nfree\n5 3\n", "e\nfree\n\n", "w\nfree\n5\n"] {
        assert_eq!(server.ask(text, request), "error_disconnected", "{request:?}");
    }
    let enqueue = LockAction::Enqueue { key: key("free"), limit: 1, lease_ms: 0 };
    assert_eq!(server.request(frames, 2, 1, enqueue), Some(DISCONNECTED.to_vec()));
    assert_eq!(server.ask(text, &format!("n\nk\n{token} 60\n")), "ok 60");
    assert_eq!(server.ask(text, &format!("r\nk\n{token}\n")), "ok");
    assert_eq!(server.request(frames, 3, 1, release("j", held)), Some(vec![LockStatus::Ok as u8]));
}

#[test]
fn requests_behind_one_that_waited_are_answered() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (holder, waiter) = (server.open(), server.open());
    server.lock(holder, "l\nk\n5\n");
    server.send(waiter, b"l\nk\n60\nping\n_\n\nl\nfree\n0\n");
    shut_down(&mut server);
    assert_eq!(server.line(waiter), "error_disconnected\nok\nerror_disconnected");
}

#[test]
fn grant_made_before_shutdown_is_delivered() {
    let mut server = LockServerFixture::new(FixtureOptions::default());
    let (holder, waiter) = (server.open(), server.open());
    let token = server.lock(holder, "l\nk\n5\n");
    server.send(waiter, b"l\nk\n60\n");
    server.holds_answers = true;
    assert_eq!(server.ask(holder, &format!("r\nk\n{token}\n")), "ok");
    shut_down(&mut server);
    assert_eq!(server.line(waiter), "", "its answer is pending");
    assert!(!server.connections[&waiter].machine.is_idle());
    server.deliver_held();
    assert!(server.line(waiter).starts_with("ok "));
}
