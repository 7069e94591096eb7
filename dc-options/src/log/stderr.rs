//! Lines to stderr that never wait: [`StdStreams`] says how. One that would have to is lost, and one that is longer than
//! a pipe takes at once is cut.

use super::line::{DroppedLines, cut, one_line};
use super::options::LogFormat;
use super::stream::{StdStream, StdStreams, WRITE_BYTES_MAX};
use std::io::{self, Write};
use tracing_subscriber::fmt::MakeWriter;

/// Where lines go that never wait: stderr, but in tests.
#[derive(Debug)]
pub(super) struct Stderr {
    streams: StdStreams,
    format: LogFormat,
    colour: bool,
    lost: DroppedLines,
}

impl Stderr {
    /// Lines in `format` to standard error among `streams`. With `colour` they may have the escape sequences of colours.
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

/// Takes one line. It never fails: a line that can't be written is counted as lost.
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
    fn a_full_pipe_loses_lines_and_tells_how_many() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr::new(StdStreams::to(writer), LogFormat::Text, false);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        // No pipe of the system holds as much, and nothing reads.
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
    fn a_closed_pipe_and_a_full_disk_lose_lines() {
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
    fn a_line_too_long_for_a_pipe_is_cut() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr::new(StdStreams::to(writer), LogFormat::Text, false);
        stderr.make_writer().write_all(format!("{}\n", "ä".repeat(WRITE_BYTES_MAX)).as_bytes()).unwrap();
        drop(stderr);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() <= WRITE_BYTES_MAX && text.len() > WRITE_BYTES_MAX - 4 && text.ends_with("…\n"));
    }
}
