//! Both clients in every test, against servers that follow the protocol and servers that violate it.
#![allow(clippy::unwrap_used, reason = "so a test fails")]

mod fake;
mod subject;

use fake::{FakeClientPeer, FakePeer, FakePlace, Transport, answer};
use libdc::client::{ConnectionMode, Error, OperationPhase, Refusal, SessionOptions};
use libdc::limits::{SESSION_ADD_BYTES_MAX, SESSION_BYTES_MAX};
use libdc::net::address::Address;
use libdc::wire::session::SessionStatus;
use std::time::Duration;
use subject::{ClientSubject, each};

const ID: &[u8] = b"an id";
const MINUTE: Duration = Duration::from_secs(60);
const KEPT: ConnectionMode = ConnectionMode::Persistent { notice_fork: false, retry: false };
const RETRIED: ConnectionMode = ConnectionMode::Persistent { notice_fork: false, retry: true };

/// Long enough for every answer that is sent.
fn options(connections: ConnectionMode) -> SessionOptions {
    SessionOptions { connections, timeout: MINUTE }
}

/// Short, for answers that are never sent.
fn short_timeout_options(connections: ConnectionMode) -> SessionOptions {
    SessionOptions { connections, timeout: Duration::from_millis(60) }
}

/// Answers every request with OK.
fn answer_ok(peer: &mut FakePeer) {
    while let Some(request) = peer.request() {
        peer.answer(&request, SessionStatus::Ok);
    }
}

#[test]
fn sessions_are_stored_found_and_removed_in_every_mode() {
    each(|make| {
        for connections in [ConnectionMode::Temporary, KEPT, RETRIED, SessionOptions::default().connections] {
            for transport in [Transport::Unix, Transport::Tcp] {
                let server = FakeClientPeer::honest(transport);
                let mut client = make(server.address.clone(), options(connections));
                assert!(!client.have(ID).unwrap());
                assert_eq!(client.get(ID).unwrap(), None);
                client.add(ID, b"session", MINUTE).unwrap();
                let again = client.add(ID, b"other", MINUTE);
                assert!(matches!(again, Err(Error::Refused(Refusal::AlreadyStored))), "{again:?}");
                assert_eq!(client.get(ID).unwrap().as_deref(), Some(&b"session"[..]));
                assert!(client.have(ID).unwrap());
                assert!(client.remove(ID).unwrap());
                assert!(!client.remove(ID).unwrap());
                let used = if connections == ConnectionMode::Temporary { 8 } else { 1 };
                assert_eq!(server.accepted(), used, "{connections:?} {transport:?}");
            }
        }
    });
}

#[test]
fn longest_sessions_are_stored_and_returned() {
    each(|make| {
        let server = FakeClientPeer::honest(Transport::Unix);
        let mut client = make(server.address.clone(), options(KEPT));
        let longest: Vec<u8> = (0..SESSION_ADD_BYTES_MAX - ID.len()).map(|i| (i / 7) as u8).collect();
        client.add(ID, &longest, MINUTE).unwrap();
        assert_eq!(client.get(ID).unwrap(), Some(longest));

        let whole: Vec<u8> = (0..SESSION_BYTES_MAX).map(|i| (i / 3) as u8).collect();
        let sent = whole.clone();
        let server = FakeClientPeer::start(Transport::Tcp, move |_, peer| {
            while let Some(request) = peer.request() {
                peer.send(&answer(request.head, &sent));
            }
        });
        let mut client = make(server.address.clone(), options(KEPT));
        assert_eq!(client.get(ID).unwrap().unwrap(), whole);
        assert_eq!(client.get(ID).unwrap().unwrap(), whole);
        assert_eq!(server.accepted(), 1);
    });
}

#[test]
fn client_connects_at_once_or_on_first_use() {
    each(|make| {
        let place = FakePlace::new();
        let address = place.address();
        let mut client = make(address.clone(), options(KEPT));
        let early = client.have(ID);
        assert!(matches!(&early, Err(Error::Connect { address: it, .. }) if *it == address), "{early:?}");
        assert!(matches!(client.connect_another(options(KEPT)), Err(Error::Connect { .. })));
        // A temporary connection is opened only for an operation.
        client.connect_another(options(ConnectionMode::Temporary)).unwrap();

        let server = FakeClientPeer::at(place, |_, peer| answer_ok(peer));
        assert!(client.have(ID).unwrap());
        let mut other = client.connect_another(options(KEPT)).unwrap();
        assert!(other.have(ID).unwrap());
        assert!(other.have(ID).unwrap());
        assert_eq!(server.accepted(), 2);
        drop((client, other));
    });
}

#[test]
fn reported_outage_keeps_the_connection() {
    each(|make| {
        let server = FakeClientPeer::start(Transport::Unix, |_, peer| {
            while let Some(request) = peer.request() {
                peer.answer(&request, SessionStatus::Disconnected);
            }
        });
        let mut client = make(server.address.clone(), options(KEPT));
        assert!(matches!(client.have(ID), Err(Error::Disconnected)));
        assert!(matches!(client.get(ID), Err(Error::Disconnected)));
        assert!(matches!(client.remove(ID), Err(Error::Disconnected)));
        assert!(matches!(client.add(ID, b"s", MINUTE), Err(Error::Disconnected)));
        assert_eq!(server.accepted(), 1);
    });
}

#[test]
fn invalid_id_is_not_sent() {
    each(|make| {
        let server = FakeClientPeer::honest(Transport::Unix);
        let mut client = make(server.address.clone(), options(KEPT));
        assert!(matches!(client.get(b""), Err(Error::Refused(Refusal::IdRange))));
        assert!(matches!(client.have(&[1; 65]), Err(Error::Refused(Refusal::IdRange))));
        assert!(matches!(client.add(ID, b"", MINUTE), Err(Error::Refused(Refusal::DataRange))));
        assert!(!client.have(&[1; 64]).unwrap());
        assert_eq!(server.accepted(), 1);
    });
}

/// Closes the first connection after its first answer, as an agent closes an idle connection.
fn close_first_after_answer(number: usize, peer: &mut FakePeer) {
    match number {
        0 => {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::Ok);
        }
        _ => answer_ok(peer),
    }
}

#[test]
fn connection_closed_while_idle_is_replaced_once() {
    each(|make| {
        for transport in [Transport::Unix, Transport::Tcp] {
            let server = FakeClientPeer::start(transport, close_first_after_answer);
            let mut client = make(server.address.clone(), options(RETRIED));
            assert!(client.have(ID).unwrap());
            assert!(client.have(ID).unwrap(), "{transport:?}");
            assert!(client.have(ID).unwrap());
            assert_eq!(server.accepted(), 2);

            let server = FakeClientPeer::start(transport, close_first_after_answer);
            let mut client = make(server.address.clone(), options(KEPT));
            assert!(client.have(ID).unwrap());
            let second = client.have(ID);
            assert!(matches!(second, Err(Error::Closed | Error::Io { .. })), "{second:?}");
            assert!(client.have(ID).unwrap());
            assert_eq!(server.accepted(), 2);
        }
    });
}

#[test]
fn new_connection_and_second_failure_are_not_retried() {
    each(|make| {
        let closes_after_reading = |number: usize, peer: &mut FakePeer| {
            let request = peer.request().unwrap();
            match number {
                0 => drop(peer.answer(&request, SessionStatus::Ok)),
                1 => {}
                _ => {
                    peer.answer(&request, SessionStatus::Ok);
                    answer_ok(peer);
                }
            }
        };
        let server = FakeClientPeer::start(Transport::Unix, closes_after_reading);
        let mut client = make(server.address.clone(), options(RETRIED));
        assert!(client.have(ID).unwrap());
        assert!(matches!(client.have(ID), Err(Error::Closed)));
        assert_eq!(server.accepted(), 2);
        assert!(client.have(ID).unwrap());
        assert_eq!(server.accepted(), 3);
    });
}

#[test]
fn truncated_answer_is_not_retried() {
    each(|make| {
        let server = FakeClientPeer::start(Transport::Unix, |_, peer| {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::Ok);
            let request = peer.request().unwrap();
            let bytes = answer(request.head, &[0]);
            peer.send(&bytes[..bytes.len() - 1]);
        });
        let mut client = make(server.address.clone(), options(RETRIED));
        assert!(client.have(ID).unwrap());
        assert!(matches!(client.have(ID), Err(Error::Closed)));
        assert_eq!(server.accepted(), 1);
    });
}

/// Runs `spoil` for the second request on the first connection of a client with persistent connections.
/// Checks that the next operation uses a new connection.
fn check_reconnect_after(
    make: &dyn Fn(Address, SessionOptions) -> ClientSubject,
    options: SessionOptions,
    spoil: impl Fn(&mut FakePeer) + Send + Sync + 'static,
) -> Error {
    let server = FakeClientPeer::start(Transport::Unix, move |number, peer| {
        if number == 0 {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::Ok);
            spoil(peer);
            peer.wait_for_close();
        } else {
            answer_ok(peer);
        }
    });
    let mut client = make(server.address.clone(), SessionOptions { timeout: MINUTE, ..options });
    assert!(client.have(ID).unwrap());
    client.change_timeout(options.timeout);
    let error = client.have(ID).unwrap_err();
    client.change_timeout(MINUTE);
    assert!(client.have(ID).unwrap());
    assert_eq!(server.accepted(), 2);
    error
}

#[test]
fn timeout_ends_the_connection() {
    each(|make| {
        let silent = check_reconnect_after(make, short_timeout_options(RETRIED), |_| {});
        assert!(matches!(silent, Error::Timeout { phase: OperationPhase::Receiving }), "{silent:?}");
        let half = check_reconnect_after(make, short_timeout_options(RETRIED), |peer| {
            let request = peer.request().unwrap();
            let bytes = answer(request.head, &[0]);
            peer.send(&bytes[..9]);
        });
        assert!(matches!(half, Error::Timeout { phase: OperationPhase::Receiving }), "{half:?}");
    });
}

#[test]
fn timeout_covers_the_whole_operation() {
    each(|make| {
        let server = FakeClientPeer::start(Transport::Unix, |_, peer| {
            let request = peer.request().unwrap();
            let bytes = answer(request.head, &[7; SESSION_BYTES_MAX]);
            let (_keep, pace) = std::sync::mpsc::channel::<()>();
            // Each byte arrives well within the timeout; the last one would arrive minutes after it.
            for byte in bytes {
                pace.recv_timeout(Duration::from_millis(10)).unwrap_err();
                if !peer.send(&[byte]) {
                    return;
                }
            }
        });
        let mut client = make(server.address.clone(), short_timeout_options(KEPT));
        let slow = client.get(ID);
        assert!(matches!(slow, Err(Error::Timeout { phase: OperationPhase::Receiving })), "{slow:?}");
    });
}

#[test]
fn wrong_answer_ends_the_connection() {
    each(|make| {
        let uid = check_reconnect_after(make, options(RETRIED), |peer| {
            let mut request = peer.request().unwrap();
            request.head.uid ^= 1;
            peer.answer(&request, SessionStatus::Ok);
        });
        assert!(matches!(uid, Error::NotAsked { .. }), "{uid:?}");
        let status = check_reconnect_after(make, options(RETRIED), |peer| {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::TimeoutRange);
        });
        assert!(
            matches!(status, Error::Unexpected { status: SessionStatus::TimeoutRange, .. }),
            "{status:?}"
        );
        let noise = check_reconnect_after(make, options(RETRIED), |peer| {
            peer.request().unwrap();
            peer.send(b"HTTP/1.1 400 Bad Request\r\n");
        });
        assert!(matches!(noise, Error::Corruption(_)), "{noise:?}");
    });
}

#[test]
fn excess_bytes_are_not_taken_as_next_answer() {
    each(|make| {
        let server = FakeClientPeer::start(Transport::Unix, |_, peer| {
            while let Some(request) = peer.request() {
                let mut next = request.head;
                next.uid = next.uid.wrapping_add(1);
                peer.send(&[answer(request.head, &[0]), answer(next, &[1])].concat());
            }
        });
        let mut client = make(server.address.clone(), options(KEPT));
        assert!(client.have(ID).unwrap());
        assert!(client.have(ID).unwrap());
        assert_eq!(server.accepted(), 2);
    });
}

/// A stopped server (SIGSTOP) keeps its listener, and connections accumulate in the backlog.
#[test]
fn full_backlog_is_bounded_by_timeout() {
    use socket2::{Domain, SockAddr, Socket, Type};
    let place = FakePlace::new();
    let address = SockAddr::unix(place.path()).unwrap();
    let listener = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
    listener.bind(&address).unwrap();
    listener.listen(0).unwrap();
    let mut waiting = Vec::new();
    loop {
        let socket = Socket::new(Domain::UNIX, Type::STREAM, None).unwrap();
        socket.set_nonblocking(true).unwrap();
        match socket.connect(&address) {
            Ok(()) => waiting.push(socket),
            Err(error) => {
                assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
                break;
            }
        }
    }
    each(|make| {
        let mut client = make(place.address(), short_timeout_options(ConnectionMode::Temporary));
        let error = client.have(ID).unwrap_err();
        assert!(matches!(error, Error::Timeout { phase: OperationPhase::Connecting }), "{error:?}");
    });
}

#[cfg(feature = "async")]
#[tokio::test(flavor = "current_thread")]
async fn dropped_operation_does_not_affect_the_next() {
    use std::sync::Arc;
    use tokio::sync::Notify;
    let asked = Arc::new(Notify::new());
    let notify = Arc::clone(&asked);
    let server = FakeClientPeer::start(Transport::Unix, move |number, peer| {
        if number == 0 {
            let request = peer.request().unwrap();
            let bytes = answer(request.head, b"of another");
            peer.send(&bytes[..20]);
            notify.notify_one();
            peer.wait_for_close();
            return;
        }
        while let Some(request) = peer.request() {
            peer.send(&answer(request.head, b"the session"));
        }
    });
    let mut client = libdc::client::Client::new(server.address.clone(), options(KEPT));
    tokio::select! {
        biased;
        answered = client.get(ID) => panic!("{answered:?}"),
        () = asked.notified() => {}
    }
    assert_eq!(client.get(ID).await.unwrap().as_deref(), Some(&b"the session"[..]));
    assert_eq!(server.accepted(), 2);
    drop(client);
}
