//! A daemon from start to exit, with a type for each state, so that no step happens too early or twice.
//!
//! ```text
//! DaemonLaunch ──detach──→ Detached ──lock──→ Starting ──confine──→ Unprivileged ──serving──→ Serving ──finish──→
//!    options                               pidfile locked         user changed,              pidfile written,
//!                                                                 cleanup ready              parent notified
//!         (block signals)       (bind listeners)          (runtime, signals, threads, connect)
//! ```
//!
//! No thread may exist before [`Starting::confine`] has returned. A program that fails at any point drops the
//! state, which removes the files; so it returns from `main` and does not call `std::process::exit`. Its exit
//! status and its messages on standard error reach the parent process, also with `-daemon`.

use super::account::Account;
use super::cleanup::{CleanupError, CleanupHelper};
use super::detach::{DetachError, ReadyPipe, detach};
use super::pidfile::{Pidfile, PidfileError, PidfileLock};
use super::privileges::{PrivilegeError, become_user};
use crate::file::OwnedFile;
use nix::unistd::geteuid;
use std::io;
use std::path::PathBuf;

/// The settings for the start of a daemon.
#[derive(Clone, Debug)]
pub struct DaemonLaunch {
    /// The name of the program, for messages of the parent process with `-daemon`.
    pub program: &'static str,
    /// Whether to detach (`-daemon`).
    pub detach: bool,
    /// The path of the pidfile (`-pidfile`).
    pub pidfile: Option<PathBuf>,
    /// The user to switch to (`-user`).
    pub user: Option<Account>,
}

impl DaemonLaunch {
    /// Detaches if configured. With `-daemon` only the daemon returns.
    ///
    /// # Errors
    /// [`LifecycleError::Detach`] if the process cannot detach.
    pub fn detach(self) -> Result<Detached, LifecycleError> {
        let readiness = if self.detach { Some(detach(self.program)?) } else { None };
        Ok(Detached { pidfile: self.pidfile, readiness, user: self.user })
    }

    /// Detaches if configured, and locks the pidfile.
    ///
    /// # Errors
    /// [`LifecycleError`] if the process cannot detach or lock the pidfile.
    pub fn begin(self) -> Result<Starting, LifecycleError> {
        self.detach()?.lock()
    }
}

/// The process that will serve, before it has created any file. Signals are to be blocked here: earlier ones
/// must still reach the parent process.
#[derive(Debug)]
pub struct Detached {
    pidfile: Option<PathBuf>,
    readiness: Option<ReadyPipe>,
    user: Option<Account>,
}

impl Detached {
    /// Locks the pidfile.
    ///
    /// # Errors
    /// [`LifecycleError::Pidfile`] if another instance runs or the file cannot be opened.
    pub fn lock(self) -> Result<Starting, LifecycleError> {
        let pidfile = self.pidfile.as_deref().map(Pidfile::lock).transpose()?;
        Ok(Starting { pidfile, readiness: self.readiness, user: self.user })
    }
}

/// A process that still has the privileges of its parent: listeners are bound and keys are read here.
#[derive(Debug)]
pub struct Starting {
    pidfile: Option<Pidfile>,
    readiness: Option<ReadyPipe>,
    user: Option<Account>,
}

impl Starting {
    /// Switches to the user. `files` are the sockets to remove at exit; a [`CleanupHelper`] is started first
    /// if the user has no permission to remove them.
    ///
    /// # Errors
    /// [`LifecycleError`]. The files are then removed.
    pub fn confine(self, mut files: Vec<OwnedFile>) -> Result<Unprivileged, LifecycleError> {
        let (lock, pidfile) = self.pidfile.map(Pidfile::into_parts).unzip();
        // Last, since a process that waits for the pidfile to disappear expects the other files to be gone.
        files.extend(pidfile);
        let leaves_root = geteuid().is_root() && self.user.as_ref().is_some_and(|user| user.uid() != 0);
        let leftovers = if leaves_root && !files.is_empty() {
            Cleanup::Kept(CleanupHelper::start(files, lock.as_ref())?)
        } else {
            Cleanup::Own(files)
        };
        if let Some(user) = &self.user {
            become_user(user)?;
        }
        Ok(Unprivileged { leftovers, lock, readiness: self.readiness })
    }
}

/// A process without unneeded privileges: threads and connections may be started here.
#[derive(Debug)]
pub struct Unprivileged {
    // Fields drop in this order: files are removed before the pidfile is unlocked.
    leftovers: Cleanup,
    lock: Option<PidfileLock>,
    readiness: Option<ReadyPipe>,
}

impl Unprivileged {
    /// Writes the pidfile, and with `-daemon` releases terminal, directory and parent process.
    ///
    /// # Errors
    /// [`LifecycleError`]. The files are then removed.
    pub fn serving(self) -> Result<Serving, LifecycleError> {
        self.serving_after(|| {})
    }

    /// As [`Unprivileged::serving`], and calls `announce` after the last step that may fail for reasons a
    /// user can fix, while the parent process still shows the output.
    ///
    /// # Errors
    /// As [`Unprivileged::serving`].
    pub fn serving_after(mut self, announce: impl FnOnce()) -> Result<Serving, LifecycleError> {
        if let Some(lock) = &mut self.lock {
            lock.write()?;
        }
        announce();
        if let Some(readiness) = self.readiness {
            readiness.serving().map_err(LifecycleError::Ready)?;
        }
        Ok(Serving { leftovers: self.leftovers, _lock: self.lock })
    }
}

/// A daemon that serves.
#[derive(Debug)]
#[must_use = "socket and pidfile are removed when this is dropped"]
pub struct Serving {
    leftovers: Cleanup,
    _lock: Option<PidfileLock>,
}

impl Serving {
    /// Removes socket and pidfile if they still belong to this process. The process can exit afterwards.
    ///
    /// # Errors
    /// [`LifecycleError`] for the first file that cannot be removed; the others are still removed as far as
    /// possible.
    pub fn finish(self) -> Result<(), LifecycleError> {
        match self.leftovers {
            Cleanup::Kept(custodian) => custodian.run()?,
            Cleanup::Own(files) => {
                let mut first = Ok(());
                for file in files {
                    let path = file.path().to_owned();
                    let removed = file.remove().map_err(|source| LifecycleError::Remove { path, source });
                    first = first.and(removed.map(drop));
                }
                first?;
            }
        }
        Ok(())
    }
}

/// The owner of the files.
#[derive(Debug)]
enum Cleanup {
    /// The files are removed by this process.
    Own(Vec<OwnedFile>),
    /// The files are removed by a helper that kept the permission.
    Kept(CleanupHelper),
}

/// Why a daemon failed to start or to exit cleanly.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// The process cannot detach.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// The pidfile cannot be locked or written.
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    /// The process cannot switch to the user.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The cleanup helper cannot be started or has failed.
    #[error(transparent)]
    Custodian(#[from] CleanupError),
    /// The daemon serves, but cannot release terminal and directory.
    #[error("cannot detach: {0}")]
    Ready(io::Error),
    /// A file cannot be removed.
    #[error("cannot remove {}: {source}", path.display())]
    Remove {
        /// The path of the file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}
