//! The line protocol of locks: three lines for a request, one line for an answer.
//!
//! ```text
//! command \n key \n argument \n          ok … \n
//! ```
//!
//! The format is that of dflockd 1.10. A line has at most 256 bytes of UTF-8 without its newline; a carriage
//! return before the newline is dropped. Times are whole seconds.
//!
//! | command | argument | answers |
//! |---|---|---|
//! | `l` lock | timeout \[lease\] | `ok TOKEN LEASE`, `timeout`, errors |
//! | `e` enqueue | \[lease\] | `acquired TOKEN LEASE`, `queued`, errors |
//! | `w` wait | timeout | `ok TOKEN LEASE`, `timeout`, errors |
//! | `r` release | TOKEN | `ok`, `error` |
//! | `n` renew | TOKEN \[lease\] | `ok SECONDS`, `error` |
//! | `sl`, `se` | as `l`, `e`, with the limit before the lease | the same |
//! | `sw`, `sr`, `sn` | as `w`, `r`, `n` | the same |
//! | `auth` | the auth token | `ok`, `error_auth` |
//! | `stats` | ignored | `ok JSON` |
//! | `ping` | ignored | `ok` |
//!
//! A request that is complete but invalid is answered `error`, and the connection stays open. A line that is
//! too long ends it. Nothing here panics.

use crate::id::{Grant, LockKey, Token};
use crate::limits::{LINE_BYTES_MAX, LOCK_MS_MAX};
use crate::wire::lock::{LockAction, LockAnswer, LockStatus};
use std::io::Write;
use thiserror::Error;

/// A line exceeds the maximum length. The connection must be closed.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("a line of more than {LINE_BYTES_MAX} bytes")]
pub struct LineTooLong;

/// The three lines of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLines<'a> {
    /// The first line, without its newline.
    pub command: &'a [u8],
    /// The second line, without its newline.
    pub key: &'a [u8],
    /// The third line, without its newline.
    pub argument: &'a [u8],
}

impl<'a> RequestLines<'a> {
    /// The next three lines of `input`, which advances past them. `Ok(None)`: they are incomplete.
    ///
    /// # Errors
    /// [`LineTooLong`] as soon as the byte that exceeds the limit is received, even without a newline.
    #[inline]
    pub fn next(input: &mut &'a [u8]) -> Result<Option<Self>, LineTooLong> {
        let mut rest = *input;
        let Some(command) = next_line(&mut rest)? else { return Ok(None) };
        let Some(key) = next_line(&mut rest)? else { return Ok(None) };
        let Some(argument) = next_line(&mut rest)? else { return Ok(None) };
        *input = rest;
        Ok(Some(Self { command, key, argument }))
    }
}

/// The command of a request in the line protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LineCommand {
    /// `l` or `sl`: acquire a lock
    Lock,
    /// `e` or `se`: join the queue
    Enqueue,
    /// `w` or `sw`: wait in the queue
    Wait,
    /// `r` or `sr`: release a lock
    Release,
    /// `n` or `sn`: renew a lease
    Renew,
    /// `auth`: present the auth token
    Auth,
    /// `stats`: request the state of the table
    Stats,
    /// `ping`: check that the server answers
    Ping,
}

impl LineCommand {
    /// All commands, in the order of the table above.
    pub const ALL: [Self; 8] = [
        Self::Lock,
        Self::Enqueue,
        Self::Wait,
        Self::Release,
        Self::Renew,
        Self::Auth,
        Self::Stats,
        Self::Ping,
    ];

    /// The command in the first line of a request, and whether it is a semaphore's.
    #[inline]
    #[must_use]
    pub const fn read(line: &[u8]) -> Option<(Self, bool)> {
        Some(match line {
            b"l" => (Self::Lock, false),
            b"e" => (Self::Enqueue, false),
            b"w" => (Self::Wait, false),
            b"r" => (Self::Release, false),
            b"n" => (Self::Renew, false),
            b"sl" => (Self::Lock, true),
            b"se" => (Self::Enqueue, true),
            b"sw" => (Self::Wait, true),
            b"sr" => (Self::Release, true),
            b"sn" => (Self::Renew, true),
            b"auth" => (Self::Auth, false),
            b"stats" => (Self::Stats, false),
            b"ping" => (Self::Ping, false),
            _ => return None,
        })
    }

    /// The name that documents use, such as `enqueue`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Lock => "lock",
            Self::Enqueue => "enqueue",
            Self::Wait => "wait",
            Self::Release => "release",
            Self::Renew => "renew",
            Self::Auth => "auth",
            Self::Stats => "stats",
            Self::Ping => "ping",
        }
    }
}

/// A valid request of the line protocol.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum LineRequest<'a> {
    /// A request about a lock, or for the state of the table.
    Lock(LockAction<'a>),
    /// An attempt to authenticate the connection.
    Auth {
        /// The auth token as received.
        token: &'a [u8],
    },
    /// A check that the server answers.
    Ping,
}

impl<'a> LineRequest<'a> {
    /// Parses the lines. `None` if the request is invalid; it must be answered `error`.
    #[must_use]
    pub fn parse(lines: &RequestLines<'a>) -> Option<Self> {
        let (command, semaphore) = LineCommand::read(lines.command)?;
        let action = match command {
            LineCommand::Lock => Self::acquire(lines, semaphore)?,
            LineCommand::Enqueue => Self::enqueue(lines, semaphore)?,
            LineCommand::Wait => {
                let [timeout] = fields(lines.argument)?;
                LockAction::Wait { key: lines.lock_key()?, timeout_ms: milliseconds(timeout)? }
            }
            LineCommand::Release => {
                let [token] = fields(lines.argument)?;
                LockAction::Release { key: lines.lock_key()?, token: Token::from_hex(token)? }
            }
            LineCommand::Renew => {
                let (token, lease_ms) = match fields(lines.argument) {
                    Some([token]) => (token, 0),
                    None => {
                        let [token, lease] = fields(lines.argument)?;
                        (token, lease_milliseconds(lease)?)
                    }
                };
                LockAction::Renew { key: lines.lock_key()?, token: Token::from_hex(token)?, lease_ms }
            }
            LineCommand::Auth => return Some(Self::Auth { token: lines.argument }),
            LineCommand::Stats => LockAction::Stats,
            LineCommand::Ping => return Some(Self::Ping),
        };
        Some(Self::Lock(action))
    }

    fn acquire(lines: &RequestLines<'a>, semaphore: bool) -> Option<LockAction<'a>> {
        let key = lines.lock_key()?;
        let (timeout, limit, lease) = if semaphore {
            match fields(lines.argument) {
                Some([timeout, limit]) => (timeout, limit, None),
                None => {
                    let [timeout, limit, lease] = fields(lines.argument)?;
                    (timeout, limit, Some(lease))
                }
            }
        } else {
            match fields(lines.argument) {
                Some([timeout]) => (timeout, ONE, None),
                None => {
                    let [timeout, lease] = fields(lines.argument)?;
                    (timeout, ONE, Some(lease))
                }
            }
        };
        let lease_ms = lease.map_or(Some(0), lease_milliseconds)?;
        Some(LockAction::Acquire {
            key,
            limit: holder_limit(limit)?,
            timeout_ms: milliseconds(timeout)?,
            lease_ms,
        })
    }

    fn enqueue(lines: &RequestLines<'a>, semaphore: bool) -> Option<LockAction<'a>> {
        let key = lines.lock_key()?;
        let (limit, lease) = if semaphore {
            match fields(lines.argument) {
                Some([limit]) => (limit, None),
                None => {
                    let [limit, lease] = fields(lines.argument)?;
                    (limit, Some(lease))
                }
            }
        } else {
            match fields(lines.argument) {
                Some([]) => (ONE, None),
                None => {
                    let [lease] = fields(lines.argument)?;
                    (ONE, Some(lease))
                }
            }
        };
        let lease_ms = lease.map_or(Some(0), lease_milliseconds)?;
        Some(LockAction::Enqueue { key, limit: holder_limit(limit)?, lease_ms })
    }
}

/// Omits the auth token.
impl std::fmt::Debug for LineRequest<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Lock(action) => f.debug_tuple("Lock").field(action).finish(),
            Self::Auth { .. } => f.write_str("Auth"),
            Self::Ping => f.write_str("Ping"),
        }
    }
}

impl<'a> RequestLines<'a> {
    /// The command, if it exists; the other lines may be invalid.
    #[must_use]
    pub const fn known_command(&self) -> Option<LineCommand> {
        match LineCommand::read(self.command) {
            Some((command, _)) => Some(command),
            None => None,
        }
    }

    fn lock_key(&self) -> Option<LockKey<'a>> {
        LockKey::from_bytes(self.key)
    }
}

impl<'a> LockAnswer<'a> {
    /// Parses a line, with or without its newline. `None` if it is not an answer of this protocol.
    #[must_use]
    pub fn parse_line(line: &'a [u8]) -> Option<Self> {
        let line = line.strip_suffix(b"\n").unwrap_or(line);
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let Some(space) = line.iter().position(|byte| *byte == b' ') else {
            return LockStatus::from_name(line).map(Self::Status);
        };
        let (status, rest) = (LockStatus::from_name(&line[..space])?, &line[space + 1..]);
        match (status, fields(rest)) {
            (LockStatus::Ok, _) if rest.first() == Some(&b'{') => Some(Self::Stats(rest)),
            (LockStatus::Ok | LockStatus::Acquired, Some([token, lease])) => {
                let grant = Grant { token: Token::from_hex(token)?, lease_ms: milliseconds(lease)? };
                Some(Self::Grant { status, grant })
            }
            (LockStatus::Ok, None) => {
                let [lease] = fields(rest)?;
                Some(Self::Renewed { lease_ms: milliseconds(lease)? })
            }
            _ => None,
        }
    }

    /// Appends the answer as one line.
    pub fn write_line(&self, out: &mut Vec<u8>) {
        match self {
            Self::Status(status) => out.extend_from_slice(status.name().as_bytes()),
            Self::Grant { status, grant } => {
                out.extend_from_slice(status.name().as_bytes());
                out.push(b' ');
                out.extend_from_slice(&grant.token.to_hex());
                out.push(b' ');
                write_seconds(out, grant.lease_ms);
            }
            Self::Renewed { lease_ms } => {
                out.extend_from_slice(b"ok ");
                write_seconds(out, *lease_ms);
            }
            Self::Stats(json) => {
                out.extend_from_slice(b"ok ");
                out.extend_from_slice(json);
            }
        }
        out.push(b'\n');
    }
}

impl LockStatus {
    /// Appends the status as one line.
    pub fn write_line(self, out: &mut Vec<u8>) {
        LockAnswer::Status(self).write_line(out);
    }
}

const ONE: &[u8] = b"1";

/// The next line of `input`, which advances past it.
#[inline]
fn next_line<'a>(input: &mut &'a [u8]) -> Result<Option<&'a [u8]>, LineTooLong> {
    // One byte more for a carriage return, which is dropped, and one for the newline.
    let searched = &input[..input.len().min(LINE_BYTES_MAX + 2)];
    let Some(end) = searched.iter().position(|byte| *byte == b'\n') else {
        let too_long = match searched.get(LINE_BYTES_MAX..) {
            None | Some([] | [b'\r']) => false,
            Some(_) => true,
        };
        return if too_long { Err(LineTooLong) } else { Ok(None) };
    };
    let line = &searched[..end];
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.len() > LINE_BYTES_MAX {
        return Err(LineTooLong);
    }
    *input = &input[end + 1..];
    Ok(Some(line))
}

/// The words of `argument`, if there are exactly `N`.
#[inline]
fn fields<const N: usize>(argument: &[u8]) -> Option<[&[u8]; N]> {
    let mut words = argument.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty());
    let mut fields = [&[][..]; N];
    for field in &mut fields {
        *field = words.next()?;
    }
    words.next().is_none().then_some(fields)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Converts seconds to milliseconds, capped at [`LOCK_MS_MAX`].
fn milliseconds(seconds: &[u8]) -> Option<u64> {
    Some(number(seconds)?.checked_mul(1000)?.min(LOCK_MS_MAX))
}

fn lease_milliseconds(seconds: &[u8]) -> Option<u64> {
    milliseconds(seconds).filter(|ms| *ms > 0)
}

fn holder_limit(limit: &[u8]) -> Option<u32> {
    u32::try_from(number(limit)?).ok().filter(|limit| *limit > 0)
}

/// Whole seconds, rounded up: only a lease that was not requested in seconds has a fraction.
fn write_seconds(out: &mut Vec<u8>, ms: u64) {
    // Writing to memory cannot fail.
    write!(out, "{}", ms.div_ceil(1000)).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00000000000000070000000000000009";

    fn token() -> Token {
        Token::new(7, 9)
    }

    fn parse(text: &str) -> Option<LineRequest<'_>> {
        let mut input = text.as_bytes();
        let lines = RequestLines::next(&mut input).unwrap().unwrap();
        assert!(input.is_empty());
        LineRequest::parse(&lines)
    }

    fn key() -> LockKey<'static> {
        LockKey::new("k").unwrap()
    }

    #[test]
    fn requests_are_parsed() {
        let lock =
            |limit, timeout_ms, lease_ms| LockAction::Acquire { key: key(), limit, timeout_ms, lease_ms };
        let enqueue = |limit, lease_ms| LockAction::Enqueue { key: key(), limit, lease_ms };
        let cases = [
            ("l\nk\n5\n", lock(1, 5000, 0)),
            ("l\nk\n0 60\n", lock(1, 0, 60_000)),
            ("l\r\nk\r\n5\r\n", lock(1, 5000, 0)),
            ("l\nk\n99999999999\n", lock(1, LOCK_MS_MAX, 0)),
            ("sl\nk\n5 2\n", lock(2, 5000, 0)),
            ("sl\nk\n5 2 7\n", lock(2, 5000, 7000)),
            ("e\nk\n\n", enqueue(1, 0)),
            ("e\nk\n45\n", enqueue(1, 45_000)),
            ("se\nk\n3\n", enqueue(3, 0)),
            ("se\nk\n3 20\n", enqueue(3, 20_000)),
            ("w\nk\n5\n", LockAction::Wait { key: key(), timeout_ms: 5000 }),
            ("sw\nk\n0\n", LockAction::Wait { key: key(), timeout_ms: 0 }),
            ("stats\n_\n\n", LockAction::Stats),
            ("stats\n\n\n", LockAction::Stats),
        ];
        for (text, action) in cases {
            assert_eq!(parse(text), Some(LineRequest::Lock(action)), "{text:?}");
        }
        for command in ["r", "sr"] {
            let text = format!("{command}\nk\n{TOKEN}\n");
            let action = LockAction::Release { key: key(), token: token() };
            assert_eq!(parse(&text), Some(LineRequest::Lock(action)));
        }
        for (command, rest, lease_ms) in [("n", "", 0), ("sn", " 9", 9000)] {
            let text = format!("{command}\nk\n{TOKEN}{rest}\n");
            let action = LockAction::Renew { key: key(), token: token(), lease_ms };
            assert_eq!(parse(&text), Some(LineRequest::Lock(action)));
        }
        assert_eq!(parse("auth\n_\ns3cret\n"), Some(LineRequest::Auth { token: b"s3cret" }));
        assert_eq!(parse("ping\n_\n\n"), Some(LineRequest::Ping));
    }

    #[test]
    fn invalid_request_parses_to_none() {
        for text in [
            "zz\nk\n1\n",
            "\nk\n1\n",
            "s\nk\n1\n",
            "ll\nk\n1\n",
            "L\nk\n1\n",
            "sauth\nk\n1\n",
            "l\n\n1\n",
            "l\nk k\n1\n",
            "l\nk\nx\n",
            "l\nk\n-1\n",
            "l\nk\n\n",
            "l\nk\n1 0\n",
            "l\nk\n1 2 3\n",
            "l\nk\n99999999999999999999\n",
            "l\nk\n18446744073709552\n",
            "l\nk\n1 18446744073709552\n",
            "r\nk\n\n",
            "n\nk\n\n",
            "r\nk\nabc\n",
            "e\nk\n0\n",
            "e\nk\nabc\n",
            "w\nk\n\n",
            "w\nk\n1 2\n",
            "sl\nk\n1\n",
            "sl\nk\n1 0\n",
            "se\nk\n\n",
            "se\nk\n-3\n",
            "sl\nk\n1 4294967296\n",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn incomplete_lines_consume_nothing() {
        let text = b"l\nkey\n10\nrest";
        for end in 0..9 {
            let mut input = &text[..end];
            assert_eq!(RequestLines::next(&mut input), Ok(None));
            assert_eq!(input.len(), end, "nothing is consumed");
        }
        let mut input = &text[..];
        assert_eq!(
            RequestLines::next(&mut input),
            Ok(Some(RequestLines { command: b"l", key: b"key", argument: b"10" }))
        );
        assert_eq!(input, b"rest");
    }

    #[test]
    fn byte_257_makes_a_line_too_long() {
        for before in ["", "l\n", "l\nk\n"] {
            let line =
                |length: usize, end: &str| [before.as_bytes(), &vec![b'x'; length], end.as_bytes()].concat();
            let next =
                |bytes: Vec<u8>| RequestLines::next(&mut bytes.as_slice()).map(|lines| lines.is_some());
            assert_eq!(next(line(256, "")), Ok(false));
            assert_eq!(next(line(256, "\r")), Ok(false), "a newline may follow");
            assert_eq!(next(line(257, "")), Err(LineTooLong));
            assert_eq!(next(line(256, "\rx")), Err(LineTooLong));
            assert_eq!(next(line(257, "\n")), Err(LineTooLong));
            assert_eq!(next(line(257, "\r\n")), Err(LineTooLong));
            assert!(next(line(256, "\r\n\n\n")).is_ok());
            assert!(next(line(256, "\n\n\n")).is_ok());
        }
    }

    #[test]
    fn answers_are_written_as_lines() {
        let line = |answer: LockAnswer<'_>| {
            let mut out = Vec::new();
            answer.write_line(&mut out);
            String::from_utf8(out).unwrap()
        };
        let grant = Grant { token: token(), lease_ms: 33_000 };
        assert_eq!(line(LockAnswer::Grant { status: LockStatus::Ok, grant }), format!("ok {TOKEN} 33\n"));
        let grant = Grant { lease_ms: 1, ..grant };
        let acquired = LockAnswer::Grant { status: LockStatus::Acquired, grant };
        assert_eq!(line(acquired), format!("acquired {TOKEN} 1\n"));
        assert_eq!(line(LockAnswer::Renewed { lease_ms: 90_000 }), "ok 90\n");
        assert_eq!(line(LockAnswer::Status(LockStatus::ErrorMaxWaiters)), "error_max_waiters\n");
        assert_eq!(line(LockAnswer::Stats(b"{}")), "ok {}\n");
    }

    #[test]
    fn answer_lines_round_trip() {
        let grant = Grant { token: token(), lease_ms: 33_000 };
        let mut answers = vec![
            LockAnswer::Grant { status: LockStatus::Ok, grant },
            LockAnswer::Grant { status: LockStatus::Acquired, grant },
            LockAnswer::Renewed { lease_ms: 90_000 },
            LockAnswer::Stats(b"{\"locks\":[]}"),
        ];
        answers.extend(LockStatus::ALL.map(LockAnswer::Status));
        for answer in answers {
            let mut line = Vec::new();
            answer.write_line(&mut line);
            assert_eq!(LockAnswer::parse_line(&line), Some(answer));
            assert_eq!(LockAnswer::parse_line(line.trim_ascii_end()), Some(answer));
        }
        let token = format!("ok {TOKEN}\n");
        for line in
            ["", "OK\n", "ok \n", "ok x\n", "ok 1 2\n", "ok 1 2 3\n", "timeout 1\n", "acquired 1\n", &token]
        {
            assert_eq!(LockAnswer::parse_line(line.as_bytes()), None, "{line:?}");
        }
    }

    #[test]
    fn debug_output_omits_auth_token() {
        assert_eq!(format!("{:?}", parse("auth\n_\ns3cret\n")), "Some(Auth)");
    }
}
