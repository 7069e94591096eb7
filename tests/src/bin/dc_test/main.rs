//! `dc_test` checks an installation and measures it.
//!
//! Random operations on random sessions; each answer is held against a model of what must be stored. The first
//! wrong answer ends the run. Exit status: 0 all was right; 1 something was wrong, or the server out of reach;
//! 64 a mistake on the command line; 130 interrupted.

mod connection;
mod content;
#[cfg(test)]
mod fake;
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
mod tally;
mod worker;
mod wrong;

use report::Report;
use run::{Run, Stop};
use std::process::ExitCode;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let options: options::Options = options::PROGRAM.parse();
    let run = Run::new(&options);
    let interrupted = async {
        match tokio::signal::ctrl_c().await {
            Ok(()) => run.stop(),
            Err(error) => eprintln!("dc_test: an interrupt will not be noticed: {error}"),
        }
        std::future::pending::<std::convert::Infallible>().await
    };
    let ended = tokio::select! {
        ended = run.clients(&options) => ended,
        never = progress::draw(&run, &options) => match never {},
        never = interrupted => match never {},
    };
    let (tally, outages) = (run.tally.borrow(), run.outages.borrow());
    let stop = ended.as_ref().err();
    let report = Report { options: &options, tally: &tally, outages: &outages, lasted: run.elapsed(), stop };
    if options.json {
        println!("{}", report.to_json());
    } else if tally.answered() > 0 {
        print!("{report}");
    }
    match stop {
        None => ExitCode::SUCCESS,
        Some(stop) => {
            eprintln!("dc_test: {stop}");
            ExitCode::from(if matches!(stop, Stop::Interrupted) { 130 } else { 1 })
        }
    }
}
