//! What there is in the lock table, for people to look at.
//!
//! Only reads: what is due and not done yet is left out, as if it were done.

use super::key::KeyEntry;
use super::table::LockTable;
use crate::limits::STATS_ENTRIES_MAX;
use crate::time::Time;

/// A lock that is held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldLockStats {
    /// Its name.
    pub key: Box<str>,
    /// The number of the holder's connection.
    pub owner_connection: u64,
    /// Until the lease ends, in milliseconds.
    pub lease_expires_in_ms: u64,
    /// Places in the queue.
    pub waiters: u64,
}

/// A semaphore that somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SemaphoreStats {
    /// Its name.
    pub key: Box<str>,
    /// Most holders.
    pub limit: u32,
    /// Holders; some of them may have lost their lease a moment ago.
    pub holders: u64,
    /// Places in the queue.
    pub waiters: u64,
}

/// A lock or semaphore that nobody holds or waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdleKeyStats {
    /// Its name.
    pub key: Box<str>,
    /// For how long, in milliseconds.
    pub idle_ms: u64,
}

/// What there is, in no order. Each list ends at [`STATS_ENTRIES_MAX`]; the numbers beside it are of all that there are.
///
/// A key that nobody holds and that is not idle is in none of them: one with missed turns, or one whose queue is
/// held off.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LockStats {
    /// Locks that are held.
    pub locks: Vec<HeldLockStats>,
    /// How many there are.
    pub locks_total: u64,
    /// Semaphores that somebody holds.
    pub semaphores: Vec<SemaphoreStats>,
    /// How many there are.
    pub semaphores_total: u64,
    /// Locks that are known but not used.
    pub idle_locks: Vec<IdleKeyStats>,
    /// How many there are.
    pub idle_locks_total: u64,
    /// Semaphores that are known but not used.
    pub idle_semaphores: Vec<IdleKeyStats>,
    /// How many there are.
    pub idle_semaphores_total: u64,
}

/// How much there is of what, and how often what happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LockTotals {
    /// Keys known, idle ones too.
    pub keys: u64,
    /// Keys that nobody holds or waits for.
    pub idle: u64,
    /// Holds.
    pub holders: u64,
    /// Places in queues.
    pub waiters: u64,
    /// Owners that hold or wait, each counted once for every shard in which it does.
    pub owners: u64,
    /// Grants ever.
    pub grants: u64,
    /// Leases that ever ended without a release.
    pub expired: u64,
    /// Requests ever answered with a timeout, tries too.
    pub timeouts: u64,
}

/// Keys that [`LockTable::add_to`] looks at in one go.
const KEYS_PER_STEP: u32 = 4096;

fn add<T>(list: &mut Vec<T>, entry: impl FnOnce() -> T) {
    if list.len() < STATS_ENTRIES_MAX {
        list.push(entry());
    }
}

impl LockStats {
    /// Whether nothing more can be added.
    fn is_complete(&self) -> bool {
        let has_all = |len: usize, total: u64| len as u64 >= total.min(STATS_ENTRIES_MAX as u64);
        has_all(self.locks.len(), self.locks_total)
            && has_all(self.semaphores.len(), self.semaphores_total)
            && has_all(self.idle_locks.len(), self.idle_locks_total)
            && has_all(self.idle_semaphores.len(), self.idle_semaphores_total)
    }
}

impl LockTable {
    /// Adds how many there are of each.
    pub(super) fn add_totals_to(&self, stats: &mut LockStats) {
        stats.locks_total += self.counts.held_locks;
        stats.semaphores_total += self.counts.held_semaphores;
        stats.idle_locks_total += self.counts.idle_locks;
        stats.idle_semaphores_total += self.counts.idle_semaphores;
    }

    /// Adds some of the keys, from the number `from` on: where to go on, if there are more.
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

    /// Adds the counters.
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
