//! One direction of a connection: splits its bytes into events.

use super::endpoint::Endpoint;
use super::unanswered::UnansweredRequests;
use libdc::limits::{FRAME_HEADER_BYTES, LINE_BYTES_MAX};
use libdc::wire::detect::Protocol;
use libdc::wire::frame::{DecodeError, Direction, Expected, FrameHeader, MessageHead};
use libdc::wire::line::{LineCommand, RequestLines};
use libdc::wire::lock::LockStatus;
use libdc::wire::message::MessageReader;

/// Longest answer of the line protocol that is kept: the statistics of all locks, the longest of them.
pub(super) const ANSWER_BYTES_MAX: usize = 16 << 20;
/// Buffers that have grown beyond this are given back after their message.
const IDLE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// How the bytes of a direction are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum StreamProtocol {
    #[default]
    Unknown,
    Frames,
    Text,
    Tls,
    /// Bytes were missed: waiting for input that begins with a frame, or with a line.
    Seeking,
    Corrupt,
}

impl StreamProtocol {
    pub(super) const fn detect(first: u8) -> Self {
        match Protocol::detect(first) {
            Protocol::Text => Self::Text,
            Protocol::Tls => Self::Tls,
            // The parser reports any other wrong first byte with the reason.
            Protocol::Frames | Protocol::Unknown(_) => Self::Frames,
        }
    }
}

/// An event found in the bytes.
pub(super) enum HalfEvent {
    Message,
    Text,
    Corrupt(DecodeError),
    Raw,
}

#[derive(Debug)]
pub(super) struct HalfStream {
    sender: Endpoint,
    pub(super) protocol: StreamProtocol,
    reader: MessageReader,
    /// The bytes of the incomplete message or lines, or of the last event.
    pub(super) raw: Vec<u8>,
    /// Bytes of `raw` in whole frames, which the reader has used, or in whole lines.
    pub(super) used: usize,
    /// Whether `raw` has been reported and is to be dropped.
    done: bool,
    /// Head and data of the last whole message.
    pub(super) head: Option<MessageHead>,
    pub(super) data: Vec<u8>,
    /// Bytes of this direction so far.
    pub(super) offset: u64,
    pub(super) asked: UnansweredRequests,
}

impl HalfStream {
    pub(super) fn new(sender: Endpoint) -> Self {
        Self {
            sender,
            protocol: StreamProtocol::default(),
            reader: Self::reader(sender),
            raw: Vec::new(),
            used: 0,
            done: false,
            head: None,
            data: Vec::new(),
            offset: 0,
            asked: UnansweredRequests::default(),
        }
    }

    /// Any connection may be a link, on which the server sends requests too.
    const fn reader(sender: Endpoint) -> MessageReader {
        MessageReader::link(match sender {
            Endpoint::Client => Direction::Request,
            Endpoint::Server => Direction::Response,
        })
    }

    /// Number of bytes of an incomplete message or lines.
    pub(super) fn unfinished(&self) -> usize {
        if self.done { 0 } else { self.raw.len() }
    }

    /// So many bytes were missed.
    pub(super) fn skip(&mut self, count: u64) {
        self.offset += count;
        self.clear();
        self.reader = Self::reader(self.sender);
        if matches!(self.protocol, StreamProtocol::Unknown | StreamProtocol::Frames | StreamProtocol::Text) {
            self.protocol = StreamProtocol::Seeking;
        }
    }

    /// Goes on reading if `input` begins with a frame or a line; the other direction is read as `other`.
    pub(super) fn seek(&mut self, other: StreamProtocol, input: &[u8]) {
        if other != StreamProtocol::Text && starts_with_frame(input) {
            self.protocol = StreamProtocol::Frames;
        } else if other != StreamProtocol::Frames && sender_of_text(input) == Some(self.sender) {
            self.protocol = StreamProtocol::Text;
        }
    }

    /// The next thing in the input, if it is whole.
    pub(super) fn next(&mut self, input: &mut &[u8]) -> Option<HalfEvent> {
        if self.done {
            self.clear();
        }
        if input.is_empty() {
            return None;
        }
        match (self.protocol, self.sender) {
            (StreamProtocol::Frames, _) => self.next_message(input),
            (StreamProtocol::Text, Endpoint::Client) => self.next_request(input),
            (StreamProtocol::Text, Endpoint::Server) => self.next_answer(input),
            (StreamProtocol::Tls, _) => {
                self.offset += input.len() as u64;
                *input = &[];
                None
            }
            (StreamProtocol::Unknown | StreamProtocol::Seeking | StreamProtocol::Corrupt, _) => {
                self.consume(input, input.len());
                self.done = true;
                Some(HalfEvent::Raw)
            }
        }
    }

    fn next_message(&mut self, input: &mut &[u8]) -> Option<HalfEvent> {
        while !input.is_empty() {
            // Never beyond the frame, so that `raw` is one message and the rest stays where it is.
            self.consume(input, self.missing());
            let mut rest = &self.raw[self.used..];
            match self.reader.next(&mut rest) {
                Ok(None) => self.used = self.raw.len() - rest.len(),
                Ok(Some(message)) => {
                    self.head = Some(message.head);
                    self.data.extend_from_slice(message.data);
                    self.done = true;
                    return Some(HalfEvent::Message);
                }
                Err(corruption) => {
                    self.used = self.raw.len() - rest.len();
                    self.protocol = StreamProtocol::Corrupt;
                    self.done = true;
                    return Some(HalfEvent::Corrupt(corruption));
                }
            }
        }
        None
    }

    /// Three lines; or as much of them as shows that one is too long, wherever the input was cut.
    fn next_request(&mut self, input: &mut &[u8]) -> Option<HalfEvent> {
        while !input.is_empty() {
            let line = self.raw.len() - self.used;
            // A carriage return may be followed by a line feed.
            let room = if line > LINE_BYTES_MAX { 1 } else { LINE_BYTES_MAX + 1 - line };
            self.take_line(input, room);
            match RequestLines::next(&mut &self.raw[..]) {
                Ok(None) => continue,
                Ok(Some(_)) => {}
                Err(_) => self.protocol = StreamProtocol::Corrupt,
            }
            self.done = true;
            return Some(HalfEvent::Text);
        }
        None
    }

    /// One line; or as much of it as is too long.
    fn next_answer(&mut self, input: &mut &[u8]) -> Option<HalfEvent> {
        self.take_line(input, ANSWER_BYTES_MAX - self.raw.len());
        if self.raw.len() == ANSWER_BYTES_MAX && self.used == 0 {
            self.protocol = StreamProtocol::Corrupt;
        }
        self.done = self.used > 0 || self.protocol == StreamProtocol::Corrupt;
        self.done.then_some(HalfEvent::Text)
    }

    /// Takes input up to the end of a line, but at most `room` bytes.
    fn take_line(&mut self, input: &mut &[u8], room: usize) {
        let reach = &input[..input.len().min(room)];
        let newline = reach.iter().position(|byte| *byte == b'\n');
        self.consume(input, newline.map_or(reach.len(), |at| at + 1));
        if newline.is_some() {
            self.used = self.raw.len();
        }
    }

    /// Bytes to the end of the header or, once that is here, of the frame.
    fn missing(&self) -> usize {
        let frame = &self.raw[self.used..];
        let end = match frame.first_chunk::<FRAME_HEADER_BYTES>() {
            Some(&[.., high, low]) => FRAME_HEADER_BYTES + usize::from(u16::from_be_bytes([high, low])),
            None => FRAME_HEADER_BYTES,
        };
        end - frame.len()
    }

    fn consume(&mut self, input: &mut &[u8], count: usize) {
        let (taken, rest) = input.split_at(count.min(input.len()));
        self.raw.extend_from_slice(taken);
        self.offset += taken.len() as u64;
        *input = rest;
    }

    fn clear(&mut self) {
        self.raw.clear();
        self.data.clear();
        self.raw.shrink_to(IDLE_BUFFER_BYTES_MAX);
        self.data.shrink_to(IDLE_BUFFER_BYTES_MAX);
        self.reader.reclaim();
        self.used = 0;
        self.done = false;
    }
}

fn starts_with_frame(input: &[u8]) -> bool {
    matches!(FrameHeader::parse(input, &Expected::default()), Ok(Some(_)))
}

/// The sender of bytes that begin like this, if they are a line: the client for a command, the server for a
/// status.
#[must_use]
pub fn sender_of_text(bytes: &[u8]) -> Option<Endpoint> {
    let end = bytes.iter().take(LINE_BYTES_MAX).position(|byte| matches!(byte, b' ' | b'\r' | b'\n'))?;
    let word = &bytes[..end];
    if LineCommand::read(word).is_some() && bytes[end] != b' ' {
        Some(Endpoint::Client)
    } else {
        LockStatus::from_name(word).map(|_| Endpoint::Server)
    }
}
