//! The command while it runs under the lock: forwards signals, suspends it, and ends it when the lock is
//! lost.
//!
//! SIGTSTP stops the command first, and `dc_lock` only once the command has stopped: a running command needs
//! its lock renewed. On SIGCONT `dc_lock` checks the lease before it resumes the command.

use crate::command::CommandProcess;
use crate::options::{LockCommandOptions, OnLoss};
use crate::signals::{LockSignals, SignalEvent, is_of_the_terminal, stop_self};
use crate::status::{LockFailure, print_error};
use libdc::client::lock::{Guard, Loss};
use nix::sys::signal::Signal;
use std::future::pending;
use std::process::ExitStatus;
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use tokio::time::sleep;

/// Time between SIGTERM and SIGKILL for the command after the lock is lost.
const KILL_AFTER_LOSS: Duration = Duration::from_secs(1);
/// Time after SIGTSTP within which the command must stop for `dc_lock` to stop too.
const STOP_MAX: Duration = Duration::from_secs(5);

/// A held lock and the command that runs under it.
#[derive(Debug)]
pub(crate) struct GuardedCommand<'a> {
    options: &'a LockCommandOptions,
    guard: &'a Guard,
    command: CommandProcess,
    lost: bool,
    kill_at: Option<Instant>,
    stop_until: Option<Instant>,
    stop: SuspendState,
}

impl<'a> GuardedCommand<'a> {
    /// Starts the command.
    ///
    /// # Errors
    /// [`LockFailure::Command`].
    pub(crate) fn start(options: &'a LockCommandOptions, guard: &'a Guard) -> Result<Self, LockFailure> {
        let command = CommandProcess::start(options, guard)?;
        Ok(Self {
            options,
            guard,
            command,
            lost: false,
            kill_at: None,
            stop_until: None,
            stop: SuspendState::No,
        })
    }

    /// Waits for the end of the command. Returns how it ended, and whether the lock was lost before.
    ///
    /// # Errors
    /// [`LockFailure::Wait`].
    pub(crate) async fn end(mut self, signals: &mut LockSignals) -> Result<(ExitStatus, bool), LockFailure> {
        loop {
            tokio::select! {
                biased;
                ended = self.command.ended() => return Ok((ended?, self.lost)),
                event = signals.next() => self.handle_event(event),
                loss = self.guard.lost(), if !self.lost => self.handle_loss(loss),
                () = reached(self.kill_at) => {
                    self.kill_at = None;
                    print_error(&"the command has not ended: killing it");
                    self.command.signal(Signal::SIGKILL);
                }
                () = yield_now(), if self.stop != SuspendState::No => self.stop_with_command(),
            }
        }
    }

    fn handle_event(&mut self, event: SignalEvent) {
        if event == SignalEvent::Signal(Signal::SIGCONT) {
            return self.go_on();
        }
        if let SignalEvent::Signal(signal) = event {
            let is_stop = signal == Signal::SIGTSTP;
            if is_stop && self.is_ending() {
                return;
            }
            if !is_of_the_terminal(signal) {
                self.command.signal(signal);
            }
            if is_stop {
                self.stop_until = Some(Instant::now() + STOP_MAX);
            }
        }
        self.stop = if self.stop_until.is_some() { SuspendState::Look } else { SuspendState::No };
    }

    /// Stops this process if the command has stopped. The SIGCONT that resumes it is handled afterwards.
    fn stop_with_command(&mut self) {
        if self.stop == SuspendState::Now {
            (self.stop_until, self.stop) = (None, SuspendState::No);
            stop_self();
            return;
        }
        let is_in_time = self.stop_until.is_some_and(|until| Instant::now() < until);
        self.stop =
            if is_in_time && self.command.is_stopped() { SuspendState::Now } else { SuspendState::No };
    }

    /// Resumes the command, or cancels a pending stop.
    fn go_on(&mut self) {
        (self.stop_until, self.stop) = (None, SuspendState::No);
        // If the lease has expired, the loss is reported in a moment and ends the stopped command.
        let is_over = self.guard.loss().is_some() || self.guard.remaining().is_zero();
        if !is_over || self.options.on_loss == OnLoss::Warn {
            self.command.signal(Signal::SIGCONT);
        }
    }

    /// Handles the loss of the lock: logs it and sends SIGTERM to the command.
    fn handle_loss(&mut self, loss: Loss) {
        self.lost = true;
        let key = &self.options.key;
        if self.options.on_loss == OnLoss::Warn {
            print_error(&format_args!("the lock {key} is lost: {loss}; the command runs on without it"));
            return;
        }
        print_error(&format_args!("the lock {key} is lost: {loss}; ending the command"));
        self.command.signal(Signal::SIGTERM);
        // A stopped command handles the signal only after SIGCONT.
        self.command.signal(Signal::SIGCONT);
        let left = self.guard.remaining();
        let after = if left.is_zero() { KILL_AFTER_LOSS } else { left * 4 / 5 };
        self.kill_at = Some(Instant::now() + after);
    }

    /// Whether SIGTERM was sent because the lock is lost.
    fn is_ending(&self) -> bool {
        self.lost && self.options.on_loss == OnLoss::Kill
    }
}

/// Progress of a stop. Signals are handled before each step: a SIGCONT after SIGTSTP cancels it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SuspendState {
    /// No stop is pending, or the command has yet to stop.
    No,
    /// The command may have stopped by now, or had before.
    Look,
    /// The command has stopped.
    Now,
}

async fn reached(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep(moment.saturating_duration_since(Instant::now())).await,
        None => pending().await,
    }
}
