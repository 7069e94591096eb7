//! `-daemon`: leaving the terminal behind, and telling who started the program how it went.
//!
//! The process forks twice and has a session of its own. The first process stays until the daemon serves
//! or has failed, so that its exit status is the truth:
//!
//! ```text
//! starter ── reads the pipe ─────────────────────── one byte: exits 0
//!    └ daemon: its number ─→ pipe                     │ end of the pipe: the daemon's status
//!         binds, becomes the user, … ─→ serving ──────┘
//! ```
//!
//! Until then the daemon keeps standard output and error, where it says itself what went wrong, and the
//! current directory; the umask and the signal mask it keeps for good. Standard input is `/dev/null` at once. Only when it serves do the standard streams go to `/dev/null` and the
//! directory becomes `/`. A daemon that dies without a word has its starter say so.
//!
//! On Linux the starter becomes the reaper of orphans, or the daemon's exit status would go to another process.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{self, Pid};
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process;

/// The exit status where the daemon gave none: it was killed, panicked, or left without serving.
const STATUS_UNKNOWN: i32 = 1;
/// The exit status of a Rust program that panics.
const STATUS_PANIC: i32 = 101;
/// What goes through the pipe when the daemon serves.
const SERVING: u8 = b'+';

/// The daemon's side of the pipe to its starter. Dropped before [`ReadyPipe::serving`], it lets the starter wait
/// for the end of the daemon and pass on its status.
#[derive(Debug)]
#[must_use = "the starter waits"]
pub struct ReadyPipe {
    starter: PipeWriter,
}

/// Detaches. Returns in the daemon; the process that called exits here, when the daemon serves or has ended.
/// `program` begins what the starter says, if it has to say something.
///
/// # Errors
/// [`DetachError`], in whichever process it occurs.
pub fn detach(program: &str) -> Result<ReadyPipe, DetachError> {
    alone()?;
    let (reader, mut writer) = io::pipe().map_err(DetachError::Pipe)?;
    adopt_orphans();
    // What is buffered now would be written by each process.
    io::stdout().flush().map_err(DetachError::Pipe)?;
    let daemonize = daemonize::Daemonize::new()
        .working_directory(".")
        .umask(current_umask())
        .stdout(daemonize::Stdio::keep())
        .stderr(daemonize::Stdio::keep());
    match daemonize.execute() {
        daemonize::Outcome::Child(Ok(_)) => {
            drop(reader);
            writer.write_all(&process::id().to_be_bytes()).map_err(DetachError::Pipe)?;
            Ok(ReadyPipe { starter: writer })
        }
        daemonize::Outcome::Child(Err(error)) => Err(DetachError::Fork(error)),
        daemonize::Outcome::Parent(forked) => {
            drop(writer);
            match (read_number(&reader), forked) {
                (Some(daemon), _) => process::exit(await_daemon(program, reader, daemon)),
                (None, Err(error)) => Err(DetachError::Fork(error)),
                // The child has said why.
                (None, Ok(_)) => process::exit(STATUS_UNKNOWN),
            }
        }
    }
}

impl ReadyPipe {
    /// Lets go of the terminal and the directory, and the starter exit with success. A starter that is gone
    /// already (interrupted) is no error.
    ///
    /// # Errors
    /// Those of opening `/dev/null` and changing the directory.
    pub fn serving(mut self) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        std::env::set_current_dir("/")?;
        unistd::dup2_stdin(&null)?;
        unistd::dup2_stdout(&null)?;
        // Before the starter is gone, so that who reads its output to the end has the end then.
        unistd::dup2_stderr(&null)?;
        match self.starter.write_all(&[SERVING]) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// The umask, which can only be read by setting it. No other thread is there to notice.
#[allow(clippy::useless_conversion, reason = "the type is narrower than 32 bits on other systems")]
pub(super) fn current_umask() -> u32 {
    let mask = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    umask(mask);
    u32::from(mask.bits())
}

/// Fails if the process has threads: a fork would leave them behind, and with them every lock they hold.
pub(super) fn alone() -> Result<(), DetachError> {
    let Ok(threads) = fs::read_dir("/proc/self/task") else { return Ok(()) };
    let count = threads.count();
    if count > 1 { Err(DetachError::Threads { count }) } else { Ok(()) }
}

#[cfg(target_os = "linux")]
fn adopt_orphans() {
    if let Err(error) = nix::sys::prctl::set_child_subreaper(true) {
        tracing::debug!(%error, "the daemon's exit status will not be known");
    }
}

#[cfg(not(target_os = "linux"))]
fn adopt_orphans() {}

fn read_number(mut reader: &PipeReader) -> Option<i32> {
    let mut number = [0; 4];
    reader.read_exact(&mut number).ok()?;
    i32::try_from(u32::from_be_bytes(number)).ok()
}

/// Waits until the daemon serves or has ended, says what it could not say itself, returns the status to exit with.
fn await_daemon(program: &str, mut reader: PipeReader, daemon: i32) -> i32 {
    if reader.read_exact(&mut [0]).is_ok() {
        return 0;
    }
    let end = DaemonExit::of(waitpid(Pid::from_raw(daemon), None));
    match end {
        DaemonExit::Failed(status) => return status,
        DaemonExit::Killed(signal) => {
            eprintln!("{program}: the daemon was killed by {signal} before it was serving");
        }
        DaemonExit::Panicked => eprintln!("{program}: the daemon panicked before it was serving"),
        DaemonExit::Unknown => eprintln!("{program}: the daemon ended before it was serving"),
    }
    STATUS_UNKNOWN
}

/// How a daemon ended that never served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum DaemonExit {
    Failed(i32),
    Killed(Signal),
    Panicked,
    Unknown,
}

impl DaemonExit {
    fn of(status: Result<WaitStatus, Errno>) -> Self {
        match status {
            Ok(WaitStatus::Exited(_, STATUS_PANIC)) => Self::Panicked,
            Ok(WaitStatus::Exited(_, status)) if status != 0 => Self::Failed(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => Self::Killed(signal),
            _ => Self::Unknown,
        }
    }
}

/// Why the process could not detach.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// There are threads, which would not survive. A mistake in the program.
    #[error("can't detach: the process has {count} threads")]
    Threads {
        /// How many.
        count: usize,
    },
    /// There is no pipe to the starter, or it is broken.
    #[error("can't detach: no pipe to the daemon: {0}")]
    Pipe(io::Error),
    /// The system refused to fork or to make a session.
    #[error("can't detach: {0}")]
    Fork(daemonize::Error),
}
