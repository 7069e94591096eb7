//! Usage errors of the command line and the environment, one line each.
//!
//! A line names the option, the error in its value and the values that it takes. User input is quoted, with
//! control characters escaped, and truncated to [`QUOTED_CHARS_MAX`], so that every message stays one line.
//! The value of a secret option is not shown.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use thiserror::Error;

/// The maximum number of characters of a word quoted in a message.
pub const QUOTED_CHARS_MAX: usize = 80;

/// A usage error. Displayed as one line, without the name of the program.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    /// The option does not exist.
    #[error("-{option} is not an option{}", also(nearest.as_ref().map(|name| format!("did you mean -{name}?"))))]
    UnknownOption {
        /// The option as written, without dashes.
        option: String,
        /// The most similar option, if there is one.
        nearest: Option<String>,
    },
    /// A word is not an option, and no (further) operand is expected.
    #[error("\"{word}\" is not an option, and no operand is expected there")]
    StrayWord {
        /// The word, quoted for display.
        word: String,
    },
    /// An option that needs a value has none.
    #[error("{place} needs a value{}", also(takes.as_ref().map(|takes| format!("it takes {takes}"))))]
    MissingValue {
        /// The option and its source.
        place: ArgSource,
        /// A description of the values it takes.
        takes: Option<String>,
    },
    /// A flag was given a value.
    #[error("-{option} takes no value")]
    UnexpectedValue {
        /// The name of the option, without dashes.
        option: String,
    },
    /// An option that is not repeatable was given twice.
    #[error("{place} was already given{}, and is not repeatable", before.as_ref().map_or_else(String::new, |before| format!(" as {before}")))]
    GivenTwice {
        /// The second occurrence of the option.
        place: ArgSource,
        /// The first occurrence, if it has another name or source.
        before: Option<String>,
    },
    /// An option does not take this value.
    #[error("{place}{} {value}", shown.as_ref().map_or_else(String::new, |shown| format!(" \"{shown}\"")))]
    Value {
        /// The option and its source.
        place: ArgSource,
        /// The value; `None` for a secret option.
        shown: Option<String>,
        /// The reason, as a predicate.
        value: ValueError,
    },
    /// An operand is invalid.
    #[error("{name} \"{shown}\" {value}")]
    Operand {
        /// The name of the operand in the usage line.
        name: String,
        /// The operand, quoted for display.
        shown: String,
        /// The reason, as a predicate.
        value: ValueError,
    },
    /// A required option is missing.
    #[error("{option} is required{}", also(takes.as_ref().map(|takes| format!("it takes {takes}"))))]
    MissingOption {
        /// All names of the option, with dashes.
        option: String,
        /// A description of the values it takes.
        takes: Option<String>,
    },
    /// An option required by another one is missing.
    #[error("{option} is required by {}", with.as_ref().map_or_else(|| "another option".to_owned(), ArgSource::to_string))]
    MissingCompanion {
        /// All names of the missing option, with dashes.
        option: String,
        /// The option that requires it, if known.
        with: Option<ArgSource>,
    },
    /// Two options conflict.
    #[error("{place} and {other} exclude each other")]
    Excluded {
        /// One of the options.
        place: ArgSource,
        /// The conflicting option.
        other: ArgSource,
    },
    /// Each option is valid alone, but not in combination: found by
    /// [`CommandOptions::check`](crate::CommandOptions::check).
    #[error("-{option} {wrong}")]
    Inconsistent {
        /// The name of the option, without dashes.
        option: &'static str,
        /// The reason, as a predicate.
        wrong: Cow<'static, str>,
    },
    /// Any other error of clap, in one line.
    #[error("{0}")]
    Refused(String),
}

impl UsageError {
    /// The option `option` (without dashes) is invalid in combination with the others. `wrong` is a
    /// predicate: "is below -datamin".
    #[must_use]
    pub fn inconsistent(option: &'static str, wrong: impl Into<Cow<'static, str>>) -> Self {
        Self::Inconsistent { option, wrong: wrong.into() }
    }
}

/// An option and its source: the command line or an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgSource {
    /// The name of the option, without dashes.
    pub option: String,
    /// The environment variable; `None` for the command line.
    pub variable: Option<String>,
}

impl fmt::Display for ArgSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "-{}", self.option)?;
        match &self.variable {
            Some(variable) => write!(f, " (from {variable})"),
            None => Ok(()),
        }
    }
}

/// A value that an option does not take. Value parsers return it, and the message adds the name of the
/// option.
///
/// The text continues the sentence after the value: `is not a duration; it takes 1 to 3600000 milliseconds`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{wrong}{}", also(takes.as_ref().map(|takes| format!("it takes {takes}"))))]
pub struct ValueError {
    /// The reason, as a predicate: `is too large`.
    pub wrong: Cow<'static, str>,
    /// The values that the option takes: `1 to 3600000 milliseconds`. `None` if `wrong` is sufficient.
    pub takes: Option<Cow<'static, str>>,
}

impl ValueError {
    /// A value with the error `wrong` ("is too large"), of an option that takes `takes` ("a number from 1 to
    /// 9").
    #[must_use]
    pub fn new(wrong: impl Into<Cow<'static, str>>, takes: impl Into<Cow<'static, str>>) -> Self {
        Self { wrong: wrong.into(), takes: Some(takes.into()) }
    }
}

/// Escapes and truncates user input for a line of a terminal or log.
pub(crate) fn printable(text: &OsStr) -> String {
    let text = text.to_string_lossy();
    let mut out: String = text.chars().take(QUOTED_CHARS_MAX).flat_map(char::escape_debug).collect();
    if text.chars().nth(QUOTED_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

fn also(text: Option<String>) -> String {
    text.map_or_else(String::new, |text| format!("; {text}"))
}
