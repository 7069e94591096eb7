//! Addresses as socketmaster writes them, besides those of our other programs.
//!
//! | written | means |
//! |---|---|
//! | `tcp://host:port`, `tcp4://`, `tcp6://` | `IP:host:port`, `IPv4:`, `IPv6:`; without a host, all interfaces |
//! | `unix:///path` | `UNIX:/path` |
//! | `fd://n` | `FD:n` |

use dc_cli::ValueError;
use dc_cli::address::Address;

const TAKES: &str = "tcp://host:port, tcp4://..., tcp6://[addr]:port, unix:///path or fd://n, or an address such as IP:port or UNIX:/path";
/// socketmaster's schemes and ours.
const SCHEMES: [(&str, &str); 5] =
    [("tcp", "IP:"), ("tcp4", "IPv4:"), ("tcp6", "IPv6:"), ("unix", "UNIX:"), ("fd", "FD:")];

/// The address that `text` is.
///
/// # Errors
///
/// It is not an address.
pub(super) fn listen_address(text: &str) -> Result<Address, ValueError> {
    let ours = match text.split_once("://") {
        // A path of ours may have the same characters in it.
        Some((scheme, rest)) if !scheme.contains(':') => {
            let known = SCHEMES.iter().find(|(theirs, _)| scheme.eq_ignore_ascii_case(theirs));
            let (_, prefix) =
                known.ok_or_else(|| ValueError::new("is not an address: unknown scheme", TAKES))?;
            // Where all interfaces are meant, theirs begins with the colon of the port.
            let rest = if prefix.starts_with("IP") { rest.strip_prefix(':').unwrap_or(rest) } else { rest };
            format!("{prefix}{rest}")
        }
        _ => text.to_owned(),
    };
    ours.parse().map_err(|error| ValueError::new(format!("is not an address: {error}"), TAKES))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn their_schemes_mean_ours() {
        for (theirs, ours) in [
            ("tcp://127.0.0.1:9001", "IP:127.0.0.1:9001"),
            ("tcp://:9001", "IP:9001"),
            ("TCP://localhost:0", "IP:localhost:0"),
            ("tcp4://localhost:8945", "IPv4:localhost:8945"),
            ("tcp6://[::1]:80", "IPv6:[::1]:80"),
            ("tcp6://:80", "IPv6:80"),
            ("unix:///run/app.sock", "UNIX:/run/app.sock"),
            ("fd://3", "FD:3"),
            ("IP:9001", "IP:9001"),
            ("UNIX:/tmp/a://b", "UNIX:/tmp/a:/b"),
        ] {
            let address = listen_address(theirs).map(|address| address.to_string());
            assert_eq!(address, Ok(ours.to_owned()), "{theirs}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in [
            "",
            "9001",
            "udp://h:1",
            "tcp://",
            "tcp://h",
            "tcp4://[::1]:1",
            "unix://",
            "fd://x",
            "http://h:80",
        ] {
            let error = listen_address(text).unwrap_err().to_string();
            assert!(error.starts_with("is not an address: ") && error.ends_with(TAKES), "{text}: {error}");
        }
    }
}
