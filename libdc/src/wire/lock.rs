//! The payloads of class 1: locks. An extension of this project, for peers at patch level 1 or above.
//!
//! Every request begins with `owner u64`: 0 is the connection itself; an agent numbers its local connections.
//! `str` is a u16 length and that many bytes. Numbers are big-endian, times are in milliseconds.
//!
//! | operation | rest of the request | data of the response |
//! |---|---|---|
//! | 0 ACQUIRE | key str, limit u32, timeout u64, lease u64 (0: the server's default) | status, or a grant |
//! | 1 ENQUEUE | key str, limit u32, lease u64 | status, or a grant |
//! | 2 WAIT | key str, timeout u64 | status, or a grant |
//! | 3 RELEASE | key str, token 16 bytes | status |
//! | 4 RENEW | key str, token 16 bytes, lease u64 | status; if it is `ok`, lease u64 |
//! | 5 CANCEL | uid u32 of the blocked request | status |
//! | 6 STATS | none | the JSON, or a status |
//!
//! A status is one byte. A grant is a status (`ok`, `acquired`), token 16 bytes, lease u64. JSON begins with
//! `{`, which is not the number of any status.
//!
//! A request whose lengths do not add up is a [`DecodeError`] and ends the connection. A well-formed request
//! with an invalid value (a key with white space, a limit of 0) is answered `error`. Nothing here panics.

use crate::id::{Grant, LockKey, Token};
use crate::limits::LOCK_MS_MAX;
use crate::wire::decode_error::DecodeError;
use crate::wire::frame::MessageHead;
use crate::wire::message::MessageWriter;
use crate::wire::operation::{LockOperation, Operation};

/// A request about a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRequest<'a> {
    /// The agent's local connection that sends the request; 0 is the connection itself.
    pub owner: u64,
    /// The operation and its parameters.
    pub action: LockAction<'a>,
}

/// The operations and their parameters. Times are in milliseconds, at most [`LOCK_MS_MAX`]; a lease of 0
/// means the server's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAction<'a> {
    /// Acquires a lock, or one of the slots of a semaphore.
    Acquire {
        /// The key of the lock.
        key: LockKey<'a>,
        /// The maximum number of holders, at least 1.
        limit: u32,
        /// The wait timeout; 0 does not wait.
        timeout_ms: u64,
        /// The lease, counted from the grant.
        lease_ms: u64,
    },
    /// Joins the queue of a lock.
    Enqueue {
        /// The key of the lock.
        key: LockKey<'a>,
        /// The maximum number of holders, at least 1.
        limit: u32,
        /// The lease, counted from the grant.
        lease_ms: u64,
    },
    /// Waits until the position in the queue becomes a lock.
    Wait {
        /// The key of the lock.
        key: LockKey<'a>,
        /// The wait timeout; 0 does not wait.
        timeout_ms: u64,
    },
    /// Releases a lock that is held.
    Release {
        /// The key of the lock.
        key: LockKey<'a>,
        /// The token from the grant.
        token: Token,
    },
    /// Extends the lease of a lock that is held.
    Renew {
        /// The key of the lock.
        key: LockKey<'a>,
        /// The token from the grant.
        token: Token,
        /// The new lease, counted from now.
        lease_ms: u64,
    },
    /// Cancels a request that is blocked.
    Cancel {
        /// The uid of the blocked request.
        uid: u32,
    },
    /// Requests the state of the table.
    Stats,
}

impl<'a> LockRequest<'a> {
    /// Parses a request. The inner error is the status to answer.
    ///
    /// # Errors
    /// [`DecodeError::Data`] if the data does not have the length that it states.
    #[inline]
    pub fn parse(operation: LockOperation, data: &'a [u8]) -> Result<Result<Self, LockStatus>, DecodeError> {
        let mut rest = FieldReader::new(Operation::Lock(operation), data);
        let owner = rest.u64()?;
        let action = match operation {
            LockOperation::Acquire => {
                let (key, limit) = (rest.str()?, rest.u32()?);
                let (timeout_ms, lease_ms) = (rest.ms()?, rest.ms()?);
                lock_key(key).filter(|_| limit > 0).map(|key| LockAction::Acquire {
                    key,
                    limit,
                    timeout_ms,
                    lease_ms,
                })
            }
            LockOperation::Enqueue => {
                let (key, limit, lease_ms) = (rest.str()?, rest.u32()?, rest.ms()?);
                lock_key(key).filter(|_| limit > 0).map(|key| LockAction::Enqueue { key, limit, lease_ms })
            }
            LockOperation::Wait => {
                let (key, timeout_ms) = (rest.str()?, rest.ms()?);
                lock_key(key).map(|key| LockAction::Wait { key, timeout_ms })
            }
            LockOperation::Release => {
                let (key, token) = (rest.str()?, rest.token()?);
                lock_key(key).map(|key| LockAction::Release { key, token })
            }
            LockOperation::Renew => {
                let (key, token, lease_ms) = (rest.str()?, rest.token()?, rest.ms()?);
                lock_key(key).map(|key| LockAction::Renew { key, token, lease_ms })
            }
            LockOperation::Cancel => Some(LockAction::Cancel { uid: rest.u32()? }),
            LockOperation::Stats => Some(LockAction::Stats),
        };
        rest.end()?;
        Ok(action.map(|action| Self { owner, action }).ok_or(LockStatus::Error))
    }

    /// Appends the request as a message with this uid.
    pub fn write(&self, uid: u32, out: &mut Vec<u8>) {
        let operation = self.action.operation();
        let writer = MessageWriter::begin(out, MessageHead::request(uid, Operation::Lock(operation)));
        out.extend_from_slice(&self.owner.to_be_bytes());
        match self.action {
            LockAction::Acquire { key, limit, timeout_ms, lease_ms } => {
                write_str(out, key.as_bytes());
                out.extend_from_slice(&limit.to_be_bytes());
                out.extend_from_slice(&timeout_ms.to_be_bytes());
                out.extend_from_slice(&lease_ms.to_be_bytes());
            }
            LockAction::Enqueue { key, limit, lease_ms } => {
                write_str(out, key.as_bytes());
                out.extend_from_slice(&limit.to_be_bytes());
                out.extend_from_slice(&lease_ms.to_be_bytes());
            }
            LockAction::Wait { key, timeout_ms } => {
                write_str(out, key.as_bytes());
                out.extend_from_slice(&timeout_ms.to_be_bytes());
            }
            LockAction::Release { key, token } => {
                write_str(out, key.as_bytes());
                out.extend_from_slice(&token.to_bytes());
            }
            LockAction::Renew { key, token, lease_ms } => {
                write_str(out, key.as_bytes());
                out.extend_from_slice(&token.to_bytes());
                out.extend_from_slice(&lease_ms.to_be_bytes());
            }
            LockAction::Cancel { uid } => out.extend_from_slice(&uid.to_be_bytes()),
            LockAction::Stats => {}
        }
        writer.finish(out);
    }
}

impl LockAction<'_> {
    /// The operation that carries this action.
    #[must_use]
    pub const fn operation(&self) -> LockOperation {
        match self {
            Self::Acquire { .. } => LockOperation::Acquire,
            Self::Enqueue { .. } => LockOperation::Enqueue,
            Self::Wait { .. } => LockOperation::Wait,
            Self::Release { .. } => LockOperation::Release,
            Self::Renew { .. } => LockOperation::Renew,
            Self::Cancel { .. } => LockOperation::Cancel,
            Self::Stats => LockOperation::Stats,
        }
    }

    /// Whether the answer may be a grant.
    #[must_use]
    pub const fn may_grant(&self) -> bool {
        matches!(self, Self::Acquire { .. } | Self::Enqueue { .. } | Self::Wait { .. })
    }

    /// Whether the request may wait for its answer.
    #[must_use]
    pub const fn may_block(&self) -> bool {
        matches!(self, Self::Acquire { timeout_ms: 1.., .. } | Self::Wait { timeout_ms: 1.., .. })
    }
}

/// The status of an answer. Its number is used on the link, its name in the line protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum LockStatus {
    /// The request succeeded, or the lock was granted.
    Ok = 0,
    /// ENQUEUE: there was no queue, and the lock was granted.
    Acquired = 1,
    /// ENQUEUE: the owner has joined the queue.
    Queued = 2,
    /// The wait timeout has expired.
    Timeout = 3,
    /// The request is invalid, or no such lease exists.
    Error = 4,
    /// The table has reached its maximum number of keys.
    ErrorMaxLocks = 5,
    /// The key has reached its maximum number of waiters.
    ErrorMaxWaiters = 6,
    /// The key exists with a different limit.
    ErrorLimitMismatch = 7,
    /// ENQUEUE: the owner is already in this queue.
    ErrorAlreadyEnqueued = 8,
    /// WAIT: the owner is not in this queue.
    ErrorNotEnqueued = 9,
    /// WAIT: the lock was granted, and its lease has expired since.
    ErrorLeaseExpired = 10,
    /// The auth token is wrong or missing.
    ErrorAuth = 11,
    /// The agent cannot reach the server.
    ErrorDisconnected = 12,
    /// The server does not support locks.
    ErrorUnsupported = 13,
}

impl LockStatus {
    /// All statuses, in the order of their numbers.
    pub const ALL: [Self; 14] = [
        Self::Ok,
        Self::Acquired,
        Self::Queued,
        Self::Timeout,
        Self::Error,
        Self::ErrorMaxLocks,
        Self::ErrorMaxWaiters,
        Self::ErrorLimitMismatch,
        Self::ErrorAlreadyEnqueued,
        Self::ErrorNotEnqueued,
        Self::ErrorLeaseExpired,
        Self::ErrorAuth,
        Self::ErrorDisconnected,
        Self::ErrorUnsupported,
    ];

    /// The status with this number, if it exists.
    #[must_use]
    pub fn from_wire(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// The status with this name, if it exists.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name().as_bytes() == name)
    }

    /// Whether the request failed: a timeout or an error.
    #[must_use]
    pub const fn is_failure(self) -> bool {
        !matches!(self, Self::Ok | Self::Acquired | Self::Queued)
    }

    /// The word that stands for the status in the line protocol.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Acquired => "acquired",
            Self::Queued => "queued",
            Self::Timeout => "timeout",
            Self::Error => "error",
            Self::ErrorMaxLocks => "error_max_locks",
            Self::ErrorMaxWaiters => "error_max_waiters",
            Self::ErrorLimitMismatch => "error_limit_mismatch",
            Self::ErrorAlreadyEnqueued => "error_already_enqueued",
            Self::ErrorNotEnqueued => "error_not_enqueued",
            Self::ErrorLeaseExpired => "error_lease_expired",
            Self::ErrorAuth => "error_auth",
            Self::ErrorDisconnected => "error_disconnected",
            Self::ErrorUnsupported => "error_unsupported",
        }
    }
}

/// An answer about a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAnswer<'a> {
    /// A status without further data.
    Status(LockStatus),
    /// The lock is held: `ok` or `acquired`.
    Grant {
        /// Either [`LockStatus::Ok`] or [`LockStatus::Acquired`].
        status: LockStatus,
        /// The token and the lease.
        grant: Grant,
    },
    /// The lease was renewed.
    Renewed {
        /// The new lease, counted from now, in milliseconds.
        lease_ms: u64,
    },
    /// The state of the table, as JSON.
    Stats(&'a [u8]),
}

impl<'a> LockAnswer<'a> {
    /// Parses the answer to a request of `operation`.
    ///
    /// # Errors
    /// [`DecodeError::Data`] if the data is not a valid answer to it.
    #[inline]
    pub fn parse(operation: LockOperation, data: &'a [u8]) -> Result<Self, DecodeError> {
        if operation == LockOperation::Stats && data.first() == Some(&b'{') {
            return Ok(Self::Stats(data));
        }
        let mut rest = FieldReader::new(Operation::Lock(operation), data);
        let status = LockStatus::from_wire(rest.u8()?).ok_or(rest.problem("an unknown status"))?;
        let grants = matches!(
            (operation, status),
            (LockOperation::Acquire | LockOperation::Wait, LockStatus::Ok)
                | (LockOperation::Enqueue, LockStatus::Acquired)
        );
        let answer = if grants {
            let token = rest.token()?;
            Self::Grant { status, grant: Grant { token, lease_ms: rest.u64()? } }
        } else if operation == LockOperation::Renew && status == LockStatus::Ok {
            Self::Renewed { lease_ms: rest.u64()? }
        } else {
            Self::Status(status)
        };
        rest.end()?;
        Ok(answer)
    }

    /// The status of the answer, which is also its first byte.
    #[must_use]
    pub const fn status(&self) -> LockStatus {
        match self {
            Self::Status(status) | Self::Grant { status, .. } => *status,
            Self::Renewed { .. } | Self::Stats(_) => LockStatus::Ok,
        }
    }

    /// Appends the answer to the request with this head.
    #[inline]
    pub fn write(&self, request: MessageHead, out: &mut Vec<u8>) {
        let writer = MessageWriter::begin(out, request.response());
        match self {
            Self::Status(status) => out.push(*status as u8),
            Self::Grant { status, grant } => {
                out.push(*status as u8);
                out.extend_from_slice(&grant.token.to_bytes());
                out.extend_from_slice(&grant.lease_ms.to_be_bytes());
            }
            Self::Renewed { lease_ms } => {
                out.push(LockStatus::Ok as u8);
                out.extend_from_slice(&lease_ms.to_be_bytes());
            }
            Self::Stats(json) => out.extend_from_slice(json),
        }
        writer.finish(out);
    }
}

/// Reads the fields of a payload, in their order.
#[derive(Debug)]
pub struct FieldReader<'a> {
    operation: Operation,
    rest: &'a [u8],
}

impl<'a> FieldReader<'a> {
    /// A reader at the start of `data`; `operation` is named in errors.
    #[must_use]
    pub const fn new(operation: Operation, data: &'a [u8]) -> Self {
        Self { operation, rest: data }
    }

    /// The error of a payload that breaks the rule `problem`.
    #[must_use]
    pub const fn problem(&self, problem: &'static str) -> DecodeError {
        DecodeError::Data { operation: self.operation.name(), problem }
    }

    /// Whether all fields have been read.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// Fewer are left.
    #[inline]
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let Some((field, rest)) = self.rest.split_first_chunk() else {
            return Err(self.problem("there is too little data"));
        };
        self.rest = rest;
        Ok(*field)
    }

    /// The next byte.
    ///
    /// # Errors
    /// None is left.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// The next big-endian number of 4 bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// The next big-endian number of 8 bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The next token, 16 bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    #[inline]
    pub fn token(&mut self) -> Result<Token, DecodeError> {
        self.array().map(Token::from_bytes)
    }

    /// The next `str`: a length of 2 bytes, and that many bytes.
    ///
    /// # Errors
    /// Fewer bytes are left.
    #[inline]
    pub fn str(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = usize::from(u16::from_be_bytes(self.array()?));
        let Some((field, rest)) = self.rest.split_at_checked(length) else {
            return Err(self.problem("there is too little data"));
        };
        self.rest = rest;
        Ok(field)
    }

    /// Checks that all fields have been read.
    ///
    /// # Errors
    /// Bytes are left.
    pub const fn end(&self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.problem("there is too much data")) }
    }

    #[inline]
    fn ms(&mut self) -> Result<u64, DecodeError> {
        self.u64().map(|ms| ms.min(LOCK_MS_MAX))
    }
}

/// Appends a `str`. Input beyond the maximum of its length field is cut off; no valid key or token is that
/// long.
pub(super) fn write_str(out: &mut Vec<u8>, bytes: &[u8]) {
    let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&bytes[..usize::from(length)]);
}

fn lock_key(bytes: &[u8]) -> Option<LockKey<'_>> {
    LockKey::from_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "k1";

    fn key() -> LockKey<'static> {
        LockKey::new(KEY).unwrap()
    }

    fn token() -> Token {
        Token::new(0x0102_0304_0506_0708, 0x1112_1314_1516_1718)
    }

    /// Owner 5, key "k1".
    const START: &[u8] = &[0, 0, 0, 0, 0, 0, 0, 5, 0, 2, b'k', b'1'];
    const TOKEN: &[u8] = &[1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18];

    fn cases() -> Vec<(LockAction<'static>, Vec<u8>)> {
        let (ms10, ms7) = ([0, 0, 0, 0, 0, 0, 0, 10], [0, 0, 0, 0, 0, 0, 0, 7]);
        vec![
            (
                LockAction::Acquire { key: key(), limit: 3, timeout_ms: 10, lease_ms: 7 },
                [START, &[0, 0, 0, 3], &ms10, &ms7].concat(),
            ),
            (
                LockAction::Enqueue { key: key(), limit: 1, lease_ms: 7 },
                [START, &[0, 0, 0, 1], &ms7].concat(),
            ),
            (LockAction::Wait { key: key(), timeout_ms: 10 }, [START, &ms10].concat()),
            (LockAction::Release { key: key(), token: token() }, [START, TOKEN].concat()),
            (LockAction::Renew { key: key(), token: token(), lease_ms: 7 }, [START, TOKEN, &ms7].concat()),
            (LockAction::Cancel { uid: 9 }, [&START[..8], &[0, 0, 0, 9]].concat()),
            (LockAction::Stats, START[..8].to_vec()),
        ]
    }

    #[test]
    fn request_bytes_round_trip() {
        for (action, data) in cases() {
            let request = LockRequest { owner: 5, action };
            let operation = action.operation();
            assert_eq!(LockRequest::parse(operation, &data), Ok(Ok(request)));
            let mut out = Vec::new();
            request.write(77, &mut out);
            let head = [0, 0x11, 0, 1, 0, 0, 0, 0, 77, 1, operation as u8, 1, 0, data.len() as u8];
            assert_eq!(out, [&head[..], &data].concat());
        }
    }

    #[test]
    fn wrong_data_length_is_a_decode_error() {
        for (action, data) in cases() {
            let operation = action.operation();
            for cut in 0..data.len() {
                assert!(LockRequest::parse(operation, &data[..cut]).is_err(), "{action:?} cut at {cut}");
            }
            let long = [&data[..], &[0]].concat();
            assert!(LockRequest::parse(operation, &long).is_err(), "{action:?} and one byte");
        }
    }

    #[test]
    fn invalid_value_is_answered_error() {
        let mut no_limit = cases()[0].1.clone();
        no_limit[15] = 0;
        assert_eq!(LockRequest::parse(LockOperation::Acquire, &no_limit), Ok(Err(LockStatus::Error)));
        for (action, mut data) in cases().into_iter().take(5) {
            data[10] = b' ';
            assert_eq!(LockRequest::parse(action.operation(), &data), Ok(Err(LockStatus::Error)));
        }
    }

    #[test]
    fn wait_timeout_is_capped_at_maximum() {
        let mut data = cases()[2].1.clone();
        data[12..].fill(0xff);
        let action = LockAction::Wait { key: key(), timeout_ms: LOCK_MS_MAX };
        assert_eq!(LockRequest::parse(LockOperation::Wait, &data), Ok(Ok(LockRequest { owner: 5, action })));
    }

    #[test]
    fn answer_bytes_round_trip() {
        let grant = Grant { token: token(), lease_ms: 7 };
        let lease = [0, 0, 0, 0, 0, 0, 0, 7];
        let cases: [(LockOperation, LockAnswer<'_>, Vec<u8>); 6] = [
            (LockOperation::Acquire, LockAnswer::Status(LockStatus::Timeout), vec![3]),
            (
                LockOperation::Wait,
                LockAnswer::Grant { status: LockStatus::Ok, grant },
                [&[0], TOKEN, &lease].concat(),
            ),
            (
                LockOperation::Enqueue,
                LockAnswer::Grant { status: LockStatus::Acquired, grant },
                [&[1], TOKEN, &lease].concat(),
            ),
            (LockOperation::Renew, LockAnswer::Renewed { lease_ms: 7 }, [&[0][..], &lease].concat()),
            (LockOperation::Release, LockAnswer::Status(LockStatus::Ok), vec![0]),
            (LockOperation::Stats, LockAnswer::Stats(b"{}"), b"{}".to_vec()),
        ];
        for (operation, answer, data) in cases {
            assert_eq!(LockAnswer::parse(operation, &data), Ok(answer));
            let mut out = Vec::new();
            answer.write(MessageHead::request(1, Operation::Lock(operation)), &mut out);
            assert_eq!(&out[14..], data);
            assert_eq!(out[4], 1, "a response");
            assert!(LockAnswer::parse(operation, &[&data[..], &[0]].concat()).is_err() || data == b"{}");
        }
        assert!(LockAnswer::parse(LockOperation::Acquire, &[]).is_err());
        assert!(LockAnswer::parse(LockOperation::Acquire, &[14]).is_err());
    }

    #[test]
    fn status_numbers_and_names_match() {
        for (number, status) in LockStatus::ALL.into_iter().enumerate() {
            assert_eq!(status as usize, number);
            assert_eq!(LockStatus::from_wire(number as u8), Some(status));
            assert_eq!(LockStatus::from_name(status.name().as_bytes()), Some(status));
            assert_eq!(status.is_failure(), status.name() == "timeout" || status.name().starts_with("error"));
        }
        assert_eq!(LockStatus::from_wire(LockStatus::ALL.len() as u8), None);
        assert_eq!(LockStatus::from_wire(b'{'), None);
        assert_eq!(LockStatus::from_name(b"OK"), None);
    }
}
