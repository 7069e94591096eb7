//! The signals that the master takes.
//!
//! | signal | effect |
//! |---|---|
//! | `SIGHUP` | a new child, then the end of the old one |
//! | `SIGINT`, `SIGTERM`, `SIGQUIT` | passed to the children; the master ends when they have |
//! | `SIGUSR1`, `SIGUSR2` | passed to the children |
//! | `SIGCHLD` | a process has ended |

use crate::supervisor::StopSignal;
use dc_daemon::signals::BlockedSignals;
use nix::sys::signal::Signal;
use std::io;
use std::task::{Context, Poll};
use tokio::signal::unix::{self, SignalKind, signal};

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    Restart,
    End(StopSignal),
    Pass(Signal),
    Reap,
}

/// What each signal asks for. The end comes first: where children got the signal too, their deaths are no failures. Then
/// ends of processes: what is decided behind them knows of them.
const REQUESTS: [(Signal, SignalRequest); 7] = [
    (Signal::SIGTERM, SignalRequest::End(StopSignal::Terminate)),
    (Signal::SIGINT, SignalRequest::End(StopSignal::Interrupt)),
    (Signal::SIGQUIT, SignalRequest::End(StopSignal::Quit)),
    (Signal::SIGCHLD, SignalRequest::Reap),
    (Signal::SIGHUP, SignalRequest::Restart),
    (Signal::SIGUSR1, SignalRequest::Pass(Signal::SIGUSR1)),
    (Signal::SIGUSR2, SignalRequest::Pass(Signal::SIGUSR2)),
];

/// The signals of the process, from the moment this exists.
#[derive(Debug)]
pub(crate) struct MasterSignals(Vec<(SignalRequest, unix::Signal)>);

impl MasterSignals {
    /// Holds the signals back, until they are [listened to](Self::listen): one that comes before would end the process, and leave its files.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn hold() -> io::Result<BlockedSignals> {
        BlockedSignals::hold_these(REQUESTS.map(|(number, _)| number))
    }

    /// Takes over the signals, those that came meanwhile too, in the runtime. `SIGHUP` too where the process was started with it ignored.
    ///
    /// # Errors
    /// Those of the system.
    pub(crate) fn listen(held: BlockedSignals) -> io::Result<Self> {
        let taken = REQUESTS.into_iter().map(|(number, request)| {
            let signal = signal(SignalKind::from_raw(number as i32))?;
            Ok((request, signal))
        });
        let signals = Self(taken.collect::<io::Result<_>>()?);
        held.release()?;
        Ok(signals)
    }

    /// The next request. Signals of one kind that come before this is asked are one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<SignalRequest> {
        for (request, signal) in &mut self.0 {
            if let Poll::Ready(Some(())) = signal.poll_recv(cx) {
                return Poll::Ready(*request);
            }
        }
        Poll::Pending
    }
}

/// The signal of the system.
pub(crate) const fn system_signal(signal: StopSignal) -> Signal {
    match signal {
        StopSignal::Interrupt => Signal::SIGINT,
        StopSignal::Terminate => Signal::SIGTERM,
        StopSignal::Quit => Signal::SIGQUIT,
    }
}
