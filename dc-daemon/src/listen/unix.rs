//! Creating a Unix socket at a path where a dead process may have left one.
//!
//! The order is bind, owner and group, mode, listen. No process can connect to a socket that does not listen,
//! so none connects while the permissions are still those of the umask, and the umask need not change.
//!
//! An existing path is inspected: a file that is not a socket is kept; a socket that accepts a connection, or
//! has a full queue, belongs to a live process; a socket that refuses connections belongs to a dead process,
//! and is replaced.
//!
//! A socket that is bound but not yet listening refuses connections too, so a starting process could take
//! another starting process for dead. Therefore they take turns, with a lock on the directory. If the lock is
//! not available, a process checks after listen(2) whether the path still leads to its socket.

use super::error::{ListenError, ListenStep};
use super::permissions::SocketPermissions;
use super::stream_socket::{listen, stream_socket};
use crate::file::{DirectoryLock, FileId, OwnedFile};
use libdc::net::address::{Address, SocketPath};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{self, AddressFamily, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::Path;

/// The number of attempts to clear an existing path.
const ATTEMPTS: usize = 3;

/// Listens at `path`, with `permissions` in force before the first connection.
pub(super) fn bind(
    address: &Address,
    path: &SocketPath,
    permissions: &SocketPermissions,
) -> Result<(UnixListener, OwnedFile), ListenError> {
    let failed = |step, source: io::Error| ListenError::failed(address, step, source);
    let path = path.as_path();
    let turn = DirectoryLock::metadata_of(path);
    let socket = bind_at(address, path)?;
    let file = OwnedFile::claim(path).map_err(|source| failed(ListenStep::Inspect, source))?;
    let permitted = permit(address, path, permissions);
    match permitted.and_then(|()| listen_at(address, socket, &file)) {
        Ok(socket) => Ok((socket, file)),
        Err(error) => {
            file.discard(&turn);
            Err(error)
        }
    }
}

/// Sets owner, group and mode of the socket.
fn permit(address: &Address, path: &Path, permissions: &SocketPermissions) -> Result<(), ListenError> {
    let failed = |step, source: io::Error| ListenError::failed(address, step, source);
    if permissions.owner.is_some() || permissions.group.is_some() {
        lchown(path, permissions.owner, permissions.group)
            .map_err(|source| failed(ListenStep::Own, source))?;
    }
    if let Some(mode) = permissions.mode {
        let mode = Mode::from_bits_truncate(mode.bits() as nix::libc::mode_t);
        // Must not follow a symbolic link that replaced the socket.
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)
            .map_err(|error| failed(ListenStep::Mode, error.into()))?;
    }
    Ok(())
}

/// Creates a socket bound to the path, not yet listening.
fn bind_at(address: &Address, path: &Path) -> Result<OwnedFd, ListenError> {
    let socket = stream_socket(AddressFamily::Unix)
        .map_err(|error| ListenError::failed(address, ListenStep::Create, error))?;
    let name = UnixAddr::new(path).map_err(|error| ListenError::failed(address, ListenStep::Bind, error))?;
    for _ in 0..ATTEMPTS {
        match socket::bind(socket.as_raw_fd(), &name) {
            Ok(()) => return Ok(socket),
            Err(Errno::EADDRINUSE) => clear(address, path)?,
            Err(error) => return Err(ListenError::failed(address, ListenStep::Bind, error)),
        }
    }
    Err(ListenError::Lost { address: address.clone() })
}

/// Starts to listen, and checks that the path still leads to this socket.
fn listen_at(address: &Address, socket: OwnedFd, file: &OwnedFile) -> Result<UnixListener, ListenError> {
    listen(&socket).map_err(|error| ListenError::failed(address, ListenStep::Listen, error))?;
    match file.is_there() {
        Ok(true) => Ok(UnixListener::from(socket)),
        Ok(false) => Err(ListenError::Lost { address: address.clone() }),
        Err(source) => Err(ListenError::failed(address, ListenStep::Inspect, source)),
    }
}

/// Removes the socket of a dead process from `path`.
fn clear(address: &Address, path: &Path) -> Result<(), ListenError> {
    let failed = |step, source: io::Error| ListenError::failed(address, step, source);
    let inspect = || match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => Ok(Some(FileId::of(&metadata))),
        Ok(_) => Err(ListenError::NotASocket { address: address.clone() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(ListenStep::Inspect, error)),
    };
    let found = inspect()?;
    match probe(path) {
        Ok(SocketLiveness::Alive) => return Err(ListenError::Live { address: address.clone() }),
        Ok(SocketLiveness::Gone) => return Ok(()),
        Ok(SocketLiveness::Dead) => {}
        Err(error) => return Err(failed(ListenStep::Probe, error.into())),
    }
    // A socket other than the dead one is inspected in the next attempt.
    if found.is_none() || inspect()? != found {
        return Ok(());
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(ListenStep::Replace, error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Checks whether a process accepts connections at `path`. Does not wait for a slot in its queue.
fn probe(path: &Path) -> nix::Result<SocketLiveness> {
    let name = UnixAddr::new(path)?;
    let socket = stream_socket(AddressFamily::Unix)?;
    match socket::connect(socket.as_raw_fd(), &name) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(SocketLiveness::Alive),
        Err(Errno::ECONNREFUSED) => Ok(SocketLiveness::Dead),
        Err(Errno::ENOENT) => Ok(SocketLiveness::Gone),
        Err(error) => Err(error),
    }
}

enum SocketLiveness {
    Alive,
    Dead,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::file::tests::waits_in_vain;
    use crate::listen::{Listener, SocketMode};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixStream};
    use std::sync::Barrier;

    fn bind(path: &Path, permissions: &SocketPermissions) -> Result<Listener, ListenError> {
        Listener::bind(&SocketPath::new(path).unwrap().into(), permissions)
    }

    fn bind_plainly(path: &Path) -> Result<Listener, ListenError> {
        bind(path, &SocketPermissions::default())
    }

    /// Leaves a socket as a dead process does. A child process that another test has just forked holds a copy
    /// of it until its exec.
    fn leave_dead(path: &Path) {
        drop(UnixListener::bind(path).unwrap());
        while !matches!(probe(path), Ok(SocketLiveness::Dead)) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn socket_path_exists_while_listening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = bind_plainly(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn dead_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        leave_dead(&path);
        let _listener = bind_plainly(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn live_socket_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let live = UnixListener::bind(&path).unwrap();
        let error = bind_plainly(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("UNIX:{}: a live process is listening there", path.display()));
        UnixStream::connect(&path).unwrap();
        live.accept().unwrap();
    }

    #[test]
    fn live_socket_with_a_full_queue_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = stream_socket(AddressFamily::Unix).unwrap();
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&socket, socket::Backlog::new(0).unwrap()).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(bind_plainly(&path), Err(ListenError::Live { .. })));
    }

    #[test]
    fn path_that_is_not_a_socket_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(bind_plainly(&file), Err(ListenError::NotASocket { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");

        let link = directory.path().join("link");
        symlink(directory.path().join("nowhere"), &link).unwrap();
        assert!(matches!(bind_plainly(&link), Err(ListenError::NotASocket { .. })));
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());

        let datagrams = directory.path().join("datagrams");
        let _live = UnixDatagram::bind(&datagrams).unwrap();
        assert!(matches!(bind_plainly(&datagrams), Err(ListenError::Failed { step: ListenStep::Probe, .. })));
        assert!(datagrams.exists());

        let nowhere = directory.path().join("no/such/directory");
        assert!(matches!(bind_plainly(&nowhere), Err(ListenError::Failed { step: ListenStep::Bind, .. })));
    }

    #[test]
    fn replaced_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = bind_plainly(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop(listener);
        UnixStream::connect(&path).unwrap();
        other.accept().unwrap();
    }

    #[test]
    fn listen_detects_a_replaced_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let address = SocketPath::new(&path).unwrap().into();
        let socket = bind_at(&address, &path).unwrap();
        let file = OwnedFile::claim(&path).unwrap();
        // A socket that does not listen looks dead to a process without the lock.
        clear(&address, &path).unwrap();
        assert!(matches!(listen_at(&address, socket, &file), Err(ListenError::Lost { .. })));
    }

    #[test]
    fn socket_mode_is_independent_of_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o777, 0o000] {
            let path = directory.path().join("socket");
            let permissions = SocketPermissions { mode: SocketMode::new(mode), ..Default::default() };
            let _listener = bind(&path, &permissions).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn owner_and_group_are_set_or_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let permissions = SocketPermissions { owner: Some(7), group: Some(8), mode: None };
        let bound = bind(&path, &permissions);
        if nix::unistd::geteuid().is_root() {
            let _listener = bound.unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.uid(), metadata.gid()), (7, 8));
        } else {
            println!("not root: another owner can only be refused");
            assert!(matches!(bound, Err(ListenError::Failed { step: ListenStep::Own, .. })));
            assert!(!path.exists());
            assert!(!waits_in_vain(|| drop(bind(&path, &permissions))));
        }
    }

    #[test]
    fn concurrent_binds_leave_one_listener() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let start = Barrier::new(4);
        for _ in 0..200 {
            leave_dead(&path);
            let bound: Vec<_> = std::thread::scope(|scope| {
                let starters: Vec<_> = (0..4)
                    .map(|_| {
                        scope.spawn(|| {
                            start.wait();
                            bind_plainly(&path)
                        })
                    })
                    .collect();
                starters.into_iter().map(|starter| starter.join().unwrap()).collect()
            });
            let listeners: Vec<_> = bound.into_iter().flatten().collect();
            assert_eq!(listeners.len(), 1);
            UnixStream::connect(&path).unwrap();
            drop(listeners);
            assert!(!path.exists());
        }
    }
}
