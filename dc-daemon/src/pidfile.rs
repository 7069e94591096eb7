//! The pidfile: one line with the number of the process, and the lock that lets only one instance run.
//!
//! The file is opened and locked early, while the process may still write there, and filled when it serves. The
//! lock (flock(2)) goes with the process, so one that died leaves a file behind but never a lock, and the
//! next instance simply takes it over. Who ends removes the file under the lock; who gets the lock looks
//! whether the path still leads to the file it locked, and starts over if not.
//!
//! The [cleanup helper](super::cleanup) shares the lock, and holds it until it has tidied up. So where the lock is
//! held and its owner is dead, it will be free in a moment, and that moment is waited for.
//!
//! The path itself may be no symbolic link, which root would follow to another's file. Nothing here panics.

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

/// How often the lock is tried for while no live process is known to hold it, and the pause between.
const ATTEMPTS: u32 = 100;
const PAUSE: Duration = Duration::from_millis(10);
/// Most bytes read of a pidfile: no process has a longer number.
const CONTENT_BYTES_MAX: u64 = 24;

/// A pidfile that this process has locked. Dropped, it is removed and unlocked.
#[derive(Debug)]
pub struct Pidfile {
    // Removed before it is unlocked: the order of the fields.
    own: OwnedFile,
    lock: PidfileLock,
}

impl Pidfile {
    /// Opens or makes the file and locks it. What a dead process left in it is erased.
    ///
    /// # Errors
    /// [`PidfileError`] if another instance runs, or the file can't be had.
    pub fn lock(path: &Path) -> Result<Self, PidfileError> {
        let open_failed = |source| PidfileError::Open { path: path.to_owned(), source };
        let path = &std::path::absolute(path).map_err(open_failed)?;
        for _ in 0..ATTEMPTS {
            match attempt(path)? {
                LockAttempt::Locked(pidfile) => return Ok(pidfile),
                LockAttempt::Held(Some(pid)) if is_alive(pid) => {
                    return Err(PidfileError::Running { path: path.clone(), pid });
                }
                // It is about to write its number, or dead and its custodian about to let go.
                LockAttempt::Held(_) => thread::sleep(PAUSE),
                LockAttempt::Removed => {}
            }
        }
        Err(PidfileError::Held { path: path.clone() })
    }

    /// Writes the number of this process.
    ///
    /// # Errors
    /// [`PidfileError::Write`].
    pub fn write(&mut self) -> Result<(), PidfileError> {
        self.lock.write()
    }

    /// The lock, which writes, and the file, which is removed when dropped or by who takes it.
    pub fn into_parts(self) -> (PidfileLock, OwnedFile) {
        (self.lock, self.own)
    }
}

/// The lock on a pidfile, held until this is dropped, here and in every process forked since.
#[derive(Debug)]
pub struct PidfileLock {
    path: PathBuf,
    file: File,
}

impl PidfileLock {
    /// Writes the number of this process.
    ///
    /// # Errors
    /// [`PidfileError::Write`].
    pub fn write(&mut self) -> Result<(), PidfileError> {
        let mut write = || {
            self.file.set_len(0)?;
            self.file.seek(SeekFrom::Start(0))?;
            self.file.write_all(format!("{}\n", process::id()).as_bytes())
        };
        write().map_err(|source| PidfileError::Write { path: self.path.clone(), source })
    }

    /// The locked file, for a process that closes all but what it needs.
    pub(super) const fn file(&self) -> &File {
        &self.file
    }
}

/// What came of trying to lock it once.
enum LockAttempt {
    /// It is ours.
    Locked(Pidfile),
    /// Another has it, whose number it is if it has written one.
    Held(Option<i32>),
    /// Its owner removed it between the opening and the locking.
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
    // Non-blocking, because what is there may be a pipe, and that would be waited on for ever.
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

/// The process whose number is in the file.
fn owner(file: &mut File) -> Option<i32> {
    let mut content = String::new();
    file.take(CONTENT_BYTES_MAX).read_to_string(&mut content).ok()?;
    content.trim_end().parse().ok().filter(|pid| *pid > 0)
}

fn is_alive(pid: i32) -> bool {
    kill(Pid::from_raw(pid), None) != Err(Errno::ESRCH)
}

/// Why the pidfile can't be had.
#[derive(Debug, thiserror::Error)]
pub enum PidfileError {
    /// Another instance serves.
    #[error("pidfile {}: another instance is running as process {pid}", path.display())]
    Running {
        /// The file.
        path: PathBuf,
        /// The number in it.
        pid: i32,
    },
    /// Another instance has it, and for a second has neither written its number nor let go.
    #[error("pidfile {}: another instance is starting or ending", path.display())]
    Held {
        /// The file.
        path: PathBuf,
    },
    /// It can't be opened or made.
    #[error("pidfile {}: can't open it: {source}", path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something else.
    #[error("pidfile {}: not a regular file", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
    },
    /// The file system knows no locks.
    #[error("pidfile {}: can't lock it: {source}", path.display())]
    Lock {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// It can't be written.
    #[error("pidfile {}: can't write it: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn it_is_empty_then_written_then_gone() {
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
    fn a_second_instance_is_told_who_runs() {
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
    fn what_a_dead_process_left_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pid");
        fs::write(&path, "1234567890123456789012345678901234567890").unwrap();
        let mut pidfile = Pidfile::lock(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "");
        pidfile.write().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", process::id()));
    }

    #[test]
    fn a_lock_whose_owner_is_dead_is_waited_for() {
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
    fn another_file_in_its_place_stays() {
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
    fn only_one_of_many_has_it_at_a_time() {
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
    fn what_is_no_plain_file_is_refused() {
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
        assert!(error.starts_with(&format!("pidfile {}: can't open it: No such file", nowhere.display())));
    }
}
