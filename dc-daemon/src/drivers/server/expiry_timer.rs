//! When locks and links need attention next.

use libdc::time::Time;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// The time at which the server advances its locks next. Any thread may see that it has to be earlier.
#[derive(Debug)]
pub(crate) struct ExpiryTimer {
    /// In milliseconds; `u64::MAX` is never.
    at_ms: AtomicU64,
    moved: Notify,
}

impl ExpiryTimer {
    pub(crate) fn new() -> Self {
        Self { at_ms: AtomicU64::new(u64::MAX), moved: Notify::new() }
    }

    pub(crate) fn set(&self, at: Option<Time>) {
        self.at_ms.store(at.map_or(u64::MAX, Time::as_ms), Ordering::SeqCst);
    }

    /// Whether it is early enough for an expiry at `soonest`.
    pub(crate) fn is_before(&self, soonest: Option<Time>) -> bool {
        soonest.is_none_or(|soonest| self.at_ms.load(Ordering::SeqCst) <= soonest.as_ms())
    }

    /// The locks are to be advanced soon.
    pub(crate) fn wake(&self) {
        self.moved.notify_one();
    }

    /// Waits for [`wake`](Self::wake). Cancel-safe.
    pub(crate) async fn woken(&self) {
        self.moved.notified().await;
    }
}
