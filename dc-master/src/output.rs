//! Output of the children: each line with the child's number in front, to the master's own streams or to the
//! log.
//!
//! A thread writes, since the master's streams may block and the master must not. At most [`CHUNKS_MAX`]
//! chunks are queued for it; when the queue is full, the children block, as they would if they wrote to a
//! slow reader themselves. A line longer than [`LINE_BYTES_MAX`] is split.

use dc_daemon::log::{Log, StdStream, WRITE_BYTES_MAX};
use nix::unistd::Pid;
use std::io::{self, PipeReader};
use std::iter;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, info, warn};

/// Longest line that is not split.
const LINE_BYTES_MAX: usize = 4000;
// A line with its prefix, whose number has at most ten digits, fits an atomic write to a pipe.
const _: () = assert!("[] \n".len() + 10 + LINE_BYTES_MAX <= WRITE_BYTES_MAX);
/// Maximum number of queued chunks.
const CHUNKS_MAX: usize = 64;
/// Maximum length of one read.
const READ_BYTES: usize = 16 * 1024;
/// Time to wait for remaining output at the end.
const REST_MAX: Duration = Duration::from_secs(1);

/// The output of all children.
#[derive(Debug)]
pub(crate) struct ChildOutput {
    readers: JoinSet<()>,
    sender: mpsc::Sender<Chunk>,
    pending: BufferedBytes,
    written: oneshot::Receiver<()>,
}

/// Number of bytes read and not written yet.
#[derive(Clone, Debug, Default)]
struct BufferedBytes(Arc<AtomicUsize>);

impl BufferedBytes {
    fn add(&self, bytes: usize) {
        self.0.fetch_add(bytes, Ordering::Relaxed);
    }

    fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

/// The stream that a child wrote to, which is also the destination.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ChildStream {
    Output,
    Errors,
}

/// Whole lines with their prefix.
#[derive(Debug)]
struct Chunk {
    stream: ChildStream,
    lines: Vec<u8>,
}

impl ChildOutput {
    /// Starts the thread that writes: to the log if `to_log` says so.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub(crate) fn start(log: Log, to_log: bool) -> io::Result<Self> {
        let (sender, receiver) = mpsc::channel(CHUNKS_MAX);
        let (done, written) = oneshot::channel();
        let pending = BufferedBytes::default();
        let of_thread = pending.clone();
        thread::Builder::new().name("output".to_owned()).spawn(move || {
            write(receiver, &of_thread, &log, to_log);
            // The receiver may have stopped waiting.
            done.send(()).ok();
        })?;
        Ok(Self { readers: JoinSet::new(), sender, pending, written })
    }

    /// Reads what a child writes to `pipe`, to its end.
    ///
    /// # Errors
    /// If the runtime cannot watch the pipe.
    pub(crate) fn follow(&mut self, child: Pid, stream: ChildStream, pipe: PipeReader) -> io::Result<()> {
        // Collects finished readers, so that they do not accumulate.
        while self.readers.try_join_next().is_some() {}
        let pipe = pipe::Receiver::from_owned_fd(OwnedFd::from(pipe))?;
        self.readers.spawn(read(child, stream, pipe, self.sender.clone(), self.pending.clone()));
        Ok(())
    }

    /// Writes the remaining output while it is being read. A grandchild that still has the pipe open delays
    /// the end by at most [`REST_MAX`].
    pub(crate) async fn finish(mut self) {
        let rest = async { while self.readers.join_next().await.is_some() {} };
        if timeout(REST_MAX, rest).await.is_err() {
            debug!("a process that a child left behind may still write");
        }
        self.readers.shutdown().await;
        drop(self.sender);
        let written = timeout(REST_MAX, self.written).await;
        // Either the output is not read, or too slowly. Bytes left in the pipes are not counted.
        let bytes = self.pending.bytes();
        if bytes > 0 {
            warn!(bytes, "the last output of the children is lost");
        } else if written.is_err() {
            debug!("the thread that writes has not ended");
        }
    }
}

async fn read(
    child: Pid,
    stream: ChildStream,
    mut pipe: pipe::Receiver,
    sender: mpsc::Sender<Chunk>,
    pending: BufferedBytes,
) {
    let mut lines = LineSplitter::new(child);
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let count = pipe.read(&mut buffer).await.unwrap_or(0);
        let done = if count == 0 { lines.finish() } else { lines.push(&buffer[..count]) };
        pending.add(done.len());
        // The writer thread ends only after all senders.
        if !done.is_empty() && sender.send(Chunk { stream, lines: done }).await.is_err() || count == 0 {
            return;
        }
    }
}

fn write(mut chunks: mpsc::Receiver<Chunk>, pending: &BufferedBytes, log: &Log, to_log: bool) {
    let mut fails = false;
    while let Some(Chunk { stream, lines }) = chunks.blocking_recv() {
        if to_log {
            for line in lines.split_inclusive(|byte| *byte == b'\n') {
                let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(line));
                log.with_timeout(|| info!("{text}"));
                pending.remove(line.len());
            }
            continue;
        }
        let standard = match stream {
            ChildStream::Output => StdStream::Output,
            ChildStream::Errors => StdStream::Errors,
        };
        for piece in pieces(&lines) {
            let passed = log.pass(standard, piece);
            pending.remove(piece.len());
            let failed_before = std::mem::replace(&mut fails, passed.is_err());
            if let Err(error) = passed
                && !failed_before
            {
                // A full disk or a closed pipe: the children keep running.
                warn!(%error, "output of the children is lost");
            }
        }
    }
}

/// Splits lines into pieces of the size of an atomic write to a pipe.
fn pieces(mut lines: &[u8]) -> impl Iterator<Item = &[u8]> {
    iter::from_fn(move || {
        let fits = &lines[..lines.len().min(WRITE_BYTES_MAX)];
        let end = fits.iter().rposition(|byte| *byte == b'\n').map_or(fits.len(), |place| place + 1);
        let (piece, rest) = lines.split_at(end);
        lines = rest;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Assembles lines from chunks.
#[derive(Debug)]
struct LineSplitter {
    prefix: Vec<u8>,
    begun: Vec<u8>,
}

impl LineSplitter {
    fn new(child: Pid) -> Self {
        Self { prefix: format!("[{child}] ").into_bytes(), begun: Vec::new() }
    }

    /// The lines completed by `bytes`, with their prefix.
    fn push(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut done = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (mut text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            while self.begun.len() + text.len() > LINE_BYTES_MAX {
                let (fits, rest) = text.split_at(LINE_BYTES_MAX - self.begun.len());
                self.begun.extend_from_slice(fits);
                self.flush(&mut done);
                text = rest;
            }
            self.begun.extend_from_slice(text);
            if ended {
                self.flush(&mut done);
            }
        }
        done
    }

    /// The last line, if it has no line feed.
    fn finish(&mut self) -> Vec<u8> {
        let mut done = Vec::new();
        if !self.begun.is_empty() {
            self.flush(&mut done);
        }
        done
    }

    fn flush(&mut self, done: &mut Vec<u8>) {
        done.extend_from_slice(&self.prefix);
        done.append(&mut self.begun);
        done.push(b'\n');
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lines(pieces: &[&[u8]]) -> Vec<u8> {
        let mut lines = LineSplitter::new(Pid::from_raw(7));
        let mut done: Vec<u8> = pieces.iter().flat_map(|piece| lines.push(piece)).collect();
        done.extend(lines.finish());
        done
    }

    #[test]
    fn each_line_has_its_prefix() {
        assert_eq!(lines(&[b"a\nb", b"c\n", b"\n", b"d"]), b"[7] a\n[7] bc\n[7] \n[7] d\n");
        assert_eq!(lines(&[b"\xff\0\r\n"]), b"[7] \xff\0\r\n");
        assert_eq!(lines(&[]), b"");
    }

    #[test]
    fn a_long_line_is_cut() {
        let long = b"x".repeat(2 * LINE_BYTES_MAX + 1);
        let done = lines(&[&long, b"\n"]);
        let lengths: Vec<usize> =
            done.split(|byte| *byte == b'\n').map(|line| line.len().saturating_sub(4)).collect();
        assert_eq!(lengths, [LINE_BYTES_MAX, LINE_BYTES_MAX, 1, 0]);
    }

    #[test]
    fn a_piece_is_of_whole_lines() {
        let line = |bytes: usize| [vec![b'x'; bytes - 1], b"\n".to_vec()].concat();
        let lines = [line(96), line(4000), line(1), line(4000), line(4000), line(7)].concat();
        let lengths: Vec<usize> = pieces(&lines).map(<[u8]>::len).collect();
        assert_eq!(lengths, [4096, 4001, 4007]);
        assert_eq!(pieces(&lines).collect::<Vec<_>>().concat(), lines);
        assert_eq!(pieces(b"").count(), 0);
    }

    proptest! {
        #[test]
        fn how_it_comes_in_pieces_makes_no_difference(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..300),
            cuts in prop::collection::vec(0_usize..300, 0..6),
        ) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &text[cut[0]..cut[1]]).collect();
            prop_assert_eq!(lines(&pieces), lines(&[&text]));
        }
    }
}
