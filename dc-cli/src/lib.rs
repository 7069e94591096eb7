//! Command lines of the distcache programs.
//!
//! A program declares its options as a struct that derives [`clap::Args`] and implements [`CommandOptions`],
//! describes itself in a [`ProgramInfo`], and calls [`ProgramInfo::parse`]:
//!
//! ```
//! use dc_cli::address::{Address, address};
//! use dc_cli::duration::milliseconds;
//! use dc_cli::{CommandOptions, ProgramInfo, UsageError};
//! use dc_daemon::DaemonOptions;
//! use std::time::Duration;
//!
//! const PROGRAM: ProgramInfo = ProgramInfo {
//!     name: "dc_client",
//!     env_prefix: "DC_CLIENT_",
//!     about: "the agent of distcache",
//!     variables: &[],
//! };
//!
//! #[derive(clap::Args)]
//! struct ClientOptions {
//!     /// Where to listen for applications.
//!     #[arg(long, value_name = "ADDR", default_value = "UNIX:/tmp/scache", value_parser = address)]
//!     listen: Vec<Address>,
//!     /// The server.
//!     #[arg(long, visible_alias = "connect", value_name = "ADDR", required = true, value_parser = address)]
//!     server: Address,
//!     /// Pause between attempts to reconnect.
//!     #[arg(long, value_name = "MS", default_value = "5000", value_parser = milliseconds(1..=3_600_000))]
//!     retry: Duration,
//!     #[command(flatten)]
//!     daemon: DaemonOptions,
//! }
//!
//! impl CommandOptions for ClientOptions {
//!     fn check(&self) -> Result<(), UsageError> {
//!         self.daemon.check()
//!     }
//! }
//!
//! let args = ["-connect", "IP:cache:9001", "--retry=1.5s"].map(Into::into);
//! let options: ClientOptions = PROGRAM.try_parse(args, |_| None).unwrap();
//! assert_eq!(options.retry, Duration::from_millis(1500));
//! ```
//!
//! Every program then follows these rules, implemented in `argv` (the command line) and `env` (the
//! environment):
//!
//! - an option has one dash or two, and its value after `=` or as the next word;
//! - it has an environment variable, and the command line takes precedence;
//! - `-h`, `-help`, `-?` print the help page and `-version` the version, whatever else is given;
//! - `-completions SHELL` prints a completion script for bash, zsh or fish (`completions`);
//! - a usage error is one line on stderr and exit status 64.
//!
//! Declaration of options: the first paragraph of the doc comment is the help, `value_name` the metavariable.
//! A repeatable option is a `Vec`. An option with an optional value has `num_args = 0..=1`, and gets an empty
//! value if it is omitted. A switch that is on unless turned off by `-no-x` is a `bool` with `alias = "no-x",
//! action = ArgAction::Set, default_value = "true"`; `-x=false` turns it off too. An option whose value may
//! appear in clap's messages must have a parser that returns a [`ValueError`], like those of this crate. The
//! value of `-auth-token` is never shown.
//!
//! User input causes no panics. A [`ProgramInfo`] with contradictory options fails the debug assertions of
//! clap.
#![forbid(unsafe_code)]

mod argv;
mod clap_error;
mod completions;
mod env;
mod error;
mod exit;
mod help;
mod parse;
mod program;
mod shell;
mod spec;
mod switch;
mod value;

pub use error::{ArgSource, QUOTED_CHARS_MAX, UsageError, ValueError};
pub use exit::{Exit, STATUS_MISTAKE};
pub use help::OptionHelp;
pub use program::{CommandOptions, EnvExtra, EnvPrecedence, EnvVar, FURTHER, ProgramInfo, VERSION};
pub use spec::nearest;
pub use value::{account, address, count, duration, path, permissions, size};
