//! The memory of a lock: `cargo run --release -p libdc --example lock_memory [LOCKS [OWNERS [CONNECTIONS]]]`.
//!
//! Acquires that many locks (default: a million) with keys of 16 bytes, distributed over the owners (default:
//! one) of the connections (default: one). Prints the growth of the process's resident memory per lock, and
//! how much of it remains after all are released and forgotten. Linux only.
use libdc::id::{ConnectionId, LockKey, Owner};
use libdc::table::{FenceSource, LockOutcome, LockSettings, OwnerKey, ReplyTo, ShardedLocks};
use libdc::time::Time;

fn main() {
    let argument = |n| std::env::args().nth(n).and_then(|word| word.parse::<u64>().ok());
    let locks_count = argument(1).unwrap_or(1_000_000).max(1);
    let (owners, connections) = (argument(2).unwrap_or(1).max(1), argument(3).unwrap_or(1).max(1));
    let start = resident_bytes();
    let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 60_000 };
    let locks = ShardedLocks::new(1, settings, FenceSource::starting_at(0), [7; 32]);
    let (now, mut effects) = (Time::from_ms(0), Vec::new());
    for n in 0..locks_count {
        let connection = ConnectionId::new(1 + n % connections);
        let owner = Owner { connection, local: n % owners };
        if let Some(key) = LockKey::new(&format!("lock:{n:011}")) {
            let claimant = OwnerKey { owner, key };
            let reply = ReplyTo { connection, uid: 0 };
            let outcome = locks.acquire(now, claimant, 1, 0, 0, reply, &mut effects);
            assert!(matches!(outcome, LockOutcome::Granted(_)), "no other owner takes it");
        }
    }
    report(locks_count, "each held, the key's 16 included", start);
    for n in 1..=connections {
        locks.release_connection(now, ConnectionId::new(n), &mut effects);
    }
    report(locks_count, "each idle", start);
    let end = Time::from_ms(60_000);
    while locks.advance(end, &mut effects).is_some() {}
    report(locks_count, "each left after they were forgotten", start);
}

fn report(locks: u64, what: &str, start: u64) {
    let bytes = resident_bytes().saturating_sub(start);
    println!("{locks} locks: {:.1} bytes {what}", bytes as f64 / locks as f64);
}

fn resident_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    let kilobytes = line.split_whitespace().next().and_then(|word| word.parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
