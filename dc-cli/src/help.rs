//! The page of `-help`, and the same as a list that a test compares with the manual.
//!
//! One line per option, in the order of the program, with one dash as in the manual.

use crate::clap_error;
use crate::program::{ProgramInfo, VERSION};
use crate::spec::{self, ArgKind, CommandSpec};
use clap::{Arg, Command};
use std::fmt::Write as _;

/// The maximum width of the column of names and metavariables; a longer one moves its help to the right.
const HEADING_CHARS_MAX: usize = 26;

/// The help of one option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptionHelp {
    /// The names without dashes, main name first. A switch also has `no-x`, which turns it off.
    pub names: Vec<String>,
    /// The name of the value in the help; `None` if the option takes none.
    pub metavariable: Option<String>,
    /// Whether the value may be omitted.
    pub value_optional: bool,
    /// The default as a user would write it; `on` or `off` for a switch; `None` without a default, and for a
    /// flag.
    pub default: Option<String>,
    /// The environment variable of the main name.
    pub variable: String,
    /// Whether the option must be given.
    pub required: bool,
    /// Whether the option may be given several times.
    pub repeatable: bool,
    /// Whether the option is accepted but not shown in the help.
    pub hidden: bool,
    /// A description of its values: `1 to 3600000 milliseconds, or a number with a unit`; `None` if it takes
    /// no value.
    pub takes: Option<String>,
    /// The effect, in one line without a full stop.
    pub help: String,
}

impl OptionHelp {
    pub(crate) fn new(program: &ProgramInfo, command: &Command, option: &Arg) -> Self {
        let shape = spec::shape(option);
        let name = spec::name(option);
        Self {
            names: spec::names(option).collect(),
            metavariable: spec::metavariable(option),
            value_optional: shape == ArgKind::OptionalValue,
            default: default(option, shape),
            variable: spec::variable(program.env_prefix, &name),
            required: option.is_required_set(),
            repeatable: spec::is_repeatable(option),
            hidden: option.is_hide_set(),
            takes: spec::metavariable(option).and_then(|_| clap_error::takes(command, option)),
            help: option.get_help().map(ToString::to_string).unwrap_or_default(),
        }
    }

    /// The names with dashes and the metavariable: `-server, -connect ADDR`.
    fn heading(&self) -> String {
        let mut heading = self.names.iter().map(|name| format!("-{name}")).collect::<Vec<_>>().join(", ");
        heading.push_str(&self.value());
        heading
    }

    /// The metavariable after the name, in brackets if it may be omitted.
    fn value(&self) -> String {
        match &self.metavariable {
            Some(name) if self.value_optional => format!(" [{name}]"),
            Some(name) => format!(" {name}"),
            None => String::new(),
        }
    }

    /// The help, with the default and whether it is required or repeatable.
    fn line(&self) -> String {
        let mut line = self.help.clone();
        if self.repeatable {
            line.push_str(" (repeatable)");
        }
        if let Some(default) = &self.default {
            // Writing to a String does not fail.
            write!(line, " [{default}]").ok();
        }
        if self.required {
            line.push_str(" (required)");
        }
        line
    }
}

/// The page that `-help` prints.
pub(crate) fn page(program: &ProgramInfo, command: &Command) -> String {
    let vocabulary = CommandSpec::new(command);
    let options = vocabulary.options().map(|option| OptionHelp::new(program, command, option));
    let options: Vec<_> = options.filter(|option| !option.hidden).collect();
    let headings = options.iter().map(|option| option.heading().chars().count());
    let width = headings.filter(|&chars| chars <= HEADING_CHARS_MAX).max().unwrap_or(0);
    let row = |heading: &str, help: &str| format!("  {heading:width$}  {help}").trim_end().to_owned() + "\n";

    let mut page = format!("{} {VERSION}: {}\n\n", program.name, program.about);
    page.push_str(&synopsis(program, vocabulary, &options));
    page.extend(options.iter().map(|option| row(&option.heading(), &option.line())));
    page.push_str(&row("-h, -help, -?", "Print this page"));
    page.push_str(&row("-version", "Print the version"));
    page.push_str(&row("-completions SHELL", "Print a completion script for bash, zsh or fish"));
    page.push_str("\nAn option may have two dashes, and its value may follow an =.");
    if let Some(OptionHelp { names, variable, .. }) = options.first() {
        page.push_str(" Each can be set in the environment\ntoo, ");
        page.push_str(&format!(
            "-{} as {variable}; the command line wins. See {}(1).\n",
            names[0], program.name
        ));
    } else {
        page.push('\n');
    }
    page
}

fn synopsis(program: &ProgramInfo, vocabulary: CommandSpec<'_>, options: &[OptionHelp]) -> String {
    let mut line = format!("usage: {}", program.name);
    for option in options.iter().filter(|option| option.required) {
        line.push_str(&format!(" -{}{}", option.names[0], option.value()));
    }
    line.push_str(" [options]");
    for operand in vocabulary.operands() {
        let name = operand
            .get_value_names()
            .and_then(<[_]>::first)
            .map_or_else(|| operand.get_id().to_string().to_uppercase(), ToString::to_string);
        let dashes = if operand.is_last_set() { "-- " } else { "" };
        let more =
            if operand.get_num_args().is_some_and(|range| range.max_values() > 1) { "..." } else { "" };
        line.push_str(&match operand.is_required_set() {
            true => format!(" {dashes}{name}{more}"),
            false => format!(" [{dashes}{name}{more}]"),
        });
    }
    line.push_str("\n\n");
    line
}

fn default(option: &Arg, shape: ArgKind) -> Option<String> {
    let values: Vec<_> = option.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let first = values.first()?;
    match shape {
        ArgKind::Flag => None,
        ArgKind::Switch => Some(if first == "true" { "on" } else { "off" }.to_owned()),
        ArgKind::Value | ArgKind::OptionalValue => Some(values.join(" ")),
    }
}
