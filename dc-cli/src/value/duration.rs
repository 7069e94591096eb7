//! Durations: a bare number in the unit of the option, or a number with a unit.
//!
//! The units are `ms`, `s`, `m` and `h`; the number may have a fraction (`1.5s`) if the result is whole
//! milliseconds. Bare numbers are milliseconds in options from distcache, and seconds in options from
//! dflockd.

use super::number::{self, ScaledNumber, ValueRange};
use crate::error::ValueError;
use std::ops::RangeBounds;
use std::time::Duration;

/// Parses a duration; a bare number and `range` are in milliseconds.
pub fn milliseconds(
    range: impl RangeBounds<u64>,
) -> impl Fn(&str) -> Result<Duration, ValueError> + Clone + Send + Sync + 'static {
    let bounds = ValueRange::new(&range);
    move |text| parse(text, 1, "milliseconds", bounds)
}

/// Parses a duration; a bare number and `range` are in seconds.
pub fn seconds(
    range: impl RangeBounds<u64>,
) -> impl Fn(&str) -> Result<Duration, ValueError> + Clone + Send + Sync + 'static {
    let bounds = ValueRange::new(&range);
    move |text| parse(text, 1000, "seconds", bounds)
}

fn parse(text: &str, bare_ms: u64, name: &str, bounds: ValueRange) -> Result<Duration, ValueError> {
    let bad = |wrong: &'static str| {
        let takes =
            format!("{} {name}, or a number with a unit: 250ms, 5s, 2m, 1h", bounds.shown(|bound| bound));
        ValueError::new(wrong, takes)
    };
    let (number, unit) = number::split(text);
    let unit_ms = match unit {
        "" => bare_ms,
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad("is not a duration")),
    };
    let ms = match number::scale(number, unit_ms) {
        Some(ScaledNumber::Whole(ms)) => ms,
        Some(ScaledNumber::Part(_)) => return Err(bad("is finer than a millisecond")),
        Some(ScaledNumber::TooLarge) => return Err(bad("is too large")),
        None => return Err(bad("is not a duration")),
    };
    match bounds.times(bare_ms).wrong(ms) {
        Some(wrong) => Err(bad(wrong)),
        None => Ok(Duration::from_millis(ms)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bare_number_is_in_the_unit_of_the_option() {
        assert_eq!(milliseconds(..)("5000"), Ok(Duration::from_secs(5)));
        assert_eq!(seconds(..)("30"), Ok(Duration::from_secs(30)));
        assert_eq!(seconds(..)("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(milliseconds(..)("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn unit_suffixes_apply_to_both_parsers() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5000),
            ("1.5s", 1500),
            ("2m", 120_000),
            ("1h", 3_600_000),
            ("0.5h", 1_800_000),
        ] {
            assert_eq!(milliseconds(..)(text), Ok(Duration::from_millis(ms)), "{text}");
            assert_eq!(seconds(..)(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn invalid_duration_error_lists_the_values() {
        let retry = milliseconds(1..=3_600_000);
        let text = |value: &str| retry(value).unwrap_err().to_string();
        let takes = "it takes 1 to 3600000 milliseconds, or a number with a unit: 250ms, 5s, 2m, 1h";
        assert_eq!(text("soon"), format!("is not a duration; {takes}"));
        assert_eq!(text("-5"), format!("is not a duration; {takes}"));
        assert_eq!(text("5 s"), format!("is not a duration; {takes}"));
        assert_eq!(text("5d"), format!("is not a duration; {takes}"));
        assert_eq!(text("ms"), format!("is not a duration; {takes}"));
        assert_eq!(text(""), format!("is not a duration; {takes}"));
        assert_eq!(text("0"), format!("is too small; {takes}"));
        assert_eq!(text("2h"), format!("is too large; {takes}"));
        assert_eq!(text("18446744073709551615h"), format!("is too large; {takes}"));
        assert_eq!(text("1.5"), format!("is finer than a millisecond; {takes}"));
        assert_eq!(
            seconds(0..)("x").unwrap_err().to_string(),
            "is not a duration; it takes 0 or more seconds, or a number with a unit: 250ms, 5s, 2m, 1h"
        );
    }

    #[test]
    fn bounds_of_seconds_are_in_seconds() {
        assert_eq!(seconds(1..=2)("2000ms"), Ok(Duration::from_secs(2)));
        assert!(seconds(1..=2)("2001ms").is_err());
        assert!(seconds(1..=2)("999ms").is_err());
    }
}
