//! The options of `dc_test`.

use crate::content::ID_BYTES;
use dc_cli::address::{Address, peer_address};
use dc_cli::count::count;
use dc_cli::duration::{milliseconds, seconds};
use dc_cli::{ProgramInfo, UsageError};
use libdc::limits::{LOCAL_BLOCKED_MAX, SESSION_ADD_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use std::ops::RangeInclusive;
use std::time::Duration;

pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_test",
    env_prefix: "DC_TEST_",
    about: "checks and measures an installation of distcache",
    variables: &[],
};

/// Most bytes of a session: more does not fit a message with its id.
const DATA_BYTES_MAX: u64 = (SESSION_ADD_BYTES_MAX - ID_BYTES) as u64;
/// Longest that anything takes: seven days.
const TIMEOUT_SECONDS_MAX: u64 = SESSION_TIMEOUT_MS_MAX as u64 / 1000;

/// Default number of clients for locks: a single one would never wait.
const LOCKERS: u32 = 8;
/// Minimum difference between lease and hold time: the lease must not expire while the release is in flight.
const LEASE_SPARE: Duration = Duration::from_millis(500);

/// Most clients, more than there are ports for.
const CLIENTS_MAX: u64 = 100_000;
/// Most keys, and most rounds side by side, of all clients together: they take some hundred megabytes.
const LOCKS_MAX: u64 = 1_000_000;
/// Most sessions, of all clients together: they take some gigabytes when all are stored.
const SESSIONS_MAX: u64 = 10_000_000;

/// Default where the other option does not imply a smaller or larger value.
const TIMEVAR: Duration = Duration::from_secs(5);
const DATAMIN: usize = 50;
const DATAMAX: usize = 2100;

#[derive(Clone, Debug, clap::Args)]
pub(crate) struct TestOptions {
    /// The agent or server to check.
    #[arg(long, visible_alias = "server", value_name = "ADDR", required = true, value_parser = peer_address)]
    pub(crate) connect: Address,
    /// Sessions that each client works with.
    #[arg(long, value_name = "N", default_value = "10", value_parser = count::<u32>(1..=SESSIONS_MAX), conflicts_with = "locks")]
    pub(crate) sessions: u32,
    /// Fewest bytes of a session; without it 50, or -datamax.
    #[arg(long, value_name = "BYTES", value_parser = count::<usize>(1..=DATA_BYTES_MAX), conflicts_with = "locks")]
    pub(crate) datamin: Option<usize>,
    /// Most bytes of a session; without it 2100, or -datamin.
    #[arg(long, value_name = "BYTES", value_parser = count::<usize>(1..=DATA_BYTES_MAX), conflicts_with = "locks")]
    pub(crate) datamax: Option<usize>,
    /// How long sessions are kept.
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds(0..=TIMEOUT_SECONDS_MAX), conflicts_with = "locks")]
    pub(crate) timeout: Duration,
    /// Up to how much longer or shorter than that, at random; without it 5, or -timeout.
    #[arg(long, value_name = "SECS", value_parser = seconds(0..=TIMEOUT_SECONDS_MAX), conflicts_with = "locks")]
    pub(crate) timevar: Option<Duration>,
    /// Check locks instead of sessions.
    #[arg(long)]
    pub(crate) locks: bool,
    /// Keys that the clients contend for; takes -locks.
    #[arg(long, value_name = "N", default_value = "4", value_parser = count::<u32>(1..=LOCKS_MAX), requires = "locks")]
    pub(crate) keys: u32,
    /// How many may hold a key at a time; takes -locks.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<u32>(1..=u64::from(u32::MAX) - 1), requires = "locks")]
    pub(crate) limit: u32,
    /// Lease to request for a lock; takes -locks.
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
    #[arg(long, value_name = "N", value_parser = count::<u32>(1..=CLIENTS_MAX))]
    pub(crate) clients: Option<u32>,
    /// Requests that each client sends before the first is answered; takes -persistent.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<u32>(1..=SESSIONS_MAX))]
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
    /// For a server whose limit is smaller than the stored sessions, or that other clients use too.
    #[arg(long, conflicts_with = "locks")]
    pub(crate) tolerate_eviction: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl TestOptions {
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

    /// How many bytes a session has.
    pub(crate) fn bytes(&self) -> RangeInclusive<usize> {
        let most = self.datamax.unwrap_or(DATAMAX.max(self.datamin.unwrap_or(0)));
        self.datamin.unwrap_or(DATAMIN.min(most))..=most
    }

    /// Up to how much longer or shorter than `timeout` a session is kept.
    pub(crate) fn timevar(&self) -> Duration {
        let longest = Duration::from_secs(TIMEOUT_SECONDS_MAX).saturating_sub(self.timeout);
        self.timevar.unwrap_or(TIMEVAR.min(self.timeout).min(longest))
    }
}

impl dc_cli::CommandOptions for TestOptions {
    fn check(&self) -> Result<(), UsageError> {
        let (bytes, timevar, clients) = (self.bytes(), self.timevar(), u64::from(self.clients()));
        let wrong = if bytes.start() > bytes.end() {
            ("datamin", "is more than -datamax")
        } else if timevar > self.timeout {
            ("timevar", "is more than -timeout")
        } else if self.timeout + timevar > Duration::from_secs(TIMEOUT_SECONDS_MAX) {
            ("timeout", "is, with -timevar, more than seven days")
        } else if u64::from(self.sessions) * clients > SESSIONS_MAX {
            ("sessions", "is, times -clients, more than 10000000")
        } else if self.pipeline > self.sessions && !self.locks {
            ("pipeline", "is more than -sessions; a session has one request at a time")
        } else if self.pipeline > LOCAL_BLOCKED_MAX as u32 && self.locks {
            ("pipeline", "is more than 1024; an agent lets no connection wait for more locks")
        } else if u64::from(self.pipeline) * clients > LOCKS_MAX && self.locks {
            ("pipeline", "is, times -clients, more than 1000000")
        } else if self.hold + LEASE_SPARE > self.lease {
            ("hold", "is not half a second less than -lease")
        } else if self.pipeline > 1 && !self.persistent {
            ("pipeline", "is more than 1; that takes -persistent")
        } else {
            return Ok(());
        };
        Err(UsageError::inconsistent(wrong.0, wrong.1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run_tests::parse;

    fn try_parse(line: &str) -> Result<TestOptions, dc_cli::Exit> {
        let words = ["-connect", "UNIX:/a"].into_iter().chain(line.split_whitespace());
        PROGRAM.try_parse(words.map(Into::into), |_| None)
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let options = parse("");
        assert_eq!((options.sessions, options.bytes()), (10, 50..=2100));
        assert_eq!((options.timeout.as_secs(), options.timevar().as_secs()), (60, 5));
        assert_eq!(options.operations(), 1000);
        assert_eq!(parse("-sessions 100").operations(), 100_000);
        assert_eq!(parse("-duration 3").operations(), u64::MAX);
        assert_eq!(parse("-duration 3 --ops=7").operations(), 7);
        parse("-pipeline 10 -persistent -datamax 32728 -timeout 604795");
    }

    #[test]
    fn a_default_gives_way_to_what_is_said() {
        for (line, bytes) in [("-datamax 7", 7..=7), ("-datamin 3000", 3000..=3000), ("-datamin 7", 7..=2100)]
        {
            assert_eq!(parse(line).bytes(), bytes, "{line}");
        }
        for (line, seconds) in [("-timeout 3", 3), ("-timeout 604799", 1), ("-timeout 0", 0)] {
            assert_eq!(parse(line).timevar().as_secs(), seconds, "{line}");
        }
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
    fn impossible_options_are_rejected() {
        for (line, option) in [
            ("-sessions 0", "sessions"),
            ("-datamin 0", "datamin"),
            ("-datamin 3000 -datamax 2999", "datamin"),
            ("-datamax 32729", "datamax"),
            ("-timevar 61", "timevar"),
            ("-timeout 604796 -timevar 5", "timeout"),
            ("-sessions 10000001", "sessions"),
            ("-sessions 10000000 -clients 2", "sessions"),
            ("-clients 100001", "clients"),
            ("-locks -keys 1000001", "keys"),
            ("-locks -persistent -pipeline 1024 -clients 1000", "pipeline"),
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
            let Err(dc_cli::Exit::Mistake(message)) = try_parse(line) else {
                panic!("{line}");
            };
            assert!(message.starts_with(&format!("dc_test: -{option}")), "{line}: {message}");
        }
    }

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_test.1");
        let differences = dc_tests::man_page::differences(page, &PROGRAM, &PROGRAM.options::<TestOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }
}
