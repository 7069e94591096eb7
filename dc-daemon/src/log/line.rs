//! What becomes of a line on its way out: made one line, and counted if it is lost.

use super::options::LogFormat;
use jiff::Timestamp;
use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;

/// The time of a line: RFC 3339, UTC, to the millisecond.
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

/// Lines that were lost since one last got through.
#[derive(Debug, Default)]
pub(super) struct DroppedLines(AtomicU64);

impl DroppedLines {
    /// One more line is lost.
    pub(super) fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }

    /// How many lines were lost, of which the caller now tells.
    pub(super) fn reset(&self) -> u64 {
        // Most often none was, and then nothing needs to be written to memory that threads share.
        if self.0.load(Ordering::Relaxed) == 0 { 0 } else { self.0.swap(0, Ordering::Relaxed) }
    }

    /// The line that tells of `lines` lost ones, to stderr in `format`, with its newline.
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

    /// What there is to tell of `lines` lost ones.
    pub(super) fn message(lines: u64) -> String {
        format!("{lines} lines of the log were lost here: they could not be written")
    }
}

/// `line` as one line: control characters within it are escaped, but those of colours where they are used.
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

/// `text` cut to `bytes` at a character's border.
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
    fn control_characters_make_no_lines() {
        assert_eq!(one_line(b"plain\n", false), Cow::Borrowed(b"plain\n".as_slice()));
        assert_eq!(one_line(b"a\nb\r\tc\x1b[31m\x00\n", false).as_ref(), b"a\\nb\\r\\tc\\x1b[31m\\x00\n");
        assert_eq!(one_line(b"\x1b[31mred\x1b[0m a\nb\n", true).as_ref(), b"\x1b[31mred\x1b[0m a\\nb\n");
        assert_eq!(one_line("ä€ no end".as_bytes(), false).as_ref(), "ä€ no end".as_bytes());
    }

    #[test]
    fn lost_lines_are_told_of_once() {
        let lost = DroppedLines::default();
        assert_eq!(lost.reset(), 0);
        lost.add(1);
        lost.add(2);
        assert_eq!(lost.reset(), 3);
        assert_eq!(lost.reset(), 0);
        assert!(
            DroppedLines::line(3, LogFormat::Text)
                .ends_with("Z  WARN 3 lines of the log were lost here: they could not be written\n")
        );
        let json: serde_json::Value = serde_json::from_str(&DroppedLines::line(3, LogFormat::Json)).unwrap();
        assert_eq!(json["lines"], 3);
    }

    #[test]
    fn the_time_has_milliseconds_and_is_utc() {
        let time = now().to_string();
        let digits: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(digits, "0000-00-00T00:00:00.000Z");
    }

    #[test]
    fn a_cut_keeps_characters_whole() {
        let mut text = "äää".repeat(3);
        cut(&mut text, 10);
        assert_eq!(text, "äää…");
        cut(&mut text, 10);
        assert_eq!(text, "äää…");
    }
}
