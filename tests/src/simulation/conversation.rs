//! An application's connection to its agent: the requests sent on it, and the behaviour expected of it.

use super::agent::SimAgent;
use super::history::{History, ObservedOutcome};
use super::network::{Network, NetworkEnd};
use super::pipe::Incoming;
use super::planted_bug::AnswerTamperer;
use super::random::SeededRng;
use super::request::{ExpectedAnswer, SimRequest};
use super::violation::Violation;
use libdc::limits::FRAME_HEADER_BYTES;
use libdc::proto::agent::local::LocalCloseReason;
use libdc::proto::outbox::Outbox;
use libdc::time::Time;
use libdc::wire::frame::{DecodeError, Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::message::{Message, MessageReader, write_message};
use std::collections::VecDeque;

/// A connection to the agent.
pub(crate) struct SessionConnection {
    pub(crate) end: NetworkEnd,
    reader: MessageReader,
    unread: Vec<u8>,
    outgoing: Outbox,
    /// Bytes of requests sent, and of answers read.
    pub(crate) asked: u64,
    received: u64,
    pub(crate) open: VecDeque<SentSession>,
    deaf_until: Time,
    was_deaf: bool,
    pub(crate) manner: ConnectionExpectation,
    tamperer: AnswerTamperer,
}

/// An unanswered request.
pub(crate) struct SentSession {
    uid: u32,
    code: Operation,
    pub(crate) operation: usize,
    expects: ExpectedAnswer,
    /// Its start and end offsets in the stream of requests.
    begin: u64,
    end: u64,
}

/// The expected behaviour of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionExpectation {
    /// Carries requests and answers.
    Good,
    /// Answers still arrive; no more requests are sent.
    Ending,
    /// As `Ending`, and the write side has been closed.
    Ended,
    /// The agent closes it, because it was sent malformed bytes.
    Spoiled,
}

impl SessionConnection {
    /// A connection that has carried nothing yet.
    pub(crate) fn new(end: NetworkEnd, tamperer: AnswerTamperer) -> Self {
        Self {
            end,
            reader: MessageReader::new(Some(Direction::Response)),
            unread: Vec::new(),
            outgoing: Outbox::new(),
            asked: 0,
            received: 0,
            open: VecDeque::new(),
            deaf_until: Time::default(),
            was_deaf: false,
            manner: ConnectionExpectation::Good,
            tamperer,
        }
    }

    /// Queues a request.
    pub(crate) fn ask(&mut self, request: &SimRequest, uid: u32, patch_level: u16, operation: usize) {
        let outgoing = self.outgoing.buffer();
        let before = outgoing.len();
        let head = MessageHead { patch_level, ..MessageHead::request(uid, request.operation) };
        write_message(outgoing, head, &request.data);
        let begin = self.asked;
        self.asked += (outgoing.len() - before) as u64;
        let (code, expects, end) = (request.operation, request.expects, self.asked);
        self.open.push_back(SentSession { uid, code, operation, expects, begin, end });
    }

    /// Whether nothing is left to write and no answer is pending.
    pub(crate) fn is_idle(&self) -> bool {
        self.open.is_empty() && self.outgoing.is_empty()
    }

    /// Sends bytes that start no valid message.
    pub(crate) fn send_garbage(&mut self, random: &mut SeededRng) {
        self.outgoing.buffer().extend(garbage(random));
        self.manner = ConnectionExpectation::Spoiled;
    }

    /// Sends a truncated message.
    pub(crate) fn send_half_a_message(&mut self, random: &mut SeededRng) {
        self.outgoing.buffer().extend(half_message(random));
        self.manner = ConnectionExpectation::Spoiled;
    }

    /// Stops reading until this time.
    pub(crate) const fn be_deaf(&mut self, until: Time) {
        self.deaf_until = until;
        self.was_deaf = true;
    }

    /// Writes until the connection would block.
    pub(crate) fn write(&mut self, net: &mut Network) {
        if !self.outgoing.is_empty() {
            match net.write(self.end, self.outgoing.pending()) {
                Ok(count) => self.outgoing.advance(count),
                // Earlier answers may still be readable.
                Err(_) => self.outgoing.clear(),
            }
        }
        if self.outgoing.is_empty() && self.manner == ConnectionExpectation::Ending {
            self.manner = ConnectionExpectation::Ended;
            net.finish(self.end);
        }
    }

    /// Appends the received answers to `answers`, each with its end in the stream. Returns whether the
    /// connection stays open.
    ///
    /// # Errors
    /// [`DecodeError`] if an answer is malformed.
    pub(crate) fn read(
        &mut self,
        net: &mut Network,
        answers: &mut Vec<(Message, u64)>,
    ) -> Result<bool, DecodeError> {
        if self.deaf_until > net.now() {
            return Ok(true);
        }
        let before = self.unread.len();
        let incoming = loop {
            match net.read(self.end, &mut self.unread) {
                Incoming::Bytes(_) => {}
                incoming => break incoming,
            }
        };
        self.received += (self.unread.len() - before) as u64;
        let mut input = self.unread.as_slice();
        while let Some(answer) = self.reader.next(&mut input)? {
            let answer = Message::from(answer);
            let end = self.received - input.len() as u64;
            answers.extend(self.tamperer.pass(answer).into_iter().map(|answer| (answer, end)));
        }
        let used = self.unread.len() - input.len();
        self.unread.drain(..used);
        Ok(incoming == Incoming::Nothing)
    }

    /// Matches an answer to its operation and classifies it; `None` is DISCONNECTED.
    ///
    /// # Errors
    /// The [`Violation`] if the answer is not allowed.
    pub(crate) fn accept(
        &mut self,
        net: &mut Network,
        history: &History,
        answer: &Message,
        end: u64,
        from: (usize, &SimAgent),
    ) -> Result<(usize, Option<ObservedOutcome>), Violation> {
        let (application, agent) = from;
        let uid = answer.head.uid;
        let place = self.open.iter().position(|it| it.uid == uid);
        let Some(request) = place.and_then(|place| self.open.remove(place)) else {
            return Err(Violation::NotAsked { application, uid });
        };
        let operation = request.operation;
        if answer.head.operation != request.code {
            return Err(Violation::OtherOperation { operation });
        }
        let origin = || history.origin(operation, &answer.data);
        let outcome = request.expects.read(operation, &answer.data, origin)?;
        self.check_times(net, agent, &request, end, outcome.is_none())?;
        Ok((operation, outcome))
    }

    /// Finds a request that should have been answered before the agent closed the connection.
    pub(crate) fn abandoned(&self, net: &mut Network) -> Option<Violation> {
        let number = self.end.connection;
        let was_held = net.was_held(number);
        let was_cut = net.was_cut(number);
        let witness = net.witness(number);
        let fault = witness.fault;
        let excused = was_cut
            || self.manner == ConnectionExpectation::Spoiled
            || match fault {
                Some(LocalCloseReason::WriteTimeout) => was_held || self.was_deaf,
                Some(LocalCloseReason::ReadTimeout) => was_held,
                Some(
                    LocalCloseReason::PeerFinished
                    | LocalCloseReason::Drained
                    | LocalCloseReason::Idle
                    | LocalCloseReason::Corruption(_)
                    | LocalCloseReason::Tls
                    | LocalCloseReason::LineTooLong(_),
                )
                | None => false,
            };
        // A partial request is enough for the connection not to be idle.
        let reaches = |request: &SentSession| {
            if fault == Some(LocalCloseReason::Idle) { request.begin + 1 } else { request.end }
        };
        let was_handed = |request: &&SentSession| witness.handed.reached(reaches(request)).is_some();
        let request = self.open.iter().find(was_handed).filter(|_| !excused)?;
        Some(Violation::Abandoned { operation: request.operation, fault })
    }

    /// Checks the timing of an answer: not later than the timeout, and DISCONNECTED neither too early nor too
    /// late.
    fn check_times(
        &self,
        net: &mut Network,
        agent: &SimAgent,
        request: &SentSession,
        answer_end: u64,
        disconnected: bool,
    ) -> Result<(), Violation> {
        let timeout_ms = agent.timeout_ms();
        let operation = request.operation;
        let witness = net.witness(self.end.connection);
        let (Some(handed), Some(answered)) =
            (witness.handed.reached(request.end), witness.answered.reached(answer_end))
        else {
            return Ok(());
        };
        let after_ms = answered.at.ms_since(handed.at);
        if let Some(taken) = witness.taken.reached(request.end) {
            let leapt_ms = answered.leapt_ms.saturating_sub(taken.leapt_ms);
            let after_ms = answered.at.ms_since(taken.at).saturating_sub(leapt_ms);
            if timeout_ms > 0 && after_ms > timeout_ms {
                return Err(Violation::Late { operation, after_ms, timeout_ms });
            }
            let was_up = handed.link_up || taken.link_up || taken.at > handed.at;
            let at_once = after_ms == 0 && disconnected;
            if !was_up && !at_once && request.expects != ExpectedAnswer::Nothing {
                return Err(Violation::Delayed { operation, after_ms });
            }
        }
        let timed_out = timeout_ms > 0 && after_ms >= timeout_ms;
        let was_down = !handed.link_up || answered.link_losses != handed.link_losses;
        if disconnected && !timed_out && !was_down {
            return Err(Violation::NeedlesslyDisconnected { operation, after_ms });
        }
        Ok(())
    }
}

/// Bytes that start no valid message.
fn garbage(random: &mut SeededRng) -> Vec<u8> {
    if random.chance(500) {
        let mut bytes = vec![0; random.between(1..=60) as usize];
        random.fill(&mut bytes);
        // Nor a line of the line protocol.
        bytes[0] |= 0x80;
        return bytes;
    }
    let mut bytes = have();
    let (offset, wrong) = random.pick(&[(1, 0x12), (4, 2), (9, 9), (9, 1), (10, 99), (11, 7), (12, 0x7f)]);
    bytes[offset] = wrong;
    bytes
}

/// A truncated valid message.
fn half_message(random: &mut SeededRng) -> Vec<u8> {
    let mut bytes = have();
    bytes.truncate(random.between(1..=FRAME_HEADER_BYTES as u64 + 20) as usize);
    bytes
}

fn have() -> Vec<u8> {
    let mut bytes = Vec::new();
    let operation = Operation::Session(SessionOperation::Have);
    write_message(&mut bytes, MessageHead::request(1, operation), &[3; 32]);
    bytes
}
