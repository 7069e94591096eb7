//! Checks the timing of an agent's reconnect attempts against the documented figures, not against those of
//! the policy.

use crate::simulation::trace::Trace;
use crate::simulation::violation::Violation;
use libdc::proto::reconnect::LinkLoss;
use libdc::time::Time;

/// Number of equal pauses in a row that cannot be due to chance.
const EQUAL_PAUSES_MAX: usize = 6;
/// Only pauses of at least this length vary by many milliseconds.
const VARIED_MS_MIN: u64 = 100;

/// The attempts of an agent process.
#[derive(Debug)]
pub(super) struct AttemptMonitor {
    agent: usize,
    retry_ms: u64,
    at_once: bool,
    up_since: Option<Time>,
    /// Number of short-lived links in a row.
    brief_links: u32,
    awaited: Option<AwaitedAttempt>,
    last_pause_ms: u64,
    equal_pauses: usize,
}

/// The next expected attempt.
#[derive(Clone, Copy, Debug)]
struct AwaitedAttempt {
    since: Time,
    leapt_ms: u64,
    least_ms: u64,
    most_ms: u64,
}

impl AttemptMonitor {
    pub(super) const fn new(agent: usize, retry_ms: u64, at_once: bool) -> Self {
        Self {
            agent,
            retry_ms,
            at_once,
            up_since: None,
            brief_links: 0,
            awaited: None,
            last_pause_ms: 0,
            equal_pauses: 0,
        }
    }

    /// Records that the link is up.
    pub(super) const fn is_up(&mut self, now: Time) {
        self.up_since = Some(now);
    }

    /// Records a failed attempt or the end of a link. `held_grace_ms` is the server's grace period while
    /// locks are held.
    pub(super) fn ended(&mut self, now: Time, held_grace_ms: Option<u64>, loss: LinkLoss, trace: &mut Trace) {
        let held_ms = |fraction: u64| held_grace_ms.map_or(u64::MAX, |grace_ms| grace_ms / fraction);
        let up_ms = self.up_since.take().map(|since| now.ms_since(since));
        let (label, least_ms, most_ms) = match up_ms {
            None => {
                let pause_ms = self.retry_ms.min(held_ms(8));
                ("attempts failed", pause_ms / 2, pause_ms * 3 / 2)
            }
            Some(up_ms) if up_ms < self.retry_ms => {
                let pause_ms = (10 << self.brief_links.min(20)).min(self.retry_ms).min(held_ms(8));
                self.brief_links += 1;
                ("links lost soon", pause_ms / 2, pause_ms * 3 / 2)
            }
            Some(_) => {
                self.brief_links = 0;
                let span_ms = self.retry_ms.min(1_000).max(self.retry_ms / 5).min(held_ms(10));
                let is_immediate = self.at_once || loss == LinkLoss::GoAway;
                ("lasting links lost", 0, if is_immediate { 0 } else { span_ms })
            }
        };
        trace.count(label, 1);
        if held_grace_ms.is_some() {
            trace.count("attempts planned while locks are held", 1);
        }
        self.awaited = Some(AwaitedAttempt { since: now, leapt_ms: 0, least_ms, most_ms });
    }

    /// The time skipped by leaps before the pause began.
    pub(super) fn set_leapt_ms(&mut self, leapt_ms: u64) {
        if let Some(awaited) = &mut self.awaited {
            awaited.leapt_ms = leapt_ms;
        }
    }

    /// Checks an attempt.
    ///
    /// # Errors
    /// A violation, if it is too soon, too late, or after the same pause as many before it.
    pub(super) fn attempt(&mut self, now: Time, leapt_ms: u64) -> Result<(), Violation> {
        let Some(awaited) = self.awaited.take() else { return Ok(()) };
        let agent = self.agent;
        let after_ms = now.ms_since(awaited.since);
        if after_ms < awaited.least_ms {
            return Err(Violation::RetriedTooSoon { agent, after_ms, least_ms: awaited.least_ms });
        }
        // Rounding may add one millisecond.
        let most_ms = awaited.most_ms + u64::from(awaited.most_ms > 0);
        if after_ms.saturating_sub(leapt_ms - awaited.leapt_ms) > most_ms {
            return Err(Violation::RetriedTooLate { agent, after_ms, most_ms });
        }
        let is_equal = after_ms == self.last_pause_ms && awaited.least_ms >= VARIED_MS_MIN / 2;
        self.equal_pauses = if is_equal { self.equal_pauses + 1 } else { 1 };
        self.last_pause_ms = after_ms;
        if self.equal_pauses > EQUAL_PAUSES_MAX {
            return Err(Violation::RetriedInStep { agent, pauses: self.equal_pauses, pause_ms: after_ms });
        }
        Ok(())
    }
}
