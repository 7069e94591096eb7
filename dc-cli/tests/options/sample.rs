//! A program with every kind of option, for the tests.

use clap::{ArgAction, Args};
use dc_cli::address::{Address, address};
use dc_cli::count::count;
use dc_cli::duration::{milliseconds, seconds};
use dc_cli::size::bytes;
use dc_cli::{CommandOptions, EnvPrecedence, EnvVar, Exit, ProgramInfo, UsageError};
use dc_daemon::DaemonOptions;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

/// The description of the sample program.
pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_sample",
    env_prefix: "DC_SAMPLE_",
    about: "a program for tests",
    variables: &[
        EnvVar { name: "DFLOCKD_GRACE_S", option: "grace", rank: EnvPrecedence::Override },
        EnvVar { name: "DFLOCKD_DEBUG", option: "debug", rank: EnvPrecedence::Override },
        EnvVar { name: "DFLOCKD_RELEASE", option: "auto-release", rank: EnvPrecedence::Override },
    ],
};

/// The options of the sample program.
#[derive(Args, Debug)]
pub(crate) struct Sample {
    /// Where to listen.
    #[arg(long, value_name = "ADDR", default_value = "UNIX:/tmp/sample", value_parser = address)]
    pub(crate) listen: Vec<Address>,
    /// The server.
    #[arg(long, visible_alias = "connect", value_name = "ADDR", required = true, value_parser = address)]
    pub(crate) server: Address,
    /// Pause between attempts to reconnect.
    #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds(1..=3_600_000))]
    pub(crate) retry: Duration,
    /// How long locks wait.
    #[arg(long, value_name = "SECS", default_value = "10s", value_parser = seconds(0..=600))]
    pub(crate) grace: Duration,
    /// Most memory.
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = bytes(0..))]
    pub(crate) memory: u64,
    /// Threads.
    #[arg(long, value_name = "N", value_parser = count::<usize>(1..=64))]
    pub(crate) threads: Option<usize>,
    /// Release locks when a client leaves.
    #[arg(long, alias = "no-auto-release", action = ArgAction::Set, default_value = "true")]
    pub(crate) auto_release: bool,
    /// The token, in the open.
    #[arg(long, value_name = "TOKEN", value_parser = token, conflicts_with = "auth_token_file")]
    pub(crate) auth_token: Option<String>,
    /// The token in a file.
    #[arg(long, value_name = "PATH")]
    pub(crate) auth_token_file: Option<PathBuf>,
    /// The certificate.
    #[arg(long, value_name = "PATH", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its key.
    #[arg(long, value_name = "PATH", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// A port, read by a parser of the standard library.
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// Accepted and without effect.
    #[arg(long, hide = true)]
    pub(crate) old: bool,
    #[command(flatten)]
    pub(crate) daemon: DaemonOptions,
}

impl CommandOptions for Sample {
    fn check(&self) -> Result<(), UsageError> {
        self.daemon.check()
    }
}

fn token(text: &str) -> Result<String, dc_cli::ValueError> {
    match text.len() {
        0..=8 => Ok(text.to_owned()),
        _ => Err(dc_cli::ValueError::new("is too long", "at most 8 characters")),
    }
}

/// The addresses of `-listen` as text.
pub(crate) fn listeners(options: &Sample) -> Vec<String> {
    options.listen.iter().map(ToString::to_string).collect()
}

/// Converts words to the form that a process gets.
pub(crate) fn words(line: &[&str]) -> Vec<OsString> {
    line.iter().map(OsString::from).collect()
}

/// Bytes that are not UTF-8.
pub(crate) fn bytes_of(bytes: &[u8]) -> OsString {
    OsString::from_vec(bytes.to_vec())
}

/// Parses `line` and the variables.
pub(crate) fn parse(line: &[&str], variables: &[(&str, &str)]) -> Result<Sample, Exit> {
    PROGRAM.try_parse(words(line), |name| value(variables, name))
}

/// As [`parse`], with the required option in front.
pub(crate) fn with_server(line: &[&str], variables: &[(&str, &str)]) -> Result<Sample, Exit> {
    parse(&[&["-server", "IP:1"], line].concat(), variables)
}

/// The stderr line for `line` and the variables, with the required option in front.
pub(crate) fn mistake(line: &[&str], variables: &[(&str, &str)]) -> String {
    message(with_server(line, variables))
}

/// The stderr line without the name of the program and the newline.
pub(crate) fn message<T: std::fmt::Debug>(result: Result<T, Exit>) -> String {
    let stop = result.unwrap_err();
    assert_eq!(stop.status(), 64);
    assert!(matches!(stop, Exit::Mistake(_)));
    let line = stop.text().strip_suffix('\n').unwrap();
    assert!(!line.contains(char::is_control), "one line: {line:?}");
    let (program, mistake) = line.split_once(": ").unwrap();
    assert!(program.starts_with("dc_"), "{program}");
    mistake.to_owned()
}

fn value(variables: &[(&str, &str)], name: &str) -> Option<OsString> {
    variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value))
}
