//! The table of one shard: timed events, and the consequences when a record ends.
//!
//! An event of a key is due at the earliest of: the first deadline of its records; the time at which it is
//! forgotten, if it is idle; the end of the hold-off, if a request waits for a free slot.
//! [`LockTable::reschedule`] maintains that and is called after every change of a key.
//!
//! Every key has one position in the queue of due events, at that time or earlier. An event that moves to a
//! later time is not moved in the queue until its old time comes. A key that is acquired and released
//! repeatedly is therefore rarely moved.

use super::outcome::{Completion, LockOutcome};
use super::record::{Enqueued, ListLinks, LockRecord, NONE, RecordStage};
use super::table::{Completions, LockTable};
use crate::limits::EXPIRY_BATCH;
use crate::table::expiry::ExpiryRank;
use crate::time::Time;

impl LockTable {
    /// Handles at most `most` due events, in the order of their times.
    pub(super) fn advance(&mut self, most: usize, effects: &mut Completions) {
        let mut moves = EXPIRY_BATCH;
        for _ in 0..most {
            let Some(key) = self.first_due(&mut moves) else { break };
            if self.handle_first_due(self.now, key, effects) {
                self.due.change(key, self.keys[key].soonest);
            }
        }
    }

    /// The key whose event is due first; `None` if finding it takes more than `moves` moves in the queue.
    fn first_due(&mut self, moves: &mut usize) -> Option<u32> {
        loop {
            let (rank, key) = self.due.first().filter(|(rank, _)| rank.time() <= self.now)?;
            let soonest = self.keys[key].soonest;
            if soonest == rank {
                return Some(key);
            }
            *moves = moves.checked_sub(1)?;
            self.due.change(key, soonest);
        }
    }

    /// Handles all due events of one key. Returns whether the key still exists.
    #[inline]
    pub(super) fn resolve(&mut self, now: Time, key: u32, effects: &mut Completions) -> bool {
        while self.keys[key].soonest.time() <= now {
            if !self.handle_first_due(now, key, effects) {
                return false;
            }
        }
        true
    }

    /// Handles the first due event of a key that has one. Returns whether the key still exists.
    fn handle_first_due(&mut self, now: Time, key: u32, effects: &mut Completions) -> bool {
        let entry = &self.keys[key];
        let (due, root) = (entry.soonest, entry.root);
        if entry.is_idle() {
            self.forget(key);
            return false;
        }
        if root != NONE && self.records[root].rank == due {
            self.handle_deadline(root, effects);
        }
        self.grant_waiters(now, due.time(), key, effects);
        self.reschedule(key, due.time());
        true
    }

    /// Handles the deadline of a record.
    fn handle_deadline(&mut self, record: u32, effects: &mut Completions) {
        match self.records[record].stage {
            RecordStage::Held { enqueued: Enqueued::FromQueue, .. } => {
                self.counts.expired += 1;
                self.unschedule(record);
                self.end_hold(record);
                self.records[record].stage = RecordStage::Lapsed;
                self.keys[self.records[record].key].lapsed += 1;
            }
            RecordStage::Held { .. } => {
                self.counts.expired += 1;
                self.remove_record(record);
            }
            RecordStage::Waiting { reply, .. } => {
                self.counts.timeouts += 1;
                let ticket = self.records.ticket(self.shard, record);
                effects.push(Completion { reply, ticket, outcome: LockOutcome::Timeout });
                self.remove_record(record);
            }
            // These stages have no deadline.
            RecordStage::Queued | RecordStage::Lapsed | RecordStage::Vacant => self.unschedule(record),
        }
    }

    /// Grants the free slots of a key to its waiters, because of an event at the time `at`.
    fn grant_waiters(&mut self, now: Time, at: Time, key: u32, effects: &mut Completions) {
        while at >= self.hold_off {
            let entry = &self.keys[key];
            let first = entry.first;
            if first == NONE || entry.holders >= entry.limit {
                break;
            }
            let ticket = self.records.ticket(self.shard, first);
            let stage = self.records[first].stage;
            self.unschedule(first);
            self.leave_queue(first);
            if let RecordStage::Waiting { reply, two_phase } = stage {
                if two_phase {
                    self.enqueued.remove(self.enqueued_hash(first), first);
                }
                let outcome = LockOutcome::Granted(self.hold(now, first, Enqueued::No));
                effects.push(Completion { reply, ticket, outcome });
            } else {
                self.hold(now, first, Enqueued::FromQueue);
            }
        }
    }

    /// Removes a record, and grants its slot to the next waiter if it was a hold.
    pub(super) fn end_record_and_grant(&mut self, now: Time, record: u32, effects: &mut Completions) {
        let key = self.records[record].key;
        self.remove_record(record);
        self.grant_waiters(now, now, key, effects);
        self.reschedule(key, now);
    }

    /// Removes a record in any stage. The caller must reschedule its key.
    pub(super) fn remove_record(&mut self, record: u32) {
        let LockRecord { stage, key, .. } = self.records[record];
        self.unschedule(record);
        self.forget_enqueued(record);
        match stage {
            RecordStage::Held { .. } => self.end_hold(record),
            RecordStage::Waiting { .. } | RecordStage::Queued => self.leave_queue(record),
            RecordStage::Lapsed => self.keys[key].lapsed -= 1,
            RecordStage::Vacant => return,
        }
        self.owners.detach(&mut self.records, record);
        self.records.remove(record);
    }

    /// Turns an enqueued hold into an ordinary one. In any case `wait` no longer finds the record.
    pub(super) fn forget_enqueued(&mut self, record: u32) {
        if self.records[record].is_two_phase() {
            self.enqueued.remove(self.enqueued_hash(record), record);
        }
        if let RecordStage::Held { enqueued, .. } = &mut self.records[record].stage {
            *enqueued = Enqueued::No;
        }
    }

    /// Ends a hold; the caller decides what happens to the record.
    fn end_hold(&mut self, record: u32) {
        let LockRecord { stage, key, .. } = self.records[record];
        let RecordStage::Held { token, .. } = stage else { return };
        let entry = &mut self.keys[key];
        entry.holders -= 1;
        self.counts.holders -= 1;
        if entry.is_lock() {
            entry.holder = NONE;
        } else {
            self.holders.remove(self.hasher.numbers(token.fence(), 0), record);
        }
        if entry.holders == 0 {
            *(if entry.is_lock() {
                &mut self.counts.held_locks
            } else {
                &mut self.counts.held_semaphores
            }) -= 1;
        }
    }

    /// Removes a record from the queue of its key.
    fn leave_queue(&mut self, record: u32) {
        let LockRecord { queue, key, .. } = self.records[record];
        let entry = &mut self.keys[key];
        if queue.prev == NONE {
            entry.first = queue.next;
        } else {
            self.records[queue.prev].queue.next = queue.next;
        }
        if queue.next == NONE {
            entry.last = queue.prev;
        } else {
            self.records[queue.next].queue.prev = queue.prev;
        }
        self.records[record].queue = ListLinks::NONE;
        entry.waiters -= 1;
        self.counts.waiters -= 1;
    }

    /// Updates the position of a key in the queue of due events. If the key became idle, it did so at
    /// `since`.
    pub(super) fn reschedule(&mut self, key: u32, since: Time) {
        let entry = &self.keys[key];
        let soonest = if entry.is_idle() {
            let idle =
                if entry.is_lock() { &mut self.counts.idle_locks } else { &mut self.counts.idle_semaphores };
            *idle += 1;
            self.rank(since.after_ms(self.settings.idle_ms))
        } else {
            let deadline = if entry.root == NONE { ExpiryRank::NEVER } else { self.records[entry.root].rank };
            let is_held_off = entry.waiters > 0 && entry.holders < entry.limit;
            if is_held_off { deadline.min(ExpiryRank::new(self.hold_off, 0)) } else { deadline }
        };
        let before = std::mem::replace(&mut self.keys[key].soonest, soonest);
        if soonest < before {
            self.due.lower(key, soonest);
        }
    }

    /// Marks a key that is about to be used as no longer idle.
    pub(super) fn wake(&mut self, key: u32) {
        let entry = &self.keys[key];
        // A key that was just inserted has never been idle.
        if entry.is_idle() && entry.soonest != ExpiryRank::NEVER {
            *(if entry.is_lock() {
                &mut self.counts.idle_locks
            } else {
                &mut self.counts.idle_semaphores
            }) -= 1;
        }
    }

    /// Forgets a key that is idle.
    fn forget(&mut self, key: u32) {
        self.wake(key);
        self.due.remove(key);
        self.keys.remove(&self.known, key);
    }

    /// Forgets one idle key whose time has passed, if that is the first due event.
    pub(super) fn forget_an_idle_key(&mut self) {
        if let Some(key) = self.first_due(&mut { EXPIRY_BATCH })
            && self.keys[key].is_idle()
        {
            self.forget(key);
        }
    }
}
