//! The state directory: it makes fencing tokens (fences) increase from one run of the server to the next,
//! independent of the clock.
//!
//! Its file holds the ceiling: the upper bound of all fences that may have been granted. A run starts at the
//! ceiling of the previous run, or at the time of day (milliseconds shifted by 20 bits) if that is greater,
//! and first writes a higher ceiling. This reserves fences, so that no grant waits for the disk. So no fence
//! is granted twice, not after a crash and not with a clock that was set back. An unreadable file is never
//! replaced: an operator who deletes it accepts that fences restart from the time of day.
//!
//! New content is written to a second file, which replaces the first one once it is on the disk; a crash
//! leaves one or the other. A lock file beside it is locked (flock(2)) while a server uses the directory; the
//! lock ends with the process. Nothing here panics.

mod record;

use self::record::{RunState, StateRecord, StateRecordError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The files of the directory: the record, the next record before it replaces the first one, and the lock
/// file.
const RECORD: &str = "fence";
const NEXT: &str = "fence.new";
const LOCK: &str = "lock";
/// The maximum number of bytes read from the record, which has about 130.
const RECORD_BYTES_MAX: u64 = 4096;
/// The number of fences reserved at once: a million per second for twelve days.
const RESERVED: u64 = 1 << 40;
/// The bit position of the time of day in a fence.
const TIME_SHIFT: u32 = 20;

/// A state directory in use by this process, and by no other.
#[derive(Debug)]
pub struct StateDir {
    directory: PathBuf,
    /// The directory itself, opened to sync its entries to the disk.
    names: File,
    record: StateRecord,
    fence_start: u64,
    previous: PreviousRun,
    _lock: File,
}

/// How the previous run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousRun {
    /// There was no previous run.
    None,
    /// The previous run ended gracefully.
    Clean,
    /// The previous run was killed, or the host failed.
    Unclean {
        /// Whether agents of that run may still hold locks: it had served links, or was started while agents
        /// of an earlier run could still hold some.
        links: bool,
    },
}

impl StateDir {
    /// Locks the directory, which must exist, and reserves fences for this run. Blocks until the record is on
    /// the disk. Must be called after the last fork: a forked process would share the lock.
    ///
    /// # Errors
    /// [`StateError`] if another server uses the directory, its content is invalid, or it cannot be written.
    pub fn open(directory: &Path) -> Result<Self, StateError> {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::open_at(directory, u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn open_at(directory: &Path, unix_ms: u64) -> Result<Self, StateError> {
        let failed = |source| StateError::Directory { path: directory.to_owned(), source };
        let directory = &std::path::absolute(directory).map_err(failed)?;
        let names = File::open(directory).map_err(failed)?;
        let lock = lock(directory)?;
        let path = directory.join(RECORD);
        let found = read(&path)?;
        let previous = match found.map(|record| record.run) {
            None => PreviousRun::None,
            Some(RunState::Clean) => PreviousRun::Clean,
            Some(RunState::Open) => PreviousRun::Unclean { links: false },
            Some(RunState::Links) => PreviousRun::Unclean { links: true },
        };
        let of_clock = unix_ms.checked_mul(1 << TIME_SHIFT);
        let fence_start = of_clock.map(|clock| found.map_or(clock, |record| record.ceiling.max(clock)));
        let reserved = fence_start.and_then(|start| Some((start, start.checked_add(RESERVED)?)));
        let Some((fence_start, ceiling)) = reserved else {
            return Err(StateError::UsedUp { path });
        };
        // Agents that may hold locks of the previous run may still hold them if this run is killed too.
        let run =
            if previous == (PreviousRun::Unclean { links: true }) { RunState::Links } else { RunState::Open };
        let record = StateRecord { ceiling, run };
        let mut state =
            Self { directory: directory.clone(), names, record, fence_start, previous, _lock: lock };
        state.write(record).map_err(|source| StateError::Write { path, source })?;
        Ok(state)
    }

    /// How the previous run ended.
    #[must_use]
    pub const fn previous(&self) -> PreviousRun {
        self.previous
    }

    /// The first fence of this run: above all fences that any previous run granted.
    #[must_use]
    pub const fn fence_start(&self) -> u64 {
        self.fence_start
    }

    /// The exclusive upper bound of the reserved fences.
    #[must_use]
    pub const fn ceiling(&self) -> u64 {
        self.record.ceiling
    }

    /// Whether more fences should be reserved, given that those up to `current` were granted.
    #[must_use]
    pub const fn is_low(&self, current: u64) -> bool {
        self.record.ceiling.saturating_sub(current) < RESERVED / 2
    }

    /// Reserves more fences if less than half of them are left above `current`, the last granted one. Blocks
    /// then until the record is on the disk.
    ///
    /// # Errors
    /// Writing fails. The fences reserved before stay reserved.
    pub fn extend_if_needed(&mut self, current: u64) -> io::Result<()> {
        if !self.is_low(current) {
            return Ok(());
        }
        let ceiling = self.record.ceiling.max(current).checked_add(RESERVED);
        let ceiling = ceiling.ok_or_else(|| io::Error::other("all fences are used up"))?;
        self.write(StateRecord { ceiling, ..self.record })
    }

    /// Records that this run serves links, so that the next run can take it into account after a crash. The
    /// first call blocks until the record is on the disk; later calls do nothing.
    ///
    /// # Errors
    /// Writing the record fails.
    /// Those of writing.
    pub fn note_links(&mut self) -> io::Result<()> {
        if self.record.run == RunState::Links {
            return Ok(());
        }
        self.write(StateRecord { run: RunState::Links, ..self.record })
    }

    /// Records the graceful end of this run, and unlocks the directory. Blocks until the record is on the
    /// disk.
    ///
    /// # Errors
    /// Writing the record fails.
    pub fn note_clean(mut self) -> io::Result<()> {
        self.write(StateRecord { run: RunState::Clean, ..self.record })
    }

    /// Replaces the record on the disk with `record`.
    fn write(&mut self, record: StateRecord) -> io::Result<()> {
        let next = self.directory.join(NEXT);
        match fs::remove_file(&next) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&next)?;
        file.write_all(record.to_text().as_bytes())?;
        file.sync_all()?;
        fs::rename(&next, self.directory.join(RECORD))?;
        self.names.sync_all()?;
        self.record = record;
        Ok(())
    }
}

/// Locks the directory, for as long as the returned file is open.
fn lock(directory: &Path) -> Result<File, StateError> {
    let path = directory.join(LOCK);
    let failed = |path, source| StateError::Lock { path, source };
    let opened = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
    let file = opened.map_err(|source| failed(path.clone(), source))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateError::InUse { directory: directory.to_owned() }),
        Err(TryLockError::Error(source)) => Err(failed(path, source)),
    }
}

/// Reads the record at `path`, if it exists.
fn read(path: &Path) -> Result<Option<StateRecord>, StateError> {
    let unreadable = |source| StateError::Read { path: path.to_owned(), source };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unreadable(error)),
        Ok(metadata) if !metadata.is_file() => return Err(StateError::Foreign { path: path.to_owned() }),
        Ok(_) => {}
    }
    let mut text = Vec::new();
    File::open(path)
        .and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut text))
        .map_err(unreadable)?;
    StateRecord::parse(&text).map(Some).map_err(|bad| match bad {
        StateRecordError::Foreign => StateError::Foreign { path: path.to_owned() },
        StateRecordError::Version => StateError::Version { path: path.to_owned() },
        StateRecordError::Broken => StateError::Broken { path: path.to_owned() },
    })
}

/// Why a state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The directory cannot be opened.
    #[error("cannot use the state directory {}: {source}", path.display())]
    Directory {
        /// The path of the directory.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another server uses the directory.
    #[error("the state directory {} is in use by another server", directory.display())]
    InUse {
        /// The path of the directory.
        directory: PathBuf,
    },
    /// The lock file cannot be locked.
    #[error("cannot lock {}: {source}", path.display())]
    Lock {
        /// The path of the lock file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The record cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The path of the record.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// The record is not a state file, or has been overwritten.
    #[error("{} is not a dc_server state file: use another directory, restore it, or remove it to restart fences from the time of day", path.display())]
    Foreign {
        /// The path of the record.
        path: PathBuf,
    },
    /// The record was written by a later version.
    #[error("{} was written by a later version of dc_server", path.display())]
    Version {
        /// The path of the record.
        path: PathBuf,
    },
    /// The record was changed or truncated.
    #[error("{} is corrupt: restore it, or remove it to restart fences from the time of day", path.display())]
    Broken {
        /// The path of the record.
        path: PathBuf,
    },
    /// No fence is left: the clock was, or is, centuries ahead.
    #[error("no fences are left above those in {}: was the clock set to the far future?", path.display())]
    UsedUp {
        /// The path of the record.
        path: PathBuf,
    },
    /// The record cannot be written, for example on a full disk or without permission.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The path of the record.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    /// Some time in 2026.
    const NOW_MS: u64 = 1_790_000_000_000;

    fn directory() -> TempDir {
        tempfile::tempdir().unwrap()
    }

    fn open(directory: &TempDir, unix_ms: u64) -> StateDir {
        StateDir::open_at(directory.path(), unix_ms).unwrap()
    }

    fn error(directory: &TempDir) -> StateError {
        StateDir::open_at(directory.path(), NOW_MS).unwrap_err()
    }

    #[test]
    fn first_run_starts_at_the_time_of_day() {
        let directory = directory();
        let state = open(&directory, NOW_MS);
        assert_eq!((state.fence_start(), state.previous()), (NOW_MS << 20, PreviousRun::None));
        assert_eq!(state.ceiling(), (NOW_MS << 20) + (1 << 40));
        for name in [RECORD, LOCK] {
            let mode = fs::metadata(directory.path().join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn fences_of_a_run_start_above_the_previous_ceiling() {
        let directory = directory();
        let mut ceiling = open(&directory, NOW_MS).ceiling();
        // The clock stands still, goes back, or advances by less than was reserved.
        for unix_ms in [NOW_MS, NOW_MS - 86_400_000, 0, NOW_MS + 1000] {
            let state = open(&directory, unix_ms);
            assert_eq!(state.fence_start(), ceiling);
            ceiling = state.ceiling();
        }
        let later = NOW_MS + 86_400_000;
        assert_eq!(open(&directory, later).fence_start(), later << 20);
    }

    #[test]
    fn fences_are_reserved_when_half_are_used() {
        let directory = directory();
        let mut state = open(&directory, NOW_MS);
        let (start, first) = (state.fence_start(), state.ceiling());
        state.extend_if_needed(start + (1 << 39)).unwrap();
        assert_eq!(state.ceiling(), first);
        state.extend_if_needed(start + (1 << 39) + 1).unwrap();
        assert_eq!(state.ceiling(), first + (1 << 40));
        assert_eq!(state.fence_start(), start);
        let current = state.ceiling() + 7;
        state.extend_if_needed(current).unwrap();
        drop(state);
        assert_eq!(open(&directory, NOW_MS).fence_start(), current + (1 << 40));
    }

    #[test]
    fn previous_run_is_read_from_the_record() {
        let directory = directory();
        drop(open(&directory, NOW_MS));
        let mut state = open(&directory, NOW_MS);
        assert_eq!(state.previous(), PreviousRun::Unclean { links: false });
        state.note_links().unwrap();
        state.note_links().unwrap();
        state.extend_if_needed(state.ceiling()).unwrap();
        drop(state);
        let mut state = open(&directory, NOW_MS);
        assert_eq!(state.previous(), PreviousRun::Unclean { links: true });
        state.note_links().unwrap();
        let ceiling = state.ceiling();
        state.note_clean().unwrap();
        let state = open(&directory, NOW_MS);
        assert_eq!((state.previous(), state.fence_start()), (PreviousRun::Clean, ceiling));
    }

    #[test]
    fn links_are_recorded_until_a_clean_end() {
        let directory = directory();
        open(&directory, NOW_MS).note_links().unwrap();
        for _ in 0..2 {
            // It is killed before the agents of the previous run have reconnected.
            let state = open(&directory, NOW_MS);
            assert_eq!(state.previous(), PreviousRun::Unclean { links: true });
        }
        open(&directory, NOW_MS).note_clean().unwrap();
        drop(open(&directory, NOW_MS));
        assert_eq!(open(&directory, NOW_MS).previous(), PreviousRun::Unclean { links: false });
    }

    #[test]
    fn links_are_written_to_disk_once() {
        let directory = directory();
        let mut state = open(&directory, NOW_MS);
        state.note_links().unwrap();
        let inode =
            |name| std::os::unix::fs::MetadataExt::ino(&fs::metadata(directory.path().join(name)).unwrap());
        let before = inode(RECORD);
        state.note_links().unwrap();
        assert_eq!(inode(RECORD), before);
    }

    #[test]
    fn state_directory_is_locked_by_one_server() {
        let directory = directory();
        let state = open(&directory, NOW_MS);
        let before = fs::read(directory.path().join(RECORD)).unwrap();
        let text = error(&directory).to_string();
        assert_eq!(
            text,
            format!("the state directory {} is in use by another server", directory.path().display())
        );
        assert_eq!(fs::read(directory.path().join(RECORD)).unwrap(), before);
        drop(state);
        open(&directory, NOW_MS);
    }

    #[test]
    fn invalid_record_is_named_and_kept() {
        let directory = directory();
        drop(open(&directory, NOW_MS));
        let path = directory.path().join(RECORD);
        let good = fs::read(&path).unwrap();
        for (content, says) in [
            (&good[..good.len() - 1], "is corrupt"),
            (b"distcache fence", "is not a dc_server state file"),
            (b"", "is corrupt"),
            (b"\0\0", "is corrupt"),
            (b"[server]\nname = x\n", "is not a dc_server state file"),
        ] {
            fs::write(&path, content).unwrap();
            let text = error(&directory).to_string();
            assert!(text.starts_with(&format!("{} {says}", path.display())), "{text}");
            assert!(
                text.ends_with("restore it, or remove it to restart fences from the time of day"),
                "{text}"
            );
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(error(&directory), StateError::Foreign { .. }));
    }

    #[test]
    fn partial_next_record_is_replaced() {
        let directory = directory();
        let ceiling = open(&directory, NOW_MS).ceiling();
        fs::write(directory.path().join(NEXT), "distcache fen").unwrap();
        assert_eq!(open(&directory, NOW_MS).fence_start(), ceiling);
        assert!(!directory.path().join(NEXT).exists());
    }

    #[test]
    fn failed_first_write_keeps_the_record() {
        let directory = directory();
        let ceiling = open(&directory, NOW_MS).ceiling();
        let next = directory.path().join(NEXT);
        fs::create_dir(&next).unwrap();
        let text = error(&directory).to_string();
        let path = directory.path().join(RECORD);
        assert!(text.starts_with(&format!("cannot write {}: ", path.display())), "{text}");
        fs::remove_dir(&next).unwrap();
        assert_eq!(open(&directory, NOW_MS).fence_start(), ceiling);
    }

    #[test]
    fn failed_later_write_keeps_reserved_fences() {
        let directory = directory();
        let mut state = open(&directory, NOW_MS);
        let ceiling = state.ceiling();
        fs::create_dir(directory.path().join(NEXT)).unwrap();
        assert!(state.extend_if_needed(ceiling - 1).is_err());
        assert_eq!(state.ceiling(), ceiling);
        fs::remove_dir(directory.path().join(NEXT)).unwrap();
        state.extend_if_needed(ceiling - 1).unwrap();
        assert_eq!(state.ceiling(), ceiling + (1 << 40));
    }

    #[test]
    fn missing_directory_is_an_error() {
        let directory = directory();
        let absent = directory.path().join("absent");
        let text = StateDir::open(&absent).unwrap_err().to_string();
        let expected = format!("cannot use the state directory {}: No such file", absent.display());
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn far_future_clock_exhausts_fences() {
        let directory = directory();
        for unix_ms in [u64::MAX, 1 << 44, (1 << 44) - 1] {
            assert!(matches!(StateDir::open_at(directory.path(), unix_ms), Err(StateError::UsedUp { .. })));
        }
        drop(open(&directory, (1 << 44) - (1 << 20) - 1));
        assert!(matches!(error(&directory), StateError::UsedUp { .. }));
    }
}
