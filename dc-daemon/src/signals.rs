//! Signal handling, the same in all daemons.
//!
//! | signal | effect |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | graceful shutdown; a second one: immediate shutdown |
//! | `SIGHUP` | detached, or started under nohup(1): ignored. In the foreground: as `SIGTERM` |
//! | `SIGUSR1`, `SIGUSR2` | ignored; with `-killable`: as `SIGTERM` |
//! | `SIGPIPE` | ignored, as in every Rust program: a closed peer is a write error |
//!
//! Ignored signals are logged, except `SIGPIPE`. While a program starts, from before its first file until it
//! handles signals, they are blocked ([`BlockedSignals`]): otherwise a signal in that time would end the
//! program and leave its files. Nothing here panics.

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use tokio::signal::unix::{self, SignalKind};

/// The handled signals, blocked during startup.
const TAKEN: [Signal; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];

/// The handling of the signals that depends on options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalPolicy {
    /// `-killable`: `SIGUSR1` and `SIGUSR2` shut the program down.
    pub killable: bool,
    /// `-daemon`: `SIGHUP` does not shut the program down.
    pub detached: bool,
}

/// Blocks the signals of this module: a signal that arrives stays pending until the signals are handled. If
/// the program fails before that, pending signals have no effect.
#[derive(Debug)]
#[must_use = "signals are held back until they are listened to"]
pub struct BlockedSignals {
    held: SigSet,
}

impl BlockedSignals {
    /// Blocks the signals of this module, as [`BlockedSignals::hold_these`].
    ///
    /// # Errors
    /// The errors of `pthread_sigmask(3)`; none are expected.
    pub fn hold() -> io::Result<Self> {
        Self::hold_these(TAKEN)
    }

    /// Blocks these signals and unblocks all others, in this thread and the threads it starts: call it in the
    /// only thread of the process. A signal that was blocked at the start of the process would otherwise
    /// never arrive, and child processes would inherit the mask.
    ///
    /// # Errors
    /// The errors of `pthread_sigmask(3)`; none are expected.
    pub fn hold_these(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let held: SigSet = signals.into_iter().collect();
        held.thread_set_mask()?;
        Ok(Self { held })
    }

    /// Unblocks the signals. Call it once handlers are installed, in the thread that blocked them.
    ///
    /// # Errors
    /// The errors of `pthread_sigmask(3)`; none are expected.
    pub fn release(self) -> io::Result<()> {
        Ok(self.held.thread_unblock()?)
    }

    /// Handles the signals, including pending ones. Call it in the thread that blocked them, within a tokio
    /// runtime, before other threads are started.
    ///
    /// # Errors
    /// A handler cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(self, policy: SignalPolicy) -> io::Result<SignalStream> {
        let signals = SignalStream::listen(policy)?;
        self.release()?;
        Ok(signals)
    }
}

/// The signals of the process, from the moment this value exists.
#[derive(Debug)]
pub struct SignalStream {
    sources: Vec<SignalSource>,
    /// Whether a shutdown was requested already.
    ending: bool,
}

/// A request to shut down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSignal {
    /// Whether to exit without finishing requests in flight.
    pub now: bool,
}

#[derive(Debug)]
struct SignalSource {
    signal: Signal,
    received: unix::Signal,
    ends: bool,
}

impl SignalStream {
    /// Installs the handlers. Call it within a tokio runtime, before the program serves.
    ///
    /// # Errors
    /// A handler cannot be installed.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(policy: SignalPolicy) -> io::Result<Self> {
        let ends = |signal| match signal {
            SIGHUP => !policy.detached && !hangup_is_ignored(),
            SIGUSR1 | SIGUSR2 => policy.killable,
            _ => true,
        };
        let source = |taken: Signal| {
            // Installing the handler undoes the inherited "ignore", so that is checked first.
            let ends = ends(taken);
            let received = unix::signal(SignalKind::from_raw(taken as i32))?;
            Ok(SignalSource { signal: taken, received, ends })
        };
        let sources = TAKEN.into_iter().map(source).collect::<io::Result<_>>()?;
        Ok(Self { sources, ending: false })
    }

    /// Waits for a signal that requests a shutdown. A signal sent twice before this is polled counts once, as
    /// in the kernel. Cancel-safe: no signal is lost.
    pub async fn shutdown(&mut self) -> ShutdownSignal {
        poll_fn(|context| self.poll_shutdown(context)).await
    }

    /// As [`SignalStream::shutdown`], for a driver that polls.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<ShutdownSignal> {
        for source in &mut self.sources {
            while let Poll::Ready(Some(())) = source.received.poll_recv(context) {
                if source.ends {
                    let now = std::mem::replace(&mut self.ending, true);
                    tracing::info!(signal = source.signal.as_str(), now, "shutting down");
                    return Poll::Ready(ShutdownSignal { now });
                }
                tracing::info!(signal = source.signal.as_str(), "ignored");
            }
        }
        Poll::Pending
    }
}

/// Whether the process was started with `SIGHUP` ignored, which the handler would undo.
fn hangup_is_ignored() -> bool {
    let Ok(status) = fs::read_to_string("/proc/self/status") else { return false };
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let bits = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    bits.is_some_and(|bits| bits & 1 != 0)
}
