//! Descriptors that children left with the master for those after them (`FDSTORE=1` in `sd_notify(3)`).
//!
//! As under systemd: a descriptor has the name `FDNAME`, or `stored`; one whose other end has gone is dropped unless
//! it came with `FDPOLL=0`; a socket or file without a name in a file system that is stored twice under the same name
//! is kept once. Here that it has gone is found out when the next child starts.

use libdc::process::notify::is_stored_name;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::stat::{SFlag, fstat};
use std::os::fd::{AsFd, OwnedFd};
use tracing::{info, warn};

/// Most descriptors that are kept.
const STORED_MAX: usize = 256;
/// The name of what was stored without one.
const NAME_DEFAULT: &str = "stored";

/// The descriptors that are kept, in the order in which they came.
#[derive(Debug, Default)]
pub(crate) struct Store {
    stored: Vec<Stored>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) name: String,
    pub(crate) descriptor: OwnedFd,
    polled: bool,
    identity: Option<(u64, u64)>,
}

impl Store {
    /// Keeps what `child` left. What there is no room for is closed.
    pub(crate) fn keep(&mut self, child: i32, name: Option<String>, descriptors: Vec<OwnedFd>, polled: bool) {
        let name = name.unwrap_or_else(|| NAME_DEFAULT.to_owned());
        if !is_stored_name(&name) {
            warn!(child, "descriptors were not stored: their name is none");
            return;
        }
        for descriptor in descriptors {
            let identity = identity(&descriptor);
            let known = |stored: &Stored| stored.identity.is_some() && stored.identity == identity;
            if self.stored.iter().any(|stored| stored.name == name && known(stored)) {
                continue;
            }
            if self.stored.len() >= STORED_MAX {
                warn!(child, name, limit = STORED_MAX, "a descriptor was not stored: there are too many");
                continue;
            }
            info!(child, name, "stored a descriptor");
            self.stored.push(Stored { name: name.clone(), descriptor, polled, identity });
        }
    }

    /// Forgets all of this name.
    pub(crate) fn remove(&mut self, child: i32, name: Option<&str>) {
        let before = self.stored.len();
        self.stored.retain(|stored| Some(stored.name.as_str()) != name);
        info!(child, name, removed = before - self.stored.len(), "removed stored descriptors");
    }

    /// What the next child gets.
    pub(crate) fn live(&mut self) -> &[Stored] {
        self.stored.retain(|stored| !stored.polled || !has_gone(&stored.descriptor));
        &self.stored
    }
}

/// What is the same for two descriptors of one thing, and for no two things. `None` where there is no such.
fn identity(descriptor: &OwnedFd) -> Option<(u64, u64)> {
    let stat = fstat(descriptor).ok()?;
    let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    // A file with a name may be open several times, each with its own position.
    let one_of_a_kind = kind == SFlag::S_IFSOCK || kind == SFlag::S_IFREG && stat.st_nlink == 0;
    one_of_a_kind.then_some((stat.st_dev, stat.st_ino))
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
    use std::fs::File;
    use std::os::unix::net::UnixStream;

    fn names(store: &mut Store) -> Vec<&str> {
        store.live().iter().map(|stored| stored.name.as_str()).collect()
    }

    fn keep(store: &mut Store, name: &str, descriptor: impl Into<OwnedFd>) {
        store.keep(1, Some(name.to_owned()), vec![descriptor.into()], true);
    }

    #[test]
    fn what_is_kept_is_there_until_it_is_removed() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut store = Store::default();
        keep(&mut store, "a", near);
        store.keep(1, None, vec![far.into(), File::open("/dev/null").unwrap().into()], true);
        assert_eq!(names(&mut store), ["a", "stored", "stored"]);
        store.remove(1, Some("stored"));
        // The other end of the first has gone with them.
        assert_eq!(names(&mut store), [] as [&str; 0]);
    }

    #[test]
    fn a_socket_is_kept_once_under_a_name() {
        let (near, _far) = UnixStream::pair().unwrap();
        let mut store = Store::default();
        for name in ["a", "a", "b", "a"] {
            keep(&mut store, name, near.try_clone().unwrap());
        }
        assert_eq!(names(&mut store), ["a", "b"]);
        keep(&mut store, "a", File::open("/dev/null").unwrap());
        keep(&mut store, "a", File::open("/dev/null").unwrap());
        assert_eq!(names(&mut store), ["a", "b", "a", "a"], "each has its own position");
    }

    #[test]
    fn what_has_gone_is_dropped_unless_it_is_not_to_be_polled() {
        let (near, far) = UnixStream::pair().unwrap();
        let mut store = Store::default();
        store.keep(1, Some("kept".to_owned()), vec![near.try_clone().unwrap().into()], false);
        keep(&mut store, "dropped", near);
        assert_eq!(names(&mut store).len(), 2);
        drop(far);
        assert_eq!(names(&mut store), ["kept"]);
    }

    #[test]
    fn neither_names_nor_numbers_are_without_bounds() {
        let mut store = Store::default();
        for name in ["", "a:b", "a\nb", "ä", &"x".repeat(256)] {
            keep(&mut store, name, File::open("/dev/null").unwrap());
        }
        assert_eq!(names(&mut store).len(), 0);
        for _ in 0..STORED_MAX + 3 {
            keep(&mut store, "x", File::open("/dev/null").unwrap());
        }
        assert_eq!(names(&mut store).len(), STORED_MAX);
    }
}
