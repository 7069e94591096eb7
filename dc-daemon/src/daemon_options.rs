//! The options shared by `dc_server` and `dc_client`.
//!
//! `-listen` is not among them: its default differs, so each program declares its own.

use crate::log::LogOptions;
use crate::socket_options::SocketOptions;
use clap::Args;
use dc_cli::UsageError;
use dc_cli::account::account;
use dc_cli::count::count;
use dc_cli::duration::seconds;
use std::path::PathBuf;
use std::time::Duration;

/// Longest `-shutdown-timeout`: a day, in seconds.
const SHUTDOWN_SECONDS_MAX: u64 = 86_400;

/// The options of a daemon. A program flattens them into its options and calls [`DaemonOptions::check`].
#[derive(Args, Clone, Debug)]
pub struct DaemonOptions {
    /// Detach from the terminal once serving.
    #[arg(long)]
    pub daemon: bool,
    /// Write the process id to this file while running.
    #[arg(long, value_name = "PATH")]
    pub pidfile: Option<PathBuf>,
    /// Become this user once listening.
    #[arg(long, value_name = "USER", value_parser = account)]
    pub user: Option<String>,
    /// Owner, group and mode of created Unix sockets.
    #[command(flatten)]
    pub socket: SocketOptions,
    /// Shut down on SIGUSR1 and SIGUSR2 instead of ignoring them.
    #[arg(long)]
    pub killable: bool,
    /// Close connections above this number at once; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<usize>(0..))]
    pub max_connections: usize,
    /// Leave connections above this number in the kernel's queue; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<usize>(0..))]
    pub throttle: usize,
    /// Time to finish requests in flight at shutdown; 0 means no limit.
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds(0..=SHUTDOWN_SECONDS_MAX))]
    pub shutdown_timeout: Duration,
    /// Destination, format and filter of the log.
    #[command(flatten)]
    pub log: LogOptions,
}

impl DaemonOptions {
    /// Checks the options against each other.
    ///
    /// # Errors
    ///
    /// `-sockowner` or `-sockgroup` without a name, and no `-user`.
    pub fn check(&self) -> Result<(), UsageError> {
        self.socket.check(self.user.as_deref())
    }
}
