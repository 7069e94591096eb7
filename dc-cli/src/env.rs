//! Environment variables: every option has one, and the command line takes precedence.
//!
//! The variable of an option is the prefix of the program and the name of the option in capitals, with `_`
//! for `-`: `DC_CLIENT_RETRY`. Each name of an option has a variable. The meaning of a value:
//!
//! - a flag or switch: 1, yes, true or on (in any case) turn it on; 0, no, false, off and an empty value turn
//!   it off, with the opposite meaning in the variable of `no-x`;
//! - a repeatable option: its values, separated by white space;
//! - an option with an optional value: an empty variable is the option alone;
//! - any other option: its value; an empty variable counts as unset.
//!
//! A variable is ignored if its option conflicts with one on the command line, or is an alternative to it:
//! the auth token itself, or a file with it. Unknown variables with the prefix are ignored, since container
//! platforms set some (`DC_SERVER_PORT`). Nothing here panics, and nothing here reads the environment of the
//! process itself.

use crate::argv::{GivenArg, WordSource};
use crate::error::{ArgSource, UsageError, printable};
use crate::program::{EnvPrecedence, EnvVar};
use crate::spec::{self, ArgKind, CommandSpec};
use crate::switch::is_on;
use clap::Arg;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// The source of variables: the prefix, additional variables, and a lookup function.
pub(crate) struct Environment<'e> {
    /// The prefix of the variables of the options.
    pub(crate) prefix: &'e str,
    /// Variables without the prefix.
    pub(crate) further: &'e [EnvVar],
    /// Returns the value of the variable with this name.
    pub(crate) lookup: &'e dyn Fn(&str) -> Option<OsString>,
}

impl Environment<'_> {
    /// The options of the command line `line` and of the environment; those of the environment come first.
    ///
    /// # Errors
    ///
    /// The first variable with an invalid value.
    pub(crate) fn complete<'c>(
        &self,
        vocabulary: CommandSpec<'c>,
        mut line: Vec<GivenArg<'c>>,
    ) -> Result<Vec<GivenArg<'c>>, UsageError> {
        let mut all = Vec::new();
        for option in vocabulary.options() {
            if let Some(said) = self.further(option, EnvPrecedence::Override)? {
                let gives_way = |given: &GivenArg<'_>| {
                    given.option.get_id() == option.get_id() || spec::is_same_switch(given.option, option)
                };
                line.retain(|given| !gives_way(given));
                all.extend(said);
                continue;
            }
            let settled = line.iter().any(|given| {
                given.option.get_id() == option.get_id()
                    || vocabulary.exclude_each_other(given.option, option)
                    || spec::is_same_switch(given.option, option)
            });
            if settled {
                continue;
            }
            let said = match self.own(option)? {
                None => self.further(option, EnvPrecedence::Fallback)?,
                own => own,
            };
            all.extend(said.into_iter().flatten());
        }
        all.append(&mut line);
        Ok(all)
    }

    /// The options from the variables of `option`; `None` if they are unset.
    fn own<'c>(&self, option: &'c Arg) -> Result<Option<Vec<GivenArg<'c>>>, UsageError> {
        let mut found: Option<(String, Vec<GivenArg<'c>>)> = None;
        for name in spec::names(option) {
            let variable = spec::variable(self.prefix, &name);
            let negated = spec::is_negation(option, &name);
            let Some(said) = self.read(option, &variable, negated, false)? else { continue };
            if let Some((before, _)) = found {
                let place = ArgSource { option: spec::name(option), variable: Some(variable) };
                return Err(UsageError::GivenTwice { place, before: Some(before) });
            }
            found = Some((variable, said));
        }
        Ok(found.map(|(_, said)| said))
    }

    /// The options from the additional variables of this precedence; `None` if they are unset. The first one
    /// set is used.
    fn further<'c>(
        &self,
        option: &'c Arg,
        rank: EnvPrecedence,
    ) -> Result<Option<Vec<GivenArg<'c>>>, UsageError> {
        let name = spec::name(option);
        for variable in self.further.iter().filter(|further| further.rank == rank && further.option == name) {
            if let Some(said) = self.read(option, variable.name, false, rank == EnvPrecedence::Override)? {
                return Ok(Some(said));
            }
        }
        Ok(None)
    }

    fn read<'c>(
        &self,
        option: &'c Arg,
        variable: &str,
        negated: bool,
        lenient: bool,
    ) -> Result<Option<Vec<GivenArg<'c>>>, UsageError> {
        let Some(value) = (self.lookup)(variable) else { return Ok(None) };
        let given =
            |value: OsString| GivenArg { option, value, source: WordSource::Variable(variable.to_owned()) };
        let switch = || {
            is_on(&value, lenient).map_err(|value| UsageError::Value {
                place: ArgSource { option: spec::name(option), variable: Some(variable.to_owned()) },
                shown: Some(printable(&(self.lookup)(variable).unwrap_or_default())),
                value,
            })
        };
        Ok(match spec::shape(option) {
            ArgKind::Flag => Some(if switch()? { vec![given(OsString::new())] } else { Vec::new() }),
            ArgKind::Switch => {
                let on = switch()? != negated;
                Some(vec![given(OsString::from(if on { "true" } else { "false" }))])
            }
            ArgKind::OptionalValue => Some(vec![given(value)]),
            ArgKind::Value if spec::is_repeatable(option) => {
                let words: Vec<_> = words(&value).map(|word| given(word.to_owned())).collect();
                (!words.is_empty()).then_some(words)
            }
            ArgKind::Value => (!value.is_empty()).then(|| vec![given(value)]),
        })
    }
}

/// The words of `value`, separated by white space.
fn words(value: &OsStr) -> impl Iterator<Item = &OsStr> {
    value.as_bytes().split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).map(OsStr::from_bytes)
}
