//! Parsing of the command line: words are sorted into options and operands before clap sees them.
//!
//! An option has one dash or two, and its value after `=` or as the next word. The word after an option that
//! needs a value is always its value, even with a leading dash. After an option with an optional value, a
//! word with a dash is the next option. A switch takes no further word, but may have 1, yes, true or on, or
//! 0, no, false or off after `=`. `--` ends the options. A request for help counts anywhere, even after an
//! error; a request for completions only without errors. Nothing here panics.

use crate::error::{ArgSource, UsageError, ValueError, printable};
use crate::shell::Shell;
use crate::spec::{self, ArgKind, CommandSpec, KnownArg};
use crate::switch::{SWITCH_TAKES, is_on};
use clap::Arg;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// The result of parsing a command line.
#[derive(Debug)]
pub(crate) enum ParsedLine<'c> {
    /// Print the page of `-help`.
    Help,
    /// Print the version of the program.
    Version,
    /// Print the completion script for this shell.
    Completions(Shell),
    /// Run with these options and operands.
    Run(ArgWords<'c>),
}

/// The words of a command line, sorted.
#[derive(Debug, Default)]
pub(crate) struct ArgWords<'c> {
    /// The options in the order of the command line.
    pub(crate) given: Vec<GivenArg<'c>>,
    /// The words that are not options.
    pub(crate) operands: Vec<OsString>,
    /// The words after `--`; `None` without it.
    pub(crate) rest: Option<Vec<OsString>>,
}

/// One option as it was given.
#[derive(Clone, Debug)]
pub(crate) struct GivenArg<'c> {
    pub(crate) option: &'c Arg,
    /// Empty for a flag, and for an option without its optional value.
    pub(crate) value: OsString,
    pub(crate) source: WordSource,
}

/// The source of an option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum WordSource {
    /// The command line, with this name.
    Line(String),
    /// The environment variable with this name.
    Variable(String),
}

impl GivenArg<'_> {
    /// The source for messages.
    pub(crate) fn source(&self) -> ArgSource {
        match &self.source {
            WordSource::Line(name) => ArgSource { option: name.clone(), variable: None },
            WordSource::Variable(variable) => {
                ArgSource { option: spec::name(self.option), variable: Some(variable.clone()) }
            }
        }
    }
}

/// Parses `args`, the words after the program's own name.
///
/// # Errors
///
/// The first error, unless help or the version is requested.
pub(crate) fn read<'c>(
    vocabulary: CommandSpec<'c>,
    args: impl IntoIterator<Item = OsString>,
) -> Result<ParsedLine<'c>, UsageError> {
    let words = ArgWords::default();
    let mut reader = ArgReader { vocabulary, words, help: false, version: false, completions: None };
    let mut first_mistake = None;
    let mut args = args.into_iter().peekable();
    while let Some(word) = args.next() {
        if word == "--" {
            reader.words.rest = Some(args.collect());
            break;
        }
        if let Err(mistake) = reader.word(&word, &mut args) {
            first_mistake.get_or_insert(mistake);
        }
    }
    match first_mistake {
        _ if reader.help => Ok(ParsedLine::Help),
        _ if reader.version => Ok(ParsedLine::Version),
        Some(mistake) => Err(mistake),
        None => Ok(reader.completions.map_or(ParsedLine::Run(reader.words), ParsedLine::Completions)),
    }
}

struct ArgReader<'c> {
    vocabulary: CommandSpec<'c>,
    words: ArgWords<'c>,
    help: bool,
    version: bool,
    completions: Option<Shell>,
}

impl<'c> ArgReader<'c> {
    fn word(
        &mut self,
        word: &OsStr,
        following: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
    ) -> Result<(), UsageError> {
        let Some((name, value)) = split(word) else {
            if self.vocabulary.operands().next().is_none() {
                return Err(UsageError::StrayWord { word: printable(word) });
            }
            self.words.operands.push(word.to_owned());
            return Ok(());
        };
        match name.as_str() {
            "h" | "help" | "?" => self.help = true,
            "version" => self.version = true,
            "completions" => {
                let value = value.or_else(|| following.next()).unwrap_or_default();
                self.completions = Some(shell(name, &value)?);
            }
            _ => self.option(name, value, following)?,
        }
        Ok(())
    }

    fn option(
        &mut self,
        name: String,
        value: Option<OsString>,
        following: &mut std::iter::Peekable<impl Iterator<Item = OsString>>,
    ) -> Result<(), UsageError> {
        let Some(known) = self.vocabulary.find(&name) else {
            let nearest = self.vocabulary.nearest(&name);
            return Err(UsageError::UnknownOption { option: printable(OsStr::new(&name)), nearest });
        };
        let value = match (spec::shape(known.option), value) {
            (ArgKind::Flag, Some(_)) => return Err(UsageError::UnexpectedValue { option: name }),
            (ArgKind::Switch, Some(value)) => switched(known, &name, &value)?,
            (ArgKind::Flag, None) => OsString::new(),
            (ArgKind::Switch, None) => OsString::from(if known.negated { "false" } else { "true" }),
            (ArgKind::Value | ArgKind::OptionalValue, Some(value)) => value,
            (ArgKind::Value, None) => following.next().unwrap_or_default(),
            (ArgKind::OptionalValue, None) => {
                following.next_if(|next| split(next).is_none() && next != "--").unwrap_or_default()
            }
        };
        self.words.given.push(GivenArg { option: known.option, value, source: WordSource::Line(name) });
        Ok(())
    }
}

/// The value of a switch written as `name` and `value`: `true` or `false`.
fn switched(known: KnownArg<'_>, name: &str, value: &OsStr) -> Result<OsString, UsageError> {
    let place = || ArgSource { option: name.to_owned(), variable: None };
    if value.is_empty() {
        return Err(UsageError::MissingValue { place: place(), takes: Some(SWITCH_TAKES.to_owned()) });
    }
    let on = is_on(value, false).map_err(|wrong| UsageError::Value {
        place: place(),
        shown: Some(printable(value)),
        value: wrong,
    })?;
    Ok(OsString::from(if on != known.negated { "true" } else { "false" }))
}

/// The shell named by `value`, the value of the option `name`.
fn shell(name: String, value: &OsStr) -> Result<Shell, UsageError> {
    let place = ArgSource { option: name, variable: None };
    if value.is_empty() {
        return Err(UsageError::MissingValue { place, takes: Some(Shell::TAKES.to_owned()) });
    }
    let wrong = || ValueError::new("is not a supported shell", Shell::TAKES);
    Shell::named(value).ok_or_else(|| UsageError::Value {
        place,
        shown: Some(printable(value)),
        value: wrong(),
    })
}

/// Splits `word` into the name of an option and the value after `=`; `None` if it is not an option.
fn split(word: &OsStr) -> Option<(String, Option<OsString>)> {
    let bytes = word.as_bytes().strip_prefix(b"-")?;
    let bytes = bytes.strip_prefix(b"-").unwrap_or(bytes);
    if bytes.is_empty() {
        return None;
    }
    let (name, value) = match bytes.iter().position(|&byte| byte == b'=') {
        Some(at) => (&bytes[..at], Some(OsString::from_vec(bytes[at + 1..].to_vec()))),
        None => (bytes, None),
    };
    Some((String::from_utf8_lossy(name).into_owned(), value))
}
