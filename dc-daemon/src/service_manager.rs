//! Notifications of a daemon to its service manager: ready, status, watchdog and shutdown.
//!
//! Without a service manager nothing happens. Nothing here panics.

use crate::notify::Notifier;
use std::process;
use tokio::time::{MissedTickBehavior, interval};

/// The service manager of a daemon, if there is one.
#[derive(Debug)]
pub struct ServiceManager {
    notifier: Notifier,
    /// Whether the service manager started another process, not this one.
    detached: bool,
}

impl ServiceManager {
    pub(crate) const fn new(notifier: Notifier, detached: bool) -> Self {
        Self { notifier, detached }
    }

    /// The daemon is ready.
    pub fn serving(&self, status: &str) {
        if self.detached {
            self.notifier.main_pid(process::id());
        }
        self.notifier.ready();
        self.notifier.status(status);
    }

    /// One line about the current activity.
    pub fn status(&self, status: &str) {
        self.notifier.status(status);
    }

    /// The daemon is shutting down.
    pub fn stopping(&self) {
        self.notifier.stopping();
        self.notifier.status("finishing requests in flight");
    }

    /// Runs `work`, and sends the watchdog message twice per watchdog interval meanwhile. The calling task
    /// sends it, so a task that hangs sends none. As cancel-safe as `work`.
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
