//! Golden files: command lines of programs that exit by themselves, with the exit status and every line of
//! output.
//!
//! A file of `golden/` holds cases. A case begins with `$ [NAME=value ...] program arguments`, split into
//! words as in a shell; only single quotes quote. The next lines are `status N`, the lines of stdout behind
//! `> ` and of stderr behind `! `. Lines that begin with `#` are comments. The version of a program is
//! written as VERSION.
//!
//! `UPDATE_GOLDEN=1 cargo test -p dc-tests --test golden` rewrites the outcomes and keeps commands and
//! comments. A program runs in an empty directory, with only the variables of the case and `PATH`, and is
//! killed after a minute.

use dc_tests::harness::programs::program;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

const PROGRAMS: [&str; 6] = ["dc_server", "dc_client", "dc_snoop", "dc_test", "dc_lock", "dc_master"];
/// The exit status of a usage error.
const STATUS_USAGE: &str = "status 64";
const USAGE_ERRORS_MIN: usize = 60;

/// A command with its outcome. Comments between cases are a case without a command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Case {
    comments: Vec<String>,
    command: Option<String>,
    outcome: Vec<String>,
}

fn parse(text: &str) -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let mut is_open = false;
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(command) = line.strip_prefix("$ ") {
            cases.push(Case { command: Some(command.to_owned()), ..Case::default() });
            is_open = true;
        } else if line.starts_with('#') {
            if is_open || cases.is_empty() {
                cases.push(Case::default());
            }
            cases.last_mut().expect("a case").comments.push(line.to_owned());
            is_open = false;
        } else {
            assert!(is_open, "{line:?} belongs to no command");
            cases.last_mut().expect("a case").outcome.push(line.to_owned());
        }
    }
    cases
}

fn render(cases: &[Case]) -> String {
    let block = |case: &Case| {
        let command = case.command.iter().map(|command| format!("$ {command}"));
        let lines: Vec<String> =
            case.comments.iter().cloned().chain(command).chain(case.outcome.iter().cloned()).collect();
        lines.join("\n") + "\n"
    };
    cases.iter().map(block).collect::<Vec<_>>().join("\n")
}

/// The words of a command. Single quotes quote.
fn words(command: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut is_quoted = false;
    for c in command.chars() {
        match c {
            '\'' => {
                is_quoted = !is_quoted;
                word.get_or_insert_default();
            }
            ' ' if !is_quoted => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    assert!(!is_quoted, "a quote is open in {command}");
    words.extend(word);
    words
}

/// Runs a command to its end. Returns its outcome.
fn run(command: &str) -> Vec<String> {
    let words = words(command);
    let name = words.iter().position(|word| PROGRAMS.contains(&word.as_str()));
    let name = name.unwrap_or_else(|| panic!("no program of ours in {command}"));
    let variables = words[..name].iter().map(|word| word.split_once('=').expect("NAME=value"));
    let directory = tempfile::tempdir().expect("a temporary directory");
    let mut process = Command::new("timeout");
    process.args(["-s", "KILL", "60"]).arg(program(&words[name])).args(&words[name + 1..]);
    process.env_clear().env("PATH", "/usr/bin:/bin").envs(variables).current_dir(directory.path());
    let output = process.output().expect("timeout is installed");
    let status = output.status.code().unwrap_or_else(|| panic!("{command}: {}", output.status));
    let mut outcome = vec![format!("status {status}")];
    for (mark, stream) in [('>', &output.stdout), ('!', &output.stderr)] {
        let text = String::from_utf8_lossy(stream);
        outcome.extend(text.lines().map(|line| format!("{mark} {}", without_version(&words[name], line))));
    }
    outcome.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Replaces the version: `dc_server 1.2.3: keeps` becomes `dc_server VERSION: keeps`.
fn without_version(program: &str, line: &str) -> String {
    let rest = line.strip_prefix(program).and_then(|rest| rest.strip_prefix(' '));
    let end = rest.and_then(|rest| {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        rest[..end].contains('.').then_some(&rest[end..])
    });
    end.map_or_else(|| line.to_owned(), |end| format!("{program} VERSION{end}"))
}

fn path(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(file)
}

/// Runs the commands of a file, and compares or updates their outcomes.
fn check(file: &str) -> Vec<Case> {
    let text = fs::read_to_string(path(file)).expect("a golden file");
    let expected = parse(&text);
    let mut found = expected.clone();
    for case in &mut found {
        case.outcome = case.command.iter().flat_map(|command| run(command)).collect();
    }
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(path(file), render(&found)).expect("a golden file can be written");
        return found;
    }
    let differences = differences(&expected, &found);
    assert!(differences.is_empty(), "{file}:\n{}", differences.join("\n"));
    assert_eq!(text, render(&found), "{file} is not as UPDATE_GOLDEN=1 writes it");
    found
}

fn differences(expected: &[Case], found: &[Case]) -> Vec<String> {
    let pairs = expected.iter().zip(found).filter(|(expected, found)| expected != found);
    pairs.map(|(expected, found)| render(&[expected.clone(), found.clone()])).collect()
}

fn commands_of<'c>(cases: &'c [Case], program: &'c str) -> impl Iterator<Item = &'c Case> {
    cases.iter().filter(move |case| {
        case.command.as_ref().is_some_and(|command| words(command).iter().any(|word| word == program))
    })
}

#[test]
fn help_page_is_as_recorded() {
    let cases = check("help.txt");
    for program in PROGRAMS {
        let pages: Vec<&Case> = commands_of(&cases, program).collect();
        assert!(matches!(pages[..], [page] if page.outcome.len() > 10), "{program}: {pages:?}");
    }
}

#[test]
fn endings_are_as_recorded() {
    let cases = check("endings.txt");
    let is_usage_error = |case: &&Case| case.outcome.first().is_some_and(|line| line == STATUS_USAGE);
    let usage_errors = cases.iter().filter(is_usage_error).count();
    assert!(usage_errors >= USAGE_ERRORS_MIN, "only {usage_errors} usage errors");
    for program in PROGRAMS {
        assert!(commands_of(&cases, program).filter(is_usage_error).count() >= 5, "{program}");
    }
}

#[test]
fn golden_file_survives_parse_and_render() {
    let text = "# One.\n# Two.\n\n$ A='b c' dc_it ''\nstatus 2\n! it: no\n\n# Three.\n\n$ dc_it\nstatus 0\n";
    let cases = parse(text);
    assert_eq!(cases.len(), 4);
    assert_eq!(render(&cases), text);
    assert_eq!(words("A='b c' dc_it '' -x"), ["A=b c", "dc_it", "", "-x"]);
    assert_eq!(without_version("dc_it", "dc_it 2.0.0: keeps"), "dc_it VERSION: keeps");
    assert_eq!(without_version("dc_it", "dc_it 10.1"), "dc_it VERSION");
    assert_eq!(without_version("dc_it", "dc_it 5 keys"), "dc_it 5 keys");
}

#[test]
fn changed_outcome_is_found() {
    let expected = parse("$ dc_it\nstatus 2\n! it: no\n\n$ dc_it -x\nstatus 0\n");
    assert!(differences(&expected, &expected).is_empty());
    let found = parse("$ dc_it\nstatus 1\n! it: no\n\n$ dc_it -x\nstatus 0\n");
    let found = differences(&expected, &found);
    assert!(matches!(&found[..], [one] if one.contains("status 1") && one.contains("status 2")), "{found:?}");
}
