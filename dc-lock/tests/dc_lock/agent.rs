//! A scripted agent on a separate Unix socket, driven message by message.

use crate::patience::{PATIENCE, with_timeout};
use libdc::id::{Grant, Token};
use libdc::wire::frame::{Direction, LinkOperation, MessageHead, Operation};
use libdc::wire::link::Welcome;
use libdc::wire::lock::{LockAnswer, LockStatus};
use libdc::wire::message::{Message, MessageReader, write_message};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The fence of every grant.
pub(crate) const FENCE: u64 = 1_234_567;

/// The lease of every grant, in milliseconds.
const LEASE_MS: u64 = 33_000;

/// The listener of a scripted agent, and its directory.
pub(crate) struct ScriptedAgent {
    listener: UnixListener,
    directory: TempDir,
    grace_ms: u32,
}

impl ScriptedAgent {
    pub(crate) fn new() -> Self {
        Self::with_grace_ms(10_000)
    }

    pub(crate) fn with_grace_ms(grace_ms: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(directory.path().join("socket")).unwrap();
        Self { listener, directory, grace_ms }
    }

    pub(crate) fn address(&self) -> String {
        format!("UNIX:{}", self.file("socket").display())
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn accept(&self) -> AgentConnection {
        let listener = self.listener.try_clone().unwrap();
        let stream = with_timeout("a connection", move || listener.accept().unwrap().0);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let reader = MessageReader::link(Direction::Request);
        AgentConnection { stream, reader, unread: Vec::new() }
    }

    /// A connection whose link is up.
    pub(crate) fn open(&self) -> AgentConnection {
        let mut connection = self.accept();
        let probe = connection.expect("HAVE").head;
        connection.answer(probe, &[1]);
        connection.welcome(LockStatus::Ok, self.grace_ms);
        connection.status("OPEN", LockStatus::Ok);
        connection
    }
}

/// The agent's end of a connection.
pub(crate) struct AgentConnection {
    stream: UnixStream,
    reader: MessageReader,
    unread: Vec<u8>,
}

impl AgentConnection {
    /// The next request other than a ping, which is answered; `None` when the connection was closed.
    pub(crate) fn next(&mut self) -> Option<Message> {
        loop {
            let mut input = self.unread.as_slice();
            let message = self.reader.next(&mut input).unwrap().map(Message::from);
            let used = self.unread.len() - input.len();
            self.unread.drain(..used);
            match message {
                Some(ping) if ping.head.operation == Operation::Link(LinkOperation::Ping) => {
                    self.answer(ping.head, &[]);
                }
                Some(message) => return Some(message),
                None => {
                    let mut bytes = [0; 4096];
                    match self.stream.read(&mut bytes) {
                        Ok(0) => return None,
                        Ok(count) => self.unread.extend_from_slice(&bytes[..count]),
                        // The system does not restart an interrupted read with a timeout.
                        Err(error) => assert_eq!(error.kind(), ErrorKind::Interrupted, "{error}"),
                    }
                }
            }
        }
    }

    /// Expects no input for this long.
    pub(crate) fn expect_silence(&mut self, span: Duration) {
        assert!(self.unread.is_empty());
        let end = Instant::now() + span;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.stream.set_read_timeout(Some(left)).unwrap();
            let error = self.stream.read(&mut [0]).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted), "{error}");
        }
        self.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    }

    /// The next request, which must be of this operation.
    pub(crate) fn expect(&mut self, operation: &str) -> Message {
        let message = self.next().expect("a request");
        assert_eq!(message.head.operation.name(), operation);
        message
    }

    pub(crate) fn answer(&mut self, request: MessageHead, data: &[u8]) {
        let mut out = Vec::new();
        write_message(&mut out, request.response(), data);
        self.send(&out);
    }

    /// Answers the next request, which must be of this operation, with a status.
    pub(crate) fn status(&mut self, operation: &str, status: LockStatus) {
        let head = self.expect(operation).head;
        self.answer(head, &[status as u8]);
    }

    /// Answers a HELLO. Returns the received bytes.
    pub(crate) fn welcome(&mut self, status: LockStatus, grace_ms: u32) -> Vec<u8> {
        let hello = self.expect("HELLO");
        let mut out = Vec::new();
        Welcome { status, grace_ms, remembered: 0 }.write(hello.head, &mut out);
        self.send(&out);
        hello.data
    }

    /// Grants the requested lock. Returns the received bytes.
    pub(crate) fn grant(&mut self) -> Vec<u8> {
        let asked = self.expect("ACQUIRE");
        let grant = Grant { token: Token::new(FENCE, 0xabc), lease_ms: LEASE_MS };
        let mut out = Vec::new();
        LockAnswer::Grant { status: LockStatus::Ok, grant }.write(asked.head, &mut out);
        self.send(&out);
        asked.data
    }

    /// Expects a release and a graceful close of the connection.
    pub(crate) fn expect_end(&mut self) {
        self.status("RELEASE", LockStatus::Ok);
        self.expect_bye();
    }

    /// Expects a graceful close of the connection.
    pub(crate) fn expect_bye(&mut self) {
        self.status("BYE", LockStatus::Ok);
        assert_eq!(self.next(), None);
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }
}
