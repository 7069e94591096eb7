//! The table of one shard: how a new request gets a slot or a position in the queue.

use super::outcome::LockOutcome;
use super::record::{Enqueued, LockRecord, NONE, RecordStage};
use super::table::{AcquireParams, Completions, HashedKey, LockTable};
use crate::id::{Grant, Token};
use crate::table::expiry::ExpiryRank;
use crate::time::Time;
use rand_chacha::rand_core::Rng;

impl LockTable {
    /// The number of the key, which is inserted if needed, and whether it has a free slot. Otherwise the
    /// reason why the request can neither be granted nor wait.
    pub(super) fn admit(
        &mut self,
        now: Time,
        key: HashedKey<'_>,
        limit: u32,
        may_wait: bool,
        effects: &mut Completions,
    ) -> Result<(u32, bool), LockOutcome> {
        let found = self.find_settled(now, key, effects);
        let (waiters, is_free) = match found {
            None => (0, true),
            Some(key) if self.keys[key].limit == limit => {
                let entry = &self.keys[key];
                (entry.waiters, entry.waiters == 0 && entry.holders < limit)
            }
            Some(_) => return Err(LockOutcome::LimitMismatch),
        };
        let is_free = is_free && now >= self.hold_off;
        if found.is_none() && !self.make_room() || self.is_full() {
            Err(LockOutcome::MaxLocks)
        } else if !is_free && !may_wait {
            self.counts.timeouts += 1;
            Err(LockOutcome::Timeout)
        } else if !is_free && u64::from(waiters) >= self.waiters_max() {
            Err(LockOutcome::MaxWaiters)
        } else if let Some(key) = found {
            Ok((key, is_free))
        } else {
            let key = self.insert_key(key, limit).ok_or(LockOutcome::MaxLocks)?;
            Ok((key, is_free))
        }
    }

    fn insert_key(&mut self, key: HashedKey<'_>, limit: u32) -> Option<u32> {
        let number = self.keys.insert(&self.known, key.hash, key.name, limit)?;
        self.due.insert(number, ExpiryRank::NEVER);
        Some(number)
    }

    /// Whether another key fits, if necessary after forgetting a key whose idle time has passed.
    fn make_room(&mut self) -> bool {
        self.keys.has_capacity(&self.known) || {
            self.forget_an_idle_key();
            self.keys.has_capacity(&self.known)
        }
    }

    /// Whether the maximum number of records is in use.
    fn is_full(&self) -> bool {
        self.records.is_full() || self.enqueued.is_full() || self.holders.is_full()
    }

    const fn waiters_max(&self) -> u64 {
        if self.settings.waiters_max == 0 { u64::MAX } else { self.settings.waiters_max }
    }

    /// Grants a free slot to a new request.
    pub(super) fn grant_request(
        &mut self,
        now: Time,
        key: u32,
        params: AcquireParams,
        enqueued: Enqueued,
    ) -> (u32, Grant) {
        self.wake(key);
        let lease_ms = self.settings.lease_ms(params.lease_ms);
        let record = self.records.insert(LockRecord { key, lease_ms, ..LockRecord::default() });
        self.owners.attach(&mut self.records, params.owner, record);
        (record, self.hold(now, record, enqueued))
    }

    /// Appends a new request to the queue.
    pub(super) fn queue_request(&mut self, key: u32, params: AcquireParams, stage: RecordStage) -> u32 {
        self.wake(key);
        let lease_ms = self.settings.lease_ms(params.lease_ms);
        let record = self.records.insert(LockRecord { stage, key, lease_ms, ..LockRecord::default() });
        self.owners.attach(&mut self.records, params.owner, record);
        let entry = &mut self.keys[key];
        let last = std::mem::replace(&mut entry.last, record);
        if last == NONE {
            entry.first = record;
        } else {
            self.records[last].queue.next = record;
        }
        self.records[record].queue.prev = last;
        entry.waiters += 1;
        self.counts.waiters += 1;
        record
    }

    /// Turns a record without a deadline into a hold.
    pub(super) fn hold(&mut self, now: Time, record: u32, enqueued: Enqueued) -> Grant {
        let token = Token::new(self.fences.next(), self.secrets.next_u64());
        let LockRecord { key, lease_ms, .. } = self.records[record];
        self.records[record].stage = RecordStage::Held { token, enqueued, claimed: true };
        let entry = &mut self.keys[key];
        if entry.holders == 0 {
            *(if entry.is_lock() {
                &mut self.counts.held_locks
            } else {
                &mut self.counts.held_semaphores
            }) += 1;
        }
        entry.holders += 1;
        if entry.is_lock() {
            entry.holder = record;
        } else {
            self.holders.insert(self.hasher.numbers(token.fence(), 0), record);
        }
        self.counts.holders += 1;
        self.counts.grants += 1;
        self.schedule(record, now.after_ms(lease_ms));
        Grant { token, lease_ms }
    }
}
