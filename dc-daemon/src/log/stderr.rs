//! Log lines to stderr that never block, through [`StdStreams`]. A line that would block is dropped, and a
//! line longer than one write to a pipe is truncated.

use super::line::{DroppedLines, cut, one_line};
use super::options::LogFormat;
use super::stream::{StdStream, StdStreams, WRITE_BYTES_MAX};
use std::io::{self, Write};
use tracing_subscriber::fmt::MakeWriter;

/// Writes lines to stderr, or to another stream in tests.
#[derive(Debug)]
pub(super) struct Stderr {
    streams: StdStreams,
    format: LogFormat,
    colour: bool,
    lost: DroppedLines,
}

impl Stderr {
    /// Writes lines in `format` to standard error of `streams`. With `colour`, escape sequences are kept.
    pub(super) fn new(streams: StdStreams, format: LogFormat, colour: bool) -> Self {
        Self { streams, format, colour, lost: DroppedLines::default() }
    }

    fn line(&self, line: &[u8]) {
        let before = self.lost.reset();
        if before > 0 && !self.written(DroppedLines::line(before, self.format).as_bytes()) {
            self.lost.add(before + 1);
            return;
        }
        if !self.written(line) {
            self.lost.add(1);
        }
    }

    fn written(&self, line: &[u8]) -> bool {
        self.streams.write(StdStream::Errors, line).is_ok()
    }
}

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = StderrLine<'a>;

    fn make_writer(&'a self) -> Self::Writer {
        StderrLine(self)
    }
}

/// Takes one line. Never fails: a line that cannot be written is counted as dropped.
#[derive(Debug)]
pub(super) struct StderrLine<'a>(&'a Stderr);

impl Write for StderrLine<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = one_line(bytes, self.0.colour);
        if line.len() <= WRITE_BYTES_MAX {
            self.0.line(&line);
        } else {
            let mut text = String::from_utf8_lossy(&line).into_owned();
            cut(&mut text, WRITE_BYTES_MAX - 1);
            text.push('\n');
            self.0.line(text.as_bytes());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    const LINE: &[u8] = b"a line of the log\n";

    #[test]
    fn full_pipe_drops_lines_and_reports_their_number() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr::new(StdStreams::to(writer), LogFormat::Text, false);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        // More than any pipe buffer holds, and there is no reader yet.
        for _ in 0..2000 {
            stderr.make_writer().write_all(&line).unwrap();
        }
        let lost = usize::try_from(stderr.lost.reset()).unwrap();
        stderr.lost.add(u64::try_from(lost).unwrap());
        assert!(lost > 0 && lost < 2000, "{lost}");
        reader.read_exact(&mut vec![0; (2000 - lost) * line.len()]).unwrap();
        stderr.make_writer().write_all(LINE).unwrap();
        drop(stderr);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (told, last) = text.split_once('\n').unwrap();
        assert!(told.ends_with(&DroppedLines::message(u64::try_from(lost).unwrap())), "{told}");
        assert_eq!(last.as_bytes(), LINE);
    }

    #[test]
    fn closed_pipe_and_full_disk_drop_lines() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let stderr = Stderr::new(StdStreams::to(writer), LogFormat::Text, false);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let file = Stderr::new(StdStreams::to(full), LogFormat::Json, false);
        for _ in 0..3 {
            stderr.make_writer().write_all(LINE).unwrap();
            file.make_writer().write_all(LINE).unwrap();
        }
        assert_eq!((stderr.lost.reset(), file.lost.reset()), (3, 3));
    }

    #[test]
    fn line_longer_than_a_pipe_write_is_truncated() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr::new(StdStreams::to(writer), LogFormat::Text, false);
        stderr.make_writer().write_all(format!("{}\n", "ä".repeat(WRITE_BYTES_MAX)).as_bytes()).unwrap();
        drop(stderr);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() <= WRITE_BYTES_MAX && text.len() > WRITE_BYTES_MAX - 4 && text.ends_with("…\n"));
    }
}
