//! A directory for the files of one test.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A temporary directory, removed when dropped.
#[derive(Debug)]
pub struct TestDir {
    directory: TempDir,
}

impl TestDir {
    /// Creates an empty directory with the mode of `/tmp`: other users may create files in it and delete only
    /// theirs.
    #[must_use]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("dc-").tempdir().expect("a temporary directory");
        let mode = fs::Permissions::from_mode(0o1777);
        fs::set_permissions(directory.path(), mode).expect("to set the directory's mode");
        Self { directory }
    }

    /// The path of `name` in it.
    #[must_use]
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// The path of the directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// The names of its entries, sorted.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.path()).expect("a directory of ours");
        let name = |entry: fs::DirEntry| entry.file_name().to_string_lossy().into_owned();
        let mut names: Vec<String> =
            entries.map(|entry| name(entry.expect("an entry of the directory"))).collect();
        names.sort_unstable();
        names
    }
}

impl Default for TestDir {
    fn default() -> Self {
        Self::new()
    }
}
