//! How many connections there are, and how many there may be.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// Counts connections and wakes who waits for one to end.
#[derive(Debug, Default)]
pub struct Places {
    taken: AtomicUsize,
    freed: Notify,
}

impl Places {
    /// Counts one more connection, until the place is dropped.
    #[must_use]
    pub fn take(self: &Arc<Self>) -> Place {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Place { places: Arc::clone(self) }
    }

    /// Connections at the moment.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Waits until fewer than `limit` places are taken. Cancel-safe.
    pub async fn below(&self, limit: usize) {
        loop {
            let freed = self.freed.notified();
            if self.taken() < limit {
                return;
            }
            freed.await;
        }
    }

    /// Waits until a place is freed. Cancel-safe.
    pub async fn freed(&self) {
        self.freed.notified().await;
    }
}

/// The place of one connection.
#[derive(Debug)]
pub struct Place {
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Release);
        self.places.freed.notify_waiters();
    }
}
