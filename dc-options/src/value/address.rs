//! Addresses to listen on or connect to.

use crate::mistake::BadValue;

/// An address as the programs hold it: anything that reads from text and prints as it reads.
pub type Address = String;

const TAKES: &str = "an address: IP:port, IP:host:port, IPv4:..., IPv6:[addr]:port, UNIX:/path or FD:n";

/// The address that `text` is.
///
/// # Errors
///
/// It is not an address.
pub fn address(text: &str) -> Result<Address, BadValue> {
    if text.is_empty() {
        return Err(BadValue::new("is not an address", TAKES));
    }
    text.parse().map_err(|error| BadValue::new(format!("is not an address: {error}"), TAKES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_an_address() {
        assert_eq!(address("").unwrap_err().wrong, "is not an address");
        assert_eq!(
            address("UNIX:/tmp/scache").map(|address| address.to_string()).unwrap(),
            "UNIX:/tmp/scache"
        );
    }
}
