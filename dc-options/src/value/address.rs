//! Addresses to listen on or connect to.

use crate::mistake::BadValue;
pub use libdc::net::address::Address;

const TAKES: &str = "an address: IP:port, IP:host:port, IPv4:..., IPv6:[addr]:port, UNIX:/path or FD:n";

/// The address that `text` is.
///
/// # Errors
///
/// It is not an address.
pub fn address(text: &str) -> Result<Address, BadValue> {
    text.parse().map_err(|error| BadValue::new(format!("is not an address: {error}"), TAKES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_not_an_address() {
        assert!(address("").unwrap_err().wrong.starts_with("is not an address: "));
        assert_eq!(
            address("UNIX:/tmp/scache").map(|address| address.to_string()).unwrap(),
            "UNIX:/tmp/scache"
        );
    }
}
