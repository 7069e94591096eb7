//! Observes a connection: turns the bytes of both directions into messages.
//!
//! ```text
//!                    ┌── 0x00 ──► frames ── malformed ──► raw bytes from here on
//!   first byte ──────┼── a to z ► lines: requests of three, answers of one ── too long ──► raw bytes
//!                    └── 0x16 ──► TLS: reported once, then skipped
//! ```
//!
//! Bytes and the time go in, [`ObservedEvent`]s come out. Nothing is ever answered, so it fits both a relay
//! and a replay. A response is paired with the oldest unanswered request of its uid, an answer line with the
//! oldest unanswered request of all.
//!
//! The machine keeps the bytes of one incomplete message in each direction, never more than were received,
//! and at most [`LINK_IN_FLIGHT_MAX`](libdc::limits::LINK_IN_FLIGHT_MAX) requests. No input causes a panic.

use super::unanswered::MatchedRequest;

use super::endpoint::Endpoint;
use super::half::{HalfEvent, HalfStream, StreamProtocol};
use crate::decode::DecodedLines;
use libdc::wire::frame::{DecodeError, Direction};
use libdc::wire::message::MessageRef;
use std::time::Duration;

/// One connection, looked on from between its two ends.
#[derive(Debug)]
pub struct Observer {
    client: HalfStream,
    server: HalfStream,
}

impl Observer {
    /// Creates an observer of a new connection.
    #[must_use]
    pub fn new() -> Self {
        Self { client: HalfStream::new(Endpoint::Client), server: HalfStream::new(Endpoint::Server) }
    }

    /// The next event in bytes that `sender` sent at `at` (since any fixed time). Advances `input` past the
    /// used bytes. Call it until it returns `None`; then all input is used.
    pub fn next(&mut self, sender: Endpoint, at: Duration, input: &mut &[u8]) -> Option<ObservedEvent<'_>> {
        let (half, other) = match sender {
            Endpoint::Client => (&mut self.client, &mut self.server),
            Endpoint::Server => (&mut self.server, &mut self.client),
        };
        match half.protocol {
            // Both directions use the protocol of the connection's first byte.
            StreamProtocol::Unknown => {
                half.protocol = match other.protocol {
                    known @ (StreamProtocol::Frames | StreamProtocol::Text | StreamProtocol::Tls) => known,
                    _ => StreamProtocol::detect(*input.first()?),
                };
                if half.protocol == StreamProtocol::Tls && other.protocol != StreamProtocol::Tls {
                    return Some(ObservedEvent::Tls);
                }
            }
            StreamProtocol::Seeking => half.seek(other.protocol, input),
            _ => {}
        }
        match half.next(input)? {
            HalfEvent::Message => {
                let message = MessageRef { head: half.head?, data: &half.data };
                let answers = match message.head.direction {
                    Direction::Request => {
                        half.asked.ask(message, at);
                        None
                    }
                    Direction::Response => other.asked.answer(message.head.uid, at),
                };
                Some(ObservedEvent::Message(MessageEvent { message, raw: &half.raw, answers }))
            }
            HalfEvent::Corrupt(corruption) => {
                let bytes = &half.raw[half.used..];
                Some(ObservedEvent::Corrupt { corruption, offset: half.offset - bytes.len() as u64, bytes })
            }
            HalfEvent::Raw => Some(ObservedEvent::Raw(&half.raw)),
            HalfEvent::Text => {
                let (direction, answers) = match sender {
                    Endpoint::Client => {
                        let content = DecodedLines::decode(Direction::Request, &half.raw);
                        half.asked.ask_in_order(&content, at);
                        (Direction::Request, None)
                    }
                    Endpoint::Server => (Direction::Response, other.asked.answer_in_order(at)),
                };
                Some(ObservedEvent::Text(LineEvent { direction, raw: &half.raw, answers }))
            }
        }
    }

    /// Reports that `count` bytes of `sender` were missed. An incomplete message is dropped; decoding resumes
    /// where the input of a [`next`](Self::next) begins with a frame, or with a line.
    pub fn skip(&mut self, sender: Endpoint, count: u64) {
        self.half_mut(sender).skip(count);
        if count > 0 {
            self.client.asked.lose_order();
        }
    }

    /// Bytes of an unfinished message (or line) of `sender`.
    #[must_use]
    pub fn unfinished(&self, sender: Endpoint) -> usize {
        self.half(sender).unfinished()
    }

    /// How many requests of `sender` have not been answered.
    #[must_use]
    pub fn unanswered(&self, sender: Endpoint) -> usize {
        self.half(sender).asked.count()
    }

    const fn half(&self, sender: Endpoint) -> &HalfStream {
        match sender {
            Endpoint::Client => &self.client,
            Endpoint::Server => &self.server,
        }
    }

    const fn half_mut(&mut self, sender: Endpoint) -> &mut HalfStream {
        match sender {
            Endpoint::Client => &mut self.client,
            Endpoint::Server => &mut self.server,
        }
    }
}

impl Default for Observer {
    fn default() -> Self {
        Self::new()
    }
}

/// An event found in the traffic of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum ObservedEvent<'a> {
    /// A whole message was received.
    Message(MessageEvent<'a>),
    /// From here on the bytes of this direction cannot be read as frames.
    Corrupt {
        /// The reason.
        corruption: DecodeError,
        /// Where in the stream the malformed frame begins.
        offset: u64,
        /// That frame, as far as it had come.
        bytes: &'a [u8],
    },
    /// Undecodable bytes: after a malformed frame, after a line that was too long, or after a gap.
    Raw(&'a [u8]),
    /// A request or an answer of the line protocol.
    Text(LineEvent<'a>),
    /// The connection is encrypted. No further events follow.
    Tls,
}

/// A whole message.
#[derive(Debug, PartialEq, Eq)]
pub struct MessageEvent<'a> {
    /// The message with its undecoded data.
    pub message: MessageRef<'a>,
    /// Its frames as received.
    pub raw: &'a [u8],
    /// For a response: the request that it answers. `None` for a request, and for an unexpected response.
    pub answers: Option<MatchedRequest>,
}

/// Lines of the line protocol. [`DecodedLines`] decodes them.
#[derive(Debug, PartialEq, Eq)]
pub struct LineEvent<'a> {
    /// Whether the lines are a request or an answer.
    pub direction: Direction,
    /// The lines as received: three of a request, one of an answer; the received part if a line became too
    /// long. The bytes behind that are [`ObservedEvent::Raw`].
    pub raw: &'a [u8],
    /// For an answer: the request that it answers. `None` for a request, and for an unexpected answer.
    pub answers: Option<MatchedRequest>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::MessageKind;
    use crate::observe::half::{ANSWER_BYTES_MAX, sender_of_text};
    use libdc::limits::LINE_BYTES_MAX;
    use libdc::wire::frame::{LinkOperation, LockOperation, MessageHead, Operation, SessionOperation};
    use libdc::wire::line::LineCommand;
    use libdc::wire::message::{Message, MessageReader, write_message};
    use proptest::prelude::*;

    const GET: &[u8] = &[0, 0x11, 0, 1, 0, 0, 0, 0, 17, 0, 1, 1, 0, 2, 0x5f, 0x0a];
    const FOUND: &[u8] = &[0, 0x11, 0, 0, 1, 0, 0, 0, 17, 0, 1, 1, 0, 3, b'a', b'b', b'c'];

    /// An event without its borrows. Adjacent raw bytes are merged, since their split has no meaning.
    #[derive(Clone, Debug, PartialEq, Eq)]
    enum Seen {
        Message { message: Message, raw: Vec<u8>, took_ms: Option<u128> },
        Corrupt { corruption: DecodeError, offset: u64, bytes: Vec<u8> },
        Raw(Vec<u8>),
        Text { raw: Vec<u8>, took_ms: Option<u128> },
        Tls,
    }

    fn observe(observer: &mut Observer, seen: &mut Vec<Seen>, sender: Endpoint, at_ms: u64, bytes: &[u8]) {
        let mut input = bytes;
        while let Some(event) = observer.next(sender, Duration::from_millis(at_ms), &mut input) {
            let event = match event {
                ObservedEvent::Message(MessageEvent { message, raw, answers }) => Seen::Message {
                    message: message.into(),
                    raw: raw.to_vec(),
                    took_ms: answers.map(|answered| answered.took.as_millis()),
                },
                ObservedEvent::Corrupt { corruption, offset, bytes } => {
                    Seen::Corrupt { corruption, offset, bytes: bytes.to_vec() }
                }
                ObservedEvent::Raw(bytes) => Seen::Raw(bytes.to_vec()),
                ObservedEvent::Text(LineEvent { direction, raw, answers }) => {
                    let from =
                        if direction == Direction::Request { Endpoint::Client } else { Endpoint::Server };
                    assert_eq!(from, sender);
                    Seen::Text {
                        raw: raw.to_vec(),
                        took_ms: answers.map(|answered| answered.took.as_millis()),
                    }
                }
                ObservedEvent::Tls => Seen::Tls,
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
        assert!(observer.next(Endpoint::Client, at(117), &mut input).is_some());
        assert_eq!(observer.next(Endpoint::Client, at(117), &mut input), None);
        assert_eq!(observer.unanswered(Endpoint::Client), 1);
        let mut input = FOUND;
        let event = observer.next(Endpoint::Server, at(391), &mut input);
        let answered = MatchedRequest {
            topic: MessageKind::Operation(Operation::Session(SessionOperation::Get)),
            id: Some([0x5f, 0x0a].into()),
            key: None,
            may_block: false,
            took: at(274),
        };
        let message = message_of(FOUND);
        let message = MessageRef { head: message.head, data: &message.data };
        assert_eq!(
            event,
            Some(ObservedEvent::Message(MessageEvent { message, raw: FOUND, answers: Some(answered) }))
        );
        assert_eq!(observer.unanswered(Endpoint::Client), 0);
    }

    #[test]
    fn repeated_uids_are_answered_in_order_and_the_rest_by_uid() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let (mut other_get, mut other_found) = (GET.to_vec(), FOUND.to_vec());
        other_get[8] = 18;
        other_found[8] = 18;
        for (at_ms, bytes) in [(0, GET), (10, &other_get[..]), (20, GET)] {
            observe(&mut observer, &mut seen, Endpoint::Client, at_ms, bytes);
        }
        seen.clear();
        for (at_ms, bytes) in [(30, &other_found[..]), (31, FOUND), (32, FOUND), (33, FOUND)] {
            observe(&mut observer, &mut seen, Endpoint::Server, at_ms, bytes);
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
        observe(&mut observer, &mut seen, Endpoint::Client, 0, &ping);
        observe(&mut observer, &mut seen, Endpoint::Server, 1, &ping);
        observe(&mut observer, &mut seen, Endpoint::Client, 5, &pong);
        observe(&mut observer, &mut seen, Endpoint::Server, 7, &pong);
        let took: Vec<_> = seen
            .drain(..)
            .map(|event| if let Seen::Message { took_ms, .. } = event { took_ms } else { Some(999) })
            .collect();
        assert_eq!(took, [None, None, Some(4), Some(7)]);

        observe(&mut observer, &mut seen, Endpoint::Server, 8, &GET[..9]);
        assert_eq!(seen, []);
        observe(&mut observer, &mut seen, Endpoint::Server, 8, &GET[9..]);
        let corruption = DecodeError::Direction { direction: Direction::Request, offset: 9 };
        let bytes = GET[..14].to_vec();
        let expected = [Seen::Corrupt { corruption, offset: 28, bytes }, Seen::Raw(GET[14..].to_vec())];
        assert_eq!(seen, expected);
    }

    #[test]
    fn malformed_frame_makes_only_its_own_direction_raw() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let bytes = [GET, &GET[..4], &[7], b"rest"].concat();
        observe(&mut observer, &mut seen, Endpoint::Client, 0, &bytes);
        observe(&mut observer, &mut seen, Endpoint::Client, 0, GET);
        observe(&mut observer, &mut seen, Endpoint::Server, 1, FOUND);
        let corruption = DecodeError::IsResponse { value: 7 };
        let expected = [
            seen_message(GET, None),
            Seen::Corrupt { corruption, offset: 16, bytes: [&GET[..4], &[7], b"rest"].concat() },
            Seen::Raw(GET.to_vec()),
            seen_message(FOUND, Some(1)),
        ];
        assert_eq!(seen, expected);
        assert_eq!(observer.unfinished(Endpoint::Client), 0);
    }

    #[test]
    fn the_first_byte_tells_the_protocols_apart() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Endpoint::Client, 0, b"l\nkey\n1");
        assert_eq!((seen.len(), observer.unfinished(Endpoint::Client)), (0, 7));
        observe(&mut observer, &mut seen, Endpoint::Client, 0, b"0\n");
        observe(&mut observer, &mut seen, Endpoint::Server, 0, b"ok t");
        assert_eq!(seen, [seen_text(b"l\nkey\n10\n", None)]);
        assert_eq!(observer.unfinished(Endpoint::Server), 4);

        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Endpoint::Client, 0, &[0x16, 3, 1]);
        observe(&mut observer, &mut seen, Endpoint::Client, 0, GET);
        observe(&mut observer, &mut seen, Endpoint::Server, 0, &[0x15, 3]);
        assert_eq!(seen, [Seen::Tls]);
    }

    fn seen_text(raw: &[u8], took_ms: Option<u128>) -> Seen {
        Seen::Text { raw: raw.to_vec(), took_ms }
    }

    #[test]
    fn answers_of_text_are_paired_in_order() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Endpoint::Client, 0, b"l\na\n10\nzz\n\n\n");
        observe(&mut observer, &mut seen, Endpoint::Client, 5, b"ping\n_\n\n");
        assert_eq!((seen.len(), observer.unanswered(Endpoint::Client)), (3, 3));
        seen.clear();
        // The first waited, and the others behind it.
        observe(&mut observer, &mut seen, Endpoint::Server, 4000, b"timeout\nerr");
        observe(&mut observer, &mut seen, Endpoint::Server, 4001, b"or\nok\nok\n");
        let expected = [
            seen_text(b"timeout\n", Some(4000)),
            seen_text(b"error\n", Some(4001)),
            seen_text(b"ok\n", Some(3996)),
            seen_text(b"ok\n", None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn an_answer_of_text_names_command_and_key() {
        let mut observer = Observer::new();
        let (at, mut answers) = (Duration::from_secs, Vec::new());
        let requests = b"sl\nclef\n10 3\nl\nk\n0\nauth\nk\nx\nfoo\nk\n1\n";
        observe(&mut observer, &mut Vec::new(), Endpoint::Client, 0, requests);
        let mut input = &b"timeout\ntimeout\nok\nerror\n"[..];
        while let Some(ObservedEvent::Text(said)) = observer.next(Endpoint::Server, at(2), &mut input) {
            answers.extend(said.answers);
        }
        let answered = |topic, key: Option<&str>, may_block| MatchedRequest {
            topic,
            id: None,
            key: key.map(Box::from),
            may_block,
            took: at(2),
        };
        let expected = [
            answered(MessageKind::Command(LineCommand::Lock), Some("clef"), true),
            answered(MessageKind::Command(LineCommand::Lock), Some("k"), false),
            answered(MessageKind::Command(LineCommand::Auth), None, false),
            answered(MessageKind::Text, None, false),
        ];
        assert_eq!(answers, expected);
    }

    #[test]
    fn an_acquire_is_paired_by_its_uid_long_after_others() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let send =
            |observer: &mut Observer, seen: &mut Vec<Seen>, sender, at_ms, uid, operation, data: &[u8]| {
                let head = MessageHead::request(uid, operation);
                let head = if sender == Endpoint::Server { head.response() } else { head };
                let mut bytes = Vec::new();
                write_message(&mut bytes, head, data);
                observe(observer, seen, sender, at_ms, &bytes);
            };
        let acquire = Operation::Lock(LockOperation::Acquire);
        let key = [0, 0, 0, 0, 0, 0, 0, 0, 0, 1, b'k', 0, 0, 0, 1];
        let asked = [&key[..], &[0, 0, 0, 0, 0, 0, 0xff, 0xff], &[0; 8]].concat();
        send(&mut observer, &mut seen, Endpoint::Client, 0, 1, acquire, &asked);
        let ping = Operation::Link(LinkOperation::Ping);
        for uid in 2..1000 {
            send(&mut observer, &mut seen, Endpoint::Client, 10, uid, ping, &[]);
            send(&mut observer, &mut seen, Endpoint::Server, 12, uid, ping, &[]);
        }
        seen.clear();
        send(&mut observer, &mut seen, Endpoint::Server, 60_000, 1, acquire, &[3]);
        assert!(matches!(seen[..], [Seen::Message { took_ms: Some(60_000), .. }]), "{seen:?}");
        // That one needs no answer.
        let mut bytes = Vec::new();
        let go_away = Operation::Link(LinkOperation::GoAway);
        write_message(&mut bytes, MessageHead::request(1, go_away), &[]);
        observe(&mut observer, &mut seen, Endpoint::Server, 60_000, &bytes);
        assert_eq!((observer.unanswered(Endpoint::Client), observer.unanswered(Endpoint::Server)), (0, 0));
    }

    #[test]
    fn a_line_that_is_too_long_ends_the_text_of_its_direction() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        let long = [b"l\n", &[b'x'; LINE_BYTES_MAX + 1][..]].concat();
        let bytes = [&long[..], b"xx\nping\n"].concat();
        observe(&mut observer, &mut seen, Endpoint::Client, 0, &bytes);
        observe(&mut observer, &mut seen, Endpoint::Server, 3, b"error\n");
        let raw = Seen::Raw(b"xx\nping\n".to_vec());
        assert_eq!(seen, [seen_text(&long, None), raw, seen_text(b"error\n", Some(3))]);

        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Endpoint::Server, 0, &vec![b'x'; ANSWER_BYTES_MAX + 1]);
        assert_eq!(seen, [seen_text(&vec![b'x'; ANSWER_BYTES_MAX], None), Seen::Raw(vec![b'x'])]);
    }

    #[test]
    fn behind_a_gap_text_is_read_on_but_not_paired() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Endpoint::Client, 0, b"l\na\n10\nr\na");
        observer.skip(Endpoint::Client, 9);
        observe(&mut observer, &mut seen, Endpoint::Client, 1, b"key\n");
        observe(&mut observer, &mut seen, Endpoint::Client, 2, b"ping\n_\n\n");
        observe(&mut observer, &mut seen, Endpoint::Server, 3, b"ok\n");
        let expected = [
            seen_text(b"l\na\n10\n", None),
            Seen::Raw(b"key\n".to_vec()),
            seen_text(b"ping\n_\n\n", None),
            seen_text(b"ok\n", None),
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    fn a_connection_that_is_picked_up_later_is_read_from_a_line_on() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observer.skip(Endpoint::Server, 0);
        observe(&mut observer, &mut seen, Endpoint::Server, 0, b"0123 33\n");
        observer.skip(Endpoint::Client, 0);
        observe(&mut observer, &mut seen, Endpoint::Client, 1, b"l\nk\n1\n");
        observe(&mut observer, &mut seen, Endpoint::Server, 2, b"timeout\n");
        let raw = Seen::Raw(b"0123 33\n".to_vec());
        assert_eq!(seen, [raw, seen_text(b"l\nk\n1\n", None), seen_text(b"timeout\n", Some(1))]);
        let cases = [
            (&b"l\nk"[..], Some(Endpoint::Client)),
            (b"stats\r\n", Some(Endpoint::Client)),
            (b"l k\n", None),
            (b"l", None),
            (b"ok 1\n", Some(Endpoint::Server)),
            (b"error_auth\n", Some(Endpoint::Server)),
            (b"oks\n", None),
            (b"", None),
        ];
        for (bytes, sender) in cases {
            assert_eq!(sender_of_text(bytes), sender, "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn messages_are_found_again_behind_a_gap() {
        let (mut observer, mut seen) = (Observer::new(), Vec::new());
        observe(&mut observer, &mut seen, Endpoint::Client, 0, &GET[..15]);
        observer.skip(Endpoint::Client, 100);
        observe(&mut observer, &mut seen, Endpoint::Client, 0, b"middle");
        observe(&mut observer, &mut seen, Endpoint::Client, 0, &[GET, &[1]].concat());
        let version = DecodeError::Version { offset: 0, byte: 1 };
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
        let line = prop_oneof![
            4 => "(l|sl|r|auth|stats|k|10|)\r?\n",
            1 => (250..265_usize).prop_map(|len| "x".repeat(len)),
            1 => Just("\n".to_owned()),
        ];
        let text = proptest::collection::vec(line, 1..20).prop_map(|lines| lines.concat().into_bytes());
        let frames = proptest::collection::vec(piece, 0..8).prop_map(|pieces| pieces.concat());
        prop_oneof![frames, text]
    }

    proptest! {
        #[test]
        fn where_the_input_is_cut_changes_nothing(
            bytes in stream(),
            sender in prop_oneof![Just(Endpoint::Client), Just(Endpoint::Server)],
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
        ) {
            let (mut observer, mut whole) = (Observer::new(), Vec::new());
            observe(&mut observer, &mut whole, sender, 0, &bytes);
            let unfinished = observer.unfinished(sender);

            let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            ends.push(bytes.len());
            ends.sort_unstable();
            let (mut observer, mut pieces, mut start) = (Observer::new(), Vec::new(), 0);
            for end in ends {
                observe(&mut observer, &mut pieces, sender, 0, &bytes[start..end]);
                start = end;
            }
            prop_assert_eq!(joined(pieces), joined(whole.clone()));
            prop_assert_eq!(observer.unfinished(sender), unfinished);
            let told: usize = whole.iter().map(Seen::len).sum();
            prop_assert!(told + unfinished == bytes.len() || whole == [Seen::Tls]);
        }
    }

    /// The bytes of a corruption and the raw ones behind it are cut where the input was.
    fn joined(mut seen: Vec<Seen>) -> Vec<Seen> {
        if let [.., Seen::Corrupt { bytes, .. }, Seen::Raw(tail)] = &mut seen[..] {
            bytes.append(tail);
            seen.pop();
        }
        seen
    }

    impl Seen {
        fn len(&self) -> usize {
            match self {
                Self::Message { raw, .. } => raw.len(),
                Self::Corrupt { bytes, .. } | Self::Raw(bytes) | Self::Text { raw: bytes, .. } => bytes.len(),
                Self::Tls => 0,
            }
        }
    }
}
