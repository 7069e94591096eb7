//! Pauses between restarts of a failing child, and the limit of restarts.

use libdc::time::Time;
use std::collections::VecDeque;

/// The first pause, and the one after a child that ran well.
const PAUSE_MS_MIN: u64 = 1_000;
const PAUSE_MS_MAX: u64 = 32_000;
/// A child that was ready for this long has run well.
const STABLE_MS: u64 = 10_000;
/// The time within which restarts are counted.
const WINDOW_MS: u64 = 60_000;

const _: () = assert!(PAUSE_MS_MIN < PAUSE_MS_MAX && PAUSE_MS_MAX < WINDOW_MS);

/// The restarts of the last minute, and the next pause.
#[derive(Debug)]
pub(super) struct Backoff {
    restarts_max: usize,
    restarts: VecDeque<Time>,
    pause_ms: u64,
}

impl Backoff {
    pub(super) fn new(restarts_max: usize) -> Self {
        Self { restarts_max, restarts: VecDeque::new(), pause_ms: PAUSE_MS_MIN }
    }

    /// Whether no restart has been made or planned.
    pub(super) fn is_unused(&self) -> bool {
        self.restarts.is_empty() && self.pause_ms == PAUSE_MS_MIN
    }

    /// A child has ended that was ready for `ms`.
    pub(super) fn note_run(&mut self, ms: u64) {
        if ms >= STABLE_MS {
            self.pause_ms = PAUSE_MS_MIN;
        }
    }

    /// A child is restarted.
    pub(super) fn note_restart(&mut self, now: Time) {
        self.restarts.push_back(now);
    }

    /// The pause before the next restart, in milliseconds; `None` if there were too many.
    pub(super) fn next_pause_ms(&mut self, now: Time) -> Option<u64> {
        while self.restarts.front().is_some_and(|at| now.ms_since(*at) >= WINDOW_MS) {
            self.restarts.pop_front();
        }
        if self.restarts.len() >= self.restarts_max {
            return None;
        }
        let pause_ms = self.pause_ms;
        self.pause_ms = (pause_ms * 2).min(PAUSE_MS_MAX);
        Some(pause_ms)
    }
}
