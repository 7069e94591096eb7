//! `dc_lock`: holds a lock while a command runs, like flock(1) for a fleet.

mod command;
mod options;
mod run;
mod signals;
mod status;

use options::{LockOptions, PROGRAM};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options: LockOptions = PROGRAM.parse();
    let status = run::run(&options).unwrap_or_else(|failure| {
        run::say(&failure);
        failure.status()
    });
    ExitCode::from(status)
}
