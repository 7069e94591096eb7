//! Mistakes on the command line and in the environment, each told in one line.
//!
//! A line names the option, says what is wrong with its value and what it takes. What the user wrote is
//! quoted with its control characters escaped and cut to [`QUOTED_CHARS_MAX`], so that a mistake stays one line
//! whatever was written. The value of an option that is a secret is not shown.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use thiserror::Error;

/// Most characters of a user's word that a message repeats.
pub const QUOTED_CHARS_MAX: usize = 80;

/// What is wrong with what a program was given. Its text is one line, without the program's name.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum UsageError {
    /// There is no such option.
    #[error("-{option} is not an option{}", also(nearest.as_ref().map(|name| format!("did you mean -{name}?"))))]
    UnknownOption {
        /// What was written, without dashes.
        option: String,
        /// The option that may have been meant.
        nearest: Option<String>,
    },
    /// A word that is no option, where the program takes nothing else, or no more.
    #[error("\"{word}\" is not an option, and nothing else is taken there")]
    StrayWord {
        /// The word.
        word: String,
    },
    /// An option that takes a value has none.
    #[error("{place} needs a value{}", also(takes.as_ref().map(|takes| format!("it takes {takes}"))))]
    MissingValue {
        /// The option.
        place: ArgSource,
        /// What it takes.
        takes: Option<String>,
    },
    /// An option that takes no value has one.
    #[error("-{option} takes no value")]
    UnexpectedValue {
        /// The option, without dashes.
        option: String,
    },
    /// An option that may be given once was given again.
    #[error("{place} was already given{}, and is taken once", before.as_ref().map_or_else(String::new, |before| format!(" as {before}")))]
    GivenTwice {
        /// The second time.
        place: ArgSource,
        /// The first time, if it looked different.
        before: Option<String>,
    },
    /// The value of an option is not what it takes.
    #[error("{place}{} {value}", shown.as_ref().map_or_else(String::new, |shown| format!(" \"{shown}\"")))]
    Value {
        /// The option.
        place: ArgSource,
        /// Its value, unless it is a secret.
        shown: Option<String>,
        /// What is wrong with it.
        value: ValueError,
    },
    /// A word that is no option is not what is taken there.
    #[error("{name} \"{shown}\" {value}")]
    Operand {
        /// What stands for it in the usage.
        name: String,
        /// The word.
        shown: String,
        /// What is wrong with it.
        value: ValueError,
    },
    /// An option that must be given is not there.
    #[error("{option} is required{}", also(takes.as_ref().map(|takes| format!("it takes {takes}"))))]
    MissingOption {
        /// The option with all its names.
        option: String,
        /// What it takes.
        takes: Option<String>,
    },
    /// An option that another one calls for is not there.
    #[error("{option} is needed with {}", with.as_ref().map_or_else(|| "what else is given".to_owned(), ArgSource::to_string))]
    MissingCompanion {
        /// The option.
        option: String,
        /// The one that calls for it, where that is known.
        with: Option<ArgSource>,
    },
    /// Two options may not be given together.
    #[error("{place} and {other} exclude each other")]
    Excluded {
        /// The one.
        place: ArgSource,
        /// The other.
        other: ArgSource,
    },
    /// Each option is right alone, but not with the others: found by [`CommandOptions::check`](crate::CommandOptions::check).
    #[error("-{option} {wrong}")]
    Inconsistent {
        /// The option, without dashes.
        option: &'static str,
        /// What is wrong with it, as a predicate.
        wrong: Cow<'static, str>,
    },
    /// Anything else that clap refuses.
    #[error("{0}")]
    Refused(String),
}

impl UsageError {
    /// The option `option` (without dashes) does not go with the others. `wrong` is a predicate: "is below -datamin".
    #[must_use]
    pub fn inconsistent(option: &'static str, wrong: impl Into<Cow<'static, str>>) -> Self {
        Self::Inconsistent { option, wrong: wrong.into() }
    }
}

/// An option where it was given: on the command line or in an environment variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ArgSource {
    /// The option's name without dashes.
    pub option: String,
    /// The variable, if it was not the command line.
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

/// A value that an option does not take. A parser of values returns it, and the message names the option.
///
/// Its text reads on behind the value: `is not a duration; it takes 1 to 3600000 milliseconds`.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("{wrong}{}", also(takes.as_ref().map(|takes| format!("it takes {takes}"))))]
pub struct ValueError {
    /// What is wrong with the value, as a predicate: `is too large`.
    pub wrong: Cow<'static, str>,
    /// What the option takes: `1 to 3600000 milliseconds`. `None` where `wrong` says it all.
    pub takes: Option<Cow<'static, str>>,
}

impl ValueError {
    /// The value `wrong` ("is too large"), where the option takes `takes` ("a number from 1 to 9").
    #[must_use]
    pub fn new(wrong: impl Into<Cow<'static, str>>, takes: impl Into<Cow<'static, str>>) -> Self {
        Self { wrong: wrong.into(), takes: Some(takes.into()) }
    }
}

/// What the user wrote, fit for a line of a terminal or a log.
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
