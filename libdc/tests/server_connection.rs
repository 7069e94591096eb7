//! The server's side of a connection, driven by hand: bytes in, bytes out, the time as told.

use libdc::id::{ConnectionId, SessionId};
use libdc::limits::{OUTBOX_BYTES_MAX, SESSION_ADD_BYTES_MAX};
use libdc::proto::server::{ServerCloseReason, ServerConnection, ServerContext};
use libdc::service::{Effects, LinkPolicy, RequestCounters, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, ShardedLocks, ShardedSessions};
use libdc::time::Time;
use libdc::wire::frame::{DecodeError, Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{MessageReader, write_message};
use libdc::wire::session::AddRequest;
use std::sync::Arc;

const ADD: Operation = Operation::Session(SessionOperation::Add);
const GET: Operation = Operation::Session(SessionOperation::Get);
const HAVE: Operation = Operation::Session(SessionOperation::Have);
const REMOVE: Operation = Operation::Session(SessionOperation::Remove);

const NOW: Time = Time::from_ms(1_000);

/// A connection of a server of its own.
struct ConnectionFixture {
    service: Service,
    connection: ServerConnection,
}

impl ConnectionFixture {
    fn new() -> Self {
        let sessions = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
        let settings =
            LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
        let locks = ShardedLocks::new(1, settings, FenceSource::starting_at(1), [3; 32]);
        let links = LinkPolicy { grace_ms: 10_000, auto_release: true };
        let service = Service::new(Arc::new(sessions), locks, links, None);
        let connection = ServerConnection::new(Time::from_ms(0), ConnectionId::new(1), &service);
        Self { service, connection }
    }

    fn handle(&mut self, now: Time, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ServerCloseReason> {
        let (mut effects, mut tally) = (Effects::new(), RequestCounters::default());
        let service = &self.service;
        let mut turn = ServerContext { now, service, out, effects: &mut effects, tally: &mut tally };
        let taken = self.connection.handle_input(&mut turn, bytes);
        self.service.record(&tally);
        taken
    }

    /// Since when something has been unfinished.
    fn unfinished_since(&self) -> Option<Time> {
        self.connection.deadline(1000).map(|deadline| Time::from_ms(deadline.as_ms() - 1000))
    }

    /// What is answered to `bytes`: uid and data of each answer.
    fn responses(&mut self, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut out = Vec::new();
        self.handle(NOW, bytes, &mut out).expect("good requests");
        decode(&out)
    }
}

fn decode(out: &[u8]) -> Vec<(u32, Vec<u8>)> {
    let mut reader = MessageReader::new(Some(Direction::Response));
    let mut input = out;
    let mut answers = Vec::new();
    while let Some(answer) = reader.next(&mut input).expect("good answers") {
        answers.push((answer.head.uid, answer.data.to_vec()));
    }
    assert!(input.is_empty(), "half an answer");
    answers
}

fn request(uid: u32, operation: Operation, data: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_message(&mut bytes, MessageHead::request(uid, operation), data);
    bytes
}

fn add(uid: u32, id: &[u8], session: &[u8]) -> Vec<u8> {
    let mut data = Vec::new();
    AddRequest { timeout_ms: 60_000, id: SessionId::new(id).expect("an id"), session }.write(&mut data);
    request(uid, ADD, &data)
}

#[test]
fn requests_are_answered_in_their_order_however_they_arrive() {
    let bytes = [
        add(1, b"id", b"session"),
        request(2, GET, b"id"),
        add(3, b"id", b"another"),
        request(4, HAVE, b"id"),
        request(5, REMOVE, b"id"),
        request(6, GET, b"id"),
        request(7, GET, &[]),
    ]
    .concat();
    let answers = [
        (1, vec![0]),
        (2, b"session".to_vec()),
        (3, vec![101]),
        (4, vec![0]),
        (5, vec![0]),
        (6, vec![1]),
        (7, vec![1]),
    ];
    assert_eq!(ConnectionFixture::new().responses(&bytes), answers);
    for size in [1, 2, 13, 14, 15, 40] {
        let mut server = ConnectionFixture::new();
        let got: Vec<_> = bytes.chunks(size).flat_map(|piece| server.responses(piece)).collect();
        assert_eq!(got, answers, "in pieces of {size} bytes");
        assert!(server.connection.is_idle());
    }
}

#[test]
fn many_requests_at_once_are_each_answered_as_if_alone() {
    let mut server = ConnectionFixture::new();
    let mut bytes = Vec::new();
    for number in 0..100_u32 {
        bytes.extend(add(number, &number.to_be_bytes(), &vec![number as u8; number as usize * 40 + 1]));
    }
    // What is asked ahead of its ADD is not there yet.
    for number in 0..100_u32 {
        bytes.extend(request(1_000 + number, GET, &number.to_be_bytes()));
        bytes.extend(request(2_000 + number, REMOVE, &number.to_be_bytes()));
        bytes.extend(request(3_000 + number, GET, &number.to_be_bytes()));
    }
    let answers = server.responses(&bytes);
    assert_eq!(answers.len(), 400);
    assert!(answers[..100].iter().all(|(_, data)| data == &[0]));
    for (number, three) in answers[100..].chunks(3).enumerate() {
        assert_eq!(three[0].1, vec![number as u8; number * 40 + 1]);
        assert_eq!((three[1].1.as_slice(), three[2].1.as_slice()), (&[0][..], &[1][..]));
    }
}

#[test]
fn a_peer_that_does_not_read_is_not_answered_without_end() {
    let mut server = ConnectionFixture::new();
    let session = vec![5; SESSION_ADD_BYTES_MAX - 2];
    assert_eq!(server.responses(&add(1, b"id", &session)), [(1, vec![0])]);
    let requests: Vec<u8> = (0..100).flat_map(|uid| request(uid, GET, b"id")).collect();
    let mut answers = Vec::new();
    let mut input = requests.as_slice();
    loop {
        let mut out = Vec::new();
        server.handle(NOW, input, &mut out).expect("good requests");
        input = &[];
        assert!(out.len() < OUTBOX_BYTES_MAX + 2 * session.len(), "{} bytes at once", out.len());
        answers.extend(decode(&out));
        if !server.connection.is_stalled() {
            break;
        }
        assert!(!server.connection.is_idle());
        assert_eq!(server.unfinished_since(), None, "the peer has sent all that it has to");
    }
    let uids: Vec<u32> = answers.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(uids, (0..100).collect::<Vec<u32>>());
    assert!(answers.iter().all(|(_, data)| *data == session));
}

#[test]
fn what_came_before_corruption_is_answered() {
    let mut server = ConnectionFixture::new();
    let mut bytes = request(1, HAVE, b"id");
    bytes.extend_from_slice(&[0, 0x11, 0, 0, 7]);
    let mut out = Vec::new();
    assert_eq!(server.handle(NOW, &bytes, &mut out), Err(DecodeError::IsResponse { value: 7 }.into()));
    assert_eq!(decode(&out), [(1, vec![1])]);
}

#[test]
fn a_request_that_is_not_served_ends_the_connection() {
    for operation in [Operation::from_wire(1, 0), Operation::from_wire(2, 0)].into_iter().flatten() {
        let mut out = Vec::new();
        let refused = ConnectionFixture::new().handle(NOW, &request(1, operation, &[0; 20]), &mut out);
        assert!(
            matches!(refused, Err(ServerCloseReason::Corruption(DecodeError::Data { .. }))),
            "{operation:?}"
        );
        assert!(out.is_empty());
    }
    let short = request(1, ADD, &[0; 7]);
    assert!(matches!(
        ConnectionFixture::new().handle(NOW, &short, &mut Vec::new()),
        Err(ServerCloseReason::Corruption(DecodeError::Data { .. }))
    ));
}

#[test]
fn a_ping_is_answered() {
    let ping = request(9, Operation::Link(LinkOperation::Ping), &[]);
    assert_eq!(ConnectionFixture::new().responses(&ping), [(9, vec![])]);
}

#[test]
fn the_time_of_a_message_runs_from_its_first_byte() {
    let mut server = ConnectionFixture::new();
    let mut out = Vec::new();
    let at = |ms: u64| Time::from_ms(1_000 + ms);
    let long = add(1, b"id", &[1; 5_000]);
    server.handle(at(0), &long[..1], &mut out).expect("the beginning of a request");
    assert_eq!(server.unfinished_since(), Some(at(0)));
    server.handle(at(5), &long[1..3_000], &mut out).expect("more of it");
    assert_eq!(server.unfinished_since(), Some(at(0)), "bytes alone win no time");
    server
        .handle(at(6), &[&long[3_000..], &[0, 0x11]].concat(), &mut out)
        .expect("the rest, and a beginning");
    assert_eq!(server.unfinished_since(), Some(at(6)));
    server.handle(at(7), &request(2, HAVE, b"id")[2..], &mut out).expect("the rest");
    assert_eq!(server.unfinished_since(), None);
    assert_eq!(decode(&out), [(1, vec![0]), (2, vec![0])]);
}
