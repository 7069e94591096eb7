//! Descriptors that the process inherited at its start.
//!
//! Every descriptor opened by this program is close-on-exec. A close-on-exec descriptor cannot have been
//! inherited: the program itself opened it, and a second owner would be unsound. So the flag is checked
//! before a number is trusted, and claiming a descriptor makes a second claim fail. Nothing here panics.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{self, SockaddrStorage};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

/// A descriptor that was open at the start of the process, without an owner in the program.
#[derive(Debug)]
pub(crate) struct InheritedFd {
    descriptor: BorrowedFd<'static>,
    number: RawFd,
    name: Option<SockaddrStorage>,
}

impl InheritedFd {
    /// Checks that descriptor `number` was inherited.
    ///
    /// # Errors
    /// [`InheritedFdError::NotInherited`] if it was not, or was claimed before.
    pub(crate) fn find(number: RawFd) -> Result<Self, InheritedFdError> {
        let name = match socket::getsockname(number) {
            Ok(name) => Some(name),
            Err(Errno::ENOTSOCK) => None,
            Err(Errno::EBADF) => return Err(InheritedFdError::NotInherited),
            Err(error) => return Err(InheritedFdError::System(error)),
        };
        #[allow(unsafe_code, reason = "std converts a number to a descriptor only by an unsafe function")]
        // SAFETY: `getsockname` found it open, and it stays open until `claim` closes it: the check below
        // rejects every descriptor that has an owner in this process.
        let descriptor = unsafe { BorrowedFd::borrow_raw(number) };
        let flags = fcntl(descriptor, FcntlArg::F_GETFD).map_err(InheritedFdError::System)?;
        if FdFlag::from_bits_truncate(flags).contains(FdFlag::FD_CLOEXEC) {
            return Err(InheritedFdError::NotInherited);
        }
        Ok(Self { descriptor, number, name })
    }

    /// The address of a socket; `None` for other descriptors.
    pub(crate) const fn socket_name(&self) -> Option<&SockaddrStorage> {
        self.name.as_ref()
    }

    /// Claims the descriptor, close-on-exec. Its original number is closed, except for the standard streams,
    /// whose numbers must not be reused by the next opened file.
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

/// Why a descriptor cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InheritedFdError {
    /// The process was not started with it, or it was claimed before.
    #[error("no such descriptor was inherited")]
    NotInherited,
    /// Another error of the system.
    #[error("cannot take over the descriptor: {0}")]
    System(Errno),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::IntoRawFd;
    use std::os::unix::net::UnixStream;
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Locked by tests that leave descriptors open, since a number must not be reused by another test.
    static INHERITED: Mutex<()> = Mutex::new(());

    pub(crate) fn alone() -> MutexGuard<'static, ()> {
        INHERITED.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the descriptor inheritable, as a service manager does, and returns its number.
    pub(crate) fn inheritable(descriptor: impl Into<OwnedFd>) -> RawFd {
        let descriptor = descriptor.into();
        fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::empty())).unwrap();
        descriptor.into_raw_fd()
    }

    #[test]
    fn claimed_descriptor_is_cloexec_and_claimed_once() {
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
    fn inherited_file_has_no_socket_name() {
        let _alone = alone();
        let number = inheritable(tempfile::tempfile().unwrap());
        let found = InheritedFd::find(number).unwrap();
        assert!(found.socket_name().is_none());
        found.claim().unwrap();
    }
}
