//! Log lines on their way to the output: escaped to a single line, and counted if dropped.

use super::options::LogFormat;
use jiff::Timestamp;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// The timestamp of a line: RFC 3339, UTC, with milliseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct TimestampFormat;

impl FormatTime for TimestampFormat {
    fn format_time(&self, w: &mut Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", now())
    }
}

fn now() -> impl std::fmt::Display {
    struct LineClock(Timestamp);
    impl std::fmt::Display for LineClock {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            write!(f, "{:.3}", self.0)
        }
    }
    LineClock(Timestamp::now())
}

/// The number of lines dropped since the last line was written.
#[derive(Debug, Default)]
pub(super) struct DroppedLines(AtomicU64);

impl DroppedLines {
    /// Counts `lines` more dropped lines.
    pub(super) fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }

    /// Returns and resets the number of dropped lines, which the caller then reports.
    pub(super) fn reset(&self) -> u64 {
        // Usually zero; this avoids a write to memory shared by threads.
        if self.0.load(Ordering::Relaxed) == 0 { 0 } else { self.0.swap(0, Ordering::Relaxed) }
    }

    /// The stderr line that reports `lines` dropped lines, in `format`, with its newline.
    pub(super) fn line(lines: u64, format: LogFormat) -> String {
        match format {
            LogFormat::Text => format!("{}  WARN {}\n", now(), Self::message(lines)),
            LogFormat::Json => format!(
                "{{\"timestamp\":\"{}\",\"level\":\"WARN\",\"message\":\"{}\",\"lines\":{lines}}}\n",
                now(),
                Self::message(lines)
            ),
        }
    }

    /// The message that reports `lines` dropped lines.
    pub(super) fn message(lines: u64) -> String {
        format!("{lines} log lines were dropped here: cannot write them")
    }
}

/// Escapes control characters in `line`, so that it stays a single line; with `colour`, escape sequences are
/// kept.
pub(super) fn one_line(line: &[u8], colour: bool) -> Cow<'_, [u8]> {
    let (body, end) = match line.strip_suffix(b"\n") {
        Some(body) => (body, "\n"),
        None => (line, ""),
    };
    let escaped = |byte: u8| byte.is_ascii_control() && !(colour && byte == 0x1b);
    if !body.iter().copied().any(escaped) {
        return Cow::Borrowed(line);
    }
    let mut out = Vec::with_capacity(line.len() + 16);
    for &byte in body {
        if escaped(byte) { out.extend(byte.escape_ascii()) } else { out.push(byte) }
    }
    out.extend(end.as_bytes());
    Cow::Owned(out)
}

/// Truncates `text` to `bytes` at a character boundary.
pub(super) fn cut(text: &mut String, bytes: usize) {
    if text.len() > bytes {
        let kept = &text.as_bytes()[..bytes.saturating_sub('…'.len_utf8())];
        text.truncate(kept.utf8_chunks().next().map_or(0, |chunk| chunk.valid().len()));
        // Writing to a String does not fail.
        text.write_char('…').ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(one_line(b"plain\n", false), Cow::Borrowed(b"plain\n".as_slice()));
        assert_eq!(one_line(b"a\nb\r\tc\x1b[31m\x00\n", false).as_ref(), b"a\\nb\\r\\tc\\x1b[31m\\x00\n");
        assert_eq!(one_line(b"\x1b[31mred\x1b[0m a\nb\n", true).as_ref(), b"\x1b[31mred\x1b[0m a\\nb\n");
        assert_eq!(one_line("ä€ no end".as_bytes(), false).as_ref(), "ä€ no end".as_bytes());
    }

    #[test]
    fn dropped_lines_are_reported_once() {
        let lost = DroppedLines::default();
        assert_eq!(lost.reset(), 0);
        lost.add(1);
        lost.add(2);
        assert_eq!(lost.reset(), 3);
        assert_eq!(lost.reset(), 0);
        assert!(
            DroppedLines::line(3, LogFormat::Text)
                .ends_with("Z  WARN 3 log lines were dropped here: cannot write them\n")
        );
        let json: serde_json::Value = serde_json::from_str(&DroppedLines::line(3, LogFormat::Json)).unwrap();
        assert_eq!(json["lines"], 3);
    }

    #[test]
    fn timestamp_is_utc_with_milliseconds() {
        let time = now().to_string();
        let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(digits, "0000-00-00T00:00:00.000Z");
    }

    #[test]
    fn cut_ends_at_a_character_boundary() {
        let mut text = "äää".repeat(3);
        cut(&mut text, 10);
        assert_eq!(text, "äää…");
        cut(&mut text, 10);
        assert_eq!(text, "äää…");
    }
}
