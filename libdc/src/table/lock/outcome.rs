//! What goes into the lock table and what comes out: plain values.

use crate::id::{ConnectionId, Grant, LockKey, Owner};
use crate::limits::LOCK_MS_MAX;

/// How a lock table behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockSettings {
    /// The lease of who asks for none, in milliseconds; at least 1.
    pub default_lease_ms: u64,
    /// Most keys known at once, held, waited for or idle; 0 is no limit.
    pub locks_max: u64,
    /// Most places in the queue of one key; 0 is no limit.
    pub waiters_max: u64,
    /// How long a key that nobody holds or waits for stays known, in milliseconds.
    pub idle_ms: u64,
}

impl LockSettings {
    /// The lease for a request that asks for `lease_ms`, 0 being none in particular.
    pub(super) fn lease_ms(&self, lease_ms: u64) -> u64 {
        if lease_ms == 0 { self.default_lease_ms.clamp(1, LOCK_MS_MAX) } else { lease_ms.min(LOCK_MS_MAX) }
    }
}

/// Where the answer to a blocked request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The connection over which it was asked.
    pub connection: ConnectionId,
    /// The number that the asker gave the request.
    pub uid: u32,
}

/// Who wants what.
#[derive(Clone, Copy, Debug)]
pub struct OwnerKey<'a> {
    /// Who.
    pub owner: Owner,
    /// What.
    pub key: LockKey<'a>,
}

/// Names a blocked request until it is answered or given up. None other ever has the same name, or only after the
/// same place was used 16 million times.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct WaiterId(u64);

impl WaiterId {
    const GENERATION_BITS: u32 = 24;

    pub(super) fn new(shard: u8, record: u32, generation: u32) -> Self {
        let generation = u64::from(generation) & ((1 << Self::GENERATION_BITS) - 1);
        Self(u64::from(shard) << 56 | generation << 32 | u64::from(record))
    }

    pub(super) const fn shard(self) -> usize {
        (self.0 >> 56) as usize
    }

    pub(super) const fn record(self) -> u32 {
        self.0 as u32
    }
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// The lock is the asker's until the lease ends.
    Granted(Grant),
    /// The asker has a place in the queue, and is to come back with `wait`.
    Queued,
    /// The request is blocked: its answer will be an [`Completion`].
    Waiting(WaiterId),
    /// Others held it, for as long as the asker was ready to wait.
    Timeout,
    /// The key is not known, and there are as many as there may be.
    MaxLocks,
    /// The asker would have to wait, and as many do as may.
    MaxWaiters,
    /// The key is in use, or was a moment ago, with another limit.
    LimitMismatch,
    /// The owner has enqueued for this key before, and not waited yet.
    AlreadyEnqueued,
    /// The owner has no enqueued place to wait for.
    NotEnqueued,
    /// The owner's turn came and its lease ended before it waited.
    LeaseExpired,
}

/// The answer to a request that was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// Where it goes.
    pub reply: ReplyTo,
    /// Which request it was.
    pub ticket: WaiterId,
    /// [`LockOutcome::Granted`] or [`LockOutcome::Timeout`].
    pub outcome: LockOutcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tickets_keep_their_parts() {
        let ticket = WaiterId::new(255, u32::MAX - 1, 0x0100_0007);
        assert_eq!((ticket.shard(), ticket.record()), (255, u32::MAX - 1));
        assert_eq!(ticket, WaiterId::new(255, u32::MAX - 1, 7), "24 bits of the generation count");
        assert_ne!(ticket, WaiterId::new(255, u32::MAX - 1, 8));
    }

    #[test]
    fn leases_are_within_bounds() {
        let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 0 };
        assert_eq!([0, 1, u64::MAX].map(|ms| settings.lease_ms(ms)), [33_000, 1, LOCK_MS_MAX]);
        let settings = LockSettings { default_lease_ms: 0, ..settings };
        assert_eq!(settings.lease_ms(0), 1, "a lease of nothing would be no grant");
    }
}
