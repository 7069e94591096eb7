//! The table of one shard: what requests do.
//!
//! # What is promised
//! - At most `limit` hold a key. Places are granted strictly in the order in which they were taken, and where there is
//!   a free slot nobody waits, but for a hold-off.
//! - A lease that ends at `t` is over from `t` on, to the millisecond, whatever was or was not swept: each operation
//!   first brings its key up to date. So is the patience of who waits, and the time after which an idle key is
//!   forgotten. What is due is done in the order of its times.
//! - A lease granted late, because nobody looked, is counted from then: no grant is dead on arrival.
//! - The fence of a grant is greater than that of every grant before, of any key. The secret half of a token comes from
//!   `ChaCha12`: whoever sees any number of tokens can foresee none.
//!
//! # What bounds a step
//! A request takes O(log n), whatever the length of the queue, the number of holders and that of keys. Before it at
//! most [`EXPIRY_BATCH`] due events of any keys are done in passing, and those of its own key, however many: each was
//! paid for by the request that made it.
//!
//! # Memory
//! A held key takes 64 bytes as a key, which include a name of up to 22 bytes, 16 in the index, 16 in the queue of what
//! is due, and 80 as a record; an owner takes 48, and its connection 32. All that stays for the next ones when it
//! goes, but the end of the queue's heap. No request allocates, but where more is known than ever before, and for
//! names of 23 bytes and more.
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

/// The last moment at which time passes, 557 years from the start of the clock: before that of deadlines that never come.
const LAST: Time = Time::from_ms(ExpiryRank::LATEST.as_ms() - 1);

/// The name of a key with its hash.
#[derive(Clone, Copy)]
pub(super) struct HashedKey<'a> {
    pub(super) name: &'a [u8],
    pub(super) hash: u32,
}

/// Where the answers to blocked requests go.
pub(super) type Effects = Vec<Completion>;

/// How many of what there are, besides what the parts of a table know.
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

/// Locks of one shard.
pub(super) struct LockTable {
    pub(super) shard: u8,
    pub(super) settings: LockSettings,
    pub(super) keys: KeyTable,
    pub(super) records: RecordTable,
    pub(super) owners: OwnerTable,
    /// All keys, by when something of them is due, or by an earlier time.
    pub(super) due: ExpiryQueue,
    /// What was enqueued and not waited for, by owner and key.
    pub(super) enqueued: RecordIndex,
    /// The holders of semaphores, by fence.
    pub(super) holders: RecordIndex,
    pub(super) hasher: LockHasher,
    pub(super) known: Arc<KeyCount>,
    pub(super) fences: FenceSource,
    pub(super) secrets: ChaCha12Rng,
    /// The latest time that anybody told.
    pub(super) now: Time,
    /// Nothing is granted before.
    pub(super) hold_off: Time,
    /// Deadlines ever set, modulo 2^32: the order of those at the same time.
    order: u32,
    pub(super) counts: LockCounts,
}

impl LockTable {
    /// An empty table, number `shard` of those that share `known` and `fences`.
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

    /// When something is due next, or an earlier time.
    pub(super) fn soonest(&self) -> ExpiryRank {
        self.due.first().map_or(ExpiryRank::NEVER, |(rank, _)| rank)
    }

    /// See [`ShardedLocks::acquire`](super::ShardedLocks::acquire); `ask` is who, with what limit and lease.
    pub(super) fn acquire(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        ask: AcquireParams,
        timeout_ms: u64,
        reply: ReplyTo,
        effects: &mut Effects,
    ) -> LockOutcome {
        let now = self.begin(now, effects);
        let (key, is_free) = match self.admit(now, key, ask.limit, timeout_ms > 0, effects) {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let outcome = if is_free {
            LockOutcome::Granted(self.grant_new(now, key, ask, Enqueued::No).1)
        } else {
            let record = self.queue_new(key, ask, RecordStage::Waiting { reply, two_phase: false });
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
        ask: AcquireParams,
        effects: &mut Effects,
    ) -> LockOutcome {
        let now = self.begin(now, effects);
        if let Some(key) = self.find_settled(now, key, effects)
            && self.find_enqueued(key, ask.owner).is_some()
        {
            return LockOutcome::AlreadyEnqueued;
        }
        let (key, is_free) = match self.admit(now, key, ask.limit, true, effects) {
            Ok(admitted) => admitted,
            Err(refused) => return refused,
        };
        let (record, outcome) = if is_free {
            let (record, grant) = self.grant_new(now, key, ask, Enqueued::AtOnce);
            (record, LockOutcome::Granted(grant))
        } else {
            (self.queue_new(key, ask, RecordStage::Queued), LockOutcome::Queued)
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
        effects: &mut Effects,
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
                self.retire(record);
                self.counts.timeouts += 1;
                LockOutcome::Timeout
            }
            RecordStage::Queued => {
                self.records[record].stage = RecordStage::Waiting { reply, two_phase: true };
                self.schedule(record, now.after_ms(timeout_ms.min(LOCK_MS_MAX)));
                LockOutcome::Waiting(self.records.ticket(self.shard, record))
            }
            RecordStage::Lapsed => {
                self.retire(record);
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
        effects: &mut Effects,
    ) -> bool {
        let now = self.begin(now, effects);
        let found = self.find_settled(now, key, effects);
        let Some(record) = found.and_then(|key| self.find_holder(key, token)) else { return false };
        self.give_up(now, record, effects);
        true
    }

    /// See [`ShardedLocks::renew`](super::ShardedLocks::renew).
    pub(super) fn renew(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        token: Token,
        lease_ms: u64,
        effects: &mut Effects,
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
    pub(super) fn cancel(&mut self, now: Time, ticket: WaiterId, effects: &mut Effects) -> bool {
        let now = self.begin(now, effects);
        let Some(record) = self.records.find(ticket) else { return false };
        self.resolve(now, self.records[record].key, effects);
        match self.records.find(ticket) {
            Some(record) if matches!(self.records[record].stage, RecordStage::Waiting { .. }) => {
                self.give_up(now, record, effects);
                true
            }
            _ => false,
        }
    }

    /// Does some of what is due by `now`: at most as much as a step may. More may be left, also what is due later.
    ///
    /// Returns the time to reckon with. Threads look at the clock before they wait for the lock, so here `now` can
    /// be a little earlier than it was.
    pub(super) fn begin(&mut self, now: Time, effects: &mut Effects) -> Time {
        self.now = self.now.max(now.min(LAST));
        if self.soonest().time() <= self.now {
            self.advance(EXPIRY_BATCH, effects);
        }
        self.now
    }

    /// The key of this name, up to date.
    pub(super) fn find_settled(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        effects: &mut Effects,
    ) -> Option<u32> {
        let key = self.keys.find(key.hash, key.name)?;
        self.resolve(now, key, effects).then_some(key)
    }

    /// The record that holds the key with this token.
    pub(super) fn find_holder(&self, key: u32, token: Token) -> Option<u32> {
        let entry = &self.keys[key];
        let is_it = |record: u32| {
            let record = &self.records[record];
            record.key == key && record.token() == Some(token)
        };
        if entry.is_lock() {
            (entry.holder != NONE && is_it(entry.holder)).then_some(entry.holder)
        } else {
            self.holders.find(self.hasher.numbers(token.fence(), 0), is_it)
        }
    }

    /// What the owner has enqueued for the key.
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

    /// Sets the deadline of a record that has none. Its key is to be rescheduled.
    pub(super) fn schedule(&mut self, record: u32, time: Time) {
        let rank = self.rank(time);
        let root = &mut self.keys[self.records[record].key].root;
        self.records.schedule(root, record, rank);
    }

    /// Takes away the deadline of a record, if it has one.
    pub(super) fn unschedule(&mut self, record: u32) {
        let root = &mut self.keys[self.records[record].key].root;
        self.records.unschedule(root, record);
    }

    pub(super) fn rank(&mut self, time: Time) -> ExpiryRank {
        self.order = self.order.wrapping_add(1);
        ExpiryRank::new(time, self.order)
    }
}

/// Who asks, and for what.
#[derive(Clone, Copy)]
pub(super) struct AcquireParams {
    pub(super) owner: Owner,
    pub(super) limit: u32,
    pub(super) lease_ms: u64,
}

impl AcquireParams {
    pub(super) fn new(who: OwnerKey<'_>, limit: u32, lease_ms: u64) -> Self {
        Self { owner: who.owner, limit: limit.max(1), lease_ms }
    }
}

/// Whose waiting an operation is about.
#[derive(Clone, Copy)]
pub(super) enum Scope {
    Owner(Owner),
    Connection(ConnectionId),
}
