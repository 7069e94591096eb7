//! Numbers with a fraction and a unit, and ranges of numbers. Exact, without floating point.

use std::fmt::Display;
use std::ops::{Bound, RangeBounds};

/// The maximum number of fraction digits.
const FRACTION_DIGITS_MAX: usize = 9;

/// A number converted to whole units.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ScaledNumber {
    /// Exactly this number of units.
    Whole(u64),
    /// This number of units and a fraction.
    Part(u64),
    /// The number exceeds 64 bits.
    TooLarge,
}

/// Splits `text` after its number: digits, with at most one point.
pub(crate) fn split(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()))
}

/// The decimal number `text` times `unit`; `None` if it is not a decimal number.
pub(crate) fn scale(text: &str, unit: u64) -> Option<ScaledNumber> {
    let (whole, fraction) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, "0"),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || fraction.len() > FRACTION_DIGITS_MAX {
        return None;
    }
    let Ok(whole) = whole.parse::<u64>() else { return Some(ScaledNumber::TooLarge) };
    let ten_power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let part = u128::from(fraction.parse::<u64>().ok()?) * u128::from(unit);
    let total = u128::from(whole) * u128::from(unit) + part / ten_power;
    Some(match u64::try_from(total) {
        Err(_) => ScaledNumber::TooLarge,
        Ok(total) if part.is_multiple_of(ten_power) => ScaledNumber::Whole(total),
        Ok(total) => ScaledNumber::Part(total),
    })
}

/// The inclusive minimum and maximum of an option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ValueRange {
    least: u64,
    most: Option<u64>,
}

impl ValueRange {
    pub(crate) fn new(range: &impl RangeBounds<u64>) -> Self {
        let least = match range.start_bound() {
            Bound::Included(&least) => least,
            Bound::Excluded(&below) => below.saturating_add(1),
            Bound::Unbounded => 0,
        };
        let most = match range.end_bound() {
            Bound::Included(&most) => Some(most),
            Bound::Excluded(&above) => Some(above.saturating_sub(1)),
            Bound::Unbounded => None,
        };
        Self { least, most }
    }

    /// Both bounds multiplied by `factor`.
    pub(crate) const fn times(self, factor: u64) -> Self {
        let most = match self.most {
            Some(most) => Some(most.saturating_mul(factor)),
            None => None,
        };
        Self { least: self.least.saturating_mul(factor), most }
    }

    /// The error of `value`, as a predicate; `None` if it is in range.
    pub(crate) fn wrong(self, value: u64) -> Option<&'static str> {
        if value < self.least {
            Some("is too small")
        } else if self.most.is_some_and(|most| value > most) {
            Some("is too large")
        } else {
            None
        }
    }

    /// The range in words: `1 to 64`, `0 or more`. `show` formats a bound.
    pub(crate) fn shown<T: Display>(self, show: impl Fn(u64) -> T) -> String {
        match self.most {
            Some(most) if most == self.least => show(most).to_string(),
            Some(most) => format!("{} to {}", show(self.least), show(most)),
            None => format!("{} or more", show(self.least)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn number_has_digits_and_at_most_one_point() {
        assert_eq!(scale("12", 1), Some(ScaledNumber::Whole(12)));
        assert_eq!(scale("1.5", 1000), Some(ScaledNumber::Whole(1500)));
        assert_eq!(scale("0.0015", 1000), Some(ScaledNumber::Part(1)));
        assert_eq!(scale("18446744073709551615", 1), Some(ScaledNumber::Whole(u64::MAX)));
        assert_eq!(scale("18446744073709551615", 2), Some(ScaledNumber::TooLarge));
        assert_eq!(scale("99999999999999999999", 1), Some(ScaledNumber::TooLarge));
        for bad in ["", ".", "1.", ".5", "1.2.3", "-1", "+1", "1e3", " 1", "0.0000000001", "١"] {
            assert_eq!(scale(bad, 1), None, "{bad}");
        }
    }

    #[test]
    fn split_separates_number_and_unit() {
        assert_eq!(split("250ms"), ("250", "ms"));
        assert_eq!(split("1.5"), ("1.5", ""));
        assert_eq!(split("-5"), ("", "-5"));
        assert_eq!(split("5é"), ("5", "é"));
    }

    #[test]
    fn range_is_shown_in_words() {
        assert_eq!(ValueRange::new(&(1..=64)).shown(|n| n), "1 to 64");
        assert_eq!(ValueRange::new(&(1..64)).shown(|n| n), "1 to 63");
        assert_eq!(ValueRange::new(&(0..)).shown(|n| n), "0 or more");
        assert_eq!(ValueRange::new(&(7..=7)).shown(|n| n), "7");
        assert_eq!(ValueRange::new(&(1..=2)).times(10).wrong(9), Some("is too small"));
        assert_eq!(ValueRange::new(&(1..=2)).times(10).wrong(21), Some("is too large"));
        assert_eq!(ValueRange::new(&(1..=2)).times(10).wrong(10), None);
    }

    proptest! {
        #[test]
        fn thousandths_are_exact(whole in 0_u64..1 << 40, thousandths in 0_u64..1000) {
            let text = format!("{whole}.{thousandths:03}");
            prop_assert_eq!(scale(&text, 1000), Some(ScaledNumber::Whole(whole * 1000 + thousandths)));
        }

        #[test]
        fn number_parsing_never_panics(text in ".*", unit in any::<u64>()) {
            let (number, _) = split(&text);
            scale(number, unit);
            scale(&text, unit);
        }
    }
}
