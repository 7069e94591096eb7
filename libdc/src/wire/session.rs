//! The payloads of class 0: requests to the session table, and its answers.
//!
//! | operation | data of the request | data of the response |
//! |---|---|---|
//! | ADD | timeout in ms (4 bytes), length of the id (4 bytes), id, session | one status byte |
//! | GET | id | the session, or one status byte |
//! | REMOVE, HAVE | id | one status byte |
//!
//! An ADD with its prefix and its id has to fit into one message. A session stored by ADD is therefore at
//! least 9 bytes shorter than the maximum message; see [`AddRequest::fits_message`]. Nothing here panics.

use crate::id::SessionId;
use crate::limits::{
    ADD_PREFIX_BYTES, FRAME_HEADER_BYTES, SESSION_BYTES_MAX, SESSION_MESSAGE_BYTES_MAX,
    SESSION_TIMEOUT_MS_MAX,
};
use crate::wire::decode_error::DecodeError;
use crate::wire::operation::{Operation, SessionOperation};

/// The status byte of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum SessionStatus {
    /// The request succeeded, or the session exists.
    Ok = 0,
    /// No session with this id exists.
    NotOk = 1,
    /// The agent cannot reach the server.
    Disconnected = 2,
    /// ADD: the lengths in the request do not match.
    Corrupt = 100,
    /// ADD: a session with this id is already stored and stays as it is.
    MatchingSession = 101,
    /// ADD: the timeout exceeds seven days.
    TimeoutRange = 102,
    /// ADD: the id is empty or longer than 64 bytes.
    IdRange = 103,
    /// ADD: the session is longer than the table can store.
    DataRange = 104,
}

impl SessionStatus {
    /// The status with this number; `None` if it does not exist.
    #[must_use]
    pub const fn from_wire(byte: u8) -> Option<Self> {
        Some(match byte {
            0 => Self::Ok,
            1 => Self::NotOk,
            2 => Self::Disconnected,
            100 => Self::Corrupt,
            101 => Self::MatchingSession,
            102 => Self::TimeoutRange,
            103 => Self::IdRange,
            104 => Self::DataRange,
            _ => return None,
        })
    }

    /// The name that documents use, such as `NOTOK`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::NotOk => "NOTOK",
            Self::Disconnected => "DISCONNECTED",
            Self::Corrupt => "CORRUPT",
            Self::MatchingSession => "MATCHING_SESSION",
            Self::TimeoutRange => "TIMEOUT_RANGE",
            Self::IdRange => "ID_RANGE",
            Self::DataRange => "DATA_RANGE",
        }
    }
}

/// A request to store a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddRequest<'a> {
    /// How long to keep the session, in milliseconds; 0 expires at once.
    pub timeout_ms: u32,
    /// The id, 1 to 64 bytes.
    pub id: SessionId<'a>,
    /// The session: 1 to 32,768 opaque bytes.
    pub session: &'a [u8],
}

impl<'a> AddRequest<'a> {
    /// Parses the data of an ADD. The inner error is the status to answer.
    ///
    /// # Errors
    /// [`DecodeError`] if the data is shorter than its fixed part.
    pub fn parse(data: &'a [u8]) -> Result<Result<Self, SessionStatus>, DecodeError> {
        let Some((prefix, rest)) = data.split_first_chunk::<ADD_PREFIX_BYTES>() else {
            return Err(DecodeError::Data { operation: "ADD", problem: "less than 8 bytes of data" });
        };
        let timeout_ms = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let id_len = u32::from_be_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
        if timeout_ms > SESSION_TIMEOUT_MS_MAX {
            return Ok(Err(SessionStatus::TimeoutRange));
        }
        if id_len >= rest.len() {
            return Ok(Err(SessionStatus::Corrupt));
        }
        let (id, session) = rest.split_at(id_len);
        let Some(id) = SessionId::new(id) else {
            return Ok(Err(SessionStatus::IdRange));
        };
        if session.len() > SESSION_BYTES_MAX {
            return Ok(Err(SessionStatus::DataRange));
        }
        Ok(Ok(Self { timeout_ms, id, session }))
    }

    /// Whether the request fits into one message. If not, it cannot be sent.
    #[must_use]
    pub const fn fits_message(&self) -> bool {
        ADD_PREFIX_BYTES + self.id.as_bytes().len() + self.session.len() <= SESSION_MESSAGE_BYTES_MAX
    }

    /// Appends the data of the request.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timeout_ms.to_be_bytes());
        out.extend_from_slice(&(self.id.as_bytes().len() as u32).to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.session);
    }
}

/// The ids of the requests at the start of `input`, for prefetching table entries before the requests are
/// parsed.
///
/// This is only a hint: nothing is checked except that the bytes are present. The iterator ends at the first
/// request that is not a single complete frame of class 0, or whose id is invalid.
pub fn ids_ahead(input: &[u8]) -> impl Iterator<Item = SessionId<'_>> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (header, after) = rest.split_first_chunk::<FRAME_HEADER_BYTES>()?;
        let [class, operation, complete, high, low] = *header.last_chunk()?;
        let (data, after) = after.split_at_checked(usize::from(u16::from_be_bytes([high, low])))?;
        if class != 0 || complete != 1 {
            return None;
        }
        rest = after;
        if operation != SessionOperation::Add as u8 {
            return SessionId::new(data);
        }
        let (prefix, id_and_session) = data.split_first_chunk::<ADD_PREFIX_BYTES>()?;
        let [.., a, b, c, d] = *prefix;
        SessionId::new(id_and_session.get(..u32::from_be_bytes([a, b, c, d]) as usize)?)
    })
}

/// The answer to a session request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAnswer<'a> {
    /// A status without a session.
    Status(SessionStatus),
    /// The session, the answer to a successful GET.
    Session(&'a [u8]),
}

impl<'a> SessionAnswer<'a> {
    /// Parses the data of a response to `operation`.
    ///
    /// The protocol is ambiguous: a response to a GET of one byte may be a status or a session of one byte.
    /// It is taken as a status only if a GET can return that: NOTOK or DISCONNECTED.
    ///
    /// # Errors
    /// [`DecodeError`] if the data is not a valid answer.
    pub fn parse(operation: SessionOperation, data: &'a [u8]) -> Result<Self, DecodeError> {
        let status = if let [byte] = data { SessionStatus::from_wire(*byte) } else { None };
        let problem = if operation == SessionOperation::Get {
            match status {
                Some(status @ (SessionStatus::NotOk | SessionStatus::Disconnected)) => {
                    return Ok(Self::Status(status));
                }
                _ if !data.is_empty() => return Ok(Self::Session(data)),
                _ => "the response is empty",
            }
        } else {
            match status {
                Some(status) => return Ok(Self::Status(status)),
                None => "the response is no status",
            }
        };
        Err(DecodeError::Data { operation: Operation::Session(operation).name(), problem })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ADD: [u8; 14] = [0, 0, 0xea, 0x60, 0, 0, 0, 3, 0x0a, 0x0b, 0x0c, 0xd0, 0xd1, 0xd2];

    /// The data of an ADD with this timeout and id length, followed by `rest` zeros.
    fn add(timeout_ms: u32, id_len: u32, rest: usize) -> Vec<u8> {
        let mut data = [timeout_ms.to_be_bytes(), id_len.to_be_bytes()].concat();
        data.resize(ADD_PREFIX_BYTES + rest, 0);
        data
    }

    fn status_of(data: &[u8]) -> Option<SessionStatus> {
        AddRequest::parse(data).unwrap().err()
    }

    #[test]
    fn add_bytes_round_trip() {
        let id = SessionId::new(&[0x0a, 0x0b, 0x0c]).unwrap();
        let expected = AddRequest { timeout_ms: 60_000, id, session: &[0xd0, 0xd1, 0xd2] };
        assert_eq!(AddRequest::parse(&ADD), Ok(Ok(expected)));
        let mut out = vec![0xff];
        expected.write(&mut out);
        assert_eq!(out[1..], ADD);
    }

    #[test]
    fn add_shorter_than_prefix_is_a_decode_error() {
        for len in 0..ADD_PREFIX_BYTES {
            let error = AddRequest::parse(&ADD[..len]).unwrap_err();
            assert_eq!(error.to_string(), "ADD: less than 8 bytes of data");
        }
        assert_eq!(status_of(&ADD[..ADD_PREFIX_BYTES]), Some(SessionStatus::Corrupt));
    }

    #[test]
    fn add_limits_are_inclusive() {
        assert_eq!(status_of(&add(604_800_000, 1, 2)), None);
        assert_eq!(status_of(&add(604_800_001, 1, 2)), Some(SessionStatus::TimeoutRange));
        assert_eq!(status_of(&add(0, 1, 2)), None, "a timeout of 0 is valid");
        assert_eq!(status_of(&add(0, 2, 2)), Some(SessionStatus::Corrupt), "the session is empty");
        assert_eq!(status_of(&add(0, u32::MAX, 2)), Some(SessionStatus::Corrupt));
        assert_eq!(status_of(&add(0, 0, 2)), Some(SessionStatus::IdRange));
        assert_eq!(status_of(&add(0, 64, 65)), None);
        assert_eq!(status_of(&add(0, 65, 66)), Some(SessionStatus::IdRange));
        assert_eq!(status_of(&add(0, 1, 1 + SESSION_BYTES_MAX)), None);
        assert_eq!(status_of(&add(0, 1, 2 + SESSION_BYTES_MAX)), Some(SessionStatus::DataRange));
    }

    #[test]
    fn add_checks_run_in_documented_order() {
        assert_eq!(status_of(&add(u32::MAX, u32::MAX, 2)), Some(SessionStatus::TimeoutRange));
        assert_eq!(status_of(&add(0, 65, 65)), Some(SessionStatus::Corrupt));
        assert_eq!(status_of(&add(0, 0, 0)), Some(SessionStatus::Corrupt));
        assert_eq!(status_of(&add(0, 65, 66 + SESSION_BYTES_MAX)), Some(SessionStatus::IdRange));
    }

    #[test]
    fn add_fits_message_up_to_its_last_byte() {
        let bytes = [0; SESSION_BYTES_MAX];
        let id = SessionId::new(&bytes[..64]).unwrap();
        let most = SESSION_MESSAGE_BYTES_MAX - ADD_PREFIX_BYTES - 64;
        assert!(AddRequest { timeout_ms: 0, id, session: &bytes[..most] }.fits_message());
        assert!(!AddRequest { timeout_ms: 0, id, session: &bytes[..=most] }.fits_message());
    }

    #[test]
    fn status_numbers_match_their_names() {
        let all = [
            (0, "OK"),
            (1, "NOTOK"),
            (2, "DISCONNECTED"),
            (100, "CORRUPT"),
            (101, "MATCHING_SESSION"),
            (102, "TIMEOUT_RANGE"),
            (103, "ID_RANGE"),
            (104, "DATA_RANGE"),
        ];
        for byte in 0..=u8::MAX {
            let expected = all.iter().find(|(number, _)| *number == byte).map(|(_, name)| *name);
            let status = SessionStatus::from_wire(byte);
            assert_eq!(status.map(SessionStatus::name), expected);
            assert!(status.is_none_or(|status| status as u8 == byte));
        }
    }

    #[test]
    fn answer_is_a_status_or_a_session_for_get() {
        use SessionOperation::{Add, Get, Have, Remove};
        for operation in [Add, Remove, Have] {
            assert_eq!(SessionAnswer::parse(operation, &[0]), Ok(SessionAnswer::Status(SessionStatus::Ok)));
            assert_eq!(
                SessionAnswer::parse(operation, &[101]),
                Ok(SessionAnswer::Status(SessionStatus::MatchingSession))
            );
            for wrong in [[].as_slice(), &[3], &[0, 0]] {
                assert!(SessionAnswer::parse(operation, wrong).is_err());
            }
        }
        assert_eq!(SessionAnswer::parse(Get, &[1]), Ok(SessionAnswer::Status(SessionStatus::NotOk)));
        assert_eq!(SessionAnswer::parse(Get, &[2]), Ok(SessionAnswer::Status(SessionStatus::Disconnected)));
        for session in [[0].as_slice(), &[3], &[101], &[1, 1], &[0; SESSION_BYTES_MAX]] {
            assert_eq!(SessionAnswer::parse(Get, session), Ok(SessionAnswer::Session(session)));
        }
        let empty = SessionAnswer::parse(Get, &[]).unwrap_err();
        assert_eq!(empty.to_string(), "GET: the response is empty");
    }
}
