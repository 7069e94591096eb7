//! Parsing of a program's options.
//!
//! [`ProgramInfo::try_parse`] is pure: it gets the command line and the environment as values, and returns
//! the options or an [`Exit`]. [`ProgramInfo::parse`] uses those of the process and acts on the `Exit`.
//! `argv` and `env` sort the words; clap converts them to the struct of the program.

use crate::argv::{self, ArgWords, GivenArg, ParsedLine, WordSource};
use crate::env::Environment;
use crate::error::UsageError;
use crate::help::{self, OptionHelp};
use crate::program::{CommandOptions, FURTHER, ProgramInfo, VERSION};
use crate::spec::{self, ArgKind, CommandSpec};
use crate::{clap_error, completions, exit::Exit};
use clap::Command;
use std::collections::HashMap;
use std::ffi::OsString;

impl ProgramInfo {
    /// The options of the process. If there are none to run with (help was requested, or there is a usage
    /// error), prints the text and exits: see [`Exit::exit`].
    #[must_use]
    pub fn parse<T: CommandOptions>(&self) -> T {
        let args = std::env::args_os().skip(1);
        self.try_parse(args, |name| std::env::var_os(name)).unwrap_or_else(|stop| stop.exit())
    }

    /// Parses `args` (the words after the program name) and the environment. `variable` returns the value of
    /// a variable.
    ///
    /// # Errors
    ///
    /// The text to print and the exit status, if the program should not run.
    pub fn try_parse<T: CommandOptions>(
        &self,
        args: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<T, Exit> {
        let command = self.command::<T>();
        let vocabulary = CommandSpec::new(&command);
        let line = match argv::read(vocabulary, args) {
            Ok(ParsedLine::Help) => return Err(Exit::Answer(help::page(self, &command))),
            Ok(ParsedLine::Version) => return Err(Exit::Answer(format!("{} {VERSION}\n", self.name))),
            Ok(ParsedLine::Completions(shell)) => {
                return Err(Exit::Answer(completions::script(self, &command, shell)));
            }
            Ok(ParsedLine::Run(words)) => Ok(words),
            Err(mistake) => Err(mistake),
        };
        line.and_then(|words| self.resolve::<T>(&command, words, &variable))
            .map_err(|mistake| Exit::Mistake(format!("{}: {mistake}\n", self.name)))
    }

    /// The options of this program, in its order; a test compares them with the manual.
    #[must_use]
    pub fn options<T: CommandOptions>(&self) -> Vec<OptionHelp> {
        let command = self.command::<T>();
        CommandSpec::new(&command).options().map(|option| OptionHelp::new(self, &command, option)).collect()
    }

    /// The page that `-help` prints.
    #[must_use]
    pub fn usage<T: CommandOptions>(&self) -> String {
        help::page(self, &self.command::<T>())
    }

    fn command<T: CommandOptions>(&self) -> Command {
        let bare = Command::new(self.name).disable_help_flag(true).disable_version_flag(true);
        // This crate handles order and repetition; clap treats help and version as ordinary words.
        let mut command = T::augment_args(bare).disable_help_subcommand(true).args_override_self(true);
        command.build();
        command
    }

    fn resolve<T: CommandOptions>(
        &self,
        command: &Command,
        words: ArgWords<'_>,
        lookup: &dyn Fn(&str) -> Option<OsString>,
    ) -> Result<T, UsageError> {
        let vocabulary = CommandSpec::new(command);
        once_each(&words.given)?;
        let further = [self.variables, FURTHER].concat();
        let environment = Environment { prefix: self.env_prefix, further: &further, lookup };
        let mut given = environment.complete(vocabulary, words.given)?;
        given.extend(T::additions(lookup).into_iter().filter_map(|addition| {
            let option = vocabulary.find(addition.option)?.option;
            Some(GivenArg { option, value: addition.value, source: WordSource::Variable(addition.variables) })
        }));
        for given in &given {
            has_value(command, given)?;
        }
        for (operand, word) in vocabulary.operands().zip(&words.operands) {
            clap_error::is_text_operand(operand, word)?;
        }
        let line = std::iter::once(OsString::from(self.name))
            .chain(given.iter().map(|given| spec::for_clap(given.option, &given.value)))
            .chain(words.operands)
            .chain(
                words
                    .rest
                    .into_iter()
                    .filter(|rest| !rest.is_empty())
                    .flat_map(|rest| std::iter::once(OsString::from("--")).chain(rest)),
            );
        let parsed =
            command.clone().try_get_matches_from(line).and_then(|matches| T::from_arg_matches(&matches));
        let options = parsed.map_err(|error| clap_error::mistake(&error, command, &given))?;
        options.check()?;
        Ok(options)
    }
}

/// An option with a value is given once, unless it is repeatable. A repeated flag has no effect, and the last
/// value of a switch is used.
fn once_each(line: &[GivenArg<'_>]) -> Result<(), UsageError> {
    let mut seen = HashMap::new();
    for given in line {
        let once = matches!(spec::shape(given.option), ArgKind::Value | ArgKind::OptionalValue)
            && !spec::is_repeatable(given.option);
        let again = given.source();
        if let Some(before) = seen.insert(given.option.get_id(), again.option.clone())
            && once
        {
            let before = (before != again.option).then(|| format!("-{before}"));
            return Err(UsageError::GivenTwice { place: again, before });
        }
    }
    Ok(())
}

/// Checks that an option has the value it needs, and that the value is UTF-8 if required.
fn has_value(command: &Command, given: &GivenArg<'_>) -> Result<(), UsageError> {
    if spec::shape(given.option) == ArgKind::Value && given.value.is_empty() {
        return Err(UsageError::MissingValue {
            place: given.source(),
            takes: clap_error::takes(command, given.option),
        });
    }
    clap_error::is_text(given)
}
