//! Lines to stderr that never wait.
//!
//! Before each line the system is asked whether stderr takes more, so a pipe that nobody reads costs lines and
//! not the program. A pipe says so while it has room for [`LINE_BYTES_MAX`] bytes; a longer line is cut. Where
//! other processes write to the same pipe, one of them may take that room first; then the line waits for
//! the pipe's reader as it would for any program.

use super::line::{Lost, cut, one_line};
use super::options::LogFormat;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes of one line: what a pipe that is ready takes at once.
pub(super) const LINE_BYTES_MAX: usize = 4096;

/// Where lines go that never wait: stderr, but in tests.
#[derive(Debug)]
pub(super) struct Stderr<T = io::Stderr> {
    // One thread at a time asks for room and uses it.
    to: Mutex<T>,
    format: LogFormat,
    colour: bool,
    lost: Lost,
}

impl<T> Stderr<T> {
    /// Lines in `format` to `to`. With `colour` they may have the escape sequences of colours.
    pub(super) fn new(to: T, format: LogFormat, colour: bool) -> Self {
        Self { to: Mutex::new(to), format, colour, lost: Lost::default() }
    }
}

impl<T: Write + AsFd> Stderr<T> {
    fn line(&self, line: &[u8]) {
        let mut to = self.to.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.lost.take();
        if before > 0 && !written(&mut *to, Lost::line(before, self.format).as_bytes()) {
            self.lost.add(before + 1);
            return;
        }
        if !written(&mut *to, line) {
            self.lost.add(1);
        }
    }
}

/// Whether `line` was written.
fn written(to: &mut (impl Write + AsFd), line: &[u8]) -> bool {
    ready(to) && to.write_all(line).is_ok()
}

/// Whether a line can be written to `to` without waiting, as far as the system knows.
fn ready(to: &impl AsFd) -> bool {
    let mut fds = [PollFd::new(to.as_fd(), PollFlags::POLLOUT)];
    let room = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| events.contains(PollFlags::POLLOUT));
    poll(&mut fds, PollTimeout::ZERO).is_ok_and(|_| fds.iter().any(room))
}

impl<'a, T: Write + AsFd + 'a> MakeWriter<'a> for Stderr<T> {
    type Writer = Line<'a, T>;

    fn make_writer(&'a self) -> Self::Writer {
        Line(self)
    }
}

/// Takes one line. It never fails: a line that can't be written is counted as lost.
#[derive(Debug)]
pub(super) struct Line<'a, T>(&'a Stderr<T>);

impl<T: Write + AsFd> Write for Line<'_, T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = one_line(bytes, self.0.colour);
        if line.len() <= LINE_BYTES_MAX {
            self.0.line(&line);
        } else {
            let mut text = String::from_utf8_lossy(&line).into_owned();
            cut(&mut text, LINE_BYTES_MAX - 1);
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
        let stderr = Stderr::new(writer, LogFormat::Text, false);
        let line = [b"x".repeat(999), b"\n".to_vec()].concat();
        // No pipe of the system holds as much, and nothing reads.
        for _ in 0..2000 {
            stderr.make_writer().write_all(&line).unwrap();
        }
        let lost = usize::try_from(stderr.lost.take()).unwrap();
        stderr.lost.add(u64::try_from(lost).unwrap());
        assert!(lost > 0 && lost < 2000, "{lost}");
        reader.read_exact(&mut vec![0; (2000 - lost) * line.len()]).unwrap();
        stderr.make_writer().write_all(LINE).unwrap();
        drop(stderr);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let (told, last) = text.split_once('\n').unwrap();
        assert!(told.ends_with(&Lost::message(u64::try_from(lost).unwrap())), "{told}");
        assert_eq!(last.as_bytes(), LINE);
    }

    #[test]
    fn a_closed_pipe_and_a_full_disk_lose_lines() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let stderr = Stderr::new(writer, LogFormat::Text, false);
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let file = Stderr::new(full, LogFormat::Json, false);
        for _ in 0..3 {
            stderr.make_writer().write_all(LINE).unwrap();
            file.make_writer().write_all(LINE).unwrap();
        }
        assert_eq!((stderr.lost.take(), file.lost.take()), (3, 3));
    }

    #[test]
    fn a_line_too_long_for_a_pipe_is_cut() {
        let (mut reader, writer) = io::pipe().unwrap();
        let stderr = Stderr::new(writer, LogFormat::Text, false);
        stderr.make_writer().write_all(format!("{}\n", "ä".repeat(LINE_BYTES_MAX)).as_bytes()).unwrap();
        drop(stderr);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert!(text.len() <= LINE_BYTES_MAX && text.len() > LINE_BYTES_MAX - 4 && text.ends_with("…\n"));
    }
}
