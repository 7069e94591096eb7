//! Records: one for each hold, each position in a queue, and each missed turn.
//!
//! ```text
//!             acquire, wait a turn             granted
//!        ┌──────────────────────► Waiting ─────────────────┐
//!        │                           ▲                     ▼
//!      (new) ──── enqueue ──────► Queued ───── granted ──► Held ──► (gone)
//!        │                                                 ▲ │
//!        └─────────────── a free slot ─────────────────────┘ └───► Lapsed ──► (gone)
//!                                               lease ended before `wait`
//! ```
//!
//! A record is in several intrusive lists at once: its owner's, the queue of its key while it waits, and the
//! heap of its key's deadlines while it has one. All links are numbers of other records.
//!
//! Invariants: a vacant record is only in the chain of vacant ones; the generation of a record increases when
//! it is removed, so that a [`WaiterId`] never finds a later record with the same number. Nothing here panics
//! on the number of a record in use.

use super::outcome::{ReplyTo, WaiterId};
use crate::id::Token;
use crate::table::chunked_vec::ChunkedVec;
use crate::table::expiry::ExpiryRank;
use std::ops::{Index, IndexMut};

/// The end of a list: never a valid number.
pub(super) const NONE: u32 = u32::MAX;
/// The maximum number of records in a table.
const RECORDS_MAX: usize = (u32::MAX - 1) as usize;

/// The neighbours in a doubly linked list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ListLinks {
    pub(super) prev: u32,
    pub(super) next: u32,
}

impl ListLinks {
    pub(super) const NONE: Self = Self { prev: NONE, next: NONE };
}

/// The origin of a hold, as far as `wait` is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enqueued {
    /// Not enqueued, or `wait` was called already.
    No,
    /// The answer to `enqueue` was the grant.
    AtOnce,
    /// The lock was granted from the queue after `enqueue` was answered.
    FromQueue,
}

/// The stage of a record's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordStage {
    /// The number is not in use.
    Vacant,
    /// A position in the queue for which no `wait` was called yet.
    Queued,
    /// A position in the queue of a blocked request.
    Waiting {
        reply: ReplyTo,
        /// Whether the position was taken by `enqueue`.
        two_phase: bool,
    },
    /// A hold of the key.
    Held {
        token: Token,
        enqueued: Enqueued,
        /// Whether the hold survives the end of the claims.
        claimed: bool,
    },
    /// A turn whose lease ended before `wait` was called.
    Lapsed,
}

/// A hold, a position in a queue, or a missed turn.
#[derive(Clone, Copy)]
pub(super) struct LockRecord {
    pub(super) stage: RecordStage,
    /// When the lease or the wait timeout ends; [`ExpiryRank::NEVER`] if neither does.
    pub(super) rank: ExpiryRank,
    /// The lease, which starts at the grant and at each renewal.
    pub(super) lease_ms: u64,
    pub(super) owner: u32,
    pub(super) key: u32,
    /// In the list of the owner.
    pub(super) of_owner: ListLinks,
    /// In the queue of the key. `next` also chains vacant records.
    pub(super) queue: ListLinks,
    /// In the heap of the key's deadlines: `prev` is the elder sibling, or the parent for the eldest child.
    pub(super) heap: ListLinks,
    pub(super) heap_child: u32,
    /// How many records have had this number before.
    pub(super) generation: u32,
}

const _: () = assert!(size_of::<LockRecord>() <= 80, "the documentation states the memory of a hold");

impl Default for LockRecord {
    fn default() -> Self {
        Self {
            stage: RecordStage::Vacant,
            rank: ExpiryRank::NEVER,
            lease_ms: 0,
            owner: NONE,
            key: NONE,
            of_owner: ListLinks::NONE,
            queue: ListLinks::NONE,
            heap: ListLinks::NONE,
            heap_child: NONE,
            generation: 0,
        }
    }
}

impl LockRecord {
    /// Whether `enqueue` and `wait` apply to the record.
    pub(super) const fn is_two_phase(&self) -> bool {
        match self.stage {
            RecordStage::Queued | RecordStage::Lapsed => true,
            RecordStage::Waiting { two_phase, .. } => two_phase,
            RecordStage::Held { enqueued, .. } => !matches!(enqueued, Enqueued::No),
            RecordStage::Vacant => false,
        }
    }

    /// The token of the hold, if it is one.
    pub(super) const fn token(&self) -> Option<Token> {
        if let RecordStage::Held { token, .. } = self.stage { Some(token) } else { None }
    }
}

pub(super) struct RecordTable {
    records: ChunkedVec<LockRecord>,
    /// The first vacant record.
    vacant: u32,
    len: usize,
}

impl RecordTable {
    pub(super) const fn new() -> Self {
        Self { records: ChunkedVec::new(), vacant: NONE, len: 0 }
    }

    /// Whether all numbers are in use.
    pub(super) const fn is_full(&self) -> bool {
        self.len >= RECORDS_MAX
    }

    /// Stores a record under a vacant number, whose generation is kept.
    pub(super) fn insert(&mut self, record: LockRecord) -> u32 {
        self.len += 1;
        if self.vacant == NONE {
            self.records.push(record);
            return (self.records.len() - 1) as u32;
        }
        let number = self.vacant;
        let slot = &mut self.records[number];
        self.vacant = slot.queue.next;
        *slot = LockRecord { generation: slot.generation, ..record };
        number
    }

    /// Removes a record that is in no list any more.
    pub(super) fn remove(&mut self, number: u32) {
        let slot = &mut self.records[number];
        debug_assert_ne!(slot.stage, RecordStage::Vacant);
        let generation = slot.generation.wrapping_add(1);
        let queue = ListLinks { next: self.vacant, ..ListLinks::NONE };
        *slot = LockRecord { generation, queue, ..LockRecord::default() };
        self.vacant = number;
        self.len -= 1;
    }

    /// The id of a record, in the table with this shard number.
    pub(super) fn ticket(&self, shard: u8, number: u32) -> WaiterId {
        WaiterId::new(shard, number, self.records[number].generation)
    }

    /// The record that a ticket identifies, if it still exists.
    pub(super) fn find(&self, ticket: WaiterId) -> Option<u32> {
        let number = ticket.record();
        let known = (number as usize) < self.records.len()
            && self.records[number].stage != RecordStage::Vacant
            && self.ticket(ticket.shard() as u8, number) == ticket;
        known.then_some(number)
    }

    /// The number of records, and the highest number of records so far.
    #[cfg(test)]
    pub(super) const fn len_and_peak(&self) -> (usize, usize) {
        (self.len, self.records.len())
    }
}

impl Index<u32> for RecordTable {
    type Output = LockRecord;

    #[inline]
    fn index(&self, number: u32) -> &LockRecord {
        &self.records[number]
    }
}

impl IndexMut<u32> for RecordTable {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut LockRecord {
        &mut self.records[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reused_number_gets_another_waiter_id() {
        let mut records = RecordTable::new();
        let queued = LockRecord { stage: RecordStage::Queued, ..LockRecord::default() };
        let (first, second) = (records.insert(queued), records.insert(queued));
        let ticket = records.ticket(3, first);
        assert_eq!((first, second, records.find(ticket)), (0, 1, Some(0)));
        records.remove(first);
        assert_eq!(records.find(ticket), None);
        assert_eq!(records.insert(queued), first);
        assert_eq!(records.find(ticket), None, "another record has this number now");
        assert_eq!(records.find(WaiterId::new(3, 2, 0)), None, "no record ever had this number");
        assert_eq!(records.len_and_peak(), (2, 2));
    }
}
