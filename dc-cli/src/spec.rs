//! The options a program knows, by each of their names.
//!
//! What clap knows of an option is read here and nowhere else: its names, whether it takes a value,
//! the name of its environment variable. Nothing here panics.

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
    /// The option.
    pub(crate) option: &'c Arg,
    /// Whether the name was the one that turns a switch off.
    pub(crate) negated: bool,
}

/// What follows an option's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ArgKind {
    /// Nothing: being given is all it says.
    Flag,
    /// Nothing: `-x` turns it on and `-no-x` off. It is an option with the alias `no-x`.
    Switch,
    /// A value.
    Value,
    /// A value, or nothing.
    OptionalValue,
}

impl<'c> CommandSpec<'c> {
    /// The options of `command`.
    pub(crate) const fn new(command: &'c Command) -> Self {
        Self { command }
    }

    /// The options in the order in which the program declares them.
    pub(crate) fn options(self) -> impl Iterator<Item = &'c Arg> {
        self.command.get_arguments().filter(|arg| !arg.is_positional())
    }

    /// The words that are not options, in their order.
    pub(crate) fn operands(self) -> impl Iterator<Item = &'c Arg> {
        self.command.get_positionals()
    }

    /// The option called `name`, which is written without dashes.
    pub(crate) fn find(self, name: &str) -> Option<KnownArg<'c>> {
        self.options().find_map(|option| {
            names(option)
                .any(|known| known == name)
                .then(|| KnownArg { option, negated: is_negation(option, name) })
        })
    }

    /// The option that clap calls `shown` in an error, such as `--retry <MS>`.
    pub(crate) fn find_shown(self, shown: &str) -> Option<&'c Arg> {
        self.command.get_arguments().find(|arg| arg.to_string() == shown)
    }

    /// The option whose name is the most like `name`, if one is near enough to have been meant.
    pub(crate) fn nearest(self, name: &str) -> Option<String> {
        let all = self.options().flat_map(|option| names(option).collect::<Vec<_>>());
        nearest(name, all.chain(["help", "version", "completions"].map(str::to_owned)))
    }

    /// Whether the program has declared that `a` and `b` may not be given together.
    pub(crate) fn exclude_each_other(self, a: &Arg, b: &Arg) -> bool {
        let lists = |one: &Arg, other: &Arg| {
            self.command.get_arg_conflicts_with(one).iter().any(|arg| arg.get_id() == other.get_id())
        };
        lists(a, b) || lists(b, a)
    }
}

/// What follows the name of `option`.
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

/// Whether what is given to `option` is to be kept from logs and terminals.
pub(crate) fn is_secret(option: &Arg) -> bool {
    name(option) == "auth-token"
}

/// Whether `a` and `b` are two ways to say one thing, so that who says the one overrules the other elsewhere. Said in one
/// place, both reach the program.
pub(crate) fn is_same_switch(a: &Arg, b: &Arg) -> bool {
    let pair = ["auth-token", "auth-token-file"];
    let (a, b) = (name(a), name(b));
    a != b && pair.contains(&a.as_str()) && pair.contains(&b.as_str())
}

/// The name that stands for `option` in messages, without a dash.
pub(crate) fn name(option: &Arg) -> String {
    names(option).next().unwrap_or_else(|| option.get_id().to_string())
}

/// All names of `option` without their dashes, the main one first.
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

/// Whether `name` is the one that turns the switch `option` off.
pub(crate) fn is_negation(option: &Arg, name: &str) -> bool {
    name.strip_prefix("no-").is_some_and(|rest| option.get_long() == Some(rest))
}

/// The environment variable of the option that is called `name`.
pub(crate) fn variable(prefix: &str, name: &str) -> String {
    format!("{prefix}{}", name.replace('-', "_").to_uppercase())
}

/// The metavariable of `option`: what its value is called in the usage.
pub(crate) fn metavariable(option: &Arg) -> Option<String> {
    matches!(shape(option), ArgKind::Value | ArgKind::OptionalValue).then(|| {
        let names = option.get_value_names().unwrap_or_default();
        names.first().map_or_else(|| name(option).to_uppercase(), Str::to_string)
    })
}

/// `option` with `value` as clap is to see it. A value stands behind `=`, so that clap takes it for nothing else.
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

/// The one of `words` that is the most like `word`, if it is near enough to have been meant.
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
