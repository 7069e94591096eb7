//! The parameters and results of the lock table, as plain values.

use crate::id::{ConnectionId, Grant, LockKey, Owner};
use crate::limits::LOCK_MS_MAX;

/// The limits and defaults of a lock table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockSettings {
    /// The lease of a request that asks for 0, in milliseconds; at least 1.
    pub default_lease_ms: u64,
    /// The maximum number of keys, whether held, waited for or idle; 0 means no limit.
    pub locks_max: u64,
    /// The maximum length of the queue of one key; 0 means no limit.
    pub waiters_max: u64,
    /// How long a key without holders and waiters is kept, in milliseconds.
    pub idle_ms: u64,
}

impl LockSettings {
    /// The lease for a request that asks for `lease_ms`; 0 means the default.
    pub(super) fn lease_ms(&self, lease_ms: u64) -> u64 {
        if lease_ms == 0 { self.default_lease_ms.clamp(1, LOCK_MS_MAX) } else { lease_ms.min(LOCK_MS_MAX) }
    }
}

/// The destination of the answer to a blocked request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReplyTo {
    /// The connection on which the request was received.
    pub connection: ConnectionId,
    /// The uid that the requester gave to the request.
    pub uid: u32,
}

/// The owner and the key of a request.
#[derive(Clone, Copy, Debug)]
pub struct OwnerKey<'a> {
    /// The owner that sends the request.
    pub owner: Owner,
    /// The key that it asks for.
    pub key: LockKey<'a>,
}

/// Identifies a blocked request until it is answered or cancelled. Values are unique, except that one may
/// repeat after the same slot was used 16 million times.
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

/// The outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockOutcome {
    /// The lock is held by the requester until the lease ends.
    Granted(Grant),
    /// The owner has joined the queue and must call `wait`.
    Queued,
    /// The request is blocked and will be answered by a [`Completion`].
    Waiting(WaiterId),
    /// The lock was not available within the wait timeout.
    Timeout,
    /// The key does not exist, and the maximum number of keys does.
    MaxLocks,
    /// The request would have to wait, but the queue has its maximum length.
    MaxWaiters,
    /// The key exists, and is used or was used recently with another limit.
    LimitMismatch,
    /// The owner has enqueued for this key before, and has not called `wait` yet.
    AlreadyEnqueued,
    /// The owner has not enqueued for this key.
    NotEnqueued,
    /// The owner's turn came, and its lease ended before the owner called `wait`.
    LeaseExpired,
}

/// The answer to a request that was blocked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Completion {
    /// The connection and uid to answer.
    pub reply: ReplyTo,
    /// Identifies the request that was blocked.
    pub ticket: WaiterId,
    /// [`LockOutcome::Granted`] or [`LockOutcome::Timeout`].
    pub outcome: LockOutcome,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiter_id_keeps_its_parts() {
        let ticket = WaiterId::new(255, u32::MAX - 1, 0x0100_0007);
        assert_eq!((ticket.shard(), ticket.record()), (255, u32::MAX - 1));
        assert_eq!(ticket, WaiterId::new(255, u32::MAX - 1, 7), "24 bits of the generation are significant");
        assert_ne!(ticket, WaiterId::new(255, u32::MAX - 1, 8));
    }

    #[test]
    fn lease_is_clamped_to_bounds() {
        let settings = LockSettings { default_lease_ms: 33_000, locks_max: 0, waiters_max: 0, idle_ms: 0 };
        assert_eq!([0, 1, u64::MAX].map(|ms| settings.lease_ms(ms)), [33_000, 1, LOCK_MS_MAX]);
        let settings = LockSettings { default_lease_ms: 0, ..settings };
        assert_eq!(settings.lease_ms(0), 1, "a lease of 0 would expire at once");
    }
}
