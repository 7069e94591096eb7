//! The signals that `dc_lock` handles on behalf of its command.
//!
//! A signal that is ignored from the start, as under nohup(1), stays ignored, in the command too. The
//! exception is SIGCHLD: while it is ignored, the exit status of a child is lost. The command gets its
//! default action, as under flock(1).

use nix::sys::signal::{Signal as Number, raise};
use nix::unistd::{getpgrp, tcgetpgrp};
use std::fs::{self, File};
use std::future::poll_fn;
use std::io;
use std::task::Poll;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that are forwarded.
const PASSED_ON: [Number; 6] =
    [Number::SIGTERM, Number::SIGINT, Number::SIGHUP, Number::SIGQUIT, Number::SIGUSR1, Number::SIGUSR2];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalEvent {
    Signal(Number),
    /// A child has ended, stopped or continued.
    Child,
}

/// The signals of the process, for the lifetime of this value.
#[derive(Debug)]
pub(crate) struct LockSignals {
    ignored: u64,
    taken: Vec<(Number, Signal)>,
    /// Without a handler, an ignored SIGCHLD discards the status of children.
    child: Signal,
}

impl LockSignals {
    /// Handles the signals that end a process.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn listen() -> io::Result<Self> {
        let mut signals = Self { ignored: ignored(), taken: Vec::new(), child: signal(SignalKind::child())? };
        PASSED_ON.into_iter().try_for_each(|number| signals.handle(number))?;
        Ok(signals)
    }

    /// Also handles SIGTSTP and SIGCONT. Before there is a command, their default action is right.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn listen_for_stops(&mut self) -> io::Result<()> {
        self.handle(Number::SIGTSTP)?;
        // Even if it is ignored: a stopped command has to continue.
        self.taken.push((Number::SIGCONT, signal(SignalKind::from_raw(Number::SIGCONT as i32))?));
        Ok(())
    }

    /// The next event. Cancel-safe.
    pub(crate) async fn next(&mut self) -> SignalEvent {
        poll_fn(|cx| {
            let came = self.taken.iter_mut().find_map(|(number, signal)| match signal.poll_recv(cx) {
                Poll::Ready(Some(())) => Some(SignalEvent::Signal(*number)),
                Poll::Ready(None) | Poll::Pending => None,
            });
            let came = came.or_else(|| self.child.poll_recv(cx).is_ready().then_some(SignalEvent::Child));
            came.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The next signal that ends a process. Cancel-safe.
    pub(crate) async fn ending(&mut self) -> Number {
        loop {
            if let SignalEvent::Signal(number) = self.next().await
                && PASSED_ON.contains(&number)
            {
                return number;
            }
        }
    }

    fn handle(&mut self, number: Number) -> io::Result<()> {
        if self.ignored >> (number as i32 - 1) & 1 == 0 {
            self.taken.push((number, signal(SignalKind::from_raw(number as i32))?));
        }
        Ok(())
    }
}

/// Stops this process. Returns when it continues.
pub(crate) fn stop_self() {
    // No system refuses this one.
    raise(Number::SIGSTOP).ok();
}

/// Whether the terminal sends this signal to the command too, which is of the same process group.
pub(crate) fn is_of_the_terminal(number: Number) -> bool {
    let is_key = matches!(number, Number::SIGINT | Number::SIGQUIT | Number::SIGTSTP);
    is_key && File::open("/dev/tty").is_ok_and(|terminal| tcgetpgrp(&terminal) == Ok(getpgrp()))
}

/// The ignored signals as a bit mask; 0 if the system does not report them.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
}
