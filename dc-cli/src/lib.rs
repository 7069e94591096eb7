//! Command lines of the distcache programs.
//!
//! A program declares its options as a struct that derives [`clap::Args`] and implements [`CommandOptions`], says who it
//! is in a [`ProgramInfo`], and calls [`ProgramInfo::parse`]:
//!
//! ```
//! use dc_cli::{DaemonOptions, Mistake, Options, Program, address::{Address, address}, duration::milliseconds};
//! use std::time::Duration;
//!
//! const PROGRAM: Program = Program {
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
//! impl Options for ClientOptions {
//!     fn check(&self) -> Result<(), Mistake> {
//!         self.daemon.check()
//!     }
//! }
//!
//! let args = ["-connect", "IP:cache:9001", "--retry=1.5s"].map(Into::into);
//! let options: ClientOptions = PROGRAM.try_parse(args, |_| None).unwrap();
//! assert_eq!(options.retry, Duration::from_millis(1500));
//! ```
//!
//! What follows for every program, from `arguments` (the command line) and `environment`:
//!
//! - an option has one dash or two, its value behind `=` or as the next word;
//! - it has an environment variable, and the command line wins;
//! - `-h`, `-help`, `-?` print one page of usage, `-version` the version, whatever else is there;
//! - `-completions SHELL` prints what makes bash, zsh or fish complete the options (`completions`);
//! - a mistake is one line on stderr and exit status 64.
//!
//! How an option is declared: the doc comment's first paragraph is its help, `value_name` its metavariable. One
//! that may be repeated is a `Vec`, one that may stand without its value has `num_args = 0..=1` and is
//! given the empty value then, and a switch that is on unless `-no-x` turns it off is a `bool` with
//! `alias = "no-x", action = ArgAction::Set, default_value = "true"`; `-x=false` turns it off too. An option whose value clap shows in a message
//! must have a parser that returns a [`ValueError`]; the ones of this crate do. The value of `-auth-token` is never shown.
//!
//! Nothing here panics on what a user writes. [`ProgramInfo`] itself is as the program was written: clap's debug
//! builds refuse one that contradicts itself.
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
