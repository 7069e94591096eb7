//! The format of the state file: a few lines of text, with a checksum.
//!
//! ```text
//! distcache fence 1
//! ceiling 1854283647221202944
//! run links
//! sha256 5f0a…
//! ```
//!
//! The first line names the format and its version. No fence at or above `ceiling` has been granted. `run` is
//! the state of the run that wrote it: `open`, `links` if it has served links, and `clean` after a graceful
//! end. The last line is the SHA-256 of the text before it. Nothing here panics.

use sha2::{Digest, Sha256};
use std::fmt::Write as _;

/// The prefix common to all versions of the format, and this version.
const FORMAT: &str = "distcache fence ";
const VERSION: &str = "1";

/// The parsed content of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StateRecord {
    /// Exclusive upper bound of all granted fences.
    pub(super) ceiling: u64,
    pub(super) run: RunState,
}

/// The state of a run of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RunState {
    /// The run has served no link so far.
    Open,
    /// The run has served links.
    Links,
    /// The run ended gracefully.
    Clean,
}

impl StateRecord {
    /// Formats the text of the file.
    pub(super) fn to_text(self) -> String {
        let Self { ceiling, run } = self;
        let mut text = format!("{FORMAT}{VERSION}\nceiling {ceiling}\nrun {}\n", run.word());
        let sum = checksum(&text);
        text.push_str(&sum);
        text
    }

    /// Parses the text of a file.
    pub(super) fn parse(text: &[u8]) -> Result<Self, StateRecordError> {
        // After a host failure a file system may show zeros in place of data that was not written yet.
        if text.iter().all(|byte| *byte == 0) {
            return Err(StateRecordError::Broken);
        }
        let text = std::str::from_utf8(text).map_err(|_| StateRecordError::Foreign)?;
        let Some(rest) = text.strip_prefix(FORMAT) else { return Err(StateRecordError::Foreign) };
        let Some((version, rest)) = rest.split_once('\n') else { return Err(StateRecordError::Broken) };
        let sum_at = text.rfind("sha256 ").ok_or(StateRecordError::Broken)?;
        let (body, sum) = text.split_at(sum_at);
        if sum != checksum(body) {
            return Err(StateRecordError::Broken);
        }
        // An unknown version with a valid checksum was written by a later program.
        if version != VERSION {
            return Err(StateRecordError::Version);
        }
        let mut lines = rest.lines();
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let ceiling =
            value("ceiling").and_then(|digits| digits.parse().ok()).ok_or(StateRecordError::Broken)?;
        let run = value("run").and_then(RunState::of_word).ok_or(StateRecordError::Broken)?;
        let record = Self { ceiling, run };
        // The encoding is canonical.
        if record.to_text() == text { Ok(record) } else { Err(StateRecordError::Broken) }
    }
}

impl RunState {
    const ALL: [Self; 3] = [Self::Open, Self::Links, Self::Clean];

    const fn word(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Links => "links",
            Self::Clean => "clean",
        }
    }

    fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|run| run.word() == word)
    }
}

/// Why a text is not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StateRecordError {
    /// The text has another format.
    Foreign,
    /// The version is unknown.
    Version,
    /// The text was truncated, emptied or changed.
    Broken,
}

/// The line with the checksum of `body`.
fn checksum(body: &str) -> String {
    let mut line = String::from("sha256 ");
    for byte in Sha256::digest(body) {
        // Writing to a String does not fail.
        write!(line, "{byte:02x}").ok();
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "distcache fence 1\nceiling 1099511627776\nrun links\n\
        sha256 dda73edb4fa814dd6a360a611959fa759f93e84d6e00210c00768acb380cb829\n";

    fn records() -> impl Strategy<Value = StateRecord> {
        (any::<u64>(), 0_usize..3).prop_map(|(ceiling, run)| StateRecord { ceiling, run: RunState::ALL[run] })
    }

    #[test]
    fn record_text_matches_the_documented_format() {
        let record = StateRecord { ceiling: 1 << 40, run: RunState::Links };
        assert_eq!(record.to_text(), TEXT);
        assert_eq!(StateRecord::parse(TEXT.as_bytes()), Ok(record));
    }

    #[test]
    fn foreign_and_broken_records_are_distinguished() {
        let signed = |body: &str| format!("{body}{}", checksum(body));
        let cases = [
            ("", StateRecordError::Broken),
            ("\0\0", StateRecordError::Broken),
            ("#!/bin/sh\n", StateRecordError::Foreign),
            ("distcache fence 1", StateRecordError::Broken),
            ("distcache fence 1\nceiling 1\nrun open\n", StateRecordError::Broken),
            (&TEXT.replace("1099511627776", "1099511627777"), StateRecordError::Broken),
            (&signed("distcache fence 2\nother things\n"), StateRecordError::Version),
            (&signed("distcache fence 1\nceiling +1\nrun open\n"), StateRecordError::Broken),
            (
                &signed("distcache fence 1\nceiling 18446744073709551616\nrun open\n"),
                StateRecordError::Broken,
            ),
            (&signed("distcache fence 1\nceiling 1\nrun away\n"), StateRecordError::Broken),
            (&signed("distcache fence 1\nceiling 1\nrun open\nmore\n"), StateRecordError::Broken),
        ];
        for (text, bad) in cases {
            assert_eq!(StateRecord::parse(text.as_bytes()), Err(bad), "{text}");
        }
        assert_eq!(StateRecord::parse(b"\xff"), Err(StateRecordError::Foreign));
    }

    proptest! {
        #[test]
        fn written_record_parses_back(record in records()) {
            prop_assert_eq!(StateRecord::parse(record.to_text().as_bytes()), Ok(record));
        }

        #[test]
        fn changed_or_truncated_record_is_refused(record in records(), at in any::<usize>(), change in 1_u8..) {
            let mut text = record.to_text().into_bytes();
            let at = at % text.len();
            prop_assert!(StateRecord::parse(&text[..at]).is_err());
            text[at] ^= change;
            prop_assert!(StateRecord::parse(&text).is_err());
        }

        #[test]
        fn parse_never_panics(text in any::<Vec<u8>>(), body in ".*") {
            StateRecord::parse(&text).ok();
            let body = format!("{FORMAT}{body}");
            StateRecord::parse(format!("{body}{}", checksum(&body)).as_bytes()).ok();
        }
    }
}
