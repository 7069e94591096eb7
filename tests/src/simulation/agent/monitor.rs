//! Monitors the traffic between an agent and its server, independently of the machines on both sides.

use libdc::limits::FRAME_HEADER_BYTES;
use libdc::wire::frame::{Direction, LinkOperation, MessageHead, Operation};
use libdc::wire::link::Welcome;
use libdc::wire::lock::LockStatus;
use libdc::wire::message::{MessageReader, write_message};

const HELLO: Operation = Operation::Link(LinkOperation::Hello);

/// Monitors a link.
#[derive(Debug)]
pub(super) struct LinkMonitor {
    sent: HalfMonitor,
    /// Received bytes of the incomplete message.
    received: Vec<u8>,
    /// The last frame received was not the final one of its message.
    inside_message: bool,
    hello: Option<u32>,
    welcomed: bool,
    /// BYE was sent.
    pub(super) said_bye: bool,
}

#[derive(Debug)]
struct HalfMonitor {
    reader: MessageReader,
    unread: Vec<u8>,
}

impl Default for LinkMonitor {
    fn default() -> Self {
        let sent = HalfMonitor { reader: MessageReader::link(Direction::Request), unread: Vec::new() };
        Self {
            sent,
            received: Vec::new(),
            inside_message: false,
            hello: None,
            welcomed: false,
            said_bye: false,
        }
    }
}

impl LinkMonitor {
    /// Records bytes sent by the agent. Returns whether a message in them should have waited for the answer
    /// to HELLO.
    pub(super) fn sent(&mut self, bytes: &[u8]) -> bool {
        self.sent.unread.extend_from_slice(bytes);
        let mut input = self.sent.unread.as_slice();
        let mut early = false;
        while let Ok(Some(message)) = self.sent.reader.next(&mut input) {
            let head = message.head;
            match head.operation {
                _ if head.direction == Direction::Response => {}
                HELLO => self.hello = Some(head.uid),
                operation => {
                    early |= self.hello.is_some() && !self.welcomed;
                    self.said_bye |= operation == Operation::Link(LinkOperation::Bye);
                }
            }
        }
        let used = self.sent.unread.len() - input.len();
        self.sent.unread.drain(..used);
        early
    }

    /// Records bytes received by the agent.
    pub(super) fn received(&mut self, bytes: &[u8]) {
        self.received.extend_from_slice(bytes);
        let mut rest = self.received.as_slice();
        while let Some(header) = rest.first_chunk::<FRAME_HEADER_BYTES>() {
            let len = FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([header[12], header[13]]));
            if rest.len() < len {
                break;
            }
            let uid = u32::from_be_bytes([header[5], header[6], header[7], header[8]]);
            let is_answer = header[4] == 1;
            self.inside_message = header[11] == 0;
            self.welcomed |= is_answer && self.hello == Some(uid);
            rest = &rest[len..];
        }
        let used = self.received.len() - rest.len();
        self.received.drain(..used);
    }

    /// Whether no message is partially received.
    pub(super) const fn is_between_answers(&self) -> bool {
        self.received.is_empty() && !self.inside_message
    }

    /// The uid of HELLO, until it is answered.
    pub(super) fn unanswered_hello(&self) -> Option<u32> {
        self.hello.filter(|_| !self.welcomed)
    }
}

/// The answer to HELLO.
pub(super) fn welcome(uid: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let welcome = Welcome { status: LockStatus::Ok, grace_ms: 10_000, remembered: 0 };
    welcome.write(MessageHead::request(uid, HELLO), &mut bytes);
    bytes
}

/// A GOAWAY from a server.
pub(super) fn goaway() -> Vec<u8> {
    let mut bytes = Vec::new();
    let operation = Operation::Link(LinkOperation::GoAway);
    write_message(&mut bytes, MessageHead::request(0, operation), &[]);
    bytes
}
