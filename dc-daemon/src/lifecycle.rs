//! A daemon from start to end, each state a type, so that nothing is done too early or twice.
//!
//! ```text
//! Launch ──detach──→ Detached ──lock──→ Starting ──confine──→ Confined ──serving──→ Serving ──end──→
//!   options                              pidfile locked        the user,             pidfile written,
//!                                                              leftovers known       starter told
//!        (hold signals back)     (bind listeners)       (runtime, signals, threads, connect)
//! ```
//!
//! No thread may exist before [`Starting::confine`] has returned. A program that gives up at any point drops what
//! it has, and the files are removed; so it returns from `main` rather than calling `std::process::exit`. What
//! it says on standard error and its exit status reach whoever started it, under `-daemon` too.

use super::account::Account;
use super::cleanup::{CleanupError, CleanupHelper};
use super::detach::{DetachError, ReadyPipe, detach};
use super::pidfile::{Pidfile, PidfileError, PidfileLock};
use super::privileges::{PrivilegeError, become_user};
use crate::file::OwnedFile;
use nix::unistd::geteuid;
use std::io;
use std::path::PathBuf;

/// How a daemon is to be started.
#[derive(Clone, Debug)]
pub struct DaemonLaunch {
    /// The program's name, for what its starter has to say under `-daemon`.
    pub program: &'static str,
    /// `-daemon`.
    pub detach: bool,
    /// `-pidfile`.
    pub pidfile: Option<PathBuf>,
    /// `-user`.
    pub user: Option<Account>,
}

impl DaemonLaunch {
    /// Detaches if that is wanted. Under `-daemon` only the daemon returns.
    ///
    /// # Errors
    /// [`LifecycleError`].
    pub fn detach(self) -> Result<Detached, LifecycleError> {
        let readiness = if self.detach { Some(detach(self.program)?) } else { None };
        Ok(Detached { pidfile: self.pidfile, readiness, user: self.user })
    }

    /// Detaches if that is wanted, and locks the pidfile.
    ///
    /// # Errors
    /// [`LifecycleError`].
    pub fn begin(self) -> Result<Starting, LifecycleError> {
        self.detach()?.lock()
    }
}

/// The process that is to serve, and has made nothing: the time to hold signals back, which must reach the starter still.
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
    /// [`LifecycleError`].
    pub fn lock(self) -> Result<Starting, LifecycleError> {
        let pidfile = self.pidfile.as_deref().map(Pidfile::lock).transpose()?;
        Ok(Starting { pidfile, readiness: self.readiness, user: self.user })
    }
}

/// A process that may still do what its starter may: the time to bind and to read keys.
#[derive(Debug)]
pub struct Starting {
    pidfile: Option<Pidfile>,
    readiness: Option<ReadyPipe>,
    user: Option<Account>,
}

impl Starting {
    /// Becomes the user. `files` are those to remove at the end, the sockets that were made; where the user may not
    /// remove them a [`CleanupHelper`] is started first.
    ///
    /// # Errors
    /// [`LifecycleError`]. The files are removed then.
    pub fn confine(self, mut files: Vec<OwnedFile>) -> Result<Unprivileged, LifecycleError> {
        let (lock, pidfile) = self.pidfile.map(Pidfile::into_parts).unzip();
        // The last, since who waits for it to go wants everything gone.
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

/// A process with no more rights than it needs: the time to start threads and connect.
#[derive(Debug)]
pub struct Unprivileged {
    // Removed before the pidfile is unlocked: the order of the fields.
    leftovers: Cleanup,
    lock: Option<PidfileLock>,
    readiness: Option<ReadyPipe>,
}

impl Unprivileged {
    /// Writes the pidfile, and under `-daemon` lets go of terminal, directory and starter.
    ///
    /// # Errors
    /// [`LifecycleError`]. The files are removed then.
    pub fn serving(self) -> Result<Serving, LifecycleError> {
        self.serving_after(|| {})
    }

    /// As [`Unprivileged::serving`], and does `announce` in between: when nothing is left that a user could have to put right, and
    /// who started the daemon still reads what it says.
    ///
    /// # Errors
    /// The same.
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

/// A process that serves.
#[derive(Debug)]
#[must_use = "socket and pidfile are removed when this is dropped"]
pub struct Serving {
    leftovers: Cleanup,
    _lock: Option<PidfileLock>,
}

impl Serving {
    /// Removes socket and pidfile, where they are still ours. Afterwards the process can end.
    ///
    /// # Errors
    /// [`LifecycleError`] for the first that can't be removed; the others are, as far as possible.
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

/// Who removes the files.
#[derive(Debug)]
enum Cleanup {
    /// This process.
    Own(Vec<OwnedFile>),
    /// A process that kept the right to.
    Kept(CleanupHelper),
}

/// What went wrong in the life of a daemon.
#[derive(Debug, thiserror::Error)]
pub enum LifecycleError {
    /// It could not detach.
    #[error(transparent)]
    Detach(#[from] DetachError),
    /// It could not have its pidfile.
    #[error(transparent)]
    Pidfile(#[from] PidfileError),
    /// It could not become the user.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// Nobody would remove, or has removed, its files.
    #[error(transparent)]
    Custodian(#[from] CleanupError),
    /// It serves, but can't let go of terminal and directory.
    #[error("can't detach: {0}")]
    Ready(io::Error),
    /// A file can't be removed.
    #[error("can't remove {}: {source}", path.display())]
    Remove {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}
