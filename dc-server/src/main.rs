//! `dc_server`: keeps the sessions of a fleet, and answers the agents of its hosts.

mod housekeeping;
mod options;
mod persistent_fences;
mod serve;

use options::{PROGRAM, ServerOptions};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options: ServerOptions = PROGRAM.parse();
    dc_daemon::start::exit_code(&PROGRAM, &options.daemon.log, serve::run(&options))
}
