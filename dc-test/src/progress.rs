//! The line on a terminal that shows how far a run has come. It is written over itself, and wiped at the end.

use crate::options::TestOptions;
use crate::run::TestRun;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// How often it is redrawn.
const INTERVAL: Duration = Duration::from_millis(100);
const BAR_CHARS: usize = 30;

/// Draws for as long as it is polled, if stderr is a terminal and no lines are printed anyway.
pub(crate) async fn draw(run: &TestRun, options: &TestOptions) -> std::convert::Infallible {
    if options.progress > 0 || !std::io::stderr().is_terminal() {
        return std::future::pending().await;
    }
    let _wiper = Wiper;
    let mut ticks = tokio::time::interval(INTERVAL);
    loop {
        ticks.tick().await;
        let lasted = run.elapsed();
        let done = run.done();
        let operations = share(done as f64, options.operations() as f64);
        let time = options.duration.map_or(0.0, |all| share(lasted.as_secs_f64(), all.as_secs_f64()));
        let (unit, failed) = (run.tally.borrow().sheet().unit, run.tally.borrow().failed());
        let line = line(operations.max(time), done, unit, lasted, failed);
        eprint!("\r{line}\x1b[K");
        std::io::stderr().flush().ok();
    }
}

/// Leaves the line empty.
struct Wiper;

impl Drop for Wiper {
    fn drop(&mut self) {
        eprint!("\r\x1b[K");
    }
}

fn share(part: f64, all: f64) -> f64 {
    if all > 0.0 { (part / all).min(1.0) } else { 1.0 }
}

fn line(share: f64, done: u64, unit: &str, lasted: Duration, failed: u64) -> String {
    let full = (share * BAR_CHARS as f64) as usize;
    let bar = "=".repeat(full) + &" ".repeat(BAR_CHARS - full);
    let rate = done as f64 / lasted.as_secs_f64().max(1e-3);
    format!("[{bar}] {:3.0} %  {done} {unit}, {rate:.0} a second, {failed} failed", share * 100.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_fills() {
        let at = |share| line(share, 500, "operations", Duration::from_secs(2), 1);
        assert_eq!(at(0.5), "[===============               ]  50 %  500 operations, 250 a second, 1 failed");
        assert!(at(1.0).starts_with("[==============================] 100 %"));
        assert_eq!(share(1.0, 0.0), 1.0);
        assert_eq!(share(3.0, 2.0), 1.0);
    }
}
