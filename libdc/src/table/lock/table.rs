//! The table of one shard: requests.
//!
//! # Guarantees
//! - At most `limit` owners hold a key. Waiters are granted strictly in FIFO order. No request waits while a
//!   slot is free, except during a hold-off.
//! - A lease that ends at `t` is over from `t` on, to the millisecond, independent of expiry passes: each
//!   operation first brings its key up to date. The same holds for wait timeouts and for the time after which
//!   an idle key is forgotten. Due events are handled in the order of their times.
//! - A lease that is granted late, because the table was not called in time, counts from the grant: no grant
//!   is expired on arrival.
//! - The fence of a grant is greater than that of every earlier grant of any key. The secret half of a token
//!   comes from `ChaCha12`: knowing any number of tokens does not help to predict another.
//!
//! # Bounds of a step
//! A request takes O(log n), independent of the length of the queue and the number of holders and keys.
//! Before it, at most [`EXPIRY_BATCH`] due events of any keys are handled, and all due events of its key:
//! each of those was paid for by the request that created it.
//!
//! # Memory
//! A held key takes 64 bytes as a key, which include a name of up to 22 bytes, 16 in the index, 16 in the
//! queue of due events, and 80 as a record; an owner takes 48, and its connection 32. All of it is kept for
//! reuse, except for the end of the queue's heap. A request allocates only when a table exceeds its previous
//! maximum, and for names of 23 bytes and more.
//!
//! No operation panics.

use super::key::{KeyCount, KeyTable};
use super::outcome::{Completion, LockOutcome, LockSettings, OwnerKey, ReplyTo, WaiterId};
use super::owner::OwnerTable;
use super::record::{Enqueued, LockRecord, NONE, RecordStage, RecordTable};
use super::record_index::{LockHasher, RecordIndex};
use crate::id::{ConnectionId, Grant, Owner, Token};
use crate::limits::{EXPIRY_BATCH, LOCK_MS_MAX};
use crate::table::expiry::{ExpiryQueue, ExpiryRank};
use crate::table::fence::FenceSource;
use crate::time::Time;
use rand_chacha::ChaCha12Rng;
use rand_chacha::rand_core::SeedableRng;
use std::sync::Arc;

/// The last representable time, 557 years from the start of the clock: before the rank of deadlines that
/// never come.
const LAST: Time = Time::from_ms(ExpiryRank::LATEST.as_ms() - 1);

/// The name of a key with its hash.
#[derive(Clone, Copy)]
pub(super) struct HashedKey<'a> {
    pub(super) name: &'a [u8],
    pub(super) hash: u32,
}

/// The answers to blocked requests.
pub(super) type Completions = Vec<Completion>;

/// Counters that the parts of a table do not keep themselves.
#[derive(Default)]
pub(super) struct LockCounts {
    pub(super) held_locks: u64,
    pub(super) held_semaphores: u64,
    pub(super) idle_locks: u64,
    pub(super) idle_semaphores: u64,
    pub(super) holders: u64,
    pub(super) waiters: u64,
    pub(super) grants: u64,
    pub(super) expired: u64,
    pub(super) timeouts: u64,
}

/// The locks of one shard.
pub(super) struct LockTable {
    pub(super) shard: u8,
    pub(super) settings: LockSettings,
    pub(super) keys: KeyTable,
    pub(super) records: RecordTable,
    pub(super) owners: OwnerTable,
    /// All keys, by the time of their next due event, or an earlier time.
    pub(super) due: ExpiryQueue,
    /// Records enqueued and not waited for, by owner and key.
    pub(super) enqueued: RecordIndex,
    /// The holders of semaphores, by fence.
    pub(super) holders: RecordIndex,
    pub(super) hasher: LockHasher,
    pub(super) known: Arc<KeyCount>,
    pub(super) fences: FenceSource,
    pub(super) secrets: ChaCha12Rng,
    /// The latest time passed to any operation.
    pub(super) now: Time,
    /// Nothing is granted before this time.
    pub(super) hold_off: Time,
    /// Deadlines set so far, modulo 2^32: the order of those at the same time.
    order: u32,
    pub(super) counts: LockCounts,
}

impl LockTable {
    /// An empty table with the number `shard`; all shards share `known` and `fences`.
    pub(super) fn new(
        shard: u8,
        settings: LockSettings,
        known: Arc<KeyCount>,
        fences: FenceSource,
        hasher: LockHasher,
        seed: [u8; 32],
    ) -> Self {
        let mut secrets = ChaCha12Rng::from_seed(seed);
        secrets.set_stream(u64::from(shard));
        Self {
            shard,
            settings,
            keys: KeyTable::new(),
            records: RecordTable::new(),
            owners: OwnerTable::new(hasher.clone()),
            due: ExpiryQueue::new(),
            enqueued: RecordIndex::new(),
            holders: RecordIndex::new(),
            hasher,
            known,
            fences,
            secrets,
            now: Time::default(),
            hold_off: Time::default(),
            order: 0,
            counts: LockCounts::default(),
        }
    }

    /// The time of the next due event, or an earlier time.
    pub(super) fn soonest(&self) -> ExpiryRank {
        self.due.first().map_or(ExpiryRank::NEVER, |(rank, _)| rank)
    }

    /// See [`ShardedLocks::acquire`](super::ShardedLocks::acquire).
    pub(super) fn acquire(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        params: AcquireParams,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Completions,
    ) -> LockOutcome {
        let now = self.begin(now, effects);
        let (key, is_free) = match self.admit(now, key, params.limit, timeout_ms > 0, effects) {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let outcome = if is_free {
            LockOutcome::Granted(self.grant_request(now, key, params, Enqueued::No).1)
        } else {
            let record = self.queue_request(key, params, RecordStage::Waiting { reply, two_phase: false });
            self.schedule(record, now.after_ms(timeout_ms.min(LOCK_MS_MAX)));
            LockOutcome::Waiting(self.records.ticket(self.shard, record))
        };
        self.reschedule(key, now);
        outcome
    }

    /// See [`ShardedLocks::enqueue`](super::ShardedLocks::enqueue).
    pub(super) fn enqueue(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        params: AcquireParams,
        effects: &mut Completions,
    ) -> LockOutcome {
        let now = self.begin(now, effects);
        if let Some(key) = self.find_settled(now, key, effects)
            && self.find_enqueued(key, params.owner).is_some()
        {
            return LockOutcome::AlreadyEnqueued;
        }
        let (key, is_free) = match self.admit(now, key, params.limit, true, effects) {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let (record, outcome) = if is_free {
            let (record, grant) = self.grant_request(now, key, params, Enqueued::AtOnce);
            (record, LockOutcome::Granted(grant))
        } else {
            (self.queue_request(key, params, RecordStage::Queued), LockOutcome::Queued)
        };
        self.enqueued.insert(self.enqueued_hash(record), record);
        self.reschedule(key, now);
        outcome
    }

    /// See [`ShardedLocks::wait`](super::ShardedLocks::wait).
    pub(super) fn wait(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        owner: Owner,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Completions,
    ) -> LockOutcome {
        let now = self.begin(now, effects);
        let found = self.find_settled(now, key, effects);
        let Some(record) = found.and_then(|key| self.find_enqueued(key, owner)) else {
            return LockOutcome::NotEnqueued;
        };
        let LockRecord { stage, key, lease_ms, .. } = self.records[record];
        let outcome = match stage {
            RecordStage::Held { token, .. } => {
                self.forget_enqueued(record);
                self.unschedule(record);
                self.schedule(record, now.after_ms(lease_ms));
                LockOutcome::Granted(Grant { token, lease_ms })
            }
            RecordStage::Queued if timeout_ms == 0 => {
                self.remove_record(record);
                self.counts.timeouts += 1;
                LockOutcome::Timeout
            }
            RecordStage::Queued => {
                self.records[record].stage = RecordStage::Waiting { reply, two_phase: true };
                self.schedule(record, now.after_ms(timeout_ms.min(LOCK_MS_MAX)));
                LockOutcome::Waiting(self.records.ticket(self.shard, record))
            }
            RecordStage::Lapsed => {
                self.remove_record(record);
                LockOutcome::LeaseExpired
            }
            RecordStage::Waiting { .. } | RecordStage::Vacant => return LockOutcome::NotEnqueued,
        };
        self.reschedule(key, now);
        outcome
    }

    /// See [`ShardedLocks::release`](super::ShardedLocks::release).
    pub(super) fn release(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        token: Token,
        effects: &mut Completions,
    ) -> bool {
        let now = self.begin(now, effects);
        let found = self.find_settled(now, key, effects);
        let Some(record) = found.and_then(|key| self.find_holder(key, token)) else { return false };
        self.end_record_and_grant(now, record, effects);
        true
    }

    /// See [`ShardedLocks::renew`](super::ShardedLocks::renew).
    pub(super) fn renew(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        token: Token,
        lease_ms: u64,
        effects: &mut Completions,
    ) -> Option<u64> {
        let now = self.begin(now, effects);
        let key = self.find_settled(now, key, effects)?;
        let record = self.find_holder(key, token)?;
        let lease_ms = self.settings.lease_ms(lease_ms);
        self.unschedule(record);
        self.schedule(record, now.after_ms(lease_ms));
        self.reschedule(key, now);
        Some(lease_ms)
    }

    /// See [`ShardedLocks::cancel`](super::ShardedLocks::cancel).
    pub(super) fn cancel(&mut self, now: Time, ticket: WaiterId, effects: &mut Completions) -> bool {
        let now = self.begin(now, effects);
        let Some(record) = self.records.find(ticket) else { return false };
        self.resolve(now, self.records[record].key, effects);
        match self.records.find(ticket) {
            Some(record) if matches!(self.records[record].stage, RecordStage::Waiting { .. }) => {
                self.end_record_and_grant(now, record, effects);
                true
            }
            _ => false,
        }
    }

    /// Handles some events that are due by `now`, up to the limit of a step. More may be left, even for a
    /// later `now`.
    ///
    /// Returns the current time. Threads read the clock before they wait for the lock, so `now` can be
    /// slightly earlier than the time of a previous call.
    pub(super) fn begin(&mut self, now: Time, effects: &mut Completions) -> Time {
        self.now = self.now.max(now.min(LAST));
        if self.soonest().time() <= self.now {
            self.advance(EXPIRY_BATCH, effects);
        }
        self.now
    }

    /// The key with this name, brought up to date.
    pub(super) fn find_settled(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        effects: &mut Completions,
    ) -> Option<u32> {
        let key = self.keys.find(key.hash, key.name)?;
        self.resolve(now, key, effects).then_some(key)
    }

    /// The record that holds the key with this token.
    pub(super) fn find_holder(&self, key: u32, token: Token) -> Option<u32> {
        let entry = &self.keys[key];
        let matches = |record: u32| {
            let record = &self.records[record];
            record.key == key && record.token() == Some(token)
        };
        if entry.is_lock() {
            (entry.holder != NONE && matches(entry.holder)).then_some(entry.holder)
        } else {
            self.holders.find(self.hasher.numbers(token.fence(), 0), matches)
        }
    }

    /// The record that the owner has enqueued for the key.
    fn find_enqueued(&self, key: u32, owner: Owner) -> Option<u32> {
        let owner = self.owners.find(owner)?;
        let hash = self.hasher.numbers(u64::from(owner), u64::from(key));
        self.enqueued.find(hash, |record| {
            let record = &self.records[record];
            record.owner == owner && record.key == key
        })
    }

    pub(super) fn enqueued_hash(&self, record: u32) -> u32 {
        let LockRecord { owner, key, .. } = self.records[record];
        self.hasher.numbers(u64::from(owner), u64::from(key))
    }

    /// Sets the deadline of a record without one. The caller must reschedule its key.
    pub(super) fn schedule(&mut self, record: u32, time: Time) {
        let rank = self.rank(time);
        let root = &mut self.keys[self.records[record].key].root;
        self.records.schedule(root, record, rank);
    }

    /// Removes the deadline of a record, if it has one.
    pub(super) fn unschedule(&mut self, record: u32) {
        let root = &mut self.keys[self.records[record].key].root;
        self.records.unschedule(root, record);
    }

    pub(super) fn rank(&mut self, time: Time) -> ExpiryRank {
        self.order = self.order.wrapping_add(1);
        ExpiryRank::new(time, self.order)
    }
}

/// The parameters of a request for a slot.
#[derive(Clone, Copy)]
pub(super) struct AcquireParams {
    pub(super) owner: Owner,
    pub(super) limit: u32,
    pub(super) lease_ms: u64,
}

impl AcquireParams {
    pub(super) fn new(owner_key: OwnerKey<'_>, limit: u32, lease_ms: u64) -> Self {
        Self { owner: owner_key.owner, limit: limit.max(1), lease_ms }
    }
}

/// The owners whose records an operation affects.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Owner(Owner),
    Connection(ConnectionId),
}
