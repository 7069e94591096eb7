//! Entries by expiry: a priority queue that supports the removal of any element.
//!
//! An implicit d-ary min-heap (D. B. Johnson, "Priority queues with update and finding minimum spanning
//! trees", Information Processing Letters 4, 1975) of numbers that index arrays of the caller, such as the
//! entries of a table. The queue stores the heap position of each number, so that callers need not. It takes
//! 16 bytes for each element: rank, number, position.
//!
//! The first element is available in constant time; insertion and removal are O(log n). The usual insertion,
//! of the element that expires last, takes constant time.
//!
//! Invariants: no child ranks before its parent; `positions[items[p]] == p` for every position `p` of the
//! heap. A number must not be inserted twice, nor removed or changed while it is not in the queue. Otherwise
//! nothing here panics.

use super::chunked_vec::ChunkedVec;
use crate::time::Time;

/// Children of a node. Eight ranks fill a cache line.
const ARITY: u32 = 8;

/// The order of expiry: by time, and by insertion at the same time.
///
/// 44 bits of milliseconds, 557 years from the start of the clock, then 20 bits of the insertion counter.
/// Where the counter wraps around, once in a million insertions, elements of the same millisecond may be out
/// of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ExpiryRank(u64);

impl ExpiryRank {
    const ORDER_BITS: u32 = 20;
    /// The latest time that a rank can represent.
    pub(super) const LATEST: Time = Time::from_ms(u64::MAX >> Self::ORDER_BITS);
    /// A rank after that of every inserted element.
    pub(super) const NEVER: Self = Self(u64::MAX);

    /// The rank of an element that expires at `time`, at most [`ExpiryRank::LATEST`], and was inserted as
    /// number `order`.
    pub(super) fn new(time: Time, order: u32) -> Self {
        let order = u64::from(order) & ((1 << Self::ORDER_BITS) - 1);
        Self(time.min(Self::LATEST).as_ms() << Self::ORDER_BITS | order)
    }

    pub(super) const fn time(self) -> Time {
        Time::from_ms(self.0 >> Self::ORDER_BITS)
    }

    /// The rank as one number with the same order.
    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// A queue of numbers ordered by expiry.
pub(super) struct ExpiryQueue {
    /// The ranks in heap order, followed by the numbers that have them.
    ranks: ChunkedVec<u64>,
    items: ChunkedVec<u32>,
    /// The heap position of each number. Stale for numbers that are not in the queue.
    positions: ChunkedVec<u32>,
}

impl ExpiryQueue {
    pub(super) const fn new() -> Self {
        Self { ranks: ChunkedVec::new(), items: ChunkedVec::new(), positions: ChunkedVec::new() }
    }

    /// The rank and number of the element that expires first.
    #[inline]
    pub(super) fn first(&self) -> Option<(ExpiryRank, u32)> {
        if self.ranks.len() == 0 { None } else { Some((ExpiryRank(self.ranks[0]), self.items[0])) }
    }

    /// Inserts a number that is not in the queue. New numbers must be used without gaps, starting from 0.
    pub(super) fn insert(&mut self, item: u32, rank: ExpiryRank) {
        let position = self.ranks.len() as u32;
        self.ranks.push(rank.0);
        self.items.push(item);
        self.positions.set_or_push(item, position);
        self.rise(position, rank.0, item);
    }

    /// Removes a number that is in the queue.
    pub(super) fn remove(&mut self, item: u32) {
        let position = self.positions[item];
        let removed = self.ranks[position];
        let (Some(rank), Some(last)) = (self.ranks.pop(), self.items.pop()) else { return };
        if last == item {
            return;
        }
        if rank < removed {
            self.rise(position, rank, last);
        } else {
            self.sink(position, rank, last);
        }
    }

    /// Changes the rank of a number in the queue, if the new rank is earlier.
    pub(super) fn lower(&mut self, item: u32, rank: ExpiryRank) {
        let position = self.positions[item];
        if rank.0 < self.ranks[position] {
            self.rise(position, rank.0, item);
        }
    }

    /// The rank of a number in the queue.
    #[cfg(test)]
    pub(super) fn rank(&self, item: u32) -> ExpiryRank {
        ExpiryRank(self.ranks[self.positions[item]])
    }

    /// Changes the rank of a number in the queue.
    pub(super) fn change(&mut self, item: u32, rank: ExpiryRank) {
        let position = self.positions[item];
        if rank.0 < self.ranks[position] {
            self.rise(position, rank.0, item);
        } else {
            self.sink(position, rank.0, item);
        }
    }

    /// Moves an element towards the root until its parent ranks first.
    fn rise(&mut self, mut position: u32, rank: u64, item: u32) {
        while position > 0 {
            let parent = (position - 1) / ARITY;
            let above = self.ranks[parent];
            if above <= rank {
                break;
            }
            self.store_at(position, above, self.items[parent]);
            position = parent;
        }
        self.store_at(position, rank, item);
    }

    /// Moves an element towards the leaves until its children rank after it.
    fn sink(&mut self, mut position: u32, rank: u64, item: u32) {
        let len = self.ranks.len() as u64;
        loop {
            // In 64 bits, because the child index of the last positions exceeds 32 bits.
            let children = u64::from(position) * u64::from(ARITY) + 1;
            if children >= len {
                break;
            }
            let end = (children + u64::from(ARITY)).min(len) as u32;
            let mut child = children as u32;
            let mut least = self.ranks[child];
            for other in child + 1..end {
                let below = self.ranks[other];
                if below < least {
                    (child, least) = (other, below);
                }
            }
            if rank <= least {
                break;
            }
            self.store_at(position, least, self.items[child]);
            position = child;
        }
        self.store_at(position, rank, item);
    }

    fn store_at(&mut self, position: u32, rank: u64, item: u32) {
        self.ranks[position] = rank;
        self.items[position] = item;
        self.positions[item] = position;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    fn at(ms: u64, order: u32) -> ExpiryRank {
        ExpiryRank::new(Time::from_ms(ms), order)
    }

    fn check(queue: &ExpiryQueue) {
        for position in 0..queue.ranks.len() as u32 {
            assert_eq!(queue.positions[queue.items[position]], position);
            assert!(position == 0 || queue.ranks[(position - 1) / ARITY] <= queue.ranks[position]);
        }
    }

    #[test]
    fn rank_orders_by_time_then_insertion() {
        assert!(at(1, 9) < at(2, 0));
        assert!(at(2, 3) < at(2, 4));
        assert!(at(2, u32::MAX) < at(3, 0));
        assert_eq!(at(1 << 43, 7).time(), Time::from_ms(1 << 43));
        assert_eq!(at(u64::MAX, 7).time(), ExpiryRank::LATEST);
        assert!(at(u64::MAX, 7) < ExpiryRank::NEVER);
        assert_eq!(ExpiryRank::from_bits(at(5, 6).to_bits()), at(5, 6));
    }

    #[test]
    fn first_element_expires_soonest() {
        let mut queue = ExpiryQueue::new();
        assert_eq!(queue.first(), None);
        for (item, ms) in [30, 10, 20, 10].into_iter().enumerate() {
            queue.insert(item as u32, at(ms, item as u32));
        }
        let mut order = Vec::new();
        while let Some((rank, item)) = queue.first() {
            order.push((rank.time().as_ms(), item));
            queue.remove(item);
        }
        assert_eq!(order, [(10, 1), (10, 3), (20, 2), (30, 0)]);
    }

    proptest! {
        #[test]
        fn expiry_queue_matches_sorted_set(steps in prop::collection::vec((0..6u8, 0..50u64, any::<u32>()), 1..600)) {
            let mut queue = ExpiryQueue::new();
            let mut model: BTreeSet<(ExpiryRank, u32)> = BTreeSet::new();
            let mut ranks: BTreeMap<u32, ExpiryRank> = BTreeMap::new();
            let mut vacant: Vec<u32> = Vec::new();
            for (order, (kind, ms, pick)) in steps.into_iter().enumerate() {
                if kind < 2 || model.is_empty() {
                    let item = vacant.pop().unwrap_or(ranks.len() as u32);
                    let rank = at(ms, order as u32);
                    queue.insert(item, rank);
                    model.insert((rank, item));
                    ranks.insert(item, rank);
                } else if kind == 4 {
                    let (rank, item) = *model.iter().nth(pick as usize % model.len()).unwrap();
                    queue.change(item, at(ms, order as u32));
                    model.remove(&(rank, item));
                    model.insert((at(ms, order as u32), item));
                    ranks.insert(item, at(ms, order as u32));
                } else if kind == 5 {
                    let (rank, item) = *model.iter().nth(pick as usize % model.len()).unwrap();
                    let lower = rank.min(at(ms, order as u32));
                    queue.lower(item, at(ms, order as u32));
                    prop_assert_eq!(queue.rank(item), lower);
                    model.remove(&(rank, item));
                    model.insert((lower, item));
                    ranks.insert(item, lower);
                } else {
                    let nth = if kind == 2 { 0 } else { pick as usize % model.len() };
                    let (rank, item) = *model.iter().nth(nth).unwrap();
                    queue.remove(item);
                    model.remove(&(rank, item));
                    ranks.remove(&item);
                    vacant.push(item);
                }
                prop_assert_eq!(queue.first(), model.first().copied());
            }
            check(&queue);
        }
    }
}
