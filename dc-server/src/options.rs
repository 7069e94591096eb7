//! The options of `dc_server`.

use dc_options::address::{Address, address};
use dc_options::count::count;
use dc_options::duration::seconds;
use dc_options::size::bytes;
use dc_options::{DaemonOptions, Mistake, Options, Program};
use std::num::NonZero;
use std::time::Duration;

/// Who this is.
pub(crate) const PROGRAM: Program = Program {
    name: "dc_server",
    env_prefix: "DC_SERVER_",
    about: "keeps the sessions of a fleet of servers",
    variables: &[],
};

/// Most threads that `-threads` takes, and that there are without it.
const THREADS_MAX: u64 = 64;
const THREADS_DEFAULT_MAX: usize = 8;
/// Longest time that an option in seconds takes: a day.
const SECONDS_MAX: u64 = 86_400;

/// What the server was asked to do.
#[derive(clap::Args, Debug)]
pub(crate) struct ServerOptions {
    /// Where to listen for agents; may be given several times.
    #[arg(long, value_name = "ADDR", required = true, value_parser = address)]
    pub(crate) listen: Vec<Address>,
    /// Keep at most this many sessions; 0 is no limit.
    #[arg(long, value_name = "N", default_value = "100000", value_parser = count::<u64>(0..))]
    pub(crate) sessions: u64,
    /// Keep at most this much session data, ids included; 0 is no limit.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = bytes(0..))]
    pub(crate) memory: u64,
    /// Threads that serve; without it, one for each core, at most 8.
    #[arg(long, value_name = "N", value_parser = count::<usize>(1..=THREADS_MAX))]
    pub(crate) threads: Option<usize>,
    /// Log the totals every N operations, besides once a second while something changes; 0 is only that.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<u64>(0..))]
    pub(crate) progress: u64,
    /// Time for a message that has begun to arrive to be whole; 0 is for ever.
    #[arg(long, value_name = "SECS", default_value = "23", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) read_timeout: Duration,
    /// Time for a peer to read some of its answers; 0 is for ever.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) write_timeout: Duration,
    /// Keep at most this many locks; 0 is no limit. Accepted for now, as there are no locks yet.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = count::<u64>(0..))]
    pub(crate) max_locks: u64,
    /// What all daemons take.
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

impl ServerOptions {
    /// The number of threads to serve with.
    pub(crate) fn threads(&self) -> usize {
        let cores = || std::thread::available_parallelism().map_or(1, NonZero::get);
        self.threads.unwrap_or_else(|| cores().min(THREADS_DEFAULT_MAX))
    }
}

impl Options for ServerOptions {
    fn check(&self) -> Result<(), Mistake> {
        self.daemon.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_server.1");
        let differences =
            dc_options::manual::differences(page, &PROGRAM, &PROGRAM.options::<ServerOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }
}
