//! The clock of the drivers: the system's monotonic clock, in milliseconds as the machines use them.

use crate::time::Time;
use std::time::{Duration, Instant};

/// Milliseconds since the clock was started. Changes of the system's date do not affect it.
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

    /// The current time of this clock.
    #[must_use]
    pub fn now(&self) -> Time {
        Time::from_ms(u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    /// The instant of `time`, for a timer. Rounded up so that the timer never fires early.
    #[must_use]
    pub fn instant(&self, time: Time) -> Instant {
        self.start.checked_add(Duration::from_millis(time.as_ms())).unwrap_or_else(far_future)
    }
}

/// Later than the end of any timer.
fn far_future() -> Instant {
    Instant::now() + Duration::from_secs(365 * 24 * 3600)
}
