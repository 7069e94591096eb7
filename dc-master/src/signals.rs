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

/// The request that a signal stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SignalRequest {
    Restart,
    End(StopSignal),
    Pass(Signal),
    Reap,
}

/// The request of each signal. The end comes first: if children received the signal too, their deaths are not
/// failures. Then ended processes, so that later requests take them into account.
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
    /// Blocks the signals until [`Self::listen`]: an earlier one would kill the process and leave its files
    /// behind.
    ///
    /// # Errors
    ///
    /// Those of the system.
    pub(crate) fn hold() -> io::Result<BlockedSignals> {
        BlockedSignals::hold_these(REQUESTS.map(|(number, _)| number))
    }

    /// Takes over the signals, including pending ones, in the runtime. `SIGHUP` is included even if the
    /// process was started with it ignored.
    ///
    /// # Errors
    ///
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

    /// The next request. Several pending signals of one kind count as one.
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
