//! Addresses to listen on or connect to.

use crate::error::ValueError;
pub use libdc::net::address::Address;

const TAKES: &str = "an address: IP:port, IP:host:port, IPv4:..., IPv6:[addr]:port, UNIX:/path or FD:n";
const TAKES_OF_PEER: &str = "an address: IP:port, IP:host:port, IPv4:..., IPv6:[addr]:port or UNIX:/path";

/// Parses an address to listen on.
///
/// # Errors
///
/// The text is not an address.
pub fn address(text: &str) -> Result<Address, ValueError> {
    text.parse().map_err(|error| ValueError::new(format!("is not an address: {error}"), TAKES))
}

/// Parses an address to connect to.
///
/// # Errors
///
/// The text is not an address, or the address is for listeners only: a descriptor, or port 0.
pub fn peer_address(text: &str) -> Result<Address, ValueError> {
    match text.parse() {
        Ok(Address::Descriptor(_)) => {
            Err(ValueError::new("is a descriptor, which is only for listening", TAKES_OF_PEER))
        }
        Ok(address) if address.port() == Some(0) => {
            Err(ValueError::new("has port 0, which is only for listening", TAKES_OF_PEER))
        }
        Ok(address) => Ok(address),
        Err(error) => Err(ValueError::new(format!("is not an address: {error}"), TAKES_OF_PEER)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn peer_address_refuses_listener_addresses() {
        for text in ["FD:3", "IP:0", "IP:127.0.0.1:0", "IPv6:[::1]:0", "9001", ""] {
            let refused = peer_address(text).unwrap_err();
            assert!(!refused.to_string().contains("FD:n"), "{refused}");
        }
        for text in ["FD:3", "IP:0", "IPv6:[::1]:0"] {
            assert!(address(text).is_ok());
        }
        assert_eq!(peer_address("IP:1").unwrap().to_string(), "IP:1");
        assert_eq!(peer_address("UNIX:/s").unwrap().to_string(), "UNIX:/s");
    }

    #[test]
    fn empty_text_is_not_an_address() {
        assert!(address("").unwrap_err().wrong.starts_with("is not an address: "));
        assert_eq!(
            address("UNIX:/tmp/scache").map(|address| address.to_string()).unwrap(),
            "UNIX:/tmp/scache"
        );
    }
}
