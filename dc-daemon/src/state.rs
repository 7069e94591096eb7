//! The state directory: what makes fences grow from one run of the server to the next, whatever the clock says.
//!
//! Its file says up to where fences may have been given out, the ceiling. A run begins at the ceiling of the one before, or at the
//! time of day (milliseconds shifted by 20 bits) if that is greater, and first writes a new ceiling above: so many fences are
//! reserved, and no grant has to wait for the disk. So after a crash, and with a clock that went back, no fence
//! comes a second time. A file that can't be read is never replaced: whoever deletes it decides that fences begin at the time
//! of day.
//!
//! A new content is written beside the old and put in its place when it is on the disk, so a crash leaves the one or the other.
//! Beside it lies a file that is locked (flock(2)) while a server uses the directory; the lock goes with the process.
//! Nothing here panics.

mod record;

use self::record::{RunState, StateRecord, StateRecordError};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// The files of the directory: the record, the next one before it takes the first one's place, and the lock.
const RECORD: &str = "fence";
const NEXT: &str = "fence.new";
const LOCK: &str = "lock";
/// Most bytes that are read of the record, which has about 130.
const RECORD_BYTES_MAX: u64 = 4096;
/// How many fences are reserved at once: a million a second for twelve days.
const RESERVED: u64 = 1 << 40;
/// Where the time of day stands in a fence.
const TIME_SHIFT: u32 = 20;

/// A state directory in use by this process, and by no other.
#[derive(Debug)]
pub struct StateDir {
    directory: PathBuf,
    /// The directory itself, to have the names in it written to the disk.
    names: File,
    record: StateRecord,
    fence_start: u64,
    previous: PreviousRun,
    _lock: File,
}

/// How the run before ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PreviousRun {
    /// There was none.
    None,
    /// In good order.
    Clean,
    /// It was killed, or the host failed.
    Unclean {
        /// Whether it had served links, whose agents may still hold locks; or was begun when that could be.
        links: bool,
    },
}

impl StateDir {
    /// Takes the directory, which must exist, and reserves fences for this run. Blocks until that is on the disk. To be called
    /// when no process will be forked any more: a forked one would share the lock.
    ///
    /// # Errors
    /// [`StateError`] if another server uses the directory, what is in it is not good, or it can't be written.
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
        // Who may hold on to locks of the run before may still do so when this one is killed too.
        let run =
            if previous == (PreviousRun::Unclean { links: true }) { RunState::Links } else { RunState::Open };
        let record = StateRecord { ceiling, run };
        let mut state =
            Self { directory: directory.clone(), names, record, fence_start, previous, _lock: lock };
        state.write(record).map_err(|source| StateError::Write { path, source })?;
        Ok(state)
    }

    /// How the run before ended.
    #[must_use]
    pub const fn previous(&self) -> PreviousRun {
        self.previous
    }

    /// Where the fences of this run begin: above all that any run before gave out.
    #[must_use]
    pub const fn fence_start(&self) -> u64 {
        self.fence_start
    }

    /// The fence that must not be reached: from here on none is reserved.
    #[must_use]
    pub const fn ceiling(&self) -> u64 {
        self.record.ceiling
    }

    /// Whether so many fences were given out, up to `current`, that more should be reserved.
    #[must_use]
    pub const fn is_low(&self, current: u64) -> bool {
        self.record.ceiling.saturating_sub(current) < RESERVED / 2
    }

    /// Reserves more fences if less than half of them are left above `current`, the last one given out. Blocks then until
    /// that is on the disk.
    ///
    /// # Errors
    /// Those of writing. What was reserved before still is.
    pub fn extend_if_needed(&mut self, current: u64) -> io::Result<()> {
        if !self.is_low(current) {
            return Ok(());
        }
        let ceiling = self.record.ceiling.max(current).checked_add(RESERVED);
        let ceiling = ceiling.ok_or_else(|| io::Error::other("all fences are used up"))?;
        self.write(StateRecord { ceiling, ..self.record })
    }

    /// Notes that this run serves links, so that the next one knows it if this one does not end in good order. Blocks the first
    /// time until that is on the disk; afterwards it does nothing.
    ///
    /// # Errors
    /// Those of writing.
    pub fn note_links(&mut self) -> io::Result<()> {
        if self.record.run == RunState::Links {
            return Ok(());
        }
        self.write(StateRecord { run: RunState::Links, ..self.record })
    }

    /// Notes the orderly end of this run, and gives the directory free. Blocks until that is on the disk.
    ///
    /// # Errors
    /// Those of writing.
    pub fn note_clean(mut self) -> io::Result<()> {
        self.write(StateRecord { run: RunState::Clean, ..self.record })
    }

    /// Puts `record` on the disk, in the place of what was there.
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

/// The lock of the directory, for as long as the file is open.
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

/// The record at `path`, if there is one.
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

/// Why a state directory can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// It can't be opened.
    #[error("the state directory {} can't be used: {source}", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Another server uses it.
    #[error("the state directory {} is in use by another server", directory.display())]
    InUse {
        /// The directory.
        directory: PathBuf,
    },
    /// It can't be locked.
    #[error("{} can't be locked: {source}", path.display())]
    Lock {
        /// The file of the lock.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Its file can't be read.
    #[error("{} can't be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is something else in its place, or what was there has been overwritten.
    #[error("{} is not a file of dc_server's state: name another directory, or restore it, or remove it and let fences begin at the time of day", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
    },
    /// A later program wrote it.
    #[error("{} was written by a later version of dc_server", path.display())]
    Version {
        /// The file.
        path: PathBuf,
    },
    /// It was changed or cut short.
    #[error("{} is broken: restore it, or remove it and let fences begin at the time of day", path.display())]
    Broken {
        /// The file.
        path: PathBuf,
    },
    /// No fence is left: the clock was, or is, centuries ahead.
    #[error("no fences are left above those in {}: was the clock set to the far future?", path.display())]
    UsedUp {
        /// The file.
        path: PathBuf,
    },
    /// It can't be written: the disk is full, or the user may not.
    #[error("{} can't be written: {source}", path.display())]
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
    fn the_first_run_begins_at_the_time_of_day() {
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
    fn no_run_begins_below_what_another_may_have_given_out() {
        let directory = directory();
        let mut ceiling = open(&directory, NOW_MS).ceiling();
        // The clock stands still, goes back, and forward by less than was reserved.
        for unix_ms in [NOW_MS, NOW_MS - 86_400_000, 0, NOW_MS + 1000] {
            let state = open(&directory, unix_ms);
            assert_eq!(state.fence_start(), ceiling);
            ceiling = state.ceiling();
        }
        let later = NOW_MS + 86_400_000;
        assert_eq!(open(&directory, later).fence_start(), later << 20);
    }

    #[test]
    fn more_is_reserved_when_half_is_used() {
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
    fn the_next_run_knows_how_the_last_one_ended() {
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
    fn links_are_known_until_a_run_ends_in_good_order() {
        let directory = directory();
        open(&directory, NOW_MS).note_links().unwrap();
        for _ in 0..2 {
            // It is killed before the links of the run before have come back.
            let state = open(&directory, NOW_MS);
            assert_eq!(state.previous(), PreviousRun::Unclean { links: true });
        }
        open(&directory, NOW_MS).note_clean().unwrap();
        drop(open(&directory, NOW_MS));
        assert_eq!(open(&directory, NOW_MS).previous(), PreviousRun::Unclean { links: false });
    }

    #[test]
    fn links_are_noted_on_the_disk_once() {
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
    fn one_server_uses_it_at_a_time() {
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
    fn a_file_that_is_broken_or_anothers_is_named_and_stays() {
        let directory = directory();
        drop(open(&directory, NOW_MS));
        let path = directory.path().join(RECORD);
        let good = fs::read(&path).unwrap();
        for (content, says) in [
            (&good[..good.len() - 1], "is broken"),
            (b"distcache fence", "is not a file of dc_server's state"),
            (b"", "is broken"),
            (b"\0\0", "is broken"),
            (b"[server]\nname = x\n", "is not a file of dc_server's state"),
        ] {
            fs::write(&path, content).unwrap();
            let text = error(&directory).to_string();
            assert!(text.starts_with(&format!("{} {says}", path.display())), "{text}");
            assert!(
                text.ends_with("restore it, or remove it and let fences begin at the time of day"),
                "{text}"
            );
            assert_eq!(fs::read(&path).unwrap(), content);
        }
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert!(matches!(error(&directory), StateError::Foreign { .. }));
    }

    #[test]
    fn what_a_crash_left_half_written_is_replaced() {
        let directory = directory();
        let ceiling = open(&directory, NOW_MS).ceiling();
        fs::write(directory.path().join(NEXT), "distcache fen").unwrap();
        assert_eq!(open(&directory, NOW_MS).fence_start(), ceiling);
        assert!(!directory.path().join(NEXT).exists());
    }

    #[test]
    fn a_start_that_can_not_write_is_an_error_and_changes_nothing() {
        let directory = directory();
        let ceiling = open(&directory, NOW_MS).ceiling();
        let next = directory.path().join(NEXT);
        fs::create_dir(&next).unwrap();
        let text = error(&directory).to_string();
        let path = directory.path().join(RECORD);
        assert!(text.starts_with(&format!("{} can't be written: ", path.display())), "{text}");
        fs::remove_dir(&next).unwrap();
        assert_eq!(open(&directory, NOW_MS).fence_start(), ceiling);
    }

    #[test]
    fn a_write_that_fails_later_leaves_what_was_reserved() {
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
    fn a_directory_that_is_not_there_is_an_error() {
        let directory = directory();
        let absent = directory.path().join("absent");
        let text = StateDir::open(&absent).unwrap_err().to_string();
        let expected = format!("the state directory {} can't be used: No such file", absent.display());
        assert!(text.starts_with(&expected), "{text}");
    }

    #[test]
    fn a_clock_in_the_far_future_uses_up_the_fences() {
        let directory = directory();
        for unix_ms in [u64::MAX, 1 << 44, (1 << 44) - 1] {
            assert!(matches!(StateDir::open_at(directory.path(), unix_ms), Err(StateError::UsedUp { .. })));
        }
        drop(open(&directory, (1 << 44) - (1 << 20) - 1));
        assert!(matches!(error(&directory), StateError::UsedUp { .. }));
    }
}
