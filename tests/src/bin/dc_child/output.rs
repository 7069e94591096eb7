//! The output of a child on its standard streams.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;

/// The length of a line that exceeds every buffer.
const LONG: usize = 300_000;
/// The number of bytes that `chatter` writes at once.
const CHATTER: usize = 16_000;

/// If `is_enabled`, writes a long line, a binary one, an empty one, one to standard error, and one without a
/// newline.
///
/// # Errors
/// The reading end of the pipe is closed.
pub(crate) fn write(is_enabled: bool) -> io::Result<()> {
    if !is_enabled {
        return Ok(());
    }
    let mut stdout = io::stdout();
    stdout.write_all(&[&vec![b'x'; LONG][..], b"the end of x\n"].concat())?;
    stdout.write_all(b"binary \x00\xff\x1b[31m\r\n\nplain\n")?;
    stdout.flush()?;
    io::stderr().write_all(b"to stderr\nwithout an end")
}

/// Writes without end, from a thread that blocks while the pipe is full.
///
/// # Errors
/// The errors of the system calls.
pub(crate) fn chatter() -> io::Result<()> {
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let lines = b"and so on\n".repeat(CHATTER / 10);
    thread::spawn(move || while stdout.write_all(&lines).is_ok() {});
    Ok(())
}

/// Writes a line, and ignores a closed pipe: the master may have exited.
pub(crate) fn line(text: &str) {
    io::stdout().write_all(format!("{text}\n").as_bytes()).ok();
}
