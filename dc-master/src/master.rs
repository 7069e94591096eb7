//! The driver: reports events to the supervisor and carries out its actions.

use crate::error::MasterError;
use crate::fd_store::FdStore;
use crate::launch::Launcher;
use crate::notify_listener::{FdStoreRequest, NotifyMessage};
use crate::output::ChildOutput;
use crate::process::{ChildProcess, reap};
use crate::signals::{MasterSignals, SignalRequest, system_signal};
use crate::sockets::ListenSockets;
use crate::supervisor::{
    ChildId, MasterExit, StartFailure, Supervisor, SupervisorAction, SupervisorEvent, SupervisorSettings,
};
use dc_daemon::lifecycle::{LifecycleError, Serving, Unprivileged};
use dc_daemon::notify::Notifier;
use libdc::net::clock::DriverClock;
use nix::sys::signal::Signal;
use std::future::{pending, poll_fn};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::task::yield_now;
use tracing::{debug, error, info, warn};

/// Minimum time that a child must survive after READY=1. Early failures show up within it.
const BELIEVED_AFTER: Duration = Duration::from_millis(50);

/// The parts that the master is built from.
#[derive(Debug)]
pub(crate) struct MasterParts {
    pub(crate) launcher: Launcher,
    pub(crate) sockets: ListenSockets,
    pub(crate) output: ChildOutput,
    pub(crate) signals: MasterSignals,
    pub(crate) notifier: Notifier,
    pub(crate) confined: Unprivileged,
}

#[derive(Debug)]
pub(crate) struct Master {
    supervisor: Supervisor,
    clock: DriverClock,
    stop_signal: Signal,
    restarts_max: usize,
    launcher: Launcher,
    sockets: ListenSockets,
    store: FdStore,
    processes: Vec<ChildProcess>,
    output: ChildOutput,
    signals: MasterSignals,
    notifier: Notifier,
    watchdog_at: Option<Instant>,
    life: MasterPhase,
    /// The last reason why a command could not be executed.
    reason: Option<String>,
}

/// The phase of the master itself.
#[derive(Debug)]
enum MasterPhase {
    /// No child has been ready yet; the parent process of the master is waiting.
    Starting(Unprivileged),
    /// A child has been ready.
    Serving(Serving),
    /// The start could not be completed.
    Failed(LifecycleError),
    /// Placeholder during a transition.
    Between,
}

#[derive(Debug)]
enum MasterEvent {
    Request(SignalRequest),
    Notice(ChildId, NotifyMessage),
}

impl Master {
    /// Creates a master that is about to start its first child. Call it in the runtime, in the main thread.
    pub(crate) fn new(settings: SupervisorSettings, stop_signal: Signal, parts: MasterParts) -> Self {
        let MasterParts { launcher, sockets, output, signals, notifier, confined } = parts;
        let clock = DriverClock::start();
        Self {
            supervisor: Supervisor::new(clock.now(), settings),
            clock,
            stop_signal,
            restarts_max: settings.restarts_max,
            launcher,
            sockets,
            store: FdStore::default(),
            processes: Vec::new(),
            output,
            signals,
            watchdog_at: notifier.watchdog_interval().map(|_| Instant::now()),
            notifier,
            life: MasterPhase::Starting(confined),
            reason: None,
        }
    }

    /// Runs until a signal ends the master or the supervisor gives up.
    ///
    /// # Errors
    ///
    /// [`MasterError`] if it ends without a signal.
    pub(crate) async fn run(mut self) -> Result<(), MasterError> {
        loop {
            self.confirm_ready();
            while let Some(action) = self.supervisor.poll_action() {
                if let Some(status) = self.act(action) {
                    return self.shut_down(status).await;
                }
            }
            self.processes.retain(|process| !process.ended);
            self.keep_alive();
            // In every round: a child may send notifications without pause.
            let now = self.clock.now();
            if self.supervisor.next_deadline().is_some_and(|at| at <= now) {
                self.catch_up().await;
                self.supervisor.handle_time(now);
                continue;
            }
            // Rotates the children, so that each gets its turn.
            if self.processes.len() > 1 {
                self.processes.rotate_left(1);
            }
            let wait = self.next_wait();
            tokio::select! {
                biased;
                event = poll_fn(|cx| Self::poll_event(&mut self.signals, &mut self.processes, cx)) => self.handle(event),
                () = wait => {}
            }
        }
    }

    fn poll_event(
        signals: &mut MasterSignals,
        processes: &mut [ChildProcess],
        cx: &mut Context<'_>,
    ) -> Poll<MasterEvent> {
        if let Poll::Ready(request) = signals.poll(cx) {
            return Poll::Ready(MasterEvent::Request(request));
        }
        for process in processes {
            if let Poll::Ready(notice) = process.notices.poll(cx) {
                return Poll::Ready(MasterEvent::Notice(process.id, notice));
            }
        }
        Poll::Pending
    }

    /// Handles pending events before the deadlines: if the master was delayed, a child may have ended or
    /// become ready in time.
    async fn catch_up(&mut self) {
        // Lets the runtime poll for signals.
        yield_now().await;
        while let Poll::Ready(request) = poll_fn(|cx| Poll::Ready(self.signals.poll(cx))).await {
            self.handle(MasterEvent::Request(request));
        }
        for place in 0..self.processes.len() {
            self.hear(place);
        }
        self.reap();
    }

    /// Handles the notifications that a child has already sent.
    fn hear(&mut self, place: usize) {
        let (id, mut looked_at) = (self.processes[place].id, 0);
        while let Some(notice) = self.processes[place].notices.next(&mut looked_at) {
            self.handle_notice(id, notice);
        }
    }

    /// Waits until the next deadline.
    fn next_wait(&self) -> impl Future<Output = ()> + use<> {
        let deadline = self.supervisor.next_deadline().map(|at| self.clock.instant(at));
        let believed = self.processes.iter().filter_map(|process| process.believed_at);
        let next = deadline.into_iter().chain(self.watchdog_at).chain(believed).min();
        async move {
            match next {
                Some(at) => tokio::time::sleep_until(at.into()).await,
                None => pending().await,
            }
        }
    }

    /// Sends the keepalive to the master's service manager when it is due.
    fn keep_alive(&mut self) {
        let now = Instant::now();
        if let (Some(interval), Some(at)) = (self.notifier.watchdog_interval(), self.watchdog_at)
            && at <= now
        {
            self.notifier.watchdog();
            self.watchdog_at = Some(now + interval / 2);
        }
    }

    fn handle(&mut self, event: MasterEvent) {
        let now = self.clock.now();
        match event {
            MasterEvent::Request(SignalRequest::Restart) => {
                info!("new child requested");
                self.supervisor.handle_hangup(now);
            }
            MasterEvent::Request(SignalRequest::End(signal)) => self.supervisor.handle_end(now, signal),
            MasterEvent::Request(SignalRequest::Pass(signal)) => {
                info!(%signal, "forwarded to the children");
                // A starting child may not have installed its handler yet and would die of the signal.
                let heeds = |process: &&ChildProcess| {
                    !self.supervisor.is_starting(process.id) || process.is_prepared_for(signal)
                };
                self.processes.iter().filter(heeds).for_each(|process| process.signal(signal));
            }
            MasterEvent::Request(SignalRequest::Reap) => self.reap(),
            MasterEvent::Notice(child, notice) => self.handle_notice(child, notice),
        }
    }

    fn handle_notice(&mut self, id: ChildId, notice: NotifyMessage) {
        let now = self.clock.now();
        let child = self.number(id);
        let NotifyMessage { ready, status, extension_ms, store, name, polled, descriptors } = notice;
        match store {
            Some(FdStoreRequest::Keep) => self.store.keep(child, name, descriptors, polled),
            Some(FdStoreRequest::Remove) => self.store.remove(child, name.as_deref()),
            None => {}
        }
        if let Some(status) = status {
            debug!(child, status, "status");
            // The last status of an old child does not describe the service.
            if self.supervisor.is_ending() || !self.supervisor.is_stopping(id) {
                self.notifier.status(&format!("process {child}: {status}"));
            }
            if let Some(process) = self.processes.iter_mut().find(|process| process.id == id) {
                process.status = Some(status);
            }
        }
        if let Some(ms) = extension_ms {
            self.supervisor.handle_extension(now, id, ms);
        }
        if ready && self.supervisor.is_starting(id) {
            if let Some(process) = self.processes.iter_mut().find(|process| process.id == id) {
                process.believed_at.get_or_insert(Instant::now() + BELIEVED_AFTER);
            }
            // Extends the deadline, so that it does not pass during the confirmation.
            self.supervisor.handle_extension(now, id, 2 * BELIEVED_AFTER.as_millis() as u64);
        }
    }

    /// Reports children as ready that sent READY=1 and are still alive a moment later. A child that has ended
    /// cannot serve, even if it sent READY=1 before.
    fn confirm_ready(&mut self) {
        let now = Instant::now();
        for process in &mut self.processes {
            if process.believed_at.take_if(|at| *at <= now).is_some() && process.lives() {
                self.supervisor.handle_ready(self.clock.now(), process.id);
            }
        }
    }

    /// Reaps every process that has ended.
    fn reap(&mut self) {
        while let Some((pid, end)) = reap() {
            let Some(place) = self.processes.iter().position(|process| process.pid == pid && !process.ended)
            else {
                debug!(process = pid.as_raw(), "a process that a child left behind has ended");
                continue;
            };
            // Its last notifications are handled first.
            self.hear(place);
            let process = &mut self.processes[place];
            process.ended = true;
            let (id, failure) = (process.id, process.failure());
            info!(child = pid.as_raw(), status = %end, "ended");
            let now = self.clock.now();
            match failure {
                Some(reason) => self.failed_start(id, reason),
                None => self.supervisor.handle_exit(now, id),
            }
        }
    }

    /// Carries out an action. Returns the exit reason if the master ends.
    fn act(&mut self, action: SupervisorAction) -> Option<MasterExit> {
        match action {
            SupervisorAction::Start { child } => self.start(child),
            SupervisorAction::Stop { child } => self.signal(child, self.stop_signal),
            SupervisorAction::Pass { child, signal } => self.signal(child, system_signal(signal)),
            SupervisorAction::Kill { child } => self.signal(child, Signal::SIGKILL),
            SupervisorAction::Report(report) => self.report(report),
            SupervisorAction::TellReady { child } => self.log_ready(child),
            SupervisorAction::TellServesOn { child, after } => self.log_keeps_serving(child, after),
            SupervisorAction::TellReloading => self.notifier.reloading(),
            SupervisorAction::TellRestarting { in_ms } => {
                self.notifier.status(&format!("no child serves; the next one starts in {in_ms} ms"));
            }
            SupervisorAction::TellStopping => self.notifier.stopping(),
            SupervisorAction::End(status) => return Some(status),
        }
        None
    }

    fn start(&mut self, id: ChildId) {
        self.sockets.renew();
        let launched = self
            .sockets
            .duplicates()
            .map_err(|error| error.to_string())
            .and_then(|sockets| {
                self.launcher.launch(sockets, self.store.live()).map_err(|error| error.to_string())
            })
            .and_then(|launched| {
                let pid = launched.pid;
                let process = ChildProcess::new(id, launched, &mut self.output);
                // The process runs but cannot be watched.
                process.map_err(|error| {
                    nix::sys::signal::kill(pid, Signal::SIGKILL).ok();
                    error.to_string()
                })
            });
        match launched {
            Ok(process) => {
                info!(child = process.pid.as_raw(), "started");
                self.processes.push(process);
            }
            Err(reason) => self.failed_start(id, format!("the command: {reason}")),
        }
    }

    fn failed_start(&mut self, id: ChildId, reason: String) {
        self.supervisor.handle_failed_start(self.clock.now(), id);
        // If the master ends because of it, its error reports the reason.
        if !self.supervisor.is_ending() {
            error!("cannot start {reason}");
        }
        self.reason = Some(reason);
    }

    fn signal(&self, id: ChildId, signal: Signal) {
        let process = self.processes.iter().find(|process| process.id == id && !process.ended);
        process.inspect(|process| process.signal(signal));
    }

    fn log_ready(&mut self, id: ChildId) {
        let now = self.clock.now();
        self.life = match std::mem::replace(&mut self.life, MasterPhase::Between) {
            MasterPhase::Starting(confined) => match confined.serving() {
                Ok(serving) => MasterPhase::Serving(serving),
                Err(error) => {
                    self.supervisor.handle_end(now, crate::supervisor::StopSignal::Terminate);
                    MasterPhase::Failed(error)
                }
            },
            other => other,
        };
        if matches!(self.life, MasterPhase::Serving(_)) {
            self.notifier.main_pid(std::process::id());
            self.notifier.ready();
            let child = self.number(id);
            let own = self.processes.iter().find(|process| process.id == id);
            match own.and_then(|process| process.status.as_deref()) {
                Some(status) => self.notifier.status(&format!("process {child}: {status}")),
                None => self.notifier.status(&format!("process {child} serves")),
            }
        }
    }

    fn log_keeps_serving(&self, id: ChildId, after: StartFailure) {
        let why = match after {
            StartFailure::DiedEarly { child } if self.number(child) == 0 => "no new child could be started",
            StartFailure::DiedEarly { .. } => "the new child died before it was ready",
            StartFailure::NotReady { .. } => "the new child was not ready in time",
        };
        self.notifier.ready();
        self.notifier.status(&format!("process {} keeps serving: {why}", self.number(id)));
    }

    fn report(&self, report: SupervisorEvent) {
        let of = |id| self.number(id);
        match report {
            SupervisorEvent::Ready { child } => info!(child = of(child), "ready"),
            SupervisorEvent::Stopping { child } => {
                info!(child = of(child), signal = %self.stop_signal, "stopping");
            }
            SupervisorEvent::Died { child } => warn!(child = of(child), "the child has died"),
            // No process exists, and the cause is already logged.
            SupervisorEvent::Failed { setback: StartFailure::DiedEarly { child }, serves_on }
                if of(child) == 0 =>
            {
                serves_on.inspect(|old| {
                    error!(old = of(*old), "cannot start a new child; the old one keeps serving");
                });
            }
            SupervisorEvent::Failed { setback, serves_on } => self.report_setback(setback, serves_on.map(of)),
            SupervisorEvent::Killed { child } => {
                warn!(child = of(child), "did not stop in time and is killed");
            }
            SupervisorEvent::Restarting { in_ms } => info!(in_ms, "restarting"),
            SupervisorEvent::TooManyRestarts => {
                error!(limit = self.restarts_max, "too many restarts in a minute");
            }
            SupervisorEvent::Ending { signal } => info!(signal = %system_signal(signal), "ending"),
            SupervisorEvent::HangupPostponed => {
                info!("another child starts once this one is ready or has failed");
            }
            SupervisorEvent::HangupIgnored => info!("ending already: no new child is started"),
        }
    }

    fn report_setback(&self, setback: StartFailure, old: Option<i32>) {
        let of = |id| self.number(id);
        match (setback, old) {
            (StartFailure::DiedEarly { child }, None) => {
                error!(child = of(child), "the child died before it was ready");
            }
            (StartFailure::DiedEarly { child }, Some(old)) => {
                error!(
                    child = of(child),
                    old, "the new child died before it was ready; the old one keeps serving"
                );
            }
            (StartFailure::NotReady { child }, None) => {
                error!(child = of(child), "the child was not ready in time");
            }
            (StartFailure::NotReady { child }, Some(old)) => {
                error!(
                    child = of(child),
                    old, "the new child was not ready in time; the old one keeps serving"
                );
            }
        }
    }

    /// Process id of a child for the log; 0 if it has no process.
    fn number(&self, id: ChildId) -> i32 {
        let process = self.processes.iter().find(|process| process.id == id);
        process.map_or(0, |process| process.pid.as_raw())
    }

    async fn shut_down(self, status: MasterExit) -> Result<(), MasterError> {
        self.output.finish().await;
        self.sockets.close();
        info!("ended");
        match self.life {
            MasterPhase::Serving(serving) => serving.finish()?,
            MasterPhase::Failed(error) => return Err(error.into()),
            MasterPhase::Starting(_) | MasterPhase::Between => {}
        }
        match status {
            MasterExit::Success => Ok(()),
            MasterExit::CommandFailed => Err(MasterError::Command(self.reason.unwrap_or_default())),
            MasterExit::TooManyRestarts => Err(MasterError::TooManyRestarts(self.restarts_max)),
        }
    }
}
