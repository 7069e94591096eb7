//! The state of one child.

use super::action::ChildId;
use super::settings::SupervisorSettings;
use libdc::time::Time;

/// A child that has not ended.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: ChildId,
    pub(super) phase: ChildPhase,
}

/// The phase of a child. See the diagram in [`crate::supervisor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildPhase {
    /// It has been started and is not ready.
    Starting {
        /// When it counts as ready by age; `None` if it must send `READY=1`.
        ready_at: Option<Time>,
        /// Deadline for becoming ready.
        given_up_at: Option<Time>,
    },
    Serving {
        since: Time,
    },
    /// A stop was requested.
    Stopping {
        /// When it is killed.
        killed_at: Option<Time>,
    },
}

impl Child {
    pub(super) fn starting(id: ChildId, now: Time, settings: &SupervisorSettings) -> Self {
        let ready_at = after(now, settings.start_ms);
        // Otherwise it could never become ready by age.
        let given_up_at =
            after(now, settings.ready_timeout_ms).map(|at| ready_at.map_or(at, |ready_at| at.max(ready_at)));
        Self { id, phase: ChildPhase::Starting { ready_at, given_up_at } }
    }

    /// Requests a stop, with a deadline after which it is killed. Repeated requests do not extend the
    /// deadline.
    pub(super) fn stop(&mut self, now: Time, timeout_ms: u64) {
        if !matches!(self.phase, ChildPhase::Stopping { .. }) {
            self.phase = ChildPhase::Stopping { killed_at: after(now, timeout_ms) };
        }
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        match self.phase {
            ChildPhase::Starting { ready_at, given_up_at } => ready_at.into_iter().chain(given_up_at).min(),
            ChildPhase::Serving { .. } => None,
            ChildPhase::Stopping { killed_at } => killed_at,
        }
    }

    /// Whether its next deadline has passed. Clears the deadline.
    pub(super) fn take_due(&mut self, now: Time) -> bool {
        let due = self.deadline().is_some_and(|at| at <= now);
        if let (true, ChildPhase::Stopping { killed_at }) = (due, &mut self.phase) {
            *killed_at = None;
        }
        due
    }
}

impl ChildPhase {
    pub(super) const fn is_starting(&self) -> bool {
        matches!(self, Self::Starting { .. })
    }

    /// Whether readiness by age is its next deadline. It never comes after the one for giving up.
    pub(super) const fn is_ready_by_age(&self) -> bool {
        matches!(self, Self::Starting { ready_at: Some(_), .. })
    }
}

fn after(now: Time, ms: u64) -> Option<Time> {
    (ms > 0).then(|| now.after_ms(ms))
}
