//! The number of connections and its limits, for one listener or for several together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Notify;

/// The limits of the number of connections. 0 is no limit.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnectionLimits {
    /// A connection beyond this number is accepted and closed at once.
    pub max_connections: usize,
    /// At this number of connections, new ones wait in the queue of the kernel.
    /// [`ConnectionLimiter::set_limit`] changes it.
    pub throttle: usize,
    /// As `throttle`, for the number of descriptors available to connections.
    pub descriptors: usize,
}

/// Counts connections and wakes tasks waiting for a permit. Shared by the listeners whose connections are
/// counted together.
#[derive(Debug, Default)]
pub struct ConnectionLimiter {
    max_connections: usize,
    descriptors: usize,
    limit: AtomicUsize,
    taken: AtomicUsize,
    changed: Notify,
}

impl ConnectionLimiter {
    /// A limiter with these limits and no connections.
    #[must_use]
    pub fn new(limits: ConnectionLimits) -> Self {
        Self {
            max_connections: limits.max_connections,
            descriptors: limits.descriptors,
            limit: AtomicUsize::new(limits.throttle),
            ..Self::default()
        }
    }

    /// Changes the limit above which new connections wait; 0 is no limit. Returns the number of free permits;
    /// `usize::MAX` without a limit.
    ///
    /// A higher limit admits waiting connections at once. A lower limit closes no connection: new ones wait
    /// until enough have closed.
    pub fn set_limit(&self, limit: usize) -> usize {
        self.limit.store(limit, Ordering::Relaxed);
        self.changed.notify_waiters();
        match limit {
            0 => usize::MAX,
            _ => limit.saturating_sub(self.taken()),
        }
    }

    /// The limit above which new connections wait; 0 is no limit.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.limit.load(Ordering::Relaxed)
    }

    /// The current number of connections.
    #[must_use]
    pub fn taken(&self) -> usize {
        self.taken.load(Ordering::Relaxed)
    }

    /// Counts one more connection, until the permit is dropped. The caller checks the limits.
    #[must_use]
    pub fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        self.taken.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit { places: Arc::clone(self) }
    }

    /// Whether new connections have to wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        reaches(self.taken(), self.limit())
    }

    /// Whether a new connection exceeds `max_connections` and is to be closed at once.
    #[must_use]
    pub fn is_over(&self) -> bool {
        reaches(self.taken(), self.max_connections)
    }

    /// Whether all descriptors for connections are in use.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        reaches(self.taken(), self.descriptors)
    }

    /// Waits until the limits permit a new connection. Cancel-safe.
    pub async fn room(&self) {
        loop {
            let changed = self.changed.notified();
            if !self.is_full() {
                return;
            }
            changed.await;
        }
    }

    /// Waits until a permit is dropped or the limit changes. Cancel-safe.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }
}

/// Whether `taken` is at least `limit`. 0 is no limit.
const fn reaches(taken: usize, limit: usize) -> bool {
    limit > 0 && taken >= limit
}

/// Counts one connection until it is dropped.
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
