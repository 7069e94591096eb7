//! Locks shared by several threads.
//!
//! The table consists of several shards, each behind a mutex. The hash of a key selects its shard, so that
//! threads rarely contend. Each shard publishes the time of its next due event outside its lock.
//!
//! For a single thread, any number of shards behaves as one table. With several threads the guarantees for a
//! key still hold, because a key is in one shard only. The limit of keys applies to all shards together at
//! every moment.
//!
//! No thread holds two of these locks, waits for anything but a lock, or holds one for longer than one
//! operation. With a single shard there is only that lock.

use super::key::KeyCount;
use super::outcome::{Completion, LockOutcome, LockSettings, OwnerKey, ReplyTo, WaiterId};
use super::record_index::LockHasher;
use super::stats::{LockStats, LockTotals};
use super::table::{AcquireParams, HashedKey, LockTable, Scope};
use crate::id::{ConnectionId, LockKey, Owner, Token};
use crate::table::expiry::ExpiryRank;
use crate::table::fence::FenceSource;
use crate::time::Time;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::{Rng, SeedableRng};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The maximum number of shards.
const SHARDS_MAX: usize = 256;

/// Locks and semaphores, for any number of threads.
///
/// A semaphore limits the number of holders; a lock is a semaphore with the limit 1. Any operation may
/// complete blocked requests. Their answers are appended to its argument `effects`, in the order of their
/// completion.
///
/// The guarantees and bounds are described in `table.rs` of this module.
pub struct ShardedLocks {
    hasher: LockHasher,
    /// Their number is a power of two.
    shards: Box<[LockShard]>,
    known: Arc<KeyCount>,
}

/// In separate cache lines: two, since processors fetch them in pairs.
#[repr(align(128))]
struct LockShard {
    table: Mutex<LockTable>,
    /// The rank bits of the next due event. Written under the lock; a hint to other threads.
    soonest: AtomicU64,
}

impl ShardedLocks {
    /// An empty table with `shards` shards, rounded up to a power of two, at most 256. One shard is best for
    /// a single thread, a few for each thread otherwise.
    ///
    /// `seed` must be random and secret: tokens are derived from it, and it prevents clients from choosing
    /// keys with equal hashes.
    #[must_use]
    pub fn new(shards: usize, settings: LockSettings, fences: FenceSource, seed: [u8; 32]) -> Self {
        let shards = shards.clamp(1, SHARDS_MAX).next_power_of_two();
        let known = Arc::new(KeyCount::new(settings.locks_max));
        // The streams before the last are those of the shards.
        let mut random = ChaCha12Rng::from_seed(seed);
        random.set_stream(u64::MAX);
        let hasher = LockHasher::new([random.next_u64(), random.next_u64()]);
        let parts = (Arc::clone(&known), hasher.clone());
        let table = move |shard: usize| {
            let (known, hasher) = parts.clone();
            LockTable::new(shard as u8, settings, known, fences.clone(), hasher, seed)
        };
        let shards = (0..shards).map(table).map(LockShard::new).collect();
        Self { hasher, shards, known }
    }

    /// Acquires a slot of a key, or waits for one unless `timeout_ms` is 0. A `limit` of 0 means 1; a
    /// `lease_ms` of 0 means the default, and is capped at [`LOCK_MS_MAX`](crate::limits::LOCK_MS_MAX).
    ///
    /// Returns [`LockOutcome::Granted`], [`LockOutcome::Waiting`], [`LockOutcome::Timeout`],
    /// [`LockOutcome::MaxLocks`], [`LockOutcome::MaxWaiters`] or [`LockOutcome::LimitMismatch`].
    #[allow(
        clippy::too_many_arguments,
        reason = "these are the fields of a request, each with a distinct type"
    )]
    pub fn acquire(
        &self,
        now: Time,
        owner_key: OwnerKey<'_>,
        limit: u32,
        lease_ms: u64,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Vec<Completion>,
    ) -> LockOutcome {
        let params = AcquireParams::new(owner_key, limit, lease_ms);
        self.with_room(now, owner_key.key, effects, |table, key, effects| {
            table.acquire(now, key, params, timeout_ms, reply, effects)
        })
    }

    /// Acquires a slot or joins the queue, without waiting: the first half of an acquisition. An owner can
    /// have one enqueued request for each key.
    ///
    /// Returns [`LockOutcome::Granted`], [`LockOutcome::Queued`], [`LockOutcome::AlreadyEnqueued`],
    /// [`LockOutcome::MaxLocks`], [`LockOutcome::MaxWaiters`] or [`LockOutcome::LimitMismatch`].
    pub fn enqueue(
        &self,
        now: Time,
        owner_key: OwnerKey<'_>,
        limit: u32,
        lease_ms: u64,
        effects: &mut Vec<Completion>,
    ) -> LockOutcome {
        let params = AcquireParams::new(owner_key, limit, lease_ms);
        self.with_room(now, owner_key.key, effects, |table, key, effects| {
            table.enqueue(now, key, params, effects)
        })
    }

    /// Waits for the enqueued request: the second half of an acquisition. A lease that already runs starts
    /// again; a timeout leaves the queue.
    ///
    /// Returns [`LockOutcome::Granted`], [`LockOutcome::Waiting`], [`LockOutcome::Timeout`],
    /// [`LockOutcome::NotEnqueued`] or [`LockOutcome::LeaseExpired`].
    pub fn wait(
        &self,
        now: Time,
        owner_key: OwnerKey<'_>,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Vec<Completion>,
    ) -> LockOutcome {
        self.with_key(owner_key.key, |table, key| {
            table.wait(now, key, owner_key.owner, timeout_ms, reply, effects)
        })
    }

    /// Releases the slot of `token`, and returns whether it was held. Any connection may do this.
    pub fn release(&self, now: Time, key: LockKey<'_>, token: Token, effects: &mut Vec<Completion>) -> bool {
        self.with_key(key, |table, key| table.release(now, key, token, effects))
    }

    /// Restarts the lease of the slot of `token` with `lease_ms` (as in [`acquire`](Self::acquire)). Returns
    /// the new lease in milliseconds, or `None` if the slot is not held. Any connection may do this.
    pub fn renew(
        &self,
        now: Time,
        key: LockKey<'_>,
        token: Token,
        lease_ms: u64,
        effects: &mut Vec<Completion>,
    ) -> Option<u64> {
        self.with_key(key, |table, key| table.renew(now, key, token, lease_ms, effects))
    }

    /// Cancels a blocked request, and returns whether it was still blocked. It is not answered then.
    pub fn cancel(&self, now: Time, ticket: WaiterId, effects: &mut Vec<Completion>) -> bool {
        let shard = self.shards.get(ticket.shard());
        shard.is_some_and(|shard| shard.with(|table| table.cancel(now, ticket, effects)))
    }

    /// Releases everything that an owner holds or waits for, after its departure.
    pub fn release_owner(&self, now: Time, owner: Owner, effects: &mut Vec<Completion>) {
        self.each(|table| table.release_all(now, Scope::Owner(owner), effects));
    }

    /// As [`release_owner`](Self::release_owner), for all owners of a connection.
    pub fn release_connection(&self, now: Time, connection: ConnectionId, effects: &mut Vec<Completion>) {
        self.each(|table| table.release_all(now, Scope::Connection(connection), effects));
    }

    /// Drops the queue positions and enqueued records of a connection's owners, without an
    /// answer: they can no longer be answered. Their holds stay, as if acquired without
    /// [`enqueue`](Self::enqueue).
    pub fn forget_waiters(&self, now: Time, connection: ConnectionId, effects: &mut Vec<Completion>) {
        self.each(|table| table.forget_waiters(now, Scope::Connection(connection), effects));
    }

    /// As [`forget_waiters`](Self::forget_waiters), for one owner.
    pub fn forget_owner_waiters(&self, now: Time, owner: Owner, effects: &mut Vec<Completion>) {
        self.each(|table| table.forget_waiters(now, Scope::Owner(owner), effects));
    }

    /// Starts the claims of a resumed link: all holds of its owners become unclaimed. Returns their number.
    pub fn begin_claims(&self, connection: ConnectionId) -> u32 {
        let mut count = 0_u32;
        self.each(|table| count = count.saturating_add(table.begin_claims(connection)));
        count
    }

    /// Claims the slot of `token`, and returns whether this owner still holds it.
    pub fn claim(&self, now: Time, owner: Owner, key: LockKey<'_>, token: Token) -> bool {
        self.with_key(key, |table, key| table.claim(now, key, owner, token))
    }

    /// Ends the claims: holds neither claimed nor granted since [`begin_claims`](Self::begin_claims) are
    /// released.
    pub fn end_claims(&self, now: Time, connection: ConnectionId, effects: &mut Vec<Completion>) {
        self.each(|table| table.end_claims(now, connection, effects));
    }

    /// The end of an owner's last lease that has not ended yet. Takes time in proportion to the owner's
    /// records.
    #[must_use]
    pub fn latest_lease(&self, now: Time, owner: Owner) -> Option<Time> {
        self.shards.iter().filter_map(|shard| shard.lock().latest_lease(now, owner)).max()
    }

    /// Handles due events, at most 64 of each shard, and returns when to call again. That may be at once, and
    /// possibly nothing is due then, but nothing is due before.
    pub fn advance(&self, now: Time, effects: &mut Vec<Completion>) -> Option<Time> {
        for shard in &self.shards {
            if shard.soonest().time() <= now {
                shard.with(|table| table.begin(now, effects));
            }
        }
        self.soonest()
    }

    /// When to call [`advance`](Self::advance) next. Takes no lock.
    #[must_use]
    pub fn soonest(&self) -> Option<Time> {
        let soonest = self.shards.iter().map(LockShard::soonest).min();
        soonest.map(ExpiryRank::time).filter(|time| *time < ExpiryRank::LATEST)
    }

    /// Grants nothing before `until`, so that the leases of locks forgotten in a restart have ended by then.
    /// Requests wait in the queue and are granted in FIFO order afterwards. A time earlier than a previous
    /// one has no effect.
    pub fn hold_off(&self, until: Time) {
        self.each(|table| table.hold_off = table.hold_off.max(until));
    }

    /// The state of all keys, each at a slightly different moment.
    #[must_use]
    pub fn stats(&self, now: Time) -> LockStats {
        let mut stats = LockStats::default();
        for shard in &self.shards {
            shard.lock().add_totals_to(&mut stats);
        }
        for shard in &self.shards {
            let mut from = Some(0);
            while let Some(key) = from {
                from = shard.lock().add_to(now, &mut stats, key);
            }
        }
        stats
    }

    /// The counters of all shards, added up.
    #[must_use]
    pub fn totals(&self) -> LockTotals {
        let mut totals = LockTotals::default();
        for shard in &self.shards {
            shard.lock().add_to_totals(&mut totals);
        }
        totals
    }

    /// The number of the shard that stores a key.
    #[cfg(test)]
    pub(super) fn shard_of(&self, key: LockKey<'_>) -> usize {
        self.shard_number(self.hasher.bytes(key.as_bytes()))
    }

    #[cfg(test)]
    pub(super) fn idle_ms(&self) -> u64 {
        self.shards[0].lock().settings.idle_ms
    }

    /// Calls `look` for every shard.
    #[cfg(test)]
    pub(super) fn each_shard(&self, look: impl Fn(&LockTable)) {
        for shard in &self.shards {
            look(&shard.lock());
        }
    }

    fn each(&self, mut change: impl FnMut(&mut LockTable)) {
        for shard in &self.shards {
            shard.with(&mut change);
        }
    }

    fn with_key<'a, R>(
        &self,
        key: LockKey<'a>,
        change: impl FnOnce(&mut LockTable, HashedKey<'a>) -> R,
    ) -> R {
        let name = key.as_bytes();
        let hash = self.hasher.bytes(name);
        let key = HashedKey { name, hash: hash as u32 };
        self.shards[self.shard_number(hash)].with(|table| change(table, key))
    }

    /// Retries a request that failed at the limit of keys, if keys in other shards can be forgotten.
    fn with_room<'a>(
        &self,
        now: Time,
        key: LockKey<'a>,
        effects: &mut Vec<Completion>,
        change: impl Fn(&mut LockTable, HashedKey<'a>, &mut Vec<Completion>) -> LockOutcome,
    ) -> LockOutcome {
        let outcome = self.with_key(key, |table, key| change(table, key, effects));
        if outcome == LockOutcome::MaxLocks && self.make_room(now, effects) {
            return self.with_key(key, |table, key| change(table, key, effects));
        }
        outcome
    }

    /// Handles due events, and returns whether another key fits afterwards.
    #[cold]
    fn make_room(&self, now: Time, effects: &mut Vec<Completion>) -> bool {
        for shard in &self.shards {
            if !self.known.has_capacity() && shard.soonest().time() <= now {
                shard.with(|table| table.begin(now, effects));
            }
        }
        self.known.has_capacity()
    }

    fn shard_number(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
}

impl LockShard {
    fn new(table: LockTable) -> Self {
        Self { soonest: AtomicU64::new(table.soonest().to_bits()), table: Mutex::new(table) }
    }

    /// Locks the table for reading.
    fn lock(&self) -> MutexGuard<'_, LockTable> {
        // A thread that panics with the lock held leaves it poisoned. No table operation panics on any input.
        // If one does because of a bug, serving the other locks is better than serving none.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the table for a change.
    fn with<R>(&self, change: impl FnOnce(&mut LockTable) -> R) -> R {
        let mut table = self.lock();
        let result = change(&mut table);
        let soonest = table.soonest();
        if soonest != self.soonest() {
            // Relaxed is enough: after the lock is released the value is a hint, and guards no data.
            self.soonest.store(soonest.to_bits(), Ordering::Relaxed);
        }
        result
    }

    fn soonest(&self) -> ExpiryRank {
        ExpiryRank::from_bits(self.soonest.load(Ordering::Relaxed))
    }
}
