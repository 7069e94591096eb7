//! Daemons as processes: the result of a start as the parent process sees it, the remaining files, and the
//! privileges.
//!
//! The test runner is a function because the daemon is the same executable: started with `--probe`, it must
//! fork before there is a second thread.
#![allow(clippy::unwrap_used, reason = "a test, in a form that the lint does not recognise")]

mod fleet;
mod launching;
mod leftovers;
mod probe;
#[path = "../../../tests/src/harness/require.rs"]
#[allow(unreachable_pub, reason = "public in the harness, where the file stands")]
mod require;

use libtest_mimic::{Arguments, Trial};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(("--probe", options)) = arguments.split_first().map(|(first, rest)| (first.as_str(), rest)) {
        return probe::main(options);
    }
    fleet::adopt_orphans();
    let mut trials: Vec<Trial> = Vec::new();
    for (name, case) in launching::CASES.iter().chain(leftovers::CASES) {
        trials.push(Trial::test(*name, move || {
            case();
            Ok(())
        }));
    }
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
