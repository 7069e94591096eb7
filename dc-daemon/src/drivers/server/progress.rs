//! Reports every so many requests.

use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// Signals each time that another `every` requests were handled.
#[derive(Debug)]
pub(crate) struct ProgressSignal {
    /// 0 is never.
    every: u64,
    next: AtomicU64,
    reached: Notify,
}

impl ProgressSignal {
    pub(crate) fn new(every: u64) -> Self {
        Self { every, next: AtomicU64::new(every), reached: Notify::new() }
    }

    /// `requests` gives the number of requests handled since the start; it is not called if `every` is 0.
    pub(crate) fn advance(&self, requests: impl FnOnce() -> u64) {
        if self.every == 0 {
            return;
        }
        let requests = requests();
        let next = self.next.load(Ordering::Relaxed);
        if requests >= next {
            let passed = (requests - next) / self.every + 1;
            self.next.store(next + passed * self.every, Ordering::Relaxed);
            self.reached.notify_one();
        }
    }

    /// Waits for the next signal. For one caller. Cancel-safe.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }
}
