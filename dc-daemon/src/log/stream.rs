//! Non-blocking writes to the standard streams, which other processes may share.
//!
//! | stream | mode of writing |
//! |---|---|
//! | a pipe or terminal | reopened as non-blocking; not in a program that detaches |
//! | a socket | non-blocking sends |
//! | anything else, or if reopening fails | plain writes |
//!
//! Each write is preceded by poll(2).
//!
//! The non-blocking flag of a pipe or terminal applies to every process that inherited it, such as the shell,
//! so it is set on a separate open file description. A daemon would keep that description open after it
//! releases its streams, and a reader that waits for the end of the stream would wait for the daemon's exit;
//! so a daemon does not reopen.
//!
//! With plain writes, a pipe that poll(2) reports as writable takes [`WRITE_BYTES_MAX`] bytes without
//! blocking, unless another process fills it first; within the process a lock prevents that. Both streams
//! share the lock, since they may be the same pipe.
//!
//! Nothing here panics.

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};
use nix::unistd::write;
use std::fs::{File, OpenOptions};
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// The maximum size of one write (`PIPE_BUF`): a writable pipe accepts that much atomically.
pub const WRITE_BYTES_MAX: usize = 4096;
/// The interval at which a waiting write checks the kind of the stream again.
const WAIT_MS: u16 = 1000;
/// Retry delay when poll(2) reports writable but write(2) returns `EAGAIN`, as ttys do near a full buffer.
const PAUSE: Duration = Duration::from_millis(1);

/// One of the standard streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StdStream {
    /// Standard output.
    Output,
    /// Standard error.
    Errors,
}

/// The standard streams of the process. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct StdStreams(Arc<Mutex<StdStreamPair>>);

#[derive(Debug)]
struct StdStreamPair {
    output: OutputStream,
    errors: OutputStream,
}

impl StdStreams {
    /// The streams of this process. If it `detaches`, they may be replaced later.
    pub(super) fn standard(detaches: bool) -> Self {
        let stream = |given| OutputStream::new(given, !detaches);
        Self::new(stream(Descriptor::Output), stream(Descriptor::Errors))
    }

    fn new(output: OutputStream, errors: OutputStream) -> Self {
        Self(Arc::new(Mutex::new(StdStreamPair { output, errors })))
    }

    /// Writes whole lines, at most [`WRITE_BYTES_MAX`] bytes, without blocking. The rest of an incomplete
    /// line is written before anything else.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] without capacity, or another error of the system. Nothing is written
    /// then.
    pub(super) fn write(&self, standard: StdStream, lines: &[u8]) -> io::Result<()> {
        self.lock().get(standard).put(lines)
    }

    /// Writes as [`StdStreams::write`], but waits for capacity. Other writers are not blocked meanwhile.
    ///
    /// # Errors
    /// The error of the system.
    pub(super) fn put_patiently(&self, standard: StdStream, lines: &[u8]) -> io::Result<()> {
        let descriptor = self.lock().get(standard).descriptor.clone();
        let mut refused = false;
        loop {
            match self.write(standard, lines) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                end => return end,
            }
            if descriptor.has_capacity(PollTimeout::from(WAIT_MS)) && std::mem::replace(&mut refused, true) {
                thread::sleep(PAUSE);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, StdStreamPair> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
impl StdStreams {
    /// Both streams write to `descriptor`.
    pub(super) fn to(descriptor: impl Into<OwnedFd>) -> Self {
        Self::with(descriptor, true)
    }

    fn with(descriptor: impl Into<OwnedFd>, anew: bool) -> Self {
        let descriptor = Descriptor::Own(Arc::new(descriptor.into()));
        Self::new(OutputStream::new(descriptor.clone(), anew), OutputStream::new(descriptor, anew))
    }
}

impl StdStreamPair {
    const fn get(&mut self, standard: StdStream) -> &mut OutputStream {
        match standard {
            StdStream::Output => &mut self.output,
            StdStream::Errors => &mut self.errors,
        }
    }
}

/// One output stream and the unwritten rest of its last line.
#[derive(Debug)]
pub(super) struct OutputStream {
    descriptor: Descriptor,
    way: WriteMode,
    /// The unwritten rest of an incomplete line.
    rest: Vec<u8>,
}

/// The mode of writing to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WriteMode {
    /// Writes to a reopened, non-blocking description.
    Anew,
    /// Sends with `MSG_DONTWAIT`.
    Send,
    /// Writes to the stream as it is.
    Given,
}

impl OutputStream {
    /// A stream for a socket owned by the caller.
    pub(super) fn own(socket: OwnedFd) -> Self {
        Self::new(Descriptor::Own(Arc::new(socket)), false)
    }

    /// Writes as [`StdStreams::write`], but waits for capacity up to `patience`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if capacity was missing for that time, or another error of the system.
    pub(super) fn put_within(&mut self, lines: &[u8], patience: Duration) -> io::Result<()> {
        let until = Instant::now() + patience;
        loop {
            let end = self.put(lines);
            let left = until.saturating_duration_since(Instant::now());
            let refused = end.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if !refused || left.is_zero() {
                return end;
            }
            self.descriptor.has_capacity(PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        }
    }

    fn new(given: Descriptor, anew: bool) -> Self {
        let (way, descriptor) = match given.kind() {
            StreamKind::Socket => (WriteMode::Send, given),
            StreamKind::Opens if anew => match given.reopened() {
                Ok(own) => (WriteMode::Anew, own),
                // /proc is missing, or the stream belongs to another user.
                Err(_) => (WriteMode::Given, given),
            },
            StreamKind::Opens | StreamKind::Other => (WriteMode::Given, given),
        };
        Self { descriptor, way, rest: Vec::new() }
    }

    fn put(&mut self, lines: &[u8]) -> io::Result<()> {
        while !self.rest.is_empty() {
            let count = self.write(&self.rest)?;
            self.rest.drain(..count);
        }
        let count = self.write(lines)?;
        self.rest.extend_from_slice(&lines[count..]);
        Ok(())
    }

    /// Writes without blocking. Returns the number of written bytes, at least one.
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        // Also for non-blocking streams: otherwise short lines would fill a pipe to the last byte, and long
        // lines would always be dropped.
        if !self.descriptor.has_capacity(PollTimeout::ZERO) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let quiet = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        loop {
            let written = self.descriptor.with(|descriptor| match self.way {
                WriteMode::Send => send(descriptor.as_raw_fd(), bytes, quiet),
                WriteMode::Anew | WriteMode::Given => write(descriptor, bytes),
            });
            match written {
                Err(Errno::EINTR) => {}
                Ok(0) if !bytes.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
                written => return Ok(written?),
            }
        }
    }
}

/// The descriptor of a stream. A standard stream is kept as its number, since a detaching program replaces
/// it.
#[derive(Clone, Debug)]
enum Descriptor {
    Output,
    Errors,
    Own(Arc<OwnedFd>),
}

/// The kinds of streams, as far as the mode of writing depends on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StreamKind {
    /// A pipe or a terminal. A file is excluded, since writes to a reopened file would start at its
    /// beginning.
    Opens,
    Socket,
    Other,
}

impl Descriptor {
    fn with<T>(&self, what: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        match self {
            Self::Output => what(io::stdout().as_fd()),
            Self::Errors => what(io::stderr().as_fd()),
            Self::Own(own) => what(own.as_fd()),
        }
    }

    fn kind(&self) -> StreamKind {
        self.with(|descriptor| {
            let file = descriptor.try_clone_to_owned().map(File::from);
            let Ok(kind) = file.and_then(|file| file.metadata()).map(|metadata| metadata.file_type()) else {
                return StreamKind::Other;
            };
            match kind {
                kind if kind.is_socket() => StreamKind::Socket,
                kind if kind.is_fifo() || descriptor.is_terminal() => StreamKind::Opens,
                _ => StreamKind::Other,
            }
        })
    }

    /// Reopens the pipe or terminal as non-blocking.
    fn reopened(&self) -> io::Result<Self> {
        let path = self.with(|descriptor| format!("/proc/self/fd/{}", descriptor.as_raw_fd()));
        let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let own = OpenOptions::new().write(true).custom_flags(flags.bits()).open(path)?;
        Ok(Self::Own(Arc::new(own.into())))
    }

    /// Whether a write would succeed or fail at once, according to poll(2).
    fn has_capacity(&self, timeout: PollTimeout) -> bool {
        self.with(|descriptor| {
            let mut fds = [PollFd::new(descriptor, PollFlags::POLLOUT)];
            let polled = poll(&mut fds, timeout);
            polled.is_ok_and(|_| fds.iter().any(|fd| fd.any().unwrap_or_default()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{PipeReader, PipeWriter, Read, Write};
    use std::os::unix::net::UnixStream;
    use std::sync::mpsc;

    /// A full pipe, and the number of bytes in it.
    fn full_pipe() -> (PipeReader, PipeWriter, usize) {
        let (reader, writer) = io::pipe().unwrap();
        let streams = StdStreams::to(writer.try_clone().unwrap());
        let mut bytes = 0;
        while streams.write(StdStream::Errors, &[b'.'; WRITE_BYTES_MAX]).is_ok() {
            bytes += WRITE_BYTES_MAX;
        }
        (reader, writer, bytes)
    }

    fn refused(end: &io::Result<()>) -> bool {
        end.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }

    #[test]
    fn full_pipe_refuses_whole_lines() {
        for anew in [true, false] {
            let (mut reader, writer, bytes) = full_pipe();
            let streams = StdStreams::with(writer, anew);
            assert!(refused(&streams.write(StdStream::Errors, b"lost\n")));
            reader.read_exact(&mut vec![0; bytes]).unwrap();
            streams.write(StdStream::Output, b"written\n").unwrap();
            drop(streams);
            let mut text = String::new();
            reader.read_to_string(&mut text).unwrap();
            assert_eq!(text, "written\n");
        }
    }

    #[test]
    fn shared_pipe_keeps_its_blocking_flag() {
        let (_reader, writer) = io::pipe().unwrap();
        let streams = StdStreams::to(writer.try_clone().unwrap());
        assert_eq!(streams.lock().errors.way, WriteMode::Anew);
        let flags = nix::fcntl::fcntl(&writer, nix::fcntl::FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_truncate(flags).contains(OFlag::O_NONBLOCK));
    }

    #[test]
    fn waiting_writer_does_not_block_other_writers() {
        for anew in [true, false] {
            let (mut reader, writer, bytes) = full_pipe();
            let streams = StdStreams::with(writer, anew);
            let waiting = streams.clone();
            let waits = thread::spawn(move || {
                let line = [b'x'; WRITE_BYTES_MAX];
                (0..100).try_for_each(|_| waiting.put_patiently(StdStream::Output, &line))
            });
            let (done, ended) = mpsc::channel();
            let mut rest = reader.try_clone().unwrap();
            thread::spawn(move || {
                // Frees capacity for one line at a time; either writer may take it.
                for _ in 0..50 {
                    reader.read_exact(&mut [0; WRITE_BYTES_MAX]).unwrap();
                    for _ in 0..10 {
                        let end = streams.write(StdStream::Errors, &[b'y'; WRITE_BYTES_MAX]);
                        assert!(end.is_ok() || refused(&end));
                    }
                }
                done.send(()).unwrap();
            });
            ended.recv_timeout(Duration::from_secs(60)).expect("the other writer to continue");
            let mut all = Vec::new();
            rest.read_to_end(&mut all).unwrap();
            waits.join().unwrap().unwrap();
            let whole = all.chunks(WRITE_BYTES_MAX).all(|chunk| chunk.iter().all(|byte| *byte == chunk[0]));
            assert!(whole && all.len() >= bytes, "a line is torn");
        }
    }

    #[test]
    fn incomplete_line_is_completed_first() {
        let (mut reader, writer) = UnixStream::pair().unwrap();
        nix::sys::socket::setsockopt(&writer, nix::sys::socket::sockopt::SndBuf, &4096).unwrap();
        let streams = StdStreams::to(writer);
        assert_eq!(streams.lock().errors.way, WriteMode::Send);
        let long = vec![b'x'; 1_000_000];
        streams.write(StdStream::Errors, &long).unwrap();
        assert!(!streams.lock().errors.rest.is_empty(), "a socket that takes any amount");
        assert!(refused(&streams.write(StdStream::Errors, b"lost\n")));
        let reading = thread::spawn(move || {
            let mut all = Vec::new();
            reader.read_to_end(&mut all).map(|_| all)
        });
        streams.put_patiently(StdStream::Errors, b"\nlast").unwrap();
        drop(streams);
        let all = reading.join().unwrap().unwrap();
        assert_eq!(all, [long, b"\nlast".to_vec()].concat());
    }

    #[test]
    fn file_is_written_at_its_shared_position() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"before\n").unwrap();
        let streams = StdStreams::to(file.try_clone().unwrap());
        streams.write(StdStream::Errors, b"a line\n").unwrap();
        io::Seek::rewind(&mut file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "before\na line\n");
    }

    #[test]
    fn closed_reader_is_an_error_without_a_wait() {
        for anew in [true, false] {
            let (reader, writer, _) = full_pipe();
            let streams = StdStreams::with(writer, anew);
            drop(reader);
            let error = streams.put_patiently(StdStream::Errors, b"lost\n").unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    }
}
