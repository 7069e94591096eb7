//! Fences: the numbers that order all grants of a server.
//!
//! # What a fence guarantees
//! Of two grants, whatever their keys, the later one has the greater fence. So a store that remembers the greatest
//! fence it has seen, and refuses what comes with a smaller one, is never written to by a holder whose lease has
//! passed once its successor has written.
//!
//! Across restarts that holds if the numbers start above all that were ever given out. Who makes a [`FenceSource`]
//! sees to it: from an epoch that is kept, which is certain; or from a clock, which is right as long as the clock
//! was not set back behind the last start, and as grants came slower on the whole than the clock's numbers.
//!
//! # What it does not
//! The numbers have gaps, say nothing of how many grants there were of a key, and mean nothing between two servers.
//!
//! After 2^64 grants they would start again. Nothing here panics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The source of fences; a clone draws from the same.
#[derive(Clone, Debug)]
pub struct FenceSource {
    last: Arc<AtomicU64>,
}

impl FenceSource {
    /// Fences greater than `last`.
    #[must_use]
    pub fn starting_at(last: u64) -> Self {
        Self { last: Arc::new(AtomicU64::new(last)) }
    }

    /// A fence greater than all before, on any thread.
    #[must_use]
    pub fn next(&self) -> u64 {
        // Relaxed: all threads see the changes of one number in one order. Two grants of one key are also ordered by
        // the lock of its table.
        self.last.fetch_add(1, Ordering::Relaxed).wrapping_add(1)
    }

    /// The last fence given out; before the first, what they started at.
    #[must_use]
    pub fn current(&self) -> u64 {
        self.last.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fence_is_greater_than_those_before() {
        let fences = FenceSource::starting_at(41);
        assert_eq!(fences.current(), 41);
        assert_eq!((fences.next(), fences.clone().next(), fences.next()), (42, 43, 44));
        assert_eq!(fences.current(), 44);
    }

    #[test]
    fn the_end_of_the_numbers_is_no_panic() {
        assert_eq!(FenceSource::starting_at(u64::MAX).next(), 0);
    }

    #[test]
    fn threads_never_draw_the_same() {
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
