//! The session table: sessions by id, each until it expires.
//!
//! # What is promised
//! - A session that expires at `t` is not there from `t` on, to the millisecond, whether or not its memory
//!   was given back. It is not found, does not match an ADD, and does not stand in the way of one.
//! - The limits hold after every operation. When there is no room for a new session, those that would expire
//!   soonest go, of several in the same millisecond the one added first, and only as many as needed: at the
//!   limit of sessions one, at that of bytes mostly one (see below). Expired ones rank before all others. The
//!   newcomer does not go, however soon it expires; an ADD that is refused evicts nothing.
//! - Every operation is O(1) but for the queue of expiry, O(log n). No step takes longer because the table is
//!   large: nothing is ever rehashed, copied or swept as a whole.
//!
//! # What bounds a step
//! [`SessionTable::expire`] removes at most as many as it is told to. An ADD first removes up to two expired
//! ones, so that a table that nobody sweeps can't fill with them. An ADD at the byte limit removes until the
//! new session fits: one or two where sessions are of a size, at the very worst, 32 KiB into a table full of
//! sessions of three bytes, eleven thousand, in about a millisecond. To stop half-way would break the limit or
//! refuse the session; and each that goes was paid for by the ADD that stored it.
//!
//! # Memory
//! Of a session: its bytes, its id's and one more, in one allocation; an entry of 24 bytes, 16 in the index and
//! 16 in the queue. As sessions go, their bytes and the end of the queue's heap go back to the allocator, which
//! keeps most of it for the next ones; the arrays of entries, index and positions (44 bytes for each session
//! that there ever was at once) stay.
//!
//! A look-up touches four places: a bucket, its link and, while that is on its way, the entry; then the
//! data. In a table much larger than the caches that is three waits for memory, one after the other; see
//! [`SessionTable::prefetch`].
//!
//! No operation panics.

use super::chunked_vec::ChunkedVec;
use super::expiry::{ExpiryQueue, ExpiryRank};
use super::hash_index::{ENTRIES_MAX, GUESSES, HashIndex, HashedId, IdHasher};
use crate::id::SessionId;
use crate::time::Time;

/// Expired sessions that an ADD removes in passing: more than it adds.
const EXPIRED_PER_ADD: usize = 2;
/// Bytes that come from memory at once.
const CACHE_LINE: usize = 64;

/// Sessions by id, until they expire.
pub struct SessionTable {
    hasher: IdHasher,
    limits: SessionLimits,
    index: HashIndex,
    expiry: ExpiryQueue,
    /// By the number that the index gave.
    entries: ChunkedVec<SessionEntry>,
    /// Of all ids and sessions.
    bytes: u64,
    /// Sessions ever stored, modulo 2^32.
    stored: u32,
    evicted: u64,
    expired: u64,
}

/// A session. Where the number is vacant, `data` is empty.
#[derive(Default)]
struct SessionEntry {
    /// The length of the id, the id, the session.
    data: Box<[u8]>,
    expires: Time,
}

const _: () = assert!(size_of::<SessionEntry>() == 24, "the memory that a session takes is documented");

/// How much a table may hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionLimits {
    /// Most sessions; 0 is no limit.
    pub sessions: u64,
    /// Most bytes of ids and sessions together; 0 is no limit.
    pub bytes: u64,
}

impl SessionLimits {
    /// Whether this much is within the limits.
    pub(super) fn allow(self, sessions: u64, bytes: u64) -> bool {
        sessions <= self.sessions_max() && bytes <= self.bytes_max()
    }

    /// The most sessions; without a limit, as many as the index can number.
    pub(super) fn sessions_max(self) -> u64 {
        let most = u64::from(ENTRIES_MAX);
        if self.sessions == 0 { most } else { self.sessions.min(most) }
    }

    /// The most bytes.
    pub(super) const fn bytes_max(self) -> u64 {
        if self.bytes == 0 { u64::MAX } else { self.bytes }
    }
}

/// What became of an ADD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddOutcome {
    /// The session is stored, or was, if it expired at once.
    Stored {
        /// Sessions removed before their time to make room.
        evicted: usize,
    },
    /// A session with this id is there, and stays as it is.
    Matching,
    /// Id and session alone are more than the limit of bytes.
    TooLarge,
}

/// What is stored, and what left without being asked to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionTotals {
    /// Sessions stored, with those among them that expired but are not swept yet.
    pub sessions: u64,
    /// Bytes of their ids and of the sessions themselves.
    pub bytes: u64,
    /// Sessions ever removed before their time to make room.
    pub evicted: u64,
    /// Sessions ever removed because they had expired.
    pub expired: u64,
}

/// A session removed because it was the soonest to expire.
#[derive(Clone, Copy, Debug)]
pub(super) struct EvictedSession {
    /// Of id and session.
    pub(super) bytes: u64,
    /// Whether it had not expired.
    pub(super) alive: bool,
}

impl SessionTable {
    /// An empty table.
    ///
    /// `seed` should be random and secret: it is what keeps a client from choosing ids that all hash alike.
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

    /// Stores `session` under `id` for `timeout_ms`, unless there is one already.
    ///
    /// With a timeout of 0 it has expired when it is stored, so nothing is, and nothing is evicted for it.
    pub fn add(&mut self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome {
        self.add_key(now, self.hasher.key(id), session, timeout_ms)
    }

    /// The session under `id`.
    #[must_use]
    pub fn get(&self, now: Time, id: SessionId<'_>) -> Option<&[u8]> {
        self.get_key(now, self.hasher.key(id))
    }

    /// Whether there is a session under `id`.
    #[must_use]
    pub fn have(&self, now: Time, id: SessionId<'_>) -> bool {
        self.get(now, id).is_some()
    }

    /// Brings into the processor's cache what is stored under `ids`, which are about to be asked for.
    ///
    /// In a large table a look-up waits for memory three times in a row, which takes longer than all the rest
    /// of a request. Where several requests are known, this lets those waits pass at the same time.
    pub fn prefetch(&self, ids: &[SessionId<'_>]) {
        for ids in ids.chunks(GUESSES) {
            let mut hashes = [0; GUESSES];
            for (hash, id) in hashes.iter_mut().zip(ids) {
                *hash = self.hasher.key(*id).index_hash();
            }
            self.prefetch_hashes(&hashes[..ids.len()]);
        }
    }

    /// Removes the session under `id`; whether there was one.
    pub fn remove(&mut self, now: Time, id: SessionId<'_>) -> bool {
        self.remove_key(now, self.hasher.key(id))
    }

    /// Removes up to `at_most` sessions that have expired; how many it were.
    ///
    /// If fewer than `at_most`, none is left. Calling this is a matter of memory and of the totals alone.
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

    /// When the next session expires; in the past if there are expired ones that were not swept.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Time> {
        self.expiry.first().map(|(rank, _)| rank.time())
    }

    /// Sessions stored, with those among them that expired but are not swept yet: after
    /// [`SessionTable::expire`] returned less than it was allowed to, there are none of those.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.index.len() as usize
    }

    /// Whether nothing is stored.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of the ids and sessions that [`SessionTable::len`] counts.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is stored, and what was evicted and has expired so far.
    #[must_use]
    pub const fn totals(&self) -> SessionTotals {
        let Self { bytes, evicted, expired, .. } = *self;
        SessionTotals { sessions: self.len() as u64, bytes, evicted, expired }
    }

    /// As [`SessionTable::prefetch`], for up to [`GUESSES`] ids.
    pub(super) fn prefetch_hashes(&self, hashes: &[u32]) {
        let mut sum = 0;
        for number in self.index.guess(hashes) {
            // The rest of a long one comes by itself: memory read in a row is fetched ahead.
            for line in self.entries[number].data.chunks(CACHE_LINE).take(4) {
                sum ^= line[0];
            }
        }
        // What it is means nothing, but the bytes must have been read.
        std::hint::black_box(sum);
    }

    /// As [`SessionTable::add`].
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

    /// As [`SessionTable::get`].
    pub(super) fn get_key(&self, now: Time, key: HashedId<'_>) -> Option<&[u8]> {
        let entry = &self.entries[self.find(key)?];
        if entry.expires <= now {
            return None;
        }
        entry.session()
    }

    /// As [`SessionTable::remove`].
    pub(super) fn remove_key(&mut self, now: Time, key: HashedId<'_>) -> bool {
        let Some(number) = self.find_alive(now, key) else { return false };
        self.drop_entry(number);
        true
    }

    /// The answer to an ADD that needs no room; `None` if it does. Then what has expired under this id, and
    /// some that has under others, is out of the way.
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

    /// Stores a session under an id that is not there, whatever the limits say. `order` decides what is older
    /// of two that expire together.
    pub(super) fn insert(&mut self, key: HashedId<'_>, session: &[u8], expires: Time, order: u32) {
        let number = self.index.insert(key.index_hash());
        self.expiry.insert(number, ExpiryRank::new(expires, order));
        self.entries.set_or_push(number, SessionEntry::new(key.id, session, expires));
        self.bytes += cost(key.id, session);
        self.stored = self.stored.wrapping_add(1);
    }

    /// Removes the session that expires soonest; `None` if there is none.
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

    /// The rank of the session that expires soonest; [`ExpiryRank::NEVER`] if there is none.
    pub(super) fn soonest(&self) -> ExpiryRank {
        self.expiry.first().map_or(ExpiryRank::NEVER, |(rank, _)| rank)
    }

    #[inline]
    fn find(&self, key: HashedId<'_>) -> Option<u32> {
        self.index.find(key.index_hash(), |number| self.entries[number].has_id(key.id))
    }

    /// As [`SessionTable::find`], and what it finds expired it removes.
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

/// The bytes that a session counts for.
pub(super) fn cost(id: SessionId<'_>, session: &[u8]) -> u64 {
    (id.as_bytes().len() + session.len()) as u64
}

/// When a session added now expires.
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
    fn a_session_is_found_until_the_millisecond_it_expires() {
        let mut table = table(0, 0);
        assert_eq!(table.add(at(100), id(b"a"), b"one", 50), STORED);
        assert_eq!(table.get(at(149), id(b"a")), Some(&b"one"[..]));
        assert_eq!(table.add(at(149), id(b"a"), b"two", 50), AddOutcome::Matching);
        assert_eq!(table.get(at(150), id(b"a")), None);
        assert!(!table.have(at(150), id(b"a")));
        assert_eq!(table.len(), 1, "nobody swept it");
        assert_eq!(table.add(at(150), id(b"a"), b"two", 50), STORED);
        assert_eq!(table.get(at(199), id(b"a")), Some(&b"two"[..]));
        assert!(!table.remove(at(200), id(b"a")));
        assert_eq!((table.len(), table.bytes()), (0, 0));
        assert_eq!(table.totals().expired, 2);
    }

    #[test]
    fn a_timeout_of_0_stores_nothing_and_evicts_nothing() {
        let mut table = table(1, 0);
        assert_eq!(table.add(at(0), id(b"a"), b"one", 9), STORED);
        assert_eq!(table.add(at(0), id(b"b"), b"two", 0), STORED);
        assert_eq!(table.add(at(0), id(b"a"), b"two", 0), AddOutcome::Matching);
        assert!(table.have(at(0), id(b"a")) && !table.have(at(0), id(b"b")));
        assert_eq!(table.len(), 1);
    }

    #[test]
    fn at_the_limit_of_sessions_the_soonest_to_expire_goes_the_older_first() {
        let mut table = table(3, 0);
        for (name, timeout_ms) in [(b"a", 30), (b"b", 20), (b"c", 20)] {
            assert_eq!(table.add(at(0), id(name), b"x", timeout_ms), STORED);
        }
        assert_eq!(table.add(at(0), id(b"a"), b"x", 90), AddOutcome::Matching);
        assert_eq!(table.len(), 3, "a match evicts nothing");
        assert_eq!(table.add(at(0), id(b"d"), b"x", 1), AddOutcome::Stored { evicted: 1 });
        assert!(!table.have(at(0), id(b"b")), "the older one of the two that expire first");
        assert!(table.have(at(0), id(b"d")), "never the newcomer");
        assert_eq!(table.add(at(1), id(b"e"), b"x", 50), STORED, "d had expired");
        assert!(table.have(at(1), id(b"c")) && table.len() == 3);
    }

    #[test]
    fn at_the_limit_of_bytes_as_many_go_as_needed() {
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
    fn a_step_of_expiry_removes_as_many_as_it_may() {
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
    fn a_table_that_nobody_sweeps_does_not_fill_with_expired_sessions() {
        let mut table = table(0, 0);
        for n in 0..10_000u64 {
            table.add(at(n), id(&n.to_be_bytes()), b"x", 5);
        }
        assert_eq!(table.len(), 5);
    }

    #[test]
    fn the_longest_id_and_session_and_the_shortest() {
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
