//! Where a server keeps its sessions: the trait, for who wants another place than memory.
//!
//! The one implementation here is [`ShardedSessions`](super::ShardedSessions).

use super::session::{AddOutcome, SessionTotals};
use crate::id::SessionId;
use crate::time::Time;

/// Where a server keeps sessions.
///
/// The methods are called by the threads that serve connections, between reading a request and writing its
/// answer. They must not block (on input, output, or a lock that is held for long), or no connection of that
/// thread is served meanwhile, and must not panic. The time never goes back for one caller, but another
/// thread's may be a little ahead.
pub trait SessionStore: Send + Sync {
    /// Stores `session` under `id` for `timeout_ms`, unless there is one already.
    fn add(&self, now: Time, id: SessionId<'_>, session: &[u8], timeout_ms: u32) -> AddOutcome;

    /// Appends the session under `id` to `out`; whether there is one.
    fn get(&self, now: Time, id: SessionId<'_>, out: &mut Vec<u8>) -> bool;

    /// Removes the session under `id`; whether there was one.
    fn remove(&self, now: Time, id: SessionId<'_>) -> bool;

    /// Whether there is a session under `id`.
    fn have(&self, now: Time, id: SessionId<'_>) -> bool;

    /// A hint that these sessions are about to be asked for, from who has read several requests at once.
    ///
    /// Pays where there are two or more. It changes nothing but the time that the operations take.
    fn prefetch(&self, _ids: &[SessionId<'_>]) {}

    /// Gives back the memory of sessions that have expired, of as many as take no long time.
    ///
    /// To be called again at the time that it names, by any thread. What was added since may expire before
    /// that time; it is not found any more, only its memory is given back a little late.
    fn expire(&self, now: Time) -> ExpiryStep;

    /// What is stored, after a step as that of [`SessionStore::expire`].
    fn totals(&self, now: Time) -> SessionTotals;
}

/// What a step of expiry did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExpiryStep {
    /// Sessions removed.
    pub sessions: usize,
    /// When there is more to do. Not later than the time given, if expired sessions are left: then serve who
    /// is waiting, and come again. `None` if nothing is stored.
    pub next: Option<Time>,
}
