//! The shells whose completions can be printed.

use std::ffi::OsStr;

/// A shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    /// GNU's.
    Bash,
    /// The Z shell.
    Zsh,
    /// The friendly one.
    Fish,
}

impl Shell {
    /// What `-completions` takes, in words.
    pub(crate) const TAKES: &str = "bash, zsh or fish";
    pub(crate) const NAMES: [&str; 3] = ["bash", "zsh", "fish"];

    /// The shell of this name.
    pub(crate) fn named(name: &OsStr) -> Option<Self> {
        match name.to_str()? {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}
