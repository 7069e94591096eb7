//! Removing what a daemon leaves behind, once it may not any more.
//!
//! A daemon that gave up root can't remove its pidfile from `/run`, or the socket of another owner from `/tmp`. So
//! before that it starts a custodian: a process that keeps root and does one thing. It waits for the daemon's
//! end, orderly or not, and removes the files that it was given, each only if the path still leads to the same
//! file. It knows them from the moment it was forked, and nothing can be added: a daemon that was taken over
//! can have them removed early, and no others.
//!
//! ```text
//! daemon ── socket pair ── custodian
//!    'end' ───────────────→ removes
//!          ←─────────────── 'done' or 'failed'     the daemon ends now, and the files are gone before it
//!    (dies) ──────────────→ removes
//! ```
//!
//! The custodian has no descriptor but its end of the pair, the pins of the files and the lock of the pidfile: no
//! listening socket, no terminal, no pipe of the starter. The lock is shared, so the next instance can't begin
//! while it tidies up. All signals that can be blocked are, and its name is `dc_custodian`. Where the daemon
//! is killed together with all of its group, the custodian may be too; the next start replaces what was left.
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

/// The daemon's side. Dropped without [`CleanupHelper::run`], as at the daemon's death, the files are
/// removed all the same, soon afterwards.
#[derive(Debug)]
pub struct CleanupHelper {
    channel: UnixStream,
}

impl CleanupHelper {
    /// Starts a custodian for `files`, which it removes in this order, and leaves them to it. It holds `lock` until
    /// then. On an error the files are removed.
    ///
    /// # Errors
    /// [`CleanupError`] if there can be none.
    pub fn start(files: Vec<OwnedFile>, lock: Option<&PidfileLock>) -> Result<Self, CleanupError> {
        detach::alone().map_err(CleanupError::Fork)?;
        let (channel, far) = UnixStream::pair().map_err(CleanupError::Channel)?;
        io::stdout().flush().map_err(CleanupError::Channel)?;
        let umask = detach::current_umask();
        // Before the fork, so that no signal finds the custodian without its mask.
        let signals = SigSet::all()
            .thread_swap_mask(SigmaskHow::SIG_SETMASK)
            .map_err(|error| CleanupError::Channel(error.into()))?;
        let forked = daemonize::Daemonize::new().umask(umask).execute();
        if let daemonize::Outcome::Child(child) = forked {
            // Never returns into the daemon's code: this is a copy of it.
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

    /// Has the files removed, and returns when they are.
    ///
    /// # Errors
    /// [`CleanupError`] if one can't be removed or the custodian is gone.
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

/// The life of the custodian; the result is its exit status.
fn watch(mut channel: UnixStream, files: Vec<OwnedFile>, lock: Option<&PidfileLock>) -> i32 {
    let mut keep = vec![channel.as_raw_fd()];
    keep.extend(files.iter().filter_map(OwnedFile::pin).map(AsRawFd::as_raw_fd));
    keep.extend(lock.map(|lock| lock.file().as_raw_fd()));
    name_process();
    if close_all_but(&keep).is_err() || channel.write_all(&[WATCHING]).is_err() {
        files.into_iter().for_each(OwnedFile::release);
        return 1;
    }
    // One byte, or the end of the daemon: it makes no difference.
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
    // For whoever looks; nothing depends on it.
    nix::sys::prctl::set_name(c"dc_custodian").ok();
}

#[cfg(not(target_os = "linux"))]
fn name_process() {}

/// Why the files will not be removed by a custodian.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// It can't be forked.
    #[error("can't start the process that removes socket and pidfile at the end: {0}")]
    Fork(DetachError),
    /// There is no channel to it.
    #[error("can't start the process that removes socket and pidfile at the end: {0}")]
    Channel(io::Error),
    /// It ended before it was ready.
    #[error("the process that removes socket and pidfile at the end did not start")]
    Unwatched,
    /// It is not there any more.
    #[error("the process that removes socket and pidfile at the end is gone: {0}")]
    Gone(io::Error),
    /// It could not remove a file.
    #[error("socket or pidfile could not be removed")]
    Left,
}
