//! `-daemon`: detaching from the terminal, and reporting the result of the start to the parent process.
//!
//! The process forks twice and becomes the leader of a new session. The first process stays until the daemon
//! serves or has failed, so that its exit status is reliable:
//!
//! ```text
//! parent ─── reads the pipe ─────────────────────── one byte: exits 0
//!    └ daemon: its pid ─→ pipe                        │ end of the pipe: the daemon's exit status
//!         binds, becomes the user, … ─→ serving ──────┘
//! ```
//!
//! Until then the daemon keeps the current directory, and standard output and error, to which it writes its
//! own errors. It keeps the umask and the signal mask permanently. Standard input is `/dev/null` from the
//! start. Once the daemon serves, the other standard streams go to `/dev/null` and the directory becomes `/`.
//! If the daemon dies without a message, the parent process prints one.
//!
//! On Linux the parent process becomes the reaper of orphans; otherwise the daemon's exit status would go to
//! another process.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, umask};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{self, Pid};
use std::fs::{self, OpenOptions};
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::process;

/// The exit status if the daemon has none: it was killed, panicked, or exited successfully without serving.
const STATUS_UNKNOWN: i32 = 1;
/// The exit status of a Rust program after a panic.
const STATUS_PANIC: i32 = 101;
/// The byte sent through the pipe once the daemon serves.
const SERVING: u8 = b'+';

/// The daemon's end of the pipe to the parent process. If it is dropped before [`ReadyPipe::serving`], the
/// parent process waits for the daemon's exit and passes on its status.
#[derive(Debug)]
#[must_use = "the starter waits"]
pub struct ReadyPipe {
    starter: PipeWriter,
}

/// Detaches. Returns in the daemon; the calling process exits here, once the daemon serves or has exited.
/// `program` is the prefix of the parent's messages.
///
/// # Errors
/// [`DetachError`], in either process.
pub fn detach(program: &str) -> Result<ReadyPipe, DetachError> {
    alone()?;
    let (reader, mut writer) = io::pipe().map_err(DetachError::Pipe)?;
    adopt_orphans();
    // Buffered output would be written by each process.
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
                // The child process has printed the error.
                (None, Ok(_)) => process::exit(STATUS_UNKNOWN),
            }
        }
    }
}

impl ReadyPipe {
    /// Releases the terminal and the directory, and lets the parent process exit with success. A parent
    /// process that was interrupted earlier is not an error.
    ///
    /// # Errors
    /// Opening `/dev/null` or changing the directory fails.
    pub fn serving(mut self) -> io::Result<()> {
        let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
        std::env::set_current_dir("/")?;
        unistd::dup2_stdin(&null)?;
        unistd::dup2_stdout(&null)?;
        // Before the parent process exits, so that a reader of its output sees the end of the stream then.
        unistd::dup2_stderr(&null)?;
        match self.starter.write_all(&[SERVING]) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
            _ => Ok(()),
        }
    }
}

/// The umask, which can only be read by setting it. There is no other thread that could see the temporary
/// value.
#[allow(clippy::useless_conversion, reason = "the type is narrower than 32 bits on other systems")]
pub(super) fn current_umask() -> u32 {
    let mask = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    umask(mask);
    u32::from(mask.bits())
}

/// Fails if the process has several threads: a fork would lose them while the locks they hold stay locked.
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

/// Waits until the daemon serves or has exited, prints errors that it could not print itself, and returns the
/// exit status.
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

/// How a daemon exited before it served.
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

/// Why the process cannot detach.
#[derive(Debug, thiserror::Error)]
pub enum DetachError {
    /// The process has several threads, which would not survive the fork. A bug in the program.
    #[error("cannot detach: the process has {count} threads")]
    Threads {
        /// The number of threads.
        count: usize,
    },
    /// The pipe to the parent process cannot be created, or is broken.
    #[error("cannot detach: no pipe to the daemon: {0}")]
    Pipe(io::Error),
    /// The system cannot fork or create a session.
    #[error("cannot detach: {0}")]
    Fork(daemonize::Error),
}
