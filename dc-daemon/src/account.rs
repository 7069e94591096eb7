//! Users and groups, looked up by name once at startup. Afterwards only numeric ids are used.
//!
//! A name made of digits that names no user stands for the user with that id, which need not be in the user
//! database. Nothing here panics.

use nix::errno::Errno;
use nix::unistd::{Gid, getgrouplist};
use std::ffi::CString;

/// A user to switch to: user id, primary group and supplementary groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
}

impl Account {
    /// Looks up the user called `name`, or with that id. An id without an entry in the user database stands
    /// for a user whose only group has the same id.
    ///
    /// # Errors
    /// [`AccountError`] if there is no such user, or its groups cannot be looked up.
    pub fn resolve(name: &str) -> Result<Self, AccountError> {
        let unknown = || AccountError::NoUser { name: name.to_owned() };
        let by_name = if name.is_empty() { None } else { users::get_user_by_name(name) };
        let Some(user) = by_name.or_else(|| number(name).and_then(users::get_user_by_uid)) else {
            let uid = number(name).ok_or_else(unknown)?;
            return Ok(Self { uid, gid: uid, groups: vec![uid] });
        };
        let gid = user.primary_group_id();
        let login = CString::new(user.name().as_encoded_bytes()).map_err(|_| unknown())?;
        let groups = getgrouplist(&login, Gid::from_raw(gid))
            .map_err(|source| AccountError::Groups { name: name.to_owned(), source })?;
        Ok(Self { uid: user.uid(), gid, groups: groups.into_iter().map(Gid::as_raw).collect() })
    }

    /// The numeric user id.
    #[must_use]
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The id of the primary group.
    #[must_use]
    pub const fn gid(&self) -> u32 {
        self.gid
    }

    /// The ids of all groups, including the primary one.
    #[must_use]
    pub fn groups(&self) -> &[u32] {
        &self.groups
    }
}

/// The id of the user called `name`; a number stands for itself.
///
/// # Errors
/// [`AccountError::NoUser`] if there is no such user.
pub fn user_id(name: &str) -> Result<u32, AccountError> {
    let by_name = if name.is_empty() { None } else { users::get_user_by_name(name) };
    let id = by_name.map(|user| user.uid()).or_else(|| number(name));
    id.ok_or_else(|| AccountError::NoUser { name: name.to_owned() })
}

/// The id of the group called `name`; a number stands for itself.
///
/// # Errors
/// [`AccountError::NoGroup`] if there is no such group.
pub fn group_id(name: &str) -> Result<u32, AccountError> {
    let by_name = if name.is_empty() { None } else { users::get_group_by_name(name) };
    let id = by_name.map(|group| group.gid()).or_else(|| number(name));
    id.ok_or_else(|| AccountError::NoGroup { name: name.to_owned() })
}

/// `u32::MAX` is excluded: chown(2) and setresuid(2) take it as "unchanged".
fn number(name: &str) -> Option<u32> {
    let digits = name.bytes().all(|byte| byte.is_ascii_digit());
    let id = if digits { name.parse().ok() } else { None };
    id.filter(|id| *id != u32::MAX)
}

/// Why a user or group cannot be looked up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccountError {
    /// There is no such user.
    #[error("user {name:?} does not exist")]
    NoUser {
        /// The name, as given.
        name: String,
    },
    /// There is no such group.
    #[error("group {name:?} does not exist")]
    NoGroup {
        /// The name, as given.
        name: String,
    },
    /// The groups of the user cannot be looked up.
    #[error("cannot look up the groups of user {name:?}: {source}")]
    Groups {
        /// The name, as given.
        name: String,
        /// The error of the system.
        source: Errno,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn account_by_name_equals_account_by_number() {
        let root = Account::resolve("root").unwrap();
        assert_eq!((root.uid(), root.gid()), (0, 0));
        assert!(root.groups().contains(&0));
        assert_eq!(Account::resolve("0"), Ok(root));
        assert_eq!((user_id("root"), user_id("0")), (Ok(0), Ok(0)));
        let group = users::get_group_by_gid(0).unwrap();
        assert_eq!((group_id(group.name().to_str().unwrap()), group_id("0")), (Ok(0), Ok(0)));
    }

    #[test]
    fn unknown_uid_gets_a_group_of_equal_number() {
        let unknown =
            (3_000_000_000..3_000_001_000).find(|uid| users::get_user_by_uid(*uid).is_none()).unwrap();
        let account = Account::resolve(&unknown.to_string()).unwrap();
        assert_eq!(
            (account.uid(), account.gid(), account.groups()),
            (unknown, unknown, [unknown].as_slice())
        );
        assert_eq!(group_id("3000000000"), Ok(3_000_000_000));
    }

    #[test]
    fn unknown_names_are_refused() {
        for name in ["", "no-such-user-here", "-1", "+1", "4294967295", "4294967296", "a\0b", "0 "] {
            assert_eq!(Account::resolve(name), Err(AccountError::NoUser { name: name.to_owned() }));
            assert_eq!(user_id(name), Err(AccountError::NoUser { name: name.to_owned() }));
            assert_eq!(group_id(name), Err(AccountError::NoGroup { name: name.to_owned() }));
        }
        assert_eq!(group_id("nil").unwrap_err().to_string(), "group \"nil\" does not exist");
    }
}
