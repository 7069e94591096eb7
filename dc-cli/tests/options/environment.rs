//! Options from environment variables.

use crate::sample::{PROGRAM, Sample, bytes_of, listeners, message, mistake, parse, with_server, words};
use dc_cli::account::SocketOwner;
use std::time::Duration;

#[test]
fn command_line_overrides_the_variable() {
    let variables = [("DC_SAMPLE_RETRY", "250ms"), ("DC_SAMPLE_MAX_CONNECTIONS", "9")];
    let options = with_server(&[], &variables).unwrap();
    assert_eq!((options.retry, options.daemon.max_connections), (Duration::from_millis(250), 9));
    let options = with_server(&["-retry", "1s"], &variables).unwrap();
    assert_eq!((options.retry, options.daemon.max_connections), (Duration::from_secs(1), 9));
    assert_eq!(
        with_server(&["-retry", "1s"], &[("DC_SAMPLE_RETRY", "wrong")]).unwrap().retry,
        Duration::from_secs(1)
    );
}

#[test]
fn required_option_may_come_from_any_of_its_variables() {
    assert_eq!(parse(&[], &[("DC_SAMPLE_SERVER", "IP:1")]).unwrap().server.to_string(), "IP:1");
    assert_eq!(parse(&[], &[("DC_SAMPLE_CONNECT", "IP:2")]).unwrap().server.to_string(), "IP:2");
    assert_eq!(
        parse(&["-connect", "IP:3"], &[("DC_SAMPLE_SERVER", "IP:1")]).unwrap().server.to_string(),
        "IP:3"
    );
    assert_eq!(
        message(parse(&[], &[("DC_SAMPLE_SERVER", "IP:1"), ("DC_SAMPLE_CONNECT", "IP:2")])),
        "-server (from DC_SAMPLE_CONNECT) was already given as DC_SAMPLE_SERVER, and is not repeatable"
    );
}

#[test]
fn variable_of_a_repeatable_option_is_split_into_words() {
    let listen =
        |value, line: &[&str]| listeners(&with_server(line, &[("DC_SAMPLE_LISTEN", value)]).unwrap());
    assert_eq!(listen(" IP:1\tUNIX:/a\n IP:2 ", &[]), ["IP:1", "UNIX:/a", "IP:2"]);
    assert_eq!(listen("IP:1 IP:2", &["-listen", "IP:3"]), ["IP:3"]);
    assert_eq!(listen("  ", &[]), ["UNIX:/tmp/sample"]);
}

#[test]
fn variable_of_a_flag_takes_on_and_off_words() {
    let daemon =
        |value| with_server(&[], &[("DC_SAMPLE_DAEMON", value)]).map(|options| options.daemon.daemon);
    for on in ["1", "yes", "true", "on", "YES", "True", "oN"] {
        assert!(daemon(on).unwrap(), "{on}");
    }
    for off in ["0", "no", "false", "off", "", "No", "OFF"] {
        assert!(!daemon(off).unwrap(), "{off}");
    }
    assert_eq!(
        message(daemon("ja\n")),
        "-daemon (from DC_SAMPLE_DAEMON) \"ja\\n\" is neither on nor off; \
         it takes 1, yes, true or on, or 0, no, false or off"
    );
    assert!(with_server(&["-daemon"], &[("DC_SAMPLE_DAEMON", "0")]).unwrap().daemon.daemon);
}

#[test]
fn switch_has_a_variable_for_its_negation() {
    let auto_release = |line: &[&str], variables: &[_]| with_server(line, variables).unwrap().auto_release;
    assert!(!auto_release(&[], &[("DC_SAMPLE_AUTO_RELEASE", "no")]));
    assert!(auto_release(&[], &[("DC_SAMPLE_AUTO_RELEASE", "1")]));
    assert!(!auto_release(&[], &[("DC_SAMPLE_NO_AUTO_RELEASE", "yes")]));
    assert!(auto_release(&[], &[("DC_SAMPLE_NO_AUTO_RELEASE", "0")]));
    assert!(auto_release(&["-auto-release"], &[("DC_SAMPLE_NO_AUTO_RELEASE", "1")]));
    assert!(!auto_release(&["-no-auto-release"], &[("DC_SAMPLE_AUTO_RELEASE", "1")]));
    assert!(
        mistake(&[], &[("DC_SAMPLE_AUTO_RELEASE", "1"), ("DC_SAMPLE_NO_AUTO_RELEASE", "1")]).starts_with(
            "-auto-release (from DC_SAMPLE_NO_AUTO_RELEASE) was already given as DC_SAMPLE_AUTO_RELEASE"
        )
    );
}

#[test]
fn empty_variable_counts_as_unset_or_omitted_value() {
    let options = with_server(&[], &[("DC_SAMPLE_RETRY", ""), ("DC_SAMPLE_PIDFILE", "")]).unwrap();
    assert_eq!((options.retry, options.daemon.pidfile), (Duration::from_secs(5), None));
    let variables =
        [("DC_SAMPLE_USER", "nobody"), ("DC_SAMPLE_SOCKOWNER", ""), ("DC_SAMPLE_SOCKGROUP", "ssl")];
    let daemon = with_server(&[], &variables).unwrap().daemon;
    assert_eq!(daemon.socket.sockowner, Some(SocketOwner::OfUser));
    assert_eq!(daemon.socket.sockgroup, Some(SocketOwner::Named("ssl".to_owned())));
}

#[test]
fn error_in_a_variable_names_the_variable() {
    assert_eq!(
        mistake(&[], &[("DC_SAMPLE_RETRY", "0")]),
        "-retry (from DC_SAMPLE_RETRY) \"0\" is too small; \
         it takes 1 to 3600000 milliseconds, or a number with a unit: 250ms, 5s, 2m, 1h"
    );
    let result = PROGRAM.try_parse::<Sample>(words(&["-server", "IP:1"]), |name| {
        (name == "DC_SAMPLE_LOG").then(|| bytes_of(b"\xff"))
    });
    assert_eq!(message(result), "-log (from DC_SAMPLE_LOG) \"\u{fffd}\" is not UTF-8");
}

#[test]
fn conflicting_variable_is_ignored() {
    let options = with_server(&["-auth-token-file", "/f"], &[("DC_SAMPLE_AUTH_TOKEN", "t")]).unwrap();
    assert_eq!((options.auth_token, options.auth_token_file.is_some()), (None, true));
    let options = with_server(&["-auth-token", "t"], &[("DC_SAMPLE_AUTH_TOKEN_FILE", "/f")]).unwrap();
    assert_eq!((options.auth_token.as_deref(), options.auth_token_file), (Some("t"), None));
    assert_eq!(
        mistake(&[], &[("DC_SAMPLE_AUTH_TOKEN", "t"), ("DC_SAMPLE_AUTH_TOKEN_FILE", "/f")]),
        "-auth-token (from DC_SAMPLE_AUTH_TOKEN) and -auth-token-file (from DC_SAMPLE_AUTH_TOKEN_FILE) exclude each other"
    );
}

#[test]
fn log_filter_falls_back_to_rust_log() {
    let filter = |line: &[&str], variables: &[_]| {
        with_server(line, variables).unwrap().daemon.log.filter.as_str().to_owned()
    };
    let rust_log = ("RUST_LOG", "warn");
    assert_eq!(filter(&[], &[]), "info");
    assert_eq!(filter(&[], &[rust_log]), "warn");
    assert_eq!(filter(&[], &[rust_log, ("DC_SAMPLE_LOG", "trace")]), "trace");
    assert_eq!(filter(&["-log", "error"], &[rust_log, ("DC_SAMPLE_LOG", "trace")]), "error");
    assert!(
        mistake(&[], &[("RUST_LOG", "a=b=c")]).starts_with("-log (from RUST_LOG) \"a=b=c\" is not a filter")
    );
}

#[test]
fn override_variable_precedes_the_command_line() {
    let variables = [("DFLOCKD_GRACE_S", "7"), ("DC_SAMPLE_GRACE", "8")];
    assert_eq!(with_server(&["-grace", "9"], &variables).unwrap().grace, Duration::from_secs(7));
    let flags = |line: &[&str], value| {
        let variables = [("DFLOCKD_DEBUG", value), ("DFLOCKD_RELEASE", value)];
        let options = with_server(line, &variables).unwrap();
        (options.daemon.log.debug, options.auto_release)
    };
    assert_eq!(flags(&["-no-auto-release"], "YES"), (true, true));
    assert_eq!(flags(&["-debug"], "on"), (false, false), "on is no word of dflockd");
}

#[test]
fn unknown_variables_are_ignored() {
    assert!(
        with_server(&[], &[("DC_SAMPLE_PORTAL", "tcp://10.0.0.1:9001"), ("DC_SAMPLE_HELP", "1")]).is_ok()
    );
}
