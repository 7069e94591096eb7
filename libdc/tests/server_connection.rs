//! The server side of a connection, driven by the test: bytes and the time go in, bytes come out.

use libdc::id::{ConnectionId, LockKey, SessionId};
use libdc::limits::{DRAIN_GRACE_MS, OUTBOX_BYTES_MAX, SESSION_ADD_BYTES_MAX};
use libdc::proto::machine::MachineState;
use libdc::proto::server::{
    Notification, ServerCloseReason, ServerConnection, ServerContext, ServerTimeouts,
};
use libdc::service::{Effects, LinkPolicy, RequestCounters, Service};
use libdc::table::{FenceSource, LockSettings, SessionLimits, ShardedLocks, ShardedSessions};
use libdc::time::Time;
use libdc::wire::frame::{DecodeError, Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use libdc::wire::lock::{LockAction, LockRequest};
use libdc::wire::message::{MessageReader, write_message};
use libdc::wire::session::AddRequest;
use std::sync::Arc;

const ADD: Operation = Operation::Session(SessionOperation::Add);
const GET: Operation = Operation::Session(SessionOperation::Get);
const HAVE: Operation = Operation::Session(SessionOperation::Have);
const REMOVE: Operation = Operation::Session(SessionOperation::Remove);

const NOW: Time = Time::from_ms(1_000);
const READING: MachineState<ServerCloseReason> = MachineState::Open { wants_input: true, more: false };

const READ_TIMEOUT_MS: u64 = 1_000;
const WRITE_TIMEOUT_MS: u64 = 300;

/// A server with one connection.
struct ConnectionFixture {
    service: Service,
    connection: ServerConnection,
    /// Number of bytes the socket accepts before it would block.
    capacity: usize,
}

impl ConnectionFixture {
    fn new() -> Self {
        let sessions = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
        let settings =
            LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
        let locks = ShardedLocks::new(1, settings, FenceSource::starting_at(1), [3; 32]);
        let links = LinkPolicy { grace_ms: 10_000, auto_release: true };
        let service = Service::new(Arc::new(sessions), locks, links, None);
        let timeouts = ServerTimeouts { read_ms: READ_TIMEOUT_MS, write_ms: WRITE_TIMEOUT_MS };
        let connection = ServerConnection::new(Time::from_ms(0), ConnectionId::new(1), &service, timeouts);
        Self { service, connection, capacity: usize::MAX }
    }

    /// A turn with one call of the machine. Bytes that the socket accepts are appended to `out`.
    fn turn(
        &mut self,
        now: Time,
        out: &mut Vec<u8>,
        act: impl FnOnce(&mut ServerConnection, &mut ServerContext<'_>),
    ) -> MachineState<ServerCloseReason> {
        let (mut output, mut effects, mut counters) =
            (Vec::new(), Effects::new(), RequestCounters::default());
        let service = &self.service;
        let (output, effects, counters) = (&mut output, &mut effects, &mut counters);
        let mut cx = ServerContext { now, service, output, effects, counters };
        self.connection.begin_turn(&mut cx);
        act(&mut self.connection, &mut cx);
        loop {
            let output = self.connection.poll_output(&cx);
            if output.is_empty() {
                break;
            }
            let count = output.len().min(self.capacity);
            out.extend_from_slice(&output[..count]);
            self.connection.wrote(&mut cx, count);
            if count == 0 {
                break;
            }
            self.capacity -= count;
        }
        assert!(cx.output.is_empty(), "the thread's buffer is left empty");
        self.service.record(counters);
        self.connection.state()
    }

    fn handle(&mut self, now: Time, bytes: &[u8], out: &mut Vec<u8>) -> MachineState<ServerCloseReason> {
        self.turn(now, out, |connection, cx| connection.handle_input(cx, bytes))
    }

    fn mail(&mut self, now: Time, notification: Notification) -> MachineState<ServerCloseReason> {
        self.turn(now, &mut Vec::new(), |connection, cx| connection.handle_mail(cx, notification))
    }

    fn handle_timeout(&mut self, now: Time) -> MachineState<ServerCloseReason> {
        self.turn(now, &mut Vec::new(), ServerConnection::handle_timeout)
    }

    /// Since when a request has been incomplete.
    fn unfinished_since(&self) -> Option<Time> {
        self.connection.deadline().map(|deadline| Time::from_ms(deadline.as_ms() - READ_TIMEOUT_MS))
    }

    /// The uid and data of each answer to `bytes`.
    fn responses(&mut self, bytes: &[u8]) -> Vec<(u32, Vec<u8>)> {
        let mut out = Vec::new();
        let state = self.handle(NOW, bytes, &mut out);
        assert!(matches!(state, MachineState::Open { wants_input: true, .. }), "{state:?}");
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
    assert!(input.is_empty(), "an incomplete answer");
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
    // All ADDs come first: a GET before its ADD would find nothing.
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
    let mut out = Vec::new();
    let mut state = server.handle(NOW, &requests, &mut out);
    loop {
        assert!(out.len() < OUTBOX_BYTES_MAX + 2 * session.len(), "{} bytes at once", out.len());
        answers.extend(decode(&out));
        if !(matches!(state, MachineState::Open { wants_input: false, .. })) {
            break;
        }
        assert_eq!(
            state,
            MachineState::Open { wants_input: false, more: true },
            "other connections go first"
        );
        assert!(!server.connection.is_idle());
        out.clear();
        state = server.turn(NOW, &mut out, |_, _| {});
        assert_eq!(server.unfinished_since(), None, "no request is incomplete");
    }
    let uids: Vec<u32> = answers.iter().map(|(uid, _)| *uid).collect();
    assert_eq!(uids, (0..100).collect::<Vec<u32>>());
    assert!(answers.iter().all(|(_, data)| *data == session));
}

#[test]
fn requests_before_a_malformed_frame_are_answered() {
    let mut server = ConnectionFixture::new();
    let mut bytes = request(1, HAVE, b"id");
    bytes.extend_from_slice(&[0, 0x11, 0, 0, 7]);
    let mut out = Vec::new();
    let reason = ServerCloseReason::from(DecodeError::IsResponse { value: 7 });
    assert_eq!(server.handle(NOW, &bytes, &mut out), MachineState::Closed(reason));
    assert_eq!(decode(&out), [(1, vec![1])]);
}

#[test]
fn a_request_that_is_not_served_ends_the_connection() {
    for operation in [Operation::from_wire(1, 0), Operation::from_wire(2, 0)].into_iter().flatten() {
        let mut out = Vec::new();
        let refused = ConnectionFixture::new().handle(NOW, &request(1, operation, &[0; 20]), &mut out);
        assert!(
            matches!(refused, MachineState::Closed(ServerCloseReason::Corruption(DecodeError::Data { .. }))),
            "{operation:?}"
        );
        assert!(out.is_empty());
    }
    let short = request(1, ADD, &[0; 7]);
    assert!(matches!(
        ConnectionFixture::new().handle(NOW, &short, &mut Vec::new()),
        MachineState::Closed(ServerCloseReason::Corruption(DecodeError::Data { .. }))
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
    assert_eq!(server.handle(at(0), &long[..1], &mut out), READING, "the beginning of a request");
    assert_eq!(server.unfinished_since(), Some(at(0)));
    assert_eq!(server.handle(at(5), &long[1..3_000], &mut out), READING, "more of it");
    assert_eq!(server.unfinished_since(), Some(at(0)), "further bytes do not extend the deadline");
    let rest = [&long[3_000..], &[0, 0x11]].concat();
    assert_eq!(server.handle(at(6), &rest, &mut out), READING, "the rest, and a beginning");
    assert_eq!(server.unfinished_since(), Some(at(6)));
    assert_eq!(server.handle(at(7), &request(2, HAVE, b"id")[2..], &mut out), READING, "the rest");
    assert_eq!(server.unfinished_since(), None);
    assert_eq!(decode(&out), [(1, vec![0]), (2, vec![0])]);
}

/// A server with a stored session whose GET is answered with 2,014 bytes.
fn with_session() -> ConnectionFixture {
    let mut server = ConnectionFixture::new();
    assert_eq!(server.responses(&add(1, b"id", &[5; 2_000])), [(1, vec![0])]);
    server
}

fn after(ms: u64) -> Time {
    NOW.after_ms(ms)
}

#[test]
fn unwritten_answers_keep_their_order() {
    let mut server = with_session();
    server.capacity = 700;
    let mut out = Vec::new();
    let requests: Vec<u8> = (2..5).flat_map(|uid| request(uid, GET, b"id")).collect();
    let state = server.handle(NOW, &requests, &mut out);
    assert_eq!(state, MachineState::Open { wants_input: false, more: false });
    assert_eq!(out.len(), 700);
    server.capacity = 2_500;
    server.turn(after(1), &mut out, |_, _| {});
    assert_eq!(out.len(), 3_200);
    server.capacity = usize::MAX;
    assert_eq!(server.turn(after(2), &mut out, |_, _| {}), READING);
    let uids: Vec<u32> = decode(&out).iter().map(|(uid, _)| *uid).collect();
    assert_eq!(uids, [2, 3, 4]);
}

#[test]
fn write_timeout_runs_from_the_last_byte_taken() {
    let mut server = with_session();
    server.capacity = 700;
    server.handle(NOW, &request(2, GET, b"id"), &mut Vec::new());
    assert_eq!(server.connection.deadline(), Some(after(WRITE_TIMEOUT_MS)));
    server.turn(after(100), &mut Vec::new(), |_, _| {});
    assert_eq!(server.connection.deadline(), Some(after(WRITE_TIMEOUT_MS)), "nothing was taken");
    server.capacity = 1;
    server.turn(after(200), &mut Vec::new(), |_, _| {});
    assert_eq!(server.connection.deadline(), Some(after(200 + WRITE_TIMEOUT_MS)));
    let early = server.handle_timeout(after(200 + WRITE_TIMEOUT_MS - 1));
    assert!(matches!(early, MachineState::Open { .. }));
    let reason = ServerCloseReason::WriteTimeout(WRITE_TIMEOUT_MS);
    assert_eq!(server.handle_timeout(after(200 + WRITE_TIMEOUT_MS)), MachineState::Closed(reason));
    assert_eq!(server.connection.deadline(), None);
}

#[test]
fn answers_before_a_violation_are_written_before_the_close() {
    let mut server = with_session();
    server.capacity = 700;
    let mut out = Vec::new();
    let bytes = [&request(2, GET, b"id")[..], &[0, 0x11, 0, 0, 7]].concat();
    assert_eq!(server.handle(NOW, &bytes, &mut out), MachineState::Closing);
    server.capacity = usize::MAX;
    let state = server.turn(after(1), &mut out, |_, _| {});
    assert!(matches!(state, MachineState::Closed(ServerCloseReason::Corruption(_))), "{state:?}");
    assert_eq!(decode(&out).len(), 1);
}

#[test]
fn end_of_input_closes_the_connection() {
    let mut server = with_session();
    let state = server.handle(NOW, &[], &mut Vec::new());
    assert_eq!(state, MachineState::Closed(ServerCloseReason::PeerClosed));
}

#[test]
fn drain_closes_an_idle_connection_only_at_its_deadline() {
    let mut server = with_session();
    assert_eq!(server.mail(after(5), Notification::Drain), READING, "input in the kernel is read first");
    assert_eq!(server.connection.deadline(), Some(after(5)));
    assert_eq!(server.responses(&request(2, HAVE, b"id")), [(2, vec![0])]);
    assert_eq!(server.handle_timeout(after(5)), MachineState::Closed(ServerCloseReason::Drained));
}

#[test]
fn drain_waits_for_the_rest_of_a_request() {
    let mut server = ConnectionFixture::new();
    let bytes = request(2, HAVE, b"id");
    server.handle(NOW, &bytes[..5], &mut Vec::new());
    server.mail(NOW, Notification::Drain);
    assert_eq!(server.handle_timeout(after(1)), READING);
    assert_eq!(server.responses(&bytes[5..]), [(2, vec![1])]);
    assert_eq!(server.handle_timeout(NOW), MachineState::Closed(ServerCloseReason::Drained));
}

#[test]
fn drain_grace_ends_after_the_accept() {
    let grace_end = Time::from_ms(DRAIN_GRACE_MS);
    let mut silent = ConnectionFixture::new();
    silent.mail(NOW, Notification::Drain);
    assert_eq!(silent.connection.deadline(), Some(grace_end));
    assert_eq!(silent.handle_timeout(Time::from_ms(DRAIN_GRACE_MS - 1)), READING);
    assert_eq!(silent.handle_timeout(grace_end), MachineState::Closed(ServerCloseReason::Drained));
    let mut heard = ConnectionFixture::new();
    heard.mail(NOW, Notification::Drain);
    assert_eq!(heard.responses(&request(1, HAVE, b"id")), [(1, vec![1])]);
    assert_eq!(heard.handle_timeout(NOW), MachineState::Closed(ServerCloseReason::Drained));
}

#[test]
fn connection_opened_after_the_shutdown_began_drains() {
    let server = ConnectionFixture::new();
    server.service.shut_down();
    let timeouts = ServerTimeouts { read_ms: READ_TIMEOUT_MS, write_ms: WRITE_TIMEOUT_MS };
    let late = ServerConnection::new(NOW, ConnectionId::new(2), &server.service, timeouts);
    assert_eq!(late.deadline(), Some(after(DRAIN_GRACE_MS)));
}

#[test]
fn completion_goes_behind_unwritten_answers() {
    let mut server = with_session();
    let lock = |uid: u32| {
        let mut bytes = Vec::new();
        let key = LockKey::new("k").expect("a key");
        let action = LockAction::Acquire { key, limit: 1, timeout_ms: 60_000, lease_ms: 0 };
        LockRequest { owner: u64::from(uid), action }.write(uid, &mut bytes);
        bytes
    };
    let mut out = Vec::new();
    server.handle(NOW, &[lock(2), lock(3)].concat(), &mut out);
    assert_eq!(decode(&out).iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [2], "3 is blocked");
    server.capacity = 700;
    out.clear();
    server.handle(NOW, &request(4, GET, b"id"), &mut out);
    server.turn(NOW, &mut out, |connection, cx| connection.handle_mail(cx, Notification::Drain));
    server.capacity = usize::MAX;
    server.turn(NOW, &mut out, |_, _| {});
    assert_eq!(decode(&out).iter().map(|(uid, _)| *uid).collect::<Vec<_>>(), [4, 3]);
    assert!(server.connection.is_idle());
}
