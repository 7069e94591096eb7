//! Wall-clock time: the system clock at the start of the program, advanced by the monotonic clock.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Tells the time since 1970.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WallClock {
    started: Instant,
    started_since_1970: Duration,
}

impl WallClock {
    pub(crate) fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), started_since_1970: since_1970 }
    }

    pub(crate) fn now(&self) -> Duration {
        self.started_since_1970 + self.started.elapsed()
    }
}

/// Formats times of day in a time zone. Caches the last second, which most lines share with the line before.
#[derive(Debug)]
pub(crate) struct TimeOfDay {
    zone: TimeZone,
    second: Option<u64>,
    text: String,
}

impl TimeOfDay {
    pub(crate) const fn new(zone: TimeZone) -> Self {
        Self { zone, second: None, text: String::new() }
    }

    /// `12:00:01.204117`.
    pub(crate) fn show(&mut self, at: Duration) -> String {
        if self.second != Some(at.as_secs()) {
            self.text = timestamp(at).to_zoned(self.zone.clone()).strftime("%H:%M:%S").to_string();
            self.second = Some(at.as_secs());
        }
        format!("{}.{:06}", self.text, at.subsec_micros())
    }
}

/// `2026-03-01T12:00:01.204117391Z`.
pub(crate) fn rfc_3339(at: Duration) -> String {
    timestamp(at).strftime("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

/// The timestamp; the beginning of 1970 if it is out of range.
fn timestamp(at: Duration) -> Timestamp {
    Timestamp::try_from(UNIX_EPOCH + at.min(Duration::from_secs(200_000_000_000)))
        .unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time that something took: `274 µs`, `1.4 ms`, `12 s`.
pub(crate) fn took(time: Duration) -> String {
    let ns = time.as_nanos();
    let (unit, size) = match ns {
        0..1_000 => return format!("{ns} ns"),
        1_000..1_000_000 => ("µs", 1_000),
        1_000_000..1_000_000_000 => ("ms", 1_000_000),
        _ => ("s", 1_000_000_000),
    };
    // Rounded down, so that 999.9 µs is not 1000 µs.
    if ns < 10 * size {
        format!("{}.{} {unit}", ns / size, ns * 10 / size % 10)
    } else {
        format!("{} {unit}", ns / size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let cases = [
            (0, "0 ns"),
            (999, "999 ns"),
            (1_000, "1.0 µs"),
            (9_940, "9.9 µs"),
            (9_960, "9.9 µs"),
            (274_391, "274 µs"),
            (999_999, "999 µs"),
            (1_449_000, "1.4 ms"),
            (12_345_000_000, "12 s"),
        ];
        for (ns, text) in cases {
            assert_eq!(took(Duration::from_nanos(ns)), text);
        }
    }

    #[test]
    fn moments_are_of_the_day_or_of_the_calendar() {
        let at = Duration::new(1_772_366_401, 204_117_391);
        let mut time_of_day = TimeOfDay::new(TimeZone::UTC);
        assert_eq!(time_of_day.show(at), "12:00:01.204117");
        assert_eq!(time_of_day.show(at + Duration::from_millis(795)), "12:00:01.999117");
        assert_eq!(time_of_day.show(at + Duration::from_secs(1)), "12:00:02.204117");
        assert_eq!(rfc_3339(at), "2026-03-01T12:00:01.204117391Z");
        assert_eq!(rfc_3339(Duration::MAX).len(), rfc_3339(at).len());
    }
}
