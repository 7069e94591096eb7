//! Notification sockets, one for each child, named by `NOTIFY_SOCKET`.
//!
//! A socket has a path, as in systemd: not every client of `sd_notify(3)` supports abstract addresses, and
//! those end at the border of a network namespace. The paths are in a private directory of the master,
//! accessible only to the users of the children: see [`SenderAccess`]. The kernel names the sender of a
//! notification, so other processes with access are ignored. If no directory can be made (on a read-only root
//! file system, say), the address is abstract and accessible to every user.
//!
//! A master that is killed leaves its directory behind. Each live master holds a lock (flock(2)) in its
//! directory, so the next one can detect and remove abandoned directories.

use dc_daemon::fd_passing;
use dc_daemon::file::OwnedFile;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, getsockname, socket};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::geteuid;
use std::env;
use std::ffi::OsString;
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;
use tracing::debug;

/// Prefix of the directory's name.
const PREFIX: &str = "dc_master-";
/// The lock file. Removing an `OwnedFile` briefly locks the directory itself, so that lock is not usable
/// here.
const LOCK: &str = "lock";
/// Minimum age of an abandoned directory: a younger one may be about to be locked.
const AGE_MIN: Duration = Duration::from_secs(60);
/// The users that may send to the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SenderAccess {
    /// The user of the master.
    Own,
    /// The user that children are started as.
    User(u32),
    /// Any user: the children run as root and may change to any user.
    Any,
}

impl SenderAccess {
    /// The users of children that are started as `user`.
    pub(crate) fn for_user(user: Option<u32>) -> Self {
        match user {
            Some(user) => Self::User(user),
            None if geteuid().is_root() => Self::Any,
            None => Self::Own,
        }
    }

    /// Other users may traverse the directory if they need to, but never list it.
    const fn directory_mode(self) -> u32 {
        match self {
            Self::Own => 0o700,
            Self::User(_) | Self::Any => 0o711,
        }
    }

    /// Sending requires write permission.
    const fn socket_mode(self) -> Mode {
        match self {
            Self::Own | Self::User(_) => Mode::from_bits_truncate(0o600),
            Self::Any => Mode::from_bits_truncate(0o666),
        }
    }
}

/// The directory of the sockets, if one could be made. Removed when dropped.
#[derive(Debug)]
pub(crate) struct NotifyDir {
    directory: Option<(TempDir, File)>,
    senders: SenderAccess,
    opened: u64,
}

/// The socket of one child. Its path is removed on drop.
#[derive(Debug)]
pub(crate) struct NotifySocket {
    pub(crate) socket: UnixDatagram,
    /// The value of `NOTIFY_SOCKET`.
    pub(crate) address: OsString,
    /// Removes the path on drop.
    pub(crate) file: Option<OwnedFile>,
}

impl NotifyDir {
    /// Makes a directory in the first usual location that allows it.
    pub(crate) fn new(senders: SenderAccess) -> Self {
        Self::within(places(), senders)
    }

    fn within(places: impl IntoIterator<Item = PathBuf>, senders: SenderAccess) -> Self {
        let directory = places.into_iter().find_map(|place| {
            let made = make_directory(&place, senders)?;
            sweep(&place, made.0.path());
            Some(made)
        });
        if directory.is_none() {
            debug!("cannot make a directory: children notify at abstract addresses");
        }
        Self { directory, senders, opened: 0 }
    }

    /// Opens a socket for a child.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(crate) fn open(&mut self) -> io::Result<NotifySocket> {
        self.opened += 1;
        let path =
            self.directory.as_ref().map(|(directory, _)| directory.path().join(self.opened.to_string()));
        // A cleaner of temporary files may have removed the directory.
        let opened = path.map(|path| open_at(&path, self.senders)).filter(Result::is_ok);
        opened.unwrap_or_else(open_abstract)
    }
}

/// Locations for files that last as long as the service.
fn places() -> impl Iterator<Item = PathBuf> {
    let of_systemd = env::var_os("RUNTIME_DIRECTORY").map(|paths| {
        let first = paths.into_vec().split(|byte| *byte == b':').next().map(<[u8]>::to_vec);
        PathBuf::from(OsString::from_vec(first.unwrap_or_default()))
    });
    let of_user = env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let named = of_systemd.into_iter().chain([PathBuf::from("/run")]).chain(of_user);
    named.chain([env::temp_dir()]).filter(|place| place.is_absolute())
}

fn make_directory(place: &Path, senders: SenderAccess) -> Option<(TempDir, File)> {
    let lets_in = |metadata: Metadata| match senders {
        SenderAccess::User(user) => metadata.uid() == user || metadata.mode() & 0o001 != 0,
        _ => true,
    };
    if !fs::metadata(place).is_ok_and(lets_in) {
        debug!(path = %place.display(), "children cannot reach their sockets there");
        return None;
    }
    let permissions = Permissions::from_mode(senders.directory_mode());
    let directory =
        tempfile::Builder::new().prefix(PREFIX).permissions(permissions.clone()).tempdir_in(place).ok()?;
    // Independent of the umask.
    fs::set_permissions(directory.path(), permissions).ok()?;
    // A directory whose path is too long for a socket address is useless.
    UnixAddr::new(&directory.path().join(u64::MAX.to_string())).ok()?;
    let lock = File::create_new(directory.path().join(LOCK)).ok()?;
    lock.try_lock().ok()?;
    Some((directory, lock))
}

/// Removes directories of dead masters from `place`. Directories of other users are skipped.
fn sweep(place: &Path, own: &Path) {
    let entries = fs::read_dir(place).into_iter().flatten().flatten();
    let ours = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(PREFIX.as_bytes()));
    for path in ours.map(|entry| entry.path()).filter(|path| path != own) {
        if is_left_behind(&path).unwrap_or(false) {
            debug!(path = %path.display(), "left by a master that was killed");
            fs::remove_dir_all(&path).ok();
        }
    }
}

fn is_left_behind(path: &Path) -> io::Result<bool> {
    let metadata = fs::symlink_metadata(path)?;
    let is_old = metadata.modified()?.elapsed().is_ok_and(|age| age >= AGE_MIN);
    let is_own = metadata.is_dir() && metadata.uid() == geteuid().as_raw();
    Ok(is_own && is_old && File::open(path.join(LOCK))?.try_lock().is_ok())
}

fn open_at(path: &Path, senders: SenderAccess) -> io::Result<NotifySocket> {
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
    let file = OwnedFile::claim(path)?;
    if let SenderAccess::User(user) = senders {
        lchown(path, Some(user), None)?;
    }
    fchmodat(AT_FDCWD, path, senders.socket_mode(), FchmodatFlags::NoFollowSymlink)?;
    Ok(NotifySocket { socket: socket.into(), address: path.into(), file: Some(file) })
}

/// The system chooses the address.
fn open_abstract() -> io::Result<NotifySocket> {
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &UnixAddr::new_unnamed())?;
    let name: UnixAddr = getsockname(socket.as_raw_fd())?;
    let name = name.as_abstract().ok_or(Errno::EAFNOSUPPORT)?;
    let address = OsString::from_vec([b"@", name].concat());
    Ok(NotifySocket { socket: socket.into(), address, file: None })
}

fn new_socket() -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    fd_passing::receive_senders(&socket)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::SocketAddr;
    use std::time::SystemTime;

    fn is_received(receiver: &UnixDatagram, send: impl FnOnce(&UnixDatagram)) {
        send(&UnixDatagram::unbound().unwrap());
        let received = fd_passing::receive(receiver, &mut [0; 16]).unwrap();
        assert_eq!((received.bytes, received.sender.unwrap().pid), (7, std::process::id()));
    }

    #[test]
    fn each_child_has_a_path_of_its_own_while_it_lives() {
        let mut sockets = NotifyDir::new(SenderAccess::Any);
        let directory = sockets.directory.as_ref().unwrap().0.path().to_owned();
        let (first, second) = (sockets.open().unwrap(), sockets.open().unwrap());
        assert_ne!(first.address, second.address);
        assert!(Path::new(&first.address).starts_with(&directory));
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&directory), mode(first.address.as_ref())), (0o711, 0o666));
        is_received(&second.socket, |sender| {
            sender.send_to(b"READY=1", &second.address).unwrap();
        });
        drop(first);
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "the other socket, and the lock");
        drop((second, sockets));
        assert!(!directory.exists());
    }

    #[test]
    fn socket_is_unreachable_for_other_users() {
        let place = tempfile::tempdir().unwrap();
        let own = geteuid().as_raw();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        for (senders, expected) in
            [(SenderAccess::Own, (0o700, 0o600)), (SenderAccess::User(own), (0o711, 0o600))]
        {
            let mut sockets = NotifyDir::within([place.path().to_owned()], senders);
            let socket = sockets.open().unwrap();
            let path = Path::new(&socket.address);
            assert_eq!((mode(path.parent().unwrap()), mode(path)), expected, "{senders:?}");
        }
        assert_eq!(SenderAccess::for_user(Some(7)), SenderAccess::User(7));
        if !geteuid().is_root() {
            assert_eq!(SenderAccess::for_user(None), SenderAccess::Own);
            crate::require::skip("not root, which alone changes the owner of a socket");
            return;
        }
        assert_eq!(SenderAccess::for_user(None), SenderAccess::Any);
        fs::set_permissions(place.path(), Permissions::from_mode(0o700)).unwrap();
        let open =
            || NotifyDir::within([place.path().to_owned()], SenderAccess::User(65_534)).open().unwrap();
        assert!(open().file.is_none(), "the user cannot come there");
        fs::set_permissions(place.path(), Permissions::from_mode(0o711)).unwrap();
        let mut sockets = NotifyDir::within([place.path().to_owned()], SenderAccess::User(65_534));
        let socket = sockets.open().unwrap();
        assert_eq!(fs::metadata(&socket.address).unwrap().uid(), 65_534);
    }

    #[test]
    fn without_a_directory_the_address_is_abstract() {
        let mut sockets = NotifyDir { directory: None, senders: SenderAccess::Any, opened: 0 };
        let opened = sockets.open().unwrap();
        let address = opened.address.into_string().unwrap();
        let name = SocketAddr::from_abstract_name(address.strip_prefix('@').unwrap()).unwrap();
        is_received(&opened.socket, |sender| {
            sender.send_to_addr(b"READY=1", &name).unwrap();
        });

        let mut sockets = NotifyDir::new(SenderAccess::Own);
        fs::remove_dir_all(sockets.directory.as_ref().unwrap().0.path()).unwrap();
        assert!(sockets.open().unwrap().address.to_string_lossy().starts_with('@'), "it was swept away");
    }

    #[test]
    fn new_master_removes_directories_of_dead_masters_only() {
        let place = tempfile::tempdir().unwrap();
        let within = || NotifyDir::within([place.path().to_owned()], SenderAccess::Own);
        let names = || {
            let entries = fs::read_dir(place.path()).unwrap();
            let mut names: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
            names.sort();
            names
        };
        let age =
            |path: &Path| File::open(path).unwrap().set_modified(SystemTime::now() - 2 * AGE_MIN).unwrap();
        let make = |name: &str| {
            let path = place.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("1"), "").unwrap();
            fs::write(path.join(LOCK), "").unwrap();
            path
        };
        let live = within();
        let live_path = live.directory.as_ref().unwrap().0.path().to_owned();
        let (left, young, another) = (make("dc_master-left"), make("dc_master-young"), make("another"));
        [&live_path, &left, &another].into_iter().for_each(|path| age(path));

        let mut next = within();
        let mut expected =
            vec![another, young, live_path, next.directory.as_ref().unwrap().0.path().to_owned()];
        expected.sort();
        assert_eq!(names(), expected);
        next.open().unwrap();
    }
}
