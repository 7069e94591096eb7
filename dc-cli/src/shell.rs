//! The shells that have completion scripts.

use std::ffi::OsStr;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Shell {
    /// The values of `-completions`, for messages.
    pub(crate) const TAKES: &str = "bash, zsh or fish";
    pub(crate) const NAMES: [&str; 3] = ["bash", "zsh", "fish"];

    /// The shell with this name.
    pub(crate) fn named(name: &OsStr) -> Option<Self> {
        match name.to_str()? {
            "bash" => Some(Self::Bash),
            "zsh" => Some(Self::Zsh),
            "fish" => Some(Self::Fish),
            _ => None,
        }
    }
}
