//! `dc_test` checks an installation and measures it.
//!
//! It runs random operations on random sessions and checks each answer against a model of the stored
//! contents. With `-locks`, clients contend for locks, and a model tracks their holders. The first wrong
//! answer ends the run. Exit status: 0 no errors; 1 a wrong answer, or the server is unreachable; 64 usage
//! error; 130 interrupted.

mod clients;
mod connection;
mod content;
mod counters;
#[cfg(test)]
mod fake;
mod locks;
mod model;
#[cfg(test)]
mod model_tests;
mod options;
mod outage;
mod progress;
mod report;
mod run;
#[cfg(test)]
mod run_tests;
mod stop_reason;
mod worker;
mod wrong_answer;

use report::RunReport;
use run::TestRun;
use std::io::{self, ErrorKind, Write};
use std::process::ExitCode;
use stop_reason::StopReason;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options: options::TestOptions = options::PROGRAM.parse();
    let run = TestRun::new(&options);
    let interrupted = async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => run.stop(),
            Err(error) => eprintln!("dc_test: an interrupt will not be noticed: {error}"),
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    let ended = tokio::select! {
        ended = clients::run_clients(&run, &options) => ended,
        never = progress::draw(&run, &options) => match never {},
        never = interrupted => match never {},
    };
    let (tally, outages) = (run.tally.borrow(), run.outages.borrow());
    let stop = ended.as_ref().err();
    let report =
        RunReport { options: &options, tally: &tally, outages: &outages, lasted: run.elapsed(), stop };
    let text = if options.json { format!("{}\n", report.to_json()) } else { report.to_string() };
    let printed = if options.json || tally.answered() > 0 { print(&text) } else { Ok(()) };
    if let Err(error) = &printed {
        eprintln!("dc_test: cannot print the report: {error}");
    }
    match stop {
        None if printed.is_ok() => ExitCode::SUCCESS,
        None => ExitCode::FAILURE,
        Some(stop) => {
            eprintln!("dc_test: {stop}");
            ExitCode::from(if matches!(stop, StopReason::Interrupted) { 130 } else { 1 })
        }
    }
}

/// Prints to stdout. A reader that closes the pipe early is not an error.
fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error),
        _ => Ok(()),
    }
}
