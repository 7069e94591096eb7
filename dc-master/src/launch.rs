//! Starting a child: what it is given, and the way it takes to its command.
//!
//! ```text
//! master ── fork, descriptors to their numbers, exec of this same program ──→ starter ── exec ──→ command
//!    ↑                                             user, LISTEN_PID, PR_SET_PDEATHSIG    │
//!    └──────────── why the command can't be executed (a pipe; nothing if it can) ←───────┘
//! ```
//!
//! Between fork and exec hardly anything is allowed, and least of all to look up a user or to set a variable. So that is
//! done by the [stub](crate::exec_stub): this program again, in the process that will be the child.

use crate::exec_stub::{ExecRequest, MasterExecStub};
use crate::fd_store::{STORED_MAX, StoredFd};
use crate::notify_socket::{NotifyDir, NotifySocket};
use crate::options::PROGRAM;
use crate::sockets::PassedSocket;
use command_fds::{CommandFdExt, FdMapping, FdMappingCollision};
use dc_daemon::activation::PASSED_FIRST;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::unistd::Pid;
use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, PipeReader};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command, Stdio};

/// This program, whatever has become of its file.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// The options of the master.
const OPTION_PREFIX: &str = PROGRAM.env_prefix;
/// The variables in which systemd and einhorn speak to the master, and not to its children. What an application calls
/// by a like name is its own.
const OF_THE_MASTER: [&str; 13] = [
    "EINHORN_CHILD_INDEX",
    "EINHORN_FDS",
    "EINHORN_FD_COUNT",
    "EINHORN_MASTER_PID",
    "EINHORN_SOCK_FD",
    "EINHORN_SOCK_PATH",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];
/// einhorn's variable of one descriptor, before its place.
const EINHORN_DESCRIPTOR: &str = "EINHORN_FD_";

/// How every child is started.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// The command, its arguments, and as whom it runs.
    pub(crate) start: ExecRequest,
    /// Where it runs, if that is not where the master is.
    pub(crate) directory: Option<Directory>,
    /// Where it says that it is ready.
    pub(crate) notify_sockets: NotifyDir,
}

/// A directory, by a descriptor: one that is moved or removed stays the same.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// The one in which this process is.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn current() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(".", flags, Mode::empty())?))
    }

    /// A path that leads there, in this process and in what it forks.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// A child that was started, if its command can be executed.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its number.
    pub(crate) pid: Pid,
    /// What it has to say to `NOTIFY_SOCKET`.
    pub(crate) notices: NotifySocket,
    /// Its standard output.
    pub(crate) output: PipeReader,
    /// Its standard error.
    pub(crate) errors: PipeReader,
    /// What the starter writes if the command can't be executed.
    pub(crate) failure: PipeReader,
}

impl Launcher {
    /// Starts a child with these sockets and these stored descriptors. To be called from the thread that lives as long as
    /// the process: the system takes the end of it for the end of the master.
    ///
    /// # Errors
    /// [`LaunchError`] if there can be no process. Whether it gets as far as its command, [`Launched::failure`] tells.
    pub(crate) fn launch(
        &mut self,
        sockets: Vec<PassedSocket>,
        stored: &[StoredFd],
    ) -> Result<Launched, LaunchError> {
        let notices = self.notify_sockets.open().map_err(LaunchError::Notices)?;
        let (failure, failure_writer) = io::pipe().map_err(LaunchError::Pipe)?;
        let (output, output_writer) = io::pipe().map_err(LaunchError::Pipe)?;
        let (errors, errors_writer) = io::pipe().map_err(LaunchError::Pipe)?;

        let variables = environment(&sockets, stored);
        let mut descriptors: Vec<OwnedFd> = sockets.into_iter().map(|socket| socket.descriptor).collect();
        for stored in stored {
            descriptors.push(stored.descriptor.try_clone().map_err(LaunchError::Pipe)?);
        }
        let count = descriptors.len();
        descriptors.push(failure_writer.into());
        let mapping = |(place, parent_fd)| FdMapping { parent_fd, child_fd: number(place) };
        let mapping = descriptors.into_iter().enumerate().map(mapping).collect();

        let starter =
            MasterExecStub { start: self.start.clone(), parent: process::id(), failure: number(count) };
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("dc_master").args(starter.into_arguments());
        if let Some(directory) = &self.directory {
            command.current_dir(directory.path());
        }
        for (name, _) in env::vars_os() {
            if is_of_the_master(&name) {
                command.env_remove(name);
            }
        }
        command.envs(variables).env("NOTIFY_SOCKET", &notices.address);
        command.stdin(Stdio::null()).stdout(output_writer).stderr(errors_writer);
        // Of its own group, so that a key of the terminal is the master's to pass on.
        command.process_group(0).fd_mappings(mapping)?;
        let child = command.spawn().map_err(LaunchError::from_spawn)?;
        let pid = i32::try_from(child.id()).map_err(|_| LaunchError::Spawn(Errno::EOVERFLOW.into()))?;
        Ok(Launched { pid: Pid::from_raw(pid), notices, output, errors, failure })
    }
}

/// Whether a variable says something of the master, or of what supervises it.
fn is_of_the_master(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_place = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    OF_THE_MASTER.contains(&name)
        || name.starts_with(OPTION_PREFIX)
        || name.strip_prefix(EINHORN_DESCRIPTOR).is_some_and(is_place)
}

/// The descriptor that stands at `place` in the order.
fn number(place: usize) -> RawFd {
    PASSED_FIRST.saturating_add(RawFd::try_from(place).unwrap_or(RawFd::MAX))
}

/// What tells a child about its descriptors, but for `LISTEN_PID`.
fn environment(sockets: &[PassedSocket], stored: &[StoredFd]) -> Vec<(OsString, OsString)> {
    let mut names: Vec<&str> = sockets.iter().map(|socket| socket.name.as_str()).collect();
    names.extend(stored.iter().map(|stored| stored.name.as_str()));
    let listeners = sockets.len();
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("LISTEN_FDS".into(), names.len().to_string().into()),
        ("LISTEN_FDNAMES".into(), names.join(":").into()),
        // As systemd says how many descriptors may be left with it.
        ("FDSTORE".into(), STORED_MAX.to_string().into()),
        // As socketmaster says it, which has one socket. einhorn's variables tell of all.
        ("EINHORN_FDS".into(), PASSED_FIRST.to_string().into()),
        ("EINHORN_FD_COUNT".into(), listeners.to_string().into()),
        ("EINHORN_MASTER_PID".into(), process::id().to_string().into()),
    ];
    for place in 0..listeners {
        variables.push((format!("EINHORN_FD_{place}").into(), number(place).to_string().into()));
    }
    variables
}

/// Why there is no child.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// There is no socket for what it has to say.
    #[error("no socket for its notifications: {0}")]
    Notices(io::Error),
    /// There are no pipes or descriptors for it.
    #[error("no descriptors for it: {0}")]
    Pipe(io::Error),
    /// Two of its descriptors would have the same number. A mistake in the program.
    #[error(transparent)]
    Collision(#[from] FdMappingCollision),
    /// The system refuses another process.
    #[error("no process for it: {0}")]
    Spawn(io::Error),
    /// This program can't be executed anew.
    #[error("no process for it: {OWN_PROGRAM} does not lead to this program, so there is no /proc: {0}")]
    NoProc(io::Error),
}

impl LaunchError {
    fn from_spawn(error: io::Error) -> Self {
        if fs::metadata(OWN_PROGRAM).is_err() { Self::NoProc(error) } else { Self::Spawn(error) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_systemd_einhorn_and_the_options_say_is_for_the_master() {
        for name in ["LISTEN_FDS", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "EINHORN_FD_COUNT"] {
            assert!(is_of_the_master(name.as_ref()), "{name}");
        }
        for name in ["EINHORN_FD_0", "EINHORN_FD_12", "DC_MASTER_COMMAND", "DC_MASTER_"] {
            assert!(is_of_the_master(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn what_an_application_calls_alike_is_its_own() {
        for name in ["LISTEN_ADDR", "LISTEN_FDS_START", "WATCHDOG_INTERVAL", "NOTIFY_SOCKET_GROUP", "LISTEN"]
        {
            assert!(!is_of_the_master(name.as_ref()), "{name}");
        }
        for name in ["EINHORN_FD_", "EINHORN_FD_0_NAME", "EINHORN_HOME", "DC_SERVER_LISTEN", "DC_MASTER"] {
            assert!(!is_of_the_master(name.as_ref()), "{name}");
        }
    }
}
