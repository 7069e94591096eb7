//! Permissions of a file, in octal as for chmod.

use crate::error::ValueError;

const TAKES: &str = "octal permissions, 0 to 777, such as 660";

/// Parses octal permissions.
///
/// # Errors
///
/// The text is not an octal number, or is above 777.
pub fn permissions(text: &str) -> Result<u32, ValueError> {
    if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ValueError::new("is not a number", TAKES));
    }
    if text.contains(['8', '9']) {
        return Err(ValueError::new("is not octal", TAKES));
    }
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err(ValueError::new("is too large", TAKES)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permissions_are_octal() {
        assert_eq!(permissions("660"), Ok(0o660));
        assert_eq!(permissions("0660"), Ok(0o660));
        assert_eq!(permissions("0"), Ok(0));
        assert_eq!(permissions("777"), Ok(0o777));
    }

    #[test]
    fn invalid_permissions_are_refused() {
        for (text, wrong) in [
            ("", "is not a number"),
            ("rw-rw----", "is not a number"),
            ("-660", "is not a number"),
            ("680", "is not octal"),
            ("1000", "is too large"),
            ("77777777777777777777", "is too large"),
        ] {
            assert_eq!(permissions(text).unwrap_err().wrong, wrong, "{text}");
        }
    }
}
