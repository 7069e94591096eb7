//! Values derived from files, reloaded after the files have changed.
//!
//! Each access checks the files, at most once per interval. A check takes one system call for each file and
//! does not read it, so it is made in place: delegating it to another thread would cost more. While one
//! thread reads the files, the others continue with the old value. If the new files are invalid, the old
//! value stays in use and the error is logged once. The files are read again after their next change.

use crate::net::tls::error::TlsError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// Derives a value from the files.
type Make<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// A value that is derived from files.
pub(super) struct Reloaded<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    /// The minimum time between two checks.
    interval: Duration,
    state: Mutex<ReloadState<T>>,
}

struct ReloadState<T> {
    value: Arc<T>,
    stamps: Vec<Option<FileStamp>>,
    checked_at: Instant,
}

impl<T> Reloaded<T> {
    /// Loads the initial value.
    pub(super) fn new(
        files: Vec<PathBuf>,
        interval: Duration,
        now: Instant,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Stamped before reading, so that a concurrent change is noticed by the next check.
        let stamps = stamps(&files);
        let value = Arc::new(make()?);
        let state = Mutex::new(ReloadState { value, stamps, checked_at: now });
        Ok(Self { files, make: Box::new(make), interval, state })
    }

    /// The value, reloaded if a check is due and the files have changed.
    pub(super) fn current(&self, now: Instant) -> Arc<T> {
        let mut state = self.lock();
        if now.saturating_duration_since(state.checked_at) < self.interval {
            return Arc::clone(&state.value);
        }
        state.checked_at = now;
        let found = stamps(&self.files);
        if found == state.stamps {
            return Arc::clone(&state.value);
        }
        state.stamps.clone_from(&found);
        drop(state);
        let made = (self.make)();
        let mut state = self.lock();
        match made {
            // Unless another thread has found a later change in the meantime.
            Ok(value) if state.stamps == found => {
                info!(files = %self.names(), "TLS files changed; using the new ones");
                state.value = Arc::new(value);
            }
            Ok(_) => {}
            Err(error) => warn!("TLS files changed but cannot be loaded; keeping the old ones: {error}"),
        }
        Arc::clone(&state.value)
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|path| path.display().to_string()).collect();
        names.join(" ")
    }

    fn lock(&self) -> MutexGuard<'_, ReloadState<T>> {
        // Nothing panics while it is held, and a stored value is always complete.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identifies a version of a file: device and inode, size and times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    /// The change time also differs if a tool preserves the modification time.
    changed: (i64, i64),
}

impl FileStamp {
    /// `None` if the file does not exist or is not accessible.
    fn at(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok()?;
        Some(Self {
            file: (metadata.dev(), metadata.ino()),
            bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

fn stamps(files: &[PathBuf]) -> Vec<Option<FileStamp>> {
    files.iter().map(|path| FileStamp::at(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    /// The number in a file; any other content is an error.
    fn number(path: &Path) -> Result<u32, TlsError> {
        let content =
            fs::read_to_string(path).map_err(|source| TlsError::Read { path: path.to_owned(), source })?;
        content.parse().map_err(|_| TlsError::Pem { path: path.to_owned() })
    }

    struct ReloadSubject {
        _directory: tempfile::TempDir,
        path: PathBuf,
        reads: Arc<AtomicU32>,
        renewed: Reloaded<u32>,
        start: Instant,
    }

    impl ReloadSubject {
        fn new() -> Self {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join("number");
            fs::write(&path, "1").unwrap();
            let (reads, start) = (Arc::new(AtomicU32::new(0)), Instant::now());
            let make = {
                let (path, reads) = (path.clone(), Arc::clone(&reads));
                move || {
                    reads.fetch_add(1, Ordering::Relaxed);
                    number(&path)
                }
            };
            let renewed = Reloaded::new(vec![path.clone()], SECOND, start, make).unwrap();
            Self { _directory: directory, path, reads, renewed, start }
        }

        /// Replaces the file, as renewal tools do.
        fn replace(&self, content: &str) {
            let new = self.path.with_extension("new");
            fs::write(&new, content).unwrap();
            fs::rename(&new, &self.path).unwrap();
        }

        /// The value at some milliseconds after the start, and the number of loads until then.
        fn at_ms(&self, ms: u64) -> (u32, u32) {
            let value = *self.renewed.current(self.start + Duration::from_millis(ms));
            (value, self.reads.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn file_is_reloaded_only_after_change() {
        let subject = ReloadSubject::new();
        assert_eq!(subject.at_ms(5000), (1, 1));
        subject.replace("2");
        assert_eq!(subject.at_ms(6000), (2, 2));
        assert_eq!(subject.at_ms(7000), (2, 2));
    }

    #[test]
    fn file_is_not_checked_within_interval() {
        let subject = ReloadSubject::new();
        subject.replace("2");
        assert_eq!(subject.at_ms(999), (1, 1));
        assert_eq!(subject.at_ms(1000), (2, 2));
        subject.replace("3");
        assert_eq!(subject.at_ms(1999), (2, 2));
        assert_eq!(subject.at_ms(2000), (3, 3));
    }

    #[test]
    fn invalid_file_keeps_old_value_and_is_read_once() {
        let subject = ReloadSubject::new();
        subject.replace("broken");
        assert_eq!(subject.at_ms(1000), (1, 2));
        assert_eq!(subject.at_ms(2000), (1, 2));
        fs::remove_file(&subject.path).unwrap();
        assert_eq!(subject.at_ms(3000), (1, 3));
        assert_eq!(subject.at_ms(4000), (1, 3));
        fs::write(&subject.path, "2").unwrap();
        assert_eq!(subject.at_ms(5000), (2, 4));
    }

    #[test]
    fn change_of_content_alone_is_detected() {
        let subject = ReloadSubject::new();
        fs::write(&subject.path, "12").unwrap();
        assert_eq!(subject.at_ms(1000), (12, 2));
    }
}
