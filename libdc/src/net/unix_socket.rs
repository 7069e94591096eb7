//! Making a Unix socket at a path where a dead process may have left one.
//!
//! The order is bind, owner and group, mode, listen. Nobody can connect to a socket that does not listen, so
//! none gets in while the permissions are still those of the umask, and the umask need not be touched.
//!
//! A path that is taken is looked at: what is no socket stays; a socket that accepts a connection, or would if
//! its queue were not full, has a live process; one that refuses is a dead process's, and is replaced.
//!
//! A socket that is bound but does not listen yet refuses too, so one starter can take another that is just
//! starting for dead. Neither gets through unnoticed: what is to be replaced is first moved aside and asked
//! once more; and after starting to listen a starter looks whether its path is still its own. Whoever
//! began to listen before the second question gets the path back, whoever began after it finds it gone.

use super::address::{Address, SocketPath};
use super::listen::{self, ListenError, SocketPermissions, Step};
use crate::file::{Identity, OwnFile};
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{self, AddressFamily, UnixAddr};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, lchown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// How often a path that is taken is cleared before giving up.
const ATTEMPTS: usize = 3;

/// Listens at `path`, with `permissions` in force before the first connection.
pub(super) fn bind(
    address: &Address,
    path: &SocketPath,
    permissions: &SocketPermissions,
) -> Result<(UnixListener, OwnFile), ListenError> {
    let failed = |step, source: io::Error| ListenError::failed(address, step, source);
    let path = path.as_path();
    let socket = bind_at(address, path)?;
    let file = OwnFile::claim(path).map_err(|source| failed(Step::Inspect, source))?;
    if permissions.owner.is_some() || permissions.group.is_some() {
        lchown(path, permissions.owner, permissions.group).map_err(|source| failed(Step::Own, source))?;
    }
    if let Some(mode) = permissions.mode {
        let mode = Mode::from_bits_truncate(mode.bits() as nix::libc::mode_t);
        // Never through a symbolic link that somebody has put in its place.
        fchmodat(AT_FDCWD, path, mode, FchmodatFlags::NoFollowSymlink)
            .map_err(|error| failed(Step::Mode, error.into()))?;
    }
    listen::listen(&socket).map_err(|error| failed(Step::Listen, error.into()))?;
    if !file.is_there().map_err(|source| failed(Step::Inspect, source))? {
        return Err(ListenError::Lost { address: address.clone() });
    }
    Ok((UnixListener::from(socket), file))
}

/// A socket with the path as its address, which does not listen yet.
fn bind_at(address: &Address, path: &Path) -> Result<OwnedFd, ListenError> {
    let socket = listen::stream_socket(AddressFamily::Unix)
        .map_err(|error| ListenError::failed(address, Step::Create, error))?;
    let name = UnixAddr::new(path).map_err(|error| ListenError::failed(address, Step::Bind, error))?;
    for _ in 0..ATTEMPTS {
        match socket::bind(socket.as_raw_fd(), &name) {
            Ok(()) => return Ok(socket),
            Err(Errno::EADDRINUSE) => clear(address, path)?,
            Err(error) => return Err(ListenError::failed(address, Step::Bind, error)),
        }
    }
    Err(ListenError::Lost { address: address.clone() })
}

/// Removes the socket of a dead process from `path`.
fn clear(address: &Address, path: &Path) -> Result<(), ListenError> {
    let failed = |step, source: io::Error| ListenError::failed(address, step, source);
    let dead = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.file_type().is_socket() => Identity::of(&metadata),
        Ok(_) => return Err(ListenError::NotASocket { address: address.clone() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(Step::Inspect, error)),
    };
    match probe(path) {
        Ok(Life::Dead) => {}
        Ok(Life::Alive) => return Err(ListenError::Live { address: address.clone() }),
        Ok(Life::Gone) => return Ok(()),
        Err(error) => return Err(failed(Step::Probe, error.into())),
    }
    let aside = aside(path);
    match fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(Step::Replace, error)),
    }
    let moved = fs::symlink_metadata(&aside).map_err(|source| failed(Step::Inspect, source))?;
    // A name too long to be asked counts as dead: the first answer has to do.
    let still_dead = Identity::of(&moved) == dead
        && matches!(probe(&aside), Ok(Life::Dead | Life::Gone) | Err(Errno::ENAMETOOLONG));
    if still_dead {
        return fs::remove_file(&aside).map_err(|source| failed(Step::Replace, source));
    }
    // Not what was there a moment ago, or alive after all: back to where it was, unless that is taken again.
    match fs::hard_link(&aside, path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => fs::rename(&aside, path),
        Ok(()) | Err(_) => fs::remove_file(&aside),
    }
    .map_err(|source| failed(Step::Replace, source))?;
    Err(ListenError::Live { address: address.clone() })
}

/// A name beside `path` that no other starter uses.
fn aside(path: &Path) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    path.with_file_name(format!(".dc-{}-{}", process::id(), COUNT.fetch_add(1, Ordering::Relaxed)))
}

/// Whether a process accepts connections at `path`. Does not wait for a place in its queue.
fn probe(path: &Path) -> nix::Result<Life> {
    let name = UnixAddr::new(path)?;
    let socket = listen::stream_socket(AddressFamily::Unix)?;
    match socket::connect(socket.as_raw_fd(), &name) {
        Ok(()) | Err(Errno::EAGAIN | Errno::EINPROGRESS) => Ok(Life::Alive),
        Err(Errno::ECONNREFUSED) => Ok(Life::Dead),
        Err(Errno::ENOENT) => Ok(Life::Gone),
        Err(error) => Err(error),
    }
}

enum Life {
    Alive,
    Dead,
    Gone,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::listen::{Listener, SocketMode};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::os::unix::net::{UnixDatagram, UnixStream};

    fn bind(path: &Path, permissions: &SocketPermissions) -> Result<Listener, ListenError> {
        Listener::bind(&SocketPath::new(path).unwrap().into(), permissions)
    }

    fn bind_plainly(path: &Path) -> Result<Listener, ListenError> {
        bind(path, &SocketPermissions::default())
    }

    #[test]
    fn the_path_is_there_while_the_listener_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = bind_plainly(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn a_dead_socket_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _listener = bind_plainly(&path).unwrap();
        UnixStream::connect(&path).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_live_socket_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let live = UnixListener::bind(&path).unwrap();
        let error = bind_plainly(&path).unwrap_err();
        assert_eq!(error.to_string(), format!("UNIX:{}: a live process is listening there", path.display()));
        UnixStream::connect(&path).unwrap();
        live.accept().unwrap();
    }

    #[test]
    fn a_live_socket_with_a_full_queue_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let socket = listen::stream_socket(AddressFamily::Unix).unwrap();
        socket::bind(socket.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        socket::listen(&socket, socket::Backlog::new(0).unwrap()).unwrap();
        let _waiting = UnixStream::connect(&path).unwrap();
        assert!(matches!(bind_plainly(&path), Err(ListenError::Live { .. })));
    }

    #[test]
    fn what_is_no_socket_of_ours_stays() {
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
        assert!(matches!(bind_plainly(&datagrams), Err(ListenError::Failed { step: Step::Probe, .. })));
        assert!(datagrams.exists());

        let nowhere = directory.path().join("no/such/directory");
        assert!(matches!(bind_plainly(&nowhere), Err(ListenError::Failed { step: Step::Bind, .. })));
    }

    #[test]
    fn a_socket_put_in_place_of_ours_stays() {
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
    fn the_mode_does_not_depend_on_the_umask() {
        let directory = tempfile::tempdir().unwrap();
        for mode in [0o600, 0o660, 0o777, 0o000] {
            let path = directory.path().join("socket");
            let permissions = SocketPermissions { mode: SocketMode::new(mode), ..Default::default() };
            let _listener = bind(&path, &permissions).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, mode);
        }
    }

    #[test]
    fn owner_and_group_are_set_or_it_is_an_error() {
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
            assert!(matches!(bound, Err(ListenError::Failed { step: Step::Own, .. })));
            assert!(!path.exists());
        }
    }

    #[test]
    fn of_many_starters_one_gets_the_path() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        for _ in 0..50 {
            drop(UnixListener::bind(&path).unwrap());
            let bound: Vec<_> = std::thread::scope(|scope| {
                let starters: Vec<_> = (0..4).map(|_| scope.spawn(|| bind_plainly(&path))).collect();
                starters.into_iter().map(|starter| starter.join().unwrap()).collect()
            });
            let listeners: Vec<_> = bound.into_iter().flatten().collect();
            assert!(listeners.len() <= 1, "{} listeners at one path", listeners.len());
            if !listeners.is_empty() {
                UnixStream::connect(&path).unwrap();
            }
            drop(listeners);
            if path.exists() {
                fs::remove_file(&path).unwrap();
            }
        }
    }
}
