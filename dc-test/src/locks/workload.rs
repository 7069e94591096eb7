//! The locks that a run acquires.

/// The lock workload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LockWorkload {
    pub(crate) keys: usize,
    /// How many may hold one.
    pub(crate) limit: u32,
    /// Requested lease, in milliseconds.
    pub(crate) lease_ms: u64,
    /// How long one is waited for, in milliseconds.
    pub(crate) wait_ms: u64,
    /// How long one is held, in milliseconds.
    pub(crate) hold_ms: u64,
}
