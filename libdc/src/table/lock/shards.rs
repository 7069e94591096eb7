//! Locks for several threads.
//!
//! These are several tables, each behind a mutex, a key being in the one that its hash says; so threads seldom meet.
//! Each shard shows outside of its lock when something of it is due next.
//!
//! One thread finds any number of shards to behave as one table. With several, what is promised of a key holds as it
//! does for one: a key is in one shard only. The limit of keys is that of all shards at every moment.
//!
//! No thread ever holds two of these locks, waits for anything but a lock, or holds one longer than for one operation.
//! With a single shard there is that lock and nothing else.

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

/// Most shards.
const SHARDS_MAX: usize = 256;

/// Locks and semaphores, for any number of threads.
///
/// A semaphore has a limit of holders; a lock is one with the limit 1. Answers to requests that were blocked, which any
/// operation may bring about, are added to the `effects` that it is given, in the order in which they came about.
///
/// The operations and their times are described in `table.rs` of this module.
pub struct ShardedLocks {
    hasher: LockHasher,
    /// A power of two.
    shards: Box<[LockShard]>,
    known: Arc<KeyCount>,
}

/// In cache lines of its own: two, since processors fetch them in pairs.
#[repr(align(128))]
struct LockShard {
    table: Mutex<LockTable>,
    /// The bits of the rank of what is due next. Written under the lock; to others a hint.
    soonest: AtomicU64,
}

impl ShardedLocks {
    /// Nothing is known. There are `shards` shards, rounded up to a power of two, at most 256; one is best for one
    /// thread, some for each where there are several.
    ///
    /// `seed` must be random and secret: tokens come from it, and it keeps clients from choosing keys that all hash
    /// alike.
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

    /// Takes a slot of a key with this limit (0 is 1) for this long (0 is the default, more than
    /// [`LOCK_MS_MAX`](crate::limits::LOCK_MS_MAX) is that), or waits for it, unless `timeout_ms` is 0.
    ///
    /// [`LockOutcome::Granted`], [`LockOutcome::Waiting`], [`LockOutcome::Timeout`], [`LockOutcome::MaxLocks`],
    /// [`LockOutcome::MaxWaiters`] or [`LockOutcome::LimitMismatch`].
    #[allow(clippy::too_many_arguments, reason = "a request has these parts, and each has a type of its own")]
    pub fn acquire(
        &self,
        now: Time,
        who: OwnerKey<'_>,
        limit: u32,
        lease_ms: u64,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Vec<Completion>,
    ) -> LockOutcome {
        let ask = AcquireParams::new(who, limit, lease_ms);
        self.with_room(now, who.key, effects, |table, key, effects| {
            table.acquire(now, key, ask, timeout_ms, reply, effects)
        })
    }

    /// Takes a slot, or else a place in the queue, without waiting: the first half of an acquisition, of which an owner
    /// can have one for each key.
    ///
    /// [`LockOutcome::Granted`], [`LockOutcome::Queued`], [`LockOutcome::AlreadyEnqueued`], [`LockOutcome::MaxLocks`],
    /// [`LockOutcome::MaxWaiters`] or [`LockOutcome::LimitMismatch`].
    pub fn enqueue(
        &self,
        now: Time,
        who: OwnerKey<'_>,
        limit: u32,
        lease_ms: u64,
        effects: &mut Vec<Completion>,
    ) -> LockOutcome {
        let ask = AcquireParams::new(who, limit, lease_ms);
        self.with_room(now, who.key, effects, |table, key, effects| table.enqueue(now, key, ask, effects))
    }

    /// Waits for what was enqueued: the second half. A lease that runs already starts again; a timeout loses the place.
    ///
    /// [`LockOutcome::Granted`], [`LockOutcome::Waiting`], [`LockOutcome::Timeout`], [`LockOutcome::NotEnqueued`] or
    /// [`LockOutcome::LeaseExpired`].
    pub fn wait(
        &self,
        now: Time,
        who: OwnerKey<'_>,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Vec<Completion>,
    ) -> LockOutcome {
        self.with_key(who.key, |table, key| table.wait(now, key, who.owner, timeout_ms, reply, effects))
    }

    /// Gives back the slot that `token` proves: whether there was one. Anybody may.
    pub fn release(&self, now: Time, key: LockKey<'_>, token: Token, effects: &mut Vec<Completion>) -> bool {
        self.with_key(key, |table, key| table.release(now, key, token, effects))
    }

    /// Starts the lease again of the slot that `token` proves, for `lease_ms` (as in [`acquire`](Self::acquire)):
    /// how long it is now, if there is such a slot. Anybody may.
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

    /// Gives up a blocked request: whether it was blocked still. It is not answered then.
    pub fn cancel(&self, now: Time, ticket: WaiterId, effects: &mut Vec<Completion>) -> bool {
        let shard = self.shards.get(ticket.shard());
        shard.is_some_and(|shard| shard.with(|table| table.cancel(now, ticket, effects)))
    }

    /// An owner is gone: takes away all it holds and waits for.
    pub fn release_owner(&self, now: Time, owner: Owner, effects: &mut Vec<Completion>) {
        self.each(|table| table.release_all(now, Scope::Owner(owner), effects));
    }

    /// The same for all owners of a connection.
    pub fn release_connection(&self, now: Time, connection: ConnectionId, effects: &mut Vec<Completion>) {
        self.each(|table| table.release_all(now, Scope::Connection(connection), effects));
    }

    /// The owners of a connection cannot be answered any more: their places in queues, and what they have enqueued,
    /// are dropped without an answer. What they hold stays, as if it had been acquired without [`enqueue`](Self::enqueue).
    pub fn forget_waiters(&self, now: Time, connection: ConnectionId, effects: &mut Vec<Completion>) {
        self.each(|table| table.forget_waiters(now, Scope::Connection(connection), effects));
    }

    /// The same for one owner.
    pub fn forget_owner_waiters(&self, now: Time, owner: Owner, effects: &mut Vec<Completion>) {
        self.each(|table| table.forget_waiters(now, Scope::Owner(owner), effects));
    }

    /// A link is resumed: all holds of its owners become unclaimed. How many there are.
    pub fn begin_claims(&self, connection: ConnectionId) -> u32 {
        let mut count = 0_u32;
        self.each(|table| count = count.saturating_add(table.begin_claims(connection)));
        count
    }

    /// Claims what `token` proves: whether this owner still holds it.
    pub fn claim(&self, now: Time, owner: Owner, key: LockKey<'_>, token: Token) -> bool {
        self.with_key(key, |table, key| table.claim(now, key, owner, token))
    }

    /// The claims are complete: what was not claimed since [`begin_claims`](Self::begin_claims), nor granted since, is
    /// released.
    pub fn end_claims(&self, now: Time, connection: ConnectionId, effects: &mut Vec<Completion>) {
        self.each(|table| table.end_claims(now, connection, effects));
    }

    /// When the last lease of an owner ends that has not ended yet. Takes time in proportion to what it has.
    #[must_use]
    pub fn latest_lease(&self, now: Time, owner: Owner) -> Option<Time> {
        self.shards.iter().filter_map(|shard| shard.lock().latest_lease(now, owner)).max()
    }

    /// Does what is due, at most 64 events of each shard: when to look again. That may be now, and it may turn out that
    /// nothing is due then; but nothing is due before.
    pub fn advance(&self, now: Time, effects: &mut Vec<Completion>) -> Option<Time> {
        for shard in &self.shards {
            if shard.soonest().time() <= now {
                shard.with(|table| table.begin(now, effects));
            }
        }
        self.soonest()
    }

    /// When [`advance`](Self::advance) is to be called next; takes no lock.
    #[must_use]
    pub fn soonest(&self) -> Option<Time> {
        let soonest = self.shards.iter().map(LockShard::soonest).min();
        soonest.map(ExpiryRank::time).filter(|time| *time < ExpiryRank::LATEST)
    }

    /// Nothing is granted before `until`: whoever holds a lock that was forgotten in a restart has lost its lease by
    /// then. Requests wait in the queue and are granted in order when it is over. An earlier time than one told before
    /// changes nothing.
    pub fn hold_off(&self, until: Time) {
        self.each(|table| table.hold_off = table.hold_off.max(until));
    }

    /// What there is, each key at its own moment.
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

    /// The counters.
    #[must_use]
    pub fn totals(&self) -> LockTotals {
        let mut totals = LockTotals::default();
        for shard in &self.shards {
            shard.lock().add_to_totals(&mut totals);
        }
        totals
    }

    /// The shard that a key is in.
    #[cfg(test)]
    pub(super) fn shard_of(&self, key: LockKey<'_>) -> usize {
        self.shard_number(self.hasher.bytes(key.as_bytes()))
    }

    /// How long idle keys stay known.
    #[cfg(test)]
    pub(super) fn idle_ms(&self) -> u64 {
        self.shards[0].lock().settings.idle_ms
    }

    /// Looks at every shard.
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

    /// Tries again what failed for the limit of keys, if there are keys in other shards whose time has come.
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

    /// Whether what was due left room for another key.
    #[cold]
    fn make_room(&self, now: Time, effects: &mut Vec<Completion>) -> bool {
        for shard in &self.shards {
            if !self.known.has_room() && shard.soonest().time() <= now {
                shard.with(|table| table.begin(now, effects));
            }
        }
        self.known.has_room()
    }

    fn shard_number(&self, hash: u64) -> usize {
        (hash >> 32) as usize & (self.shards.len() - 1)
    }
}

impl LockShard {
    fn new(table: LockTable) -> Self {
        Self { soonest: AtomicU64::new(table.soonest().to_bits()), table: Mutex::new(table) }
    }

    /// Locks the table to look at it.
    fn lock(&self) -> MutexGuard<'_, LockTable> {
        // A thread that panics with the lock held leaves it poisoned. No operation of a table panics, on any input; if
        // one does by a mistake of ours, serving the other locks is better than serving none.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the table to change it.
    fn with<R>(&self, change: impl FnOnce(&mut LockTable) -> R) -> R {
        let mut table = self.lock();
        let result = change(&mut table);
        let soonest = table.soonest();
        if soonest != self.soonest() {
            // Relaxed: it is a hint as soon as the lock is released, and guards nothing.
            self.soonest.store(soonest.to_bits(), Ordering::Relaxed);
        }
        result
    }

    fn soonest(&self) -> ExpiryRank {
        ExpiryRank::from_bits(self.soonest.load(Ordering::Relaxed))
    }
}
