//! File descriptors that children store in the master for their successors (`FDSTORE=1` in `sd_notify(3)`).
//!
//! The rules are systemd's: a descriptor has the name `FDNAME`, or `stored`; a descriptor whose peer has
//! closed is dropped unless it was stored with `FDPOLL=0`; a duplicate under the same name is stored once.
//! Unlike systemd, the store checks for closed peers only when the next child starts or when the store is
//! full.

use dc_daemon::descriptors::are_duplicates;
use dc_daemon::notify::is_stored_name;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::{AsFd, OwnedFd};
use tracing::{info, warn};

/// Maximum number of stored descriptors.
pub(crate) const STORED_MAX: usize = 256;
/// Name of descriptors that were stored without one.
const NAME_DEFAULT: &str = "stored";

/// The stored descriptors, in the order in which they arrived.
#[derive(Debug, Default)]
pub(crate) struct FdStore {
    stored: Vec<StoredFd>,
}

#[derive(Debug)]
pub(crate) struct StoredFd {
    pub(crate) name: String,
    pub(crate) descriptor: OwnedFd,
    polled: bool,
    inode: Option<Inode>,
}

/// Identity of the open file behind a descriptor. Duplicates share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Inode {
    device: u64,
    number: u64,
    /// Whether the inode identifies the open file.
    is_unique: bool,
}

impl FdStore {
    /// Stores the descriptors that `child` sent. Those beyond the limit are closed.
    pub(crate) fn keep(&mut self, child: i32, name: Option<String>, descriptors: Vec<OwnedFd>, polled: bool) {
        let named = name.filter(|name| {
            let is_good = is_stored_name(name);
            if !is_good {
                warn!(child, "invalid FDNAME ignored");
            }
            is_good
        });
        let name = named.unwrap_or_else(|| NAME_DEFAULT.to_owned());
        if self.stored.len() + descriptors.len() > STORED_MAX {
            self.prune();
        }
        let mut refused = 0_usize;
        for descriptor in descriptors {
            let new = StoredFd { name: name.clone(), inode: inode(&descriptor), descriptor, polled };
            if self.stored.iter().any(|stored| stored.is_duplicate(&new)) {
                continue;
            }
            if self.stored.len() >= STORED_MAX {
                refused += 1;
                continue;
            }
            info!(child, name, "stored a descriptor");
            self.stored.push(new);
        }
        if refused > 0 {
            let limit = STORED_MAX;
            warn!(child, name, refused, limit, "descriptors were not stored: there are too many");
        }
    }

    /// Removes all descriptors with this name.
    pub(crate) fn remove(&mut self, child: i32, name: Option<&str>) {
        let before = self.stored.len();
        self.stored.retain(|stored| Some(stored.name.as_str()) != name);
        info!(child, name, removed = before - self.stored.len(), "removed stored descriptors");
    }

    /// Drops descriptors with closed peers and returns the rest, for the next child.
    pub(crate) fn live(&mut self) -> &[StoredFd] {
        self.prune();
        &self.stored
    }

    fn prune(&mut self) {
        self.stored.retain(|stored| !stored.polled || !has_gone(&stored.descriptor));
    }
}

impl StoredFd {
    /// Whether `new` is a duplicate of this one, under the same name.
    fn is_duplicate(&self, new: &Self) -> bool {
        let Some(inode) = self.inode.filter(|inode| self.name == new.name && Some(*inode) == new.inode)
        else {
            return false;
        };
        // If the system cannot compare open files, equal unique inodes count as duplicates.
        are_duplicates(&self.descriptor, &new.descriptor).unwrap_or(inode.is_unique)
    }
}

fn inode(descriptor: &OwnedFd) -> Option<Inode> {
    let stat = fstat(descriptor).ok()?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    // A file with a name may be open several times, each with its own position.
    let is_unique = kind == SFlag::S_IFSOCK || kind == SFlag::S_IFREG && stat.st_nlink == 0;
    Some(Inode { device: stat.st_dev, number: stat.st_ino, is_unique })
}

fn has_gone(descriptor: &OwnedFd) -> bool {
    let mut fds = [PollFd::new(descriptor.as_fd(), PollFlags::empty())];
    let gone = PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
    poll(&mut fds, PollTimeout::ZERO)
        .is_ok_and(|_| fds[0].revents().is_some_and(|seen| seen.intersects(gone)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::eventfd::EventFd;
    use std::fs::File;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    fn names(store: &mut FdStore) -> Vec<&str> {
        store.live().iter().map(|stored| stored.name.as_str()).collect()
    }

    fn keep(store: &mut FdStore, name: &str, descriptor: impl Into<OwnedFd>) {
        store.keep(1, Some(name.to_owned()), vec![descriptor.into()], true);
    }

    #[test]
    fn stored_descriptors_last_until_removed() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut store = FdStore::default();
        keep(&mut store, "a", near);
        store.keep(1, None, vec![far.into(), File::open("/dev/null").unwrap().into()], true);
        assert_eq!(names(&mut store), ["a", "stored", "stored"]);
        store.remove(1, Some("stored"));
        // The peer of the first was closed with them.
        assert_eq!(names(&mut store), [] as [&str; 0]);
    }

    #[test]
    fn a_socket_is_kept_once_under_a_name() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut store = FdStore::default();
        for name in ["a", "a", "b", "a"] {
            keep(&mut store, name, near.try_clone().unwrap());
        }
        assert_eq!(names(&mut store), ["a", "b"]);
        keep(&mut store, "a", File::open("/dev/null").unwrap());
        keep(&mut store, "a", File::open("/dev/null").unwrap());
        assert_eq!(names(&mut store), ["a", "b", "a", "a"], "each has its own position");
    }

    #[test]
    fn duplicate_of_any_kind_is_stored_once() {
        let null = File::open("/dev/null").unwrap();
        if are_duplicates(&null, &null).is_err() {
            crate::require::skip("kcmp(2) is not permitted");
            return;
        }
        let (reader, writer) = std::io::pipe().unwrap();
        let file = File::open("/proc/self/exe").unwrap();
        // All eventfds share one inode.
        let event = || OwnedFd::from(EventFd::new().unwrap());
        let first: Vec<OwnedFd> =
            vec![reader.into(), writer.into(), file.into(), null.into(), event(), event()];
        let mut store = FdStore::default();
        for _ in 0..3 {
            let again = first.iter().map(|descriptor| descriptor.try_clone().unwrap()).collect();
            store.keep(1, Some("a".to_owned()), again, true);
        }
        assert_eq!(names(&mut store).len(), first.len());
    }

    /// A socket whose peer is closed. The peer is also shut down: a process that another test is starting may
    /// share it until it executes its program.
    fn with_closed_peer() -> UnixStream {
        let (near, far) = UnixStream::pair().unwrap();
        far.shutdown(Shutdown::Both).unwrap();
        near
    }

    #[test]
    fn closed_peers_are_dropped_when_the_store_is_full() {
        let mut store = FdStore::default();
        for _ in 0..STORED_MAX {
            keep(&mut store, "gone", with_closed_peer());
        }
        let (near, _far) = UnixStream::pair().unwrap();
        keep(&mut store, "live", near);
        assert_eq!(names(&mut store), ["live"]);
    }

    #[test]
    fn closed_peers_are_dropped_unless_fdpoll_is_0() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut store = FdStore::default();
        store.keep(1, Some("kept".to_owned()), vec![near.try_clone().unwrap().into()], false);
        keep(&mut store, "dropped", near);
        assert_eq!(names(&mut store).len(), 2);
        far.shutdown(Shutdown::Both).unwrap();
        assert_eq!(names(&mut store), ["kept"]);
    }

    #[test]
    fn neither_names_nor_numbers_are_without_bounds() {
        let mut store = FdStore::default();
        for name in ["", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            keep(&mut store, name, File::open("/dev/null").unwrap());
        }
        assert_eq!(names(&mut store), [NAME_DEFAULT; 5]);
        for _ in 0..STORED_MAX + 3 {
            keep(&mut store, "x", File::open("/dev/null").unwrap());
        }
        assert_eq!(names(&mut store).len(), STORED_MAX);
    }
}
