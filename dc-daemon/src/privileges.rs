//! Permanent change to another user.
//!
//! Supplementary groups, group and user are set in this order, since each step needs the privilege that the
//! next one gives up. Afterwards all ids are read back, and regaining root is attempted rather than assumed
//! impossible: a capability kept by the parent process would allow it.

use super::account::Account;
use nix::errno::Errno;
use nix::unistd::{self, Gid, Uid};

/// Becomes `account`: real, effective and saved ids, with its groups and no others. Does nothing in a process
/// that already runs as this user and is not root.
///
/// # Errors
/// [`PrivilegeError`]. Some ids may have changed by then, and the process should exit.
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
    // This would succeed if the saved user id were still root.
    if !uid.is_root()
        && (unistd::setuid(Uid::from_raw(0)).is_ok() || unistd::seteuid(Uid::from_raw(0)).is_ok())
    {
        return Err(PrivilegeError::Kept);
    }
    Ok(())
}

/// Why the process cannot change its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PrivilegeError {
    /// Only root can become another user.
    #[error("cannot change the user: only root can")]
    NotRoot,
    /// The supplementary groups cannot be set.
    #[error("cannot set the supplementary groups of the user: {0}")]
    Groups(Errno),
    /// The group cannot be set.
    #[error("cannot set the group of the user: {0}")]
    Group(Errno),
    /// The user cannot be set.
    #[error("cannot set the user: {0}")]
    User(Errno),
    /// All steps succeeded, but the process can still become root.
    #[error("the process can still become root after dropping privileges")]
    Kept,
}
