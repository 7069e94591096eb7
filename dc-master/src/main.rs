//! `dc_master`: holds the listening sockets of a server, and restarts it without losing a connection.
//!
//! ```text
//! signals, notifications, ends of processes ──→ master (driver) ──→ supervisor (decides)
//!                sockets · launch · output · store ←── does ←───────────┘ actions
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `supervisor` | the children's states, the plans, the times; pure |
//! | `master` | the loop, the processes that run, what supervises us |
//! | `sockets` | the listening sockets and their paths |
//! | `launch`, `starter` | the way from a fork to the command |
//! | `notify_socket`, `notices`, `store` | where and what children say, and what they leave |
//! | `output` | what children write |
#![forbid(unsafe_code)]

mod error;
mod exec_stub;
mod fd_store;
mod launch;
mod master;
mod notify_listener;
mod notify_socket;
mod options;
mod output;
mod process;
#[cfg(test)]
#[path = "../../tests/src/harness/require.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where the file stands")]
mod require;
mod run;
mod signals;
mod sockets;
mod supervisor;

use exec_stub::MasterExecStub;
use options::{MasterOptions, PROGRAM};
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Some(starter) = MasterExecStub::from_arguments(std::env::args_os().skip(1)) {
        return starter.run();
    }
    let options: MasterOptions = PROGRAM.parse();
    let log = options.log.clone();
    dc_daemon::start::exit_code(&PROGRAM, &log, run::run(options))
}
