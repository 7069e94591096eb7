//! The pidfile: one line with the process id, and a lock that permits a single instance.
//!
//! The file is opened and locked early, while the process still has permission, and written once the daemon
//! serves. The lock (flock(2)) ends with the process, so a crashed process leaves a file but no lock, and the
//! next instance takes the file over. An exiting process removes the file under the lock; a process that gets
//! the lock checks whether the path still leads to the locked file, and starts over if not.
//!
//! The [cleanup helper](super::cleanup) shares the lock, and holds it until cleanup is complete. So if the
//! lock is held and its owner is dead, the lock will be free soon, and a new instance waits for it.
//!
//! The path must not be a symbolic link, which root would follow to another user's file. Nothing here panics.

use crate::file::{FileId, OwnedFile};
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process;
use std::thread;
use std::time::Duration;

/// The number of attempts to take the lock while no live process is known to hold it, and the pause between
/// them.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// The maximum number of bytes read from a pidfile: no process id is longer.
const CONTENT_BYTES_MAX: u64 = 24;

/// A pidfile locked by this process. It is removed and unlocked on drop.
#[derive(Debug)]
pub struct Pidfile {
    // Fields drop in this order: the file is removed before it is unlocked.
    own: OwnedFile,
    lock: PidfileLock,
}

impl Pidfile {
    /// Opens or creates the file and locks it. The content left by a dead process is erased.
    ///
    /// # Errors
    /// [`PidfileError`] if another instance runs, or the file cannot be opened.
    pub fn lock(path: &Path) -> Result<Self, PidfileError> {
        let open_failed = |source| PidfileError::Open { path: path.to_owned(), source };
        let path = &std::path::absolute(path).map_err(open_failed)?;
        for _ in 0..ATTEMPTS {
            match attempt(path)? {
                LockAttempt::Locked(pidfile) => return Ok(pidfile),
                LockAttempt::Held(Some(pid)) if is_alive(pid) => {
                    return Err(PidfileError::Running { path: path.clone(), pid });
                }
                // The owner is about to write its process id, or it is dead and its cleanup helper will exit
                // soon.
                LockAttempt::Held(_) => thread::sleep(PAUSE),
                LockAttempt::Removed => {}
            }
        }
        Err(PidfileError::Held { path: path.clone() })
    }

    /// Writes the id of this process.
    ///
    /// # Errors
    /// [`PidfileError::Write`] if writing fails.
    pub fn write(&mut self) -> Result<(), PidfileError> {
        self.lock.write()
    }

    /// The lock, which writes the file, and the file itself, which its owner removes.
    pub fn into_parts(self) -> (PidfileLock, OwnedFile) {
        (self.lock, self.own)
    }
}

/// The lock of a pidfile, held until this is dropped in this process and in every process forked since.
#[derive(Debug)]
pub struct PidfileLock {
    path: PathBuf,
    file: File,
}

impl PidfileLock {
    /// Writes the id of this process.
    ///
    /// # Errors
    /// [`PidfileError::Write`] if writing fails.
    pub fn write(&mut self) -> Result<(), PidfileError> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(format!("{}\n", process::id()).as_bytes())
        };
        write().map_err(|source| PidfileError::Write { path: self.path.clone(), source })
    }

    /// The locked file, for a process that closes all other descriptors.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

/// The result of one attempt to lock the file.
enum LockAttempt {
    /// This process holds the lock.
    Locked(Pidfile),
    /// Another process holds the lock; its process id, if it has written it.
    Held(Option<i32>),
    /// The owner removed the file between opening and locking.
    Removed,
}

fn attempt(path: &Path) -> Result<LockAttempt, PidfileError> {
    let failed = |source| PidfileError::Open { path: path.to_owned(), source };
    let mut file = open(path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(LockAttempt::Held(owner(&mut file))),
        Err(TryLockError::Error(source)) => return Err(PidfileError::Lock { path: path.to_owned(), source }),
    }
    if !leads_to(path, &file).map_err(failed)? {
        return Ok(LockAttempt::Removed);
    }
    file.set_len(0).map_err(|source| PidfileError::Write { path: path.to_owned(), source })?;
    let own = OwnedFile::claim(path).map_err(failed)?;
    Ok(LockAttempt::Locked(Pidfile { own, lock: PidfileLock { path: path.to_owned(), file } }))
}

fn open(path: &Path) -> Result<File, PidfileError> {
    // Non-blocking, because the file may be a named pipe, which would block the open.
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o644)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|source| PidfileError::Open { path: path.to_owned(), source })?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(file),
        Ok(_) => Err(PidfileError::NotAFile { path: path.to_owned() }),
        Err(source) => Err(PidfileError::Open { path: path.to_owned(), source }),
    }
}

fn leads_to(path: &Path, file: &File) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(metadata) => Ok(FileId::of(&metadata) == FileId::of(&file.metadata()?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// The process id in the file.
fn owner(file: &mut File) -> Option<i32> {
    let mut content = String::new();
    file.take(CONTENT_BYTES_MAX).read_to_string(&mut content).ok()?;
    content.trim_end().parse().ok().filter(|pid| *pid > 0)
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// Why the pidfile cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    /// Another instance is running.
    #[error("pidfile {}: another instance is running as process {pid}", path.display())]
    Running {
        /// The path of the pidfile.
        path: PathBuf,
        /// The process id in the file.
        pid: i32,
    },
    /// Another instance holds the lock, and for a second has neither written its process id nor released the
    /// lock.
    #[error("pidfile {}: another instance is starting or stopping", path.display())]
    Held {
        /// The path of the pidfile.
        path: PathBuf,
    },
    /// The file cannot be opened or created.
    #[error("pidfile {}: cannot open it: {source}", path.display())]
    Open {
        /// The path of the pidfile.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The path leads to something other than a regular file.
    #[error("pidfile {}: not a regular file", path.display())]
    NotAFile {
        /// The path of the pidfile.
        path: PathBuf,
    },
    /// The file system has no locks.
    #[error("pidfile {}: cannot lock it: {source}", path.display())]
    Lock {
        /// The path of the pidfile.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("pidfile {}: cannot write it: {source}", path.display())]
    Write {
        /// The path of the pidfile.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn pidfile_is_created_written_and_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut pidfile = Pidfile::lock(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        pidfile.write().unwrap();
        pidfile.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
        drop(pidfile);
        assert!(!path.exists());
    }

    #[test]
    fn second_instance_gets_the_running_pid() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut first = Pidfile::lock(&path).unwrap();
        assert!(matches!(attempt(&path), Ok(LockAttempt::Held(None))));
        first.write().unwrap();
        let error = Pidfile::lock(&path).unwrap_err().to_string();
        let pid = process::id();
        assert_eq!(
            error,
            format!("pidfile {}: another instance is running as process {pid}", path.display())
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{pid}\n"));
    }

    #[test]
    fn stale_pidfile_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "1234567890123456789012345678901234567890").unwrap();
        let mut pidfile = Pidfile::lock(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        pidfile.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
    }

    #[test]
    fn lock_of_a_dead_owner_is_awaited() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let mut child = process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let pidfile = Pidfile::lock(&path).unwrap();
        fs::write(&path, format!("{}\n", child.id())).unwrap();
        let next = thread::scope(|scope| {
            let next = scope.spawn(|| Pidfile::lock(&path));
            drop(pidfile);
            next.join().unwrap()
        });
        next.unwrap().write().unwrap();
    }

    #[test]
    fn replaced_pidfile_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let first = Pidfile::lock(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let mut second = Pidfile::lock(&path).unwrap();
        second.write().unwrap();
        drop(first);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
    }

    #[test]
    fn concurrent_locks_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        let inside = std::sync::atomic::AtomicU32::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..200 {
                        let Ok(mut pidfile) = Pidfile::lock(&path) else { continue };
                        assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        pidfile.write().unwrap();
                        assert!(path.exists());
                        inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                    }
                });
            }
        });
    }

    #[test]
    fn symlink_pipe_and_directory_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let victim = directory.path().join("victim");
        fs::write(&victim, "precious").unwrap();
        let link = directory.path().join("link");
        symlink(&victim, &link).unwrap();
        assert!(matches!(Pidfile::lock(&link), Err(PidfileError::Open { .. })));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        let pipe = directory.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(matches!(Pidfile::lock(&pipe), Err(PidfileError::NotAFile { .. })));
        assert!(matches!(Pidfile::lock(directory.path()), Err(PidfileError::Open { .. })));
        let nowhere = directory.path().join("no/pid");
        let error = Pidfile::lock(&nowhere).unwrap_err().to_string();
        assert!(error.starts_with(&format!("pidfile {}: cannot open it: No such file", nowhere.display())));
    }
}
