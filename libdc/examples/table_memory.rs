//! The memory of a session: `cargo run --release -p libdc --example table_memory [SESSIONS]`.
//!
//! Stores that many sessions (default: a million) with ids of 32 bytes and 180 bytes of data. Prints the
//! growth of the process's resident memory per session, and how much of it remains after all have expired.
//! Linux only.
use libdc::id::SessionId;
use libdc::table::{SessionLimits, SessionTable};
use libdc::time::Time;

fn main() {
    let sessions: u64 = std::env::args().nth(1).and_then(|word| word.parse().ok()).unwrap_or(1_000_000);
    let start = resident_bytes();
    let mut table = SessionTable::new(SessionLimits::default(), [1, 2]);
    let now = Time::from_ms(0);
    for n in 0..sessions {
        let mut id = [0x5a; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        if let Some(id) = SessionId::new(&id) {
            table.add(now, id, &[7; 180], 3_600_000);
        }
    }
    report(sessions, "each stored", start);
    let end = Time::from_ms(3_600_000);
    while table.expire(end, 64) == 64 {}
    assert!(table.is_empty(), "all have expired");
    report(sessions, "each left after they expired", start);
}

fn report(sessions: u64, what: &str, start: u64) {
    let bytes = resident_bytes().saturating_sub(start);
    println!("{sessions} sessions: {:.1} bytes {what}", bytes as f64 / sessions as f64);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
