//! A file that this process made and will remove, known by more than its path.
//!
//! By the time a daemon ends, the path of its socket or pidfile may lead to another file: somebody put one
//! there, or a second daemon replaced the first. So an [`OwnedFile`] remembers device and inode, and removes
//! the path only while it leads to that inode. On Linux it holds the inode open, which keeps the system from
//! giving the number to a new file. Between looking and removing there is a moment that no system call
//! closes, so who removes or replaces takes a turn with others that do, by a lock on the directory.
//!
//! Nothing here panics.

use std::fs::{self, File, TryLockError};
use std::io;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// How often a turn in a directory is asked for, and the pause between.
const TURN_ATTEMPTS: u32 = 500;
const TURN_PAUSE: Duration = Duration::from_millis(2);

/// A file of ours. Dropped, it is removed, and an error in that is logged; [`OwnedFile::remove`] returns the error.
#[derive(Debug)]
#[must_use = "the file is removed when this is dropped"]
pub struct OwnedFile {
    path: PathBuf,
    identity: FileId,
    /// What keeps the number of the inode from being used again.
    pin: Option<File>,
    /// Whether the removal is another's affair.
    released: bool,
}

impl OwnedFile {
    /// Takes the file at `path` for ours: the caller has just made it. `path` should be absolute.
    ///
    /// # Errors
    /// Those of opening or inspecting the file. A symbolic link is not followed.
    pub fn claim(path: &Path) -> io::Result<Self> {
        let pin = pin(path)?;
        let metadata = match &pin {
            Some(pin) => pin.metadata()?,
            None => fs::symlink_metadata(path)?,
        };
        let identity = FileId::of(&metadata);
        Ok(Self { path: path.to_owned(), identity, pin, released: false })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Which file it is.
    #[must_use]
    pub const fn identity(&self) -> FileId {
        self.identity
    }

    /// Whether the path still leads to this file.
    ///
    /// # Errors
    /// Those of inspecting the path, but not that there is nothing.
    pub fn is_there(&self) -> io::Result<bool> {
        match fs::symlink_metadata(&self.path) {
            Ok(metadata) => Ok(FileId::of(&metadata) == self.identity),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Removes the file, if the path still leads to it. Returns whether it did.
    ///
    /// # Errors
    /// Those of inspecting and removing.
    pub fn remove(mut self) -> io::Result<bool> {
        self.released = true;
        self.remove_now()
    }

    /// Leaves the file where it is: somebody else removes it.
    pub fn release(mut self) {
        self.released = true;
    }

    /// The descriptor that keeps the inode, for a process that closes all but what it needs.
    #[must_use]
    pub const fn pin(&self) -> Option<&File> {
        self.pin.as_ref()
    }

    /// Removes the file, as when it is dropped, within a turn that the caller has: who has one would wait in vain for
    /// another.
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
            tracing::warn!(path = %self.path.display(), %error, "can't remove a file of ours");
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

/// The turn of this process among those that make and remove files in a directory: flock(2) on the directory
/// itself, which leaves nothing behind. Anybody who may read the directory can take it, and keep it, so it is
/// waited for a second at most; without it, the looks at the inode have to do.
#[derive(Debug)]
pub(crate) struct DirectoryLock {
    _directory: Option<File>,
}

impl DirectoryLock {
    /// Waits for the turn in the directory of `path`.
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

/// What makes a file this one and no other, for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    /// The identity of the file with this metadata.
    #[must_use]
    pub fn of(metadata: &fs::Metadata) -> Self {
        Self { device: metadata.dev(), inode: metadata.ino() }
    }
}

/// Holds the file itself open, without a right to read or write it.
#[cfg(target_os = "linux")]
fn pin(path: &Path) -> io::Result<Option<File>> {
    use nix::fcntl::OFlag;
    use std::os::unix::fs::OpenOptionsExt;

    let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
    fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).map(Some)
}

/// No such open exists: the inode of a socket is pinned by its listener, that of a pidfile by its lock.
#[cfg(not(target_os = "linux"))]
fn pin(_path: &Path) -> io::Result<Option<File>> {
    Ok(None)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nix::sys::resource::{UsageWho, getrusage};

    /// Whether `work` waits for a turn in a directory until it gives up: then it sleeps once for each attempt.
    pub(crate) fn waits_in_vain(work: impl FnOnce()) -> bool {
        let pauses = || getrusage(UsageWho::RUSAGE_THREAD).unwrap().voluntary_context_switches();
        let before = pauses();
        work();
        pauses() - before > i64::from(TURN_ATTEMPTS / 2)
    }

    #[test]
    fn a_file_is_removed_while_it_is_ours() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        fs::write(&path, "").unwrap();
        let file = OwnedFile::claim(&path).unwrap();
        assert!(file.is_there().unwrap());
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn a_file_in_its_place_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        // Often enough for a freed inode's number to come back, were it not held.
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
    fn a_turn_excludes_others_until_it_is_over() {
        let directory = tempfile::tempdir().unwrap();
        let other = File::open(directory.path()).unwrap();
        let turn = DirectoryLock::metadata_of(&directory.path().join("file"));
        assert!(matches!(other.try_lock(), Err(TryLockError::WouldBlock)));
        drop(turn);
        other.lock().unwrap();
    }

    #[test]
    fn who_has_the_turn_removes_a_file_at_once() {
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
    fn a_released_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ours");
        fs::write(&path, "").unwrap();
        OwnedFile::claim(&path).unwrap().release();
        assert!(path.exists());
        fs::remove_file(&path).unwrap();
        assert!(!OwnedFile::claim(&path).is_ok_and(|file| file.is_there().unwrap()));
    }
}
