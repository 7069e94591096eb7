//! What signals do, the same in all programs that serve.
//!
//! | signal | effect |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | shut down in order; a second one: at once |
//! | `SIGHUP` | detached, or started under nohup(1): ignored. In the foreground: as `SIGTERM` |
//! | `SIGUSR1`, `SIGUSR2` | ignored; with `-killable`: as `SIGTERM` |
//! | `SIGPIPE` | ignored, as every Rust program does from its start: a closed peer is an error of the write |
//!
//! What is ignored is logged, `SIGPIPE` apart. While a program starts, from before it makes its first file until it can take
//! signals, they are held back ([`BlockedSignals`]): otherwise one in that time would end it and leave its files. Nothing
//! here panics.

use nix::sys::signal::SigSet;
use nix::sys::signal::Signal::{self, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use tokio::signal::unix::{self, SignalKind};

/// What is taken over, and so held back before.
const TAKEN: [Signal; 5] = [SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGUSR2];

/// How a program takes those signals that it may take in two ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalPolicy {
    /// `-killable`: `SIGUSR1` and `SIGUSR2` end the program.
    pub killable: bool,
    /// `-daemon`: `SIGHUP` does not end the program.
    pub detached: bool,
}

/// The signals of this module, held back from the moment this exists: one that comes waits until they are taken over. A process that
/// gives up before that has been told nothing.
#[derive(Debug)]
#[must_use = "signals are held back until they are listened to"]
pub struct BlockedSignals {
    held: SigSet,
}

impl BlockedSignals {
    /// Holds the signals of this module back, as [`BlockedSignals::hold_these`].
    ///
    /// # Errors
    /// Those of the system, which has no reason for any.
    pub fn hold() -> io::Result<Self> {
        Self::hold_these(TAKEN)
    }

    /// Holds these signals back and no others, from this thread and from those that it starts: so in a process's only thread. One
    /// that was blocked when the process was started would never be heard, and what it starts would inherit that.
    ///
    /// # Errors
    /// Those of the system, which has no reason for any.
    pub fn hold_these(signals: impl IntoIterator<Item = Signal>) -> io::Result<Self> {
        let held: SigSet = signals.into_iter().collect();
        held.thread_set_mask()?;
        Ok(Self { held })
    }

    /// Lets them come. To be called when they are listened to, in the thread that has held them back.
    ///
    /// # Errors
    /// Those of the system, which has no reason for any.
    pub fn release(self) -> io::Result<()> {
        Ok(self.held.thread_unblock()?)
    }

    /// Takes over the signals, those that came meanwhile too. In the thread that has held them back, within a tokio runtime, before
    /// other threads are started.
    ///
    /// # Errors
    /// Those of the system.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(self, policy: SignalPolicy) -> io::Result<SignalStream> {
        let signals = SignalStream::listen(policy)?;
        self.release()?;
        Ok(signals)
    }
}

/// The signals of the process, from the moment this exists.
#[derive(Debug)]
pub struct SignalStream {
    sources: Vec<SignalSource>,
    /// Whether one has ended the program already.
    ending: bool,
}

/// The program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShutdownSignal {
    /// Without finishing what is in flight.
    pub now: bool,
}

#[derive(Debug)]
struct SignalSource {
    signal: Signal,
    received: unix::Signal,
    ends: bool,
}

impl SignalStream {
    /// Takes over the signals. Within a tokio runtime, before the program serves.
    ///
    /// # Errors
    /// Those of the system.
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
            // Its handler undoes that it is ignored, so that is looked at first.
            let ends = ends(taken);
            let received = unix::signal(SignalKind::from_raw(taken as i32))?;
            Ok(SignalSource { signal: taken, received, ends })
        };
        let sources = TAKEN.into_iter().map(source).collect::<io::Result<_>>()?;
        Ok(Self { sources, ending: false })
    }

    /// Waits for a signal that ends the program. The same one sent twice before this looks is one signal, as the
    /// system has it. Cancel-safe: none is lost.
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
