//! Sizes in bytes. The units are powers of 1024: `K`, `M`, `G`, `T`, in either case, also as `KB` or `KiB`.

use super::number::{self, ScaledNumber, ValueRange};
use crate::error::ValueError;
use std::ops::RangeBounds;

const UNITS: [(char, u32); 4] = [('K', 10), ('M', 20), ('G', 30), ('T', 40)];

/// Parses a size in bytes, within `range`. A fraction of a byte is dropped.
pub fn bytes(
    range: impl RangeBounds<u64>,
) -> impl Fn(&str) -> Result<u64, ValueError> + Clone + Send + Sync + 'static {
    let bounds = ValueRange::new(&range);
    move |text| parse(text, bounds)
}

fn parse(text: &str, bounds: ValueRange) -> Result<u64, ValueError> {
    let bad = |wrong: &'static str| {
        ValueError::new(
            wrong,
            format!("{} bytes, also in units of 1024: 512K, 256M, 2G", bounds.shown(shown)),
        )
    };
    let (number, unit) = number::split(text);
    let Some(shift) = shift(unit) else { return Err(bad("is not a size")) };
    let size = match number::scale(number, 1 << shift) {
        Some(ScaledNumber::Part(0)) => return Err(bad("is less than a byte")),
        Some(ScaledNumber::Whole(size) | ScaledNumber::Part(size)) => size,
        Some(ScaledNumber::TooLarge) => return Err(bad("is too large")),
        None => return Err(bad("is not a size")),
    };
    match bounds.wrong(size) {
        Some(wrong) => Err(bad(wrong)),
        None => Ok(size),
    }
}

/// The binary exponent of `unit`; `None` if it is not a unit.
fn shift(unit: &str) -> Option<u32> {
    let unit = unit.to_ascii_uppercase();
    if unit.is_empty() || unit == "B" {
        return Some(0);
    }
    UNITS.iter().find_map(|&(letter, shift)| {
        let rest = unit.strip_prefix(letter)?;
        matches!(rest, "" | "B" | "IB").then_some(shift)
    })
}

/// `size` in the largest unit that divides it.
fn shown(size: u64) -> String {
    let fits = |&&(_, shift): &&(char, u32)| size != 0 && size.is_multiple_of(1 << shift);
    match UNITS.iter().rev().find(fits) {
        Some((letter, shift)) => format!("{}{letter}", size >> shift),
        None => size.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_units_are_powers_of_1024_in_either_case() {
        for (text, size) in [
            ("0", 0),
            ("1000", 1000),
            ("100b", 100),
            ("1K", 1024),
            ("1k", 1024),
            ("2kb", 2048),
            ("2KiB", 2048),
            ("256M", 256 << 20),
            ("1.5G", 3 << 29),
            ("1gib", 1 << 30),
            ("1T", 1 << 40),
            ("0.3K", 307),
        ] {
            assert_eq!(bytes(..)(text), Ok(size), "{text}");
        }
    }

    #[test]
    fn invalid_size_error_lists_the_values() {
        let memory = bytes(1 << 20..=1 << 40);
        let text = |value: &str| memory(value).unwrap_err().to_string();
        let takes = "it takes 1M to 1T bytes, also in units of 1024: 512K, 256M, 2G";
        for no_size in ["", "M", "lots", "1X", "-1", "1 K", "KiB", "1Ki", "1MM"] {
            assert_eq!(text(no_size), format!("is not a size; {takes}"), "{no_size}");
        }
        assert_eq!(text("1K"), format!("is too small; {takes}"));
        assert_eq!(text("2T"), format!("is too large; {takes}"));
        assert_eq!(text("99999999999T"), format!("is too large; {takes}"));
        assert!(bytes(..)("0.0001K").is_err());
    }
}
