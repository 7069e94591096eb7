//! The options of `dc_test`.

use libdc::client::Target;
use libdc::limits::{SESSION_ADD_BYTES_MAX, SESSION_TIMEOUT_MS_MAX};
use std::time::Duration;

/// Most bytes of a session with an id of 32 bytes.
const DATA_BYTES_MAX: usize = SESSION_ADD_BYTES_MAX - crate::content::ID_BYTES;

/// What to check and how.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Options {
    /// The agent or server to check.
    #[arg(long, visible_alias = "server", value_name = "ADDR")]
    pub(crate) connect: Target,
    /// Sessions that each client works with.
    #[arg(long, value_name = "N", default_value = "10")]
    pub(crate) sessions: u32,
    /// Fewest bytes of a session.
    #[arg(long, value_name = "BYTES", default_value = "50")]
    pub(crate) datamin: usize,
    /// Most bytes of a session.
    #[arg(long, value_name = "BYTES", default_value = "2100")]
    pub(crate) datamax: usize,
    /// How long sessions are kept.
    #[arg(long, value_name = "SECS", default_value = "60", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// Up to how much longer or shorter than that, at random.
    #[arg(long, value_name = "SECS", default_value = "5", value_parser = seconds)]
    pub(crate) timevar: Duration,
    /// Operations, of all clients together: 10 x sessions x sessions unless -duration is given.
    #[arg(long, value_name = "N")]
    pub(crate) ops: Option<u64>,
    /// End after this long.
    #[arg(long, value_name = "SECS", value_parser = seconds)]
    pub(crate) duration: Option<Duration>,
    /// Print a line every N operations; 0 prints none.
    #[arg(long, value_name = "N", default_value = "0")]
    pub(crate) progress: u64,
    /// One connection for each client, and not one for each operation.
    #[arg(long)]
    pub(crate) persistent: bool,
    /// Clients that work side by side, each with sessions of its own.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) clients: u32,
    /// Requests that each client sends before the first is answered; takes -persistent.
    #[arg(long, value_name = "N", default_value = "1")]
    pub(crate) pipeline: u32,
    /// Longest wait for an answer; no answer is a failure.
    #[arg(long, value_name = "SECS", default_value = "10", value_parser = seconds)]
    pub(crate) answer_timeout: Duration,
    /// Go on through outages that are no longer than this, reconnecting. A session stored before one may be
    /// lost after it, but never be another.
    #[arg(long, value_name = "SECS", default_value = "0", value_parser = seconds)]
    pub(crate) tolerate_outage: Duration,
    /// Take a missing session for one that the server evicted: its limit is small, or others use it too.
    #[arg(long)]
    pub(crate) tolerate_eviction: bool,
    /// Print the report as one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

impl Options {
    /// What is wrong with the options taken together: which one, and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        let week = Duration::from_millis(u64::from(SESSION_TIMEOUT_MS_MAX));
        let longest = self.timeout.checked_add(self.timevar);
        if self.sessions == 0 {
            Err(("sessions", "at least 1"))
        } else if self.datamin == 0 {
            Err(("datamin", "at least 1"))
        } else if self.datamax > DATA_BYTES_MAX {
            Err(("datamax", "at most 32728: with its id, more does not fit a message"))
        } else if self.datamin > self.datamax {
            Err(("datamin", "not more than -datamax"))
        } else if self.timevar > self.timeout {
            Err(("timevar", "not more than -timeout"))
        } else if longest.is_none_or(|longest| longest > week) {
            Err(("timeout", "with -timevar, seven days at most"))
        } else if self.clients == 0 {
            Err(("clients", "at least 1"))
        } else if self.pipeline == 0 || self.pipeline > self.sessions {
            Err(("pipeline", "at least 1, and not more than -sessions: a session has one request at a time"))
        } else if self.pipeline > 1 && !self.persistent {
            Err(("pipeline", "more than 1 takes -persistent"))
        } else if self.answer_timeout.is_zero() {
            Err(("answer-timeout", "more than nothing"))
        } else {
            Ok(())
        }
    }

    /// How many operations are to be answered.
    pub(crate) fn operations(&self) -> u64 {
        let sessions = u64::from(self.sessions);
        let default = if self.duration.is_some() { u64::MAX } else { 10 * sessions * sessions };
        self.ops.unwrap_or(default)
    }
}

fn seconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_secs)
}

/// The options of the command line.
pub(crate) fn parse() -> Options {
    #[derive(clap::Parser)]
    #[command(name = "dc_test")]
    struct Arguments {
        #[command(flatten)]
        options: Options,
    }
    let options = <Arguments as clap::Parser>::parse().options;
    if let Err((option, wrong)) = options.check() {
        eprintln!("dc_test: -{option}: {wrong}");
        std::process::exit(64);
    }
    options
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn parse(line: &str) -> Options {
        #[derive(clap::Parser)]
        struct Arguments {
            #[command(flatten)]
            options: Options,
        }
        let words = ["dc_test", "--connect", "UNIX:/a"].into_iter().chain(line.split_whitespace());
        <Arguments as clap::Parser>::try_parse_from(words).unwrap().options
    }

    #[test]
    fn the_defaults_are_those_of_the_original() {
        let options = parse("");
        assert_eq!(options.check(), Ok(()));
        assert_eq!((options.sessions, options.datamin, options.datamax), (10, 50, 2100));
        assert_eq!((options.timeout.as_secs(), options.timevar.as_secs()), (60, 5));
        assert_eq!(options.operations(), 1000);
        assert_eq!(parse("--sessions 100").operations(), 100_000);
        assert_eq!(parse("--duration 3").operations(), u64::MAX);
        assert_eq!(parse("--duration 3 --ops 7").operations(), 7);
    }

    #[test]
    fn what_can_not_be_together_is_named() {
        for (line, option) in [
            ("--sessions 0", "sessions"),
            ("--datamin 0", "datamin"),
            ("--datamin 3000", "datamin"),
            ("--datamax 32729", "datamax"),
            ("--timevar 61", "timevar"),
            ("--timeout 604796", "timeout"),
            ("--clients 0", "clients"),
            ("--pipeline 0", "pipeline"),
            ("--pipeline 2", "pipeline"),
            ("--pipeline 11 --persistent", "pipeline"),
            ("--answer-timeout 0", "answer-timeout"),
        ] {
            assert_eq!(parse(line).check().unwrap_err().0, option, "{line}");
        }
        assert_eq!(parse("--pipeline 10 --persistent --datamax 32728 --timeout 604795").check(), Ok(()));
    }
}
