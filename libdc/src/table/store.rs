//! The storage of sessions: a trait for stores other than memory.
//!
//! [`ShardedSessions`](super::ShardedSessions) is the implementation in memory.

use super::session::{AddOutcome, SessionTotals};
use crate::id::SessionId;
use crate::time::Time;

/// A store of sessions.
///
/// The methods are called by threads that serve connections, between reading a request and writing its
/// answer. They must not block on I/O or on a lock that is held for long, because the thread serves no other
/// connection meanwhile. They must not panic. The time never goes back for one caller, but other threads may
/// be slightly ahead.
pub trait SessionStore: Send + Sync {
    /// Stores `session` under `id` for `timeout_ms`, unless the id is already stored.
    fn add(&self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome;

    /// Appends the session under `id` to `out`, and returns whether it exists.
    fn get(&self, now: Time, id: SessionId<'_>, out: &mut Vec<u8>) -> bool;

    /// Removes the session under `id`, and returns whether it existed.
    fn remove(&self, now: Time, id: SessionId<'_>) -> bool;

    /// Whether a session exists under `id`.
    fn have(&self, now: Time, id: SessionId<'_>) -> bool;

    /// A hint that these sessions are about to be requested.
    ///
    /// It is worthwhile for two or more ids. It affects only the time that later operations take.
    fn prefetch(&self, _ids: &[SessionId<'_>]) {}

    /// Frees the memory of some expired sessions, within a short time.
    ///
    /// Any thread should call it again at the time it returns. Sessions added later may expire before that
    /// time; they are no longer found, and their memory is freed a little late.
    fn expire(&self, now: Time) -> ExpiryStep;

    /// The counters, after an expiry pass as in [`SessionStore::expire`].
    fn totals(&self, now: Time) -> SessionTotals;
}

/// The result of an expiry pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryStep {
    /// The number of sessions removed.
    pub sessions: usize,
    /// When to run the next pass. If expired sessions are left, it is not later than the given time: serve
    /// other work, then run again. `None` if nothing is stored.
    pub next: Option<Time>,
}
