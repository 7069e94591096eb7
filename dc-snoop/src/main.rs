//! `dc_snoop`: relays distcache traffic unchanged and decodes it, or decodes a capture.
//!
//! ```text
//! socket ──► relay ──► socket          capture ──► reassembly
//!              │  bytes, once relayed                  │
//!              └───────────► decoder: observer, filter, statistics
//!                             │                │
//!                     printer thread     writer thread (-write)
//! ```
//!
//! The relay waits for neither thread: their queues are bounded, and overflow is dropped and counted.

mod capture;
mod clock;
mod decoder;
mod dump;
mod filter;
mod json;
mod line;
mod monitor;
mod options;
mod printer;
mod record;
mod relay;
mod replay;
mod run;
mod socket;
mod stats;

use options::{PROGRAM, SnoopAction, SnoopOptions};
use std::process::ExitCode;

fn main() -> ExitCode {
    let options: SnoopOptions = PROGRAM.parse();
    let Some((action, view)) = options.into_parts() else {
        return ExitCode::FAILURE;
    };
    let result = match action {
        SnoopAction::Relay { listen, server, write } => run::relay(&listen, server, write.as_deref(), &view),
        SnoopAction::Read(file) => run::read(&file, &view),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("dc_snoop: {error}");
            ExitCode::FAILURE
        }
    }
}
