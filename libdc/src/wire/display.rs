//! Messages as people read them: any of them, malformed and cut short too.
//!
//! ```text
//! ADD uid=16 id=5f0a…c9 (32) timeout=60s session 183 bytes 8e1d04b7
//! GET uid=17 id=5f0a…c9 (32)
//! GET uid=17 OK session 183 bytes 8e1d04b7
//! HAVE uid=18 NOTOK
//! ```
//!
//! A session lets who has it resume a connection as somebody else. So it is shown as its length and the
//! first four bytes of its SHA-256, unless the caller asks for [`Secrets::Shown`]: enough to see that two are the
//! same and to compare with `sha256sum`, useless for getting the session back. Nothing here allocates more
//! than the line itself, and nothing panics whatever the bytes are.

use crate::id::SessionId;
use crate::limits::ADD_PREFIX_BYTES;
use crate::wire::frame::{Corruption, Direction, MessageHead, Operation, SessionOperation};
use crate::wire::message::{MessageReader, MessageRef};
use crate::wire::session::{Add, Answer, Status};
use sha2::{Digest, Sha256};
use std::fmt;
use std::ops::Range;

/// What a message says, taken apart as far as its bytes allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// A session to be stored.
    Add(Add<'a>),
    /// An ADD that can't be stored.
    AddRefused {
        /// The timeout it asks for, in milliseconds.
        timeout_ms: u32,
        /// The length it gives for the id.
        id_len: u32,
        /// The bytes behind the two, id and session.
        rest_len: usize,
        /// What a server answers.
        status: Status,
    },
    /// The id in a GET, REMOVE or HAVE; of any length.
    Id(&'a [u8]),
    /// The answer is a status.
    Status(Status),
    /// The answer is a session.
    Session(&'a [u8]),
    /// Data that is not taken apart here.
    Opaque(&'a [u8]),
    /// Data that such a message can't have.
    Malformed {
        /// What is wrong with it.
        problem: &'static str,
        /// The data.
        data: &'a [u8],
    },
}

impl<'a> Content<'a> {
    /// Takes the data of a message apart.
    #[must_use]
    pub fn of(message: MessageRef<'a>) -> Self {
        let MessageRef { head, data } = message;
        match (head.operation, head.direction) {
            (Operation::Session(SessionOperation::Add), Direction::Request) => Self::of_add(data),
            (Operation::Session(_), Direction::Request) => Self::Id(data),
            (Operation::Session(operation), Direction::Response) => match Answer::parse(operation, data) {
                Ok(Answer::Status(status)) => Self::Status(status),
                Ok(Answer::Session(session)) => Self::Session(session),
                Err(corruption) => Self::malformed(&corruption, data),
            },
            (Operation::Lock(_) | Operation::Link(_), _) => Self::Opaque(data),
        }
    }

    fn of_add(data: &'a [u8]) -> Self {
        match Add::parse(data) {
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

    const fn malformed(corruption: &Corruption, data: &'a [u8]) -> Self {
        let problem = match corruption {
            Corruption::Data { problem, .. } => problem,
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
            Self::Add(Add { session, .. }) | Self::Session(session) => Some(session),
            _ => None,
        }
    }

    /// Whether this is an answer other than "done" or a session, or data that can't be.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        match self {
            Self::Status(status) => !matches!(status, Status::Ok),
            Self::Malformed { .. } => true,
            _ => false,
        }
    }

    /// Which of the message's `data_len` bytes of data are not for everybody's eyes.
    #[must_use]
    pub const fn secret_range(&self, data_len: usize) -> Range<usize> {
        match self {
            Self::Add(add) => ADD_PREFIX_BYTES + add.id.as_bytes().len()..data_len,
            Self::AddRefused { .. } => ADD_PREFIX_BYTES..data_len,
            Self::Session(_) | Self::Opaque(_) | Self::Malformed { .. } => 0..data_len,
            Self::Id(_) | Self::Status(_) => 0..0,
        }
    }

    /// The content as text, such as `id=5f0a…c9 (32)` or `OK session 183 bytes 8e1d04b7`.
    #[must_use]
    pub const fn show(self, secrets: Secrets) -> ShowContent<'a> {
        ShowContent { content: self, secrets }
    }
}

/// Whether session data and tokens are written out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Secrets {
    /// As a length and a digest.
    #[default]
    Hidden,
    /// In full, as hexadecimal digits.
    Shown,
}

/// A [`Content`] that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct ShowContent<'a> {
    content: Content<'a>,
    secrets: Secrets,
}

impl fmt::Display for ShowContent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets;
        match self.content {
            Content::Add(Add { timeout_ms, id, session }) => {
                let (timeout, session) = (show_ms(timeout_ms), show_data(session, secrets));
                write!(f, "id={} timeout={timeout} session {session}", show_session_id(id))
            }
            Content::AddRefused { timeout_ms, id_len, rest_len, status } => {
                let timeout = show_ms(timeout_ms);
                write!(f, "timeout={timeout} id_len={id_len} in {} (to be answered ", bytes(rest_len))?;
                write!(f, "{})", status.name())
            }
            Content::Id(id) => write!(f, "id={}", show_id(id)),
            Content::Status(status) => f.write_str(status.name()),
            Content::Session(session) => write!(f, "OK session {}", show_data(session, secrets)),
            Content::Opaque(data) => write!(f, "{}", bytes(data.len())),
            Content::Malformed { problem, data } => {
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
pub const fn show_message(message: MessageRef<'_>, secrets: Secrets) -> ShowMessage<'_> {
    ShowMessage { message, secrets }
}

/// A message that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct ShowMessage<'a> {
    message: MessageRef<'a>,
    secrets: Secrets,
}

impl fmt::Display for ShowMessage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MessageHead { operation, uid, .. } = self.message.head;
        write!(f, "{} uid={uid} {}", operation.name(), Content::of(self.message).show(self.secrets))
    }
}

/// The messages in `bytes`, a line each; then what is malformed or cut short in them, if anything is.
#[must_use]
pub const fn show_stream(bytes: &[u8], secrets: Secrets) -> ShowStream<'_> {
    ShowStream { bytes, secrets }
}

/// A piece of a stream of frames that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct ShowStream<'a> {
    bytes: &'a [u8],
    secrets: Secrets,
}

impl fmt::Display for ShowStream<'_> {
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

/// An id, abbreviated: `5f0a…c9 (32)`. One of up to four bytes is shown whole.
#[must_use]
pub const fn show_id(id: &[u8]) -> impl fmt::Display + '_ {
    ShowId(id)
}

const fn show_session_id(id: SessionId<'_>) -> ShowId<'_> {
    ShowId(id.as_bytes())
}

struct ShowId<'a>(&'a [u8]);

impl fmt::Display for ShowId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            [] => write!(f, "- (0)"),
            [first, second, .., last] if self.0.len() > 4 => {
                write!(f, "{first:02x}{second:02x}…{last:02x} ({})", self.0.len())
            }
            short => write!(f, "{} ({})", show_hex(short), short.len()),
        }
    }
}

/// Session data: `183 bytes 8e1d04b7` or, with the secrets shown, `183 bytes` and all of their digits.
#[must_use]
pub const fn show_data(data: &[u8], secrets: Secrets) -> impl fmt::Display + '_ {
    ShowData { data, secrets }
}

struct ShowData<'a> {
    data: &'a [u8],
    secrets: Secrets,
}

impl fmt::Display for ShowData<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", bytes(self.data.len()))?;
        match self.secrets {
            Secrets::Hidden => write!(f, "{:08x}", digest(self.data)),
            Secrets::Shown => write!(f, "{}", show_hex(self.data)),
        }
    }
}

/// All the bytes as hexadecimal digits.
#[must_use]
pub const fn show_hex(bytes: &[u8]) -> impl fmt::Display + '_ {
    ShowHex(bytes)
}

struct ShowHex<'a>(&'a [u8]);

impl fmt::Display for ShowHex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The first four bytes of the SHA-256 of `data`: tells two secrets apart without telling either.
#[must_use]
pub fn digest(data: &[u8]) -> u32 {
    let hash = Sha256::digest(data);
    hash.iter().take(4).fold(0, |n, byte| n << 8 | u32::from(*byte))
}

/// Milliseconds as a person writes them: `60s`, `1500ms`.
const fn show_ms(ms: u32) -> impl fmt::Display {
    ShowMs(ms)
}

struct ShowMs(u32);

impl fmt::Display for ShowMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_multiple_of(1000) { write!(f, "{}s", self.0 / 1000) } else { write!(f, "{}ms", self.0) }
    }
}

const fn bytes(count: usize) -> impl fmt::Display {
    Bytes(count)
}

struct Bytes(usize);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} byte{}", self.0, if self.0 == 1 { "" } else { "s" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
        show_stream(&unhex(hex), Secrets::Hidden).to_string()
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
            show_stream(&answer, Secrets::Hidden).to_string(),
            "← GET uid=17 OK session 3 bytes ba7816bf"
        );
        assert_eq!(
            show_stream(&answer, Secrets::Shown).to_string(),
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

    #[test]
    fn classes_one_and_two_are_shown_by_name_and_length() {
        assert_eq!(shown("00110001 00 00000005 01 03 01 0002  0000"), "→ RELEASE uid=5 2 bytes");
        assert_eq!(shown("00110001 01 00000006 02 03 01 0001  00"), "← PING uid=6 1 byte");
    }

    #[test]
    fn malformed_and_truncated_bytes_are_shown_with_their_place() {
        let ping = "00110001 00 00000006 02 03 01 0000";
        assert_eq!(
            shown(&format!("{ping} 0011 0001 07")),
            "→ PING uid=6 0 bytes\nmalformed at offset 18: is_response is 7, not 0 or 1"
        );
        assert_eq!(shown("12"), "malformed at offset 0: byte 0 is 0x12: not version 0x0011");
        assert_eq!(
            shown(&format!("{ping} 0011 0001 00")),
            "→ PING uid=6 0 bytes\ncut short: 5 bytes of a message at offset 14"
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
                .map(|message| (Content::of(message).secret_range(message.data.len()), message.data.len()));
            message.unwrap()
        };
        let add = "00110001 00 00000010 00 00 01 0010  0000ea60 00000005 5f0a0000c9 616263";
        assert_eq!(range(add), (13..16, 16));
        assert_eq!(range("00110001 00 00000011 00 01 01 0002  5f0a").0, 0..0);
        assert_eq!(range("00110001 01 00000011 00 01 01 0002  5f0a").0, 0..2);
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
            let text = show_stream(&input, Secrets::Hidden).to_string();
            prop_assert_eq!(text.is_empty(), input.is_empty());
        }
    }
}
