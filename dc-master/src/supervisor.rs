//! Decides when children are started, stopped and restarted: the pure state machine of `dc_master`.
//!
//! The driver passes events and the time in, fetches [`SupervisorAction`]s with [`Supervisor::poll_action`],
//! carries them out and reports the results. This module uses no processes, system signals or sockets.
//!
//! ```text
//!                 ready                    another is ready
//!   Starting ───────────────→ Serving ──────────────────────→ Stopping ──→ (killed) ──→ gone
//!      │ not ready in time, or the master ends                    ↑
//!      └──────────────────────────────────────────────────────────┘
//! ```
//!
//! Invariants:
//! - at most one child is starting and at most one is serving; any number may be stopping;
//! - a serving child is stopped only once another is ready, or when the master ends;
//! - while the master runs a child is starting or serving, or the next start is scheduled.
//!
//! Restarts follow bifrost: pauses of 1 s, doubling to 32 s, and a limit per minute. Nothing here panics.

mod action;
mod backoff;
mod child;
#[cfg(test)]
mod properties;
mod settings;
#[cfg(test)]
mod tests;

pub(crate) use self::action::{
    ChildId, MasterExit, StartFailure, StopSignal, SupervisorAction, SupervisorEvent,
};
use self::backoff::Backoff;
use self::child::{Child, ChildPhase};
pub(crate) use self::settings::SupervisorSettings;
use libdc::time::Time;
use std::collections::VecDeque;

/// The state of all children and the planned actions.
#[derive(Debug)]
pub(crate) struct Supervisor {
    settings: SupervisorSettings,
    children: Vec<Child>,
    started: u64,
    /// Whether a child has ever been ready.
    was_ready: bool,
    /// Whether to start another child once the starting one is ready or has failed.
    again: bool,
    /// Whether the service manager was notified of a reload.
    reloading: bool,
    backoff: Backoff,
    restart_at: Option<Time>,
    /// How the master ends, once it ends.
    end: Option<MasterExit>,
    actions: VecDeque<SupervisorAction>,
}

impl Supervisor {
    /// A supervisor that starts its first child.
    pub(crate) fn new(now: Time, settings: SupervisorSettings) -> Self {
        let mut new = Self {
            settings,
            children: Vec::new(),
            started: 0,
            was_ready: false,
            again: false,
            reloading: false,
            backoff: Backoff::new(settings.restarts_max),
            restart_at: None,
            end: None,
            actions: VecDeque::new(),
        };
        new.start(now);
        new
    }

    /// The next thing to do.
    pub(crate) fn poll_action(&mut self) -> Option<SupervisorAction> {
        self.actions.pop_front()
    }

    /// When [`Supervisor::handle_time`] is to be called at the latest.
    pub(crate) fn next_deadline(&self) -> Option<Time> {
        let children = self.children.iter().filter_map(Child::deadline);
        children.chain(self.restart_at).min()
    }

    pub(crate) fn is_starting(&self, id: ChildId) -> bool {
        self.children.iter().any(|child| child.id == id && child.phase.is_starting())
    }

    pub(crate) fn is_stopping(&self, id: ChildId) -> bool {
        self.children.iter().any(|child| child.id == id && matches!(child.phase, ChildPhase::Stopping { .. }))
    }

    pub(crate) const fn is_ending(&self) -> bool {
        self.end.is_some()
    }

    /// Requests a new child to replace the serving one.
    pub(crate) fn handle_hangup(&mut self, now: Time) {
        if self.end.is_some() {
            self.report(SupervisorEvent::HangupIgnored);
            return;
        }
        if self.was_ready && !self.reloading {
            self.reloading = true;
            self.actions.push_back(SupervisorAction::TellReloading);
        }
        if self.find(ChildPhase::is_starting).is_some() {
            self.again = true;
            self.report(SupervisorEvent::HangupPostponed);
        } else {
            self.start(now);
        }
    }

    /// Ends the master once its children have ended. Each `signal` is passed to all of them.
    pub(crate) fn handle_end(&mut self, now: Time, signal: StopSignal) {
        let first = self.end.is_none();
        if first {
            self.report(SupervisorEvent::Ending { signal });
            self.actions.push_back(SupervisorAction::TellStopping);
        }
        self.end_all(now, signal, MasterExit::Success);
    }

    /// The child could not be started at all. It is gone.
    pub(crate) fn handle_failed_start(&mut self, now: Time, id: ChildId) {
        if !self.was_ready && self.children.len() == 1 && self.end.is_none() && self.backoff.is_unused() {
            // No child has ever run: the parent process of the master still waits for the result.
            self.end = Some(MasterExit::CommandFailed);
        }
        self.handle_exit(now, id);
    }

    /// The child has sent `READY=1`. It only affects a starting child.
    pub(crate) fn handle_ready(&mut self, now: Time, id: ChildId) {
        let Some(child) = self.children.iter_mut().find(|child| child.id == id && child.phase.is_starting())
        else {
            return;
        };
        child.phase = ChildPhase::Serving { since: now };
        self.report(SupervisorEvent::Ready { child: id });
        self.was_ready = true;
        let timeout = self.settings.stop_timeout_ms;
        for child in &mut self.children {
            if child.id != id && matches!(child.phase, ChildPhase::Serving { .. }) {
                child.stop(now, timeout);
                self.actions.push_back(SupervisorAction::Stop { child: child.id });
                self.actions
                    .push_back(SupervisorAction::Report(SupervisorEvent::Stopping { child: child.id }));
            }
        }
        self.actions.push_back(SupervisorAction::TellReady { child: id });
        self.reloading = false;
        self.resolve(now);
    }

    /// The child requests `ms` more, from now, to become ready.
    pub(crate) fn handle_extension(&mut self, now: Time, id: ChildId, ms: u64) {
        let until = now.after_ms(ms);
        let child = self.children.iter_mut().find(|child| child.id == id);
        if let Some(ChildPhase::Starting { ready_at, given_up_at }) = child.map(|child| &mut child.phase) {
            // It announces readiness itself, so its age no longer counts.
            *ready_at = None;
            *given_up_at = given_up_at.map(|at| at.max(until));
        }
    }

    /// The child has ended.
    pub(crate) fn handle_exit(&mut self, now: Time, id: ChildId) {
        let Some(place) = self.children.iter().position(|child| child.id == id) else { return };
        let child = self.children.remove(place);
        if let Some(status) = self.end {
            if self.children.is_empty() {
                self.actions.push_back(SupervisorAction::End(status));
            }
            return;
        }
        match child.phase {
            ChildPhase::Stopping { .. } => {}
            ChildPhase::Starting { .. } => {
                self.start_failed(now, StartFailure::DiedEarly { child: id });
            }
            ChildPhase::Serving { since } => {
                self.report(SupervisorEvent::Died { child: id });
                self.backoff.note_run(now.ms_since(since));
                if self.find(ChildPhase::is_starting).is_none() {
                    self.plan_restart(now);
                }
            }
        }
    }

    /// Handles all deadlines that have passed.
    pub(crate) fn handle_time(&mut self, now: Time) {
        if self.restart_at.is_some_and(|at| at <= now) {
            self.backoff.note_restart(now);
            self.start(now);
        }
        for id in self.due(now, |phase| matches!(phase, ChildPhase::Stopping { .. })) {
            self.actions.push_back(SupervisorAction::Kill { child: id });
            self.report(SupervisorEvent::Killed { child: id });
        }
        for id in self.due(now, ChildPhase::is_ready_by_age) {
            self.handle_ready(now, id);
        }
        for id in self.due(now, ChildPhase::is_starting) {
            self.give_up(now, id);
        }
    }

    fn start(&mut self, now: Time) {
        self.restart_at = None;
        self.started += 1;
        let id = ChildId(self.started);
        self.children.push(Child::starting(id, now, &self.settings));
        self.actions.push_back(SupervisorAction::Start { child: id });
    }

    /// Children in a phase whose next deadline has passed. Each deadline is returned once.
    fn due(&mut self, now: Time, among: impl Fn(&ChildPhase) -> bool) -> Vec<ChildId> {
        let mut due = Vec::new();
        for child in self.children.iter_mut().filter(|child| among(&child.phase)) {
            if child.take_due(now) {
                due.push(child.id);
            }
        }
        due
    }

    fn give_up(&mut self, now: Time, id: ChildId) {
        if let Some(child) = self.children.iter_mut().find(|child| child.id == id) {
            child.stop(now, self.settings.stop_timeout_ms);
            self.actions.push_back(SupervisorAction::Stop { child: id });
            self.start_failed(now, StartFailure::NotReady { child: id });
        }
    }

    /// The starting child failed. The serving one keeps serving; if there is none, a restart is scheduled.
    fn start_failed(&mut self, now: Time, setback: StartFailure) {
        let serving = self.find(|phase| matches!(phase, ChildPhase::Serving { .. }));
        self.report(SupervisorEvent::Failed { setback, serves_on: serving });
        if let Some(child) = serving {
            if self.reloading {
                self.reloading = false;
                self.actions.push_back(SupervisorAction::TellServesOn { child, after: setback });
            }
        } else if !self.again {
            self.plan_restart(now);
        }
        self.resolve(now);
    }

    /// No child is starting any more: a postponed request for another takes effect.
    fn resolve(&mut self, now: Time) {
        if std::mem::take(&mut self.again) && self.end.is_none() {
            self.handle_hangup(now);
        }
    }

    fn plan_restart(&mut self, now: Time) {
        match self.backoff.next_pause_ms(now) {
            Some(pause_ms) => {
                self.restart_at = Some(now.after_ms(pause_ms));
                self.report(SupervisorEvent::Restarting { in_ms: pause_ms });
                if self.was_ready {
                    self.actions.push_back(SupervisorAction::TellRestarting { in_ms: pause_ms });
                }
            }
            None => {
                self.report(SupervisorEvent::TooManyRestarts);
                self.actions.push_back(SupervisorAction::TellStopping);
                self.end_all(now, StopSignal::Terminate, MasterExit::TooManyRestarts);
            }
        }
    }

    fn end_all(&mut self, now: Time, signal: StopSignal, status: MasterExit) {
        let status = *self.end.get_or_insert(status);
        self.restart_at = None;
        self.again = false;
        for child in &mut self.children {
            child.stop(now, self.settings.stop_timeout_ms);
            self.actions.push_back(SupervisorAction::Pass { child: child.id, signal });
        }
        if self.children.is_empty() {
            self.actions.push_back(SupervisorAction::End(status));
        }
    }

    fn find(&self, phase: impl Fn(&ChildPhase) -> bool) -> Option<ChildId> {
        self.children.iter().find(|child| phase(&child.phase)).map(|child| child.id)
    }

    fn report(&mut self, report: SupervisorEvent) {
        self.actions.push_back(SupervisorAction::Report(report));
    }
}
