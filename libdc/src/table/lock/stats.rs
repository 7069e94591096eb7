//! Statistics of the lock table, for operators.
//!
//! Reading them changes nothing: due events are treated as if they had been handled.

use super::key::KeyEntry;
use super::table::LockTable;
use crate::limits::STATS_ENTRIES_MAX;
use crate::time::Time;

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLockStats {
    /// The name of the lock.
    pub key: Box<str>,
    /// The number of the holder's connection.
    pub owner_connection: u64,
    /// The remaining lease, in milliseconds.
    pub lease_expires_in_ms: u64,
    /// The length of the queue.
    pub waiters: u64,
}

/// A semaphore with at least one holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreStats {
    /// The name of the semaphore.
    pub key: Box<str>,
    /// The maximum number of holders.
    pub limit: u32,
    /// The number of holders; the leases of some may just have ended.
    pub holders: u64,
    /// The length of the queue.
    pub waiters: u64,
}

/// A lock or semaphore without holders and waiters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleKeyStats {
    /// The name of the lock or semaphore.
    pub key: Box<str>,
    /// How long it has been idle, in milliseconds.
    pub idle_ms: u64,
}

/// A snapshot of the table, in no order. Each list is truncated at [`STATS_ENTRIES_MAX`]; the totals are not.
///
/// A key without holders that is not idle is in no list: it has missed turns, or its queue is held off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockStats {
    /// Locks that are held, at most [`STATS_ENTRIES_MAX`].
    pub locks: Vec<HeldLockStats>,
    /// The number of held locks.
    pub locks_total: u64,
    /// Semaphores that are held, at most [`STATS_ENTRIES_MAX`].
    pub semaphores: Vec<SemaphoreStats>,
    /// The number of held semaphores.
    pub semaphores_total: u64,
    /// Locks that are idle, at most [`STATS_ENTRIES_MAX`].
    pub idle_locks: Vec<IdleKeyStats>,
    /// The number of idle locks.
    pub idle_locks_total: u64,
    /// Semaphores that are idle, at most [`STATS_ENTRIES_MAX`].
    pub idle_semaphores: Vec<IdleKeyStats>,
    /// The number of idle semaphores.
    pub idle_semaphores_total: u64,
}

/// Gauges and counters of the lock table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockTotals {
    /// Keys in the table, including idle ones.
    pub keys: u64,
    /// Keys without holders and waiters.
    pub idle: u64,
    /// Slots that are held.
    pub holders: u64,
    /// Positions in all queues.
    pub waiters: u64,
    /// Owners that hold or wait, counted once for every shard in which they do.
    pub owners: u64,
    /// Grants since the start.
    pub grants: u64,
    /// Leases that ended without a release.
    pub expired: u64,
    /// Requests answered with a timeout, including tries.
    pub timeouts: u64,
}

/// Keys that one call of [`LockTable::add_to`] examines.
const KEYS_PER_STEP: u32 = 4096;

fn add<T>(list: &mut Vec<T>, entry: impl FnOnce() -> T) {
    if list.len() < STATS_ENTRIES_MAX {
        list.push(entry());
    }
}

impl LockStats {
    /// Whether every list is full.
    fn is_complete(&self) -> bool {
        let has_all = |len: usize, total: u64| len as u64 >= total.min(STATS_ENTRIES_MAX as u64);
        has_all(self.locks.len(), self.locks_total)
            && has_all(self.semaphores.len(), self.semaphores_total)
            && has_all(self.idle_locks.len(), self.idle_locks_total)
            && has_all(self.idle_semaphores.len(), self.idle_semaphores_total)
    }
}

impl LockTable {
    /// Adds the totals of each kind.
    pub(super) fn add_totals_to(&self, stats: &mut LockStats) {
        stats.locks_total += self.counts.held_locks;
        stats.semaphores_total += self.counts.held_semaphores;
        stats.idle_locks_total += self.counts.idle_locks;
        stats.idle_semaphores_total += self.counts.idle_semaphores;
    }

    /// Adds some of the keys, starting with number `from`. Returns where to continue, if there are more.
    pub(super) fn add_to(&self, now: Time, stats: &mut LockStats, from: u32) -> Option<u32> {
        let now = self.now.max(now);
        let end = self.keys.numbers_end().min(from.saturating_add(KEYS_PER_STEP));
        for key in from..end {
            self.add_key_to(now, stats, &self.keys[key]);
        }
        (end < self.keys.numbers_end() && !stats.is_complete()).then_some(end)
    }

    fn add_key_to(&self, now: Time, stats: &mut LockStats, entry: &KeyEntry) {
        let key = || String::from_utf8_lossy(entry.name()).into();
        let waiters = u64::from(entry.waiters);
        if entry.is_idle() {
            let list = if entry.is_lock() { &mut stats.idle_locks } else { &mut stats.idle_semaphores };
            let left_ms = entry.soonest.time().ms_since(now);
            if left_ms > 0 {
                add(list, || IdleKeyStats {
                    key: key(),
                    idle_ms: self.settings.idle_ms.saturating_sub(left_ms),
                });
            }
        } else if entry.holders == 0 {
        } else if entry.is_lock() {
            let holder = &self.records[entry.holder];
            let lease_expires_in_ms = holder.rank.time().ms_since(now);
            if lease_expires_in_ms > 0 {
                let owner_connection = self.owners.owner(holder.owner).connection.number();
                add(&mut stats.locks, || HeldLockStats {
                    key: key(),
                    owner_connection,
                    lease_expires_in_ms,
                    waiters,
                });
            }
        } else {
            let (limit, holders) = (entry.limit, u64::from(entry.holders));
            add(&mut stats.semaphores, || SemaphoreStats { key: key(), limit, holders, waiters });
        }
    }

    pub(super) fn add_to_totals(&self, totals: &mut LockTotals) {
        let counts = &self.counts;
        totals.keys += u64::from(self.keys.len());
        totals.idle += counts.idle_locks + counts.idle_semaphores;
        totals.holders += counts.holders;
        totals.waiters += counts.waiters;
        totals.owners += u64::from(self.owners.len());
        totals.grants += counts.grants;
        totals.expired += counts.expired;
        totals.timeouts += counts.timeouts;
    }
}
