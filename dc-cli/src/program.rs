//! A program, as its options need to know it.

use crate::error::UsageError;
use std::ffi::OsString;

/// The version of all programs: that of the workspace.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The variables that are read for every program that has the option.
pub const FURTHER: &[EnvVar] = &[EnvVar { name: "RUST_LOG", option: "log", rank: EnvPrecedence::Fallback }];

/// A program, as its options need to know it.
#[derive(Clone, Copy, Debug)]
pub struct ProgramInfo {
    /// Its name: `dc_client`.
    pub name: &'static str,
    /// What its environment variables begin with: `DC_CLIENT_`.
    pub env_prefix: &'static str,
    /// What it is, in one line for the usage.
    pub about: &'static str,
    /// Variables that its options are read from besides their own (`RUST_LOG` need not be named).
    pub variables: &'static [EnvVar],
}

/// The options of a program: a struct that derives [`clap::Args`].
pub trait CommandOptions: clap::Args {
    /// Checks what only shows in several options together. The options' values have been checked already.
    ///
    /// # Errors
    ///
    /// What is wrong, most often a [`UsageError::inconsistent`].
    fn check(&self) -> Result<(), UsageError> {
        Ok(())
    }

    /// What variables that are no option's own add to options that may be repeated. `variable` is asked for the
    /// value of a variable by its name.
    #[must_use]
    fn additions(_variable: &dyn Fn(&str) -> Option<OsString>) -> Vec<EnvExtra> {
        Vec::new()
    }
}

/// A value that variables give to an option besides what else it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvExtra {
    /// The option, by its main name without dashes.
    pub option: &'static str,
    /// The variables that it comes from, for messages.
    pub variables: String,
    /// The value.
    pub value: OsString,
}

/// A variable that an option is read from besides its own.
#[derive(Clone, Copy, Debug)]
pub struct EnvVar {
    /// The variable's full name.
    pub name: &'static str,
    /// The option, by its main name without dashes.
    pub option: &'static str,
    /// What it counts.
    pub rank: EnvPrecedence,
}

/// What a further variable of an option counts, beside the command line and the option's own variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnvPrecedence {
    /// Less than both: it is read when neither says anything.
    Fallback,
    /// More than both, as the variables of dflockd. For a flag, every word but 1, yes and true turns it off, as there.
    Override,
}
