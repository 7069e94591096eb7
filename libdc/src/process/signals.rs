//! What signals do, the same in all programs that serve.
//!
//! | signal | effect |
//! |---|---|
//! | `SIGTERM`, `SIGINT` | shut down in order; a second one: at once |
//! | `SIGHUP` | detached, or started under nohup(1): ignored. In the foreground: as `SIGTERM` |
//! | `SIGUSR1`, `SIGUSR2` | ignored; with `-killable`: as `SIGTERM` |
//! | `SIGPIPE` | ignored, as every Rust program does from its start: a closed peer is an error of the write |
//!
//! What is ignored is logged, `SIGPIPE` apart. Nothing here panics.

use std::fs;
use std::future::poll_fn;
use std::io;
use std::task::{Context, Poll};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// How a program takes those signals that it may take in two ways.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SignalPolicy {
    /// `-killable`: `SIGUSR1` and `SIGUSR2` end the program.
    pub killable: bool,
    /// `-daemon`: `SIGHUP` does not end the program.
    pub detached: bool,
}

/// The signals of the process, from the moment this exists.
#[derive(Debug)]
pub struct Signals {
    sources: Vec<Source>,
    /// Whether one has ended the program already.
    ending: bool,
}

/// The program is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shutdown {
    /// Without finishing what is in flight.
    pub now: bool,
}

#[derive(Debug)]
struct Source {
    name: &'static str,
    signal: Signal,
    ends: bool,
}

impl Signals {
    /// Takes over the signals. Within a tokio runtime, before the program serves.
    ///
    /// # Errors
    /// Those of the system.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn listen(policy: SignalPolicy) -> io::Result<Self> {
        let hangup_ends = !policy.detached && !hangup_is_ignored();
        let sources = [
            ("SIGTERM", SignalKind::terminate(), true),
            ("SIGINT", SignalKind::interrupt(), true),
            ("SIGHUP", SignalKind::hangup(), hangup_ends),
            ("SIGUSR1", SignalKind::user_defined1(), policy.killable),
            ("SIGUSR2", SignalKind::user_defined2(), policy.killable),
        ]
        .into_iter()
        .map(|(name, kind, ends)| Ok(Source { name, signal: signal(kind)?, ends }))
        .collect::<io::Result<_>>()?;
        Ok(Self { sources, ending: false })
    }

    /// Waits for a signal that ends the program. The same one sent twice before this looks is one signal, as the
    /// system has it. Cancel-safe: none is lost.
    pub async fn shutdown(&mut self) -> Shutdown {
        poll_fn(|context| self.poll_shutdown(context)).await
    }

    /// As [`Signals::shutdown`], for a driver that polls.
    pub fn poll_shutdown(&mut self, context: &mut Context<'_>) -> Poll<Shutdown> {
        for source in &mut self.sources {
            while let Poll::Ready(Some(())) = source.signal.poll_recv(context) {
                if source.ends {
                    let now = std::mem::replace(&mut self.ending, true);
                    tracing::info!(signal = source.name, now, "shutting down");
                    return Poll::Ready(Shutdown { now });
                }
                tracing::info!(signal = source.name, "ignored");
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
