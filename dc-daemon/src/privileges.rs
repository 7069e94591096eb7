//! Becoming another user, for good.
//!
//! Supplementary groups, group, user, in that order, since each step needs the right that the last one gives up.
//! Afterwards everything is read back, and that root can't be regained is tried, not assumed: a
//! capability kept by whoever started the process would allow it.

use super::account::Account;
use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};

/// Becomes `account`: real, effective and saved, with its groups and no others. For a process that is that user
/// already and not root there is nothing to do, and nothing is done.
///
/// # Errors
/// [`PrivilegeError`]. The process may then be in between, and should end.
pub fn become_user(account: &Account) -> Result<(), PrivilegeError> {
    let uid = Uid::from_raw(account.uid());
    let gid = Gid::from_raw(account.gid());
    if !unistd::geteuid().is_root() {
        let already = unistd::getuid() == uid && unistd::geteuid() == uid;
        return if already { Ok(()) } else { Err(PrivilegeError::NotRoot) };
    }
    let groups: Vec<Gid> = account.groups().iter().copied().map(Gid::from_raw).collect();
    unistd::setgroups(&groups).map_err(PrivilegeError::Groups)?;
    unistd::setgid(gid).map_err(PrivilegeError::Group)?;
    unistd::setuid(uid).map_err(PrivilegeError::User)?;
    verify(uid, gid, &groups)
}

fn verify(uid: Uid, gid: Gid, groups: &[Gid]) -> Result<(), PrivilegeError> {
    let sorted = |groups: &[Gid]| {
        let mut numbers: Vec<u32> = groups.iter().copied().map(Gid::as_raw).collect();
        numbers.sort_unstable();
        numbers.dedup();
        numbers
    };
    let now = unistd::getgroups().map_err(PrivilegeError::Groups)?;
    let is_user = unistd::getuid() == uid && unistd::geteuid() == uid;
    let is_group = unistd::getgid() == gid && unistd::getegid() == gid;
    if !is_user || !is_group || sorted(&now) != sorted(groups) {
        return Err(PrivilegeError::Kept);
    }
    // The saved user too: were it still root, this would succeed.
    if !uid.is_root()
        && (unistd::setuid(Uid::from_raw(0)).is_ok() || unistd::seteuid(Uid::from_raw(0)).is_ok())
    {
        return Err(PrivilegeError::Kept);
    }
    Ok(())
}

/// Why the process is not the user it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivilegeError {
    /// Only root can become another user.
    #[error("can't become another user: only root can")]
    NotRoot,
    /// The supplementary groups can't be set.
    #[error("can't set the supplementary groups of the user: {0}")]
    Groups(Errno),
    /// The group can't be set.
    #[error("can't set the group of the user: {0}")]
    Group(Errno),
    /// The user can't be set.
    #[error("can't become the user: {0}")]
    User(Errno),
    /// All steps went well, and yet the process could become root again.
    #[error("the process could become root again after giving it up")]
    Kept,
}
