//! `dc_client`: the agent, one on every host, between its applications and the server.

mod options;
mod serve;

use options::{AgentOptions, PROGRAM};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options: AgentOptions = PROGRAM.parse();
    dc_daemon::start::exit_code(&PROGRAM, &options.daemon.log, serve::run(&options))
}
