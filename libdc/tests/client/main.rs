//! The clients, both in every test, against servers that keep to the protocol and servers that don't.
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

/// Long enough for any answer that comes.
fn options(connections: ConnectionMode) -> SessionOptions {
    SessionOptions { connections, timeout: MINUTE }
}

/// Short, for answers that don't come.
fn impatient(connections: ConnectionMode) -> SessionOptions {
    SessionOptions { connections, timeout: Duration::from_millis(60) }
}

/// Answers OK to everything.
fn agreeable(peer: &mut FakePeer) {
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
fn the_longest_sessions_go_both_ways() {
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
fn a_client_connects_at_once_or_late() {
    each(|make| {
        let place = FakePlace::new();
        let address = place.address();
        let mut client = make(address.clone(), options(KEPT));
        let early = client.have(ID);
        assert!(matches!(&early, Err(Error::Connect { address: it, .. }) if *it == address), "{early:?}");
        assert!(matches!(client.connect_another(options(KEPT)), Err(Error::Connect { .. })));
        // A temporary connection is not opened before its operation.
        client.connect_another(options(ConnectionMode::Temporary)).unwrap();

        let server = FakeClientPeer::at(place, |_, peer| agreeable(peer));
        assert!(client.have(ID).unwrap());
        let mut other = client.connect_another(options(KEPT)).unwrap();
        assert!(other.have(ID).unwrap());
        assert!(other.have(ID).unwrap());
        assert_eq!(server.accepted(), 2);
        drop((client, other));
    });
}

#[test]
fn an_outage_that_the_agent_reports_leaves_the_connection() {
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
fn an_id_that_can_not_be_is_not_sent() {
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

/// The first connection is closed once it has answered a request, as an agent closes an idle one.
fn closes_idle(number: usize, peer: &mut FakePeer) {
    match number {
        0 => {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::Ok);
        }
        _ => agreeable(peer),
    }
}

#[test]
fn a_connection_closed_when_idle_is_replaced_once() {
    each(|make| {
        for transport in [Transport::Unix, Transport::Tcp] {
            let server = FakeClientPeer::start(transport, closes_idle);
            let mut client = make(server.address.clone(), options(RETRIED));
            assert!(client.have(ID).unwrap());
            assert!(client.have(ID).unwrap(), "{transport:?}");
            assert!(client.have(ID).unwrap());
            assert_eq!(server.accepted(), 2);

            let server = FakeClientPeer::start(transport, closes_idle);
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
fn a_new_connection_is_not_retried_nor_a_second_time() {
    each(|make| {
        let closes_after_reading = |number: usize, peer: &mut FakePeer| {
            let request = peer.request().unwrap();
            match number {
                0 => drop(peer.answer(&request, SessionStatus::Ok)),
                1 => {}
                _ => {
                    peer.answer(&request, SessionStatus::Ok);
                    agreeable(peer);
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
fn an_answer_cut_short_is_not_retried() {
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

/// Has `spoil` do its worst with the second request of the first connection, with a client that keeps its
/// connection, and checks that the next operation goes over a new one.
fn spoilt(
    make: &dyn Fn(Address, SessionOptions) -> ClientSubject,
    options: SessionOptions,
    spoil: impl Fn(&mut FakePeer) + Send + Sync + 'static,
) -> Error {
    let server = FakeClientPeer::start(Transport::Unix, move |number, peer| {
        if number == 0 {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::Ok);
            spoil(peer);
            peer.outlast();
        } else {
            agreeable(peer);
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
fn no_answer_in_time_ends_the_connection() {
    each(|make| {
        let silent = spoilt(make, impatient(RETRIED), |_| {});
        assert!(matches!(silent, Error::Timeout { phase: OperationPhase::Receiving }), "{silent:?}");
        let half = spoilt(make, impatient(RETRIED), |peer| {
            let request = peer.request().unwrap();
            let bytes = answer(request.head, &[0]);
            peer.send(&bytes[..9]);
        });
        assert!(matches!(half, Error::Timeout { phase: OperationPhase::Receiving }), "{half:?}");
    });
}

#[test]
fn the_time_is_that_of_the_operation_not_of_each_read() {
    each(|make| {
        let server = FakeClientPeer::start(Transport::Unix, |_, peer| {
            let request = peer.request().unwrap();
            let bytes = answer(request.head, &[7; SESSION_BYTES_MAX]);
            let (_keep, pace) = std::sync::mpsc::channel::<()>();
            // Each byte comes long before the time is over, the last one would come minutes after.
            for byte in bytes {
                pace.recv_timeout(Duration::from_millis(10)).unwrap_err();
                if !peer.send(&[byte]) {
                    return;
                }
            }
        });
        let mut client = make(server.address.clone(), impatient(KEPT));
        let slow = client.get(ID);
        assert!(matches!(slow, Err(Error::Timeout { phase: OperationPhase::Receiving })), "{slow:?}");
    });
}

#[test]
fn a_wrong_answer_ends_the_connection() {
    each(|make| {
        let uid = spoilt(make, options(RETRIED), |peer| {
            let mut request = peer.request().unwrap();
            request.head.uid ^= 1;
            peer.answer(&request, SessionStatus::Ok);
        });
        assert!(matches!(uid, Error::NotAsked { .. }), "{uid:?}");
        let status = spoilt(make, options(RETRIED), |peer| {
            let request = peer.request().unwrap();
            peer.answer(&request, SessionStatus::TimeoutRange);
        });
        assert!(
            matches!(status, Error::Unexpected { status: SessionStatus::TimeoutRange, .. }),
            "{status:?}"
        );
        let noise = spoilt(make, options(RETRIED), |peer| {
            peer.request().unwrap();
            peer.send(b"HTTP/1.1 400 Bad Request\r\n");
        });
        assert!(matches!(noise, Error::Corruption(_)), "{noise:?}");
    });
}

#[test]
fn what_comes_behind_an_answer_is_not_taken_for_the_next() {
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

/// A server that was stopped (SIGSTOP) leaves its listener, and clients pile up in the backlog.
#[test]
fn a_full_backlog_is_waited_for_no_longer_than_the_timeout() {
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
        let mut client = make(place.address(), impatient(ConnectionMode::Temporary));
        let error = client.have(ID).unwrap_err();
        assert!(matches!(error, Error::Timeout { phase: OperationPhase::Connecting }), "{error:?}");
    });
}

#[cfg(feature = "async")]
#[tokio::test(flavor = "current_thread")]
async fn a_dropped_operation_leaves_nothing_behind() {
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
            peer.outlast();
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
