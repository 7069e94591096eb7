//! Requests and answers about locks, displayed alike for frames and for lines.
//!
//! A token is shown as its fence, which is not secret, and two bytes of the SHA-256 of the whole: enough to
//! detect a wrong token with the right fence, and too little to help guess the 64 secret bits.

use super::values::{Redaction, digest, show_hex, show_ms};
use libdc::id::{LockKey, Token};
use libdc::wire::lock::{FieldReader, LockAction, LockAnswer, LockRequest};
use libdc::wire::operation::{LockOperation, Operation};
use std::fmt;
use std::ops::Range;

/// Bytes of the number of an owner, with which every request of class 1 begins.
const OWNER_BYTES: usize = 8;
/// Bytes of the length before a key.
const LENGTH_BYTES: usize = 2;
/// Bytes of the status with which every answer begins.
const STATUS_BYTES: usize = 1;

/// A well-formed request of class 1 with an invalid value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidLockRequest<'a> {
    /// For which of the connections behind this one.
    pub owner: u64,
    /// The bytes of the key field.
    pub key: &'a [u8],
}

impl<'a> InvalidLockRequest<'a> {
    /// Decodes the data of such a request as far as possible.
    pub(super) fn decode(operation: LockOperation, data: &'a [u8]) -> Self {
        let mut rest = FieldReader::new(Operation::Lock(operation), data);
        Self { owner: rest.u64().unwrap_or_default(), key: rest.str().unwrap_or_default() }
    }
}

impl fmt::Display for InvalidLockRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_owner(f, self.owner)?;
        let problem = match LockKey::from_bytes(self.key) {
            Some(_) => "limit=0",
            None => "which no key can be",
        };
        write!(f, "key=\"{}\" {problem} (to be answered error)", self.key.escape_ascii())
    }
}

/// A request of class 1.
pub(super) fn show_request(
    f: &mut fmt::Formatter<'_>,
    request: &LockRequest<'_>,
    secrets: Redaction,
) -> fmt::Result {
    match (request.owner, &request.action) {
        (owner, LockAction::Stats) if owner != 0 => write!(f, "owner={owner}"),
        (owner, action) => {
            show_owner(f, owner)?;
            show_action(f, action, secrets)
        }
    }
}

/// The fields of a request, without its name. Defaults are left out.
pub(super) fn show_action(
    f: &mut fmt::Formatter<'_>,
    action: &LockAction<'_>,
    secrets: Redaction,
) -> fmt::Result {
    let parts = LockFields::of(action);
    if let Some(key) = parts.key {
        write!(f, "key={}", show_key(key))?;
    }
    if let Some(limit) = parts.limit.filter(|limit| *limit != 1) {
        write!(f, " limit={limit}")?;
    }
    if let Some(timeout_ms) = parts.timeout_ms {
        write!(f, " timeout={}", show_ms(timeout_ms))?;
    }
    if let Some(token) = parts.token {
        write!(f, " fence={}", token.fence())?;
    }
    if let Some(lease_ms) = parts.lease_ms.filter(|ms| *ms > 0) {
        write!(f, " lease={}", show_ms(lease_ms))?;
    }
    if let Some(token) = parts.token {
        write!(f, " {}", show_token(token, secrets))?;
    }
    match action {
        LockAction::Cancel { uid } => write!(f, "of uid={uid}"),
        _ => Ok(()),
    }
}

/// The fields that a request may have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockFields<'a> {
    /// `None` for requests without a key.
    pub key: Option<LockKey<'a>>,
    /// How many may hold it.
    pub limit: Option<u32>,
    /// How long it waits, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// The lease it asks for, in milliseconds; 0 is the server's default.
    pub lease_ms: Option<u64>,
    /// The token it shows.
    pub token: Option<Token>,
}

impl<'a> LockFields<'a> {
    /// Those of this request.
    #[must_use]
    pub fn of(action: &LockAction<'a>) -> Self {
        let none = Self::default();
        match *action {
            LockAction::Acquire { key, limit, timeout_ms, lease_ms } => Self {
                key: Some(key),
                limit: Some(limit),
                timeout_ms: Some(timeout_ms),
                lease_ms: Some(lease_ms),
                token: None,
            },
            LockAction::Enqueue { key, limit, lease_ms } => {
                Self { key: Some(key), limit: Some(limit), lease_ms: Some(lease_ms), ..none }
            }
            LockAction::Wait { key, timeout_ms } => {
                Self { key: Some(key), timeout_ms: Some(timeout_ms), ..none }
            }
            LockAction::Release { key, token } => Self { key: Some(key), token: Some(token), ..none },
            LockAction::Renew { key, token, lease_ms } => {
                Self { key: Some(key), token: Some(token), lease_ms: Some(lease_ms), ..none }
            }
            LockAction::Cancel { .. } | LockAction::Stats => none,
        }
    }
}

/// An answer, such as `ok fence=8123 lease=60s token 3eb1`.
pub(super) fn show_answer(
    f: &mut fmt::Formatter<'_>,
    answer: &LockAnswer<'_>,
    secrets: Redaction,
) -> fmt::Result {
    match answer {
        LockAnswer::Status(status) => f.write_str(status.name()),
        LockAnswer::Grant { status, grant } => {
            let (fence, lease) = (grant.token.fence(), show_ms(grant.lease_ms));
            write!(f, "{} fence={fence} lease={lease} ", status.name())?;
            write!(f, "{}", show_token(grant.token, secrets))
        }
        LockAnswer::Renewed { lease_ms } => write!(f, "ok lease={}", show_ms(*lease_ms)),
        LockAnswer::Stats(json) => write!(f, "ok {} of JSON", super::values::bytes(json.len())),
    }
}

/// Which bytes of the data of a request are secret.
pub(super) fn secret_of_request(action: &LockAction<'_>) -> Option<Range<usize>> {
    let LockFields { key, token, .. } = LockFields::of(action);
    token?;
    Some(secret_of_token(OWNER_BYTES + LENGTH_BYTES + key?.as_bytes().len()))
}

/// Which bytes of the data of an answer are secret.
pub(super) const fn secret_of_answer(answer: &LockAnswer<'_>) -> Option<Range<usize>> {
    match answer {
        LockAnswer::Grant { .. } => Some(secret_of_token(STATUS_BYTES)),
        _ => None,
    }
}

/// The half that is secret of a token that stands here.
pub(super) const fn secret_of_token(start: usize) -> Range<usize> {
    start + Token::BYTES / 2..start + Token::BYTES
}

/// The number of an owner, unless it is the connection itself.
pub(super) fn show_owner(f: &mut fmt::Formatter<'_>, owner: u64) -> fmt::Result {
    if owner == 0 { Ok(()) } else { write!(f, "owner={owner} ") }
}

/// A key with escapes for characters that move a terminal's cursor or change the writing direction.
#[must_use]
pub const fn show_key(key: LockKey<'_>) -> impl fmt::Display + '_ {
    DisplayKey(key)
}

struct DisplayKey<'a>(LockKey<'a>);

impl fmt::Display for DisplayKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.as_str().escape_debug())
    }
}

/// The secret of a token: `token 3eb1` or, with the secrets shown, all of its digits.
pub(super) const fn show_token(token: Token, secrets: Redaction) -> impl fmt::Display {
    DisplayToken { token, secrets }
}

struct DisplayToken {
    token: Token,
    secrets: Redaction,
}

impl fmt::Display for DisplayToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.token.to_bytes();
        match self.secrets {
            Redaction::Hidden => write!(f, "token {:04x}", short_digest(&bytes)),
            Redaction::Shown => write!(f, "token {}", show_hex(&bytes)),
        }
    }
}

/// The first two bytes of the SHA-256 of a token, of a lock or of authentication. A longer digest would
/// confirm guesses of a weak token.
#[must_use]
pub fn short_digest(token: &[u8]) -> u16 {
    (digest(token) >> 16) as u16
}
