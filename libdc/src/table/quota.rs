//! Capacity within limits that several tables share.
//!
//! A session is stored only with capacity that was acquired before. The limits therefore hold at every
//! moment, not only at the end. Acquired capacity belongs to its acquirer until it is given back.
//!
//! Invariant: the acquired capacity never exceeds the limits. No locks, no panics.

use super::session::{SessionLimits, SessionTable};
use std::sync::atomic::{AtomicU64, Ordering};

/// A number of sessions and of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Quota {
    pub(super) sessions: u64,
    pub(super) bytes: u64,
}

impl Quota {
    /// The capacity that the sessions of `table` occupy.
    pub(super) const fn taken_by(table: &SessionTable) -> Self {
        Self { sessions: table.len() as u64, bytes: table.bytes() }
    }

    pub(super) const fn plus(self, other: Self) -> Self {
        Self { sessions: self.sessions + other.sessions, bytes: self.bytes + other.bytes }
    }

    /// The part of this that `other` does not cover.
    pub(super) const fn less(self, other: Self) -> Self {
        Self {
            sessions: self.sessions.saturating_sub(other.sessions),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }
}

/// The acquired part of the limits.
pub(super) struct SharedQuota {
    limits: SessionLimits,
    // Each counter is exact by itself, and no other data depends on it: relaxed ordering is enough.
    sessions: AtomicU64,
    bytes: AtomicU64,
}

impl SharedQuota {
    pub(super) const fn new(limits: SessionLimits) -> Self {
        Self { limits, sessions: AtomicU64::new(0), bytes: AtomicU64::new(0) }
    }

    /// Acquires the part of `needed` that `quota` lacks. Acquires nothing if that is not available.
    pub(super) fn top_up(&self, quota: &mut Quota, needed: Quota) -> bool {
        let lacking = needed.less(*quota);
        if !acquire(&self.sessions, lacking.sessions, self.limits.sessions_max()) {
            return false;
        }
        if !acquire(&self.bytes, lacking.bytes, self.limits.bytes_max()) {
            self.give_back(Quota { bytes: 0, ..lacking });
            return false;
        }
        *quota = quota.plus(lacking);
        true
    }

    /// Returns acquired capacity to the shared limits.
    pub(super) fn give_back(&self, quota: Quota) {
        if quota.sessions > 0 {
            self.sessions.fetch_sub(quota.sessions, Ordering::Relaxed);
        }
        if quota.bytes > 0 {
            self.bytes.fetch_sub(quota.bytes, Ordering::Relaxed);
        }
    }

    /// The total capacity acquired.
    #[cfg(test)]
    pub(super) fn taken(&self) -> Quota {
        Quota { sessions: self.sessions.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

fn acquire(taken: &AtomicU64, amount: u64, most: u64) -> bool {
    let more = |taken: u64| taken.checked_add(amount).filter(|sum| *sum <= most);
    amount == 0 || taken.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::hash_index::ENTRIES_MAX;

    const fn quota(sessions: u64, bytes: u64) -> Quota {
        Quota { sessions, bytes }
    }

    #[test]
    fn top_up_acquires_all_or_nothing() {
        let shared = SharedQuota::new(SessionLimits { sessions: 2, bytes: 100 });
        let mut mine = Quota::default();
        assert!(shared.top_up(&mut mine, quota(1, 90)));
        let mut other = Quota::default();
        assert!(!shared.top_up(&mut other, quota(1, 11)), "too few bytes are left");
        assert_eq!((other, shared.taken()), (Quota::default(), quota(1, 90)));
        assert!(shared.top_up(&mut other, quota(1, 10)));
        assert!(!shared.top_up(&mut quota(0, 1), quota(1, 1)), "too few sessions are left");
        shared.give_back(mine);
        assert_eq!(shared.taken(), quota(1, 10));
    }

    #[test]
    fn top_up_acquires_only_missing_capacity() {
        let shared = SharedQuota::new(SessionLimits { sessions: 1, bytes: 100 });
        let mut mine = Quota::default();
        assert!(shared.top_up(&mut mine, quota(1, 60)));
        assert!(shared.top_up(&mut mine, quota(1, 100)));
        assert_eq!((mine, shared.taken()), (quota(1, 100), quota(1, 100)));
        assert!(shared.top_up(&mut mine, quota(1, 5)));
        assert_eq!(mine.less(quota(1, 5)), quota(0, 95));
    }

    #[test]
    fn unlimited_quota_is_bounded_by_integer_range() {
        let shared = SharedQuota::new(SessionLimits::default());
        let mut mine = Quota::default();
        assert!(shared.top_up(&mut mine, quota(u64::from(ENTRIES_MAX), u64::MAX)));
        assert!(!shared.top_up(&mut Quota::default(), quota(1, 0)));
        assert!(!shared.top_up(&mut Quota::default(), quota(0, 1)));
    }
}
