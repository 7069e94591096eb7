//! The state of the lock table as JSON, in the format of dflockd 1.10.
//!
//! ```text
//! {"connections":2,
//!  "locks":[{"key":"k","owner_conn_id":2,"lease_expires_in_s":32.9,"waiters":1}],
//!  "semaphores":[{"key":"s","limit":3,"holders":1,"waiters":0}],
//!  "idle_locks":[{"key":"idle","idle_s":0.003}],
//!  "idle_semaphores":[],
//!  "totals":{"locks":1,"semaphores":1,"idle_locks":1,"idle_semaphores":0}}
//! ```
//!
//! A list has at most 10,000 entries, and the whole at most [`JSON_BYTES_MAX`]. `totals`, an addition to
//! dflockd's format, gives the complete numbers.

use crate::limits::{FRAME_DATA_BYTES_MAX, LINK_FRAMES_MAX};
use crate::table::LockStats;
use serde::Serialize;

/// The maximum size of the JSON, so that it fits into one message.
pub(super) const JSON_BYTES_MAX: usize = LINK_FRAMES_MAX * FRAME_DATA_BYTES_MAX;
/// The maximum size of an entry without its key.
const ENTRY_BYTES: usize = 128;
/// The maximum number of bytes in the JSON for each byte of a key: `\u0001`.
const ESCAPED_BYTES: usize = 6;

#[derive(Serialize)]
struct LockStatsJson<'a> {
    connections: u64,
    locks: Vec<HeldLockJson<'a>>,
    semaphores: Vec<SemaphoreJson<'a>>,
    idle_locks: Vec<IdleKeyJson<'a>>,
    idle_semaphores: Vec<IdleKeyJson<'a>>,
    totals: LockTotalsJson,
}

#[derive(Serialize)]
struct HeldLockJson<'a> {
    key: &'a str,
    owner_conn_id: u64,
    lease_expires_in_s: f64,
    waiters: u64,
}

#[derive(Serialize)]
struct SemaphoreJson<'a> {
    key: &'a str,
    limit: u32,
    holders: u64,
    waiters: u64,
}

#[derive(Serialize)]
struct IdleKeyJson<'a> {
    key: &'a str,
    idle_s: f64,
}

#[derive(Serialize)]
struct LockTotalsJson {
    locks: u64,
    semaphores: u64,
    idle_locks: u64,
    idle_semaphores: u64,
}

/// The state of the table. `connections` is the number of the server's connections.
#[must_use]
pub(super) fn json(stats: &LockStats, connections: u64) -> Vec<u8> {
    let mut remaining = JSON_BYTES_MAX - ENTRY_BYTES * 4;
    let mut fits = |key: &str| {
        let bytes = key.len() * ESCAPED_BYTES + ENTRY_BYTES;
        let fits = bytes <= remaining;
        remaining = remaining.saturating_sub(bytes);
        fits
    };
    let locks = stats.locks.iter().take_while(|lock| fits(&lock.key));
    let locks = locks.map(|lock| HeldLockJson {
        key: &lock.key,
        owner_conn_id: lock.owner_connection,
        lease_expires_in_s: seconds(lock.lease_expires_in_ms),
        waiters: lock.waiters,
    });
    let locks = locks.collect();
    let semaphores = stats.semaphores.iter().take_while(|semaphore| fits(&semaphore.key));
    let semaphores = semaphores.map(|semaphore| SemaphoreJson {
        key: &semaphore.key,
        limit: semaphore.limit,
        holders: semaphore.holders,
        waiters: semaphore.waiters,
    });
    let semaphores = semaphores.collect();
    let mut idle = |list: &'_ [crate::table::IdleKeyStats]| -> usize {
        list.iter().take_while(|entry| fits(&entry.key)).count()
    };
    let (idle_locks, idle_semaphores) = (idle(&stats.idle_locks), idle(&stats.idle_semaphores));
    let state = LockStatsJson {
        connections,
        locks,
        semaphores,
        idle_locks: stats.idle_locks[..idle_locks].iter().map(IdleKeyJson::from_entry).collect(),
        idle_semaphores: stats.idle_semaphores[..idle_semaphores]
            .iter()
            .map(IdleKeyJson::from_entry)
            .collect(),
        totals: LockTotalsJson {
            locks: stats.locks_total,
            semaphores: stats.semaphores_total,
            idle_locks: stats.idle_locks_total,
            idle_semaphores: stats.idle_semaphores_total,
        },
    };
    // Strings and finite numbers can always be serialised.
    serde_json::to_vec(&state).unwrap_or_default()
}

impl<'a> IdleKeyJson<'a> {
    fn from_entry(entry: &'a crate::table::IdleKeyStats) -> Self {
        Self { key: &entry.key, idle_s: seconds(entry.idle_ms) }
    }
}

fn seconds(ms: u64) -> f64 {
    ms as f64 / 1000.0
}
