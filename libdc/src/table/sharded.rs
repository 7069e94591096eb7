//! Sessions in memory, shared by several threads.
//!
//! The store consists of several [`SessionTable`]s, each behind a mutex. The hash of an id selects its table,
//! so that threads rarely contend. The guarantees of a table hold for the whole store: the limits apply to
//! the sum, and the session evicted is the first to expire of all shards. To that end each shard
//! publishes its soonest expiry outside its lock, and capacity is acquired from a shared quota before a
//! session is stored.
//!
//! For a single thread, any number of shards behaves as one table. With several threads:
//! - The limits hold at every moment, and an ADD keeps the capacity that it freed until its session is
//!   stored.
//! - The session evicted is the soonest of the shard that had the soonest of all when it was selected.
//! - Of two concurrent ADDs of one id, one is stored and the other matches, though it may have evicted
//!   before.
//! - If all capacity belongs to other ADDs that are about to store, an ADD is answered as if they had come
//!   directly after it and evicted its session. That takes as many threads as the limit allows sessions.
//!
//! No thread holds two locks, waits for anything but a lock, or holds one for longer than one operation of a
//! table. With a single shard there is only that lock, and the table enforces the limits itself.

use super::expiry::ExpiryRank;
use super::hash_index::{GUESSES, HashedId, IdHasher};
use super::quota::{Quota, SharedQuota};
use super::session::{AddOutcome, SessionLimits, SessionTable, SessionTotals, cost, expiry};
use super::store::{ExpiryStep, SessionStore};
use crate::id::SessionId;
use crate::limits::EXPIRY_BATCH;
use crate::time::Time;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// The maximum number of shards.
const SHARDS_MAX: usize = 256;

/// Sessions in memory, for any number of threads.
pub struct ShardedSessions {
    hasher: IdHasher,
    /// Their number is a power of two.
    shards: Box<[SessionShard]>,
    /// The state that several shards share; unused with a single shard.
    common: CachePadded<SharedLimits>,
}

struct SessionShard {
    /// The rank bits of the soonest expiry in `table`. Written under its lock; a hint to other threads.
    soonest: CachePadded<AtomicU64>,
    table: CachePadded<Mutex<SessionTable>>,
}

struct SharedLimits {
    limits: SessionLimits,
    quota: SharedQuota,
    /// Sessions stored so far, modulo 2^32: the order of sessions that expire together.
    stored: AtomicU32,
}

/// Keeps a value in separate cache lines: two, since processors fetch them in pairs.
#[repr(align(128))]
struct CachePadded<T>(T);

impl ShardedSessions {
    /// An empty store of `shards` shards, rounded up to a power of two, at most 256. One shard is best for a
    /// single thread, a few for each thread otherwise.
    ///
    /// `seed` should be random and secret: it prevents clients from choosing ids with equal hashes.
    #[must_use]
    pub fn new(shards: usize, limits: SessionLimits, seed: [u64; 2]) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX).next_power_of_two();
        let table_limits = if shards == 1 { limits } else { SessionLimits::default() };
        let common = SharedLimits { limits, quota: SharedQuota::new(limits), stored: AtomicU32::new(0) };
        Self {
            hasher: IdHasher::new(seed),
            shards: (0..shards).map(|_| SessionShard::new(SessionTable::new(table_limits, seed))).collect(),
            common: CachePadded(common),
        }
    }

    fn shard(&self, key: HashedId<'_>) -> &SessionShard {
        &self.shards[self.shard_number(key)]
    }

    fn shard_number(&self, key: HashedId<'_>) -> usize {
        key.table_hash() as usize & (self.shards.len() - 1)
    }

    /// See [`SessionStore::add`], for shards that share the capacity.
    fn add_sharing(&self, now: Time, key: HashedId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome {
        if !self.common.0.limits.allow(1, cost(key.id, session)) {
            return AddOutcome::TooLarge;
        }
        let expires = expiry(now, timeout_ms);
        let mut quota = Quota::default();
        let mut evicted = 0;
        let added = loop {
            if let Some(added) = self.try_add(now, key, session, expires, &mut quota) {
                break added;
            }
            let Some((freed, alive)) = self.evict_soonest(now) else {
                break AddOutcome::Stored { evicted };
            };
            quota = quota.plus(freed);
            evicted += usize::from(alive);
        };
        self.common.0.quota.give_back(quota);
        if added == AddOutcome::Matching { added } else { AddOutcome::Stored { evicted } }
    }

    /// The outcome of an ADD, unless `quota` and the free capacity together are insufficient.
    fn try_add(
        &self,
        now: Time,
        key: HashedId<'_>,
        session: &[u8],
        expires: Time,
        quota: &mut Quota,
    ) -> Option<AddOutcome> {
        let SharedLimits { quota: shared, stored, .. } = &self.common.0;
        let needed = Quota { sessions: 1, bytes: cost(key.id, session) };
        self.shard(key).with(|table| {
            let before = Quota::taken_by(table);
            let answer = table.prepare(now, key, expires);
            shared.give_back(before.less(Quota::taken_by(table)));
            if answer.is_some() {
                return answer;
            }
            if !shared.top_up(quota, needed) {
                return None;
            }
            table.insert(key, session, expires, stored.fetch_add(1, Ordering::Relaxed));
            *quota = quota.less(needed);
            Some(AddOutcome::Stored { evicted: 0 })
        })
    }

    /// Evicts the session that expires soonest in any shard. Returns its capacity, and whether it had not
    /// expired yet.
    fn evict_soonest(&self, now: Time) -> Option<(Quota, bool)> {
        loop {
            let shard = self.shards.iter().min_by_key(|shard| shard.soonest())?;
            if shard.soonest() == ExpiryRank::NEVER {
                return None;
            }
            // A shard that other threads have emptied publishes that now, and the next one is tried.
            if let Some(removed) = shard.with(|table| table.evict(now)) {
                return Some((Quota { sessions: 1, bytes: removed.bytes }, removed.alive));
            }
        }
    }

    /// Applies a change that may remove sessions to a shard, and gives back their capacity.
    fn shrink<R>(&self, shard: &SessionShard, change: impl FnOnce(&mut SessionTable) -> R) -> R {
        shard.with(|table| {
            let before = Quota::taken_by(table);
            let result = change(table);
            if self.shards.len() > 1 {
                self.common.0.quota.give_back(before.less(Quota::taken_by(table)));
            }
            result
        })
    }
}

impl SessionStore for ShardedSessions {
    fn add(&self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome {
        let key = self.hasher.key(id);
        match &*self.shards {
            [single] => single.with(|table| table.add_key(now, key, session, timeout_ms)),
            _ => self.add_sharing(now, key, session, timeout_ms),
        }
    }

    fn get(&self, now: Time, id: SessionId<'_>, out: &mut Vec<u8>) -> bool {
        let key = self.hasher.key(id);
        let table = self.shard(key).lock();
        let session = table.get_key(now, key);
        if let Some(session) = session {
            out.extend_from_slice(session);
        }
        session.is_some()
    }

    fn remove(&self, now: Time, id: SessionId<'_>) -> bool {
        let key = self.hasher.key(id);
        self.shrink(self.shard(key), |table| table.remove_key(now, key))
    }

    fn have(&self, now: Time, id: SessionId<'_>) -> bool {
        let key = self.hasher.key(id);
        self.shard(key).lock().get_key(now, key).is_some()
    }

    fn prefetch(&self, ids: &[SessionId<'_>]) {
        for ids in ids.chunks(GUESSES) {
            let mut targets = [(0, 0); GUESSES];
            for (target, id) in targets.iter_mut().zip(ids) {
                let key = self.hasher.key(*id);
                *target = (self.shard_number(key), key.index_hash());
            }
            let targets = &mut targets[..ids.len()];
            targets.sort_unstable_by_key(|(shard, _)| *shard);
            for group in targets.chunk_by(|one, next| one.0 == next.0) {
                let mut hashes = [0; GUESSES];
                for (hash, target) in hashes.iter_mut().zip(group) {
                    *hash = target.1;
                }
                self.shards[group[0].0].lock().prefetch_hashes(&hashes[..group.len()]);
            }
        }
    }

    /// Removes at most 64 sessions of each shard.
    fn expire(&self, now: Time) -> ExpiryStep {
        let mut sessions = 0;
        let mut next = ExpiryRank::NEVER;
        for shard in &self.shards {
            if shard.soonest().time() <= now {
                sessions += self.shrink(shard, |table| table.expire(now, EXPIRY_BATCH));
            }
            next = next.min(shard.soonest());
        }
        ExpiryStep { sessions, next: (next != ExpiryRank::NEVER).then(|| next.time()) }
    }

    /// The shards are read at different moments: the sums may differ slightly from any actual state.
    fn totals(&self, now: Time) -> SessionTotals {
        let mut sum = SessionTotals::default();
        for shard in &self.shards {
            let totals = self.shrink(shard, |table| {
                table.expire(now, EXPIRY_BATCH);
                table.totals()
            });
            sum.sessions += totals.sessions;
            sum.bytes += totals.bytes;
            sum.evicted += totals.evicted;
            sum.expired += totals.expired;
        }
        sum
    }
}

impl SessionShard {
    fn new(table: SessionTable) -> Self {
        let soonest = AtomicU64::new(table.soonest().to_bits());
        Self { soonest: CachePadded(soonest), table: CachePadded(Mutex::new(table)) }
    }

    /// Locks the table for reading.
    fn lock(&self) -> std::sync::MutexGuard<'_, SessionTable> {
        // A thread that panics with the lock held leaves it poisoned. No table operation panics on any input.
        // If one does because of a bug, serving the stored sessions is better than serving none. An entry is
        // compared with the whole id before it is returned, so no wrong session is ever found.
        self.table.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the table for a change.
    fn with<R>(&self, change: impl FnOnce(&mut SessionTable) -> R) -> R {
        let mut table = self.lock();
        let result = change(&mut table);
        let soonest = table.soonest();
        if soonest != self.soonest() {
            // Relaxed is enough: after the lock is released the value is a hint, and guards no data.
            self.soonest.0.store(soonest.to_bits(), Ordering::Relaxed);
        }
        result
    }

    /// The rank of the soonest expiry, possibly out of date.
    fn soonest(&self) -> ExpiryRank {
        ExpiryRank::from_bits(self.soonest.0.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicBool;

    const NOW: Time = Time::from_ms(0);

    fn id(bytes: &[u8]) -> SessionId<'_> {
        SessionId::new(bytes).unwrap()
    }

    /// The capacity that the shards' tables occupy, independent of the quota.
    fn in_tables(store: &ShardedSessions) -> Quota {
        let each = store.shards.iter().map(|shard| Quota::taken_by(&shard.lock()));
        each.fold(Quota::default(), Quota::plus)
    }

    #[test]
    fn shard_count_is_rounded_up_to_power_of_two() {
        for (asked, made) in [(0, 1), (1, 1), (3, 4), (8, 8), (1000, 256)] {
            assert_eq!(ShardedSessions::new(asked, SessionLimits::default(), [1, 2]).shards.len(), made);
        }
    }

    #[test]
    fn sessions_are_distributed_over_shards() {
        let store = ShardedSessions::new(4, SessionLimits::default(), [1, 2]);
        for n in 0..400u32 {
            store.add(NOW, id(&n.to_be_bytes()), b"session", 1_000);
        }
        assert!(store.shards.iter().all(|shard| (60..140).contains(&shard.lock().len())));
    }

    #[test]
    fn eviction_finds_soonest_session_of_all_shards() {
        let store = ShardedSessions::new(16, SessionLimits { sessions: 100, bytes: 0 }, [1, 2]);
        for n in 0..100u32 {
            store.add(NOW, id(&n.to_be_bytes()), b"session", 1_000 + n);
        }
        for n in 100..200u32 {
            let added = store.add(NOW, id(&n.to_be_bytes()), b"session", 1_000 + n);
            assert_eq!(added, AddOutcome::Stored { evicted: 1 });
            assert!(!store.have(NOW, id(&(n - 100).to_be_bytes())));
            assert!(store.have(NOW, id(&(n - 99).to_be_bytes())));
        }
    }

    #[test]
    fn expire_works_in_steps_and_returns_next_time() {
        let store = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
        assert_eq!(store.expire(NOW), ExpiryStep { sessions: 0, next: None });
        for n in 0..100u32 {
            store.add(NOW, id(&n.to_be_bytes()), b"session", 10);
        }
        store.add(NOW, id(b"last"), b"session", 20);
        let at = Time::from_ms(10);
        assert_eq!(store.expire(Time::from_ms(9)), ExpiryStep { sessions: 0, next: Some(at) });
        assert_eq!(store.expire(at), ExpiryStep { sessions: EXPIRY_BATCH, next: Some(at) });
        let rest = ExpiryStep { sessions: 100 - EXPIRY_BATCH, next: Some(Time::from_ms(20)) };
        assert_eq!(store.expire(at), rest);
    }

    #[test]
    fn capacity_of_pending_adds_counts_as_used() {
        let store = ShardedSessions::new(4, SessionLimits { sessions: 1, bytes: 0 }, [1, 2]);
        let mut pending = Quota::default();
        assert!(store.common.0.quota.top_up(&mut pending, Quota { sessions: 1, bytes: 8 }));
        assert_eq!(store.add(NOW, id(b"a"), b"session", 1_000), AddOutcome::Stored { evicted: 0 });
        assert!(!store.have(NOW, id(b"a")));
        assert_eq!(store.common.0.quota.taken(), pending);
    }

    #[test]
    fn poisoned_shard_keeps_serving() {
        let store = ShardedSessions::new(1, SessionLimits::default(), [1, 2]);
        store.add(NOW, id(b"a"), b"session", 1_000);
        let panicked = std::thread::scope(|scope| {
            let thread = scope.spawn(|| store.shards[0].with(|_| panic!("expected: poisons the lock")));
            thread.join().is_err()
        });
        assert!(panicked && store.shards[0].table.0.is_poisoned());
        assert!(store.have(NOW, id(b"a")));
        assert!(store.remove(NOW, id(b"a")));
    }

    /// Four threads use a few ids, to force contention, while a fifth checks the limits.
    #[test]
    fn limits_hold_under_contention() {
        const LIMITS: SessionLimits = SessionLimits { sessions: 50, bytes: 2_000 };
        let store = ShardedSessions::new(4, LIMITS, [1, 2]);
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let taken = store.common.0.quota.taken();
                    assert!(LIMITS.allow(taken.sessions, taken.bytes), "{taken:?}");
                }
            });
            let workers: Vec<_> = (0..4u64)
                .map(|n| {
                    scope.spawn({
                        let store = &store;
                        move || work(store, n)
                    })
                })
                .collect();
            let worked: Vec<_> = workers.into_iter().map(std::thread::ScopedJoinHandle::join).collect();
            done.store(true, Ordering::Release);
            assert!(worked.iter().all(Result::is_ok));
            assert!(watch.join().is_ok());
        });
        let held = in_tables(&store);
        assert_eq!(held, store.common.0.quota.taken(), "the quota is exact when all threads have ended");
        assert!(held.sessions > 0 && LIMITS.allow(held.sessions, held.bytes));
        let end = Time::from_ms(u64::MAX);
        while store.expire(end).next.is_some() {}
        assert_eq!(store.common.0.quota.taken(), Quota::default());
    }

    fn work(store: &ShardedSessions, seed: u64) {
        let mut random = seed + 1;
        let mut found = Vec::new();
        for step in 0..20_000u64 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let now = Time::from_ms(step / 16);
            let id_bytes = [(random >> 8) as u8 % 100];
            let session = [id_bytes[0]; 90];
            match random % 8 {
                0..4 => {
                    let length = 1 + (random >> 16) as usize % 90;
                    store.add(now, id(&id_bytes), &session[..length], (random >> 32) as u32 % 200);
                }
                4 => {
                    store.remove(now, id(&id_bytes));
                }
                5 => {
                    store.expire(now);
                }
                _ => {
                    found.clear();
                    if store.get(now, id(&id_bytes), &mut found) {
                        assert!(!found.is_empty() && found.iter().all(|byte| *byte == id_bytes[0]));
                    }
                }
            }
        }
    }
}
