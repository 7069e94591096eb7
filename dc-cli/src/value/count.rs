//! Counts: whole numbers without a unit.

use super::number::ValueRange;
use crate::error::ValueError;
use std::ops::RangeBounds;

/// Parses a whole number within `range`. A number beyond the type `T` is too large.
pub fn count<T: TryFrom<u64>>(
    range: impl RangeBounds<u64>,
) -> impl Fn(&str) -> Result<T, ValueError> + Clone + Send + Sync + 'static {
    let bounds = ValueRange::new(&range);
    move |text| {
        let bad = |wrong: &'static str| {
            ValueError::new(wrong, format!("a number, {}", bounds.shown(|bound| bound)))
        };
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(bad("is not a number"));
        }
        let number: u64 = text.parse().map_err(|_| bad("is too large"))?;
        match bounds.wrong(number) {
            Some(wrong) => Err(bad(wrong)),
            None => T::try_from(number).map_err(|_| bad("is too large")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn count_is_digits() {
        assert_eq!(count::<usize>(..)("0"), Ok(0));
        assert_eq!(count::<u64>(..)("18446744073709551615"), Ok(u64::MAX));
        for bad in ["", "-1", "+1", "1.5", "1K", "0x10", " 1", "many"] {
            let text = count::<u64>(0..)(bad).unwrap_err().to_string();
            assert_eq!(text, "is not a number; it takes a number, 0 or more", "{bad}");
        }
    }

    #[test]
    fn count_is_bounded_by_range_and_type() {
        let text = |value| count::<u8>(1..=64)(value).unwrap_err().to_string();
        assert_eq!(text("0"), "is too small; it takes a number, 1 to 64");
        assert_eq!(text("65"), "is too large; it takes a number, 1 to 64");
        assert_eq!(text("18446744073709551616"), "is too large; it takes a number, 1 to 64");
        assert!(count::<u8>(..)("256").is_err());
    }
}
