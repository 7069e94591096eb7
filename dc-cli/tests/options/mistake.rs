//! The exact texts of usage errors.

use crate::sample::{message, mistake, parse};

const DURATION: &str = "it takes 1 to 3600000 milliseconds, or a number with a unit: 250ms, 5s, 2m, 1h";
const ADDRESS: &str =
    "it takes an address: IP:port, IP:host:port, IPv4:..., IPv6:[addr]:port, UNIX:/path or FD:n";

#[test]
fn unknown_option_suggests_the_nearest() {
    for (line, text) in [
        ("-lisen", "-lisen is not an option; did you mean -listen?"),
        ("--retyr=5", "-retyr is not an option; did you mean -retry?"),
        ("-conect", "-conect is not an option; did you mean -connect?"),
        ("-shutdown", "-shutdown is not an option; did you mean -shutdown-timeout?"),
        ("-hlep", "-hlep is not an option; did you mean -help?"),
        ("-frobnicate", "-frobnicate is not an option"),
        ("-x", "-x is not an option"),
        ("-no-daemon", "-no-daemon is not an option; did you mean -daemon?"),
        ("-a\nb\u{1b}[31m", "-a\\nb\\u{1b}[31m is not an option"),
    ] {
        assert_eq!(mistake(&[line], &[]), text);
    }
}

#[test]
fn unexpected_operand_is_refused() {
    assert_eq!(mistake(&["IP:9001"], &[]), "\"IP:9001\" is not an option, and no operand is expected there");
}

#[test]
fn missing_value_is_refused() {
    assert_eq!(mistake(&["-retry"], &[]), format!("-retry needs a value; {DURATION}"));
    assert_eq!(mistake(&["-retry="], &[]), format!("-retry needs a value; {DURATION}"));
    assert_eq!(mistake(&["-retry", ""], &[]), format!("-retry needs a value; {DURATION}"));
    assert_eq!(message(parse(&["-connect"], &[])), format!("-connect needs a value; {ADDRESS}"));
    assert_eq!(mistake(&["-pidfile"], &[]), "-pidfile needs a value; it takes a PATH");
    assert_eq!(mistake(&["-log-format"], &[]), "-log-format needs a value; it takes text or json");
    assert_eq!(mistake(&["-auth-token"], &[]), "-auth-token needs a value; it takes a TOKEN");
}

#[test]
fn value_of_a_flag_is_refused() {
    assert_eq!(mistake(&["-daemon=yes"], &[]), "-daemon takes no value");
    assert_eq!(
        mistake(&["-no-auto-release=x"], &[]),
        "-no-auto-release \"x\" is neither on nor off; it takes 1, yes, true or on, or 0, no, false or off"
    );
    assert_eq!(
        mistake(&["-auto-release="], &[]),
        "-auto-release needs a value; it takes 1, yes, true or on, or 0, no, false or off"
    );
}

#[test]
fn invalid_value_is_described() {
    for (option, value, text) in [
        ("-retry", "soon", format!("is not a duration; {DURATION}")),
        ("-retry", "3600001", format!("is too large; {DURATION}")),
        (
            "-memory",
            "lots",
            "is not a size; it takes 0 or more bytes, also in units of 1024: 512K, 256M, 2G".into(),
        ),
        ("-threads", "0", "is too small; it takes a number, 1 to 64".into()),
        ("-sockperms", "999", "is not octal; it takes octal permissions, 0 to 777, such as 660".into()),
        ("-user", "a b", "is not a name; it takes a name or a number".into()),
        ("-log-format", "xml", "is not known; it takes text or json".into()),
        ("-port", "x", "is not right: invalid digit found in string".into()),
    ] {
        assert_eq!(mistake(&[option, value], &[]), format!("{option} \"{value}\" {text}"));
    }
    assert!(
        mistake(&["-log", "inof"], &[])
            .starts_with("-log \"inof\" is not a filter: \"info\" may be meant; it takes")
    );
}

#[test]
fn invalid_value_of_a_repeated_option_is_named() {
    assert_eq!(
        mistake(&["-listen", "IP:1", "-listen", ""], &[]),
        format!("-listen needs a value; {ADDRESS}")
    );
}

#[test]
fn quoted_input_is_escaped_and_truncated() {
    assert!(mistake(&["-retry", "a\nb\u{7}"], &[]).starts_with("-retry \"a\\nb\\u{7}\" is not a duration"));
    let long = mistake(&["-retry", &"x".repeat(10_000)], &[]);
    assert!(long.starts_with(&format!("-retry \"{}…\" is not", "x".repeat(80))) && long.len() < 300);
}

#[test]
fn secret_value_is_not_shown() {
    assert_eq!(
        mistake(&["-auth-token", "123456789"], &[]),
        "-auth-token is too long; it takes at most 8 characters"
    );
    assert_eq!(
        mistake(&[], &[("DC_SAMPLE_AUTH_TOKEN", "123456789")]),
        "-auth-token (from DC_SAMPLE_AUTH_TOKEN) is too long; it takes at most 8 characters"
    );
}

#[test]
fn missing_required_option_is_named() {
    assert_eq!(message(parse(&[], &[])), format!("-server or -connect is required; {ADDRESS}"));
    assert_eq!(mistake(&["-tls-cert", "c"], &[]), "-tls-key is required by -tls-cert");
    assert_eq!(
        mistake(&["-retry", "5"], &[("DC_SAMPLE_TLS_CERT", "c")]),
        "-tls-key is required by -tls-cert (from DC_SAMPLE_TLS_CERT)"
    );
}

#[test]
fn option_given_twice_is_refused() {
    assert_eq!(
        mistake(&["-retry", "1", "--retry=1"], &[]),
        "-retry was already given, and is not repeatable"
    );
    assert_eq!(
        mistake(&["-connect", "IP:2"], &[]),
        "-connect was already given as -server, and is not repeatable"
    );
    assert_eq!(
        mistake(&["-user", "x", "-sockowner", "-sockowner", "y"], &[]),
        "-sockowner was already given, and is not repeatable"
    );
}

#[test]
fn conflicting_options_are_refused() {
    assert_eq!(
        mistake(&["-auth-token-file", "f", "-auth-token", "t"], &[]),
        "-auth-token-file and -auth-token exclude each other"
    );
}

#[test]
fn inconsistent_options_are_refused() {
    for option in ["-sockowner", "-sockgroup"] {
        assert_eq!(
            mistake(&[option], &[]),
            format!("{option} without a name stands for the user of -user, which is not given")
        );
    }
}

#[test]
fn first_of_several_errors_is_reported() {
    assert!(mistake(&["-nonsense", "-retry"], &[]).starts_with("-nonsense"));
}
