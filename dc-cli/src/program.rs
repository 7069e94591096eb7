//! The description of a program that option parsing needs.

use crate::error::UsageError;
use std::ffi::OsString;

/// The version of all programs: the workspace version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The variables read for every program with the option.
pub const FURTHER: &[EnvVar] = &[EnvVar { name: "RUST_LOG", option: "log", rank: EnvPrecedence::Fallback }];

/// The description of a program.
#[derive(Clone, Copy, Debug)]
pub struct ProgramInfo {
    /// The name of the program: `dc_client`.
    pub name: &'static str,
    /// The prefix of its environment variables: `DC_CLIENT_`.
    pub env_prefix: &'static str,
    /// One line for the help page.
    pub about: &'static str,
    /// Additional variables of its options (`RUST_LOG` is implied).
    pub variables: &'static [EnvVar],
}

/// The options of a program: a struct that derives [`clap::Args`].
pub trait CommandOptions: clap::Args {
    /// Checks combinations of options. The individual values have been checked already.
    ///
    /// # Errors
    ///
    /// Usually a [`UsageError::inconsistent`].
    fn check(&self) -> Result<(), UsageError> {
        Ok(())
    }

    /// Values of repeatable options that come from variables of other options. `variable` returns the value
    /// of a variable.
    #[must_use]
    fn additions(_variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<EnvExtra> {
        Vec::new()
    }
}

/// A value of an option that comes from other variables, in addition to its values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvExtra {
    /// The main name of the option, without dashes.
    pub option: &'static str,
    /// The names of the variables, for messages.
    pub variables: String,
    /// The additional value.
    pub value: OsString,
}

/// An additional environment variable of an option.
#[derive(Clone, Copy, Debug)]
pub struct EnvVar {
    /// The full name of the variable.
    pub name: &'static str,
    /// The main name of the option, without dashes.
    pub option: &'static str,
    /// Its precedence over the command line.
    pub rank: EnvPrecedence,
}

/// The precedence of an additional variable over the command line and the variable of the option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvPrecedence {
    /// Below both: it is read if neither is given.
    Fallback,
    /// Above both, as with the variables of dflockd. For a flag, every value except 1, yes and true turns it
    /// off, as in dflockd.
    Override,
}
