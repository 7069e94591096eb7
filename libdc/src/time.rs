//! Time as the pure layers use it: milliseconds of a monotonic clock.
//!
//! The pure layers never read a clock; the time is an argument. The caller chooses the clock, be it the
//! system's monotonic one or a test's. Only differences are meaningful.

/// A point in time, in milliseconds since an arbitrary start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The time `ms` milliseconds after the start of the clock.
    #[must_use]
    pub const fn from_ms(ms: u64) -> Self {
        Self(ms)
    }

    /// Milliseconds since the start of the clock.
    #[must_use]
    pub const fn as_ms(self) -> u64 {
        self.0
    }

    /// The time `ms` milliseconds later, saturating at the maximum.
    #[must_use]
    pub const fn after_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// Milliseconds from `earlier` to this time; 0 if `earlier` is later.
    #[must_use]
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
