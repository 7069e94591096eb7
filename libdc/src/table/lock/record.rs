//! Records: one for each hold, each place in a queue, and each turn that was missed.
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
//! A record is in several intrusive lists at once: its owner's, the queue of its key while it waits, and the heap of
//! its key's deadlines while it has one. All links are numbers of other records.
//!
//! Invariants: a vacant record is in the chain of vacant ones and nowhere else; a record's generation grows when it
//! goes, so that a [`WaiterId`] never finds its successor. Nothing here panics on the number of a record in use.

use super::outcome::{ReplyTo, WaiterId};
use crate::id::Token;
use crate::table::chunked_vec::ChunkedVec;
use crate::table::expiry::ExpiryRank;
use std::ops::{Index, IndexMut};

/// The end of a list: not the number of anything.
pub(super) const NONE: u32 = u32::MAX;
/// Most records of a table.
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

/// How a hold came about, as far as `wait` is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Enqueued {
    /// There is nothing to wait for, any more.
    No,
    /// `enqueue` was answered with the grant.
    AtOnce,
    /// The turn came after `enqueue` was answered.
    FromQueue,
}

/// What a record stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RecordStage {
    /// Nothing.
    Vacant,
    /// A place in the queue that nobody asks about yet.
    Queued,
    /// A place in the queue of a request that is blocked.
    Waiting {
        reply: ReplyTo,
        /// Whether the place was taken by `enqueue`.
        two_phase: bool,
    },
    /// A hold.
    Held {
        token: Token,
        enqueued: Enqueued,
        /// Not to be released at the end of the claims.
        claimed: bool,
    },
    /// A turn that passed before `wait` was called.
    Lapsed,
}

/// A hold, a place in a queue, or a missed turn.
#[derive(Clone, Copy)]
pub(super) struct LockRecord {
    pub(super) stage: RecordStage,
    /// When the lease or the patience ends; [`ExpiryRank::NEVER`] if neither does.
    pub(super) rank: ExpiryRank,
    /// The lease, from each moment at which it starts.
    pub(super) lease_ms: u64,
    pub(super) owner: u32,
    pub(super) key: u32,
    /// In the list of the owner.
    pub(super) of_owner: ListLinks,
    /// In the queue of the key. `next` also chains vacant records.
    pub(super) queue: ListLinks,
    /// In the heap of the key's deadlines: `prev` is the elder sibling, or the parent of the eldest.
    pub(super) heap: ListLinks,
    pub(super) heap_child: u32,
    /// How many have been in this place before.
    pub(super) generation: u32,
}

const _: () = assert!(size_of::<LockRecord>() <= 80, "the memory that a hold takes is documented");

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
    /// Whether `enqueue` and `wait` know of it.
    pub(super) const fn is_two_phase(&self) -> bool {
        match self.stage {
            RecordStage::Queued | RecordStage::Lapsed => true,
            RecordStage::Waiting { two_phase, .. } => two_phase,
            RecordStage::Held { enqueued, .. } => !matches!(enqueued, Enqueued::No),
            RecordStage::Vacant => false,
        }
    }

    /// What proves the hold, if it is one.
    pub(super) const fn token(&self) -> Option<Token> {
        if let RecordStage::Held { token, .. } = self.stage { Some(token) } else { None }
    }
}

/// All records of a table.
pub(super) struct RecordTable {
    records: ChunkedVec<LockRecord>,
    /// The first vacant one.
    vacant: u32,
    len: usize,
}

impl RecordTable {
    pub(super) const fn new() -> Self {
        Self { records: ChunkedVec::new(), vacant: NONE, len: 0 }
    }

    /// Whether there is no number left for another.
    pub(super) const fn is_full(&self) -> bool {
        self.len >= RECORDS_MAX
    }

    /// Puts a record where there is room, keeping the generation of the place.
    pub(super) fn insert(&mut self, record: LockRecord) -> u32 {
        self.len += 1;
        if self.vacant == NONE {
            self.records.push(record);
            return (self.records.len() - 1) as u32;
        }
        let number = self.vacant;
        let place = &mut self.records[number];
        self.vacant = place.queue.next;
        *place = LockRecord { generation: place.generation, ..record };
        number
    }

    /// Takes a record out that is in no list any more.
    pub(super) fn remove(&mut self, number: u32) {
        let place = &mut self.records[number];
        debug_assert_ne!(place.stage, RecordStage::Vacant);
        let generation = place.generation.wrapping_add(1);
        let queue = ListLinks { next: self.vacant, ..ListLinks::NONE };
        *place = LockRecord { generation, queue, ..LockRecord::default() };
        self.vacant = number;
        self.len -= 1;
    }

    /// The name of a record, in a table of this number.
    pub(super) fn ticket(&self, shard: u8, number: u32) -> WaiterId {
        WaiterId::new(shard, number, self.records[number].generation)
    }

    /// The record that a ticket names, if it is still there.
    pub(super) fn find(&self, ticket: WaiterId) -> Option<u32> {
        let number = ticket.record();
        let known = (number as usize) < self.records.len()
            && self.records[number].stage != RecordStage::Vacant
            && self.ticket(ticket.shard() as u8, number) == ticket;
        known.then_some(number)
    }

    /// How many there are, and the places of all that there were at once.
    #[cfg(test)]
    pub(super) const fn len_and_places(&self) -> (usize, usize) {
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
    fn places_are_used_again_under_another_name() {
        let mut records = RecordTable::new();
        let queued = LockRecord { stage: RecordStage::Queued, ..LockRecord::default() };
        let (first, second) = (records.insert(queued), records.insert(queued));
        let ticket = records.ticket(3, first);
        assert_eq!((first, second, records.find(ticket)), (0, 1, Some(0)));
        records.remove(first);
        assert_eq!(records.find(ticket), None);
        assert_eq!(records.insert(queued), first);
        assert_eq!(records.find(ticket), None, "another record is in its place");
        assert_eq!(records.find(WaiterId::new(3, 2, 0)), None, "there never was one");
        assert_eq!(records.len_and_places(), (2, 2));
    }
}
