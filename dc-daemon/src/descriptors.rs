//! The open descriptors of the process.

#[cfg(target_os = "linux")]
use nix::libc;
use nix::unistd;
use std::fs;
use std::io;
use std::os::fd::RawFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsFd, AsRawFd};

#[cfg(target_os = "linux")]
const OPEN_DESCRIPTORS: &str = "/proc/self/fd";
#[cfg(not(target_os = "linux"))]
const OPEN_DESCRIPTORS: &str = "/dev/fd";

/// Closes every descriptor except the standard streams and `keep`, for a process that was started or forked
/// with more descriptors than it needs. No part of the process may own a descriptor that is closed here.
///
/// # Errors
/// The open descriptors cannot be listed.
pub fn close_all_but(keep: &[RawFd]) -> io::Result<()> {
    let mut open: Vec<RawFd> = Vec::new();
    for entry in fs::read_dir(OPEN_DESCRIPTORS)? {
        open.extend(entry?.file_name().to_str().and_then(|number| number.parse::<RawFd>().ok()));
    }
    for number in open.into_iter().filter(|number| *number > 2 && !keep.contains(number)) {
        // The descriptor of the listing itself is closed already. Other errors cannot occur for an open
        // descriptor.
        unistd::close(number).ok();
    }
    Ok(())
}

/// The type of comparison for kcmp(2): `KCMP_FILE` of linux/kcmp.h.
#[cfg(target_os = "linux")]
const KCMP_FILE: libc::c_int = 0;

/// Whether two descriptors are duplicates that refer to one open file description, with shared position and
/// flags. Two independent opens of one file are not duplicates.
///
/// # Errors
/// kcmp(2) may be missing, or denied by a system call filter.
#[cfg(target_os = "linux")]
pub fn are_duplicates(one: impl AsFd, other: impl AsFd) -> io::Result<bool> {
    let number = |descriptor: RawFd| libc::c_long::from(descriptor);
    let (one, other) = (number(one.as_fd().as_raw_fd()), number(other.as_fd().as_raw_fd()));
    let own = unistd::getpid().as_raw();
    #[allow(unsafe_code, reason = "no crate in use wraps this call")]
    // SAFETY: the call takes five integers and touches no memory. Both descriptors are borrowed, so they stay
    // open during the call.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, own, own, KCMP_FILE, one, other) };
    if order < 0 { Err(io::Error::last_os_error()) } else { Ok(order == 0) }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::OwnedFd;

    #[test]
    fn duplicates_differ_from_a_second_open() {
        let path = "/proc/self/exe";
        let (first, second) = (File::open(path).unwrap(), File::open(path).unwrap());
        match are_duplicates(&first, first.try_clone().unwrap()) {
            Ok(same) => assert!(same),
            Err(error) => return crate::require::skip(&format!("kcmp(2): {error}")),
        }
        assert!(!are_duplicates(&first, &second).unwrap());
        let (reader, writer) = io::pipe().unwrap();
        let copy: OwnedFd = reader.try_clone().unwrap().into();
        assert!(are_duplicates(&reader, copy).unwrap());
        assert!(!are_duplicates(&reader, &writer).unwrap(), "they share an inode");
    }
}
