//! Loopback addresses that no other server uses.
//!
//! A port that the system gave to a server is free again while that server is down, and the next connection
//! of any test might get it. On Linux all of 127.0.0.0/8 is this host, so each server gets an address there,
//! with all its ports. Elsewhere servers share 127.0.0.1.

use std::net::Ipv4Addr;
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};

/// A loopback address that no other call, here or in another process, is likely to return.
#[must_use]
pub fn own_loopback() -> Ipv4Addr {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    if !cfg!(target_os = "linux") {
        return Ipv4Addr::LOCALHOST;
    }
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    // Hashed, because ids of concurrent processes are close together.
    let start = process::id().wrapping_mul(0x9E37_79B1);
    let [_, b, c, d] = start.wrapping_add(count).to_be_bytes();
    Ipv4Addr::new(127, b.clamp(1, 254), c, d.clamp(1, 254))
}
