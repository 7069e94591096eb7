//! The session table: sessions by id, each with an expiry time.
//!
//! # Guarantees
//! - A session that expires at `t` is absent from `t` on, to the millisecond, even if its memory is not freed
//!   yet. It is not found, does not match an ADD, and does not block one.
//! - The limits hold after every operation. If a new session does not fit, the sessions that expire soonest
//!   are evicted; of several in the same millisecond, the oldest. Only as many as needed are evicted: one at
//!   the session limit, mostly one at the byte limit (see below). Expired sessions rank before all others.
//!   The new session is never evicted for itself, however soon it expires, and a refused ADD evicts nothing.
//! - Every operation is O(1), except for the expiry queue, which is O(log n). No step slows down as the table
//!   grows: nothing is ever rehashed, copied or scanned as a whole.
//!
//! # Bounds of a step
//! [`SessionTable::expire`] removes at most the number of sessions it is given. An ADD first removes up to
//! two expired sessions, so that a table without expiry passes cannot fill with them. An ADD at the byte
//! limit evicts until the new session fits: one or two if sessions have similar sizes. The worst case, 32 KiB
//! into a table full of sessions of three bytes, evicts eleven thousand in about a millisecond. Stopping
//! half-way would break the limit or refuse the session. Each eviction is paid for by the ADD that stored the
//! session.
//!
//! # Memory
//! A session takes its bytes, those of its id and one more, in one allocation; an entry of 24 bytes, 16 in
//! the index and 16 in the queue. When sessions are removed, their bytes and the end of the heap go back to
//! the allocator, which keeps most of it for later sessions. The arrays of entries, index and positions (44
//! bytes for each session of the highest count so far) stay.
//!
//! A look-up reads four locations: a bucket, its link and, overlapping with that, the entry; then the data.
//! In a table much larger than the caches that is three sequential waits for memory; see
//! [`SessionTable::prefetch`].
//!
//! No operation panics.

use super::chunked_vec::ChunkedVec;
use super::expiry::{ExpiryQueue, ExpiryRank};
use super::hash_index::{ENTRIES_MAX, GUESSES, HashIndex, HashedId, IdHasher};
use crate::id::SessionId;
use crate::time::Time;

/// Expired sessions that an ADD removes: more than it adds.
const EXPIRED_PER_ADD: usize = 2;
/// The size of a transfer from memory, in bytes.
const CACHE_LINE: usize = 64;

/// Sessions by id, each with an expiry time.
pub struct SessionTable {
    hasher: IdHasher,
    limits: SessionLimits,
    index: HashIndex,
    expiry: ExpiryQueue,
    /// By the number that the index assigned.
    entries: ChunkedVec<SessionEntry>,
    /// The total size of ids and sessions.
    bytes: u64,
    /// Sessions stored so far, modulo 2^32.
    stored: u32,
    evicted: u64,
    expired: u64,
}

/// An entry of the table. If the number is vacant, `data` is empty.
#[derive(Default)]
struct SessionEntry {
    /// The length of the id, the id and the session, joined.
    data: Box<[u8]>,
    expires: Time,
}

const _: () = assert!(size_of::<SessionEntry>() == 24, "the documentation states the memory of a session");

/// The capacity of a session table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// The maximum number of sessions; 0 means no limit.
    pub sessions: u64,
    /// The maximum size of ids and sessions together, in bytes; 0 means no limit.
    pub bytes: u64,
}

impl SessionLimits {
    /// Whether this number and size are within the limits.
    pub(super) fn allow(self, sessions: u64, bytes: u64) -> bool {
        sessions <= self.sessions_max() && bytes <= self.bytes_max()
    }

    /// The maximum number of sessions. Without a limit, the maximum that the index can number.
    pub(super) fn sessions_max(self) -> u64 {
        let most = u64::from(ENTRIES_MAX);
        if self.sessions == 0 { most } else { self.sessions.min(most) }
    }

    pub(super) const fn bytes_max(self) -> u64 {
        if self.bytes == 0 { u64::MAX } else { self.bytes }
    }
}

/// The outcome of an ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddOutcome {
    /// The session is stored, or has expired at once with a timeout of 0.
    Stored {
        /// The number of unexpired sessions removed to make room.
        evicted: usize,
    },
    /// A session with this id is stored and stays as it is.
    Matching,
    /// Id and session exceed the byte limit by themselves.
    TooLarge,
}

/// Counters of a session table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Sessions stored, including expired ones that are not removed yet.
    pub sessions: u64,
    /// The size of their ids and data, in bytes.
    pub bytes: u64,
    /// Sessions removed so far before their expiry, to make room.
    pub evicted: u64,
    /// Sessions removed so far because they had expired.
    pub expired: u64,
}

/// A session removed because it was the first to expire.
#[derive(Clone, Copy, Debug)]
pub(super) struct EvictedSession {
    /// The size of id and session.
    pub(super) bytes: u64,
    /// Whether it had not expired yet.
    pub(super) alive: bool,
}

impl SessionTable {
    /// An empty table.
    ///
    /// `seed` should be random and secret: it prevents clients from choosing ids with equal hashes.
    #[must_use]
    pub fn new(limits: SessionLimits, seed: [u64; 2]) -> Self {
        Self {
            hasher: IdHasher::new(seed),
            limits,
            index: HashIndex::new(),
            expiry: ExpiryQueue::new(),
            entries: ChunkedVec::new(),
            bytes: 0,
            stored: 0,
            evicted: 0,
            expired: 0,
        }
    }

    /// Stores `session` under `id` for `timeout_ms`, unless the id is already stored.
    ///
    /// A session with a timeout of 0 expires at once: nothing is stored, and nothing is evicted for it.
    pub fn add(&mut self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome {
        self.add_key(now, self.hasher.key(id), session, timeout_ms)
    }

    /// The session under `id`, if it exists.
    #[must_use]
    pub fn get(&self, now: Time, id: SessionId<'_>) -> Option<&[u8]> {
        self.get_key(now, self.hasher.key(id))
    }

    /// Whether a session exists under `id`.
    #[must_use]
    pub fn have(&self, now: Time, id: SessionId<'_>) -> bool {
        self.get(now, id).is_some()
    }

    /// Loads the entries of `ids`, which are about to be requested, into the processor's cache.
    ///
    /// In a large table a look-up waits for memory three times in sequence, longer than the rest of a request
    /// takes. If several requests are known in advance, this overlaps their waits.
    pub fn prefetch(&self, ids: &[SessionId<'_>]) {
        for ids in ids.chunks(GUESSES) {
            let mut hashes = [0; GUESSES];
            for (hash, id) in hashes.iter_mut().zip(ids) {
                *hash = self.hasher.key(*id).index_hash();
            }
            self.prefetch_hashes(&hashes[..ids.len()]);
        }
    }

    /// Removes the session under `id`, and returns whether it existed.
    pub fn remove(&mut self, now: Time, id: SessionId<'_>) -> bool {
        self.remove_key(now, self.hasher.key(id))
    }

    /// Removes up to `at_most` expired sessions, and returns their number.
    ///
    /// A result below `at_most` means that no expired session is left. Only memory and totals are affected.
    pub fn expire(&mut self, now: Time, at_most: usize) -> usize {
        for removed in 0..at_most {
            match self.expiry.first() {
                Some((rank, number)) if rank.time() <= now => {
                    self.drop_entry(number);
                    self.expired += 1;
                }
                _ => return removed,
            }
        }
        at_most
    }

    /// When the next session expires. In the past if expired sessions are not removed yet.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiry.first().map(|(rank, _)| rank.time())
    }

    /// Sessions stored, including expired ones that are not removed yet. None of those remain after
    /// [`SessionTable::expire`] returned less than its limit.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.index.len() as usize
    }

    /// Whether the table stores no session.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The size of the ids and sessions that [`SessionTable::len`] counts, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Counters of the sessions stored, evicted and expired.
    #[must_use]
    pub const fn totals(&self) -> SessionTotals {
        let Self { bytes, evicted, expired, .. } = *self;
        SessionTotals { sessions: self.len() as u64, bytes, evicted, expired }
    }

    /// As [`SessionTable::prefetch`], for up to [`GUESSES`] ids.
    pub(super) fn prefetch_hashes(&self, hashes: &[u32]) {
        let mut sum = 0;
        for number in self.index.guess(hashes) {
            // The rest of a long session is fetched ahead by the hardware, since it is read sequentially.
            for line in self.entries[number].data.chunks(CACHE_LINE).take(4) {
                sum ^= line[0];
            }
        }
        // The value is meaningless, but the bytes must actually be read.
        std::hint::black_box(sum);
    }

    /// See [`SessionTable::add`].
    pub(super) fn add_key(
        &mut self,
        now: Time,
        key: HashedId<'_>,
        session: &[u8],
        timeout_ms: u32,
    ) -> AddOutcome {
        let bytes = cost(key.id, session);
        if !self.limits.allow(1, bytes) {
            return AddOutcome::TooLarge;
        }
        let expires = expiry(now, timeout_ms);
        if let Some(added) = self.prepare(now, key, expires) {
            return added;
        }
        let mut evicted = 0;
        while !self.limits.allow(self.len() as u64 + 1, self.bytes + bytes) {
            let Some(removed) = self.evict(now) else { break };
            evicted += usize::from(removed.alive);
        }
        self.insert(key, session, expires, self.stored);
        AddOutcome::Stored { evicted }
    }

    /// See [`SessionTable::get`].
    pub(super) fn get_key(&self, now: Time, key: HashedId<'_>) -> Option<&[u8]> {
        let entry = &self.entries[self.find(key)?];
        if entry.expires <= now {
            return None;
        }
        entry.session()
    }

    /// See [`SessionTable::remove`].
    pub(super) fn remove_key(&mut self, now: Time, key: HashedId<'_>) -> bool {
        let Some(number) = self.find_alive(now, key) else { return false };
        self.drop_entry(number);
        true
    }

    /// The outcome of an ADD that needs no capacity; `None` if it needs some. In that case an expired session
    /// under this id, and some expired ones under others, have been removed.
    pub(super) fn prepare(&mut self, now: Time, key: HashedId<'_>, expires: Time) -> Option<AddOutcome> {
        if self.find_alive(now, key).is_some() {
            return Some(AddOutcome::Matching);
        }
        if expires <= now {
            return Some(AddOutcome::Stored { evicted: 0 });
        }
        self.expire(now, EXPIRED_PER_ADD);
        None
    }

    /// Stores a session under an id that is not stored, regardless of the limits. `order` decides which of
    /// two sessions that expire together is older.
    pub(super) fn insert(&mut self, key: HashedId<'_>, session: &[u8], expires: Time, order: u32) {
        let number = self.index.insert(key.index_hash());
        self.expiry.insert(number, ExpiryRank::new(expires, order));
        self.entries.set_or_push(number, SessionEntry::new(key.id, session, expires));
        self.bytes += cost(key.id, session);
        self.stored = self.stored.wrapping_add(1);
    }

    /// Removes the session that expires soonest; `None` if the table is empty.
    pub(super) fn evict(&mut self, now: Time) -> Option<EvictedSession> {
        let (rank, number) = self.expiry.first()?;
        let alive = rank.time() > now;
        if alive {
            self.evicted += 1;
        } else {
            self.expired += 1;
        }
        Some(EvictedSession { bytes: self.drop_entry(number), alive })
    }

    /// The rank of the session that expires soonest; [`ExpiryRank::NEVER`] if the table is empty.
    pub(super) fn soonest(&self) -> ExpiryRank {
        self.expiry.first().map_or(ExpiryRank::NEVER, |(rank, _)| rank)
    }

    #[inline]
    fn find(&self, key: HashedId<'_>) -> Option<u32> {
        self.index.find(key.index_hash(), |number| self.entries[number].has_id(key.id))
    }

    /// As [`SessionTable::find`], but removes an expired session that it finds.
    fn find_alive(&mut self, now: Time, key: HashedId<'_>) -> Option<u32> {
        let number = self.find(key)?;
        if self.entries[number].expires <= now {
            self.drop_entry(number);
            self.expired += 1;
            return None;
        }
        Some(number)
    }

    fn drop_entry(&mut self, number: u32) -> u64 {
        self.index.remove(number);
        self.expiry.remove(number);
        let entry = std::mem::take(&mut self.entries[number]);
        let bytes = entry.data.len() as u64 - 1;
        self.bytes -= bytes;
        bytes
    }
}

impl SessionEntry {
    fn new(id: SessionId<'_>, session: &[u8], expires: Time) -> Self {
        let id = id.as_bytes();
        let mut data = Vec::with_capacity(1 + id.len() + session.len());
        data.push(id.len() as u8);
        data.extend_from_slice(id);
        data.extend_from_slice(session);
        Self { data: data.into_boxed_slice(), expires }
    }

    #[inline]
    fn has_id(&self, id: SessionId<'_>) -> bool {
        let id = id.as_bytes();
        self.data.first() == Some(&(id.len() as u8)) && self.data.get(1..=id.len()) == Some(id)
    }

    fn session(&self) -> Option<&[u8]> {
        self.data.get(1 + usize::from(*self.data.first()?)..)
    }
}

/// The bytes that a session counts against the limit.
pub(super) fn cost(id: SessionId<'_>, session: &[u8]) -> u64 {
    (id.as_bytes().len() + session.len()) as u64
}

/// The expiry time of a session added at `now`.
pub(super) fn expiry(now: Time, timeout_ms: u32) -> Time {
    now.after_ms(u64::from(timeout_ms)).min(ExpiryRank::LATEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_ms(ms)
    }

    fn id(bytes: &[u8]) -> SessionId<'_> {
        SessionId::new(bytes).unwrap()
    }

    fn table(sessions: u64, bytes: u64) -> SessionTable {
        SessionTable::new(SessionLimits { sessions, bytes }, [1, 2])
    }

    const STORED: AddOutcome = AddOutcome::Stored { evicted: 0 };

    #[test]
    fn session_is_found_until_its_expiry_millisecond() {
        let mut table = table(0, 0);
        assert_eq!(table.add(at(100), id(b"a"), b"one", 50), STORED);
        assert_eq!(table.get(at(149), id(b"a")), Some(&b"one"[..]));
        assert_eq!(table.add(at(149), id(b"a"), b"two", 50), AddOutcome::Matching);
        assert_eq!(table.get(at(150), id(b"a")), None);
        assert!(!table.have(at(150), id(b"a")));
        assert_eq!(table.len(), 1, "no expiry pass has run");
        assert_eq!(table.add(at(150), id(b"a"), b"two", 50), STORED);
        assert_eq!(table.get(at(199), id(b"a")), Some(&b"two"[..]));
        assert!(!table.remove(at(200), id(b"a")));
        assert_eq!((table.len(), table.bytes()), (0, 0));
        assert_eq!(table.totals().expired, 2);
    }

    #[test]
    fn zero_timeout_stores_and_evicts_nothing() {
        let mut table = table(1, 0);
        assert_eq!(table.add(at(0), id(b"a"), b"one", 9), STORED);
        assert_eq!(table.add(at(0), id(b"b"), b"two", 0), STORED);
        assert_eq!(table.add(at(0), id(b"a"), b"two", 0), AddOutcome::Matching);
        assert!(table.have(at(0), id(b"a")) && !table.have(at(0), id(b"b")));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn session_limit_evicts_soonest_to_expire_then_oldest() {
        let mut table = table(3, 0);
        for (name, timeout_ms) in [(b"a", 30), (b"b", 20), (b"c", 20)] {
            assert_eq!(table.add(at(0), id(name), b"x", timeout_ms), STORED);
        }
        assert_eq!(table.add(at(0), id(b"a"), b"x", 90), AddOutcome::Matching);
        assert_eq!(table.len(), 3, "a match evicts nothing");
        assert_eq!(table.add(at(0), id(b"d"), b"x", 1), AddOutcome::Stored { evicted: 1 });
        assert!(!table.have(at(0), id(b"b")), "the older of the two that expire first");
        assert!(table.have(at(0), id(b"d")), "the new session is never evicted");
        assert_eq!(table.add(at(1), id(b"e"), b"x", 50), STORED, "d had expired");
        assert!(table.have(at(1), id(b"c")) && table.len() == 3);
    }

    #[test]
    fn byte_limit_evicts_only_as_many_as_needed() {
        let mut table = table(0, 20);
        assert_eq!(table.add(at(0), id(b"big"), &[0; 18], 10), AddOutcome::TooLarge);
        assert_eq!(table.add(at(0), id(b"big"), &[0; 17], 10), STORED);
        assert_eq!(table.add(at(0), id(b"a"), b"x", 5), AddOutcome::Stored { evicted: 1 });
        for name in [b"b", b"c", b"d", b"e", b"f", b"g", b"h", b"i", b"j"] {
            assert_eq!(table.add(at(0), id(name), b"x", 9), STORED);
        }
        assert_eq!(table.bytes(), 20);
        assert_eq!(table.add(at(0), id(b"k"), b"1234", 9), AddOutcome::Stored { evicted: 3 });
        assert_eq!((table.len(), table.bytes()), (8, 19));
        assert!(!table.have(at(0), id(b"c")) && table.have(at(0), id(b"d")));
    }

    #[test]
    fn expire_removes_at_most_its_limit() {
        let mut table = table(0, 0);
        for n in 0..10u8 {
            table.add(at(0), id(&[n]), b"x", 10);
        }
        table.add(at(0), id(b"later"), b"x", 11);
        assert_eq!(table.next_expiry(), Some(at(10)));
        assert_eq!(table.expire(at(9), 64), 0);
        assert_eq!(table.expire(at(10), 4), 4);
        assert_eq!(table.expire(at(10), 64), 6);
        assert_eq!((table.len(), table.next_expiry()), (1, Some(at(11))));
        assert_eq!(table.expire(at(11), 1), 1);
        assert!(table.is_empty() && table.next_expiry().is_none());
    }

    #[test]
    fn table_without_expiry_passes_does_not_fill_up() {
        let mut table = table(0, 0);
        for n in 0..10_000u64 {
            table.add(at(n), id(&n.to_be_bytes()), b"x", 5);
        }
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn longest_and_shortest_sessions_are_stored() {
        let mut table = table(0, 0);
        let long = [9; crate::limits::SESSION_ID_BYTES_MAX];
        let session = vec![5; crate::limits::SESSION_BYTES_MAX];
        table.add(at(0), id(&long), &session, 10);
        table.add(at(0), id(&[9]), b"", 10);
        assert_eq!(table.get(at(0), id(&long)), Some(&session[..]));
        assert_eq!(table.get(at(0), id(&[9])), Some(&b""[..]));
        assert_eq!(table.get(at(0), id(&[9, 9])), None);
        assert_eq!(table.bytes(), 64 + 32_768 + 1);
    }
}
