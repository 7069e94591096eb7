//! What was made of files, made anew when they have changed.
//!
//! Whoever uses it asks for what is current, and the files are looked at then, not oftener than was said. A look is one
//! system call a file, without reading it, so it is made where it is asked for: to hand it to another thread would cost more.
//! While files are read, others go on with what there was. Files that are broken leave in service what there was, and
//! one line in the log; they are read again when they have changed again.

use crate::net::tls::error::TlsError;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tracing::{info, warn};

/// What makes a value of the files.
type Make<T> = Box<dyn Fn() -> Result<T, TlsError> + Send + Sync>;

/// A value that is made of files.
pub(super) struct Reloaded<T> {
    files: Vec<PathBuf>,
    make: Make<T>,
    /// Shortest time between two looks.
    interval: Duration,
    state: Mutex<ReloadState<T>>,
}

struct ReloadState<T> {
    value: Arc<T>,
    looks: Vec<Option<FileStamp>>,
    looked_at: Instant,
}

impl<T> Reloaded<T> {
    /// Makes the first value.
    pub(super) fn new(
        files: Vec<PathBuf>,
        interval: Duration,
        now: Instant,
        make: impl Fn() -> Result<T, TlsError> + Send + Sync + 'static,
    ) -> Result<Self, TlsError> {
        // Looked at first: what changes while it is read is seen by the next look.
        let looks = looks(&files);
        let value = Arc::new(make()?);
        let state = Mutex::new(ReloadState { value, looks, looked_at: now });
        Ok(Self { files, make: Box::new(make), interval, state })
    }

    /// The value, made anew if it is time to look and the files have changed.
    pub(super) fn current(&self, now: Instant) -> Arc<T> {
        let mut state = self.lock();
        if now.saturating_duration_since(state.looked_at) < self.interval {
            return Arc::clone(&state.value);
        }
        state.looked_at = now;
        let found = looks(&self.files);
        if found == state.looks {
            return Arc::clone(&state.value);
        }
        state.looks.clone_from(&found);
        drop(state);
        let made = (self.make)();
        let mut state = self.lock();
        match made {
            // Unless somebody has found a later change in the meantime.
            Ok(value) if state.looks == found => {
                info!(files = %self.names(), "the files of TLS have changed, and are in use");
                state.value = Arc::new(value);
            }
            Ok(_) => {}
            Err(error) => warn!("the files of TLS have changed and are not used: {error}"),
        }
        Arc::clone(&state.value)
    }

    fn names(&self) -> String {
        let names: Vec<_> = self.files.iter().map(|path| path.display().to_string()).collect();
        names.join(" ")
    }

    fn lock(&self) -> MutexGuard<'_, ReloadState<T>> {
        // Nothing panics while it is held, and a value once made is whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What shows that a file has changed: which one it is, its size and its times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FileStamp {
    file: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
    /// Also differs where a tool copies the time of the change along.
    changed: (i64, i64),
}

impl FileStamp {
    /// `None` if the file can't be looked at.
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

fn looks(files: &[PathBuf]) -> Vec<Option<FileStamp>> {
    files.iter().map(|path| FileStamp::at(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    const SECOND: Duration = Duration::from_secs(1);

    /// The content of a file, which is broken if it is not a number.
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

        /// Puts another file there, as a tool does that renews.
        fn replace(&self, content: &str) {
            let new = self.path.with_extension("new");
            fs::write(&new, content).unwrap();
            fs::rename(&new, &self.path).unwrap();
        }

        /// The value some milliseconds after the start, and how often the file was read until then.
        fn at_ms(&self, ms: u64) -> (u32, u32) {
            let value = *self.renewed.current(self.start + Duration::from_millis(ms));
            (value, self.reads.load(Ordering::Relaxed))
        }
    }

    #[test]
    fn a_file_is_read_when_it_has_changed_and_not_before() {
        let subject = ReloadSubject::new();
        assert_eq!(subject.at_ms(5000), (1, 1));
        subject.replace("2");
        assert_eq!(subject.at_ms(6000), (2, 2));
        assert_eq!(subject.at_ms(7000), (2, 2));
    }

    #[test]
    fn it_is_not_looked_at_within_a_second() {
        let subject = ReloadSubject::new();
        subject.replace("2");
        assert_eq!(subject.at_ms(999), (1, 1));
        assert_eq!(subject.at_ms(1000), (2, 2));
        subject.replace("3");
        assert_eq!(subject.at_ms(1999), (2, 2));
        assert_eq!(subject.at_ms(2000), (3, 3));
    }

    #[test]
    fn a_broken_one_leaves_the_old_in_service_and_is_read_once() {
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
    fn a_change_of_the_content_alone_is_seen() {
        let subject = ReloadSubject::new();
        fs::write(&subject.path, "12").unwrap();
        assert_eq!(subject.at_ms(1000), (12, 2));
    }
}
