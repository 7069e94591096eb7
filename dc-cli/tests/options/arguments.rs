//! Parsing of the words of a command line.

use crate::sample::{PROGRAM, Sample, bytes_of, listeners, message, mistake, parse, with_server, words};
use clap::Args;
use dc_cli::account::SocketOwner;
use dc_cli::count::count;
use dc_cli::{CommandOptions, Exit, ProgramInfo};
use proptest::prelude::*;
use std::path::Path;
use std::time::Duration;

#[test]
fn option_has_one_or_two_dashes_and_equals_or_a_word() {
    for line in [
        ["-retry", "250"].as_slice(),
        &["--retry", "250"],
        &["-retry=250"],
        &["--retry=250"],
        &["-retry=250ms"],
    ] {
        assert_eq!(with_server(line, &[]).unwrap().retry, Duration::from_millis(250), "{line:?}");
    }
}

#[test]
fn omitted_options_have_their_defaults() {
    let options = with_server(&[], &[]).unwrap();
    assert_eq!(listeners(&options), ["UNIX:/tmp/sample"]);
    assert_eq!(options.retry, Duration::from_secs(5));
    assert_eq!(options.grace, Duration::from_secs(10));
    assert_eq!(options.memory, 256 << 20);
    assert_eq!(options.threads, None);
    assert!(options.auto_release && !options.old && !options.daemon.daemon);
}

#[test]
fn option_aliases_are_equivalent() {
    assert_eq!(parse(&["-connect", "IP:9001"], &[]).unwrap().server.to_string(), "IP:9001");
    assert_eq!(parse(&["--server=IP:9001"], &[]).unwrap().server.to_string(), "IP:9001");
}

#[test]
fn repeatable_option_keeps_its_order() {
    let options = with_server(&["-listen", "IP:2", "-listen=IP:1", "--listen", "UNIX:/a b"], &[]).unwrap();
    assert_eq!(listeners(&options), ["IP:2", "IP:1", "UNIX:/a b"]);
}

#[test]
fn word_after_an_option_is_its_value() {
    assert!(
        mistake(&["-retry", "-5"], &[]).starts_with("-retry \"-5\" is not a duration; it takes 1 to 3600000")
    );
    assert!(mistake(&["-retry", "-daemon"], &[]).starts_with("-retry \"-daemon\" is not a duration"));
    assert!(mistake(&["-retry", "--"], &[]).starts_with("-retry \"--\" is not a duration"));
    assert!(mistake(&["-retry", "-h"], &[]).starts_with("-retry \"-h\" is not a duration"));
    let options = with_server(&["-pidfile", "-x=y"], &[]).unwrap();
    assert_eq!(options.daemon.pidfile.as_deref(), Some(Path::new("-x=y")));
    let options = with_server(&["-pidfile=a=b"], &[]).unwrap();
    assert_eq!(options.daemon.pidfile.as_deref(), Some(Path::new("a=b")));
}

#[test]
fn optional_value_may_be_omitted() {
    let of_user = Some(SocketOwner::OfUser);
    let line = ["-user", "nobody", "-sockowner", "-sockgroup", "-sockperms", "660"];
    let daemon = with_server(&line, &[]).unwrap().daemon;
    assert_eq!((daemon.socket.sockowner, daemon.socket.sockgroup), (of_user.clone(), of_user.clone()));
    assert_eq!((daemon.user.as_deref(), daemon.socket.sockperms), (Some("nobody"), Some(0o660)));
    for line in [["-user", "nobody", "-sockowner"].as_slice(), &["-user", "nobody", "--sockowner="]] {
        assert_eq!(with_server(line, &[]).unwrap().daemon.socket.sockowner, of_user);
    }
    let daemon = with_server(&["-sockowner", "www", "--sockgroup=ssl"], &[]).unwrap().daemon;
    assert_eq!(daemon.socket.sockowner, Some(SocketOwner::Named("www".to_owned())));
    assert_eq!(daemon.socket.sockgroup, Some(SocketOwner::Named("ssl".to_owned())));
    assert!(mistake(&["-user", "x", "-sockowner", "-dameon"], &[]).contains("did you mean -daemon?"));
}

#[test]
fn last_value_of_a_switch_is_used() {
    let auto_release = |line: &[&str]| with_server(line, &[]).unwrap().auto_release;
    assert!(!auto_release(&["-no-auto-release"]));
    assert!(!auto_release(&["--auto-release", "--no-auto-release"]));
    assert!(auto_release(&["-no-auto-release", "-auto-release"]));
}

#[test]
fn repeated_flag_has_no_effect() {
    assert!(with_server(&["-daemon", "--daemon"], &[]).unwrap().daemon.daemon);
}

#[test]
fn help_takes_precedence_over_errors() {
    for line in [
        ["-h"].as_slice(),
        &["-help"],
        &["-?"],
        &["--help"],
        &["-retry", "x", "-help"],
        &["-nonsense", "stray", "-h"],
        &["-version", "-?"],
        &["-server", "a", "-server", "b", "--help", "--", "-x"],
    ] {
        let Exit::Answer(page) = parse(line, &[("DC_SAMPLE_RETRY", "wrong")]).unwrap_err() else {
            panic!("{line:?} brought no help")
        };
        assert_eq!(page, PROGRAM.usage::<Sample>());
    }
}

#[test]
fn version_is_one_line() {
    for line in [["-version"].as_slice(), &["--version"], &["-nonsense", "-version"]] {
        let stop = parse(line, &[]).unwrap_err();
        assert_eq!(stop, Exit::Answer(format!("dc_sample {}\n", env!("CARGO_PKG_VERSION"))));
        assert_eq!(stop.status(), 0);
    }
}

#[test]
fn path_takes_any_bytes_and_text_needs_utf8() {
    let line = |option: &str| {
        let mut line = words(&["-server", "IP:1", option]);
        line.push(bytes_of(b"/run/\xff.pid"));
        PROGRAM.try_parse::<Sample>(line, |_| None)
    };
    assert_eq!(line("-pidfile").unwrap().daemon.pidfile.unwrap().as_os_str(), &bytes_of(b"/run/\xff.pid"));
    assert_eq!(message(line("-user")), "-user \"/run/\u{fffd}.pid\" is not UTF-8");
}

#[derive(Args, Debug)]
struct SampleLock {
    /// Fail if the lock is not free.
    #[arg(short = 'n')]
    no_wait: bool,
    /// The number of permits of the semaphore.
    #[arg(short = 'l', long, value_name = "N", default_value = "1", value_parser = count::<u32>(1..))]
    limit: u32,
    /// The key of the lock.
    #[arg(required = true)]
    key: String,
    /// The command to run while the lock is held.
    #[arg(last = true, num_args = 1.., required = true)]
    command: Vec<String>,
}

impl CommandOptions for SampleLock {}

const LOCK: ProgramInfo = ProgramInfo {
    name: "dc_lock",
    env_prefix: "DC_LOCK_",
    about: "hold a lock while a command runs",
    variables: &[],
};

fn lock(line: &[&str]) -> Result<SampleLock, Exit> {
    LOCK.try_parse(words(line), |name| (name == "DC_LOCK_N").then(|| "yes".into()))
}

#[test]
fn short_options_operands_and_command_are_parsed() {
    let SampleLockOf { no_wait, limit, key, command } =
        lock_of(&["-l", "3", "nightly", "--", "make", "-n", "--", "-h"]);
    assert_eq!((no_wait, limit, key.as_str()), (true, 3, "nightly"));
    assert_eq!(command, ["make", "-n", "--", "-h"]);
    assert_eq!(lock_of(&["-limit=2", "-", "--", "x"]).limit, 2);
    assert_eq!(lock_of(&["-", "-n", "--", "x"]).key, "-");
    assert_eq!(lock_of(&["k", "--n", "-l=4", "--", "x"]).limit, 4);
}

struct SampleLockOf {
    no_wait: bool,
    limit: u32,
    key: String,
    command: Vec<String>,
}

fn lock_of(line: &[&str]) -> SampleLockOf {
    let SampleLock { no_wait, limit, key, command } = lock(line).unwrap();
    SampleLockOf { no_wait, limit, key, command }
}

#[test]
fn missing_or_extra_operands_are_refused() {
    assert_eq!(message(lock(&["--", "make"])), "KEY is required");
    assert_eq!(
        message(lock(&["nightly", "make", "--", "x"])),
        "\"make\" is not an option, and no operand is expected there"
    );
    assert_eq!(
        message(lock(&["nightly", "-l", "0", "--", "x"])),
        "-l \"0\" is too small; it takes a number, 1 or more"
    );
    assert_eq!(message(lock(&["nightly"])), "COMMAND is required");
}

#[test]
fn double_dash_ends_the_options() {
    assert!(with_server(&["--"], &[]).is_ok());
    assert_eq!(
        mistake(&["--", "-daemon"], &[]),
        "\"-daemon\" is not an option, and no operand is expected there"
    );
}

proptest! {
    #[test]
    fn any_words_parse_or_give_a_one_line_error(line in proptest::collection::vec(any_word(), 0..6)) {
        match PROGRAM.try_parse::<Sample>(line, |_| None) {
            Err(stop @ Exit::Mistake(_)) => { message::<()>(Err(stop)); }
            Err(Exit::Answer(_)) | Ok(_) => {}
        }
    }
}

fn any_word() -> impl Strategy<Value = std::ffi::OsString> {
    let names =
        ["server", "retry", "sockowner", "daemon", "no-auto-release", "listen", "port", "log", "auth-token"];
    prop_oneof![
        (0..names.len(), "-{1,2}", proptest::option::of("=.{0,3}")).prop_map(move |(at, dashes, value)| {
            format!("{dashes}{}{}", names[at], value.unwrap_or_default()).into()
        }),
        ".{0,6}".prop_map(Into::into),
        proptest::collection::vec(any::<u8>(), 0..200).prop_map(|bytes| bytes_of(&bytes)),
    ]
}
