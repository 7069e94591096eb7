//! A file that this process created and will remove, identified by more than its path.
//!
//! When a daemon exits, the path of its socket or pidfile may lead to another file, for example that of a
//! second daemon that replaced the first. So an [`OwnedFile`] stores device and inode, and removes the path
//! only while it leads to that inode. On Linux it holds the inode open, which keeps the system from reusing
//! the number. No system call makes the check and the removal atomic, so processes that remove or replace
//! files exclude each other with a lock on the directory.
//!
//! Nothing here panics.

use std::fs::{self, File, TryLockError};
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// The number of attempts to lock a directory, and the pause between them.
const TURN_ATTEMPTS: u32 = 500;
const TURN_PAUSE: Duration = Duration::from_millis(2);

/// A file of this process. When it is dropped, the file is removed, and an error is logged;
/// [`OwnedFile::remove`] returns the error.
#[derive(Debug)]
#[must_use = "the file is removed when this is dropped"]
pub struct OwnedFile {
    path: PathBuf,
    identity: FileId,
    /// Keeps the inode number from being reused.
    pin: Option<File>,
    /// Whether another owner removes the file.
    released: bool,
}

impl OwnedFile {
    /// Takes ownership of the file at `path`, which the caller has just created. `path` should be absolute.
    ///
    /// # Errors
    /// Opening or inspecting the file fails. A symbolic link is not followed.
    pub fn claim(path: &Path) -> io::Result<Self> {
        let pin = pin(path)?;
        let metadata = match &pin {
            Some(pin) => pin.metadata()?,
            None => fs::symlink_metadata(path)?,
        };
        let identity = FileId::of(&metadata);
        Ok(Self { path: path.to_owned(), identity, pin, released: false })
    }

    /// The path of the file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Device and inode of the file.
    #[must_use]
    pub const fn identity(&self) -> FileId {
        self.identity
    }

    /// Whether the path still leads to this file.
    ///
    /// # Errors
    /// Inspecting the path fails. A missing file is not an error.
    pub fn is_there(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => Ok(FileId::of(&metadata) == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the file if the path still leads to it. Returns whether it was removed.
    ///
    /// # Errors
    /// Inspecting or removing the file fails.
    pub fn remove(mut self) -> io::Result<bool> {
        self.released = true;
        self.remove_now()
    }

    /// Gives up ownership: the file stays for another owner to remove.
    pub fn release(mut self) {
        self.released = true;
    }

    /// The descriptor that keeps the inode, for a process that closes all other descriptors.
    #[must_use]
    pub const fn pin(&self) -> Option<&File> {
        self.pin.as_ref()
    }

    /// Removes the file as on drop, while the caller holds the lock of the directory. Taking the lock again
    /// would time out.
    pub(crate) fn discard(mut self, _turn: &DirectoryLock) {
        self.released = true;
        self.log_failure(self.remove_in_turn());
    }

    fn remove_now(&self) -> io::Result<bool> {
        let _turn = DirectoryLock::metadata_of(&self.path);
        self.remove_in_turn()
    }

    fn remove_in_turn(&self) -> io::Result<bool> {
        if !self.is_there()? {
            return Ok(false);
        }
        match fs::remove_file(&self.path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn log_failure(&self, removed: io::Result<bool>) {
        if let Err(error) = removed {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove a file of this process");
        }
    }
}

impl Drop for OwnedFile {
    fn drop(&mut self) {
        if mem::replace(&mut self.released, true) {
            return;
        }
        self.log_failure(self.remove_now());
    }
}

/// A lock that serialises processes that create and remove files in a directory: flock(2) on the directory
/// itself, which leaves no file behind. Any process that can read the directory can take and keep it, so
/// waiting is limited to one second; without the lock, the inode checks alone protect the files.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _directory: Option<File>,
}

impl DirectoryLock {
    /// Waits for the lock of the directory of `path`.
    pub(crate) fn metadata_of(path: &Path) -> Self {
        let directory = path.parent().and_then(|directory| File::open(directory).ok());
        Self { _directory: directory.filter(Self::is_locked) }
    }

    fn is_locked(directory: &File) -> bool {
        for _ in 0..TURN_ATTEMPTS {
            match directory.try_lock() {
                Ok(()) => return true,
                Err(TryLockError::WouldBlock) => thread::sleep(TURN_PAUSE),
                Err(TryLockError::Error(_)) => return false,
            }
        }
        false
    }
}

/// Device and inode: unique to a file for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The id of the file with this metadata.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Opens the file with `O_PATH`, without permission to read or write it.
#[cfg(target_os = "linux")]
fn pin(path: &Path) -> io::Result<Option<File>> {
    use nix::fcntl::OFlag;
    use std::os::unix::fs::OpenOptionsExt;

    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map(Some)
}

/// Other systems have no `O_PATH`: the inode of a socket is pinned by its listener, that of a pidfile by its
/// lock.
#[cfg(not(target_os = "linux"))]
fn pin(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};

    /// Whether `work` waits for the lock of a directory until it gives up: it then sleeps once for each
    /// attempt.
    pub(crate) fn waits_in_vain(work: impl FnOnce()) -> bool {
        let pauses = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches();
        let before = pauses();
        work();
        pauses() - before > i64::from(TURN_ATTEMPTS / 2)
    }

    #[test]
    fn owned_file_is_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        fs::write(&path, "").unwrap();
        let file = OwnedFile::claim(&path).unwrap();
        assert!(file.is_there().unwrap());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn replaced_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        // Often enough for a freed inode number to be reused, if it were not pinned.
        for _ in 0..64 {
            fs::write(&path, "").unwrap();
            let file = OwnedFile::claim(&path).unwrap();
            fs::remove_file(&path).unwrap();
            assert!(!file.is_there().unwrap());
            fs::write(&path, "another's").unwrap();
            assert!(!file.is_there().unwrap());
            assert!(!file.remove().unwrap());
            assert_eq!(fs::read_to_string(&path).unwrap(), "another's");
        }
    }

    #[test]
    fn directory_lock_excludes_others_until_dropped() {
        let directory = tempfile::tempdir().unwrap();
        let other = File::open(directory.path()).unwrap();
        let turn = DirectoryLock::metadata_of(&directory.path().join("file"));
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(turn);
        other.lock().unwrap();
    }

    #[test]
    fn discard_under_the_directory_lock_does_not_wait() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        let turn = DirectoryLock::metadata_of(&path);
        for (discarded, waits) in [(true, false), (false, true)] {
            fs::write(&path, "").unwrap();
            let file = OwnedFile::claim(&path).unwrap();
            assert_eq!(waits_in_vain(|| if discarded { file.discard(&turn) } else { drop(file) }), waits);
            assert!(!path.exists());
        }
    }

    #[test]
    fn released_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        fs::write(&path, "").unwrap();
        OwnedFile::claim(&path).unwrap().release();
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        assert!(!OwnedFile::claim(&path).is_ok_and(|file| file.is_there().unwrap()));
    }
}
