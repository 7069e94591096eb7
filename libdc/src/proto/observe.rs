//! Looking on: the bytes that pass on one connection, in both directions, as messages.
//!
//! ```text
//!                    ┌── 0x00 ──► frames ── corruption ──► corrupt: raw bytes from here on
//!   first byte ──────┼── a to z ► text: lines
//!                    └── 0x16 ──► TLS: said once, then passed over
//! ```
//!
//! Bytes and the time go in, [`Event`]s come out; nothing is ever answered, so it serves whoever relays or
//! replays a connection. A response is paired with the oldest unanswered request of its uid.
//!
//! The machine keeps the bytes of the one message that is under way in each direction, never more than
//! came, and at most [`LINK_IN_FLIGHT_MAX`] requests. Whatever the bytes are, it does not panic.

use crate::limits::{FRAME_HEADER_BYTES, LINK_IN_FLIGHT_MAX};
use crate::wire::display::Content;
use crate::wire::frame::{Corruption, Direction, Expected, FrameHeader, MessageHead, Operation};
use crate::wire::message::{MessageReader, MessageRef};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Longest piece of text that is shown as one line.
const LINE_BYTES_MAX: usize = 8192;
/// Buffers that have grown beyond this are given back after their message.
const IDLE_BUFFER_BYTES_MAX: usize = 64 << 10;

/// One connection, looked on from between its two ends.
#[derive(Debug)]
pub struct Observer {
    client: Half,
    server: Half,
}

impl Observer {
    /// An observer of a connection on which nothing has passed yet.
    #[must_use]
    pub fn new() -> Self {
        Self { client: Half::new(Sender::Client), server: Half::new(Sender::Server) }
    }

    /// The next event in bytes that `sender` sent at `at` (since any fixed moment). `input` moves past what
    /// was used; to be called until there is `None`, when all of it was.
    pub fn next(&mut self, sender: Sender, at: Duration, input: &mut &[u8]) -> Option<Event<'_>> {
        let (half, other) = match sender {
            Sender::Client => (&mut self.client, &mut self.server),
            Sender::Server => (&mut self.server, &mut self.client),
        };
        if half.protocol == Protocol::Unknown {
            // Both directions speak what the first byte of the connection said.
            half.protocol = match other.protocol {
                Protocol::Unknown => Protocol::of(*input.first()?),
                Protocol::Corrupt | Protocol::Seeking => Protocol::Frames,
                known => known,
            };
            if half.protocol == Protocol::Tls && other.protocol == Protocol::Unknown {
                return Some(Event::Tls);
            }
        }
        match half.next(input)? {
            Found::Message => {
                let message = MessageRef { head: half.head?, data: &half.data };
                let answers = match message.head.direction {
                    Direction::Request => {
                        half.asked.ask(message, at);
                        None
                    }
                    Direction::Response => other.asked.answer(message.head.uid, at),
                };
                Some(Event::Message(Passed { message, raw: &half.raw, answers }))
            }
            Found::Corrupt(corruption) => {
                let bytes = &half.raw[half.used..];
                Some(Event::Corrupt { corruption, offset: half.offset - bytes.len() as u64, bytes })
            }
            Found::Raw => Some(Event::Raw(&half.raw)),
            Found::Line => Some(Event::Line(&half.raw)),
        }
    }

    /// To be told when `count` bytes of `sender` passed unseen. What was under way is forgotten; messages are
    /// found again where the input of a [`next`](Self::next) begins with a frame.
    pub fn skip(&mut self, sender: Sender, count: u64) {
        let half = self.half_mut(sender);
        half.offset += count;
        half.clear();
        half.reader = Half::reader(sender);
        if matches!(half.protocol, Protocol::Unknown | Protocol::Frames) {
            half.protocol = Protocol::Seeking;
        }
    }

    /// Bytes of an unfinished message (or line) of `sender`.
    #[must_use]
    pub fn unfinished(&self, sender: Sender) -> usize {
        let half = self.half(sender);
        if half.done { 0 } else { half.raw.len() }
    }

    /// How many requests of `sender` have not been answered.
    #[must_use]
    pub fn unanswered(&self, sender: Sender) -> usize {
        self.half(sender).asked.count
    }

    const fn half(&self, sender: Sender) -> &Half {
        match sender {
            Sender::Client => &self.client,
            Sender::Server => &self.server,
        }
    }

    const fn half_mut(&mut self, sender: Sender) -> &mut Half {
        match sender {
            Sender::Client => &mut self.client,
            Sender::Server => &mut self.server,
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

/// Which end of a connection sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Sender {
    /// The end that connected.
    Client,
    /// The end that accepted.
    Server,
}

impl Sender {
    /// The other end.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Client => Self::Server,
            Self::Server => Self::Client,
        }
    }
}

/// Something that passed.
#[derive(Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A whole message.
    Message(Passed<'a>),
    /// From here on the bytes of this direction can't be read as frames.
    Corrupt {
        /// What is wrong.
        corruption: Corruption,
        /// Where in the stream the malformed frame begins.
        offset: u64,
        /// That frame, as far as it had come.
        bytes: &'a [u8],
    },
    /// Bytes of which nothing is known: after a corruption, or after a gap.
    Raw(&'a [u8]),
    /// A line of the text protocol, with its newline; a very long one comes in pieces.
    Line(&'a [u8]),
    /// The connection is encrypted. Nothing more is told about it.
    Tls,
}

/// A message that passed.
#[derive(Debug, PartialEq, Eq)]
pub struct Passed<'a> {
    /// The message.
    pub message: MessageRef<'a>,
    /// Its frames as they came.
    pub raw: &'a [u8],
    /// For a response: the request it answers. `None` for a request, and for a response nobody asked for.
    pub answers: Option<Answered>,
}

/// The request that a response answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answered {
    /// What was asked.
    pub operation: Operation,
    /// The session it was about, if it was about one.
    pub id: Option<Box<[u8]>>,
    /// The time from the request to the response.
    pub took: Duration,
}

/// How the bytes of a direction are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Protocol {
    #[default]
    Unknown,
    Frames,
    /// Frames, but bytes were missed: waiting for input that begins with one.
    Seeking,
    Corrupt,
    Text,
    Tls,
}

impl Protocol {
    const fn of(first: u8) -> Self {
        match first {
            b'a'..=b'z' => Self::Text,
            0x16 => Self::Tls,
            // Any other wrong byte is found by the parser, which says what is wrong with it.
            _ => Self::Frames,
        }
    }
}

enum Found {
    Message,
    Corrupt(Corruption),
    Raw,
    Line,
}

/// One direction.
#[derive(Debug)]
struct Half {
    protocol: Protocol,
    reader: MessageReader,
    /// The bytes of the message or line under way, or of the last event.
    raw: Vec<u8>,
    /// Bytes of `raw` that the reader has used: whole frames.
    used: usize,
    /// Whether `raw` has been told of and is to be dropped.
    done: bool,
    /// Head and data of the last whole message.
    head: Option<MessageHead>,
    data: Vec<u8>,
    /// Bytes of this direction so far.
    offset: u64,
    asked: Asked,
}

impl Half {
    fn new(sender: Sender) -> Self {
        Self {
            protocol: Protocol::default(),
            reader: Self::reader(sender),
            raw: Vec::new(),
            used: 0,
            done: false,
            head: None,
            data: Vec::new(),
            offset: 0,
            asked: Asked::default(),
        }
    }

    /// Any connection may be a link, on which the server asks too.
    const fn reader(sender: Sender) -> MessageReader {
        MessageReader::link(match sender {
            Sender::Client => Direction::Request,
            Sender::Server => Direction::Response,
        })
    }

    fn next(&mut self, input: &mut &[u8]) -> Option<Found> {
        if self.done {
            self.clear();
        }
        if input.is_empty() {
            return None;
        }
        if self.protocol == Protocol::Seeking && starts_with_frame(input) {
            self.protocol = Protocol::Frames;
        }
        match self.protocol {
            Protocol::Frames => self.next_message(input),
            Protocol::Text => self.next_line(input),
            Protocol::Tls => {
                self.offset += input.len() as u64;
                *input = &[];
                None
            }
            Protocol::Unknown | Protocol::Seeking | Protocol::Corrupt => {
                self.take(input, input.len());
                self.done = true;
                Some(Found::Raw)
            }
        }
    }

    fn next_message(&mut self, input: &mut &[u8]) -> Option<Found> {
        while !input.is_empty() {
            // Never beyond the frame, so that `raw` is one message and the rest stays where it is.
            self.take(input, self.missing());
            let mut rest = &self.raw[self.used..];
            match self.reader.next(&mut rest) {
                Ok(None) => self.used = self.raw.len() - rest.len(),
                Ok(Some(message)) => {
                    self.head = Some(message.head);
                    self.data.extend_from_slice(message.data);
                    self.done = true;
                    return Some(Found::Message);
                }
                Err(corruption) => {
                    self.used = self.raw.len() - rest.len();
                    return Some(self.corrupt(corruption));
                }
            }
        }
        None
    }

    fn corrupt(&mut self, corruption: Corruption) -> Found {
        self.protocol = Protocol::Corrupt;
        self.done = true;
        Found::Corrupt(corruption)
    }

    fn next_line(&mut self, input: &mut &[u8]) -> Option<Found> {
        let newline = input.iter().position(|byte| *byte == b'\n');
        let room = LINE_BYTES_MAX - self.raw.len();
        let end = newline.map_or(input.len(), |at| at + 1).min(room);
        self.take(input, end);
        self.done = self.raw.ends_with(b"\n") || self.raw.len() == LINE_BYTES_MAX;
        self.done.then_some(Found::Line)
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

    fn take(&mut self, input: &mut &[u8], count: usize) {
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

/// The requests of one end that wait for their answers.
#[derive(Debug, Default)]
struct Asked {
    by_uid: HashMap<u32, VecDeque<Request>>,
    count: usize,
}

#[derive(Debug)]
struct Request {
    operation: Operation,
    id: Option<Box<[u8]>>,
    at: Duration,
}

impl Asked {
    fn ask(&mut self, message: MessageRef<'_>, at: Duration) {
        if self.count == LINK_IN_FLIGHT_MAX {
            return;
        }
        let operation = message.head.operation;
        let id = Content::of(message).id().map(Box::from);
        self.by_uid.entry(message.head.uid).or_default().push_back(Request { operation, id, at });
        self.count += 1;
    }

    fn answer(&mut self, uid: u32, at: Duration) -> Option<Answered> {
        let requests = self.by_uid.get_mut(&uid)?;
        let Request { operation, id, at: asked } = requests.pop_front()?;
        if requests.is_empty() {
            self.by_uid.remove(&uid);
        }
        self.count -= 1;
        Some(Answered { operation, id, took: at.saturating_sub(asked) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::frame::{LinkOperation, SessionOperation};
    use crate::wire::message::{Message, write_message};
    use proptest::prelude::*;

    const GET: &[u8] = &[0, 0x11, 0, 1, 0, 0, 0, 0, 17, 0, 1, 1, 0, 2, 0x5f, 0x0a];
    const FOUND: &[u8] = &[0, 0x11, 0, 0, 1, 0, 0, 0, 17, 0, 1, 1, 0, 3, b'a', b'b', b'c'];

    /// An event without its borrows. Adjacent raw bytes are one, as where they are cut means nothing.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Message { message: Message, raw: Vec<u8>, took_ms: Option<u128> },
        Corrupt { corruption: Corruption, offset: u64, bytes: Vec<u8> },
        Raw(Vec<u8>),
        Line(Vec<u8>),
        Tls,
    }

    fn observe(observer: &mut Observer, seen: &mut Vec<Seen>, sender: Sender, at_ms: u64, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = observer.next(sender, Duration::from_millis(at_ms), &mut input) {
            let event = match event {
                Event::Message(Passed { message, raw, answers }) => Seen::Message {
                    message: message.into(),
                    raw: raw.to_vec(),
                    took_ms: answers.map(|answered| answered.took.as_millis()),
                },
                Event::Corrupt { corruption, offset, bytes } => {
                    Seen::Corrupt { corruption, offset, bytes: bytes.to_vec() }
                }
                Event::Raw(bytes) => Seen::Raw(bytes.to_vec()),
                Event::Line(bytes) => Seen::Line(bytes.to_vec()),
                Event::Tls => Seen::Tls,
            };
            match (seen.last_mut(), event) {
                (Some(Seen::Raw(before)), Seen::Raw(bytes)) => before.extend(bytes),
                (_, event) => seen.push(event),
            }
        }
        assert_eq!(input, b"");
    }

    fn message_of(bytes: &[u8]) -> Message {
        MessageReader::new(None).next(&mut &bytes[..]).unwrap().unwrap().into()
    }

    fn seen_message(bytes: &[u8], took_ms: Option<u128>) -> Seen {
        Seen::Message { message: message_of(bytes), raw: bytes.to_vec(), took_ms }
    }

    #[test]
    fn a_response_names_its_request_and_the_time_it_took() {
        let mut observer = Observer::new();
        let at = Duration::from_micros;
        let mut input = GET;
        assert!(observer.next(Sender::Client, at(117), &mut input).is_some());
        assert_eq!(observer.next(Sender::Client, at(117), &mut input), None);
        assert_eq!(observer.unanswered(Sender::Client), 1);
        let mut input = FOUND;
        let event = observer.next(Sender::Server, at(391), &mut input);
        let answered = Answered {
            operation: Operation::Session(SessionOperation::Get),
            id: Some([0x5f, 0x0a].into()),
            took: at(274),
        };
        let message = message_of(FOUND);
        let message = MessageRef { head: message.head, data: &message.data };
        assert_eq!(event, Some(Event::Message(Passed { message, raw: FOUND, answers: Some(answered) })));
        assert_eq!(observer.unanswered(Sender::Client), 0);
    }

    #[test]
    fn repeated_uids_are_answered_in_order_and_the_rest_by_uid() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let (mut other_get, mut other_found) = (GET.to_vec(), FOUND.to_vec());
        other_get[8] = 18;
        other_found[8] = 18;
        for (at_ms, bytes) in [(0, GET), (10, &other_get[..]), (20, GET)] {
            observe(&mut observer, &mut seen, Sender::Client, at_ms, bytes);
        }
        seen.clear();
        for (at_ms, bytes) in [(30, &other_found[..]), (31, FOUND), (32, FOUND), (33, FOUND)] {
            observe(&mut observer, &mut seen, Sender::Server, at_ms, bytes);
        }
        let expected = [
            seen_message(&other_found, Some(20)),
            seen_message(FOUND, Some(31)),
            seen_message(FOUND, Some(12)),
            seen_message(FOUND, None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_server_may_ask_too_but_not_about_sessions() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let head = MessageHead::request(1, Operation::Link(LinkOperation::Ping));
        let (mut ping, mut pong) = (Vec::new(), Vec::new());
        write_message(&mut ping, head, &[]);
        write_message(&mut pong, head.response(), &[]);
        observe(&mut observer, &mut seen, Sender::Client, 0, &ping);
        observe(&mut observer, &mut seen, Sender::Server, 1, &ping);
        observe(&mut observer, &mut seen, Sender::Client, 5, &pong);
        observe(&mut observer, &mut seen, Sender::Server, 7, &pong);
        let took: Vec<_> = seen
            .drain(..)
            .map(|event| if let Seen::Message { took_ms, .. } = event { took_ms } else { Some(999) })
            .collect();
        assert_eq!(took, [None, None, Some(4), Some(7)]);

        observe(&mut observer, &mut seen, Sender::Server, 8, &GET[..9]);
        assert_eq!(seen, []);
        observe(&mut observer, &mut seen, Sender::Server, 8, &GET[9..]);
        let corruption = Corruption::Direction { direction: Direction::Request, offset: 9 };
        let bytes = GET[..14].to_vec();
        let expected = [Seen::Corrupt { corruption, offset: 28, bytes }, Seen::Raw(GET[14..].to_vec())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn after_a_corruption_one_direction_is_raw_and_the_other_goes_on() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let bytes = [GET, &GET[..4], &[7], b"rest"].concat();
        observe(&mut observer, &mut seen, Sender::Client, 0, &bytes);
        observe(&mut observer, &mut seen, Sender::Client, 0, GET);
        observe(&mut observer, &mut seen, Sender::Server, 1, FOUND);
        let corruption = Corruption::IsResponse { value: 7 };
        let expected = [
            seen_message(GET, None),
            Seen::Corrupt { corruption, offset: 16, bytes: [&GET[..4], &[7], b"rest"].concat() },
            Seen::Raw(GET.to_vec()),
            seen_message(FOUND, Some(1)),
        ];
        assert_eq!(seen, expected);
        assert_eq!(observer.unfinished(Sender::Client), 0);
    }

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Sender::Client, 0, b"l\nkey\n1");
        observe(&mut observer, &mut seen, Sender::Client, 0, b"0\n");
        observe(&mut observer, &mut seen, Sender::Server, 0, b"ok t");
        let lines = [&b"l\n"[..], b"key\n", b"10\n"];
        assert_eq!(seen, lines.map(|line| Seen::Line(line.to_vec())));
        assert_eq!(observer.unfinished(Sender::Server), 4);

        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Sender::Client, 0, &[0x16, 3, 1]);
        observe(&mut observer, &mut seen, Sender::Client, 0, GET);
        observe(&mut observer, &mut seen, Sender::Server, 0, &[0x15, 3]);
        assert_eq!(seen, [Seen::Tls]);
    }

    #[test]
    fn an_endless_line_is_shown_in_pieces() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Sender::Client, 0, &[b'x'; LINE_BYTES_MAX + 1]);
        assert_eq!(seen, [Seen::Line(vec![b'x'; LINE_BYTES_MAX])]);
        assert_eq!(observer.unfinished(Sender::Client), 1);
    }

    #[test]
    fn messages_are_found_again_behind_a_gap() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Sender::Client, 0, &GET[..15]);
        observer.skip(Sender::Client, 100);
        observe(&mut observer, &mut seen, Sender::Client, 0, b"middle");
        observe(&mut observer, &mut seen, Sender::Client, 0, &[GET, &[1]].concat());
        let version = Corruption::Version { offset: 0, byte: 1 };
        let expected = [
            Seen::Raw(b"middle".to_vec()),
            seen_message(GET, None),
            Seen::Corrupt { corruption: version, offset: 15 + 100 + 6 + 16, bytes: vec![1] },
        ];
        assert_eq!(seen, expected);
    }

    fn stream() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            8 => (0..4_u8, 0..3_u32, 0..5000_usize).prop_map(|(operation, uid, len)| {
                let mut bytes = Vec::new();
                if let Some(operation) = Operation::from_wire(0, operation) {
                    write_message(&mut bytes, MessageHead::request(uid, operation), &vec![7; len]);
                }
                bytes
            }),
            1 => proptest::collection::vec(any::<u8>(), 0..40),
        ];
        proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_changes_nothing(
            bytes in stream(),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let (mut observer, mut whole) = (Observer::new(), Vec::new());
            observe(&mut observer, &mut whole, Sender::Client, 0, &bytes);
            let unfinished = observer.unfinished(Sender::Client);

            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let (mut observer, mut pieces, mut start) = (Observer::new(), Vec::new(), 0);
            for end in ends {
                observe(&mut observer, &mut pieces, Sender::Client, 0, &bytes[start..end]);
                start = end;
            }
            prop_assert_eq!(joined(pieces), joined(whole.clone()));
            prop_assert_eq!(observer.unfinished(Sender::Client), unfinished);
            let told: usize = whole.iter().map(Seen::len).sum();
            prop_assert!(told + unfinished == bytes.len() || whole == [Seen::Tls]);
        }
    }

    /// The bytes of a corruption and the raw ones behind it are cut where the input was.
    fn joined(mut seen: Vec<Seen>) -> Vec<Seen> {
        let tail = match seen.last() {
            Some(Seen::Raw(bytes)) => bytes.clone(),
            _ => return seen,
        };
        seen.pop();
        if let Some(Seen::Corrupt { bytes, .. }) = seen.last_mut() {
            bytes.extend(tail);
        }
        seen
    }

    impl Seen {
        fn len(&self) -> usize {
            match self {
                Self::Message { raw, .. } => raw.len(),
                Self::Corrupt { bytes, .. } | Self::Raw(bytes) | Self::Line(bytes) => bytes.len(),
                Self::Tls => 0,
            }
        }
    }
}
