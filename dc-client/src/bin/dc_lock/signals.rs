//! The signals that `dc_lock` takes on behalf of its command.
//!
//! One that is ignored from the start, as under nohup(1), stays ignored, for the command too. But SIGCHLD: while that is ignored
//! nobody can be told how a child has ended, and the command has it by default, as under flock(1).

use nix::sys::signal::Signal as Number;
use nix::unistd::{getpgrp, tcgetpgrp};
use std::fs::{self, File};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are passed on.
const PASSED_ON: [Number; 6] =
    [Number::SIGTERM, Number::SIGINT, Number::SIGHUP, Number::SIGQUIT, Number::SIGUSR1, Number::SIGUSR2];

/// The signals of the process, from the moment this exists.
#[derive(Debug)]
pub(crate) struct Signals {
    passed_on: Vec<(Number, Signal)>,
    /// Kept, so that children that end are not forgotten.
    _child: Signal,
}

impl Signals {
    /// Takes them over.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn listen() -> io::Result<Self> {
        let ignored = ignored();
        let taken = PASSED_ON.into_iter().filter(|number| ignored >> (*number as i32 - 1) & 1 == 0);
        let listening = taken.map(|number| Ok((number, signal(SignalKind::from_raw(number as i32))?)));
        Ok(Self { passed_on: listening.collect::<io::Result<_>>()?, _child: signal(SignalKind::child())? })
    }

    /// The next one. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Number {
        poll_fn(|cx| {
            let came = self.passed_on.iter_mut().find_map(|(number, signal)| match signal.poll_recv(cx) {
                Poll::Ready(Some(())) => Some(*number),
                Poll::Ready(None) | Poll::Pending => None,
            });
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }
}

/// Whether the terminal sends this signal to the command too, which is of the same process group.
pub(crate) fn is_of_the_terminal(number: Number) -> bool {
    let is_key = matches!(number, Number::SIGINT | Number::SIGQUIT);
    is_key && File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal) == Ok(getpgrp()))
}

/// The signals that are ignored, a bit each. Where the system does not say, none.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
