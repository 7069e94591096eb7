//! The options of the log.

use clap::{Args, ValueEnum};
use dc_cli::ValueError;
use dc_cli::nearest;
use tracing_subscriber::EnvFilter;

const TAKES: &str = "error, warn, info, debug, trace or off, or TARGET=LEVEL, separated by commas";
const DEFAULT: &str = "info";
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// The filter, format and destination of the log.
#[derive(Args, Clone, Debug)]
pub struct LogOptions {
    /// What to log: a level, or TARGET=LEVEL, separated by commas.
    #[arg(id = "log_filter", long = "log", value_name = "FILTER", default_value = DEFAULT, value_parser = LogFilter::parse)]
    pub filter: LogFilter,
    /// Log line format: text or json.
    #[arg(id = "log_format", long = "log-format", value_name = "FORMAT", default_value = "text")]
    pub format: LogFormat,
    /// Log to the local syslog instead of stderr.
    #[arg(long)]
    pub syslog: bool,
    /// Log at debug level (overrides -log).
    #[arg(long)]
    pub debug: bool,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For human readers: time, level, message, fields.
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// A valid filter of events, in the syntax of `tracing_subscriber::EnvFilter`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogFilter(String);

impl LogFilter {
    /// Parses a filter. White space around its items is ignored.
    ///
    /// # Errors
    ///
    /// The text is not a filter. A target without a level is refused, since it is usually a misspelt level.
    pub fn parse(text: &str) -> Result<Self, ValueError> {
        let words: Vec<&str> = text.split(',').map(str::trim).collect();
        for word in &words {
            check(word)?;
        }
        let text = words.join(",");
        match EnvFilter::builder().parse(&text) {
            Ok(_) => Ok(Self(text)),
            Err(_) => Err(wrong()),
        }
    }

    /// The filter as configured, without white space.
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
    /// The effective filter of these options.
    pub(crate) fn env_filter(&self) -> EnvFilter {
        let text = if self.debug { "debug" } else { self.filter.as_str() };
        // The text was validated before; `new` would drop invalid items.
        EnvFilter::new(with_moved_targets(text))
    }
}

/// The filter `text`, where targets of release 2.0 still mean their modules: the daemons' modules moved from
/// `libdc` to `dc_daemon`. A filter that names `dc_daemon` stays as it is.
fn with_moved_targets(text: &str) -> String {
    let mut items: Vec<String> = text.split(',').map(str::to_owned).collect();
    if items.iter().any(|item| item.starts_with("dc_daemon")) {
        return text.to_owned();
    }
    let levels: Vec<String> = items.iter().filter_map(|item| level_of_moved(item)).collect();
    items.extend(levels.last().map(|level| format!("dc_daemon={level}")));
    items.join(",")
}

/// The level of an item whose target named modules that have moved.
fn level_of_moved(item: &str) -> Option<String> {
    let (target, level) = item.split_once('=')?;
    let moved = target == "libdc" || target.starts_with("libdc::net") || target.starts_with("libdc::process");
    moved.then(|| level.to_owned())
}

/// An item is a level, or a target with a level.
fn check(word: &str) -> Result<(), ValueError> {
    let (target, level) = match word.rsplit_once('=') {
        Some((target, level)) => (Some(target), level.to_lowercase()),
        None => (None, word.to_lowercase()),
    };
    if let Some(target) = target {
        // The fields of a span may contain white space.
        let name = target.split('[').next().unwrap_or_default();
        if target.is_empty() || name.contains(char::is_whitespace) || target.ends_with(char::is_whitespace) {
            return Err(wrong());
        }
    }
    if LEVELS.contains(&level.as_str()) {
        return Ok(());
    }
    match nearest(&level, LEVELS.map(str::to_owned)) {
        Some(level) => Err(ValueError::new(format!("is not a filter: \"{level}\" may be meant"), TAKES)),
        None => Err(wrong()),
    }
}

fn wrong() -> ValueError {
    ValueError::new("is not a filter", TAKES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_targets_are_valid_filters() {
        for text in
            ["info", "WARN", "off", "libdc::net=debug,info", "dc_client=off", "warn,[request{uid=7}]=trace"]
        {
            assert_eq!(LogFilter::parse(text).map(|filter| filter.as_str().to_owned()), Ok(text.to_owned()));
        }
    }

    #[test]
    fn targets_of_moved_modules_cover_dc_daemon() {
        for (text, effective) in [
            ("libdc=debug,info", "libdc=debug,info,dc_daemon=debug"),
            ("warn,libdc::net::server=trace", "warn,libdc::net::server=trace,dc_daemon=trace"),
            ("libdc::wire=debug", "libdc::wire=debug"),
            ("libdc=debug,dc_daemon=off", "libdc=debug,dc_daemon=off"),
            ("dc_client=off", "dc_client=off"),
        ] {
            assert_eq!(with_moved_targets(text), effective);
        }
    }

    #[test]
    fn filter_ignores_surrounding_white_space() {
        let filter = LogFilter::parse(" info , libdc=debug ").unwrap();
        assert_eq!(filter.as_str(), "info,libdc=debug");
    }

    #[test]
    fn invalid_filter_error_lists_the_syntax() {
        for text in [
            "",
            " ",
            ",",
            "info,",
            ",info",
            "info,,libdc=debug",
            "libdc=loud",
            "=",
            "=info",
            "libdc=",
            "a=b=c",
            "verbose",
            "notice",
            "quiet",
            "dc_client",
            "info,dc_client",
            "[request{uid=7}]",
            "info libdc=debug",
            "libdc =debug",
        ] {
            let error = LogFilter::parse(text).unwrap_err().to_string();
            assert_eq!(error, format!("is not a filter; it takes {TAKES}"), "{text}");
        }
    }

    #[test]
    fn misspelt_level_is_not_a_target() {
        for (text, level) in [
            ("inof", "info"),
            ("warning", "warn"),
            ("libdc=debug,tarce", "trace"),
            ("libdc=inof", "info"),
            ("libdc= debug", "debug"),
        ] {
            let error = LogFilter::parse(text).unwrap_err().to_string();
            assert!(
                error.starts_with(&format!("is not a filter: \"{level}\" may be meant")),
                "{text}: {error}"
            );
        }
    }
}
