//! Descriptors that the process was started with.
//!
//! A descriptor that is closed when a program is started can't have been inherited: it is one of ours, and a
//! second owner of it would be a disaster. So a number is looked at for that before it is believed, and to take it makes a second
//! time fail. Nothing here panics.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{self, SockaddrStorage};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// A descriptor that was open at the start of the process, and that no part of it owns.
#[derive(Debug)]
pub(crate) struct InheritedFd {
    descriptor: BorrowedFd<'static>,
    number: RawFd,
    name: Option<SockaddrStorage>,
}

impl InheritedFd {
    /// Finds the descriptor `number`.
    ///
    /// # Errors
    /// [`InheritedFdError`].
    pub(crate) fn find(number: RawFd) -> Result<Self, InheritedFdError> {
        let name = match socket::getsockname(number) {
            Ok(name) => Some(name),
            Err(Errno::ENOTSOCK) => None,
            Err(Errno::EBADF) => return Err(InheritedFdError::NotInherited),
            Err(error) => return Err(InheritedFdError::System(error)),
        };
        #[allow(unsafe_code, reason = "a number becomes a descriptor in no other way")]
        // SAFETY: `getsockname` found it open, and it stays so until `take` closes it: the check below
        // admits no descriptor that a part of this process owns.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = fcntl(descriptor, FcntlArg::F_GETFD).map_err(InheritedFdError::System)?;
        if FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC) {
            return Err(InheritedFdError::NotInherited);
        }
        Ok(Self { descriptor, number, name })
    }

    /// The address of a socket; `None` for anything else.
    pub(crate) const fn socket_name(&self) -> Option<&SockaddrStorage> {
        self.name.as_ref()
    }

    /// Takes the descriptor over, close-on-exec. Its number is closed, but for those of the standard streams: they must not go
    /// to the next file that is opened.
    ///
    /// # Errors
    /// [`InheritedFdError::System`].
    pub(crate) fn claim(self) -> Result<OwnedFd, InheritedFdError> {
        let system = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
        let owned = self.descriptor.try_clone_to_owned();
        let owned = owned.map_err(|error| InheritedFdError::System(system(error)))?;
        if self.number > 2 {
            nix::unistd::close(self.number).map_err(InheritedFdError::System)?;
        }
        Ok(owned)
    }
}

impl AsFd for InheritedFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor
    }
}

/// Why a descriptor is not taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InheritedFdError {
    /// It is not one that the process was started with, or it has been taken over before.
    #[error("no such descriptor was inherited")]
    NotInherited,
    /// The system refuses.
    #[error("can't take over the descriptor: {0}")]
    System(Errno),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Held by a test that leaves descriptors open: the number of one must not come up in another.
    static INHERITED: Mutex<()> = Mutex::new(());

    pub(crate) fn alone() -> MutexGuard<'static, ()> {
        INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the descriptor to be inherited, as a supervisor would, and returns its number.
    pub(crate) fn inheritable(descriptor: impl Into<OwnedFd>) -> RawFd {
        let descriptor = descriptor.into();
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        descriptor.into_raw_fd()
    }

    #[test]
    fn what_is_taken_over_is_close_on_exec_and_taken_once() {
        let _alone = alone();
        let (near, mut far) = UnixStream::pair().unwrap();
        let number = inheritable(near);
        let found = InheritedFd::find(number).unwrap();
        assert!(found.socket_name().is_some());
        let taken = found.claim().unwrap();
        let flags = fcntl(&taken, FcntlArg::F_GETFD).unwrap();
        assert!(FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC));
        std::fs::File::from(taken).write_all(b"x").unwrap();
        assert_eq!(InheritedFd::find(number).unwrap_err(), InheritedFdError::NotInherited);
        // Both numbers of it are closed.
        assert_eq!(far.read(&mut [0; 2]).unwrap(), 1);
        assert_eq!(far.read(&mut [0; 2]).unwrap(), 0);
    }

    #[test]
    fn a_file_is_no_socket() {
        let _alone = alone();
        let number = inheritable(tempfile::tempfile().unwrap());
        let found = InheritedFd::find(number).unwrap();
        assert!(found.socket_name().is_none());
        found.claim().unwrap();
    }
}
