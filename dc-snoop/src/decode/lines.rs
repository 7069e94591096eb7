//! Requests and answers of the line protocol in readable form.
//!
//! ```text
//! key=nightly-backup timeout=10s lease=60s
//! ok fence=8123 lease=60s token 3eb1
//! malformed: the key is empty, or has white space in it: l "" "10"
//! ```
//!
//! Malformed lines are shown verbatim, except possible secrets: the argument of `auth`, of an unknown
//! command, which may be a misspelt `auth`, and of any command that takes a token.

use super::link::show_auth_token;
use super::lock::{short_digest, show_action, show_answer};
use super::values::Redaction;
use libdc::id::{LockKey, Token};
use libdc::limits::LINE_BYTES_MAX;
use libdc::wire::frame::Direction;
use libdc::wire::line::{LineCommand, LineRequest, RequestLines};
use libdc::wire::lock::{LockAction, LockAnswer, LockStatus};
use std::fmt;
use std::ops::Range;

/// Bytes of the longest command.
const COMMAND_BYTES_MAX: usize = b"stats".len();
/// Bytes that are shown of a line that makes no sense.
const SHOWN_BYTES_MAX: usize = LINE_BYTES_MAX;

/// Decoded lines of the line protocol, as far as their bytes allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecodedLines<'a> {
    /// A valid request.
    Request(LineCommand, LineRequest<'a>),
    /// Three lines that are no request; they are answered `error`.
    Malformed {
        /// The malformed request.
        lines: RequestLines<'a>,
        /// The reason.
        problem: &'static str,
    },
    /// A request that stopped before its end: a line of it is too long, or it was cut short.
    Broken {
        /// The lines received so far.
        lines: &'a [u8],
        /// The reason.
        problem: &'static str,
    },
    /// A valid answer.
    Answer(LockAnswer<'a>),
    /// A line that is no answer.
    NoAnswer(&'a [u8]),
}

impl<'a> DecodedLines<'a> {
    /// Takes the three lines of a request, or the one line of an answer, apart.
    #[must_use]
    pub fn decode(direction: Direction, said: &'a [u8]) -> Self {
        match direction {
            Direction::Request => Self::request(said),
            Direction::Response => match LockAnswer::parse_line(said) {
                Some(answer) => Self::Answer(answer),
                None => Self::NoAnswer(said),
            },
        }
    }

    fn request(said: &'a [u8]) -> Self {
        let mut rest = said;
        match RequestLines::next(&mut rest) {
            Ok(Some(lines)) => match (lines.known_command(), LineRequest::parse(&lines)) {
                (Some(command), Some(request)) => Self::Request(command, request),
                _ => Self::Malformed { lines, problem: problem(&lines) },
            },
            Ok(None) => Self::Broken { lines: said, problem: "cut short" },
            Err(_) => Self::Broken { lines: said, problem: "a line of more than 256 bytes" },
        }
    }

    /// The command of a request; `None` for an unknown command.
    #[must_use]
    pub const fn command(&self) -> Option<LineCommand> {
        match self {
            Self::Request(command, _) => Some(*command),
            Self::Malformed { lines, .. } => lines.known_command(),
            _ => None,
        }
    }

    /// The lock fields of a request.
    #[must_use]
    pub const fn action(&self) -> Option<&LockAction<'a>> {
        match self {
            Self::Request(_, LineRequest::Lock(action)) => Some(action),
            _ => None,
        }
    }

    /// The key that a request is about.
    #[must_use]
    pub fn key(&self) -> Option<LockKey<'a>> {
        self.action().and_then(|action| super::LockFields::of(action).key)
    }

    /// The status of an answer.
    #[must_use]
    pub const fn status(&self) -> Option<LockStatus> {
        match self {
            Self::Answer(answer) => Some(answer.status()),
            _ => None,
        }
    }

    /// Whether it is a timeout or an error, or makes no sense.
    #[must_use]
    pub fn is_failure(&self) -> bool {
        match self {
            Self::Request(..) => false,
            Self::Answer(answer) => answer.status().is_failure(),
            Self::Malformed { .. } | Self::Broken { .. } | Self::NoAnswer(_) => true,
        }
    }

    /// Whether the lines are malformed.
    #[must_use]
    pub const fn is_malformed(&self) -> bool {
        matches!(self, Self::Malformed { .. } | Self::Broken { .. } | Self::NoAnswer(_))
    }

    /// The ranges of `said`, the source of this value, that are secret; in order.
    #[must_use]
    pub fn secret_ranges(&self, said: &[u8]) -> Vec<Range<usize>> {
        match self {
            Self::Request(LineCommand::Auth, _) => third_line(said).into_iter().collect(),
            Self::Malformed { lines, .. } if lines.known_command().is_some() => {
                third_line(said).into_iter().collect()
            }
            Self::Malformed { .. } | Self::Broken { .. } | Self::NoAnswer(_) => {
                std::iter::once(0..said.len()).collect()
            }
            Self::Answer(LockAnswer::Stats(_)) => Vec::new(),
            Self::Answer(_) => secret_digits(said, 0),
            Self::Request(..) => {
                third_line(said).map_or_else(Vec::new, |line| secret_digits(&said[line.clone()], line.start))
            }
        }
    }

    /// The content as text, such as `key=k timeout=10s` or `ok fence=8123 lease=60s token 3eb1`.
    #[must_use]
    pub const fn show(self, secrets: Redaction) -> DisplayLines<'a> {
        DisplayLines { content: self, secrets }
    }
}

/// The reason why lines are not a request.
fn problem(lines: &RequestLines<'_>) -> &'static str {
    let Some((command, is_semaphore)) = LineCommand::read(lines.command) else { return "an unknown command" };
    if LockKey::from_bytes(lines.key).is_none() {
        return match lines.key {
            [] => "the key is empty",
            key if std::str::from_utf8(key).is_err() => "the key is not UTF-8",
            _ => "the key has white space in it",
        };
    }
    match (command, is_semaphore) {
        (LineCommand::Lock, false) => "the argument is not TIMEOUT [LEASE]",
        (LineCommand::Lock, true) => "the argument is not TIMEOUT LIMIT [LEASE]",
        (LineCommand::Enqueue, false) => "the argument is not [LEASE]",
        (LineCommand::Enqueue, true) => "the argument is not LIMIT [LEASE]",
        (LineCommand::Wait, _) => "the argument is not TIMEOUT",
        (LineCommand::Release, _) => "the argument is not TOKEN",
        (LineCommand::Renew, _) => "the argument is not TOKEN [LEASE]",
        // They take any.
        (LineCommand::Auth | LineCommand::Stats | LineCommand::Ping, _) => "no request",
    }
}

/// The range of the third line of `said`, without its line feed.
fn third_line(said: &[u8]) -> Option<Range<usize>> {
    let mut ends = said.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at);
    let start = ends.nth(1)? + 1;
    let end = ends.next().unwrap_or(said.len());
    (start < end).then_some(start..end)
}

/// Where in `line`, which begins at `start`, the secret halves of tokens are.
fn secret_digits(line: &[u8], start: usize) -> Vec<Range<usize>> {
    words(line)
        .filter(|word| Token::from_hex(&line[word.clone()]).is_some())
        .map(|word| start + word.start + Token::BYTES..start + word.end)
        .collect()
}

/// Where in `line` the words are; some of them may be empty.
fn words(line: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let mut start = 0;
    line.split(u8::is_ascii_whitespace).map(move |word| {
        let range = start..start + word.len();
        start = range.end + 1;
        range
    })
}

/// A [`DecodedLines`] that can be printed.
#[derive(Clone, Copy, Debug)]
pub struct DisplayLines<'a> {
    content: DecodedLines<'a>,
    secrets: Redaction,
}

impl fmt::Display for DisplayLines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secrets = self.secrets;
        match self.content {
            DecodedLines::Request(_, LineRequest::Lock(action)) => show_action(f, &action, secrets),
            DecodedLines::Request(_, LineRequest::Auth { token }) => show_auth_token(f, token, secrets),
            DecodedLines::Request(_, LineRequest::Ping) => Ok(()),
            DecodedLines::Malformed { lines, problem } => {
                let RequestLines { command, key, argument } = lines;
                let known = lines.known_command();
                // With a line too many or too few, a token takes the position of a command or a key.
                let hides_command = known.is_none() && command.len() > COMMAND_BYTES_MAX;
                write!(f, "malformed: {problem}: {}", show_line(command, hides_command, secrets))?;
                write!(f, " {}", show_line(key, known.is_none(), secrets))?;
                let hides_argument =
                    !matches!(known, Some(LineCommand::Lock | LineCommand::Enqueue | LineCommand::Wait));
                write!(f, " {}", show_line(argument, hides_argument, secrets))
            }
            DecodedLines::Broken { lines, problem } => {
                write!(f, "malformed: {problem} ({})", super::values::show_data(lines, secrets))
            }
            DecodedLines::Answer(answer) => show_answer(f, &answer, secrets),
            DecodedLines::NoAnswer(line) => {
                let line = line.strip_suffix(b"\n").unwrap_or(line);
                let shown = &line[..line.len().min(SHOWN_BYTES_MAX)];
                write!(f, "malformed: no answer: {}", show_line(shown, false, secrets))?;
                if shown.len() < line.len() {
                    write!(f, " of {}", super::values::bytes(line.len()))
                } else {
                    Ok(())
                }
            }
        }
    }
}

/// A malformed line in quotes, or its length and digest if `is_secret` or if it may contain a token.
const fn show_line(line: &[u8], is_secret: bool, secrets: Redaction) -> impl fmt::Display + '_ {
    DisplayLine { line, is_secret, secrets }
}

struct DisplayLine<'a> {
    line: &'a [u8],
    is_secret: bool,
    secrets: Redaction,
}

impl fmt::Display for DisplayLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.secrets == Redaction::Shown {
            return write!(f, "\"{}\"", self.line.escape_ascii());
        }
        if self.is_secret && !self.line.is_empty() {
            return write!(f, "{} {:04x}", super::values::bytes(self.line.len()), short_digest(self.line));
        }
        f.write_str("\"")?;
        let mut shown = 0;
        for word in words(self.line) {
            let digits = &self.line[word.clone()];
            // Longer than a fence: a token, or a piece of one.
            if digits.len() > Token::BYTES && digits.iter().all(u8::is_ascii_hexdigit) {
                let before = self.line[shown..word.start].escape_ascii();
                write!(f, "{before}<{} digits {:04x}>", digits.len(), short_digest(digits))?;
                shown = word.end;
            }
        }
        write!(f, "{}\"", self.line[shown..].escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "00000000000000070000000000000009";

    fn shown(direction: Direction, said: &str) -> String {
        DecodedLines::decode(direction, said.as_bytes()).show(Redaction::Hidden).to_string()
    }

    #[test]
    fn every_request_is_shown() {
        let release = format!("r\nk\n{TOKEN}\n");
        let renew = format!("sn\nk\n{TOKEN} 9\n");
        let cases = [
            ("l\nnightly-backup\n10 60\n", LineCommand::Lock, "key=nightly-backup timeout=10s lease=60s"),
            ("l\r\nk\r\n0\r\n", LineCommand::Lock, "key=k timeout=0s"),
            ("sl\nk\n5 2\n", LineCommand::Lock, "key=k limit=2 timeout=5s"),
            ("e\nk\n\n", LineCommand::Enqueue, "key=k"),
            ("se\nk\n3 20\n", LineCommand::Enqueue, "key=k limit=3 lease=20s"),
            ("sw\nk\n5\n", LineCommand::Wait, "key=k timeout=5s"),
            (&release, LineCommand::Release, "key=k fence=7 token 73cf"),
            (&renew, LineCommand::Renew, "key=k fence=7 lease=9s token 73cf"),
            ("auth\n_\nsesame\n", LineCommand::Auth, "token 6 bytes d0c0"),
            ("stats\n_\n\n", LineCommand::Stats, ""),
            ("ping\n\n\n", LineCommand::Ping, ""),
        ];
        for (said, command, text) in cases {
            let content = DecodedLines::decode(Direction::Request, said.as_bytes());
            assert_eq!(content.command(), Some(command));
            assert_eq!(content.show(Redaction::Hidden).to_string(), text);
            assert!(!content.is_failure());
        }
    }

    #[test]
    fn every_answer_is_shown() {
        let grant = format!("ok {TOKEN} 60\n");
        let acquired = format!("acquired {TOKEN} 1\r\n");
        let cases = [
            (&*grant, "ok fence=7 lease=60s token 73cf"),
            (&*acquired, "acquired fence=7 lease=1s token 73cf"),
            ("ok 9\n", "ok lease=9s"),
            ("ok {\"locks\":[]}\n", "ok 12 bytes of JSON"),
            ("queued\n", "queued"),
            ("error_max_locks\n", "error_max_locks"),
        ];
        for (line, text) in cases {
            assert_eq!(shown(Direction::Response, line), text);
        }
        let is_failure = |line: &str| DecodedLines::decode(Direction::Response, line.as_bytes()).is_failure();
        for status in LockStatus::ALL {
            let line = format!("{}\n", status.name());
            assert_eq!(is_failure(&line), status.name() == "timeout" || status.name().starts_with("error"));
        }
        assert!(!is_failure(&grant) && is_failure("what?\n"));
    }

    #[test]
    fn malformed_lines_are_shown_with_the_reason() {
        let long = format!("l\n{}", "x".repeat(257));
        let cases = [
            ("l\n\n10\n", "malformed: the key is empty: \"l\" \"\" \"10\""),
            ("l\nk k\n10\n", "malformed: the key has white space in it: \"l\" \"k k\" \"10\""),
            ("l\nk\n1 2 3\n", "malformed: the argument is not TIMEOUT [LEASE]: \"l\" \"k\" \"1 2 3\""),
            ("sl\nk\n1\n", "malformed: the argument is not TIMEOUT LIMIT [LEASE]: \"sl\" \"k\" \"1\""),
            ("e\nk\n0\n", "malformed: the argument is not [LEASE]: \"e\" \"k\" \"0\""),
            ("se\nk\n\n", "malformed: the argument is not LIMIT [LEASE]: \"se\" \"k\" \"\""),
            ("w\nk\n-1\n", "malformed: the argument is not TIMEOUT: \"w\" \"k\" \"-1\""),
            // An incomplete token is still secret.
            ("r\nk\nabc\n", "malformed: the argument is not TOKEN: \"r\" \"k\" 3 bytes ba78"),
            ("n\nk\n\n", "malformed: the argument is not TOKEN [LEASE]: \"n\" \"k\" \"\""),
            ("auht\n_\nsesame\n", "malformed: an unknown command: \"auht\" 1 byte d2e2 6 bytes d0c0"),
            ("sesame\n\x1b\n\n", "malformed: an unknown command: 6 bytes d0c0 1 byte 77ad \"\""),
            (&long, "malformed: a line of more than 256 bytes (259 bytes b9b839f7)"),
        ];
        for (said, text) in cases {
            assert_eq!(shown(Direction::Request, said), text);
        }
        assert_eq!(
            DecodedLines::decode(Direction::Request, b"l\n\xff\n1\n").show(Redaction::Hidden).to_string(),
            "malformed: the key is not UTF-8: \"l\" \"\\xff\" \"1\""
        );
        assert_eq!(shown(Direction::Request, "l\nk"), "malformed: cut short (3 bytes d4f541ae)");
        assert_eq!(shown(Direction::Response, "what?\n"), "malformed: no answer: \"what?\"");
        let answer = format!("fine {TOKEN}\n");
        assert_eq!(shown(Direction::Response, &answer), "malformed: no answer: \"fine <32 digits 32f4>\"");
        let piece = format!("{}{}", " ".repeat(SHOWN_BYTES_MAX - 20), "0123456789abcdef".repeat(2));
        let shown = shown(Direction::Response, &piece);
        assert!(shown.ends_with("<20 digits 1bd8>\" of 268 bytes"), "{shown}");
    }

    #[test]
    fn secrets_are_where_they_stand() {
        let ranges = |direction, said: &str| {
            let content = DecodedLines::decode(direction, said.as_bytes());
            let ranges = content.secret_ranges(said.as_bytes());
            ranges.into_iter().map(|range| said[range].to_owned()).collect::<Vec<_>>()
        };
        let secret = "0000000000000009";
        assert_eq!(ranges(Direction::Request, &format!("r\nk\n{TOKEN}\n")), [secret]);
        assert_eq!(ranges(Direction::Request, &format!("n\n{TOKEN}\n{TOKEN} 9\n")), [secret]);
        assert_eq!(ranges(Direction::Response, &format!("ok {TOKEN} 60\n")), [secret]);
        assert_eq!(ranges(Direction::Request, "auth\n_\nsesame\n"), ["sesame"]);
        assert_eq!(ranges(Direction::Request, "r\nk\nabc\n"), ["abc"]);
        assert_eq!(ranges(Direction::Request, "auht\nk\nabc\n"), ["auht\nk\nabc\n"]);
        assert_eq!(ranges(Direction::Request, "l\nk\n10\n"), [""; 0]);
        assert_eq!(ranges(Direction::Response, "ok {}\n"), [""; 0]);
        assert_eq!(ranges(Direction::Response, "what?\n"), ["what?\n"]);
    }

    #[test]
    fn secrets_are_written_out_only_on_request() {
        let shown = |said: &str| {
            DecodedLines::decode(Direction::Request, said.as_bytes()).show(Redaction::Shown).to_string()
        };
        assert_eq!(shown("auth\n_\nsesame\n"), "token \"sesame\"");
        assert_eq!(shown(&format!("r\nk\n{TOKEN}\n")), format!("key=k fence=7 token {TOKEN}"));
        assert_eq!(shown("auht\n_\nx\n"), "malformed: an unknown command: \"auht\" \"_\" \"x\"");
    }
}
