//! What expires next: a priority queue from which anything can be removed.
//!
//! An implicit d-ary min-heap (D. B. Johnson, "Priority queues with update and finding minimum spanning
//! trees", Information Processing Letters 4, 1975) over numbers that index arrays of the caller, such as
//! entries of a table. The queue keeps for each number where in the heap it is, so that nobody else has to. It
//! takes 16 bytes for each: rank, number, position.
//!
//! The first is known at once, inserting and removing take logarithmic time; the usual insertion, of what
//! expires last, takes constant time.
//!
//! Invariants: no child ranks before its parent; `positions[items[p]] == p` for every place of the heap.
//! A number must not be inserted twice, nor removed or changed when it is not in; else nothing here panics.

use super::chunked_vec::ChunkedVec;
use crate::time::Time;

/// Children of a node. Eight ranks are a cache line.
const ARITY: u32 = 8;

/// The order of expiry: by time, and what was inserted first at the same time.
///
/// 44 bits of milliseconds, 557 years from the start of the clock, then 20 bits of the insertions' count. So
/// where the count wraps around, once in a million, what expires in the same millisecond is out of order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ExpiryRank(u64);

impl ExpiryRank {
    const ORDER_BITS: u32 = 20;
    /// The last moment that a rank can express.
    pub(super) const LATEST: Time = Time::from_ms(u64::MAX >> Self::ORDER_BITS);
    /// Ranks after everything that is ever inserted.
    pub(super) const NEVER: Self = Self(u64::MAX);

    /// The rank of what expires at `time`, at most [`ExpiryRank::LATEST`], and was inserted as number `order`.
    pub(super) fn new(time: Time, order: u32) -> Self {
        let order = u64::from(order) & ((1 << Self::ORDER_BITS) - 1);
        Self(time.min(Self::LATEST).as_ms() << Self::ORDER_BITS | order)
    }

    /// When it expires.
    pub(super) const fn time(self) -> Time {
        Time::from_ms(self.0 >> Self::ORDER_BITS)
    }

    /// The rank as one number that orders alike.
    pub(super) const fn to_bits(self) -> u64 {
        self.0
    }

    /// The rank with these bits.
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }
}

/// A queue of numbers, soonest to expire first.
pub(super) struct ExpiryQueue {
    /// The heap's ranks, then the numbers that have them.
    ranks: ChunkedVec<u64>,
    items: ChunkedVec<u32>,
    /// By number: its place in the heap. Stale for numbers that are not in the queue.
    positions: ChunkedVec<u32>,
}

impl ExpiryQueue {
    pub(super) const fn new() -> Self {
        Self { ranks: ChunkedVec::new(), items: ChunkedVec::new(), positions: ChunkedVec::new() }
    }

    /// The soonest to expire: its rank and number.
    #[inline]
    pub(super) fn first(&self) -> Option<(ExpiryRank, u32)> {
        if self.ranks.len() == 0 { None } else { Some((ExpiryRank(self.ranks[0]), self.items[0])) }
    }

    /// Adds a number that is not in. Numbers used for the first time must come without gaps, from 0.
    pub(super) fn insert(&mut self, item: u32, rank: ExpiryRank) {
        let place = self.ranks.len() as u32;
        self.ranks.push(rank.0);
        self.items.push(item);
        self.positions.set_or_push(item, place);
        self.rise(place, rank.0, item);
    }

    /// Removes a number that is in.
    pub(super) fn remove(&mut self, item: u32) {
        let place = self.positions[item];
        let removed = self.ranks[place];
        let (Some(rank), Some(last)) = (self.ranks.pop(), self.items.pop()) else { return };
        if last == item {
            return;
        }
        if rank < removed {
            self.rise(place, rank, last);
        } else {
            self.sink(place, rank, last);
        }
    }

    /// Gives a number that is in another rank, if that is an earlier one.
    pub(super) fn lower(&mut self, item: u32, rank: ExpiryRank) {
        let place = self.positions[item];
        if rank.0 < self.ranks[place] {
            self.rise(place, rank.0, item);
        }
    }

    /// The rank of a number that is in.
    #[cfg(test)]
    pub(super) fn rank(&self, item: u32) -> ExpiryRank {
        ExpiryRank(self.ranks[self.positions[item]])
    }

    /// Gives a number that is in another rank.
    pub(super) fn change(&mut self, item: u32, rank: ExpiryRank) {
        let place = self.positions[item];
        if rank.0 < self.ranks[place] {
            self.rise(place, rank.0, item);
        } else {
            self.sink(place, rank.0, item);
        }
    }

    /// Puts what belongs at or above `place` where it ranks.
    fn rise(&mut self, mut place: u32, rank: u64, item: u32) {
        while place > 0 {
            let parent = (place - 1) / ARITY;
            let above = self.ranks[parent];
            if above <= rank {
                break;
            }
            self.place_at(place, above, self.items[parent]);
            place = parent;
        }
        self.place_at(place, rank, item);
    }

    /// Puts what belongs at or below `place` where it ranks.
    fn sink(&mut self, mut place: u32, rank: u64, item: u32) {
        let len = self.ranks.len() as u64;
        loop {
            // In 64 bits: the children of the last places would be beyond 32.
            let children = u64::from(place) * u64::from(ARITY) + 1;
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
            self.place_at(place, least, self.items[child]);
            place = child;
        }
        self.place_at(place, rank, item);
    }

    fn place_at(&mut self, place: u32, rank: u64, item: u32) {
        self.ranks[place] = rank;
        self.items[place] = item;
        self.positions[item] = place;
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
        for place in 0..queue.ranks.len() as u32 {
            assert_eq!(queue.positions[queue.items[place]], place);
            assert!(place == 0 || queue.ranks[(place - 1) / ARITY] <= queue.ranks[place]);
        }
    }

    #[test]
    fn ranks_order_by_time_then_by_insertion() {
        assert!(at(1, 9) < at(2, 0));
        assert!(at(2, 3) < at(2, 4));
        assert!(at(2, u32::MAX) < at(3, 0));
        assert_eq!(at(1 << 43, 7).time(), Time::from_ms(1 << 43));
        assert_eq!(at(u64::MAX, 7).time(), ExpiryRank::LATEST);
        assert!(at(u64::MAX, 7) < ExpiryRank::NEVER);
        assert_eq!(ExpiryRank::from_bits(at(5, 6).to_bits()), at(5, 6));
    }

    #[test]
    fn the_soonest_is_first() {
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
        fn behaves_as_a_sorted_set(steps in prop::collection::vec((0..6u8, 0..50u64, any::<u32>()), 1..600)) {
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
