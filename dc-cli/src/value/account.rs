//! Names of users and groups. Whether they exist is checked when the program starts.

use crate::error::ValueError;

const TAKES: &str = "a name or a number";

/// Parses a user or group, by name or number.
///
/// # Errors
///
/// The name is invalid on every system: it is empty, begins with a dash, or has a colon, white space or a
/// control character.
pub fn account(text: &str) -> Result<String, ValueError> {
    let impossible = |c: char| c == ':' || c.is_whitespace() || c.is_control();
    if text.is_empty() || text.starts_with('-') || text.contains(impossible) {
        return Err(ValueError::new("is not a name", TAKES));
    }
    Ok(text.to_owned())
}

/// The owner or group of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SocketOwner {
    /// The user of `-user`, or that user's group: the option has no value.
    OfUser,
    /// The user or group with this name or number.
    Named(String),
}

/// Parses the owner or group of a socket; an empty value stands for the user of `-user`.
///
/// # Errors
///
/// As [`account`], except that an empty value is valid.
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
    fn account_names_and_numbers_are_kept_as_written() {
        for name in ["nobody", "65534", "www-data", "dömäne\\user", "_x$"] {
            assert_eq!(account(name), Ok(name.to_owned()));
        }
        for bad in ["", "-x", "a:b", "a b", "a\n", "\u{7f}"] {
            assert_eq!(account(bad).unwrap_err().to_string(), "is not a name; it takes a name or a number");
        }
    }

    #[test]
    fn empty_socket_account_is_the_daemon_user() {
        assert_eq!(socket_account(""), Ok(SocketOwner::OfUser));
        assert_eq!(socket_account("ssl"), Ok(SocketOwner::Named("ssl".to_owned())));
        assert!(socket_account("-x").is_err());
    }
}
