//! `dc_lock`: holds a lock while a command runs, like flock(1) for a fleet.

mod command;
mod exec_stub;
mod hold;
mod options;
mod run;
mod script;
mod signals;
mod status;

use exec_stub::ExecStub;
use options::{LockCommandOptions, PROGRAM};
use status::LockFailure;
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(tether) = ExecStub::from_arguments(env::args_os().skip(1)) {
        let source = tether.run();
        let failure =
            LockFailure::Command { command: tether.program().to_string_lossy().into_owned(), source };
        status::print_error(&failure);
        return ExitCode::from(failure.status());
    }
    let options: LockCommandOptions = PROGRAM.parse();
    let status = run::run(&options).unwrap_or_else(|failure| {
        status::print_error(&failure);
        failure.status()
    });
    ExitCode::from(status)
}
