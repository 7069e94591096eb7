//! How many connections there are, and how many there may be: of one listener, or of several together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// How many connections there may be. 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionLimits {
    /// A connection beyond this is accepted and closed at once.
    pub max_connections: usize,
    /// While there are this many, new ones wait in the system's queue. [`ConnectionLimiter::set_limit`] changes it.
    pub throttle: usize,
    /// The same, for as many as there are descriptors besides those that the program needs for itself.
    pub descriptors: usize,
}

/// Counts connections and wakes who waits for room. Shared by the listeners whose connections are counted together, and by
/// whoever changes the limit.
#[derive(Debug, Default)]
pub struct ConnectionLimiter {
    max_connections: usize,
    descriptors: usize,
    limit: AtomicUsize,
    taken: AtomicUsize,
    changed: Notify,
}

impl ConnectionLimiter {
    /// No connections yet, and as many as `limits` says.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            max_connections: limits.max_connections,
            descriptors: limits.descriptors,
            limit: AtomicUsize::new(limits.throttle),
            ..Self::default()
        }
    }

    /// From now on new connections wait while there are `limit` of them; 0 is no limit. Returns how many places are
    /// free now; `usize::MAX` if there is no limit.
    ///
    /// A higher limit lets in at once who waits. A lower one closes no connection: new ones wait until enough have ended.
    pub fn set_limit(&self, limit: usize) -> usize {
        self.limit.store(limit, Ordering::Relaxed);
        self.changed.notify_waiters();
        match limit {
            0 => usize::MAX,
            _ => limit.saturating_sub(self.taken()),
        }
    }

    /// The limit at which new connections wait; 0 is none.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// Connections at the moment.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts one more connection, until the place is dropped. Whether there is room is the caller's affair.
    #[must_use]
    pub fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        self.taken.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit { places: Arc::clone(self) }
    }

    /// Whether there are so many connections that new ones wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        reaches(self.taken(), self.limit())
    }

    /// Whether a new connection is to be closed at once.
    #[must_use]
    pub fn is_over(&self) -> bool {
        reaches(self.taken(), self.max_connections)
    }

    /// Whether no descriptor is left for a new connection.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        reaches(self.taken(), self.descriptors)
    }

    /// Waits until new connections need not wait. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_full() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until a place is freed, or the limit changed. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Whether there are `limit` connections or more. 0 is no limit.
const fn reaches(taken: usize, limit: usize) -> bool {
    limit > 0 && taken >= limit
}

/// The place of one connection.
#[derive(Debug)]
pub struct ConnectionPermit {
    places: Arc<ConnectionLimiter>,
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.places.taken.fetch_sub(1, Ordering::Release);
        self.places.changed.notify_waiters();
    }
}
