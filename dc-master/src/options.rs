//! The options of `dc_master`.

mod listen;
mod signal;

use self::listen::listen_address;
pub(crate) use self::signal::signal;
use self::signal::{OrphanSignal, orphan_signal, stop_signal};
use dc_cli::account::account;
use dc_cli::address::Address;
use dc_cli::count::count;
use dc_cli::duration::{milliseconds, seconds};
use dc_cli::{CommandOptions, ProgramInfo, UsageError};
use dc_daemon::{LogOptions, SocketOptions};
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) const PROGRAM: ProgramInfo = ProgramInfo {
    name: "dc_master",
    env_prefix: "DC_MASTER_",
    about: "holds the sockets of a server, and restarts it without losing a connection",
    variables: &[],
};

/// The longest `-start`, in milliseconds: an hour.
const START_MS_MAX: u64 = 3_600_000;
/// The longest time of an option in seconds: a day.
const SECONDS_MAX: u64 = 86_400;
/// Useful maximum of restarts in a minute: the pause between two is at least a second.
const RESTARTS_MAX: u64 = 60;

#[derive(clap::Args, Debug)]
pub(crate) struct MasterOptions {
    /// Where to listen on behalf of the children.
    #[arg(long, value_name = "ADDR", value_parser = listen_address)]
    pub(crate) listen: Vec<Address>,
    /// The program to run.
    #[arg(long, value_name = "PATH", required = true)]
    pub(crate) command: OsString,
    /// A child that has lived this long is ready; 0 is only READY=1.
    #[arg(long, value_name = "MS", default_value = "3000", value_parser = milliseconds(0..=START_MS_MAX))]
    pub(crate) start: Duration,
    /// Time for a child to become ready; 0 is no limit.
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) ready_timeout: Duration,
    /// Signal that stops an old child once a new one is ready.
    #[arg(long, value_name = "SIGNAL", default_value = "HUP", value_parser = stop_signal)]
    pub(crate) stop_signal: Signal,
    /// Time for a child to stop before it is killed; 0 is no limit.
    #[arg(long, value_name = "SECS", default_value = "30", value_parser = seconds(0..=SECONDS_MAX))]
    pub(crate) stop_timeout: Duration,
    /// Restarts of a child that dies, in a minute, before the master gives up.
    #[arg(long, value_name = "N", default_value = "5", value_parser = count::<usize>(0..=RESTARTS_MAX))]
    pub(crate) max_restarts: usize,
    /// Signal to the children if the master is killed; none lets them keep running.
    #[arg(long, value_name = "SIGNAL", default_value = "TERM", value_parser = orphan_signal)]
    pub(crate) orphan_signal: OrphanSignal,
    /// Hand the sockets over non-blocking.
    #[arg(long)]
    pub(crate) nonblock: bool,
    /// The user of the children.
    #[arg(long, value_name = "USER", value_parser = account)]
    pub(crate) user: Option<String>,
    /// The Unix sockets that it makes.
    #[command(flatten)]
    pub(crate) socket: SocketOptions,
    /// Detach from the terminal once the first child is ready.
    #[arg(long)]
    pub(crate) daemon: bool,
    /// Write the process id to this file while running.
    #[arg(long, value_name = "PATH")]
    pub(crate) pidfile: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) log: LogOptions,
    /// The arguments of the program.
    #[arg(value_name = "ARGS", last = true, num_args = 0..)]
    pub(crate) arguments: Vec<OsString>,
}

impl CommandOptions for MasterOptions {
    fn check(&self) -> Result<(), UsageError> {
        self.socket.check(self.user.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &[&str]) -> Result<MasterOptions, String> {
        let words = line.iter().map(OsString::from);
        PROGRAM.try_parse(words, |_| None).map_err(|stop| {
            assert_eq!(stop.status(), 64);
            stop.text().to_owned()
        })
    }

    #[test]
    fn the_manual_says_what_is_taken() {
        let page = include_str!("../../man/dc_master.1");
        let differences =
            dc_tests::man_page::differences(page, &PROGRAM, &PROGRAM.options::<MasterOptions>());
        assert!(differences.is_empty(), "{differences:#?}");
    }

    #[test]
    fn the_words_of_socketmaster_are_taken() {
        let options = parse(&["-listen=tcp4://localhost:8945", "-command=/a", "-start=0", "-user=nobody"]);
        let options = options.unwrap();
        assert_eq!(options.listen[0].to_string(), "IPv4:localhost:8945");
        assert_eq!((options.start, options.command), (Duration::ZERO, "/a".into()));
        assert_eq!(options.arguments, [] as [&str; 0]);
    }

    #[test]
    fn arguments_follow_dashes() {
        let options = parse(&["-command", "a", "--", "-listen", "x", "--", "-command"]).unwrap();
        assert_eq!(options.arguments, ["-listen", "x", "--", "-command"]);
        assert_eq!((options.stop_signal, options.max_restarts), (Signal::SIGHUP, 5));
        assert_eq!(options.orphan_signal, OrphanSignal(Some(Signal::SIGTERM)));
    }

    #[test]
    fn mistakes_are_one_line() {
        for (line, says) in [
            (&[][..], "-command is required"),
            (&["-command", "a", "b"], "\"b\" is not an option"),
            (&["-command", "a", "-start", "soon"], "-start \"soon\" is not a duration"),
            (&["-command", "a", "-ready-timeout", "2d"], "-ready-timeout \"2d\" is not a duration"),
            (&["-command", "a", "-stop-timeout", "86401"], "-stop-timeout \"86401\" is too large"),
            (&["-command", "a", "-max-restarts", "61"], "-max-restarts \"61\" is too large"),
            (&["-command", "a", "-stop-signal", "HUB"], "-stop-signal \"HUB\" is not a signal"),
            (&["-command", "a", "-orphan-signal", ""], "-orphan-signal"),
            (&["-command", "a", "-listen", "udp://h:1"], "-listen \"udp://h:1\" is not an address"),
            (&["-command", "a", "-sockowner"], "-sockowner without a name stands for the user of -user"),
            (&["-command", "a", "-sockperms", "888"], "-sockperms \"888\" is not octal"),
        ] {
            let text = parse(line).map(|_| String::new()).unwrap_or_else(|text| text);
            assert!(text.contains(says) && text.lines().count() == 1, "{line:?}: {text:?}");
        }
    }
}
