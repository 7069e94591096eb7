//! The clock by which locks are held: it goes on while the machine is suspended.
//!
//! The monotonic clock of most systems, and with it every timer of the runtime, stands still during a suspension. The
//! server's does not, and gives the lock to somebody else meanwhile. So on Linux this is `CLOCK_BOOTTIME`.

use crate::time::Time;
use nix::time::{ClockId, clock_gettime};

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

/// The clock.
#[derive(Clone, Copy, Debug)]
pub(super) enum BootClock {
    /// That of the system.
    System,
    /// That of a test's runtime.
    #[cfg(test)]
    Runtime(tokio::time::Instant),
}

impl BootClock {
    /// The time. Where the system does not tell it, it is the end of time: nothing counts as held.
    pub(super) fn now(self) -> Time {
        match self {
            Self::System => clock_gettime(CLOCK).map_or(Time::from_ms(u64::MAX), |time| {
                let (seconds, nanoseconds) = (time.tv_sec().unsigned_abs(), time.tv_nsec().unsigned_abs());
                Time::from_ms(seconds.saturating_mul(1_000).saturating_add(nanoseconds / 1_000_000))
            }),
            #[cfg(test)]
            Self::Runtime(start) => {
                Time::from_ms(u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX))
            }
        }
    }
}
