//! The values that turn a switch on or off.

use crate::error::ValueError;
use std::ffi::OsStr;

/// A description of the values of a switch.
pub(crate) const SWITCH_TAKES: &str = "1, yes, true or on, or 0, no, false or off";

/// Whether `value` turns a flag on. A lenient reader takes unknown values as off.
pub(crate) fn is_on(value: &OsStr, lenient: bool) -> Result<bool, ValueError> {
    let word = value.to_str().map(str::to_ascii_lowercase);
    match word.as_deref() {
        Some("1" | "yes" | "true") => Ok(true),
        _ if lenient => Ok(false),
        Some("on") => Ok(true),
        Some("0" | "no" | "false" | "off" | "") => Ok(false),
        _ => Err(ValueError::new("is neither on nor off", SWITCH_TAKES)),
    }
}
