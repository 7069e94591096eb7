//! The options of locks.

use clap::{ArgAction, Args};
use dc_cli::count::count;
use dc_cli::duration::seconds;
use dc_cli::path::path;
use std::path::PathBuf;
use std::time::Duration;

/// Longest lease that the server gives by itself, in seconds: a year.
const LEASE_SECONDS_MAX: u64 = 31_536_000;
/// Longest time of the other options: a day.
const SECONDS_MAX: u64 = 86_400;

#[derive(Args, Debug)]
pub(crate) struct LockTableOptions {
    /// Lease of a lock whose request names none.
    #[arg(long, value_name = "SECS", default_value = "33", value_parser = seconds(1..=LEASE_SECONDS_MAX))]
    pub(crate) default_lease_ttl: Duration,
    /// Know at most this many keys of locks, held or idle; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count::<u64>(0..))]
    pub(crate) max_locks: u64,
    /// Let at most this many wait for one key; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<u64>(0..))]
    pub(crate) max_waiters: u64,
    /// Accepted, and changes nothing: idle keys are forgotten when their time has come.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds(1..=SECONDS_MAX))]
    pub(crate) gc_interval: Duration,
    /// Forget a key that has been idle for this long.
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) gc_max_idle: Duration,
    /// Accepted for dflockd's sake: leases end on time, whatever this says.
    #[arg(long, value_name = "SECS", default_value = "1", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) lease_sweep_interval: Duration,
    /// Release what a client holds when its connection ends; -no-auto-release-on-disconnect keeps it for its
    /// lease.
    #[arg(long, alias = "no-auto-release-on-disconnect", action = ArgAction::Set, default_value = "true")]
    pub(crate) auto_release_on_disconnect: bool,
    /// Keep the locks of an agent whose link broke for this long.
    #[arg(long, value_name = "SECS", default_value = "10s", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) grace: Duration,
    /// Directory that keeps the fence growing across restarts.
    #[arg(long, value_name = "DIR", value_parser = path())]
    pub(crate) state: Option<PathBuf>,
}
