//! The clock for leases. On Linux it keeps counting while the system is suspended.
//!
//! The monotonic clock of most systems, and with it every timer of the runtime, stops during a suspension.
//! The server's clock does not, and the lock may be granted to another client in the meantime. On Linux this
//! is therefore `CLOCK_BOOTTIME`.

use crate::time::Time;
use nix::time::{ClockId, clock_gettime};

#[cfg(target_os = "linux")]
const CLOCK: ClockId = ClockId::CLOCK_BOOTTIME;
#[cfg(not(target_os = "linux"))]
const CLOCK: ClockId = ClockId::CLOCK_MONOTONIC;

#[derive(Clone, Copy, Debug)]
pub(super) enum BootClock {
    /// The clock of the system.
    System,
    /// The clock of a test's runtime, as time since this instant.
    #[cfg(test)]
    Runtime(tokio::time::Instant),
}

impl BootClock {
    /// The current time. If the system call fails it is the maximum, so that no lock counts as held.
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
