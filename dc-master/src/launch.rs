//! Starts a child: its descriptors, its environment, and the steps from fork to exec.
//!
//! ```text
//! master ── fork, descriptors to their numbers, exec of this same program ──→ stub ──── exec ──→ command
//!    ↑                                             user, LISTEN_PID, PR_SET_PDEATHSIG    │
//!    └──────────── why the command cannot be executed (a pipe; empty on success) ←───────┘
//! ```
//! Only async-signal-safe calls are allowed between fork and exec; looking up a user or setting a variable is
//! not. So that is done by the [stub](crate::exec_stub): this program, executed again in the child's process.
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

/// This program, even if its file has been replaced or removed.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Prefix of the master's own option variables.
const OPTION_PREFIX: &str = PROGRAM.env_prefix;
/// Variables that systemd and einhorn set for the master and that children do not inherit. An application's
/// variables with similar names are passed on.
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
/// Prefix of einhorn's variables for single descriptors; the index follows.
const EINHORN_DESCRIPTOR: &str = "EINHORN_FD_";

/// Settings that are the same for every child.
#[derive(Debug)]
pub(crate) struct Launcher {
    /// The command, its arguments and its user.
    pub(crate) start: ExecRequest,
    /// The working directory of the children, if it differs from the master's.
    pub(crate) directory: Option<Directory>,
    /// The directory of the children's notification sockets.
    pub(crate) notify_sockets: NotifyDir,
}

/// A directory held open by a descriptor, so that it survives renaming and removal.
#[derive(Debug)]
pub(crate) struct Directory(OwnedFd);

impl Directory {
    /// The working directory of this process.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(crate) fn current() -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self(open(".", flags, Mode::empty())?))
    }

    /// A path to the directory, valid in this process and its forks.
    fn path(&self) -> String {
        format!("/proc/self/fd/{}", self.0.as_raw_fd())
    }
}

/// A child process whose command may not have been executed yet.
#[derive(Debug)]
pub(crate) struct Launched {
    pub(crate) pid: Pid,
    /// The socket that its `NOTIFY_SOCKET` names.
    pub(crate) notices: NotifySocket,
    pub(crate) output: PipeReader,
    pub(crate) errors: PipeReader,
    /// The pipe to which the exec stub writes if the command cannot be executed.
    pub(crate) failure: PipeReader,
}

impl Launcher {
    /// Starts a child with these sockets and these stored descriptors. Call it from the thread that lives as
    /// long as the process: the kernel treats the end of that thread as the death of the parent.
    ///
    /// # Errors
    ///
    /// [`LaunchError`] if no process could be created. [`Launched::failure`] reports errors after that.
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
        // A separate process group: the master forwards signals from the terminal.
        command.process_group(0).fd_mappings(mapping)?;
        let child = command.spawn().map_err(LaunchError::from_spawn)?;
        let pid = i32::try_from(child.id()).map_err(|_| LaunchError::Spawn(Errno::EOVERFLOW.into()))?;
        Ok(Launched { pid: Pid::from_raw(pid), notices, output, errors, failure })
    }
}

/// Whether a variable configures the master or comes from its service manager.
fn is_of_the_master(name: &OsStr) -> bool {
    let Some(name) = name.to_str() else { return false };
    let is_place = |rest: &str| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_digit());
    OF_THE_MASTER.contains(&name)
        || name.starts_with(OPTION_PREFIX)
        || name.strip_prefix(EINHORN_DESCRIPTOR).is_some_and(is_place)
}

/// Descriptor number of the socket at this index.
fn number(place: usize) -> RawFd {
    PASSED_FIRST.saturating_add(RawFd::try_from(place).unwrap_or(RawFd::MAX))
}

/// The variables that describe a child's descriptors, except `LISTEN_PID`.
fn environment(sockets: &[PassedSocket], stored: &[StoredFd]) -> Vec<(OsString, OsString)> {
    let mut names: Vec<&str> = sockets.iter().map(|socket| socket.name.as_str()).collect();
    names.extend(stored.iter().map(|stored| stored.name.as_str()));
    let listeners = sockets.len();
    let mut variables: Vec<(OsString, OsString)> = vec![
        ("LISTEN_FDS".into(), names.len().to_string().into()),
        ("LISTEN_FDNAMES".into(), names.join(":").into()),
        // systemd's variable for the capacity of the descriptor store.
        ("FDSTORE".into(), STORED_MAX.to_string().into()),
        // socketmaster's variable, which describes one socket. einhorn's variables describe all.
        ("EINHORN_FDS".into(), PASSED_FIRST.to_string().into()),
        ("EINHORN_FD_COUNT".into(), listeners.to_string().into()),
        ("EINHORN_MASTER_PID".into(), process::id().to_string().into()),
    ];
    for place in 0..listeners {
        variables.push((format!("EINHORN_FD_{place}").into(), number(place).to_string().into()));
    }
    variables
}

/// Why no child process was created.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LaunchError {
    /// Its notification socket could not be opened.
    #[error("no socket for its notifications: {0}")]
    Notices(io::Error),
    /// Its pipes or duplicates could not be created.
    #[error("no descriptors for it: {0}")]
    Pipe(io::Error),
    /// Two of its descriptors have the same number, which is a bug.
    #[error(transparent)]
    Collision(#[from] FdMappingCollision),
    /// The process could not be created.
    #[error("no process for it: {0}")]
    Spawn(io::Error),
    /// `/proc/self/exe` does not lead to this program.
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
    fn variables_of_systemd_einhorn_and_options_are_removed() {
        for name in ["LISTEN_FDS", "LISTEN_PIDFDID", "NOTIFY_SOCKET", "WATCHDOG_USEC", "EINHORN_FD_COUNT"] {
            assert!(is_of_the_master(name.as_ref()), "{name}");
        }
        for name in ["EINHORN_FD_0", "EINHORN_FD_12", "DC_MASTER_COMMAND", "DC_MASTER_"] {
            assert!(is_of_the_master(name.as_ref()), "{name}");
        }
    }

    #[test]
    fn similar_variables_of_an_application_are_inherited() {
        for name in ["LISTEN_ADDR", "LISTEN_FDS_START", "WATCHDOG_INTERVAL", "NOTIFY_SOCKET_GROUP", "LISTEN"]
        {
            assert!(!is_of_the_master(name.as_ref()), "{name}");
        }
        for name in ["EINHORN_FD_", "EINHORN_FD_0_NAME", "EINHORN_HOME", "DC_SERVER_LISTEN", "DC_MASTER"] {
            assert!(!is_of_the_master(name.as_ref()), "{name}");
        }
    }
}
