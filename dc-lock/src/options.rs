//! The options of `dc_lock`.

use dc_cli::address::{Address, peer_address};
use dc_cli::count::count;
use dc_cli::duration::seconds;
use dc_cli::{CommandOptions, ProgramInfo, UsageError, ValueError};
use dc_daemon::AuthOptions;
use libdc::id::LockKey;
use std::ffi::OsString;
use std::time::Duration;

pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_lock",
    env_prefix: "DC_LOCK_",
    about: "holds a lock of the fleet while a command runs",
    variables: &[],
};

/// The shortest lease, in seconds: less leaves no time to end a command.
const LEASE_SECONDS_MIN: u64 = 1;
/// The longest lease and the longest wait, in seconds: a hundred days.
const SECONDS_MAX: u64 = 8_640_000;

#[derive(clap::Args, Debug)]
pub(crate) struct LockCommandOptions {
    /// The agent, or the server.
    #[arg(long, visible_alias = "server", value_name = "ADDR", default_value = "UNIX:/tmp/scache", value_parser = peer_address)]
    pub(crate) connect: Address,
    /// Maximum time to wait for the lock; 0 is -nonblock. Without it, no limit.
    #[arg(long, short = 'w', value_name = "SECS", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) timeout: Option<Duration>,
    /// Do not wait for the lock.
    #[arg(long, short = 'n', conflicts_with = "timeout")]
    pub(crate) nonblock: bool,
    /// How long the lock is held once it cannot be renewed; without it, the server's default.
    #[arg(long, value_name = "SECS", value_parser = seconds(LEASE_SECONDS_MIN..=SECONDS_MAX))]
    pub(crate) lease: Option<Duration>,
    /// How many may hold the lock at once.
    #[arg(long, value_name = "N", default_value = "1", value_parser = count::<u32>(1..=u64::from(u32::MAX)))]
    pub(crate) limit: u32,
    /// What to do with the command when the lock is lost.
    #[arg(long, value_name = "ACTION", default_value = "kill", value_parser = on_loss)]
    pub(crate) on_loss: OnLoss,
    /// Exit status when another client holds the lock.
    #[arg(long, short = 'E', value_name = "N", default_value = "75", value_parser = count::<u8>(0..=255))]
    pub(crate) conflict_exit_code: u8,
    /// Have the shell run this command.
    #[arg(long, short = 'c', value_name = "COMMAND")]
    pub(crate) command: Option<OsString>,
    /// Say when the lock is waited for, taken and released.
    #[arg(long)]
    pub(crate) verbose: bool,
    /// The shared secret, for a server that asks for it.
    #[command(flatten)]
    pub(crate) auth: AuthOptions,
    #[arg(value_name = "KEY", required = true, value_parser = key)]
    pub(crate) key: String,
    /// The program to run, and its arguments.
    #[arg(value_name = "COMMAND", last = true, num_args = 1..)]
    pub(crate) words: Vec<OsString>,
}

/// What to do with the command when the lock is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnLoss {
    Kill,
    Warn,
}

impl CommandOptions for LockCommandOptions {
    fn check(&self) -> Result<(), UsageError> {
        match (&self.command, self.words.is_empty()) {
            (Some(_), false) => {
                Err(UsageError::inconsistent("command", "and a command behind -- exclude each other"))
            }
            (None, true) => Err(UsageError::inconsistent("-", "and a command to run must follow the key")),
            _ => Ok(()),
        }
    }
}

impl LockCommandOptions {
    /// How long to wait for the lock; `None` waits without limit.
    pub(crate) fn wait(&self) -> Option<Duration> {
        if self.nonblock { Some(Duration::ZERO) } else { self.timeout }
    }
}

fn key(text: &str) -> Result<String, ValueError> {
    let takes = "1 to 256 bytes of UTF-8 without white space";
    LockKey::new(text)
        .map(|key| key.as_str().to_owned())
        .ok_or_else(|| ValueError::new("is not a key", takes))
}

fn on_loss(text: &str) -> Result<OnLoss, ValueError> {
    match text {
        "kill" => Ok(OnLoss::Kill),
        "warn" => Ok(OnLoss::Warn),
        _ => Err(ValueError::new("is not an action", "kill or warn")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStringExt;

    #[test]
    fn a_key_that_is_no_text_is_named() {
        let words = [OsString::from_vec(vec![b'k', 0xff]), "--".into(), "true".into()];
        let stop = PROGRAM.try_parse::<LockCommandOptions>(words, |_| None).unwrap_err();
        assert_eq!(stop.text(), "dc_lock: KEY \"k\u{fffd}\" is not UTF-8\n");
    }

    fn parse(line: &[&str]) -> Result<LockCommandOptions, String> {
        let words = line.iter().map(OsString::from);
        PROGRAM.try_parse(words, |_| None).map_err(|stop| stop.text().to_owned())
    }

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_lock.1");
        let differences =
            dc_tests::man_page::differences(page, &PROGRAM, &PROGRAM.options::<LockCommandOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }

    #[test]
    fn a_command_stands_behind_dashes_or_in_an_option() {
        let options = parse(&["-n", "k", "--", "echo", "-n", "--", "x"]).unwrap();
        assert_eq!(options.key, "k");
        assert_eq!(options.words, ["echo", "-n", "--", "x"]);
        assert_eq!(options.wait(), Some(Duration::ZERO));
        let options = parse(&["k", "-c", "echo x", "-w", "1.5"]).unwrap();
        assert_eq!(options.command, Some("echo x".into()));
        assert_eq!(options.wait(), Some(Duration::from_millis(1_500)));
        assert_eq!(parse(&["k", "--", "true"]).unwrap().wait(), None);
    }

    #[test]
    fn mistakes_are_one_line() {
        for (line, says) in [
            (&["k"][..], "dc_lock: -- and a command to run must follow the key\n"),
            (&["k", "--"], "dc_lock: -- and a command to run must follow the key\n"),
            (&["k", "-c", "a", "--", "b"], "dc_lock: -command and a command behind -- exclude each other\n"),
            (&["k", "true"], "dc_lock: \"true\" is not an option, and no operand is expected there\n"),
            (&["-n", "-timeout", "1", "k", "--", "a"], "exclude each other"),
            (&["-lease", "0.5", "k", "--", "a"], "-lease \"0.5\" is too small"),
            (&["-limit", "0", "k", "--", "a"], "-limit \"0\" is too small"),
            (&["-on-loss", "cry", "k", "--", "a"], "it takes kill or warn"),
            (&["a b", "--", "true"], "dc_lock: KEY \"a b\" is not a key; it takes 1 to 256 bytes"),
            (&["--", "true"], "KEY"),
            (&["-connect", "FD:3", "k", "--", "a"], "-connect \"FD:3\" is a descriptor"),
        ] {
            let text = parse(line).map(|_| String::new()).unwrap_or_else(|text| text);
            assert!(text.contains(says) && text.lines().count() == 1, "{line:?}: {text:?}");
        }
    }
}
