//! One child, from its start to its end.

use super::action::ChildId;
use super::settings::SupervisorSettings;
use libdc::time::Time;

/// A child that has not ended.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) id: ChildId,
    pub(super) phase: ChildPhase,
}

/// How far a child has come. See the drawing in [`crate::supervisor`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ChildPhase {
    /// It was started and is not ready.
    Starting {
        /// When it is taken for ready, unless it is to say so itself.
        ready_at: Option<Time>,
        /// When it is given up.
        given_up_at: Option<Time>,
    },
    /// It is ready.
    Serving {
        /// Since when.
        since: Time,
    },
    /// It was told to stop.
    Stopping {
        /// When it is killed.
        killed_at: Option<Time>,
    },
}

impl Child {
    pub(super) fn starting(id: ChildId, now: Time, settings: &SupervisorSettings) -> Self {
        let ready_at = after(now, settings.start_ms);
        // It would be given up before its age can make it ready, always.
        let given_up_at =
            after(now, settings.ready_timeout_ms).map(|at| ready_at.map_or(at, |ready_at| at.max(ready_at)));
        Self { id, phase: ChildPhase::Starting { ready_at, given_up_at } }
    }

    /// It was told to stop, and is killed in a while if it does not. Told again, it has no more time than before.
    pub(super) fn stop(&mut self, now: Time, timeout_ms: u64) {
        if !matches!(self.phase, ChildPhase::Stopping { .. }) {
            self.phase = ChildPhase::Stopping { killed_at: after(now, timeout_ms) };
        }
    }

    /// The soonest of its times.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self.phase {
            ChildPhase::Starting { ready_at, given_up_at } => ready_at.into_iter().chain(given_up_at).min(),
            ChildPhase::Serving { .. } => None,
            ChildPhase::Stopping { killed_at } => killed_at,
        }
    }

    /// Whether the soonest of its times has come. It will not come again.
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

    /// Whether the next that happens to it is that it is taken for ready, which is never later than that it is given up.
    pub(super) const fn is_ready_by_age(&self) -> bool {
        matches!(self, Self::Starting { ready_at: Some(_), .. })
    }
}

fn after(now: Time, ms: u64) -> Option<Time> {
    (ms > 0).then(|| now.after_ms(ms))
}
