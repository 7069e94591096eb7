//! Fences: monotonically increasing numbers that order all grants of a server.
//!
//! # What a fence guarantees
//! Of two grants, whatever their keys, the later one has the greater fence. A store can remember the greatest
//! fence it has seen and reject writes with a smaller one. Once the next holder has written, a previous
//! holder whose lease has expired can no longer write.
//!
//! Across restarts this holds only if the numbers start above all previous ones. The creator of a
//! [`FenceSource`] must ensure that, in one of two ways. A persistent epoch makes it certain. A clock is
//! correct as long as it was not set back behind the last start, and grants were on average slower than the
//! clock's numbers.
//!
//! # What it does not guarantee
//! The numbers have gaps, do not count the grants of a key, and cannot be compared between two servers.
//!
//! After 2^64 grants the numbers wrap around. Nothing here panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The source of fences; clones share one counter.
#[derive(Clone, Debug)]
pub struct FenceSource {
    last: Arc<AtomicU64>,
}

impl FenceSource {
    /// A source of fences greater than `last`.
    #[must_use]
    pub fn starting_at(last: u64) -> Self {
        Self { last: Arc::new(AtomicU64::new(last)) }
    }

    /// A fence greater than all before, on any thread.
    #[must_use]
    pub fn next(&self) -> u64 {
        // Relaxed is enough: all threads see the changes of one atomic in the same order. Two grants of one
        // key are also ordered by the lock of its table.
        self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// The last fence issued, or the initial value before the first.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fences_increase_monotonically() {
        let fences = FenceSource::starting_at(41);
        assert_eq!(fences.current(), 41);
        assert_eq!((fences.next(), fences.clone().next(), fences.next()), (42, 43, 44));
        assert_eq!(fences.current(), 44);
    }

    #[test]
    fn fence_wraps_around_without_panic() {
        assert_eq!(FenceSource::starting_at(u64::MAX).next(), 0);
    }

    #[test]
    fn threads_never_draw_equal_fences() {
        let fences = FenceSource::starting_at(0);
        let drawn: Vec<u64> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|_| scope.spawn(|| (0..1_000).map(|_| fences.next()).collect::<Vec<_>>()))
                .collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        let distinct: std::collections::BTreeSet<_> = drawn.iter().collect();
        assert_eq!((distinct.len(), fences.current()), (4_000, 4_000));
    }
}
