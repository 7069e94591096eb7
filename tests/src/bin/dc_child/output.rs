//! What a child writes to its standard streams.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::thread;

/// The length of a line that no buffer holds.
const LONG: usize = 300_000;
/// The length of what who chatters writes at once.
const CHATTER: usize = 16_000;

/// Writes, if it `is_asked`: a long line, a binary one, an empty one, one to standard error, and one without an end.
///
/// # Errors
/// Nobody reads it.
pub(crate) fn write(is_asked: bool) -> io::Result<()> {
    if !is_asked {
        return Ok(());
    }
    let mut stdout = io::stdout();
    stdout.write_all(&[&vec![b'x'; LONG][..], b"the end of x\n"].concat())?;
    stdout.write_all(b"binary \x00\xff\x1b[31m\r\n\nplain\n")?;
    stdout.flush()?;
    io::stderr().write_all(b"to stderr\nwithout an end")
}

/// Writes for ever, from a thread that waits where nobody reads.
///
/// # Errors
/// Those of the system.
pub(crate) fn chatter() -> io::Result<()> {
    let mut stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let lines = b"and so on\n".repeat(CHATTER / 10);
    thread::spawn(move || while stdout.write_all(&lines).is_ok() {});
    Ok(())
}

/// Writes a line, and does not mind if nobody reads it: the master may be gone.
pub(crate) fn line(text: &str) {
    io::stdout().write_all(format!("{text}\n").as_bytes()).ok();
}
