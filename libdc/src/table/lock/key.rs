//! The keys of a table: held, waited for, or idle and not forgotten yet.
//!
//! A key is identified by a number, the index of its [`KeyEntry`]. Names of up to 22 bytes are stored in the
//! entry itself, longer ones in a separate allocation.
//!
//! One [`KeyCount`] counts the keys of all shards, so that the limit applies to their sum.
//!
//! Nothing here panics on the number of an existing key.

use super::record::NONE;
use crate::table::chunked_vec::ChunkedVec;
use crate::table::expiry::ExpiryRank;
use crate::table::hash_index::{ENTRIES_MAX, HashIndex};
use std::ops::{Index as Indexed, IndexMut};
use std::sync::atomic::{AtomicU64, Ordering};

/// The longest name stored in the entry, in bytes.
const SHORT_BYTES_MAX: usize = 22;

/// The bytes of a key.
enum KeyName {
    Short { len: u8, bytes: [u8; SHORT_BYTES_MAX] },
    Long(Box<[u8]>),
}

impl KeyName {
    fn new(name: &[u8]) -> Self {
        let mut bytes = [0; SHORT_BYTES_MAX];
        match bytes.get_mut(..name.len()) {
            Some(start) => {
                start.copy_from_slice(name);
                Self::Short { len: name.len() as u8, bytes }
            }
            None => Self::Long(name.into()),
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => &bytes[..usize::from(*len).min(SHORT_BYTES_MAX)],
            Self::Long(bytes) => bytes,
        }
    }
}

/// The state of a key, in one cache line.
#[repr(align(64))]
pub(super) struct KeyEntry {
    name: KeyName,
    /// The next due event: a deadline of a record, the end of a hold-off, or the time to forget the key.
    pub(super) soonest: ExpiryRank,
    /// The maximum number of holders; 0 marks a vacant number.
    pub(super) limit: u32,
    pub(super) holders: u32,
    pub(super) waiters: u32,
    /// Missed turns that are not reported yet.
    pub(super) lapsed: u32,
    /// The record of the holder, if the limit is 1.
    pub(super) holder: u32,
    /// The first record of the queue.
    pub(super) first: u32,
    pub(super) last: u32,
    /// The root of the heap of deadlines.
    pub(super) root: u32,
}

const _: () = assert!(size_of::<KeyEntry>() == 64, "the documentation states the memory of a key");

impl Default for KeyEntry {
    fn default() -> Self {
        Self {
            name: KeyName::Short { len: 0, bytes: [0; SHORT_BYTES_MAX] },
            soonest: ExpiryRank::NEVER,
            limit: 0,
            holders: 0,
            waiters: 0,
            lapsed: 0,
            holder: NONE,
            first: NONE,
            last: NONE,
            root: NONE,
        }
    }
}

impl KeyEntry {
    pub(super) fn name(&self) -> &[u8] {
        self.name.as_bytes()
    }

    pub(super) const fn is_lock(&self) -> bool {
        self.limit == 1
    }

    /// Whether only its name and limit are stored.
    pub(super) const fn is_idle(&self) -> bool {
        self.limit > 0 && self.holders == 0 && self.waiters == 0 && self.lapsed == 0
    }
}

/// The number of keys in all shards together, and its limit.
#[derive(Debug)]
pub(super) struct KeyCount {
    known: AtomicU64,
    max: u64,
}

impl KeyCount {
    /// A count of zero; `max` is the limit, and 0 means no limit.
    pub(super) const fn new(max: u64) -> Self {
        Self { known: AtomicU64::new(0), max: if max == 0 { u64::MAX } else { max } }
    }

    // The counter is exact by itself, and no other data depends on it: relaxed ordering is enough.

    /// Whether the limit allows one more key.
    pub(super) fn has_capacity(&self) -> bool {
        self.known.load(Ordering::Relaxed) < self.max
    }

    /// Counts one more key, if the limit allows it.
    fn acquire(&self) -> bool {
        let more = |known: u64| (known < self.max).then_some(known + 1);
        self.known.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    fn give_back(&self) {
        self.known.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The keys of a table.
pub(super) struct KeyTable {
    index: HashIndex,
    /// By the number that the index assigned.
    entries: ChunkedVec<KeyEntry>,
}

impl KeyTable {
    pub(super) fn new() -> Self {
        Self { index: HashIndex::new(), entries: ChunkedVec::new() }
    }

    pub(super) const fn len(&self) -> u32 {
        self.index.len()
    }

    /// One more than the highest number assigned so far.
    pub(super) const fn numbers_end(&self) -> u32 {
        self.entries.len() as u32
    }

    /// The number of the key with this name.
    #[inline]
    pub(super) fn find(&self, hash: u32, name: &[u8]) -> Option<u32> {
        self.index.find(hash, |number| self.entries[number].name() == name)
    }

    /// Whether another key can be inserted.
    pub(super) fn has_capacity(&self, count: &KeyCount) -> bool {
        self.len() < ENTRIES_MAX && count.has_capacity()
    }

    /// Inserts a new key, if the limits allow it.
    pub(super) fn insert(&mut self, count: &KeyCount, hash: u32, name: &[u8], limit: u32) -> Option<u32> {
        if self.len() >= ENTRIES_MAX || !count.acquire() {
            return None;
        }
        let number = self.index.insert(hash);
        self.entries.set_or_push(number, KeyEntry { name: KeyName::new(name), limit, ..KeyEntry::default() });
        Some(number)
    }

    pub(super) fn remove(&mut self, count: &KeyCount, number: u32) {
        self.index.remove(number);
        self.entries[number] = KeyEntry::default();
        count.give_back();
    }
}

impl Indexed<u32> for KeyTable {
    type Output = KeyEntry;

    #[inline]
    fn index(&self, number: u32) -> &KeyEntry {
        &self.entries[number]
    }
}

impl IndexMut<u32> for KeyTable {
    #[inline]
    fn index_mut(&mut self, number: u32) -> &mut KeyEntry {
        &mut self.entries[number]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_any_length_are_stored() {
        for len in [1, 21, 22, 23, 256] {
            let name: Vec<u8> = (0..len).map(|n| n as u8).collect();
            assert_eq!(KeyName::new(&name).as_bytes(), name);
        }
        assert!(matches!(KeyName::new(&[7; 22]), KeyName::Short { .. }));
        assert!(matches!(KeyName::new(&[7; 23]), KeyName::Long(_)));
    }

    #[test]
    fn key_count_tracks_inserted_keys() {
        let count = KeyCount::new(2);
        let (mut one, mut other) = (KeyTable::new(), KeyTable::new());
        assert_eq!(one.insert(&count, 5, b"a", 1), Some(0));
        assert_eq!(other.insert(&count, 5, b"b", 1), Some(0));
        assert!(!one.has_capacity(&count));
        assert_eq!(one.insert(&count, 5, b"c", 1), None);
        assert_eq!((one.find(5, b"a"), one.find(5, b"b"), one.find(6, b"a")), (Some(0), None, None));
        other.remove(&count, 0);
        assert_eq!(one.insert(&count, 5, b"c", 1), Some(1));
        assert_eq!((one.len(), one.numbers_end(), other.find(5, b"b")), (2, 2, None));
    }
}
