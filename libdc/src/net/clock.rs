//! The clock of the drivers: the system's monotonic one, in the milliseconds that the machines take.

use crate::time::Time;
use std::time::{Duration, Instant};

/// Milliseconds since the clock was made. Setting the system's date does not move it.
#[derive(Clone, Copy, Debug)]
pub struct DriverClock {
    start: Instant,
}

impl DriverClock {
    /// A clock that starts now.
    #[must_use]
    pub fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// When `time` will be, for a timer. Rounded so that the timer never fires before it.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start.checked_add(Duration::from_millis(time.as_ms())).unwrap_or_else(far_future)
    }
}

/// Later than any timer is waited for.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3600)
}
