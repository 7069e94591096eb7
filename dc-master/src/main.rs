//! `dc_master`: holds the listening sockets of a server, and restarts it without losing a connection.
//!
//! ```text
//! signals, notifications, exited processes  ──→ master (driver) ──→ supervisor (decides)
//!                sockets · launch · output · store ←── runs ←───────────┘ actions
//! ```
//!
//! | module | owns |
//! |---|---|
//! | `supervisor` | the children's states, planned actions, deadlines; pure |
//! | `master` | the event loop, running processes, the service manager |
//! | `sockets` | the listening sockets and their paths |
//! | `launch`, `exec_stub` | the steps from a fork to the command |
//! | `notify_socket`, `notify_listener`, `fd_store` | children's notifications and stored descriptors |
//! | `output` | the children's output |
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
