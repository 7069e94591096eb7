//! The payloads of class 0: what is asked of the session table and what it answers.
//!
//! | operation | data of the request | data of the response |
//! |---|---|---|
//! | ADD | timeout in ms (4 bytes), length of the id (4 bytes), id, session | one status byte |
//! | GET | id | the session, or one status byte |
//! | REMOVE, HAVE | id | one status byte |

use crate::id::SessionId;
use crate::limits::{ADD_PREFIX_BYTES, SESSION_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use crate::wire::frame::{Corruption, SessionOperation};

/// A status byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Status {
    /// Done; or: it is there.
    Ok = 0,
    /// It is not there.
    NotOk = 1,
    /// The agent could not reach the server.
    Disconnected = 2,
    /// ADD: the lengths in the request do not fit each other.
    Corrupt = 100,
    /// ADD: a session with this id is stored already, and stays as it is.
    MatchingSession = 101,
    /// ADD: the timeout is above seven days.
    TimeoutRange = 102,
    /// ADD: the id has no byte, or more than 64.
    IdRange = 103,
    /// ADD: the session is longer than can be stored.
    DataRange = 104,
}

impl Status {
    /// The status with this number; `None` if there is none.
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

    /// The name, as the documents write it.
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

/// A session to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Add<'a> {
    /// How long to keep it, in milliseconds; 0 expires at once.
    pub timeout_ms: u32,
    /// Its id.
    pub id: SessionId<'a>,
    /// The session: 1 to 32,768 bytes that mean nothing to us.
    pub session: &'a [u8],
}

impl<'a> Add<'a> {
    /// Reads the data of an ADD. The inner error is the status to answer.
    ///
    /// # Errors
    /// [`Corruption`] if the data is shorter than its fixed part.
    pub fn parse(data: &'a [u8]) -> Result<Result<Self, Status>, Corruption> {
        let Some((prefix, rest)) = data.split_first_chunk::<ADD_PREFIX_BYTES>() else {
            return Err(Corruption::Data { operation: "ADD", problem: "less than 8 bytes of data" });
        };
        let timeout_ms = u32::from_be_bytes([prefix[0], prefix[1], prefix[2], prefix[3]]);
        let id_len = u32::from_be_bytes([prefix[4], prefix[5], prefix[6], prefix[7]]) as usize;
        if timeout_ms > SESSION_TIMEOUT_MS_MAX {
            return Ok(Err(Status::TimeoutRange));
        }
        if id_len >= rest.len() {
            return Ok(Err(Status::Corrupt));
        }
        let (id, session) = rest.split_at(id_len);
        let Some(id) = SessionId::new(id) else {
            return Ok(Err(Status::IdRange));
        };
        if session.len() > SESSION_BYTES_MAX {
            return Ok(Err(Status::DataRange));
        }
        Ok(Ok(Self { timeout_ms, id, session }))
    }

    /// Appends the data of the request.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timeout_ms.to_be_bytes());
        out.extend_from_slice(&(self.id.as_bytes().len() as u32).to_be_bytes());
        out.extend_from_slice(self.id.as_bytes());
        out.extend_from_slice(self.session);
    }
}

/// The answer to a session request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// A status.
    Status(Status),
    /// A session.
    Session(&'a [u8]),
}

impl<'a> Answer<'a> {
    /// Reads the data of a response to `operation`.
    ///
    /// A response to a GET of one byte may be a session of one byte as well as a status: the protocol can't
    /// tell. We take it for a status where there is one with that number.
    ///
    /// # Errors
    /// [`Corruption`] if no such answer exists.
    pub fn parse(operation: SessionOperation, data: &'a [u8]) -> Result<Self, Corruption> {
        let status = if let [byte] = data { Status::from_wire(*byte) } else { None };
        match (operation, status) {
            (_, Some(status)) => Ok(Self::Status(status)),
            (SessionOperation::Get, None) if !data.is_empty() => Ok(Self::Session(data)),
            _ => Err(Corruption::Data { operation: "response", problem: "no such status" }),
        }
    }
}
