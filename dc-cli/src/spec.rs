//! The options of a program, looked up by any of their names.
//!
//! Only this file reads clap's description of an option: its names, its kind, its environment variable.
//! Nothing here panics.

use clap::builder::Str;
use clap::{Arg, ArgAction, Command};
use std::ffi::OsString;

/// The options of one program. The command must have been built (`Command::build`).
#[derive(Clone, Copy, Debug)]
pub(crate) struct CommandSpec<'c> {
    command: &'c Command,
}

/// An option found by one of its names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct KnownArg<'c> {
    pub(crate) option: &'c Arg,
    /// Whether the name was `no-x`, which turns a switch off.
    pub(crate) negated: bool,
}

/// The kind of an option, which decides what may follow its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgKind {
    /// No value: its presence is the value.
    Flag,
    /// No value: `-x` turns it on and `-no-x` off. Declared as an option with the alias `no-x`.
    Switch,
    /// A required value.
    Value,
    /// An optional value.
    OptionalValue,
}

impl<'c> CommandSpec<'c> {
    pub(crate) const fn new(command: &'c Command) -> Self {
        Self { command }
    }

    /// The options in the order of declaration.
    pub(crate) fn options(self) -> impl Iterator<Item = &'c Arg> {
        self.command.get_arguments().filter(|arg| !arg.is_positional())
    }

    /// The operands in order.
    pub(crate) fn operands(self) -> impl Iterator<Item = &'c Arg> {
        self.command.get_positionals()
    }

    /// The option with this name, without dashes.
    pub(crate) fn find(self, name: &str) -> Option<KnownArg<'c>> {
        self.options().find_map(|option| {
            names(option)
                .any(|known| known == name)
                .then(|| KnownArg { option, negated: is_negation(option, name) })
        })
    }

    /// The option that clap displays as `shown` in an error, such as `--retry <MS>`.
    pub(crate) fn find_shown(self, shown: &str) -> Option<&'c Arg> {
        self.command.get_arguments().find(|arg| arg.to_string() == shown)
    }

    /// The name most similar to `name`, if it is similar enough to suggest.
    pub(crate) fn nearest(self, name: &str) -> Option<String> {
        let all = self.options().flat_map(|option| names(option).collect::<Vec<_>>());
        nearest(name, all.chain(["help", "version", "completions"].map(str::to_owned)))
    }

    /// Whether the program declares a conflict between `a` and `b`.
    pub(crate) fn exclude_each_other(self, a: &Arg, b: &Arg) -> bool {
        let lists = |one: &Arg, other: &Arg| {
            self.command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        lists(a, b) || lists(b, a)
    }
}

pub(crate) fn shape(option: &Arg) -> ArgKind {
    if option.get_long().is_some_and(|name| has_alias(option, &format!("no-{name}"))) {
        return ArgKind::Switch;
    }
    let least = option.get_num_args().map_or(1, |range| range.min_values());
    match (option.get_action().takes_values(), least) {
        (false, _) => ArgKind::Flag,
        (true, 0) => ArgKind::OptionalValue,
        (true, _) => ArgKind::Value,
    }
}

/// Whether `option` may be given more than once, each time with another value.
pub(crate) fn is_repeatable(option: &Arg) -> bool {
    matches!(option.get_action(), ArgAction::Append | ArgAction::Count)
}

/// Whether the value of `option` must not appear in logs and terminals.
pub(crate) fn is_secret(option: &Arg) -> bool {
    name(option) == "auth-token"
}

/// Whether `a` and `b` are alternatives, so that one on the command line overrides the other in the
/// environment. If both come from the same source, both reach the program.
pub(crate) fn is_same_switch(a: &Arg, b: &Arg) -> bool {
    let pair = ["auth-token", "auth-token-file"];
    let (a, b) = (name(a), name(b));
    a != b && pair.contains(&a.as_str()) && pair.contains(&b.as_str())
}

/// The name of `option` in messages, without a dash.
pub(crate) fn name(option: &Arg) -> String {
    names(option).next().unwrap_or_else(|| option.get_id().to_string())
}

/// All names of `option` without dashes, main name first.
pub(crate) fn names(option: &Arg) -> impl Iterator<Item = String> {
    let long = option.get_long().map(str::to_owned);
    let aliases = option.get_all_aliases().unwrap_or_default();
    let short = option.get_short().map(String::from);
    let short_aliases = option.get_all_short_aliases().unwrap_or_default();
    long.into_iter()
        .chain(aliases.into_iter().map(str::to_owned).collect::<Vec<_>>())
        .chain(short)
        .chain(short_aliases.into_iter().map(String::from))
}

/// Whether `name` turns the switch `option` off.
pub(crate) fn is_negation(option: &Arg, name: &str) -> bool {
    name.strip_prefix("no-").is_some_and(|rest| option.get_long() == Some(rest))
}

/// The environment variable of the option called `name`.
pub(crate) fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.replace('-', "_").to_uppercase())
}

/// The name of the value of `option` in the help.
pub(crate) fn metavariable(option: &Arg) -> Option<String> {
    matches!(shape(option), ArgKind::Value | ArgKind::OptionalValue).then(|| {
        let names = option.get_value_names().unwrap_or_default();
        names.first().map_or_else(|| name(option).to_uppercase(), Str::to_string)
    })
}

/// `option` with `value` in clap's notation. The value is after `=`, so that clap cannot take it for another
/// word.
pub(crate) fn for_clap(option: &Arg, value: &OsString) -> OsString {
    let mut word = match (option.get_long(), option.get_short()) {
        (Some(long), _) => OsString::from(format!("--{long}")),
        (None, Some(short)) => OsString::from(format!("-{short}")),
        (None, None) => OsString::new(),
    };
    if shape(option) != ArgKind::Flag {
        word.push("=");
        word.push(value);
    }
    word
}

/// The word most similar to `word`, if it is similar enough to suggest.
pub fn nearest(word: &str, words: impl IntoIterator<Item = String>) -> Option<String> {
    let tolerated = (word.chars().count() / 3).clamp(1, 3);
    let near = words.into_iter().filter(|known| known.chars().count() > 1).filter_map(|known| {
        let begins = word.len() > 2 && (known.starts_with(word) || word.starts_with(&known));
        let distance = if begins { 1 } else { strsim::damerau_levenshtein(word, &known) };
        (distance <= tolerated).then_some((distance, known))
    });
    near.min_by_key(|(distance, _)| *distance).map(|(_, known)| known)
}

fn has_alias(option: &Arg, alias: &str) -> bool {
    option.get_all_aliases().is_some_and(|aliases| aliases.contains(&alias))
}
