//! An index from the hash of an id to the number of its entry: linear hashing (W. Litwin, "Linear hashing: a
//! new tool for file and table addressing", VLDB 1980).
//!
//! A hash table that doubles moves all its entries in one step. Here the number of buckets grows by one at a
//! time. Each insertion splits at most two buckets, always the next in sequence, so that a step takes the
//! same short time at any size. A bucket is a chain of entries with the same lower bits.
//!
//! The index also assigns the entries' numbers, from 0 and without gaps. Other data of an entry is stored in
//! arrays indexed by that number; vacant numbers are reused before a new one is assigned. The index takes 16
//! bytes for each entry: two buckets, 32 bits of hash and a link. Chains are walked and split without reading
//! anything else.
//!
//! Invariants: there are twice as many buckets as the maximum number of entries so far (at least one); every
//! entry is exactly once in the chain of its hash's bucket; every number is in a chain or in the vacant list.
//! Nothing here panics on a number that is in use. Equal hashes cost time in proportion to their number, but
//! nothing else: see [`IdHasher`] for why they are rare.
//! time, in proportion to how many there are, but nothing else: see [`IdHasher`] for why they are rare.

use super::chunked_vec::ChunkedVec;
use crate::id::SessionId;
use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;
use std::hash::Hasher;

/// The end of a chain: never the number of an entry.
const NONE: u32 = u32::MAX;
/// The maximum number of entries, limited by the numbering of their buckets.
pub(super) const ENTRIES_MAX: u32 = NONE / BUCKETS_PER_ENTRY;

/// With two, most chains have one entry or none. With one, for 4 bytes less, removals and failed look-ups
/// took half as long again, and successful look-ups a tenth longer.
const BUCKETS_PER_ENTRY: u32 = 2;

/// Look-ups that [`HashIndex::guess`] overlaps: about as many memory accesses as a processor has in flight.
pub(super) const GUESSES: usize = 16;

/// Finds entries by their hash, and assigns their numbers.
pub(super) struct HashIndex {
    buckets: ChunkedVec<u32>,
    /// Hash and chain link, by entry number.
    links: ChunkedVec<ChainNode>,
    /// The head of the vacant list, which is linked through `next`.
    vacant: u32,
    len: u32,
    /// Selects a bucket from a hash when every bucket of this round has been split.
    mask: u32,
}

#[derive(Clone, Copy, Default)]
struct ChainNode {
    hash: u32,
    next: u32,
}

impl HashIndex {
    pub(super) fn new() -> Self {
        let mut buckets = ChunkedVec::new();
        buckets.push(NONE);
        Self { buckets, links: ChunkedVec::new(), vacant: NONE, len: 0, mask: 0 }
    }

    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    /// The first entry with this hash for which `matches` returns true.
    #[inline]
    pub(super) fn find(&self, hash: u32, mut matches: impl FnMut(u32) -> bool) -> Option<u32> {
        let mut number = self.buckets[self.bucket(hash)];
        while number != NONE {
            let link = self.links[number];
            if link.hash == hash && matches(number) {
                return Some(number);
            }
            number = link.next;
        }
        None
    }

    /// The most probable entries for up to [`GUESSES`] hashes, in no order.
    ///
    /// The look-ups overlap: all buckets are read first, then all links. The processor therefore waits for
    /// memory once or twice for all of them, instead of for each.
    pub(super) fn guess(&self, hashes: &[u32]) -> impl Iterator<Item = u32> + use<> {
        let mut guesses = [NONE; GUESSES];
        for (guess, hash) in guesses.iter_mut().zip(hashes) {
            *guess = self.buckets[self.bucket(*hash)];
        }
        for (guess, hash) in guesses.iter_mut().zip(hashes) {
            if *guess != NONE {
                let link = self.links[*guess];
                *guess = if link.hash == *hash { *guess } else { link.next };
            }
        }
        guesses.into_iter().filter(|guess| *guess != NONE)
    }

    /// Inserts an entry with this hash and returns its number. There must be fewer than [`ENTRIES_MAX`].
    pub(super) fn insert(&mut self, hash: u32) -> u32 {
        let number = if self.vacant == NONE {
            self.links.push(ChainNode::default());
            (self.links.len() - 1) as u32
        } else {
            let number = self.vacant;
            self.vacant = self.links[number].next;
            number
        };
        let bucket = self.bucket(hash);
        self.links[number] = ChainNode { hash, next: self.buckets[bucket] };
        self.buckets[bucket] = number;
        self.len += 1;
        for _ in 0..BUCKETS_PER_ENTRY {
            if (self.len * BUCKETS_PER_ENTRY) as usize > self.buckets.len() {
                self.split();
            }
        }
        number
    }

    /// Removes an entry; its number will be reused.
    pub(super) fn remove(&mut self, number: u32) {
        let ChainNode { hash, next } = self.links[number];
        let bucket = self.bucket(hash);
        let mut at = self.buckets[bucket];
        if at == number {
            self.buckets[bucket] = next;
        } else {
            while self.links[at].next != number {
                at = self.links[at].next;
            }
            self.links[at].next = next;
        }
        self.links[number].next = self.vacant;
        self.vacant = number;
        self.len -= 1;
    }

    /// Buckets past the last one have not been split off yet from those with one bit less.
    #[inline]
    fn bucket(&self, hash: u32) -> u32 {
        let bucket = hash & self.mask;
        if (bucket as usize) < self.buckets.len() { bucket } else { bucket & (self.mask >> 1) }
    }

    /// Adds a bucket and moves its entries into it from the bucket that is split.
    fn split(&mut self) {
        let new = self.buckets.len() as u32;
        if new > self.mask {
            self.mask = self.mask << 1 | 1;
        }
        let old = new & (self.mask >> 1);
        let (mut stay, mut go) = (NONE, NONE);
        let mut number = self.buckets[old];
        while number != NONE {
            let link = self.links[number];
            let chain = if link.hash & self.mask == new { &mut go } else { &mut stay };
            self.links[number].next = std::mem::replace(chain, number);
            number = link.next;
        }
        self.buckets[old] = stay;
        self.buckets.push(go);
    }
}

/// Hashes ids with a secret seed.
///
/// Ids come from applications and may be chosen by their clients. If hashes were predictable, a client could
/// choose ids that all fall into one chain. The hash is foldhash, seeded with 128 secret bits, and no answer
/// reveals a hash. It is not a cryptographic hash: an attacker timing single look-ups over a long period
/// might learn something. That could cause slow look-ups, but never wrong ones.
#[derive(Clone)]
pub(super) struct IdHasher {
    shared: SharedSeed,
    own: u64,
}

impl IdHasher {
    pub(super) const fn new(seed: [u64; 2]) -> Self {
        Self { shared: SharedSeed::from_u64(seed[0]), own: seed[1] }
    }

    #[inline]
    pub(super) fn key<'a>(&self, id: SessionId<'a>) -> HashedId<'a> {
        let mut hasher = FoldHasher::with_seed(self.own, &self.shared);
        hasher.write(id.as_bytes());
        HashedId { id, hash: hasher.finish() }
    }
}

/// An id together with its hash.
#[derive(Clone, Copy)]
pub(super) struct HashedId<'a> {
    pub(super) id: SessionId<'a>,
    hash: u64,
}

impl HashedId<'_> {
    /// The bits of the hash that an [`HashIndex`] uses.
    pub(super) const fn index_hash(self) -> u32 {
        self.hash as u32
    }

    /// Bits that the index does not use, to select one of several tables.
    pub(super) const fn table_hash(self) -> u32 {
        (self.hash >> 32) as u32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Every chain holds the entries of its bucket only, and all chains together hold the model's entries.
    fn check(index: &HashIndex, model: &BTreeMap<u32, u32>) {
        let mut seen = BTreeMap::new();
        for bucket in 0..index.buckets.len() as u32 {
            let mut number = index.buckets[bucket];
            while number != NONE {
                let link = index.links[number];
                assert_eq!(index.bucket(link.hash), bucket);
                assert_eq!(seen.insert(number, link.hash), None, "{number} is in two chains");
                number = link.next;
            }
        }
        assert_eq!(&seen, model);
        assert_eq!(index.len() as usize, model.len());
        assert!(index.buckets.len() >= model.len() * BUCKETS_PER_ENTRY as usize);
    }

    proptest! {
        #[test]
        fn index_matches_map(steps in prop::collection::vec((any::<bool>(), any::<u32>()), 1..400),
                                  hash_mask in prop::sample::select(vec![0u32, 3, 0xff, 0xffff_0000, u32::MAX])) {
            let mut index = HashIndex::new();
            let mut model: BTreeMap<u32, u32> = BTreeMap::new();
            let mut most = 0;
            for (insert, value) in steps {
                if insert || model.is_empty() {
                    let number = index.insert(value & hash_mask);
                    prop_assert_eq!(model.insert(number, value & hash_mask), None);
                    most = most.max(model.len());
                    prop_assert!((number as usize) < most, "vacant numbers are reused first");
                } else {
                    let (&number, &hash) = model.iter().nth(value as usize % model.len()).unwrap();
                    prop_assert_eq!(index.find(hash, |n| n == number), Some(number));
                    index.remove(number);
                    model.remove(&number);
                    prop_assert_eq!(index.find(hash, |n| n == number), None);
                }
            }
            check(&index, &model);
        }
    }

    #[test]
    fn find_compares_equal_hashes_only() {
        let mut index = HashIndex::new();
        let numbers: Vec<u32> = [5, 5 + (1 << 20), 5].map(|hash| index.insert(hash)).to_vec();
        let mut asked = Vec::new();
        assert_eq!(
            index.find(5, |n| {
                asked.push(n);
                false
            }),
            None
        );
        asked.sort_unstable();
        assert_eq!(asked, [numbers[0], numbers[2]]);
    }

    #[test]
    fn entries_with_equal_hashes_are_distinct() {
        let mut index = HashIndex::new();
        let numbers: Vec<u32> = (0..10_000).map(|_| index.insert(0xdead_beef)).collect();
        assert_eq!(index.find(0xdead_beef, |n| n == numbers[17]), Some(numbers[17]));
        for number in &numbers {
            index.remove(*number);
        }
        assert_eq!(index.find(0xdead_beef, |_| true), None);
        assert_eq!(index.len(), 0);
    }

    #[test]
    fn guess_finds_most_entries() {
        let mut index = HashIndex::new();
        let hashes: Vec<u32> = (1..=1_000u32).map(|n| n.wrapping_mul(0x9e37_79b9)).collect();
        assert_eq!(index.guess(&hashes[..2]).count(), 0);
        let numbers: Vec<u32> = hashes.iter().map(|hash| index.insert(*hash)).collect();
        let found =
            hashes.iter().zip(&numbers).filter(|(hash, number)| index.guess(&[**hash]).eq([**number]));
        assert!(found.count() > 950);
        assert_eq!(index.guess(&hashes).count(), GUESSES, "excess hashes are ignored");
    }

    #[test]
    fn chains_stay_short_at_every_size() {
        let hasher = IdHasher::new([1, 2]);
        let mut index = HashIndex::new();
        for n in 0..20_000u32 {
            let id = n.to_be_bytes();
            index.insert(hasher.key(SessionId::new(&id).unwrap()).index_hash());
        }
        let longest = (0..index.buckets.len() as u32)
            .map(|bucket| {
                let mut length = 0;
                let mut number = index.buckets[bucket];
                while number != NONE {
                    length += 1;
                    number = index.links[number].next;
                }
                length
            })
            .max();
        assert!(longest < Some(16), "{longest:?}");
    }

    #[test]
    fn seed_changes_every_hash() {
        let id = SessionId::new(&[7; 32]).unwrap();
        let hashes: Vec<u64> = [[1, 2], [1, 3], [2, 2]].map(|seed| IdHasher::new(seed).key(id).hash).to_vec();
        assert_ne!(hashes[0], hashes[1]);
        assert_ne!(hashes[0], hashes[2]);
        let longer = [7; 33];
        assert_ne!(IdHasher::new([1, 2]).key(SessionId::new(&longer).unwrap()).hash, hashes[0]);
    }
}
