//! The page of -help, and the list for the test of the manual.

use crate::sample::{PROGRAM, Sample};
use dc_cli::OptionHelp;

const PAGE: &str = "\
dc_sample VERSION: a program for tests

usage: dc_sample -server ADDR [options]

  -listen ADDR            Where to listen (repeatable) [UNIX:/tmp/sample]
  -server, -connect ADDR  The server (required)
  -retry MS               Pause between attempts to reconnect [5000]
  -grace SECS             How long locks wait [10s]
  -memory SIZE            Most memory [256M]
  -threads N              Threads
  -auto-release, -no-auto-release  Release locks when a client leaves [on]
  -auth-token TOKEN       The token, in the open
  -auth-token-file PATH   The token in a file
  -tls-cert PATH          The certificate
  -tls-key PATH           Its key
  -port PORT              A port, read by a parser of the standard library
  -daemon                 Detach from the terminal once serving
  -pidfile PATH           Write the process id to this file while running
  -user USER              Become this user once listening
  -sockowner [USER]       Owner of the Unix socket; without a name, the user of -user
  -sockgroup [GROUP]      Group of the Unix socket; without a name, the group of the user of -user
  -sockperms OCTAL        Permissions of the Unix socket
  -killable               Shut down on SIGUSR1 and SIGUSR2 instead of ignoring them
  -max-connections N      Close connections above this number at once; 0 is no limit [0]
  -throttle N             Leave connections above this number in the kernel's queue; 0 is no limit [0]
  -shutdown-timeout SECS  Time to finish requests in flight at shutdown; 0 means no limit [30]
  -log FILTER             What to log: a level, or TARGET=LEVEL, separated by commas [info]
  -log-format FORMAT      Log line format: text or json [text]
  -syslog                 Log to the local syslog instead of stderr
  -debug                  Log at debug level (overrides -log)
  -h, -help, -?           Print this page
  -version                Print the version
  -completions SHELL      Print a completion script for bash, zsh or fish

An option may have two dashes, and its value may follow an =. Each can be set in the environment
too, -listen as DC_SAMPLE_LISTEN; the command line wins. See dc_sample(1).
";

#[test]
fn help_page_has_a_line_for_each_option() {
    assert_eq!(PROGRAM.usage::<Sample>(), PAGE.replace("VERSION", env!("CARGO_PKG_VERSION")));
}

#[test]
fn option_list_has_the_fields_of_the_manual() {
    let options = PROGRAM.options::<Sample>();
    let option = |name: &str| options.iter().find(|option| option.names[0] == name).unwrap().clone();
    let retry = OptionHelp {
        names: vec!["retry".to_owned()],
        metavariable: Some("MS".to_owned()),
        value_optional: false,
        default: Some("5000".to_owned()),
        variable: "DC_SAMPLE_RETRY".to_owned(),
        required: false,
        repeatable: false,
        hidden: false,
        takes: Some("1 to 3600000 milliseconds, or a number with a unit: 250ms, 5s, 2m, 1h".to_owned()),
        help: "Pause between attempts to reconnect".to_owned(),
    };
    assert_eq!(option("retry"), retry);
    assert_eq!(option("server").names, ["server", "connect"]);
    assert!(option("server").required && option("listen").repeatable && option("old").hidden);
    assert!(option("sockowner").value_optional);
    assert_eq!(option("auto-release").default.as_deref(), Some("on"));
    assert_eq!(option("daemon").default, None);
    assert_eq!(option("max-connections").variable, "DC_SAMPLE_MAX_CONNECTIONS");
    assert_eq!(options.len(), PAGE.lines().filter(|line| line.starts_with("  -")).count() - 3 + 1);
}
