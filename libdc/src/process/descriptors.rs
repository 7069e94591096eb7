//! The descriptors that a process has open.

use nix::unistd;
use std::fs;
use std::io;
use std::os::fd::RawFd;

#[cfg(target_os = "linux")]
const OPEN_DESCRIPTORS: &str = "/proc/self/fd";
#[cfg(not(target_os = "linux"))]
const OPEN_DESCRIPTORS: &str = "/dev/fd";

/// Closes every descriptor but the standard ones and `keep`: for a process that was started or forked with more
/// than it is to have. No part of the process may own one of those that are closed.
///
/// # Errors
/// If the system does not say which are open.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut open: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir(OPEN_DESCRIPTORS)? {
        open.extend(entry?.file_name().to_str().and_then(|number| number.parse::<RawFd>().ok()));
    }
    for number in open.into_iter().filter(|number| *number > 2 && !keep.contains(number)) {
        // The one that the listing itself had is closed already; nothing else can be wrong with it.
        unistd::close(number).ok();
    }
    Ok(())
}
