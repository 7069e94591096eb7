//! Shell completion scripts: `-completions SHELL`.
//!
//! The script comes from `clap_complete`, edited to offer names with one dash, as the manual writes them:
//! clap's generators support long names only with two. The generator gets a command built for this purpose,
//! in which each option has the form that users see: a switch takes no word, and has the name that turns it
//! off. The output is deterministic. Nothing here panics, except for a program with contradictory options.

use crate::program::ProgramInfo;
use crate::shell::Shell;
use crate::spec::{self, ArgKind, CommandSpec};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction, Command, ValueHint};
use clap_complete::aot;

/// The completion script of `program` for `shell`. `command` has the options of the program.
pub(crate) fn script(program: &ProgramInfo, command: &Command, shell: Shell) -> String {
    let mut shown = shown(program, command);
    let mut text = Vec::new();
    match shell {
        Shell::Bash => aot::generate(aot::Bash, &mut shown, program.name, &mut text),
        Shell::Zsh => aot::generate(aot::Zsh, &mut shown, program.name, &mut text),
        Shell::Fish => aot::generate(aot::Fish, &mut shown, program.name, &mut text),
    }
    let text = String::from_utf8_lossy(&text);
    let with_one_dash = match shell {
        Shell::Bash => bash_line,
        Shell::Zsh => zsh_line,
        Shell::Fish => fish_line,
    };
    text.lines().map(|line| with_one_dash(line) + "\n").collect()
}

/// The options in the form that users see.
fn shown(program: &ProgramInfo, command: &Command) -> Command {
    let vocabulary = CommandSpec::new(command);
    let options = vocabulary.options().filter(|option| !option.is_hide_set()).flat_map(offered);
    let shell = Arg::new("completions").long("completions").value_name("SHELL").value_parser(Shell::NAMES);
    Command::new(program.name)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .args(options)
        .args(vocabulary.operands().map(|operand| operand.clone().required(false)))
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::SetTrue).help("Print the usage"))
        .arg(Arg::new("version").long("version").action(ArgAction::SetTrue).help("Print the version"))
        .arg(shell.help("Print a completion script"))
}

/// The arguments offered for `option`: itself and, for a switch, its negation.
fn offered(option: &Arg) -> Vec<Arg> {
    let id = option.get_id().to_string();
    let mut shown = taking(option, Arg::new(id.clone()));
    let mut negation = None;
    for name in spec::names(option) {
        if spec::is_negation(option, &name) {
            let help = format!("Turn -{} off", spec::name(option));
            negation = Some(Arg::new(format!("no_{id}")).long(name).action(ArgAction::SetTrue).help(help));
            continue;
        }
        shown = match (name.chars().count(), name.chars().next()) {
            (1, Some(short)) if shown.get_short().is_none() => shown.short(short),
            (1, Some(short)) => shown.visible_short_alias(short),
            _ if shown.get_long().is_none() => shown.long(name),
            _ => shown.visible_alias(name),
        };
    }
    if let Some(help) = option.get_help() {
        shown = shown.help(help.to_string());
    }
    std::iter::once(shown).chain(negation).collect()
}

/// `shown` with the value that `option` takes.
fn taking(option: &Arg, shown: Arg) -> Arg {
    let shown = match spec::shape(option) {
        ArgKind::Flag | ArgKind::Switch => return shown.action(ArgAction::SetTrue),
        ArgKind::Value if spec::is_repeatable(option) => shown.action(ArgAction::Append),
        ArgKind::Value => shown.action(ArgAction::Set),
        ArgKind::OptionalValue => shown.action(ArgAction::Set).num_args(0..=1),
    };
    let name = spec::metavariable(option).unwrap_or_default();
    let shown = shown.value_name(name.clone());
    if let Some(values) = option.get_value_parser().possible_values() {
        let names = values.map(|value| value.get_name().to_owned());
        return shown.value_parser(PossibleValuesParser::new(names));
    }
    let hint = match name.as_str() {
        "PATH" | "FILE" => ValueHint::FilePath,
        "DIR" => ValueHint::DirPath,
        "USER" => ValueHint::Username,
        _ => ValueHint::Other,
    };
    shown.value_hint(hint)
}

/// The names are in one list, and in front of a parenthesis where their values are completed. A word that
/// starts with two dashes gets names with two.
fn bash_line(line: &str) -> String {
    let at = line.len() - line.trim_start().len();
    let (indent, code) = line.split_at(at);
    if let Some(names) = code.strip_prefix("opts=\"").filter(|names| names.len() > 1) {
        let names = format!(" {names}").replace(" --", " -");
        return format!(
            "{indent}opts=\"{names}\n{indent}if [[ ${{cur}} == --* ]]; then opts=\"${{opts// -/ --}}\"; fi"
        );
    }
    match code.strip_prefix("--").and_then(|rest| rest.strip_suffix(')')) {
        Some(name) => format!("{indent}-{name} | --{name})"),
        None => line.to_owned(),
    }
}

/// A name starts a line, after a quote, with a star if it is repeatable. The flag `-s` of `_arguments` is
/// removed, since it would allow combined letters after one dash; values are separate words.
fn zsh_line(line: &str) -> String {
    for begin in ["'", "'*"] {
        let Some(rest) = line.strip_prefix(begin).and_then(|rest| rest.strip_prefix('-')) else { continue };
        let name = rest.strip_prefix('-').unwrap_or(rest);
        return format!("{begin}-{}", name.replacen("+[", "=[", usize::from(name.find("+[") == Some(1))));
    }
    line.replace("_arguments_options=(-s ", "_arguments_options=(")
}

/// The names are in front of the help text.
fn fish_line(line: &str) -> String {
    match line.split_once(" -d ") {
        Some((names, help)) if names.starts_with("complete ") => {
            format!("{} -d {help}", names.replace(" -l ", " -o "))
        }
        _ => line.to_owned(),
    }
}
