//! Names of users and groups. Whether the system knows them is found out when the program starts.

use crate::error::ValueError;

const TAKES: &str = "a name or a number";

/// A user or group, by its name or number.
///
/// # Errors
///
/// No system has such a name: it is empty, begins with a dash, or has a colon, white space or a control character.
pub fn account(text: &str) -> Result<String, ValueError> {
    let impossible = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.starts_with('-') || text.contains(impossible) {
        return Err(ValueError::new("is not a name", TAKES));
    }
    Ok(text.to_owned())
}

/// Whom a socket belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketOwner {
    /// The user that the program becomes, or that user's group: the option stood without a value.
    OfUser,
    /// The user or group of this name or number.
    Named(String),
}

/// Whom a socket belongs to: a user or group, or nothing for that of `-user`.
///
/// # Errors
///
/// As [`account`], but that nothing is allowed.
pub fn socket_account(text: &str) -> Result<SocketOwner, ValueError> {
    match text {
        "" => Ok(SocketOwner::OfUser),
        name => account(name).map(SocketOwner::Named),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_taken_as_they_are() {
        for name in ["nobody", "65534", "www-data", "dömäne\\user", "_x$"] {
            assert_eq!(account(name), Ok(name.to_owned()));
        }
        for bad in ["", "-x", "a:b", "a b", "a\n", "\u{7f}"] {
            assert_eq!(account(bad).unwrap_err().to_string(), "is not a name; it takes a name or a number");
        }
    }

    #[test]
    fn nothing_is_the_account_of_the_user() {
        assert_eq!(socket_account(""), Ok(SocketOwner::OfUser));
        assert_eq!(socket_account("ssl"), Ok(SocketOwner::Named("ssl".to_owned())));
        assert!(socket_account("-x").is_err());
    }
}
