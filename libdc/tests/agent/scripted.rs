//! A multiplexer driven by hand, and the server's end of its link.

use libdc::id::{Grant, LinkId, LockKey, Token};
use libdc::proto::agent::local::{LocalCloseReason, LocalId};
use libdc::proto::agent::multiplexer::{LinkCloseReason, Multiplexer, MultiplexerSettings};
use libdc::proto::handshake::LinkIdentity;
use libdc::proto::link::{LinkError, LinkState};
use libdc::proto::machine::MachineState;
use libdc::secret::AuthToken;
use libdc::time::Time;
use libdc::wire::frame::{Direction, LinkOperation, LockOperation, MessageHead, Operation, SessionOperation};
use libdc::wire::link::{Claim, Hello, Welcome};
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest, LockStatus};
use libdc::wire::message::{Message, MessageReader, write_message};

pub(crate) const LINK_ID: [u8; 16] = [0x5a; 16];
pub(crate) const GRACE_MS: u32 = 10_000;
pub(crate) const OK: &[u8] = &[LockStatus::Ok as u8];

pub(crate) const HAVE: Operation = Operation::Session(SessionOperation::Have);
pub(crate) const GET: Operation = Operation::Session(SessionOperation::Get);
pub(crate) const HELLO: Operation = Operation::Link(LinkOperation::Hello);
pub(crate) const CLAIM: Operation = Operation::Link(LinkOperation::Claim);
pub(crate) const OPEN: Operation = Operation::Link(LinkOperation::Open);
pub(crate) const PING: Operation = Operation::Link(LinkOperation::Ping);
pub(crate) const DETACH: Operation = Operation::Link(LinkOperation::Detach);
pub(crate) const BYE: Operation = Operation::Link(LinkOperation::Bye);
pub(crate) const GOAWAY: Operation = Operation::Link(LinkOperation::GoAway);
pub(crate) const ACQUIRE: Operation = Operation::Lock(LockOperation::Acquire);
pub(crate) const CANCEL: Operation = Operation::Lock(LockOperation::Cancel);
pub(crate) const RELEASE: Operation = Operation::Lock(LockOperation::Release);

/// A multiplexer, the stream from it to the server, and a clock.
pub(crate) struct ScriptedMultiplexer {
    pub(crate) multiplexer: Multiplexer,
    pub(crate) received: MessageReader,
    pub(crate) now: Time,
}

impl ScriptedMultiplexer {
    pub(crate) fn new(idle_ms: u64, auth_token: Option<&[u8]>) -> Self {
        let settings = MultiplexerSettings { timeout_ms: 2_000, idle_ms };
        let auth_token = auth_token.map(|token| AuthToken::new(token).expect("a token"));
        let introduction = LinkIdentity { link_id: LinkId::new(LINK_ID), auth_token };
        let multiplexer = Multiplexer::new(settings, introduction);
        let received = MessageReader::link(Direction::Request);
        Self { multiplexer, received, now: Time::from_ms(1_000) }
    }

    /// With a link to a server that serves locks.
    pub(crate) fn linked() -> Self {
        let mut agent = Self::new(0, None);
        agent.connect();
        agent
    }

    /// Opens the link as far as HELLO, and returns that message.
    pub(crate) fn handshake(&mut self) -> Message {
        self.received = MessageReader::link(Direction::Request);
        self.multiplexer.link_connected(self.now, &[7; 32]);
        let probe = self.at_server().pop().expect("a probe");
        assert_eq!(probe.head.operation, HAVE);
        self.answer(&probe, &[1]).expect("an answer to the probe");
        assert_eq!(self.multiplexer.link_phase(), LinkState::Resuming);
        let mut greeting = self.at_server();
        assert_eq!(greeting.len(), 1, "a delayed message must not open a link that is resumed elsewhere");
        greeting.remove(0)
    }

    /// Opens the link, with HELLO answered. Returns the messages of its handshake: HELLO, the claims, OPEN.
    pub(crate) fn begin(&mut self) -> Vec<Message> {
        let hello = self.handshake();
        self.answer(&hello, &welcome(LockStatus::Ok)).expect("a welcome");
        [vec![hello], self.at_server()].concat()
    }

    /// Opens a link on which nothing is claimed.
    pub(crate) fn connect(&mut self) {
        let opening = self.begin();
        let operations: Vec<Operation> = opening.iter().map(|message| message.head.operation).collect();
        assert_eq!(operations, [HELLO, OPEN]);
        assert_eq!(self.multiplexer.link_phase(), LinkState::Resuming);
        self.answer(&opening[1], OK).expect("an open link");
        assert_eq!(self.multiplexer.link_phase(), LinkState::Up { patch_level: 1 });
    }

    pub(crate) fn open(&mut self) -> LocalId {
        self.multiplexer.local_open(self.now)
    }

    pub(crate) fn close(&mut self, id: LocalId) {
        self.multiplexer.local_close(self.now, id);
    }

    pub(crate) fn lose_link(&mut self) {
        self.multiplexer.link_close(self.now);
    }

    /// A local connection sends these bytes.
    pub(crate) fn send(&mut self, id: LocalId, bytes: &[u8]) -> Result<(), LocalCloseReason> {
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
    pub(crate) fn check(&mut self, id: LocalId) -> Result<(), LocalCloseReason> {
        self.multiplexer.local_handle_timeout(self.now, id);
        self.open_or_reason(id)
    }

    pub(crate) fn wants_input(&self, id: LocalId) -> bool {
        matches!(self.multiplexer.local_state(id), MachineState::Open { wants_input: true, .. })
    }

    /// Bytes come from the server.
    pub(crate) fn receive(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        self.multiplexer.link_handle_input(self.now, bytes);
        self.link_or_error()
    }

    /// The error for which the link is closed, if it is.
    fn link_or_error(&self) -> Result<(), LinkError> {
        match self.multiplexer.link_state() {
            MachineState::Closed(LinkCloseReason::Error(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// A local connection sends these lines.
    pub(crate) fn text(&mut self, id: LocalId, lines: &str) {
        self.send(id, lines.as_bytes()).expect("lines are never a fault at once");
    }

    /// A local connection asks in a frame.
    pub(crate) fn ask(&mut self, id: LocalId, uid: u32, action: LockAction<'_>) {
        let mut bytes = Vec::new();
        LockRequest { owner: 0, action }.write(uid, &mut bytes);
        self.send(id, &bytes).expect("a good request");
    }

    pub(crate) fn message(
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

    /// The messages sent to the server since the last call.
    pub(crate) fn at_server(&mut self) -> Vec<Message> {
        let mut messages = Vec::new();
        let output = self.written(usize::MAX);
        let mut input = output.as_slice();
        while let Some(message) = self.received.next(&mut input).expect("the agent sends well") {
            messages.push(message.into());
        }
        assert!(input.is_empty());
        messages
    }

    /// The only message sent to the server since the last call.
    pub(crate) fn request(&mut self) -> Message {
        let mut messages = self.at_server();
        let last = messages.pop().expect("a request");
        assert_eq!(messages, []);
        last
    }

    /// Writes so many bytes to the server, if there are as many.
    pub(crate) fn written(&mut self, mut most: usize) -> Vec<u8> {
        let mut out = Vec::new();
        while !self.multiplexer.link_poll_output().is_empty() && most > 0 {
            let pending = self.multiplexer.link_poll_output();
            let count = pending.len().min(most);
            out.extend_from_slice(&pending[..count]);
            self.multiplexer.link_wrote(self.now, count);
            most -= count;
        }
        out
    }

    /// The server answers.
    pub(crate) fn answer(&mut self, request: &Message, data: &[u8]) -> Result<(), LinkError> {
        let mut bytes = Vec::new();
        write_message(&mut bytes, request.head.response(), data);
        self.receive(&bytes)
    }

    /// The server answers a request about a lock.
    pub(crate) fn reply(&mut self, request: &Message, answer: LockAnswer<'_>) {
        let mut bytes = Vec::new();
        answer.write(request.head, &mut bytes);
        self.receive(&bytes).expect("a good answer");
    }

    pub(crate) fn grant(&mut self, request: &Message, fence: u64, lease_ms: u64) {
        let enqueue = request.head.operation == Operation::Lock(LockOperation::Enqueue);
        let status = if enqueue { LockStatus::Acquired } else { LockStatus::Ok };
        let grant = Grant { token: token(fence), lease_ms };
        self.reply(request, LockAnswer::Grant { status, grant });
    }

    /// A local connection gets this lock.
    pub(crate) fn hold(&mut self, id: LocalId, name: &str, fence: u64, lease_ms: u64) {
        self.ask(id, 900, LockAction::Acquire { key: key(name), limit: 1, timeout_ms: 0, lease_ms });
        let request = self.request();
        self.grant(&request, fence, lease_ms);
        assert_eq!(self.frames_at(id).len(), 1);
    }

    /// The bytes sent to a local connection since the last call.
    pub(crate) fn at(&mut self, id: LocalId) -> Vec<u8> {
        let mut out = Vec::new();
        loop {
            let pending = self.multiplexer.local_poll_output(self.now, id);
            if pending.is_empty() {
                return out;
            }
            let count = pending.len();
            out.extend_from_slice(pending);
            self.multiplexer.local_wrote(self.now, id, count);
        }
    }

    pub(crate) fn lines_at(&mut self, id: LocalId) -> String {
        String::from_utf8(self.at(id)).expect("text")
    }

    /// Uid and data of the frames that a local connection has been sent.
    pub(crate) fn frames_at(&mut self, id: LocalId) -> Vec<(u32, Vec<u8>)> {
        let output = self.at(id);
        let mut reader = MessageReader::new(Some(Direction::Response));
        let mut input = output.as_slice();
        let mut answers = Vec::new();
        while let Some(message) = reader.next(&mut input).expect("the agent answers well") {
            answers.push((message.head.uid, message.data.to_vec()));
        }
        answers
    }

    /// Lets time pass, handling each deadline of the link.
    pub(crate) fn pass(&mut self, ms: u64) -> Result<(), LinkError> {
        let end = self.now.after_ms(ms);
        while let Some(deadline) = self.multiplexer.link_deadline().filter(|deadline| *deadline <= end) {
            self.now = deadline.max(self.now);
            self.multiplexer.link_handle_timeout(self.now);
            self.link_or_error()?;
        }
        self.now = end;
        Ok(())
    }
}

pub(crate) fn key(name: &str) -> LockKey<'_> {
    LockKey::new(name).expect("a key")
}

pub(crate) fn token(fence: u64) -> Token {
    Token::new(fence, 0xfeed)
}

/// The token in the line protocol.
pub(crate) fn hex(fence: u64) -> String {
    String::from_utf8(token(fence).to_hex().to_vec()).expect("digits")
}

pub(crate) fn acquire(name: &str, timeout_ms: u64) -> LockAction<'_> {
    LockAction::Acquire { key: key(name), limit: 1, timeout_ms, lease_ms: 0 }
}

pub(crate) fn welcome(status: LockStatus) -> Vec<u8> {
    let mut bytes = Vec::new();
    let welcome = Welcome { status, grace_ms: GRACE_MS, remembered: 0 };
    welcome.write(MessageHead::request(0, HELLO), &mut bytes);
    bytes.split_off(14)
}

/// The lock request in a message.
pub(crate) fn lock(message: &Message) -> LockRequest<'_> {
    let Operation::Lock(operation) = message.head.operation else {
        panic!("{message:?} is not about a lock");
    };
    LockRequest::parse(operation, &message.data).expect("well formed").expect("sensible")
}

pub(crate) fn hello(message: &Message) -> Hello<'_> {
    assert_eq!(message.head.operation, HELLO);
    Hello::parse(&message.data).expect("well formed")
}

/// Owners and fences of the locks that a message claims.
pub(crate) fn claims(message: &Message) -> Vec<(u64, u64)> {
    assert_eq!(message.head.operation, CLAIM);
    let claims = Claim::parse_all(&message.data).map(|claim| claim.expect("well formed").expect("sensible"));
    claims.map(|claim| (claim.owner, claim.token.fence())).collect()
}
