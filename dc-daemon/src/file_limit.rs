//! The limit of open files, and so of connections.

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use std::io;

/// Descriptors that a program needs besides its connections: listeners, the runtime, the log, open files, and
/// short-lived ones such as the agent's next link.
const KEPT_BACK: u64 = 64;

/// Raises the soft limit of open files to the hard limit, and returns it.
///
/// # Errors
/// getrlimit(2) or setrlimit(2) fails, which needs no privileges in normal operation.
pub fn raise() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard.max(soft))
}

/// The number of connections to accept if `files_max` files may be open; at least one.
#[must_use]
pub fn connections_max(files_max: u64) -> usize {
    usize::try_from(files_max.saturating_sub(KEPT_BACK).max(1)).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_max_reserves_descriptors() {
        assert_eq!(connections_max(1024), 960);
        assert_eq!(connections_max(3), 1);
        assert_eq!(connections_max(u64::MAX), usize::MAX - 64);
    }

    #[test]
    fn raise_reaches_the_hard_limit() {
        let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).unwrap(), (hard, hard));
    }
}
