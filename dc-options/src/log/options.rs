//! The options of the log.

use crate::mistake::BadValue;
use crate::vocabulary::nearest;
use clap::{Args, ValueEnum};
use tracing_subscriber::EnvFilter;

const TAKES: &str = "error, warn, info, debug, trace or off, or TARGET=LEVEL, separated by commas";
const DEFAULT: &str = "info";
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// What is logged, how and where to.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// What to log: a level, or TARGET=LEVEL, separated by commas.
    #[arg(id = "log_filter", long = "log", value_name = "FILTER", default_value = DEFAULT, value_parser = LogFilter::parse)]
    pub filter: LogFilter,
    /// How to write a line of the log: text or json.
    #[arg(id = "log_format", long = "log-format", value_name = "FORMAT", default_value = "text")]
    pub format: LogFormat,
    /// Log to the local syslog instead of stderr.
    #[arg(long)]
    pub syslog: bool,
    /// Log what helps to find a fault, whatever -log says.
    #[arg(long)]
    pub debug: bool,
}

/// How a line of the log is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people: time, level, message, fields.
    Text,
    /// For programs: one JSON object.
    Json,
}

/// Which events are logged, in the syntax of `tracing_subscriber::EnvFilter`. It has been read once and is right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// The filter that `text` is.
    ///
    /// # Errors
    ///
    /// It is not a filter. A word that is nearly a level is not taken for the name of a target.
    pub fn parse(text: &str) -> Result<Self, BadValue> {
        for word in text.split(',').map(str::trim) {
            let lower = word.to_lowercase();
            if LEVELS.contains(&lower.as_str()) {
                continue;
            }
            if let Some(level) = nearest(&lower, LEVELS.map(str::to_owned)) {
                return Err(BadValue::new(format!("is not a filter: \"{level}\" may be meant"), TAKES));
            }
        }
        if text.trim().is_empty() {
            return Err(BadValue::new("is not a filter", TAKES));
        }
        match EnvFilter::builder().parse(text) {
            Ok(_) => Ok(Self(text.to_owned())),
            Err(_) => Err(BadValue::new("is not a filter", TAKES)),
        }
    }

    /// The filter as it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for LogFilter {
    fn default() -> Self {
        Self(DEFAULT.to_owned())
    }
}

impl LogOptions {
    /// The filter that these options come to.
    pub(crate) fn env_filter(&self) -> EnvFilter {
        let text = if self.debug { "debug" } else { self.filter.as_str() };
        // The text was parsed before; `new` would leave out what it could not read.
        EnvFilter::new(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_filters() {
        for text in
            ["info", "WARN", "off", "libdc::net=debug,info", "dc_client", "warn,[request{uid=7}]=trace"]
        {
            assert_eq!(LogFilter::parse(text).map(|filter| filter.as_str().to_owned()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn a_filter_that_is_wrong_says_what_it_takes() {
        for text in ["", " ", "libdc=loud", "=", "a=b=c"] {
            let error = LogFilter::parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("is not a filter; it takes {TAKES}"), "{text}");
        }
    }

    #[test]
    fn a_level_with_a_slip_is_not_a_target() {
        for (text, level) in [("inof", "info"), ("warning", "warn"), ("libdc=debug,tarce", "trace")] {
            let error = LogFilter::parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("is not a filter: \"{level}\" may be meant")),
                "{text}: {error}"
            );
        }
    }
}
