//! The scripts of `-completions`, run in the shells. A test reports that it is skipped if its shell is not
//! installed.

use crate::require::skip;
use crate::sample::{PROGRAM, Sample, message, parse};
use dc_cli::Exit;
use std::fs;
use std::path::Path;
use std::process::Command;

/// Prints, one per line, the completions of bash for `$2`, an incomplete command line.
const BASH: &str = r#"
source "$1"
read -r -a COMP_WORDS <<< "$2"
[[ $2 == *" " ]] && COMP_WORDS+=("")
COMP_CWORD=$(( ${#COMP_WORDS[@]} - 1 ))
[[ $(complete -p dc_sample) =~ " -F "([^ ]+)" " ]] || exit 3
compopt() { :; }
"${BASH_REMATCH[1]}" dc_sample "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;

/// Prints the command line `$2` after the completion key, in a zsh on its own terminal.
const ZSH: &str = r#"
zmodload zsh/zpty || exit 3
zpty shell zsh -f -i
zpty -w shell "PROMPT= ; autoload -U compinit; compinit -u -D; source $1; \
    shown() { print -r \"<\$BUFFER>\" }; zle -N shown; bindkey '^P' shown; stty -echo; print rea''dy"
zpty -r shell text '*ready*' || exit 4
zpty -w -n shell "$2"$'\t\x10'
zpty -r shell text '*<*>*' || exit 5
print -r -- "${${text##*<}%%>*}"
zpty -d shell
"#;

const FISH: &str = r#"source $argv[1]; complete -C $argv[2] | string replace -r '\t.*' ''; true"#;

fn script(shell: &str) -> String {
    match parse(&["-completions", shell], &[]) {
        Err(Exit::Answer(text)) => text,
        other => panic!("{shell}: {other:?}"),
    }
}

/// The lines that `shell` prints after loading the completions with `code` and `line`; `None` if it is not
/// installed.
fn lines(shell: &str, arguments: &[&str], line: &str) -> Option<Vec<String>> {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("completions");
    fs::write(&path, script(shell)).unwrap();
    let output = match run(shell, arguments, &path, line).output() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            skip(&format!("{shell} is not installed"));
            return None;
        }
        output => output.unwrap(),
    };
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && err.is_empty(), "{shell}: {}: {out}{err}", output.status);
    Some(out.lines().map(|line| line.trim_end().to_owned()).filter(|line| !line.is_empty()).collect())
}

fn run(shell: &str, arguments: &[&str], script: &Path, line: &str) -> Command {
    let mut command = Command::new(shell);
    // Without the configuration of any user; files written by the shell are removed with the script.
    let home = script.parent().unwrap_or(script);
    command.args(arguments).arg(script).arg(line).env("TERM", "dumb").env("HOME", home);
    for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"] {
        command.env_remove(name);
    }
    command
}

fn bash(line: &str) -> Option<Vec<String>> {
    lines("bash", &["--norc", "-c", BASH, "bash"], line)
}

fn zsh(line: &str) -> Option<Vec<String>> {
    lines("zsh", &["-f", "-c", ZSH, "zsh"], line)
}

fn fish(line: &str) -> Option<Vec<String>> {
    lines("fish", &["--no-config", "-c", FISH], line)
}

#[test]
fn bash_offers_names_with_one_dash() {
    let Some(found) = bash("dc_sample -lis") else { return };
    assert_eq!(found, ["-listen"]);
    let offers = |line: &str| bash(line).unwrap();
    assert_eq!(offers("dc_sample -daemon -con"), ["-connect"]);
    assert_eq!(offers("dc_sample --auth-token-"), ["--auth-token-file"]);
    assert_eq!(offers("dc_sample -no-"), ["-no-auto-release"]);
    assert_eq!(offers("dc_sample -log-format "), ["text", "json"]);
    assert_eq!(offers("dc_sample --log-format j"), ["json"]);
    assert!(offers("dc_sample -tls-cert /etc/passw").contains(&"/etc/passwd".to_owned()));
    assert_eq!(offers("dc_sample -completions "), ["bash", "zsh", "fish"]);
    assert_eq!(offers("dc_sample -ol"), [""; 0], "a hidden option is not offered");
}

#[test]
fn zsh_offers_names_with_one_dash() {
    let Some(found) = zsh("dc_sample -lis") else { return };
    assert_eq!(found, ["dc_sample -listen="]);
    let becomes = |line: &str| zsh(line).unwrap().join("\n");
    assert_eq!(becomes("dc_sample -daemon -con"), "dc_sample -daemon -connect=");
    assert_eq!(becomes("dc_sample -no-"), "dc_sample -no-auto-release");
    assert_eq!(becomes("dc_sample -log-format j"), "dc_sample -log-format json");
    assert_eq!(becomes("dc_sample -log-format=j"), "dc_sample -log-format=json");
    assert_eq!(becomes("dc_sample -daemon -listen x -lis"), "dc_sample -daemon -listen x -listen=");
    assert_eq!(becomes("dc_sample -pidfile x -pidf"), "dc_sample -pidfile x -pidf", "it is given once");
}

#[test]
fn fish_offers_names_with_one_dash() {
    let Some(found) = fish("dc_sample -lis") else { return };
    assert_eq!(found, ["-listen"]);
    let offers = |line: &str| fish(line).unwrap();
    assert_eq!(offers("dc_sample -daemon -con"), ["-connect"]);
    assert_eq!(offers("dc_sample -no-"), ["-no-auto-release"]);
    assert_eq!(offers("dc_sample -log-format "), ["json", "text"]);
    assert_eq!(offers("dc_sample -retry "), [""; 0], "a number is no file");
}

#[test]
fn every_option_is_offered() {
    let Some(offered) = bash("dc_sample -") else { return };
    for option in PROGRAM.options::<Sample>().iter().filter(|option| !option.hidden) {
        for name in &option.names {
            assert!(offered.contains(&format!("-{name}")), "-{name} is not in {offered:?}");
        }
    }
}

#[test]
fn completion_script_is_deterministic() {
    for shell in ["bash", "zsh", "fish"] {
        assert_eq!(script(shell), script(shell));
        assert_eq!(parse(&[&format!("--completions={shell}")], &[]).unwrap_err().text(), script(shell));
    }
}

#[test]
fn unsupported_shell_is_a_usage_error() {
    let of = |line: &[&str]| message(parse(line, &[]));
    let takes = "it takes bash, zsh or fish";
    assert_eq!(
        of(&["-completions", "ksh"]),
        format!("-completions \"ksh\" is not a supported shell; {takes}")
    );
    assert_eq!(of(&["-completions"]), format!("-completions needs a value; {takes}"));
    assert_eq!(of(&["-completion", "bash"]), "-completion is not an option; did you mean -completions?");
    assert_eq!(of(&["-completions", "bash", "-lisen"]), "-lisen is not an option; did you mean -listen?");
    assert!(matches!(parse(&["-completions", "ksh", "-help"], &[]), Err(Exit::Answer(_))));
}
