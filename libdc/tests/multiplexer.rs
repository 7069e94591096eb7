//! The agent's multiplexer, driven by hand: literal requests in, answers out, virtual time.

use libdc::id::LinkId;
use libdc::limits::{
    FRAME_DATA_BYTES_MAX, LINK_OUTBOX_BYTES_MAX, LOCAL_IN_FLIGHT_MAX, LOCAL_READ_TIMEOUT_MS,
    LOCAL_WRITE_TIMEOUT_MS, PING_INTERVAL_MS, PING_TIMEOUT_MS_MAX, SESSION_BYTES_MAX,
};
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::agent::multiplexer::{LinkCloseReason, Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::{LinkError, LinkState};
use libdc::proto::machine::MachineState;
use libdc::time::Time;
use libdc::wire::frame::{Direction, LinkOperation, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};

const ADD: Operation = Operation::Session(SessionOperation::Add);
const GET: Operation = Operation::Session(SessionOperation::Get);
const HAVE: Operation = Operation::Session(SessionOperation::Have);
const PING: Operation = Operation::Link(LinkOperation::Ping);

const OK: &[u8] = &[0];
const NOTOK: &[u8] = &[1];
const DISCONNECTED: &[u8] = &[2];

/// A multiplexer, what the server has received from it, and a clock.
struct MultiplexerFixture {
    multiplexer: Multiplexer,
    received: MessageReader,
    now: Time,
}

impl MultiplexerFixture {
    fn new(timeout_ms: u64, idle_ms: u64) -> Self {
        let settings = MultiplexerSettings { timeout_ms, idle_ms };
        let received = MessageReader::new(Some(Direction::Request));
        let introduction = LinkIdentity { link_id: LinkId::new([3; 16]), auth_token: None };
        let multiplexer = Multiplexer::new(settings, introduction);
        Self { multiplexer, received, now: Time::from_ms(1_000) }
    }

    /// With a link to a server at this patch level.
    fn linked(timeout_ms: u64, idle_ms: u64, patch_level: u16) -> Self {
        let mut agent = Self::new(timeout_ms, idle_ms);
        agent.connect(patch_level);
        agent
    }

    fn connect(&mut self, patch_level: u16) {
        self.multiplexer.link_connected(self.now, &[7; 32]);
        let probe = self.at_server().pop().expect("a probe");
        assert_eq!((probe.head.operation, probe.data.as_slice()), (HAVE, &[7; 32][..]));
        self.answer_as(&probe, NOTOK, patch_level).expect("an answer to the probe");
        if patch_level > 0 {
            let answers: [&[u8]; 2] = [&[0, 0, 0, 0x27, 0x10, 0, 0, 0, 0], OK];
            for data in answers {
                let opening = self.at_server();
                assert_eq!(opening.len(), 1, "HELLO, and OPEN behind its answer");
                self.answer_as(&opening[0], data, patch_level).expect("an answer in the handshake");
            }
        }
        assert_eq!(self.multiplexer.link_phase(), LinkState::Up { patch_level });
    }

    fn open(&mut self) -> LocalId {
        self.multiplexer.local_open(self.now)
    }

    fn ask(
        &mut self,
        id: LocalId,
        uid: u32,
        operation: Operation,
        data: &[u8],
    ) -> Result<(), LocalCloseReason> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, MessageHead::request(uid, operation), data);
        self.send(id, &bytes)
    }

    fn send(&mut self, id: LocalId, bytes: &[u8]) -> Result<(), LocalCloseReason> {
        self.multiplexer.local_handle_input(self.now, id, bytes);
        self.open_or_reason(id)
    }

    /// The reason for which a local connection is closed, if it is.
    fn open_or_reason(&self, id: LocalId) -> Result<(), LocalCloseReason> {
        match self.multiplexer.local_state(id) {
            MachineState::Closed(reason) => Err(reason),
            MachineState::Open { .. } | MachineState::Closing => Ok(()),
        }
    }

    /// Handles the timeouts of a local connection.
    fn check(&mut self, at: Time, id: LocalId) -> Result<(), LocalCloseReason> {
        self.multiplexer.local_handle_timeout(at, id);
        self.open_or_reason(id)
    }

    fn wants_input(&self, id: LocalId) -> bool {
        matches!(self.multiplexer.local_state(id), MachineState::Open { wants_input: true, .. })
    }

    /// The error for which the link is closed, if it is.
    fn link_or_error(&self) -> Result<(), LinkError> {
        match self.multiplexer.link_state() {
            MachineState::Closed(LinkCloseReason::Error(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// The messages sent to the server since the last call.
    fn at_server(&mut self) -> Vec<Message> {
        let mut output = Vec::new();
        while !self.multiplexer.link_poll_output().is_empty() {
            let pending = self.multiplexer.link_poll_output();
            output.extend_from_slice(pending);
            let count = pending.len();
            self.multiplexer.link_wrote(self.now, count);
        }
        let mut input = output.as_slice();
        let mut messages = Vec::new();
        while let Some(message) = self.received.next(&mut input).expect("the agent sends well") {
            messages.push(message.into());
        }
        assert!(input.is_empty());
        messages
    }

    fn answer(&mut self, request: &Message, data: &[u8]) -> Result<(), LinkError> {
        self.answer_as(request, data, 1)
    }

    fn answer_as(&mut self, request: &Message, data: &[u8], patch_level: u16) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, MessageHead { patch_level, ..request.head.response() }, data);
        self.multiplexer.link_handle_input(self.now, &bytes);
        self.link_or_error()
    }

    /// The messages sent to a local connection since the last call.
    fn at(&mut self, id: LocalId) -> Vec<(u32, Operation, Vec<u8>)> {
        let output = self.multiplexer.local_poll_output(self.now, id).to_vec();
        self.multiplexer.local_wrote(self.now, id, output.len());
        self.multiplexer.local_poll_output(self.now, id);
        let mut reader = MessageReader::new(Some(Direction::Response));
        let mut input = output.as_slice();
        let mut answers = Vec::new();
        while let Some(message) = reader.next(&mut input).expect("the agent answers well") {
            answers.push((message.head.uid, message.head.operation, message.data.to_vec()));
        }
        answers
    }

    /// Lets time pass, handling each deadline of the link.
    fn pass(&mut self, ms: u64) -> Result<(), LinkError> {
        let end = self.now.after_ms(ms);
        while let Some(deadline) = self.multiplexer.link_deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.multiplexer.link_handle_timeout(self.now);
            self.link_or_error()?;
        }
        self.now = end;
        Ok(())
    }

    fn attention(&mut self) -> Vec<LocalId> {
        std::iter::from_fn(|| self.multiplexer.poll_ready()).collect()
    }
}

fn add(id: &[u8], session: &[u8]) -> Vec<u8> {
    let mut data = 60_000_u32.to_be_bytes().to_vec();
    data.extend_from_slice(&(id.len() as u32).to_be_bytes());
    data.extend_from_slice(id);
    data.extend_from_slice(session);
    data
}

#[test]
fn answers_in_any_order_reach_their_connection_and_uid() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let (one, other) = (agent.open(), agent.open());
    agent.ask(one, 17, GET, b"a").unwrap();
    agent.ask(other, 17, GET, b"b").unwrap();
    agent.ask(one, 18, ADD, &add(b"c", b"session")).unwrap();
    let asked = agent.at_server();
    let data: Vec<&[u8]> = asked.iter().map(|message| message.data.as_slice()).collect();
    assert_eq!(data, [b"a".as_slice(), b"b", &add(b"c", b"session")]);
    assert_ne!(asked[0].head.uid, asked[1].head.uid);

    agent.answer(&asked[2], OK).unwrap();
    agent.answer(&asked[1], b"for the other").unwrap();
    agent.answer(&asked[0], b"for the one").unwrap();
    assert_eq!(agent.attention(), [one, other]);
    assert_eq!(agent.at(one), [(18, ADD, OK.to_vec()), (17, GET, b"for the one".to_vec())]);
    assert_eq!(agent.at(other), [(17, GET, b"for the other".to_vec())]);
    assert_eq!(agent.multiplexer.in_flight(), 0);
}

#[test]
fn without_a_link_every_request_is_answered_at_once() {
    let mut agent = MultiplexerFixture::new(5_000, 0);
    let id = agent.open();
    agent.ask(id, 1, GET, b"a").unwrap();
    agent.ask(id, 2, ADD, &add(b"a", b"b")).unwrap();
    assert_eq!(agent.at(id), [(1, GET, DISCONNECTED.to_vec()), (2, ADD, DISCONNECTED.to_vec())]);

    agent.multiplexer.link_connected(agent.now, &[7; 32]);
    agent.ask(id, 3, HAVE, b"a").unwrap();
    assert_eq!(agent.at(id), [(3, HAVE, DISCONNECTED.to_vec())], "an unproven link was waited for");
}

#[test]
fn link_loss_answers_each_request_in_flight_once() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let id = agent.open();
    agent.ask(id, 1, GET, b"a").unwrap();
    agent.ask(id, 2, GET, b"b").unwrap();
    let asked = agent.at_server();
    agent.answer(&asked[0], b"in time").unwrap();
    agent.multiplexer.link_close(agent.now);
    assert_eq!(agent.at(id), [(1, GET, b"in time".to_vec()), (2, GET, DISCONNECTED.to_vec())]);

    agent.connect(1);
    assert_eq!(agent.answer(&asked[1], b"late"), Err(LinkError::Unasked));
    assert_eq!(agent.at(id), []);
}

#[test]
fn timed_out_request_is_answered_and_late_answer_dropped() {
    let mut agent = MultiplexerFixture::linked(2_000, 0, 1);
    let id = agent.open();
    agent.ask(id, 1, GET, b"slow").unwrap();
    agent.pass(1_500).unwrap();
    agent.ask(id, 2, GET, b"quick").unwrap();
    let asked = agent.at_server();
    agent.answer(&asked[1], b"here").unwrap();
    agent.pass(499).unwrap();
    assert_eq!(agent.at(id), [(2, GET, b"here".to_vec())]);
    agent.pass(1).unwrap();
    assert_eq!(agent.at(id), [(1, GET, DISCONNECTED.to_vec())]);
    agent.answer(&asked[0], b"late").unwrap();
    assert_eq!(agent.at(id), []);
    assert_eq!(agent.multiplexer.in_flight(), 0);
}

#[test]
fn a_silent_server_is_given_up() {
    let mut agent = MultiplexerFixture::linked(2_000, 0, 0);
    let id = agent.open();
    agent.pass(1_000_000).expect("nothing was asked, nothing had to come");
    agent.ask(id, 1, GET, b"a").unwrap();
    assert_eq!(agent.pass(2_000), Err(LinkError::Silent { silent_ms: 2_000 }));
    assert_eq!(agent.at(id), [(1, GET, DISCONNECTED.to_vec())]);
}

#[test]
fn an_idle_server_is_pinged_if_it_knows_pings() {
    let mut agent = MultiplexerFixture::linked(0, 0, 1);
    agent.pass(PING_INTERVAL_MS - 1).unwrap();
    assert_eq!(agent.at_server(), []);
    agent.pass(1).unwrap();
    let ping = agent.at_server().pop().expect("a ping");
    assert_eq!((ping.head.operation, ping.data.len()), (PING, 0));
    agent.answer(&ping, &[]).unwrap();
    agent.pass(PING_INTERVAL_MS).unwrap();
    assert_eq!(agent.at_server().len(), 1, "one more ping");
    assert!(matches!(agent.pass(PING_TIMEOUT_MS_MAX), Err(LinkError::Silent { .. })));
}

#[test]
fn distcache_1_server_gets_only_operations_it_supports() {
    let mut agent = MultiplexerFixture::linked(0, 0, 0);
    let id = agent.open();
    agent.ask(id, 1, PING, &[]).unwrap();
    assert_eq!(agent.at(id), [(1, PING, Vec::new())], "a ping from here is answered here");
    agent.pass(100 * PING_INTERVAL_MS).unwrap();
    assert_eq!(agent.at_server(), []);
}

#[test]
fn answer_for_a_closed_connection_is_dropped() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let leaver = agent.open();
    agent.ask(leaver, 1, GET, b"secret").unwrap();
    agent.multiplexer.local_close(agent.now, leaver);
    let next = agent.open();
    assert_eq!(leaver.slot(), next.slot(), "the test needs a reused slot");
    agent.ask(next, 1, GET, b"own").unwrap();
    let asked = agent.at_server();
    agent.answer(&asked[0], b"the leaver's").unwrap();
    assert_eq!(agent.at(next), []);
    agent.answer(&asked[1], b"own").unwrap();
    assert_eq!(agent.at(next), [(1, GET, b"own".to_vec())]);
    assert_eq!(agent.at(leaver), []);
}

#[test]
fn malformed_request_closes_only_its_own_connection() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let id = agent.open();
    assert!(matches!(agent.ask(id, 1, ADD, &[0; 7]), Err(LocalCloseReason::Corruption(_))));
    let other = agent.open();
    assert!(matches!(agent.send(other, b"\x00\x12"), Err(LocalCloseReason::Corruption(_))));
    assert_eq!(agent.at_server(), []);
}

#[test]
fn out_of_range_request_is_answered_by_the_agent() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let id = agent.open();
    let mut too_long = add(b"id", b"session");
    too_long[..4].copy_from_slice(&604_800_001_u32.to_be_bytes());
    agent.ask(id, 1, ADD, &too_long).unwrap();
    agent.ask(id, 2, ADD, &add(&[], b"session")).unwrap();
    agent.ask(id, 3, ADD, &add(b"id", b"")).unwrap();
    agent.ask(id, 4, GET, &[]).unwrap();
    agent.ask(id, 5, GET, &[1; 65]).unwrap();
    let statuses: Vec<Vec<u8>> = agent.at(id).into_iter().map(|(_, _, data)| data).collect();
    assert_eq!(statuses, [[102], [103], [100], [1], [1]]);
    assert_eq!(agent.at_server(), []);
}

#[test]
fn requests_in_flight_per_connection_are_limited() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let (greedy, modest) = (agent.open(), agent.open());
    let mut bytes = Vec::new();
    for uid in 0..LOCAL_IN_FLIGHT_MAX as u32 + 2 {
        write_message(&mut bytes, MessageHead::request(uid, GET), b"x");
    }
    agent.send(greedy, &bytes).unwrap();
    let asked = agent.at_server();
    assert_eq!(asked.len(), LOCAL_IN_FLIGHT_MAX);
    assert!(!agent.wants_input(greedy));
    agent.ask(modest, 1, GET, b"y").unwrap();
    assert_eq!(agent.at_server().len(), 1, "another connection had to wait");

    agent.answer(&asked[0], b"session").unwrap();
    assert_eq!(agent.at(greedy).len(), 1);
    assert_eq!(agent.at_server().len(), 1, "an answer frees capacity for one request");
    assert!(!agent.wants_input(greedy));
    agent.answer(&asked[1], b"session").unwrap();
    agent.at(greedy);
    assert_eq!(agent.at_server().len(), 1);
    assert!(agent.wants_input(greedy));
}

#[test]
fn server_that_does_not_read_stops_local_reads() {
    let mut agent = MultiplexerFixture::linked(5_000, 0, 1);
    let session = vec![9; SESSION_BYTES_MAX - 8 - 2];
    let mut asking = Vec::new();
    'full: loop {
        let id = agent.open();
        asking.push(id);
        for uid in 0..LOCAL_IN_FLIGHT_MAX as u32 {
            agent.ask(id, uid, ADD, &add(b"id", &session)).unwrap();
            if !agent.wants_input(id) {
                break 'full;
            }
        }
    }
    let queued = agent.multiplexer.link_poll_output().len();
    assert!(queued < LINK_OUTBOX_BYTES_MAX + SESSION_BYTES_MAX + 16 * (14 + FRAME_DATA_BYTES_MAX));
    let waiting = *asking.last().expect("one");
    let late = agent.open();
    agent.ask(late, 1, GET, b"x").unwrap();
    assert!(!agent.wants_input(late));

    agent.multiplexer.link_wrote(agent.now, queued);
    assert_eq!(agent.attention(), [waiting, late]);
    for id in [waiting, late] {
        agent.multiplexer.local_poll_output(agent.now, id);
        assert!(agent.wants_input(id));
    }
    assert!(!agent.multiplexer.link_poll_output().is_empty());

    agent.multiplexer.link_close(agent.now);
    let answers: usize = asking.iter().map(|id| agent.at(*id).len()).sum();
    assert!(answers > 100);
    assert_eq!(agent.at(late), [(1, GET, DISCONNECTED.to_vec())]);
}

#[test]
fn idle_connection_closes_unless_a_request_is_in_flight() {
    let mut agent = MultiplexerFixture::linked(0, 1_000, 1);
    let id = agent.open();
    assert_eq!(agent.multiplexer.local_deadline(id), Some(agent.now.after_ms(1_000)));
    agent.ask(id, 1, GET, b"a").unwrap();
    assert_eq!(agent.multiplexer.local_deadline(id), Some(agent.now.after_ms(1_000)), "the next look");
    let asked = agent.at_server();
    agent.pass(4_000).unwrap();
    assert_eq!(agent.check(agent.now, id), Ok(()));
    agent.answer(&asked[0], b"session").unwrap();
    assert_eq!(agent.at(id).len(), 1);
    agent.pass(999).unwrap();
    assert_eq!(agent.check(agent.now, id), Ok(()));
    agent.pass(1).unwrap();
    assert_eq!(agent.check(agent.now, id), Err(LocalCloseReason::Idle));
}

#[test]
fn incomplete_message_or_unread_answer_closes_a_connection() {
    let mut agent = MultiplexerFixture::linked(0, 0, 1);
    let (half, deaf) = (agent.open(), agent.open());
    agent.send(half, &[0, 0x11, 0]).unwrap();
    let since = agent.now;
    agent.now = agent.now.after_ms(10_000);
    agent.send(half, &[0]).unwrap();
    assert_eq!(agent.multiplexer.local_deadline(half), Some(since.after_ms(LOCAL_READ_TIMEOUT_MS)));
    let end = since.after_ms(LOCAL_READ_TIMEOUT_MS);
    assert_eq!(agent.check(end, half), Err(LocalCloseReason::ReadTimeout));

    agent.ask(deaf, 1, PING, &[]).unwrap();
    agent.multiplexer.local_wrote(agent.now, deaf, 3);
    let end = agent.now.after_ms(LOCAL_WRITE_TIMEOUT_MS);
    assert_eq!(agent.multiplexer.local_deadline(deaf), Some(end));
    assert_eq!(agent.check(end, deaf), Err(LocalCloseReason::WriteTimeout));
}

#[test]
fn wrong_answer_of_the_server_closes_the_link() {
    let mut agent = MultiplexerFixture::linked(0, 0, 1);
    let id = agent.open();
    agent.ask(id, 1, GET, b"a").unwrap();
    let mut asked = agent.at_server().remove(0);
    asked.head.operation = HAVE;
    assert_eq!(agent.answer(&asked, OK), Err(LinkError::OtherOperation));

    let mut agent = MultiplexerFixture::linked(0, 0, 1);
    agent.multiplexer.link_handle_input(agent.now, &[1]);
    assert!(matches!(agent.link_or_error(), Err(LinkError::Corruption(_))));
}

#[test]
fn a_server_may_ping_and_ask_to_reconnect() {
    let mut agent = MultiplexerFixture::linked(0, 0, 1);
    let mut bytes = Vec::new();
    write_message(&mut bytes, MessageHead::request(77, PING), &[]);
    agent.multiplexer.link_handle_input(agent.now, &bytes);
    agent.link_or_error().unwrap();
    let output = agent.multiplexer.link_poll_output().to_vec();
    let mut reader = MessageReader::new(Some(Direction::Response));
    let answer = reader.next(&mut output.as_slice()).unwrap().map(Message::from).expect("an answer");
    assert_eq!((answer.head.uid, answer.head.operation, answer.data.len()), (77, PING, 0));

    bytes.clear();
    write_message(&mut bytes, MessageHead::request(78, Operation::Link(LinkOperation::GoAway)), &[]);
    agent.multiplexer.link_handle_input(agent.now, &bytes);
    assert_eq!(agent.link_or_error(), Err(LinkError::GoAway));
}
