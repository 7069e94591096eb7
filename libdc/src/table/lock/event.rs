//! The table of one shard: what time does, and what follows from an end of anything.
//!
//! Something of a key is due at the soonest of: the first deadline of its records; the time at which it is forgotten, if
//! it is idle; the end of the hold-off, if somebody waits for a slot that is free. [`LockTable::reschedule`] is called
//! after every change of a key and keeps that so.
//!
//! Every key has one place in the queue of what is due, at that time or before. For what becomes due later than it was
//! is not moved until its old time has come: so a key that is taken and released over and over is hardly ever moved.

use super::outcome::{Completion, LockOutcome};
use super::record::{Enqueued, ListLinks, LockRecord, NONE, RecordStage};
use super::table::{Effects, LockTable};
use crate::limits::EXPIRY_BATCH;
use crate::table::expiry::ExpiryRank;
use crate::time::Time;

impl LockTable {
    /// Does at most `most` of what is due, in the order of the times.
    pub(super) fn advance(&mut self, most: usize, effects: &mut Effects) {
        let mut moves = EXPIRY_BATCH;
        for _ in 0..most {
            let Some(key) = self.first_due(&mut moves) else { break };
            if self.do_first(self.now, key, effects) {
                self.due.change(key, self.keys[key].soonest);
            }
        }
    }

    /// The key of which something is due before all others; none, if it takes more than so many `moves` to know it.
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

    /// Does all that is due of one key. Whether the key is still known.
    #[inline]
    pub(super) fn resolve(&mut self, now: Time, key: u32, effects: &mut Effects) -> bool {
        while self.keys[key].soonest.time() <= now {
            if !self.do_first(now, key, effects) {
                return false;
            }
        }
        true
    }

    /// Does what is due first of a key of which something is due. Whether the key is still known.
    fn do_first(&mut self, now: Time, key: u32, effects: &mut Effects) -> bool {
        let entry = &self.keys[key];
        let (due, root) = (entry.soonest, entry.root);
        if entry.is_idle() {
            self.forget(key);
            return false;
        }
        if root != NONE && self.records[root].rank == due {
            self.end_record(root, effects);
        }
        self.grant_waiters(now, due.time(), key, effects);
        self.reschedule(key, due.time());
        true
    }

    /// A deadline has come.
    fn end_record(&mut self, record: u32, effects: &mut Effects) {
        match self.records[record].stage {
            RecordStage::Held { enqueued: Enqueued::FromQueue, .. } => {
                self.counts.expired += 1;
                self.unschedule(record);
                self.let_go(record);
                self.records[record].stage = RecordStage::Lapsed;
                self.keys[self.records[record].key].lapsed += 1;
            }
            RecordStage::Held { .. } => {
                self.counts.expired += 1;
                self.retire(record);
            }
            RecordStage::Waiting { reply, .. } => {
                self.counts.timeouts += 1;
                let ticket = self.records.ticket(self.shard, record);
                effects.push(Completion { reply, ticket, outcome: LockOutcome::Timeout });
                self.retire(record);
            }
            // They have no deadline.
            RecordStage::Queued | RecordStage::Lapsed | RecordStage::Vacant => self.unschedule(record),
        }
    }

    /// Grants the free slots of a key to those that wait, because of what happened at the time `at`.
    fn grant_waiters(&mut self, now: Time, at: Time, key: u32, effects: &mut Effects) {
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

    /// Takes a record away, and grants the slot to the next if it was a hold.
    pub(super) fn give_up(&mut self, now: Time, record: u32, effects: &mut Effects) {
        let key = self.records[record].key;
        self.retire(record);
        self.grant_waiters(now, now, key, effects);
        self.reschedule(key, now);
    }

    /// Takes a record away, whatever it is. Its key is to be rescheduled.
    pub(super) fn retire(&mut self, record: u32) {
        let LockRecord { stage, key, .. } = self.records[record];
        self.unschedule(record);
        self.forget_enqueued(record);
        match stage {
            RecordStage::Held { .. } => self.let_go(record),
            RecordStage::Waiting { .. } | RecordStage::Queued => self.leave_queue(record),
            RecordStage::Lapsed => self.keys[key].lapsed -= 1,
            RecordStage::Vacant => return,
        }
        self.owners.detach(&mut self.records, record);
        self.records.remove(record);
    }

    /// Makes what was enqueued an ordinary hold, if it is one; at all events `wait` does not find it any more.
    pub(super) fn forget_enqueued(&mut self, record: u32) {
        if self.records[record].is_two_phase() {
            self.enqueued.remove(self.enqueued_hash(record), record);
        }
        if let RecordStage::Held { enqueued, .. } = &mut self.records[record].stage {
            *enqueued = Enqueued::No;
        }
    }

    /// Ends a hold; what becomes of the record is the caller's affair.
    fn let_go(&mut self, record: u32) {
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

    /// Takes a record out of the queue of its key.
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

    /// Puts a key where it belongs in the queue of what is due; if it became idle, at the time `since`.
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

    /// A key that is about to be used is not idle any more.
    pub(super) fn wake(&mut self, key: u32) {
        let entry = &self.keys[key];
        // A key that was only just made known never was.
        if entry.is_idle() && entry.soonest != ExpiryRank::NEVER {
            *(if entry.is_lock() {
                &mut self.counts.idle_locks
            } else {
                &mut self.counts.idle_semaphores
            }) -= 1;
        }
    }

    /// Forgets an idle key.
    fn forget(&mut self, key: u32) {
        self.wake(key);
        self.due.remove(key);
        self.keys.remove(&self.known, key);
    }

    /// Forgets one idle key whose time has come, if it is what is due first.
    pub(super) fn forget_an_idle_key(&mut self) {
        if let Some(key) = self.first_due(&mut { EXPIRY_BATCH })
            && self.keys[key].is_idle()
        {
            self.forget(key);
        }
    }
}
