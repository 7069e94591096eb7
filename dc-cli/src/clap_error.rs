//! Conversion of clap's errors to [`UsageError`].
//!
//! clap parses only words that have been sorted, so its errors concern values, required options and
//! conflicts. Such an error names an option in clap's own notation, and carries the error of the value
//! parser.

use crate::argv::GivenArg;
use crate::error::{ArgSource, UsageError, ValueError, printable};
use crate::spec::{self, ArgKind, CommandSpec};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command};
use std::any::TypeId;
use std::error::Error as _;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// Converts `error`, which clap returned for `given`.
pub(crate) fn mistake(error: &clap::Error, command: &Command, given: &[GivenArg<'_>]) -> UsageError {
    let vocabulary = CommandSpec::new(command);
    let refused = || UsageError::Refused(one_line(error));
    let shown = shown(error.get(ContextKind::InvalidArg));
    let Some(option) = shown.first().and_then(|shown| vocabulary.find_shown(shown)) else {
        return match (error.kind(), shown.first()) {
            (ErrorKind::UnknownArgument, Some(word)) => {
                UsageError::StrayWord { word: printable(OsStr::new(word)) }
            }
            _ => refused(),
        };
    };
    match error.kind() {
        ErrorKind::ValueValidation | ErrorKind::InvalidValue => {
            let value = string(error.get(ContextKind::InvalidValue)).unwrap_or_default();
            if option.is_positional() {
                let shown = printable(OsStr::new(value));
                return UsageError::Operand { name: all_names(option), shown, value: reason(error) };
            }
            let shown = (!spec::is_secret(option)).then(|| printable(OsStr::new(value)));
            UsageError::Value { place: place_of(option, Some(value), given), shown, value: reason(error) }
        }
        ErrorKind::MissingRequiredArgument if option.is_required_set() => {
            UsageError::MissingOption { option: all_names(option), takes: takes(command, option) }
        }
        ErrorKind::MissingRequiredArgument => {
            let with = given
                .iter()
                .find(|given| calls_for(command, given, option))
                .map(super::argv::GivenArg::source);
            UsageError::MissingCompanion { option: all_names(option), with }
        }
        ErrorKind::ArgumentConflict => {
            let prior = self::shown(error.get(ContextKind::PriorArg));
            match prior.first().and_then(|prior| vocabulary.find_shown(prior)) {
                Some(other) => UsageError::Excluded {
                    place: place_of(option, None, given),
                    other: place_of(other, None, given),
                },
                None => refused(),
            }
        }
        _ => refused(),
    }
}

/// Whether `given` requires `option`, according to clap's error for `given` alone.
fn calls_for(command: &Command, given: &GivenArg<'_>, option: &Arg) -> bool {
    let words = [OsString::from(command.get_name()), spec::for_clap(given.option, &given.value)];
    command.clone().try_get_matches_from(words).is_err_and(|error| {
        error.kind() == ErrorKind::MissingRequiredArgument
            && shown(error.get(ContextKind::InvalidArg)).contains(&option.to_string().as_str())
    })
}

/// The values that `option` takes, from its value parser or, if that accepts any value, its metavariable;
/// `None` for an operand.
pub(crate) fn takes(command: &Command, option: &Arg) -> Option<String> {
    if option.is_positional() {
        return None;
    }
    // The parsers of this crate describe their values in the error for an empty value.
    let words = [OsString::from(command.get_name()), spec::for_clap(option, &OsString::new())];
    let error = command.clone().try_get_matches_from(words).err();
    let known = error.filter(|error| {
        let shown = shown(error.get(ContextKind::InvalidArg));
        matches!(error.kind(), ErrorKind::ValueValidation | ErrorKind::InvalidValue)
            && shown.first().is_some_and(|shown| *shown == option.to_string())
    });
    known
        .and_then(|error| reason(&error).takes.map(String::from))
        .or_else(|| spec::metavariable(option).map(|name| format!("a {name}")))
}

/// Refuses a value that is not UTF-8, unless the option takes any bytes: clap's error would not name the
/// option.
///
/// # Errors
///
/// The value is not UTF-8.
pub(crate) fn is_text(given: &GivenArg<'_>) -> Result<(), UsageError> {
    if spec::shape(given.option) == ArgKind::Flag || may_be(given.option, &given.value) {
        return Ok(());
    }
    let shown = (!spec::is_secret(given.option)).then(|| printable(&given.value));
    Err(UsageError::Value { place: given.source(), shown, value: not_text() })
}

/// As [`is_text`], for an operand.
///
/// # Errors
///
/// The word is not UTF-8.
pub(crate) fn is_text_operand(operand: &Arg, word: &OsStr) -> Result<(), UsageError> {
    if may_be(operand, word) {
        return Ok(());
    }
    Err(UsageError::Operand { name: all_names(operand), shown: printable(word), value: not_text() })
}

/// Whether `value` is UTF-8, or `option` takes any bytes.
fn may_be(option: &Arg, value: &OsStr) -> bool {
    let takes = option.get_value_parser().type_id();
    takes == TypeId::of::<PathBuf>() || takes == TypeId::of::<OsString>() || value.to_str().is_some()
}

fn not_text() -> ValueError {
    ValueError { wrong: "is not UTF-8".into(), takes: None }
}

fn reason(error: &clap::Error) -> ValueError {
    if let Some(source) = error.source() {
        return match source.downcast_ref::<ValueError>() {
            Some(value) => value.clone(),
            None => ValueError { wrong: format!("is not right: {source}").into(), takes: None },
        };
    }
    let possible = shown(error.get(ContextKind::ValidValue));
    match possible.split_last() {
        Some((last, [])) => ValueError::new("is not known", last.to_string()),
        Some((last, others)) => ValueError::new("is not known", format!("{} or {last}", others.join(", "))),
        None => ValueError { wrong: "is not right".into(), takes: None },
    }
}

/// The source of `option`; if it was given several times, of the occurrence with this value.
fn place_of(option: &Arg, value: Option<&str>, given: &[GivenArg<'_>]) -> ArgSource {
    let mut of_option = given.iter().filter(|given| given.option.get_id() == option.get_id());
    let same = of_option.clone().find(|given| value.is_some_and(|value| given.value == value));
    match same.or_else(|| of_option.next()) {
        Some(given) => given.source(),
        None => ArgSource { option: spec::name(option), variable: None },
    }
}

fn all_names(option: &Arg) -> String {
    if option.is_positional() {
        return option.get_id().to_string().to_uppercase();
    }
    let names: Vec<_> = spec::names(option).map(|name| format!("-{name}")).collect();
    names.join(" or ")
}

fn shown(context: Option<&ContextValue>) -> Vec<&str> {
    match context {
        Some(ContextValue::String(text)) => vec![text],
        Some(ContextValue::Strings(texts)) => texts.iter().map(String::as_str).collect(),
        _ => Vec::new(),
    }
}

fn string(context: Option<&ContextValue>) -> Option<&str> {
    shown(context).first().copied()
}

/// The first line of clap's message, without the `error: ` prefix.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}
