//! The options of the Unix sockets that a program creates.

use crate::account::{Account, AccountError, group_id, user_id};
use crate::listen::{SocketMode, SocketPermissions};
use clap::Args;
use dc_cli::UsageError;
use dc_cli::account::{SocketOwner, socket_account};
use dc_cli::permissions::permissions;

/// Owner, group and mode of a Unix socket. A program calls [`SocketOptions::check`].
#[derive(Args, Clone, Debug)]
pub struct SocketOptions {
    /// Owner of the Unix socket; without a name, the user of -user.
    #[arg(long, value_name = "USER", num_args = 0..=1, value_parser = socket_account)]
    pub sockowner: Option<SocketOwner>,
    /// Group of the Unix socket; without a name, the group of the user of -user.
    #[arg(long, value_name = "GROUP", num_args = 0..=1, value_parser = socket_account)]
    pub sockgroup: Option<SocketOwner>,
    /// Permissions of the Unix socket.
    #[arg(long, value_name = "OCTAL", value_parser = permissions)]
    pub sockperms: Option<u32>,
}

impl SocketOptions {
    /// Checks the options against `-user`.
    ///
    /// # Errors
    ///
    /// `-sockowner` or `-sockgroup` without a name, and no `-user`.
    pub fn check(&self, user: Option<&str>) -> Result<(), UsageError> {
        let accounts = [("sockowner", &self.sockowner), ("sockgroup", &self.sockgroup)];
        for (option, account) in accounts {
            if *account == Some(SocketOwner::OfUser) && user.is_none() {
                let wrong = "without a name stands for the user of -user, which is not given";
                return Err(UsageError::inconsistent(option, wrong));
            }
        }
        Ok(())
    }

    /// Resolves the names to ids. `user` is the user of `-user`.
    ///
    /// # Errors
    /// [`AccountError`] if a user or group does not exist.
    pub fn permissions(&self, user: Option<&Account>) -> Result<SocketPermissions, AccountError> {
        // `check` has passed: an option without a name implies that there is a `-user`.
        let owner = match &self.sockowner {
            Some(SocketOwner::Named(name)) => Some(user_id(name)?),
            Some(SocketOwner::OfUser) => user.map(Account::uid),
            None => None,
        };
        let group = match &self.sockgroup {
            Some(SocketOwner::Named(name)) => Some(group_id(name)?),
            Some(SocketOwner::OfUser) => user.map(Account::gid),
            None => None,
        };
        Ok(SocketPermissions { owner, group, mode: self.sockperms.and_then(SocketMode::new) })
    }
}
