//! An index from a hash to records, for look-ups by other criteria than key or owner.
//!
//! There are two uses: the record that an owner has enqueued for a key, and the holder of a semaphore by its
//! fence. The index grows in small steps, like the [`HashIndex`] that it is built on, and takes 20 bytes for
//! each record.
//!
//! A record must not be inserted twice under the same hash. Nothing here panics.

use super::record::NONE;
use crate::table::chunked_vec::ChunkedVec;
use crate::table::hash_index::{ENTRIES_MAX, HashIndex};
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use std::hash::Hasher;

/// Hashes the search criteria of lock tables with a secret seed. See
/// [`IdHasher`](crate::table::hash_index::IdHasher) for the reasons.
#[derive(Clone)]
pub(super) struct LockHasher {
    shared: SharedSeed,
    own: u64,
}

impl LockHasher {
    pub(super) const fn new(seed: [u64; 2]) -> Self {
        Self { shared: SharedSeed::from_u64(seed[0]), own: seed[1] }
    }

    /// The hash of a key: 64 bits, of which the lower half is for its index.
    #[inline]
    pub(super) fn bytes(&self, bytes: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        hasher.write(bytes);
        hasher.finish()
    }

    #[inline]
    pub(super) fn numbers(&self, one: u64, other: u64) -> u32 {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        hasher.write_u64(one);
        hasher.write_u64(other);
        hasher.finish() as u32
    }
}

pub(super) struct RecordIndex {
    index: HashIndex,
    /// The record, by the number that the index assigned.
    records: ChunkedVec<u32>,
}

impl RecordIndex {
    pub(super) fn new() -> Self {
        Self { index: HashIndex::new(), records: ChunkedVec::new() }
    }

    /// Whether all numbers are in use.
    pub(super) const fn is_full(&self) -> bool {
        self.index.len() >= ENTRIES_MAX
    }

    /// Inserts a record under a hash.
    pub(super) fn insert(&mut self, hash: u32, record: u32) {
        let number = self.index.insert(hash);
        self.records.set_or_push(number, record);
    }

    /// The record under this hash for which `matches` returns true.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        self.index.find(hash, |number| matches(self.records[number])).map(|number| self.records[number])
    }

    /// Removes a record that is under this hash.
    pub(super) fn remove(&mut self, hash: u32, record: u32) {
        if let Some(number) = self.index.find(hash, |number| self.records[number] == record) {
            self.records[number] = NONE;
            self.index.remove(number);
        }
    }

    #[cfg(test)]
    pub(super) const fn len(&self) -> u32 {
        self.index.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn record_is_found_until_removed() {
        let mut finder = RecordIndex::new();
        for record in 0..5_000 {
            finder.insert(record % 1_000, record);
        }
        assert_eq!(finder.find(7, |record| record == 3_007), Some(3_007));
        assert_eq!(finder.find(7, |record| record == 3_008), None);
        finder.remove(7, 3_007);
        finder.remove(7, 3_007);
        assert_eq!(finder.find(7, |record| record == 3_007), None);
        assert_eq!(finder.len(), 4_999);
    }

    #[test]
    fn hash_depends_on_both_numbers_and_seed() {
        let hasher = LockHasher::new([0x9e37_79b9_7f4a_7c15, 0xd1b5_4a32_d192_ed03]);
        let distinct: std::collections::BTreeSet<u32> =
            (0..10_000).map(|n| hasher.numbers(n / 100, n % 100)).collect();
        assert!(distinct.len() > 9_990, "{}", distinct.len());
        assert_ne!(hasher.numbers(1, 2), LockHasher::new([2, 2]).numbers(1, 2));
        assert_ne!(hasher.bytes(b"k"), LockHasher::new([1, 3]).bytes(b"k"));
    }
}
