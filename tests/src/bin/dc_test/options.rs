//! The options of `dc_test`.

use crate::content::ID_BYTES;
use dc_options::address::{Address, peer_address};
use dc_options::count::count;
use dc_options::duration::{milliseconds, seconds};
use dc_options::{Mistake, Program};
use libdc::limits::{LOCAL_BLOCKED_MAX, SESSION_ADD_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use std::time::Duration;

/// The program.
pub(crate) const PROGRAM: Program = Program {
    name: "dc_test",
    env_prefix: "DC_TEST_",
    about: "checks and measures an installation of distcache",
    variables: &[],
};

/// Most bytes of a session: more does not fit a message with its id.
const DATA_BYTES_MAX: u64 = (SESSION_ADD_BYTES_MAX - ID_BYTES) as u64;
/// Longest that anything takes: seven days.
const TIMEOUT_SECONDS_MAX: u64 = SESSION_TIMEOUT_MS_MAX as u64 / 1000;

/// Clients of a run on locks, unless said otherwise: alone, none would ever wait.
const LOCKERS: u32 = 8;
/// How much longer than it is held a lock is asked for, at least: it must not expire while its release is on its way.
const LEASE_SPARE: Duration = Duration::from_millis(500);

/// What to check and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The agent or server to check.
    #[arg(long, visible_alias = "server", value_name = "ADDR", required = true, value_parser = peer_address)]
    pub(crate) connect: Address,
    /// Sessions that each client works with.
    #[arg(long, value_name = "N", default_value = "10", value_parser = count::<u32>(1..=u64::from(u32::MAX)), conflicts_with = "locks")]
    pub(crate) sessions: u32,
    /// Fewest bytes of a session.
    #[arg(long, value_name = "BYTES", default_value = "50", value_parser = count::<usize>(1..=DATA_BYTES_MAX), conflicts_with = "locks")]
    pub(crate) datamin: usize,
    /// Most bytes of a session.
    #[arg(long, value_name = "BYTES", default_value = "2100", value_parser = count::<usize>(1..=DATA_BYTES_MAX), conflicts_with = "locks")]
    pub(crate) datamax: usize,
    /// How long sessions are kept.
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds(0..=TIMEOUT_SECONDS_MAX), conflicts_with = "locks")]
    pub(crate) timeout: Duration,
    /// Up to how much longer or shorter than that, at random.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds(0..=TIMEOUT_SECONDS_MAX), conflicts_with = "locks")]
    pub(crate) timevar: Duration,
    /// Check locks instead of sessions.
    #[arg(long)]
    pub(crate) locks: bool,
    /// Keys that the clients contend for; takes -locks.
    #[arg(long, value_name = "N", default_value = "4", value_parser = count::<u32>(1..=u64::from(u32::MAX)), requires = "locks")]
    pub(crate) keys: u32,
    /// How many may hold a key at a time; takes -locks.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<u32>(1..=u64::from(u32::MAX) - 1), requires = "locks")]
    pub(crate) limit: u32,
    /// How long a lock is asked for; takes -locks.
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds(1..=TIMEOUT_SECONDS_MAX), requires = "locks")]
    pub(crate) lease: Duration,
    /// How long to wait for a lock; takes -locks.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds(0..=TIMEOUT_SECONDS_MAX), requires = "locks")]
    pub(crate) wait: Duration,
    /// How long to hold a lock before it is released; takes -locks.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds(0..=TIMEOUT_SECONDS_MAX * 1000), requires = "locks")]
    pub(crate) hold: Duration,
    /// Operations in all; without it and -duration, 10 x sessions x sessions.
    #[arg(long, value_name = "N", value_parser = count::<u64>(0..))]
    pub(crate) ops: Option<u64>,
    /// End after this long.
    #[arg(long, value_name = "SECS", value_parser = seconds(0..=TIMEOUT_SECONDS_MAX))]
    pub(crate) duration: Option<Duration>,
    /// Print a line every N operations; 0 prints none.
    #[arg(long, value_name = "N", default_value = "0", value_parser = count::<u64>(0..))]
    pub(crate) progress: u64,
    /// One connection for each client, and not one for each operation.
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Clients that work side by side; without it 1, with -locks 8.
    #[arg(long, value_name = "N", value_parser = count::<u32>(1..=u64::from(u32::MAX)))]
    pub(crate) clients: Option<u32>,
    /// Requests that each client sends before the first is answered; takes -persistent.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<u32>(1..=u64::from(u32::MAX)))]
    pub(crate) pipeline: u32,
    /// Longest wait for an answer; no answer is a failure.
    #[arg(long, value_name = "MS", default_value = "10000", value_parser = milliseconds(1..=TIMEOUT_SECONDS_MAX * 1000))]
    pub(crate) answer_timeout: Duration,
    /// Go on through outages up to this long, reconnecting.
    ///
    /// A session stored before an outage may be lost behind it, but never be another.
    #[arg(long, value_name = "MS", default_value = "0", value_parser = milliseconds(0..=TIMEOUT_SECONDS_MAX * 1000))]
    pub(crate) tolerate_outage: Duration,
    /// Take a missing session for an evicted one.
    ///
    /// For a server whose limit is smaller than what is stored, or that others use too.
    #[arg(long, conflicts_with = "locks")]
    pub(crate) tolerate_eviction: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// How many operations are to be answered.
    pub(crate) fn operations(&self) -> u64 {
        let sessions = u64::from(self.sessions);
        let default = if self.duration.is_some() { u64::MAX } else { 10 * sessions * sessions };
        self.ops.unwrap_or(default)
    }

    /// How many clients there are.
    pub(crate) fn clients(&self) -> u32 {
        self.clients.unwrap_or(if self.locks { LOCKERS } else { 1 })
    }
}

impl dc_options::Options for Options {
    fn check(&self) -> Result<(), Mistake> {
        let wrong = if self.datamin > self.datamax {
            ("datamin", "is more than -datamax")
        } else if self.timevar > self.timeout {
            ("timevar", "is more than -timeout")
        } else if self.timeout + self.timevar > Duration::from_secs(TIMEOUT_SECONDS_MAX) {
            ("timeout", "is, with -timevar, more than seven days")
        } else if self.pipeline > self.sessions && !self.locks {
            ("pipeline", "is more than -sessions; a session has one request at a time")
        } else if self.pipeline > LOCAL_BLOCKED_MAX as u32 && self.locks {
            ("pipeline", "is more than 1024; an agent lets no connection wait for more locks")
        } else if self.hold + LEASE_SPARE > self.lease {
            ("hold", "is not half a second less than -lease")
        } else if self.pipeline > 1 && !self.persistent {
            ("pipeline", "is more than 1; that takes -persistent")
        } else {
            return Ok(());
        };
        Err(Mistake::inconsistent(wrong.0, wrong.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_tests::parse;

    fn try_parse(line: &str) -> Result<Options, dc_options::Stop> {
        let words = ["-connect", "UNIX:/a"].into_iter().chain(line.split_whitespace());
        PROGRAM.try_parse(words.map(Into::into), |_| None)
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let options = parse("");
        assert_eq!((options.sessions, options.datamin, options.datamax), (10, 50, 2100));
        assert_eq!((options.timeout.as_secs(), options.timevar.as_secs()), (60, 5));
        assert_eq!(options.operations(), 1000);
        assert_eq!(parse("-sessions 100").operations(), 100_000);
        assert_eq!(parse("-duration 3").operations(), u64::MAX);
        assert_eq!(parse("-duration 3 --ops=7").operations(), 7);
        parse("-pipeline 10 -persistent -datamax 32728 -timeout 604795");
    }

    #[test]
    fn locks_have_options_of_their_own() {
        let options = parse("-locks");
        assert_eq!((options.clients(), options.keys, options.limit), (8, 4, 1));
        assert_eq!((options.lease.as_secs(), options.wait.as_secs(), options.hold.as_secs()), (30, 10, 0));
        assert_eq!(options.operations(), 1000);
        assert_eq!(parse("").clients(), 1);
        assert_eq!(parse("-locks -clients 3").clients(), 3);
        parse("-locks -persistent -pipeline 1024 -lease 1 -hold 500 -wait 0");
    }

    #[test]
    fn what_can_not_be_is_named() {
        for (line, option) in [
            ("-sessions 0", "sessions"),
            ("-datamin 0", "datamin"),
            ("-datamin 3000", "datamin"),
            ("-datamax 32729", "datamax"),
            ("-timevar 61", "timevar"),
            ("-timeout 604796", "timeout"),
            ("-clients 0", "clients"),
            ("-pipeline 0", "pipeline"),
            ("-pipeline 2", "pipeline"),
            ("-pipeline 11 -persistent", "pipeline"),
            ("-answer-timeout 0", "answer-timeout"),
            ("-keys 2", "locks"),
            ("-hold 5ms", "locks"),
            ("-locks -sessions 5", "locks and -sessions exclude"),
            ("-locks -datamax 5", "locks and -datamax exclude"),
            ("-locks -timeout 5", "locks and -timeout exclude"),
            ("-locks -tolerate-eviction", "locks and -tolerate-eviction exclude"),
            ("-locks -limit 0", "limit"),
            ("-locks -keys 0", "keys"),
            ("-locks -lease 500ms", "lease"),
            ("-locks -lease 5 -hold 4501", "hold"),
            ("-locks -persistent -pipeline 1025", "pipeline"),
            ("-locks -pipeline 2", "pipeline"),
        ] {
            let Err(dc_options::Stop::Mistake(message)) = try_parse(line) else {
                panic!("{line}");
            };
            assert!(message.starts_with(&format!("dc_test: -{option}")), "{line}: {message}");
        }
    }

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../../../man/dc_test.1");
        let differences = dc_options::manual::differences(page, &PROGRAM, &PROGRAM.options::<Options>());
        assert!(differences.is_empty(), "{differences:#?}");
    }
}
