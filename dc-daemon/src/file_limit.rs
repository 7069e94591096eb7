//! How many files, and so connections, the process may have open.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Descriptors that a program needs besides those of its connections: listeners, its runtime, the log, the files
/// it holds, and what it opens for a moment, such as the agent's next link.
const KEPT_BACK: u64 = 64;

/// Raises the limit of open files as far as it goes without privileges, and returns it.
///
/// # Errors
/// Those of the system, which refuses nobody this in the ordinary way.
pub fn raise() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard.max(soft))
}

/// How many connections to accept where `files_max` files may be open: at least one.
#[must_use]
pub fn connections_max(files_max: u64) -> usize {
    usize::try_from(files_max.saturating_sub(KEPT_BACK).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_kept_back() {
        assert_eq!(connections_max(1024), 960);
        assert_eq!(connections_max(3), 1);
        assert_eq!(connections_max(u64::MAX), usize::MAX - 64);
    }

    #[test]
    fn the_limit_is_raised_to_the_hard_one() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
