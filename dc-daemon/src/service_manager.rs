//! What a daemon tells the supervisor that started it: when it serves, what it is doing, that it is alive, and when it ends.
//!
//! Without a supervisor nothing happens. Nothing here panics.

use crate::notify::Notifier;
use std::process;
use tokio::time::{MissedTickBehavior, interval};

/// The supervisor of a daemon, if it has one.
#[derive(Debug)]
pub struct ServiceManager {
    notifier: Notifier,
    /// Whether the daemon is not the process that the supervisor started.
    detached: bool,
}

impl ServiceManager {
    pub(crate) const fn new(notifier: Notifier, detached: bool) -> Self {
        Self { notifier, detached }
    }

    /// The daemon serves.
    pub fn serving(&self, status: &str) {
        if self.detached {
            self.notifier.main_pid(process::id());
        }
        self.notifier.ready();
        self.notifier.status(status);
    }

    /// What the daemon is doing, in a line.
    pub fn status(&self, status: &str) {
        self.notifier.status(status);
    }

    /// The daemon ends.
    pub fn stopping(&self) {
        self.notifier.stopping();
        self.notifier.status("finishing what is in flight");
    }

    /// Does `work`, and meanwhile says that the daemon is alive as often as the supervisor's watchdog wants it: twice in its interval.
    /// It is said by the task that calls this, so one that is stuck says nothing. As cancel-safe as `work`.
    pub async fn alive_during<T>(&self, work: impl Future<Output = T>) -> T {
        let Some(period) = self.notifier.watchdog_interval() else { return work.await };
        let mut due = interval(period / 2);
        due.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tokio::pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = due.tick() => self.notifier.watchdog(),
            }
        }
    }
}
