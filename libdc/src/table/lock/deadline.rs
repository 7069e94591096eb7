//! The deadlines of one key: the lease or wait timeout of its records that ends next.
//!
//! A pairing heap (M. Fredman, R. Sedgewick, D. Sleator, R. Tarjan, "The pairing heap: a new form of
//! self-adjusting heap", Algorithmica 1, 1986), linked through the records themselves. It needs no memory
//! besides them and no allocation, and no work for a key with a single record. Each key has a separate heap,
//! so that a key can be brought up to date alone, however many events of other keys are due.
//!
//! Insertion takes constant time, removal amortised logarithmic time: a removal that merges many siblings was
//! paid for by their insertions, and leaves half as many for the next one.
//!
//! Invariants: no child ranks before its parent; `prev` of the eldest child is the parent, `prev` of the
//! others the elder sibling. Nothing recurses, and nothing panics on numbers of records.

use super::record::{ListLinks, NONE, RecordTable};
use crate::table::expiry::ExpiryRank;

impl RecordTable {
    /// Sets the deadline of a record without one, in the heap at `root`.
    pub(super) fn schedule(&mut self, root: &mut u32, number: u32, rank: ExpiryRank) {
        let record = &mut self[number];
        debug_assert_eq!(record.rank, ExpiryRank::NEVER);
        record.rank = rank;
        *root = self.meld(*root, number);
    }

    /// Removes the deadline of a record, if it has one.
    pub(super) fn unschedule(&mut self, root: &mut u32, number: u32) {
        let record = &mut self[number];
        if record.rank == ExpiryRank::NEVER {
            return;
        }
        let (links, child) = (record.heap, record.heap_child);
        (record.rank, record.heap, record.heap_child) = (ExpiryRank::NEVER, ListLinks::NONE, NONE);
        let children = self.meld_siblings(child);
        if *root == number {
            *root = children;
            return;
        }
        let before = &mut self[links.prev];
        if before.heap_child == number {
            before.heap_child = links.next;
        } else {
            before.heap.next = links.next;
        }
        if links.next != NONE {
            self[links.next].heap.prev = links.prev;
        }
        *root = self.meld(*root, children);
    }

    /// Merges two heaps and returns the root. Roots have no siblings.
    fn meld(&mut self, one: u32, other: u32) -> u32 {
        if one == NONE || other == NONE {
            return if one == NONE { other } else { one };
        }
        let (parent, child) = if self[one].rank <= self[other].rank { (one, other) } else { (other, one) };
        let sibling = self[parent].heap_child;
        if sibling != NONE {
            self[sibling].heap.prev = child;
        }
        self[child].heap = ListLinks { prev: parent, next: sibling };
        self[parent].heap_child = child;
        parent
    }

    /// Merges a list of sibling heaps: first in pairs from first to last, then the pairs from last to first.
    fn meld_siblings(&mut self, first: u32) -> u32 {
        let mut pairs = NONE;
        let mut one = first;
        while one != NONE {
            let other = self[one].heap.next;
            let rest = if other == NONE { NONE } else { self[other].heap.next };
            self[one].heap = ListLinks::NONE;
            if other != NONE {
                self[other].heap = ListLinks::NONE;
            }
            let pair = self.meld(one, other);
            self[pair].heap.next = pairs;
            pairs = pair;
            one = rest;
        }
        let mut root = NONE;
        while pairs != NONE {
            let pair = pairs;
            pairs = std::mem::replace(&mut self[pair].heap, ListLinks::NONE).next;
            root = self.meld(root, pair);
        }
        root
    }

    /// The records of a heap, after a check of its invariants.
    #[cfg(test)]
    pub(super) fn checked_heap(&self, root: u32) -> Vec<u32> {
        let mut seen = Vec::new();
        let mut open = Vec::new();
        if root != NONE {
            assert_eq!(self[root].heap, ListLinks::NONE);
            open.push(root);
        }
        while let Some(parent) = open.pop() {
            assert_ne!(self[parent].rank, ExpiryRank::NEVER);
            seen.push(parent);
            let (mut before, mut child) = (parent, self[parent].heap_child);
            while child != NONE {
                assert_eq!(self[child].heap.prev, before);
                assert!(self[parent].rank <= self[child].rank);
                open.push(child);
                (before, child) = (child, self[child].heap.next);
            }
        }
        seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::lock::record::{LockRecord, RecordStage};
    use crate::time::Time;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn at(ms: u64, order: u32) -> ExpiryRank {
        ExpiryRank::new(Time::from_ms(ms), order)
    }

    proptest! {
        #[test]
        fn deadline_heap_matches_sorted_set(steps in prop::collection::vec((0..5u8, 0..50u64, any::<u32>()), 1..400)) {
            let mut records = RecordTable::new();
            let mut root = NONE;
            let mut model: BTreeSet<(ExpiryRank, u32)> = BTreeSet::new();
            for (order, (kind, ms, pick)) in steps.into_iter().enumerate() {
                if kind < 3 || model.is_empty() {
                    let number = records.insert(LockRecord { stage: RecordStage::Queued, ..LockRecord::default() });
                    records.schedule(&mut root, number, at(ms, order as u32));
                    model.insert((at(ms, order as u32), number));
                } else {
                    let nth = if kind == 3 { 0 } else { pick as usize % model.len() };
                    let (rank, number) = *model.iter().nth(nth).unwrap();
                    records.unschedule(&mut root, number);
                    prop_assert_eq!(records[number].rank, ExpiryRank::NEVER);
                    records.unschedule(&mut root, number);
                    records.remove(number);
                    model.remove(&(rank, number));
                }
                let first = (root != NONE).then(|| (records[root].rank, root));
                prop_assert_eq!(first, model.first().copied());
                prop_assert_eq!(records.checked_heap(root).len(), model.len());
            }
        }
    }

    #[test]
    fn deadlines_in_order_are_removed_in_order() {
        let mut records = RecordTable::new();
        let mut root = NONE;
        for n in 0..10_000u32 {
            let number = records.insert(LockRecord { stage: RecordStage::Queued, ..LockRecord::default() });
            records.schedule(&mut root, number, at(u64::from(n), 0));
        }
        for n in 0..10_000u32 {
            assert_eq!(root, n);
            records.unschedule(&mut root, n);
        }
        assert_eq!(root, NONE);
    }
}
