//! Traffic records, kept until they are printed.

use dc_snoop::decode::{DecodedLines, DecodedMessage, MessageKind, Redaction};
use dc_snoop::observe::{Endpoint, LineEvent, MatchedRequest, MessageEvent, ObservedEvent};
use libdc::id::LockKey;
use libdc::wire::frame::{DecodeError, Direction};
use libdc::wire::message::{Message, MessageRef};
use std::time::Duration;

/// Something that happened on a connection.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TrafficRecord {
    pub(crate) at: Duration,
    /// The connection, counted from 1.
    pub(crate) connection: u64,
    pub(crate) what: RecordKind,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RecordKind {
    /// A connection was accepted.
    Opened {
        from: String,
    },
    Message(Box<MessageRecord>),
    /// The bytes of a direction ceased to be frames.
    Corrupt {
        sender: Endpoint,
        corruption: DecodeError,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Undecodable bytes.
    Raw {
        sender: Endpoint,
        len: usize,
        bytes: Option<Vec<u8>>,
    },
    /// A request or an answer of the line protocol.
    Text(Box<LineRecord>),
    Tls {
        sender: Endpoint,
    },
    /// Bytes that are not in the capture.
    Gap {
        sender: Endpoint,
        count: u64,
    },
    /// The connection to the server failed.
    Refused {
        why: String,
    },
    Closed {
        how: ConnectionClose,
        unanswered: usize,
        unfinished: [(Endpoint, usize); 2],
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct MessageRecord {
    pub(crate) sender: Endpoint,
    pub(crate) message: Message,
    /// Its frames, if they are to be dumped.
    pub(crate) raw: Option<Vec<u8>>,
    pub(crate) answers: Option<MatchedRequest>,
    /// Whether the line of the request, which has the id or the key, is not shown.
    pub(crate) show_subject: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct LineRecord {
    pub(crate) sender: Endpoint,
    pub(crate) direction: Direction,
    /// Its lines as received.
    pub(crate) raw: Vec<u8>,
    /// Whether they are to be dumped.
    pub(crate) dump: bool,
    pub(crate) answers: Option<MatchedRequest>,
    /// Whether the line of the request, which has the key, is not shown.
    pub(crate) show_subject: bool,
}

/// The leading `bytes` of a malformed header that may be shown: those behind the faulty one may be
/// session data.
pub(crate) fn shown_of_corrupt(bytes: &[u8], corruption: DecodeError, secrets: Redaction) -> &[u8] {
    let shown = match secrets {
        Redaction::Shown => bytes.len(),
        Redaction::Hidden => bytes.len().min(corruption.offset() + 1),
    };
    &bytes[..shown]
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionClose {
    /// Both ends closed it.
    Orderly,
    /// This end reset it.
    Reset(Endpoint),
    /// It was still open when the program, or the capture, ended.
    Cut,
}

impl MessageRecord {
    pub(crate) fn as_ref(&self) -> MessageRef<'_> {
        MessageRef { head: self.message.head, data: &self.message.data }
    }

    /// The session that the message, or the request it answers, is about.
    pub(crate) fn id(&self) -> Option<&[u8]> {
        let asked = self.answers.as_ref().and_then(|answered| answered.id.as_deref());
        DecodedMessage::decode(self.as_ref()).id().or(asked)
    }

    /// The lock that the message, or the request it answers, is about.
    pub(crate) fn key(&self) -> Option<&str> {
        let asked = self.answers.as_ref().and_then(|answered| answered.key.as_deref());
        DecodedMessage::decode(self.as_ref()).key().map(LockKey::as_str).or(asked)
    }
}

impl LineRecord {
    pub(crate) fn content(&self) -> DecodedLines<'_> {
        DecodedLines::decode(self.direction, &self.raw)
    }

    /// The lock that it, or the request it answers, is about.
    pub(crate) fn key(&self) -> Option<&str> {
        let asked = self.answers.as_ref().and_then(|answered| answered.key.as_deref());
        self.content().key().map(LockKey::as_str).or(asked)
    }

    /// The kind of the record, or of the request it answers.
    pub(crate) fn topic(&self) -> MessageKind {
        let asked = self.answers.as_ref().map(|answered| answered.topic);
        self.content().command().map(MessageKind::Command).or(asked).unwrap_or(MessageKind::Text)
    }
}

impl RecordKind {
    /// Copies an event; `keep_bytes` keeps its bytes for a dump.
    pub(crate) fn new(
        sender: Endpoint,
        event: ObservedEvent<'_>,
        keep_bytes: bool,
        show_subject: bool,
    ) -> Self {
        match event {
            ObservedEvent::Message(MessageEvent { message, raw, answers }) => {
                let raw = keep_bytes.then(|| raw.to_vec());
                let message = Message::from(message);
                Self::Message(Box::new(MessageRecord { sender, message, raw, answers, show_subject }))
            }
            ObservedEvent::Corrupt { corruption, offset, bytes } => {
                Self::Corrupt { sender, corruption, offset, bytes: bytes.to_vec() }
            }
            ObservedEvent::Raw(bytes) => {
                Self::Raw { sender, len: bytes.len(), bytes: keep_bytes.then(|| bytes.to_vec()) }
            }
            ObservedEvent::Text(LineEvent { direction, raw, answers }) => {
                let (raw, dump) = (raw.to_vec(), keep_bytes);
                Self::Text(Box::new(LineRecord { sender, direction, raw, dump, answers, show_subject }))
            }
            ObservedEvent::Tls => Self::Tls { sender },
        }
    }
}

impl TrafficRecord {
    /// About how much memory it takes.
    pub(crate) fn cost(&self) -> usize {
        let held = match &self.what {
            RecordKind::Message(message) => {
                let raw = message.raw.as_ref().map_or(0, Vec::len);
                size_of::<MessageRecord>() + message.message.data.len() + raw
            }
            RecordKind::Corrupt { bytes, .. } => bytes.len(),
            RecordKind::Raw { bytes, .. } => bytes.as_ref().map_or(0, Vec::len),
            RecordKind::Text(text) => size_of::<LineRecord>() + text.raw.len(),
            _ => 0,
        };
        size_of::<Self>() + held
    }
}
