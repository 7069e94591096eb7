//! Messages in readable form, including malformed and truncated ones.
//!
//! ```text
//! ADD uid=16 id=5f0a…c9 (32) timeout=60s session 183 bytes 8e1d04b7
//! GET uid=17 id=5f0a…c9 (32)
//! GET uid=17 OK session 183 bytes 8e1d04b7
//! HAVE uid=18 NOTOK
//! ACQUIRE uid=19 owner=7 key=nightly-backup timeout=10s lease=60s
//! ACQUIRE uid=19 ok fence=8123 lease=60s token 3eb1
//! ```
//!
//! Messages about the link are a [`DecodedLink`], those of the line protocol a [`DecodedLines`].
//!
//! A session allows its owner to resume a connection as another client. So it is shown as its length and the
//! first four bytes of its SHA-256, unless the caller selects [`Redaction::Shown`]. This is enough to compare
//! sessions, also with `sha256sum`, but not to recover one. Nothing here allocates more than the line itself,
//! and no input causes a panic.

use super::link::DecodedLink;
use super::lock::{self, InvalidLockRequest, LockFields};
use super::values::{Redaction, bytes, show_data, show_id, show_ms, show_session_id};
use libdc::id::LockKey;
use libdc::limits::ADD_PREFIX_BYTES;
use libdc::wire::frame::{DecodeError, Direction, MessageHead, Operation, SessionOperation};
use libdc::wire::line::LineCommand;
use libdc::wire::lock::{LockAction, LockAnswer, LockRequest};
use libdc::wire::message::{MessageReader, MessageRef};
use libdc::wire::session::{AddRequest, SessionAnswer, SessionStatus};
use std::fmt;
use std::ops::Range;

/// The kind of a message or of lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// The operation of a message.
    Operation(Operation),
    /// A command of the line protocol.
    Command(LineCommand),
    /// Lines of unknown kind.
    Text,
}

impl MessageKind {
    /// Lists every kind, for the names in a filter.
    pub fn all() -> impl Iterator<Item = Self> {
        let numbers =
            (0..=2).flat_map(|class| (0..=u8::MAX).map_while(move |n| Operation::from_wire(class, n)));
        let commands = LineCommand::ALL.into_iter().map(Self::Command);
        numbers.map(Self::Operation).chain(commands).chain(std::iter::once(Self::Text))
    }

    /// The name, as the documents write it: operations in capitals, commands in small letters.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Operation(operation) => operation.name(),
            Self::Command(command) => command.name(),
            Self::Text => "text",
        }
    }
}

/// A decoded message, as far as its bytes allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedMessage<'a> {
    /// A session to be stored.
    Add(AddRequest<'a>),
    /// An ADD with an invalid value.
    AddRefused {
        /// The timeout it asks for, in milliseconds.
        timeout_ms: u32,
        /// The length it gives for the id.
        id_len: u32,
        /// The bytes behind the two, id and session.
        rest_len: usize,
        /// The status of the answer.
        status: SessionStatus,
    },
    /// The id in a GET, REMOVE or HAVE; of any length.
    Id(&'a [u8]),
    /// The answer is a status.
    Status(SessionStatus),
    /// The answer is a session.
    Session(&'a [u8]),
    /// A request about a lock.
    Lock(LockRequest<'a>),
    /// A lock request with an invalid value.
    LockRefused(InvalidLockRequest<'a>),
    /// An answer about a lock.
    LockAnswer(LockAnswer<'a>),
    /// Something about the link itself.
    Link(DecodedLink<'a>),
    /// Data that such a message cannot have.
    Malformed {
        /// The reason.
        problem: &'static str,
        /// The undecoded data, without the head.
        data: &'a [u8],
    },
}

impl<'a> DecodedMessage<'a> {
    /// Takes the data of a message apart.
    #[must_use]
    pub fn decode(message: MessageRef<'a>) -> Self {
        let MessageRef { head, data } = message;
        match (head.operation, head.direction) {
            (Operation::Session(SessionOperation::Add), Direction::Request) => Self::of_add(data),
            (Operation::Session(_), Direction::Request) => Self::Id(data),
            (Operation::Session(operation), Direction::Response) => {
                match SessionAnswer::parse(operation, data) {
                    Ok(SessionAnswer::Status(status)) => Self::Status(status),
                    Ok(SessionAnswer::Session(session)) => Self::Session(session),
                    Err(corruption) => Self::malformed(&corruption, data),
                }
            }
            (Operation::Lock(operation), Direction::Request) => match LockRequest::parse(operation, data) {
                Ok(Ok(request)) => Self::Lock(request),
                Ok(Err(_)) => Self::LockRefused(InvalidLockRequest::decode(operation, data)),
                Err(corruption) => Self::malformed(&corruption, data),
            },
            (Operation::Lock(operation), Direction::Response) => match LockAnswer::parse(operation, data) {
                Ok(answer) => Self::LockAnswer(answer),
                Err(corruption) => Self::malformed(&corruption, data),
            },
            (Operation::Link(operation), direction) => {
                match DecodedLink::decode(operation, direction, data) {
                    Ok(content) => Self::Link(content),
                    Err(corruption) => Self::malformed(&corruption, data),
                }
            }
        }
    }

    fn of_add(data: &'a [u8]) -> Self {
        match AddRequest::parse(data) {
            Ok(Ok(add)) => Self::Add(add),
            Ok(Err(status)) => {
                let number = |at: usize| {
                    data.get(at..at + 4)
                        .map_or(0, |bytes| bytes.iter().fold(0, |n, b| n << 8 | u32::from(*b)))
                };
                let rest_len = data.len() - ADD_PREFIX_BYTES;
                Self::AddRefused { timeout_ms: number(0), id_len: number(4), rest_len, status }
            }
            Err(corruption) => Self::malformed(&corruption, data),
        }
    }

    const fn malformed(corruption: &DecodeError, data: &'a [u8]) -> Self {
        let problem = match corruption {
            DecodeError::Data { problem, .. } => problem,
            _ => "not what this operation takes",
        };
        Self::Malformed { problem, data }
    }

    /// The id of the session that a request is about.
    #[must_use]
    pub const fn id(&self) -> Option<&'a [u8]> {
        match self {
            Self::Add(add) => Some(add.id.as_bytes()),
            Self::Id(id) => Some(id),
            _ => None,
        }
    }

    /// The session that is stored or answered.
    #[must_use]
    pub const fn session(&self) -> Option<&'a [u8]> {
        match self {
            Self::Add(AddRequest { session, .. }) | Self::Session(session) => Some(session),
            _ => None,
        }
    }

    /// The key that a request is about. A CLAIM has any number of them.
    #[must_use]
    pub fn key(&self) -> Option<LockKey<'a>> {
        match self {
            Self::Lock(request) => LockFields::of(&request.action).key,
            _ => None,
        }
    }

    /// Whether the operation has no further fields.
    const fn says_nothing(&self) -> bool {
        matches!(
            self,
            Self::Link(DecodedLink::Nothing)
                | Self::Lock(LockRequest { owner: 0, action: LockAction::Stats })
        )
    }

    /// Whether this is a request whose answer may be long in coming, as it waits for others.
    #[must_use]
    pub const fn may_block(&self) -> bool {
        matches!(self, Self::Lock(request) if request.action.may_block())
    }

    /// The name of the status that an answer has; that of a session is OK.
    #[must_use]
    pub const fn status_name(&self) -> Option<&'static str> {
        match self {
            Self::Status(status) => Some(status.name()),
            Self::Session(_) => Some(SessionStatus::Ok.name()),
            Self::LockAnswer(answer) => Some(answer.status().name()),
            Self::Link(content) => match content.status() {
                Some(status) => Some(status.name()),
                None => None,
            },
            _ => None,
        }
    }

    /// Whether this is a negative answer (a miss, a timeout, an error, a lost claim), or malformed data.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Status(status) => !matches!(status, SessionStatus::Ok),
            Self::LockAnswer(answer) => answer.status().is_failure(),
            Self::Link(content) => content.is_failure(),
            Self::Malformed { .. } => true,
            _ => false,
        }
    }

    /// The ranges of the message's `data_len` bytes of data that are secret, in order.
    #[must_use]
    pub fn secret_ranges(&self, data_len: usize) -> Vec<Range<usize>> {
        let one = |range: Range<usize>| if range.is_empty() { Vec::new() } else { vec![range] };
        match self {
            Self::Add(add) => one(ADD_PREFIX_BYTES + add.id.as_bytes().len()..data_len),
            Self::AddRefused { .. } => one(ADD_PREFIX_BYTES..data_len),
            Self::Session(_) | Self::LockRefused(_) | Self::Malformed { .. } => one(0..data_len),
            Self::Id(_) | Self::Status(_) => Vec::new(),
            Self::Lock(request) => lock::secret_of_request(&request.action).into_iter().collect(),
            Self::LockAnswer(answer) => lock::secret_of_answer(answer).into_iter().collect(),
            Self::Link(content) => content.secret_ranges(data_len),
        }
    }

    /// The content as text, such as `id=5f0a…c9 (32)` or `OK session 183 bytes 8e1d04b7`.
    #[must_use]
    pub const fn show(self, secrets: Redaction) -> DisplayContent<'a> {
        DisplayContent { content: self, secrets }
    }
}

/// A [`DecodedMessage`] that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct DisplayContent<'a> {
    content: DecodedMessage<'a>,
    secrets: Redaction,
}

impl fmt::Display for DisplayContent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets;
        match self.content {
            DecodedMessage::Add(AddRequest { timeout_ms, id, session }) => {
                let (timeout, session) = (show_ms(timeout_ms.into()), show_data(session, secrets));
                write!(f, "id={} timeout={timeout} session {session}", show_session_id(id))
            }
            DecodedMessage::AddRefused { timeout_ms, id_len, rest_len, status } => {
                let timeout = show_ms(timeout_ms.into());
                write!(f, "timeout={timeout} id_len={id_len} in {} (to be answered ", bytes(rest_len))?;
                write!(f, "{})", status.name())
            }
            DecodedMessage::Id(id) => write!(f, "id={}", show_id(id)),
            DecodedMessage::Status(status) => f.write_str(status.name()),
            DecodedMessage::Session(session) => write!(f, "OK session {}", show_data(session, secrets)),
            DecodedMessage::Lock(request) => lock::show_request(f, &request, secrets),
            DecodedMessage::LockRefused(refused) => write!(f, "{refused}"),
            DecodedMessage::LockAnswer(answer) => lock::show_answer(f, &answer, secrets),
            DecodedMessage::Link(content) => content.show(f, secrets),
            DecodedMessage::Malformed { problem, data } => {
                write!(f, "malformed: {problem}")?;
                match data {
                    [] => Ok(()),
                    [byte] => write!(f, " ({byte})"),
                    _ => write!(f, " ({})", show_data(data, secrets)),
                }
            }
        }
    }
}

/// A whole message in one line.
#[must_use]
pub const fn show_message(message: MessageRef<'_>, secrets: Redaction) -> DisplayMessage<'_> {
    DisplayMessage { message, secrets }
}

/// A message that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct DisplayMessage<'a> {
    message: MessageRef<'a>,
    secrets: Redaction,
}

impl fmt::Display for DisplayMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MessageHead { operation, uid, .. } = self.message.head;
        write!(f, "{} uid={uid}", operation.name())?;
        match DecodedMessage::decode(self.message) {
            content if content.says_nothing() => Ok(()),
            content => write!(f, " {}", content.show(self.secrets)),
        }
    }
}

/// The messages in `bytes`, a line each; then a malformed or truncated rest, if any.
#[must_use]
pub const fn show_stream(bytes: &[u8], secrets: Redaction) -> DisplayStream<'_> {
    DisplayStream { bytes, secrets }
}

/// A piece of a stream of frames that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct DisplayStream<'a> {
    bytes: &'a [u8],
    secrets: Redaction,
}

impl fmt::Display for DisplayStream<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut reader = MessageReader::new(None);
        let mut rest = self.bytes;
        let mut line_start = "";
        let mut message_start = 0;
        loop {
            match reader.next(&mut rest) {
                Ok(Some(message)) => {
                    let arrow = if message.head.direction == Direction::Request { "→" } else { "←" };
                    write!(f, "{line_start}{arrow} {}", show_message(message, self.secrets))?;
                    line_start = "\n";
                    message_start = self.bytes.len() - rest.len();
                }
                Ok(None) => break,
                Err(corruption) => {
                    let at = self.bytes.len() - rest.len() + corruption.offset();
                    return write!(f, "{line_start}malformed at offset {at}: {corruption}");
                }
            }
        }
        let unfinished = self.bytes.len() - message_start;
        if unfinished > 0 {
            write!(f, "{line_start}cut short: {} of a message at offset {message_start}", bytes(unfinished))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use libdc::wire::lock::LockStatus;
    use libdc::wire::message::Message;
    use proptest::prelude::*;

    /// Written as in the documents: a digit pair a byte, spaces where they help.
    fn unhex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        digits
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
            .collect()
    }

    fn shown(hex: &str) -> String {
        show_stream(&unhex(hex), Redaction::Hidden).to_string()
    }

    /// Where each begins, and where it ends.
    fn ends(ranges: Vec<Range<usize>>) -> Vec<(usize, usize)> {
        ranges.into_iter().map(|range| (range.start, range.end)).collect()
    }

    #[test]
    fn every_session_request_is_shown() {
        // The session is "abc": its SHA-256 begins with ba7816bf (FIPS 180-2, appendix B.1).
        let add = "00110001 00 00000010 00 00 01 0010  0000ea60 00000005 5f0a0000c9 616263";
        assert_eq!(shown(add), "→ ADD uid=16 id=5f0a…c9 (5) timeout=60s session 3 bytes ba7816bf");
        let get = "00110000 00 00000011 00 01 01 0004  5f0a00c9";
        assert_eq!(shown(get), "→ GET uid=17 id=5f0a00c9 (4)");
        assert_eq!(shown("00110001 00 ffffffff 00 02 01 0000"), "→ REMOVE uid=4294967295 id=- (0)");
        let have = "00110001 00 00000000 00 03 01 0001  07";
        assert_eq!(shown(have), "→ HAVE uid=0 id=07 (1)");
    }

    #[test]
    fn every_status_is_shown() {
        let statuses = [
            ("00", "OK"),
            ("01", "NOTOK"),
            ("02", "DISCONNECTED"),
            ("64", "CORRUPT"),
            ("65", "MATCHING_SESSION"),
            ("66", "TIMEOUT_RANGE"),
            ("67", "ID_RANGE"),
            ("68", "DATA_RANGE"),
        ];
        for (byte, name) in statuses {
            let answer = format!("00110001 01 00000001 00 00 01 0001  {byte}");
            assert_eq!(shown(&answer), format!("← ADD uid=1 {name}"));
        }
        let unknown = "00110001 01 00000001 00 03 01 0001  07";
        assert_eq!(shown(unknown), "← HAVE uid=1 malformed: the response is no status (7)");
        let empty = "00110001 01 00000001 00 01 01 0000";
        assert_eq!(shown(empty), "← GET uid=1 malformed: the response is empty");
        let long = "00110001 01 00000001 00 02 01 0003  616263";
        assert_eq!(shown(long), "← REMOVE uid=1 malformed: the response is no status (3 bytes ba7816bf)");
    }

    #[test]
    fn secrets_are_written_out_only_on_request() {
        let answer = unhex("00110001 01 00000011 00 01 01 0003  616263");
        assert_eq!(
            show_stream(&answer, Redaction::Hidden).to_string(),
            "← GET uid=17 OK session 3 bytes ba7816bf"
        );
        assert_eq!(
            show_stream(&answer, Redaction::Shown).to_string(),
            "← GET uid=17 OK session 3 bytes 616263"
        );
    }

    #[test]
    fn an_add_that_cannot_be_stored_says_what_is_wrong() {
        let short = "00110001 00 00000001 00 00 01 0003  000000";
        assert_eq!(shown(short), "→ ADD uid=1 malformed: less than 8 bytes of data (3 bytes 709e80c8)");
        let beyond = "00110001 00 00000001 00 00 01 000a  000005dd 00000002 6162";
        assert_eq!(shown(beyond), "→ ADD uid=1 timeout=1501ms id_len=2 in 2 bytes (to be answered CORRUPT)");
        let long = "00110001 00 00000001 00 00 01 000a  240c8401 00000001 6162";
        assert_eq!(
            shown(long),
            "→ ADD uid=1 timeout=604800001ms id_len=1 in 2 bytes (to be answered TIMEOUT_RANGE)"
        );
        let no_id = "00110001 00 00000001 00 00 01 000a  00000000 00000000 6162";
        assert_eq!(shown(no_id), "→ ADD uid=1 timeout=0s id_len=0 in 2 bytes (to be answered ID_RANGE)");
    }

    /// A message of class 1 or 2 with uid 5.
    fn lock_or_link(is_response: bool, class: u8, operation: u8, data: &str) -> String {
        let data = unhex(data);
        let head = format!("00110001 0{} 00000005 {class:02x} {operation:02x} 01", u8::from(is_response));
        let data: String = data.iter().map(|byte| format!("{byte:02x}")).collect();
        shown(&format!("{head} {:04x} {data}", data.len() / 2))
    }

    /// Owner 7 and the key "k1".
    const START: &str = "0000000000000007 0002 6b31";
    /// Its SHA-256 begins with 73cf.
    const TOKEN: &str = "0000000000000007 0000000000000009";
    const SECONDS_60: &str = "000000000000ea60";

    #[test]
    fn every_lock_request_is_shown() {
        let own = "0000000000000000 0002 6b31";
        let cases = [
            (
                0,
                format!("{START} 00000003 0000000000002710 {SECONDS_60}"),
                "ACQUIRE uid=5 owner=7 key=k1 limit=3 timeout=10s lease=60s",
            ),
            (
                0,
                format!("{own} 00000001 0000000000000000 0000000000000000"),
                "ACQUIRE uid=5 key=k1 timeout=0s",
            ),
            (1, format!("{START} 00000001 00000000000005dd"), "ENQUEUE uid=5 owner=7 key=k1 lease=1501ms"),
            (2, format!("{START} 0000000000002710"), "WAIT uid=5 owner=7 key=k1 timeout=10s"),
            (3, format!("{START} {TOKEN}"), "RELEASE uid=5 owner=7 key=k1 fence=7 token 73cf"),
            (4, format!("{own} {TOKEN} {SECONDS_60}"), "RENEW uid=5 key=k1 fence=7 lease=60s token 73cf"),
            (5, "0000000000000007 00000009".to_owned(), "CANCEL uid=5 owner=7 of uid=9"),
            (6, "0000000000000000".to_owned(), "STATS uid=5"),
            (6, "0000000000000007".to_owned(), "STATS uid=5 owner=7"),
            // Invalid values and inconsistent lengths.
            (
                2,
                "0000000000000007 0002 6b20 0000000000002710".to_owned(),
                "WAIT uid=5 owner=7 key=\"k \" which no key can be (to be answered error)",
            ),
            (
                0,
                format!("{own} 00000000 0000000000002710 {SECONDS_60}"),
                "ACQUIRE uid=5 key=\"k1\" limit=0 (to be answered error)",
            ),
            (2, "000000".to_owned(), "WAIT uid=5 malformed: there is too little data (3 bytes 709e80c8)"),
        ];
        for (operation, data, text) in cases {
            assert_eq!(lock_or_link(false, 1, operation, &data), format!("→ {text}"));
        }
        // A key may have any characters; control characters are escaped.
        let odd = "0000000000000000 0006 1be280aec3a9 0000000000000000";
        assert_eq!(lock_or_link(false, 1, 2, odd), "→ WAIT uid=5 key=\\u{1b}\\u{202e}é timeout=0s");
    }

    #[test]
    fn every_lock_answer_is_shown() {
        let cases = [
            (0, format!("00 {TOKEN} {SECONDS_60}"), "ACQUIRE uid=5 ok fence=7 lease=60s token 73cf"),
            (1, format!("01 {TOKEN} {SECONDS_60}"), "ENQUEUE uid=5 acquired fence=7 lease=60s token 73cf"),
            (1, "02".to_owned(), "ENQUEUE uid=5 queued"),
            (2, "0a".to_owned(), "WAIT uid=5 error_lease_expired"),
            (3, "00".to_owned(), "RELEASE uid=5 ok"),
            (4, format!("00 {SECONDS_60}"), "RENEW uid=5 ok lease=60s"),
            (6, "7b7d".to_owned(), "STATS uid=5 ok 2 bytes of JSON"),
            (0, "0e".to_owned(), "ACQUIRE uid=5 malformed: an unknown status (14)"),
            (3, "000000".to_owned(), "RELEASE uid=5 malformed: there is too much data (3 bytes 709e80c8)"),
            (5, String::new(), "CANCEL uid=5 malformed: there is too little data"),
        ];
        for (operation, data, text) in cases {
            assert_eq!(lock_or_link(true, 1, operation, &data), format!("← {text}"));
        }
    }

    #[test]
    fn every_message_about_the_link_is_shown() {
        let link_id = "07".repeat(16);
        let claim = |owner: u8| format!("00000000000000{owner:02x} {TOKEN} 0001 6b");
        let claims = |count: u8| (1..=count).map(claim).collect::<String>();
        let shown_claim = |owner: u8| format!("owner={owner} key=k fence=7 token 73cf");
        let two = format!("CLAIM uid=5 2 claims: {}, {}", shown_claim(1), shown_claim(2));
        let many = (1..4).map(shown_claim).collect::<Vec<_>>().join(", ");
        let requests = [
            (0, format!("{link_id} 0006 736573616d65"), "HELLO uid=5 link d761d406 token 6 bytes d0c0"),
            (0, format!("{link_id} 0000"), "HELLO uid=5 link d761d406"),
            (1, claims(2), &two),
            (1, claims(9), &format!("CLAIM uid=5 9 claims: {many} and 6 more")),
            (1, String::new(), "CLAIM uid=5 0 claims"),
            (1, format!("{} {TOKEN} 0001 20", "0".repeat(16)), "CLAIM uid=5 1 claim: an invalid key"),
            (1, "000000".to_owned(), "CLAIM uid=5 malformed: there is too little data (3 bytes 709e80c8)"),
            (2, String::new(), "OPEN uid=5"),
            (3, String::new(), "PING uid=5"),
            (3, "07".to_owned(), "PING uid=5 malformed: there is data (7)"),
            (4, "0000000000000007".to_owned(), "DETACH uid=5 owner=7"),
            (5, String::new(), "BYE uid=5"),
            (6, String::new(), "GOAWAY uid=5"),
        ];
        for (operation, data, text) in requests {
            assert_eq!(lock_or_link(false, 2, operation, &data), format!("→ {text}"));
        }
        let answers = [
            (0, "00 00002710 00000002", "HELLO uid=5 ok grace=10s remembered=2"),
            (0, "0b 00000000 00000000", "HELLO uid=5 error_auth grace=0s remembered=0"),
            (1, "00 04 00", "CLAIM uid=5 2 ok, 1 lost"),
            (1, "00", "CLAIM uid=5 1 ok"),
            (2, "00", "OPEN uid=5 ok"),
            (3, "", "PING uid=5"),
            (4, "04", "DETACH uid=5 error"),
            (5, "00 00 00", "BYE uid=5 malformed: the response is no status (3 bytes 709e80c8)"),
        ];
        for (operation, data, text) in answers {
            assert_eq!(lock_or_link(true, 2, operation, data), format!("← {text}"));
        }
    }

    #[test]
    fn secrets_of_locks_and_links_are_shown_only_on_request() {
        let of = |class: u8, operation: u8, is_response: u8, data: &str| {
            let data = unhex(data);
            let head = [0, 0x11, 0, 1, is_response, 0, 0, 0, 5, class, operation, 1, 0, data.len() as u8];
            [&head[..], &data].concat()
        };
        let link_id = "07".repeat(16);
        let cases = [
            (
                of(1, 3, 0, &format!("{START} {TOKEN}")),
                vec![(20, 28)],
                "owner=7 key=k1 fence=7 token 00000000000000070000000000000009",
            ),
            (
                of(1, 0, 1, &format!("00 {TOKEN} {SECONDS_60}")),
                vec![(9, 17)],
                "ok fence=7 lease=60s token 00000000000000070000000000000009",
            ),
            (
                of(2, 0, 0, &format!("{link_id} 0006 736573616d65")),
                vec![(0, 16), (18, 24)],
                "link 07070707070707070707070707070707 token \"sesame\"",
            ),
            (
                of(2, 1, 0, &format!("0000000000000001 {TOKEN} 0001 6b 0000000000000000 {TOKEN} 0002 6b31")),
                vec![(16, 24), (43, 51)],
                "2 claims: owner=1 key=k fence=7 token 00000000000000070000000000000009, key=k1 fence=7 token 00000000000000070000000000000009",
            ),
        ];
        for (bytes, ranges, text) in cases {
            let message = MessageReader::new(None).next(&mut &bytes[..]).unwrap().map(Message::from).unwrap();
            let content = DecodedMessage::decode(message.as_message_ref());
            assert_eq!(ends(content.secret_ranges(message.data.len())), ranges);
            assert_eq!(content.show(Redaction::Shown).to_string(), text);
            let hidden = content.show(Redaction::Hidden).to_string();
            assert!(
                !hidden.contains("0000009") && !hidden.contains("sesame") && !hidden.contains("0707"),
                "{hidden}"
            );
        }
    }

    #[test]
    fn failures_are_timeouts_errors_and_what_is_lost() {
        let is_failure = |class, operation, data: &[u8]| {
            let operation = Operation::from_wire(class, operation).unwrap();
            let head = MessageHead::request(1, operation).response();
            DecodedMessage::decode(MessageRef { head, data }).is_failure()
        };
        for (number, status) in LockStatus::ALL.into_iter().enumerate() {
            let expected = status == LockStatus::Timeout || status.name().starts_with("error");
            assert_eq!(is_failure(1, 3, &[number as u8]), expected);
            assert_eq!(is_failure(2, 2, &[number as u8]), expected);
        }
        assert!(is_failure(2, 1, &[0, 4]) && !is_failure(2, 1, &[0, 0]) && is_failure(2, 1, &[0, 99]));
        assert!(is_failure(2, 0, &[11, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert!(!is_failure(1, 6, b"{}"));
    }

    #[test]
    fn malformed_and_truncated_bytes_are_shown_with_their_place() {
        let ping = "00110001 00 00000006 02 03 01 0000";
        assert_eq!(
            shown(&format!("{ping} 0011 0001 07")),
            "→ PING uid=6\nmalformed at offset 18: is_response is 7, not 0 or 1"
        );
        assert_eq!(shown("12"), "malformed at offset 0: byte 0 is 0x12: not version 0x0011");
        assert_eq!(
            shown(&format!("{ping} 0011 0001 00")),
            "→ PING uid=6\ncut short: 5 bytes of a message at offset 14"
        );
        assert_eq!(shown(""), "");
        let first = format!("00110001 01 00000001 00 01 00 0800 {} 0011", "ab".repeat(2048));
        assert_eq!(shown(&first), "cut short: 2064 bytes of a message at offset 0");
    }

    #[test]
    fn the_secret_part_of_a_message_is_known() {
        let range = |hex: &str| {
            let bytes = unhex(hex);
            let message = MessageReader::new(None)
                .next(&mut &bytes[..])
                .unwrap()
                .map(|message| ends(DecodedMessage::decode(message).secret_ranges(message.data.len())));
            message.unwrap()
        };
        let add = "00110001 00 00000010 00 00 01 0010  0000ea60 00000005 5f0a0000c9 616263";
        assert_eq!(range(add), [(13, 16)]);
        assert_eq!(range("00110001 00 00000011 00 01 01 0002  5f0a"), []);
        assert_eq!(range("00110001 01 00000011 00 01 01 0002  5f0a"), [(0, 2)]);
    }

    proptest! {
        #[test]
        fn anything_can_be_shown(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            head in proptest::option::of((0..3_u8, 0..8_u8, 0..2_u8)),
        ) {
            let mut input = Vec::new();
            if let Some((class, operation, is_response)) = head {
                input.extend_from_slice(&[0, 0x11, 0, 1, is_response, 0, 0, 0, 1, class, operation, 1, 0]);
                input.push(bytes.len() as u8);
            }
            input.extend_from_slice(&bytes);
            let text = show_stream(&input, Redaction::Hidden).to_string();
            prop_assert_eq!(text.is_empty(), input.is_empty());
        }
    }
}
