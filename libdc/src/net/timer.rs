//! A timer for tasks that rarely need one.

use crate::net::clock::DriverClock;
use crate::time::Time;
use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use tokio::time::Sleep;

/// Wakes a task at a time that may change with every poll. It costs nothing while no time is set.
///
/// An armed timer is not moved to a later time: it then fires early and is armed again, which is far rarer
/// than moving it with every request.
#[derive(Debug, Default)]
pub struct Timer {
    armed: Option<(Time, Pin<Box<Sleep>>)>,
}

impl Timer {
    /// Ensures that the task is woken at `deadline`, if there is one. Returns true if that has passed
    /// already.
    pub fn poll(&mut self, cx: &mut Context<'_>, clock: &DriverClock, deadline: Option<Time>) -> bool {
        let Some(deadline) = deadline else {
            self.armed = None;
            return false;
        };
        if let Some((armed_for, sleep)) = &mut self.armed
            && *armed_for <= deadline
        {
            if sleep.as_mut().poll(cx).is_pending() {
                return false;
            }
            if *armed_for == deadline {
                self.armed = None;
                return true;
            }
        }
        let mut sleep = Box::pin(tokio::time::sleep_until(clock.instant(deadline).into()));
        let come = sleep.as_mut().poll(cx).is_ready();
        self.armed = (!come).then_some((deadline, sleep));
        come
    }
}
