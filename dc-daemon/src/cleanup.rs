//! Removal of a daemon's files after it has given up the permission to remove them.
//!
//! A daemon that gave up root cannot remove its pidfile from `/run`, or a socket of another owner from
//! `/tmp`. So before that it starts a cleanup helper: a process that keeps root and does one thing. It waits
//! for the exit of the daemon, graceful or not, and removes the files it was given, each only if the path
//! still leads to the same file. The list of files is fixed when the helper is forked: a compromised daemon
//! can have these files removed early, and no others.
//!
//! ```text
//! daemon ── socket pair ── cleanup helper
//!    'end' ───────────────→ removes the files
//!          ←─────────────── 'done' or 'failed'     the daemon exits now, after the files are gone
//!    (dies) ──────────────→ removes the files
//! ```
//!
//! The helper has no descriptors except its end of the pair, the pins of the files and the lock of the
//! pidfile: no listening socket, no terminal, no pipe to the parent process. The lock is shared, so the next
//! instance cannot start before cleanup ends. All signals that can be blocked are blocked, and the name of
//! the process is `dc_custodian`. Where the whole process group of the daemon is killed, the helper may be
//! killed too; the next start then replaces the remaining files.
//!
//! Nothing here panics.

use super::descriptors::close_all_but;
use super::detach::{self, DetachError};
use super::pidfile::PidfileLock;
use crate::file::OwnedFile;
use nix::sys::signal::{SigSet, SigmaskHow};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process;

const WATCHING: u8 = b'w';
const END: u8 = b'e';
const DONE: u8 = b'd';
const FAILED: u8 = b'f';

/// The daemon's end of the channel to the helper. If it is dropped without [`CleanupHelper::run`], as at the
/// death of the daemon, the files are removed soon afterwards.
#[derive(Debug)]
pub struct CleanupHelper {
    channel: UnixStream,
}

impl CleanupHelper {
    /// Starts a helper for `files` and transfers them to it; it removes them in this order. It holds `lock`
    /// until then. On an error the files are removed.
    ///
    /// # Errors
    /// [`CleanupError`] if the helper cannot be started.
    pub fn start(files: Vec<OwnedFile>, lock: Option<&PidfileLock>) -> Result<Self, CleanupError> {
        detach::alone().map_err(CleanupError::Fork)?;
        let (channel, far) = UnixStream::pair().map_err(CleanupError::Channel)?;
        io::stdout().flush().map_err(CleanupError::Channel)?;
        let umask = detach::current_umask();
        // Before the fork, so that no signal arrives before the helper has its mask.
        let signals = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(|error| CleanupError::Channel(error.into()))?;
        let forked = daemonize::Daemonize::new().umask(umask).execute();
        if let daemonize::Outcome::Child(child) = forked {
            // Must not return into the daemon's code: this process is a copy of it.
            process::exit(if child.is_ok() { watch(far, files, lock) } else { 1 });
        }
        signals.thread_set_mask().map_err(|error| CleanupError::Channel(error.into()))?;
        drop(far);
        let mut custodian = Self { channel };
        match custodian.answer() {
            Ok(WATCHING) => {}
            Ok(_) => return Err(CleanupError::Unwatched),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(CleanupError::Unwatched);
            }
            Err(error) => return Err(CleanupError::Channel(error)),
        }
        files.into_iter().for_each(OwnedFile::release);
        Ok(custodian)
    }

    /// Has the files removed, and returns once they are removed.
    ///
    /// # Errors
    /// [`CleanupError`] if a file cannot be removed or the helper has exited.
    pub fn run(mut self) -> Result<(), CleanupError> {
        self.channel.write_all(&[END]).map_err(CleanupError::Gone)?;
        match self.answer() {
            Ok(DONE) => Ok(()),
            Ok(_) => Err(CleanupError::Left),
            Err(error) => Err(CleanupError::Gone(error)),
        }
    }

    fn answer(&mut self) -> io::Result<u8> {
        let mut byte = [0];
        self.channel.read_exact(&mut byte)?;
        Ok(byte[0])
    }
}

/// The main function of the helper. Returns its exit status.
fn watch(mut channel: UnixStream, files: Vec<OwnedFile>, lock: Option<&PidfileLock>) -> i32 {
    let mut keep = vec![channel.as_raw_fd()];
    keep.extend(files.iter().filter_map(OwnedFile::pin).map(AsRawFd::as_raw_fd));
    keep.extend(lock.map(|lock| lock.file().as_raw_fd()));
    name_process();
    if close_all_but(&keep).is_err() || channel.write_all(&[WATCHING]).is_err() {
        files.into_iter().for_each(OwnedFile::release);
        return 1;
    }
    // One byte, or the end of the stream after the daemon died: the files are removed in both cases.
    let orderly = matches!(channel.read(&mut [0]), Ok(1));
    let mut answer = DONE;
    for file in files {
        if file.remove().is_err() {
            answer = FAILED;
        }
    }
    let told = !orderly || channel.write_all(&[answer]).is_ok();
    i32::from(!told || answer == FAILED)
}

#[cfg(target_os = "linux")]
fn name_process() {
    // For process listings only; errors are harmless.
    nix::sys::prctl::set_name(c"dc_custodian").ok();
}

#[cfg(not(target_os = "linux"))]
fn name_process() {}

/// Why the files are not removed by a helper.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// The helper cannot be forked.
    #[error("cannot start the cleanup helper for socket and pidfile: {0}")]
    Fork(DetachError),
    /// The channel to the helper cannot be created.
    #[error("cannot start the cleanup helper for socket and pidfile: {0}")]
    Channel(io::Error),
    /// The helper exited before it was ready.
    #[error("the cleanup helper for socket and pidfile did not start")]
    Unwatched,
    /// The helper has exited since.
    #[error("the cleanup helper for socket and pidfile has exited: {0}")]
    Gone(io::Error),
    /// The helper failed to remove a file.
    #[error("cannot remove socket or pidfile")]
    Left,
}
